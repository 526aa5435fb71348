"""Files of rows: CSV, TSV, JSON lines and Parquet read into columns, and written again.

Knows columns and their likely roles; knows nothing of classes or splits (that is data.py). May
import: errors and the standard library; pyarrow inside the functions that need it. May not import:
torch, transformers, any other part of tunelab. Whoever adds a file format writes a function
`(Path, ReadOptions) -> Table` and a row in FORMATS.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from tunelab.errors import DataError, suggest

__all__ = [
    "FORMATS",
    "WRITERS",
    "ReadOptions",
    "Table",
    "TextTable",
    "choose_columns",
    "read_file",
    "read_texts",
    "write_table",
]

# The csv module refuses fields over 128 KiB unless told; the most that every platform takes.
FIELD_LIMIT = 2**31 - 1

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
    """An unlabelled file: all its `columns` (n values each), and its `texts` (n; blank is "").

    `blank` counts the texts that are missing or only white space.
    """

    columns: dict[str, list[Any]]
    text_column: str
    texts: list[str]
    blank: int


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
    suffix = format_of(path)
    if suffix not in FORMATS:
        has = f"its name ends in {suffix!r}" if suffix else "its name has no ending"
        raise DataError(
            f"{options.called(path)}: {has}, expected one of {', '.join(FORMATS)}. "
            "Save it as one of these."
        )
    table = FORMATS[suffix](path, options)
    repeated = [c for c, n in Counter(table.columns).items() if n > 1]
    if repeated:
        raise DataError(
            f"{table.name}: column name {repeated[0]!r} stands more than once in "
            f"{listed(table.columns)}. Rename all but one."
        )
    return table


def table_of(
    name: str, stem: str, columns: Mapping[str, list[Any]], numbers: Sequence[int], unit: str
) -> Table:
    return Table(name, stem, tuple(columns), numbers, unit, columns.__getitem__)


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        data = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            data = gzip.decompress(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name}: not a whole gzip file ({error}). Download it again.") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}.") from error
    if not data:
        raise DataError(f"{name}: the file is empty. Expected a header and labelled texts.")
    return data


def _read_string(path: Path, options: ReadOptions) -> str:
    """A text file's content, decoded strictly, without a byte-order mark, line ends as they are."""
    name = options.called(path)
    data = _read_bytes(path, name)
    try:
        codec = codecs.lookup(options.encoding).name
        if codec == "utf-8":
            _refuse_utf16(name, data)
            codec = "utf-8-sig"
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        remedy = "--encoding latin-1" if codec.startswith("utf") else "--encoding utf-8"
        raise DataError(
            f"{name}: not {options.encoding.upper()}: line {line}, byte offset {error.start} "
            f"(0x{data[error.start]:02x}). Save it as UTF-8, or name its encoding, e.g. {remedy}."
        ) from error
    except UnicodeError as error:
        raise DataError(f"{name}: not {options.encoding.upper()}: {error}.") from error
    except LookupError as error:
        known = ("utf-8", "utf-16", "latin-1", "cp1252", "cp1251", "gb18030", "shift_jis", "big5")
        raise DataError(
            f"no such text encoding: {options.encoding!r}."
            f"{suggest(options.encoding, known, what='Common ones')}"
        ) from error
    nul = text.find("\0")
    if nul >= 0:
        line = text.count("\n", 0, nul) + 1
        raise DataError(
            f"{name}: NUL byte in line {line}: a binary file, or text in another encoding. "
            "Expected plain text; if it is UTF-16, add --encoding utf-16."
        )
    if not text.strip():
        raise DataError(f"{name}: the file is empty. Expected a header and labelled texts.")
    return text


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


def _read_delimited(path: Path, options: ReadOptions) -> Table:
    """A CSV or TSV file with a header: RFC 4180 quoting, any line ends, `;` and tabs noticed."""
    name = options.called(path)
    text = _read_string(path, options)
    delimiter = "\t" if format_of(path) == ".tsv" else _delimiter(text)
    notes = []
    if format_of(path) == ".csv" and delimiter != ",":
        shown = "tab" if delimiter == "\t" else repr(delimiter)
        notes.append(f"{name}: the separator is {shown}, as its header shows")

    records = _records(text, delimiter, name)
    _, header = next(records)
    columns = tuple(c.strip() or f"Unnamed: {i}" for i, c in enumerate(header))
    width = len(columns)
    rows: list[list[str]] = []
    lines: list[int] = []
    ragged: list[tuple[int, int]] = []
    for line, fields in records:
        if len(fields) == width:
            rows.append(fields)
            lines.append(line)
        elif width == 1 and not fields:  # with one column an empty line is an empty text
            rows.append([""])
            lines.append(line)
        elif len(fields) > 1 or (fields and fields[0].strip()):
            ragged.append((line, len(fields)))
    while width == 1 and rows and text.endswith(("\n", "\r")) and rows[-1] == [""]:
        rows.pop()  # empty lines at the end are the end
        lines.pop()
    if ragged and not options.drop_ragged:
        raise DataError(_ragged(name, columns, ragged, delimiter))
    if ragged:
        shown = ", ".join(str(line) for line, _ in ragged[:5])
        more = f" and {len(ragged) - 5:,} more" if len(ragged) > 5 else ""
        notes.append(
            f"{name}: dropped {rows_word(len(ragged))} whose number of fields is not {width} "
            f"(line{'s' if len(ragged) > 1 else ''} {shown}{more})"
        )
    if not rows:
        raise DataError(
            f"{name}: a header ({listed(columns)}) but no rows. Expected labelled texts below it."
        )
    by_index = list(zip(*rows, strict=True))
    where = {c: i for i, c in enumerate(columns)}
    return Table(
        name=name,
        stem=stem_of(path),
        columns=columns,
        numbers=lines,
        unit="line",
        get=lambda column: list(by_index[where[column]]),
        notes=tuple(notes),
    )


def _delimiter(text: str) -> str:
    """The first of comma, semicolon and tab that cuts the header in more than one field."""
    start = text.lstrip("\r\n")[:100_000]
    for delimiter in (",", ";", "\t"):
        if len(next(csv.reader(io.StringIO(start, newline=""), delimiter=delimiter))) > 1:
            return delimiter
    return ","


def _records(text: str, delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Pairs (line where the record begins, its fields); blank lines before the header skipped."""
    # Strict: otherwise a quote that is never closed swallows the rest of the file in silence.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
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


def _read_json(path: Path, options: ReadOptions) -> Table:
    """JSON lines, one object a line; or one list of objects."""
    name = options.called(path)
    text = _read_string(path, options)
    rows: list[Any]
    if text.lstrip().startswith("["):
        rows = _json_value(text, name, 1)
        numbers = list(range(1, len(rows) + 1))
        unit = "row"
    else:
        # Only "\n" ends a line here: U+2028 and others may stand within a JSON string.
        lines = [(n, s) for n, s in enumerate(text.split("\n"), start=1) if s.strip()]
        rows = [_json_value(s, name, n) for n, s in lines]
        numbers = [n for n, _ in lines]
        unit = "line"
    for number, row in zip(numbers, rows, strict=True):
        if not isinstance(row, dict):
            raise DataError(
                f"{name}: {unit} {number} holds {kind_of(row)}, expected an object such as "
                '{"text": "a quiet film", "label": "positive"}.'
            )
    if not rows:
        raise DataError(f"{name}: an empty list. Expected objects with a text and a label.")
    columns = tuple(dict.fromkeys(k for row in rows for k in row))
    return Table(
        name=name,
        stem=stem_of(path),
        columns=columns,
        numbers=numbers,
        unit=unit,
        get=lambda column: [row.get(column) for row in rows],
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


def _read_parquet(path: Path, options: ReadOptions) -> Table:
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
    return Table(
        name=name,
        stem=stem_of(path),
        columns=tuple(schema.names),
        numbers=range(1, n + 1),
        unit="row",
        get=get,
        class_names=_class_names(schema.metadata or {}),
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


def _read_lines(path: Path, options: ReadOptions) -> Table:
    """A .txt file: one text a line."""
    text = _read_string(path, options)
    lines = text.removesuffix("\n").split("\n")
    columns: dict[str, list[Any]] = {"text": [line.removesuffix("\r") for line in lines]}
    numbers = range(1, len(lines) + 1)
    return table_of(options.called(path), stem_of(path), columns, numbers, "line")


FORMATS: dict[str, Callable[[Path, ReadOptions], Table]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
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


def texts_of(table: Table, column: str) -> list[str | None]:
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


def is_so(path: Path, question: Callable[[Path], bool]) -> bool:
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
    path = Path(path)
    if not is_so(path, Path.is_file):
        found = "is a folder, expected a file" if is_so(path, Path.is_dir) else "no such file"
        raise DataError(f"{str(path)!r}: {found}.{look_alike(path)}")
    options = ReadOptions(encoding)
    is_plain = format_of(path) == ".txt"
    table = _read_lines(path, options) if is_plain else read_file(path, options)
    if text_column is not None:
        known_column(table, text_column, "--text-column")
    column = text_column or usual_column(table, TEXT_NAMES, "text", set())
    if column is None and len(table.columns) == 1:
        column = table.columns[0]
    if column is None:
        column = only_column(
            table, [c for c in table.columns if looks_like_texts(table, c)], "text"
        )
    texts = ["" if not t or t.isspace() else t for t in texts_of(table, column)]
    return TextTable(
        columns={c: table.get(c) for c in table.columns},
        text_column=column,
        texts=texts,
        blank=texts.count(""),
    )


def check_writable(path: Path) -> str:
    """Give a file's ending, in lower case; raise DataError where `write_table` has no such form."""
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise DataError(
            f"{path.name}: cannot write {suffix or 'a file without ending'!r}, expected one of "
            f"{', '.join(WRITERS)}."
        )
    return suffix


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of n values as .csv, .tsv, .jsonl or .parquet, whole or not at all.

    What `read_texts` reads back is equal, as far as the format can say it. Raises DataError.
    """
    path = Path(path)
    suffix = check_writable(path)
    sizes = {c: len(v) for c, v in columns.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"{path.name}: columns of different lengths: {sizes}.")
    content = WRITERS[suffix](columns)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}.") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
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


def _csv_bytes(columns: Mapping[str, Sequence[Any]], delimiter: str = ",") -> bytes:
    rows = [[_cell(v) for v in row] for row in zip(*columns.values(), strict=True)]
    # csv.writer leaves a lone "\r" bare when lines end in "\n"; a reader would end the row there.
    bare = any("\r" in cell for row in (list(columns), *rows) for cell in row)
    out = io.StringIO(newline="")
    writer = csv.writer(
        out,
        delimiter=delimiter,
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL,
    )
    writer.writerow(list(columns))
    writer.writerows(rows)
    return out.getvalue().encode("utf-8")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _jsonl_bytes(columns: Mapping[str, Sequence[Any]]) -> bytes:
    names = list(columns)
    lines = [
        json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, default=str) + "\n"
        for row in zip(*columns.values(), strict=True)
    ]
    return "".join(lines).encode("utf-8")


def _parquet_bytes(columns: Mapping[str, Sequence[Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    try:
        pq.write_table(pa.table({c: list(v) for c, v in columns.items()}), out)
    except pa.ArrowException as error:
        raise DataError(f"cannot be written as Parquet: {error}. Write .jsonl instead.") from error
    return out.getvalue()


WRITERS: dict[str, Callable[[Mapping[str, Sequence[Any]]], bytes]] = {
    ".csv": _csv_bytes,
    ".tsv": lambda columns: _csv_bytes(columns, "\t"),
    ".jsonl": _jsonl_bytes,
    ".parquet": _parquet_bytes,
}


# --- words ----------------------------------------------------------------------------------


def short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(names: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(repr(short(str(n), 40)) for n in names[:limit])
    return shown + (f" and {len(names) - limit:,} more" if len(names) > limit else "")


def rows_word(n: int) -> str:
    return f"{n:,} row{'s' if n != 1 else ''}"


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
