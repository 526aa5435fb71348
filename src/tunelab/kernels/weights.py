"""Weights as the kernels multiply by them: laid out once, coded in four bits, or learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunelab.kernels import library
from tunelab.kernels.abi import WeightRowsRecord
from tunelab.kernels.library import at

__all__ = [
    "TILE",
    "Coded",
    "LaidOut",
    "Learning",
    "Weight",
    "coded",
    "is_coded",
    "laid_out",
]


TILE = 32
_LAYING_OUT = {torch.bfloat16: "lay_out", torch.float32: "panels"}


class LaidOut:
    """A weight that does not learn, laid out once for each way, when that is first gone."""

    __slots__ = ("_ahead", "_back", "_dtype", "_parts", "shape")

    def __init__(self, parts: Sequence[torch.Tensor], dtype: torch.dtype) -> None:
        self._parts, self._dtype = parts, dtype
        self._ahead: torch.Tensor | None = None
        self._back: torch.Tensor | None = None
        self.shape = _below_each_other(parts)

    def ahead(self) -> torch.Tensor:
        """Laid out for x W^T."""
        if self._ahead is None:
            self._ahead = self._laid_out(back=False)
        return self._ahead

    def back(self) -> torch.Tensor:
        """Laid out for g W."""
        if self._back is None:
            self._back = self._laid_out(back=True)
        return self._back

    def _laid_out(self, *, back: bool) -> torch.Tensor:
        weight = torch.cat([w.detach().to(self._dtype) for w in self._parts])
        (n, k), (down, along) = weight.shape, weight.stride()
        out = torch.empty(n * k, dtype=self._dtype)
        lay_out = library.pick(_LAYING_OUT[self._dtype], weight)
        if back:
            lay_out(at(weight), down, along, n, k, at(out))
        else:
            lay_out(at(weight), along, down, k, n, at(out))
        return out


def _below_each_other(parts: Sequence[torch.Tensor]) -> torch.Size:
    return torch.Size((sum(p.shape[0] for p in parts), parts[0].shape[1]))


@dataclass(frozen=True, slots=True, eq=False)
class Learning:
    """Weights of float32 that learn, one below the other; each call rounds them to bfloat16."""

    parts: tuple[torch.Tensor, ...]

    @property
    def shape(self) -> torch.Size:
        """(n, k)."""
        return _below_each_other(self.parts)

    def pieces(self) -> list[WeightRowsRecord]:
        """As kernels take them."""
        return [WeightRowsRecord(at(p), None, None, None, 0, len(p)) for p in self.parts]


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """Weights of four bits (Dettmers et al. 2023); only codes and scales stay in memory.

    Of each part its codes, the sixteen numbers that they stand for, the scales of its blocks, and a
    block's length.
    """

    shape: torch.Size
    parts: tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor, int], ...]

    def pieces(self) -> list[WeightRowsRecord]:
        """As kernels take them."""
        k = self.shape[1]
        return [
            WeightRowsRecord(
                None, at(codes), at(numbers), at(scales), block, 2 * int(codes.numel()) // k
            )
            for codes, numbers, scales, block in self.parts
        ]


# A W (n, k) that kernels can read.
Weight = LaidOut | Learning | Coded


def _multiplies(dtype: torch.dtype) -> bool:
    """Whether this processor has kernels of whole layers in this type."""
    return library.pick("sublayers", torch.empty(0, dtype=dtype)) is not None


def is_coded(layer: Any) -> bool:
    """Whether a layer holds four bits a weight as bitsandbytes packs them, in whole tiles here."""
    kind = type(layer)
    if kind.__name__ != "Linear4bit" or not kind.__module__.startswith("bitsandbytes."):
        return False
    weight = layer.weight
    state = getattr(weight, "quant_state", None)
    return (
        state is not None
        and weight.data.is_cpu
        and weight.data.dtype == torch.uint8
        and _multiplies(torch.bfloat16)
        and not getattr(state, "packing_format_for_cpu", False)
        # Blocks that go over a row's end bitsandbytes 0.50 itself reads wrongly on a processor.
        and not layer.in_features % state.blocksize
        and not state.blocksize % TILE
        and not layer.out_features % TILE
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


def laid_out(weights: Sequence[torch.Tensor], dtype: torch.dtype) -> Weight | None:
    """Weights (n_i, k), one below the other, as kernels read them that compute in `dtype`.

    None where they are not of whole tiles, where the processor has none, or where only some learn;
    in float32 also where they learn.
    """
    if any(size % TILE for w in weights for size in w.shape):
        return None
    if not all(w.is_cpu for w in weights) or not _multiplies(dtype):
        return None
    if not any(w.requires_grad for w in weights):
        return LaidOut(weights, dtype)
    fits = all(w.requires_grad and w.is_contiguous() and w.dtype == torch.float32 for w in weights)
    return Learning(tuple(weights)) if fits and dtype == torch.bfloat16 else None
