"""How much a file may hold: more is refused, in one line that says the limit.

A small file may unpack to more than any memory; what is read of a file is therefore bounded.
"""

from __future__ import annotations

from tunelab.core.errors import DataError

__all__ = [
    "LARGEST_VALUE",
    "LONGEST_LINE",
    "MOST_COLUMNS",
    "MOST_ROWS",
    "refuse_many_columns",
    "refuse_unpacked",
    "refuse_value",
]

# Bytes of one value, and of one line of CSV, TSV or JSON lines.
LARGEST_VALUE = 16 << 20
LONGEST_LINE = 64 << 20
MOST_COLUMNS = 10_000
# Rows of a table that is read whole.
MOST_ROWS = 20_000_000
# A file may unpack to so much, or to so many times its size; texts that do are hardly texts.
_UNPACKED = 256 << 20
_TIMES_PACKED = 100


def refuse_unpacked(name: str, unpacked: int, packed: int) -> None:
    """Refuse what unpacks to far more than its size on disk (bytes). Raises DataError."""
    if unpacked > max(_UNPACKED, _TIMES_PACKED * packed):
        raise DataError(
            f"{name}: unpacks to more than {_TIMES_PACKED} times its size and "
            f"{_UNPACKED >> 20} MiB, which texts do not. Unpack it yourself if it is what you "
            "expect, and give that."
        )


def refuse_value(where: str, size: int) -> DataError:
    """The error for a value that is too large."""
    return DataError(
        f"{where} holds a value of {size / (1 << 20):,.0f} MiB, expected at most "
        f"{LARGEST_VALUE >> 20} MiB. Cut it, or leave its row out."
    )


def refuse_many_columns(name: str, count: int) -> None:
    """Refuse a table of more columns than can be looked at. Raises DataError."""
    if count > MOST_COLUMNS:
        raise DataError(
            f"{name}: {count:,} columns, expected at most {MOST_COLUMNS:,}. Keep the text, the "
            "label and what describes them."
        )
