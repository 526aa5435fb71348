"""Small words for messages: shortened texts, lists, counts, and what kind a value is."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from decimal import Decimal
from typing import Any

from tunelab.core.errors import DataError

__all__ = [
    "DRAWN_ALIKE",
    "agreeing",
    "as_one",
    "check_unicode",
    "comma_names",
    "counted",
    "first_names",
    "free_name",
    "is_nan",
    "kind_of",
    "listed",
    "rows_word",
    "short",
    "short_labels",
    "signed",
    "told_apart",
    "without_shapeless",
]


def check_unicode(value: str, where: str) -> None:
    """Refuse half of a surrogate pair: such text can be stored nowhere."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: half of a surrogate pair (\\u{ord(value[error.start]):04x}) at character "
            f"{error.start}, which is not Unicode text. Correct or remove it."
        ) from error


def is_nan(value: Any) -> bool:
    """Whether a value is the number that is none."""
    return isinstance(value, float) and math.isnan(value)


# --- words ----------------------------------------------------------------------------------


def short(text: str, limit: int = 200) -> str:
    """A text of at most `limit` characters, cut with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(names: Sequence[str], limit: int = 12) -> str:
    """Names for a message: quoted, shortened, the first `limit` of them."""
    shown = ", ".join(repr(short(str(n), 40)) for n in names[:limit])
    return shown + (f" and {len(names) - limit:,} more" if len(names) > limit else "")


def first_names(names: Sequence[str], most: int = 6) -> list[str]:
    """Names for a sentence: all, or the first of many and how many more: "8 more"."""
    return (
        list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    )


def comma_names(names: str | Sequence[str]) -> list[str]:
    """Several names, given each for itself or as one text with commas: `svm, lora[r=4,bias=all]`.

    A comma within brackets belongs to its name.
    """
    several = re.split(r",(?![^\[]*\])", names) if isinstance(names, str) else names
    return [n.strip() for n in several if n.strip()]


_SHORT_SETTINGS = {
    "lora_alpha": "a",
    "learning_rate": "lr",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch",
    "target_modules": "targets",
    "lora_dropout": "dropout",
    "max_length": "length",
}


def short_labels(labels: Iterable[str]) -> dict[str, str]:
    """Methods' labels as a chart has room for them, by label: `lora[r=4,lora_alpha=8]` is
    `lora r=4 a=8`. Where that would name two methods alike, each keeps its label.
    """
    names = {label: _short_label(label) for label in labels}
    given = Counter(names.values())
    return {label: name if given[name] == 1 else label for label, name in names.items()}


def _short_label(label: str) -> str:
    name, bracket, settings = label.removesuffix("]").partition("[")
    pairs = [pair.partition("=") for pair in settings.split(",")]
    if not (bracket and label.endswith("]") and all(equals for _, equals, _ in pairs)):
        return label
    return " ".join([name, *(f"{_SHORT_SETTINGS.get(k, k)}={v}" for k, _, v in pairs)])


def counted(n: int, noun: str) -> str:
    """A number of things: "1 seed", "1,200 seeds", "2 classes", "3 tries"."""
    many = re.sub("([^aeiou])y$", r"\1ie", noun) + ("es" if re.search("(s|x|ch)$", noun) else "s")
    return f"{n:,} {noun if n == 1 else many}"


def as_one(name: str) -> str:
    """A name within a list: in quotes where a comma of its own would make two of it."""
    return f'"{name}"' if "," in name else name


_OF_ONE = {"have": "has", "are": "is", "were": "was", "carry": "carries"}


def agreeing(n: int, words: str) -> str:
    """Words that begin with a verb, as a number of things asks for: 1 "has a link", 2 "have"."""
    verb, space, rest = words.partition(" ")
    return f"{_OF_ONE.get(verb, f'{verb}s')}{space}{rest}" if n == 1 else words


def signed(value: float, digits: int) -> str:
    """A number with its sign, but for what is written as nothing: "+0.8", "0.0", never "-0.0"."""
    text = f"{value:+,.{digits}f}"
    return text if float(text.replace(",", "")) else text[1:]


def rows_word(n: int) -> str:
    """A count of rows: `1 row`, `2,000 rows`."""
    return counted(n, "row")


def kind_of(value: Any) -> str:
    """What a value is, in a user's words, in the plural where it names a column's content."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true / false values"),
        ((int, float, Decimal), "numbers"),
        (str, "strings"),
        ((list, tuple), "lists"),
        (dict, "objects"),
        (bytes, "bytes"),
    )
    return next((word for kind, word in kinds if isinstance(value, kind)), type(value).__name__)


def free_name(name: str, taken: Container[str], form: str = "{} ({})") -> str:
    """The name, or the first of its numbered forms that is not taken."""
    n, free = 2, name
    while free in taken:
        free, n = form.format(name, n), n + 1
    return free


# --- names that look alike --------------------------------------------------------------------

# Small letters of Cyrillic and Greek that are drawn like Latin ones.
DRAWN_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0455\u0458"
    "\u03bf\u03b1\u03bd\u03b9\u03ba\u03c1\u03c4\u03c5\u03c7",
    "aeopcyxisjoavikptux",
)
_VARIATION = re.compile(r"[\ufe00-\ufe0f]")


def without_shapeless(name: str) -> str:
    """A name without the characters that have no shape."""
    if name.isascii() and name.isprintable():
        return name
    shown = (
        c if c in "\t\n\r" or unicodedata.category(c) not in ("Cf", "Cc") else "" for c in name
    )
    return _VARIATION.sub("", "".join(shown))


def told_apart(names: Sequence[str]) -> list[str]:
    """Names as readers see them, in order: with escapes where one would be drawn like another."""
    drawn = [
        " ".join(unicodedata.normalize("NFKC", without_shapeless(n)).split()).translate(DRAWN_ALIKE)
        for n in names
    ]
    count = Counter(drawn)
    return [n if count[d] == 1 else _spelt_out(n) for n, d in zip(names, drawn, strict=True)]


def _spelt_out(name: str) -> str:
    return "".join(
        c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in name
    )
