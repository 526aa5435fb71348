"""What a method without a training keeps: of several fits, the one that is best on validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tunelab.core.values import Predictions, ScoreKind
from tunelab.methods.method import Task
from tunelab.stats import metrics
from tunelab.stats.thresholds import with_own_thresholds

__all__ = [
    "best_on_validation",
]


def best_on_validation(
    task: Task,
    tries: Sequence[tuple[Mapping[str, float], NDArray[np.float64]]],
    score_kind: ScoreKind = "logit",
) -> tuple[int, list[dict[str, float | None]]]:
    """Which of `tries`, (what was tried, its scores of the validation part), is best by the study's
    metric, and what each gave.

    Of equals the first, which is to be the simplest. Where the metric has no value, all are equal.
    """
    metric = metrics.METRICS[task.metric]
    tried: list[dict[str, float | None]] = []
    for said, scored in tries:
        own = task.validation
        plain = Predictions(own.ids, own.labels, scored, score_kind, ordered=own.ordered)
        scores, _ = metrics.evaluate(with_own_thresholds(plain), task.label_names)
        tried.append({**said, f"eval_{task.metric}": scores[task.metric]})
    sign = 1 if metric.higher_is_better else -1
    values = [t[f"eval_{task.metric}"] for t in tried]
    best = max(range(len(tried)), key=lambda i: -math.inf if (v := values[i]) is None else sign * v)
    return best, tried
