"""From a `DataSpec` to a checked Dataset: a source of `SOURCES`, labels, parts, duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunelab.core.errors import DataError
from tunelab.core.tasks import TaskName, row_codes
from tunelab.core.values import Dataset, DataSpec, Split
from tunelab.core.words import listed, rows_word
from tunelab.data import duplicates
from tunelab.data.alike import looks
from tunelab.data.card import count_duplicates, fingerprint_of
from tunelab.data.columns import check_group_column, choose_id_column
from tunelab.data.corrections import corrected_parts, corrections_in_words, read_corrections
from tunelab.data.labels import (
    WHOLE_FLOAT,
    LabelColumn,
    LabelledRows,
    declared_names,
    encode_labels,
    refuse_no_scale,
)
from tunelab.data.rows import rows_of_part, without_unlabelled
from tunelab.data.sent import read_source
from tunelab.data.several import (
    LabelReading,
    as_several,
    encode_label_sets,
    label_matrix,
    read_columns,
    refuse_strange_labels,
)
from tunelab.data.sources import Source
from tunelab.data.split import (
    check_groups_of_rows,
    said_of_shared_groups,
    subset_of_train,
    three_parts,
    train_without_leaks,
)

__all__ = [
    "OtherData",
    "load",
    "load_every_row",
    "load_other",
]


# --- the main path --------------------------------------------------------------------------


def load(spec: DataSpec) -> Dataset:
    """Read labelled texts, check them, and give train, validation and test parts.

    Texts and label names are kept exactly as they are. Label names that are all whole numbers are
    sorted as numbers, others as strings; a ClassLabel keeps its order. A missing test or
    validation part is split off, stratified, by `split_seed`; `subset` then takes rows of the
    train part alone, after `on_leak`. `corrections` change labels after the division into parts,
    so that no row changes its part. Everything decided for the user stands in `notes`. Row ids
    are `stem:number`, the number as a reader of the file counts it (lines of a text file, rows
    from 1 of others).

    Raises DataError, one line, for whatever cannot be used.
    """
    if spec.on_bad_rows not in ("fail", "drop"):
        raise DataError(f"on_bad_rows is {spec.on_bad_rows!r}, expected 'fail' or 'drop'.")
    if spec.on_leak not in ("warn", "drop", "fail"):
        raise DataError(f"on_leak is {spec.on_leak!r}, expected 'warn', 'drop' or 'fail'.")
    source = read_source(spec)
    notes = list(source.notes)
    first = next(iter(source.parts.values()))[0]
    text_column, reading, said = read_columns(source.parts, spec)
    taken = (text_column, *reading.columns)
    id_column, named = choose_id_column(first, spec.id_column, taken)
    grouped = check_group_column(first, spec.group_column, taken)
    notes.append("; ".join(filter(None, (said, named, grouped))))

    parts = {}
    for part, tables in source.parts.items():
        parts[part] = rows_of_part(part, tables, (text_column, reading), spec, notes)
    rows = without_unlabelled(source.name, parts, reading.shown, notes)
    label_names, splits = _encoded(source, rows, reading, notes, spec)
    check_groups_of_rows(source.name, splits, spec.group_column)
    split_off = tuple(part for part in ("test", "validation") if part not in splits)
    splits = three_parts(source.name, splits, label_names, spec, notes)
    notes.extend(said_of_shared_groups(splits, spec))
    corrected = None
    if spec.corrections is not None:
        corrections = read_corrections(spec.corrections)
        splits, corrected = corrected_parts(corrections, splits, label_names, id_column)
        notes.append(corrections_in_words(corrected))
    if spec.on_leak != "warn":
        splits["train"] = train_without_leaks(source.name, splits, len(label_names), spec, notes)
    splits["train"] = subset_of_train(splits["train"], label_names, spec, notes)
    return Dataset(
        name=source.name,
        revision=source.revision,
        label_names=label_names,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        fingerprint=fingerprint_of(label_names, splits, spec.group_column),
        text_column=text_column,
        label_column=reading.shown,
        notes=tuple(notes),
        duplicates=count_duplicates(splits),
        split_off=split_off,
        id_column=id_column,
        corrected=corrected,
        group_column=spec.group_column,
    )


def _encoded(
    source: Source,
    rows: Mapping[str, LabelledRows],
    reading: LabelReading,
    notes: list[str],
    spec: DataSpec,
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Label names, and the parts with labels by number, as the task has them."""
    declared = declared_names(source.parts, reading.columns[0])
    if reading.task == "multilabel":
        if spec.corrections is not None:
            raise DataError(
                f"{source.name}: its texts have several labels, and --corrections puts one class a "
                "text right. Correct the data themselves."
            )
        return encode_label_sets(source.name, rows, reading, declared, notes=notes, spec=spec)
    column = LabelColumn(reading.shown, declared)
    label_names, splits = encode_labels(source.name, rows, column, notes, spec)
    if reading.task == "ordinal":
        refuse_no_scale(source.name, reading.shown, label_names, declared)
        splits = {part: replace(split, ordered=True) for part, split in splits.items()}
    return label_names, splits


@dataclass(frozen=True, slots=True, eq=False)
class OtherData:
    """Labelled rows from elsewhere, on which trained classifiers are scored.

    `split.labels` index the study's label names. `domains` (n,) names where each row comes from,
    where the data has a column `domain`. `in_train`: how many rows stand, or nearly, in the
    training part; None where that was not asked.
    """

    name: str
    split: Split
    domains: tuple[str, ...] | None
    fingerprint: str
    notes: tuple[str, ...]
    in_train: int | None = None


def load_other(
    spec: DataSpec,
    label_names: Sequence[str],
    train: Split | None = None,
    *,
    task: TaskName = "classes",
) -> OtherData:
    """Read data to score on: its test part, else its validation part, else all of its rows.

    `train`: the training part, in which its rows are looked for; `task`: the study's. Raises
    DataError where a label is none of `label_names`.
    """
    if spec.corrections is not None:
        raise DataError(f"test_on {spec.source}: corrections are of a study's own rows. Leave out.")
    source = read_source(spec)
    text_column, reading, said = read_columns(source.parts, as_several(spec, task))
    notes = [*source.notes, said]
    for part in ("test", "validation", "all", "train"):
        tables = source.parts.get(part)
        rows = rows_of_part(part, tables, (text_column, reading), spec, notes) if tables else None
        if tables and rows is not None and (set(rows.labels) != {"-1"} or "-1" in label_names):
            break
        if tables:
            notes.append(f"the {part} part is unlabelled: not scored")
    else:
        raise DataError(f"{source.name}: no labelled rows to score on.")
    where = f"--test-on {source.name}"
    split = _labelled_split(where, rows, label_names, spec, notes, whose="the training data's")
    split = replace(split, ordered=reading.task == "ordinal")
    if not len(split):
        raise DataError(f"{where}: no rows of the classes that are left.")
    notes.append(
        f"scored on {'all' if part == 'all' else f'the {part} part'}: {rows_word(len(split))}"
    )
    domains = None
    if "domain" in split.columns:
        domains = tuple(str(d) for d in split.columns["domain"])
    digest = fingerprint_of(label_names, {"train": split, "validation": split, "test": split})
    seen = None
    if train is not None:
        both = (row_codes(train.labels), row_codes(split.labels))
        seen = int(duplicates.match(train.texts, split.texts, both).found.sum())
        if seen:
            stand = f"{seen:,} of them stand, or nearly, in train too"
            notes.append(f"{stand}: what is scored there is partly memory")
    return OtherData(source.name, split, domains, digest, tuple(notes), seen)


def load_every_row(
    spec: DataSpec, label_names: Sequence[str], *, task: TaskName = "classes"
) -> tuple[Split, tuple[str, ...]]:
    """Read every labelled row of all parts of data to score on, and notes on what has no label.

    Raises DataError where no row has a label, or a label is none of `label_names`.
    """
    source = read_source(spec)
    text_column, reading, said = read_columns(source.parts, as_several(spec, task))
    notes = [*source.notes, said]
    scored_parts = []
    for part, tables in source.parts.items():
        rows = rows_of_part(part, tables, (text_column, reading), spec, notes)
        if rows is not None and (set(rows.labels) != {"-1"} or "-1" in label_names):
            scored_parts.append(
                _labelled_split(
                    source.name, rows, label_names, spec, notes, whose="the classifier's"
                )
            )
        else:
            notes.append(f"the {part} part is unlabelled: not scored")
    if not any(map(len, scored_parts)):
        raise DataError(f"{source.name}: no labelled rows to score on.")
    whole = Split(
        tuple(i for s in scored_parts for i in s.ids),
        tuple(t for s in scored_parts for t in s.texts),
        np.concatenate([s.labels for s in scored_parts]),
        {} if spec.group_column is None else _values_of_column(scored_parts, spec.group_column),
        ordered=reading.task == "ordinal",
    )
    check_groups_of_rows(source.name, {"all": whole}, spec.group_column)
    return whole, tuple(notes)


def _values_of_column(parts: Sequence[Split], column: str) -> dict[str, tuple[object, ...]]:
    """A further column of several parts, one behind the other; nothing where one lacks it."""
    if any(column not in s.columns for s in parts):
        return {}
    return {column: tuple(v for s in parts for v in s.columns[column])}


def _labelled_split(
    where: str,
    rows: LabelledRows,
    label_names: Sequence[str],
    spec: DataSpec,
    notes: list[str],
    *,
    whose: str,
) -> Split:
    """Rows with their labels as places in `label_names`, without those of `spec.drop_classes`.

    Raises DataError for a label of neither.
    """
    sets = [k for k in rows.labels if isinstance(k, tuple)]
    if sets:
        refuse_strange_labels(where, sets, label_names, spec, whose)
        columns = {c: tuple(values) for c, values in rows.columns.items()}
        labels = label_matrix(sets, label_names)
        return Split(tuple(rows.ids), tuple(rows.texts), labels, columns)
    known = {label: i for i, label in enumerate(label_names)}
    by_look = {looks(label): label for label in label_names} if spec.join_labels else {}
    keys = [_known_label(str(k), known, by_look) for k in rows.labels]
    strange = sorted(set(keys) - known.keys() - set(spec.drop_classes or ()))
    if strange:
        alike = {looks(label) for label in label_names}
        join = any(looks(label) in alike for label in strange)
        raise DataError(
            f"{where}: label {listed(strange)} is none of {whose}: "
            f"{listed(list(label_names))}. Rename it, or leave its rows out (--drop-classes)"
            f"{'; --join-labels joins labels that look alike' if join else ''}."
        )
    kept = [i for i, key in enumerate(keys) if key in known]
    if len(kept) < len(keys):
        notes.append(f"left out {rows_word(len(keys) - len(kept))} of classes that are dropped")
    return Split(
        tuple(rows.ids[i] for i in kept),
        tuple(rows.texts[i] for i in kept),
        np.asarray([known[keys[i]] for i in kept], dtype=np.int64),
        {c: tuple(values[i] for i in kept) for c, values in rows.columns.items()},
    )


def _known_label(key: str, known: Mapping[str, int], by_look: Mapping[str, str]) -> str:
    if key in known:
        return key
    whole = WHOLE_FLOAT.fullmatch(key)
    plain = whole["whole"] if whole else key.strip()
    return plain if plain in known else by_look.get(looks(key), plain)
