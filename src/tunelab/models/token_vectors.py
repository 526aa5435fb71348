"""Vectors of a base's tokens, each read by itself: one forward pass over the vocabulary, kept.

As Model2Vec distils them (Tulkens and van Dongen 2024): the base reads each token between its
special tokens, the mean of what comes out is the token's vector; principal components take out what
all have in common; and a token that is frequent in any text weighs little (SIF, Arora et al. 2017),
its frequency guessed from its place in the vocabulary, which lists frequent ones first.
"""

from __future__ import annotations

import copy
import re
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.errors import ModelError
from tunelab.models import embeddings
from tunelab.models.bases import Base
from tunelab.models.batches import Encoded
from tunelab.models.embeddings import Embedded

__all__ = [
    "Distilled",
    "distil",
    "fast_tokenizer",
]


_TOKENS_TO_TIME = 512
# Places that BERT kept free: they stand before all words, and in no text.
_UNUSED = re.compile(r"\[unused\d+\]")


@dataclass(frozen=True, slots=True, eq=False)
class Distilled:
    """`table` (vocabulary, width) float32 of weighted vectors, zeros where a token is not `known`.

    `tokenizer` is of the library tokenizers, without padding and truncation. `embedded`: the
    vectors as they were computed, or kept. `seconds`: what computing them takes now.
    """

    tokenizer: Any
    table: NDArray[np.float32]
    known: NDArray[np.bool_]
    embedded: Embedded
    seconds: float


def fast_tokenizer(base: Base, tokenizer: Any) -> Any:
    """A tokenizer's own of the library tokenizers. Raises ModelError where it has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"Model {base.ref.name}: its tokenizer ({type(tokenizer).__name__}) has no form that "
            "runs without transformers (tokenizer.json), which static classifiers need. Use "
            "another base, or logistic."
        )
    own = copy.deepcopy(backend)
    own.no_padding()
    own.no_truncation()
    return own


def distil(base: Base, width: int, sif: float, batch_size: int) -> Distilled:
    """Vectors of all tokens, of so many components (fewer where the base is not as wide).

    `sif`: a token of frequency p weighs sif / (sif + p). Raises ModelError for a base whose
    tokenizer cannot be shipped.
    """
    embedder = embeddings.Embedder(base, "mean", 16, batch_size)
    tokenizer = embedder.tokenizer
    own = fast_tokenizer(base, tokenizer)
    vocabulary = own.get_vocab()
    ids = sorted(vocabulary.values())
    special = {*tokenizer.all_special_ids, tokenizer.unk_token_id}
    special |= {i for token, i in vocabulary.items() if _UNUSED.fullmatch(token)}
    known = np.zeros(ids[-1] + 1, dtype=bool)
    known[[i for i in ids if i not in special]] = True
    before, after = _around(tokenizer)
    texts = Encoded(tuple(np.asarray([*before, int(i), *after]) for i in np.flatnonzero(known)))
    embedded = embeddings.cached_tokens(base, texts, embedder)
    components = _principal(embedded.vectors, width)
    # Zipf: the token at place n has a frequency of 1 / n, but for a factor.
    frequency = 1 / (np.arange(len(components)) + 2.0)
    frequency /= frequency.sum()
    table = np.zeros((len(known), components.shape[1]), dtype=np.float32)
    table[known] = components * (sif / (sif + frequency))[:, None]
    seconds = embedded.seconds
    if embedded.from_cache:  # those of then may be of a busy hour
        some = Encoded(texts.ids[:: -(-len(texts) // _TOKENS_TO_TIME)])
        started = time.perf_counter()
        embedder.embed(some)
        seconds = (time.perf_counter() - started) * len(texts) / len(some)
    return Distilled(own, table, known, embedded, seconds)


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    for first in range(len(whole) - len(bare) + 1):
        if whole[first : first + len(bare)] == bare:
            return whole[:first], whole[first + len(bare) :]
    return [], []


def _principal(vectors: NDArray[np.float32], width: int) -> NDArray[np.float64]:
    """Principal components of vectors (n, d), the largest first: (n, min(width, d)).

    The sign of each is the one in which its largest weight is positive.
    """
    values = vectors.astype(np.float64)
    values -= values.mean(axis=0)
    _, axes = np.linalg.eigh(values.T @ values)
    axes = axes[:, ::-1][:, :width]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    return np.asarray(values @ (axes * np.sign(largest)))
