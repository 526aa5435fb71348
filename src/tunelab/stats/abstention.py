"""When a classifier had better not answer: a threshold of confidence that keeps a stated error.

Split conformal prediction (Vovk et al. 2005; Angelopoulos et al. 2024 of losses that fall as the
threshold rises): with k validation rows that were labelled wrongly above the threshold, of n, a new
text like them is answered wrongly with a probability of (k + 1) / (n + 1) at most, whatever the
model and the texts are. The error is of all texts, not of those that are answered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Abstention",
    "NoThresholdError",
    "abstention_from_json",
    "abstention_of",
]


class NoThresholdError(Exception):
    """A threshold cannot be given; the message says why."""


@dataclass(frozen=True, slots=True)
class Abstention:
    """What is known of confidences: of `rows` validation rows, those of the ones that were labelled
    wrongly (`wrong`, the highest first). A confidence is the label's probability in [0, 1].
    """

    rows: int
    wrong: tuple[float, ...]

    def threshold(self, error: float) -> float:
        """Answers above this confidence are wrong for at most this share of all texts.

        0 where all may be answered. Raises NoThresholdError where rows are too few to promise it.
        """
        if not 0 < error < 1:
            raise NoThresholdError(f"expected an error between 0 and 1, found {error}")
        # Of n + 1 rows in any order, the new one is among the k + 1 worst as often as any other.
        allowed = math.floor(error * (self.rows + 1) + 1e-9) - 1
        if allowed < 0:
            raise NoThresholdError(
                f"an error of {error:g} takes {math.ceil(1 / error - 1e-9) - 1:,} validation rows, "
                f"found {self.rows:,}"
            )
        return self.wrong[allowed] if allowed < len(self.wrong) else 0.0

    def answers(self, probabilities: NDArray[np.float64], error: float) -> NDArray[np.bool_]:
        """Which rows of probabilities (n, n_classes) are answered, (n,)."""
        answered: NDArray[np.bool_] = probabilities.max(axis=1) > self.threshold(error)
        return answered


def abstention_of(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> Abstention:
    """From validation rows: probabilities (n, n_classes), and which class each is of, (n,)."""
    wrong = probabilities.argmax(axis=1) != labels
    confidences = np.sort(probabilities.max(axis=1)[wrong])[::-1]
    return Abstention(len(labels), tuple(float(c) for c in confidences))


def abstention_from_json(value: object) -> Abstention:
    """What `dataclasses.asdict` wrote. Raises ValueError for anything else."""
    said = value if isinstance(value, Mapping) else {}
    rows, wrong = said.get("rows"), said.get("wrong")
    if not isinstance(rows, int) or not isinstance(wrong, list) or not len(wrong) <= rows:
        raise ValueError("expected rows, and the confidences of those labelled wrongly")
    if not all(isinstance(c, int | float) and 0 <= c <= 1 for c in wrong):
        raise ValueError("expected confidences from 0 to 1")
    return Abstention(rows, tuple(sorted(map(float, wrong), reverse=True)))
