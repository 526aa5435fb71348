"""What is wrong with the data, before anything is trained on it. Door: `inspect` -> `Gate`.

values        what a check sees and finds
doubts        doubtful labels: a ranked list, and how much of it is wrong at least
leaks         texts of one part in another, or of other data
"""

from __future__ import annotations

from tunelab.data.gate.checks import CHECKS, inspect
from tunelab.data.gate.values import Example, Finding, Gate, RowRef

__all__ = ["CHECKS", "Example", "Finding", "Gate", "RowRef", "inspect"]
