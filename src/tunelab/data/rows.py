"""Labelled rows of a file: checked one by one, with the line of what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tunelab.core.errors import DataError
from tunelab.core.values import DataSpec
from tunelab.core.words import is_nan, rows_word
from tunelab.data.columns import known_column, texts_of_column
from tunelab.data.labels import NUMBER, LabelledRows, LabelSet
from tunelab.data.several import LabelReading, label_keys_of_rows
from tunelab.data.table import Table

__all__ = [
    "rows_of_part",
    "without_unlabelled",
]

LONGEST_COLUMN = 200  # characters on average: a further column that is longer is not kept


# --- rows -----------------------------------------------------------------------------------


def rows_of_part(
    part: str,
    tables: Sequence[Table],
    columns: tuple[str, LabelReading],
    spec: DataSpec,
    notes: list[str],
) -> LabelledRows | None:
    """The checked rows of one part; None where no row of it has a label (a hub's test part)."""
    text_column, reading = columns
    labels: list[list[str | LabelSet | None]] = []
    broken_by_table: list[dict[int, str] | None] = []
    for table in tables:
        broken_by_table.append({} if spec.on_bad_rows == "drop" else None)
        notes.extend(table.notes)
        if all(c in table.columns for c in reading.columns) or part != "test":
            for column in reading.columns:
                known_column(table, column, "--label-column")
            labels.append(label_keys_of_rows(table, reading, broken_by_table[-1]))
        else:
            labels.append([None] * len(table.numbers))
    if all(key is None for keys in labels for key in keys):
        return None
    taken = (text_column, *reading.columns)
    others = [c for t in tables for c in t.columns if c not in taken]
    out = LabelledRows([], [], [], {c: [] for c in others})
    for table, keys, broken in zip(tables, labels, broken_by_table, strict=True):
        known_column(table, text_column, "--text-column")
        texts = texts_of_column(table, text_column, broken)
        kept, note = _usable(table, texts, keys, (text_column, reading.shown), broken)
        notes.extend(note)
        out.ids.extend(f"{table.stem}:{table.numbers[i]}" for i in kept)
        out.texts.extend(texts[i] or "" for i in kept)
        out.labels.extend(keys[i] for i in kept)
        for column, values in out.columns.items():
            cells = _plain_column(table, column) or [None] * len(texts)
            values.extend(cells[i] for i in kept)
    for column in [c for c, values in out.columns.items() if all(v is None for v in values)]:
        del out.columns[column]
    return out


def _plain_column(table: Table, column: str) -> list[Any] | None:
    """A further column as plain values; None where it is absent, of lists or objects, or texts."""
    if column not in table.columns:
        return None
    names = table.class_names.get(column)
    values = [None if v == "" or is_nan(v) else v for v in table.get(column)]
    known = [v for v in values if v is not None]
    if not all(isinstance(v, str | int | float) for v in known):
        return None
    if sum(len(v) for v in known if isinstance(v, str)) > LONGEST_COLUMN * len(known):
        return None
    if names:
        return [names[v] if isinstance(v, int) and 0 <= v < len(names) else None for v in values]
    return values


def _all_numbers(texts: Iterable[str | None]) -> bool:
    return all(NUMBER.fullmatch(t.strip()) for t in texts if t and not t.isspace())


def _usable(
    table: Table,
    texts: Sequence[str | None],
    keys: Sequence[str | LabelSet | None],
    columns: tuple[str, str],
    broken: Mapping[int, str] | None,
) -> tuple[list[int], list[str]]:
    """Indices of the rows with a text and a label. Bad rows raise, or are dropped with a note.

    `broken`: what is already known of rows that are to be dropped; None where bad rows raise.
    """
    if _all_numbers(texts) and any(texts):
        raise DataError(
            f"{table.name}: column {columns[0]!r} holds numbers only, expected texts. "
            "Choose another with --text-column."
        )
    known = broken or {}
    rows_by_fault: dict[str, list[int]] = {}
    for i, why in known.items():
        rows_by_fault.setdefault(why, []).append(i)
    text, label = (f"in column {c!r}" for c in columns)
    for i, (t, k) in enumerate(zip(texts, keys, strict=True)):
        if i in known:
            continue
        if not t or t.isspace():
            rows_by_fault.setdefault(f"without text {text}", []).append(i)
        if k is None:
            rows_by_fault.setdefault(f"without label {label}", []).append(i)
        if (t, k) == columns:  # files with a header each, put one behind the other
            rows_by_fault.setdefault("that repeat the header", []).append(i)
    if not rows_by_fault:
        return list(range(len(texts))), []
    faults = [
        f"{rows_word(len(rows))} {why} ({table.places(rows)})"
        for why, rows in rows_by_fault.items()
    ]
    if broken is None:
        raise DataError(
            f"{table.name}: {' and '.join(faults)}. Expected a text and a label in every row: "
            "fill them in, or add --on-bad-rows drop."
        )
    bad = {i for rows in rows_by_fault.values() for i in rows}
    kept = [i for i in range(len(texts)) if i not in bad]
    return kept, [f"{table.name}: dropped {' and '.join(faults)}"]


def without_unlabelled(
    name: str, parts: Mapping[str, LabelledRows | None], label_column: str, notes: list[str]
) -> dict[str, LabelledRows]:
    """The labelled parts, as train, validation and test. What has no label is named, not scored."""
    train = parts.get("train", parts.get("all"))
    hidden = f"every label in column {label_column!r} is missing or -1"
    if train is None or set(train.labels) == {"-1"}:
        raise DataError(
            f"{name}: no labels to learn from: {hidden}. Expected a class for every row; "
            "choose another column with --label-column."
        )
    out = {"train": train}
    for part in ("validation", "test"):
        if part not in parts:
            continue
        rows = parts[part]
        # -1 hides the labels of a hub's test part, unless it is one of the classes.
        if rows is None or (set(rows.labels) == {"-1"} and "-1" not in train.labels):
            notes.append(f"the {part} part is unlabelled ({hidden}): not scored")
        else:
            out[part] = rows
    if "test" in parts and "test" not in out and "validation" in out:
        out["test"] = out.pop("validation")
        notes.append("the validation part serves as test; a new one is split off train")
    for part, rows in out.items():
        if not rows.ids:
            raise DataError(f"{name}: no rows left in the {part} part after dropping bad ones.")
    return out
