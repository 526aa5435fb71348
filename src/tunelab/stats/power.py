"""What a study can tell apart: detectable differences, seeds and rows needed, by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tunelab.stats.crossed import LEVEL, Spread
from tunelab.stats.noise import MethodNoise, behrens_fisher_spread
from tunelab.stats.resampling import LEAST_SEEDS, check_fractions

__all__ = [
    "Decision",
    "Observed",
    "detectable_difference",
    "least_seeds",
    "more_rows",
    "more_seeds",
    "rows_needed",
    "seeds_needed",
]

POWER_SEED = 0
MOST_NEEDED_SEEDS = 1000
MOST_NEEDED_ROWS = 10_000_000


# --- how much more is needed ----------------------------------------------------------------


def least_seeds() -> int:
    """Seeds below which nothing is called better: too few to know how much seeds scatter."""
    return LEAST_SEEDS


@dataclass(frozen=True, slots=True)
class Observed:
    """A difference as a study saw it, in metric units (variances: squared).

    `noises` are what one seed of each method does (none where seeds carry no spread),
    `item_variance` what so many `rows` leave however many seeds there are. `more_at_margin`: how
    much larger the variance is where the true difference is the margin (Tango's score). `units`: as
    how many independent rows those in groups count; None: as all of them.
    """

    value: float
    noises: tuple[MethodNoise, ...]
    item_variance: float
    seeds: int
    rows: int
    more_at_margin: float = 0.0
    units: int | None = None

    def item_df(self, rows: int) -> float:
        """Degrees of freedom of what so many rows leave, in groups like those that are there."""
        share = 1.0 if self.units is None else self.units / self.rows
        return max(1.0, rows * share - 1)

    def spread(self, seeds: int, rows: int) -> Spread:
        """What its spread would be with so many seeds and rows like these, as far as is known.

        With Satterthwaite's degrees of freedom, which are near enough for a guess.
        """
        fewer = self.rows / rows
        more_df = max(1, seeds - 1) / max(1, self.seeds - 1)
        parts = [((n.seed + n.rest * fewer) / seeds, n.df * more_df) for n in self.noises]
        item = self.item_variance * fewer
        variance = item + sum(v for v, _ in parts)
        below = item**2 / self.item_df(rows) + sum(v**2 / df for v, df in parts)
        return Spread(variance, variance**2 / below if below else math.inf)


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

    To decide is to tell it from zero at `level`, Bonferroni-adjusted over `pairs`; or, with a
    `margin` that is larger than `value`, to call it equivalent. `seed_variance` is that of one
    seed's difference, half of it of each method, `item_variance` what test rows leave however many
    seeds there are. Gives (number, reason), or (None, reason) where seeds cannot decide: rows are
    too few (then about how many are needed), the spread over seeds is unknown, or more than 1,000
    would be needed. The observed difference is itself uncertain, hence "about".
    """
    if seed_variance is None:
        return None, "the spread over seeds is unknown"
    observed = _observed(value, seed_variance, item_variance, seeds, rows)
    return more_seeds(
        observed, Decision(abs(value), 1 - (1 - level) / pairs, 2 * level - 1, margin)
    )


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
    if seed_variance is None:
        return None, "the spread over seeds is unknown"
    observed = _observed(value, seed_variance, item_variance, seeds, rows)
    return more_rows(observed, Decision(abs(value), 1 - (1 - level) / pairs, 2 * level - 1, margin))


def _observed(
    value: float, seed_variance: float, item_variance: float, seeds: int, rows: int
) -> Observed:
    each = MethodNoise(seed_variance / 2, max(1, seeds - 1), 0.0)
    return Observed(value, (each, each) if seed_variance else (), item_variance, seeds, rows)


def more_seeds(observed: Observed, goal: Decision) -> tuple[int | None, str]:
    """About how many more seeds decide; see `seeds_needed`."""
    if not goal.possible:
        return None, "no difference was observed"
    seeds, rows = observed.seeds, observed.rows
    # Where seeds go to infinity, what is left is the rows.
    if not goal.reached(
        Spread(observed.item_variance, observed.item_df(rows)), observed.more_at_margin
    ):
        return None, more_rows(observed, goal)[1]
    total = _least_integer(
        lambda s: goal.reached(observed.spread(s, rows), observed.more_at_margin),
        max(seeds + 1, least_seeds()),
        seeds + MOST_NEEDED_SEEDS,
    )
    if total is None:
        return None, f"more than {MOST_NEEDED_SEEDS:,} more seeds are needed"
    return total - seeds, "at the observed difference and spread"


def more_rows(observed: Observed, goal: Decision) -> tuple[int | None, str]:
    """About how many more rows decide; see `rows_needed`."""
    if not goal.possible:
        return None, "no difference was observed"
    seeds, rows = observed.seeds, observed.rows

    def total(with_seeds: int) -> int | None:
        """Smallest number of rows, to two digits, that decides with so many seeds."""

        def enough(n: int) -> bool:
            more = observed.more_at_margin * rows / n
            return goal.reached(observed.spread(with_seeds, n), more)

        most = _least_integer(enough, 2, MOST_NEEDED_ROWS)
        if most is None:
            return None
        unit = 10 ** max(0, math.floor(math.log10(most)) - 1)
        return int(max(math.ceil(most / unit) * unit, rows + 1))

    if seeds >= LEAST_SEEDS or not observed.noises:
        needed = total(seeds)
        if needed is not None:
            return needed - rows, f"more test rows are needed: about {needed:,}"
    wanted = max(2 * seeds, LEAST_SEEDS)
    while wanted <= MOST_NEEDED_SEEDS:
        needed = total(wanted)
        if needed is not None:
            reason = f"more test rows are needed: about {needed:,}, and {wanted:,} seeds"
            return None, reason
        wanted *= 2
    return None, f"more test rows are needed: more than {MOST_NEEDED_ROWS:,}"


def _least_integer(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number from low to high that is enough, where more is never worse."""
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


@dataclass(frozen=True, slots=True)
class Decision:
    """What would decide a pair whose observed difference has this `size`.

    `level_better` is that of the interval that must exclude zero, `level_equivalent` of the one
    that must lie within the `margin`; None where nothing is called equivalent.
    """

    size: float
    level_better: float
    level_equivalent: float
    margin: float | None

    @property
    def possible(self) -> bool:
        """Whether any amount of data can decide."""
        return self.size > 0 or self.margin is not None

    def reached(self, expected: Spread, more_at_margin: float = 0.0) -> bool:
        """Whether a spread like this decides."""
        spread = Spread(expected.variance, max(1.0, expected.df))
        if self.size > spread.half_width(self.level_better):
            return True
        room = -math.inf if self.margin is None else self.margin - self.size
        at_margin = Spread(spread.variance + more_at_margin, spread.df)
        return room > at_margin.half_width(self.level_equivalent)


# --- before a study -------------------------------------------------------------------------


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
    on endless rows; `pairs` of how many comparisons this is the first that is tested.

    The mean difference has variance item + seed / S, with item = shared x disagreement / n and
    seed = seed_sd^2 + (1 - shared) x disagreement / n, half of it of each method. The power is that
    of the test of `compare_all`, from 4,000 normal studies with a fixed seed, in which all methods
    scatter alike (so that each is read with the help of the others). Below 6 seeds tunelab never
    says "better"; the figure is then what the test alone could find.
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
    rest = (1 - shared) * disagreement / n_items
    adjusted = 1 - (1 - level) / pairs
    if n_seeds == 1 or not seed_sd**2 + rest:
        z = float(ndtri((1 + adjusted) / 2) + ndtri(power))
        return z * math.sqrt(item + seed_sd**2 + rest)
    methods = round((1 + math.sqrt(1 + 8 * pairs)) / 2)
    variances = _StudyVariances(item, seed_sd**2, rest, n_items, n_seeds, methods)
    return _power_by_simulation(variances, power, adjusted)


@dataclass(frozen=True, slots=True)
class _StudyVariances:
    """What a planned study's difference varies by; `seed` and `rest` of one seed's difference."""

    item: float
    seed: float
    rest: float
    rows: int
    seeds: int
    methods: int


def _power_by_simulation(v: _StudyVariances, power: float, level: float) -> float:
    """The difference at which a share `power` of normal studies passes the test.

    A larger true difference shifts a study's difference and leaves its spread alone, so each study
    has one smallest shift at which it passes: the answer is a quantile of these.
    """
    from scipy.special import ndtri, stdtrit

    rng = np.random.default_rng(POWER_SEED)
    df = float(v.methods * (v.seeds - 1))
    seen = (v.seed + v.rest) * rng.chisquare(df, 4000) / df  # of one seed's difference
    by_rows = v.item + v.rest / v.seeds
    evenly = rng.permutation((np.arange(4000) + 0.5) / 4000)
    start = math.sqrt(by_rows + v.seed / v.seeds) * ndtri(evenly)
    # The degrees of freedom hang on one number, so a few of them are enough.
    grid = np.quantile(seen, np.linspace(0, 1, 40))
    spreads = [
        behrens_fisher_spread(
            by_rows, (MethodNoise(g / 2, df, v.rest / 2),) * 2, v.seeds, max(1, v.rows - 1)
        )
        for g in grid
    ]
    variance = by_rows + np.maximum(0.0, seen - v.rest) / v.seeds
    limits = [float(stdtrit(s.df, (1 + level) / 2)) for s in spreads]
    needed = np.interp(seen, grid, limits) * np.sqrt(variance)
    return float(np.quantile(needed - start, power))
