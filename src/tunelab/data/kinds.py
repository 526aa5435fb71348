"""Kinds of data, told apart: pairs of texts and numbers to predict, which are not supported, and
several labels a text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from tunelab.core.errors import DataError
from tunelab.data.table import Table

__all__ = [
    "SUPPORTED",
    "flag_columns",
    "partner_column",
    "said_of_numbers",
    "separator_of",
    "without_brackets",
]

SUPPORTED = "tunelab compares classifiers of one text"

# --- pairs of texts -------------------------------------------------------------------------

_PAIRS = (
    {"premise", "hypothesis"},
    {"question", "sentence"},
    {"question", "passage"},
    {"question", "context"},
    {"question", "answer"},
    {"query", "document"},
    {"query", "passage"},
    {"claim", "evidence"},
    {"text", "text_pair"},
    {"prompt", "response"},
    {"chosen", "rejected"},
)
_NUMBERED = re.compile(r"(?P<name>.*?[a-z])_?(?P<number>[12ab])")
_OTHER = {"1": "2", "2": "1", "a": "b", "b": "a"}


def partner_column(columns: Sequence[str], text: str) -> str | None:
    """The other column of the pair of texts that a column belongs to, by their names."""
    by_key = {re.sub(r"[\s\-]+", "_", c.strip().lower()): c for c in columns}
    key = next(k for k, c in by_key.items() if c == text) if text in by_key.values() else ""
    for pair in _PAIRS:
        if key in pair:
            (other,) = pair - {key}
            if other in by_key:
                return by_key[other]
    numbered = _NUMBERED.fullmatch(key)
    if numbered:
        end = _OTHER[numbered["number"]]
        return by_key.get(key[:-1] + end)
    return None


# --- several labels a text ------------------------------------------------------------------

_FLAG_VALUES = ({"0", "1"}, {"false", "true"}, {"0.0", "1.0"})
_SEPARATORS = ("|", ";", ",")


def flag_columns(table: Table, taken: set[str | None]) -> list[str]:
    """The columns that hold 0 and 1 alone, or true and false."""
    out = []
    for column in table.columns:
        if column not in taken:
            values = {str(v).lower() for v in table.get(column) if v is not None and v != ""}
            if any(values == flags for flags in _FLAG_VALUES):
                out.append(column)
    return out


def separator_of(counts: Counter[str]) -> str | None:
    """What stands between labels where they are lists of labels ("toxic|insult" beside "toxic");
    None where they are not.
    """
    for separator in _SEPARATORS:
        several = [k for k in counts if separator in k.strip(separator + " ")]
        if several and _are_lists([without_brackets(k) for k in counts], separator):
            return separator
    return None


_LIST = re.compile(r"[\[({](.*)[\])}]")


def without_brackets(label: str) -> str:
    """What a list that was written as a text holds: of "['a', 'b']", 'a', 'b'."""
    listed_ = _LIST.fullmatch(label.strip())
    return listed_[1] if listed_ else label


def _are_lists(labels: Sequence[str], separator: str) -> bool:
    """Whether the parts of labels are labels themselves: they stand in several, in any place."""
    parts = {k: [p.strip(" '\"") for p in k.split(separator) if p.strip()] for k in labels}
    in_labels = Counter(p for some in parts.values() for p in set(some))
    combined = {p for some in parts.values() if len(some) > 1 for p in some}
    again = sum(in_labels[p] > 1 for p in combined)
    if again < 0.8 * len(combined):
        return False
    if len({len(some) for some in parts.values()}) > 1:
        return True
    # An aspect and what is said of it ("food|good"): the first parts are never second ones.
    places = list(zip(*parts.values(), strict=True))
    return len(set().union(*map(set, places))) < sum(len(set(place)) for place in places)


# --- numbers to predict ---------------------------------------------------------------------

_ANY_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+([.,]0+)?")
_MANY_NUMBERS = 20
_LONGEST_NUMBER = 30


def said_of_numbers(name: str, column: str, counts: Counter[str]) -> str | None:
    """What is said of labels that are many numbers. Raises DataError where they are a quantity.

    Numbers that are not whole are; so are many whole ones, of a few rows each, that do not count
    classes from 0 or 1.
    """
    if not counts or not all(_ANY_NUMBER.fullmatch(k) for k in counts):
        return None
    regression = f"to predict a quantity (regression) is not supported: {SUPPORTED}"
    fraction = next((k for k in counts if not _WHOLE_NUMBER.fullmatch(k)), None)
    if fraction is not None:
        raise DataError(
            f"{name}: column {column!r} holds numbers that are not whole, such as {fraction}: "
            f"{regression}. Make classes of it, such as low and high, or choose another with "
            "--label-column."
        )
    if max(map(len, counts)) > _LONGEST_NUMBER:
        return None  # digits that name something
    values = sorted({int(_whole_digits(k)) for k in counts})
    counted = values[0] in (0, 1) and values[-1] - values[0] < 1.5 * len(values)
    if len(values) < _MANY_NUMBERS or counted:
        return None
    said = f"column {column!r} holds {len(values):,} whole numbers from {values[0]} to {values[-1]}"
    if sum(counts.values()) < 5 * len(values):
        raise DataError(
            f"{name}: {said}, of fewer than 5 rows each: {regression}. Make classes of it, such as "
            "low and high, or choose another with --label-column."
        )
    return f"{said}, each taken as a class: {regression}"


def _whole_digits(number: str) -> str:
    return re.split("[.,]", number)[0]
