"""Packed training: a batch as one row of tokens, no padding, transformers' and peft's modules kept.

The texts of a batch lie end to end in one row of T tokens. All layers but attention work on tokens
one by one and need nothing more; attention is computed within each text. What is trained stays
transformers' modules and peft's adapters: while a `Packed` is installed, the forward passes of some
of these modules are exchanged for ones that compute the same faster (`kernels`), and the weights,
their names and their gradients are untouched. tests/reference/test_packing.py holds the result to
the padded one.

May import: anatomy, batching, families, family, fused, kernels, optim.
May not import: train, methods, trial.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers.activations import GELUActivation
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from tunelab import anatomy, fused, kernels
from tunelab.anatomy import DistanceParts, LayerParts
from tunelab.batching import Encoded
from tunelab.families import FAMILIES
from tunelab.family import Family
from tunelab.kernels import Dropout, Layout, Mask
from tunelab.optim import rows_of

__all__ = ["Packed", "exchanged", "is_gelu", "rounded_length", "why_float32", "why_not"]

_NAME = "tunelab_packed"
# oneDNN builds its primitives anew for each shape: rounded totals come back more often.
_ROUND_TO = 16
_ROUND_LENGTH_TO = 8


# --- what can be packed ---------------------------------------------------------------------


def why_not(model: Any) -> str | None:
    """Say why a model cannot be trained packed; None where it can."""
    config = getattr(model, "config", None)
    family = anatomy.family_in(model)
    if family is None:
        return f"{getattr(config, 'model_type', '')} has no packed path"
    for limit in family.anatomy.limits:
        if getattr(config, limit.key, limit.most) > limit.most:
            return limit.why
    peft = getattr(model, "active_peft_config", None)
    if peft is not None and peft.is_prompt_learning:
        return "prompt-learning methods add tokens to padded rows"
    where = next(model.parameters()).device.type
    return None if where in {"cpu", "cuda"} else f"the packed path is not for {where}"


def why_float32(model: Any) -> str | None:
    """Say why a model that is trained packed needs activations in float32; None where it does not.

    An adapter of float32 on a base of bfloat16 needs a forward pass that takes care of the types.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in model.named_modules():
        if _is_coded(module):
            continue
        if isinstance(module, BaseTunerLayer) and not _is_plain_lora(module):
            kind = type(module).__module__.split(".")[2]
            return f"{kind} adapters have no bfloat16 path ({name.rsplit('.', 1)[-1]})"
        if type(module).__module__.startswith("bitsandbytes"):
            return "quantised weights choose their own type"
    return None


# --- one batch ------------------------------------------------------------------------------


_Forward = Callable[..., torch.Tensor]
# Several layers of one x together; None where they stay apart.
_Join = Callable[[Sequence[Any]], "_SideBySide | None"]


class _Run:
    """What the exchanged forward passes know of the batch that is being computed."""

    def __init__(self, model: Any, family: Family, seed: int) -> None:
        self.causal = family.anatomy.causal
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
        return Dropout(p, _mix(self.seed, self.step, self._site))

    def is_last(self, ahead: int = 0) -> bool:
        """Whether only the first token of each text asks in the layer that comes so many later.

        That is so in the last one: the head reads no other.
        """
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
        out = kernels.attention(q, k, v, self.layout, scale=scale, drop=drop, causal=self.causal)
        return out.reshape(1, out.shape[1], -1)

    def attend_joined(
        self, qkv: torch.Tensor, heads: int, scale: float, drop: Mask
    ) -> torch.Tensor:
        """As `attend`, (1, T, 3 * heads * width) -> (1, T, heads * width)."""
        parts = qkv.view(1, qkv.shape[1], 3, heads, -1)
        out = kernels.self_attention(parts, self.layout, scale=scale, drop=drop, causal=self.causal)
        return out.reshape(1, out.shape[1], -1)

    def attend_by_distance(
        self, qkv: torch.Tensor, heads: int, scale: float, drop: Mask, far: kernels.Distances
    ) -> torch.Tensor:
        """As `attend_joined`, in float32, of which torch's small products are the faster ones."""
        q, k, v = qkv.float().view(1, qkv.shape[1], 3, heads, -1).transpose(1, 3).unbind(2)
        out = kernels.attention(q, k, v, self.layout, scale=scale, drop=drop, distances=far)
        return out.reshape(1, out.shape[1], -1).to(qkv.dtype)

    def norm(self, norm: Any, p: float) -> fused.Norm:
        """A sublayer's norm, with the next mask."""
        drop = self.drop(p, norm.training)
        assert isinstance(drop, Dropout)  # noqa: S101  what shares the row is not fused
        return fused.Norm(norm.weight, norm.bias, norm.eps, drop)

    def add_norm(self, y: torch.Tensor, x: torch.Tensor, norm: Any, p: float) -> torch.Tensor:
        """norm(dropout(y) + x), fused where `norm` is torch's own LayerNorm."""
        drop = self.drop(p, norm.training)
        if type(norm) is nn.LayerNorm:
            return kernels.add_norm(y, x, norm.weight, norm.bias, norm.eps, drop)
        out: torch.Tensor = norm((kernels.dropout(y, drop) + x).float())
        return out.to(y.dtype)


def _mix(seed: int, step: int, site: int) -> int:
    """32 well-mixed bits of three numbers (splitmix64, Steele et al. 2014)."""
    word = (seed << 40) ^ (step << 12) ^ site
    for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
        word = (word + 0x9E3779B97F4A7C15) & (2**64 - 1)
        word = ((word ^ (word >> 30)) * factor) & (2**64 - 1)
    return (word ^ (word >> 31)) >> 32


class _Current(threading.local):
    """The batches that a thread computes: transformers calls attention with no place for one."""

    def __init__(self) -> None:
        self.runs: list[_Run] = []


_current = _Current()


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
    return kernels.attention(
        query, key, value, run.layout, scale=scale, drop=drop, causal=run.causal,
        window=sliding_window,
    ), None  # fmt: skip


def _no_mask(*_: Any, **__: Any) -> None:
    """No mask over the whole row: `_attention` looks only within a text anyway."""


ALL_ATTENTION_FUNCTIONS.register(_NAME, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, _no_mask)


# --- layers ---------------------------------------------------------------------------------


class _Pass:
    """A layer's forward pass; in the last layer only the tokens that the head reads ask.

    Where the kernels fit, it computes the layers after it in the same call (`fused.sublayers`), and
    these give back what enters them: a hook on one of them sees the last one's result.
    """

    def __init__(self, run: _Run, module: Any, layer: LayerParts, join: _Join) -> None:
        self._run, self._module, self._parts = run, module, layer
        self._join, self._joined = join, dict[str, "_SideBySide | None"]()
        self._gelu = is_gelu(layer.activation)
        self._learns = any(p.requires_grad for p in module.parameters())
        self.next: _Pass | None = None  # the layer after it

    def __call__(
        self,
        x: torch.Tensor,
        *_: Any,
        rel_embeddings: torch.Tensor | None = None,
        **__: Any,
    ) -> torch.Tensor:
        run = self._run
        if run.passes_on():
            return x
        chain: list[fused.Sublayer] = []
        at: _Pass | None = self
        learning = x.requires_grad
        while at is not None:
            last = run.is_last(len(chain) // 2)
            if not (at._attends(x.dtype, last=last) and at._feeds_forward(x.dtype)):
                break
            chain += [at._attending(x.dtype, last=last), at._feeding_forward(x.dtype)]
            learning = learning or at._learns
            # Below all that learns, gradients would be computed for nothing, and where there are
            # none at all, what one layer leaves behind is free again before the next one.
            goes_on = learning and torch.is_grad_enabled()
            at = at.next if goes_on and at.next is not None and at.next._is_installed() else None
        if chain:
            run.did(len(chain) // 2)
            return fused.sublayers(x, chain)
        last = run.is_last()
        run.did(1)
        return self._feed_forward(self._attend(x, rel_embeddings, last=last))

    def _is_installed(self) -> bool:
        return self._module.__dict__.get("forward") is self

    def _together(self, name: str) -> _SideBySide | None:
        """Some linear layers in one product; made when they are first asked for."""
        if name not in self._joined:
            query, *rest = self._parts.attention
            which: dict[str, Sequence[Any]] = {
                "query": [query], "rest": rest, "all": [query, *rest],
                "mixed": [self._parts.mixed], "wide": [self._parts.wide],
                "narrow": [self._parts.narrow],
            }  # fmt: skip
            self._joined[name] = self._join(which[name])
        return self._joined[name]

    def _fit(self, dtype: torch.dtype, *names: str) -> bool:
        sides = (self._together(name) for name in names)
        return all(s is not None and s.laid_out(dtype) is not None for s in sides)

    def _line(self, dtype: torch.dtype, name: str) -> fused.Linear:
        """Linear layers that fit, as kernels take them, with the next masks."""
        together = self._together(name)
        assert together is not None  # noqa: S101  the caller has asked
        return together.linear(dtype)

    def _attends(self, dtype: torch.dtype, *, last: bool) -> bool:
        """Whether the first half fits; in the `last` layer only the first of each text asks."""
        p = self._parts
        return (
            p.distances is None
            and fused.Norm.fits(p.norm)
            and self._fit(dtype, *(("query", "rest") if last else ("all",)), "mixed")
            and kernels.fits(self._run.layout, p.mixed.in_features // p.heads)
        )

    def _attending(self, dtype: torch.dtype, *, last: bool) -> fused.Sublayer:
        run, p = self._run, self._parts
        drop = run.drop(p.drops[0], self._module.training)
        assert isinstance(drop, Dropout)  # noqa: S101  what shares the row is not joined
        how = fused.Attention(run.layout, p.heads, p.scale, drop)
        asking = self._line(dtype, "query") if last else None
        into, out = self._line(dtype, "rest" if last else "all"), self._line(dtype, "mixed")
        return fused.Sublayer(into, out, run.norm(p.norm, p.drops[1]), how, asking)

    def _feeds_forward(self, dtype: torch.dtype) -> bool:
        """Whether the second half fits."""
        norm = fused.Norm.fits(self._parts.last_norm)
        return self._gelu and norm and self._fit(dtype, "wide", "narrow")

    def _feeding_forward(self, dtype: torch.dtype) -> fused.Sublayer:
        wide, narrow = self._line(dtype, "wide"), self._line(dtype, "narrow")
        norm = self._run.norm(self._parts.last_norm, self._parts.drops[2])
        return fused.Sublayer(wide, narrow, norm)

    def _attend(self, x: torch.Tensor, table: torch.Tensor | None, *, last: bool) -> torch.Tensor:
        run, p = self._run, self._parts
        if self._attends(x.dtype, last=last):
            return fused.sublayers(x, [self._attending(x.dtype, last=last)])
        drop = run.drop(p.drops[0], self._module.training)
        asks = x.index_select(1, run.layout.starts) if last else x
        joined = None if last and p.distances is None else self._together("all")
        if p.distances is not None:
            assert table is not None  # noqa: S101  the encoder gives it
            query, key, value = p.attention
            qkv = joined(x) if joined else torch.cat([query(x), key(x), value(x)], dim=-1)
            far = self._measured(p.distances, table, x.dtype)
            y = run.attend_by_distance(qkv, p.heads, p.scale, drop, far)
            y = y.index_select(1, run.layout.starts) if last else y
        elif joined:
            y = run.attend_joined(joined(x), p.heads, p.scale, drop)
        else:
            query, key, value = p.attention
            y = run.attend(query(asks), key(x), value(x), p.heads, p.scale, drop)
        return run.add_norm(p.mixed(y), asks, p.norm, p.drops[1])

    def _measured(
        self, own: DistanceParts, table: torch.Tensor, dtype: torch.dtype
    ) -> kernels.Distances:
        """Keys and queries of the distances in these texts, from their table of embeddings."""
        heads = self._parts.heads
        which = anatomy.by_distance(self._run.layout.shape[1], own)
        rows, each = (i.to(table.device, non_blocking=True) for i in which)
        read = own.dropout(table.index_select(0, rows)).to(dtype).unsqueeze(0)

        def projected(by: Any, each: torch.Tensor) -> torch.Tensor | None:
            if by is None:
                return None
            made: torch.Tensor = by(read)[0]
            return made.index_select(0, each).view(len(each), heads, -1).transpose(0, 1).float()

        return kernels.Distances(projected(own.key, each.flip(0)), projected(own.query, each))

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self._parts
        if self._feeds_forward(x.dtype):
            return fused.sublayers(x, [self._feeding_forward(x.dtype)])
        return self._run.add_norm(p.narrow(p.activation(p.wide(x))), x, p.last_norm, p.drops[2])


# --- modules --------------------------------------------------------------------------------


class _Cast:
    """A weight in another type: kept where it is frozen, made anew in each step where it learns."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, ...], torch.Tensor] = {}
        self._laid_out: dict[tuple[Any, ...], fused.Weight | None] = {}
        # Embeddings that learn by rows, which may lag behind while this is in use.
        self.by_rows: list[torch.Tensor] = []

    def __call__(self, t: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
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

    def laid_out(self, layers: Sequence[Any], dtype: torch.dtype) -> fused.Weight | None:
        """The weights of layers as kernels of whole layers read them; None where they cannot be."""
        if dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
            return None  # it is to be multiplied in another type
        # A pooler is called in both types: by the encoder, for nothing, and by the head.
        key = (dtype, *map(id, layers))
        if key not in self._laid_out and all(map(fused.is_coded, layers)):
            self._laid_out[key] = fused.coded(layers) if dtype == torch.bfloat16 else None
        if key not in self._laid_out:
            weights = [m.weight.t() if type(m) is Conv1D else m.weight for m in layers]
            alike = len({m.bias is not None and m.bias.requires_grad for m in layers}) == 1
            self._laid_out[key] = fused.laid_out(weights, dtype) if alike else None
        return self._laid_out[key]


def _linear(run: _Run, m: Any, cast: _Cast) -> _Forward:
    return _SideBySide(run, [m], cast)


def _layer_norm(run: _Run, m: Any, cast: _Cast) -> _Forward:
    bias = torch.zeros_like(m.weight, requires_grad=False) if m.bias is None else m.bias

    def forward(x: torch.Tensor) -> torch.Tensor:
        return kernels.add_norm(x, None, m.weight, bias, m.eps, Dropout(0.0))

    return forward


def _rms_norm(m: Any) -> _Forward:
    def forward(x: torch.Tensor) -> torch.Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        return functional.rms_norm(wide, m.weight.shape, m.weight, m.variance_epsilon).to(x.dtype)

    return forward


def _dropout(run: _Run, m: Any, cast: _Cast) -> Callable[..., torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return kernels.dropout(x, run.drop(m.p, m.training))

    return forward


def _gelu(run: _Run, m: Any, cast: _Cast) -> Callable[..., torch.Tensor]:
    return kernels.gelu


def is_gelu(module: Any) -> bool:
    """Whether an activation is the exact GELU x Phi(x) (Hendrycks & Gimpel 2016)."""
    return _FORWARDS.get(type(module)) is _gelu and not _is_approximate(module)


def _is_approximate(module: Any) -> bool:
    return type(module) is nn.GELU and module.approximate != "none"


def _is_plain_lora(module: Any) -> bool:
    """One LoRA adapter on a linear layer, with nothing special: no DoRA, no bias of its own."""
    from peft.tuners.lora.layer import Linear

    usual = type(module) is Linear and type(module.base_layer) in {nn.Linear, Conv1D}
    return usual and _is_plain(module)


def _is_plain(lora: Any) -> bool:
    if len(lora.active_adapters) != 1 or lora.merged:
        return False
    name = lora.active_adapters[0]
    return name in lora.lora_A and name not in lora.lora_variant and not lora.lora_bias[name]


def _is_coded(module: Any) -> bool:
    """A layer of four bits that tiles read, alone or with one plain LoRA adapter (QLoRA)."""
    if fused.is_coded(module):
        return True
    base = getattr(module, "base_layer", None)
    # peft has a class of its own for these, of the same name.
    known = type(module).__module__ == "peft.tuners.lora.bnb"
    return known and fused.is_coded(base) and _is_plain(module)


class _SideBySide:
    """Linear layers of one x, some with a plain LoRA adapter; their outputs lie side by side."""

    def __init__(self, run: _Run, modules: Sequence[Any], cast: _Cast) -> None:
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

    def laid_out(self, dtype: torch.dtype) -> fused.Weight | None:
        """The weights as kernels read them; None where they are multiplied by torch."""
        return self._cast.laid_out(self._bases, dtype)

    def linear(self, dtype: torch.dtype) -> fused.Linear:
        """The layers as kernels take them, with the next masks."""
        weight = self.laid_out(dtype)
        assert weight is not None  # noqa: S101  the caller has asked
        with torch.set_grad_enabled(False) if self._learning else nullcontext():
            bias = self._bias(dtype)  # the call gives its gradient
        return fused.Linear(weight, bias, self._adapters(), self._thin, self._learning)

    def _bias(self, dtype: torch.dtype) -> Any:
        return self._cast.joined([b.bias for b in self._bases], dtype)

    def _adapters(self) -> list[fused.Adapter]:
        """With the next masks."""
        drop: Any = self._run.drop
        return [
            fused.Adapter(columns, scale, drop(rate, m.training))
            for columns, m, rate, scale in self._adapted
        ]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.laid_out(x.dtype):
            return fused.linear(x, self.linear(x.dtype))
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
        parts: Sequence[fused.Adapter],
        *thin: torch.Tensor,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        whole = sum(p.columns.stop - p.columns.start for p in parts) == weight.shape[0]
        # An adapter's kernel adds the bias of its columns on the way.
        y = flat @ weight.t() if whole or bias is None else functional.linear(flat, weight, bias)
        thin = tuple(t.contiguous() for t in thin)
        low = [
            kernels.low_rank(
                flat, a, b, y[:, p.columns], p.scale,
                bias[p.columns] if whole and bias is not None else None, p.drop,
            )
            for p, a, b in zip(parts, thin[::2], thin[1::2], strict=True)
        ]  # fmt: skip
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
            own += kernels.low_rank_back(g[:, p.columns], flat, a, b, kept, dx, p.scale, p.drop)
        dw = g.t() @ flat if need_w else None
        dbias = g.sum(0) if need_bias else None
        return None if dx is None else dx.view(shape), dw, dbias, None, *own


# Below this many numbers a whole gradient of zeros costs nothing worth saving.
_LARGE = 2**20


def _embedding(run: _Run, m: Any, cast: _Cast) -> _Forward:
    usual = m.max_norm is None and not m.scale_grad_by_freq and not m.sparse
    if not (usual and m.weight.requires_grad and m.weight.numel() >= _LARGE):
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
_FORWARDS: dict[type, Callable[[_Run, Any, _Cast], Callable[..., torch.Tensor]]] = {
    nn.Linear: _linear,
    Conv1D: _linear,
    nn.Dropout: _dropout,
    nn.Embedding: _embedding,
    nn.GELU: _gelu,
    GELUActivation: _gelu,
}


@contextmanager
def _passed_over(blocks: list[nn.Module]) -> Iterator[list[torch.Tensor]]:
    """While inside, layers give back what enters them; a list of what did, in order."""
    seen: list[torch.Tensor] = []

    def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        seen.append(x)
        return x

    before = [b.__dict__.get("forward") for b in blocks]
    try:
        for block in blocks:
            block.__dict__["forward"] = forward
        yield seen
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is None:
                del block.__dict__["forward"]
            else:
                block.__dict__["forward"] = own


class Packed:
    """Calls a classifier on packed rows: `packed(encoded, rows)` gives logits (b, n_classes).

    `dtype` is the type of activations and frozen weights inside the encoder; head, adapters,
    normalisation and optimizer stay in float32. `seed` decides the dropout masks, with the step.
    """

    def __init__(self, model: Any, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        self._model = anatomy.classifier_in(model)
        config = self._model.config
        self._family = FAMILIES[str(config.model_type)]
        self._anatomy = self._family.anatomy
        self._dtype = dtype
        self._offset = config.pad_token_id + 1 if self._anatomy.after_pad else 0
        self._pad_id = int(config.pad_token_id or 0)
        self._mean = getattr(config, self._anatomy.pooling or "-", "") == "mean"
        self._run = _Run(self._model, self._family, seed)

    @property
    def _encoder(self) -> Any:
        return anatomy.encoder_in(self._model)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While inside, attention, dropout and the like are computed the packed way."""
        before = self._model.config._attn_implementation
        if not self._anatomy.encoder:
            self._model.set_attn_implementation(_NAME)
        hooks: list[Any] = []
        cast = _Cast()
        try:
            if self._dtype != torch.float32:
                enters = self._encoder.get_submodule(self._anatomy.enters)
                hooks.append(enters.register_forward_hook(self._narrow))
            with exchanged(self._forwards(cast)):
                yield
        finally:
            for hook in hooks:
                hook.remove()
            if not self._anatomy.encoder:
                self._model.set_attn_implementation(before)
            for weight in cast.by_rows:
                rows_of(weight).settle(weight)

    def _forwards(self, cast: _Cast) -> Iterator[tuple[nn.Module, Callable[..., torch.Tensor]]]:
        """The modules whose forward pass is exchanged, each with its new one."""
        # Layers that are shared are not called in the order in which they lie.
        in_order = len(self.blocks) == self._run.layers
        before: _Pass | None = None
        for module in self._model.modules():
            forward = self._forward_of(module, cast)
            if isinstance(forward, _Pass):
                if before is not None and in_order:
                    before.next = forward
                before = forward
            if forward is not None:
                yield module, forward

    def _narrow(self, module: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor:
        return out.to(self._dtype)

    def _own_forward_of(self, module: Any, cast: _Cast) -> Callable[..., Any] | None:
        """Of a module that the family names."""
        name, layer = type(module).__name__, self._anatomy.layer
        if layer is not None and name == layer.kind:
            parts = anatomy.parts_of(module, layer)
            return _Pass(self._run, module, parts, lambda ms: self._join(ms, cast))
        if name == self._anatomy.encoder:
            return anatomy.own_pass(self._anatomy, module)
        return _rms_norm(module) if name == self._anatomy.rms else None

    def _forward_of(self, module: Any, cast: _Cast) -> Callable[..., Any] | None:
        own = self._own_forward_of(module, cast)
        if own is not None:
            return own
        if type(module) is nn.LayerNorm and module.weight is not None:
            return _layer_norm(self._run, module, cast)
        if _is_approximate(module):
            return None
        if _is_plain_lora(module) or (self._dtype == torch.bfloat16 and _is_coded(module)):
            return _linear(self._run, module, cast)
        make = _FORWARDS.get(type(module))
        return None if make is None else make(self._run, module, cast)

    def _join(self, modules: Sequence[Any], cast: _Cast) -> _SideBySide | None:
        """Layers of one x in one product, where weights are copied anyway."""
        exact = self._dtype == torch.float32
        if not all(
            type(m) is nn.Linear or _is_plain_lora(m) or (_is_coded(m) and not exact)
            for m in modules
        ):
            return None
        bases = [getattr(m, "base_layer", m) for m in modules]
        alike = len({(type(b), b.bias is None) for b in bases}) == 1
        if not alike or (exact and cast.laid_out(bases, self._dtype) is None):
            return None
        return _SideBySide(self._run, modules, cast)

    def __call__(self, encoded: Encoded, rows: NDArray[np.int64]) -> tuple[torch.Tensor, int]:
        """Logits (b, n_classes) in float32, and the number of tokens computed."""
        ids, positions, layout = self._pack([encoded.ids[r] for r in rows])
        self._run.begin(layout)
        return self._head(self._vectors(ids, positions)), ids.shape[1]

    def _vectors(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The vectors (b, width) that the head reads, of the row that `_run` has begun."""
        more: dict[str, Any] = {"use_cache": False} if self._anatomy.causal else {}
        if self._anatomy.token_types:
            more["token_type_ids"] = torch.zeros_like(ids)
        # Nobody reads the mask, but transformers looks through ids for padding where it has none.
        mask = torch.ones_like(ids)
        with self._current():
            out = self._encoder(input_ids=ids, attention_mask=mask, position_ids=positions, **more)
        return self._read(out.last_hidden_state[0])

    def below(self, encoded: Encoded, rows: NDArray[np.int64], layers: int) -> torch.Tensor:
        """What so many of the lowest layers give, without a gradient: (tokens, width).

        After all layers that is (b, width), the vectors that the head reads. The model has to be
        in evaluation mode.
        """
        ids, positions, layout = self._pack([encoded.ids[r] for r in rows])
        self._run.begin(layout, training=False)
        with torch.no_grad():
            if layers == self._run.layers:
                return self._vectors(ids, positions)
            with _passed_over(self.blocks[layers:]) as seen:
                self._vectors(ids, positions)
            return seen[0][0, : int(layout.bounds[-1])]

    def above(
        self, encoded: Encoded, rows: NDArray[np.int64], layers: int, entering: torch.Tensor
    ) -> tuple[torch.Tensor, int]:
        """As calling it, from what `below` gave of these rows in their order."""
        if layers == self._run.layers:
            self._run.begin(None)
            return self._head(entering), int(encoded.lengths_of(rows).sum())
        ids, positions, layout = self._pack([encoded.ids[r] for r in rows])
        self._run.begin(layout, layers)
        x = functional.pad(entering, (0, 0, 0, ids.shape[1] - len(entering))).unsqueeze(0)
        with self._current():
            given = anatomy.given_to_layers(self._anatomy, self._encoder, x, positions)
            for block in self.blocks[layers:]:
                x = block(x, **given(block))
            if self._anatomy.leaves:
                x = self._encoder.get_submodule(self._anatomy.leaves)(x)
        return self._head(self._read(x[0])), ids.shape[1]

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers from the lowest up; fewer than the model computes where they are shared."""
        layer = self._anatomy.layer
        name = layer.kind if layer else self._anatomy.block
        return [m for m in self._model.modules() if type(m).__name__ == name]

    @contextmanager
    def _current(self) -> Iterator[None]:
        _current.runs.append(self._run)
        try:
            yield
        finally:
            _current.runs.pop()

    def _read(self, hidden: torch.Tensor) -> torch.Tensor:
        """The vectors (b, width) that the head reads."""
        layout = self._run.layout
        hidden = hidden if hidden.dtype == torch.float64 else hidden.float()
        if self._mean:
            b, longest = layout.shape
            real = layout.mask.view(b, longest, 1)
            padded = hidden.index_select(0, layout.gather).view(b, longest, -1)
            return (padded * real).sum(1) / real.sum(1)
        # Layers of ours give only what the head reads; transformers' own give every token.
        if hidden.shape[0] == len(layout.starts):
            return hidden
        return hidden.index_select(
            0, layout.bounds[1:] - 1 if self._anatomy.causal else layout.starts
        )

    def _head(self, read: torch.Tensor) -> torch.Tensor:
        """Logits (b, n_classes) of vectors (b, width)."""
        return anatomy.logits_of(self._anatomy, self._model, read.unsqueeze(1)).float()

    def _pack(
        self, texts: Sequence[NDArray[np.int64]]
    ) -> tuple[torch.Tensor, torch.Tensor, Layout]:
        """Token ids and positions, both (1, T), and where each text lies."""
        n = np.asarray([len(t) for t in texts], dtype=np.int64)
        bounds = np.concatenate([[0], np.cumsum(n)])
        starts = bounds[:-1]
        fill = -int(bounds[-1]) % _ROUND_TO
        longest = rounded_length(int(n.max()))
        ids = np.concatenate([*texts, np.full(fill, self._pad_id, dtype=np.int64)])
        steps = [np.arange(k) for k in n]
        positions = np.concatenate([*steps, np.zeros(fill, dtype=np.int64)]) + self._offset
        columns = np.arange(longest)
        gather = starts[:, None] + np.minimum(columns[None], n[:, None] - 1)
        # Tokens that fill up the row belong to no text: they read anything and are read by nobody.
        back = [i * longest + s for i, s in enumerate(steps)]
        scatter = np.concatenate([*back, np.zeros(fill, dtype=np.int64)])
        where = next(self._model.parameters()).device

        def put(values: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(values).to(where, non_blocking=True)

        layout = Layout(
            bounds=put(bounds),
            gather=put(gather.reshape(-1)),
            mask=put(columns[None] < n[:, None])[:, None, None, :],
            scatter=put(scatter),
            starts=put(starts),
            shape=(len(texts), longest),
        )
        return put(ids)[None], put(positions)[None], layout


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


def rounded_length(longest: int) -> int:
    """The length to which attention pads a batch whose longest text has so many tokens."""
    return longest + (-longest % _ROUND_LENGTH_TO)
