"""Packed training: a batch as one row of tokens, no padding, the model's own modules unchanged.

transformers lets a model's attention be swapped by name. Here the texts of a batch lie end to end
in one row of T tokens; every layer but attention works on tokens one by one and needs nothing more;
attention is computed within each text. What is trained stays transformers' modules and peft's
adapters, and the result equals the padded one up to rounding (tests/reference/test_packing.py).

May import: batching, errors. May not import: train, methods, trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tunelab.batching import Encoded

__all__ = ["Packed", "why_not"]

_NAME = "tunelab_packed"
# oneDNN builds its primitives anew for each shape: rounded totals come back more often.
_ROUND_TO = 32
_ROUND_LENGTH_TO = 8


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """Where each text lies in the row of T tokens, for B texts of at most L tokens.

    `gather` (B * L,) takes row -> padded, `mask` (B, 1, 1, L) is true at real tokens, `scatter`
    (T,) takes padded -> row, `starts` (B,) are the first tokens.
    """

    gather: torch.Tensor
    mask: torch.Tensor
    scatter: torch.Tensor
    starts: torch.Tensor
    shape: tuple[int, int]


# The batch that is being computed. transformers calls the attention function with no place for it;
# a process trains one model at a time.
_current: list[_Layout] = []


def _attention(  # noqa: PLR0917  the order in which transformers calls it
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each text, softmax(Q K^T / sqrt(d)) V: (1, heads, T, d) -> (1, T, heads, d).

    Plain products on the batch padded to its longest text: on a processor this beats fused
    attention with a mask, whose backward pass is slow (docs/log.md).
    """
    layout = _current[-1]
    b, longest = layout.shape

    def padded(t: torch.Tensor) -> torch.Tensor:
        heads, width = t.shape[1], t.shape[3]
        rows = t[0].transpose(0, 1).index_select(0, layout.gather)
        return rows.view(b, longest, heads, width).transpose(1, 2)

    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    scores = torch.matmul(padded(query) * scale, padded(key).transpose(-1, -2))
    weights = torch.softmax(scores.masked_fill(~layout.mask, float("-inf")), dim=-1)
    if dropout and module.training:
        weights = fast_dropout(weights, dropout)
    out = torch.matmul(weights, padded(value)).transpose(1, 2)
    flat = out.reshape(b * longest, query.shape[1], query.shape[3])
    return flat.index_select(0, layout.scatter).unsqueeze(0), None


def _no_mask(*_: Any, **__: Any) -> None:
    """No mask over the whole row: `_attention` looks only within a text anyway."""


ALL_ATTENTION_FUNCTIONS.register(_NAME, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, _no_mask)


# --- dropout --------------------------------------------------------------------------------


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, p: float) -> torch.Tensor:
        # One 64-bit draw gives four 16-bit numbers: bernoulli_ draws one number an element and
        # takes a third of a training step on a processor.
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
        # The whole range: a plain random_() leaves the sign bit 0, and every fourth number kept.
        words.random_(-(2**63), None)
        limit = round(p * 65536) - 32768
        keep = words.view(torch.int16)[: x.numel()].view(x.shape) >= limit
        scale = 65536 / (65536 - round(p * 65536))
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return x * keep * scale

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (keep,) = ctx.saved_tensors
        return grads[0] * keep * ctx.scale, None


def fast_dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """Dropout with a mask from torch's generator, rate p up to 1/65536 (Srivastava et al. 2014)."""
    return _Dropout.apply(x, p)  # type: ignore[no-any-return,no-untyped-call]


class _FastDropout(nn.Dropout):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  nn.Dropout's own name
        return fast_dropout(input, self.p) if self.training and self.p > 0 else input


@contextmanager
def _fast_dropouts(model: nn.Module) -> Iterator[None]:
    """Swap every nn.Dropout for the fast one, and back."""
    swapped = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Dropout
    ]
    for parent, name, child in swapped:
        fast = _FastDropout(child.p)
        fast.train(child.training)
        setattr(parent, name, fast)
    try:
        yield
    finally:
        for parent, name, child in swapped:
            child.train(getattr(parent, name).training)
            setattr(parent, name, child)


# --- families -------------------------------------------------------------------------------


def _bert(m: Any, first: torch.Tensor) -> Any:
    return m.classifier(m.dropout(m.bert.pooler(first)))


def _distilbert(m: Any, first: torch.Tensor) -> Any:
    return m.classifier(m.dropout(torch.relu(m.pre_classifier(first[:, 0]))))


def _first_token(m: Any, first: torch.Tensor) -> Any:
    return m.classifier(first)


def _albert(m: Any, first: torch.Tensor) -> Any:
    return m.classifier(m.dropout(m.albert.pooler_activation(m.albert.pooler(first[:, 0]))))


# model_type -> logits from the first tokens' vectors (B, 1, width): each model's own head.
HEADS: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "bert": _bert,
    "distilbert": _distilbert,
    "roberta": _first_token,
    "xlm-roberta": _first_token,
    "camembert": _first_token,
    "electra": _first_token,
    "albert": _albert,
}
# These count positions from the pad id on.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert"}
_NO_TOKEN_TYPES = {"distilbert"}


def why_not(model: Any) -> str | None:
    """Say why a model cannot be trained packed; None where it can."""
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", "")
    if kind not in HEADS:
        return f"{kind} has no packed path"
    peft = getattr(model, "active_peft_config", None)
    if peft is not None and peft.is_prompt_learning:
        return "prompt-learning methods add tokens to padded rows"
    if next(model.parameters()).device.type != "cpu":
        return "the packed path is for processors"
    return None


def _inner(model: Any) -> Any:
    """The transformers classifier inside what peft wrapped."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class Packed:
    """Calls a classifier on packed rows: `packed(encoded, rows)` gives logits (b, n_classes)."""

    def __init__(self, model: Any) -> None:
        self._model = _inner(model)
        config = self._model.config
        self._kind = str(config.model_type)
        self._offset = config.pad_token_id + 1 if self._kind in _OFFSET_POSITIONS else 0
        self._pad_id = int(config.pad_token_id or 0)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While inside, the model's attention and dropout are the packed ones."""
        before = self._model.config._attn_implementation
        self._model.set_attn_implementation(_NAME)
        try:
            with _fast_dropouts(self._model):
                yield
        finally:
            self._model.set_attn_implementation(before)

    def __call__(self, encoded: Encoded, rows: NDArray[np.int64]) -> tuple[torch.Tensor, int]:
        """Logits (b, n_classes) in float32, and the number of tokens computed."""
        ids, positions, layout = self._pack(encoded, rows)
        more = {} if self._kind in _NO_TOKEN_TYPES else {"token_type_ids": torch.zeros_like(ids)}
        _current.append(layout)
        try:
            encoder = getattr(self._model, self._model.base_model_prefix)
            hidden = encoder(input_ids=ids, position_ids=positions, **more).last_hidden_state
        finally:
            _current.pop()
        first = hidden[0].index_select(0, layout.starts).unsqueeze(1)
        logits: torch.Tensor = HEADS[self._kind](self._model, first)
        return logits.float(), ids.shape[1]

    def _pack(
        self, encoded: Encoded, rows: NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor, _Layout]:
        texts = [encoded.ids[r] for r in rows]
        n = np.asarray([len(t) for t in texts], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(n)[:-1]])
        used = int(n.sum())
        fill = -used % _ROUND_TO
        longest = int(n.max()) + (-int(n.max()) % _ROUND_LENGTH_TO)
        ids = np.concatenate([*texts, np.full(fill, self._pad_id, dtype=np.int64)])
        steps = [np.arange(k) for k in n]
        positions = np.concatenate([*steps, np.zeros(fill, dtype=np.int64)]) + self._offset
        columns = np.arange(longest)
        gather = starts[:, None] + np.minimum(columns[None], n[:, None] - 1)
        # Tokens that fill up the row belong to no text: they read anything and are read by nobody.
        back = [i * longest + s for i, s in enumerate(steps)]
        scatter = np.concatenate([*back, np.zeros(fill, dtype=np.int64)])
        layout = _Layout(
            gather=torch.from_numpy(gather.reshape(-1)),
            mask=torch.from_numpy(columns[None] < n[:, None])[:, None, None, :],
            scatter=torch.from_numpy(scatter),
            starts=torch.from_numpy(starts),
            shape=(len(rows), longest),
        )
        return torch.from_numpy(ids)[None], torch.from_numpy(positions)[None], layout
