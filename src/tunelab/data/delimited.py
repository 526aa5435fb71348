"""CSV and TSV, read as they stand."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TextIO, TypeAlias

from tunelab.core.errors import DataError
from tunelab.core.words import listed, rows_word
from tunelab.data.decode import check_text, is_broken, open_text
from tunelab.data.limits import LARGEST_VALUE, refuse_many_columns
from tunelab.data.quotes import QuoteWatch
from tunelab.data.table import (
    Quoting,
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


# The csv module refuses fields over 128 KiB unless told.
FIELD_LIMIT = LARGEST_VALUE


def read_delimited(path: Path, options: ReadOptions, size: int | None) -> Iterator[Table]:
    """A CSV or TSV file with a header: RFC 4180 quoting, any line ends, `;`, `|` and tabs noticed.

    `options.quoting`: "auto" refuses a quote that swallows rows, "double" reads it as it stands,
    "none" takes quotes for part of the texts.
    """
    name = options.called(path)
    checked = check_text(path, options)
    form = _form_of(path, checked.start, options, name)
    with open_text(path, options) as stream:
        records = _records(stream, form, name)
        if form.names_separator:
            next(records)
        _, _, header = next(records, (0, [], []))
        if not header:
            raise DataError(f"{name}: no header below its first line. Expected labelled texts.")
        columns = tuple(c.strip() or f"Unnamed: {i}" for i, c in enumerate(header))
        refuse_many_columns(name, len(columns))
        where = {c: i for i, c in enumerate(columns)}
        rows = _DelimitedRows(name, columns, form, options, checked.ends_in_a_line)
        any_rows = False
        for numbers, window in windows_of_rows(rows.read(records), size):
            any_rows = True
            by_index = list(zip(*window, strict=True))
            table = table_of_columns(name, stem_of(path), {}, numbers, "line")
            yield replace(
                table,
                columns=columns,
                get=partial(values_at, by_index, where),
                notes=(*form.notes, *rows.notes()),
            )
    if not any_rows:
        raise DataError(
            f"{name}: a header ({listed(columns)}) but no rows. Expected labelled texts below it."
        )


@dataclass(frozen=True, slots=True)
class _Form:
    """How a file's lines are cut into fields, and what is said of it.

    `names_separator`: its first line is no header but says what separates. `skip_blanks`: blanks
    stand between a separator and a quote.
    """

    delimiter: str
    quoting: Quoting
    names_separator: bool
    skip_blanks: bool
    notes: tuple[str, ...]


def _form_of(path: Path, start: str, options: ReadOptions, name: str) -> _Form:
    named = _EXCEL_SEPARATOR.match(start)
    if named:
        delimiter, shows = named["separator"], "first line says"
    else:
        delimiter = "\t" if format_of(path) == ".tsv" else _delimiter(start)
        shows = "header shows"
    notes = []
    if format_of(path) == ".csv" and delimiter != ",":
        shown = "tab" if delimiter == "\t" else repr(delimiter)
        notes.append(f"{name}: the separator is {shown}, as its {shows}")
    skip = options.quoting != "none" and _blanks_before_quotes(start, delimiter)
    if skip:
        notes.append(f"{name}: blanks between a separator and what follows it are left out")
    return _Form(delimiter, options.quoting, named is not None, skip, tuple(notes))


def _blanks_before_quotes(start: str, delimiter: str) -> bool:
    """Whether most lines have a quote behind a separator and blanks: `"good film", "positive"`."""
    lines = start[:20_000].splitlines()[:200]
    pattern = re.compile(rf'{re.escape(delimiter)} +"')
    return sum(bool(pattern.search(line)) for line in lines) > len(lines) / 2


@dataclass(slots=True)
class _DelimitedRows:
    """The rows of a file as they are read, and what was left out of them."""

    name: str
    columns: tuple[str, ...]
    form: _Form
    options: ReadOptions
    ends_in_a_line: bool
    _ragged: list[tuple[int, int]] = field(default_factory=list)
    _broken: list[int] = field(default_factory=list)
    _trailing: bool | None = None  # whether rows end in a separator, and the header does not
    _watch: QuoteWatch | None = None

    def read(self, records: Iterator[_Record]) -> Iterator[tuple[int, list[str]]]:
        """Pairs (line where a row begins, its fields). Raises DataError at the end."""
        width = len(self.columns)
        self._watch = watch = QuoteWatch(
            self.name, self.form.delimiter, width, self.form.quoting != "auto"
        )
        drop = self.options.drop_ragged
        empty: list[int] = []  # empty lines at the end are the end
        rows = 0
        for line, lines, given in records:
            fields = self._without_trailing(given)
            if width == 1 and fields in ([], [""]):  # elsewhere, they are empty texts
                empty.append(line)
            elif drop and any(map(is_broken, fields)):
                self._broken.append(line)
            elif len(fields) == width:
                yield from ((n, [""]) for n in empty)
                rows += len(empty) + 1
                empty = []
                watch.see(line, lines, fields)
                yield line, fields
            elif len(fields) > 1 or (fields and fields[0].strip()):
                self._ragged.append((line, len(fields)))
        if not self.ends_in_a_line:
            yield from ((n, [""]) for n in empty)
        watch.end()
        if self._ragged and not drop:
            raise DataError(_ragged(self.name, self.columns, self._ragged, self.form.delimiter))
        if len(self._broken) > rows / 10:
            raise DataError(
                f"{self.name}: {rows_word(len(self._broken))} of {rows + len(self._broken):,} are "
                f"not {self.options.encoding.upper()} text (the first in line {self._broken[0]}): "
                "too many to drop. Name the file's encoding with --encoding."
            )

    def _without_trailing(self, fields: list[str]) -> list[str]:
        """A row without the empty field behind its last separator, where the first row has one."""
        more = len(fields) == len(self.columns) + 1 and not fields[-1].strip()
        if self._trailing is None:
            self._trailing = more
        return fields[:-1] if more and self._trailing else fields

    def notes(self) -> list[str]:
        """What is said of the rows that were read so far."""
        out = _dropped(
            self.name, f"whose number of fields is not {len(self.columns)}", self._ragged
        )
        out += _dropped(self.name, "with a NUL or broken bytes", [(n, 0) for n in self._broken])
        if self._trailing:
            out.append(f"{self.name}: rows end in a separator, and the header does not: left out")
        return [*out, *(self._watch.notes() if self._watch else [])]


def _dropped(name: str, what: str, rows: Sequence[tuple[int, int]]) -> list[str]:
    if not rows:
        return []
    shown = ", ".join(str(line) for line, _ in rows[:5])
    more = f" and {len(rows) - 5:,} more" if len(rows) > 5 else ""
    return [
        f"{name}: dropped {rows_word(len(rows))} {what} "
        f"(line{'s' if len(rows) > 1 else ''} {shown}{more})"
    ]


# A line that Excel writes, and reads, above the header.
_EXCEL_SEPARATOR = re.compile(r'"?sep=(?P<separator>[,;\t|])"?\r?(?:\n|$)', re.IGNORECASE)


def _delimiter(start: str) -> str:
    """The first of comma, semicolon, tab and bar that cuts the header in more than one field."""
    stream = io.StringIO(start, newline="")
    with _field_limit():
        for delimiter in (",", ";", "\t", "|"):
            stream.seek(0)
            if len(next(csv.reader(stream, delimiter=delimiter))) > 1:
                return delimiter
    return ","


# The line where a row begins, the lines that it stands in, and its fields.
_Record: TypeAlias = tuple[int, list[str], list[str]]


def _records(stream: TextIO, form: _Form, name: str) -> Iterator[_Record]:
    """A file's rows; blank lines before the header skipped."""
    kept: list[str] = []

    def lines() -> Iterator[str]:
        for line in stream:
            kept.append(line)
            yield line

    # Strict: otherwise a quote that is never closed swallows the rest of the file in silence.
    reader = csv.reader(
        lines(),
        delimiter=form.delimiter,
        strict=True,
        quoting=csv.QUOTE_NONE if form.quoting == "none" else csv.QUOTE_MINIMAL,
        skipinitialspace=form.skip_blanks,
    )
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
            yield before + 1, kept, fields
        kept.clear()
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
    if "field larger" in cause:
        return (
            f"{name}: line {line} holds a value of more than {LARGEST_VALUE >> 20} MiB. Cut it, or "
            "leave its row out; a quote that is never closed looks so too: add --quoting none."
        )
    what = (
        "is opened and never closed"
        if "end of data" in cause
        else "is followed by text where a separator was expected"
    )
    return (
        f"{name}: broken quoting in the row that begins in line {line}: a quoted field {what}. "
        'Write a quote within a quoted field twice (""), or save the file as JSONL; where quotes '
        "are part of the texts, add --quoting none."
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
