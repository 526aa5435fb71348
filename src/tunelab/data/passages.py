"""Pairs of texts that have much of their wording in common: nearly the same, or one in the other.

A text is read as a row of words; where a script writes no spaces, each sign is a word. What two
texts share is measured by their *neighbours*: words that stand next to each other, or next but
one. Of texts A and B the *resemblance* is the share of the larger set of neighbours that is in
both, the *containment* that of the smaller (Broder 1997, "On the resemblance and containment of
documents"). Wording that many texts have says nothing of two of them: neighbours that more texts
have than `usual(n)` do not count, and a passage that more than RARE texts have is no passage.

Two texts are *near* where their resemblance is at least REORDERED, or at least NEAR and IN_ORDER
of their words stand in the same order in both: about a fifth of the words may be others. One is
*contained* in the other where at least CONTAINED of a text of LONG words is, or they share a
passage word for word: of PASSAGE words, or of SHORT_PASSAGE that are HALF of the shorter.
Fewer words in common are chance: of unrelated short reviews a third share four words with another,
one in forty six, none twelve; so a short passage also has to be of rare wording (TELLING).

Candidates come from lists of the texts that each rare n-gram is in; no pair is compared that
shares none. 100,000 texts of 20 words take 2 seconds, of 200 words 9. Of more than WHOLE words a
sample of long texts' n-grams is listed, and a sample of the texts tells how usual wording is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.data.word_hashes import Hashes, Ints, Words, ranges_of, word_grams, words_of

__all__ = [
    "Likeness",
    "Links",
    "linked",
    "usual",
]


Floats = NDArray[np.float64]

NEAR, REORDERED, IN_ORDER = 0.3, 0.6, 0.65
LEAST_WORDS_TO_BE_NEAR = 5  # words of its own below which a text is near none: "not good", "good"
FEW_WORDS, NEAR_OF_FEW = 6, 0.5  # below so many words chance makes texts alike more often
OTHER_LABEL, SURELY_COPIED = 0.8, 20  # see `_two_texts`
CONTAINED, LONG = 0.6, 10
PASSAGE, SHORT_PASSAGE, HALF = 12, 5, 0.45
TELLING, TELLING_SHORT = 2.0, 3.3  # see `_likenesses`
LONG_PASSAGE = 8  # words of the n-grams that are listed of very many words, instead of 5
RARE = 10  # texts that may have a passage
WHOLE, LISTED_WHOLE = 4_000_000, 64  # words up to which all n-grams are listed: of all, of a text
CHUNK = 1_000_000  # words read at a time
# What is held in memory at a time: n-grams that are listed, entries of lists, pairs compared.
GRAMS_AT_A_TIME, ENTRIES_AT_A_TIME, PAIRS_AT_A_TIME = 2_000_000, 2_000_000, 100_000
EACH_WITH_ALL, NEXT = 20, 4  # texts of an n-gram compared each with all; of more, with the next


class Likeness(IntEnum):
    """How two texts are alike: the same but for marks, nearly, or one (half of it) in the other."""

    SAME = 0
    NEAR = 1
    CONTAINED = 2


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """`pairs` (m, 2) of texts, the smaller number first; `kind` (m,): Likeness.NEAR or CONTAINED.

    `share` (m,): the resemblance of near ones, the containment of others.
    """

    pairs: Ints
    kind: Ints
    share: Floats


def usual(n: int) -> int:
    """In how many of n texts wording may be before it counts no more.

    A twentieth of few texts, and of many a two hundredth: a file may have several footers.
    """
    return int(max(5, min(n / 20, max(25, n / 200))))


def linked(texts: Sequence[str], labels: Ints) -> Links:
    """Find the pairs among n distinct normalised texts; `labels` (n,), -1 where it is unknown."""
    n = len(texts)
    nothing = Links(np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
    if n < 2:
        return nothing
    # Any order but that of the rows: texts of other parts are to be among the next ones.
    order = np.random.default_rng(0).permutation(n)
    words = words_of([texts[i] for i in order])
    rate = 1 << max(0, int(np.ceil(np.log2(max(1, len(words.hashes)) / WHOLE))))
    neighbours = [_Lists.of(words, offsets, usual(n), rate) for offsets in ((0, 1), (0, 2))]
    many = rate > 1 and len(words.hashes) > n * LISTED_WHOLE
    width, rate_of_passages = (LONG_PASSAGE if many else SHORT_PASSAGE), max(1, rate // 4)
    passages = _Lists.of(words, tuple(range(width)), usual(n), rate_of_passages)
    near, alike_in_part = _likely_near(words, neighbours, rate), _likely_passages(passages)
    codes = _distinct(np.concatenate([near, alike_in_part]))
    if not len(codes):
        return nothing
    pairs = np.stack([codes // n, codes % n], axis=1)
    lists = [*neighbours, passages]
    some = [
        _likenesses(words, pairs[i : i + PAIRS_AT_A_TIME], lists, labels[order])
        for i in range(0, len(pairs), PAIRS_AT_A_TIME)
    ]
    parts = [(links.pairs, links.kind, links.share) for links in some]
    links = Links(*(np.concatenate(x) for x in zip(*parts, strict=True)))
    back = np.sort(order[links.pairs], axis=1)
    at = np.lexsort((back[:, 1], back[:, 0]))
    return Links(back[at], links.kind[at], links.share[at])


def _likely_near(words: Words, neighbours: list[_Lists], rate: int) -> Ints:
    """Codes of pairs that share a tenth of the rarer neighbours of one, and two at least."""
    n = len(words)
    own = sum((one.counted for one in neighbours), np.zeros(n, dtype=np.int64))
    # Of a short text all are listed, of a long one one of `rate`.
    own = np.where(words.sizes <= LISTED_WHOLE, own / rate, own)
    likely: list[Ints] = []
    for codes, shared in _shared_lists(neighbours, EACH_WITH_ALL, NEXT):
        least = np.maximum(2, 0.1 * np.minimum(own[codes // n], own[codes % n]))
        likely.append(codes[shared >= least])
    return np.concatenate(likely)


def _likely_passages(passages: _Lists) -> Ints:
    """Codes of pairs that share a passage, or a fifth of the shorter text."""
    n, beyond = len(passages.counted), len(passages.offsets) - 1
    own = passages.counted + beyond
    likely: list[Ints] = []
    for codes, shared in _shared_lists([passages], RARE, 0):
        run = passages.rate * shared + beyond
        shortest = np.minimum(own[codes // n], own[codes % n])
        likely.append(codes[(run >= PASSAGE) | (run >= 0.2 * shortest)])
    return np.concatenate(likely)


def _shared_lists(
    lists: Sequence[_Lists], all_of: int, following: int
) -> Iterator[tuple[Ints, Ints]]:
    """Codes of pairs of texts, and how many lists they share: those of some texts at a time."""
    n, entries = len(lists[0].counted), sum(len(one.text) for one in lists)
    step = max(1, n * ENTRIES_AT_A_TIME // max(ENTRIES_AT_A_TIME, entries))
    for start in range(0, n, step):
        some = range(start, start + step)
        yield _counted([c for one in lists for c in one.pairs(all_of, following, some)])


# --- lists of texts -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Lists:
    """In which of n texts each n-gram is: those of 2 to `most` texts, list after list.

    `text`, `rank` and `size` (k,): the text, its place in its list, and the list's length. `grams`
    are the hashes of all n-grams of two texts or more, sorted, `texts_with` how many have each.
    `counted` (n,): distinct n-grams of each text that at most `most` have.
    """

    offsets: tuple[int, ...]
    most: int
    rate: int
    text: NDArray[np.int32]
    rank: NDArray[np.int32]
    size: NDArray[np.int32]
    grams: Hashes
    texts_with: Ints
    counted: Ints

    @classmethod
    def of(cls, words: Words, offsets: tuple[int, ...], most: int, rate: int) -> _Lists:
        """List the n-grams of all texts; of long ones one in `rate`, by their hashes.

        Those of a share of all hashes at a time, so that memory grows with what is kept alone.
        """
        n = len(words)
        listed = int((words.sizes / np.where(words.sizes > LISTED_WHOLE, rate, 1)).sum())
        bits = (listed // GRAMS_AT_A_TIME).bit_length()
        counted = np.zeros(n, dtype=np.int64)
        entries: list[list[NDArray[np.int32]]] = []
        known: list[tuple[Hashes, Ints]] = []
        for part in range(1 << bits):
            key = _keys(words, offsets, rate, n, (part, bits))
            gram, whose = key & ~_low(n), (key & _low(n)).astype(np.int64)
            new = np.flatnonzero(_firsts(gram))
            size = np.diff(np.append(new, len(gram)))
            of_list = np.repeat(size, size)
            kept = np.flatnonzero((of_list >= 2) & (of_list <= most))
            rank = kept - np.repeat(new, size)[kept]
            counted += np.bincount(whose[of_list <= most], minlength=n)
            entries.append([x.astype(np.int32) for x in (whose[kept], rank, of_list[kept])])
            known.append((gram[new[size >= 2]], size[size >= 2]))
        if rate == 1:
            grams, texts_with = (np.concatenate(x) for x in zip(*known, strict=True))
        else:
            grams, texts_with = _frequencies(words, offsets)
        text, ranks, sizes = (np.concatenate(x) for x in zip(*entries, strict=True))
        return cls(offsets, most, rate, text, ranks, sizes, grams, texts_with, counted)

    def pairs(self, all_of: int, following: int, first: range) -> Iterator[Ints]:
        """Codes i * n + j, i < j, of texts in one list, i among `first`: all of short lists, of
        others the next.
        """
        at = np.flatnonzero((self.text >= first.start) & (self.text < first.stop))
        for step in range(1, max(all_of, following + 1)):
            at = at[self.rank[at] + step < self.size[at]]
            if step == following + 1:
                at = at[self.size[at] <= all_of]
            if not len(at):
                return
            yield self.text[at].astype(np.int64) * len(self.counted) + self.text[at + step]

    def how_many(self, hashes: Hashes) -> Ints:
        """How many texts have each of some n-grams, which at least one has."""
        if not len(self.grams):
            return np.ones(len(hashes), dtype=np.int64)
        keys = hashes & ~_low(len(self.counted))
        at = np.minimum(np.searchsorted(self.grams, keys), len(self.grams) - 1)
        return np.where(self.grams[at] == keys, self.texts_with[at], 1)


def _keys(
    words: Words, offsets: tuple[int, ...], rate: int, n: int, part: tuple[int, int] = (0, 0)
) -> Hashes:
    """Hashes of the n-grams with the number of the text in their last bits, distinct, sorted.

    Of texts of more than LISTED_WHOLE words only one n-gram in `rate`. `part`: those whose first
    bits are this number, and how many bits that are.
    """
    first, bits = part
    pieces = [np.zeros(0, dtype=np.uint64)]
    begin = 0
    while begin < len(words):
        end = int(np.searchsorted(words.starts, words.starts[begin] + CHUNK, side="right")) - 1
        rows = np.arange(begin, min(len(words), max(end, begin + 1)))
        some = words.of(rows)
        hashes, at = word_grams(some, offsets)
        text = np.repeat(rows, some.sizes)[at]
        if rate > 1:
            kept = ((hashes & np.uint64(rate - 1)) == 0) | (words.sizes[text] <= LISTED_WHOLE)
            hashes, text = hashes[kept], text[kept]
        if bits:
            kept = hashes >> np.uint64(64 - bits) == first
            hashes, text = hashes[kept], text[kept]
        pieces.append((hashes & ~_low(n)) | text.astype(np.uint64))
        begin = int(rows[-1]) + 1
    return _distinct(np.concatenate(pieces))


def _frequencies(words: Words, offsets: tuple[int, ...]) -> tuple[Hashes, Ints]:
    """N-grams of two texts or more, sorted, and how many texts have each: from the first WHOLE
    words, which are those of a random sample of the texts.
    """
    n = len(words)
    m = max(1, int(np.searchsorted(words.starts, WHOLE)))
    gram = _keys(words.of(np.arange(min(m, n))), offsets, 1, n) & ~_low(n)
    new = np.flatnonzero(_firsts(gram))
    size = np.diff(np.append(new, len(gram)))
    return gram[new[size >= 2]], size[size >= 2] * n // m


def _at_least(n: int) -> int:
    """As many texts as make rare wording tell something: of few texts all wording is in a few."""
    return max(n, 1_000)


def _low(n: int) -> np.uint64:
    """A mask of the bits that number n texts."""
    return np.uint64((1 << max(1, (n - 1).bit_length())) - 1)


def _distinct(x: NDArray[Any]) -> NDArray[Any]:
    """Distinct values, sorted. np.unique hashes first, and took twelve times as long here."""
    x = np.sort(x)
    return np.asarray(x[_firsts(x)])


def _firsts(x: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a sorted array has a new value."""
    return np.concatenate([np.ones(min(1, len(x)), dtype=np.bool_), x[1:] != x[:-1]])


def _counted(pieces: list[Ints]) -> tuple[Ints, Ints]:
    """Distinct values and how often each is there."""
    x = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *pieces]))
    first = np.flatnonzero(_firsts(x))
    return x[first], np.diff(np.append(first, len(x)))


# --- verdicts -------------------------------------------------------------------------------


def _likenesses(words: Words, pairs: Ints, lists: list[_Lists], labels: Ints) -> Links:
    """Which candidates are near or contained; `lists` are of neighbours and, last, of passages."""
    rows = _distinct(pairs.ravel())
    some = words.of(rows)
    at = np.searchsorted(rows, pairs)
    both, own = _shared(some, at, lists[:-1])
    run = _words_of_passages(some, at, lists[-1])
    larger = np.maximum(own[at[:, 0]], own[at[:, 1]])
    smaller = np.minimum(own[at[:, 0]], own[at[:, 1]])
    resemblance, containment = both / np.maximum(larger, 1), both / np.maximum(smaller, 1)
    plain = _without_common(some, lists, everyday=max(5, len(words) // 20))
    length = plain.sizes[at].min(axis=1)
    ordered = _words_in_order(plain, at, (resemblance >= NEAR) & (length >= LEAST_WORDS_TO_BE_NEAR))
    alike = ordered / np.maximum(plain.sizes[at].max(axis=1), 1)
    near = (resemblance >= np.where(length < FEW_WORDS, NEAR_OF_FEW, NEAR)) & (alike >= IN_ORDER)
    near |= (resemblance >= REORDERED) & (length >= FEW_WORDS)
    contained = (containment >= CONTAINED) & (length >= LONG)
    passage = np.flatnonzero((run >= PASSAGE) | (run >= HALF * length) & (run >= SHORT_PASSAGE))
    bits = _bits_told(plain, at[passage], lists[0])
    asked = np.where(run[passage] >= PASSAGE, TELLING, TELLING_SHORT) * np.log2(
        _at_least(len(labels))
    )
    contained[passage] |= bits >= asked
    one, other = labels[pairs[:, 0]], labels[pairs[:, 1]]
    torn = (one != other) & (one >= 0) & (other >= 0)
    two_texts = torn & near & (resemblance < OTHER_LABEL) & (ordered < SURELY_COPIED)
    kept = (near | contained) & ~two_texts
    held = np.maximum(containment, np.minimum(1.0, run / np.maximum(length, 1)))
    return Links(
        pairs[kept],
        np.where(near, Likeness.NEAR, Likeness.CONTAINED)[kept],
        np.where(near, resemblance, held)[kept],
    )


def _shared(words: Words, pairs: Ints, lists: list[_Lists]) -> tuple[Floats, Floats]:
    """How many neighbours that count each pair shares (m,), and each text has (n,)."""
    return _sums(words, pairs, lists, lambda one, many: 1.0 * (many <= one.most))


def _words_of_passages(words: Words, pairs: Ints, passages: _Lists) -> Floats:
    """How many words of passages that few texts have each pair shares, (m,)."""
    rare_passages, _ = _sums(words, pairs, [passages], lambda _, many: 1.0 * (many <= RARE))
    return np.asarray(np.where(rare_passages > 0, rare_passages + len(passages.offsets) - 1, 0.0))


def _bits_told(words: Words, pairs: Ints, neighbours: _Lists) -> Floats:
    """What the neighbours tell that each pair shares (m,), in bits: log2(texts / texts with it)."""
    n = _at_least(len(neighbours.counted))
    return _sums(words, pairs, [neighbours], lambda _, many: np.log2(n / many))[0]


def _sums(
    words: Words, pairs: Ints, lists: list[_Lists], weigh: Callable[[_Lists, Ints], NDArray[Any]]
) -> tuple[Floats, Floats]:
    """Sums of weights over the n-grams that each pair shares (m,), and that each text has (n,)."""
    n = len(words)
    front = np.uint64(64 - max(1, (n - 1).bit_length()))
    keys, weights = [], []
    for one in lists:
        hashes, at = word_grams(words, one.offsets)
        text = np.repeat(np.arange(n, dtype=np.uint64), words.sizes)[at]
        # The text in front, and as many bits of the hash as there is room for.
        keys.append((text << front) | (hashes >> (np.uint64(64) - front)))
        weights.append(weigh(one, one.how_many(hashes)))
    key, at = np.unique(np.concatenate(keys), return_index=True)
    weight = np.concatenate(weights)[at]
    key, weight = key[weight > 0], weight[weight > 0]
    whose = (key >> front).astype(np.int64)
    own = np.bincount(whose, weight, n).astype(np.float64)
    starts = np.concatenate([[0], np.bincount(whose, minlength=n).cumsum()])
    room = np.uint64(48)  # bits of a hash beside the number of a pair
    gram = (key & ((np.uint64(1) << front) - np.uint64(1))) >> (np.maximum(front, room) - room)
    both = np.zeros(len(pairs))
    for begin in range(0, len(pairs), 20_000):
        some = pairs[begin : begin + 20_000]
        number = np.arange(len(some), dtype=np.uint64) << room
        (a, size_a), (b, size_b) = (ranges_of(starts, some[:, side]) for side in (0, 1))
        left, right = np.repeat(number, size_a) | gram[a], np.repeat(number, size_b) | gram[b]
        place = np.minimum(np.searchsorted(right, left), max(0, len(right) - 1))
        hit = np.flatnonzero(right[place] == left) if len(right) else place[:0]
        whose = (left[hit] >> room).astype(np.int64)
        both[begin : begin + len(some)] = np.bincount(whose, weight[a[hit]], len(some))
    return both, own


def _without_common(words: Words, lists: list[_Lists], everyday: int) -> Words:
    """The words that lie in no common passage, nor in neighbours of more than `everyday` texts."""
    kept = np.ones(len(words.hashes), dtype=np.bool_)
    for one, more_than in ((lists[0], everyday), (lists[-1], lists[-1].most)):
        hashes, at = word_grams(words, one.offsets)
        common = at[one.how_many(hashes) > more_than]
        for offset in one.offsets:
            kept[common + offset] = False
    before = np.concatenate([[0], kept.cumsum()])
    return Words(words.hashes[kept], before[words.starts])


def _words_in_order(words: Words, pairs: Ints, asked: NDArray[np.bool_]) -> Ints:
    """How many words stand in both texts in the same order (m,), where it is asked; else 0.

    The longest common subsequence, bit by bit (Hyyrö 2004, "Bit-parallel LCS-length computation
    revisited").
    """
    out = np.zeros(len(pairs), dtype=np.int64)
    for i in np.flatnonzero(asked):
        a, b = (words.hashes[words.starts[t] : words.starts[t + 1]].tolist() for t in pairs[i])
        places: dict[int, int] = {}
        for j, word in enumerate(a):
            places[word] = places.get(word, 0) | 1 << j
        whole = (1 << len(a)) - 1
        free = whole
        for word in b:
            hit = free & places.get(word, 0)
            free = ((free + hit) | (free - hit)) & whole
        out[i] = len(a) - free.bit_count()
    return out
