"""Texts in a model's tokens: once for all trials of a study, and how long they are."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from tunelab.core import cache
from tunelab.core.cards import LengthFigures
from tunelab.core.values import Dataset
from tunelab.models import batches, pretrained
from tunelab.models.bases import Base
from tunelab.models.batches import Encoded

__all__ = [
    "TokenFigures",
    "TokenLengths",
    "encoded",
    "token_lengths",
]


_NO_LIMIT = 1_000_000
# Changing how tokens are kept must change this, or old ones would be read back.
_TOKENS_VERSION = 3


def encoded(tokenizer: Any, texts: Sequence[str], max_length: int, own_code: bool) -> Encoded:
    """As `batches.encode`, from the cache where these texts were tokenized before.

    The file is mapped into memory, so that trials side by side share its pages. Its key is the
    tokenizer itself, the limit and the texts. A tokenizer with code of its own, or one that is not
    of the library `tokenizers`, cannot be told from another: its tokens are not kept.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if own_code or backend is None or not texts:
        return batches.encode(tokenizer, texts, max_length)
    backend.no_truncation()  # an earlier call left its limit there
    backend.no_padding()
    head = [
        _TOKENS_VERSION,
        backend.to_str(),
        tokenizer.truncation_side,
        max_length,
        type(tokenizer).__name__,
        tokenizer.pad_token_id,
    ]
    digest = hashlib.sha256(json.dumps(head).encode())
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    path = cache.folder() / "tokens" / f"{digest.hexdigest()[:32]}.npy"
    if path.is_file() and cache.is_whole(path):
        with suppress(OSError, ValueError):  # another process made room meanwhile
            os.utime(path)
            return _read_tokens(path, len(texts))
    tokens = batches.encode(tokenizer, texts, max_length)
    flat = np.concatenate([tokens.lengths, *tokens.ids])
    buffer = io.BytesIO()
    np.save(buffer, flat)
    cache.keep(path, buffer.getvalue())
    return tokens


def _read_tokens(path: Path, count: int) -> Encoded:
    """Lengths of all texts, then their tokens, in one array."""
    flat: NDArray[np.int64] = np.asarray(np.load(path, mmap_mode="r"))
    bounds = count + np.concatenate([[0], np.cumsum(flat[:count])])
    if bounds[-1] != len(flat):
        raise ValueError(f"{path}: expected {bounds[-1]} numbers, found {len(flat)}")
    ids = tuple(flat[a:b] for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
    return Encoded(ids)


class TokenFigures(LengthFigures):
    """Token counts of a part: of its `rows` texts, `cut` are longer than may be read."""

    cut: int
    rows: int


class TokenLengths(TypedDict):
    """How long texts are in the tokens of `model`, by part."""

    model: str
    max_length: int
    parts: dict[str, TokenFigures]


def token_lengths(dataset: Dataset, base: Base, max_length: int) -> TokenLengths:
    """Percentiles of token counts by part (special tokens included), and rows over `max_length`."""
    tokenizer = pretrained.load_tokenizer(base)
    parts: dict[str, TokenFigures] = {}
    for part, split in dataset.parts.items():
        n = batches.encode(tokenizer, split.texts, _NO_LIMIT).lengths
        p5, p50, p95 = np.percentile(n, [5, 50, 95])
        parts[part] = {
            "min": int(n.min()),
            "p5": float(p5),
            "p50": float(p50),
            "p95": float(p95),
            "max": int(n.max()),
            "mean": float(n.mean()),
            "cut": int((n > max_length).sum()),
            "rows": len(n),
        }
    return {"model": base.ref.name, "max_length": max_length, "parts": parts}
