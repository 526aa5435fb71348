"""What a student learns from: a teacher's probabilities, and true labels where there are any.

The loss of a row (Hinton et al. 2015), with the student's logits z, the teacher's v, the label y:

    share * CE(y, softmax(z)) + (1 - share) * T^2 * CE(softmax(v / T), softmax(z / T))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SoftTargets",
]


@dataclass(frozen=True, slots=True, eq=False)
class SoftTargets:
    """`labels` (n,); `teacher` (n, n_classes): softmax(v / T), with the `temperature` T; `share`
    (n,) of the label's part in the loss, 0 of a row whose label nobody knows.
    """

    labels: NDArray[np.int64]
    teacher: NDArray[np.float64]
    temperature: float
    share: NDArray[np.float64]

    @classmethod
    def of_labels(cls, labels: NDArray[np.int64], classes: int) -> SoftTargets:
        """Labels alone."""
        return cls(labels, np.zeros((len(labels), classes)), 1.0, np.ones(len(labels)))

    def gradient(self, logits: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of each row's loss by its logits, (b, n_classes)."""
        from scipy.special import softmax

        hard = softmax(logits, axis=1)
        hard[np.arange(len(rows)), self.labels[rows]] -= 1
        soft = softmax(logits / self.temperature, axis=1) - self.teacher[rows]
        share = self.share[rows, None]
        return np.asarray(share * hard + (1 - share) * self.temperature * soft)

    def row_losses(self, logits: Any, rows: NDArray[np.int64], hard: Any) -> Any:
        """Losses (b,) of torch, from logits (b, n_classes) and cross-entropies `hard` (b,)."""
        import torch

        def there(values: NDArray[np.float64]) -> Any:
            return torch.from_numpy(values).to(logits.device, logits.dtype)

        share, t = there(self.share[rows]), self.temperature
        told = torch.log_softmax(logits / t, dim=1)
        soft = -(there(self.teacher[rows]) * told).sum(dim=1)
        return share * hard + (1 - share) * t**2 * soft
