"""Do rows of a slice differ from the rest? A permutation test of all slices of all methods at once.

If a slice is like any other rows, a row could as well have stood outside it. So the rows of a
column are dealt anew to its slices, many times, with what every method and seed gave on them: what
then looks largest, over all slices of all methods, is what luck does (Westfall and Young 1993,
"Resampling-based multiple testing", step-down minimum p). No distribution is assumed, slices of ten
rows and methods without a mistake included; and methods that fail on the same rows, or columns
that cut alike, cost nothing, where Holm would count each.

Rows alone would call a slice weak on which only these seeds happen to be weak. What seeds disagree
about a slice more than single rows explain is added to the spread of the observed difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.stats.predictions import Floats

__all__ = ["Cut", "SliceTests", "seed_variances", "slice_tests"]

DEALS = 1999  # the smallest p is then 0.0005
MOST_NUMBERS = 400_000_000  # multiplications: with more rows or slices there are fewer deals
LEAST_DEALS = 399


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Slices of one column: `known` (n,) has a value there, `inside` (J, n) which of the slices."""

    known: NDArray[np.bool_]
    inside: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class SliceTests:
    """Two-sided p of each slice of each method, (M, J): alone, and adjusted over all of them."""

    p_values: Floats
    adjusted: Floats

    def of_method(self, place: int) -> SliceTests:
        """Those of one method, (J,)."""
        return SliceTests(self.p_values[place], self.adjusted[place])


def slice_tests(right: Sequence[Floats], cuts: Sequence[Cut]) -> SliceTests:
    """Test every slice of every cut for every method against the other rows known to the cut.

    `right`: of each method (S, n), 1 or 0 by seed and row, NaN where a seed did not answer a row;
    the same n rows. Slices come in the order of `cuts`.
    """
    row_means = np.stack([_mean_by_column(r) for r in right])
    parts = [_CutTest.of(row_means, cut) for cut in cuts]
    added = np.stack([seed_variances(r, cuts) for r in right])
    df = np.array([[max(1.0, len(r) - 1.0)] for r in right])
    observed, start = [], 0
    for part in parts:
        of_seeds = added[:, start : start + len(part.weights)]
        observed.append(part.p_with_seeds(part.differences(part.centred), of_seeds, df))
        start += len(part.weights)
    p = np.concatenate(observed, axis=1)
    dealt = _dealt_p(parts, row_means.shape[1])
    flat = p.ravel() * (1 + 1e-9)  # what equals it up to rounding is as extreme
    alone = (1 + (dealt <= flat).sum(axis=0)) / (len(dealt) + 1)
    return SliceTests(alone.reshape(p.shape), _step_down(flat, dealt).reshape(p.shape))


@dataclass(frozen=True, slots=True, eq=False)
class _CutTest:
    """What dealing the rows of one cut leaves as it is.

    `known` are places of rows, `centred` (M, N) their values less the mean, `inside` (N, J),
    `weights` (J,) = 1 / n_in + 1 / n_out, by which a sum over the slice of centred values becomes
    the difference of both means. `variances` and `skews` (M, J): of that difference over all deals.
    """

    known: NDArray[np.int64]
    centred: Floats
    inside: Floats
    weights: Floats
    variances: Floats
    skews: Floats

    @classmethod
    def of(cls, row_means: Floats, cut: Cut) -> _CutTest:
        known = np.flatnonzero(cut.known)
        inside = cut.inside[:, known].T.astype(np.float64)
        values = row_means[:, known]
        centred = values - values.mean(axis=1, keepdims=True)
        n = len(known)
        size = inside.sum(axis=0)
        weights = 1 / size + 1 / (n - size)
        second, third = (centred**2).sum(axis=1), (centred**3).sum(axis=1)
        # Moments of a sum over a sample without replacement (Cochran 1977, chapter 2).
        of_sum = np.outer(second, size * (n - size) / (n * (n - 1)))
        cubed = np.outer(third, size * (n - size) * (n - 2 * size) / (n * (n - 1) * (n - 2)))
        skews = np.divide(cubed, of_sum**1.5, out=np.zeros_like(cubed), where=of_sum > 1e-12)
        return cls(known, centred, inside, weights, of_sum * weights**2, skews)

    def differences(self, centred: Floats) -> Floats:
        """Slice less rest, (..., J), of centred values (..., N)."""
        return np.asarray(centred @ self.inside * self.weights)

    def p_of(self, differences: Floats) -> Floats:
        """Approximate two-sided p of differences (M, b, J), as if seeds repeated each other."""
        from scipy.special import ndtr

        some = self.variances > 1e-12
        scale = np.sqrt(np.where(some, self.variances, np.inf))[:, None]
        z = differences / scale
        return np.asarray(np.maximum(_skewed_p(z, self.skews[:, None]), 2 * ndtr(-np.abs(z))))

    def p_with_seeds(self, differences: Floats, added: Floats, df: Floats) -> Floats:
        """The same of differences (M, J), where seeds add so much variance (M, J); df (M, 1)."""
        from scipy.special import stdtr

        some = self.variances > 1e-12
        total = np.where(some, self.variances + added, 1.0)
        of_rows = np.where(some, self.variances / total, 1.0)
        z = np.where(some, differences / np.sqrt(total), 0.0)
        # Satterthwaite's, where only the part of the seeds is badly known.
        all_df = np.minimum(df / np.maximum(1 - of_rows, 1e-6) ** 2, 1e9)
        skewed = _skewed_p(z, self.skews * of_rows**1.5)
        return np.asarray(np.maximum(skewed, 2 * stdtr(all_df, -np.abs(z))))


def _skewed_p(z: Floats, skew: Floats) -> Floats:
    """Two-sided p of a standardised sum of known skewness: Pearson's type III curve (gamma)."""
    from scipy.special import gammainc, ndtr

    size = np.maximum(np.abs(skew), 1e-3)
    along = np.where(skew < 0, -z, z)
    shape = 4 / size**2
    x = np.maximum(0.0, shape + along * np.sqrt(shape))
    below = gammainc(shape, x)
    tail = np.minimum(below, 1 - below)
    return np.asarray(np.minimum(1.0, 2 * np.where(np.abs(skew) > 1e-3, tail, ndtr(-np.abs(z)))))


def seed_variances(right: Floats, cuts: Sequence[Cut]) -> Floats:
    """What seeds add to the variance of one method's differences, (J,) over all slices.

    The spread of the seeds' differences over S, less what single rows explain of it; no less than
    its mean over all slices, since of few seeds it is badly known. Degrees of freedom: S - 1.
    """
    seeds = len(right)
    if seeds == 1:
        return np.zeros(sum(len(c.inside) for c in cuts))
    own = np.concatenate([_own_seed_variances(right[:, c.known], c) for c in cuts])
    own = np.where(np.isfinite(own), own, 0.0)
    return np.asarray(np.maximum(0.0, np.maximum(own, own.mean())))


def _own_seed_variances(values: Floats, cut: Cut) -> Floats:
    inside = cut.inside[:, cut.known].T.astype(np.float64)
    answered = np.isfinite(values)
    some, filled = answered.astype(np.float64), np.where(answered, values, 0.0)
    within, rows_within = filled @ inside, some @ inside
    without = filled.sum(axis=1, keepdims=True) - within
    rows_without = some.sum(axis=1, keepdims=True) - rows_within
    with np.errstate(invalid="ignore", divide="ignore"):
        gaps = within / rows_within - without / rows_without
        weights = 1 / rows_within + 1 / rows_without
    gaps[~np.isfinite(weights)] = weights[~np.isfinite(weights)] = np.nan
    of_one = _rest_variance(values) if answered.all() else float(np.nanvar(values))
    spread = _variance_by_column(gaps) - of_one * _mean_by_column(weights)
    return np.asarray(spread / len(values))


def _rest_variance(values: Floats) -> float:
    """Variance of a seed on a row beyond both: residuals of row and seed means of (S, n)."""
    left = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    df = max(1, (len(values) - 1) * (values.shape[1] - 1))
    return float((left**2).sum() / df)


def _mean_by_column(values: Floats) -> Floats:
    some = np.isfinite(values)
    count = some.sum(axis=0)
    total = np.where(some, values, 0.0).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _variance_by_column(values: Floats) -> Floats:
    """With count - 1 below; NaN of fewer than two."""
    some = np.isfinite(values)
    count = some.sum(axis=0)
    squares = np.where(some, values - _mean_by_column(values), 0.0) ** 2
    return np.asarray(np.where(count > 1, squares.sum(axis=0) / np.maximum(count - 1, 1), np.nan))


def _dealt_p(parts: Sequence[_CutTest], rows: int) -> Floats:
    """Approximate p of every slice of every method on deals of the rows, (deals, M J)."""
    methods = len(parts[0].centred)
    cost = rows * methods * sum(len(p.weights) for p in parts)
    deals = int(np.clip(MOST_NUMBERS // max(cost, 1), LEAST_DEALS, DEALS))
    # The same study names the same slices, and other studies are dealt otherwise: the seed is made
    # of what dealing leaves as it is.
    spread = float(sum(p.variances.sum() for p in parts))
    rng = np.random.default_rng([rows, methods, int(1e9 * spread)])
    at_once = max(1, min(deals, 4_000_000 // (rows * methods)))
    out = []
    for start in range(0, deals, at_once):
        keys = rng.random((min(at_once, deals - start), rows))
        dealt = {}  # the same deal for every cut, as far as they know the same rows
        for part in parts:
            known = part.known.tobytes()
            if known not in dealt:
                dealt[known] = part.centred[:, np.argsort(keys[:, part.known], axis=1)]
        p = [part.p_of(part.differences(dealt[part.known.tobytes()])) for part in parts]
        out.append(np.concatenate(p, axis=2).transpose(1, 0, 2).reshape(len(keys), -1))
    return np.concatenate(out)


def _step_down(observed: Floats, dealt: Floats) -> Floats:
    """Westfall and Young's adjusted p (algorithm 2.8): of observed (m,) among dealt (b, m)."""
    order = np.argsort(observed, kind="stable")
    least = np.minimum.accumulate(dealt[:, order][:, ::-1], axis=1)[:, ::-1]
    adjusted = (1 + (least <= observed[order]).sum(axis=0)) / (len(dealt) + 1)
    out = np.empty(len(observed))
    out[order] = np.maximum.accumulate(adjusted)
    return out
