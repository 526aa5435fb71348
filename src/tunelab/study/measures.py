"""What is measured of a trained classifier: scores of the parts, seconds, sizes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from tunelab.core.details import Scoring
from tunelab.core.values import Classifier, Cost, Predictions, Split
from tunelab.methods import Outcome
from tunelab.stats import metrics
from tunelab.stats.predictions import confusion
from tunelab.stats.thresholds import with_own_thresholds
from tunelab.study.elsewhere import score

__all__ = [
    "confusion_counts",
    "cost_of",
    "cost_when_asked",
    "latencies",
    "scores_of_parts",
    "scoring_of",
    "validation_predictions",
]

_LATENCY_TEXTS = 50
_LATENCY_WARMUP = 3


def cost_of(
    outcome: Outcome,
    test: Predictions,
    latency: tuple[float, float],
    peak_bytes: int | None,
    artifact_bytes: int,
) -> Cost:
    """What a trial cost, from its outcome and how its test part was scored."""
    assert test.seconds is not None  # noqa: S101  _score measured it
    return Cost(
        train_seconds=outcome.train_seconds,
        peak_memory_bytes=peak_bytes,
        **outcome.counts,
        artifact_bytes=artifact_bytes,
        texts_per_second=len(test.ids) / test.seconds,
        latency_p50_seconds=latency[0],
        latency_p95_seconds=latency[1],
    )


def cost_when_asked(classifier: Any, cost: Cost, texts: tuple[str, ...]) -> Cost:
    """The cost of scoring; where a server elsewhere does it, as it was when that was asked."""
    own = getattr(classifier, "cost_when_asked", None)
    return cost if own is None else own(cost, texts)


def validation_predictions(outcome: Outcome, split: Split) -> Predictions:
    """Predictions on validation: those of the best epoch, or made now. Of several labels a text, at
    the thresholds that are chosen on them.
    """
    if outcome.validation_scores is None:
        return with_own_thresholds(score(outcome.classifier, split))
    kind = outcome.classifier.score_kind
    return with_own_thresholds(
        Predictions(split.ids, split.labels, outcome.validation_scores, kind, ordered=split.ordered)
    )


def scores_of_parts(
    splits: Mapping[str, Predictions], label_names: tuple[str, ...]
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Every metric of each part, `eval_*` and `test_*`, and why one has no value."""
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for prefix, predictions in splits.items():
        scores, why = metrics.evaluate(predictions, label_names)
        values |= {f"{prefix}_{k}": v for k, v in scores.items()}
        reasons |= {f"{prefix}_{k}": v for k, v in why.items()}
    return values, reasons


def confusion_counts(p: Predictions) -> list[list[int]]:
    """The confusion matrix as lists: rows are true classes, columns predicted ones."""
    matrix: list[list[int]] = confusion(p.labels, p.predicted, p.scores.shape[1]).tolist()
    return matrix


def latencies(classifier: Classifier, texts: tuple[str, ...]) -> tuple[float, float]:
    """Median and 95th percentile of the seconds that one text takes, tokenization included."""
    sample = texts[:: max(1, len(texts) // _LATENCY_TEXTS)][:_LATENCY_TEXTS]
    for text in sample[:_LATENCY_WARMUP]:
        classifier.scores([text])
    seconds = []
    for text in sample:
        started = time.perf_counter()
        classifier.scores([text])
        seconds.append(time.perf_counter() - started)
    p50, p95 = np.percentile(seconds, [50, 95])
    return float(p50), float(p95)


def scoring_of(classifier: Any) -> Scoring | None:
    """What measured texts/s and latency: the path of `scoring.Prepared`, and why it is plain."""
    prepared = getattr(getattr(classifier, "embedder", classifier), "prepared", None)
    if prepared is None:
        return None  # no transformer scores these texts
    ready = prepared()
    return Scoring(ready.engine, ready.why, ready.merged, ready.precision)
