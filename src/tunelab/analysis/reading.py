"""What a study's finished trials gave: predictions, scores and costs, by method and seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tunelab.analysis.numbers import SCORED_PARTS
from tunelab.core.details import Hardware
from tunelab.core.study_folder import StudyRecord, read_rows
from tunelab.core.values import Estimate, Predictions, TrialResult
from tunelab.core.words import counted
from tunelab.stats import Runs, mean_interval, means
from tunelab.stats.metrics import METRICS

__all__ = [
    "BOOTSTRAP_SEED",
    "comparable",
    "groups_of_rows",
    "machine_of",
    "means_of",
    "paired_by_seed",
    "read_runs",
    "score_estimate",
    "on_every_row",
    "value_of",
    "values_by_seed",
]


# The same study folder must give the same intervals, whoever asks and however often.
BOOTSTRAP_SEED = 0


def read_runs(record: StudyRecord) -> dict[str, dict[str, Runs]]:
    """The predictions of a study's finished trials: by part ("validation", "test"), then by label.

    Reads every trial once. A method without predictions on a part is not in it.
    """
    by_part: dict[str, dict[str, dict[int, Predictions]]] = {p: {} for p in SCORED_PARTS.values()}
    for r in record.done:
        for part, p in record.predictions(r.spec.trial_id).items():
            if part in by_part:
                by_part[part].setdefault(r.spec.method.label, {})[r.spec.seed] = p
    groups = groups_of_rows(record)
    return {
        part: {label: Runs(label, by_seed, groups) for label, by_seed in labels.items()}
        for part, labels in by_part.items()
    }


def groups_of_rows(record: StudyRecord) -> Mapping[str, str] | None:
    """The group of each row of validation and test by its id; None where a study has none."""
    column = record.data.get("group_column")
    if column is None:
        return None
    known: dict[str, str] = {}
    for name in ("validation", "test"):
        rows = read_rows(record.directory, name)
        if rows is not None and column in rows.columns:
            values = zip(rows.ids, rows.columns[column], strict=True)
            known |= {i: str(v) for i, v in values if v is not None}
    return known


def paired_by_seed(runs: Mapping[str, Runs]) -> bool:
    """Whether all methods were scored on the same rows with the same seed.

    All seeds on the same rows, or each on its own: the fold that it tests, or a validation part
    that is divided anew by each seed.
    """
    of_seed = {(seed, p.ids) for r in runs.values() for seed, p in r.by_seed.items()}
    return len(of_seed) == len({seed for seed, _ in of_seed})


def means_of(runs: Mapping[str, Runs], metrics: Sequence[str]) -> dict[tuple[str, str], Estimate]:
    """Means over seeds, with intervals for other seeds and rows, by (label, metric); none where
    methods are not of the same rows with each seed.
    """
    if not paired_by_seed(runs):
        return {}
    return means(list(runs.values()), list(metrics), np.random.default_rng(BOOTSTRAP_SEED))


def score_estimate(key: str, values: Sequence[float], of_predictions: Estimate | None) -> Estimate:
    """The mean of a score ("test_accuracy") over seeds, as table and learning curves show it.

    `of_predictions`: what `means_of` gives, for other seeds and rows. Without it, or where stored
    scores are others, the interval is over seeds alone, cut to 0..1 where the metric is a share.
    """
    if key.endswith("_ece") and of_predictions is not None:
        return of_predictions  # of all seeds together; older trials keep the error with its luck
    over_seeds = mean_interval(values)
    if of_predictions is not None and math.isclose(of_predictions.value, over_seeds.value):
        return of_predictions
    metric = METRICS.get(key.partition("_")[2])
    if metric is None or not metric.percent or over_seeds.low is None or over_seeds.high is None:
        return over_seeds
    return replace(over_seeds, low=max(0.0, over_seeds.low), high=min(1.0, over_seeds.high))


def on_every_row(runs: Runs) -> Predictions:
    """One method's predictions on every row that a seed of it tested, each row once.

    Of all seeds' rows where they are the same, those of the first; else of each row the first seed
    that tested it, as in folds.
    """
    first, *others = runs.by_seed.values()
    seen, ids = set(first.ids), list(first.ids)
    labels, scores = [first.labels], [first.scores]
    for p in others:
        if p.ids == first.ids:
            continue
        new = np.array([i not in seen for i in p.ids], dtype=np.bool_)
        seen.update(p.ids)
        ids += [i for i, one in zip(p.ids, new, strict=True) if one]
        labels.append(p.labels[new])
        scores.append(p.scores[new])
    return replace(
        first, ids=tuple(ids), labels=np.concatenate(labels), scores=np.concatenate(scores)
    )


def value_of(result: TrialResult, key: str) -> float | None:
    """A score ("test_accuracy") or a cost ("train_seconds") of a trial; None where it has none."""
    value = getattr(result.cost, key) if hasattr(result.cost, key) else result.scores.get(key)
    return None if value is None else float(value)


# Costs that another machine would have others of.
_OF_A_MACHINE = (
    "train_seconds",
    "peak_memory_bytes",
    "texts_per_second",
    "latency_p50_seconds",
    "latency_p95_seconds",
)


def machine_of(result: TrialResult) -> str:
    """The kind of machine that a trial ran on: "EPYC 9B14, 16 cores"; "": not known."""
    h = result.provenance.hardware
    return "" if h == Hardware() else f"{h.processor}, {counted(h.cores or 0, 'core')}"


def comparable(record: StudyRecord, key: str) -> tuple[TrialResult, ...]:
    """The finished trials whose score or cost of this name may be compared: all, but of what a
    machine does those on the kind that ran most of them.
    """
    if key not in _OF_A_MACHINE:
        return record.done
    ran = Counter(machine_of(r) for r in record.done)
    most = max(ran, key=lambda kind: ran[kind], default="")
    return tuple(r for r in record.done if machine_of(r) == most)


def values_by_seed(record: StudyRecord, key: str) -> dict[str, dict[int, float]]:
    """A score or a cost of every finished trial that has it and is `comparable`: by label, then by
    seed.
    """
    by_label: dict[str, dict[int, float]] = {}
    for r in comparable(record, key):
        value = value_of(r, key)
        if value is not None:
            by_label.setdefault(r.spec.method.label, {})[r.spec.seed] = value
    return by_label
