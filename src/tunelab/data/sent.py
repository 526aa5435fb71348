"""A source's rows as they travel to another machine, and as they are read there."""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace

from tunelab.core.sent import sent
from tunelab.core.values import DataSpec
from tunelab.data.sources import SOURCES, Source, source_kind
from tunelab.data.table import Table, table_of_columns

__all__ = ["key_of_rows", "read_source", "rows_to_send"]


def read_source(spec: DataSpec) -> Source:
    """The rows of a source: those that were sent to this machine, else read where they lie."""
    place = sent("rows", key_of_rows(spec))
    if place is None:
        return SOURCES[source_kind(spec.source)](spec)
    # Written by whoever runs this process, into a folder of its own.
    source: Source = pickle.loads(place.read_bytes())  # noqa: S301
    return source


def key_of_rows(spec: DataSpec) -> str:
    """What the rows of a source depend on, hashed; columns, classes and parts are chosen later."""
    reading = [spec.source, spec.encoding, spec.on_bad_rows, spec.quoting]
    return hashlib.sha256(json.dumps(reading).encode()).hexdigest()


def rows_to_send(spec: DataSpec) -> bytes:
    """The rows of a source as bytes, for `sent/rows/<key_of_rows>`. Raises DataError as `load`."""
    source = read_source(spec)
    parts = {part: [_in_memory(t) for t in tables] for part, tables in source.parts.items()}
    return pickle.dumps(replace(source, parts=parts))


def _in_memory(table: Table) -> Table:
    columns = {name: table.get(name) for name in table.columns}
    whole = table_of_columns(table.name, table.stem, columns, tuple(table.numbers), table.unit)
    return replace(whole, class_names=table.class_names, notes=table.notes)
