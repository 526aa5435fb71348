"""How much a label of a text that has none would tell, by what several classifiers say of it.

Of the mean of their probabilities the entropy is what nobody knows of the label. Of that, the part
that each by itself does not doubt is their disagreement: what more labels can settle, where the
rest is in the text (Houlsby et al. 2011, "Bayesian active learning for classification", BALD).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Doubt", "doubt_of"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Doubt:
    """Of n texts: mean `probabilities` (n, n_classes), and in shares of the entropy of a class
    drawn at random, thus from 0 to 1, `uncertainty` (n,) and the part of it that is `disagreement`
    (n,).
    """

    probabilities: Floats
    uncertainty: Floats
    disagreement: Floats


def doubt_of(by_method: Mapping[str, Sequence[Floats]]) -> Doubt:
    """From probabilities (n, n_classes) of each method's classifiers: means over a method's seeds,
    then over methods, so that no method speaks twice.
    """
    means = np.stack([np.mean(of_seeds, axis=0) for of_seeds in by_method.values()])
    own = np.stack([_entropy(np.stack(s)).mean(axis=0) for s in by_method.values()])
    mean = means.mean(axis=0)
    most = np.log(mean.shape[1])
    total = _entropy(mean)
    return Doubt(mean, total / most, np.clip(total - own.mean(axis=0), 0.0, None) / most)


def _entropy(p: Floats) -> Floats:
    """Of probabilities (..., n_classes), in nats (...)."""
    return np.asarray(-(p * np.log(np.clip(p, 1e-12, None))).sum(axis=-1))
