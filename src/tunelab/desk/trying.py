"""One text, what a model says of it, and which words moved that: each left out once, in a batch."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.serving.engine import items_of
from tunelab.serving.refusal import Refusal
from tunelab.serving.served import Item, Served
from tunelab.serving.service import Service
from tunelab.stats.predictions import UndefinedMetricError

__all__ = ["Tried", "WordMoved", "spans_of_words", "try_text"]

MOST_PARTS = 400
# A character of a script that is written without spaces is a word of its own.
_NO_SPACES = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD_OF_TEXT = re.compile(rf"[{_NO_SPACES}]|[^\s{_NO_SPACES}]+")
_LEAST = 1e-9  # of a probability, before its logarithm is taken


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
class Tried:
    """What a model says of a text: probabilities in the order of `labels`, whether they are
    calibrated (else `why_not`), the tokens that were read, whether the text was `cut`, seconds,
    and the words that moved the probability of the first of the likeliest labels.
    """

    model: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    calibrated: bool
    why_not: str
    tokens: int
    cut: bool
    seconds: float
    words: tuple[WordMoved, ...]


def spans_of_words(text: str, most: int) -> list[tuple[int, int]]:
    """Where the words of a text lie; of more than `most`, several beside each other are one."""
    spans = [m.span() for m in _WORD_OF_TEXT.finditer(text)]
    size = max(1, -(-len(spans) // most))
    groups = (spans[i : i + size] for i in range(0, len(spans), size))
    return [(group[0][0], group[-1][1]) for group in groups]


async def try_text(service: Service, name: str | None, text: str) -> Tried:
    """Classify a text, and it without each of its words, all in one batch. Raises Refusal.

    Of a text with so many words that they would not fit into a batch, neighbours are left out
    together.
    """
    model = service.engine.table[name]
    item, cut = await asyncio.to_thread(_read_once, model, text)
    room = service.engine.limits.batch_tokens // max(1, model.reader.length(item)) - 1
    spans = spans_of_words(text, min(MOST_PARTS, room)) if room > 0 else []
    shorter = [_without(text, start, stop) for start, stop in spans]
    others = await asyncio.to_thread(items_of, model, shorter) if shorter else []
    answer = await service.answer(model, [item, *others])
    try:
        rows = answer.probabilities()
    except UndefinedMetricError as e:
        raise Refusal("invalid", f"{model.name}: {e}.") from e
    best = int(rows[0].argmax())
    odds = _log_odds(rows[:, best])
    return Tried(
        model=model.name,
        labels=model.label_names,
        probabilities=tuple(map(float, rows[0])),
        calibrated=model.temperature is not None,
        why_not=model.why_not,
        tokens=int(answer.tokens[0]),
        cut=cut,
        seconds=answer.queued_seconds + answer.computed_seconds,
        words=tuple(
            WordMoved(start, stop, float(rows[i, best]), float(odds[0] - odds[i]))
            for i, (start, stop) in enumerate(spans, start=1)
        ),
    )


def _read_once(model: Served, text: str) -> tuple[Item, bool]:
    """A text as the model takes it, and whether its end is not read."""
    try:
        return items_of(model, [text], cut=False)[0], False
    except Refusal as e:
        if e.fault != "too_long":
            raise
    return items_of(model, [text])[0], True


def _without(text: str, start: int, stop: int) -> str:
    """A text without a part of it, and without a second space where that was."""
    return f"{text[:start]}{text[stop:].lstrip()}".strip()


def _log_odds(p: NDArray[np.float64]) -> NDArray[np.float64]:
    p = np.clip(p, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(p) - np.log1p(-p))
