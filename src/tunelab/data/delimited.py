"""CSV and TSV, read as they stand."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TextIO

from tunelab.core.errors import DataError
from tunelab.core.words import listed, rows_word
from tunelab.data.decode import check_text, open_text
from tunelab.data.table import (
    ReadOptions,
    Table,
    format_of,
    stem_of,
    table_of_columns,
    values_at,
    windows_of_rows,
)

__all__ = [
    "read_delimited",
]


# The csv module refuses fields over 128 KiB unless told; the most that every platform takes.
FIELD_LIMIT = 2**31 - 1


def read_delimited(path: Path, options: ReadOptions, size: int | None) -> Iterator[Table]:
    """A CSV or TSV file with a header: RFC 4180 quoting, any line ends, `;` and tabs noticed."""
    name = options.called(path)
    checked = check_text(path, options)
    named = _EXCEL_SEPARATOR.match(checked.start)
    if named:
        delimiter, shows = named["separator"], "first line says"
    else:
        delimiter = "\t" if format_of(path) == ".tsv" else _delimiter(checked.start)
        shows = "header shows"
    notes = []
    if format_of(path) == ".csv" and delimiter != ",":
        shown = "tab" if delimiter == "\t" else repr(delimiter)
        notes.append(f"{name}: the separator is {shown}, as its {shows}")

    with open_text(path, options) as stream:
        records = _records(stream, delimiter, name)
        if named:
            next(records)
        _, header = next(records, (0, []))
        if not header:
            raise DataError(f"{name}: no header below its first line. Expected labelled texts.")
        columns = tuple(c.strip() or f"Unnamed: {i}" for i, c in enumerate(header))
        where = {c: i for i, c in enumerate(columns)}
        width = len(columns)
        ragged: list[tuple[int, int]] = []

        def rows() -> Iterator[tuple[int, list[str]]]:
            empty: list[int] = []  # empty lines at the end are the end
            for line, fields in records:
                if width == 1 and fields in ([], [""]):  # elsewhere, they are empty texts
                    empty.append(line)
                elif len(fields) == width:
                    yield from ((n, [""]) for n in empty)
                    empty = []
                    yield line, fields
                elif len(fields) > 1 or (fields and fields[0].strip()):
                    ragged.append((line, len(fields)))
            if not checked.last.endswith(("\n", "\r")):
                yield from ((n, [""]) for n in empty)
            if ragged and not options.drop_ragged:
                raise DataError(_ragged(name, columns, ragged, delimiter))

        any_rows = False
        for numbers, window in windows_of_rows(rows(), size):
            any_rows = True
            by_index = list(zip(*window, strict=True))
            table = table_of_columns(name, stem_of(path), {}, numbers, "line")
            yield replace(
                table,
                columns=columns,
                get=partial(values_at, by_index, where),
                notes=(*notes, *_ragged_notes(name, width, ragged)),
            )
    if not any_rows:
        raise DataError(
            f"{name}: a header ({listed(columns)}) but no rows. Expected labelled texts below it."
        )


def _ragged_notes(name: str, width: int, ragged: Sequence[tuple[int, int]]) -> list[str]:
    if not ragged:
        return []
    shown = ", ".join(str(line) for line, _ in ragged[:5])
    more = f" and {len(ragged) - 5:,} more" if len(ragged) > 5 else ""
    return [
        f"{name}: dropped {rows_word(len(ragged))} whose number of fields is not {width} "
        f"(line{'s' if len(ragged) > 1 else ''} {shown}{more})"
    ]


# A line that Excel writes, and reads, above the header.
_EXCEL_SEPARATOR = re.compile(r'"?sep=(?P<separator>[,;\t|])"?\r?(?:\n|$)', re.IGNORECASE)


def _delimiter(start: str) -> str:
    """The first of comma, semicolon and tab that cuts the header in more than one field."""
    for delimiter in (",", ";", "\t"):
        if len(next(csv.reader(io.StringIO(start, newline=""), delimiter=delimiter))) > 1:
            return delimiter
    return ","


def _records(stream: TextIO, delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Pairs (line where the record begins, its fields); blank lines before the header skipped."""
    # Strict: otherwise a quote that is never closed swallows the rest of the file in silence.
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    before = 0
    started = False
    while True:
        try:
            with _field_limit():
                fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(_broken_quotes(name, before + 1, str(error))) from error
        if started or fields:
            started = True
            yield before + 1, fields
        before = reader.line_num


@contextmanager
def _field_limit() -> Iterator[None]:
    """Lift the csv module's limit, which is global, for the time of one read."""
    limit = csv.field_size_limit(FIELD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _broken_quotes(name: str, line: int, cause: str) -> str:
    what = (
        "is opened and never closed"
        if "end of data" in cause
        else "is followed by text where a separator was expected"
    )
    return (
        f"{name}: broken quoting in the row that begins in line {line}: a quoted field {what}. "
        'Write a quote within a quoted field twice (""), or save the file as JSONL.'
    )


def _ragged(
    name: str, columns: Sequence[str], ragged: Sequence[tuple[int, int]], delimiter: str
) -> str:
    line, fields = ragged[0]
    more = f" ({len(ragged) - 1:,} more such rows)" if len(ragged) > 1 else ""
    separator = "tab" if delimiter == "\t" else f"'{delimiter}'"
    return (
        f"{name}: line {line} has {fields} fields, expected {len(columns)} as in the header "
        f"({listed(columns)}){more}. Put texts that hold a {separator} in double quotes, or add "
        "--on-bad-rows drop."
    )
