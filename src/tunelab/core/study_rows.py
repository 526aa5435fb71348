"""The rows that a study keeps, in rows.parquet, so that its predictions can be looked into."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.errors import ArtifactError
from tunelab.core.files import write_bytes
from tunelab.core.trial_files import UNREADABLE, read_table
from tunelab.core.values import Dataset

__all__ = [
    "StudyRows",
    "read_rows",
    "write_rows",
]


@dataclass(frozen=True, slots=True, eq=False)
class StudyRows:
    """The rows of one part (n) in order: `ids`, `texts`, `labels` (n, int64), further `columns`."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    columns: Mapping[str, tuple[Any, ...]]


def write_rows(study: Path, dataset: Dataset) -> None:
    """Keep the validation and test rows (rows.parquet), so that predictions can be looked into."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    splits = [dataset.parts[part] for part in ("validation", "test")]
    columns: dict[str, object] = {
        "part": ["validation"] * len(splits[0]) + ["test"] * len(splits[1]),
        "id": [i for s in splits for i in s.ids],
        "label": np.concatenate([s.labels for s in splits]),
        "text": [t for s in splits for t in s.texts],
    }
    for name in dict.fromkeys(c for s in splits for c in s.columns):
        values = [v for s in splits for v in s.columns.get(name, (None,) * len(s))]
        columns[f"column:{name}"] = _one_type(values)
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, write_page_checksum=True)
    write_bytes(study / "rows.parquet", out.getvalue())


def _one_type(values: Sequence[Any]) -> list[Any]:
    """Values of one type, as a Parquet column takes them: a mixture becomes strings."""
    kinds = {type(v) for v in values if v is not None}
    if len(kinds) <= 1 and kinds <= {str, bool, float}:
        return list(values)
    if kinds == {int} and all(abs(v) < 2**53 for v in values if v is not None):
        return list(values)
    if kinds == {int, float}:
        return [None if v is None else float(v) for v in values]
    return [None if v is None else str(v) for v in values]


def read_rows(study: Path, part: str = "test") -> StudyRows | None:
    """Read the rows of "validation" or "test"; None where the study was written without them.

    Raises ArtifactError where the file is not what was written.
    """
    path = study / "rows.parquet"
    if not path.is_file():
        return None
    try:
        return _rows_in(read_table(path.read_bytes()), part)
    except (*UNREADABLE, OSError) as e:
        said = " ".join(str(e).split())[:120]
        raise ArtifactError(
            f"{path}: cannot be read ({said}). Write it anew: run `tunelab compare` with the same "
            "settings into this folder."
        ) from None


def _rows_in(table: Any, part: str) -> StudyRows:
    # By lists: pyarrow's own ways to pick rows, and to numpy, import pandas.
    rows = [i for i, p in enumerate(table["part"].to_pylist()) if p == part]

    def of_part(name: str) -> tuple[Any, ...]:
        values = table[name].to_pylist()
        return tuple(values[i] for i in rows)

    further = {n: of_part(n) for n in table.column_names if n.startswith("column:")}
    return StudyRows(
        ids=of_part("id"),
        texts=of_part("text"),
        labels=np.asarray(of_part("label"), dtype=np.int64),
        columns={
            name.removeprefix("column:"): values
            for name, values in further.items()
            if any(v is not None for v in values)
        },
    )
