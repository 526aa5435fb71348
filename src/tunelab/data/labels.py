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

from tunelab.core.errors import DataError, suggest
from tunelab.core.values import DataSpec, Split
from tunelab.core.words import check_unicode, is_nan, kind_of, listed, rows_word, short
from tunelab.data.alike import alike_groups, joined_names, said_of_group
from tunelab.data.kinds import said_of_numbers
from tunelab.data.table import Table

__all__ = [
    "CLASS_LIMIT",
    "NUMBER",
    "WHOLE_FLOAT",
    "LabelColumn",
    "LabelSet",
    "LabelledRows",
    "declared_names",
    "encode_labels",
    "label_keys",
    "label_name",
    "never_in_train",
    "ordered_names",
    "refuse_no_scale",
]

LabelSet = tuple[str, ...]  # the labels of a row that may have several
CLASS_LIMIT = 1_000
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
# What programs write for no value; a label of this name is mostly none.
MISSING_WORDS = frozenset(
    ("nan", "NaN", "NA", "N/A", "n/a", "<NA>", "#N/A", "NULL", "null", "None"),
)
WHOLE_FLOAT = re.compile(r"(?P<whole>[+-]?[0-9]+)\.0+")


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Rows of one part: ids, texts, label names as read (None: no label; several labels a text: a
    tuple of names), and other columns.
    """

    ids: list[str]
    texts: list[str]
    labels: list[str | LabelSet | None]
    columns: dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """The column of the labels, and the class names that its files declare (ClassLabel)."""

    name: str
    declared: tuple[str, ...]


def label_keys(table: Table, column: str, broken: dict[int, str] | None = None) -> list[str | None]:
    """Labels as names: ints "3", whole floats "3", bools "True", ClassLabel by name; None: none.

    `broken` takes what is wrong with values that are no class, as for texts (`texts_of_column`).
    """
    names = table.class_names.get(column)
    convert = _label_key if names is None else lambda v: label_name(v, names)
    known: dict[tuple[type, Any], str | None] = {}  # by type: 1, 1.0 and True are equal keys
    keys: list[str | None] = []
    first: DataError | None = None
    for i, value in enumerate(table.get(column)):
        try:
            key = (type(value), value)
            if key not in known:
                known[key] = convert(value)
                if isinstance(value, str):
                    check_unicode(value, f"{table.name}: {table.at(i)}, column {column!r}")
            keys.append(known[key])
        except (TypeError, ValueError) as error:
            said = error if isinstance(error, DataError) else _no_class(table, i, column, error)
            if broken is None:
                raise said from error
            first = first or said
            broken.setdefault(i, f"with a label that is no class in column {column!r}")
            keys.append(None)
    if first is not None and broken is not None and len(broken) > len(keys) / 2:
        raise first
    return keys


def _no_class(table: Table, row: int, column: str, error: Exception) -> DataError:
    value = table.get(column)[row]
    cause = str(error) if isinstance(error, _NotAClassError) else kind_of(value)
    more = " Several labels a text are read with --task multilabel."
    return DataError(
        f"{table.name}: column {column!r} holds {cause} ({table.at(row)}: "
        f"{short(repr(value), 40)}), expected one class a row: a string, a whole number, "
        f"or true / false. Choose another with --label-column."
        f"{more if isinstance(value, list) else ''}"
    )


class _NotAClassError(ValueError):
    """A label that is no class; its message says what it is."""


_NOT_WHOLE = "numbers that are not whole (to predict a quantity, regression, is not supported)"


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


def label_name(value: Any, names: tuple[str, ...] | None) -> str | None:
    """A value as a label's name, by the names that its file declares where it does; None: none.

    Raises ValueError and TypeError for what is no label.
    """
    if names is None:
        return _label_key(value)
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
    column: LabelColumn,
    notes: list[str],
    spec: DataSpec,
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Label names in order, and the parts with labels that index them.

    Labels that look alike are joined, and classes left out, as `spec` says.
    """
    declared = column.declared
    counts = {
        part: Counter(k for k in rows.labels if isinstance(k, str)) for part, rows in parts.items()
    }
    labels = set().union(*counts.values())
    if not declared:
        _refuse_other_kinds(name, column.name, counts, notes)
    rename = {} if declared else _stripped(labels, notes)
    if not declared:
        whole = _whole_numbers(name, column.name, {rename.get(k, k) for k in labels})
        rename = {k: whole.get(rename.get(k, k), rename.get(k, k)) for k in labels}
    counts = {p: _renamed(c, rename) for p, c in counts.items()}
    alike = _alike(counts, notes, join=spec.join_labels)
    rename = {k: alike.get(rename.get(k, k), rename.get(k, k)) for k in labels}
    counts = {p: _renamed(c, alike) for p, c in counts.items()}
    left_out = _left_out(name, counts, spec, notes)
    counts = {
        p: Counter({k: n for k, n in c.items() if k not in left_out}) for p, c in counts.items()
    }
    names = ordered_names(set().union(*counts.values()), declared)
    for label in MISSING_WORDS.intersection(names).difference(declared):
        n = sum(c[label] for c in counts.values())
        notes.append(
            f"label {label!r} ({rows_word(n)}) looks like a missing value and is taken as a "
            "class: if it is none, add --drop-classes with its name"
        )
    _refuse_unusable_classes(name, column.name, names, counts)
    unused = [n for n in declared if n not in names and n not in left_out]
    if unused:
        notes.append(f"class names that no row has are left out: {listed(unused)}")
    index = {n: i for i, n in enumerate(names)}
    splits = {}
    for part, rows in parts.items():
        final = [rename.get(k, k) for k in rows.labels if isinstance(k, str)]
        kept = [i for i, k in enumerate(final) if k not in left_out]
        splits[part] = Split(
            tuple(rows.ids[i] for i in kept),
            tuple(rows.texts[i] for i in kept),
            np.asarray([index[final[i]] for i in kept], dtype=np.int64),
            {c: tuple(values[i] for i in kept) for c, values in rows.columns.items()},
        )
    return names, splits


def _refuse_other_kinds(
    name: str, column: str, counts: Mapping[str, Counter[str]], notes: list[str]
) -> None:
    """Raise DataError for labels that are a quantity; say where they may be one."""
    total: Counter[str] = Counter()
    for some in counts.values():
        total.update(some)
    said = said_of_numbers(name, column, total)
    if said is not None:
        notes.append(said)


def _alike(counts: Mapping[str, Counter[str]], notes: list[str], *, join: bool) -> dict[str, str]:
    """One name for labels that look alike, where they are to be joined; else they are said."""
    total: Counter[str] = Counter()
    for some in counts.values():
        total.update(some)
    one_name = joined_names(total)
    for group in alike_groups(total):
        said = said_of_group(group, total)
        notes.append(
            f"labels that look alike are one, {one_name[group[0]]!r}: {said}"
            if join
            else f"labels that look alike are kept apart: {said}; if they are one, add "
            "--join-labels"
        )
    return one_name if join else {}


def _left_out(
    name: str, counts: Mapping[str, Counter[str]], spec: DataSpec, notes: list[str]
) -> set[str]:
    """Classes whose rows are left out: named by the user, or of too few training rows."""
    everywhere = set().union(*counts.values())
    named = set(spec.drop_classes or ())
    for unknown in sorted(named - everywhere):
        raise DataError(
            f"{name}: no class {unknown!r} (--drop-classes)."
            f"{suggest(unknown, sorted(everywhere), what='Classes')}"
        )
    least = spec.min_rows_per_class or 0
    rare = {k for k in everywhere - named if counts["train"][k] < least}
    for classes, why in ((named, "as asked"), (rare, f"fewer than {least} training rows each")):
        if classes:
            n = sum(c[k] for c in counts.values() for k in classes)
            notes.append(
                f"left out {_classes_word(len(classes))} with {rows_word(n)} ({why}): "
                f"{listed(sorted(classes))}"
            )
    if not everywhere - named - rare:
        raise DataError(
            f"{name}: no class is left: all have {'been left out' if named else 'too few rows'}. "
            "Choose others with --drop-classes, or a smaller --min-rows-per-class."
        )
    return named | rare


def _classes_word(n: int) -> str:
    """A count of classes: `1 class`, `12 classes`."""
    return "1 class" if n == 1 else f"{n:,} classes"


def never_in_train(
    names: Sequence[str], counts: Mapping[str, Counter[str]]
) -> tuple[str, list[str]] | None:
    """The first part with labels that no training row has, and these; None: each is learnt."""
    for part in ("validation", "test"):
        strange = [n for n in names if n in counts.get(part, {}) and n not in counts["train"]]
        if strange:
            return part, strange
    return None


def _refuse_unusable_classes(
    name: str, column: str, names: Sequence[str], counts: Mapping[str, Counter[str]]
) -> None:
    """Raise DataError where classes are too many, too few, or not among the training rows."""
    if len(names) > CLASS_LIMIT:
        raise DataError(
            f"{name}: column {column!r} has {len(names):,} classes, expected at most "
            f"{CLASS_LIMIT:,}: almost surely the wrong column. Choose one with --label-column."
        )
    if alien := never_in_train(names, counts):
        part, strange = alien
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


def ordered_names(names: set[str], declared: tuple[str, ...]) -> tuple[str, ...]:
    """Declared order first; the rest as numbers where all are numbers, else as strings."""
    rest = names - set(declared)
    numeric = all(NUMBER.fullmatch(n) for n in rest)
    later = sorted(rest, key=lambda n: (Decimal(n), n)) if numeric else sorted(rest)
    return (*(n for n in declared if n in names), *later)


def refuse_no_scale(name: str, column: str, names: Sequence[str], declared: Sequence[str]) -> None:
    """Raise DataError for classes that are no scale: fewer than three, or of no known order."""
    if len(names) < 3:
        raise DataError(
            f"{name}: column {column!r} has {len(names)} classes, expected a scale of three or "
            "more (--task ordinal). Leave the task out for classes."
        )
    words = [n for n in names if not NUMBER.fullmatch(n)]
    if words and not declared:
        raise DataError(
            f"{name}: column {column!r} holds {words[0]!r}, whose place on a scale is not known. "
            "Expected numbers, such as 1 to 5: write a number for each (--task ordinal)."
        )


def _groups(names: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    out: dict[str, list[str]] = {}
    for name in names:
        out.setdefault(key(name), []).append(name)
    return list(out.values())
