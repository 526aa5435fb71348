"""How long texts are in a model's tokens, and how many a length limit cuts. Loads transformers.

May import: bases, batching, models, types. May not import: trial, study, cli.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tunelab import batching, models
from tunelab.bases import Base
from tunelab.types import Dataset

__all__ = ["lengths"]

_NO_LIMIT = 1_000_000


def lengths(dataset: Dataset, base: Base, max_length: int) -> dict[str, Any]:
    """Percentiles of token counts by part (special tokens included), and rows over `max_length`."""
    tokenizer = models.load_tokenizer(base)
    out: dict[str, Any] = {"model": base.ref.name, "max_length": max_length, "parts": {}}
    for part, split in dataset.parts.items():
        n = batching.encode(tokenizer, split.texts, _NO_LIMIT).lengths
        p5, p50, p95 = np.percentile(n, [5, 50, 95])
        out["parts"][part] = {
            "min": int(n.min()), "p5": float(p5), "p50": float(p50), "p95": float(p95),
            "max": int(n.max()), "mean": float(n.mean()), "cut": int((n > max_length).sum()),
            "rows": len(n),
        }  # fmt: skip
    return out
