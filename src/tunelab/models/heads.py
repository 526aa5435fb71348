"""What becomes of a head that a base brings: its rows go by the names of labels. Knows no torch.

A classifier's head is of use only for the labels that it was trained for, in whatever order the
data names them. For any others it would start from rows that say something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = [
    "LAST_LAYER",
    "labels_in",
    "note_of_head",
    "rows_by_name",
]


# The weight of a head's last layer, by the names that transformers' heads have.
LAST_LAYER = re.compile(
    r"(^|\.)(classifier|score|classification_head|logits_proj)(\.out_proj)?\.weight$"
)


def labels_in(config: Mapping[str, object]) -> tuple[str, ...] | None:
    """The label names that a config.json says, in the order of a head's rows; None for none."""
    numbered = _numbers_to_names(config.get("id2label"))
    if not numbered:
        turned = config.get("label2id")
        if isinstance(turned, Mapping) and all(isinstance(v, int | str) for v in turned.values()):
            numbered = _numbers_to_names({v: k for k, v in turned.items()})
    if not numbered or sorted(numbered) != list(range(len(numbered))):
        return None
    return tuple(numbered[i] for i in range(len(numbered)))


def _numbers_to_names(said: object) -> dict[int, str]:
    if not isinstance(said, Mapping):
        return {}
    try:
        return {int(k): str(v) for k, v in said.items()}
    except (TypeError, ValueError):
        return {}


def rows_by_name(
    config: Mapping[str, object], label_names: Sequence[str]
) -> tuple[int, ...] | None:
    """For each label, which row of the base's head is its own; None where they are other labels.

    Names are equal also where they differ in nothing but capitals and outer blanks.
    """
    there = labels_in(config)
    for like in (str, lambda name: str(name).strip().casefold()):
        ours = [like(n) for n in label_names]
        theirs = [like(n) for n in there or ()]
        if len(set(theirs)) == len(theirs) and sorted(ours) == sorted(theirs):
            return tuple(theirs.index(n) for n in ours)
    return None


def note_of_head(
    config: Mapping[str, object], shapes: Mapping[str, Sequence[int]], label_names: Sequence[str]
) -> str | None:
    """In words, what becomes of the head in a base's files (`shapes` by tensor); None for none."""
    if not any(LAST_LAYER.search(n) for n in shapes):
        return None
    rows = rows_by_name(config, label_names)
    if rows is None:
        theirs = labels_in(config)
        named = f"for {_some(theirs)}" if theirs else "for labels that its config does not name"
        return f"The base's head is {named}, not for these labels: its last layer starts anew"
    order = "" if rows == tuple(range(len(rows))) else ", whose order is another there"
    return f"The base brings a head for these labels: training starts from it, row by name{order}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
