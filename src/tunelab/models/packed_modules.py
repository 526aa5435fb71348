"""Single modules of a packed row: linear layers with their adapters, norms, embeddings.

`forward_of` finds a module's faster forward pass. The modules stay transformers' and peft's own:
weights, their names and their gradients are untouched.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import GELUActivation
from transformers.pytorch_utils import Conv1D

from tunelab.kernels import layers as fused_layers
from tunelab.kernels import norms
from tunelab.kernels.adamw import rows_of
from tunelab.kernels.dropout import Dropout, dropout
from tunelab.kernels.low_rank import low_rank, low_rank_back
from tunelab.kernels.weights import Weight, coded, is_coded, laid_out
from tunelab.models.packed_run import PackedRun

__all__ = [
    "CastWeights",
    "Forward",
    "SideBySide",
    "forward_of",
    "is_coded_linear",
    "is_gelu",
    "is_plain_lora",
    "packed_rms_norm",
]


Forward = Callable[..., torch.Tensor]


class CastWeights:
    """A weight in another type: kept where it is frozen, made anew in each step where it learns."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, ...], torch.Tensor] = {}
        self._laid_out: dict[tuple[Any, ...], Weight | None] = {}
        # Embeddings that learn by rows, which may lag behind while this is in use.
        self.by_rows: list[torch.Tensor] = []

    def __call__(self, t: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
        """A weight as `dtype`; None stays None."""
        if t is None or t.dtype == dtype:
            return t
        if t.requires_grad:
            return t.to(dtype)
        kept = self._kept.get((id(t),))
        if kept is None:
            kept = self._kept[id(t),] = t.detach().to(dtype)
        return kept

    def joined(self, parts: Sequence[torch.Tensor | None], dtype: torch.dtype) -> Any:
        """Several one below the other; one alone stays as it is."""
        if len(parts) == 1 or parts[0] is None:
            return self(parts[0], dtype)
        whole = [t for t in parts if t is not None]
        if any(t.requires_grad for t in whole):
            return torch.cat([t.to(dtype) for t in whole])
        key = tuple(map(id, whole))
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = torch.cat([t.detach().to(dtype) for t in whole])
        return kept

    def laid_out(self, layers: Sequence[Any], dtype: torch.dtype) -> Weight | None:
        """The weights of layers as kernels of whole layers read them; None where they cannot be."""
        if dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
            return None  # it is to be multiplied in another type
        # A pooler is called in both types: by the encoder, for nothing, and by the head.
        key = (dtype, *map(id, layers))
        if key not in self._laid_out and all(map(is_coded, layers)):
            self._laid_out[key] = coded(layers) if dtype == torch.bfloat16 else None
        if key not in self._laid_out:
            weights = [m.weight.t() if type(m) is Conv1D else m.weight for m in layers]
            alike = len({m.bias is not None and m.bias.requires_grad for m in layers}) == 1
            self._laid_out[key] = laid_out(weights, dtype) if alike else None
        return self._laid_out[key]


def _packed_linear(run: PackedRun, m: Any, cast: CastWeights) -> Forward:
    return SideBySide(run, [m], cast)


def _layer_norm(run: PackedRun, m: Any, cast: CastWeights) -> Forward:
    bias = torch.zeros_like(m.weight, requires_grad=False) if m.bias is None else m.bias

    def forward(x: torch.Tensor) -> torch.Tensor:
        return norms.add_norm(x, None, m.weight, bias, m.eps, Dropout(0.0))

    return forward


def packed_rms_norm(m: Any) -> Forward:
    """RMSNorm (Zhang & Sennrich 2019), in float32 at least."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        return functional.rms_norm(wide, m.weight.shape, m.weight, m.variance_epsilon).to(x.dtype)

    return forward


def _dropout(run: PackedRun, m: Any, cast: CastWeights) -> Callable[..., torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return dropout(x, run.drop(m.p, m.training))

    return forward


def _gelu(run: PackedRun, m: Any, cast: CastWeights) -> Callable[..., torch.Tensor]:
    return norms.gelu


def is_gelu(module: Any) -> bool:
    """Whether an activation is the exact GELU x Phi(x) (Hendrycks & Gimpel 2016)."""
    return _FORWARDS.get(type(module)) is _gelu and not _is_approximate(module)


def _is_approximate(module: Any) -> bool:
    return type(module) is nn.GELU and module.approximate != "none"


def is_plain_lora(module: Any) -> bool:
    """One LoRA adapter on a linear layer, with nothing special: no DoRA, no bias of its own."""
    from peft.tuners.lora.layer import Linear

    usual = type(module) is Linear and type(module.base_layer) in {nn.Linear, Conv1D}
    return usual and _is_plain(module)


def _is_plain(lora: Any) -> bool:
    if len(lora.active_adapters) != 1 or lora.merged:
        return False
    name = lora.active_adapters[0]
    return name in lora.lora_A and name not in lora.lora_variant and not lora.lora_bias[name]


def is_coded_linear(module: Any) -> bool:
    """A layer of four bits that tiles read, alone or with one plain LoRA adapter (QLoRA)."""
    if is_coded(module):
        return True
    base = getattr(module, "base_layer", None)
    # peft has a class of its own for these, of the same name.
    known = type(module).__module__ == "peft.tuners.lora.bnb"
    return known and is_coded(base) and _is_plain(module)


class SideBySide:
    """Linear layers of one x, some with a plain LoRA adapter; their outputs lie side by side."""

    def __init__(self, run: PackedRun, modules: Sequence[Any], cast: CastWeights) -> None:
        self._run, self._cast = run, cast
        self._bases = [getattr(m, "base_layer", m) for m in modules]
        self._flipped = type(self._bases[0]) is Conv1D
        widths = [b.nf if self._flipped else b.out_features for b in self._bases]
        bounds = [0, *itertools.accumulate(widths)]
        # What stays of each adapter while this is in use: columns, module, rate and scale.
        self._adapted: list[tuple[slice, Any, float, float]] = []
        self._thin: list[torch.Tensor] = []
        for i, m in enumerate(modules):
            if self._bases[i] is m:
                continue
            name = m.active_adapters[0]
            rate = float(getattr(m.lora_dropout[name], "p", 0.0))
            self._adapted.append((slice(bounds[i], bounds[i + 1]), m, rate, m.scaling[name]))
            self._thin += [m.lora_A[name].weight, m.lora_B[name].weight]
        biases = [b.bias for b in self._bases]
        self._learning = [b for b in biases if b is not None and b.requires_grad]

    def laid_out(self, dtype: torch.dtype) -> Weight | None:
        """The weights as kernels read them; None where they are multiplied by torch."""
        return self._cast.laid_out(self._bases, dtype)

    def linear(self, dtype: torch.dtype) -> fused_layers.Linear:
        """The layers as kernels take them, with the next masks."""
        weight = self.laid_out(dtype)
        assert weight is not None  # noqa: S101  the caller has asked
        with torch.set_grad_enabled(False) if self._learning else nullcontext():
            bias = self._bias(dtype)  # the call gives its gradient
        return fused_layers.Linear(weight, bias, self._adapters(), self._thin, self._learning)

    def _bias(self, dtype: torch.dtype) -> Any:
        return self._cast.joined([b.bias for b in self._bases], dtype)

    def _adapters(self) -> list[fused_layers.Adapter]:
        """With the next masks."""
        drop: Any = self._run.drop
        return [
            fused_layers.Adapter(columns, scale, drop(rate, m.training))
            for columns, m, rate, scale in self._adapted
        ]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., k) -> (..., all their outputs)."""
        if self.laid_out(x.dtype):
            return fused_layers.linear(x, self.linear(x.dtype))
        weight = self._cast.joined([b.weight for b in self._bases], x.dtype)
        weight, bias = weight.t() if self._flipped else weight, self._bias(x.dtype)
        if not self._adapted:
            return functional.linear(x, weight, bias)
        return _LoraLinear.apply(x, weight, bias, self._adapters(), *self._thin)  # type: ignore[no-any-return,no-untyped-call]


class _LoraLinear(torch.autograd.Function):
    """y = x W^T + c, on an adapter's columns + s (drop(x) A^T) B^T (Hu et al. 2021), in one step.

    x (..., k), W (n, k), A (r, k), B (columns, r), in the order A_1, B_1, A_2, ... Adapters are
    kept in float32 and unmerged: adding B A to a weight in bfloat16 would round small changes away.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        parts: Sequence[fused_layers.Adapter],
        *thin: torch.Tensor,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        whole = sum(p.columns.stop - p.columns.start for p in parts) == weight.shape[0]
        # An adapter's kernel adds the bias of its columns on the way.
        y = flat @ weight.t() if whole or bias is None else functional.linear(flat, weight, bias)
        thin = tuple(t.contiguous() for t in thin)
        low = [
            low_rank(
                flat,
                a,
                b,
                y[:, p.columns],
                p.scale,
                bias[p.columns] if whole and bias is not None else None,
                p.drop,
            )
            for p, a, b in zip(parts, thin[::2], thin[1::2], strict=True)
        ]
        ctx.save_for_backward(flat, weight, *thin, *low)
        ctx.rest = (x.shape, parts)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        shape, parts = ctx.rest
        flat, weight, *more = ctx.saved_tensors
        thin, low = more[: 2 * len(parts)], more[2 * len(parts) :]
        need_x, need_w, need_bias = ctx.needs_input_grad[:3]
        g = grads[0].reshape(-1, grads[0].shape[-1]).contiguous()
        # The adapters' part is added to the base's gradient in place.
        dx = g @ weight if need_x else None
        own: list[torch.Tensor] = []
        for p, a, b, kept in zip(parts, thin[::2], thin[1::2], low, strict=True):
            own += low_rank_back(g[:, p.columns], flat, a, b, kept, dx, p.scale, p.drop)
        dw = g.t() @ flat if need_w else None
        dbias = g.sum(0) if need_bias else None
        return None if dx is None else dx.view(shape), dw, dbias, None, *own


# Below this many numbers a whole gradient of zeros costs nothing worth saving.
_LARGE_GRADIENT = 2**20


def _embedding(run: PackedRun, m: Any, cast: CastWeights) -> Forward:
    usual = m.max_norm is None and not m.scale_grad_by_freq and not m.sparse
    if not (usual and m.weight.requires_grad and m.weight.numel() >= _LARGE_GRADIENT):
        return lambda ids: nn.Embedding.forward(m, ids)
    cast.by_rows.append(m.weight)

    def forward(ids: torch.Tensor) -> torch.Tensor:
        rows_of(m.weight).reading(m.weight, ids)
        return _Embedding.apply(m.weight, ids, m.padding_idx)  # type: ignore[no-any-return,no-untyped-call]

    return forward


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, ids: torch.Tensor, padding: int | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight, ids)
        ctx.padding = padding
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        weight, ids = ctx.saved_tensors
        # Given to the weight here: autograd would copy a gradient that somebody else holds.
        rows_of(weight).add(weight, ids, grads[0], ctx.padding)
        return None, None, None


# Exact type of a module -> its faster forward pass. Subclasses may compute something else.
_FORWARDS: dict[type, Callable[[PackedRun, Any, CastWeights], Callable[..., torch.Tensor]]] = {
    nn.Linear: _packed_linear,
    Conv1D: _packed_linear,
    nn.Dropout: _dropout,
    nn.Embedding: _embedding,
    nn.GELU: _gelu,
    GELUActivation: _gelu,
}


def forward_of(
    run: PackedRun, module: Any, cast: CastWeights, dtype: torch.dtype
) -> Forward | None:
    """A module's faster forward pass, with activations of `dtype`; None where it has none."""
    if type(module) is nn.LayerNorm and module.weight is not None:
        return _layer_norm(run, module, cast)
    if _is_approximate(module):
        return None
    if is_plain_lora(module) or (dtype == torch.bfloat16 and is_coded_linear(module)):
        return _packed_linear(run, module, cast)
    make = _FORWARDS.get(type(module))
    return None if make is None else make(run, module, cast)
