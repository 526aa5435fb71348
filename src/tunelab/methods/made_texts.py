"""Texts made of training texts, by a seed: words left out, exchanged, cut, or joined to others'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "made_of",
]


_LEFT_OUT = 0.3  # of the words


def made_of(texts: Sequence[str], each: int, seed: int) -> list[str]:
    """`each` texts made of every text: in turn one without some of its words, one of its runs of
    words, and half of it beside half of another. None is empty, but of an empty text.
    """
    rng = np.random.default_rng(seed)
    words = [t.split() for t in texts]
    out = []
    for own in words:
        for i in range(each):
            other = words[int(rng.integers(len(words)))]
            out.append(" ".join(_MAKERS[i % len(_MAKERS)](own, other, rng)))
    return out


def _some_words(own: list[str], _other: list[str], rng: np.random.Generator) -> list[str]:
    kept = rng.random(len(own)) >= _LEFT_OUT
    return [w for w, k in zip(own, kept, strict=True) if k] or own


def _run(own: list[str], _other: list[str], rng: np.random.Generator) -> list[str]:
    length = max(1, int(len(own) * rng.uniform(0.25, 0.75)))
    start = int(rng.integers(max(1, len(own) - length + 1)))
    return own[start : start + length]


def _both_texts(own: list[str], other: list[str], _rng: np.random.Generator) -> list[str]:
    return [*own[: -(-len(own) // 2)], *other[len(other) // 2 :]]


_MAKERS = (_some_words, _run, _both_texts)
