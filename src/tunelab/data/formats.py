"""Formats of files of rows, a row each in `FORMATS`: CSV, TSV, JSON, JSON lines,
Parquet, Arrow and Excel workbooks."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path

from tunelab.core.errors import DataError
from tunelab.data.columnar import read_arrow, read_parquet
from tunelab.data.decode import check_text, open_text
from tunelab.data.delimited import read_delimited
from tunelab.data.json_lines import read_json_file
from tunelab.data.sheets import read_workbook
from tunelab.data.table import (
    ReadOptions,
    Table,
    format_of,
    refuse_repeated_columns,
    stem_of,
    table_of_columns,
    windows_of_rows,
)

__all__ = [
    "FORMATS",
    "known_format",
    "look_alike",
    "path_is",
    "read_file",
    "read_lines",
]


def read_file(path: Path, options: ReadOptions) -> Table:
    """Read one file by its ending, `.gz` and `.zst` looked through. Raises DataError."""
    suffix = known_format(path, options)
    if not path_is(path, Path.is_file):
        raise DataError(
            f"{options.called(path)}: no file of its own. Expected a file on this disk."
        )
    (table,) = FORMATS[suffix](path, options, None)
    refuse_repeated_columns(table)
    return table


def known_format(path: Path, options: ReadOptions) -> str:
    """The ending that says how a file is read; a DataError where none does."""
    suffix = format_of(path)
    if suffix not in FORMATS:
        has = f"its name ends in {suffix!r}" if suffix else "its name has no ending"
        raise DataError(
            f"{options.called(path)}: {has}, expected one of {', '.join(FORMATS)}. "
            "Save it as one of these."
        )
    return suffix


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
    ".arrow": read_arrow,
    ".xlsx": read_workbook,
}


# --- paths ----------------------------------------------------------------------------------


def path_is(path: Path, question: Callable[[Path], bool]) -> bool:
    """The answer to a question about a path; False where it can name nothing."""
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
    name = by_lower[near[0]]
    shown = name if str(path.parent) == "." else str(path.parent / name)
    return f" Did you mean {shown!r}?"
