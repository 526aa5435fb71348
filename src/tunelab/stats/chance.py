"""How likely it is that one method is better than another by more than a margin.

A verdict answers "is there a difference?"; who must decide asks "how likely is it that I gain by
this one?". The answer needs a belief of how far apart methods usually are: here that their true
values scatter normally around a common one, with a spread that is not known but learnt from the
study itself, starting from what is usual: 1.2 points, give or take a factor of 2.7 (log-normal).
Differences are shrunk by that, as in a hierarchical model (Gelman, Hill & Yajima 2012; Benavoli et
al. 2017 for classifiers). docs/statistics.md shows how often what is called 80% likely is true.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tunelab.stats.resampling import Floats

__all__ = ["chances_of_more"]

USUAL_SPREAD = 0.012  # of methods' true scores, a metric in [0, 1]
LOG_WIDTH = 1.0  # of the belief about that spread, as the sd of its logarithm
_GRID = USUAL_SPREAD * np.geomspace(0.05, 10, 40)


def chances_of_more(
    means: Floats,
    covariance: Floats,
    pairs: Sequence[tuple[int, int]],
    dfs: Sequence[float],
    margin: float,
) -> list[float]:
    """For each pair (a, b), the probability that the true a - b is above `margin`.

    `means` (M,) are the methods' scores in [0, 1], higher is better; `covariance` (M, M) is what
    seeds and rows do to them; `dfs` the degrees of freedom of each pair's difference.
    """
    from scipy.special import stdtr

    total = np.zeros(len(pairs))
    weights = _weights(means, covariance)
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    for spread, weight in zip(_GRID, weights, strict=True):
        shrunk, left = _posterior(means, covariance, spread)
        variance = np.maximum(left[a, a] + left[b, b] - 2 * left[a, b], 1e-18)
        t = (shrunk[a] - shrunk[b] - margin) / np.sqrt(variance)
        total += weight * stdtr(np.asarray(dfs), t)
    return [float(x) for x in total]


def _weights(means: Floats, covariance: Floats) -> Floats:
    """How likely each spread of the grid is, given the means: (grid,), summing to one.

    The common value is unknown (a flat prior), so only contrasts of the means speak.
    """
    size = len(means)
    contrasts = np.eye(size)[1:] - np.eye(size)[:1]
    seen = contrasts @ means
    logs = np.empty(len(_GRID))
    for k, spread in enumerate(_GRID):
        v = contrasts @ (covariance + spread**2 * np.eye(size)) @ contrasts.T
        v += 1e-15 * np.eye(size - 1)
        _, log_determinant = np.linalg.slogdet(v)
        # The grid is geometric, so that the density is that of the logarithm.
        prior = -((math.log(spread / USUAL_SPREAD) / LOG_WIDTH) ** 2) / 2
        logs[k] = prior - (log_determinant + seen @ np.linalg.solve(v, seen)) / 2
    likely = np.exp(logs - logs.max())
    return np.asarray(likely / likely.sum())


def _posterior(means: Floats, covariance: Floats, spread: float) -> tuple[Floats, Floats]:
    """Means and covariance (M, M) of the true values, given how far methods are apart."""
    size = len(means)
    inverse = np.linalg.inv(covariance + spread**2 * np.eye(size))
    ones = np.ones(size)
    common = float(ones @ inverse @ means / (ones @ inverse @ ones))
    pull = spread**2 * inverse
    shrunk = common + pull @ (means - common)
    # What is not known of the common value moves all alike, and so no difference but by the pull.
    lever = ones - pull @ ones
    left = spread**2 * (np.eye(size) - pull) + np.outer(lever, lever) / (ones @ inverse @ ones)
    return shrunk, left
