"""Files of rows: CSV, TSV, JSON lines and Parquet read into columns, and written again.

Knows columns and their likely roles; knows nothing of classes or splits (that is data.py). May
import: errors and the standard library; pyarrow and charset-normalizer inside the functions that
need them. May not import: torch, transformers, any other part of tunelab. Whoever adds a file
format writes a function `(Path, ReadOptions, size) -> Iterator[Table]`, tables of `size` rows each
(all, where it is None), and a row in FORMATS.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import json
import math
import os
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from tunelab.errors import DataError, suggest

__all__ = [
    "FORMATS",
    "WINDOW_ROWS",
    "WRITERS",
    "ReadOptions",
    "Table",
    "TextFile",
    "TextTable",
    "choose_columns",
    "open_texts",
    "read_file",
    "read_texts",
    "write_table",
    "write_windows",
]

# The csv module refuses fields over 128 KiB unless told; the most that every platform takes.
FIELD_LIMIT = 2**31 - 1
# Rows of a file that lie in memory at a time where it is gone through in windows.
WINDOW_ROWS = 4096
# Bytes that are read and decoded at a time.
CHUNK_BYTES = 1 << 20

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


Columns = Mapping[str, Sequence[Any]]


# --- values ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    """One file's rows, before they are known to be labelled texts.

    `name` is what messages call it, `stem` the first half of row ids. `numbers[i]` is the number
    of row i as its reader counts: the line where it begins, or the row from 1 (`unit`).
    `get(column)` gives the n values of a column. `class_names[column]` are a ClassLabel's names.
    """

    name: str
    stem: str
    columns: tuple[str, ...]
    numbers: Sequence[int]
    unit: str
    get: Callable[[str], list[Any]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def at(self, row: int) -> str:
        """Where row `row` (from 0) stands: "line 12"."""
        return f"{self.unit} {self.numbers[row]}"

    def places(self, rows: Sequence[int]) -> str:
        """Where some rows stand, the first five: "lines 3, 4, 5, 8, 9 and 12 more"."""
        shown = ", ".join(str(self.numbers[i]) for i in rows[:5])
        more = f" and {len(rows) - 5:,} more" if len(rows) > 5 else ""
        return f"{self.unit}{'s' if len(rows) > 1 else ''} {shown}{more}"


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a file is read: its `encoding`, whether ragged rows are left out, what it is called."""

    encoding: str = "utf-8"
    drop_ragged: bool = False
    name: str | None = None

    def called(self, path: Path) -> str:
        """The file's name in messages."""
        return self.name or " ".join(path.name.split("\n"))


@dataclass(frozen=True, slots=True, eq=False)
class TextTable:
    """Unlabelled rows: all their `columns` (n values each), and `texts` (n; blank is "").

    `blank` counts the texts that are missing or only white space.
    """

    columns: dict[str, list[Any]]
    text_column: str
    texts: list[str]
    blank: int


@dataclass(frozen=True, slots=True, eq=False)
class TextFile:
    """An unlabelled file that was gone through once and has no fault; its rows stay in the file.

    `rows` and `blank` count its rows, and those without a text.
    """

    path: Path
    options: ReadOptions
    columns: tuple[str, ...]
    text_column: str
    rows: int
    blank: int

    def windows(self, size: int | None = WINDOW_ROWS) -> Iterator[TextTable]:
        """All rows in their order, at most `size` in memory at a time."""
        for table in _stream(self.path, self.options, size):
            yield _text_table(table, self.columns, self.text_column)


# --- files ----------------------------------------------------------------------------------


def format_of(path: Path) -> str:
    """The suffix that says how a file is read; `.gz` around a text format is looked through."""
    name = path.name.lower()
    if name.endswith(".gz"):
        inner = Path(name[:-3]).suffix
        return inner if inner != ".parquet" else ".gz"
    return Path(name).suffix


def stem_of(path: Path) -> str:
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem


def read_file(path: Path, options: ReadOptions) -> Table:
    """Read one file by its ending, `.gz` looked through. Raises DataError."""
    suffix = known_format(path, options)
    (table,) = FORMATS[suffix](path, options, None)
    refuse_repeated_columns(table)
    return table


def known_format(path: Path, options: ReadOptions) -> str:
    suffix = format_of(path)
    if suffix not in FORMATS:
        has = f"its name ends in {suffix!r}" if suffix else "its name has no ending"
        raise DataError(
            f"{options.called(path)}: {has}, expected one of {', '.join(FORMATS)}. "
            "Save it as one of these."
        )
    return suffix


def refuse_repeated_columns(table: Table) -> None:
    repeated = [c for c, n in Counter(table.columns).items() if n > 1]
    if repeated:
        raise DataError(
            f"{table.name}: column name {repeated[0]!r} stands more than once in "
            f"{listed(table.columns)}. Rename all but one."
        )


def table_of_columns(
    name: str, stem: str, columns: Mapping[str, list[Any]], numbers: Sequence[int], unit: str
) -> Table:
    return Table(name, stem, tuple(columns), numbers, unit, columns.__getitem__)


@contextmanager
def _binary(path: Path, name: str) -> Iterator[BinaryIO]:
    """A file's bytes, `.gz` unpacked; whatever goes wrong while they are read is a DataError."""
    try:
        packed = path.name.lower().endswith(".gz")
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            yield stream  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name}: not a whole gzip file ({error}). Download it again.") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}.") from error


def _codec(options: ReadOptions) -> str:
    """The codec of an encoding's name; a byte-order mark is looked through."""
    try:
        codec = codecs.lookup(options.encoding).name
        with suppress(UnicodeError):
            b"    ".decode(codec)  # some codecs are not of texts, and say so when used
    except LookupError as error:
        known = ("utf-8", "utf-16", "latin-1", "cp1252", "cp1251", "gb18030", "shift_jis", "big5")
        raise DataError(
            f"no such text encoding: {options.encoding!r}."
            f"{suggest(options.encoding, known, what='Common ones')}"
        ) from error
    return "utf-8-sig" if codec == "utf-8" else codec


@contextmanager
def open_text(path: Path, options: ReadOptions, newline: str = "") -> Iterator[TextIO]:
    """A text file, decoded strictly, line ends as they are; `newline` says where lines end."""
    with _binary(path, options.called(path)) as stream:
        yield io.TextIOWrapper(stream, _codec(options), newline=newline)


@dataclass(frozen=True, slots=True)
class CheckedText:
    """What `check_text` saw: the beginning, the first character that is no space, the last one."""

    start: str
    first: str
    last: str


def check_text(path: Path, options: ReadOptions) -> CheckedText:
    """Go through a text file once: decoded strictly, without NUL, not empty. Raises DataError."""
    name = options.called(path)
    start = first = last = ""
    done = lines = text_lines = 0  # bytes, and newlines among the bytes and the characters
    nul: int | None = None
    with _binary(path, name) as stream:
        chunk = stream.read(CHUNK_BYTES)
        if not chunk:
            raise DataError(f"{name}: the file is empty. Expected a header and labelled texts.")
        codec = _codec(options)
        if codec == "utf-8-sig":
            _refuse_utf16(name, chunk)
        decoder = codecs.getincrementaldecoder(codec)()
        while True:
            begun = decoder.getstate()[0]  # bytes of a character that the last chunk began
            try:
                text = decoder.decode(chunk, not chunk)
            except UnicodeDecodeError as error:
                here = begun + chunk
                at = len(here) - len(error.object) + error.start  # a mark is not in the object
                line = lines - begun.count(b"\n") + here.count(b"\n", 0, at) + 1
                remedy = (
                    f"--encoding {_likely_encoding(here) if codec.startswith('utf') else 'utf-8'}"
                )
                raise DataError(
                    f"{name}: not {options.encoding.upper()}: line {line}, byte offset "
                    f"{done - len(begun) + at} (0x{here[at]:02x}). Save it as UTF-8, or name its "
                    f"encoding, e.g. {remedy}."
                ) from error
            except UnicodeError as error:
                raise DataError(f"{name}: not {options.encoding.upper()}: {error}.") from error
            if nul is None and (found := text.find("\0")) >= 0:
                nul = text_lines + text.count("\n", 0, found) + 1
            text_lines += text.count("\n")
            if len(start) < 100_000:
                start = (start + text).lstrip("\r\n")[:100_000]
            first = first or text.lstrip()[:1]
            last = text[-1:] or last
            if not chunk:
                break
            done, lines = done + len(chunk), lines + chunk.count(b"\n")
            chunk = stream.read(CHUNK_BYTES)
    if nul is not None:
        raise DataError(
            f"{name}: NUL byte in line {nul}: a binary file, or text in another encoding. "
            "Expected plain text; if it is UTF-16, add --encoding utf-16."
        )
    if not first:
        raise DataError(f"{name}: the file is empty. Expected a header and labelled texts.")
    return CheckedText(start, first, last)


# Encodings that spreadsheets and mail still write, most of them Windows' own.
_OLD_ENCODINGS = [f"cp{page}" for page in (*range(1250, 1258), 874, 932, 949)]
_OLD_ENCODINGS += ["gb18030", "big5", "koi8_r"]


def _likely_encoding(data: bytes) -> str:
    """The encoding that bytes which are not UTF-8 are likely in; of equal ones, Windows-1252."""
    import charset_normalizer

    matches = charset_normalizer.from_bytes(data, cp_isolation=_OLD_ENCODINGS)
    best = matches.best()
    if best is None:
        return "latin-1"  # of any bytes; Windows-1252 leaves five undefined
    as_good = (m for m in matches if (m.chaos, m.coherence) == (best.chaos, best.coherence))
    western = any("cp1252" in match.could_be_from_charset for match in as_good)
    return "cp1252" if western else best.encoding


def windows_of_rows(
    rows: Iterable[tuple[int, Any]], size: int | None
) -> Iterator[tuple[list[int], list[Any]]]:
    """Numbers and rows, `size` at a time; all at once where it is None."""
    numbers: list[int] = []
    kept: list[Any] = []
    for number, row in rows:
        numbers.append(number)
        kept.append(row)
        if len(kept) == size:
            yield numbers, kept
            numbers, kept = [], []
    if kept:
        yield numbers, kept


def _refuse_utf16(name: str, data: bytes) -> None:
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        found = "UTF-32"
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        found = "UTF-16"
    else:
        return
    raise DataError(
        f"{name}: not UTF-8: line 1, byte offset 0 is the mark of {found}. "
        f"Save it as UTF-8, or add --encoding {found.lower()}."
    )


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

        some = False
        for numbers, window in windows_of_rows(rows(), size):
            some = True
            by_index = list(zip(*window, strict=True))
            table = table_of_columns(name, stem_of(path), {}, numbers, "line")
            yield replace(
                table,
                columns=columns,
                get=partial(values_at, by_index, where),
                notes=(*notes, *_ragged_notes(name, width, ragged)),
            )
    if not some:
        raise DataError(
            f"{name}: a header ({listed(columns)}) but no rows. Expected labelled texts below it."
        )


def values_at(values: Sequence[Sequence[Any]], where: Mapping[str, int], column: str) -> list[Any]:
    return list(values[where[column]])


def _values_of_key(rows: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [row.get(key) for row in rows]


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
    line, found = ragged[0]
    more = f" ({len(ragged) - 1:,} more such rows)" if len(ragged) > 1 else ""
    separator = "tab" if delimiter == "\t" else f"'{delimiter}'"
    return (
        f"{name}: line {line} has {found} fields, expected {len(columns)} as in the header "
        f"({listed(columns)}){more}. Put texts that hold a {separator} in double quotes, or add "
        "--on-bad-rows drop."
    )


def read_json_file(path: Path, options: ReadOptions, size: int | None) -> Iterator[Table]:
    """JSON lines, one object a line; or one list of objects, which is read as a whole."""
    name = options.called(path)
    listing = check_text(path, options).first == "["
    unit = "row" if listing else "line"

    # Only "\n" ends a line here: U+2028 and others may stand within a JSON string.
    with open_text(path, options, newline="\n") as stream:

        def values() -> Iterator[tuple[int, Any]]:
            if listing:
                yield from enumerate(_json_value(stream.read(), name, 1), start=1)
                return
            for n, line in enumerate(stream, start=1):
                if line.strip():
                    yield n, _json_value(line.removesuffix("\n"), name, n)

        def rows() -> Iterator[tuple[int, dict[str, Any]]]:
            wrong: tuple[int, str] | None = None
            for number, row in values():
                if isinstance(row, dict):
                    yield number, row
                elif wrong is None:
                    wrong = number, kind_of(row)
            if wrong is not None:
                raise DataError(
                    f"{name}: {unit} {wrong[0]} holds {wrong[1]}, expected an object such as "
                    '{"text": "a quiet film", "label": "positive"}.'
                )

        some = False
        for numbers, window in windows_of_rows(rows(), size):
            if not some and len(window) == 1:
                _refuse_columns(window[0], name)
            some = True
            columns = tuple(dict.fromkeys(k for row in window for k in row))
            table = table_of_columns(name, stem_of(path), {}, numbers, unit)
            yield replace(
                table,
                columns=columns,
                get=partial(_values_of_key, window),
            )
    if not some:
        raise DataError(f"{name}: an empty list. Expected objects with a text and a label.")


def _refuse_columns(only: Mapping[str, Any], name: str) -> None:
    """Refuse a file that is one object of columns, as pandas' to_json writes unless told."""
    if only and all(isinstance(v, list | dict) for v in only.values()):
        raise DataError(
            f"{name}: one object of {listed(list(only))}, each a list or an object, expected one "
            "object a line, or one list of objects. From pandas: "
            "to_json(path, orient='records', lines=True)."
        )


def _json_value(text: str, name: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}: line {line + error.lineno - 1} is not JSON: {error.msg} at column "
            f"{error.colno}. Expected one object a line, or one list of objects."
        ) from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{name}: line {line} cannot be read as JSON: {error}.") from error


def read_parquet(path: Path, options: ReadOptions, size: int | None) -> Iterator[Table]:
    """A Parquet file. ClassLabel names are taken from what `datasets` wrote in its schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = options.called(path)
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{name}: the file is empty. Expected labelled texts.")

    def get(column: str) -> list[Any]:
        try:
            with pq.ParquetFile(path) as file:
                return list(file.read(columns=[column]).column(column).to_pylist())
        except (pa.ArrowException, OSError) as error:
            raise DataError(_bad_parquet(name, error)) from error

    try:
        with pq.ParquetFile(path) as file:
            schema, n = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(_bad_parquet(name, error)) from error
    if n == 0:
        raise DataError(f"{name}: columns ({listed(schema.names)}) but no rows.")
    whole = Table(
        name=name,
        stem=stem_of(path),
        columns=tuple(schema.names),
        numbers=range(1, n + 1),
        unit="row",
        get=get,
        class_names=_class_names(schema.metadata or {}),
    )
    if size is None:
        yield whole
        return
    refuse_repeated_columns(whole)
    where = {c: i for i, c in enumerate(schema.names)}

    def rows() -> Iterator[tuple[int, tuple[Any, ...]]]:
        try:
            # Read in small pieces: a file may be one row group.
            with pq.ParquetFile(path, buffer_size=CHUNK_BYTES, pre_buffer=False) as file:
                done = 0
                for batch in file.iter_batches(batch_size=size):
                    columns = [c.to_pylist() for c in batch.columns]
                    yield from enumerate(zip(*columns, strict=True), start=done + 1)
                    done += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(_bad_parquet(name, error)) from error

    for numbers, window in windows_of_rows(rows(), size):
        by_index = list(zip(*window, strict=True))
        yield replace(
            whole,
            numbers=numbers,
            get=partial(values_at, by_index, where),
        )


def _bad_parquet(name: str, error: Exception) -> str:
    cause = short(" ".join(str(error).split()), 160).rstrip(".")
    return f"{name}: cannot be read as Parquet: {cause}. Write or download it again."


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """ClassLabel names by column, from the schema metadata that `datasets` writes."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            column: tuple(str(n) for n in feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def read_lines(path: Path, options: ReadOptions, size: int | None) -> Iterator[Table]:
    """A .txt file: one text a line."""
    check_text(path, options)
    with open_text(path, options, newline="\n") as stream:
        lines = (line.removesuffix("\n").removesuffix("\r") for line in stream)
        for numbers, window in windows_of_rows(enumerate(lines, start=1), size):
            yield table_of_columns(
                options.called(path), stem_of(path), {"text": window}, numbers, "line"
            )


FORMATS: dict[str, Callable[[Path, ReadOptions, int | None], Iterator[Table]]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".jsonl": read_json_file,
    ".ndjson": read_json_file,
    ".json": read_json_file,
    ".parquet": read_parquet,
}


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
        text = only_column(
            table, [c for c in table.columns if c != label and looks_like_texts(table, c)], "text"
        )
    if label is None:
        label = only_column(
            table, [c for c in table.columns if c != text and looks_like_labels(table, c)], "label"
        )
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
    return text, label, said


def known_column(table: Table, column: str, flag: str) -> None:
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
    found: dict[str, list[str]] = {}
    for column in table.columns:
        key = re.sub(r"[\s\-]+", "_", column.strip().lower())
        if key in names and column not in taken:
            found.setdefault(key, []).append(column)
    if names[0] in found:
        found = {names[0]: found[names[0]]}
    columns = [c for group in found.values() for c in group]
    if len(columns) > 1:
        raise DataError(
            f"{table.name}: {listed(columns)} could each be the {role} column. "
            f"Name one with --{role}-column. Columns: {listed(table.columns)}."
        )
    return columns[0] if columns else None


def only_column(table: Table, candidates: Sequence[str], role: str) -> str:
    if len(candidates) == 1:
        return candidates[0]
    found = f"{listed(candidates)} all look like one" if candidates else "none looks like one"
    raise DataError(
        f"{table.name}: cannot tell which is the {role} column: {found}. "
        f"Name it with --{role}-column. Columns: {listed(table.columns)}."
    )


def looks_like_texts(table: Table, column: str) -> bool:
    """Whether a column looks like texts: mostly distinct strings of words or of some length."""
    values = [v for v in table.get(column)[:2_000] if v is not None and v != ""]
    if not values or not all(isinstance(v, str) for v in values):
        return False
    worded = sum(any(map(str.isalpha, v)) and (" " in v.strip() or len(v) >= 20) for v in values)
    return worded > len(values) / 2 and len(set(values)) > len(values) / 2


def looks_like_labels(table: Table, column: str) -> bool:
    """Whether a column looks like labels: short values, few distinct ones."""
    values = [v for v in table.get(column) if v is not None and v != ""]
    if not all(isinstance(v, str | int | float) and len(str(v)) <= 60 for v in values):
        return False
    return 2 <= len(set(values)) <= min(100, max(2, len(values) // 2))


def texts_of_column(table: Table, column: str) -> list[str | None]:
    """A column's values, all strings or None. Raises DataError for anything else."""
    values = [None if is_nan(v) else v for v in table.get(column)]
    for i, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, str):
            raise DataError(
                f"{table.name}: column {column!r} holds {kind_of(value)} ({table.at(i)}: "
                f"{short(repr(value), 40)}), expected texts. Choose another with --text-column, "
                "or write it as a string."
            )
        if not value.isascii():
            check_unicode(value, f"{table.name}: {table.at(i)}, column {column!r}")
    return values


def check_unicode(value: str, where: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: half of a surrogate pair (\\u{ord(value[error.start]):04x}) at character "
            f"{error.start}, which is not Unicode text. Correct or remove it."
        ) from error


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


# --- paths ----------------------------------------------------------------------------------


def path_is(path: Path, question: Callable[[Path], bool]) -> bool:
    try:
        return question(path)
    except (OSError, ValueError):  # a name too long or with a NUL names nothing
        return False


def look_alike(path: Path) -> str:
    """A name in the same folder that looks like the one asked for, as a sentence, or nothing."""
    try:
        names = [p.name for p in path.parent.iterdir() if p.is_dir() or format_of(p) in FORMATS]
    except OSError:
        return ""
    by_lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(path.name.lower(), by_lower, n=1, cutoff=0.7)
    if not near:
        return ""
    found = by_lower[near[0]]
    shown = found if str(path.parent) == "." else str(path.parent / found)
    return f" Did you mean {shown!r}?"


# --- unlabelled files, and writing ----------------------------------------------------------


def read_texts(path: Path, text_column: str | None = None, encoding: str = "utf-8") -> TextTable:
    """Read a CSV, TSV, JSONL, Parquet or .txt file (one text a line) whose texts get predictions.

    All rows are kept, in order; a missing or blank text is "" and counted. Raises DataError.
    """
    (whole,) = open_texts(path, text_column, encoding).windows(None)
    return whole


def open_texts(path: Path, text_column: str | None = None, encoding: str = "utf-8") -> TextFile:
    """Go through such a file, a window of rows at a time: a TextFile to read again, in windows.

    Every fault of the file is found here. Raises DataError.
    """
    path = Path(path)
    if not path_is(path, Path.is_file):
        found = "is a folder, expected a file" if path_is(path, Path.is_dir) else "no such file"
        raise DataError(f"{str(path)!r}: {found}.{look_alike(path)}")
    options = ReadOptions(encoding)
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
    rows = blank = 0
    for table in _stream(path, options, WINDOW_ROWS):
        texts = texts_of_column(table, column)
        rows += len(texts)
        blank += sum(not t or t.isspace() for t in texts)
    return TextFile(path, options, head.columns, column, rows, blank)


def _stream(path: Path, options: ReadOptions, size: int | None) -> Iterator[Table]:
    """A file's rows as tables of `size` rows each. Raises DataError."""
    if format_of(path) == ".txt":
        yield from read_lines(path, options, size)
        return
    for table in FORMATS[known_format(path, options)](path, options, size):
        refuse_repeated_columns(table)
        yield table


def _text_table(table: Table, columns: Sequence[str], text_column: str) -> TextTable:
    texts = ["" if not t or t.isspace() else t for t in texts_of_column(table, text_column)]
    return TextTable({c: table.get(c) for c in columns}, text_column, texts, texts.count(""))


def check_writable(path: Path) -> str:
    """Give a file's ending, in lower case; raise DataError where `write_table` has no such form."""
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise DataError(
            f"{path.name}: cannot write {suffix or 'a file without ending'!r}, expected one of "
            f"{', '.join(WRITERS)}."
        )
    return suffix


def write_table(path: Path, columns: Columns) -> None:
    """Write columns of n values as .csv, .tsv, .jsonl or .parquet, whole or not at all.

    What `read_texts` reads back is equal, as far as the format can say it. Raises DataError.
    """
    write_windows(path, [columns], lambda: [columns])


def write_windows(
    path: Path, windows: Iterable[Columns], like: Callable[[], Iterable[Columns]]
) -> None:
    """Write rows that come in windows, one in memory at a time; whole or not at all.

    `like()` gives windows of the same columns and types: a Parquet file names its types before its
    first row, so they are taken from there, before the first of `windows` is asked for. The file is
    the same as if all rows came in one window (Parquet: but for its row groups). Raises DataError.
    """
    path = Path(path)
    suffix = check_writable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}.") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            WRITERS[suffix](stream, _even(path, windows), lambda: _even(path, like()))
        # mkstemp makes the file private; a result is as readable as any other file of the user.
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DataError(f"{path}: cannot be written: {error.strerror or error}.") from error
        raise


def _even(path: Path, windows: Iterable[Columns]) -> Iterator[Columns]:
    for columns in windows:
        sizes = {c: len(v) for c, v in columns.items()}
        if len(set(sizes.values())) > 1:
            raise DataError(f"{path.name}: columns of different lengths: {sizes}.")
        yield columns


def _write_delimited(stream: BinaryIO, windows: Iterable[Columns], delimiter: str) -> None:
    out = io.TextIOWrapper(stream, "utf-8", newline="")
    plain, quoted = (
        csv.writer(out, delimiter=delimiter, lineterminator="\n", quoting=quoting)
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    )
    for i, columns in enumerate(windows):
        rows = [[_cell_text(v) for v in row] for row in zip(*columns.values(), strict=True)]
        for row in rows if i else [list(columns), *rows]:
            # csv.writer leaves a lone "\r" bare when lines end in "\n"; a reader would end the
            # row there.
            (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
    out.detach()


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _write_jsonl(stream: BinaryIO, windows: Iterable[Columns], _: Any) -> None:
    for columns in windows:
        names = list(columns)
        for row in zip(*columns.values(), strict=True):
            line = json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, default=str)
            stream.write(line.encode("utf-8") + b"\n")


def _write_parquet(
    stream: BinaryIO, windows: Iterable[Columns], like: Callable[[], Iterable[Columns]]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = None
        for columns in like():
            found = pa.table({c: list(v) for c, v in columns.items()}).schema
            schema = found if schema is None else pa.unify_schemas(
                [schema, found], promote_options="permissive"
            )  # fmt: skip
        with pq.ParquetWriter(stream, schema) as writer:
            for columns in windows:
                cells = {c: list(v) for c, v in columns.items()}
                writer.write_table(pa.table(cells, schema=schema))
    except pa.ArrowException as error:
        raise DataError(f"cannot be written as Parquet: {error}. Write .jsonl instead.") from error


WRITERS: dict[
    str, Callable[[BinaryIO, Iterable[Columns], Callable[[], Iterable[Columns]]], None]
] = {
    ".csv": lambda stream, windows, _: _write_delimited(stream, windows, ","),
    ".tsv": lambda stream, windows, _: _write_delimited(stream, windows, "\t"),
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


# --- words ----------------------------------------------------------------------------------


def short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(names: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(repr(short(str(n), 40)) for n in names[:limit])
    return shown + (f" and {len(names) - limit:,} more" if len(names) > limit else "")


def counted(n: int, noun: str) -> str:
    """A number of things: "1 seed", "1,200 seeds"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def rows_word(n: int) -> str:
    return counted(n, "row")


def kind_of(value: Any) -> str:
    """What a value is, in a user's words, in the plural where it names a column's content."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true / false values"),
        ((int, float, Decimal), "numbers"),
        (str, "strings"),
        ((list, tuple), "lists"),
        (dict, "objects"),
        (bytes, "bytes"),
    )
    return next((word for kind, word in kinds if isinstance(value, kind)), type(value).__name__)
