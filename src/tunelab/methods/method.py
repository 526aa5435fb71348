"""What a method is: the row, what it is given, and what it gives back. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunelab.core.details import Details
from tunelab.core.events import OnProgress
from tunelab.core.tasks import TaskName, task_of_labels
from tunelab.core.values import Classifier, ScoreKind, Seeds, Split
from tunelab.methods.settings import Settings, TrainingSettings
from tunelab.methods.training.checkpoint import Keeper
from tunelab.models.bases import Base, Quantization
from tunelab.models.families import FAMILIES
from tunelab.models.family import Family

__all__ = [
    "Adapt",
    "Costs",
    "Extras",
    "Method",
    "Outcome",
    "Task",
    "Trainable",
    "fit_alone",
    "refusing",
    "trained_by_gradient",
]


# (loaded classifier, its family, its head's module names, settings) -> the model to train
Adapt = Callable[[Any, Any, list[str], Any], Any]


@dataclass(frozen=True, slots=True)
class Task:
    """What a method is given. The test part is not in it.

    `metric` is the study's main metric, for what a method chooses on validation. `on_step` is
    told how far a training is. `keeper`: of the checkpoints of one that goes step by step.
    """

    label_names: tuple[str, ...]
    train: Split
    validation: Split
    base: Base | None
    settings: Any
    seeds: Seeds
    metric: str
    on_step: OnProgress
    keeper: Keeper | None = None

    @property
    def kind(self) -> TaskName:
        """What is predicted of a text."""
        return task_of_labels(self.train.labels, self.train.ordered)

    @property
    def logit_kind(self) -> ScoreKind:
        """What the outputs of a head for it are: of classes together, or of labels one by one."""
        return "label_logit" if self.kind == "multilabel" else "logit"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method gives back.

    `counts`: parameters (total, trainable, adapter, head), None with a reason where it makes no
    sense. `peak_memory_bytes`: only where the trial's own measurement would miss some of it.
    `validation_scores`: (n, n_classes) where the method has them anyway.
    """

    classifier: Classifier
    train_seconds: float
    counts: Mapping[str, int | None]
    history: tuple[Mapping[str, float], ...] = ()
    details: Details = field(default_factory=Details)
    reasons: Mapping[str, str] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    validation_scores: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Extras:
    """What some methods do beside `adapt`; each is left out where a method needs nothing there.

    `quantization(settings)`: how the base is loaded (arguments of BitsAndBytesConfig).
    `prepare(model, encoded training texts, pad id, settings)`: before training, such as
    initialising from data; what it returns is given to `finish`.
    `hooks(model, settings, steps)`: what is particular in the training loop, an `updates.Hooks`.
    `finish(model, prepared)`: after training, what it says of itself, `Details.own`.
    `no_adapter`: why there is no adapter whose parameters could be counted.
    """

    quantization: Callable[[Any], Quantization] | None = None
    prepare: Callable[[Any, Any, int, Any], Any] | None = None
    hooks: Callable[[Any, Any, int], Any] | None = None
    finish: Callable[[Any, Any], Mapping[str, object]] | None = None
    no_adapter: str | None = None


class Trainable(Protocol):
    """A task that is ready to be trained; `training` is a loop.Training."""

    @property
    def training(self) -> Any:
        """What is driven to its end, alone or with others, between `prepare` and `finish`."""
        ...


@dataclass(frozen=True, slots=True)
class Costs:
    """About what a trial takes, for planning it before one like it has run on the machine.

    `work`: floating-point operations for each of the base's weights and training token (a forward
    pass has 2); the default is that of adapters, whose backward pass leaves the base's weights out.
    `weight_copies`: copies of all weights at the peak of memory. `once`: what is computed of the
    base is kept, so that only the first trial on some texts pays for it; `vocabulary`: that is its
    tokens, each by itself, whatever the texts. `fit_per_value`:
    operations for each value of the texts' vectors and each class, of what is fitted on these.
    `work_per_word`, `bytes_per_character`: of a method that reads the texts without a base.
    """

    work: float = 4.5
    weight_copies: float = 2.0
    once: bool = False
    vocabulary: bool = False
    fit_per_value: float = 0.0
    work_per_word: float = 0.0
    bytes_per_character: float = 0.0


@dataclass(frozen=True, slots=True)
class Method:
    """A row of METHODS: its name, one line about it, its settings, and how a task is done.

    `fit(task)` does it at once. A method that trains step by step has `prepare(task)` and
    `finish(prepared)` in its place (see `trained_by_gradient`); between them a training is driven,
    several in one pass where `why_alone` allows it: it says for settings why they cannot take part,
    None where they can; without it none can. `adapt`, for a method that trains a transformer: turns
    the loaded classifier into what is trained, with everything else frozen. `refused` says, for a
    family's model_type, why the method cannot run on it. `check(base, settings)` raises InputError
    for settings that cannot work on a base; it runs before anything is trained and loads no torch.
    `check_labels(settings, label names)` does the same for settings that name labels.
    `by_metric`: whether what it keeps is chosen by the study's metric, which then belongs to a
    trial's identity. `chance`: whether what it gives depends on the seed. `costs`: about what a
    trial takes. `tasks`: what it can predict. `says_before(settings, texts that are scored)`: a
    line that is said before anything runs.
    """

    name: str
    about: str
    settings: type[Settings]
    fit: Callable[[Task], Outcome] | None = None
    prepare: Callable[[Task], Trainable] | None = None
    finish: Callable[[Any], Outcome] | None = None
    needs_base: bool = True
    adapt: Adapt | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Base, Any], None] | None = None
    check_labels: Callable[[Any, Sequence[str]], None] | None = None
    why_alone: Callable[[Any], str | None] | None = None
    by_metric: bool = False
    chance: bool = True
    costs: Costs = Costs()
    tasks: tuple[TaskName, ...] = ("classes", "ordinal")
    says_before: Callable[[Any, Sequence[str]], str | None] | None = None


def trained_by_gradient(
    name: str,
    about: str,
    settings: type[TrainingSettings],
    adapt: Adapt,
    *,
    extras: Extras = Extras(),
    refused: Mapping[str, str] | None = None,
    check: Callable[[Base, Any], None] | None = None,
    why_alone: Callable[[Any], str | None] | None = None,
    costs: Costs = Costs(),
) -> Method:
    """The row of a method that trains a transformer (tunelab.methods.neural)."""
    return Method(
        name,
        about,
        settings,
        prepare=partial(_prepare_by_gradient, adapt=adapt, extras=extras),
        finish=_finish_by_gradient,
        adapt=adapt,
        refused=refused or {},
        check=check,
        why_alone=why_alone,
        costs=costs,
        tasks=("classes", "multilabel", "ordinal"),
    )


def refusing(why: str, which: Callable[[Family], bool]) -> dict[str, str]:
    """`why` for each family of which `which` is true, as `Method.refused` takes it."""
    return {name: why for name, family in FAMILIES.items() if which(family)}


def _prepare_by_gradient(task: Task, adapt: Adapt, extras: Extras) -> Trainable:
    from tunelab.methods import neural

    return neural.prepare_by_gradient(task, adapt, extras)


def _finish_by_gradient(prepared: Any) -> Outcome:
    from tunelab.methods import neural

    return neural.finish_by_gradient(prepared)


def fit_alone(method: Method, task: Task) -> Outcome:
    """Do one task by itself. Raises what goes wrong."""
    if method.fit is not None:
        return method.fit(task)
    assert method.prepare is not None  # noqa: S101  a row has the one or the others
    assert method.finish is not None  # noqa: S101
    from tunelab.methods.training import stack

    prepared = method.prepare(task)
    list(stack.run_trainings([prepared.training]))
    return method.finish(prepared)
