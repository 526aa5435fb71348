"""What a mean over seeds and test rows varies by: the one place where that variance is split.

Throughout, x[s, i] is what seed s gives on row i: 1 where a method is right, or the difference of
two methods there. It is read as

    x[s, i] = mean + seed[s] + item[i] + rest[s, i],

every part drawn anew for other seeds and other rows, which are crossed: each seed sees each row.
The mean over S seeds and n rows then has variance

    V(seed) / S + V(item) / n + V(rest) / (n S).

None of the three terms is seen alone. The spread of the S seed means estimates
V(seed) + V(rest) / n; that of the n row means, over n (or resampling rows), estimates
V(item) / n + V(rest) / (n S): to add both counts the rest twice. What is left of x without its row
and seed means, or what resampling gives for single seeds less what it gives for their mean, tells
how much that is. A bootstrap that resamples seeds too (Owen 2007, "The pigeonhole bootstrap")
counts the rest three times, and the seeds (S - 1) / S times: too wide with many seeds, too narrow
with few.

`Components` are these terms, read from values (`components_of_values`) or from resamples of rows
(`components_of_resamples`); `Spread` is what they add up to, with Satterthwaite's degrees of
freedom. Intervals, slices, races and the planning of seeds and rows all read them here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LEVEL",
    "Components",
    "Spread",
    "components",
    "components_of_resamples",
    "components_of_values",
    "moderated_variances",
    "pooled_seed_variance",
    "row_parts",
    "shared_part",
    "satterthwaite",
    "spread_of",
    "t_quantile",
    "unseen_variance",
]


Floats = NDArray[np.float64]

LEVEL = 0.95


# --- what the parts add up to ---------------------------------------------------------------


def t_quantile(level: float, df: float) -> float:
    """Half-width, in standard errors, of a two-sided Student t interval."""
    from scipy.special import stdtrit

    return float(stdtrit(df, (1 + level) / 2))


@dataclass(frozen=True, slots=True)
class Spread:
    """Variance of a mean, in its units squared, and Satterthwaite's degrees of freedom."""

    variance: float
    df: float

    def half_width(self, level: float = LEVEL) -> float:
        """Half the width of the two-sided Student t interval around the mean."""
        return t_quantile(level, self.df) * math.sqrt(self.variance)

    def p_value(self, value: float) -> float:
        """Two-sided p of Student's t test that a mean of `value` is truly zero."""
        from scipy.special import stdtr

        if self.variance <= 0:
            return 1.0 if value == 0 else 0.0
        return min(1.0, float(2 * stdtr(self.df, -abs(value) / math.sqrt(self.variance))))


def satterthwaite(
    variance: float | Floats,
    by_seed: float | Floats,
    by_item: float | Floats,
    *,
    seed_df: float,
    item_df: float,
) -> float | Floats:
    """Degrees of freedom of a variance that is the sum of two independent ones.

    variance^2 / (by_seed^2 / seed_df + by_item^2 / item_df): Satterthwaite 1946, "An approximate
    distribution of estimates of variance components". Infinite where nothing varies.
    """
    below = by_seed**2 / seed_df + by_item**2 / item_df
    return variance**2 / below if np.all(below) else math.inf


def spread_of(by_seed: float, by_item: float, *, seed_df: float, item_df: float) -> Spread:
    """The spread of a mean whose seeds and rows bring so much variance each."""
    variance = by_seed + by_item
    df = satterthwaite(variance, by_seed, by_item, seed_df=seed_df, item_df=item_df)
    return Spread(variance, float(df))


# --- the parts ------------------------------------------------------------------------------


def unseen_variance(rows: int) -> float:
    """What n rows that are all alike do not show of a share: 1 / (n + 2)^2, of one seed.

    Two methods that agree on every one of 20 rows are not thereby known to be equal. The half
    disagreement each way of Agresti and Min 2005; of one method Agresti and Caffo 2000 add as much.
    Of a mean over seeds, only the part that all seeds have in common (`shared_part`).
    """
    return 1 / (rows + 2) ** 2


@dataclass(frozen=True, slots=True)
class Components:
    """Variance components of a mean over `seeds` S and `rows` n, in its units squared.

    `seed`: V(seed) + V(rest) / n, the variance of one seed's mean on these rows; None with one
    seed. `row_means`: V(item) / n + V(rest) / (n S), what other rows would change of the mean.
    `rest`: V(rest) / (n S). `item`: V(item) / n, what more seeds do not take away; never below 0.
    `item_df`: degrees of freedom of the row parts. `row_means` and `item` include what the rows do
    not show (`unseen_variance`), where it was asked for.
    """

    seeds: int
    rows: int
    seed: float | None
    row_means: float
    rest: float
    item: float
    item_df: float

    @property
    def by_seed(self) -> float:
        """Variance that the seeds bring to the mean: V(seed) / S + V(rest) / (n S); 0 of one."""
        return self.seed / self.seeds if self.seed is not None else 0.0

    @property
    def seed_df(self) -> int:
        """Degrees of freedom of the spread over seeds; 1 where one seed shows none."""
        return max(1, self.seeds - 1)

    def spread(self) -> Spread:
        """The mean's spread over other seeds and other rows; the rest is counted with the seeds.

        No less than the rows alone bring: estimates of the parts may come out below 0.
        """
        if self.seed is None:
            return Spread(self.row_means, self.item_df)
        variance = max(self.by_seed + self.item, self.row_means)
        df = satterthwaite(
            variance, self.by_seed, self.item, seed_df=self.seed_df, item_df=self.item_df
        )
        return Spread(variance, float(df))


def components_of_values(values: Floats, *, unseen: float = 0.0) -> Components:
    """Variance components of the mean of values (S, n), by analysis of variance.

    Residuals of row and seed means, squared, over (S - 1)(n - 1), estimate V(rest). One row says
    nothing of other rows: `row_means` and `item` are then infinite.
    """
    seeds, rows = values.shape
    of_row, of_seed, mean = values.mean(axis=0), values.mean(axis=1), float(values.mean())
    of_rows = float(of_row.var(ddof=1)) / rows if rows > 1 else math.inf
    rest = 0.0
    if rows > 1:
        of_one = float(values.var(axis=1, ddof=1).mean()) / rows
        unseen *= shared_part(of_rows, of_one, rows, seeds)
    if seeds > 1 and rows > 1:
        residuals = values - of_row - of_seed[:, None] + mean
        rest = float((residuals**2).sum()) / ((seeds - 1) * (rows - 1)) / (rows * seeds)
    return Components(
        seeds=seeds,
        rows=rows,
        seed=float(of_seed.var(ddof=1)) if seeds > 1 else None,
        row_means=of_rows + unseen,
        rest=rest,
        item=max(0.0, of_rows - rest) + unseen,
        item_df=rows - 1,
    )


def components_of_resamples(
    by_seed: Floats, drawn: Floats, rows: int, *, unseen: float = 0.0
) -> Components:
    """Variance components of a mean of any metric, from B resamples of its n rows.

    `by_seed` (S,) are the values on all rows, `drawn` (B, S) those on resamples, the same rows for
    every seed. What resampling gives for single seeds less what it gives for their mean
    (`row_parts`) is V(rest) / n (1 - 1 / S).
    """
    seeds = len(by_seed)
    of_mean, of_one, item_df = row_parts(drawn, rows)
    unseen *= shared_part(of_mean, of_one, rows, seeds)
    if seeds == 1:
        total = of_mean + unseen
        return Components(1, rows, None, total, 0.0, total, item_df)
    rest = max(0.0, (of_one - of_mean) / (seeds - 1))
    return Components(
        seeds=seeds,
        rows=rows,
        seed=float(by_seed.var(ddof=1)),
        row_means=of_mean + unseen,
        rest=rest,
        item=max(0.0, of_mean - rest) + unseen,
        item_df=item_df,
    )


def row_parts(drawn: Floats, rows: int) -> tuple[float, float, float]:
    """What n rows bring to the mean over S seeds, and to one seed's value, in units squared; and
    the degrees of freedom of both: those of n rows seen through B resamples.

    `drawn` (B, S) are values on resamples, which show (n - 1) / n of the variance.
    """
    small = rows / (rows - 1)
    of_mean = float(drawn.mean(axis=1).var(ddof=1)) * small
    of_one = float(drawn.var(axis=0, ddof=1).mean()) * small
    return of_mean, of_one, 1 / (1 / (rows - 1) + 1 / (len(drawn) - 1))


def shared_part(of_mean: float, of_one: float, rows: int, seeds: int) -> float:
    """The part of a row's variance that all seeds have in common, between 1 / S and 1.

    `of_mean` is the variance that the n rows bring to the mean over seeds, `of_one` what they bring
    to one seed's value. One row is added on which all seeds agree: where hardly any row tells the
    two apart, the part is unknown and taken as 1.
    """
    one_row = 1 / rows**2
    return min(1.0, max(1 / seeds, (of_mean + one_row) / (of_one + one_row)))


def moderated_variances(variances: Floats, df: float) -> tuple[Floats, Floats]:
    """Variances over seeds of M methods, each read with the help of the others, and their df.

    `variances` (M,) have `df` degrees of freedom each. Empirical Bayes of Smyth 2004 ("Linear
    models and empirical Bayes methods for assessing differential expression", section 6): true
    variances are taken as scattered around a common one, as much as the estimates show, and each
    becomes the weighted mean of itself and that. The common one counts as no more than the other
    methods' data, (M - 1) df, and where it would count for less than a method's own data, which is
    where variances differ, not at all: to shrink a large variance ever so little there is enough
    to break a test's level. Methods that do not vary are left alone and help nobody.
    """
    from scipy.special import digamma, polygamma

    own = np.asarray(variances, dtype=np.float64)
    alone = own.copy(), np.full(len(own), float(df))
    varies = own > 0
    x, m = own[varies], int(varies.sum())
    if m < 2:
        return alone
    logs = np.log(x) - digamma(df / 2) + math.log(df / 2)
    scatter = float(logs.var(ddof=1)) - float(polygamma(1, df / 2))
    most = (m - 1) * df
    if scatter > 1e-6:
        half = _trigamma_inverse(scatter)
        prior_df = min(2 * half, most)
        common = math.exp(float(logs.mean()) + float(digamma(half)) - math.log(half))
    else:
        prior_df, common = most, float(x.mean())
    if prior_df < df:
        return alone
    moderated, total = alone
    moderated[varies] = (prior_df * common + df * x) / (prior_df + df)
    total[varies] += prior_df
    return moderated, total


def _trigamma_inverse(value: float) -> float:
    """The y with trigamma(y) = value, by Newton's method (Smyth 2004, appendix)."""
    from scipy.special import polygamma

    y = 0.5 + 1 / value
    for _ in range(50):
        t = float(polygamma(1, y))
        step = t * (1 - t / value) / float(polygamma(2, y))
        y += step
        if abs(step) < 1e-10 * y:
            break
    return y


def pooled_seed_variance(by_method: Floats) -> tuple[float, int]:
    """Variance over seeds of the difference of any two of K methods, and its degrees of freedom.

    `by_method` (K, S) are means by method and seed. Twice the variance of the methods x seeds
    residuals: what a seed does to all methods alike cancels. (K - 1)(S - 1) degrees of freedom.
    """
    means = by_method
    residuals = means - means.mean(axis=0) - means.mean(axis=1, keepdims=True) + means.mean()
    df = (means.shape[0] - 1) * (means.shape[1] - 1)
    return 2 * float((residuals**2).sum()) / df, df


def components(gaps: Floats) -> tuple[float, float, float]:
    """What a difference of two methods varies by: gaps (seeds, rows), two or more of each.

    `gaps` is 1 where only the first is right, -1 where only the other is. Gives the variance over
    rows of one seed's gaps, V(item) + V(rest); the part of it that is common to all seeds, V(item);
    and the variance over seeds of the mean gap on endless rows, V(seed). Unbiased, then cut at 0
    (and the part at the whole).
    """
    s, n = gaps.shape
    within = float(gaps.var(axis=1, ddof=1).mean())
    of_mean = float(gaps.mean(axis=0).var(ddof=1))
    common = min(within, max(0.0, (of_mean - within / s) / (1 - 1 / s)))
    if within - common < 1e-9:  # every seed the same: rounding is no spread
        common = within
    seed = float(gaps.mean(axis=1).var(ddof=1)) - (within - common) / n
    return within, common, max(0.0, seed)
