"""Several labels a text: lists, texts with a separator, or a column of 0 and 1 for each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tunelab.core.errors import DataError, suggest
from tunelab.core.tasks import Labels, TaskName, label_words
from tunelab.core.values import Dataset, DataSpec, Split
from tunelab.core.words import counted, is_nan, kind_of, listed, rows_word, short
from tunelab.data.alike import alike_groups, joined_names, said_of_group
from tunelab.data.columns import choose_columns, choose_flags
from tunelab.data.kinds import separator_of, without_brackets
from tunelab.data.labels import (
    CLASS_LIMIT,
    LabelledRows,
    LabelSet,
    label_keys,
    label_name,
    never_in_train,
    ordered_names,
)
from tunelab.data.table import Table

__all__ = [
    "LabelReading",
    "as_several",
    "combinations_as_classes",
    "encode_label_sets",
    "label_keys_of_rows",
    "label_matrix",
    "read_columns",
    "refuse_strange_labels",
]


@dataclass(frozen=True, slots=True)
class LabelReading:
    """How labels are read: what `task` they are of, from which `columns`, one, or one a label.

    `separator`: what stands between labels in a cell, None where a cell is a list or one label.
    """

    task: TaskName
    columns: tuple[str, ...]
    separator: str | None = None

    @property
    def shown(self) -> str:
        """What messages and the data card call the label column."""
        return self.columns[0] if len(self.columns) == 1 else ", ".join(self.columns)


# --- which columns, and what they are -------------------------------------------------------


def read_columns(
    parts: Mapping[str, Sequence[Table]], spec: DataSpec
) -> tuple[str, LabelReading, str]:
    """The text column, how labels are read, and the sentence that says so.

    What is not named is guessed: `columns.choose_columns`; lists of labels, written in any way, are
    several labels a text. Raises DataError where that leaves nothing, or too much.
    """
    _refuse_contradicting_keys(spec)
    first = next(iter(parts.values()))[0]
    flags = choose_flags(first, spec)
    if flags is not None:
        text, columns, said = flags
        guessed = (
            ""
            if spec.label_columns
            else " (guessed: all columns of 0 and 1; --label-columns names them, --label-column "
            "takes one as the class)"
        )
        return text, LabelReading("multilabel", columns), said + guessed
    text, label, said = choose_columns(first, spec.text_column, spec.label_column)
    tables = [t for some in parts.values() for t in some if label in t.columns]
    reading = _reading_of_column(tables, label, spec)
    if reading.task == "multilabel":
        asked = spec.task or spec.label_separator
        how = "as asked" if asked else "guessed"
        if reading.separator and not asked:
            how += ": --task classes takes each set of them as one class"
        by = f", with {reading.separator!r} between them" if reading.separator else ""
        said += f"; several labels a text{by} ({how})"
    return text, reading, said


def _refuse_contradicting_keys(spec: DataSpec) -> None:
    several = {
        "--label-separator": spec.label_separator,
        "--label-columns": spec.label_columns,
    }
    given = [flag for flag, value in several.items() if value is not None]
    if spec.task in ("classes", "ordinal") and given:
        raise DataError(f"{given[0]} reads several labels a text, and the task is {spec.task}.")
    if len(given) == 2:
        raise DataError("--label-separator reads one column, --label-columns several: give one.")
    if spec.label_columns is not None and spec.label_column is not None:
        raise DataError("--label-column and --label-columns: give one of them.")
    if spec.label_separator == "":
        raise DataError("--label-separator: expected what stands between labels, such as '|'.")


def _reading_of_column(tables: Sequence[Table], label: str, spec: DataSpec) -> LabelReading:
    if spec.task in ("classes", "ordinal"):
        return LabelReading(spec.task, (label,))
    if spec.label_separator is not None:
        return LabelReading("multilabel", (label,), spec.label_separator)
    values = [v for t in tables for v in t.get(label) if v is not None]
    lists = sum(isinstance(v, list | tuple) for v in values)
    if lists > len(values) / 2 or (lists and spec.task == "multilabel"):
        return LabelReading("multilabel", (label,))
    counts = Counter(v for v in values if isinstance(v, str) and v.strip())
    separator = separator_of(counts)
    if separator is None and spec.task != "multilabel":
        return LabelReading("classes", (label,))
    return LabelReading("multilabel", (label,), separator)


# --- the labels of rows ---------------------------------------------------------------------


def label_keys_of_rows(
    table: Table, reading: LabelReading, broken: dict[int, str] | None = None
) -> list[str | LabelSet | None]:
    """Each row's label, or its labels; None where it has no value. `broken`: as for texts.

    An empty list, an empty cell among others and zeros alone are texts with none of the labels.
    """
    if reading.task != "multilabel":
        return list(label_keys(table, reading.columns[0], broken))
    if len(reading.columns) > 1:
        rows = list(zip(*(table.get(c) for c in reading.columns), strict=True))
    else:
        rows = table.get(reading.columns[0])
    keys: list[str | LabelSet | None] = []
    first: DataError | None = None
    for i, value in enumerate(rows):
        try:
            keys.append(_set_of(value, table, reading))
        except ValueError as error:
            said = DataError(
                f"{table.name}: {reading.shown!r} holds {error} ({table.at(i)}: "
                f"{short(repr(value), 40)}). Choose others with --label-column or --label-columns."
            )
            if broken is None:
                raise said from error
            first = first or said
            broken.setdefault(i, f"with labels that are none in {reading.shown!r}")
            keys.append(None)
    if first is not None and broken is not None and len(broken) > len(keys) / 2:
        raise first
    return keys if any(keys) else [None] * len(keys)


def _set_of(value: Any, table: Table, reading: LabelReading) -> LabelSet | None:
    """The labels of one row; raises ValueError, which says what it holds."""
    if len(reading.columns) > 1:
        flags = [_flag(v) for v in value]
        known = any(f is not None for f in flags)
        labels = [c for c, flag in zip(reading.columns, flags, strict=True) if flag]
        return tuple(labels) if known else None
    names = table.class_names.get(reading.columns[0])
    if value is None or is_nan(value):
        return None
    if isinstance(value, str) and reading.separator is not None:
        parts = without_brackets(value).split(reading.separator)
        labels = [p for part in parts if (p := part.strip(" '\""))]
    elif isinstance(value, list | tuple):
        labels = [_label_in_list(v, names) for v in value]
    elif isinstance(value, str) and not value.strip():
        labels = []
    else:
        labels = [_label_in_list(value, names)]
    return tuple(dict.fromkeys(labels))


def _label_in_list(value: Any, names: tuple[str, ...] | None) -> str:
    try:
        name = label_name(value, names)
    except TypeError:
        name = None
    if name is None:
        raise ValueError(f"{kind_of(value)} among its labels, expected names")
    return name.strip()


_FLAG_OF_CELL = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def _flag(value: Any) -> bool | None:
    if value is None or value == "" or is_nan(value):
        return None
    flag = _FLAG_OF_CELL.get(str(value).strip().lower())
    if flag is None:
        raise ValueError(f"{short(repr(value), 20)}, expected 0 or 1 for each label")
    return flag


def label_matrix(sets: Sequence[LabelSet], names: Sequence[str]) -> Labels:
    """Ones where a row has a label, (n, n_labels); labels of none of these names are left out."""
    place = {name: k for k, name in enumerate(names)}
    out = np.zeros((len(sets), len(names)), dtype=np.int64)
    for i, labels in enumerate(sets):
        for label in labels:
            if label in place:
                out[i, place[label]] = 1
    return out


# --- from names to columns ------------------------------------------------------------------


def encode_label_sets(
    name: str,
    parts: Mapping[str, LabelledRows],
    reading: LabelReading,
    declared: tuple[str, ...],
    *,
    notes: list[str],
    spec: DataSpec,
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Label names in order, and the parts with ones and zeros for them.

    Labels that look alike are joined, and labels left out, as `spec` says: a row that loses one
    stays.
    """
    sets = {p: [k for k in rows.labels if isinstance(k, tuple)] for p, rows in parts.items()}
    total = Counter(label for some in sets.values() for labels in some for label in labels)
    joined = joined_names(total) if spec.join_labels else {}
    for group in alike_groups(total):
        said = said_of_group(group, total)
        notes.append(
            f"labels that look alike are one, {joined[group[0]]!r}: {said}"
            if joined
            else f"labels that look alike are kept apart: {said}; if they are one, add "
            "--join-labels"
        )
    sets = {
        p: [tuple(dict.fromkeys(joined.get(k, k) for k in labels)) for labels in some]
        for p, some in sets.items()
    }
    counts = {p: Counter(k for labels in some for k in labels) for p, some in sets.items()}
    names = _kept_names(name, reading, counts, declared, notes=notes, spec=spec)
    splits = {
        part: Split(
            tuple(rows.ids),
            tuple(rows.texts),
            label_matrix(sets[part], names),
            {c: tuple(values) for c, values in rows.columns.items()},
        )
        for part, rows in parts.items()
    }
    none = {p: int((s.labels.sum(axis=1) == 0).sum()) for p, s in splits.items()}
    if any(none.values()):
        notes.append(f"{rows_word(sum(none.values()))} with none of the labels")
    return names, splits


def _kept_names(
    name: str,
    reading: LabelReading,
    counts: Mapping[str, Counter[str]],
    declared: tuple[str, ...],
    *,
    notes: list[str],
    spec: DataSpec,
) -> tuple[str, ...]:
    everywhere = set().union(*counts.values())
    for unknown in sorted(set(spec.drop_classes or ()) - everywhere):
        raise DataError(
            f"{name}: no label {unknown!r} (--drop-classes)."
            f"{suggest(unknown, sorted(everywhere), what='Labels')}"
        )
    least = spec.min_rows_per_class or 0
    dropped = set(spec.drop_classes or ())
    rare = {k for k in everywhere - dropped if counts["train"][k] < least}
    for labels, why in ((dropped, "as asked"), (rare, f"fewer than {least} training rows each")):
        if labels:
            notes.append(
                f"left out {counted(len(labels), 'label')} ({why}; their rows stay): "
                f"{listed(sorted(labels))}"
            )
    # Columns that were named are labels even where few rows have them.
    columns = reading.columns if len(reading.columns) > 1 else ()
    names = ordered_names(everywhere - dropped - rare, declared or columns)
    if len(names) < 2:
        raise DataError(
            f"{name}: {counted(len(names), 'label')} in {reading.shown!r}, expected two or more. "
            "For one that a text has or has not, two classes are the task: --task classes."
        )
    if len(names) > CLASS_LIMIT:
        raise DataError(
            f"{name}: {len(names):,} labels in {reading.shown!r}, expected at most "
            f"{CLASS_LIMIT:,}. Leave rare ones out with --min-rows-per-class."
        )
    if alien := never_in_train(names, counts):
        part, strange = alien
        raise DataError(
            f"{name}: label {listed(strange)} stands in the {part} part and never in train. "
            "Correct it, add such rows to train, or leave it out with --drop-classes."
        )
    return names


def combinations_as_classes(dataset: Dataset) -> Dataset:
    """The same rows with each set of labels as one class, for what asks whether rows have the same
    labels; data of one class a text as they are.
    """
    if dataset.task != "multilabel":
        return dataset
    splits = dataset.parts
    rows = np.concatenate([s.labels for s in splits.values()])
    distinct, number = np.unique(rows, axis=0, return_inverse=True)
    names = tuple(label_words(row, dataset.label_names) for row in distinct)
    ends = np.cumsum([len(s) for s in splits.values()])[:-1]
    numbers = np.split(number.reshape(-1), ends)
    train, validation, test = (
        replace(split, labels=own.astype(np.int64))
        for split, own in zip(splits.values(), numbers, strict=True)
    )
    return replace(dataset, label_names=names, train=train, validation=validation, test=test)


def as_several(spec: DataSpec, task: TaskName) -> DataSpec:
    """How other data of a study of this task are read, where nothing else is said of them."""
    return spec if spec.task is not None else replace(spec, task=task)


def refuse_strange_labels(
    where: str, sets: Sequence[LabelSet], names: Sequence[str], spec: DataSpec, whose: str
) -> None:
    """Raise DataError for labels that are none of `names`, nor dropped."""
    known = {*names, *(spec.drop_classes or ())}
    strange = sorted({k for labels in sets for k in labels} - known)
    if strange:
        raise DataError(
            f"{where}: label {listed(strange)} is none of {whose}: {listed(list(names))}. Rename "
            "it, or leave it out (--drop-classes)."
        )
