"""What chance adds to the means of several methods, from seeds and rows.

Each method's seeds scatter in their own way: their variance is estimated method by method (Welch)
and moderated across methods. What few seeds say of a variance is itself uncertain, so the mean of a
method is read as Student t around the truth, not as normal; rows are normal, and what they do to
one method they do to its likes. The difference of two methods is then a sum of normal and Student
variables, the Behrens-Fisher distribution, and what several differences do together is drawn from
the same sum. It keeps its level where one method is a hundred times as noisy as the other, where
Satterthwaite's degrees of freedom give 6 to 10% instead of 5% (docs/statistics.md).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tunelab.stats.crossed import Spread, moderated_variances
from tunelab.stats.resampling import Floats, Measured

__all__ = [
    "MethodNoise",
    "behrens_fisher_spread",
    "draw_statistics",
    "noise_by_method",
    "step_down",
]

STATISTIC_DRAWS = 4000
MOST_STATISTICS_AT_A_TIME = 4_000_000  # draws x pairs


# --- what the seeds of each method do -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MethodNoise:
    """How one seed's value of a method scatters: `variance`, seen through `df` degrees of freedom.

    `rest` is the part of it that rows bring (seed x row), which is counted with the rows; both are
    in metric units squared. All 0 where seeds change nothing.
    """

    variance: float
    df: float
    rest: float

    @property
    def seed(self) -> float:
        """What is the seed's own: variance on endless rows."""
        return max(0.0, self.variance - self.rest)


def noise_by_method(
    measured: Sequence[Measured], silent: Sequence[bool], shared_rows: bool
) -> list[MethodNoise]:
    """The noise of each method's seeds; `silent` are those that every seed repeats.

    Where seeds have rows of their own (folds), what a fold does to all methods is no noise of any:
    the variance is then that of residuals of methods and folds (Grubbs 1948).
    """
    most = max((len(m.values) for m in measured), default=1)
    of_folds = None if shared_rows else _noise_of_folds(measured)
    if of_folds is not None:
        return _moderated(of_folds, most)
    own = [_own_noise(m, quiet) for m, quiet in zip(measured, silent, strict=True)]
    return _moderated(own, most)


def _own_noise(m: Measured, silent: bool) -> MethodNoise:
    if silent or len(m.values) < 2:
        return MethodNoise(0.0, 1.0, 0.0)
    values = np.array(list(m.values.values()))
    drawn = np.stack([m.resampled[s] for s in m.values], axis=1)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    variance, df = float(values.var(ddof=1)), float(len(values) - 1)
    if len(drawn) < 2:
        return MethodNoise(variance, df, 0.0)
    rest = float((drawn - drawn.mean(axis=0)).var(axis=1, ddof=1).mean())
    return MethodNoise(variance, df, rest)


def _noise_of_folds(measured: Sequence[Measured]) -> list[MethodNoise] | None:
    """The noise of methods that were tested in folds; None where no two share two of them.

    Judged together are those that have the largest set of folds that two share; one that lacks some
    of these is judged beside them on what it has.
    """
    sets = [frozenset(m.values) for m in measured]
    shared = [s & t for s, t in combinations(sets, 2) if len(s & t) > 1]
    if not shared:
        return None
    folds = max(shared, key=len)
    whole = [m for m, own in zip(measured, sets, strict=True) if folds <= own]
    by_method = dict(zip(map(id, whole), _noise_beside_folds(whole, sorted(folds)), strict=True))
    for m, own in zip(measured, sets, strict=True):
        common = sorted(folds & own)
        if id(m) not in by_method and len(common) > 1:
            by_method[id(m)] = _noise_beside_folds([*whole, m], common)[-1]
    return [by_method.get(id(m), MethodNoise(0.0, 1.0, 0.0)) for m in measured]


def _noise_beside_folds(measured: Sequence[Measured], seeds: Sequence[int]) -> list[MethodNoise]:
    values = np.array([[m.values[s] for s in seeds] for m in measured])
    drawn = np.stack([np.stack([m.resampled[s] for s in seeds], 1) for m in measured], 1)
    drawn = drawn[np.isfinite(drawn).all(axis=(1, 2))]
    variances = _variances_of_residuals(values)
    least = 0.01 * float(variances.mean())  # differences of estimates may come out below 0
    rests = np.zeros(len(measured))
    if len(drawn) > 1:
        rests = _variances_of_residuals(drawn - drawn.mean(axis=0)).mean(axis=0)
    df = (len(seeds) - 1) * (1 - 1 / len(measured))
    return [
        MethodNoise(max(float(v), least), df, max(0.0, float(r)))
        for v, r in zip(variances, rests, strict=True)
    ]


def _variances_of_residuals(values: Floats) -> Floats:
    """Variance of each method's values beside what a fold does to all, (..., M, S) -> (..., M).

    With q_m the variance of method m's residuals from the mean of the methods, E q_m =
    v_m (1 - 2 / M) + sum(v) / M^2, which is solved for v; of two methods each has half of the
    variance of their difference.
    """
    methods = values.shape[-2]
    q = (values - values.mean(axis=-2, keepdims=True)).var(axis=-1, ddof=1)
    if methods == 2:
        return np.asarray(2 * q)
    total = q.sum(axis=-1, keepdims=True) * methods / (methods - 1)
    return np.asarray((q - total / methods**2) / (1 - 2 / methods))


def _moderated(own: Sequence[MethodNoise], seeds: int) -> list[MethodNoise]:
    """Moderated across the methods that have as many seeds as any: others keep their own."""
    most = max((n.df for n in own), default=1.0)
    if seeds < 2:
        return list(own)
    full = np.array([n.variance if n.df == most else 0.0 for n in own])
    variances, dfs = moderated_variances(full, most)
    return [
        MethodNoise(float(v), float(d), n.rest) if n.df == most and n.variance > 0 else n
        for n, v, d in zip(own, variances, dfs, strict=True)
    ]


# --- the spread of one difference -----------------------------------------------------------


def behrens_fisher_spread(
    row_variance: float, noises: Sequence[MethodNoise], seeds: int, item_df: float
) -> Spread:
    """The spread of a mean over so many seeds: rows, and the seeds of each method.

    The degrees of freedom are those of the Student t whose 97.5% point is that of the sum of
    N(0, row_variance) and, for each method, a normal whose variance is what one seed's variance may
    be, given its estimate (scaled inverse chi squared), over the seeds.
    """
    variance = row_variance + sum(n.seed for n in noises) / seeds
    if variance <= 0:
        return Spread(0.0, item_df)
    normal = _base_normals()
    total = math.sqrt(row_variance) * normal[0]
    # In one order, so that b minus a is a minus b with the other sign.
    for k, n in enumerate(sorted((n for n in noises if n.variance > 0), key=_scatter)):
        drawn = np.maximum(0.0, n.variance * _base_ratios(round(n.df, 3), k) - n.rest)
        total = total + np.sqrt(drawn / seeds) * normal[k + 1]
    limit = float(np.quantile(np.abs(total), 0.95)) / math.sqrt(variance)
    return Spread(variance, min(_df_with_limit(limit), item_df))


def _scatter(noise: MethodNoise) -> tuple[float, float]:
    return noise.variance, noise.df


@functools.cache
def _base_normals() -> Floats:
    """Normals (3, B), the same always: a difference gives one answer."""
    return np.random.default_rng(0).standard_normal((3, 2 * STATISTIC_DRAWS))


@functools.lru_cache(maxsize=256)
def _base_ratios(df: float, place: int) -> Floats:
    """What a variance may be, over its estimate with so many degrees of freedom: (B,)."""
    return df / np.random.default_rng(1 + place).chisquare(df, 2 * STATISTIC_DRAWS)


@functools.cache
def _t_limits() -> tuple[Floats, Floats]:
    from scipy.special import stdtrit

    df = np.concatenate([np.geomspace(1e6, 30, 100), np.linspace(29.9, 1, 600)])
    return df, np.asarray(stdtrit(df, 0.975))


def _df_with_limit(limit: float) -> float:
    """Degrees of freedom of the Student t whose 97.5% point is `limit`."""
    df, limits = _t_limits()
    return float(np.interp(limit, limits, df))


# --- several differences together -----------------------------------------------------------


def draw_statistics(
    row_covariance: Floats,
    noises: Sequence[MethodNoise],
    pairs: Sequence[tuple[int, int]],
    spreads: Sequence[tuple[Spread, float, int | None]],
    rng: np.random.Generator,
) -> Floats:
    """P values that the pairs would have if all methods were equal, drawn together: (B, pairs).

    `row_covariance` (M, M) is what rows do to the methods' means; of each pair (methods' places)
    `spreads` holds the spread of its difference, the rows' part of that variance, and how many
    seeds it is over; None where seeds move nothing.
    """
    from scipy.special import stdtr

    draws = max(1000, min(STATISTIC_DRAWS, MOST_STATISTICS_AT_A_TIME // max(1, len(pairs))))
    values, vectors = np.linalg.eigh(row_covariance)
    rows = rng.standard_normal((draws, len(values))) @ (vectors * np.sqrt(np.maximum(0, values))).T
    seeds = np.zeros((draws, len(noises)))
    for k, n in enumerate(noises):
        if n.variance > 0:
            drawn = n.variance * n.df / rng.chisquare(n.df, draws)
            seeds[:, k] = np.sqrt(np.maximum(0, drawn - n.rest)) * rng.standard_normal(draws)
    out = np.ones((draws, len(pairs)))
    for k, ((a, b), (spread, row_variance, count)) in enumerate(zip(pairs, spreads, strict=True)):
        if spread.variance <= 0:
            continue
        joint = row_covariance[a, a] + row_covariance[b, b] - 2 * row_covariance[a, b]
        if joint > 1e-6 * row_variance:
            by_row = (rows[:, a] - rows[:, b]) * math.sqrt(row_variance / joint)
        else:  # rows that none of the resamples moved
            by_row = math.sqrt(row_variance) * rng.standard_normal(draws)
        by_seed = (seeds[:, a] - seeds[:, b]) / math.sqrt(count) if count else 0.0
        total = by_row + by_seed
        out[:, k] = 2 * stdtr(spread.df, -np.abs(total) / math.sqrt(spread.variance))
    return out


def step_down(p_values: Sequence[float], drawn: Floats) -> list[float]:
    """P values adjusted for being several: step-down minP (Romano & Wolf 2005; Westfall & Young).

    `drawn` (B, pairs) are p values under equality, which hang together as the observed ones do. The
    smallest is compared with the smallest of all that are drawn, the next with the smallest of
    those that remain, and so on. No p falls below what it was alone, nor above Holm's.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if len(p) < 2:
        return [float(x) for x in p]
    order = np.argsort(p, kind="stable")
    least = np.minimum.accumulate(drawn[:, order[::-1]], axis=1)[:, ::-1]
    share = (1 + (least <= p[order] * (1 + 1e-12)).sum(axis=0)) / (1 + len(drawn))
    by_holm = np.minimum(1.0, p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.maximum(p[order], np.minimum(share, by_holm)))
    return [float(x) for x in adjusted]
