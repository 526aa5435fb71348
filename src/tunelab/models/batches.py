"""Token ids -> batches of like length. Padding is measured, never guessed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Batch",
    "CutTexts",
    "Encoded",
    "count_longer",
    "counting_cut",
    "encode",
    "eval_batches",
    "pad",
    "train_batches",
]


# Texts that are tokenized at a time: what a tokenizer says of a text is far larger than its ids.
_TEXTS_AT_A_TIME, _CHARACTERS, _LONG_TEXT = 256, 1_000_000, 20_000
_SPECIAL_TOKENS = 8  # of one text, at most
# Lengths are sorted within windows of so many batches: nearly no padding, still a random order.
BATCHES_IN_SIGHT = 50


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Tokenized texts: `ids`, n arrays of token ids (int64) of differing lengths."""

    ids: tuple[NDArray[np.int64], ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens in each text, (n,)."""
        return np.asarray([len(i) for i in self.ids], dtype=np.int64)

    def lengths_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of tokens in some of the texts."""
        return np.asarray([len(self.ids[r]) for r in rows], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """`rows` (b,) index the texts; `input_ids` and `attention_mask` are (b, longest)."""

    rows: NDArray[np.int64]
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


@dataclass(slots=True)
class CutTexts:
    """How many texts were cut, of those that were tokenized while they were counted."""

    count: int = 0


_counting: ContextVar[CutTexts | None] = ContextVar("_counting", default=None)


@contextmanager
def counting_cut() -> Iterator[CutTexts]:
    """Count the texts that `encode` cuts meanwhile: who scores them need not tokenize them again
    to say so.
    """
    cut = CutTexts()
    before = _counting.set(cut)
    try:
        yield cut
    finally:
        _counting.reset(before)


def count_as_cut(texts: int) -> None:
    """Count so many more texts as cut, where somebody counts."""
    if (counted := _counting.get()) is not None:
        counted.count += texts


def encode(tokenizer: Any, texts: Sequence[str], max_length: int) -> Encoded:
    """Tokenize with special tokens, cut at `max_length` tokens, without padding.

    A text of which the tokenizer makes nothing is one token of padding.
    """
    ids: list[NDArray[np.int64]] = []
    counted = _counting.get()
    for some in _at_a_time([_beginning(tokenizer, t, max_length) for t in texts]):
        said = _tokenizers_answer(tokenizer, some, max_length)
        rows = said["input_ids"]
        if counted is not None:
            counted.count += _count_cut(tokenizer, some, said, max_length)
        # A text without any token would have nothing that could be read.
        nothing = [int(getattr(tokenizer, "pad_token_id", None) or 0)]
        ids += [np.asarray(r or nothing, dtype=np.int64) for r in rows]
    return Encoded(tuple(ids))


def _count_cut(tokenizer: Any, texts: Sequence[str], said: Any, max_length: int) -> int:
    """How many of the texts a tokenizer has just cut: those of which something was left over."""
    encodings = said.get("encodings") or getattr(said, "encodings", None)
    if encodings is not None:
        return sum(bool(e.overflowing) for e in encodings)
    # A tokenizer in Python keeps nothing of the rest: texts as long as may be are tokenized again.
    full = [t for t, row in zip(texts, said["input_ids"], strict=True) if len(row) >= max_length]
    longer = _tokenizers_answer(tokenizer, full, max_length + 1)["input_ids"] if full else []
    return sum(len(row) > max_length for row in longer)


def _tokenizers_answer(tokenizer: Any, texts: Sequence[str], max_length: int) -> Any:
    return tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )


def _at_a_time(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts in order, so many and so long together as are tokenized at a time."""
    some: list[str] = []
    characters = 0
    for text in texts:
        if some and (len(some) == _TEXTS_AT_A_TIME or characters + len(text) > _CHARACTERS):
            yield some
            some, characters = [], 0
        some.append(text)
        characters += len(text)
    if some:
        yield some


def _beginning(tokenizer: Any, text: str, max_length: int) -> str:
    """Of a long text as much as the tokens that are read are made of, which are the same.

    A tokenizer keeps hundreds of bytes for each token before it cuts: 2.8 GB for a text of 9 MB.
    The end is taken at white space, and twice as many tokens as are read stand before it.
    """
    size = max(_LONG_TEXT, 16 * max_length)
    if getattr(tokenizer, "truncation_side", "right") != "right":
        return text
    while size < len(text):
        end = next((i for i in range(size, size // 2, -1) if text[i].isspace()), size)
        piece, enough = text[:end], 2 * max_length + _SPECIAL_TOKENS
        if len(_tokenizers_answer(tokenizer, [piece], enough)["input_ids"][0]) == enough:
            return piece
        size *= 4
    return text


def count_longer(tokenizer: Any, texts: Sequence[str], max_length: int) -> int:
    """How many texts have more than `max_length` tokens, special ones included."""
    # A token is a byte at least, but for the few special ones.
    could_be = [t for t in texts if len(t.encode("utf-8")) + _SPECIAL_TOKENS > max_length]
    return int((encode(tokenizer, could_be, max_length + 1).lengths > max_length).sum())


def pad(encoded: Encoded, rows: NDArray[np.int64], pad_id: int) -> Batch:
    """Put rows side by side, padded on the right to the longest of them."""
    longest = max(len(encoded.ids[r]) for r in rows)
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for i, r in enumerate(rows):
        n = len(encoded.ids[r])
        ids[i, :n] = encoded.ids[r]
        mask[i, :n] = 1
    return Batch(rows, ids, mask)


def train_batches(
    lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Row numbers of one epoch's batches: every row once, like lengths together, random order.

    Rows are shuffled, sorted by length within windows of `BATCHES_IN_SIGHT` batches, cut into
    batches, and the batches shuffled (as `group_by_length` in transformers).
    """
    order = rng.permutation(len(lengths))
    window = batch_size * BATCHES_IN_SIGHT
    sorted_windows = [
        chunk[np.argsort(-lengths[chunk], kind="stable")]
        for chunk in (order[i : i + window] for i in range(0, len(order), window))
    ]
    order = np.concatenate(sorted_windows)
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def eval_batches(encoded: Encoded, batch_size: int, pad_id: int) -> Iterator[Batch]:
    """All rows, shortest first, in padded batches: hardly any padding, nothing dropped."""
    order = np.argsort(encoded.lengths, kind="stable")
    for i in range(0, len(order), batch_size):
        yield pad(encoded, order[i : i + batch_size], pad_id)
