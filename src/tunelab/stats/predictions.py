"""What is read from predictions: probabilities, scores of classes, counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunelab.core.values import Predictions, ScoreKind

__all__ = [
    "Counts",
    "Floats",
    "UndefinedMetricError",
    "check_predictions",
    "class_scores",
    "confusion",
    "counts",
    "counts_of",
    "log_softmax",
    "probabilities",
]


Floats = NDArray[np.float64]


class UndefinedMetricError(ValueError):
    """This metric has no value on these predictions. `classes`: the classes that are to blame."""

    def __init__(self, reason: str, classes: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.classes = tuple(classes)


class Counts(NamedTuple):
    """What every confusion-based metric needs, each (..., k): any number of cases at once.

    `hits`: rows of class c predicted as c; `true`: rows of class c; `predicted`: rows predicted c.
    The three margins of a confusion matrix are enough, and stay small with a thousand classes. Of
    several labels a text they are counted label by label.
    """

    hits: Floats
    true: Floats
    predicted: Floats


# --- what is read from predictions ----------------------------------------------------------


def check_predictions(predictions: Predictions) -> None:
    """Raise ValueError where predictions cannot be scored, in one line that says why."""
    labels, scores = predictions.labels, predictions.scores
    if scores.ndim != 2 or labels.shape not in (scores.shape[:1], scores.shape):
        raise ValueError(
            f"scores of shape {scores.shape} for labels of shape {labels.shape}: "
            "expected (n, n_classes) and (n,), or of several labels a text (n, n_labels) twice"
        )
    if not len(labels):
        raise ValueError("no rows to score: the split is empty")
    if not np.isfinite(scores).all():
        rows = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        raise ValueError(
            f"{len(rows)} of {len(scores)} rows have scores that are not finite (first: row "
            f"{rows[0]}): the model has diverged. Try a lower learning rate"
        )
    several = predictions.task == "multilabel"
    most = 2 if several else scores.shape[1]
    wrong = (labels < 0) | (labels >= most)
    if wrong.any() and several:
        raise ValueError("labels of several a text are ones and zeros, found another number")
    if wrong.any():
        first = int(labels[np.flatnonzero(wrong)[0]])
        hint = " (-1 marks an unlabelled split, which cannot be scored)" if first == -1 else ""
        raise ValueError(
            f"{int(wrong.sum())} of {len(labels)} labels are not in 0..{scores.shape[1] - 1}, "
            f"for example {first}{hint}"
        )


def probabilities(scores: Floats, score_kind: ScoreKind) -> Floats:
    """Probabilities (n, k) from scores (n, k): softmax of logits, probabilities as they are; of
    labels' logits the sigmoid of each.

    Raises ValueError for margins, which say nothing about probability, and for "probabilities"
    whose rows do not sum to one.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if score_kind == "logit":
        return np.asarray(np.exp(log_softmax(scores)), dtype=np.float64)
    if score_kind == "label_logit":
        return _sigmoid(scores)
    if score_kind == "margin":
        raise UndefinedMetricError("needs probabilities, and margins (distances) are not")
    if scores.size and (scores.min() < 0 or np.abs(scores.sum(axis=1) - 1).max() > 1e-3):
        raise ValueError(
            'scores declared as "probability" must be in 0..1 with rows that sum to one; found '
            f"{scores.min():.3g}..{scores.max():.3g}, a row with sum "
            f"{scores.sum(axis=1)[np.abs(scores.sum(axis=1) - 1).argmax()]:.3g}"
        )
    return scores


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))


def log_softmax(logits: Floats) -> Floats:
    """Logarithms of probabilities (n, k) of logits (n, k)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def class_scores(predictions: Predictions, c: int) -> Floats:
    """Score by which rows are ranked for class `c` against the rest, (n,).

    Logits: the softmax probability of c, never the raw logit, which may be large for every class
    of a row. With two classes the difference of both scores: it ranks as the probability does and
    does not saturate. Margins with more classes: the one-vs-rest distance of c.
    """
    scores = np.asarray(predictions.scores, dtype=np.float64)
    if predictions.score_kind == "label_logit":
        return scores[:, c]
    if scores.shape[1] == 2 and predictions.score_kind != "probability":
        return np.asarray(scores[:, c] - scores[:, 1 - c])
    if predictions.score_kind == "margin":
        return scores[:, c]
    return probabilities(scores, predictions.score_kind)[:, c]


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Confusion matrix (k, k): rows are true classes, columns predicted ones."""
    flat = np.bincount(np.asarray(labels) * k + np.asarray(predicted), minlength=k * k)
    return flat.reshape(k, k).astype(np.int64)


def counts(matrix: NDArray[np.int64] | Floats) -> Counts:
    """Counts (..., k) of confusion matrices (..., k, k)."""
    m = np.asarray(matrix, dtype=np.float64)
    return Counts(np.diagonal(m, axis1=-2, axis2=-1), m.sum(axis=-1), m.sum(axis=-2))


def counts_of(predictions: Predictions) -> Counts:
    """Counts (k,) of predictions, whatever their task."""
    labels, predicted = predictions.labels, predictions.predicted
    if predictions.task != "multilabel":
        return counts(confusion(labels, predicted, predictions.scores.shape[1]))
    parts = (labels * predicted, labels, predicted)
    return Counts(*(np.asarray(x.sum(axis=0), dtype=np.float64) for x in parts))
