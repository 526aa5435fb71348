"""One text, what a model says of it, and which words moved that: each left out once, in a batch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tunelab.models.explained import MOST_WORDS, WordMoved, spans_of_words, without, words_moved
from tunelab.serving.engine import items_of
from tunelab.serving.refusal import Refusal
from tunelab.serving.served import Item, Served
from tunelab.serving.service import Service
from tunelab.stats.predictions import UndefinedMetricError

__all__ = ["Tried", "try_text"]


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


async def try_text(service: Service, name: str | None, text: str) -> Tried:
    """Classify a text, and it without each of its words, all in one batch. Raises Refusal.

    Of a text with so many words that they would not fit into a batch, neighbours are left out
    together.
    """
    model = service.engine.table[name]
    item, cut = await asyncio.to_thread(_read_once, model, text)
    room = service.engine.limits.batch_tokens // max(1, model.reader.length(item)) - 1
    spans = spans_of_words(text, min(MOST_WORDS, room)) if room > 0 else []
    shorter = without(text, spans)
    others = await asyncio.to_thread(items_of, model, shorter) if shorter else []
    answer = await service.answer(model, [item, *others])
    try:
        rows = answer.probabilities()
    except UndefinedMetricError as e:
        raise Refusal("invalid", f"{model.name}: {e}.") from e
    return Tried(
        model=model.name,
        labels=model.label_names,
        probabilities=tuple(map(float, rows[0])),
        calibrated=model.temperature is not None,
        why_not=model.why_not,
        tokens=int(answer.tokens[0]),
        cut=cut,
        seconds=answer.queued_seconds + answer.computed_seconds,
        words=words_moved(spans, rows),
    )


def _read_once(model: Served, text: str) -> tuple[Item, bool]:
    """A text as the model takes it, and whether its end is not read."""
    try:
        return items_of(model, [text], cut=False)[0], False
    except Refusal as e:
        if e.fault != "too_long":
            raise
    return items_of(model, [text])[0], True
