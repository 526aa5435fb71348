"""Means and paired differences with their intervals, from seeds and rows together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunelab.core.values import Estimate
from tunelab.core.words import counted
from tunelab.stats.contrasts import (
    LEAST_RESAMPLES,
    Contrast,
    contrasts_between,
    estimate_of,
    no_interval_reason,
    repeats_itself,
)
from tunelab.stats.crossed import (
    LEVEL,
    components_of_resamples,
    t_quantile,
    unseen_variance,
)
from tunelab.stats.metrics import Metric
from tunelab.stats.reliability import miscalibration
from tunelab.stats.resampling import (
    MEAN_RESAMPLES,
    RESAMPLES,
    Floats,
    Measured,
    Runs,
    check_fractions,
    count_rows,
    count_units,
    defined_resamples,
    measure_all,
    metric_named,
    resamples_for,
)
from tunelab.stats.shares import interval_of_share

__all__ = [
    "difference",
    "mean",
    "mean_draws",
    "mean_interval",
    "means",
    "no_shared_seed",
    "standard_error",
]


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
        return Estimate(same, same, same, n, f"the same value with each of {counted(n, 'seed')}")
    mean = float(x.mean())
    half = t_quantile(level, n - 1) * float(x.std(ddof=1)) / math.sqrt(n)
    low = mean - half if signed or x.min() < 0 else max(0.0, mean - half)
    return Estimate(mean, low, mean + half, n, f"mean of {counted(n, 'seed')}, Student t interval")


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
    if metric.name == "ece":  # a mean of roots that end at 0 is no error
        return miscalibration(list(m.runs.by_seed.values()), level).error
    values = np.array([m.values[s] for s in seeds])
    value, n = float(values.mean()), len(seeds)
    rows, units = count_rows(m.runs, seeds), count_units(m.runs, seeds)
    if n == 1:
        return Estimate(value, None, None, 1, "one seed: no interval")
    drawn = defined_resamples(np.stack([m.resampled[s] for s in seeds], axis=1))
    if units < 2 or len(drawn) < LEAST_RESAMPLES:
        return Estimate(
            value, None, None, n, f"mean of {counted(n, 'seed')}; {no_interval_reason(rows)}"
        )
    fixed = repeats_itself(m.runs, seeds)
    used = 1 if fixed else n
    if values.min() == values.max():  # their mean may differ in the last digit
        value = float(values[0])
    parts = components_of_resamples(values[:used], drawn[:, :used], units)
    what = "" if units == rows else f" in groups, which count as {units:,} of one size"
    over = f"item bootstrap ({len(drawn):,} resamples of {rows:,} rows{what})"
    seeds_say = f" crossed with the spread over {counted(n, 'seed')}"
    if fixed:
        seeds_say = f"; each of {n} seeds gives the same predictions"
    if metric.name == "accuracy":
        low, high = interval_of_share(
            value,
            rows,
            row_variance=parts.row_means,
            row_df=math.inf if units == rows else parts.item_df,
            seed_variance=max(0.0, parts.by_seed - parts.rest),
            seed_df=parts.seed_df,
            level=level,
        )
        return Estimate(
            value, low, high, n, f"mean of {counted(n, 'seed')}; {over}{seeds_say}, Wilson"
        )
    unseen = unseen_variance(rows) if metric.percent else 0.0
    spread = components_of_resamples(values[:used], drawn[:, :used], units, unseen=unseen).spread()
    half = spread.half_width(level)
    low, high = value - half, value + half
    if metric.percent:  # values lie in [0, 1]
        low, high = max(0.0, low), min(1.0, high)
    student = "" if fixed else f", Student t with {spread.df:.1f} df"
    return Estimate(
        value, low, high, n, f"mean of {counted(n, 'seed')}; {over}{seeds_say}{student}"
    )


# --- the difference of two methods ----------------------------------------------------------


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
    seeds; the spread over seeds of each method is added (`crossed` says why not resample both);
    and the interval is Student's t whose degrees of freedom say how little few seeds know of their
    own spread (`noise`). docs/statistics.md has how often it holds the truth. With one seed only
    rows count, and `procedure` says so: that interval is too short.

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
    contrasts = contrasts_between(left, [right], metric, rng)
    if not contrasts:
        raise no_shared_seed(a, b)
    return contrasts[0]


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
