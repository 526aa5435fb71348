"""Tests of significance: sign-flip, exact McNemar, Tango's paired score, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunelab.stats.resampling import Floats

__all__ = [
    "holm",
    "mcnemar",
    "paired_score_variance",
    "sign_flip",
    "sign_flip_of_groups",
]


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
        sums = np.zeros(1)
        for x in d:
            sums = np.concatenate([sums - x, sums + x])
        return float((np.abs(sums) >= observed).mean())
    if rng is None:
        raise ValueError(f"sign_flip of {n} differences draws random signs: pass an rng")
    hits = sum(
        int((np.abs(rng.choice([-1.0, 1.0], size=(1000, n)) @ d) >= observed).sum())
        for _ in range(max(1, resamples // 1000))
    )
    return (1 + hits) / (1 + 1000 * max(1, resamples // 1000))


def sign_flip_of_groups(
    right_a: NDArray[np.bool_],
    right_b: NDArray[np.bool_],
    group: NDArray[np.int64],
    rng: np.random.Generator,
) -> float:
    """Sign-flip p of two fixed models on rows in groups, from who is right on each row, (n,) each.

    Rows of one group are no independent witnesses: what luck may turn round is the difference of a
    whole group. Those without one have no sign.
    """
    by_group = np.bincount(group, weights=right_a.astype(np.float64) - right_b)
    apart = by_group[by_group != 0]
    return sign_flip(apart, rng) if len(apart) else 1.0


def mcnemar(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> float:
    """Exact two-sided McNemar p of two fixed models, from who is right on each row, (n,) each."""
    from scipy.special import bdtr

    only_a = int((right_a & ~right_b).sum())
    only_b = int((right_b & ~right_a).sum())
    if not only_a + only_b:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_score_variance(only_a: float, only_b: float, rows: int, difference: float) -> float:
    """Variance of the difference of two paired shares if the true one were `difference`.

    `only_a` and `only_b` are the shares of n rows on which one alone is right, `difference` of a
    minus b in -1..1. The score of Tango 1998 ("Equivalence test and confidence interval for the
    difference in proportions for the paired-sample design"): (2 q + d (1 - d)) / n with q the most
    likely share of "b alone" under that difference.
    """
    n, d = rows, difference
    b = -n * (only_a + only_b) + n * (2 - only_a + only_b) * d
    c = -n * only_b * d * (1 - d)
    q = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    return max(0.0, 2 * max(q, 0.0, -d) + d * (1 - d)) / n


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
