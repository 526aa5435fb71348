"""Texts as hashes of their words in a row, and of words side by side.

A text is read as a row of words; where a script writes no spaces, each sign is a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "GOLDEN_64",
    "Hashes",
    "Ints",
    "Words",
    "word_grams",
    "ranges_of",
    "words_of",
]

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

GOLDEN_64 = np.uint64(0x9E3779B97F4A7C15)
# Scripts without spaces: Thai to Myanmar, Khmer, kana, Han.
_SIGNS = ((0x0E00, 0x1100), (0x1780, 0x1800), (0x3040, 0x3100), (0x3400, 0xA000),
          (0xF900, 0xFB00), (0x20000, 0x40000))  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Hashes of all words of n texts in a row (t,), and where each text starts (n + 1,)."""

    hashes: Hashes
    starts: Ints

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> Ints:
        """Words of each text, (n,)."""
        return np.diff(self.starts)

    def of(self, rows: Ints) -> Words:
        """The words of some texts, in that order."""
        at, size = ranges_of(self.starts, rows)
        return Words(self.hashes[at], np.concatenate([[0], size.cumsum()]))


def _mixed(h: Hashes) -> Hashes:
    """The finaliser of SplitMix64: every bit of the result depends on every bit given."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(h ^ (h >> np.uint64(31)))


def words_of(texts: Sequence[str]) -> Words:
    """Hash the words of normalised texts, some thousand characters at a time."""
    pieces: list[Hashes] = [np.zeros(0, dtype=np.uint64)]
    counts: list[Ints] = [np.zeros(1, dtype=np.int64)]
    for some in _batches(texts):
        padded = [f" {t} " for t in some]
        codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32)
        blank = codes == ord(" ")
        sign = np.zeros(len(codes), dtype=np.bool_)
        if codes.max() >= _SIGNS[0][0]:
            for low, high in _SIGNS:
                sign |= (codes >= low) & (codes < high)
        first = ~blank
        first[1:] &= blank[:-1] | sign[1:] | sign[:-1]
        begins = np.flatnonzero(first)
        place = np.arange(len(codes)) - begins[np.maximum(np.cumsum(first) - 1, 0)]
        letters = _mixed((codes + (place.astype(np.uint64) << np.uint64(32))) * GOLDEN_64)
        letters[blank] = 0
        if len(begins):
            pieces.append(_mixed(np.add.reduceat(letters, begins)))
        ends = np.cumsum(np.fromiter(map(len, padded), np.int64, len(padded)))
        counts.append(np.diff(np.searchsorted(begins, ends), prepend=0))
    return Words(np.concatenate(pieces), np.concatenate(counts).cumsum())


def _batches(texts: Sequence[str], characters: int = 250_000) -> Iterator[Sequence[str]]:
    start, held = 0, 0
    for i, text in enumerate(texts):
        held += len(text)
        if held >= characters:
            yield texts[start : i + 1]
            start, held = i + 1, 0
    if start < len(texts):
        yield texts[start:]


def word_grams(words: Words, offsets: tuple[int, ...]) -> tuple[Hashes, Ints]:
    """Hashes of the words at these offsets from each, (k,), and the position of the first, (k,).

    Those that lie within one text, in order.
    """
    many = max(0, len(words.hashes) - offsets[-1])
    owner = np.repeat(np.arange(len(words)), words.sizes)
    at = np.flatnonzero(owner[:many] == owner[offsets[-1] :]) if many else owner[:0]
    hashes = np.full(len(at), sum(offsets), dtype=np.uint64)
    for offset in offsets:
        hashes = (hashes + words.hashes[at + offset]) * GOLDEN_64
        hashes ^= hashes >> np.uint64(29)
    return _mixed(hashes), at


def ranges_of(starts: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Positions of what some rows hold, end to end, and how many each has."""
    size = starts[rows + 1] - starts[rows]
    begin = np.repeat(starts[rows] - (size.cumsum() - size), size)
    return begin + np.arange(len(begin)), size
