"""What a study on disk holds beyond its table: curves, confusions, agreement, single mistakes.

Everything is computed from stored histories and predictions, without torch; `page` draws it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tunelab.analysis import Summary
from tunelab.analysis.behaviour import results
from tunelab.analysis.confusions import confusion_sums
from tunelab.analysis.curves import curves_from_json
from tunelab.analysis.numbers import column, format_estimate
from tunelab.analysis.sensitivity import analyse
from tunelab.analysis.slicing import slice_study
from tunelab.core.details import DomainScores, Transfer
from tunelab.core.errors import InputError
from tunelab.core.study_folder import StudyRecord
from tunelab.core.tasks import Labels, has_label, row_codes
from tunelab.core.values import Estimate, Predictions, TrialResult
from tunelab.core.words import told_apart
from tunelab.data import behaviour
from tunelab.report.charts import (
    BehaviourPoint,
    CostColumn,
    Curve,
    CurvePoint,
    PlacePoint,
    PlotData,
    Reliability,
    Roc,
    SettingLevel,
    SizePoint,
    SlicePoint,
)
from tunelab.stats import Runs, mean_interval
from tunelab.stats.choosing import average_by_setting, expected_best, tuning_from_json
from tunelab.stats.metrics import METRICS
from tunelab.stats.predictions import UndefinedMetricError, class_scores, probabilities
from tunelab.stats.reliability import consistency_band, miscalibration, reliability
from tunelab.stats.slices import Slice
from tunelab.stats.threshold_curves import precision_recall_curve, roc_curve

__all__ = [
    "COST_CHARTS",
    "Floats",
    "Voice",
    "by_method",
    "common_rows",
    "plot_data",
    "slices_of",
    "voice_of",
]


Floats = NDArray[np.float64]

ROC_GRID_POINTS = 101
COST_CHARTS: dict[str, tuple[str, str, float]] = {
    "train_seconds": ("training time", "seconds", 1.0),
    "peak_memory_bytes": ("peak memory", "MB", 1e-6),
    "trainable_parameters": ("trained parameters", "millions", 1e-6),
    "artifact_bytes": ("size on disk", "MB", 1e-6),
    "latency_p50_seconds": ("latency of one text", "ms", 1e3),
    "texts_per_second": ("speed", "texts a second", 1.0),
}
HIGHER_IS_BETTER = frozenset({"texts_per_second"})


# --- values for the plots ---------------------------------------------------------------------


def by_method(record: StudyRecord, split: str) -> dict[str, list[Predictions]]:
    """The predictions of every method on one part, a seed after the other."""
    by_label: dict[str, list[Predictions]] = {}
    for r in record.done:
        p = record.predictions(r.spec.trial_id).get(split)
        if p is not None and len(p.ids):
            by_label.setdefault(r.spec.method.label, []).append(p)
    return {label: by_label[label] for label in record.methods if label in by_label}


def plot_data(
    record: StudyRecord,
    summary: Summary,
    predictions: Mapping[str, Sequence[Predictions]] | None = None,
) -> PlotData:
    """Everything that the plots of a study draw. `predictions`: what `by_method` gave before."""
    metric = METRICS[summary.metric]
    split = summary.split
    key = f"{summary.part}_{summary.metric}"
    names = tuple(str(n) for n in record.data["label_names"])
    trials = [r for r in record.done if r.spec.method.label in record.methods]
    histories = {r.spec.trial_id: record.history(r.spec.trial_id) for r in trials}
    scores = _estimates(summary, key)
    predictions = by_method(record, split) if predictions is None else predictions
    voices = common_rows({label: voice_of(runs) for label, runs in predictions.items()})
    return PlotData(
        methods=record.methods,
        seeds={r.label: r.n_seeds for r in summary.rows},
        metric=metric.label,
        percent=metric.percent,
        higher_is_better=metric.higher_is_better,
        part=split,
        best=summary.best,
        scores=scores,
        costs=_costs(summary, scores, metric.higher_is_better),
        differences=summary.against_best(),
        standings={c.b: summary.standing(c) for c in summary.against_best()},
        loss=_points(trials, histories, "loss"),
        validation=_points(trials, histories, f"eval_{summary.metric}"),
        roc=_rocs(summary, predictions, len(names)),
        precision_recall=_precision_recall(predictions, len(names)),
        confusion={m: c.tolist() for m, c in confusion_sums(record, split).items()},
        class_names=tuple(told_apart(names)),
        agreement=_share_decided_alike(voices),
        agreement_rows=min((len(v.ids) for v in voices.values()), default=0),
        reliability=_reliability(predictions),
        learning=_learning(record, summary),
        tuning=_expected_best_by_tries(record),
        transfer=_place_points(record, summary),
        sensitivity=_sensitivity(record, summary),
        behaviour=_behaviour_points(record),
        slices=tuple(
            SlicePoint(s.label, s.column, s.value, s.rows, s.accuracy, s.named)
            for s in slices_of(record, summary, predictions)
        ),
    )


def _estimates(summary: Summary, key: str) -> dict[str, Estimate]:
    return {r.label: e for r in summary.rows if (e := r.estimates.get(key)) is not None}


def _costs(
    summary: Summary, scores: Mapping[str, Estimate], higher: bool
) -> tuple[CostColumn, ...]:
    columns = []
    for name, (title, unit, factor) in COST_CHARTS.items():
        estimates = _estimates(summary, name)
        if not estimates:
            continue
        kind = column(name).kind
        texts = {
            m: format_estimate(replace(e, low=None, high=None), kind) for m, e in estimates.items()
        }
        up = name in HIGHER_IS_BETTER
        points = {
            m: ((1 if higher else -1) * scores[m].value, (-1 if up else 1) * e.value)
            for m, e in estimates.items()
            if m in scores
        }
        columns.append(CostColumn(name, title, unit, factor, estimates, texts, up, _front(points)))
    return tuple(columns)


def _front(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """The names of (gain, cost) points that no other point beats in one and equals in the other."""
    return tuple(
        name
        for name, (gain, cost) in points.items()
        if not any(g >= gain and c <= cost and (g > gain or c < cost) for g, c in points.values())
    )


def _points(
    trials: Sequence[TrialResult], histories: Mapping[str, Sequence[Mapping[str, float]]], key: str
) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(r.spec.method.label, r.spec.seed, float(row["epoch"]), float(row[key]))
        for r in trials
        for row in histories[r.spec.trial_id]
        if row.get(key) is not None
    )


def _rocs(
    summary: Summary, of_methods: Mapping[str, Sequence[Predictions]], k: int
) -> dict[str, Roc]:
    """Mean curve over seeds (and over classes, one against the rest), at fixed false alarms."""
    out = {}
    for label, predictions in of_methods.items():
        area = summary.row(label).estimates.get(f"{summary.part}_roc_auc")
        if area is None:
            continue
        grid = np.linspace(0, 1, ROC_GRID_POINTS)
        try:
            curves = [c for p in predictions for c in _roc_curves(p, k, grid)]
        except UndefinedMetricError:
            continue
        mean = np.mean(curves, axis=0)
        # Curves start at (0, 0); the grid's first value is the hits without any false alarm.
        out[label] = Roc([0.0, *grid.tolist()], [0.0, *mean.tolist()], area.value)
    return out


def _roc_curves(p: Predictions, k: int, grid: Floats) -> list[Floats]:
    """True positive rates on a grid of false positive rates, a curve a class."""
    out = []
    for c in _classes_drawn(p, k):
        false_alarms, hits = roc_curve(has_label(p.labels, c), class_scores(p, c), points=None)
        # At a jump the upper end counts: np.interp takes the last of equal x values.
        out.append(np.interp(grid, false_alarms, hits))
    return out


def _classes_drawn(p: Predictions, k: int) -> Sequence[int]:
    """The classes that have a curve: of two that exclude each other the second stands for both."""
    return [1] if k == 2 and p.task != "multilabel" else range(k)


def _precision_recall(of_methods: Mapping[str, Sequence[Predictions]], k: int) -> dict[str, Curve]:
    """Mean precision over seeds (and classes) at fixed recalls, and the mean average precision."""
    grid = np.linspace(0, 1, ROC_GRID_POINTS)
    out = {}
    for label, predictions in of_methods.items():
        try:
            curves = [c for p in predictions for c in _precisions(p, k, grid)]
        except UndefinedMetricError:
            continue
        mean = np.mean([precision for precision, _ in curves], axis=0)
        area = float(np.mean([area for _, area in curves]))
        out[label] = Curve(grid.tolist(), mean.tolist(), area)
    return out


def _precisions(p: Predictions, k: int, grid: Floats) -> list[tuple[Floats, float]]:
    """Precision at the highest threshold that reaches each recall, and the average precision.

    Average precision is the sum of precision times the step in recall (as in scikit-learn).
    """
    out = []
    for c in _classes_drawn(p, k):
        truth = has_label(p.labels, c)
        precision, recall = precision_recall_curve(truth, class_scores(p, c), points=None)
        precision, recall = precision[::-1], recall[::-1]  # from the highest threshold down
        area = float(np.sum(np.diff(recall) * precision[1:]))
        at = np.minimum(np.searchsorted(recall, grid - 1e-12), len(recall) - 1)
        out.append((precision[at], area))
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """What a method says of n rows, all its seeds together: of each row those that tested it.

    `scores` (n, k): mean over seeds of the probabilities, or of the margins where there are none;
    `asked` (n,): how many seeds tested the row, `agreeing` (n,): how many of them say the class
    that the mean says. In folds a seed tests a part of the rows; else every seed tests them all.
    Of several labels a text `labels` are (n, k), and probabilities are moved so that a label is
    predicted from one half on, whatever its threshold.
    """

    ids: tuple[str, ...]
    labels: Labels
    scores: Floats
    asked: NDArray[np.int64]
    agreeing: NDArray[np.int64]

    @property
    def predicted(self) -> Labels:
        """The class with the highest mean score for each row, (n,); of several labels (n, k)."""
        return _decided(self.scores, self.labels)

    @property
    def strength(self) -> Floats:
        """How sure it is of what it says of each row, (n,): the score of the class; of several
        labels the probability of just these, as if they were independent.
        """
        if self.labels.ndim == 1:
            return np.asarray(self.scores.max(axis=1))
        return np.asarray(np.maximum(self.scores, 1 - self.scores).prod(axis=1))

    def at(self, ids: Sequence[str]) -> Voice:
        """The same of these rows, in their order."""
        place = {i: row for row, i in enumerate(self.ids)}
        rows = np.array([place[i] for i in ids], dtype=np.int64)
        return Voice(
            tuple(ids),
            self.labels[rows],
            self.scores[rows],
            self.asked[rows],
            self.agreeing[rows],
        )


def voice_of(predictions: Sequence[Predictions]) -> Voice:
    """What a method says of every row that a seed of it tested, in the order of the seeds."""
    place: dict[str, int] = {}
    where = [
        np.array([place.setdefault(i, len(place)) for i in p.ids], dtype=np.int64)
        for p in predictions
    ]
    n = len(place)
    asked, agreeing = (np.zeros(n, dtype=np.int64) for _ in range(2))
    labels = np.zeros((n, *predictions[0].labels.shape[1:]), dtype=np.int64)
    total = np.zeros((n, predictions[0].scores.shape[1]))
    for p, rows in zip(predictions, where, strict=True):
        labels[rows] = p.labels
        asked[rows] += 1
        total[rows] += _comparable(p)
    scores = total / asked[:, None]
    decided = row_codes(_decided(scores, labels))
    for p, rows in zip(predictions, where, strict=True):
        agreeing[rows] += row_codes(p.predicted) == decided[rows]
    return Voice(tuple(place), labels, scores, asked, agreeing)


def common_rows(voices: Mapping[str, Voice]) -> dict[str, Voice]:
    """What methods say of the rows that all of them tested; without those that share none."""
    if not voices:
        return {}
    first = next(iter(voices.values()))
    sharing = {m: v for m, v in voices.items() if not set(first.ids).isdisjoint(v.ids)}
    shared = set(first.ids).intersection(*(v.ids for v in sharing.values()))
    ids = [i for i in first.ids if i in shared]
    return {m: v.at(ids) for m, v in sharing.items()}


def _decided(scores: Floats, labels: Labels) -> Labels:
    if labels.ndim == 2:
        return np.asarray(scores >= 0.5, dtype=np.int64)
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)


def _comparable(p: Predictions) -> Floats:
    p = p.at_one_half()
    if p.score_kind == "margin":
        return p.scores
    return probabilities(p.scores, p.score_kind)


def _reliability(of_methods: Mapping[str, Sequence[Predictions]]) -> dict[str, Reliability]:
    """Bins of confidence with all seeds together; methods without probabilities have none."""
    out = {}
    for label, predictions in of_methods.items():
        if not all(p.of_one_class for p in predictions):
            continue
        joined = replace(
            predictions[0],
            ids=tuple(i for p in predictions for i in p.ids),
            labels=np.concatenate([p.labels for p in predictions]),
            scores=np.concatenate([_comparable(p) for p in predictions]),
            score_kind="probability",
        )
        bins = [b for b in reliability(joined) if b.n]
        judged = miscalibration(predictions)
        out[label] = Reliability(
            [b.confidence or 0.0 for b in bins],
            [b.accuracy or 0.0 for b in bins],
            [b.n for b in bins],
            judged.error,
            judged.shown,
            [ends for ends in consistency_band(predictions) if ends is not None],
        )
    return out


def _learning(record: StudyRecord, summary: Summary) -> tuple[SizePoint, ...]:
    """The points of curves.json, where they are of the metric and part that is judged; with all
    rows, what stands in the table.
    """
    curves = record.parsed("curves", curves_from_json)
    if curves is None or (curves.metric, curves.part) != (summary.metric, summary.part):
        return ()
    table = _estimates(summary, f"{summary.part}_{summary.metric}")
    whole = max(curves.sizes)
    return tuple(
        SizePoint(
            p.label, p.rows, table.get(p.label, p.estimate) if p.rows == whole else p.estimate
        )
        for p in curves.points
    )


def _expected_best_by_tries(record: StudyRecord) -> dict[str, list[float]]:
    """Expected best validation score after 1, 2, ... tries of each method (tuning.json)."""
    tuned = record.parsed("tuning", tuning_from_json)
    if tuned is None:
        return {}
    out = {}
    for label, method in tuned.methods.items():
        values = [s.value for s in average_by_setting(method.tries) if s.value is not None]
        out[label] = expected_best(values, higher_is_better=tuned.higher_is_better)
    return out


MOST_SETTINGS = 8


def _sensitivity(record: StudyRecord, summary: Summary) -> tuple[SettingLevel, ...]:
    """What the values of each varying setting do, the settings with the largest share first."""
    if summary.best is None:
        return ()
    effects = [
        (s.method, e) for s in analyse(record, summary.metric) for e in s.effects if e.levels
    ]
    effects.sort(key=lambda pair: -pair[1].share.value)
    return tuple(
        SettingLevel(method, e.name, level.value, level.effect, e.share.value)
        for method, e in effects[:MOST_SETTINGS]
        for level in e.levels
    )


def _behaviour_points(record: StudyRecord) -> tuple[BehaviourPoint, ...]:
    """Failure rates on the behaviour tests, of trials that have predictions on their texts."""
    kept = record.parsed("behaviour", behaviour.suite_from_json)
    if kept is None:
        return ()
    suite, some = kept
    by_label: dict[str, dict[int, Predictions]] = {}
    for r in record.done:
        p = record.predictions(r.spec.trial_id).get(behaviour.PART)
        if p is not None and behaviour.are_of_cases(p, some):
            by_label.setdefault(r.spec.method.label, {})[r.spec.seed] = p
    runs = [Runs(label, by_seed) for label, by_seed in by_label.items()]
    names = [str(n) for n in record.data["label_names"]]
    return tuple(
        BehaviourPoint(f.label, f.test, f.capability, f.kind, f.cases, f.failure)
        for f in results(suite, some, runs, names)
    )


def slices_of(
    record: StudyRecord, summary: Summary, predictions: Mapping[str, Sequence[Predictions]]
) -> tuple[Slice, ...]:
    """What `slice_study` finds on the part that is judged; none where there is nothing to cut."""
    runs = {label: Runs(label, dict(enumerate(ps))) for label, ps in predictions.items()}
    try:
        return slice_study(record, part=summary.split, runs=runs).looked_at
    except InputError:
        return ()


def _place_points(record: StudyRecord, summary: Summary) -> tuple[PlacePoint, ...]:
    """Scores on `--test-on` data, and on each of its domains, mean over seeds."""
    scores: dict[tuple[str, str], list[float]] = {}
    for r in record.done:
        for name, there in r.details.transfer.items():
            places: dict[str, Transfer | DomainScores] = {name: there}
            if len(there.domains) >= 2:
                places |= {f"{name}: {d}": v for d, v in there.domains.items()}
            for place, facts in places.items():
                value = facts.scores.get(summary.metric)
                if value is not None:
                    scores.setdefault((place, r.spec.method.label), []).append(float(value))
    return tuple(
        PlacePoint(label, place, mean_interval(values)) for (place, label), values in scores.items()
    )


def _share_decided_alike(voices: Mapping[str, Voice]) -> dict[tuple[str, str], float]:
    said = {m: row_codes(v.predicted) for m, v in voices.items()}
    return {
        (a, b): float(np.mean(said[a] == said[b]))
        for a, b in combinations(voices, 2)
        if voices[a].ids
    }
