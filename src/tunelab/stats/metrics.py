"""Predictions -> scores.

A metric is a row of METRICS: a pure function of `Predictions`, and what the statistics and the
report need to know about it. Where a metric cannot be had (a class that no row carries, a
probability asked of margins) the function raises UndefinedMetricError, and `evaluate` gives None
with the reason. Scores that are not finite are refused: a diverged model is not to be scored.

Throughout: n rows, k classes, `labels` (n,) in 0..k-1, `scores` (n, k). Averages follow
scikit-learn's defaults: "macro" is the plain mean over the classes that occur in the labels or
among the predictions, "weighted" weighs classes by their number of labels, and 0 / 0 counts as 0.

Of several labels a text `labels` are (n, k) ones and zeros, and what is said of a class is said of
a label. Each row says which tasks it is offered for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunelab.core.tasks import TaskName
from tunelab.core.values import Predictions
from tunelab.stats.predictions import (
    Counts,
    Floats,
    UndefinedMetricError,
    check_predictions,
    class_scores,
    counts_of,
    log_softmax,
    probabilities,
)
from tunelab.stats.reliability import calibration_error, resampled_errors

__all__ = [
    "METRICS",
    "Metric",
    "brier",
    "evaluate",
    "log_loss",
    "metrics_of",
    "per_class",
    "roc_auc",
]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of METRICS.

    `function` maps Predictions to a number or raises UndefinedMetricError. `needs` is what it
    reads of the scores: the winning "class", the "ranking" per class, or "probability".
    `label` is its name in running text. `percent`: values lie in [0, 1] and are said in percent.
    For many resamples of the rows at once, `from_counts` gives the same number from Counts of shape
    (..., k), or `weighted` from how often each row was drawn, (n, b) -> (b,), nan where a resample
    has no value. Without either the statistics call `function` on each resample, which is slower
    and as right. `tasks`: what it is offered for.
    """

    name: str
    function: Callable[[Predictions], float]
    higher_is_better: bool
    needs: Literal["class", "ranking", "probability"]
    label: str
    percent: bool = True
    from_counts: Callable[[Counts], Floats] | None = None
    weighted: Callable[[Predictions, Floats], Floats] | None = None
    tasks: tuple[TaskName, ...] = ("classes", "ordinal")


_BOTH: tuple[TaskName, ...] = ("classes", "multilabel", "ordinal")


# --- metrics of the winning class: Counts (..., k) -> (...) -----------------------------------


def _ratio(above: Floats, below: Floats) -> Floats:
    """Elementwise quotient where 0 / 0 is 0, as scikit-learn's zero_division=0."""
    return np.divide(above, below, out=np.zeros(np.shape(below)), where=np.asarray(below) != 0)


def _precision(c: Counts) -> Floats:
    return _ratio(c.hits, c.predicted)


def _recall(c: Counts) -> Floats:
    return _ratio(c.hits, c.true)


def _f1(c: Counts) -> Floats:
    return _ratio(2 * c.hits, c.true + c.predicted)


def _macro(each: Callable[[Counts], Floats]) -> Callable[[Counts], Floats]:
    # A class that is neither labelled nor predicted has 0 in `each`, so only the divisor matters.
    return lambda c: _ratio(each(c).sum(axis=-1), ((c.true + c.predicted) > 0).sum(axis=-1))


def _label_weighted(each: Callable[[Counts], Floats]) -> Callable[[Counts], Floats]:
    return lambda c: _ratio((each(c) * c.true).sum(axis=-1), c.true.sum(axis=-1))


def _micro_f1(c: Counts) -> Floats:
    return _ratio(2 * c.hits.sum(axis=-1), (c.true + c.predicted).sum(axis=-1))


def _accuracy(c: Counts) -> Floats:
    return _ratio(c.hits.sum(axis=-1), c.true.sum(axis=-1))


def _balanced_accuracy(c: Counts) -> Floats:
    return _ratio(_recall(c).sum(axis=-1), (c.true > 0).sum(axis=-1))


def _mcc(c: Counts) -> Floats:
    n = c.true.sum(axis=-1)
    covariance = c.hits.sum(axis=-1) * n - (c.true * c.predicted).sum(axis=-1)
    spread_true = n**2 - (c.true**2).sum(axis=-1)
    spread_predicted = n**2 - (c.predicted**2).sum(axis=-1)
    return _ratio(covariance, np.sqrt(spread_true * spread_predicted))


def _of_class(
    name: str,
    label: str,
    formula: Callable[[Counts], Floats],
    percent: bool,
    *,
    weighted: Callable[[Predictions, Floats], Floats] | None = None,
    tasks: tuple[TaskName, ...] = ("classes", "ordinal"),
) -> Metric:
    def function(predictions: Predictions) -> float:
        check_predictions(predictions)
        return float(formula(counts_of(predictions)))

    return Metric(name, function, True, "class", label, percent, formula, weighted, tasks)


# --- metrics of rows with several labels: a value a row -----------------------------------------


def _of_rows(
    name: str,
    label: str,
    values: Callable[[Predictions], Floats],
    higher_is_better: bool,
    task: TaskName = "multilabel",
) -> Metric:
    """The mean of a value that each row has by itself; a share, but of a scale."""

    def function(predictions: Predictions) -> float:
        check_predictions(predictions)
        return float(values(predictions).mean())

    def weighted(predictions: Predictions, times: Floats) -> Floats:
        return np.asarray(values(predictions) @ times / times.sum(axis=0))

    return Metric(
        name,
        function,
        higher_is_better,
        "class",
        label,
        percent=task == "multilabel",
        weighted=weighted,
        tasks=(task,),
    )


def _scale_error(predictions: Predictions) -> Floats:
    return np.asarray(np.abs(predictions.labels - predictions.predicted), dtype=np.float64)


def quadratic_kappa(predictions: Predictions) -> float:
    """Agreement of places on the scale beyond chance, 1 - mean (i - j)^2 over what labels and
    predictions drawn apart would have (Cohen 1968, quadratic weights).

    Raises UndefinedMetricError where all labels and all predictions are one class.
    """
    check_predictions(predictions)
    value = float(_weighted_kappa(predictions, np.ones((len(predictions.labels), 1)))[0])
    if not np.isfinite(value):
        raise UndefinedMetricError("quadratic kappa needs two classes among labels or predictions")
    return value


def _weighted_kappa(predictions: Predictions, times: Floats) -> Floats:
    true, said = (
        np.asarray(x, dtype=np.float64) for x in (predictions.labels, predictions.predicted)
    )
    n = times.sum(axis=0)
    apart, squares = ((true - said) ** 2) @ times / n, (true**2 + said**2) @ times / n
    by_chance = squares - 2 * (true @ times / n) * (said @ times / n)
    ratio = np.divide(apart, by_chance, out=np.full(len(n), np.nan), where=by_chance > 1e-12)
    return np.asarray(1 - ratio)


def _row_f1(predictions: Predictions) -> Floats:
    """F1 of each row's set of labels; a row without labels of which none is predicted counts 0, as
    in scikit-learn.
    """
    labels, predicted = predictions.labels, predictions.predicted
    below = np.asarray((labels + predicted).sum(axis=1), dtype=np.float64)
    return _ratio(2.0 * (labels * predicted).sum(axis=1), below)


def _row_right(predictions: Predictions) -> Floats:
    return predictions.right.astype(np.float64)


def _row_mistakes(predictions: Predictions) -> Floats:
    return np.asarray((predictions.labels != predictions.predicted).mean(axis=1))


# --- metrics of the ranking and of the probabilities ------------------------------------------


def roc_auc(predictions: Predictions) -> float:
    """Area under the ROC curve; ties count one half (average ranks: Mann-Whitney's U).

    Two classes: of class 1. More: mean over classes of one against the rest (scikit-learn's
    multi_class="ovr", average="macro"); of several labels, mean over labels. Raises
    UndefinedMetricError where a class has no row, or a label none without it.
    """
    check_predictions(predictions)
    labels, k = predictions.labels, predictions.scores.shape[1]
    if predictions.task == "multilabel":
        with_label = labels.sum(axis=0)
        one_sided = np.flatnonzero((with_label == 0) | (with_label == len(labels)))
        if len(one_sided):
            raise UndefinedMetricError(
                "ROC-AUC needs rows with and without every label", one_sided.tolist()
            )
        of_label = [_auc(labels[:, c] == 1, class_scores(predictions, c)) for c in range(k)]
        return float(np.mean(of_label))
    absent = np.flatnonzero(np.bincount(labels, minlength=k) == 0)
    if len(absent) or k < 2:
        raise UndefinedMetricError("ROC-AUC needs rows of every class", absent.tolist())
    classes = [1] if k == 2 else range(k)
    return float(np.mean([_auc(labels == c, class_scores(predictions, c)) for c in classes]))


def _auc(truth: NDArray[np.bool_], score: Floats) -> float:
    _, group, size = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(size) - (size - 1) / 2)[group]  # 1-based, average over ties
    positives = int(truth.sum())
    negatives = len(truth) - positives
    above = float(rank[truth].sum()) - positives * (positives + 1) / 2
    return above / positives / negatives


def log_loss(predictions: Predictions) -> float:
    """Mean of -ln(probability of the true class), in nats; of several labels the mean binary
    cross-entropy of a label.

    From logits without a detour over probabilities, so that a confident error costs what it
    should. Probabilities are clipped at the float64 epsilon, as scikit-learn does.
    """
    check_predictions(predictions)
    return float(_row_losses(predictions).mean())


def _row_losses(predictions: Predictions) -> Floats:
    if predictions.task == "multilabel":
        z = np.asarray(predictions.scores, dtype=np.float64)
        return np.asarray((np.logaddexp(0.0, z) - z * predictions.labels).mean(axis=1))
    if predictions.score_kind == "logit":
        log_p = log_softmax(np.asarray(predictions.scores, dtype=np.float64))
    else:
        p = probabilities(predictions.scores, predictions.score_kind)
        log_p = np.log(np.clip(p, np.finfo(np.float64).eps, 1.0))
    return np.asarray(-log_p[np.arange(len(log_p)), predictions.labels])


def brier(predictions: Predictions) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes, in [0, 2]; of
    several labels the mean over labels, in [0, 1].

    Brier 1950, "Verification of forecasts expressed in terms of probability", equation 2. Raises
    UndefinedMetricError for margins.
    """
    check_predictions(predictions)
    return float(_row_distances(predictions).mean())


def _row_distances(predictions: Predictions) -> Floats:
    p = probabilities(predictions.scores, predictions.score_kind)
    if predictions.task == "multilabel":
        return np.asarray(((p - predictions.labels) ** 2).mean(axis=1))
    return np.asarray(((p - np.eye(p.shape[1])[predictions.labels]) ** 2).sum(axis=1))


# --- the same on many resamples: rows counted `times` (n, b) -> (b,) ----------------------------


def _weighted_accuracy(predictions: Predictions, times: Floats) -> Floats:
    right = (predictions.predicted == predictions.labels).astype(np.float64)
    return np.asarray(right @ times / times.sum(axis=0))


def _weighted_auc(predictions: Predictions, times: Floats) -> Floats:
    """`roc_auc` on each resample; nan where a resample lacks a class."""
    labels, k = predictions.labels, predictions.scores.shape[1]
    several = predictions.task == "multilabel"
    areas = []
    for c in [1] if k == 2 and not several else range(k):
        score = class_scores(predictions, c)
        order = np.argsort(score, kind="stable")
        starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # of each group of ties
        drawn = times[order]
        of_class = (labels[order, c] == 1 if several else labels[order] == c)[:, None]
        positive, negative = np.where(of_class, drawn, 0.0), np.where(of_class, 0.0, drawn)
        if len(starts) < len(order):
            positive = np.add.reduceat(positive, starts, axis=0)
            negative = np.add.reduceat(negative, starts, axis=0)
        below = np.cumsum(negative, axis=0) - negative / 2  # ties count one half
        pairs = positive.sum(axis=0) * negative.sum(axis=0)
        areas.append(
            np.divide(
                (positive * below).sum(axis=0),
                pairs,
                out=np.full(len(pairs), np.nan),
                where=pairs > 0,
            )
        )
    return np.asarray(np.mean(areas, axis=0))


def _weighted_log_loss(predictions: Predictions, times: Floats) -> Floats:
    return np.asarray(_row_losses(predictions) @ times / times.sum(axis=0))


def _weighted_brier(predictions: Predictions, times: Floats) -> Floats:
    return np.asarray(_row_distances(predictions) @ times / times.sum(axis=0))


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        _of_class("accuracy", "accuracy", _accuracy, True, weighted=_weighted_accuracy),
        _of_class("f1_macro", "macro F1", _macro(_f1), True, tasks=_BOTH),
        _of_class("f1_weighted", "weighted F1", _label_weighted(_f1), True, tasks=_BOTH),
        _of_class("precision_macro", "macro precision", _macro(_precision), True, tasks=_BOTH),
        _of_class(
            "precision_weighted",
            "weighted precision",
            _label_weighted(_precision),
            True,
            tasks=_BOTH,
        ),
        _of_class("recall_macro", "macro recall", _macro(_recall), True, tasks=_BOTH),
        _of_class(
            "recall_weighted", "weighted recall", _label_weighted(_recall), True, tasks=_BOTH
        ),
        _of_class("balanced_accuracy", "balanced accuracy", _balanced_accuracy, True),
        # Matthews 1975; for more classes Gorodkin 2004.
        _of_class("mcc", "Matthews correlation", _mcc, False),
        _of_class("f1_micro", "micro F1", _micro_f1, True, tasks=("multilabel",)),
        _of_rows("f1_samples", "sample F1", _row_f1, True),
        _of_rows("subset_accuracy", "subset accuracy", _row_right, True),
        _of_rows("hamming_loss", "Hamming loss", _row_mistakes, False),
        Metric(
            "quadratic_kappa",
            quadratic_kappa,
            True,
            "class",
            "quadratic kappa",
            percent=False,
            weighted=_weighted_kappa,
            tasks=("ordinal",),
        ),
        _of_rows("scale_error", "mean absolute error", _scale_error, False, "ordinal"),
        Metric("roc_auc", roc_auc, True, "ranking", "ROC-AUC", weighted=_weighted_auc, tasks=_BOTH),
        Metric(
            "log_loss",
            log_loss,
            False,
            "probability",
            "log loss",
            percent=False,
            weighted=_weighted_log_loss,
            tasks=_BOTH,
        ),
        Metric(
            "brier",
            brier,
            False,
            "probability",
            "Brier score",
            percent=False,
            weighted=_weighted_brier,
            tasks=_BOTH,
        ),
        Metric(
            "ece",
            calibration_error,
            False,
            "probability",
            "calibration error",
            weighted=resampled_errors,
        ),
    )
}


# --- everything about one set of predictions --------------------------------------------------


def metrics_of(task: TaskName) -> dict[str, Metric]:
    """The rows of METRICS that a task is offered."""
    return {name: m for name, m in METRICS.items() if task in m.tasks}


def evaluate(
    predictions: Predictions, label_names: Sequence[str]
) -> tuple[dict[str, float | None], dict[str, str]]:
    """All METRICS for the task of predictions: values by name; for each None its reason by name.

    Raises ValueError where the predictions cannot be scored at all: not finite, no rows, labels
    outside the classes, or another number of classes than `label_names`.
    """
    check_predictions(predictions)
    _check_label_names(predictions, label_names)
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name, metric in metrics_of(predictions.task).items():
        try:
            values[name] = metric.function(predictions)
        except UndefinedMetricError as error:
            values[name] = None
            named = ", ".join(repr(label_names[c]) for c in error.classes)
            reasons[name] = f"{error.reason}: none of {named}" if named else error.reason
    return values, reasons


def per_class(
    predictions: Predictions, label_names: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Precision, recall, F1 (0 where nothing was predicted or labelled) and support by class."""
    check_predictions(predictions)
    _check_label_names(predictions, label_names)
    c = counts_of(predictions)
    precision, recall, f1 = _precision(c), _recall(c), _f1(c)
    return {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(c.true[i]),
        }
        for i, name in enumerate(label_names)
    }


def _check_label_names(predictions: Predictions, label_names: Sequence[str]) -> None:
    k = predictions.scores.shape[1]
    if len(label_names) != k:
        raise ValueError(
            f"{k} columns of scores for {len(label_names)} label names: expected one each"
        )
