"""Checks of what gives the label away without a word: case, marks, what is missing, ids, order.

A feature reads every row as one of a few values. A class is given away by it where a set of values
holds many of its rows and few of the others': the difference of these two shares (Youden's J) is
at least LEAST_DIFFERENCE, and by chance is out of the question, all features and classes together.
The set is chosen on one half of the rows and counted on the other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunelab.data.gate.values import PARTS, Bools, DatasetView, Finding, Floats, Ints

__all__ = ["find_surface_giveaways"]

LEAST_DIFFERENCE = 0.3
CHANCE = 0.01  # that anything is named in data without a give-away
MOST_VALUES_OF_FEATURE = 20  # of a feature; rarer ones are one value
LEAST_ROWS_TO_TELL = 50
_NOTHING = {"", "na", "n/a", "nan", "none", "null", "-", "[deleted]", "[removed]"}
_OF_TEXT = "If a text would not have it in use, take it away: models will read it alone."
_OF_ROWS = "Models read the text alone, but ask how these rows were collected."


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceFeature:
    """A reading of every row: `codes` (n,) index `values`, which are named as a sentence has them.

    The sentence is "`what` tells: {values} in so many of the texts (or rows) of this class".
    """

    where: str
    what: str
    values: tuple[str, ...]
    codes: Ints
    of_text: bool = False


def find_surface_giveaways(look: DatasetView) -> list[Finding]:
    """Classes given away by case, first or last character, what is missing, an id or the order."""
    n, k = len(look.labels), len(look.label_names)
    if n < LEAST_ROWS_TO_TELL:
        return []
    features = [f for f in _features_of(look) if len(np.unique(f.codes)) > 1]
    tests = max(1, len(features) * k)
    out = []
    for feature in features:
        told = max((_told(feature, look.labels, c) for c in range(k)), key=lambda t: t.difference)
        if told.difference >= LEAST_DIFFERENCE and told.p_value < CHANCE / tests:
            out.append(_finding(look, feature, told))
    return out


# --- features -------------------------------------------------------------------------------


def _features_of(look: DatasetView) -> Iterator[SurfaceFeature]:
    stripped = [t.strip() for t in look.texts]
    yield _feature("letter case", "the case of the letters", map(_case, stripped), of_text=True)
    yield _feature("last character", "the last character", map(_last, stripped), of_text=True)
    yield _feature("first character", "the first character", map(_first, stripped), of_text=True)
    yield _feature(
        "missing text", "whether there is a text", map(_presence, stripped), of_text=True
    )
    position = np.concatenate([np.arange(int((look.part == p).sum())) for p in range(len(PARTS))])
    sizes = np.bincount(look.part, minlength=len(PARTS))[look.part]
    yield SurfaceFeature(
        "row order", "whether a row's number is even", ("odd", "even"), 1 - position % 2
    )
    places = 2 * min(MOST_VALUES_OF_FEATURE // 2, max(2, len(look.labels) // 100))
    names = tuple(f"from {100 * i // places}% on" for i in range(places))
    place = position * places // np.maximum(1, sizes)
    yield SurfaceFeature("row order", "the place in the order of rows", names, place)
    yield from _parity("row ids", "whether the number of a row's id is even", look.ids)
    for name, values in look.columns.items():
        presence = [_presence("" if v is None else str(v).strip()) for v in values]
        yield _feature(f"column {name}", f"whether column {name!r} has a value", presence)
        yield from _parity(f"column {name}", f"whether the number in {name!r} is even", values)


def _feature(where: str, what: str, values: Any, of_text: bool = False) -> SurfaceFeature:
    """Of a value for each row; those that are rare become one."""
    read = list(values)
    names = [v for v, _ in Counter(read).most_common(MOST_VALUES_OF_FEATURE - 1)]
    number = {v: i for i, v in enumerate(names)}
    codes = np.array([number.get(v, len(names)) for v in read], dtype=np.int64)
    return SurfaceFeature(where, what, (*names, "others"), codes, of_text)


def _case(text: str) -> str:
    if text.isupper():
        return "all capitals"
    if text.islower():
        return "all small letters"
    if text.istitle():
        return "capitals at each word"
    return "small and capital letters" if any(map(str.isalpha, text[:200])) else "no letters"


def _last(text: str) -> str:
    return _kind_of_character(text[-1:])


def _first(text: str) -> str:
    return _kind_of_character(text[:1])


def _kind_of_character(c: str) -> str:
    if not c:
        return "nothing"
    if c.isalpha():
        return "a capital letter" if c.isupper() else "a letter"
    return "a digit" if c.isdigit() else repr(c)


def _presence(text: str) -> str:
    return "missing" if len(text) < 10 and text.lower() in _NOTHING else "there"


_NUMBER_AT_END = re.compile(r"(\d+)\D*$")


def _parity(where: str, what: str, values: Sequence[Any]) -> Iterator[SurfaceFeature]:
    """Even or odd, where nearly every value ends in a number of its own."""
    sample = [v for v in values[:200] if v is not None]
    if sum(_last_digit(v) >= 0 for v in sample) < 0.9 * max(1, len(sample)):
        return
    if len(set(map(str, sample))) < 0.9 * len(sample):
        return  # no id but a quantity or a class, which other checks read
    digits = np.array([_last_digit(v) for v in values], dtype=np.int64)
    codes = np.where(digits < 0, 2, 1 - digits % 2)
    yield SurfaceFeature(where, what, ("odd", "even", "no number"), codes)


def _last_digit(value: Any) -> int:
    """The last digit of the last number in a value, -1 where it has none."""
    if isinstance(value, float) and not value.is_integer():
        return -1
    number = _NUMBER_AT_END.search(str(int(value) if isinstance(value, float) else value))
    return int(number[1][-1]) if number else -1


# --- what a feature tells -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What a feature tells of class `label`: the values `chosen` (n_values,) are in the share
    `within` of its rows and in `outside` of the others."""

    label: int
    chosen: Bools
    within: float
    outside: float
    p_value: float

    @property
    def difference(self) -> float:
        """Youden's J, in -1..1."""
        return self.within - self.outside


def _told(feature: SurfaceFeature, labels: Ints, label: int) -> Told:
    """Values chosen on each half of the rows and counted on the other (Fisher's exact p)."""
    from scipy.stats import hypergeom

    own = labels == label
    half = np.random.default_rng(0).permutation(len(labels)) % 2 == 0
    hits = np.zeros(2)  # rows with chosen values: in the class, outside it
    for known in (half, ~half):
        chosen = _chosen(feature, own, known)
        marked = chosen[feature.codes] & ~known
        hits += [int((marked & own).sum()), int((marked & ~own).sum())]
    inside, n = int(own.sum()), len(own)
    p = float(hypergeom.sf(hits[0] - 1, n, inside, hits.sum()))
    shares = hits / np.maximum(1, [inside, n - inside])
    everywhere = _chosen(feature, own, np.ones(n, dtype=np.bool_))
    return Told(label, everywhere, float(shares[0]), float(shares[1]), p)


def _chosen(feature: SurfaceFeature, own: Bools, known: Bools) -> Bools:
    """The values that are more frequent in the class than outside, of the known rows."""
    size = len(feature.values)
    shares: list[Floats] = []
    for rows in (own & known, ~own & known):
        counts = np.bincount(feature.codes[rows], minlength=size).astype(np.float64)
        shares.append(counts / max(1.0, float(counts.sum())))
    return np.asarray(shares[0] > shares[1])


def _finding(look: DatasetView, feature: SurfaceFeature, told: Told) -> Finding:
    rows = np.flatnonzero(told.chosen[feature.codes] & (look.labels == told.label))
    seen = Counter(feature.codes[rows].tolist()).most_common(2)
    many = int(told.chosen.sum())
    values = (
        " or ".join(feature.values[c] for c, _ in seen)
        if many <= 3 or feature.of_text
        else f"{many} of {len(feature.values)} such places are"
    )
    things = "texts" if feature.of_text else "rows"
    return Finding(
        check="surface",
        where=feature.where,
        level="warning" if feature.of_text else "note",
        count=len(rows),
        of=len(look.labels),
        says=f"{feature.what} gives away {look.label_names[told.label]!r}: {values} in "
        f"{told.within:.0%} of its {things} and in {told.outside:.0%} of the others",
        advice=_OF_TEXT if feature.of_text else _OF_ROWS,
        numbers={"within": told.within, "outside": told.outside},
        examples=look.examples(rows),
        test_ids=look.test_ids(rows) if feature.of_text else (),
    )
