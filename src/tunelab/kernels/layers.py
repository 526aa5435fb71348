"""Whole layers in one kernel call, with the adapters that train them.

A layer, a whole sublayer (attention or GELU, dropout, residual, norm) and all sublayers of an
encoder are one call forward and one back (`sublayers`). In bfloat16 they run on a processor's
matrix tiles (AMX) or on vectors that multiply pairs (AVX512-BF16), where LoRA's thin products share
the tiles of the large one; in float32 on wide vectors (AVX-512). A weight that does not learn is
laid out once as these read it, and one that learns or has four bits within each call. Scoring has
layers alone (`Product`), in float32 also in two parts on tiles. Where a processor has none of this,
`weights.laid_out` gives None and the caller computes as without it; the same masks are drawn,
so that both give the same numbers to rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunelab.kernels import library
from tunelab.kernels.abi import (
    AdapterRecord,
    DropoutRecord,
    LayerRecord,
    SublayerRecord,
    WeightRowsRecord,
)
from tunelab.kernels.dropout import Dropout
from tunelab.kernels.layout import Layout
from tunelab.kernels.library import at
from tunelab.kernels.weights import TILE, LaidOut, Learning, Weight, laid_out

__all__ = [
    "Adapter",
    "Attention",
    "Linear",
    "Norm",
    "Product",
    "Sublayer",
    "linear",
    "product",
    "sublayers",
]

_LINE = 64  # bytes of a cache's line


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """x W^T + bias, without a gradient; with `gelu`, the exact GELU of it.

    Of x in float32 or bfloat16, as `laid` is. Where x is float32 and `laid` bfloat16, each number
    is taken as the sum of two of bfloat16. That holds 16 of its 24 bits: results are off by 3e-6 of
    their size. torch calls this float32_matmul_precision "high" (Henry, Tang & Heinecke 2019 have
    the arithmetic).
    """

    laid: torch.Tensor
    bias: torch.Tensor | None
    deep: int
    wide: int
    gelu: bool = False

    @property
    def in_two_parts(self) -> bool:
        """Whether float32 is multiplied as the sum of two numbers."""
        return self.laid.numel() == 2 * self.deep * self.wide

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(..., k) -> (..., n), in the type of the weight."""
        x = x.to(torch.float32 if self.in_two_parts else self.laid.dtype).contiguous()
        y = x.new_empty(*x.shape[:-1], self.wide)
        rows, threads = x.numel() // self.deep, torch.get_num_threads()
        if self.in_two_parts:
            places = map(at, (x, self.laid, self.bias, y))
            sizes = (rows, self.deep, self.wide)
            library.pick("product", x)(*places, *sizes, self.gelu, threads)
            return y
        record = LayerRecord(at(self.laid), bias=at(self.bias), k=self.deep, n=self.wide)
        library.pick("adapted", x)(ctypes.addressof(record), at(x), at(y), self.gelu, rows, threads)
        return y

    def call_at_addresses(self) -> Callable[[int, int, int, bool, int], None]:
        """The same as a call of (x, y, rows, GELU, threads), where x and y lie at addresses, in the
        type of the weight (float32 in two parts). The product must outlive it.
        """
        k, n, laid, bias = self.deep, self.wide, at(self.laid), at(self.bias)
        if self.in_two_parts:
            kernel = library.pick("product", torch.empty(0))

            def in_parts(x: int, y: int, rows: int, gelu: bool, threads: int) -> None:
                kernel(x, laid, bias, y, rows, k, n, gelu, threads)

            return in_parts
        kernel, record = library.pick("adapted", self.laid), LayerRecord(laid, bias=bias, k=k, n=n)

        def whole(x: int, y: int, rows: int, gelu: bool, threads: int) -> None:
            kernel(ctypes.addressof(record), x, y, gelu, rows, threads)

        return whole

    def columns(self, start: int, stop: int) -> Product:
        """The same for some columns of the result, whole tiles; nothing is copied."""
        a_column = self.laid.numel() // self.wide
        bias = None if self.bias is None else self.bias[start:stop]
        some = self.laid[start * a_column : stop * a_column]
        return Product(some, bias, self.deep, stop - start)


def product(
    weight: torch.Tensor, bias: torch.Tensor | None, *, in_two_parts: bool = False
) -> Product | None:
    """A layer W (n, k), of which W and bias have one type, laid out for kernels of this type.

    `in_two_parts`: of float32 to five digits, where there are matrix tiles. None where W is not of
    whole tiles, or where the processor has no kernel.
    """
    n, k = weight.shape
    bias = None if bias is None else bias.contiguous()
    laid = laid_out([weight.detach()], weight.dtype)
    if not isinstance(laid, LaidOut):
        return None
    if not in_two_parts or library.pick("product", weight) is None:
        return Product(laid.ahead(), bias, k, n)
    tiles = torch.empty(2 * n * k, dtype=torch.bfloat16)
    down, along = weight.stride()
    library.pick("lay_out", weight)(at(weight), along, down, k, n, at(tiles))
    return Product(tiles, bias, k, n)


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA on some columns of a layer's output: its factor alpha / r and its dropout."""

    columns: slice
    scale: float
    drop: Dropout


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """y = x W^T + bias, on an adapter's columns + s (drop(x) A^T) B^T (Hu et al. 2021).

    `thin`: A (r, k), B (columns, r), A, B, ... in float32, rounded to x's type where they are
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


@dataclass(frozen=True, slots=True, eq=False)
class Sublayer:
    """norm(x + drop(out(f(into(x))))), in BERT's order (Vaswani et al. 2017; norm behind).

    f is attention, for which `into` gives queries, keys and values side by side, or else GELU. With
    `asking`, which gives the queries, only the first token of each text asks and has a result; then
    `into` gives keys and values.
    """

    into: Linear
    out: Linear
    norm: Norm
    attention: Attention | None = None
    asking: Linear | None = None

    @property
    def learns(self) -> tuple[torch.Tensor, ...]:
        """What gets a gradient beside x."""
        asking = self.asking.learns if self.asking else ()
        return (*self.into.learns, *asking, *self.out.learns, *self.norm.learns)


class _Ready:
    """A layer as kernels take it, for one batch."""

    def __init__(self, layer: Linear, rows: int, dtype: torch.dtype) -> None:
        n, k = layer.weight.shape
        self.thin = [t.contiguous() for t in layer.thin]
        # One piece of memory for all adapters: each tensor of its own takes microseconds.
        # Whole tiles; in float32 ranks are read by eights, and rows by twelves.
        whole = 8 if dtype == torch.float32 else TILE
        ranks = [_filled_up(t.shape[0], whole) for t in self.thin[::2]]
        numbers = [r * (_filled_up(rows, TILE) + TILE) for r in ranks]
        lows = [_filled_up(count * dtype.itemsize, _LINE) for count in numbers]
        masks = [_filled_up(rows * k // 8, _LINE) if p.drop.limit else 0 for p in layer.adapters]
        self._memory = [torch.empty(sum(lows) + sum(masks), dtype=torch.uint8)]
        place = self._memory[0].data_ptr()
        self._parts = (AdapterRecord * len(layer.adapters))()
        for i, p in enumerate(layer.adapters):
            a, b, drop = self.thin[2 * i], self.thin[2 * i + 1], p.drop
            kept = place + lows[i] if masks[i] else None
            sizes, scale = (p.columns.start, b.shape[0], a.shape[0]), p.scale * drop.scale
            mask, gradients = (drop.seed, drop.limit), (None, None)
            self._parts[i] = AdapterRecord(
                at(a), at(b), place, kept, *gradients, *sizes, scale, *mask
            )
            place += lows[i] + masks[i]
        self._layer = layer
        parts, count = ctypes.addressof(self._parts), len(layer.adapters)
        self.record = LayerRecord(bias=at(layer.bias), parts=parts, count=count, k=k, n=n)
        weight = layer.weight
        if isinstance(weight, LaidOut):
            laid = weight.ahead()
            assert laid.dtype == dtype  # noqa: S101  it would be read beyond its end
            self.record.ahead = at(laid)
        else:
            assert dtype == torch.bfloat16  # noqa: S101  only these kernels lay out
            self._lay_within(self.record)

    def _lay_within(self, record: LayerRecord) -> None:
        """Have the next call lay the weight out, from where its parts lie now."""
        weight = self._layer.weight
        assert not isinstance(weight, LaidOut)  # noqa: S101  the caller has asked
        pieces = weight.pieces()
        self._rows = (WeightRowsRecord * len(pieces))(*pieces)
        record.rows, record.pieces = ctypes.addressof(self._rows), len(pieces)

    def kept(self) -> torch.Tensor:
        """What the way back needs again. The caller's now: here it would outlive that."""
        return self._memory.pop()

    def turn(self, record: LayerRecord, asked: bool) -> list[torch.Tensor]:
        """Make ready for the way back: room for the gradients of `learns`, which the call fills.

        `asked`: whether x's gradient is.
        """
        weight, biases = self._layer.weight, self._layer.biases
        if asked and isinstance(weight, LaidOut):
            record.back = at(weight.back())
        elif asked:
            self._lay_within(record)
        made = _room_for(self.thin)
        for part, da, db in zip(self._parts, made[::2], made[1::2], strict=True):
            part.da, part.db = da.data_ptr(), db.data_ptr()
        if isinstance(weight, Learning):
            made += _room_for(weight.parts)
            record.dw = at(made[len(self.thin)])
        if biases:
            own = _room_for(biases)
            record.dbias = at(own[0])
            made += own
        return made


def _filled_up(size: int, whole: int) -> int:
    """The next multiple of `whole`."""
    return size + -size % whole


def _room_for(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors like these, one behind the other in memory."""
    if not tensors:
        return []
    sizes = [t.numel() for t in tensors]
    pieces = torch.empty(sum(sizes)).split_with_sizes(sizes)
    return [piece.view(t.shape) for piece, t in zip(pieces, tensors, strict=True)]


def linear(x: torch.Tensor, layer: Linear) -> torch.Tensor:
    """A layer alone, (..., k) -> (..., n)."""
    return _Linear.apply(x, layer, *layer.learns)  # type: ignore[no-any-return,no-untyped-call]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: Linear, *_: torch.Tensor) -> torch.Tensor:
        n, k = layer.weight.shape
        x = x.contiguous()
        rows = x.numel() // k
        ready = _Ready(layer, rows, x.dtype)
        y = x.new_empty(*x.shape[:-1], n)
        library.pick("adapted", x)(
            ctypes.addressof(ready.record), at(x), at(y), False, rows, torch.get_num_threads()
        )
        ctx.save_for_backward(x, *layer.learns, ready.kept())
        ctx.ready = ready
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x = ctx.saved_tensors[0]
        g = grads[0].contiguous()
        ready: _Ready = ctx.ready
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        made = ready.turn(ready.record, dx is not None)
        record, rows = ctypes.addressof(ready.record), g.numel() // g.shape[-1]
        threads = torch.get_num_threads()
        library.pick("adapted_back", g)(record, at(g), at(x), at(dx), rows, threads)
        return dx, None, *made


def sublayers(x: torch.Tensor, chain: Sequence[Sublayer]) -> torch.Tensor:
    """Sublayers, each of the one before's result: (1, T, d) -> (1, T or texts, d).

    One call each way: between calls, what Python and torch do runs from memory that the kernels
    have pushed out of the caches, and took a fifth of a step (docs/log.md).
    """
    return _Chain.apply(x, chain, *(t for s in chain for t in s.learns))  # type: ignore[no-any-return,no-untyped-call]


class _Step:
    """A sublayer as the kernel takes it, for one batch."""

    def __init__(self, sublayer: Sublayer, x: torch.Tensor, record: SublayerRecord) -> None:
        into, out, norm, attention = sublayer.into, sublayer.out, sublayer.norm, sublayer.attention
        (inside, deep), (n, wide) = into.weight.shape, out.weight.shape
        rows = asks = x.numel() // deep
        self.sublayer, self.record = sublayer, record
        self.layers = [_Ready(into, rows, x.dtype)]
        self.kept: list[torch.Tensor] = []
        if attention is not None:
            self._bounds = attention.layout.bounds  # alive as long as the record is
            record.bounds = at(self._bounds)
            record.texts, record.longest = attention.layout.shape
            record.heads, record.scale = attention.heads, attention.scale
            record.attending = DropoutRecord(*attention.drop.arguments())
        if sublayer.asking is not None:
            asks = record.texts
            self.layers.append(_Ready(sublayer.asking, asks, x.dtype))
            record.asking = ctypes.addressof(self.layers[-1].record)
            firsts, queries = x.new_empty(asks, deep), x.new_empty(asks, wide)
            record.firsts, record.queries = at(firsts), at(queries)
            self.kept += [firsts, queries]
        self.layers.append(_Ready(out, asks, x.dtype))
        # Queries, keys and values; or GELU's derivative.
        inner, act = x.new_empty(rows, inside), x.new_empty(asks, wide)
        normed, inverse = x.new_empty(asks, n), torch.empty(asks)
        self.result = x.new_empty(1, asks, n)
        self.kept += [x, inner, act, normed, inverse, *(ready.kept() for ready in self.layers)]
        record.into, record.out = self.layers[0].record, self.layers[-1].record
        record.x, record.inner, record.act = at(x), at(inner), at(act)
        record.result, record.normed, record.inverse = at(self.result), at(normed), at(inverse)
        record.weight, record.shift = at(norm.weight), at(norm.bias)
        record.rows, record.eps = rows, norm.eps
        record.after = DropoutRecord(*norm.drop.arguments())

    def turn(self, g: int | None, dx: torch.Tensor | None) -> list[torch.Tensor]:
        """Make ready for the way back; give room for the gradients of `learns`."""
        record, norm = self.record, self.sublayer.norm
        record.g, record.dx = g, at(dx)
        made = self.layers[0].turn(record.into, dx is not None)
        if self.sublayer.asking is not None:
            made += self.layers[1].turn(self.layers[1].record, dx is not None)
        made += self.layers[-1].turn(record.out, True)
        of_norm = [torch.zeros_like(t) for t in norm.learns]
        if of_norm:
            record.dweight, record.dshift = map(at, of_norm)
        return [*made, *of_norm]


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, chain: Sequence[Sublayer], *learns: torch.Tensor
    ) -> torch.Tensor:
        x = x.contiguous()
        records = (SublayerRecord * len(chain))()
        steps: list[_Step] = []
        for i, sublayer in enumerate(chain):
            steps.append(_Step(sublayer, steps[-1].result if steps else x, records[i]))
        library.pick("sublayers", x)(ctypes.addressof(records), len(chain), torch.get_num_threads())
        kept: list[torch.Tensor] = []
        for step in steps:
            kept += step.kept
            step.kept = []
        ctx.save_for_backward(*kept, *learns)
        result = steps[-1].result
        for step in steps:
            del step.result
        ctx.rest = (steps, records, x.shape)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        alive = ctx.saved_tensors  # asked for, so that torch says if one was changed since
        steps, records, shape = ctx.rest
        first = grads[0].contiguous()
        g: torch.Tensor | None = first
        made: list[list[torch.Tensor]] = []
        places: list[torch.Tensor] = []  # two in turn: a sublayer reads one and writes the other
        for step in reversed(steps):
            size, dx = (step.record.rows, step.record.into.k), None
            if step is not steps[0] or ctx.needs_input_grad[0]:
                fits = len(places) > 1 and places[-2].shape == size
                dx = places[-2] if fits else first.new_empty(size)
                places.append(dx)
            made.append(step.turn(at(g), dx))
            g = dx
        library.pick("sublayers_back", first)(
            ctypes.addressof(records), len(steps), torch.get_num_threads()
        )
        del alive, places
        return None if g is None else g.view(shape), None, *(t for of in reversed(made) for t in of)
