"""Means and paired differences with their intervals, from seeds and rows together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.core.values import Estimate
from tunelab.stats.crossed import (
    LEVEL,
    Spread,
    components_of_resamples,
    t_quantile,
    unseen_variance,
)
from tunelab.stats.metrics import Metric
from tunelab.stats.resampling import (
    MEAN_RESAMPLES,
    RESAMPLES,
    Floats,
    Measured,
    Runs,
    check_fractions,
    defined_resamples,
    measure_all,
    metric_named,
    resamples_for,
)
from tunelab.stats.tests import mcnemar, sign_flip

__all__ = [
    "Contrast",
    "contrast_of",
    "difference",
    "estimate_of",
    "mean",
    "mean_draws",
    "mean_interval",
    "means",
    "no_interval_reason",
    "no_shared_seed",
    "standard_error",
]

LEAST_RESAMPLES = 20


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


def no_interval_reason(rows: int) -> str:
    """Why an estimate has no interval."""
    why = "one test row" if rows < 2 else "too few resamples of the test rows have a value"
    return f"no interval: {why}"


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
        """The interval at a level, within what the metric can reach; None without a variance."""
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
    """A contrast as an estimate, with what its interval is over."""
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


def no_shared_seed(a: Runs, b: Runs) -> ValueError:
    """The error of a pair that was never trained with the same seed."""
    return ValueError(
        f"{a.label} and {b.label} have no seed in common (found {sorted(a.by_seed)} and "
        f"{sorted(b.by_seed)}): a paired comparison needs at least one"
    )


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
