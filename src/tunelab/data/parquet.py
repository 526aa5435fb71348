"""Parquet, read in windows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tunelab.core.errors import DataError
from tunelab.core.words import listed, short
from tunelab.data.decode import CHUNK_BYTES
from tunelab.data.table import (
    ReadOptions,
    Table,
    refuse_repeated_columns,
    stem_of,
    values_at,
    windows_of_rows,
)

__all__ = [
    "read_parquet",
]


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
