"""What is fitted on the base's frozen vectors: logistic regression, neighbours, boosted trees, and
(`svm`) separating planes.

The vectors are computed once for a base and its texts, and kept; each method here takes seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from tunelab.core.details import Details
from tunelab.core.errors import TrialError
from tunelab.core.tasks import TaskName
from tunelab.methods.method import Costs, Method, Outcome, Task
from tunelab.methods.selection import best_on_validation
from tunelab.methods.settings import EncoderSettings, Settings

__all__ = [
    "METHODS",
    "CGrid",
    "CValues",
    "EmbeddingSettings",
    "FittedHead",
    "class_counts",
    "fit_on_vectors",
    "one_vs_rest",
    "plane_of_each_label",
]


Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
_POOLINGS = ("cls", "mean", "last")


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


# One value of a setting that is tried stands for a list of it.
_ONE_OR_MANY = BeforeValidator(_several)


def _each(holds: Callable[[float], bool], expected: str) -> AfterValidator:
    """Refuse a setting that is tried unless this holds for each value."""

    def check(values: tuple[float, ...]) -> tuple[float, ...]:
        if not all(map(holds, values)):
            raise ValueError(expected)
        return values

    return AfterValidator(check)


CValues = Annotated[tuple[float, ...], _ONE_OR_MANY, _each(lambda c: c > 0, "values above 0")]


class CGrid(Settings):
    """Settings of what is regularised by C."""

    c: CValues = Field(
        (0.01, 0.1, 1.0, 10.0),
        min_length=1,
        description="values of C tried; the best on validation is kept",
    )


class EmbeddingSettings(EncoderSettings):
    """Settings of every method on the base's frozen vectors."""

    pooling: str = Field(
        "mean",
        description="the text's vector: its first token (cls), the mean of all tokens, its last "
        "token, or several side by side, as cls+mean",
    )

    @field_validator("pooling")
    @classmethod
    def _known(cls, value: str) -> str:
        parts = value.split("+")
        if not set(parts) <= set(_POOLINGS) or len(set(parts)) < len(parts):
            raise ValueError(f"{', '.join(_POOLINGS)}, or some of them joined by +, as cls+mean")
        return value


class LogisticSettings(CGrid, EmbeddingSettings):
    """Settings of `logistic`."""


class KnnSettings(EmbeddingSettings):
    """Settings of `knn`."""

    k: Annotated[tuple[int, ...], _ONE_OR_MANY, _each(lambda k: k >= 1, "values of 1 or more")] = (
        Field(
            (1, 3, 5, 10, 20, 50),
            min_length=1,
            description="numbers of neighbours tried; the best on validation is kept",
        )
    )


class BoostingSettings(EmbeddingSettings):
    """Settings of `boosting`."""

    trees: Annotated[
        tuple[int, ...], _ONE_OR_MANY, _each(lambda n: 1 <= n <= 2000, "values from 1 to 2000")
    ] = Field(
        (10, 25, 50, 100, 200),
        min_length=1,
        description="numbers of trees a class tried; the best on validation is kept",
    )
    max_leaves: int = Field(15, ge=2, le=255, description="leaves of a tree at most")
    min_rows_per_leaf: int = Field(5, ge=1, description="training rows in a leaf at least")


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """What was fitted on vectors: the `head`, how many numbers were `trained` and `held` in all,
    what it says of itself (`own`), and why it has `no_adapter` whose parameters could be counted.
    """

    head: Any
    trained: int
    held: int
    own: Mapping[str, object]
    no_adapter: str


# (task, training vectors, validation vectors) -> what is fitted
FitHead = Callable[[Task, Vectors, Vectors], FittedHead]


def fit_on_vectors(task: Task, kind: str, fit: FitHead) -> Outcome:
    """Frozen vectors of the base, then what `fit` makes of them.

    `train_seconds` counts what computing the training vectors takes, also when they come from the
    cache; then a sample of them is computed to know it.
    """
    from tunelab.models import bases, embeddings, lengths
    from tunelab.models.embedded import EmbeddedClassifier

    assert task.base is not None  # noqa: S101  the row says needs_base
    s: EmbeddingSettings = task.settings
    limit = lengths.limit_of(s.max_length, task.base, task.train.texts)
    embedder = embeddings.Embedder(task.base, s.pooling, limit, s.per_device_eval_batch_size)
    train = embeddings.cached(task.base, task.train.texts, s.pooling, limit, embedder)
    validation = embeddings.cached(task.base, task.validation.texts, s.pooling, limit, embedder)
    started = time.perf_counter()
    fitted = fit(task, train.vectors, validation.vectors)
    seconds = time.perf_counter() - started
    embedding = train.seconds
    if train.from_cache:
        embedding = embeddings.seconds_now(embedder, task.train.texts)
    return Outcome(
        classifier=EmbeddedClassifier(
            kind, embedder, fitted.head, task.label_names, task.base.ref, s.pooling, limit
        ),
        train_seconds=seconds + embedding,
        counts=class_counts(fitted.trained, fitted.held + bases.count_parameters(task.base)),
        details=Details(
            own={**fitted.own, "embedding_seconds": embedding},
            from_cache=train.from_cache,
            notes=bases.notes_of_base(task.base, task.label_names, head=False),
        ),
        reasons={"adapter_parameters": fitted.no_adapter},
        peak_memory_bytes=train.peak_memory_bytes if train.from_cache else None,
        validation_scores=fitted.head.scores(validation.vectors),
    )


def class_counts(trainable: int, total: int) -> dict[str, int | None]:
    """Parameters of what has a head and nothing else that is trained."""
    return {
        "total_parameters": total,
        "trainable_parameters": trainable,
        "head_parameters": trainable,
        "adapter_parameters": None,
    }


def plane_of_each_label(
    model: Any, features: Any, labels: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Weights (n_labels, n_features) and offsets of a linear model of scikit-learn, fitted for each
    label by itself.

    A label that all training rows have, or none, is not learnt: every text has it then, or none.
    """
    from sklearn.base import clone

    varied = np.flatnonzero((labels.min(axis=0) == 0) & (labels.max(axis=0) == 1))
    if not len(varied):
        raise TrialError("Every training row has the same labels: there is nothing to learn.")
    models = {int(k): clone(model).fit(features, labels[:, k]) for k in varied}
    width = models[int(varied[0])].coef_.shape[1]
    weights, offsets = np.zeros((labels.shape[1], width)), np.zeros(labels.shape[1])
    for k in range(labels.shape[1]):
        if k in models:
            weights[k], offsets[k] = models[k].coef_[0], models[k].intercept_[0]
        else:
            offsets[k] = _CERTAIN if labels[0, k] else -_CERTAIN
    return weights, offsets


_CERTAIN = 20.0


def one_vs_rest(model: Any) -> tuple[Floats, Floats]:
    """Weights (n_classes, n_features) and offsets; the one plane of two classes is used for both.

    Half of it speaks for the second class, half against the first: their difference is the plane's.
    """
    weights, offsets = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weights) > 1:
        return weights, offsets
    return np.vstack([-weights, weights]) / 2, np.concatenate([-offsets, offsets]) / 2


# --- logistic regression ----------------------------------------------------------------------


def fit_logistic(task: Task, train: Vectors, validation: Vectors) -> FittedHead:
    """Multinomial logistic regression with an L2 penalty, for every C; of several labels a text one
    regression a label.
    """
    from sklearn.linear_model import LogisticRegression

    from tunelab.models.vector_heads import Hyperplanes, LinearHead, Standard

    standard = Standard.of(train)
    features, labels = standard(train), task.train.labels
    heads, tries = [], []
    for c in sorted(task.settings.c):
        model = LogisticRegression(C=c, max_iter=5_000)
        if task.kind == "multilabel":
            planes = plane_of_each_label(model, features, labels)
        else:
            planes = one_vs_rest(model.fit(features, labels))
        kept = Hyperplanes(*planes, temperature=1.0)
        heads.append(LinearHead(kept, standard, score_kind=task.logit_kind))
        tries.append(({"C": c}, heads[-1].scores(validation)))
    best, tried = best_on_validation(task, tries, task.logit_kind)
    size = heads[best].planes.weights.size + heads[best].planes.offsets.size
    own = {"tried": tried, "C": tried[best]["C"]}
    no_adapter = "logistic regression has no adapter: its planes are counted as the head"
    return FittedHead(heads[best], size, size, own, no_adapter)


# --- neighbours -------------------------------------------------------------------------------


def fit_neighbours(task: Task, train: Vectors, validation: Vectors) -> FittedHead:
    """The training vectors are kept; how many vote, validation says."""
    from tunelab.models.vector_heads import NeighbourHead, Standard, unit_length

    standard = Standard.of(train)
    kept = unit_length(standard(train)).astype(np.float32)
    head = NeighbourHead(kept, task.train.labels, 1, len(task.label_names), standard)
    ks = sorted({min(k, len(kept)) for k in task.settings.k})
    tries = [({"k": float(k)}, replace(head, k=k).scores(validation)) for k in ks]
    best, tried = best_on_validation(task, tries, "probability")
    own = {"tried": tried, "k": ks[best]}
    no_adapter = "neighbours have no adapter, and nothing of them is trained"
    return FittedHead(replace(head, k=ks[best]), 0, kept.size, own, no_adapter)


# --- boosted trees ----------------------------------------------------------------------------


def fit_trees(task: Task, train: Vectors, validation: Vectors) -> FittedHead:
    """Gradient boosting by histograms; how many trees are kept, validation says."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    from tunelab.models.vector_heads import one_per_class

    s: BoostingSettings = task.settings
    counts = sorted(set(s.trees))
    model = HistGradientBoostingClassifier(
        max_iter=counts[-1],
        max_leaf_nodes=s.max_leaves,
        min_samples_leaf=s.min_rows_per_leaf,
        early_stopping=False,
        random_state=0,
    ).fit(train, task.train.labels)
    stages = {}
    for i, raw in enumerate(model.staged_decision_function(validation), 1):
        if i in counts:
            stages[i] = one_per_class(raw.reshape(len(validation), -1))
    # Where nothing can be split any more, it ends before the last count.
    grown = [n for n in counts if n in stages]
    best, tried = best_on_validation(task, [({"trees": float(n)}, stages[n]) for n in grown])
    head = _tree_tables(model, grown[best])
    size = int((head.feature >= 0).sum() * 2 + (head.feature < 0).sum())
    own = {"tried": tried, "trees": grown[best]}
    no_adapter = "trees have no adapter: their splits and leaves are counted as the head"
    return FittedHead(head, size, size, own, no_adapter)


def _tree_tables(model: Any, count: int) -> Any:
    """The first `count` trees a class of a fitted model, side by side in tables."""
    from tunelab.models.vector_heads import TreeHead

    nodes = [tree.nodes for trees in model._predictors[:count] for tree in trees]
    shape = (len(nodes), max(map(len, nodes)))
    feature, number = np.full(shape, -1, dtype=np.int32), np.zeros(shape)
    left, right = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
    for i, tree in enumerate(nodes):
        inner, n = tree["is_leaf"] == 0, len(tree)
        feature[i, :n] = np.where(inner, tree["feature_idx"], -1)
        number[i, :n] = np.where(inner, tree["num_threshold"], tree["value"])
        left[i, :n], right[i, :n] = tree["left"], tree["right"]
    return TreeHead(feature, left, right, number, model._baseline_prediction.reshape(-1))


def _row(
    name: str,
    about: str,
    settings: type[Settings],
    fit: FitHead,
    per_value: float,
    *,
    tasks: tuple[TaskName, ...] = ("classes", "ordinal"),
) -> Method:
    def fitted(task: Task) -> Outcome:
        return fit_on_vectors(task, name, fit)

    # A forward pass in float32; then fits for each of what is tried.
    costs = Costs(work=3.5, once=True, fit_per_value=per_value)
    return Method(
        name, about, settings, fitted, by_metric=True, chance=False, costs=costs, tasks=tasks
    )


METHODS = (
    _row(
        "logistic",
        "logistic regression on the frozen base model's embeddings",
        LogisticSettings,
        fit_logistic,
        1e5,
        tasks=("classes", "multilabel", "ordinal"),
    ),
    _row(
        "knn",
        "votes of the nearest training texts by the frozen base model's embeddings",
        KnnSettings,
        fit_neighbours,
        1e3,
    ),
    _row(
        "boosting",
        "boosted trees on the frozen base model's embeddings",
        BoostingSettings,
        fit_trees,
        4e5,
    ),
)
