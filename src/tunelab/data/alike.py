"""Label names that look alike and are not equal: which they are, and one name for each group."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tunelab.core.words import DRAWN_ALIKE, rows_word, short, told_apart, without_shapeless

__all__ = [
    "alike_groups",
    "joined_names",
    "looks",
    "said_of_group",
]

_QUOTES = "\"'`\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb"
_NUMBER_LABEL = re.compile(r"(?P<sign>[+-]?)0*(?P<digits>[0-9]+)(\.0+)?")
_DASHES = re.compile(r"[\u2010-\u2015\u2212]")


def looks(name: str) -> str:
    """What a label looks like to a reader: equal for names that are hardly told apart.

    Case, accents composed or not, full-width letters, invisible characters, blanks of any kind,
    quotes around it, leading zeros, and letters of another script that are drawn alike.
    """
    seen = unicodedata.normalize("NFKC", without_shapeless(name))
    seen = _DASHES.sub("-", " ".join(seen.split())).strip(_QUOTES).strip()
    seen = unicodedata.normalize("NFKC", seen.casefold()).translate(DRAWN_ALIKE)
    number = _NUMBER_LABEL.fullmatch(seen)
    return number["sign"].strip("+") + number["digits"] if number else seen


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
    plain = unicodedata.normalize("NFC", " ".join(without_shapeless(name).split()).strip(_QUOTES))
    return name == plain


def said_of_group(group: Sequence[str], counts: Counter[str]) -> str:
    """The names of a group with their rows; written out where they would look the same."""
    quoted = told_apart([repr(short(n, 40)) for n in group])
    return ", ".join(
        f"{q} ({rows_word(counts[n])})" for q, n in zip(quoted[:12], group[:12], strict=True)
    )
