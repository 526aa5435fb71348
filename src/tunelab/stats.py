"""Scores per seed and row -> Estimate, Comparison, verdict.

Two methods are compared on the same test rows and over the seeds that both have. Two things make
their difference uncertain: other seeds would have trained other models, and other test rows would
have been easier or harder. Both count in the interval and in the test (see `difference`), the test
must survive Holm's correction over all pairs, and the seeds must agree (see `compare_all`).
docs/statistics.md explains each procedure and shows, by simulation, how often it is wrong.

May import: numpy, scipy (inside functions), types, tables (words), metrics, crossed. May not
import: torch, store, report.
Every function that draws takes an explicit rng; the same rng state gives the same result.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunelab.crossed import (
    LEVEL,
    Spread,
    components,
    components_of_resamples,
    satterthwaite,
    spread_of,
    t_quantile,
    unseen_variance,
)
from tunelab.metrics import METRICS, Counts, Metric, UndefinedMetricError, check_predictions
from tunelab.tables import counted
from tunelab.types import Comparison, Estimate, Predictions

__all__ = [
    "Loss",
    "Runs",
    "compare",
    "compare_all",
    "components",
    "decimals",
    "detectable_difference",
    "difference",
    "holm",
    "least_seeds",
    "losses",
    "mcnemar",
    "mean",
    "mean_draws",
    "mean_interval",
    "means",
    "rows_needed",
    "seeds_needed",
    "sign_flip",
    "standard_error",
]

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "equivalent", "undecided"]

MARGIN = 0.01
LEAST_SEEDS = 6  # with fewer, no two-sided sign-flip p can be 0.05 or less
RESAMPLES = 2000
SLOW_RESAMPLES = 200  # for metrics without a fast way: the standard error is then good to about 5%
MEAN_RESAMPLES = 500  # for the intervals of the means in a table: to about 3%
POWER_SEED = 0
LEAST_RESAMPLES = 20
MOST_NEEDED_SEEDS = 1000
MOST_NEEDED_ROWS = 10_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """One method's predictions on one split, by seed."""

    label: str
    by_seed: Mapping[int, Predictions]


# --- one method -----------------------------------------------------------------------------


def mean_interval(
    values: Sequence[float], level: float = LEVEL, *, signed: bool = False
) -> Estimate:
    """Mean of one value a seed, with Student's t interval over seeds.

    One value has no interval: low and high are None. The interval says what other seeds would
    give on the same test rows, not what other rows would give. It is cut at zero where no value
    is below, as costs and scores have it; `signed` values (differences, logarithms of ratios) may
    lie below though none of these does. Raises ValueError where there are no values or one is not
    finite.
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if not n or not np.isfinite(x).all():
        raise ValueError(f"mean_interval needs one or more finite values, found {list(values)}")
    if n == 1:
        return Estimate(float(x[0]), None, None, 1, "one seed: no interval")
    if x.min() == x.max():  # apart, because a mean of equal values may differ in the last digit
        same = float(x[0])
        return Estimate(same, same, same, n, f"the same value with each of {n} seeds")
    mean = float(x.mean())
    half = t_quantile(level, n - 1) * float(x.std(ddof=1)) / math.sqrt(n)
    low = mean - half if signed or x.min() < 0 else max(0.0, mean - half)
    return Estimate(mean, low, mean + half, n, f"mean of {n} seeds, Student t interval")


def mean(
    runs: Runs,
    metric: str,
    rng: np.random.Generator,
    *,
    level: float = LEVEL,
    resamples: int = MEAN_RESAMPLES,
) -> Estimate:
    """Mean of a metric over seeds, with an interval for other seeds and other rows.

    The procedure is that of `difference`, of one method: rows are resampled, the spread over seeds
    is added from its unbiased estimate, Student's t with Satterthwaite's degrees of freedom. With
    one seed there is no interval. Raises UndefinedMetricError where the metric has no value, and
    ValueError where there are no predictions.
    """
    check_fractions(level=level)
    chosen = metric_named(metric)
    for p in runs.by_seed.values():
        chosen.function(p)  # raises where it has no value
    if not runs.by_seed:
        raise ValueError(f"{runs.label}: no predictions, so {metric} has no mean")
    return _mean_estimate(measure_all([runs], [chosen], rng, resamples)[0][0], chosen, level)


def means(
    runs: Sequence[Runs],
    metrics: Sequence[str],
    rng: np.random.Generator,
    *,
    level: float = LEVEL,
    resamples: int = MEAN_RESAMPLES,
) -> dict[tuple[str, str], Estimate]:
    """`mean` of each method and metric, by (label, metric); all see the same resamples.

    Left out: methods without predictions, and metrics without a value on one of them.
    """
    check_fractions(level=level)
    chosen = [metric_named(m) for m in metrics]
    runs = [r for r in runs if r.by_seed]
    return {
        (m.runs.label, metric.name): _mean_estimate(m, metric, level)
        for metric, measured in zip(chosen, measure_all(runs, chosen, rng, resamples), strict=True)
        for m in measured
    }


def _mean_estimate(m: Measured, metric: Metric, level: float) -> Estimate:
    seeds = list(m.values)
    values = np.array([m.values[s] for s in seeds])
    value, n = float(values.mean()), len(seeds)
    rows = len(m.runs.by_seed[seeds[0]].labels)
    if n == 1:
        return Estimate(value, None, None, 1, "one seed: no interval")
    drawn = defined_resamples(np.stack([m.resampled[s] for s in seeds], axis=1))
    if rows < 2 or len(drawn) < LEAST_RESAMPLES:
        return Estimate(value, None, None, n, f"mean of {n} seeds; {no_interval_reason(rows)}")
    fixed = repeats_itself(m.runs, seeds)
    used = 1 if fixed else n
    if values.min() == values.max():  # their mean may differ in the last digit
        value = float(values[0])
    spread = components_of_resamples(
        values[:used], drawn[:, :used], rows, unseen=_unseen_of_metric(metric, rows)
    ).spread()
    half = spread.half_width(level)
    low, high = value - half, value + half
    if metric.percent:  # values lie in [0, 1]
        low, high = max(0.0, low), min(1.0, high)
    over = f"item bootstrap ({len(drawn):,} resamples of {rows:,} rows)"
    seeds_say = (
        f"; each of {n} seeds gives the same predictions"
        if fixed
        else f" crossed with the spread over {n} seeds, Student t with {spread.df:.1f} df"
    )
    return Estimate(value, low, high, n, f"mean of {n} seeds; {over}{seeds_say}")


def defined_resamples(drawn: Floats) -> Floats:
    """The resamples (B, ...) on which every value is defined."""
    return np.asarray(drawn[np.isfinite(drawn).reshape(len(drawn), -1).all(axis=1)])


def no_interval_reason(rows: int) -> str:
    why = "one test row" if rows < 2 else "too few resamples of the test rows have a value"
    return f"no interval: {why}"


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

    Everyone sees the same resamples: that is what pairs methods and seeds over rows. A method on
    which a metric has no value is left out of that metric's list. Raises ValueError where rows
    differ.
    """
    check_paired(runs)
    found = [[m for r in runs if (m := _measured_on_all_rows(r, metric))] for metric in metrics]
    rows = next((len(p.labels) for r in runs for p in r.by_seed.values()), 0)
    if not rows:
        return found
    counters = {id(p): _counter(p) for r in runs for p in r.by_seed.values()}
    ways = [
        (
            m,
            seed,
            resamples_for(metric, resamples),
            _resampler(p, metric, counters[id(p)]),
            list[Any](),
        )
        for metric, measured in zip(metrics, found, strict=True)
        for m in measured
        for seed, p in m.runs.by_seed.items()
    ]
    done = 0
    for drawn in _draw_rows(rng, rows, resamples):
        for _, _, most, evaluate, chunks in ways:
            if done < most:
                left = most - done
                all_of_it = left >= len(drawn.index)
                some = drawn if all_of_it else _DrawnRows(drawn.index[:left], drawn.times[:, :left])
                chunks.append(evaluate(some))
        done += len(drawn.index)
    for m, seed, _, _, chunks in ways:
        m.resampled[seed] = np.concatenate(chunks)
    return found


def _measured_on_all_rows(runs: Runs, metric: Metric) -> Measured | None:
    try:
        return Measured(runs, {s: metric.function(p) for s, p in runs.by_seed.items()}, {})
    except UndefinedMetricError:
        return None


@dataclass(frozen=True, slots=True, eq=False)
class _DrawnRows:
    """Resamples of n rows: `index` (b, n) names the rows, `times` (n, b) counts them."""

    index: NDArray[np.int64]
    times: Floats


def _draw_rows(rng: np.random.Generator, n: int, resamples: int) -> Iterator[_DrawnRows]:
    chunk = max(1, 2_000_000 // n)  # some 16 MB at a time
    for start in range(0, resamples, chunk):
        index = rng.integers(0, n, size=(min(chunk, resamples - start), n))
        b = len(index)
        cell = index + n * np.arange(b)[:, None]
        times = np.bincount(cell.ravel(), minlength=b * n).reshape(b, n)
        yield _DrawnRows(index, times.T.astype(np.float64))


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
    return lambda drawn: np.array([_value_on_rows(p, metric, rows) for rows in drawn.index])


def _class_indicator(classes: NDArray[np.int64], k: int) -> Any:
    """Sparse (k, n): 1 where a row is of a class; rows with class -1 are of none."""
    from scipy.sparse import csr_array

    rows = np.flatnonzero(classes >= 0)
    return csr_array((np.ones(len(rows)), (classes[rows], rows)), shape=(k, len(classes)))


def _value_on_rows(p: Predictions, metric: Metric, rows: NDArray[np.int64]) -> float:
    try:
        return metric.function(Predictions((), p.labels[rows], p.scores[rows], p.score_kind))
    except UndefinedMetricError:  # this resample lacks a class
        return math.nan


def check_paired(runs: Sequence[Runs]) -> None:
    """All predictions must be of the same rows, with the same labels, in the same order."""
    everything = [(r.label, seed, p) for r in runs for seed, p in r.by_seed.items()]
    for label, seed, p in everything:
        check_predictions(p)
        first_label, first_seed, first = everything[0]
        what = None
        if p.ids != first.ids:
            what = "other test rows"
        elif not np.array_equal(p.labels, first.labels):
            what = "other labels for the same test rows"
        if what:
            raise ValueError(
                f"{label} (seed {seed}) has {what} than {first_label} (seed {first_seed}): "
                f"a paired comparison needs the same ones in the same order; found {len(p.ids)} "
                f"and {len(first.ids)} rows. Run both on the same data"
            )


# --- the difference of two methods ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contrast:
    """a minus b. Variances are of metric units squared.

    `seed_variance`: of one seed's difference, shrinks with the number of seeds; None where seeds
    say nothing. `item_variance`: what more seeds do not take away. `spread`: of `value`; None
    where there is no interval. `p_value`: of `test`, before Holm's correction. `p_seeds`: of the
    sign-flip over seeds; None where the seeds carry no spread, or there is one.
    `most`: the largest difference that can be, 1 for metrics in [0, 1]; intervals end there.
    """

    value: float
    seeds: int
    rows: int
    deterministic: bool
    seed_variance: float | None
    item_variance: float | None
    spread: Spread | None
    p_value: float | None
    test: str
    p_seeds: float | None = None
    most: float = math.inf

    def interval(self, level: float) -> tuple[float, float] | None:
        if self.spread is None:
            return None
        half = self.spread.half_width(level)
        return max(-self.most, self.value - half), min(self.most, self.value + half)


def contrast_of(
    a: Measured, b: Measured, metric: Metric, rng: np.random.Generator
) -> Contrast | None:
    """The difference over the seeds that both have; None where they have none in common."""
    seeds = [s for s in a.values if s in b.values]
    if not seeds:
        return None
    by_seed = np.array([a.values[s] - b.values[s] for s in seeds])
    drawn = np.stack([a.resampled[s] - b.resampled[s] for s in seeds], axis=1)  # (B, seeds)
    drawn = defined_resamples(drawn)
    rows = len(a.runs.by_seed[seeds[0]].labels)
    deterministic = repeats_itself(a.runs, seeds) and repeats_itself(b.runs, seeds)
    # Apart, because a mean of equal values may differ in the last digit.
    value = float(by_seed[0] if by_seed.min() == by_seed.max() else by_seed.mean())
    if rows < 2 or len(drawn) < LEAST_RESAMPLES:
        return Contrast(value, len(seeds), rows, deterministic, None, None, None, None, "none")
    used = 1 if deterministic else len(seeds)
    parts = components_of_resamples(
        by_seed[:used], drawn[:, :used], rows, unseen=_unseen_of_metric(metric, rows)
    )
    spread = parts.spread()
    # Seeds that move the scores but no class (models that collapsed) repeat nothing that a metric
    # of classes reads: the test is over rows too, but six seeds stay the rule.
    still = metric.needs == "class" and all(
        repeats_itself(r, seeds, math.inf) for r in (a.runs, b.runs)
    )
    p_value: float | None
    p_seeds = None
    if not deterministic and not still:
        test = "t test over seeds and test rows"
        p_value = None if len(seeds) == 1 else spread.p_value(value)
        p_seeds = None if len(seeds) == 1 else sign_flip(by_seed, rng)
    elif metric.name == "accuracy":
        right = [
            r.by_seed[seeds[0]].predicted == r.by_seed[seeds[0]].labels for r in (a.runs, b.runs)
        ]
        p_value, test = mcnemar(right[0], right[1]), "exact McNemar over test rows"
    else:
        p_value, test = spread.p_value(value), "t test over test rows"
    return Contrast(
        value,
        len(seeds),
        rows,
        deterministic,
        parts.seed,
        parts.item,
        spread,
        p_value,
        test,
        p_seeds,
        1.0 if metric.percent else math.inf,
    )


def _unseen_of_metric(metric: Metric, rows: int) -> float:
    """What rows do not show of a share of them; of other metrics there is no such rule."""
    return unseen_variance(rows) if metric.percent else 0.0


def repeats_itself(runs: Runs, seeds: Sequence[int], within: float = 0.01) -> bool:
    """Whether a method gives the same predictions with every one of two or more seeds.

    Scores may differ by `within` of their standard deviation: that is a solver that visits rows in
    another order, not another model.
    """
    first = runs.by_seed[seeds[0]]
    spread = float(first.scores.std())
    tolerance = within * spread if spread else 0.0
    others = [runs.by_seed[s] for s in seeds[1:]]
    return bool(others) and all(
        np.array_equal(p.predicted, first.predicted)
        and float(np.abs(p.scores - first.scores).max()) <= tolerance
        for p in others
    )


def estimate_of(c: Contrast, level: float, resamples: int) -> Estimate:
    interval = c.interval(level)
    if interval is None or c.spread is None:
        return Estimate(
            c.value, None, None, c.seeds, f"paired difference; {no_interval_reason(c.rows)}"
        )
    over, df = f"item bootstrap ({resamples:,} resamples of {c.rows:,} test rows)", c.spread.df
    if c.deterministic:
        seeds = f"; each of {c.seeds} seeds gives the same predictions, so seeds carry no spread"
    elif c.seeds == 1:
        seeds = "; one seed: the spread over seeds is unknown and not in the interval"
    else:
        seeds = f" crossed with the spread over {c.seeds} seeds, Student t with {df:.1f} df"
    return Estimate(c.value, interval[0], interval[1], c.seeds, f"paired; {over}{seeds}")


def difference(
    a: Runs,
    b: Runs,
    metric: str,
    rng: np.random.Generator,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Mean difference a minus b of a metric, with an interval for other seeds and other rows.

    Paired over shared seeds and over rows. Rows are resampled, the same for both methods and all
    seeds; the spread over seeds is added from its unbiased estimate; and the interval is Student's
    t with Satterthwaite's degrees of freedom (`crossed` says why not resample both). In
    simulations with 3, 6 and 10 seeds and 300 and 1,000 rows it covers the true difference in 94
    to 98% of studies at level 0.95. With one seed only rows count, and `procedure` says so: there
    the same simulations find 58 to 94%.

    Raises ValueError where rows differ, no seed is shared, or the metric has no value.
    """
    chosen = metric_named(metric)
    check_fractions(level=level)
    return estimate_of(
        _contrast_of_runs(a, b, chosen, rng, resamples), level, resamples_for(chosen, resamples)
    )


def _contrast_of_runs(
    a: Runs, b: Runs, metric: Metric, rng: np.random.Generator, resamples: int
) -> Contrast:
    for p in (*a.by_seed.values(), *b.by_seed.values()):
        metric.function(p)  # raises where it has no value
    left, right = measure_all([a, b], [metric], rng, resamples)[0]
    contrast = contrast_of(left, right, metric, rng)
    if contrast is None:
        raise no_shared_seed(a, b)
    return contrast


def standard_error(
    a: Runs, b: Runs, metric: str, rng: np.random.Generator, *, resamples: int = MEAN_RESAMPLES
) -> float | None:
    """Standard error of `difference` over other rows, in the metric's units; None where unknown.

    The spread over seeds is left out: a method that broke down with one of them would be within
    its own error of anything. Raises as `difference` does.
    """
    variance = _contrast_of_runs(a, b, metric_named(metric), rng, resamples).item_variance
    return None if variance is None else math.sqrt(variance)


def metric_named(name: str) -> Metric:
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    return METRICS[name]


def check_fractions(**given: float) -> None:
    for name, value in given.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} is a fraction between 0 and 1, found {value:g}")


def resamples_for(metric: Metric, resamples: int) -> int:
    fast = metric.from_counts or metric.weighted
    return resamples if fast else min(resamples, SLOW_RESAMPLES)


def no_shared_seed(a: Runs, b: Runs) -> ValueError:
    return ValueError(
        f"{a.label} and {b.label} have no seed in common (found {sorted(a.by_seed)} and "
        f"{sorted(b.by_seed)}): a paired comparison needs at least one"
    )


# --- tests ----------------------------------------------------------------------------------


def sign_flip(
    differences: Sequence[float] | Floats,
    rng: np.random.Generator | None = None,
    resamples: int = 20_000,
) -> float:
    """Two-sided sign-flip permutation p of differences, one a seed.

    Null hypothesis: the difference is symmetric about zero. Exact, all 2^n signs, up to 16
    differences; above that from `resamples` random signs, for which `rng` is needed. The smallest
    possible exact p is 2^(1 - n). Raises ValueError where there are none or one is not finite.
    """
    d = np.asarray(differences, dtype=np.float64)
    n = len(d)
    if not n or not np.isfinite(d).all():  # nothing is as extreme as nan: p would be 0
        raise ValueError(f"sign_flip needs at least one difference, all finite; found {d.tolist()}")
    # A sum that equals the observed one up to rounding is as extreme.
    observed = abs(float(d.sum())) - 1e-9 * float(np.abs(d).sum())
    if n <= 16:
        codes = np.arange(2**n)[:, None]
        signs = 1 - 2 * ((codes >> np.arange(n)) & 1)
        return float((np.abs(signs @ d) >= observed).mean())
    if rng is None:
        raise ValueError(f"sign_flip of {n} differences draws random signs: pass an rng")
    hits = sum(
        int((np.abs(rng.choice([-1.0, 1.0], size=(1000, n)) @ d) >= observed).sum())
        for _ in range(max(1, resamples // 1000))
    )
    return (1 + hits) / (1 + 1000 * max(1, resamples // 1000))


def mcnemar(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> float:
    """Exact two-sided McNemar p of two fixed models, from who is right on each row, (n,) each."""
    from scipy.special import bdtr

    only_a = int((right_a & ~right_b).sum())
    only_b = int((right_b & ~right_a).sum())
    if not only_a + only_b:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): p values that may be read as if there were one test."""
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"holm needs p values in 0..1, found {p.tolist()}")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(x) for x in adjusted]


# --- how much more is needed ----------------------------------------------------------------


def least_seeds(level: float = LEVEL) -> int:
    """Seeds below which no two-sided sign-flip p can be 1 - level or less: 6 at 0.95.

    The smallest p with s seeds is 2^(1 - s).
    """
    return max(LEAST_SEEDS, math.ceil(1 - math.log2(1 - level) - 1e-9))


def seeds_needed(
    value: float,
    seed_variance: float | None,
    item_variance: float,
    *,
    seeds: int,
    rows: int,
    level: float = LEVEL,
    pairs: int = 1,
    margin: float | None = None,
) -> tuple[int | None, str]:
    """About how many more seeds would decide a difference of `value`, if it and its spread stay.

    To decide is to tell it from zero at `level`, Bonferroni-adjusted over the `pairs` that are not
    told apart yet; or, with a `margin` that is larger than `value`, to call it equivalent.
    `seed_variance` is that of one seed's difference, `item_variance` what test rows leave however
    many seeds there are. Gives (number, reason), or (None, reason) where seeds cannot decide: rows
    are too few (then about how many are needed), the spread over seeds is unknown, or more than
    1,000 would be needed. The observed difference is itself uncertain, hence "about".
    """
    goal = _Decision(abs(value), level, pairs, margin)
    if not goal.possible:
        return None, "no difference was observed"
    if seed_variance is None:
        return None, "the spread over seeds is unknown"
    least = max(seeds + 1, least_seeds(level))
    # Where seeds go to infinity, what is left is the rows.
    if not goal.reached(Spread(item_variance, rows - 1)):
        both = rows_needed(
            value, seed_variance, item_variance,
            seeds=seeds, rows=rows, level=level, pairs=pairs, margin=margin,
        )[1]  # fmt: skip
        return None, both
    for total in range(least, seeds + MOST_NEEDED_SEEDS + 1):
        if goal.reached(_expected_spread(seed_variance / total, item_variance, total, rows)):
            return total - seeds, "at the observed difference and spread"
    return None, f"more than {MOST_NEEDED_SEEDS:,} more seeds are needed"


def rows_needed(
    value: float,
    seed_variance: float | None,
    item_variance: float,
    *,
    seeds: int,
    rows: int,
    level: float = LEVEL,
    pairs: int = 1,
    margin: float | None = None,
) -> tuple[int | None, str]:
    """About how many more test rows would decide a difference of `value`; see `seeds_needed`.

    The same seeds, and rows like those that are there. Gives (number, reason), or (None, reason)
    where rows alone cannot decide: then the reason says how many rows and seeds together would.
    `seed_variance` 0: seeds carry no spread; None: unknown.
    """
    goal = _Decision(abs(value), level, pairs, margin)
    if not goal.possible:
        return None, "no difference was observed"
    if seed_variance is None:
        return None, "the spread over seeds is unknown"

    def total(with_seeds: int) -> int | None:
        """Smallest number of rows, to two digits, that decides with so many seeds."""

        def enough(n: int) -> bool:
            by_seed = seed_variance / with_seeds
            return goal.reached(_expected_spread(by_seed, item_variance * rows / n, with_seeds, n))

        if not enough(MOST_NEEDED_ROWS):
            return None
        low, high = 1, MOST_NEEDED_ROWS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        unit = 10 ** max(0, math.floor(math.log10(high)) - 1)
        return int(max(math.ceil(high / unit) * unit, rows + 1))

    if seeds >= LEAST_SEEDS or not seed_variance:
        found = total(seeds)
        if found is not None:
            return found - rows, f"more test rows are needed: about {found:,}"
    wanted = max(2 * seeds, LEAST_SEEDS)
    while wanted <= MOST_NEEDED_SEEDS:
        found = total(wanted)
        if found is not None:
            reason = f"more test rows are needed: about {found:,}, and {wanted:,} seeds"
            return None, reason
        wanted *= 2
    return None, f"more test rows are needed: more than {MOST_NEEDED_ROWS:,}"


@dataclass(frozen=True, slots=True)
class _Decision:
    """What would decide a pair whose observed difference has this `size`."""

    size: float
    level: float
    pairs: int
    margin: float | None

    @property
    def possible(self) -> bool:
        return self.size > 0 or self.margin is not None

    def reached(self, expected: Spread) -> bool:
        spread = Spread(expected.variance, max(1.0, expected.df))
        adjusted = 1 - (1 - self.level) / self.pairs
        if self.size > spread.half_width(adjusted):
            return True
        room = -math.inf if self.margin is None else self.margin - self.size
        return room > spread.half_width(2 * self.level - 1)


def _expected_spread(by_seed: float, by_item: float, seeds: int, rows: int) -> Spread:
    """The spread of a mean difference over so many seeds and rows, which bring so much variance."""
    return spread_of(by_seed, by_item, seed_df=max(1, seeds - 1), item_df=max(1, rows - 1))


def detectable_difference(
    n_items: int,
    n_seeds: int,
    disagreement: float = 0.08,
    power: float = 0.8,
    *,
    seed_sd: float = 0.0,
    shared: float = 1.0,
    pairs: int = 1,
    level: float = LEVEL,
) -> float:
    """Smallest true difference in accuracy that is called "better" with this `power`.

    `disagreement` is the share of rows on which exactly one of two models is right; `shared` the
    part of it on which all seeds agree (1, the cautious end: then no number of seeds beats the
    limit that the rows set); `seed_sd` the standard deviation of one seed's difference in accuracy
    on endless rows; `pairs` of how many comparisons this is the first that Holm tests.

    The mean difference has variance item + seed / S, with item = shared x disagreement / n and
    seed = seed_sd^2 + (1 - shared) x disagreement / n. Its power is that of both tests of
    `compare_all`, t and sign-flip, from 4,000 normal studies with a fixed seed; without a spread
    over seeds it is (z(level) + z(power)) sqrt(disagreement / n). Below 6 seeds tunelab never says
    "better"; the figure is then what the t test alone could find.
    """
    from scipy.special import ndtri

    if n_items < 1 or n_seeds < 1 or pairs < 1:
        raise ValueError(
            f"expected at least one row, seed and pair, found {n_items}, {n_seeds} and {pairs}"
        )
    check_fractions(disagreement=disagreement, power=power, level=level)
    if not 0 <= shared <= 1:
        raise ValueError(f"shared is a fraction between 0 and 1, found {shared:g}")
    item = shared * disagreement / n_items
    seed = seed_sd**2 + (1 - shared) * disagreement / n_items
    adjusted = 1 - (1 - level) / pairs
    if n_seeds == 1 or not seed:
        z = float(ndtri((1 + adjusted) / 2) + ndtri(power))
        return z * math.sqrt(item + seed)
    return _power_by_simulation(item, seed, (n_items, n_seeds), power, (level, adjusted))


def _power_by_simulation(
    item: float, seed: float, size: tuple[int, int], power: float, levels: tuple[float, float]
) -> float:
    """The difference at which a share `power` of normal studies passes both tests.

    A larger true difference shifts a study's differences and leaves their spread alone, so each
    study has one smallest shift at which it passes: the answer is a quantile of these.
    """
    from scipy.special import stdtrit

    rows, seeds = size
    rng = np.random.default_rng(POWER_SEED)
    noise = math.sqrt(seed) * rng.normal(size=(4000, seeds))
    start = math.sqrt(item) * rng.normal(size=4000) + noise.mean(axis=1)
    spread = noise.var(axis=1, ddof=1)
    by_seed = spread / seeds
    variance = by_seed + item
    df = satterthwaite(variance, by_seed, item, seed_df=seeds - 1, item_df=max(1, rows - 1))
    needed = stdtrit(df, (1 + levels[1]) / 2) * np.sqrt(variance)
    if LEAST_SEEDS <= seeds <= 10:  # with more, who passes the t test passes this one
        centred = noise - noise.mean(axis=1, keepdims=True)
        needed = np.maximum(needed, _sign_flip_limits(centred, levels[0]))
    return float(np.quantile(needed - start, power))


def _sign_flip_limits(noise: Floats, level: float) -> Floats:
    """The mean m, (studies,), above which the sign-flip of m + noise has p <= 1 - level.

    `noise` (studies, seeds) is centred. To flip the seeds T makes a sum at least as large as the
    observed one where m <= -(mean of the noise over T); to flip the others makes one as small. So
    p = (1 + number of such T) / 2^(seeds - 1), and m is one of the largest of these limits.
    """
    seeds = noise.shape[1]
    codes = np.arange(1, 2**seeds - 1)
    flipped = ((codes[:, None] >> np.arange(seeds)) & 1).astype(np.float64)
    limits = -(noise @ flipped.T) / flipped.sum(axis=1)
    place = limits.shape[1] - math.floor((1 - level) * 2 ** (seeds - 1) + 1e-9)
    limits.partition(place, axis=1)
    return np.asarray(limits[:, place])


# --- verdicts -------------------------------------------------------------------------------


def compare(
    a: Runs,
    b: Runs,
    metric: str,
    rng: np.random.Generator,
    *,
    margin: float = MARGIN,
    level: float = LEVEL,
) -> Comparison:
    """Compare one pair on its own (`compare_all` without Holm). Raises as `difference` does."""
    found = compare_all([a, b], metric, rng, margin=margin, level=level)
    if found:
        return found[0]
    for runs in (a, b):
        for p in runs.by_seed.values():
            metric_named(metric).function(p)  # raises where that was the reason
    raise no_shared_seed(a, b)


def compare_all(
    runs: Sequence[Runs],
    metric: str,
    rng: np.random.Generator,
    *,
    margin: float = MARGIN,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> list[Comparison]:
    """Compare all pairs on one metric, in the order of `runs`; p values are Holm-adjusted.

    "better" and "worse" need at least 6 shared seeds and two tests at 1 - level: the t test that
    belongs to the interval of `difference`, which counts seeds and rows, Holm-adjusted over all
    pairs; and the sign-flip over seeds, which assumes no distribution. The sign-flip is not
    adjusted: the first test holds the family-wise error, and with 6 seeds no sign-flip p could pass
    any correction. "equivalent", for metrics in [0, 1], needs 6 seeds and two one-sided tests: the
    interval at 2 level - 1 (90%) lies within +-margin (Schuirmann 1987); it is of each pair.
    Where every seed of both methods gives the same predictions, seeds are no repetition: the test
    is then over test rows (exact McNemar for accuracy), and two seeds are enough. Where seeds move
    the scores but no class, the test for metrics of classes is over rows too, but six seeds stay
    the rule. All else is "undecided".

    `simultaneous` is the interval at the Bonferroni level: it holds for all pairs at once. Where
    Holm, which is sharper, tells a pair from zero and that interval does not, it ends at zero.

    Pairs without a shared seed, and methods on which the metric has no value (log loss of an
    SVM's margins), are left out. Raises ValueError where the test rows differ.
    """
    chosen = metric_named(metric)
    check_fractions(level=level, margin=margin)
    check_paired(runs)
    # The score table has None, with its reason, where a metric has no value.
    (measured,) = measure_all(runs, [chosen], rng, resamples)
    pairs = [
        (a.runs.label, b.runs.label, contrast)
        for a, b in combinations(measured, 2)
        if (contrast := contrast_of(a, b, chosen, rng)) is not None
    ]
    adjusted = iter(holm([c.p_value for _, _, c in pairs if c.p_value is not None]))
    adjusted_p = [None if c.p_value is None else next(adjusted) for _, _, c in pairs]
    open_pairs = sum(p is None or p > 1 - level + 1e-12 for p in adjusted_p)
    rule = _StudyRule(chosen, margin, level, len(pairs), max(1, open_pairs), resamples)
    return [
        _comparison_of(a, b, c, p, rule) for (a, b, c), p in zip(pairs, adjusted_p, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Loss:
    """What is lost by taking `label` instead of the reference, in metric units (above 0: worse).

    `loss` has the interval at 2 level - 1 (90%). `p_value` is of the test that the loss is the
    margin or more, Holm-adjusted over all candidates; `acceptable` where it is at most 1 - level
    and there are enough seeds.
    """

    label: str
    loss: Estimate
    p_value: float | None
    acceptable: bool
    reason: str


def losses(
    reference: Runs,
    others: Sequence[Runs],
    metric: str,
    rng: np.random.Generator,
    *,
    margin: float = MARGIN,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> list[Loss]:
    """Which methods lose less than a margin against a reference: one-sided t tests, Holm-adjusted.

    Non-inferiority, the half of TOST that a user needs who would take something cheaper: being
    better is no fault. Methods without a shared seed or a value are left out. Raises ValueError
    where rows differ or the reference has no value.
    """
    from scipy.special import stdtr

    chosen = metric_named(metric)
    check_fractions(level=level, margin=margin)
    (measured,) = measure_all([reference, *others], [chosen], rng, resamples)
    if not measured or measured[0].runs is not reference:
        raise ValueError(f"{reference.label}: no value of {metric}, so nothing can be lost")
    sign = 1.0 if chosen.higher_is_better else -1.0
    found: list[tuple[str, Contrast, float | None]] = []
    for m in measured[1:]:
        c = contrast_of(measured[0], m, chosen, rng)
        if c is None:
            continue
        p = None
        if c.spread is not None and (c.seeds > 1 or c.deterministic):
            # An Agresti half disagreement keeps a percent metric's variance above zero.
            t = (sign * c.value - margin) / math.sqrt(max(c.spread.variance, 1e-300))
            p = float(stdtr(c.spread.df, t))
        found.append((m.runs.label, c, p))
    adjusted = iter(holm([p for _, _, p in found if p is not None]))
    out = []
    for label, c, p in found:
        q = None if p is None else next(adjusted)
        enough = c.deterministic or c.seeds >= LEAST_SEEDS
        acceptable = enough and q is not None and q <= 1 - level
        few = f"{counted(c.seeds, 'seed')}: at least {LEAST_SEEDS} are needed"
        reason = "one-sided t test" if enough else few
        out.append(
            Loss(
                label,
                _as_loss(estimate_of(c, 2 * level - 1, resamples), sign),
                q,
                acceptable,
                reason,
            )
        )
    return out


def _as_loss(e: Estimate, sign: float) -> Estimate:
    if sign > 0 or e.low is None or e.high is None:
        return Estimate(sign * e.value, e.low, e.high, e.n, e.procedure)
    return Estimate(-e.value, -e.high, -e.low, e.n, e.procedure)


def mean_draws(
    runs: Sequence[Runs], metric: str, rng: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[list[str], Floats, NDArray[np.int64]]:
    """Means that other rows and seeds would have given: (labels, (B, methods), seeds drawn (B, S)).

    A crossed bootstrap (Owen 2007): rows and seeds are resampled, the same for every method; the
    spread over seeds is widened by S / (S - 1), which few seeds need. The last value names the
    places of the seeds drawn, so that costs can be averaged over the same. Only seeds that every
    method has are used; methods without a value are left out. No shared seed: no methods.
    """
    chosen = metric_named(metric)
    (measured,) = measure_all(runs, [chosen], rng, resamples)
    seeds = sorted(set.intersection(*(set(m.values) for m in measured))) if measured else []
    if not seeds:
        return [], np.empty((resamples, 0)), np.empty((resamples, 0), dtype=np.int64)
    s = len(seeds)
    times = resamples_for(chosen, resamples)
    drawn = rng.integers(0, s, size=(times, s))
    widen = math.sqrt(s / (s - 1)) if s > 1 else 0.0
    columns = []
    for m in measured:
        by_seed = np.array([m.values[k] for k in seeds])
        rows = np.mean([m.resampled[k] for k in seeds], axis=0)
        columns.append(rows + widen * (by_seed[drawn].mean(axis=1) - by_seed.mean()))
    return [m.runs.label for m in measured], np.stack(columns, axis=1), drawn


@dataclass(frozen=True, slots=True)
class _StudyRule:
    """What all pairs of a study share; `open_pairs` are those that Holm does not tell apart."""

    metric: Metric
    margin: float
    level: float
    pairs: int
    open_pairs: int
    resamples: int

    @property
    def alpha(self) -> float:
        return 1 - self.level + 1e-12


def _comparison_of(a: str, b: str, c: Contrast, p: float | None, rule: _StudyRule) -> Comparison:
    verdict = _verdict_of(c, p, rule)
    seeds: int | None = None
    rows: int | None = None
    if verdict == "undecided":
        need = _what_is_missing(c, p, rule)
        seeds, rows, reason = need.seeds, need.rows, need.reason
        sentence = _undecided_sentence(a, b, c, p, rule)
    else:
        reason = f"p by {c.test}" if verdict != "equivalent" else "two one-sided tests"
        sentence = _decided_sentence(a, b, c, p, rule)
    return Comparison(
        a=a,
        b=b,
        metric=rule.metric.name,
        difference=estimate_of(c, rule.level, resamples_for(rule.metric, rule.resamples)),
        verdict=verdict,
        p_value=p,
        seeds_needed=seeds,
        reason=reason,
        sentence=sentence,
        rows_needed=rows,
        p_seeds=c.p_seeds,
        simultaneous=_simultaneous(c, p, rule),
        margin=rule.margin,
    )


def _simultaneous(c: Contrast, p: float | None, rule: _StudyRule) -> tuple[float, float] | None:
    found = c.interval(1 - (1 - rule.level) / max(1, rule.pairs))
    if found is None or p is None or p > rule.alpha:
        return found
    low, high = found
    return (max(low, 0.0), high) if c.value > 0 else (low, min(high, 0.0))


def _excludes_zero(c: Contrast, level: float) -> bool:
    interval = c.interval(level)
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def _interval_within(c: Contrast, level: float, margin: float) -> bool:
    interval = c.interval(level)
    return interval is not None and -margin < interval[0] and interval[1] < margin


def _is_ahead(c: Contrast, rule: _StudyRule) -> bool:
    return (c.value > 0) == rule.metric.higher_is_better


def _verdict_of(c: Contrast, p: float | None, rule: _StudyRule) -> Verdict:
    if not c.deterministic and c.seeds < LEAST_SEEDS:
        return "undecided"
    agreed = c.p_seeds is None or c.p_seeds <= rule.alpha
    if p is not None and p <= rule.alpha and agreed and _excludes_zero(c, rule.level):
        return "better" if _is_ahead(c, rule) else "worse"
    if rule.metric.percent and _interval_within(c, 2 * rule.level - 1, rule.margin):
        return "equivalent"
    return "undecided"


@dataclass(frozen=True, slots=True)
class _Missing:
    """About how many more seeds, or how many more rows, would decide; None where they cannot."""

    seeds: int | None
    rows: int | None
    reason: str


def _what_is_missing(c: Contrast, p: float | None, rule: _StudyRule) -> _Missing:
    least = least_seeds(rule.level)
    if c.spread is None or c.item_variance is None:
        return _Missing(None, None, no_interval_reason(c.rows).removeprefix("no interval: "))
    if not c.deterministic and c.seeds == 1:
        reason = f"one seed: the spread over seeds is unknown; at least {least} are needed"
        return _Missing(None, None, reason)
    seed_variance = 0.0 if c.deterministic else c.seed_variance
    item_variance = c.item_variance

    def ask(needed: Callable[..., tuple[int | None, str]]) -> tuple[int | None, str]:
        return needed(
            c.value,
            seed_variance,
            item_variance,
            seeds=c.seeds,
            rows=c.rows,
            level=rule.level,
            pairs=rule.open_pairs,
            margin=rule.margin if rule.metric.percent else None,
        )

    told = p is not None and p <= rule.alpha
    if c.deterministic:  # told, and yet undecided: the interval and the exact test disagree
        rows, reason = ask(rows_needed)
        return _Missing(None, rows, reason)
    seeds, reason = ask(seeds_needed)
    rows, _ = ask(rows_needed)
    if not told:
        return _Missing(seeds, rows, reason)
    # By the t test, and not by the sign-flip: more rows of these seeds may not change that.
    if c.seeds < least or c.p_seeds is None:
        few = f"{c.seeds} seeds: at least {least} are needed"
        return _Missing(max(1, least - c.seeds), None, few)
    return _Missing(seeds, None, f"the seeds do not agree (sign-flip p = {c.p_seeds:.2g})")


# --- plain words ----------------------------------------------------------------------------


def _decided_sentence(a: str, b: str, c: Contrast, p: float | None, rule: _StudyRule) -> str:
    verdict, size = _verdict_of(c, p, rule), _size_in_words(c, rule.metric)
    if verdict == "equivalent":  # with the interval that the verdict rests on
        tost = _interval_in_words(c, 2 * rule.level - 1, rule.metric)
        within = _margin_in_words(rule.margin)
        return f"{a} and {b} are equivalent within {within}: {size}, {tost} ({_basis_in_words(c)})"
    interval = _interval_in_words(c, rule.level, rule.metric)
    tail = f"{interval}, {_test_in_words(c, p, rule)}, {_basis_in_words(c)}"
    small = rule.metric.percent and _interval_within(c, rule.level, rule.margin)
    within = f"; real, but within {_margin_in_words(rule.margin)}" if small else ""
    return f"{a} is {verdict} than {b}: {size} ({tail}){within}"


def _undecided_sentence(a: str, b: str, c: Contrast, p: float | None, rule: _StudyRule) -> str:
    size = _size_in_words(c, rule.metric)
    need = _what_is_missing(c, p, rule)
    if c.spread is None:
        return f"{a} and {b} cannot be told apart: {size}, no interval ({need.reason})"
    tail = f"{size}, {_interval_in_words(c, rule.level, rule.metric)}"
    if not _excludes_zero(c, rule.level):
        return f"{a} is within noise of {b}: {tail}; {_remedy_in_words(c, need)}"
    place, word = ("ahead of", "better") if _is_ahead(c, rule) else ("behind", "worse")
    lead = f"{a} is {place} {b}: {tail}"
    least = least_seeds(rule.level)
    if not c.deterministic and c.seeds < least:
        have = counted(c.seeds, "seed")
        return f"{lead} ({have}: at least {least} are needed before tunelab says {word})"
    told = p is not None and p <= rule.alpha
    why = need.reason if told else _test_in_words(c, p, rule)
    remedy = _remedy_in_words(c, need)
    return f"{lead}, but {why}" + (f"; {remedy}" if remedy != why else "")


def _remedy_in_words(c: Contrast, need: _Missing) -> str:
    """What would decide, in words."""
    ways = []
    if need.seeds is not None:
        ways.append(counted(need.seeds, "more seed"))
    if need.rows is not None:
        ways.append(f"{c.rows + need.rows:,} test rows instead of {c.rows:,}")
    if ways:
        return f"needs about {' or '.join(ways)} to tell"
    rows = need.reason.removeprefix("more test rows are needed: ")
    if rows != need.reason and not c.deterministic:
        many, _, seeds = rows.partition(", and ")
        more = f" and {seeds}" if seeds else ""
        return f"more seeds alone will not tell; needs {many} test rows{more}"
    return need.reason


def _basis_in_words(c: Contrast) -> str:
    if c.deterministic:
        return f"{c.rows:,} test rows, every seed predicts the same"
    return counted(c.seeds, "seed")


def _test_in_words(c: Contrast, p: float | None, rule: _StudyRule) -> str:
    if p is None:
        return "no test"
    value = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    after = " after Holm" if rule.pairs > 1 else ""
    return f"{value}{after}{', exact McNemar' if 'McNemar' in c.test else ''}"


def _with_sign(value: float, decimals: int) -> str:
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text


def decimals(difference: Estimate, metric: Metric) -> int:
    """Decimals of a difference in words: one of points, three of other units, or more where its
    interval is so narrow that it would be rounded to nothing.
    """
    least, scale = (1, 100) if metric.percent else (3, 1)
    if difference.low is None or difference.high is None or difference.high <= difference.low:
        return least
    half = scale * (difference.high - difference.low) / 2
    return min(least + 4, max(least, math.ceil(-math.log10(2 * half))))


def _in_units(value: float, c: Contrast, metric: Metric) -> str:
    low, high = c.interval(LEVEL) or (None, None)
    places = decimals(Estimate(c.value, low, high, c.seeds, ""), metric)
    return _with_sign(100 * value if metric.percent else value, places)


def _size_in_words(c: Contrast, metric: Metric) -> str:
    number = _in_units(c.value, c, metric)
    lower = "" if metric.higher_is_better else " (lower is better)"
    if not metric.percent:
        return f"{number} {metric.label}{lower}"
    what = "" if metric.name == "accuracy" else f" of {metric.label}"
    return f"{number} points{what}{lower}"


def _interval_in_words(c: Contrast, level: float, metric: Metric) -> str:
    low, high = c.interval(level) or (c.value, c.value)
    return f"{100 * level:g}% interval {_in_units(low, c, metric)} to {_in_units(high, c, metric)}"


def _margin_in_words(margin: float) -> str:
    points = f"{100 * margin:g}"
    return f"{points} point{'' if points == '1' else 's'}"
