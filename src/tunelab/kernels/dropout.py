"""Dropout by a counted hash: nothing is stored, and the way back makes the same mask anew.

Dropout (Srivastava et al. 2014) draws no random numbers here: whether an element is kept is a hash
of its index and a seed, so that the mask is a function of seed and step, alike in kernel and twin.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from tunelab.kernels.layout import Layout
from tunelab.kernels.library import at, pick

__all__ = [
    "Dropout",
    "Dropouts",
    "Mask",
    "Places",
    "dropout",
]


_MASK_32 = 0xFFFFFFFF


# --- dropout --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dropout:
    """A rate p and the seed of one mask. With p = 0 nothing is dropped."""

    p: float
    seed: int = 0

    @property
    def limit(self) -> int:
        """Hashes below this are dropped: p * 2^32."""
        return min(_MASK_32, round(self.p * 2**32))

    @property
    def scale(self) -> float:
        """What is kept is multiplied by 1 / (1 - p)."""
        return 1 / (1 - self.p)

    def arguments(self) -> tuple[Any, ...]:
        """As the kernels take them."""
        return self.seed, self.limit, self.scale

    def factors(self, shape: torch.Size | tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """The mask in torch: 0 or 1 / (1 - p) for each element of a tensor of this shape."""
        count = 1
        for n in shape:
            count *= n
        h = _multiples(count, like.device).add_(_signed(self.seed))
        # Compared without sign: flipping the top bit keeps the order.
        keep = _hashed(h).bitwise_xor_(-(2**31)) >= _signed(self.limit ^ 0x80000000)
        return (keep.to(like.dtype) * self.scale).view(shape)

    def attention_factors(
        self, texts: int, heads: int, longest: int, like: torch.Tensor
    ) -> torch.Tensor:
        """The mask of attention's weights, (texts, heads, longest, longest)."""
        return self.factors((texts, heads, longest, longest), like)

    def by_rows(self, rows: int) -> Iterator[tuple[slice, Dropout]]:
        """Parts of a tensor of so many rows, each with the mask that counts from its first row."""
        yield slice(0, rows), self

    def by_texts(self, layout: Layout) -> Iterator[tuple[int, int, int, Dropout]]:
        """First text, last text, longest text and mask of each part of a layout."""
        yield 0, layout.shape[0], layout.shape[1], self


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where K trainings lie that share one row: `tokens` and `texts` (K + 1 bounds each), and the
    `longest` text of each (K), rounded as it would be alone. `rows` is how many tokens there are,
    with those that fill up the row: they count to the last training.
    """

    tokens: tuple[int, ...]
    texts: tuple[int, ...]
    longest: tuple[int, ...]
    rows: int

    def bounds(self, rows: int) -> tuple[int, ...]:
        """Bounds of the trainings in a tensor with a row for each token, or for each text."""
        return (*self.tokens[:-1], self.rows) if rows == self.rows else self.texts


@dataclass(frozen=True, slots=True, eq=False)
class Dropouts:
    """The masks of K trainings that share one row: on its own part each has the mask that it would
    have alone. Used in place of a `Dropout`.

    The hash is of index * c + seed: counting from another element only moves the seed.
    """

    own: tuple[Dropout, ...]
    places: Places

    @property
    def limit(self) -> int:
        """Above 0 where one of them drops anything."""
        return max(d.limit for d in self.own)

    def by_rows(self, rows: int) -> Iterator[tuple[slice, Dropout]]:
        """As `Dropout.by_rows`."""
        bounds = self.places.bounds(rows)
        for i, d in enumerate(self.own):
            yield slice(bounds[i], bounds[i + 1]), d

    def by_texts(self, layout: Layout) -> Iterator[tuple[int, int, int, Dropout]]:
        """As `Dropout.by_texts`."""
        texts = self.places.texts
        for i, d in enumerate(self.own):
            yield texts[i], texts[i + 1], self.places.longest[i], d

    def factors(self, shape: torch.Size | tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """As `Dropout.factors`, for a tensor whose last dimension is its only one beside rows."""
        width = shape[-1]
        rows = 1
        for n in shape[:-1]:
            rows *= n
        bounds = self.places.bounds(rows)
        starts = [d.seed - _GOLDEN_32 * b * width for d, b in zip(self.own, bounds, strict=False)]
        h = _multiples(rows * width, like.device).view(rows, width)
        of = self._training_of_row(bounds, like)
        return self._factors_from_words(h, starts, of, like).view(shape)

    def attention_factors(
        self, texts: int, heads: int, longest: int, like: torch.Tensor
    ) -> torch.Tensor:
        """As `Dropout.attention_factors`; each counts with its own longest text."""
        where, bounds = like.device, self.places.texts
        of = self._training_of_row(bounds, like)
        local = torch.arange(texts, device=where) - torch.tensor(bounds[:-1], device=where)[of]
        own = torch.tensor(self.places.longest, device=where)[of].view(-1, 1, 1, 1)
        head = torch.arange(heads, device=where).view(-1, 1, 1)
        cell = torch.arange(longest, device=where)
        index = ((local.view(-1, 1, 1, 1) * heads + head) * own + cell.view(-1, 1)) * own + cell
        h = index.to(torch.int32).mul_(_signed(_GOLDEN_32)).view(texts, -1)
        starts = [d.seed for d in self.own]
        return self._factors_from_words(h, starts, of, like).view(texts, heads, longest, longest)

    def _training_of_row(self, bounds: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """Which training each row belongs to."""
        sizes = [b - a for a, b in itertools.pairwise(bounds)]
        of = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        return of.to(like.device, non_blocking=True)

    def _factors_from_words(
        self, h: torch.Tensor, starts: list[int], of: torch.Tensor, like: torch.Tensor
    ) -> torch.Tensor:
        """The masks of elements whose words, before each training's start, are h."""

        def each(words: list[Any], dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor(words, dtype=dtype, device=like.device)[of].unsqueeze(1)

        h = _hashed(h.add_(each([_signed(s) for s in starts], torch.int32)))
        limits = each([_signed(d.limit ^ 0x80000000) for d in self.own], torch.int32)
        keep = h.bitwise_xor_(-(2**31)) >= limits
        return keep.to(like.dtype) * each([d.scale for d in self.own], like.dtype)


Mask = Dropout | Dropouts
_GOLDEN_32 = 0x9E3779B9


def _multiples(count: int, where: torch.device) -> torch.Tensor:
    """0, 1, 2, ... times the hash's first factor; 32-bit integers wrap around as in C."""
    h = torch.arange(count, dtype=torch.int64, device=where).to(torch.int32)
    return h.mul_(_signed(_GOLDEN_32))


def _hashed(h: torch.Tensor) -> torch.Tensor:
    """murmur3's finaliser, in place; a shift must not bring in the sign."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None)):
        h.bitwise_xor_((h >> shift).bitwise_and_(_MASK_32 >> shift))
        if factor:
            h.mul_(_signed(factor))
    return h


def _signed(word: int) -> int:
    word &= _MASK_32
    return word - 2**32 if word >= 2**31 else word


class _DropoutFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, drop: Mask) -> torch.Tensor:
        ctx.drop = drop
        return _dropped_values(x, drop)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _dropped_values(grads[0], ctx.drop), None


def _dropped_values(x: torch.Tensor, drop: Mask) -> torch.Tensor:
    x = x.contiguous()
    kernel = pick("dropout", x)
    if kernel is None:
        return x * drop.factors(x.shape, x)
    out = torch.empty_like(x)
    rows, results = x.view(-1, x.shape[-1]), out.view(-1, x.shape[-1])
    threads = torch.get_num_threads()
    for some, own in drop.by_rows(len(rows)):
        part, result = rows[some], results[some]
        kernel(at(part), at(result), part.numel(), *own.arguments(), threads)
    return out


def dropout(x: torch.Tensor, drop: Mask) -> torch.Tensor:
    """Dropout of any tensor; the backward pass computes the same mask again."""
    return x if not drop.limit else _DropoutFunction.apply(x, drop)  # type: ignore[no-untyped-call]
