"""Layers on a processor's matrix tiles (AMX), with the adapters that train them.

In bfloat16 a weight that does not learn is laid out once as tiles read it, and one that learns or
has four bits before each call. A layer, or a whole sublayer with attention or GELU, dropout,
residual and norm, is then one call forward and one back, in which LoRA's thin products share the
tiles of the large one. For scoring, float32 is multiplied in two parts (`Product`). Where there are
no tiles, `tiled` gives None and the caller computes as `packing` does without; the same masks are
drawn, so that both give the same numbers to rounding.

May import: kernels. May not import: packing, train, methods.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from tunelab import kernels
from tunelab.kernels import Dropout, Layout, at

__all__ = ["Adapter", "Attention", "Coded", "Learning", "Linear", "Norm", "Product", "Tiled",
           "Weight", "coded", "is_coded", "linear", "product", "sublayer", "tiled"]  # fmt: skip

_TILE = 32


class Weight(Protocol):
    """A W (n, k) that tiles can read."""

    @property
    def shape(self) -> torch.Size:
        """(n, k)."""
        ...

    def ahead(self) -> torch.Tensor:
        """Laid out for x W^T."""
        ...

    def back(self) -> torch.Tensor:
        """Laid out for g W."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Tiled:
    """A weight in bfloat16, laid out once for both ways."""

    shape: torch.Size
    kept: tuple[torch.Tensor, torch.Tensor]

    def ahead(self) -> torch.Tensor:
        """As `Weight`."""
        return self.kept[0]

    def back(self) -> torch.Tensor:
        """As `Weight`."""
        return self.kept[1]


class _Codes(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("codes", "numbers", "scales")),
        *((name, ctypes.c_long) for name in ("block", "n", "k")),
    )


class _Anew:
    """A `Weight` of parts, one below the other, that is laid out whenever it is read."""

    __slots__ = ()
    shape: torch.Size
    parts: Sequence[Any]

    def ahead(self) -> torch.Tensor:
        """As `Weight`, made anew."""
        return self._laid_out(back=False)

    def back(self) -> torch.Tensor:
        """As `Weight`, made anew."""
        return self._laid_out(back=True)

    def _laid_out(self, *, back: bool) -> torch.Tensor:
        all_, k = self.shape
        out = torch.empty(all_ * k, dtype=torch.bfloat16)
        first = 0
        for part in self.parts:
            first += self._lay_out(part, first, back, out)
        return out

    def _lay_out(self, part: Any, first: int, back: bool, out: torch.Tensor) -> int:
        """Lay out a part, whose rows begin with `first`; give how many these are."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class Learning(_Anew):
    """Weights of float32 that learn; they are rounded to bfloat16."""

    shape: torch.Size
    parts: tuple[torch.Tensor, ...]

    def _lay_out(self, part: torch.Tensor, first: int, back: bool, out: torch.Tensor) -> int:
        all_, k = self.shape
        kernels.pick("lay_out_rows", part)(
            at(part), len(part), k, first, all_, back, at(out), torch.get_num_threads()
        )
        return len(part)


@dataclass(frozen=True, slots=True, eq=False)
class Coded(_Anew):
    """Weights of four bits (Dettmers et al. 2023); only codes and scales stay in memory.

    Of each part its codes, the sixteen numbers that they stand for, the scales of its blocks, and a
    block's length.
    """

    shape: torch.Size
    parts: tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor, int], ...]

    def _lay_out(self, part: Any, first: int, back: bool, out: torch.Tensor) -> int:
        codes, numbers, scales, block = part
        all_, k = self.shape
        n = 2 * int(codes.numel()) // k
        record = _Codes(at(codes), at(numbers), at(scales), block, n, k)
        kernels.pick("decode", codes)(
            ctypes.addressof(record), first, all_, back, at(out), torch.get_num_threads()
        )
        return n


def is_coded(layer: Any) -> bool:
    """Whether a layer holds four bits a weight as bitsandbytes packs them, in whole tiles here."""
    kind = type(layer)
    if kind.__name__ != "Linear4bit" or not kind.__module__.startswith("bitsandbytes."):
        return False
    weight = layer.weight
    state = getattr(weight, "quant_state", None)
    return (
        state is not None
        and kernels.pick("decode", weight.data) is not None
        and not getattr(state, "packing_format_for_cpu", False)
        # Blocks that go over a row's end bitsandbytes 0.50 itself reads wrongly on a processor.
        and not layer.in_features % state.blocksize
        and not state.blocksize % _TILE
        and not layer.out_features % _TILE
        and (layer.bias is None or not layer.bias.requires_grad)
    )


def coded(layers: Sequence[Any]) -> Coded:
    """Layers of which `is_coded` holds, one below the other."""
    from bitsandbytes.functional import dequantize_blockwise

    parts = []
    for m in layers:
        state = m.weight.quant_state
        scales = state.absmax
        if state.nested:  # the scales are themselves of eight bits
            scales = dequantize_blockwise(scales, state.state2) + state.offset
        numbers = state.code.detach().float().contiguous()
        parts.append((m.weight.data, numbers, scales.float().contiguous(), int(state.blocksize)))
    n = sum(m.out_features for m in layers)
    return Coded(torch.Size((n, layers[0].in_features)), tuple(parts))


def tiled(weights: Sequence[torch.Tensor]) -> Weight | None:
    """Weights (n_i, k), one below the other, as tiles read them.

    None where they are not of whole tiles, where the processor has none, or where only some learn.
    """
    if any(size % _TILE for w in weights for size in w.shape):
        return None
    if any(w.requires_grad for w in weights):
        fits = all(w.requires_grad and w.is_contiguous() for w in weights)
        if not fits or kernels.pick("lay_out_rows", *weights) is None:
            return None
        shape = torch.Size((sum(map(len, weights)), weights[0].shape[1]))
        return Learning(shape, tuple(weights))
    weight = torch.cat([w.detach().to(torch.bfloat16) for w in weights])
    lay_out = kernels.pick("lay_out", weight)
    if lay_out is None:
        return None
    (n, k), (down, along) = weight.shape, weight.stride()
    ahead, back = (torch.empty(n * k, dtype=weight.dtype) for _ in range(2))
    lay_out(at(weight), along, down, k, n, at(ahead))
    lay_out(at(weight), down, along, n, k, at(back))
    return Tiled(weight.shape, (ahead, back))


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """x W^T + bias in float32, each number taken as the sum of two of bfloat16; no gradient.

    That holds 16 of its 24 bits: results are off by 3e-6 of their size. torch calls this
    float32_matmul_precision "high" (Henry, Tang & Heinecke 2019 have the arithmetic). With `gelu`,
    the exact GELU of it.
    """

    tiles: torch.Tensor
    bias: torch.Tensor | None
    deep: int
    wide: int
    gelu: bool = False

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(..., k) -> (..., n)."""
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], self.wide)
        kernels.pick("product", x)(
            at(x), at(self.tiles), at(self.bias), at(y), x.numel() // self.deep, self.deep,
            self.wide, self.gelu, torch.get_num_threads(),
        )  # fmt: skip
        return y

    def columns(self, start: int, stop: int) -> Product:
        """The same for some columns of the result, whole tiles; nothing is copied."""
        some = self.tiles[2 * start * self.deep : 2 * stop * self.deep]
        bias = None if self.bias is None else self.bias[start:stop]
        return Product(some, bias, self.deep, stop - start)


def product(weight: torch.Tensor, bias: torch.Tensor | None) -> Product | None:
    """A layer of float32, W (n, k), on tiles; None without any, or where W is not of whole ones."""
    n, k = weight.shape
    lay_out = kernels.pick("lay_out", weight) if kernels.pick("product", weight) else None
    if lay_out is None or n % _TILE or k % _TILE:
        return None
    tiles = torch.empty(2 * n * k, dtype=torch.bfloat16)
    down, along = weight.stride()
    lay_out(at(weight), along, down, k, n, at(tiles))
    return Product(tiles, None if bias is None else bias.contiguous(), k, n)


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA on some columns of a layer's output: its factor alpha / r and its dropout."""

    columns: slice
    scale: float
    drop: Dropout


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """y = x W^T + bias, on an adapter's columns + s (drop(x) A^T) B^T (Hu et al. 2021).

    `thin`: A (r, k), B (columns, r), A, B, ... in float32, rounded to bfloat16 where they are
    multiplied; an adapter's columns are whole tiles. `biases`: those of float32 that learn, of
    which `bias` is made.
    """

    weight: Weight
    bias: torch.Tensor | None
    adapters: Sequence[Adapter] = ()
    thin: Sequence[torch.Tensor] = ()
    biases: Sequence[torch.Tensor] = ()

    @property
    def learns(self) -> tuple[torch.Tensor, ...]:
        """What gets a gradient beside x."""
        weights = self.weight.parts if isinstance(self.weight, Learning) else ()
        return (*self.thin, *weights, *self.biases)


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Layer norm of x + drop(y)."""

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float
    drop: Dropout

    @staticmethod
    def fits(module: Any) -> bool:
        """Whether a module's norm is this one."""
        if type(module) is not nn.LayerNorm or module.weight is None or module.bias is None:
            return False
        both = (module.weight, module.bias)
        alike = both[0].requires_grad == both[1].requires_grad
        return alike and all(p.dtype == torch.float32 for p in both)

    @property
    def learns(self) -> tuple[torch.Tensor, ...]:
        """What gets a gradient."""
        return (self.weight, self.bias) if self.weight.requires_grad else ()


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """Attention within each text of a layout, and dropout of its weights."""

    layout: Layout
    heads: int
    scale: float
    drop: Dropout


class _Adapter(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("a", "b", "low", "kept", "da", "db")),
        *((name, ctypes.c_long) for name in ("first", "columns", "rank")),
        ("scale", ctypes.c_float), ("seed", ctypes.c_uint32), ("limit", ctypes.c_uint32),
    )  # fmt: skip


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("ahead", "back", "bias", "dw", "dbias", "parts")),
        *((name, ctypes.c_long) for name in ("count", "k", "n")),
    )


class _Dropout(ctypes.Structure):
    _fields_ = (("seed", ctypes.c_uint32), ("limit", ctypes.c_uint32), ("scale", ctypes.c_float))


class _Sublayer(ctypes.Structure):
    _fields_ = (
        ("into", _Layer), ("out", _Layer),
        *((name, ctypes.c_void_p) for name in ("x", "inner", "act", "result", "normed", "inverse")),
        *((name, ctypes.c_void_p) for name in ("weight", "shift", "bounds", "g", "dx")),
        *((name, ctypes.c_void_p) for name in ("dweight", "dshift")),
        *((name, ctypes.c_long) for name in ("rows", "texts", "heads", "longest")),
        ("eps", ctypes.c_float), ("scale", ctypes.c_float),
        ("attending", _Dropout), ("after", _Dropout),
    )  # fmt: skip


class _Ready:
    """A layer as kernels take it, for one batch; `kept`: what the backward pass needs again."""

    def __init__(self, layer: Linear, rows: int) -> None:
        n, k = layer.weight.shape
        self.thin = [t.contiguous() for t in layer.thin]
        self.kept: list[torch.Tensor] = []
        self._parts = (_Adapter * len(layer.adapters))()
        for i, p in enumerate(layer.adapters):
            a, b = self.thin[2 * i : 2 * i + 2]
            rank = a.shape[0]
            low = torch.empty(rank + -rank % _TILE, rows + -rows % _TILE, dtype=torch.bfloat16)
            seen = torch.empty(rows * k // _TILE, dtype=torch.int32) if p.drop.limit else None
            self.kept += [low] if seen is None else [low, seen]
            self._parts[i] = _Adapter(
                at(a), at(b), at(low), at(seen), None, None, p.columns.start,
                b.shape[0], rank, p.scale * p.drop.scale, p.drop.seed, p.drop.limit,
            )  # fmt: skip
        self._layer = layer
        # Alive as long as the next call reads it; others than `Tiled` are laid out for each.
        self.laid: torch.Tensor | None = layer.weight.ahead()
        self.record = _Layer(
            at(self.laid), None, at(layer.bias), None, None,
            ctypes.addressof(self._parts), len(layer.adapters), k, n,
        )  # fmt: skip

    def turn(self, record: _Layer, asked: bool) -> list[torch.Tensor]:
        """Make ready for the way back: room for the gradients of `learns`, which the call fills.

        `asked`: whether x's gradient is.
        """
        weight, biases = self._layer.weight, self._layer.biases
        self.laid = weight.back() if asked else None
        record.back = at(self.laid)
        made = [torch.empty_like(t) for t in self.thin]
        for part, da, db in zip(self._parts, made[::2], made[1::2], strict=True):
            part.da, part.db = at(da), at(db)
        if isinstance(weight, Learning):
            whole = torch.empty(weight.shape)
            record.dw = at(whole)
            made += torch.split(whole, [len(p) for p in weight.parts])
        if biases:
            whole = torch.empty(weight.shape[0])
            record.dbias = at(whole)
            made += torch.split(whole, [len(b) for b in biases])
        return made


def linear(x: torch.Tensor, layer: Linear) -> torch.Tensor:
    """A layer alone, (..., k) -> (..., n) in bfloat16."""
    return _Linear.apply(x, layer, *layer.learns)  # type: ignore[no-any-return,no-untyped-call]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: Linear, *_: torch.Tensor) -> torch.Tensor:
        n, k = layer.weight.shape
        x = x.contiguous()
        rows = x.numel() // k
        ready = _Ready(layer, rows)
        y = x.new_empty(*x.shape[:-1], n)
        kernels.pick("adapted", x)(
            ctypes.addressof(ready.record), at(x), at(y), rows, torch.get_num_threads()
        )
        ready.laid = None
        ctx.save_for_backward(x, *layer.learns, *ready.kept)
        ctx.ready = ready
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x = ctx.saved_tensors[0]
        g = grads[0].contiguous()
        ready: _Ready = ctx.ready
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        made = ready.turn(ready.record, dx is not None)
        kernels.pick("adapted_back", g)(
            ctypes.addressof(ready.record), at(g), at(x), at(dx),
            g.numel() // g.shape[-1], torch.get_num_threads(),
        )  # fmt: skip
        ready.laid = None
        return dx, None, *made


def sublayer(
    x: torch.Tensor, into: Linear, out: Linear, norm: Norm, attention: Attention | None = None
) -> torch.Tensor:
    """norm(x + drop(out(f(into(x))))), x (1, T, d) in bfloat16 (Vaswani et al. 2017; norm behind).

    f is attention, for which `into` gives queries, keys and values side by side, or else GELU.
    """
    return _SublayerFunction.apply(  # type: ignore[no-any-return,no-untyped-call]
        x, into, out, norm, attention, *into.learns, *out.learns, *norm.learns
    )


class _SublayerFunction(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        x: torch.Tensor,
        into: Linear,
        out: Linear,
        norm: Norm,
        attention: Attention | None,
        *_: torch.Tensor,
    ) -> torch.Tensor:
        x = x.contiguous()
        (inside, deep), (n, wide) = into.weight.shape, out.weight.shape
        rows = x.numel() // deep
        first, second = _Ready(into, rows), _Ready(out, rows)
        # Queries, keys and values; or GELU's derivative.
        inner, act = x.new_empty(rows, inside), x.new_empty(rows, wide)
        result, normed = torch.empty_like(x), x.new_empty(rows, n)
        inverse = torch.empty(rows)
        bounds, texts, longest = None, 0, 0
        if attention is not None:
            bounds, (texts, longest) = attention.layout.bounds, attention.layout.shape
        attending = attention.drop if attention else Dropout(0.0)
        record = _Sublayer(
            first.record, second.record, at(x), at(inner), at(act), at(result),
            at(normed), at(inverse), at(norm.weight), at(norm.bias),
            at(bounds), None, None, None, None, rows, texts,
            attention.heads if attention else 0, longest, norm.eps,
            attention.scale if attention else 0.0, attending.arguments(), norm.drop.arguments(),
        )  # fmt: skip
        kernels.pick("sublayer", x)(ctypes.addressof(record), torch.get_num_threads())
        first.laid = second.laid = None
        ctx.save_for_backward(
            x, inner, act, normed, inverse, *into.learns, *out.learns, *norm.learns,
            *first.kept, *second.kept,
        )  # fmt: skip
        ctx.rest = (first, second, record, norm, bounds)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x = ctx.saved_tensors[0]  # asked for, so that torch says if one was changed since
        first, second, record, norm, _ = ctx.rest
        g = grads[0].contiguous()
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        made = [*first.turn(record.into, dx is not None), *second.turn(record.out, True)]
        of_norm = [torch.zeros_like(t) for t in norm.learns]
        if of_norm:
            record.dweight, record.dshift = map(at, of_norm)
        record.g, record.dx = at(g), at(dx)
        kernels.pick("sublayer_back", g)(ctypes.addressof(record), torch.get_num_threads())
        first.laid = second.laid = None
        return dx, None, None, None, None, *made, *of_norm
