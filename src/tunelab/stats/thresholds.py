"""From which probability on a label is predicted: chosen on validation, label by label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tunelab.core.tasks import Labels
from tunelab.core.values import Predictions
from tunelab.stats.predictions import Floats

__all__ = [
    "EVEN_CHANCE",
    "choose_thresholds",
    "with_own_thresholds",
]

EVEN_CHANCE = 0.5
_LEAST_CUT, _MOST_CUT = 1e-9, 1 - 1e-9


def choose_thresholds(validation: Predictions) -> Floats:
    """The threshold of each label that has the highest F1 on validation, (n_labels,).

    Half way between the scores on either side of the cut (Lipton et al. 2014 shows that the best
    cut of F1 is no fixed number: it is half of the F1 that is reached). Of equals the highest cut,
    which predicts least. One half where validation has no row with the label.
    """
    scores, labels = validation.scores, validation.labels
    return np.array([_best_cut(scores[:, k], labels[:, k]) for k in range(labels.shape[1])])


def with_own_thresholds(validation: Predictions) -> Predictions:
    """Predictions of several labels, read at the thresholds that are best on themselves; others as
    they are.
    """
    if validation.task != "multilabel":
        return validation
    return replace(validation, thresholds=choose_thresholds(validation))


def _best_cut(scores: Floats, labels: Labels) -> float:
    positives = int(labels.sum())
    if not positives:
        return EVEN_CHANCE
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order])
    ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))  # equal scores go together
    f1 = 2 * hits[ends] / (ends + 1 + positives)
    last = int(ends[f1.argmax()])
    below = ranked[last + 1] if last + 1 < len(ranked) else ranked[last] - 1.0
    cut = 1 / (1 + np.exp(-(ranked[last] + below) / 2))
    return float(np.clip(cut, _LEAST_CUT, _MOST_CUT))
