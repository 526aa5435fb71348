"""Which column holds the texts and which the labels: named, or guessed and said aloud."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from tunelab.core.errors import DataError, suggest
from tunelab.core.words import check_unicode, is_nan, kind_of, listed, short
from tunelab.data.kinds import SUPPORTED, flag_columns, partner_column, said_of_numbers
from tunelab.data.table import Table

__all__ = [
    "TEXT_NAMES",
    "check_group_column",
    "choose_columns",
    "choose_id_column",
    "known_column",
    "looks_like_texts",
    "only_column",
    "texts_of_column",
    "usual_column",
]


# The first name is the plain one and wins over the others; two of the others are ambiguous.
TEXT_NAMES = (
    "text",
    "sentence",
    "review",
    "content",
    "review_text",
    "reviewtext",
    "review_body",
    "body",
    "comment",
    "message",
    "document",
    "tweet",
    "utterance",
)
LABEL_NAMES = (
    "label",
    "target",
    "sentiment",
    "class",
    "category",
    "labels",
    "class_index",
    "stars",
    "rating",
    "polarity",
    "intent",
    "emotion",
    "topic",
)

# Columns that name rows, where every row has a value of its own.
ID_NAMES = (
    "id",
    "uid",
    "uuid",
    "guid",
    "key",
    "row_id",
    "text_id",
    "doc_id",
    "document_id",
    "review_id",
    "comment_id",
    "message_id",
    "tweet_id",
    "ticket_id",
    "example_id",
    "sample_id",
    "record_id",
    "idx",
)


# --- columns --------------------------------------------------------------------------------


def choose_columns(
    table: Table, text_column: str | None = None, label_column: str | None = None
) -> tuple[str, str, str]:
    """The text column, the label column, and the sentence that says so.

    What is not named is guessed: by its usual name, else as the only column whose content looks
    right. Raises DataError, with the columns and the flag, where that leaves none or several.
    """
    for flag, column in (
        ("--text-column", text_column),
        ("--label-column", label_column),
    ):
        if column is not None:
            known_column(table, column, flag)
    label = label_column or usual_column(table, LABEL_NAMES, "label", {text_column})
    text = text_column or usual_column(table, TEXT_NAMES, "text", {label})
    if text is None:
        candidates = [c for c in table.columns if c != label and looks_like_texts(table, c)]
        for candidate in candidates:
            _refuse_pair(table, candidate)
        text = only_column(table, candidates, "text")
    if text_column is None:
        _refuse_pair(table, text)
    if label is None:
        _refuse_flags(table, text)
        candidates = [c for c in table.columns if c != text and looks_like_labels(table, c)]
        if not candidates:
            _refuse_numbers(table, text)
        label = only_column(table, candidates, "label")
        if label in {str(v) for v in table.get(label)}:
            raise DataError(
                f"{table.name}: the first line ({listed(table.columns)}) looks like a row, not "
                "like a header. Add a header line with the names of the columns, e.g. text,label."
            )
    if text == label:
        raise DataError(
            f"{table.name}: the text column and the label column are both {text!r}. Name two with "
            f"--text-column and --label-column. Columns: {listed(table.columns)}."
        )
    how = {True: "", False: " (guessed)"}
    said = (
        f"text column: {text!r}{how[text == text_column]}; "
        f"label column: {label!r}{how[label == label_column]}"
    )
    partner = partner_column(table.columns, text)
    if partner is not None:
        said += f"; {partner!r} is not read: pairs of texts are not supported"
    return text, label, said


def choose_id_column(
    table: Table, id_column: str | None, taken: Sequence[str]
) -> tuple[str | None, str]:
    """The column that names rows for the user, None where there is none, and what is said of it.

    What is not named is guessed: the first with a usual name and another value in each row. Raises
    DataError for a name that is no column's.
    """
    if id_column is not None:
        known_column(table, id_column, "--id-column")
        return id_column, f"id column: {id_column!r}"
    by_name = {
        re.sub(r"[\s\-]+", "_", c.strip().lower()): c for c in table.columns if c not in taken
    }
    for name in ID_NAMES:
        values = table.get(by_name[name]) if name in by_name else []
        named = all(isinstance(v, str | int) and v != "" for v in values)
        if values and named and len(set(values)) == len(values):
            return by_name[name], f"id column: {by_name[name]!r} (guessed)"
    return None, ""


def check_group_column(table: Table, group_column: str | None, taken: Sequence[str]) -> str:
    """What is said of the column of groups that was named. Raises DataError where it is none."""
    if group_column is None:
        return ""
    known_column(table, group_column, "--group-column")
    if group_column in taken:
        raise DataError(
            f"{table.name}: the group column is {group_column!r}, which holds the texts or the "
            "labels. Name the column of what rows have in common, such as an author."
        )
    return f"group column: {group_column!r}"


def _refuse_pair(table: Table, text: str) -> None:
    """Refuse to guess one column of a pair of texts."""
    partner = partner_column(table.columns, text)
    if partner is not None and looks_like_texts(table, partner, distinct=False):
        raise DataError(
            f"{table.name}: {text!r} and {partner!r} look like a pair of texts, which is not "
            f"supported: {SUPPORTED}. Write both into one column, or read one alone with "
            "--text-column."
        )


def _refuse_numbers(table: Table, text: str) -> None:
    """Refuse a table whose only other values are many numbers: a quantity, not classes."""
    for column in table.columns:
        values = [str(v) for v in table.get(column) if v is not None and v != ""]
        fractions = column != text and len(set(values)) > len(values) / 2 and len(values) > 2
        if fractions and any("." in v for v in values):
            said_of_numbers(table.name, column, Counter(values))


def _refuse_flags(table: Table, text: str) -> None:
    """Refuse to guess one of several columns of 0 and 1."""
    flags = flag_columns(table, {text})
    if len(flags) < 2:
        return
    rows = zip(
        *([str(v).lower() in ("1", "true", "1.0") for v in table.get(c)] for c in flags),
        strict=True,
    )
    once = all(sum(row) == 1 for row in rows)
    kind = (
        "the classes of one label (one-hot): write its name into one column instead"
        if once
        else f"several labels a text (multi-label), which is not supported: {SUPPORTED}. Choose "
        "one with --label-column"
    )
    raise DataError(f"{table.name}: {listed(flags)} hold 0 and 1 each, as {kind}.")


def known_column(table: Table, column: str, flag: str) -> None:
    """Refuse a column that the table lacks, naming those that it has."""
    if column not in table.columns:
        # A header cell may hold a line break; a message may not.
        shown = [" ".join(c.split()) for c in table.columns[:50]]
        raise DataError(
            f"{table.name}: no column {column!r} ({flag}).{suggest(column, shown, what='Columns')}"
        )


def usual_column(
    table: Table, names: Sequence[str], role: str, taken: set[str | None] | set[str]
) -> str | None:
    """The column with a usual name: the plain one, else the only one; None where there is none."""
    by_name: dict[str, list[str]] = {}
    for column in table.columns:
        key = re.sub(r"[\s\-]+", "_", column.strip().lower())
        if key in names and column not in taken:
            by_name.setdefault(key, []).append(column)
    if names[0] in by_name:
        by_name = {names[0]: by_name[names[0]]}
    columns = [c for group in by_name.values() for c in group]
    if len(columns) > 1:
        raise DataError(
            f"{table.name}: {listed(columns)} could each be the {role} column. "
            f"Name one with --{role}-column. Columns: {listed(table.columns)}."
        )
    return columns[0] if columns else None


def only_column(table: Table, candidates: Sequence[str], role: str) -> str:
    """The one candidate for a role; a DataError where there are none or several."""
    if len(candidates) == 1:
        return candidates[0]
    fault = f"{listed(candidates)} all look like one" if candidates else "none looks like one"
    raise DataError(
        f"{table.name}: cannot tell which is the {role} column: {fault}. "
        f"Name it with --{role}-column. Columns: {listed(table.columns)}."
    )


def looks_like_texts(table: Table, column: str, *, distinct: bool = True) -> bool:
    """Whether a column looks like texts: strings of words or of some length, mostly `distinct`."""
    values = [v for v in table.get(column)[:2_000] if v is not None and v != ""]
    if not values or not all(isinstance(v, str) for v in values):
        return False
    worded = sum(any(map(str.isalpha, v)) and (" " in v.strip() or len(v) >= 20) for v in values)
    if worded <= len(values) / 2:
        return False
    return not distinct or len(set(values)) > len(values) / 2


def looks_like_labels(table: Table, column: str) -> bool:
    """Whether a column looks like labels: short values, few distinct ones."""
    values = [v for v in table.get(column) if v is not None and v != ""]
    if not all(isinstance(v, str | int | float) and len(str(v)) <= 60 for v in values):
        return False
    return 2 <= len(set(values)) <= min(100, max(2, len(values) // 2))


def texts_of_column(
    table: Table, column: str, broken: dict[int, str] | None = None
) -> list[str | None]:
    """A column's values, all strings or None. Raises DataError for anything else.

    `broken` takes what is wrong with values that are no text, by row; these are then None. More
    than half of all is a fault of the column, not of rows.
    """
    values = [None if is_nan(v) else v for v in table.get(column)]
    first: DataError | None = None
    for i, value in enumerate(values):
        if value is None or (isinstance(value, str) and value.isascii()):
            continue
        try:
            _check_text_value(table, i, column, value)
        except DataError as error:
            if broken is None:
                raise
            first = first or error
            broken[i] = f"with half a character in column {column!r}"
            if not isinstance(value, str):
                broken[i] = f"with {kind_of(value)} instead of a text in column {column!r}"
            values[i] = None
    if first is not None and broken is not None and len(broken) > len(values) / 2:
        raise first
    return values


def _check_text_value(table: Table, row: int, column: str, value: object) -> None:
    if not isinstance(value, str):
        raise DataError(
            f"{table.name}: column {column!r} holds {kind_of(value)} ({table.at(row)}: "
            f"{short(repr(value), 40)}), expected texts. Choose another with --text-column, "
            "or write it as a string."
        )
    check_unicode(value, f"{table.name}: {table.at(row)}, column {column!r}")
