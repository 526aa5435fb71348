"""Label names that look alike and are not equal: which they are, and one name for each group."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tunelab.core.words import rows_word, short

__all__ = [
    "alike_groups",
    "joined_names",
    "looks",
    "said_of_group",
]

_QUOTES = "\"'`\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb"
_NUMBER_LABEL = re.compile(r"(?P<sign>[+-]?)0*(?P<digits>[0-9]+)(\.0+)?")
# Small letters of Cyrillic and Greek that are drawn like Latin ones.
_DRAWN_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0455\u0458"
    "\u03bf\u03b1\u03bd\u03b9\u03ba\u03c1\u03c4\u03c5\u03c7",
    "aeopcyxisjoavikptux",
)
_DASHES = re.compile(r"[\u2010-\u2015\u2212]")
_VARIATION = re.compile(r"[\ufe00-\ufe0f]")


def looks(name: str) -> str:
    """What a label looks like to a reader: equal for names that are hardly told apart.

    Case, accents composed or not, full-width letters, invisible characters, blanks of any kind,
    quotes around it, leading zeros, and letters of another script that are drawn alike.
    """
    seen = unicodedata.normalize("NFKC", _visible(name))
    seen = _DASHES.sub("-", " ".join(seen.split())).strip(_QUOTES).strip()
    seen = unicodedata.normalize("NFKC", seen.casefold()).translate(_DRAWN_ALIKE)
    number = _NUMBER_LABEL.fullmatch(seen)
    return number["sign"].strip("+") + number["digits"] if number else seen


def _visible(name: str) -> str:
    """A name without the characters that have no shape."""
    if name.isascii() and name.isprintable():
        return name
    shown = (
        c if c in "\t\n\r" or unicodedata.category(c) not in ("Cf", "Cc") else "" for c in name
    )
    return _VARIATION.sub("", "".join(shown))


def alike_groups(names: Iterable[str]) -> list[list[str]]:
    """The groups of two or more names that look alike, sorted."""
    by_look: dict[str, list[str]] = {}
    for name in sorted(names):
        by_look.setdefault(looks(name), []).append(name)
    return [group for look, group in by_look.items() if look and len(group) > 1]


def joined_names(counts: Mapping[str, int]) -> dict[str, str]:
    """Each name that looks like another, and the one name of its group.

    That is the one of most rows among those without invisible characters and quotes around them.
    """
    out: dict[str, str] = {}
    for group in alike_groups(counts):
        one = max(group, key=lambda n: (_is_clean(n), counts[n], group[0] == n))
        out |= dict.fromkeys(group, one)
    return out


def _is_clean(name: str) -> bool:
    plain = unicodedata.normalize("NFC", " ".join(_visible(name).split()).strip(_QUOTES))
    return name == plain


def said_of_group(group: Sequence[str], counts: Counter[str]) -> str:
    """The names of a group with their rows; written out where they would look the same."""
    shown = repr if len({_printed(n) for n in group}) == len(group) else ascii
    return ", ".join(f"{shown(short(n, 40))} ({rows_word(counts[n])})" for n in group[:12])


def _printed(name: str) -> str:
    """A name's repr, composed: equal for two that a terminal shows alike."""
    return unicodedata.normalize("NFKC", repr(name)).translate(_DRAWN_ALIKE)
