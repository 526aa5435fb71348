"""Parquet and Arrow, read in windows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.core.errors import DataError
from tunelab.core.words import listed, short
from tunelab.data.content import refuse_other_content
from tunelab.data.decode import CHUNK_BYTES
from tunelab.data.limits import (
    LARGEST_VALUE,
    MOST_ROWS,
    refuse_many_columns,
    refuse_unpacked,
    refuse_value,
)
from tunelab.data.table import (
    ReadOptions,
    Table,
    refuse_repeated_columns,
    stem_of,
    values_at,
    windows_of_rows,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "read_arrow",
    "read_parquet",
]


def read_parquet(path: Path, options: ReadOptions, size: int | None) -> Iterator[Table]:
    """A Parquet file. ClassLabel names are taken from what `datasets` wrote in its schema."""
    import pyarrow.parquet as pq

    name = options.called(path)
    _check_head(path, name, b"PAR1")
    with _faults_of(name, "Parquet"), pq.ParquetFile(path) as file:
        schema, meta = file.schema_arrow, file.metadata
        unpacked = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        packed = path.stat().st_size
        refuse_unpacked(name, unpacked, packed)
        n = meta.num_rows
    repeated = _columns_kept_once(schema, unpacked, packed)

    def batches(columns: list[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
        # Read in small pieces: a file may be one row group.
        with pq.ParquetFile(
            path, buffer_size=CHUNK_BYTES, pre_buffer=False, read_dictionary=repeated
        ) as file:
            yield from file.iter_batches(batch_size=rows, columns=columns)

    yield from _tables(path, _Columnar(name, "Parquet", schema, n, batches, options), size)


# Bytes of a file, unpacked, whose distinct values may all lie in memory; and what is unusual.
_KEPT_ONCE = 8 << 20
_UNUSUAL_TIMES = 20


def _columns_kept_once(schema: pa.Schema, unpacked: int, packed: int) -> list[str]:
    """The columns whose repeated values are read once: those of strings, in a file that is small or
    unpacks to unusually much (bytes).

    A file of some KB may hold a value of hundreds of MB in each of a thousand rows. The metadata of
    single columns would tell more, but Arrow ends the process where they are broken.
    """
    import pyarrow as pa

    if _KEPT_ONCE < unpacked <= _UNUSUAL_TIMES * packed:
        return []
    return [f.name for f in schema if pa.types.is_string(f.type)]


def read_arrow(path: Path, options: ReadOptions, size: int | None) -> Iterator[Table]:
    """An Arrow file or stream, as `datasets` saves it."""
    import pyarrow as pa

    name = options.called(path)
    _check_head(path, name, b"ARROW1", b"\xff\xff\xff\xff")

    def batches(columns: list[str] | None, _: int) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(path)) as source:
            with _faults_of(name, "Arrow"):
                if source.read(6) == b"ARROW1":
                    file = pa.ipc.open_file(source)
                    every = (file.get_batch(i) for i in range(file.num_record_batches))
                else:
                    source.seek(0)
                    every = iter(pa.ipc.open_stream(source))
            for batch in every:
                refuse_unpacked(name, batch.nbytes, path.stat().st_size)
                yield batch if columns is None else batch.select(columns)

    schema, n = None, 0
    with _faults_of(name, "Arrow"):
        for batch in batches(None, 0):
            batch.validate(full=True)  # what is mapped is not checked as it is read
            schema, n = batch.schema, n + batch.num_rows
    if schema is None:
        raise DataError(f"{name}: no rows. Expected labelled texts.")
    yield from _tables(path, _Columnar(name, "Arrow", schema, n, batches, options), size)


# --- tables ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columnar:
    """A file of columns: `batches(columns, rows)` gives its rows, some at a time."""

    name: str
    form: str
    schema: pa.Schema
    rows: int
    batches: Callable[[list[str] | None, int], Iterator[pa.RecordBatch]]
    options: ReadOptions

    def column(self, column: str) -> list[Any]:
        """All values of a column."""
        values: list[Any] = []
        with _faults_of(self.name, self.form):
            for batch in self.batches([column], 64 * 1024):
                values += _python_values(batch.column(0), self._at(column, len(values)))
            if len(values) != self.rows:
                raise ValueError(f"column {column!r} has {len(values):,} of {self.rows:,} rows")
        return values

    def windows(self, rows: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Pairs (row from 1, its values), read some at a time."""
        done = 0
        with _faults_of(self.name, self.form):
            for batch in self.batches(None, rows):
                columns = [
                    _python_values(values, self._at(column, done))
                    for column, values in zip(self.schema.names, batch.columns, strict=True)
                ]
                yield from enumerate(zip(*columns, strict=True), start=done + 1)
                done += batch.num_rows

    def _at(self, column: str, done: int) -> _Place:
        return _Place(self.name, column, done, keep_broken=self.options.drop_ragged)


def _tables(path: Path, file: _Columnar, size: int | None) -> Iterator[Table]:
    names = file.schema.names
    refuse_many_columns(file.name, len(names))
    if file.rows == 0:
        raise DataError(f"{file.name}: columns ({listed(names)}) but no rows.")
    if size is None and file.rows > MOST_ROWS:
        raise DataError(
            f"{file.name}: {file.rows:,} rows, expected at most {MOST_ROWS:,}. Take some of them."
        )
    whole = Table(
        name=file.name,
        stem=stem_of(path),
        columns=tuple(names),
        numbers=range(1, file.rows + 1),
        unit="row",
        get=file.column,
        class_names=_class_names(file.schema.metadata or {}),
    )
    if size is None:
        yield whole
        return
    refuse_repeated_columns(whole)
    where = {c: i for i, c in enumerate(names)}
    for numbers, window in windows_of_rows(file.windows(size), size):
        by_index = list(zip(*window, strict=True))
        yield replace(
            whole,
            numbers=numbers,
            get=partial(values_at, by_index, where),
        )


# --- values ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """Which values are read: those of a column, from a row on. `keep_broken`: bytes that are no
    text stay, as halves of surrogate pairs, for their rows to be dropped."""

    name: str
    column: str
    row: int
    keep_broken: bool


def _python_values(array: pa.Array, place: _Place) -> list[Any]:
    """Values as Python has them; repeated ones once. Raises DataError for what is no text."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        used = array.indices.unique().drop_null()  # the dictionary grows with the rows read
        distinct = _python_values(array.dictionary.take(used), place)
        by_index = dict(zip(used.to_pylist(), distinct, strict=True))
        return [by_index.get(i) for i in array.indices.to_pylist()]
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return list(array.to_pylist())
    import pyarrow.compute as pc

    longest = pc.max(pc.binary_length(array)).as_py() or 0
    if longest > LARGEST_VALUE:
        raise refuse_value(f"{place.name}: column {place.column!r}", longest)
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError:
        large = pa.types.is_large_string(array.type)
        raw = array.cast(pa.large_binary() if large else pa.binary()).to_pylist()
        return [_decoded(value, place, i) for i, value in enumerate(raw)]


def _decoded(value: bytes | None, place: _Place, row: int) -> str | None:
    if value is None:
        return None
    try:
        return value.decode("utf-8", "surrogateescape" if place.keep_broken else "strict")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place.name}: column {place.column!r} holds bytes that are not UTF-8, such as "
            f"{short(repr(value), 40)}. Write the file again, or add --on-bad-rows drop."
        ) from error


@contextmanager
def _faults_of(name: str, form: str) -> Iterator[None]:
    """What goes wrong in Arrow while a file is read, as a DataError."""
    import pyarrow as pa

    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        cause = short(" ".join(str(error).split()) or type(error).__name__, 160).rstrip(".")
        raise DataError(
            f"{name}: cannot be read as {form}: {cause}. Write or download it again."
        ) from error


def _check_head(path: Path, name: str, *marks: bytes) -> None:
    """Refuse a file that is empty, or begins as another kind of file does."""
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}.") from error
    if not head:
        raise DataError(f"{name}: the file is empty. Expected labelled texts.")
    refuse_other_content(name, head, marks)


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """ClassLabel names by column, from the schema metadata that `datasets` writes."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            column: tuple(str(n) for n in feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
