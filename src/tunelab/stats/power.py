"""What a study can tell apart: detectable differences, seeds and rows needed, by simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tunelab.stats.crossed import LEVEL, Spread, satterthwaite, spread_of
from tunelab.stats.resampling import LEAST_SEEDS, Floats, check_fractions

__all__ = [
    "detectable_difference",
    "least_seeds",
    "rows_needed",
    "seeds_needed",
]

POWER_SEED = 0
MOST_NEEDED_SEEDS = 1000
MOST_NEEDED_ROWS = 10_000_000


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
            value,
            seed_variance,
            item_variance,
            seeds=seeds,
            rows=rows,
            level=level,
            pairs=pairs,
            margin=margin,
        )[1]
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
