"""Texts that are the same, or nearly: within one list, or of one list in another.

Two texts are *the same* where nothing but case, white space, punctuation, accents' encoding and
HTML differ (`normalise`). They are *near* where the Jaccard similarity of their sets of 5-character
shingles is at least 0.6: about three quarters of each is in the other (Broder 1997, "On the
resemblance and containment of documents"). Candidates come from MinHash with bands (Leskovec,
Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3) and each is then checked.

Cost grows with the number of characters; memory is about 1.5 kB a text, however long.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NEAR",
    "Matches",
    "Twins",
    "find_twins",
    "match",
    "nearest",
    "normalise",
    "similarity",
]


Ints = NDArray[np.int64]
Words = NDArray[np.uint32]

NEAR = 0.6
SHINGLE_WIDTH = 5  # characters of a shingle
SKETCH = 256  # shingles kept of a text: those with the smallest hashes
LEAST_LENGTH = 20  # characters below which "nearly the same" means little: "not good", "good"
# P(a pair at Jaccard similarity s is a candidate) = 1 - (1 - s^4)^40: 0.996 at 0.6, 0.27 at 0.3.
BANDS, BAND = 40, 4
COMPARED_NEIGHBOURS = (
    6  # neighbours compared within a bucket: templates fill buckets, pairs grow as squares
)
CHUNK = 1 << 16
_TAG = re.compile(r"<[^<>]{1,300}>")
_NO_WORD = re.compile(r"[\W_]+")
_APOSTROPHES = "'’‘`´"  # noqa: RUF001  all that stand in for an apostrophe
_ASCII = (
    bytes(ord(chr(i).lower()) if chr(i).isalnum() else ord(" ") for i in range(128)) + b" " * 128
)


@dataclass(frozen=True, slots=True, eq=False)
class Twins:
    """What repeats within one list of n texts.

    `group` (n,): equal numbers for texts that are the same; `first` (n_groups,) the first row of
    each group, `texts` (n_groups) what `normalise` makes of it. `pairs` (m, 2): groups that are
    near each other, the smaller number first, with their Jaccard `similarity` (m,).
    """

    group: Ints
    first: Ints
    texts: tuple[str, ...]
    pairs: Ints
    similarity: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """For each of n texts its likest text in a reference list: `row` (n,), -1 where none is near.

    `similarity` (n,) is 1 for texts that are the same, at least NEAR for near ones, 0 for others.
    """

    row: Ints
    similarity: NDArray[np.float64]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which texts have one that is the same or near, (n,)."""
        return np.asarray(self.row >= 0)


def normalise(text: str) -> str:
    """What counts of a text: lower case, words by one space; no punctuation, no HTML.

    A text of nothing but marks ("!!!", "😀") is kept as it is.
    """
    plain = text
    if "<" in plain:
        plain = _TAG.sub(" ", plain)
    if "&" in plain:
        plain = html.unescape(plain)
    if plain.isascii():
        found = plain.encode("ascii").translate(_ASCII, b"'`").decode("ascii")
    else:
        found = unicodedata.normalize("NFKC", plain).casefold()
        found = found.translate(dict.fromkeys(map(ord, _APOSTROPHES)))
        found = _NO_WORD.sub(" ", found)
    return " ".join(found.split()) or text.strip()


def find_twins(texts: Sequence[str], near: float = NEAR) -> Twins:
    """Find what is the same and what is near within one list of texts."""
    number: dict[str, int] = {}
    group = np.fromiter(
        (number.setdefault(normalise(t), len(number)) for t in texts), np.int64, len(texts)
    )
    first = np.full(len(number), -1, dtype=np.int64)
    first[group[::-1]] = np.arange(len(texts))[::-1]
    pairs, similar = _near_pairs(list(number), near)
    return Twins(group, first, tuple(number), pairs, similar)


def match(reference: Sequence[str], texts: Sequence[str], near: float = NEAR) -> Matches:
    """Find for each text the likest one of a reference list: the same, or near."""
    n = len(reference)
    twins = find_twins([*reference, *texts], near)
    # The first reference row of each group, or -1.
    row_of = np.full(len(twins.first), -1, dtype=np.int64)
    row_of[twins.group[:n][::-1]] = np.arange(n)[::-1]
    return Matches(*nearest(twins, row_of, twins.group[n:]))


def nearest(twins: Twins, row_of: Ints, groups: Ints) -> tuple[Ints, NDArray[np.float64]]:
    """For some groups the likest row that a group or one near it has, and the similarity.

    `row_of` (n_groups,) is a row of each group, -1 where it has none. Gives -1 and 0 where no
    group near has one.
    """
    best_row, best = row_of.copy(), np.where(row_of >= 0, 1.0, 0.0)
    both = np.concatenate([twins.pairs, twins.pairs[:, ::-1]])
    similar = np.concatenate([twins.similarity, twins.similarity])
    useful = np.flatnonzero((row_of[both[:, 0]] < 0) & (row_of[both[:, 1]] >= 0))
    for i in useful[np.argsort(-similar[useful], kind="stable")]:
        mine, other = both[i]
        if best_row[mine] < 0:
            best_row[mine], best[mine] = row_of[other], similar[i]
    return best_row[groups], best[groups]


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of the shingles of two texts: 1 where they are the same."""
    left, right = normalise(a), normalise(b)
    if left == right:
        return 1.0
    values, starts = _sketches([left, right])
    one, two = values[: starts[1]], values[starts[1] :]
    if not len(one) or not len(two):
        return 0.0
    return float(_jaccard(values, starts, np.array([[0, 1]]))[0])


# --- shingles -------------------------------------------------------------------------------


def _splitmix(h: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: every bit of the result depends on every bit given."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(h ^ (h >> np.uint64(31)))


_WEIGHTS = _splitmix(np.arange(1, SHINGLE_WIDTH + 1, dtype=np.uint64)) | np.uint64(1)


def _sketches(texts: Sequence[str]) -> tuple[Words, Ints]:
    """Hashes of the shingles of n normalised texts: all values in a row, and starts (n + 1,).

    Sorted and distinct within a text; of a long text the SKETCH smallest (a bottom-k sketch).
    """
    parts: list[Words] = []
    counts: list[Ints] = []
    for some in _batches(texts):
        padded = [f" {t} " for t in some]
        lengths = np.fromiter(map(len, padded), np.int64, len(padded))
        codes = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32)
        owner = np.repeat(np.arange(len(some)), lengths)
        if len(codes) < SHINGLE_WIDTH:
            counts.append(np.zeros(len(some), dtype=np.int64))
            continue
        last = len(codes) - SHINGLE_WIDTH + 1
        h = np.zeros(last, dtype=np.uint64)
        for j in range(SHINGLE_WIDTH):
            h += codes[j : last + j].astype(np.uint64) * _WEIGHTS[j]
        inside = owner[:last] == owner[SHINGLE_WIDTH - 1 :]
        key = (owner[:last].astype(np.uint64) << np.uint64(32)) | (_splitmix(h) >> np.uint64(32))
        key = _distinct(key[inside])
        whose = (key >> np.uint64(32)).astype(np.int64)
        many = np.bincount(whose, minlength=len(some))
        rank = np.arange(len(key)) - (np.cumsum(many) - many)[whose]
        parts.append((key[rank < SKETCH] & np.uint64(0xFFFFFFFF)).astype(np.uint32))
        counts.append(np.minimum(many, SKETCH))
    values = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint32)
    starts = np.concatenate([np.zeros(1, dtype=np.int64), *(counts or [])]).cumsum()
    return values, starts


def _distinct(x: NDArray[Any]) -> NDArray[Any]:
    """Distinct values, sorted. np.unique hashes first, and took twelve times as long here."""
    x = np.sort(x)
    first: NDArray[np.bool_] = np.concatenate(
        [np.ones(min(1, len(x)), dtype=np.bool_), x[1:] != x[:-1]]
    )
    return np.asarray(x[first])


def _batches(texts: Sequence[str], characters: int = 1_000_000) -> Iterator[Sequence[str]]:
    start, held = 0, 0
    for i, text in enumerate(texts):
        held += len(text)
        if held >= characters:
            yield texts[start : i + 1]
            start, held = i + 1, 0
    if start < len(texts):
        yield texts[start:]


# --- candidates and their check -------------------------------------------------------------


def _near_pairs(texts: Sequence[str], near: float) -> tuple[Ints, NDArray[np.float64]]:
    """Pairs (m, 2) of distinct normalised texts with a Jaccard similarity of at least `near`."""
    rows = np.array([i for i, t in enumerate(texts) if len(t) >= LEAST_LENGTH], dtype=np.int64)
    empty = np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    if len(rows) < 2:
        return empty
    values, starts = _sketches([texts[i] for i in rows])
    keys, small = _bands(values, starts)
    # Within a bucket rows are ordered by another band's key, so that likely twins are neighbours.
    found = [_candidates(keys[b], keys[b - 1], small, near) for b in range(BANDS)]
    codes = _distinct(np.concatenate(found))
    pairs = np.stack([codes // len(rows), codes % len(rows)], axis=1)
    similar = _jaccard(values, starts, pairs)
    kept = similar >= near
    return rows[pairs[kept]], similar[kept]


def _bands(values: Words, starts: Ints) -> tuple[NDArray[np.uint64], Words]:
    """Band keys (BANDS, n), and the MinHash values (n, 32) of the first eight bands."""
    n = len(starts) - 1
    constants = _splitmix(np.arange(100, 100 + 2 * BANDS * BAND, dtype=np.uint64))
    flip = constants[::2].astype(np.uint32)
    times = (constants[1::2].astype(np.uint32)) | np.uint32(1)
    keys = np.zeros((BANDS, n), dtype=np.uint64)
    small = np.zeros((n, 8 * BAND), dtype=np.uint32)
    start = 0
    while start < n:
        stop = int(np.searchsorted(starts, starts[start] + CHUNK, side="right")) - 1
        stop = min(n, max(stop, start + 1))
        some = values[starts[start] : starts[stop]]
        begins = starts[start:stop] - starts[start]
        for p in range(BANDS * BAND):
            least = np.minimum.reduceat((some ^ flip[p]) * times[p], begins)
            band = p // BAND
            if band < 8:
                small[start:stop, p] = least
            old = keys[band, start:stop]
            keys[band, start:stop] = _splitmix(old * np.uint64(31) + least + np.uint64(1))
        start = stop
    return keys, small


def _candidates(
    key: NDArray[np.uint64], other: NDArray[np.uint64], small: Words, near: float
) -> Ints:
    """Codes i * n + j, i < j, of rows in one bucket whose few MinHash values agree well enough."""
    n = len(key)
    order = np.lexsort((other, key))
    ordered = key[order]
    # Three standard errors below `near`, so that hardly any true pair is lost.
    enough = near - 3 * float(np.sqrt(near * (1 - near) / small.shape[1]))
    found = []
    for step in range(1, min(COMPARED_NEIGHBOURS, n - 1) + 1):
        at = np.flatnonzero(ordered[:-step] == ordered[step:])
        if not len(at):
            break
        for chunk in np.array_split(at, max(1, len(at) // CHUNK)):
            a, b = order[chunk], order[chunk + step]
            alike = (small[a] == small[b]).mean(axis=1) >= enough
            low, high = np.minimum(a, b)[alike], np.maximum(a, b)[alike]
            found.append(low * n + high)
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _jaccard(values: Words, starts: Ints, pairs: Ints) -> NDArray[np.float64]:
    """Jaccard similarity of the sketches of each pair, (m,).

    Of a text cut to SKETCH shingles only hashes up to the largest kept one can be compared, so
    both sketches of a pair are read up to the smaller of their ends (the bottom-k estimator).
    """
    size = np.diff(starts)
    end = np.where(
        size >= SKETCH, values[np.maximum(starts[1:] - 1, 0)], np.uint32(0xFFFFFFFF)
    ).astype(np.uint64)
    out = np.zeros(len(pairs))
    for begin in range(0, len(pairs), 20_000):
        some = pairs[begin : begin + 20_000]
        limit = np.minimum(end[some[:, 0]], end[some[:, 1]])
        keys: list[Any] = []
        for side in (0, 1):
            take = size[some[:, side]]
            owner = np.repeat(np.arange(len(some)), take)
            offset = np.arange(len(owner)) - np.repeat(np.cumsum(take) - take, take)
            h = values[starts[some[owner, side]] + offset].astype(np.uint64)
            inside = h <= limit[owner]
            keys.append((owner[inside].astype(np.uint64) << np.uint64(32)) | h[inside])
        merged = np.sort(np.concatenate(keys))
        twice = merged[1:][merged[1:] == merged[:-1]]
        both = np.bincount((twice >> np.uint64(32)).astype(np.int64), minlength=len(some))
        total = np.bincount((merged >> np.uint64(32)).astype(np.int64), minlength=len(some))
        out[begin : begin + len(some)] = both / np.maximum(total - both, 1)
    return out
