"""Tables written out as CSV, TSV, JSON lines or Parquet, by the file's ending."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tunelab.core import files
from tunelab.core.cells import safe_cell
from tunelab.core.errors import DataError

__all__ = [
    "WRITERS",
    "check_writable",
    "write_table",
    "write_windows",
]


Columns = Mapping[str, Sequence[Any]]


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

    What `read_texts` reads back is equal, as far as the format can say it; in CSV and TSV but for
    the apostrophe before what a spreadsheet would compute (`core.cells`). Raises DataError.
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
        with files.replacing(path) as beside, beside.open("wb") as stream:
            WRITERS[suffix](stream, _even(path, windows), lambda: _even(path, like()))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}.") from error


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
        for row in rows if i else [[str(safe_cell(c)) for c in columns], *rows]:
            # csv.writer leaves a lone "\r" bare when lines end in "\n"; a reader would end the
            # row there.
            (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
    out.detach()


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(safe_cell(value))


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
            own = pa.table({c: list(v) for c, v in columns.items()}).schema
            schema = (
                own
                if schema is None
                else pa.unify_schemas([schema, own], promote_options="permissive")
            )
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
