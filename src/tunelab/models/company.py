"""Whether a text's scores depend on what is computed beside it, found out with a few tiny texts.

Where padding is not masked (a Fourier transform, a convolution) or belongs on the other side, what
fills up a text changes its answer. Families with a row are held to this by tests/contracts; any
other model is asked here, before it is trained and before it scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tunelab.core.errors import ModelError
from tunelab.models import anatomy
from tunelab.models.batches import Batch, Encoded, pad

__all__ = [
    "PADDING_CHANGES",
    "Rows",
    "by_length",
    "last_token",
    "may_mix_texts",
    "needs_one_length",
    "padding_side",
]


# (a batch) -> a row of numbers for each text
Rows = Callable[[Batch], torch.Tensor]

PADDING_CHANGES = "padding changes its scores: only texts of one length are computed together"
# Adapters that all families are held to with (tests/contracts).
_TOKEN_BY_TOKEN = frozenset(
    {"LORA", "ADALORA", "IA3", "LN_TUNING", "LOHA", "LOKR", "OFT", "VERA", "FOURIERFT"}
)
# Rounding differs with a batch's shape by a millionth; what padding changes is far larger.
_ROUNDING = 1e-3
# Of the tiny texts: two of one length among them, in several orders.
_LENGTHS = (3, 12, 3, 7)
_ORDERS = ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0], [2, 0])


def by_length(compute: Rows) -> Rows:
    """Compute the texts of a batch length by length, without any padding."""

    def rows(batch: Batch) -> torch.Tensor:
        lengths = batch.attention_mask.sum(axis=1)
        made: list[torch.Tensor] = []
        order: list[NDArray[np.int64]] = []
        for n in np.unique(lengths):
            which = np.flatnonzero(lengths == n)
            ids, mask = batch.input_ids[which, :n], batch.attention_mask[which, :n]
            made.append(compute(Batch(batch.rows[which], ids, mask)))
            order.append(which)
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        return torch.cat(made)[back.to(made[0].device)]

    return rows


def needs_one_length(model: Any, compute: Rows) -> bool:
    """Whether texts have to be computed length by length for scores that are theirs alone.

    `compute` runs the model on a padded batch. False for families that tests hold to it. Leaves the
    model in evaluation mode. Raises ModelError where a text's scores depend on others even then.
    """
    if anatomy.family_in(model) is not None and not may_mix_texts(model):
        return False
    model.eval()
    texts, pad_id = _tiny_texts(model.config)
    with torch.no_grad():
        alone = _alone(compute, texts, pad_id)
        for way, apart in ((compute, False), (by_length(compute), True)):
            batches = [(order, pad(texts, np.asarray(order), pad_id)) for order in _ORDERS]
            if all(_agree(way(batch), alone[order]) for order, batch in batches):
                return apart
    raise ModelError(
        f"A model of the type {model.config.model_type!r} gives a text other scores beside other "
        "texts, also without padding. Nothing that is measured with it would hold: use another."
    )


def may_mix_texts(model: Any) -> bool:
    """Whether a model has an adapter that is not known to compute each token by itself.

    Tokens that are put before a text shift what a decoder's head takes for its last one; a router
    over a whole batch (Lily) makes a text's scores depend on the others.
    """
    config = getattr(model, "active_peft_config", None)
    return config is not None and str(config.peft_type.value) not in _TOKEN_BY_TOKEN


def padding_side(model: Any, compute: Rows) -> str:
    """The side on which padding changes nothing: "right", or "left" where only that one does not.

    For whoever pads a saved model's texts elsewhere. The model is in evaluation mode.
    """
    texts, pad_id = _tiny_texts(model.config)
    batch = pad(texts, np.arange(len(texts)), pad_id)
    with torch.no_grad():
        alone = _alone(compute, texts, pad_id)
        right = _agree(compute(batch), alone)
        return "right" if right or not _agree(compute(_padded_left(batch)), alone) else "left"


def _padded_left(batch: Batch) -> Batch:
    """The same texts with their padding on the left."""
    shifts = (batch.attention_mask == 0).sum(axis=1)
    both = (batch.input_ids, batch.attention_mask)
    ids, mask = (
        np.stack([np.roll(row, n) for row, n in zip(a, shifts, strict=True)]) for a in both
    )
    return Batch(batch.rows, ids, mask)


def _tiny_texts(config: Any) -> tuple[Encoded, int]:
    """Texts of differing lengths in tokens that any vocabulary has, and the id that pads them."""
    pad_id = int(getattr(config, "pad_token_id", None) or 0)
    special = {getattr(config, f"{k}_token_id", None) for k in ("pad", "bos", "eos", "cls", "sep")}
    ids = [i for i in range(min(int(config.vocab_size), 256)) if i not in special] or [0]
    random = np.random.default_rng(0)
    texts = [random.choice(np.asarray(ids, dtype=np.int64), n) for n in _LENGTHS]
    for text in texts:
        text[-1] = last_token(config, int(text[-1]))
    return Encoded(tuple(texts)), pad_id


def last_token(config: Any, token: int) -> int:
    """The token, or the end of a text, which a head behind a decoder looks for."""
    end = getattr(config, "eos_token_id", None)
    behind = getattr(config, "is_encoder_decoder", False)
    return end if behind and isinstance(end, int) else token


def _alone(compute: Rows, texts: Encoded, pad_id: int) -> torch.Tensor:
    rows = (compute(pad(texts, np.asarray([i]), pad_id)) for i in range(len(texts)))
    return torch.cat([r.float() for r in rows])


def _agree(rows: torch.Tensor, alone: torch.Tensor) -> bool:
    return bool(((rows.float() - alone).abs() <= _ROUNDING * alone.abs().max()).all())
