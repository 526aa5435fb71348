"""Cells of the CSV files that are written: no text in them is a formula to a spreadsheet.

A spreadsheet computes what begins with =, +, -, @, a tab or a carriage return, and a formula may
fetch an address or start a program. Such a text is written with an apostrophe before it, and so is
one that begins with apostrophes and then such a character: to read texts back, take one apostrophe
from each that begins so. Numbers are written as they are, also those that are texts ("-5").
"""

from __future__ import annotations

import re

__all__ = [
    "safe_cell",
    "six_digits",
]

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_PLAIN_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def safe_cell(value: object) -> object:
    """A value as it is written into a cell: a text that would be a formula with "'" before it."""
    if isinstance(value, str) and _FORMULA.match(value) and not _PLAIN_NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def six_digits(value: float) -> float:
    """A probability as it is written."""
    return round(float(value), 6)
