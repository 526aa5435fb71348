"""Fixed classifiers on the same rows, two by two: who is right more often, and whether by luck."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab import stats
from tunelab.core.words import signed

__all__ = [
    "PairTest",
    "pair_in_words",
    "pair_tests",
]

_DRAWS_SEED = 0  # the same rows must give the same p values, whoever asks


@dataclass(frozen=True, slots=True)
class PairTest:
    """Two classifiers by their names: accuracy of `a` minus that of `b`, and McNemar's exact p.

    The rows that one of them alone has right are counted; `p_value` is adjusted after Holm.
    `groups`: how many groups the rows are in; the p is then of the sign-flip over groups.
    """

    a: str
    b: str
    difference: float
    only_a_right: int
    only_b_right: int
    p_value: float
    groups: int | None = None


def pair_tests(
    right: Mapping[str, NDArray[np.bool_]], group: NDArray[np.int64] | None = None
) -> list[PairTest]:
    """The test of each pair, from who is right on each row, (n,).

    `group` (n,): a number for each row, the same for rows of one group, which are no independent
    witnesses: the sign of a whole group's difference is then what luck may flip.
    """
    pairs = list(itertools.combinations(right, 2))
    raw = [_p_value(right[a], right[b], group) for a, b in pairs]
    return [
        PairTest(
            a=a,
            b=b,
            difference=float(right[a].mean() - right[b].mean()),
            only_a_right=int((right[a] & ~right[b]).sum()),
            only_b_right=int((right[b] & ~right[a]).sum()),
            p_value=p,
            groups=None if group is None else len(np.unique(group)),
        )
        for (a, b), p in zip(pairs, stats.holm(raw), strict=True)
    ]


def _p_value(a: NDArray[np.bool_], b: NDArray[np.bool_], group: NDArray[np.int64] | None) -> float:
    if group is None:
        return stats.mcnemar(a, b)
    return stats.sign_flip_of_groups(a, b, group, np.random.default_rng(_DRAWS_SEED))


def pair_in_words(t: PairTest, pairs: int) -> str:
    """A pair's test in a sentence; `pairs`: of how many Holm's correction is."""
    p = "p < 0.001" if t.p_value < 0.001 else f"p = {t.p_value:.2g}"
    after = " after Holm" if pairs > 1 else ""
    ahead = "is more often right than" if t.difference > 0 else "is less often right than"
    verdict = ahead if t.p_value <= 0.05 else "is not shown to differ from"
    test = "exact McNemar" if t.groups is None else f"sign-flip over {t.groups:,} groups"
    return (
        f"{t.a} {verdict} {t.b}: {signed(100 * t.difference, 1)} points, right alone on "
        f"{t.only_a_right:,} and {t.only_b_right:,} rows, {test} {p}{after}"
    )
