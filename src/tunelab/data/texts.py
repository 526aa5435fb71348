"""Files of texts without labels, whole or in windows, for `predict`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from tunelab.core.errors import DataError
from tunelab.core.words import rows_word
from tunelab.data.columns import (
    TEXT_NAMES,
    choose_id_column,
    known_column,
    looks_like_texts,
    only_column,
    texts_of_column,
    usual_column,
)
from tunelab.data.formats import FORMATS, known_format, look_alike, path_is, read_lines
from tunelab.data.table import Quoting, ReadOptions, Table, format_of, refuse_repeated_columns

__all__ = [
    "WINDOW_ROWS",
    "TextFile",
    "TextTable",
    "open_texts",
    "read_texts",
]

# Rows of a file that lie in memory at a time where it is gone through in windows.
WINDOW_ROWS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class TextTable:
    """Unlabelled rows: all their `columns` (n values each), and `texts` (n; blank is "").

    `blank` counts the texts that are missing or only white space. `ids`: what names the rows for
    the user, None where no column does.
    """

    columns: dict[str, list[Any]]
    text_column: str
    texts: list[str]
    blank: int
    ids: list[Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TextFile:
    """An unlabelled file that was gone through once and has no fault; its rows stay in the file.

    `rows` and `blank` count its rows, and those without a text. `notes`: what was decided for the
    user.
    """

    path: Path
    options: ReadOptions
    columns: tuple[str, ...]
    text_column: str
    rows: int
    blank: int
    id_column: str | None = None
    notes: tuple[str, ...] = ()

    def windows(self, size: int | None = WINDOW_ROWS) -> Iterator[TextTable]:
        """All rows in their order, at most `size` in memory at a time."""
        for table in _stream(self.path, self.options, size):
            yield _text_table(table, self.columns, self.text_column, self.id_column)


# --- unlabelled files ----------------------------------------------------------


def read_texts(
    path: Path,
    text_column: str | None = None,
    encoding: str = "utf-8",
    quoting: Quoting = "auto",
    id_column: str | None = None,
) -> TextTable:
    """Read a CSV, TSV, JSONL, Parquet or .txt file (one text a line) whose texts get predictions.

    All rows are kept, in order; a missing or blank text is "" and counted. Raises DataError.
    """
    (whole,) = open_texts(path, text_column, encoding, id_column, quoting).windows(None)
    return whole


def open_texts(
    path: Path,
    text_column: str | None = None,
    encoding: str = "utf-8",
    id_column: str | None = None,
    quoting: Quoting = "auto",
) -> TextFile:
    """Go through such a file, a window of rows at a time: a TextFile to read again, in windows.

    Every fault of the file is found here. Raises DataError.
    """
    path = Path(path)
    if not path_is(path, Path.is_file):
        fault = "is a folder, expected a file" if path_is(path, Path.is_dir) else "no such file"
        raise DataError(f"{str(path)!r}: {fault}.{look_alike(path)}")
    options = ReadOptions(encoding, quoting=quoting)
    known: dict[str, None] = {}  # objects of JSON lines may each bring columns
    tables = _stream(path, options, WINDOW_ROWS)
    first = next(tables)  # a file without rows is refused
    for table in chain([first], tables):
        known.update(dict.fromkeys(table.columns))
    head = replace(first, columns=tuple(known))
    if text_column is not None:
        known_column(head, text_column, "--text-column")
    column = text_column or usual_column(head, TEXT_NAMES, "text", set())
    if column is None and len(head.columns) == 1:
        column = head.columns[0]
    if column is None:
        column = only_column(head, [c for c in head.columns if looks_like_texts(head, c)], "text")
    id_column, _ = choose_id_column(head, id_column, (column,))
    rows = blank = headers = 0
    notes: tuple[str, ...] = ()
    for table in _stream(path, options, WINDOW_ROWS):
        texts = texts_of_column(table, column)
        rows += len(texts)
        blank += sum(not t or t.isspace() for t in texts)
        headers += sum(t == column for t in texts)
        notes = table.notes
    if headers and format_of(path) != ".txt":
        stand = f"{rows_word(headers)} whose text is {column!r}, as the column's name"
        notes += (f"{path.name}: {stand}: a header that stands there again is labelled too",)
    return TextFile(path, options, head.columns, column, rows, blank, id_column, notes)


def _stream(path: Path, options: ReadOptions, size: int | None) -> Iterator[Table]:
    """A file's rows as tables of `size` rows each. Raises DataError."""
    if format_of(path) == ".txt":
        yield from read_lines(path, options, size)
        return
    for table in FORMATS[known_format(path, options)](path, options, size):
        refuse_repeated_columns(table)
        yield table


def _text_table(
    table: Table, columns: Sequence[str], text_column: str, id_column: str | None
) -> TextTable:
    texts = ["" if not t or t.isspace() else t for t in texts_of_column(table, text_column)]
    values = {c: table.get(c) for c in columns}
    ids = None if id_column is None else values[id_column]
    return TextTable(values, text_column, texts, texts.count(""), ids)
