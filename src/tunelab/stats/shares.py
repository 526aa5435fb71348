"""Intervals of shares: accuracies and failure rates, of few rows and near 0 and 100% too.

Student's t is wrong there. A share of 0.98 on 150 rows has three mistakes to estimate its spread
from, and one of 1 has none: the interval is then the shorter the fewer mistakes the luck of the
rows has shown. Wilson's (1927) takes the spread that belongs to each share it would rule out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tunelab.core.values import Estimate
from tunelab.stats.crossed import (
    LEVEL,
    Floats,
    components_of_values,
    t_quantile,
)

__all__ = [
    "Share",
    "interval_of_share",
    "share_of_values",
]

FEW = 3.0  # so many of a kind or fewer: Clopper and Pearson's interval too, which is exact
PRIOR_ROWS = 2.0  # rows on which seeds are taken to agree, beside those that show it


def interval_of_share(
    value: float,
    rows: int,
    *,
    row_variance: float | None = None,
    row_df: float = math.inf,
    seed_variance: float = 0.0,
    seed_df: float = math.inf,
    level: float = LEVEL,
) -> tuple[float, float]:
    """The interval (low, high) in [0, 1] of a share that is a mean over seeds and `rows` rows.

    `row_variance`: variance of the mean over other rows as measured, V(item) / n + V(rest) / (n S),
    nothing added; None with one seed, whose rows are right or wrong. `row_df`: its degrees of
    freedom, where few groups of rows show it. `seed_variance`: what seeds
    add, V(seed) / S (the variance of the S means over S, less V(rest) / (n S), not below 0), with
    its degrees of freedom.

    Rows count as so many independent ones as give their variance (averaging over seeds makes one
    row worth more than one). The design effect of few mistakes is luck, so it is drawn towards 1 by
    two rows on which seeds agree. Wilson's interval of that many rows, and Clopper and Pearson's
    where three or fewer are of a kind; the distance of each end from the value and the seeds' half
    width are added as squares (Zou and Donner 2008, "Construction of confidence limits about effect
    measures": limits of independent parts are combined so).

    `benchmarks/_claims_slices.py` has how often it holds the truth.
    """
    effective = rows / _design_effect(value, rows, row_variance)
    low, high = _row_interval(value, effective, level, row_df)
    if seed_variance <= 0:
        return low, high
    half = t_quantile(level, seed_df) * math.sqrt(seed_variance)
    return (
        max(0.0, value - math.hypot(value - low, half)),
        min(1.0, value + math.hypot(high - value, half)),
    )


def _design_effect(value: float, rows: int, row_variance: float | None) -> float:
    """Variance of the mean over rows against that of as many coins: at most about 1, but for rows
    in groups.
    """
    of_coins = value * (1 - value) / rows
    if row_variance is None or of_coins <= 0:
        return 1.0
    showing = rows * min(value, 1 - value)
    return (row_variance / of_coins * showing + PRIOR_ROWS) / (showing + PRIOR_ROWS)


def _row_interval(
    value: float, rows: float, level: float, df: float = math.inf
) -> tuple[float, float]:
    """Wilson's interval of a share of (a real number of) rows; the exact one too near the ends."""
    from scipy.special import betaincinv, ndtri

    z2 = (float(ndtri((1 + level) / 2)) if math.isinf(df) else t_quantile(level, df)) ** 2
    middle = (value + z2 / (2 * rows)) / (1 + z2 / rows)
    half = math.sqrt(z2 * value * (1 - value) / rows + z2 * z2 / (4 * rows * rows))
    half /= 1 + z2 / rows
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    hits, misses = value * rows, (1 - value) * rows
    if min(hits, misses) > FEW:
        return low, high
    tail = (1 - level) / 2
    exact_low = float(betaincinv(hits, misses + 1, tail)) if hits > 0 else 0.0
    exact_high = float(betaincinv(hits + 1, misses, 1 - tail)) if misses > 0 else 1.0
    if misses <= 0 or hits <= 0:  # all alike: exact alone
        return exact_low, exact_high
    return min(low, exact_low), max(high, exact_high)


@dataclass(frozen=True, slots=True)
class Share:
    """A share of S seeds and n rows and its variances, as `interval_of_share` takes them."""

    value: float
    seeds: int
    rows: int
    row_variance: float | None
    seed_variance: float

    def interval(self, level: float = LEVEL, *, seeds: bool = True) -> tuple[float, float]:
        """For other rows, and for other seeds unless these are kept."""
        return interval_of_share(
            self.value,
            self.rows,
            row_variance=self.row_variance,
            seed_variance=self.seed_variance if seeds else 0.0,
            seed_df=max(1, self.seeds - 1),
            level=level,
        )

    def estimate(self, level: float = LEVEL) -> Estimate:
        """The share with its interval for other seeds and other rows."""
        if self.rows < 2:
            return Estimate(self.value, None, None, self.seeds, "one row: no interval")
        low, high = self.interval(level)
        over = f"{self.seeds} seed{'s' * (self.seeds > 1)} and {self.rows:,} rows"
        return Estimate(self.value, low, high, self.seeds, f"mean over {over}, Wilson interval")

    def minus(self, other: Share, seed_variance: float, level: float = LEVEL) -> Estimate:
        """The difference to a share of other rows under the same seeds.

        The distances of the ends of both intervals and the seeds' half width are added as squares
        (Newcombe 1998, method 10; Zou and Donner 2008). `seed_variance`: what seeds add to the
        variance of the difference; as both shares have the same seeds, theirs do not add.
        """
        low, high = self.interval(level, seeds=False)
        other_low, other_high = other.interval(level, seeds=False)
        half = t_quantile(level, max(1, self.seeds - 1)) * math.sqrt(seed_variance)
        value = self.value - other.value
        return Estimate(
            value,
            max(-1.0, value - math.hypot(self.value - low, other_high - other.value, half)),
            min(1.0, value + math.hypot(high - self.value, other.value - other_low, half)),
            self.seeds,
            f"difference of two shares over {self.seeds} seeds and {self.rows + other.rows:,} rows",
        )


def share_of_values(values: Floats) -> Share:
    """The mean of values in [0, 1] of S seeds and n rows, (S, n).

    NaN where a seed did not answer a row, as folds do not: rows then count alike, however many
    seeds answered them, and every row needs one. Seeds that answered none are left out.
    """
    values = values[np.isfinite(values).any(axis=1)]
    seeds, rows = values.shape
    if not np.isnan(values).any():
        parts = components_of_values(values)
        of_seeds = max(0.0, parts.by_seed - parts.rest)
        return Share(
            float(values.mean()), seeds, rows, parts.row_means if seeds > 1 else None, of_seeds
        )
    of_row, by_seed = np.nanmean(values, axis=0), np.nanmean(values, axis=1)
    answered = np.isfinite(values).sum(axis=1)
    explained = float(np.nanvar(values)) * float((1 / answered).mean())
    of_seeds = max(0.0, float(by_seed.var(ddof=1)) - explained) / seeds if seeds > 1 else 0.0
    spread = float(of_row.var(ddof=1)) / rows if rows > 1 else None
    return Share(float(of_row.mean()), seeds, rows, spread, of_seeds)
