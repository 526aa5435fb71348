"""A table of text columns, and how files of tables are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tunelab.core.errors import DataError
from tunelab.core.words import listed

__all__ = [
    "PACKED",
    "Quoting",
    "ReadOptions",
    "Table",
    "format_of",
    "refuse_repeated_columns",
    "stem_of",
    "table_of_columns",
    "values_at",
    "windows_of_rows",
]


# Endings of text files that are packed, behind the one that says how they are read.
PACKED = (".gz", ".zst")

# What quotes mean in CSV and TSV: `delimited`.
Quoting: TypeAlias = Literal["auto", "double", "none"]

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
    """How a file is read: its `encoding`, whether ragged rows are left out, what it is called.

    `quoting`: what quotes mean in CSV and TSV (`delimited`).
    """

    encoding: str = "utf-8"
    drop_ragged: bool = False
    name: str | None = None
    quoting: Quoting = "auto"

    def called(self, path: Path) -> str:
        """The file's name in messages."""
        return self.name or " ".join(path.name.split("\n"))


# --- files ----------------------------------------------------------------------------------


def format_of(path: Path) -> str:
    """The suffix that says how a file is read; `PACKED` around a text format is looked through."""
    name = Path(path.name.lower())
    if name.suffix not in PACKED:
        return name.suffix
    inner = Path(name.stem).suffix
    return inner if inner not in (".parquet", ".arrow", ".xlsx") else name.suffix


def stem_of(path: Path) -> str:
    """A file's name without its ending, and without that of what it is packed with."""
    name = path.stem if path.suffix.lower() in PACKED else path.name
    return Path(name).stem


def refuse_repeated_columns(table: Table) -> None:
    """Refuse a table in which two columns have one name."""
    repeated = [c for c, n in Counter(table.columns).items() if n > 1]
    if repeated:
        raise DataError(
            f"{table.name}: column name {repeated[0]!r} stands more than once in "
            f"{listed(table.columns)}. Rename all but one."
        )


def table_of_columns(
    name: str, stem: str, columns: Mapping[str, list[Any]], numbers: Sequence[int], unit: str
) -> Table:
    """A table of columns that are in memory."""
    return Table(name, stem, tuple(columns), numbers, unit, columns.__getitem__)


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


def values_at(values: Sequence[Sequence[Any]], where: Mapping[str, int], column: str) -> list[Any]:
    """A column's values among values side by side."""
    return list(values[where[column]])
