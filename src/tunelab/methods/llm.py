"""`llm`: a language model behind an endpoint is asked for each text's label, with training texts as
examples.

Nothing is trained. The endpoint is the one that the user names, any with OpenAI's chat completions;
no other is ever asked. Examples are drawn from the training rows, the same number of each class.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from pydantic import Field, field_validator

from tunelab.core.details import Details
from tunelab.core.errors import TrialError
from tunelab.core.values import Split
from tunelab.core.words import counted
from tunelab.methods.label_texts import LabelDescriptions, refuse_unknown_labels
from tunelab.methods.method import Costs, Method, Outcome, Task

__all__ = [
    "METHODS",
    "LlmSettings",
]


_NOT_SAID = "an endpoint does not say how many parameters its model has"
_CHARACTERS_IN_A_TOKEN = 4  # about, of English


class LlmSettings(LabelDescriptions):
    """Settings of `llm`."""

    endpoint: str = Field(
        description="where chat completions are asked, as http://127.0.0.1:8000/v1 or "
        "https://api.openai.com/v1; its key: the environment's TUNELAB_LLM_KEY"
    )
    llm_model: str = Field(min_length=1, description="what the endpoint calls its model")
    shots: int = Field(
        8, ge=0, le=1000, description="training texts in the prompt, of all classes in turn"
    )
    instruction: str = Field(
        "Which label fits the text? Answer with the label alone.",
        min_length=1,
        description="what stands before the labels in the prompt",
    )
    text_characters: int = Field(
        8000, ge=20, description="so many characters of a text are sent, the rest is cut"
    )
    answer_tokens: int = Field(32, ge=1, le=4096, description="tokens of an answer at most")
    price_read: float | None = Field(
        None, ge=0, description="price of a million tokens that are sent, for the table"
    )
    price_written: float | None = Field(
        None, ge=0, description="price of a million tokens that are answered"
    )
    requests_at_a_time: int = Field(4, ge=1, le=64, description="texts that are asked at a time")
    request_seconds: float = Field(60.0, gt=0, le=600, description="how long an answer may take")
    request_tries: int = Field(
        5, ge=1, le=20, description="how often a server is asked that is busy or does not answer"
    )

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        from tunelab.models.chat import endpoint_fault

        expected = endpoint_fault(value)
        if expected is not None:
            raise ValueError(expected)
        return value.rstrip("/")


def sending_in_words(settings: LlmSettings, texts: Sequence[str]) -> str:
    """What is said before anybody is asked: who, how much, at what price."""
    s = settings
    shown = sum(min(len(t), s.text_characters) for t in texts)
    mean = shown / max(1, len(texts))
    sent = (shown + len(texts) * s.shots * mean) / _CHARACTERS_IN_A_TOKEN / 1e6
    price = "" if s.price_read is None else f", about {sent * s.price_read:,.2f} at the price given"
    return (
        f"llm sends {counted(len(texts), 'text')} a seed, and {counted(s.shots, 'training text')} "
        f"beside each, to {s.endpoint} (model {s.llm_model}): about {sent:,.2f} million tokens"
        f"{price}. Answers are kept: what was asked before is not asked again."
    )


def drawn_shots(train: Split, count: int, seed: int) -> tuple[int, ...]:
    """Rows of the training part for the prompt: of all classes in turn, in a drawn order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(train))
    place: dict[int, int] = {}
    turn = []
    for row in order:
        label = int(train.labels[row])
        place[label] = place.get(label, -1) + 1
        turn.append((place[label], int(row)))
    rows = [row for _, row in sorted(turn, key=lambda t: t[0])[:count]]
    return tuple(int(r) for r in rng.permutation(rows)) if rows else ()


def fit_llm(task: Task) -> Outcome:
    """Draw the examples, ask for the validation part, and see how often answers are right."""
    from tunelab.models.chat import Endpoint
    from tunelab.models.llm import LlmClassifier, Prices, Prompt, label_in

    s: LlmSettings = task.settings
    refuse_unknown_labels(s, task.label_names)
    started = time.perf_counter()
    rows = drawn_shots(task.train, s.shots, task.seeds.order)
    shots = tuple((task.train.texts[r], task.label_names[task.train.labels[r]]) for r in rows)
    prompt = Prompt(_instruction(s, task.label_names), shots, s.text_characters)
    seconds = time.perf_counter() - started
    endpoint = Endpoint(
        s.endpoint, s.llm_model, s.answer_tokens, s.request_seconds, s.request_tries
    )
    prices = Prices(s.price_read, s.price_written)
    asks = LlmClassifier(endpoint, prompt, task.label_names, s.requests_at_a_time, 1.0, prices)
    answers = asks.answers(task.validation.texts)
    named = [label_in(a.text, task.label_names) for a in answers]
    if answers and all(n is None for n in named):
        raise TrialError(
            f"{s.endpoint} (model {s.llm_model}): none of {counted(len(answers), 'answer')} names "
            f"a label; the first was {answers[0].text[:80]!r}. Expected one of "
            f"{', '.join(task.label_names[:6])}. Change instruction, or give answer_tokens more."
        )
    classifier = asks.as_sure_as(_share_right(named, task))
    return Outcome(
        classifier=classifier,
        train_seconds=seconds,
        counts=dict.fromkeys(
            ("total_parameters", "trainable_parameters", "head_parameters", "adapter_parameters")
        ),
        details=Details(
            own={
                "asked": s.endpoint,
                "answers_without_a_label": sum(n is None for n in named),
                "answers_on_validation": len(named),
            },
            training_rows=len(shots),
        ),
        reasons={
            "total_parameters": _NOT_SAID,
            **dict.fromkeys(
                ("trainable_parameters", "head_parameters", "adapter_parameters"),
                "nothing is trained",
            ),
        },
        validation_scores=classifier.scores(task.validation.texts),
    )


def _instruction(s: LlmSettings, label_names: Sequence[str]) -> str:
    told = [
        f"- {name}: {' '.join(texts)}" if (texts := s.label_descriptions.get(name)) else f"- {name}"
        for name in label_names
    ]
    return "\n".join([s.instruction, "Labels:", *told])


def _share_right(named: Sequence[int | None], task: Task) -> float:
    """How often an answer that names a label is right, as far as validation says: never certain,
    and above chance, so that the answer stays the likeliest label.
    """
    labels = task.validation.labels.tolist()
    right = sum(int(n == y) for n, y in zip(named, labels, strict=True))
    answered = sum(n is not None for n in named)
    return max(float(right + 1) / (answered + 2), 1.01 / len(task.label_names))


METHODS = (
    Method(
        "llm",
        "a language model at the endpoint that you name is asked, with training texts as examples",
        LlmSettings,
        fit_llm,
        needs_base=False,
        says_before=sending_in_words,
        # An answer takes about as long as so many operations for each word of a text.
        costs=Costs(work_per_word=3e8, bytes_per_character=4.0),
    ),
)
