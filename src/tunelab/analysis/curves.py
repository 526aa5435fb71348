"""Learning curves: scores by number of training rows, and where two methods cross.

The trials on fewer rows (`StudyRecord.curve`) and those on all are compared size by size, paired
over seeds and test rows as everywhere. Between two sizes a difference is read off a straight line
over the logarithm of the rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tunelab.analysis.numbers import SCORED_PARTS, column, format_difference, format_estimate
from tunelab.analysis.reading import (
    BOOTSTRAP_SEED,
    groups_of_rows,
    means_of,
    paired_by_seed,
    score_estimate,
)
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Estimate, TrialResult
from tunelab.stats import Runs, compare_all
from tunelab.stats.metrics import METRICS

__all__ = [
    "Crossing",
    "Curves",
    "Point",
    "crossing",
    "Outlook",
    "curves_for_display",
    "curves_from_json",
    "learning_curves",
    "curves_to_json",
    "outlook",
]


@dataclass(frozen=True, slots=True)
class Point:
    """A method's mean score after training on `rows` rows."""

    label: str
    rows: int
    seeds: int
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Crossing:
    """Below about `rows` training rows `a` is ahead of `b`, above it `b` of `a`.

    `low` and `high` bound the sizes at which the two cannot be told apart, each size at 95%; None
    where that reaches beyond the sizes measured.
    """

    a: str
    b: str
    rows: int
    low: int | None
    high: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Curves:
    """The content of curves.json: `sizes` rise to all rows, `part` is "test" or "eval"."""

    metric: str
    part: str
    sizes: tuple[int, ...]
    points: tuple[Point, ...]
    crossings: tuple[Crossing, ...]


def learning_curves(record: StudyRecord, metric: str | None = None) -> Curves | None:
    """Curves of a study on its main metric; None where no trial ran on fewer rows."""
    metric = metric or record.settings["metric"]
    done = [r for r in (*record.curve, *record.results) if r.status == "done"]
    if not any(r.spec.train_rows is not None for r in done):
        return None
    whole = record.data["sizes"]["train"]
    part = "test" if any(r.scores.get(f"test_{metric}") is not None for r in done) else "eval"
    key = f"{part}_{metric}"
    by_size: dict[int, dict[str, list[TrialResult]]] = {}
    for r in done:
        of_size = by_size.setdefault(r.spec.train_rows or whole, {})
        of_size.setdefault(r.spec.method.label, []).append(r)
    sizes = tuple(sorted(by_size))
    runs = {rows: _runs_of_size(record, by_size[rows], SCORED_PARTS[part]) for rows in sizes}
    means = {
        (label, rows): e
        for rows in sizes
        for (label, _), e in means_of(runs[rows], [metric]).items()
    }
    points = tuple(
        Point(label, rows, len(values), score_estimate(key, values, means.get((label, rows))))
        for label in record.methods
        for rows in sizes
        if (values := _scores_of(by_size[rows].get(label, ()), key))
    )
    return Curves(metric, part, sizes, points, _crossings(runs, metric))


def _scores_of(results: Sequence[TrialResult], key: str) -> list[float]:
    return [v for r in results if (v := r.scores.get(key)) is not None]


def _runs_of_size(
    record: StudyRecord, of_size: Mapping[str, Sequence[TrialResult]], split: str
) -> dict[str, Runs]:
    """Predictions of the trials on so many rows, by method."""
    groups = groups_of_rows(record)
    return {
        label: Runs(
            label,
            {r.spec.seed: record.predictions(r.spec.trial_id)[split] for r in of_size[label]},
            groups,
        )
        for label in record.methods
        if label in of_size
    }


def _crossings(runs_by_size: Mapping[int, Mapping[str, Runs]], metric: str) -> tuple[Crossing, ...]:
    gaps: dict[tuple[str, str], dict[int, Estimate]] = {}
    for rows, runs in sorted(runs_by_size.items()):
        if not paired_by_seed(runs):
            continue
        for c in compare_all(list(runs.values()), metric, np.random.default_rng(BOOTSTRAP_SEED)):
            gaps.setdefault((c.a, c.b), {})[rows] = c.difference
    sign = 1 if METRICS[metric].higher_is_better else -1
    crossings = [crossing(a, b, of_pair, sign) for (a, b), of_pair in gaps.items()]
    return tuple(c for c in crossings if c is not None)


def crossing(a: str, b: str, gaps: Mapping[int, Estimate], sign: int = 1) -> Crossing | None:
    """Where a minus b changes its sign for the last time; None where it never does.

    `gaps` maps rows to the difference and its interval; `sign` is -1 where lower is better. The
    interval inverts the intervals of the differences (as Fieller's does): it ends where one of them
    begins to exclude zero. Each end is right at their level where the line between sizes is.
    """
    sizes = sorted(gaps)
    value = [sign * gaps[n].value for n in sizes]
    places = [math.log(n) for n in sizes]
    last = None
    previous = None  # the last size before, at which there was a difference
    for i, v in enumerate(value):
        if v == 0:
            continue
        if previous is not None and value[previous] * v < 0:
            last = (previous, i)
        previous = i
    if last is None:
        return None
    i, j = last
    # Equal scores at sizes between the two: the middle of that stretch.
    where = (
        _zero(places[i], value[i], places[j], value[j])
        if j == i + 1
        else ((places[i + 1] + places[j - 1]) / 2)
    )
    ahead, behind = (a, b) if value[i] > 0 else (b, a)
    towards = 1 if value[i] > 0 else -1  # so that the difference falls through zero
    low, high = _ends(places, [_signed_interval(gaps[n], sign * towards) for n in sizes], where)
    rows = _rounded(math.exp(where))
    ends = (_whole(low), _whole(high))
    return Crossing(
        ahead, behind, rows, *ends, _crossing_sentence(ahead, behind, rows, ends, sizes)
    )


def _zero(x0: float, y0: float, x1: float, y1: float) -> float:
    return x0 + (x1 - x0) * y0 / (y0 - y1)


def _signed_interval(e: Estimate, sign: int) -> tuple[float | None, float | None]:
    """The interval of sign x difference."""
    if e.low is None or e.high is None:
        return None, None
    return (e.low, e.high) if sign > 0 else (-e.high, -e.low)


def _ends(
    places: Sequence[float],
    intervals: Sequence[tuple[float | None, float | None]],
    where: float,
) -> tuple[float | None, float | None]:
    """From the crossing outwards: to the left until the lower end is above zero, to the right
    until the upper end is below. None where that does not happen within the sizes.
    """
    known = [
        (x, lo, hi)
        for x, (lo, hi) in zip(places, intervals, strict=True)
        if lo is not None and hi is not None
    ]
    low = high = None
    for (x0, y0, _), (x1, y1, _) in itertools.pairwise(known):
        if y0 > 0 >= y1 and x0 <= where:
            low = _zero(x0, y0, x1, y1)
    for (x0, _, y0), (x1, _, y1) in itertools.pairwise(known):
        if y0 >= 0 > y1 and x1 >= where and high is None:
            high = _zero(x0, y0, x1, y1)
    return low, high


def _rounded(rows: float) -> int:
    """Two significant digits: more is not known."""
    unit: int = 10 ** max(0, math.floor(math.log10(max(1.0, rows))) - 1)
    return round(rows / unit) * unit


def _whole(place: float | None) -> int | None:
    return None if place is None else _rounded(math.exp(place))


def _crossing_sentence(
    a: str, b: str, rows: int, ends: tuple[int | None, int | None], sizes: Sequence[int]
) -> str:
    low, high = ends
    if low is None and high is None:
        return (
            f"{a} and {b} cannot be told apart at any size from {sizes[0]:,} to {sizes[-1]:,} rows "
            f"(their means cross near {rows:,})"
        )
    first = f"{low:,}" if low is not None else f"below {sizes[0]:,}"
    second = f"{high:,}" if high is not None else f"above {sizes[-1]:,}"
    return (
        f"below about {rows:,} training rows {a} is at least as good as {b}, above it {b} is "
        f"(95% interval {first} to {second} rows)"
    )


@dataclass(frozen=True, slots=True)
class Outlook:
    """What `more` training rows, drawn as those before, would add to a method's score, read off the
    line between its last two sizes over the logarithm of the rows.

    `gain` has the interval that the two scores leave, as if they were independent: a little wide.
    """

    label: str
    metric: str
    sizes: tuple[int, int]
    more: int
    gain: Estimate

    @property
    def sentence(self) -> str:
        """The same in words, without a full stop."""
        return (
            f"{self.more:,} more rows like those before would change {self.label} by about "
            f"{format_difference(self.gain, self.metric)}, if its learning curve goes on as from "
            f"{self.sizes[0]:,} to {self.sizes[1]:,} rows"
        )


def outlook(curves: Curves, label: str, more: int) -> Outlook | None:
    """What so many more rows would bring; None where a method has not two sizes."""
    points = sorted((p for p in curves.points if p.label == label), key=lambda p: p.rows)
    if len(points) < 2:
        return None
    a, b = points[-2:]
    step = math.log((b.rows + more) / b.rows) / math.log(b.rows / a.rows)
    value = step * (b.estimate.value - a.estimate.value)
    halves = [
        (e.high - e.low) / 2
        for e in (a.estimate, b.estimate)
        if e.low is not None and e.high is not None
    ]
    low = high = None
    if len(halves) == 2:
        half = step * math.hypot(*halves)
        low, high = value - half, value + half
    gain = Estimate(value, low, high, min(a.seeds, b.seeds), "the line between two sizes")
    return Outlook(label, curves.metric, (a.rows, b.rows), more, gain)


def curves_to_json(curves: Curves) -> dict[str, object]:
    """Plain JSON values: the content of curves.json."""
    return asdict(curves)


def curves_from_json(value: Mapping[str, Any]) -> Curves:
    """What `curves_to_json` wrote."""
    return Curves(
        metric=value["metric"],
        part=value["part"],
        sizes=tuple(value["sizes"]),
        points=tuple(
            Point(p["label"], int(p["rows"]), int(p["seeds"]), Estimate(**p["estimate"]))
            for p in value["points"]
        ),
        crossings=tuple(Crossing(**c) for c in value["crossings"]),
    )


def curves_for_display(curves: Curves) -> tuple[list[str], list[list[str]]]:
    """The table that people read: a row a method, a column a size."""
    kind = column(f"{curves.part}_{curves.metric}").kind
    at = {(p.label, p.rows): p.estimate for p in curves.points}
    labels = list(dict.fromkeys(p.label for p in curves.points))
    headings = ["Training rows", *(f"{n:,}" for n in curves.sizes)]
    rows = [[x, *(format_estimate(at.get((x, n)), kind) for n in curves.sizes)] for x in labels]
    return headings, rows
