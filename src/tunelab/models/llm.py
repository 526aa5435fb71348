"""A language model behind an endpoint as a Classifier: each text is asked for its label.

An answer has no probability. What its label gets is how often answers were right on validation;
the other labels share the rest. An answer that names no label says as little as one can: every
label is as likely as another.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import seal
from tunelab.core.errors import ArtifactError
from tunelab.core.values import Artifact, Cost, ScoreKind
from tunelab.models.chat import Endpoint, Message, Reply, endpoint_fault
from tunelab.models.named_numbers import as_it_was_saved

__all__ = [
    "ENDPOINT_VARIABLE",
    "LlmClassifier",
    "Prices",
    "Prompt",
    "label_in",
    "open_llm",
]


ENDPOINT_VARIABLE = "TUNELAB_LLM_ENDPOINT"
_PROMPT_FILE = "prompt.json"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What stands before a text: an `instruction`, and `shots`, training texts with their labels.

    Of a text its first `characters` are sent.
    """

    instruction: str
    shots: tuple[tuple[str, str], ...]
    characters: int

    def messages(self, text: str) -> list[Message]:
        """As a chat: the instruction, then texts and their labels in turn, then this text."""
        out = [{"role": "system", "content": self.instruction}]
        for shot, label in self.shots:
            out.append({"role": "user", "content": shot[: self.characters]})
            out.append({"role": "assistant", "content": label})
        return [*out, {"role": "user", "content": text[: self.characters]}]


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a million tokens read, and written, in whatever currency; None where it was not said."""

    read: float | None
    written: float | None

    def of(self, answers: Sequence[Reply]) -> float | None:
        """Mean price of these answers; None where a price or a server's count is missing."""
        total = 0.0
        for a in answers:
            for tokens, price in ((a.tokens_in, self.read), (a.tokens_out, self.written)):
                if tokens is None or price is None:
                    return None
                total += tokens * price / 1e6
        return total / len(answers) if answers else None


@dataclass(frozen=True, slots=True, eq=False)
class LlmClassifier:
    """`endpoint` is asked with a `prompt`, so many texts `at_a_time`. `sure`: how often an answer
    is right.
    """

    endpoint: Endpoint
    prompt: Prompt
    label_names: tuple[str, ...]
    at_a_time: int
    sure: float
    prices: Prices = Prices(None, None)
    score_kind: ScoreKind = "probability"

    def answers(self, texts: Sequence[str]) -> list[Reply]:
        """An answer for each text; equal texts are asked once. Raises what ends the first."""
        distinct = list(dict.fromkeys(texts))
        pool = ThreadPoolExecutor(self.at_a_time)
        try:
            asked = [pool.submit(self.endpoint.ask, self.prompt.messages(t)) for t in distinct]
            known = dict(zip(distinct, (a.result() for a in asked), strict=True))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return [known[t] for t in texts]

    def as_sure_as(self, share: float) -> LlmClassifier:
        """The same, with another share of answers that are right."""
        return replace(self, sure=share)

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities (n, n_classes)."""
        k = len(self.label_names)
        out = np.full((len(texts), k), 1.0 / k)
        for row, answer in enumerate(self.answers(texts)):
            label = label_in(answer.text, self.label_names)
            if label is not None:
                out[row] = (1 - self.sure) / (k - 1)
                out[row, label] = self.sure
        return out

    def cost_when_asked(self, cost: Cost, texts: Sequence[str]) -> Cost:
        """The cost of scoring texts as it was when they were asked: an answer that is kept would
        look as if it took no time.
        """
        answers = self.answers(texts)
        seconds = [a.seconds for a in answers]
        p50, p95 = (float(x) for x in np.percentile(seconds, [50, 95]))
        price = self.prices.of(answers)
        return replace(
            cost,
            texts_per_second=self.at_a_time * len(seconds) / max(sum(seconds), 1e-9),
            latency_p50_seconds=p50,
            latency_p95_seconds=p95,
            price_per_1000_texts=None if price is None else 1000 * price,
        )

    def save(self, directory: Path) -> None:
        """Write whom to ask and how; no key."""
        kept = {
            "endpoint": asdict(self.endpoint),
            "prompt": asdict(self.prompt),
            "prices": asdict(self.prices),
            "at_a_time": self.at_a_time,
            "sure": self.sure,
        }
        text = json.dumps(kept, ensure_ascii=False, indent=2)
        (directory / _PROMPT_FILE).write_text(text, encoding="utf-8")
        facts = {"kind": "llm", "label_names": list(self.label_names), "base": None}
        seal(directory, {**facts, "score_kind": self.score_kind})


def label_in(answer: str, label_names: Sequence[str]) -> int | None:
    """Which label an answer names: it is the label, but for case and marks around it, or the one
    label that stands in it as words of its own; None where that is none or several.
    """
    said = _without_marks(answer)
    names = [_without_marks(n) for n in label_names]
    for same in ([n == answer.strip() for n in label_names], [n == said for n in names]):
        if sum(same) == 1:
            return same.index(True)
    inside = [
        i for i, n in enumerate(names) if n and re.search(rf"(?<!\w){re.escape(n)}(?!\w)", said)
    ]
    # "very good" has "good" in it: the longer name is meant.
    inside = [i for i in inside if not any(i != j and names[i] in names[j] for j in inside)]
    return inside[0] if len(inside) == 1 else None


def _without_marks(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,:;!\"'`*#()[]")


def open_llm(artifact: Artifact) -> LlmClassifier:
    """Load what `save` wrote. Raises ArtifactError where it is something else, and where the user
    has not named whom to ask: a folder that comes from elsewhere sends texts to nobody.
    """
    with as_it_was_saved(artifact):
        kept = json.loads((artifact.directory / _PROMPT_FILE).read_text(encoding="utf-8"))
        endpoint, prompt = _bounded(Endpoint(**kept["endpoint"])), kept["prompt"]
        shots = tuple((str(text), str(label)) for text, label in prompt["shots"])
        classifier = LlmClassifier(
            endpoint,
            Prompt(str(prompt["instruction"]), shots, int(prompt["characters"])),
            tuple(artifact.manifest["label_names"]),
            max(1, min(64, int(kept["at_a_time"]))),
            min(1.0, max(0.0, float(kept["sure"]))),
            Prices(**kept["prices"]),
        )
    named = os.environ.get(ENDPOINT_VARIABLE, "").strip()
    if not named:
        raise ArtifactError(
            f"{artifact.directory}: asks the model {endpoint.model} at {endpoint.url}, and no "
            "server is asked that you do not name. To have it asked, set "
            f"{ENDPOINT_VARIABLE}={endpoint.url}."
        )
    if (expected := endpoint_fault(named)) is not None:
        raise ArtifactError(f"{ENDPOINT_VARIABLE}: expected {expected}, found {named!r}.")
    return replace(classifier, endpoint=replace(endpoint, url=named.rstrip("/")))


def _bounded(endpoint: Endpoint) -> Endpoint:
    """What comes from a file may make nobody wait for ever."""
    return replace(
        endpoint,
        url=str(endpoint.url),
        model=str(endpoint.model),
        most_tokens=max(1, min(4096, int(endpoint.most_tokens))),
        timeout=max(0.1, min(600.0, float(endpoint.timeout))),
        tries=max(1, min(20, int(endpoint.tries))),
    )
