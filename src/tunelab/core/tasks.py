"""What is predicted of a text: a class, one of a scale, or several labels. A row a task in TASKS.

Labels of n rows lie in one array: of classes (n,), a row's class; of several labels (n, k), one
where a row has the label and zero where it has not. What else is read of them stands here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "TASKS",
    "Labels",
    "LabelTask",
    "TaskName",
    "has_label",
    "label_counts",
    "label_sets",
    "label_words",
    "relabelled",
    "row_codes",
    "strata",
    "task_of_labels",
]

TaskName = Literal["classes", "multilabel", "ordinal"]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelTask:
    """A row of TASKS.

    `loss`: what a trained head minimises; `scores`: what its numbers are; `read`: how a prediction
    is read of them; `metric`: what a study is judged by where nothing else is asked for. A head has
    one output a class or label.
    """

    name: TaskName
    about: str
    loss: str
    scores: str
    read: str
    metric: str


TASKS: dict[TaskName, LabelTask] = {
    t.name: t
    for t in (
        LabelTask(
            "classes",
            "one class a text",
            "cross-entropy",
            "softmax over classes",
            "the most probable class",
            "accuracy",
        ),
        LabelTask(
            "multilabel",
            "several labels a text, or none",
            "binary cross-entropy of each label",
            "a sigmoid a label",
            "every label above its threshold",
            "f1_micro",
        ),
        LabelTask(
            "ordinal",
            "one class of a scale a text",
            "cross-entropy",
            "softmax over classes",
            "the most probable class",
            "quadratic_kappa",
        ),
    )
}


def task_of_labels(labels: Labels, ordered: bool) -> TaskName:
    """The task that labels of n rows are of: by their shape, and whether classes are `ordered`."""
    if labels.ndim == 2:
        return "multilabel"
    return "ordinal" if ordered else "classes"


def label_counts(labels: Labels, k: int) -> Labels:
    """How many rows have each class or label, (k,)."""
    if labels.ndim == 2:
        return np.asarray(labels.sum(axis=0), dtype=np.int64)
    return np.asarray(np.bincount(labels, minlength=k), dtype=np.int64)


def has_label(labels: Labels, c: int) -> NDArray[np.bool_]:
    """Which rows are of class `c`, or have that label, (n,)."""
    return np.asarray(labels == c if labels.ndim == 1 else labels[:, c] == 1)


def strata(labels: Labels) -> Labels:
    """A number for each row by which parts are divided evenly, (n,): its class; of several labels
    the rarest that it has, and one more for rows that have none.
    """
    if labels.ndim == 1:
        return labels
    k = labels.shape[1]
    order = np.argsort(labels.sum(axis=0), kind="stable")  # rarest first
    of_row = labels[:, order]
    rarest = order[of_row.argmax(axis=1)]
    return np.asarray(np.where(of_row.any(axis=1), rarest, k), dtype=np.int64)


def row_codes(labels: Labels) -> Labels:
    """A number for each row, the same wherever rows have the same labels, (n,)."""
    if labels.ndim == 1:
        return labels
    codes: dict[bytes, int] = {}
    out = np.empty(len(labels), dtype=np.int64)
    for i, row in enumerate(labels.astype(np.int8)):
        key = row.tobytes()
        if key not in codes:
            codes[key] = int.from_bytes(hashlib.sha256(key).digest()[:7], "big")
        out[i] = codes[key]
    return out


def relabelled(labels: Labels, names: Sequence[str], among: Sequence[str]) -> Labels:
    """Labels that index `names`, as they index `among`, which has all of these; -1 stays."""
    place = np.asarray([list(among).index(n) for n in names], dtype=np.int64)
    if labels.ndim == 1:
        return np.where(labels < 0, labels, place[labels])
    out = np.zeros((len(labels), len(among)), dtype=np.int64)
    out[:, place] = labels
    return out


def label_sets(labels: Labels, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The names of each row's classes or labels."""
    if labels.ndim == 1:
        return [(names[int(y)],) for y in labels]
    return [tuple(names[int(k)] for k in np.flatnonzero(row)) for row in labels]


def label_words(label: Any, names: Sequence[str]) -> str:
    """What one row's label is called: a class's name, several joined by |, or (none)."""
    if np.ndim(label) == 0:
        return names[int(label)]
    return " | ".join(names[int(k)] for k in np.flatnonzero(label)) or "(none)"
