"""Rows that two studies both tested, known by their content: what can be paired of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tunelab.core.study_folder import StudyRecord, read_rows
from tunelab.core.values import Predictions
from tunelab.core.words import counted
from tunelab.stats import Runs

__all__ = [
    "Keys",
    "keys_of_rows",
    "on_common_rows",
]

LEAST_COMMON_ROWS = 30  # with fewer, a difference is within ten points of anything

# Row id -> what the row is known by in both studies; None: by its id alone.
Keys = Mapping[str, object] | None


def keys_of_rows(a: StudyRecord, b: StudyRecord, part: str) -> tuple[Keys, Keys]:
    """What the rows of two studies are known by: of the same data their ids, of others text and
    label; of rows with the same content, the first are the same, the second, and so on.

    Raises ValueError, with the reason, where that cannot be known.
    """
    if a.data["fingerprint"] == b.data["fingerprint"]:
        return None, None
    if set(a.data["label_names"]) != set(b.data["label_names"]):
        raise ValueError("the two studies have different data, with other classes")
    return _by_content(a, part), _by_content(b, part)


def _by_content(record: StudyRecord, part: str) -> dict[str, object]:
    rows = read_rows(record.directory, part)
    if rows is None:
        raise ValueError(
            f"the two studies have different data, and {record.directory} did not keep its rows"
        )
    names, seen = record.data["label_names"], Counter[tuple[str, str]]()
    keys: dict[str, object] = {}
    for row, text, label in zip(rows.ids, rows.texts, rows.labels, strict=True):
        content = (text, names[label] if label >= 0 else "")
        keys[row] = (*content, seen[content])
        seen[content] += 1
    return keys


def on_common_rows(
    here: Runs, there: Runs, keys: tuple[Keys, Keys], classes: tuple[Sequence[str], Sequence[str]]
) -> tuple[Runs, Runs, str]:
    """Two studies' runs of a method on the rows that both tested with the same seed, and a note on
    which these are, "" where they are all. Rows and classes are named and ordered as `here`.

    Raises ValueError, with the reason, where too few rows are left.
    """
    seeds = [s for s in here.by_seed if s in there.by_seed]
    same = keys == (None, None) and all(here.by_seed[s].ids == there.by_seed[s].ids for s in seeds)
    if same or not seeds:  # without a common seed, whoever compares them says so
        return here, there, ""
    order = [list(classes[1]).index(name) for name in classes[0]]
    ours, theirs = {}, {}
    for seed in seeds:
        a, b = here.by_seed[seed], there.by_seed[seed]
        place = {_known_by(keys[1], row): i for i, row in enumerate(b.ids)}
        both = [
            (i, place[k]) for i, row in enumerate(a.ids) if (k := _known_by(keys[0], row)) in place
        ]
        if not both:
            continue
        mine, its = (np.array(x, dtype=np.int64) for x in zip(*both, strict=True))
        ours[seed] = _rows_of(a, mine, tuple(a.ids[i] for i in mine))
        labels = np.where(b.labels < 0, b.labels, np.argsort(order)[b.labels])
        own = replace(b, scores=b.scores[:, order], labels=labels)
        theirs[seed] = _rows_of(own, its, ours[seed].ids)
    common = {row for p in ours.values() for row in p.ids}
    if len(common) < LEAST_COMMON_ROWS:
        raise ValueError(
            f"only {len(common):,} test rows are the same" if common else "no test row is the same"
        )
    of_each = [len({row for s in seeds for row in r.by_seed[s].ids}) for r in (here, there)]
    note = f"Paired on the {counted(len(common), 'row')} that both tested with the same seed"
    all_same = of_each == [len(common)] * 2
    note += "" if all_same else f" (of {of_each[0]:,} here and {of_each[1]:,} there)"
    # Rows that both have are called as they are here.
    return replace(here, by_seed=ours), replace(there, by_seed=theirs, groups=here.groups), note


def _known_by(keys: Keys, row: str) -> object:
    """What a row is known by; a row that was not kept is like none of the other study's."""
    return row if keys is None else keys.get(row, object())


def _rows_of(p: Predictions, rows: NDArray[np.int64], ids: tuple[str, ...]) -> Predictions:
    return Predictions(ids, p.labels[rows], p.scores[rows], p.score_kind)
