"""Runs of methods on the same rows, and the crossed bootstrap over seeds and rows."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.values import Predictions
from tunelab.stats.metrics import METRICS, Metric
from tunelab.stats.predictions import Counts, UndefinedMetricError, check_predictions

__all__ = [
    "LEAST_SEEDS",
    "MEAN_RESAMPLES",
    "RESAMPLES",
    "Floats",
    "Measured",
    "Runs",
    "check_fractions",
    "check_paired",
    "count_rows",
    "count_units",
    "defined_resamples",
    "groups_of_ids",
    "measure_all",
    "metric_named",
    "resamples_for",
    "seeds_share_rows",
]


# Of so many classes at most an indicator is dense.
_DENSE_CLASSES = 8

Floats = NDArray[np.float64]
LEAST_SEEDS = 6  # with fewer, no two-sided sign-flip p can be 0.05 or less
RESAMPLES = 2000
SLOW_RESAMPLES = 200  # for metrics without a fast way: the standard error is then good to about 5%
MEAN_RESAMPLES = 500  # for the intervals of the means in a table: to about 3%


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """One method's predictions on one split, by seed.

    `groups`: what rows belong together (of one author, of one document), by their ids; rows that
    are not in it are alone. Such rows are drawn together; None: every row is by itself.
    """

    label: str
    by_seed: Mapping[int, Predictions]
    groups: Mapping[str, str] | None = None


def defined_resamples(drawn: Floats) -> Floats:
    """The resamples (B, ...) on which every value is defined."""
    return np.asarray(drawn[np.isfinite(drawn).reshape(len(drawn), -1).all(axis=1)])


# --- what a metric gives on the test rows and on resamples of them --------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A metric of one method: `values` by seed, and on B resamples of the rows `resampled` (B,)."""

    runs: Runs
    values: dict[int, float]
    resampled: dict[int, Floats]


def measure_all(
    runs: Sequence[Runs], metrics: Sequence[Metric], rng: np.random.Generator, resamples: int
) -> list[list[Measured]]:
    """For each metric: its values for each method and seed, on all rows and on resamples of them.

    Where rows are in groups, groups are resampled (Davison & Hinkley 1997, section 3.8). Everyone
    sees the same resamples: that is what pairs methods and seeds over rows. Where seeds have rows
    of their own (folds), the rows of all of them are resampled and each seed takes its own, so that
    a row that two seeds have counts in both or in neither. A method on which a metric has no value
    is left out of that metric's list. Raises ValueError where rows differ between methods.
    """
    check_paired(runs)
    tables = [[m for r in runs if (m := _measured_on_all_rows(r, metric))] for metric in metrics]
    every = [p for r in runs for p in r.by_seed.values()]
    rows, places = _all_rows(every)
    if not rows:
        return tables
    counters = {id(p): _counter(p) for p in every}
    ways = [
        (
            m,
            seed,
            resamples_for(metric, resamples),
            _resampler(p, metric, counters[id(p)]),
            list[Any](),
        )
        for metric, measured in zip(metrics, tables, strict=True)
        for m in measured
        for seed, p in m.runs.by_seed.items()
    ]
    done = 0
    groups = runs[0].groups
    each = dict.fromkeys(i for some in places for i in some)  # as `_all_rows` has them
    group = None if groups is None else groups_of_ids(each, groups)
    for drawn in _draw_rows(rng, rows, resamples, group):
        for m, seed, most, evaluate, chunks in ways:
            if done < most:
                some = drawn.first(most - done).of(places[m.runs.by_seed[seed].ids])
                chunks.append(_values_on(evaluate, some))
        done += drawn.times.shape[1]
    for m, seed, _, _, chunks in ways:
        m.resampled[seed] = np.concatenate(chunks)
    return tables


def _values_on(evaluate: Callable[[_DrawnRows], Floats], drawn: _DrawnRows) -> Floats:
    """Values of a metric on resamples; nan where none of a seed's own rows was drawn."""
    if drawn.rows_of_own is None:
        return evaluate(drawn)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = evaluate(drawn)
    return np.where(drawn.times.sum(axis=0) > 0, values, np.nan)


def _all_rows(
    predictions: Sequence[Predictions],
) -> tuple[int, dict[tuple[str, ...], NDArray[np.int64] | None]]:
    """How many different rows there are, and where those of each set of ids stand among them.

    None: they are all the rows, in their order.
    """
    sets = dict.fromkeys(p.ids for p in predictions)
    if len(sets) <= 1:  # rows without ids, too, are the same rows
        return next((len(p.labels) for p in predictions), 0), dict.fromkeys(sets)
    place = {row: i for i, row in enumerate(dict.fromkeys(i for ids in sets for i in ids))}
    return len(place), {ids: np.array([place[i] for i in ids]) for ids in sets}


def _measured_on_all_rows(runs: Runs, metric: Metric) -> Measured | None:
    try:
        return Measured(runs, {s: metric.function(p) for s, p in runs.by_seed.items()}, {})
    except UndefinedMetricError:
        return None


@dataclass(frozen=True, slots=True, eq=False)
class _DrawnRows:
    """Resamples of n rows: `index` (b, n) names the rows, `times` (n, b) counts them.

    `index` is None where groups are drawn, of which not each resample has as many rows.
    `rows_of_own`: where those rows stand of which a seed's predictions are; None: all.
    """

    index: NDArray[np.int64] | None
    times: Floats
    rows_of_own: NDArray[np.int64] | None = None
    parts: dict[int, _DrawnRows] = field(default_factory=dict)

    def first(self, most: int) -> _DrawnRows:
        """The first `most` resamples; itself where it has no more."""
        if most >= self.times.shape[1]:
            return self
        return _DrawnRows(None if self.index is None else self.index[:most], self.times[:, :most])

    def of(self, rows: NDArray[np.int64] | None) -> _DrawnRows:
        """What is drawn of some rows only, made once for each."""
        if rows is None:
            return self
        if id(rows) not in self.parts:
            self.parts[id(rows)] = _DrawnRows(self.index, self.times[rows], rows)
        return self.parts[id(rows)]

    def by_resample(self) -> Iterator[NDArray[np.int64]]:
        """The rows of each resample, as places among the seed's own rows."""
        if self.index is None:
            places = np.arange(len(self.times))
            yield from (np.repeat(places, times) for times in self.times.T.astype(np.int64))
            return
        if self.rows_of_own is None:
            yield from self.index
            return
        own = np.full(self.index.shape[1], -1)
        own[self.rows_of_own] = np.arange(len(self.rows_of_own))
        for rows in self.index:
            mine = own[rows]
            yield mine[mine >= 0]


def groups_of_ids(ids: Iterable[str], groups: Mapping[str, str]) -> NDArray[np.int64]:
    """A number for each row, the same for those of one group; a row of none is alone: (n,)."""
    numbers: dict[tuple[str, ...], int] = {}
    own = ((groups[i],) if i in groups else (i, "alone") for i in ids)
    return np.array([numbers.setdefault(key, len(numbers)) for key in own], dtype=np.int64)


def _draw_rows(
    rng: np.random.Generator, rows: int, resamples: int, group: NDArray[np.int64] | None
) -> Iterator[_DrawnRows]:
    n = rows if group is None else int(group.max()) + 1
    chunk = max(1, 2_000_000 // rows)  # some 16 MB at a time
    for start in range(0, resamples, chunk):
        index = rng.integers(0, n, size=(min(chunk, resamples - start), n))
        b = len(index)
        cell = index + n * np.arange(b)[:, None]
        times = np.bincount(cell.ravel(), minlength=b * n).reshape(b, n).T.astype(np.float64)
        yield _DrawnRows(index, times) if group is None else _DrawnRows(None, times[group])


def _counter(p: Predictions) -> Callable[[_DrawnRows], Counts]:
    """A function from b resamples to Counts (b, k); it remembers the last answer."""
    k = p.scores.shape[1]

    @functools.cache
    def indicators() -> tuple[Any, Any, Any]:
        hits = np.where(p.predicted == p.labels, p.labels, -1)
        return (
            _class_indicator(hits, k),
            _class_indicator(p.labels, k),
            _class_indicator(p.predicted, k),
        )

    @functools.lru_cache(maxsize=1)
    def count(drawn: _DrawnRows) -> Counts:
        hits, true, predicted = indicators()
        return Counts((hits @ drawn.times).T, (true @ drawn.times).T, (predicted @ drawn.times).T)

    return count


def _resampler(
    p: Predictions, metric: Metric, count: Callable[[_DrawnRows], Counts]
) -> Callable[[_DrawnRows], Floats]:
    """A function from b resamples to b values of the metric."""
    formula, weighted = metric.from_counts, metric.weighted
    if weighted is not None:
        return lambda drawn: weighted(p, drawn.times)
    if formula is not None:
        return lambda drawn: formula(count(drawn))
    return lambda drawn: np.array([_value_on_rows(p, metric, rows) for rows in drawn.by_resample()])


def _class_indicator(classes: NDArray[np.int64], k: int) -> Any:
    """(k, n): 1 where a row is of a class; rows with class -1 are of none. Sparse where k is large:
    counts are whole numbers, so that what they are times resamples is the same bit for bit.
    """
    if k <= _DENSE_CLASSES:
        return (classes == np.arange(k)[:, None]).astype(np.float64)
    from scipy.sparse import csr_array  # whose import takes longer than the products of few classes

    rows = np.flatnonzero(classes >= 0)
    return csr_array((np.ones(len(rows)), (classes[rows], rows)), shape=(k, len(classes)))


def _value_on_rows(p: Predictions, metric: Metric, rows: NDArray[np.int64]) -> float:
    try:
        return metric.function(Predictions((), p.labels[rows], p.scores[rows], p.score_kind))
    except UndefinedMetricError:  # this resample lacks a class
        return math.nan


def check_paired(runs: Sequence[Runs]) -> None:
    """With each seed, all methods must be of the same rows, with the same labels, in one order.

    Seeds may have rows of their own, as folds have.
    """
    first_of: dict[int, tuple[str, Predictions]] = {}
    for r in runs:
        for seed, p in r.by_seed.items():
            check_predictions(p)
            label, first = first_of.setdefault(seed, (r.label, p))
            what = None
            if p.ids != first.ids:
                what = "other test rows"
            elif not np.array_equal(p.labels, first.labels):
                what = "other labels for the same test rows"
            if what:
                raise ValueError(
                    f"{r.label} (seed {seed}) has {what} than {label} (seed {seed}): "
                    "a paired comparison needs the same ones in the same order; found "
                    f"{len(p.ids)} and {len(first.ids)} rows. Run both on the same data"
                )


def count_rows(runs: Runs, seeds: Sequence[int]) -> int:
    """How many different rows these seeds were scored on together."""
    first, *others = (runs.by_seed[s] for s in seeds)
    if all(p.ids == first.ids for p in others):
        return len(first.labels)
    return len({i for p in (first, *others) for i in p.ids})


def count_units(runs: Runs, seeds: Sequence[int]) -> int:
    """As how many independent ones these seeds' rows count: the rows, or their groups.

    Groups of unequal sizes count as so many equal ones: (sum of sizes)^2 / sum of squares (Kish).
    """
    if runs.groups is None:
        return count_rows(runs, seeds)
    ids = {i for s in seeds for i in runs.by_seed[s].ids}
    sizes = np.bincount(groups_of_ids(ids, runs.groups))
    return int(sizes.sum() ** 2 / (sizes**2).sum() + 1e-9)


def seeds_share_rows(runs: Sequence[Runs]) -> bool:
    """Whether all seeds are of the same rows; not so of folds."""
    return len({p.ids for r in runs for p in r.by_seed.values()}) <= 1


def metric_named(name: str) -> Metric:
    """The metric of a name; a ValueError that lists those there are."""
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    return METRICS[name]


def check_fractions(**given: float) -> None:
    """Refuse what is not between 0 and 1."""
    for name, value in given.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} is a fraction between 0 and 1, found {value:g}")


def resamples_for(metric: Metric, resamples: int) -> int:
    """How many resamples a metric is given: slow ones get fewer."""
    fast = metric.from_counts or metric.weighted
    return resamples if fast else min(resamples, SLOW_RESAMPLES)
