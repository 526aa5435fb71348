"""One text alone through an encoder's layers: the same kernels on memory that stays.

Of one short text the products take a few milliseconds, and what Python and torch do between them,
making tensors and looking at them, took half as long again. Here each layer is a few calls whose
arguments are known beforehand but for the number of tokens. Scores are the same bit for bit.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from tunelab.kernels import library
from tunelab.kernels.dropout import Dropout
from tunelab.kernels.layers import Product
from tunelab.kernels.library import at

__all__ = [
    "AddedNorm",
    "OneText",
    "PlainLayer",
    "ThinProducts",
]

# A text of more tokens keeps the products busy by itself.
_MOST_TOKENS = 512
_NONE = Dropout(0.0).arguments()


class AddedNorm(Protocol):
    """LN(y + x) (Ba et al. 2016), weights in float32."""

    @property
    def weight(self) -> torch.Tensor:
        """(width,)."""
        ...

    @property
    def bias(self) -> torch.Tensor:
        """(width,)."""
        ...

    @property
    def eps(self) -> float:
        """What is added to the variance."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PlainLayer:
    """A layer of products alone; `up` has GELU in it."""

    heads: int
    qkv: Product
    out: Product
    norm: AddedNorm
    up: Product
    down: Product
    last_norm: AddedNorm


class ThinProducts(Protocol):
    """Adds to a layer's product what adapters add, in place; `part` as in `anatomy.LayerParts`."""

    def __call__(  # noqa: PLR0917
        self, block: int, part: str, x: int, y: int, rows: int, k: int, n: int, gelu: bool
    ) -> None:
        """To y (rows, n) of x (rows, k), which lie there; then, with `gelu`, GELU of y."""
        ...

    def adds(self, block: int, part: str) -> bool:
        """Whether anything is added there."""
        ...


class _Memory(threading.local):
    """What a thread computes in: states, and what a layer makes of them."""

    def __init__(self, sizes: Sequence[int], dtype: torch.dtype) -> None:
        self.tensors = [torch.empty(_MOST_TOKENS, size, dtype=dtype) for size in sizes]
        self.inverse = torch.empty(_MOST_TOKENS)
        self.bounds = torch.zeros(2, dtype=torch.int64)


class OneText:
    """Runs some layers on one text's states. `of` gives None where they are not all known."""

    def __init__(
        self, layers: Sequence[PlainLayer], dtype: torch.dtype, add: ThinProducts | None
    ) -> None:
        width, wide = layers[0].out.wide, layers[0].up.wide
        self._width, self._dtype = width, dtype
        self._memory = _Memory((width, width, 3 * width, width, width, wide), dtype)
        some = torch.empty(1, dtype=dtype)
        self._attend, self._add_norm = (library.pick(f, some) for f in ("attention", "add_norm"))
        self._layers = layers
        self._products = [
            [p.call_at_addresses() for p in (m.qkv, m.out, m.up, m.down)] for m in layers
        ]
        self._add = add

    @staticmethod
    def of(
        layers: Sequence[PlainLayer | None], dtype: torch.dtype, add: ThinProducts | None = None
    ) -> OneText | None:
        """From the lowest up; `add`: what adapters add to each."""
        known = [m for m in layers if m is not None]
        if not known or len(known) < len(layers):
            return None
        alike = {(m.qkv.deep, m.qkv.wide, m.out.wide, m.up.wide, m.down.wide) for m in known}
        (width, joined, out, wide, down), *others = alike
        if others or (joined, out, down) != (3 * width, width, width) or width % 16 or wide % 16:
            return None
        return OneText(known, dtype, add)

    def __call__(self, x: torch.Tensor) -> torch.Tensor | None:
        """(1, n, width) -> the same, which is overwritten by the thread's next text; None where
        this text is not for here.
        """
        n = x.shape[1]
        if n > _MOST_TOKENS or x.dtype is not self._dtype or not x.is_cpu:
            return None
        memory, threads = self._memory, torch.get_num_threads()
        states = memory.tensors[0]
        states[:n] = x[0]
        memory.bounds[1] = n
        for block in range(len(self._layers)):
            self._layer(block, n, threads)
        return states[:n].unsqueeze(0)

    def _layer(self, block: int, n: int, threads: int) -> None:
        layer, add, memory = self._layers[block], self._add, self._memory
        qkv, out, up, down = self._products[block]
        x, middle, joined, act, y, inner = (t.data_ptr() for t in memory.tensors)
        width, wide, size = self._width, layer.up.wide, memory.tensors[0].element_size()
        qkv(x, joined, n, False, threads)
        if add is not None:
            add(block, "query, key and value", x, joined, n, width, 3 * width, False)
        of_head, bounds = width // layer.heads, memory.bounds.data_ptr()
        self._attend(
            joined, joined + width * size, joined + 2 * width * size, *(3 * width, of_head) * 3,
            bounds, bounds + 8, 1, layer.heads, of_head, n, True, False, of_head**-0.5, *_NONE,
            act, None, None, None, None, 0, threads,
        )  # fmt: skip
        out(act, y, n, False, threads)
        if add is not None:
            add(block, "mixed", act, y, n, width, width, False)
        self._norm(layer.norm, y, x, middle, n, threads)
        beside = add is not None and add.adds(block, "wide")
        up(middle, inner, n, not beside, threads)
        if add is not None and beside:
            add(block, "wide", middle, inner, n, width, wide, True)
        down(inner, y, n, False, threads)
        if add is not None:
            add(block, "narrow", inner, y, n, wide, width, False)
        self._norm(layer.last_norm, y, middle, x, n, threads)

    def _norm(  # noqa: PLR0917
        self, norm: AddedNorm, y: int, x: int, to: int, n: int, threads: int
    ) -> None:
        places = (y, x, at(norm.weight), at(norm.bias), to, to, at(self._memory.inverse))
        self._add_norm(*places, n, self._width, norm.eps, *_NONE, threads)
