"""Weights of several classifiers' probabilities, by validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LEAST_WEIGHT",
    "mixed",
    "mixing_weights",
]

# A member that counts for less is left out: it would cost as much as any other.
LEAST_WEIGHT = 0.01
_STEPS = 500


def mixing_weights(
    probabilities: Sequence[NDArray[np.float64]], labels: NDArray[np.int64]
) -> tuple[float, ...]:
    """The shares, which sum to one, whose mixture gives the labels the largest likelihood.

    `probabilities`: of each member, (n, n_classes); rows sum to one. Expectation maximisation from
    equal shares (Dempster, Laird and Rubin 1977); the likelihood has one maximum.
    """
    of_truth = np.stack([p[np.arange(len(labels)), labels] for p in probabilities], axis=1)
    of_truth = np.maximum(of_truth, np.finfo(np.float64).tiny)
    shares = np.full(len(probabilities), 1 / len(probabilities))
    for _ in range(_STEPS):
        owed = of_truth * shares
        shares = (owed / owed.sum(axis=1, keepdims=True)).mean(axis=0)
    shares = np.where(shares < LEAST_WEIGHT, 0.0, shares)
    return tuple((shares / shares.sum()).tolist())


def mixed(
    probabilities: Sequence[NDArray[np.float64]], weights: Sequence[float]
) -> NDArray[np.float64]:
    """The mixture (n, n_classes) of members' probabilities."""
    return np.asarray(sum(w * p for w, p in zip(weights, probabilities, strict=True)))
