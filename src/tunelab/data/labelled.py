"""A table with what a classifier says of its texts: the columns that `predict` adds to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.cells import six_digits
from tunelab.core.words import free_name

__all__ = ["labelled_columns"]


def labelled_columns(
    columns: Mapping[str, list[Any]],
    label_names: Sequence[str],
    probabilities: NDArray[np.float64] | None,
    *,
    every_class: bool = False,
    moved_by: Sequence[str] | None = None,
    labels: Sequence[str | None] | None = None,
) -> dict[str, list[Any]]:
    """Columns of n values with label and probability added, and with that of `every_class`.

    `probabilities`: (n, n_classes). None: nothing was computed, columns of the same types.
    `moved_by`: of each text the words that moved its label, where that was asked. `labels`: what
    each is called where that is not its likeliest class; None: nothing.
    """
    n = len(next(iter(columns.values()), []))
    said, top, each = [""] * n, [0.0] * n, [[0.0] * n for _ in label_names]
    if probabilities is not None:
        best = probabilities.argmax(axis=1)
        given = [label_names[k] for k in best] if labels is None else labels
        said = [label or "" for label in given]
        top = [six_digits(p[k]) for p, k in zip(probabilities, best, strict=True)]
        each = [[six_digits(v) for v in column] for column in probabilities.T]
    added = dict(columns)
    added[free_name("predicted_label", added, "{}_{}")] = said
    added[free_name("probability", added, "{}_{}")] = top
    if every_class:
        for name, column in zip(label_names, each, strict=True):
            added[free_name(f"probability_{name}", added, "{}_{}")] = column
    if moved_by is not None:
        added[free_name("moved_by", added, "{}_{}")] = list(moved_by)
    return added
