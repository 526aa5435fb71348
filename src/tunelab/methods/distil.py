"""`distil` and `distil-static`: a method of the table teaches a student that costs less to run.

Knowledge distillation (Hinton et al. 2015). The teacher is any other method, trained as the study
would train it with the same seed and the same rows. The student learns its probabilities, of the
training rows and of texts made of them (`made_texts`), and the labels. A student of `distil` is the
base without its upper layers (Sajjad et al. 2023); one of `distil-static` a table of token vectors.
No text but those of the training part is used. `train_seconds` has the teacher's in it.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, ValidationError, ValidationInfo, field_validator

from tunelab.core import cache
from tunelab.core.errors import ModelError
from tunelab.core.events import Progressed, Step
from tunelab.core.values import MethodSpec, Predictions, Split
from tunelab.methods import made_texts, static
from tunelab.methods.method import Costs, Extras, Method, Outcome, Task
from tunelab.methods.settings import (
    ALIASES,
    BestEpochMetric,
    EncoderSettings,
    TrainingSettings,
)
from tunelab.methods.soft_targets import SoftTargets
from tunelab.models.bases import Base, what_computes
from tunelab.stats import calibration, metrics

__all__ = [
    "METHODS",
    "DistilSettings",
    "DistilStaticSettings",
]


# Changing what a teacher is taught must change this, or what old ones said would be read back.
_SOFT_LABELS_VERSION = 1
_WHOLE_STUDENT = "a student is trained whole, so there is no adapter"


class _Taught(EncoderSettings):
    """Settings of what is taught by another method."""

    teacher: str = Field("lora", description="the method that teaches")
    teacher_settings: dict[str, JsonValue] = Field(
        default_factory=dict, description="the teacher's own settings; its defaults when left out"
    )
    teacher_temperature: float = Field(
        2.0, ge=1, le=100, description="what scores are divided by before the student learns them"
    )
    label_share: float = Field(
        0.5, ge=0, le=1, description="of a training row's loss, the part that its label has"
    )
    made_texts: int = Field(
        4, ge=0, le=100, description="texts made of each training text, for the teacher to label"
    )

    @field_validator("teacher")
    @classmethod
    def _is_another_method(cls, value: str) -> str:
        names = _possible_teachers()
        if value not in names:
            near = difflib.get_close_matches(value.lower(), names, n=1)
            raise ValueError(f"the name of another method{f', perhaps {near[0]}' if near else ''}")
        return value

    @field_validator("teacher_settings")
    @classmethod
    def _fit_the_teacher(
        cls, value: dict[str, JsonValue], info: ValidationInfo
    ) -> dict[str, JsonValue]:
        from tunelab.methods import METHODS

        teacher = info.data.get("teacher")
        if teacher is not None:  # else that is the fault
            try:
                METHODS[teacher].settings.model_validate(value)
            except ValidationError as e:
                raise ValueError(f"settings of {teacher}, {_fault_in_words(e)}") from None
        return value


def _fault_in_words(error: ValidationError) -> str:
    """What is wrong with a teacher's settings: the first fault."""
    fault = error.errors()[0]
    name = ".".join(str(part) for part in fault["loc"][:1])
    if fault["type"] == "extra_forbidden":
        called = f" ({ALIASES[name]} is what it is called here)" if name in ALIASES else ""
        return f"which has no {name}{called}"
    if fault["type"] == "missing":
        return f"with {name}, which has to be given"
    return f"with {name} {fault['msg'].removeprefix('Input should be ')}"


def _possible_teachers() -> list[str]:
    from tunelab.methods import METHODS

    return [m.name for m in METHODS.values() if not issubclass(m.settings, _Taught)]


class DistilSettings(_Taught, TrainingSettings):
    """Settings of `distil`."""

    layers_kept: int | None = Field(
        None, ge=1, description="the lowest so many layers are the student's; half when left out"
    )
    learning_rate: float = Field(1e-4, gt=0, le=10, description="peak learning rate of AdamW")


class DistilStaticSettings(_Taught, static.StaticTunedSettings):
    """Settings of `distil-static`."""


# --- before anything is trained ---------------------------------------------------------------


def check_distil(base: Base, settings: DistilSettings) -> None:
    """Refuse a teacher that cannot run on the base, and a student with as many layers."""
    from tunelab.models import bases, usable

    _check_teacher(base, settings)
    bases.family_of(base, settings)
    usable.check_base(base, _length_or_none(settings.max_length), head=True)
    layers = base.sizes.layers
    if base.runs_its_code or layers is None:
        raise ModelError(
            f"distil cannot run on {base.ref.name}: which of its layers could be left out is not "
            "known of an architecture that transformers does not bring. Use distil-static."
        )
    if layers < 2 or (settings.layers_kept or 1) >= layers:
        raise ModelError(
            f"layers_kept: expected fewer than the {layers} layers of {base.ref.name}, found "
            f"{settings.layers_kept or 1}. With all of them, use full."
        )


def check_distil_static(base: Base, settings: DistilStaticSettings) -> None:
    """Refuse a teacher that cannot run on the base, and a tokenizer that cannot be shipped."""
    _check_teacher(base, settings)
    static.refuse_slow_tokenizer(base, settings)


def _check_teacher(base: Base, settings: _Taught) -> None:
    from tunelab.methods import check

    own = _settings_of_teacher(settings, "accuracy").model_dump(mode="json")
    check(base, MethodSpec(settings.teacher, settings.teacher, own))


def _length_or_none(limit: int | str) -> int | None:
    return limit if isinstance(limit, int) else None


def _settings_of_teacher(settings: _Taught, metric: str) -> Any:
    """As a study by this metric would have them, and the student's own where both have them."""
    from tunelab.methods import METHODS

    known = METHODS[settings.teacher].settings
    best = metric if metric in get_args(BestEpochMetric) else "loss"
    shared = {"max_length": settings.max_length, "metric_for_best_model": best}
    own = {k: v for k, v in shared.items() if k in known.model_fields}
    return known.model_validate({**own, **settings.teacher_settings})


def teacher_in_words(settings: _Taught, texts: Sequence[str]) -> str | None:
    """What the teacher says before anything runs, where it says something: whom it sends texts."""
    from tunelab.methods import METHODS

    row = METHODS[settings.teacher]
    if row.says_before is None:
        return None
    said = row.says_before(_settings_of_teacher(settings, "accuracy"), texts)
    return f"{said} As a teacher it is sent the training texts and what is made of them instead."


# --- the lesson -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Lesson:
    """The training part with the made texts behind it, and what the teacher says of all.

    `seconds`: what training the teacher and asking it took, also when it was done before
    (`from_cache`); `eval_score`: the teacher's on validation by the study's metric.
    """

    split: Split
    targets: SoftTargets
    seconds: float
    eval_score: float | None
    from_cache: bool


def _taught(task: Task) -> _Lesson:
    s: _Taught = task.settings
    train = task.train
    made = made_texts.made_of(train.texts, s.made_texts, task.seeds.order)
    texts = (*train.texts, *made)
    said, seconds, eval_score, from_cache = _said_by_teacher(task, texts)
    labels = np.concatenate([train.labels, said[len(train) :].argmax(axis=1)])
    share = np.concatenate([np.full(len(train), s.label_share), np.zeros(len(made))])
    from scipy.special import softmax

    t = s.teacher_temperature
    ids = (*train.ids, *(f"made-{i}" for i in range(len(made))))
    return _Lesson(
        Split(ids, texts, labels, ordered=train.ordered),
        SoftTargets(labels, softmax(said / t, axis=1), t, share),
        seconds,
        eval_score,
        from_cache,
    )


def _said_by_teacher(
    task: Task, texts: tuple[str, ...]
) -> tuple[NDArray[np.float64], float, float | None, bool]:
    """Logits (n, n_classes) of texts, seconds, the score on validation, whether all was kept."""
    teacher = _settings_of_teacher(task.settings, task.metric)
    folder = (
        cache.folder()
        / "teachers"
        / _key_of_soft_labels(task, teacher.model_dump(mode="json"), texts)
    )
    file, about = folder.with_suffix(".npy"), folder.with_suffix(".json")
    facts, content = cache.kept_json(about), cache.kept(file)
    if facts is not None and content is not None:
        return np.load(io.BytesIO(content)), facts["seconds"], facts["eval_score"], True
    said, seconds, eval_score = _teach(task, teacher, texts)
    buffer = io.BytesIO()
    np.save(buffer, said)
    if cache.keep(file, buffer.getvalue()) is None:
        cache.keep_json(about, {"seconds": seconds, "eval_score": eval_score}, bounded=False)
    return said, seconds, eval_score, False


def _teach(
    task: Task, settings: Any, texts: tuple[str, ...]
) -> tuple[NDArray[np.float64], float, float | None]:
    """Train the teacher and have it label texts."""
    from tunelab.methods import METHODS, fit_alone

    def only_steps(event: Progressed) -> None:
        if isinstance(event, Step):  # its scores are not the student's, whose tries they would end
            task.on_step(event)

    job = replace(task, settings=settings, on_step=only_steps, keeper=None)
    outcome = fit_alone(METHODS[task.settings.teacher], job)
    classifier, part = outcome.classifier, task.validation
    started = time.perf_counter()
    scores = classifier.scores(texts)
    seconds = outcome.train_seconds + time.perf_counter() - started
    kind, rated = classifier.score_kind, classifier.scores(part.texts)
    own = Predictions(part.ids, part.labels, rated, kind, ordered=part.ordered)
    values, _ = metrics.evaluate(own, task.label_names)
    logits = calibration.logits_at_temperature(scores, classifier.score_kind, 1.0)
    return logits, seconds, values[task.metric]


def _key_of_soft_labels(task: Task, settings: Any, texts: tuple[str, ...]) -> str:
    """A hash of all that a teacher's answers depend on."""
    base = task.base
    assert base is not None  # noqa: S101  the row says needs_base
    weights = [base.ref.sha256, base.ref.code_sha256, what_computes(base.config)]
    parts = [[p.texts, p.labels.tolist()] for p in (task.train, task.validation)]
    said = [_SOFT_LABELS_VERSION, *weights, base.tokenizer_sha256, task.settings.teacher, settings]
    said += [task.label_names, task.metric, *parts, texts]
    seeds = [task.seeds.init, task.seeds.order, task.seeds.dropout]
    text = json.dumps([said, seeds], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# --- the students -----------------------------------------------------------------------------


def fit_distil(task: Task) -> Outcome:
    """The base's lowest layers, trained towards what the teacher says."""
    from tunelab.methods import neural
    from tunelab.methods.training import stack
    from tunelab.methods.training.updates import Hooks

    def train(taught: Task, targets: SoftTargets) -> Outcome:
        extras = Extras(
            hooks=lambda *_: Hooks(row_losses=targets.row_losses), no_adapter=_WHOLE_STUDENT
        )
        prepared = neural.prepare_by_gradient(taught, _without_upper_layers, extras)
        list(stack.run_trainings([prepared.training]))
        return neural.finish_by_gradient(prepared)

    return _fit(task, train)


def fit_distil_static(task: Task) -> Outcome:
    """A table of token vectors, trained towards what the teacher says."""
    return _fit(task, lambda taught, targets: static.fit_table(taught, tune=True, taught=targets))


def _fit(task: Task, train: Callable[[Task, SoftTargets], Outcome]) -> Outcome:
    """What a student gave, with its teacher's costs."""
    s: _Taught = task.settings
    lesson = _taught(task)
    outcome = train(replace(task, train=lesson.split), lesson.targets)
    own = {
        **outcome.details.own,
        "teacher": s.teacher,
        "teacher_seconds": lesson.seconds,
        f"teacher_eval_{task.metric}": lesson.eval_score,
        "made_texts": len(lesson.split) - len(task.train),
    }
    from_cache = lesson.from_cache or outcome.details.from_cache
    return replace(
        outcome,
        train_seconds=outcome.train_seconds + lesson.seconds,
        details=replace(outcome.details, own=own, from_cache=from_cache),
    )


def _without_upper_layers(
    model: Any, _family: Any, _head: list[str], settings: DistilSettings
) -> Any:
    from tunelab.models import parts

    count = settings.layers_kept or max(1, model.config.num_hidden_layers // 2)
    parts.drop_upper_layers(model, count)
    return model


METHODS = (
    Method(
        "distil",
        "a smaller student, the base's lower layers, learns from another method of the table",
        DistilSettings,
        fit_distil,
        check=check_distil,
        by_metric=True,
        says_before=teacher_in_words,
        # The teacher's passes, its labels, and the student's over five texts for each.
        costs=Costs(work=24.0, weight_copies=5.0),
    ),
    Method(
        "distil-static",
        "a table of token vectors, without a network, learns from another method of the table",
        DistilStaticSettings,
        fit_distil_static,
        check=check_distil_static,
        by_metric=True,
        says_before=teacher_in_words,
        costs=Costs(work=2.5, weight_copies=3.0, fit_per_value=5e6),
    ),
)
