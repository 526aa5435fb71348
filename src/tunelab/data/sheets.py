"""Excel workbooks: the rows of the first sheet that has any."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.core.errors import DataError
from tunelab.core.extras import install_line
from tunelab.core.words import listed, short
from tunelab.data.content import refuse_other_content
from tunelab.data.limits import LARGEST_VALUE, refuse_many_columns, refuse_unpacked, refuse_value
from tunelab.data.table import ReadOptions, Table, stem_of, values_at, windows_of_rows

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

__all__ = [
    "read_workbook",
]


def read_workbook(path: Path, options: ReadOptions, size: int | None) -> Iterator[Table]:
    """An .xlsx workbook: its first sheet with a header and rows; rows count as Excel counts them.

    Numbers and dates stay what they are in their cells; empty rows are no rows. Raises DataError.
    """
    name = options.called(path)
    sheet, others = _first_sheet(_opened(path, name), name)
    rows = _cells_of(sheet, name)
    header = next(rows, (0, []))[1]
    columns = [f"column {i}" if c is None else str(c) for i, c in enumerate(header, start=1)]
    refuse_many_columns(name, len(columns))
    notes = (f"{name}: read is its sheet {sheet.name!r}, not {listed(others)}",) if others else ()
    where = {c: i for i, c in enumerate(columns)}
    some = False
    for numbers, window in windows_of_rows(rows, size):
        some = True
        by_index = list(zip(*window, strict=True))
        yield Table(
            name,
            stem_of(path),
            tuple(columns),
            numbers,
            "row",
            partial(values_at, by_index, where),
            notes=notes,
        )
    if not some:
        raise DataError(f"{name}: columns ({listed(columns)}) but no rows.")


def _opened(path: Path, name: str) -> CalamineWorkbook:
    try:
        with path.open("rb") as stream:
            refuse_other_content(name, stream.read(4096), (b"PK\x03\x04",))
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(entry.file_size for entry in packed.infolist())
        refuse_unpacked(name, unpacked, path.stat().st_size)
    except zipfile.BadZipFile as error:
        raise _unreadable(name, error) from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}.") from error
    try:
        from python_calamine import CalamineError, load_workbook
    except ImportError:
        raise DataError(
            f"{name}: an Excel workbook, which needs python-calamine: {install_line('excel')}. Or "
            "save it as CSV."
        ) from None
    try:
        return load_workbook(path)
    except (CalamineError, OSError, ValueError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> DataError:
    why = short(" ".join(str(error).split()), 120).rstrip(".")
    return DataError(
        f"{name}: cannot be read as an Excel workbook: {why}. Save it again, or as CSV."
    )


def _first_sheet(book: CalamineWorkbook, name: str) -> tuple[CalamineSheet, list[str]]:
    """The first sheet with anything in it, and the names of further ones."""
    sheets = [_sheet(book, s, name) for s in book.sheet_names]
    filled = [s for s in sheets if s is not None and s.height]
    if not filled:
        raise DataError(f"{name}: its sheets are empty. Expected a header and labelled texts.")
    return filled[0], [s.name for s in filled[1:]]


def _sheet(book: CalamineWorkbook, sheet: str, name: str) -> CalamineSheet | None:
    """A sheet of cells; None for one of another kind, such as a chart."""
    from python_calamine import CalamineError, WorksheetNotFound

    try:
        return book.get_sheet_by_name(sheet)
    except WorksheetNotFound:
        return None
    except (CalamineError, OSError, ValueError) as error:
        raise _unreadable(name, error) from error


def _cells_of(sheet: CalamineSheet, name: str) -> Iterator[tuple[int, list[Any]]]:
    """Pairs (row as Excel counts, its cells; None where empty), the header first."""
    first = 1 + (sheet.start or (0, 0))[0]
    for number, cells in enumerate(sheet.to_python(skip_empty_area=True), start=first):
        row = [None if cell == "" else cell for cell in cells]
        longest = max((len(c) for c in row if isinstance(c, str)), default=0)
        if longest > LARGEST_VALUE:
            raise refuse_value(f"{name}: row {number}", longest)
        if any(cell is not None for cell in row):
            yield number, row
