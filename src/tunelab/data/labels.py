"""From a column of labels to classes: which values are one class, and in what order."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from tunelab.core.errors import DataError
from tunelab.core.values import Split
from tunelab.core.words import check_unicode, is_nan, kind_of, listed, rows_word, short
from tunelab.data.table import Table

__all__ = [
    "NUMBER",
    "WHOLE_FLOAT",
    "LabelledRows",
    "declared_names",
    "encode_labels",
    "label_keys",
]

CLASS_LIMIT = 1_000
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
# What programs write for no value; a label of this name is mostly none.
MISSING_WORDS = frozenset(
    ("nan", "NaN", "NA", "N/A", "n/a", "<NA>", "#N/A", "NULL", "null", "None"),
)
WHOLE_FLOAT = re.compile(r"(?P<whole>[+-]?[0-9]+)\.0+")


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Rows of one part: ids, texts, label names as read (None: no label), and other columns."""

    ids: list[str]
    texts: list[str]
    labels: list[str | None]
    columns: dict[str, list[Any]]


def label_keys(table: Table, column: str) -> list[str | None]:
    """Labels as names: ints "3", whole floats "3", bools "True", ClassLabel by name; None: none."""
    names = table.class_names.get(column)
    convert = _label_key if names is None else lambda v: _class_name(v, names)
    known: dict[tuple[type, Any], str | None] = {}  # by type: 1, 1.0 and True are equal keys
    keys = []
    for i, value in enumerate(table.get(column)):
        try:
            key = (type(value), value)
            if key not in known:
                known[key] = convert(value)
            keys.append(known[key])
        except (TypeError, ValueError) as error:
            cause = str(error) if isinstance(error, _NotAClassError) else kind_of(value)
            raise DataError(
                f"{table.name}: column {column!r} holds {cause} ({table.at(i)}: "
                f"{short(repr(value), 40)}), expected one class a row: a string, a whole number, "
                "or true / false. Choose another with --label-column."
            ) from error
    for name in known.values():
        if name is not None:
            check_unicode(name, f"{table.name}: column {column!r}")
    return keys


class _NotAClassError(ValueError):
    """A label that is no class; its message says what it is."""


_NOT_WHOLE = "numbers that are not whole (a regression target?)"


def _label_key(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()) or is_nan(value):
        return None
    if isinstance(value, str | bool | int):
        return str(value)
    if isinstance(value, float | Decimal):
        if not math.isfinite(value) or value != int(value):
            raise _NotAClassError(_NOT_WHOLE)
        return str(int(value))
    raise TypeError


def _class_name(value: Any, names: tuple[str, ...]) -> str | None:
    if value is None or value == -1:
        return None
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    if value in names:
        return str(value)
    raise _NotAClassError(f"a value outside its {len(names)} class names")


# --- labels ---------------------------------------------------------------------------------


def declared_names(parts: Mapping[str, Sequence[Table]], column: str) -> tuple[str, ...]:
    """ClassLabel names of all tables, in order, each once."""
    return tuple(
        dict.fromkeys(
            name
            for tables in parts.values()
            for table in tables
            for name in table.class_names.get(column, ())
        )
    )


def encode_labels(
    name: str,
    parts: Mapping[str, LabelledRows],
    declared: tuple[str, ...],
    column: str,
    notes: list[str],
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Label names in order, and the parts with labels that index them."""
    counts = {
        part: Counter(k for k in rows.labels if k is not None) for part, rows in parts.items()
    }
    labels = set().union(*counts.values())
    rename = {} if declared else _stripped(labels, notes)
    if not declared:
        whole = _whole_numbers(name, column, {rename.get(k, k) for k in labels})
        rename = {k: whole.get(rename.get(k, k), rename.get(k, k)) for k in labels}
    counts = {p: _renamed(c, rename) for p, c in counts.items()}
    names = _ordered_names(set().union(*counts.values()), declared)
    for label in MISSING_WORDS.intersection(names).difference(declared):
        n = sum(c[label] for c in counts.values())
        notes.append(
            f"label {label!r} ({rows_word(n)}) looks like a missing value and is taken as a "
            "class: if it is none, leave such cells empty and add --on-bad-rows drop"
        )
    _refuse_unusable_classes(name, column, names, counts)
    unused = [n for n in declared if n not in names]
    if unused:
        notes.append(f"class names that no row has are left out: {listed(unused)}")
    alike = [g for g in _groups(names, lambda n: n.strip().casefold()) if len(g) > 1]
    if alike:
        notes.append(
            f"labels that differ only in case are kept apart: {listed(alike[0])}; if they are one, "
            "write them alike"
        )
    index = {n: i for i, n in enumerate(names)}
    splits = {}
    for part, rows in parts.items():
        codes = [index[rename.get(k, k)] for k in rows.labels if k is not None]
        splits[part] = Split(
            tuple(rows.ids),
            tuple(rows.texts),
            np.asarray(codes, dtype=np.int64),
            {c: tuple(values) for c, values in rows.columns.items()},
        )
    return names, splits


def _refuse_unusable_classes(
    name: str, column: str, names: Sequence[str], counts: Mapping[str, Counter[str]]
) -> None:
    """Raise DataError where classes are too many, too few, or not among the training rows."""
    if len(names) > CLASS_LIMIT:
        raise DataError(
            f"{name}: column {column!r} has {len(names):,} classes, expected at most "
            f"{CLASS_LIMIT:,}: almost surely the wrong column. Choose one with --label-column."
        )
    for part in ("validation", "test"):
        strange = [n for n in names if n in counts.get(part, {}) and n not in counts["train"]]
        if strange:
            raise DataError(
                f"{name}: label {listed(strange)} stands in the {part} part and never in train. "
                "Expected the same classes: correct the label, or add such rows to train."
            )
    if len(names) < 2:
        raise DataError(
            f"{name}: every row has the label {names[0]!r} (column {column!r}), expected at least "
            "two classes. Choose another column with --label-column, or add rows."
        )


def _renamed(counts: Counter[str], rename: Mapping[str, str]) -> Counter[str]:
    out: Counter[str] = Counter()
    for name, n in counts.items():
        out[rename.get(name, name)] += n
    return out


def _stripped(labels: Iterable[str], notes: list[str]) -> dict[str, str]:
    """Renames "good " to "good" where both are there; a blank alone is part of a label's name."""
    groups = [sorted(g) for g in _groups(sorted(labels), str.strip) if len(g) > 1]
    if groups:
        notes.append(
            f"labels that differ only in the blanks around them are one: {listed(groups[0])}"
        )
    return {n: n.strip() for g in groups for n in g}


def _whole_numbers(name: str, column: str, labels: Iterable[str]) -> dict[str, str]:
    """Renames "1.0" to "1" where all labels are numbers. Raises where one is not whole."""
    labels = list(labels)
    if not all(NUMBER.fullmatch(k) for k in labels):
        return {}
    rename = {}
    for key in labels:
        whole = WHOLE_FLOAT.fullmatch(key)
        if whole:
            rename[key] = whole["whole"]
        elif "." in key:
            raise DataError(
                f"{name}: column {column!r} holds {_NOT_WHOLE}, such as {key}. Expected classes: "
                "whole numbers or names. Choose another with --label-column."
            )
    return rename


def _ordered_names(names: set[str], declared: tuple[str, ...]) -> tuple[str, ...]:
    """Declared order first; the rest as numbers where all are numbers, else as strings."""
    rest = names - set(declared)
    numeric = all(NUMBER.fullmatch(n) for n in rest)
    later = sorted(rest, key=lambda n: (Decimal(n), n)) if numeric else sorted(rest)
    return (*(n for n in declared if n in names), *later)


def _groups(names: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    out: dict[str, list[str]] = {}
    for name in names:
        out.setdefault(key(name), []).append(name)
    return list(out.values())
