"""How far apart two methods of a race are, and how much other seeds and rows would change that.

With d_si the leader's right answer less the other's, of seed s on row i, the mean over S seeds and
n rows has variance V(seed)/S + V(row)/n + V(rest)/(nS). What the rows bring is read from the rows
(`RowPart`). What the seeds bring is taken from all methods together, for few seeds tell little; and
since one of them may be unlike the others, a gap must also be more than one erratic method explains
(`erratic_gap`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.stats.crossed import (
    Spread,
    components_of_values,
    pooled_seed_variance,
    spread_of,
    unseen_variance,
)

__all__ = [
    "Gap",
    "Known",
    "Right",
    "RowNumbers",
    "RowPart",
    "erratic_gap",
    "gap_between",
    "known",
    "row_part",
]


Floats = NDArray[np.float64]
# label -> seed -> whether each validation row was right, (n,)
Right = Mapping[str, Mapping[int, NDArray[np.bool_]]]
# seed -> numbers of its validation rows, (n,), where seeds have rows of their own
RowNumbers = Mapping[int, NDArray[np.int64]]

# FIELD: the standard deviation over seeds, in accuracy, up to which a method may be erratic while
# the others are steady. Fine-tuning on a few thousand rows has 0.5 to 1 point where no run fails
# (Dodge et al. 2020, Mosbach et al. 2021), and about 3 where some do.
ERRATIC_SD = 0.03
_SHARES_OF_ERRATIC = np.geomspace(0.06, 1, 14)  # the spreads that are asked about


@dataclass(frozen=True, slots=True)
class RowPart:
    """What the rows bring to a mean gap over S seeds: `item`, that more seeds do not take away.

    `rows` in all; `item_df` its degrees of freedom; `seed` the variance of the seeds' mean gaps as
    they were, `own` the part of it that rows of its own bring to a seed; `least`: what the variance
    of the mean is not below. All but `rows` and `item_df` in shares of rows, squared.
    """

    rows: int
    item: float
    item_df: float
    seed: float
    own: float
    least: float


def row_part(
    gaps: Sequence[Floats], rows: Sequence[NDArray[np.int64]] | None = None
) -> RowPart | None:
    """The parts of gaps of two or more seeds, (n,) each; None where a seed has fewer than two rows.

    `rows`: numbers of each seed's rows where they differ. With w a row's weight in the mean and W
    the variance over rows within a seed: the spread of the seeds' means then holds W / n of each
    seed, which is all that there is where no row is seen twice. Rows that seeds share add
    W (sum of w^2 - 1 / (n S)); W in the place of V(row) is the cautious side.
    """
    seeds, sizes = len(gaps), np.array([len(g) for g in gaps])
    if sizes.min() < 2:
        return None
    if rows is None:
        n = int(sizes[0])
        c = components_of_values(np.stack(gaps), unseen=unseen_variance(n))
        return RowPart(n, c.item, c.item_df, c.seed or 0.0, 0.0, c.row_means)
    distinct, place = np.unique(np.concatenate(list(rows)), return_inverse=True)
    weights = np.bincount(place, np.repeat(1 / (seeds * sizes), sizes))
    within = float(np.mean([g.var(ddof=1) for g in gaps]))
    once = float((1 / sizes).mean())  # W times this is what rows add to one seed's mean
    shared = max(0.0, float((weights**2).sum()) - once / seeds)
    return RowPart(
        rows=len(distinct),
        item=within * shared + unseen_variance(len(distinct)),
        item_df=len(distinct) - 1,
        seed=float(np.var([g.mean() for g in gaps], ddof=1)),
        own=within * once,
        least=within * float((weights**2).sum()),
    )


@dataclass(frozen=True, slots=True)
class Gap:
    """How far a method is behind another over `seeds` that both have: `behind`, a share of rows.

    `moving` of the two (0, 1 or 2) vary with the seed; `steady` is the variance over seeds of such
    a method if it is like the others of the race, with `others` degrees of freedom a further seed.
    """

    seeds: int
    behind: float
    parts: RowPart
    moving: int
    steady: float
    others: int

    @property
    def seed_variance(self) -> float:
        """Variance of one seed's mean gap of two methods that are like the others."""
        return self.moving * self.steady

    def spread(self, seeds: int) -> Spread:
        """The spread of the mean gap with so many seeds, were both like the others."""
        df = self.others * max(1, seeds - 1)
        by_seed, parts = self.seed_variance / seeds, self.parts
        whole = spread_of(by_seed, parts.item, seed_df=df, item_df=parts.item_df)
        return Spread(max(whole.variance, parts.least), whole.df) if seeds == self.seeds else whole


@dataclass(frozen=True, slots=True)
class Known:
    """All that a race has seen: who was `right` where, and which `rows` each seed was judged on,
    where seeds have rows of their own; None where they have the same.

    `means` are shares of right answers; `fixed` the methods that no seed changes.
    """

    right: Right
    rows: RowNumbers | None
    means: Mapping[str, Mapping[int, float]]
    fixed: frozenset[str]

    def mean(self, label: str) -> float:
        """Mean of a method over its seeds."""
        return float(np.mean(list(self.means[label].values())))


def known(right: Right, rows: RowNumbers | None = None) -> Known:
    """What is known of methods that have run at least once."""
    ran = {label: by_seed for label, by_seed in right.items() if by_seed}
    means = {
        label: {s: np.count_nonzero(r) / len(r) for s, r in by_seed.items()}
        for label, by_seed in ran.items()
    }
    same = (label for label, by_seed in ran.items() if rows is None and _is_fixed(by_seed))
    return Known(ran, rows, means, frozenset(same))


def _is_fixed(by_seed: Mapping[int, NDArray[np.bool_]]) -> bool:
    first, *others = by_seed.values()
    return all(np.array_equal(first, r) for r in others)


def gap_between(seen: Known, ahead: str, behind: str, least_seeds: int) -> Gap | None:
    """Compare two methods over the seeds that both have; None where there are fewer than asked.

    The variance over seeds is that of all methods which have run these seeds; those that no seed
    changes are not pooled with them, and bring nothing.
    """
    ours, theirs = seen.right[ahead], seen.right[behind]
    seeds = sorted(ours.keys() & theirs.keys())
    if len(seeds) < least_seeds:
        return None
    gaps = [ours[s].astype(float) - theirs[s] for s in seeds]
    parts = row_part(gaps, None if seen.rows is None else [seen.rows[s] for s in seeds])
    if parts is None:
        return None
    moving = [
        label
        for label, by_seed in seen.means.items()
        if label not in seen.fixed and set(seeds) <= by_seed.keys()
    ]
    both = sum(label in moving for label in (ahead, behind))
    means = np.array([[seen.means[label][s] for s in seeds] for label in moving])
    steady = pooled_seed_variance(means)[0] / 2 if len(moving) > 1 else parts.seed
    mean = float(np.mean([seen.means[ahead][s] - seen.means[behind][s] for s in seeds]))
    return Gap(len(seeds), mean, parts, both, steady, max(1, len(moving) - 1))


def erratic_gap(gap: Gap, chance: float) -> float:
    """The least mean gap that one erratic method does not explain; -inf where none could.

    Were one of the two erratic, with a standard deviation of up to `ERRATIC_SD`, its few seeds
    might lie as close as they do by luck (probability v), and as far off as they do (m). These are
    independent, if seeds are normal: a gap counts where v m is below `chance` whatever that
    deviation, which happens to equals in at most `chance` (1 - ln `chance`) of races. A t test on
    the pair's own seeds would ask for a gap without bound after two of them.
    """
    from scipy.special import chdtr, ndtri

    if not gap.moving:
        return -math.inf
    seen, parts = gap.seeds - 1, gap.parts
    most = ERRATIC_SD**2 + (gap.moving - 1) * gap.steady + parts.own
    spreads = most * _SHARES_OF_ERRATIC**2
    close = np.maximum(chdtr(seen, seen * parts.seed / spreads), 1e-300)
    far = np.minimum(chance / close, 0.5)  # a gap of no sign shows nothing
    return float((-ndtri(far) * np.sqrt(spreads / gap.seeds + parts.item)).max())
