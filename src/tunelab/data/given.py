"""Rows that are given in Python, written down as files that are read like any other.

A study's trials run in processes of their own, today or another day: they need rows that lie on a
disk. What is written is called by its content, so that the same rows are the same file.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from tunelab.core.errors import DataError
from tunelab.core.files import scratch_folder
from tunelab.core.study_folder import GIVEN_ROWS
from tunelab.core.tasks import label_sets
from tunelab.core.values import Dataset, Split
from tunelab.core.words import kind_of, listed, rows_word, short
from tunelab.data.folders import PART_NAMES
from tunelab.data.texts import read_texts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = [
    "GivenRows",
    "coded_rows",
    "given_as",
    "source_of",
    "sources_of",
    "texts_of",
]

# A frame of pandas or polars, an Arrow table, a `Dataset` or `DatasetDict` of `datasets`, columns
# by name, a list of rows, parts by name; or texts, with their labels beside them.
GivenRows: TypeAlias = object

_CALLED = re.compile(r"(?P<kind>[A-Za-z]+)-[0-9a-f]{12}")
_EXPECTED_ROWS = (
    "a file's name, a DataFrame, an Arrow table, a Dataset or DatasetDict of `datasets`, columns "
    "by name, a list of rows, or texts with labels=[...]"
)


def given_as(path: Path) -> str | None:
    """What rows that lie in a file or folder were given as ("DataFrame"); None for any other."""
    called = _CALLED.fullmatch(path.name.removesuffix(".parquet"))
    return called["kind"] if called and path.parent.name == GIVEN_ROWS else None


def _is_frame(value: object) -> bool:
    """Whether a value has columns, as frames and Arrow tables do."""
    return hasattr(value, "columns") or hasattr(value, "column_names")


@contextmanager
def source_of(given: str | Path | GivenRows, labels: object = None) -> Iterator[str]:
    """What a `DataSpec` names of data that a function was given; "" for none.

    Rows are written down for as long as this lasts: a study keeps them (`study.keep_given`).
    Raises DataError for what holds no rows, or values that no file of rows has.
    """
    if given is not None and not isinstance(given, str | Path):
        with scratch_folder("tunelab-rows-") as folder:
            yield str(_write_given(given, labels, folder))
        return
    if labels is not None:
        raise DataError(
            f"labels: found beside data {str(given)!r}, expected with a list of texts. Of a file, "
            "name the column: label_column='label'."
        )
    yield "" if given is None else str(given)


def sources_of(given: object, inside: ExitStack) -> object:
    """`source_of` of one or several: those that are named stay as they are, with what says how they
    are read; rows are written down for as long as the stack is open.
    """
    if isinstance(given, list | tuple) and not _is_list_of_rows(given[:1]):
        return [sources_of(one, inside) for one in given]
    named = given is None or isinstance(given, str | Path)
    if named or (isinstance(given, Mapping) and "source" in given):
        return given
    return inside.enter_context(source_of(given))


def coded_rows(texts: Sequence[str], labels: NDArray[np.int64], names: Sequence[str]) -> GivenRows:
    """Rows to be given whose labels (n,) index `names`: these stay as they are, in their order."""
    return _with_classes(_table_of_columns("X", {"text": texts, "label": labels}), "label", names)


def texts_of(frame: GivenRows) -> list[str]:
    """The texts of a frame without labels; as in a file, the column is found by its name or its
    content. Raises DataError where none is, or several are.
    """
    with scratch_folder("tunelab-rows-") as folder:
        return read_texts(_write_given(frame, None, folder)).texts


def _write_given(rows: GivenRows, labels: object, folder: Path) -> Path:
    """Write rows below a folder, and give what a `DataSpec` names: a file, or a folder of parts.

    Raises DataError for what holds no rows, or values that no file of rows has.
    """
    kind, parts = _tables_by_part(rows, labels)
    folder = folder / GIVEN_ROWS
    folder.mkdir(parents=True, exist_ok=True)
    packed = {part: _as_parquet(kind, table) for part, table in parts.items()}
    digest = hashlib.sha256(json.dumps(list(packed)).encode())
    for content in packed.values():
        digest.update(hashlib.sha256(content).digest())
    place = folder / f"{kind}-{digest.hexdigest()[:12]}"
    if list(packed) == [""]:
        place = place.with_suffix(".parquet")
        place.write_bytes(packed[""])
        return place
    place.mkdir(exist_ok=True)
    for part, content in packed.items():
        (place / f"{part}.parquet").write_bytes(content)
    return place


# --- what it is -----------------------------------------------------------------------------


def _tables_by_part(rows: GivenRows, labels: object) -> tuple[str, dict[str, pa.Table]]:
    """What rows are called, and their tables by part; under "" those of one part, to be split."""
    if labels is not None:
        return "texts", {"": _texts_and_labels(rows, labels)}
    if isinstance(rows, Dataset):
        return "Dataset", {part: _split_table(rows, s) for part, s in rows.parts.items()}
    if isinstance(rows, Mapping) and rows and not _are_columns(rows):
        return _kind_of_parts(rows), _tables_of_parts(_kind_of_parts(rows), rows)
    if isinstance(rows, Mapping | list | tuple):
        return "rows", {"": _as_table("rows", rows)}
    kind = type(rows).__name__
    kind = kind if re.fullmatch("[A-Za-z]+", kind) else "Table"
    return kind, {"": _as_table(kind, rows)}


def _are_columns(rows: Mapping[str, object]) -> bool:
    """Whether a mapping is one of columns: its values are sequences of what rows hold."""
    return not any(
        _is_frame(v) or isinstance(v, Mapping) or _is_list_of_rows(v) for v in rows.values()
    )


def _is_list_of_rows(value: object) -> TypeGuard[Sequence[Mapping[str, object]]]:
    first = value[0] if isinstance(value, list | tuple) and value else None
    return isinstance(first, Mapping) and "source" not in first


def _kind_of_parts(rows: Mapping[str, object]) -> str:
    return "DatasetDict" if type(rows).__name__ == "DatasetDict" else "parts"


def _tables_of_parts(kind: str, rows: Mapping[str, object]) -> dict[str, pa.Table]:
    """Tables by part, of a mapping whose keys name the parts; another split is not used."""
    tables: dict[str, pa.Table] = {}
    for name, value in rows.items():
        part = PART_NAMES.get(str(name).lower()) or ("" if len(rows) == 1 else None)
        if part in tables:
            raise DataError(f"{kind}: more than one {part} part: {listed(list(map(str, rows)))}.")
        if part is not None:
            tables[part] = _as_table(f"{kind} {name}", value)
    if not tables.keys() & {"train", ""}:
        raise DataError(
            f"{kind}: no train part; found {listed(list(map(str, rows)))}. Expected train, and "
            "validation and test if there are any."
        )
    return tables


# --- tables ---------------------------------------------------------------------------------


def _as_table(name: str, rows: GivenRows) -> pa.Table:
    """Rows as one Arrow table, whatever they came as. Raises DataError."""
    import pyarrow as pa

    if isinstance(rows, Mapping):
        return _table_of_columns(name, rows)
    if _is_list_of_rows(rows):
        odd = next((i for i, row in enumerate(rows) if not isinstance(row, Mapping)), None)
        if odd is not None:
            raise DataError(f"{name}: row {odd} is {kind_of(rows[odd])}, expected a mapping.")
        keys = dict.fromkeys(k for row in rows for k in row)
        return _table_of_columns(name, {k: [row.get(k) for row in rows] for k in keys})
    if isinstance(rows, list | tuple):
        raise DataError(
            f"data: found a list of {len(rows):,} {_what_in(rows)} and no labels. Give the labels "
            "of texts too: labels=[...], one for each text."
        )
    datasets = sys.modules.get("datasets")
    if datasets is not None and isinstance(rows, datasets.Dataset):
        table = rows.with_format("arrow")[:]
        return _plain_table(name, table, rows.features.arrow_schema.metadata)
    if datasets is not None and isinstance(rows, datasets.IterableDataset):
        raise DataError(
            f"{name}: its rows come one by one, expected those that are to be read: "
            "datasets.Dataset.from_list(list(rows.take(10_000)))."
        )
    if type(rows).__module__.startswith("pandas") and _is_frame(rows):
        return _table_of_columns(name, _columns_of_pandas(name, rows))
    if _is_frame(rows) and hasattr(rows, "__arrow_c_stream__"):
        table = pa.table(rows)
        return _plain_table(name, table, table.schema.metadata)
    lazy = " Collect it first: frame.collect()." if hasattr(rows, "collect") else ""
    raise DataError(f"data: found {type(rows).__name__}, expected {_EXPECTED_ROWS}.{lazy}")


def _what_in(values: Sequence[object]) -> str:
    return kind_of(values[0]) if values else "values"


def _columns_of_pandas(name: str, frame: Any) -> dict[str, object]:
    """The columns of a pandas frame, an index that has a name among them."""
    names = [*frame.columns, *(n for n in frame.index.names if n is not None)]
    twice = next((n for i, n in enumerate(names) if n in names[:i]), None)
    if twice is not None:
        raise DataError(f"{name}: two columns are called {str(twice)!r}. Rename one.")
    index = {n: frame.index.get_level_values(n) for n in names[len(frame.columns) :]}
    return {str(c): frame[c] for c in frame.columns} | {str(n): v for n, v in index.items()}


def _table_of_columns(name: str, columns: Mapping[str, object]) -> pa.Table:
    import pyarrow as pa

    arrays = {str(c): _array_of(name, str(c), values) for c, values in columns.items()}
    lengths = {c: len(values) for c, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        (a, n), (b, m) = min(lengths.items(), key=_second), max(lengths.items(), key=_second)
        raise DataError(f"{name}: column {a!r} has {rows_word(n)}, column {b!r} {m:,}.")
    return _plain_table(name, pa.table(arrays), None)


def _second(item: tuple[str, int]) -> int:
    return item[1]


def _array_of(name: str, column: str, values: Any) -> pa.Array | pa.ChunkedArray:
    """One column's values. Raises DataError for a mixture that no file of columns has."""
    import pyarrow as pa

    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise DataError(f"{name}: column {column!r} is {kind_of(values)}, expected values.")
    if not hasattr(values, "dtype"):
        values = list(values)
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        kinds = list(dict.fromkeys(kind_of(v) for v in values if v is not None and v == v))  # noqa: PLR0124
        why = listed(kinds) if len(kinds) > 1 else short(" ".join(str(error).split()), 120)
        raise DataError(
            f"{name}: column {column!r} cannot be written down ({why}); expected values of one "
            "kind: strings, numbers or true / false. Convert it, or leave it out."
        ) from error


def _plain_table(name: str, table: pa.Table, metadata: Mapping[bytes, bytes] | None) -> pa.Table:
    """A table with one kind of string column, and no metadata but the names of classes."""
    import pyarrow as pa

    if not table.num_rows:
        raise DataError(f"{name}: no rows. Expected labelled texts.")
    columns = {c: _plain_strings(table.column(c)) for c in table.column_names}
    classes = {k: v for k, v in (metadata or {}).items() if k == b"huggingface"}
    return pa.table(columns).replace_schema_metadata(classes)


def _plain_strings(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strings of whatever kind as one; categories as what they stand for."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_dictionary(kind):
        whole = [_plain_strings(pa.chunked_array([c.dictionary])) for c in values.chunks]
        return pa.chunked_array(
            [d.take(c.indices).combine_chunks() for d, c in zip(whole, values.chunks, strict=True)]
        )
    texts = pa.types.is_string(kind) or pa.types.is_string_view(kind)
    return values.cast(pa.large_string()) if texts else values


def _texts_and_labels(texts: Any, labels: Any) -> pa.Table:
    """A text and a label a row. Raises DataError where they are not as many, or are no texts."""
    for what, values in (("texts", texts), ("labels", labels)):
        if isinstance(values, str | bytes | Mapping | Path) or _is_frame(values):
            raise DataError(
                f"{what}: found {type(values).__name__}, expected a list with one of each row; "
                "labels= goes with a list of texts, a file or frame has a column of them."
            )
        if not isinstance(values, Iterable):
            raise DataError(f"{what}: found {type(values).__name__}, expected a list.")
    texts, labels = (v if hasattr(v, "dtype") else list(v) for v in (texts, labels))
    if len(texts) != len(labels):
        raise DataError(
            f"labels: {len(labels):,} for {len(texts):,} texts, expected one for each text."
        )
    return _table_of_columns("texts", {"text": texts, "label": labels})


def _split_table(dataset: Dataset, split: Split) -> pa.Table:
    """A part of a data set that was read before: classes keep their order, rows their names."""
    text, label = dataset.text_column, dataset.label_column
    if split.ordered or dataset.group_column is not None:
        said = "a scale" if split.ordered else f"groups by {dataset.group_column!r}"
        raise DataError(
            f"{dataset.name}: what load_data gave is of {said}, which rows alone do not say. Give "
            "the source that it was read from, with the same task and group_column."
        )
    columns: dict[str, object] = {text: split.texts, **split.columns}
    if split.labels.ndim == 2:
        columns[label] = label_sets(split.labels, dataset.label_names)
        return _table_of_columns("Dataset", columns)
    columns[label] = split.labels
    if dataset.id_column is None and "id" not in columns:
        columns["id"] = split.ids
    table = _table_of_columns("Dataset", columns)
    return _with_classes(table, label, dataset.label_names)


def _with_classes(table: pa.Table, label: str, names: Sequence[str]) -> pa.Table:
    """A table that says as `datasets` does what the numbers in its column of labels stand for."""
    classes = {label: {"names": list(names), "_type": "ClassLabel"}}
    said = json.dumps({"info": {"features": classes}}).encode()
    return table.replace_schema_metadata({b"huggingface": said})


def _as_parquet(name: str, table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = pa.BufferOutputStream()
    try:
        pq.write_table(table.combine_chunks(), out)
    except pa.ArrowException as error:
        why = short(" ".join(str(error).split()), 160).rstrip(".")
        raise DataError(
            f"{name}: cannot be written down ({why}). Give the columns of texts and labels alone."
        ) from error
    return bytes(out.getvalue())
