"""Texts that are the same, nearly the same, or in one another: within one list, or of two lists.

Two texts are *the same* where nothing but case, white space, punctuation, accents' encoding and
HTML differ (`normalise`). What makes them *nearly* the same, or one *contained* in the other, is
told in `passages`. `--on-leak drop` and the gate ask the same question here.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.data.passages import Likeness, linked

__all__ = [
    "Matches",
    "Twins",
    "find_twins",
    "match",
    "nearest",
    "normalise",
    "rows_unlike",
]


Ints = NDArray[np.int64]

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
    near each other or one in the other (`kind`, of Likeness, (m,)), the smaller number first.
    `similarity` (m,): the share of wording that both have; of contained ones that of the shorter.
    """

    group: Ints
    first: Ints
    texts: tuple[str, ...]
    pairs: Ints
    kind: Ints
    similarity: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """For each of n texts its likest text in a reference list: `row` (n,), -1 where none is alike.

    `kind` (n,) says how alike, as Likeness; it is -1, and `similarity` (n,) 0, where none is.
    """

    row: Ints
    kind: Ints
    similarity: NDArray[np.float64]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which texts have one that is the same, near or contained, (n,)."""
        return np.asarray(self.row >= 0)

    def count(self, kind: Likeness) -> int:
        """How many texts are alike in this way."""
        return int((self.kind == kind).sum())


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
        words = plain.encode("ascii").translate(_ASCII, b"'`").decode("ascii")
    else:
        words = unicodedata.normalize("NFKC", plain).casefold()
        words = words.translate(dict.fromkeys(map(ord, _APOSTROPHES)))
        words = _NO_WORD.sub(" ", words)
    return " ".join(words.split()) or text.strip()


def find_twins(texts: Sequence[str], labels: Sequence[int] | Ints | None = None) -> Twins:
    """Find what is the same, near and contained within one list of texts.

    `labels` (n,), where they are known: texts of a few words that differ in a word or two and have
    different labels ("one of the best ...", "one of the worst ...") are two texts.
    """
    number: dict[str, int] = {}
    group = np.fromiter(
        (number.setdefault(normalise(t), len(number)) for t in texts), np.int64, len(texts)
    )
    first = np.full(len(number), -1, dtype=np.int64)
    first[group[::-1]] = np.arange(len(texts))[::-1]
    links = linked(list(number), _label_of_each(group, first, labels))
    return Twins(group, first, tuple(number), links.pairs, links.kind, links.share)


def _label_of_each(group: Ints, first: Ints, labels: Sequence[int] | Ints | None) -> Ints:
    """The label of each group of texts (n_groups,); -1 where it is unknown, or not one."""
    if labels is None:
        return np.full(len(first), -1, dtype=np.int64)
    known = np.asarray(labels, dtype=np.int64)
    label_of_group = known[first] if len(first) else known[:0]
    label_of_group[group[known != label_of_group[group]]] = -1
    return label_of_group


def match(
    reference: Sequence[str],
    texts: Sequence[str],
    labels: tuple[Sequence[int] | Ints, Sequence[int] | Ints] | None = None,
) -> Matches:
    """Find for each text the likest one of a reference list: the same, near, or contained.

    `labels` are those of the reference and of the texts, by the same numbers (see `find_twins`).
    """
    n = len(reference)
    known = None if labels is None else np.concatenate([np.asarray(x, np.int64) for x in labels])
    twins = find_twins([*reference, *texts], known)
    # The first reference row of each group, or -1.
    row_of = np.full(len(twins.first), -1, dtype=np.int64)
    row_of[twins.group[:n][::-1]] = np.arange(n)[::-1]
    return nearest(twins, row_of, twins.group[n:])


def rows_unlike(known: Sequence[str], texts: Sequence[str], order: Ints, most: int) -> Ints:
    """The first `most` texts of an order (n,) that are like none of `known` and like none before
    them: the same, near or contained. Gives their places (m,).
    """
    twins = find_twins([*known, *texts])
    of_known, of_texts = twins.group[: len(known)], twins.group[len(known) :]
    near: dict[int, list[int]] = {}
    for a, b in twins.pairs.tolist():
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    alike = np.zeros(len(twins.first), dtype=np.bool_)

    def take(group: int) -> None:
        alike[[group, *near.get(group, ())]] = True

    for group in np.unique(of_known).tolist():
        take(group)
    chosen: list[int] = []
    for row in order.tolist():
        if len(chosen) == most:
            break
        if not alike[of_texts[row]]:
            take(int(of_texts[row]))
            chosen.append(row)
    return np.asarray(chosen, dtype=np.int64)


def nearest(twins: Twins, row_of: Ints, groups: Ints) -> Matches:
    """For some groups the likest row that a group, or one alike, has: near ones before contained.

    `row_of` (n_groups,) is a row of each group, -1 where it has none.
    """
    row, similar = row_of.copy(), np.where(row_of >= 0, 1.0, 0.0)
    kind = np.where(row_of >= 0, int(Likeness.SAME), -1)
    both = np.concatenate([twins.pairs, twins.pairs[:, ::-1]])
    kinds, shares = np.tile(twins.kind, 2), np.tile(twins.similarity, 2)
    useful = np.flatnonzero((row_of[both[:, 0]] < 0) & (row_of[both[:, 1]] >= 0))
    useful = useful[np.lexsort((-shares[useful], kinds[useful]))]
    mine, at = np.unique(both[useful, 0], return_index=True)  # the first, thus the likest, of each
    best = useful[at]
    row[mine], similar[mine], kind[mine] = row_of[both[best, 1]], shares[best], kinds[best]
    return Matches(row[groups], kind[groups], similar[groups])
