"""Scores per seed and row -> Estimate, Comparison, verdict.

Two methods are compared on the same test rows and over the seeds that both have. Two things make
their difference uncertain: other seeds would have trained other models, and other test rows would
have been easier or harder. Both count here (see `difference`), and a verdict needs both a test over
seeds that survives Holm's correction and an interval that excludes zero (see `compare_all`).

May import: numpy, scipy (inside functions), types, metrics. May not import: torch, store, report.
Every function that draws takes an explicit rng; the same rng state gives the same result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunelab.metrics import METRICS, Counts, Metric, UndefinedMetricError, check
from tunelab.types import Comparison, Estimate, Predictions

__all__ = [
    "Runs",
    "compare",
    "compare_all",
    "detectable_difference",
    "difference",
    "holm",
    "least_seeds",
    "mcnemar",
    "mean_interval",
    "seeds_needed",
    "sign_flip",
]

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "equivalent", "undecided"]

LEVEL = 0.95
MARGIN = 0.01
LEAST_SEEDS = 6  # with fewer, no two-sided sign-flip p can be 0.05 or less
RESAMPLES = 2000
SLOW_RESAMPLES = 200  # for metrics without Counts: the standard error is then good to about 5%
MOST_SEEDS = 1000
MOST_ROWS = 10_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """One method's predictions on one split, by seed."""

    label: str
    by_seed: Mapping[int, Predictions]


# --- one method -----------------------------------------------------------------------------


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """Mean of one value a seed, with Student's t interval over seeds.

    One value has no interval: low and high are None. The interval says what other seeds would
    give on the same test rows, not what other rows would give. Raises ValueError where there are
    no values or one is not finite.
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
    half = _t_quantile(level, n - 1) * float(x.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, f"mean of {n} seeds, Student t interval")


def _t_quantile(level: float, df: float) -> float:
    """Half-width, in standard errors, of a two-sided Student t interval."""
    from scipy.special import stdtrit

    return float(stdtrit(df, (1 + level) / 2))


# --- what a metric gives on the test rows and on resamples of them --------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """A metric of one method: `values` by seed, and on B resamples of the rows `resampled` (B,)."""

    runs: Runs
    values: dict[int, float]
    resampled: dict[int, Floats]


def _measure_all(
    runs: Sequence[Runs], metric: Metric, rng: np.random.Generator, resamples: int
) -> list[_Measured]:
    """Evaluate a metric for each method and seed, on all rows and on resamples of them.

    Everyone sees the same resamples: that is what pairs methods and seeds over rows. Raises
    ValueError where rows differ and UndefinedMetricError where the metric has no value.
    """
    _check_paired(runs)
    measured = [
        _Measured(r, {seed: metric.function(p) for seed, p in r.by_seed.items()}, {}) for r in runs
    ]
    cells = [
        (m, seed, _resampler(p, metric)) for m in measured for seed, p in m.runs.by_seed.items()
    ]
    if not cells:
        return measured
    rows = next(len(p.labels) for r in runs for p in r.by_seed.values())
    chunks: dict[int, list[Floats]] = {i: [] for i in range(len(cells))}
    for drawn in _draws(rng, rows, _resamples(metric, resamples)):
        for i, (_, _, evaluate) in enumerate(cells):
            chunks[i].append(evaluate(drawn))
    for i, (m, seed, _) in enumerate(cells):
        m.resampled[seed] = np.concatenate(chunks[i])
    return measured


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Resamples of n rows: `index` (b, n) names the rows, `times` (n, b) counts them."""

    index: NDArray[np.int64]
    times: Floats


def _draws(rng: np.random.Generator, n: int, resamples: int) -> Iterator[_Drawn]:
    chunk = max(1, 2_000_000 // n)  # some 16 MB at a time
    for start in range(0, resamples, chunk):
        index = rng.integers(0, n, size=(min(chunk, resamples - start), n))
        times = np.stack([np.bincount(row, minlength=n) for row in index], axis=1)
        yield _Drawn(index, times.astype(np.float64))


def _resampler(p: Predictions, metric: Metric) -> Callable[[_Drawn], Floats]:
    """A function from b resamples to b values of the metric."""
    formula = metric.from_counts
    if formula is None:
        return lambda drawn: np.array([_on_rows(p, metric, rows) for rows in drawn.index])
    hits = _indicator(np.where(p.predicted == p.labels, p.labels, -1), p.scores.shape[1])
    true = _indicator(p.labels, p.scores.shape[1])
    predicted = _indicator(p.predicted, p.scores.shape[1])
    return lambda drawn: formula(
        Counts((hits @ drawn.times).T, (true @ drawn.times).T, (predicted @ drawn.times).T)
    )


def _indicator(classes: NDArray[np.int64], k: int) -> Any:
    """Sparse (k, n): 1 where a row is of a class; rows with class -1 are of none."""
    from scipy.sparse import csr_array

    rows = np.flatnonzero(classes >= 0)
    return csr_array((np.ones(len(rows)), (classes[rows], rows)), shape=(k, len(classes)))


def _on_rows(p: Predictions, metric: Metric, rows: NDArray[np.int64]) -> float:
    try:
        return metric.function(Predictions((), p.labels[rows], p.scores[rows], p.score_kind))
    except UndefinedMetricError:  # this resample lacks a class
        return math.nan


def _check_paired(runs: Sequence[Runs]) -> None:
    """All predictions must be of the same rows, with the same labels, in the same order."""
    everything = [(r.label, seed, p) for r in runs for seed, p in r.by_seed.items()]
    for label, seed, p in everything:
        check(p)
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
class _Contrast:
    """a minus b. Variances are of metric units squared.

    `seed_variance`: of one seed's difference, shrinks with the number of seeds; None where seeds
    say nothing. `item_variance`: what more seeds do not take away. `variance` and `df`: of
    `value`; None where there is no interval. `p_value`: before Holm's correction.
    """

    value: float
    seeds: int
    rows: int
    deterministic: bool
    seed_variance: float | None
    item_variance: float | None
    variance: float | None
    df: float
    p_value: float | None
    test: str

    def interval(self, level: float) -> tuple[float, float] | None:
        if self.variance is None:
            return None
        half = _t_quantile(level, self.df) * math.sqrt(self.variance)
        return self.value - half, self.value + half


def _contrast(
    a: _Measured, b: _Measured, metric: Metric, rng: np.random.Generator
) -> _Contrast | None:
    """The difference over the seeds that both have; None where they have none in common."""
    seeds = [s for s in a.values if s in b.values]
    if not seeds:
        return None
    by_seed = np.array([a.values[s] - b.values[s] for s in seeds])
    drawn = np.stack([a.resampled[s] - b.resampled[s] for s in seeds], axis=1)  # (B, seeds)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    rows = len(a.runs.by_seed[seeds[0]].labels)
    deterministic = _repeats(a.runs, seeds) and _repeats(b.runs, seeds)
    value = float(by_seed[0] if deterministic else by_seed.mean())
    if rows < 2 or len(drawn) < 20:
        return _Contrast(
            value, len(seeds), rows, deterministic, None, None, None, math.inf, None, "none"
        )
    used = 1 if deterministic else len(seeds)
    seed_variance, item_variance, variance, df = _variances(
        by_seed[:used], drawn[:, :used], rows, metric.percent
    )
    # Seeds that move the scores but no class (models that collapsed) repeat nothing that a metric
    # of classes reads: the test is over rows too, but six seeds stay the rule.
    still = metric.needs == "class" and all(_repeats(r, seeds, math.inf) for r in (a.runs, b.runs))
    if not deterministic and not still:
        p_value = None if len(seeds) == 1 else sign_flip(by_seed, rng)
        test = "sign-flip over seeds"
    elif metric.name == "accuracy":
        right = [
            r.by_seed[seeds[0]].predicted == r.by_seed[seeds[0]].labels for r in (a.runs, b.runs)
        ]
        p_value, test = mcnemar(right[0], right[1]), "exact McNemar over test rows"
    else:
        p_value, test = _t_test(value, variance, df), "t test over test rows"
    return _Contrast(
        value,
        len(seeds),
        rows,
        deterministic,
        seed_variance,
        item_variance,
        variance,
        df,
        p_value,
        test,
    )


def _variances(
    by_seed: Floats, drawn: Floats, rows: int, percent: bool
) -> tuple[float | None, float, float, float]:
    """Variance components of a mean difference: (seed, item, total, Satterthwaite df).

    Write the difference of seed s on row i as d + seed_s + item_i + rest_si. Its mean over S seeds
    and n rows has variance V(seed)/S + V(item)/n + V(rest)/(nS). The spread of the S differences
    estimates V(seed) + V(rest)/n; divided by S that is the first and the last term. Resampling
    rows estimates V(item)/n + V(rest)/(nS), so the rest would count twice; what resampling gives
    for single seeds less what it gives for their mean is V(rest)/n (1 - 1/S), and tells how much.
    A bootstrap that resamples seeds too (Owen 2007, "The pigeonhole bootstrap") counts the rest
    three times, and the seeds (S - 1)/S times: too wide with many seeds, too narrow with few.

    The extra 1/(n + 2)^2 is the half disagreement each way of Agresti and Min 2005: two methods
    that agree on every one of 20 rows are not thereby known to be equal.
    """
    s, b = len(by_seed), len(drawn)
    small = rows / (rows - 1)
    of_mean = float(drawn.mean(axis=1).var(ddof=1)) * small
    unseen = 1 / (rows + 2) ** 2 if percent else 0.0
    item_df = 1 / (1 / (rows - 1) + 1 / (b - 1))
    if s == 1:
        total = of_mean + unseen
        return None, total, total, item_df
    of_one = float(drawn.var(axis=0, ddof=1).mean()) * small
    rest = max(0.0, (of_one - of_mean) / (s - 1))
    item = max(0.0, of_mean - rest) + unseen
    seed = float(by_seed.var(ddof=1))
    total = max(seed / s + item, of_mean + unseen)
    below = (seed / s) ** 2 / (s - 1) + item**2 / item_df
    return seed, item, total, (total**2 / below if below else math.inf)


def _repeats(runs: Runs, seeds: Sequence[int], within: float = 0.01) -> bool:
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


def _t_test(value: float, variance: float, df: float) -> float:
    from scipy.special import stdtr

    if variance <= 0:
        return 1.0 if value == 0 else 0.0
    return min(1.0, float(2 * stdtr(df, -abs(value) / math.sqrt(variance))))


def _estimate(c: _Contrast, level: float, resamples: int) -> Estimate:
    interval = c.interval(level)
    if interval is None:
        why = "one test row" if c.rows < 2 else "too few resamples of the test rows have a value"
        return Estimate(c.value, None, None, c.seeds, f"paired difference; no interval: {why}")
    over = f"item bootstrap ({resamples:,} resamples of {c.rows:,} test rows)"
    if c.deterministic:
        seeds = f"; each of {c.seeds} seeds gives the same predictions, so seeds carry no spread"
    elif c.seeds == 1:
        seeds = "; one seed: the spread over seeds is unknown and not in the interval"
    else:
        seeds = f" crossed with the spread over {c.seeds} seeds, Student t with {c.df:.1f} df"
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
    t with Satterthwaite's degrees of freedom (`_variances` says why not resample both). In
    simulations with 3, 6 and 10 seeds and 300 and 1,000 rows it covers the true difference in 94
    to 98% of studies at level 0.95. With one seed only rows count, and `procedure` says so: there
    the same simulations find 58 to 94%.

    Raises ValueError where rows differ, no seed is shared, or the metric has no value.
    """
    chosen = _metric(metric)
    _check_fractions(level=level)
    left, right = _measure_all([a, b], chosen, rng, resamples)
    contrast = _contrast(left, right, chosen, rng)
    if contrast is None:
        raise _no_shared_seed(a, b)
    return _estimate(contrast, level, _resamples(chosen, resamples))


def _metric(name: str) -> Metric:
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    return METRICS[name]


def _check_fractions(**given: float) -> None:
    for name, value in given.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} is a fraction between 0 and 1, found {value:g}")


def _resamples(metric: Metric, resamples: int) -> int:
    return resamples if metric.from_counts else min(resamples, SLOW_RESAMPLES)


def _no_shared_seed(a: Runs, b: Runs) -> ValueError:
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


def least_seeds(pairs: int = 1, level: float = LEVEL) -> int:
    """Seeds below which no sign-flip p can pass Holm's correction over `pairs` comparisons.

    The smallest p with s seeds is 2^(1 - s): 6 seeds for one pair, 7 for the 3 pairs of three
    methods, 8 for the 6 pairs of four.
    """
    return max(LEAST_SEEDS, math.ceil(1 + math.log2(max(1, pairs) / (1 - level)) - 1e-9))


def seeds_needed(
    value: float,
    seed_variance: float | None,
    item_variance: float,
    *,
    seeds: int,
    rows: int,
    level: float = LEVEL,
    pairs: int = 1,
) -> tuple[int | None, str]:
    """About how many more seeds would tell a difference of `value` from zero, if it is real.

    `seed_variance` is that of one seed's difference, `item_variance` what test rows leave however
    many seeds there are. Gives (number, reason), or (None, reason) where seeds cannot tell: rows
    are too few (then about how many are needed), the spread over seeds is unknown, or more than
    1,000 would be needed. The observed difference is itself uncertain, hence "about".
    """
    if value == 0:
        return None, "no difference was observed"
    if seed_variance is None:
        return None, "the spread over seeds is unknown"
    least = max(seeds + 1, least_seeds(pairs, level))
    # Where seeds go to infinity, the degrees of freedom that are left are those of the rows.
    if _t_quantile(level, max(1, rows - 1)) ** 2 * item_variance >= value**2:
        return None, _rows_needed(value, seed_variance / least, item_variance, rows, level)
    for total in range(least, seeds + MOST_SEEDS + 1):
        by_seed = seed_variance / total
        variance = by_seed + item_variance
        below = by_seed**2 / (total - 1) + item_variance**2 / max(1, rows - 1)
        df = variance**2 / below if below else math.inf
        if abs(value) > _t_quantile(level, df) * math.sqrt(variance):
            return total - seeds, "at the observed difference and spread"
    return None, f"more than {MOST_SEEDS:,} more seeds are needed"


def _rows_needed(
    value: float, seed_part: float, item_variance: float, rows: int, level: float
) -> str:
    """In words: `seed_part` is the variance that the seeds leave, `item_variance` that of rows."""
    # Rows get what the seeds leave of the allowance, and at least half of it.
    z2 = _t_quantile(level, math.inf) ** 2
    needed = rows * z2 * item_variance / max(value**2 - z2 * seed_part, value**2 / 2)
    if needed > MOST_ROWS:
        return f"more test rows are needed: more than {MOST_ROWS:,}"
    unit = 10 ** max(0, math.floor(math.log10(needed)) - 1)  # two significant digits
    rounded = math.ceil(needed / unit) * unit
    return f"more test rows are needed: about {max(rounded, rows + 1):,}"


def detectable_difference(
    n_items: int,
    n_seeds: int,
    disagreement: float = 0.08,
    power: float = 0.8,
    *,
    seed_sd: float = 0.0,
    level: float = LEVEL,
) -> float:
    """Smallest true difference in accuracy that a paired comparison finds with this `power`.

    `disagreement` is the share of rows on which exactly one of two models is right, `seed_sd` the
    standard deviation of one seed's difference. With seed_sd = 0 the number of seeds does not
    matter: it is the limit that the test rows set, which no number of seeds can beat. For normal
    estimates, (z(level) + z(power)) * sqrt(disagreement / n_items + seed_sd^2 / n_seeds).
    """
    from scipy.special import ndtri

    if n_items < 1 or n_seeds < 1:
        raise ValueError(f"expected at least one row and one seed, found {n_items} and {n_seeds}")
    _check_fractions(disagreement=disagreement, power=power, level=level)
    z = float(ndtri((1 + level) / 2) + ndtri(power))
    return z * math.sqrt(disagreement / n_items + seed_sd**2 / n_seeds)


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
            _metric(metric).function(p)  # raises where that was the reason
    raise _no_shared_seed(a, b)


def compare_all(
    runs: Sequence[Runs],
    metric: str,
    rng: np.random.Generator,
    *,
    margin: float = MARGIN,
    level: float = LEVEL,
) -> list[Comparison]:
    """Compare all pairs on one metric, in the order of `runs`; p values are Holm-adjusted.

    "better" and "worse" need at least 6 shared seeds, an adjusted p of at most 1 - level, and an
    interval that excludes zero. "equivalent", for metrics in [0, 1], needs 6 seeds and two
    one-sided tests: the interval at 2 level - 1 (90%) lies within +-margin (Schuirmann 1987).
    Where every seed of both methods gives the same predictions, seeds are no repetition: the test
    is then over test rows (exact McNemar for accuracy), and two seeds are enough. Where seeds move
    the scores but no class, the test for metrics of classes is over rows too, but six seeds stay
    the rule. All else is "undecided".

    Pairs without a shared seed, and methods on which the metric has no value (log loss of an
    SVM's margins), are left out. Raises ValueError where the test rows differ.
    """
    chosen = _metric(metric)
    _check_fractions(level=level, margin=margin)
    _check_paired(runs)
    # The score table has None, with its reason, where a metric has no value.
    measured = _measure_all([r for r in runs if _has_value(r, chosen)], chosen, rng, RESAMPLES)
    pairs = [
        (a.runs.label, b.runs.label, contrast)
        for a, b in combinations(measured, 2)
        if (contrast := _contrast(a, b, chosen, rng)) is not None
    ]
    adjusted = iter(holm([c.p_value for _, _, c in pairs if c.p_value is not None]))
    adjusted_p = [None if c.p_value is None else next(adjusted) for _, _, c in pairs]
    rule = _Rule(chosen, margin, level, len(pairs))
    return [_judge(a, b, c, p, rule) for (a, b, c), p in zip(pairs, adjusted_p, strict=True)]


def _has_value(runs: Runs, metric: Metric) -> bool:
    try:
        for p in runs.by_seed.values():
            metric.function(p)
    except UndefinedMetricError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Rule:
    metric: Metric
    margin: float
    level: float
    pairs: int


def _judge(a: str, b: str, c: _Contrast, p: float | None, rule: _Rule) -> Comparison:
    verdict = _verdict(c, p, rule)
    if verdict == "undecided":
        more, reason = _what_is_missing(c, p, rule)
        sentence = _undecided_sentence(a, b, c, p, rule)
    else:
        more, reason = None, f"p by {c.test}" if verdict != "equivalent" else "two one-sided tests"
        sentence = _decided_sentence(a, b, c, p, rule)
    return Comparison(
        a=a,
        b=b,
        metric=rule.metric.name,
        difference=_estimate(c, rule.level, _resamples(rule.metric, RESAMPLES)),
        verdict=verdict,
        p_value=p,
        seeds_needed=more,
        reason=reason,
        sentence=sentence,
    )


def _excludes_zero(c: _Contrast, level: float) -> bool:
    interval = c.interval(level)
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def _within(c: _Contrast, level: float, margin: float) -> bool:
    interval = c.interval(level)
    return interval is not None and -margin < interval[0] and interval[1] < margin


def _ahead(c: _Contrast, rule: _Rule) -> bool:
    return (c.value > 0) == rule.metric.higher_is_better


def _verdict(c: _Contrast, p: float | None, rule: _Rule) -> Verdict:
    if not c.deterministic and c.seeds < LEAST_SEEDS:
        return "undecided"
    if p is not None and p <= 1 - rule.level + 1e-12 and _excludes_zero(c, rule.level):
        return "better" if _ahead(c, rule) else "worse"
    if rule.metric.percent and _within(c, 2 * rule.level - 1, rule.margin):
        return "equivalent"
    return "undecided"


def _what_is_missing(c: _Contrast, p: float | None, rule: _Rule) -> tuple[int | None, str]:
    """How many more seeds would decide, and why: or None, and why not."""
    least = least_seeds(rule.pairs, rule.level)
    if c.variance is None or c.item_variance is None:
        return None, "one test row" if c.rows < 2 else "too few resamples have a value"
    if c.deterministic:
        if _excludes_zero(c, rule.level):
            return None, _test(c, p, rule)
        if c.value == 0:
            return None, "no difference was observed"
        return None, _rows_needed(c.value, 0.0, c.item_variance, c.rows, rule.level)
    if c.seeds == 1:
        return None, f"one seed: the spread over seeds is unknown; at least {least} are needed"
    more, reason = seeds_needed(
        c.value,
        c.seed_variance,
        c.item_variance,
        seeds=c.seeds,
        rows=c.rows,
        level=rule.level,
        pairs=rule.pairs,
    )
    if more is not None and c.seeds < least and _excludes_zero(c, rule.level):
        reason = f"{c.seeds} seeds: at least {least} are needed"
    return more, reason


# --- plain words ----------------------------------------------------------------------------


def _decided_sentence(a: str, b: str, c: _Contrast, p: float | None, rule: _Rule) -> str:
    verdict, size = _verdict(c, p, rule), _size(c.value, rule.metric)
    if verdict == "equivalent":  # with the interval that the verdict rests on
        tost = _interval(c, 2 * rule.level - 1, rule.metric)
        within = _margin(rule.margin)
        return f"{a} and {b} are equivalent within {within}: {size}, {tost} ({_basis(c)})"
    tail = f"{_interval(c, rule.level, rule.metric)}, {_test(c, p, rule)}, {_basis(c)}"
    small = rule.metric.percent and _within(c, rule.level, rule.margin)
    within = f"; real, but within {_margin(rule.margin)}" if small else ""
    return f"{a} is {verdict} than {b}: {size} ({tail}){within}"


def _undecided_sentence(a: str, b: str, c: _Contrast, p: float | None, rule: _Rule) -> str:
    size = _size(c.value, rule.metric)
    more, reason = _what_is_missing(c, p, rule)
    if c.variance is None:
        return f"{a} and {b} cannot be told apart: {size}, no interval ({reason})"
    tail = f"{size}, {_interval(c, rule.level, rule.metric)}"
    if not _excludes_zero(c, rule.level):
        return f"{a} is within noise of {b}: {tail}; {_remedy(c, more, reason)}"
    place, word = ("ahead of", "better") if _ahead(c, rule) else ("behind", "worse")
    lead = f"{a} is {place} {b}: {tail}"
    least = least_seeds(rule.pairs, rule.level)
    if c.deterministic:
        return f"{lead}, but {reason}"
    if c.seeds < least:
        have = _count(c.seeds, "seed")
        return f"{lead} ({have}: at least {least} are needed before tunelab says {word})"
    return f"{lead}, but {_test(c, p, rule)}; {_remedy(c, more, reason)}"


def _remedy(c: _Contrast, more: int | None, reason: str) -> str:
    if more is not None:
        return f"needs about {_count(more, 'more seed')} to tell"
    if reason.startswith("more test rows") and not c.deterministic:
        return f"more seeds will not tell, {reason}"
    return reason


def _basis(c: _Contrast) -> str:
    if c.deterministic:
        return f"{c.rows:,} test rows, every seed predicts the same"
    return _count(c.seeds, "seed")


def _test(c: _Contrast, p: float | None, rule: _Rule) -> str:
    if p is None:
        return "no test"
    value = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    after = " after Holm" if rule.pairs > 1 else ""
    return f"{value}{after}{', exact McNemar' if 'McNemar' in c.test else ''}"


def _signed(value: float, decimals: int) -> str:
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text


def _number(value: float, metric: Metric) -> str:
    return _signed(100 * value, 1) if metric.percent else _signed(value, 3)


def _size(value: float, metric: Metric) -> str:
    number = _number(value, metric)
    lower = "" if metric.higher_is_better else " (lower is better)"
    if not metric.percent:
        return f"{number} {metric.label}{lower}"
    what = "" if metric.name == "accuracy" else f" of {metric.label}"
    return f"{number} points{what}{lower}"


def _interval(c: _Contrast, level: float, metric: Metric) -> str:
    low, high = c.interval(level) or (c.value, c.value)
    return f"{100 * level:g}% interval {_number(low, metric)} to {_number(high, metric)}"


def _margin(margin: float) -> str:
    points = f"{100 * margin:g}"
    return f"{points} point{'' if points == '1' else 's'}"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
