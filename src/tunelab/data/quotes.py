"""Quotes in CSV and TSV: which of them are marks around a field, and which belong to the texts.

A quote that belongs to a text opens a field that goes on to the next such quote, rows further down:
rows vanish into one text, and nothing looks wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tunelab.core.errors import DataError
from tunelab.core.words import rows_word

__all__ = [
    "QuoteWatch",
]

# Rows whose values are remembered, and rows of several lines that are held against them.
_ROWS = 2_000
_LONGEST_LABEL = 100
_ID = re.compile(r"\w*[0-9]+")
_MOST_SUSPECTS = 1_000


@dataclass(slots=True)
class QuoteWatch:
    """Looks at the rows of a file as they are read, `width` fields each.

    `trusted`: the user has said that quotes stand around fields.
    """

    name: str
    delimiter: str
    width: int
    trusted: bool
    several: int = 0  # rows that stand in several lines
    first: tuple[int, int] | None = None  # the lines of the first of them
    _seen: list[Counter[str]] = field(default_factory=list)
    _rows: int = 0
    _suspects: list[tuple[int, int, list[list[str]]]] = field(default_factory=list)

    def see(self, line: int, lines: Sequence[str], fields: Sequence[str]) -> None:
        """See a row that begins in `line` and stands in `lines`."""
        if len(lines) == 1:
            if self._rows < _ROWS:
                self._rows += 1
                self._seen = self._seen or [Counter() for _ in range(self.width)]
                for counter, value in zip(self._seen, fields, strict=True):
                    if len(value) <= _LONGEST_LABEL:
                        counter[value] += 1
            return
        self.several += 1
        self.first = self.first or (line, line + len(lines) - 1)
        if self.trusted or self.width == 1 or len(self._suspects) >= _MOST_SUSPECTS:
            return
        pieces = [text.rstrip("\r\n").split(self.delimiter) for text in lines]
        if any(len(piece) != self.width for piece in pieces):
            return
        self._suspects.append((line, len(lines), pieces[:_ROWS]))

    def end(self) -> None:
        """Refuse the rows of which each line is a row by itself, with a label that other rows have
        too, or with a number where all others have one (an id). Raises DataError."""
        for line, n, pieces in self._suspects:
            for j in range(self.width):
                own = [piece[j].strip('"') for piece in pieces]
                if self._repeats(j, own) or self._counts(j, own):
                    raise DataError(self._swallowed(line, n))

    def _repeats(self, column: int, own: Sequence[str]) -> bool:
        counts = Counter(own)
        if self._seen:
            counts.update(self._seen[column])
        return all(value and counts[value] > 1 for value in own)

    def _counts(self, column: int, own: Sequence[str]) -> bool:
        seen = self._seen[column] if self._seen else {}
        return bool(seen) and all(map(_ID.fullmatch, (*own, *seen)))

    def notes(self) -> list[str]:
        """What is said of rows that stand in several lines."""
        if self.first is None or self.trusted:
            return []
        said = "stands in several lines" if self.several == 1 else "stand in several lines each"
        return [
            f"{self.name}: {rows_word(self.several)} {said}, in quotes (the first from line "
            f"{self.first[0]} to {self.first[1]}); if the quotes are part of the texts, add "
            "--quoting none"
        ]

    def _swallowed(self, line: int, n: int) -> str:
        return (
            f"{self.name}: a quote in line {line} is closed in line {line + n - 1}, and each of "
            f"these {n:,} lines is a row by itself: they would become one text. If quotes are part "
            "of the texts, add --quoting none; if the lines are one text, --quoting double."
        )
