"""Rows that belong together, kept in one part when rows are divided.

Rows of one author, document or thread, where a column says so: what is learnt of one is known of
the others. And rows whose texts are alike: a text that stands twice, nearly twice, or in another
one would be learnt in one part and tested in another. So rows that the gate calls alike
(`duplicates`) form a group, also where only a chain of texts connects them, and a group is dealt
out as a whole.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from tunelab.core.values import Split
from tunelab.data import duplicates

__all__ = [
    "dealt_in_groups",
    "group_numbers",
    "groups_of",
    "prefix_of_groups",
]


Ints = NDArray[np.int64]


def group_numbers(rows: Split, column: str) -> Ints:
    """A number for each row, the same for rows with one value in a column: (n,).

    A row without a value is a group of its own.
    """
    known: dict[object, int] = {}
    values = rows.columns.get(column, (None,) * len(rows))
    own = ((i,) if v is None else str(v) for i, v in enumerate(values))
    return np.array([known.setdefault(v, len(known)) for v in own], dtype=np.int64)


def groups_of(rows: Split, most: int, column: str | None = None) -> Ints:
    """A number for each row, the same for rows that are alike: (n,).

    Rows of more than `most` in a group, such as a template that every tenth text follows, are alone
    again: no part could hold them. With `column` its groups stay whole in any case, and those that
    rows which are alike connect are one, up to `most` rows.
    """
    group = _connected(rows.texts, rows.divided_by.tobytes())
    alone = np.arange(len(group))
    if column is not None:
        alone = group_numbers(rows, column)
        group = _joined_groups(group, alone)
    sizes = np.bincount(group, minlength=1)
    too_large = sizes[group] > most
    group = np.where(too_large, len(sizes) + alone, group)
    return np.asarray(np.unique(group, return_inverse=True)[1], dtype=np.int64)


def _joined_groups(a: Ints, b: Ints) -> Ints:
    """Groups that a chain of rows connects which share a group of the one or of the other, (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = int(a.max()) + 1
    n = first + int(b.max()) + 1
    links = coo_array((np.ones(len(a)), (a, first + b)), shape=(n, n))
    return np.asarray(connected_components(links, directed=False)[1][a], dtype=np.int64)


@functools.lru_cache(maxsize=2)  # of a study all folds ask the same
def _connected(texts: tuple[str, ...], labels: bytes) -> Ints:
    """The groups that a chain of texts that are alike connects, (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    twins = duplicates.find_twins(texts, np.frombuffer(labels, dtype=np.int64))
    n, (a, b) = len(twins.first), twins.pairs.T
    links = coo_array((np.ones(len(a)), (a, b)), shape=(n, n))
    component = connected_components(links, directed=False)[1]
    return np.asarray(component[twins.group], dtype=np.int64)


def dealt_in_groups(by_class: Ints, labels: Ints, group: Ints, parts: int) -> Ints:
    """The part of each row, (n,): groups stay whole, and parts are as even in every class as they
    leave it.

    `by_class` is an order of the rows, class by class, shuffled. The largest groups are dealt
    first, each to the part that has least of its classes; rows that are alone then fill up.
    """
    sizes, of_class = np.bincount(group), np.bincount(labels)
    has = np.zeros((parts, len(of_class)), dtype=np.int64)
    number = np.full(len(labels), -1, dtype=np.int64)
    shuffled = by_class[sizes[group[by_class]] > 1]
    firsts = shuffled[np.sort(np.unique(group[shuffled], return_index=True)[1])]
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    for first in sorted(firsts.tolist(), key=lambda i: -int(sizes[group[i]])):
        rows = members[group[first]]
        mine = np.bincount(labels[rows], minlength=len(of_class))
        load = has @ (mine / np.maximum(of_class, 1))
        part = np.lexsort((has.sum(axis=1), load))[0]
        number[rows] = part
        has[part] += mine
    for c in range(len(of_class)):
        alone = by_class[(labels[by_class] == c) & (number[by_class] < 0)]
        number[alone] = _fill_up(has[:, c], has.sum(axis=1), len(alone))
        has[:, c] += np.bincount(number[alone], minlength=parts)
    return number


def _fill_up(has: Ints, total: Ints, rows: int) -> Ints:
    """The parts that so many rows of a class go to: always one with the fewest, (rows,)."""
    top = max(int(has.max()), -(-(int(has.sum()) + rows) // len(has))) + 1
    free = top - has
    part = np.repeat(np.arange(len(has)), free)
    level = np.concatenate([np.arange(h, top) for h in has])
    return np.asarray(part[np.lexsort((part, total[part], level))[:rows]], dtype=np.int64)


def prefix_of_groups(order: Ints, group: Ints, n: int) -> tuple[Ints, Ints]:
    """The first `n` rows of an order and the rest, groups whole: a few rows more where one ends
    later.
    """
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    first = np.full(int(group.max()) + 1, len(order))
    np.minimum.at(first, group, place)
    together = np.lexsort((place, first[group]))
    n = int(np.searchsorted(first[group[together]], first[group[together[n - 1]]], side="right"))
    return together[:n], together[n:]
