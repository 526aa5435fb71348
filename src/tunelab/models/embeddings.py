"""Frozen embeddings of a base model: computed once per base x text, cached by content.

The cache's key is everything that the vectors depend on: the base's weights and config, its
tokenizer, the pooling, the length limit and the texts themselves, so a subset or another file can
never read a stranger's.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core import cache, machine
from tunelab.core.values import Artifact, BaseRef
from tunelab.models import anatomy, bases, batches, pretrained, scoring
from tunelab.models.bases import Base
from tunelab.models.batches import Encoded

__all__ = [
    "Embedded",
    "Embedder",
    "cached",
    "cached_tokens",
    "embedder_for",
    "encoder_of",
    "seconds_now",
]


# Changing how vectors are computed must change this, or old ones would be read back.
_EMBEDDINGS_VERSION = 4
_SAMPLE = 128


class Embedder:
    """Texts -> vectors (n, width, float32) of a base's last layer, by `scoring.pooled`.

    `encoder`: one that was trained from the base; its own where left out.
    """

    def __init__(
        self,
        base: Base,
        pooling: str,
        max_length: int,
        batch_size: int = 64,
        *,
        encoder: Any = None,
    ) -> None:
        model: Any = encoder or pretrained.load_encoder(base)
        self._model = model.to(pretrained.device())
        self.tokenizer = pretrained.load_tokenizer(base)
        self._prepared = scoring.prepare_encoder(self._model, pooling)
        self._pooling, self.max_length = pooling, max_length
        self._batch_size = batch_size

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts in their order, (n, width)."""
        return scoring.texts_in_windows(
            texts, lambda some: self.embed(batches.encode(self.tokenizer, some, self.max_length))
        )

    def save(self, directory: Path) -> None:
        """Write the encoder and its tokenizer in transformers' layout."""
        with pretrained.quiet():
            self._model.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)

    def prepared(self) -> scoring.Prepared:
        """What embeds texts, and which path it takes."""
        return self._prepared

    @property
    def vocabulary(self) -> int:
        """How many token ids it reads."""
        return int(self._model.config.vocab_size)

    def embed(self, encoded: Encoded) -> NDArray[np.float32]:
        """Embed texts that are tokens already, (n, width)."""
        pad_id = self.tokenizer.pad_token_id or 0
        width = anatomy.width_of(self._model) * len(self._pooling.split("+"))
        return self._prepared(encoded, pad_id, self._batch_size, width)


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """Vectors (n, width), what computing them cost (seconds, bytes), and whether it was now."""

    vectors: NDArray[np.float32]
    seconds: float
    peak_memory_bytes: int | None
    from_cache: bool


def cached(
    base: Base, texts: Sequence[str], pooling: str, max_length: int, embedder: Any = None
) -> Embedded:
    """Vectors of texts from the cache, or computed (by `embedder`, or a new one) and kept there."""
    key = _vectors_key(base, texts, pooling, max_length)
    return _cached_or_computed(
        base, key, lambda: (embedder or Embedder(base, pooling, max_length))(texts)
    )


def cached_tokens(base: Base, tokens: Encoded, embedder: Embedder) -> Embedded:
    """The same of texts that are tokens already."""
    digest = hashlib.sha256(_head_of_key(base, "tokens", 0))
    for ids in tokens.ids:
        digest.update(ids.tobytes())
    return _cached_or_computed(base, digest.hexdigest()[:32], lambda: embedder.embed(tokens))


def _cached_or_computed(
    base: Base, key: str, compute: Callable[[], NDArray[np.float32]]
) -> Embedded:
    """What the cache holds under a key; else what `compute` gives, and it is kept there."""
    folder = cache.folder() / "embeddings" / key
    file, about = folder.with_suffix(".npy"), folder.with_suffix(".json")
    facts, content = cache.kept_json(about), cache.kept(file)
    if facts is not None and content is not None:
        vectors = np.load(io.BytesIO(content))
        return Embedded(vectors, facts["seconds"], facts["peak_memory_bytes"], True)
    peak = machine.PeakMemory()
    started = time.perf_counter()
    vectors = compute()
    seconds = time.perf_counter() - started
    memory = peak.bytes()
    buffer = io.BytesIO()
    np.save(buffer, vectors)
    facts = {"seconds": seconds, "peak_memory_bytes": memory, "base": base.ref.name}
    if cache.keep(file, buffer.getvalue()) is None:
        cache.keep_json(about, facts, bounded=False)
    return Embedded(vectors, seconds, memory, False)


def seconds_now(embedder: Embedder, texts: Sequence[str]) -> float:
    """What embedding these texts takes now, by a sample of all lengths.

    Vectors that were kept may be of a busy hour, or of another version: their seconds say nothing
    beside those of a method that is trained now.
    """
    in_order = sorted(texts, key=len)
    sample = in_order[:: max(1, len(in_order) // _SAMPLE)]
    embedder(sample[:8])  # what is only done once
    started = time.perf_counter()
    embedder(sample)
    return (time.perf_counter() - started) * sum(map(len, texts)) / max(1, sum(map(len, sample)))


def _vectors_key(base: Base, texts: Sequence[str], pooling: str, max_length: int) -> str:
    digest = hashlib.sha256(_head_of_key(base, pooling, max_length))
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()[:32]


def _head_of_key(base: Base, pooling: str, max_length: int) -> bytes:
    weights = base.ref.sha256 + (base.ref.code_sha256 or "")
    # The same weights under another config (layers, activation, positions) are another model.
    model = [weights, bases.what_computes(base.config), base.tokenizer_sha256]
    said = [_EMBEDDINGS_VERSION, *model, pooling, max_length]
    return json.dumps(said, sort_keys=True).encode()


def embedder_for(artifact: Artifact, trust_remote_code: bool = False) -> Embedder:
    """The embedder that a saved EmbeddedClassifier was trained on; refuses another base."""
    manifest = artifact.manifest
    base = encoder_of(artifact, trust_remote_code)
    return Embedder(base, manifest["pooling"], manifest["max_length"])


def encoder_of(artifact: Artifact, trust_remote_code: bool = False) -> Base:
    """The encoder of a saved EmbeddedClassifier: its base, or what it brings."""
    if artifact.manifest["kind"] == "setfit":
        return bases.resolve(str(artifact.directory.absolute()))  # "minilm" is a folder here
    ref = BaseRef(**artifact.manifest["base"])
    return bases.resolve_exactly(ref, artifact.directory, trust_remote_code)
