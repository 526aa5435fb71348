"""Is a method right as often as it is sure? Bins, the calibration error, its interval, a band.

The plain expected calibration error (Guo et al. 2017) counts the luck of the labels as error: a
perfectly calibrated classifier has 4 to 5 points of it on 300 rows. Here the mean square distance
between confidence and accuracy over bins is estimated without that bias, from products of two
*different* rows of a bin (Brocker 2012, "Estimating reliability and resolution of probability
forecasts through decomposition of the empirical score"; Kumar, Liang and Ma 2019, "Verified
uncertainty calibration"), and its root is what is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunelab.core.values import Estimate, Predictions
from tunelab.core.words import counted
from tunelab.stats.crossed import LEVEL, t_quantile
from tunelab.stats.predictions import Floats, check_predictions, probabilities

__all__ = [
    "LEAST_JUDGED_MISTAKES",
    "LEAST_JUDGED_ROWS",
    "Miscalibration",
    "ReliabilityBin",
    "calibration_error",
    "consistency_band",
    "miscalibration",
    "reliability",
    "resampled_errors",
]

CALIBRATION_BINS = 15  # of equal width, in the chart
ERROR_BINS = 10  # of equally many rows, in the error; fewer where a bin had less than ten
# With fewer rows, or fewer mistakes, no error that matters could be told from none, and bins of a
# few rows are not nearly normal.
LEAST_JUDGED_ROWS, LEAST_JUDGED_MISTAKES = 150, 5
LABEL_DRAWS, LEAST_DRAWS = 1000, 200  # of labels from the stated probabilities
MOST_DRAWN_LABELS = 50_000_000  # of very many rows there are fewer draws
# Found by simulation (benchmarks/_claims_calibration.py). Of few rows, seeds look less alike than
# they are, since each has bins of its own: so far on the way to seeds that repeat each other.
_LESS_UNLIKE = 0.25
_MOST_LOG = 3.0  # of the factor by which a few seeds may understate the square error, its logarithm
LABEL_SEED = 0  # the same study gives the same answer


# --- bins of equal width, for the eye -----------------------------------------------------------


class ReliabilityBin(NamedTuple):
    """One bin (low, high] of top-class confidence: `n` rows, their mean confidence and accuracy.

    `confidence` and `accuracy` are None where the bin is empty.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def reliability(
    predictions: Predictions, bins: int = CALIBRATION_BINS
) -> tuple[ReliabilityBin, ...]:
    """Equal-width bins of confidence for a calibration plot (Guo et al. 2017, section 2).

    Raises UndefinedMetricError for margins.
    """
    confidence, right = _confidence_and_right(predictions)
    edges = np.linspace(0, 1, bins + 1)
    which = _bin_of(confidence, bins)
    n = np.bincount(which, minlength=bins)
    confidences = np.bincount(which, weights=confidence, minlength=bins)
    hits = np.bincount(which, weights=right, minlength=bins)
    return tuple(
        ReliabilityBin(
            float(edges[i]),
            float(edges[i + 1]),
            int(n[i]),
            float(confidences[i] / n[i]) if n[i] else None,
            float(hits[i] / n[i]) if n[i] else None,
        )
        for i in range(bins)
    )


def _confidence_and_right(predictions: Predictions) -> tuple[Floats, NDArray[np.bool_]]:
    """The probability of the class said, and whether it is the true one, (n,) each."""
    check_predictions(predictions)
    p = probabilities(predictions.scores, predictions.score_kind)
    return p.max(axis=1), predictions.predicted == predictions.labels


def _bin_of(confidence: Floats, bins: int) -> NDArray[np.int64]:
    # Right-closed bins, so that full confidence belongs to the last one.
    bin_of_each = np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="left") - 1
    return np.asarray(np.clip(bin_of_each, 0, bins - 1), dtype=np.int64)


def consistency_band(
    parts: Sequence[Predictions], level: float = LEVEL
) -> tuple[tuple[float, float] | None, ...]:
    """Where the accuracy of each bin of `reliability` would lie if all were calibrated.

    `parts` are one method's seeds, taken together as in a chart. Labels are drawn from the stated
    probabilities (Brocker and Smith 2007, "Increasing the reliability of reliability diagrams");
    seeds that state the same are right on the same rows. None where a bin is empty.
    """
    confidences = [_confidence_and_right(p)[0] for p in parts]
    groups = [_indicator(_bin_of(c, CALIBRATION_BINS), CALIBRATION_BINS) for c in confidences]
    n = np.sum([g.sum(axis=0) for g in groups], axis=0)
    hits = np.concatenate(
        [
            np.sum([right @ g for right, g in zip(drawn, groups, strict=True)], axis=0)
            for drawn in _labels_if_calibrated(parts, confidences)
        ]
    )
    ends = np.quantile(hits, [(1 - level) / 2, (1 + level) / 2], axis=0) / np.maximum(n, 1)
    return tuple(
        (float(low), float(high)) if k else None for low, high, k in zip(*ends, n, strict=True)
    )


def _indicator(which: NDArray[np.int64], bins: int) -> Floats:
    """1 where a row is in a bin, (n, bins)."""
    return np.asarray(np.eye(bins)[which])


def _labels_if_calibrated(
    parts: Sequence[Predictions], confidences: Sequence[Floats]
) -> Iterator[list[Floats]]:
    """Some draws at a time: for each part, who is right if it says the truth, (draws, n).

    A row has the same luck with every seed. How seeds depend on each other cannot be read from what
    they state; if they depend most, their mean varies most, which is the cautious end.
    """
    rows = _places_of_rows(parts)
    every = 1 + max(int(r.max()) for r in rows)
    rng = np.random.default_rng(LABEL_SEED)
    draws = int(np.clip(MOST_DRAWN_LABELS // (every * len(parts)), LEAST_DRAWS, LABEL_DRAWS))
    at_once = max(1, min(draws, 2_000_000 // every))
    for start in range(0, draws, at_once):
        luck = rng.random((min(at_once, draws - start), every))
        yield [(luck[:, r] < c).astype(np.float64) for r, c in zip(rows, confidences, strict=True)]


def _places_of_rows(parts: Sequence[Predictions]) -> list[NDArray[np.int64]]:
    """Where each part's rows stand among the rows of all, by id; seeds may have other rows."""
    if all(p.ids == parts[0].ids for p in parts):
        return [np.arange(len(p.labels)) for p in parts]
    place = {i: k for k, i in enumerate(dict.fromkeys(i for p in parts for i in p.ids))}
    return [np.array([place[i] for i in p.ids]) for p in parts]


# --- the error, without the luck of the labels ----------------------------------------------


def calibration_error(predictions: Predictions) -> float:
    """Root of the mean square distance between confidence and accuracy, unbiased before the root.

    In [0, 1], of the top class, over ten bins of equally many rows (fewer of under 100 rows): sum
    over bins of n_b / n times the mean of g_i g_j over pairs of rows i != j of the bin, where g is
    1 (right) or 0 less the confidence (Brocker 2012; Kumar, Liang and Ma 2019, section 4). 0 where
    that is below 0: no error beyond the luck of the labels is seen. Raises UndefinedMetricError for
    margins.
    """
    return math.sqrt(max(0.0, _squared_error(_judge(predictions))))


def resampled_errors(predictions: Predictions, times: Floats) -> Floats:
    """`calibration_error` on resamples: rows counted `times` (n, b) -> (b,); bins stay.

    A row that was drawn twice makes no pair with itself.
    """
    j = _judge(predictions)
    n, sums, squares, count = (
        times.sum(axis=0),
        *(
            j.groups.T @ (v[:, None] * w)
            for v, w in ((j.gaps, times), (j.gaps**2, times**2), (np.ones(len(j.gaps)), times))
        ),
    )
    own = j.groups.T @ times**2
    pairs = count**2 - own
    square = np.divide(sums**2 - squares, pairs, out=np.zeros_like(sums), where=pairs > 0)
    return np.asarray(np.sqrt(np.maximum(0.0, (count / n * square).sum(axis=0))))


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """One seed: `gaps` (n,) right less confidence, `groups` (n, B) who is in which bin."""

    confidence: Floats
    gaps: Floats
    groups: Floats

    @property
    def sizes(self) -> Floats:
        return np.asarray(self.groups.sum(axis=0))


def _judge(predictions: Predictions) -> _Judged:
    confidence, right = _confidence_and_right(predictions)
    bins = int(np.clip(len(confidence) // ERROR_BINS, 1, ERROR_BINS))
    inner = np.quantile(confidence, np.arange(1, bins) / bins)
    # Rows that are equally sure stay together.
    which = np.unique(
        np.searchsorted(np.unique(inner), confidence, side="left"), return_inverse=True
    )[1]
    groups = _indicator(which, int(which.max()) + 1)
    return _Judged(confidence, right - confidence, groups)


def _squared_error(j: _Judged) -> float:
    return float(
        _squared_errors(j.gaps[None, :] @ j.groups, j.gaps[None, :] ** 2 @ j.groups, j.sizes)[0]
    )


def _squared_errors(sums: Floats, squares: Floats, sizes: Floats) -> Floats:
    """From sums and sums of squares of gaps by bin, (..., B), and sizes (B,): (...,)."""
    pairs = np.maximum(sizes * (sizes - 1), 1)
    return np.asarray(((sums**2 - squares) / pairs) @ sizes / sizes.sum())


# --- its interval, and whether there is any -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Miscalibration:
    """How far a method's confidence is off: `error`, root mean square over rows and seeds.

    `p_value`: of no error at all with these seeds, labels drawn from the stated probabilities.
    `shown`: p is at most (1 - level) / 2, the error of these seeds is more than luck. The interval
    begins at 0 where it is not; of few seeds that differ, which may say little of others, it may
    too where it is. `reason` where there are too few rows or mistakes to tell: `error` then has no
    interval and nothing is shown.
    """

    error: Estimate
    p_value: float | None
    shown: bool
    rows: int
    reason: str | None = None


def miscalibration(parts: Sequence[Predictions], level: float = LEVEL) -> Miscalibration:
    """The calibration error of one method's seeds, with its interval for other rows and seeds.

    The square error is a sum of squares of nearly normal bin means; its three cumulants at each
    true value give its quantiles (Pearson's three-moment approximation to a noncentral chi-square,
    1959), and the interval holds the values that do not rule out what was seen: so it may begin at
    0, where the error is no longer normal. What seeds add is added as squares of distances (Zou and
    Donner 2008). With one seed the interval is for other rows alone. Raises UndefinedMetricError
    for margins.
    """
    judged = [_judge(p) for p in parts]
    squared = [_squared_error(j) for j in judged]
    value = math.sqrt(max(0.0, float(np.mean(squared))))
    rows = len({i for p in parts for i in p.ids}) or len(parts[0].labels)
    # Of all rows once: seeds may test the same rows, or each a fold of them.
    wrong = np.concatenate([~p.right for p in parts])
    mistakes = float(wrong.mean() * rows)
    if rows < LEAST_JUDGED_ROWS or mistakes < LEAST_JUDGED_MISTAKES:
        reason = (
            f"{counted(rows, 'row')} with {counted(round(mistakes), 'mistake')}: at least "
            f"{LEAST_JUDGED_ROWS} and {LEAST_JUDGED_MISTAKES} are needed to judge calibration"
        )
        unknown = Estimate(value, None, None, len(parts), reason)
        return Miscalibration(unknown, None, False, rows, reason)
    p_value = _p_if_calibrated(parts, judged, float(np.mean(squared)))
    low, high = _limits_of_error(parts, judged, level)
    alpha = (1 - level) / 2
    if p_value > alpha:
        low = 0.0
    over = f"root mean square over {counted(len(parts), 'seed')} and {counted(rows, 'row')}"
    error = Estimate(value, math.sqrt(max(0.0, low)), math.sqrt(max(0.0, high)), len(parts), over)
    return Miscalibration(error, p_value, p_value <= alpha, rows)


def _p_if_calibrated(
    parts: Sequence[Predictions], judged: Sequence[_Judged], observed: float
) -> float:
    above = total = 0
    for drawn in _labels_if_calibrated(parts, [j.confidence for j in judged]):
        errors = np.mean(
            [
                _squared_errors(gaps @ j.groups, gaps**2 @ j.groups, j.sizes)
                for j, right in zip(judged, drawn, strict=True)
                for gaps in [right - j.confidence]
            ],
            axis=0,
        )
        above += int((errors >= observed).sum())
        total += len(errors)
    return (1 + above) / (1 + total)


@dataclass(frozen=True, slots=True)
class _Noise:
    """What the luck of the rows does to the square error, mean over seeds, and of one seed.

    `trace2`, `trace3`: traces of powers of the covariance V of the bin means (each as their square
    enters the error); `along`: M'VM / M'M, the variance in the direction of the true error M.
    """

    trace2: float
    trace3: float
    along: float

    def towards(self, other: _Noise, share: float) -> _Noise:
        """So far on the way to another."""
        return _Noise(
            self.trace2 + share * (other.trace2 - self.trace2),
            self.trace3 + share * (other.trace3 - self.trace3),
            self.along + share * (other.along - self.along),
        )

    def limits(self, observed: float, level: float) -> tuple[float, float]:
        """The true values that do not rule out what was observed, each side at (1 - level) / 2."""
        alpha = (1 - level) / 2
        sd = math.sqrt(self.variance(0.0))
        # An error far below what luck gives of none says no more than one a little below.
        seen = max(observed, -sd)
        top = max(seen, 0.0) + 10 * math.sqrt(self.variance(max(seen, 0.0))) + 10 * sd
        low = 0.0
        if self.above(observed, 0.0) < alpha:
            low = _crossing(lambda true: self.above(observed, true) - alpha, 0.0, top)
        if self.above(seen, 0.0) > 1 - alpha:
            return low, 0.0
        return low, _crossing(lambda true: self.above(seen, true) - 1 + alpha, 0.0, top)

    def above(self, observed: float, true: float) -> float:
        """P(square error >= observed) at a true value."""
        from scipy.special import gammaincc

        k2 = self.variance(true)
        k3 = 8 * self.trace3 + 24 * true * self.along**2
        shape = 4 * k2**3 / k3**2
        x = shape + (observed - true) / math.sqrt(k2) * math.sqrt(shape)
        return float(gammaincc(shape, max(0.0, x)))

    def variance(self, true: float) -> float:
        """Of the square error, at a true value."""
        return 2 * self.trace2 + 4 * true * self.along


def _noise_of(parts: Sequence[Predictions], judged: Sequence[_Judged]) -> _Noise:
    """Read from the rows' own gaps; the spread of a bin leans on what the method states."""
    places = _places_of_rows(parts)
    rows, seeds = 1 + max(int(p.max()) for p in places), len(judged)
    spreads, pull, uneven = [], np.zeros(rows), 0.0
    for j, place in zip(judged, places, strict=True):
        n, size = len(j.gaps), j.sizes
        mean = j.gaps @ j.groups / size
        moved = np.zeros((rows, len(size)))
        moved[place] = (j.gaps[:, None] - mean) * j.groups / np.sqrt(n * np.maximum(size - 1, 1))
        spreads.append(moved)
        pull += moved @ (mean * np.sqrt(size / n)) / seeds
        # Rows of bins that are farther off could have been more, or fewer.
        square = mean**2
        uneven += float((square - square @ size / n) ** 2 @ size) / n**2 / seeds
    own = [float(((g.T @ g) ** 2).sum()) for g in spreads]
    both = sum(float(((g.T @ h) ** 2).sum()) for g in spreads for h in spreads) / seeds**2
    alike = both / max(float(np.mean(own)), 1e-300)  # 1: seeds repeat each other; 1/S: they do not
    variances = [_bin_variances(j) for j in judged]
    traces = [
        alike ** (k - 1) * float(np.mean([(v**k).sum() for v in variances])) for k in (1, 2, 3)
    ]
    error = max(0.0, float(np.mean([_squared_error(j) for j in judged])))
    weight, even = math.sqrt(2 * traces[1]), traces[1] / traces[0]
    seen = max(0.0, float(pull @ pull) - both) + uneven / 4
    # A bin that is right by luck looks farther off and less spread at once; of few rows that hides
    # a part of the variance (a quarter of 15 rows a bin, in simulations).
    seen *= 1 + 4 / float(np.mean([j.sizes.mean() for j in judged]))
    return _Noise(traces[1], traces[2], (seen + weight * even) / (error + weight))


def _bin_variances(j: _Judged) -> Floats:
    """Variance of each bin's part of the error, (B,); what is stated counts as two rows."""
    stated = (j.confidence * (1 - j.confidence)) @ j.groups / j.sizes
    left = j.gaps**2 @ j.groups - (j.gaps @ j.groups) ** 2 / j.sizes
    return np.asarray((left + 2 * stated) / (j.sizes + 1) / len(j.gaps))


def _limits_of_error(
    parts: Sequence[Predictions], judged: Sequence[_Judged], level: float
) -> tuple[float, float]:
    """Interval (low, high) of the square error; low is 0 where no error is not ruled out."""
    squared = np.array([_squared_error(j) for j in judged])
    observed, seeds = float(squared.mean()), len(squared)
    noise = _noise_of(parts, judged)
    if seeds == 1:
        return noise.limits(observed, level)
    each = [_noise_of([p], [j]) for p, j in zip(parts, judged, strict=True)]
    alone = _Noise(*(float(x) for x in np.mean([(n.trace2, n.trace3, n.along) for n in each], 0)))
    noise = noise.towards(alone, _LESS_UNLIKE)
    low, high = noise.limits(observed, level)
    seen = max(0.0, observed)
    unshared = max(0.0, alone.variance(seen) - noise.variance(seen)) / (seeds - 1)
    of_seeds = max(0.0, float(squared.var(ddof=1)) / seeds - unshared)
    half = t_quantile(level, seeds - 1) * math.sqrt(of_seeds)
    if low > 0:
        low = max(0.0, observed - math.hypot(observed - low, half))
    # A few seeds that happen to be alike are far from one that is far off: upward it is a factor.
    more = max(half, seen * math.expm1(min(half / seen, _MOST_LOG))) if seen > 0 else half
    return low, observed + math.hypot(high - observed, more)


def _crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that rises from below 0 is 0."""
    from scipy.optimize import brentq

    return float(brentq(function, low, high, xtol=1e-12)) if function(high) > 0 else high
