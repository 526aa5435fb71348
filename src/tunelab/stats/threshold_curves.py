"""Curves over a threshold: ROC and precision-recall."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tunelab.stats.predictions import Floats, UndefinedMetricError

__all__ = [
    "precision_recall_curve",
    "roc_curve",
]

MOST_CURVE_POINTS = 200


# --- curves for plots -------------------------------------------------------------------------


def roc_curve(
    truth: NDArray[np.bool_], score: Floats, points: int | None = MOST_CURVE_POINTS
) -> tuple[Floats, Floats]:
    """False and true positive rates from (0, 0) to (1, 1), at most `points` of each.

    `truth` (n,) marks the rows of the class, `score` (n,) ranks them (see `class_scores`).
    `points=None` gives every distinct threshold. Raises UndefinedMetricError where `truth` is all
    true or all false.
    """
    hits, false_alarms = _cumulative(truth, score)
    if not hits[-1] or not false_alarms[-1]:
        raise UndefinedMetricError("a ROC curve needs rows of the class and rows of the others")
    tpr = np.concatenate([[0.0], hits / hits[-1]])
    fpr = np.concatenate([[0.0], false_alarms / false_alarms[-1]])
    keep = _thinned_points(fpr, tpr, points)
    return fpr[keep], tpr[keep]


def precision_recall_curve(
    truth: NDArray[np.bool_], score: Floats, points: int | None = MOST_CURVE_POINTS
) -> tuple[Floats, Floats]:
    """Precision and recall from the lowest threshold to (1, 0), at most `points` of each.

    Order and end point as in scikit-learn. Raises UndefinedMetricError where no row is of the
    class.
    """
    hits, false_alarms = _cumulative(truth, score)
    if not hits[-1]:
        raise UndefinedMetricError("a precision-recall curve needs rows of the class")
    precision = np.concatenate([[1.0], hits / (hits + false_alarms)])[::-1]
    recall = np.concatenate([[0.0], hits / hits[-1]])[::-1]
    keep = _thinned_points(recall, precision, points)
    return precision[keep], recall[keep]


def _cumulative(truth: NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Hits and false alarms at each distinct threshold, the highest first."""
    truth, score = np.asarray(truth, dtype=bool), np.asarray(score, dtype=np.float64)
    if not len(score):
        raise ValueError("no rows to draw a curve of")
    if not np.isfinite(score).all():
        raise ValueError("scores that are not finite cannot be ranked: the model has diverged")
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    hits = np.cumsum(truth[order], dtype=np.float64)[last]
    return hits, last + 1.0 - hits


def _thinned_points(x: Floats, y: Floats, points: int | None) -> NDArray[np.int64]:
    """Indices of at most `points` points, evenly spaced along the curve, both ends kept."""
    if points is None or len(x) <= points:
        return np.arange(len(x))
    path = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    nearest = np.searchsorted(path, np.linspace(0, path[-1], points - 1))
    # `nearest` starts at 0; the last point is named because a curve may end on a plateau.
    return np.unique(np.append(nearest, len(x) - 1))
