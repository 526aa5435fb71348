"""The batch that a packed model computes: where each text lies, the masks, and whose turn it is.

The forward passes that are exchanged for transformers' own (`packed_modules`, `packed_layers`) all
look into one `PackedRun`; so does attention, which transformers calls by name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tunelab.kernels import dropout as dropouts
from tunelab.kernels import norms
from tunelab.kernels.attention import Distances, attention, self_attention
from tunelab.kernels.dropout import Dropout, Mask
from tunelab.kernels.layers import Norm
from tunelab.kernels.layout import Layout
from tunelab.models import anatomy
from tunelab.models.family import Family

__all__ = [
    "PACKED_ATTENTION",
    "PackedRun",
    "computing",
    "exchanged",
]


# What transformers calls the attention of a packed row.
PACKED_ATTENTION = "tunelab_packed"


class PackedRun:
    """What the exchanged forward passes know of the batch that is being computed."""

    def __init__(self, model: Any, family: Family, seed: int, *, every_token: bool = False) -> None:
        self.causal = family.anatomy.causal
        self.every_token = every_token
        self.layers = anatomy.layers_in(model)
        self.seed = seed
        self.step = 0
        self.layout: Layout
        self._site = 0
        self._layer = 0
        self._ahead = 0

    def begin(self, layout: Layout | None, below: int = 0, *, training: bool = True) -> None:
        """Start a batch that enters above so many layers; outside training, no step is counted.

        Above all layers, where nothing attends, it needs no layout.
        """
        self._site, self._layer, self._ahead = 0, below, 0
        if layout is not None:
            self.layout = layout
        self.step += training

    def drop(self, p: float, training: bool) -> Mask:
        """The next mask of this step: a function of seed, step and place, of nothing else."""
        if not p or not training:
            return Dropout(0.0)
        self._site += 1
        return Dropout(p, _mixed_bits(self.seed, self.step, self._site))

    def is_last(self, ahead: int = 0) -> bool:
        """Whether only the first token of each text asks in the layer that comes so many later.

        That is so in the last one: the head reads no other. `every_token`: somebody else does.
        """
        if self.every_token:
            return False
        return self._layer + ahead + 1 == self.layers and not self.causal

    def did(self, layers: int) -> None:
        """So many layers are computed, of which all but the first have still to be called."""
        self._layer += layers
        self._ahead = layers - 1

    def passes_on(self) -> bool:
        """Count a layer's call: whether it was computed with an earlier one."""
        if not self._ahead:
            return False
        self._ahead -= 1
        return True

    def attend(  # noqa: PLR0917
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        scale: float,
        drop: Mask,
    ) -> torch.Tensor:
        """Attention within each text, (1, T, heads * width) -> (1, T, heads * width)."""
        q, k, v = (t.view(1, t.shape[1], heads, -1).transpose(1, 2) for t in (q, k, v))
        out = attention(q, k, v, self.layout, scale=scale, drop=drop, causal=self.causal)
        return out.reshape(1, out.shape[1], -1)

    def attend_joined(
        self, qkv: torch.Tensor, heads: int, scale: float, drop: Mask
    ) -> torch.Tensor:
        """As `attend`, (1, T, 3 * heads * width) -> (1, T, heads * width)."""
        parts = qkv.view(1, qkv.shape[1], 3, heads, -1)
        out = self_attention(parts, self.layout, scale=scale, drop=drop, causal=self.causal)
        return out.reshape(1, out.shape[1], -1)

    def attend_by_distance(
        self, qkv: torch.Tensor, heads: int, scale: float, drop: Mask, far: Distances
    ) -> torch.Tensor:
        """As `attend_joined`, in float32, of which torch's small products are the faster ones."""
        q, k, v = qkv.float().view(1, qkv.shape[1], 3, heads, -1).transpose(1, 3).unbind(2)
        out = attention(q, k, v, self.layout, scale=scale, drop=drop, distances=far)
        return out.reshape(1, out.shape[1], -1).to(qkv.dtype)

    def norm(self, norm: Any, p: float) -> Norm:
        """A sublayer's norm, with the next mask."""
        drop = self.drop(p, norm.training)
        assert isinstance(drop, Dropout)  # noqa: S101  what shares the row is not fused
        return Norm(norm.weight, norm.bias, norm.eps, drop)

    def add_norm(self, y: torch.Tensor, x: torch.Tensor, norm: Any, p: float) -> torch.Tensor:
        """norm(dropout(y) + x), fused where `norm` is torch's own LayerNorm."""
        drop = self.drop(p, norm.training)
        if type(norm) is nn.LayerNorm:
            return norms.add_norm(y, x, norm.weight, norm.bias, norm.eps, drop)
        out: torch.Tensor = norm((dropouts.dropout(y, drop) + x).float())
        return out.to(y.dtype)


def _mixed_bits(seed: int, step: int, site: int) -> int:
    """32 well-mixed bits of three numbers (splitmix64, Steele et al. 2014)."""
    word = (seed << 40) ^ (step << 12) ^ site
    for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
        word = (word + 0x9E3779B97F4A7C15) & (2**64 - 1)
        word = ((word ^ (word >> 30)) * factor) & (2**64 - 1)
    return (word ^ (word >> 31)) >> 32


class _Current(threading.local):
    """The batches that a thread computes: transformers calls attention with no place for one."""

    def __init__(self) -> None:
        self.runs: list[PackedRun] = []


_current = _Current()


@contextmanager
def computing(run: PackedRun) -> Iterator[None]:
    """While inside, this thread's attention is within the texts of this batch."""
    _current.runs.append(run)
    try:
        yield
    finally:
        _current.runs.pop()


def _attention(  # noqa: PLR0917  the order in which transformers calls it
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention for layers whose forward pass is transformers' own."""
    run = _current.runs[-1]
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    drop = run.drop(dropout, module.training)
    shared = query.shape[1] // key.shape[1]  # heads that have one key (Ainslie et al. 2023)
    if shared > 1:
        key, value = (t.repeat_interleave(shared, dim=1) for t in (key, value))
    return attention(
        query,
        key,
        value,
        run.layout,
        scale=scale,
        drop=drop,
        causal=run.causal,
        window=sliding_window,
    ), None


def _no_mask(*_: Any, **__: Any) -> None:
    """No mask over the whole row: `_attention` looks only within a text anyway."""


ALL_ATTENTION_FUNCTIONS.register(PACKED_ATTENTION, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED_ATTENTION, _no_mask)


@contextmanager
def exchanged(
    forwards: Iterable[tuple[nn.Module, Callable[..., torch.Tensor]]],
) -> Iterator[None]:
    """While inside, these modules have these forward passes."""
    done: list[nn.Module] = []
    try:
        for module, forward in forwards:
            # On the instance: it wins over the class's own, and is deleted again.
            module.__dict__["forward"] = forward
            done.append(module)
        yield
    finally:
        for module in done:
            del module.__dict__["forward"]
