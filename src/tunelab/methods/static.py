"""`static`: token vectors distilled from the base, their mean, a linear head. `static-tuned` trains
the vectors of the tokens that the training texts have, and the head, from there on.

Both end as a table of what each token says of each class (`models.static`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tunelab.core.details import Details
from tunelab.core.events import Evaluated
from tunelab.methods.embedded import CGrid, CValues, class_counts, one_vs_rest
from tunelab.methods.method import Costs, Method, Outcome, Task
from tunelab.methods.selection import best_on_validation
from tunelab.methods.soft_targets import SoftTargets
from tunelab.models.bases import Base

__all__ = [
    "METHODS",
    "StaticSettings",
    "StaticTunedSettings",
    "fit_table",
    "refuse_slow_tokenizer",
]


Floats = NDArray[np.float64]
_TABLE_IS_HEAD = "static classifiers have no adapter: the table is counted as the head"
# Of Adam (Kingma and Ba 2015), on the rows of a batch alone.
_ADAM_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_BATCH = 32


class StaticSettings(CGrid):
    """Settings of `static`."""

    c: CValues = Field(
        (0.001, 0.01, 0.1, 1.0),
        min_length=1,
        description="values of C tried; the best on validation is kept",
    )
    width: int = Field(256, ge=2, le=4096, description="principal components of a token's vector")
    sif: float = Field(
        1e-4, gt=0, le=1, description="a token of frequency p weighs sif / (sif + p)"
    )
    per_device_eval_batch_size: int = Field(
        64, ge=1, description="texts scored at a time; does not change scores"
    )


class StaticTunedSettings(StaticSettings):
    """Settings of `static-tuned`."""

    learning_rate: float = Field(0.02, gt=0, le=10, description="learning rate of Adam")
    num_train_epochs: int = Field(10, ge=1, description="passes over the training part")
    early_stopping_patience: int = Field(
        2, ge=1, description="stop after so many epochs without a better validation score"
    )


@dataclass(slots=True, eq=False)
class _MeanOfTokens:
    """Texts as the means of their tokens' vectors, standardised, under a linear head.

    `vectors` (n_own, width) of the tokens `own` of the training texts, in units of `scale`;
    `shift` (width,) is subtracted from means; `weights` (n_classes, width), `offsets`.
    """

    vectors: Floats
    own: NDArray[np.int64]
    shift: Floats
    scale: Floats
    weights: Floats
    offsets: Floats

    def table(self, rest: NDArray[np.float32]) -> tuple[NDArray[np.float32], Floats]:
        """What each token says of each class, and the offsets; `rest`: vectors of all tokens."""
        every = rest / self.scale
        every[self.own] = self.vectors
        table = np.asarray(every @ self.weights.T, dtype=np.float32)
        return table, self.offsets - self.weights @ self.shift


def refuse_slow_tokenizer(base: Base, settings: StaticSettings) -> None:
    """Refuse a base whose tokenizer cannot be shipped."""
    from tunelab.models import pretrained, token_vectors

    token_vectors.fast_tokenizer(base, pretrained.load_tokenizer(base))


def fit_static(task: Task) -> Outcome:
    """Distil, then logistic regression on the means."""
    return fit_table(task, tune=False)


def fit_static_tuned(task: Task) -> Outcome:
    """The same, then vectors and head together by gradient."""
    return fit_table(task, tune=True)


def fit_table(task: Task, *, tune: bool, taught: SoftTargets | None = None) -> Outcome:
    """Distil the base's token vectors, and fit a head on them. `tune`: both are trained, towards
    the labels, or towards what the training rows are `taught`.
    """
    from tunelab.models import bases, token_vectors
    from tunelab.models.static import KnownTokens, StaticClassifier

    assert task.base is not None  # noqa: S101  the row says needs_base
    s: StaticSettings = task.settings
    distilled = token_vectors.distil(task.base, s.width, s.sif, s.per_device_eval_batch_size)
    started = time.perf_counter()
    train, validation = (
        KnownTokens.of(distilled.tokenizer, distilled.known, part.texts)
        for part in (task.train, task.validation)
    )
    start, own = _fit_head(task, distilled.table, train, validation)
    history: tuple[dict[str, float], ...] = ()
    if tune:
        history = _tune(task, start, distilled.table, train, validation, taught)
    table, offsets = start.table(distilled.table)
    table[~distilled.known] = 0.0
    seconds = time.perf_counter() - started + distilled.seconds
    classifier = StaticClassifier(
        distilled.tokenizer, table, offsets, distilled.known, task.label_names, task.base.ref
    )
    trained = start.weights.size + start.offsets.size + (start.vectors.size if tune else 0)
    return Outcome(
        classifier=classifier,
        train_seconds=seconds,
        counts=class_counts(trained, table.size + offsets.size),
        history=history,
        details=Details(
            own={**own, "distilling_seconds": distilled.seconds},
            from_cache=distilled.embedded.from_cache,
            notes=bases.notes_of_base(task.base, task.label_names, head=False),
        ),
        reasons={"adapter_parameters": _TABLE_IS_HEAD},
        peak_memory_bytes=distilled.embedded.peak_memory_bytes
        if distilled.embedded.from_cache
        else None,
        validation_scores=validation.means(table) + offsets,
    )


def _fit_head(
    task: Task, table: NDArray[np.float32], train: Any, validation: Any
) -> tuple[_MeanOfTokens, dict[str, object]]:
    """Logistic regression on standardised means of tokens; its C is chosen on validation."""
    from sklearn.linear_model import LogisticRegression

    from tunelab.models.vector_heads import Standard

    own = np.unique(train.ids)
    means = train.means(table)
    standard = Standard.of(means)
    features, others = standard(means), standard(validation.means(table))
    fitted, tries = [], []
    for c in sorted(task.settings.c):
        model = LogisticRegression(C=c, max_iter=5_000).fit(features, task.train.labels)
        fitted.append(one_vs_rest(model))
        weights, offsets = fitted[-1]
        tries.append(({"C": c}, others @ weights.T + offsets))
    best, tried = best_on_validation(task, tries)
    start = _MeanOfTokens(
        table[own] / standard.scale, own, standard.mean / standard.scale, standard.scale,
        *fitted[best],
    )  # fmt: skip
    return start, {"tried": tried, "C": tried[best]["C"]}


# --- training the vectors ---------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Adam:
    """Adam's two running means of one array; `step` moves the rows that a batch has."""

    values: Floats
    mean: Floats
    square: Floats
    steps: NDArray[np.int64]

    @classmethod
    def of(cls, values: Floats) -> _Adam:
        return cls(
            values, np.zeros_like(values), np.zeros_like(values), np.zeros(len(values), np.int64)
        )

    def step(self, rows: NDArray[np.int64], gradient: Floats, rate: float) -> None:
        first, second = _ADAM_BETAS
        self.steps[rows] += 1
        self.mean[rows] += (1 - first) * (gradient - self.mean[rows])
        self.square[rows] += (1 - second) * (gradient**2 - self.square[rows])
        n = self.steps[rows].reshape(-1, *[1] * (gradient.ndim - 1))
        mean, square = self.mean[rows] / (1 - first**n), self.square[rows] / (1 - second**n)
        self.values[rows] -= rate * mean / (np.sqrt(square) + _EPSILON)


def _tune(  # noqa: PLR0917
    task: Task,
    start: _MeanOfTokens,
    rest: NDArray[np.float32],
    train: Any,
    validation: Any,
    taught: SoftTargets | None,
) -> tuple[dict[str, float], ...]:
    """Train `start` in place by the log loss; keep the epoch with the best on validation."""
    s: StaticTunedSettings = task.settings
    taught = taught or SoftTargets.of_labels(task.train.labels, len(task.label_names))
    counted = _token_shares(train, start.own)
    arrays = [_Adam.of(a) for a in (start.vectors, start.weights, start.offsets)]
    rng = np.random.default_rng(task.seeds.order)
    n = len(task.train)
    per_epoch = -(-n // _BATCH)
    kept, lowest = _copies(start), _loss(start, rest, validation, task.validation.labels)
    history = [{"epoch": 0.0, "eval_loss": lowest}]
    for epoch in range(1, s.num_train_epochs + 1):
        for rows in np.array_split(rng.permutation(n), per_epoch):
            _step(start, counted[rows], rows, taught, arrays, s.learning_rate)
        loss = _loss(start, rest, validation, task.validation.labels)
        history.append({"epoch": float(epoch), "eval_loss": loss})
        done, every = epoch * per_epoch, s.num_train_epochs * per_epoch
        task.on_step(Evaluated(done, float(epoch), {"eval_loss": loss}, every))
        if loss < lowest:
            kept, lowest = _copies(start), loss
        best = min(range(len(history)), key=lambda i: history[i]["eval_loss"])
        if epoch - best >= s.early_stopping_patience:
            break
    start.vectors, start.weights, start.offsets = kept
    return tuple(history)


def _copies(start: _MeanOfTokens) -> tuple[Floats, Floats, Floats]:
    return start.vectors.copy(), start.weights.copy(), start.offsets.copy()


def _token_shares(train: Any, own: NDArray[np.int64]) -> Any:
    """How much of each text each token of `own` is: sparse (n, n_own), rows sum to one."""
    from scipy.sparse import csr_matrix

    places = np.searchsorted(own, train.ids)
    share = np.repeat(1 / np.maximum(train.lengths, 1), train.lengths)
    ends = np.concatenate([[0], np.cumsum(train.lengths)])
    return csr_matrix((share, places, ends), shape=(len(train.lengths), len(own)))


def _step(  # noqa: PLR0917
    start: _MeanOfTokens,
    counted: Any,
    rows: NDArray[np.int64],
    taught: SoftTargets,
    arrays: list[_Adam],
    rate: float,
) -> None:
    """One step on the mean loss of a batch, on the tokens that it has: `counted` of its `rows`."""
    tokens = np.unique(counted.indices)
    few = counted[:, tokens]
    means = few @ start.vectors[tokens] - start.shift
    off = taught.gradient(means @ start.weights.T + start.offsets, rows) / len(rows)
    of_vectors = few.T @ (off @ start.weights)
    classes = np.arange(len(start.offsets))
    arrays[0].step(tokens, np.asarray(of_vectors), rate)
    arrays[1].step(classes, off.T @ means, rate / 10)  # the head starts where it is best
    arrays[2].step(classes, off.sum(axis=0), rate / 10)


def _loss(
    start: _MeanOfTokens, rest: NDArray[np.float32], part: Any, labels: NDArray[np.int64]
) -> float:
    from scipy.special import logsumexp

    table, offsets = start.table(rest)
    logits = part.means(table) + offsets
    return float(np.mean(logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]))


METHODS = (
    Method(
        "static",
        "means of token vectors distilled from the base, with a linear head; no network to ship",
        StaticSettings,
        fit_static,
        check=refuse_slow_tokenizer,
        by_metric=True,
        chance=False,
        costs=Costs(work=2.0, once=True, vocabulary=True, fit_per_value=1e5),
    ),
    Method(
        "static-tuned",
        "the same, with the token vectors trained",
        StaticTunedSettings,
        fit_static_tuned,
        check=refuse_slow_tokenizer,
        by_metric=True,
        costs=Costs(work=2.0, once=True, vocabulary=True, fit_per_value=1e6),
    ),
)
