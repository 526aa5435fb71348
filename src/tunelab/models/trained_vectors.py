"""An encoder whose texts' vectors are trained: packed where the base can be, with a gradient."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tunelab.models import anatomy, batches, company, pretrained, scoring
from tunelab.models.bases import Base
from tunelab.models.batches import Batch, Encoded
from tunelab.models.packed import Packed, why_not_packed

__all__ = [
    "TrainedVectors",
]

# (texts, rows) -> vectors (b, width)
VectorsOfRows = Callable[[Encoded, NDArray[np.int64]], torch.Tensor]


class TrainedVectors:
    """`vectors_of(encoded, rows)` gives (b, width) while `installed`, as `scoring.pooled` pools.

    `encoder` holds what is trained. `why_plain`: why texts are computed padded, None where packed.
    `seed` decides dropout.
    """

    def __init__(self, base: Base, pooling: str, seed: int) -> None:
        self.tokenizer: Any = pretrained.load_tokenizer(base)
        whole, self.encoder = _model_and_encoder(base, seed)
        whole.to(pretrained.device())
        self.why_plain = why_not_packed(whole)
        self.vectors_of: VectorsOfRows
        self.installed: Callable[[], AbstractContextManager[None]]
        if self.why_plain is None:
            packed = Packed(whole, torch.float32, seed, every_token=True)
            self.installed = packed.installed
            self.vectors_of = lambda encoded, rows: packed.pooled(encoded, rows, pooling)
        else:
            torch.manual_seed(seed)
            self.installed = nullcontext
            self.vectors_of = self._plainly(pooling)

    def _plainly(self, pooling: str) -> VectorsOfRows:
        pad_id, where = int(self.tokenizer.pad_token_id or 0), pretrained.device()

        def rows_of(batch: Batch) -> torch.Tensor:
            mask = torch.from_numpy(batch.attention_mask).to(where)
            ids = torch.from_numpy(batch.input_ids).to(where)
            hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            return scoring.pooled(hidden, mask, pooling)

        leaks = company.needs_one_length(self.encoder, rows_of)
        compute = company.by_length(rows_of) if leaks else rows_of
        return lambda encoded, rows: compute(batches.pad(encoded, rows, pad_id))


def _model_and_encoder(base: Base, seed: int) -> tuple[Any, nn.Module]:
    """The model that is run, and the encoder in it: of known families it has a head, which is left
    as it is, so that it can be packed.
    """
    whole: Any = pretrained.load_encoder(base)
    if anatomy.family_in(whole) is None:
        return whole, whole
    whole, _ = pretrained.load_classifier(base, ("0", "1"), seed)
    return whole, anatomy.encoder_in(whole)
