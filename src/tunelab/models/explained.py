"""Which words moved a classifier's answer: each left out once, and what that does to the log odds.

It asks nothing of a classifier but its probabilities, so it is the same for every kind: for a
linear one it is what its weights give, interactions of words and all; for a transformer it is what
gradients stand for, measured. `benchmarks/explaining.py` compares them: of the words that are left
out together, those found here move the score furthest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MOST_WORDS",
    "Explanation",
    "WordMoved",
    "explain",
    "moved_in_words",
    "spans_of_words",
    "without",
    "words_moved",
]

MOST_WORDS = 400  # of a text; of a longer one neighbours are left out together
_EXPLAINED_AT_A_TIME = 4096
# A character of a script that is written without spaces is a word of its own.
_NO_SPACES = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD_OF_TEXT = re.compile(rf"[{_NO_SPACES}]|[^\s{_NO_SPACES}]+")
_LEAST = 1e-9  # of a probability, before its logarithm is taken

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WordMoved:
    """Characters `start` to `stop` left out: the label's probability `without` them.

    `moved`: by how much they raise the label's log odds; below 0: they lower them.
    """

    start: int
    stop: int
    without: float
    moved: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a classifier says of a text, with what probability, and how much each word moved that,
    in the order of the text.
    """

    text: str
    label: str
    probability: float
    words: tuple[WordMoved, ...]


def explain(
    predict_proba: Callable[[list[str]], Floats], label_names: Sequence[str], texts: Sequence[str]
) -> list[Explanation]:
    """Explain the label of each text. `predict_proba`: n texts -> probabilities (n, n_classes)."""
    spans = [spans_of_words(text, MOST_WORDS) for text in texts]
    out: list[Explanation] = []
    first = 0
    while first < len(texts):
        last, asked = first, 0
        while last < len(texts) and (not asked or asked + len(spans[last]) < _EXPLAINED_AT_A_TIME):
            asked += 1 + len(spans[last])
            last += 1
        some = range(first, last)
        given = [t for i in some for t in (texts[i], *without(texts[i], spans[i]))]
        rows, start = predict_proba(given), 0
        for i in some:
            own = rows[start : start + 1 + len(spans[i])]
            start += len(own)
            best = int(own[0].argmax())
            p = float(own[0, best])
            out.append(Explanation(texts[i], label_names[best], p, words_moved(spans[i], own)))
        first = last
    return out


def spans_of_words(text: str, most: int) -> list[tuple[int, int]]:
    """Where the words of a text lie; of more than `most`, several beside each other are one."""
    spans = [m.span() for m in _WORD_OF_TEXT.finditer(text)]
    size = max(1, -(-len(spans) // most))
    groups = (spans[i : i + size] for i in range(0, len(spans), size))
    return [(group[0][0], group[-1][1]) for group in groups]


def without(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """A text without each of these parts, and without a second space where that was."""
    return [f"{text[:start]}{text[stop:].lstrip()}".strip() for start, stop in spans]


def words_moved(spans: Sequence[tuple[int, int]], rows: Floats) -> tuple[WordMoved, ...]:
    """What each part moved: `rows` are probabilities (1 + n, n_classes) of a text, then of it
    without each of its n parts. The label is the likeliest of the whole text.
    """
    best = int(rows[0].argmax())
    odds = _log_odds(rows[:, best])
    return tuple(
        WordMoved(start, stop, float(rows[i, best]), float(odds[0] - odds[i]))
        for i, (start, stop) in enumerate(spans, start=1)
    )


def moved_in_words(text: str, words: Sequence[WordMoved], most: int = 5) -> str:
    """The words that moved the label furthest, first the furthest: "wonderful +1.9, but -0.3"."""
    furthest = sorted(words, key=lambda w: -abs(w.moved))[:most]
    said = (f"{' '.join(text[w.start : w.stop].split())} {w.moved:+.2f}" for w in furthest)
    return ", ".join(said)


def _log_odds(p: Floats) -> Floats:
    p = np.clip(p, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(p) - np.log1p(-p))
