"""Which classes are taken for which: counts over all seeds of a method, the worst pairs first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.analysis.verdict import Summary
from tunelab.core.study_folder import StudyRecord
from tunelab.core.words import counted, told_apart

__all__ = [
    "ConfusedPair",
    "confused_pairs",
    "confusion_sums",
    "confusions_in_words",
]

MOST_TOLD = 3


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Rows of the class `true` that a method says are `predicted`, over all its seeds: so many
    `rows`, and their `share` of all rows of the true class.
    """

    true: str
    predicted: str
    rows: int
    share: float


def confusion_sums(record: StudyRecord, split: str) -> dict[str, NDArray[np.int64]]:
    """Confusion matrices (true by predicted) of a part, summed over seeds, by method."""
    sums: dict[str, NDArray[np.int64]] = {}
    for r in record.done:
        matrix = (r.details.confusion or {}).get(split)
        if matrix is not None and r.spec.method.label in record.methods:
            label = r.spec.method.label
            counts = np.asarray(matrix, dtype=np.int64)
            sums[label] = sums[label] + counts if label in sums else counts
    return sums


def confused_pairs(matrix: NDArray[np.int64], names: Sequence[str]) -> tuple[ConfusedPair, ...]:
    """Every pair of classes that is confused at all, those of most rows first."""
    of_class = np.maximum(matrix.sum(axis=1), 1)
    pairs = [
        ConfusedPair(names[i], names[j], int(matrix[i, j]), float(matrix[i, j] / of_class[i]))
        for i, j in np.argwhere(matrix)
        if i != j
    ]
    return tuple(sorted(pairs, key=lambda p: (-p.rows, -p.share, p.true, p.predicted)))


def confusions_in_words(record: StudyRecord, summary: Summary) -> str | None:
    """The worst pairs of the best method, in a sentence; None with two classes, or without any."""
    names = told_apart(record.data["label_names"])
    matrix = confusion_sums(record, summary.split).get(str(summary.best))
    pairs = () if matrix is None or len(names) < 3 else confused_pairs(matrix, names)
    if not pairs:
        return None
    worst = "; ".join(
        f"{100 * p.share:.0f}% of {p.true!r} for {p.predicted!r}" for p in pairs[:MOST_TOLD]
    )
    rest = f" ({counted(len(pairs), 'pair')} of {len(names)} classes in report.html)"
    return f"{summary.best} most often takes {worst}{rest if len(pairs) > MOST_TOLD else ''}"
