"""The thin products of LoRA, forward and back."""

from __future__ import annotations

from typing import Any

import torch

from tunelab.kernels.dropout import Dropout, dropout
from tunelab.kernels.library import at, pick

__all__ = [
    "low_rank",
    "low_rank_back",
]


# --- low rank -------------------------------------------------------------------------------


def low_rank(  # noqa: PLR0917
    x: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    y: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None,
    drop: Dropout,
) -> torch.Tensor:
    """Add low B^T + bias to y in place, with low = scale drop(x) A^T; gives low (T, at least r).

    x (T, k), y (T, n), bias (n,) of one type; A (r, k), B (n, r) and low in float32; all contiguous
    but y, which may be some columns of more. LoRA's two thin products (Hu et al. 2021) without a
    way through memory between them.
    """
    (rank, k), n = a.shape, y.shape[1]
    kernel = _thin("low_rank", a, x, y, bias)
    if kernel is None:
        low = (dropout(x.to(a.dtype), drop) @ a.t()) * scale
        y += (low @ b.t()).to(y.dtype)
        if bias is not None:
            y += bias
        return low
    low = torch.empty(x.shape[0], rank + -rank % 8)  # the kernel's ranks come in eights
    places = (*map(at, (x, a, b, bias, y)), y.stride(0), at(low))
    sizes = (x.shape[0], k, n, rank)
    kernel(*places, *sizes, scale, *drop.arguments(), torch.get_num_threads())
    return low


def low_rank_back(  # noqa: PLR0917
    g: torch.Tensor,
    x: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    low: torch.Tensor,
    dx: torch.Tensor | None,
    scale: float,
    drop: Dropout,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of A (r, k) and B (n, r) in float32, from y's gradient g (T, n).

    Adds to `dx` (T, k), where it is given, what comes through A. `low` is what `low_rank` gave.
    """
    (rank, k), n = a.shape, g.shape[1]
    kernel = _thin("low_rank_back", a, g, x, dx)
    if kernel is None:
        wide = g.to(a.dtype)
        dlow = (wide @ b) * scale
        if dx is not None:
            dx += dropout(dlow @ a, drop).to(dx.dtype)
        return dlow.t() @ dropout(x.to(a.dtype), drop), wide.t() @ low
    da, db = torch.empty(rank, k), torch.empty(n, rank)
    places = (at(g), g.stride(0), *map(at, (x, a, b, low, dx, da, db)))
    sizes = (x.shape[0], k, n, rank)
    kernel(*places, *sizes, scale, *drop.arguments(), torch.get_num_threads())
    return da, db


def _thin(name: str, a: torch.Tensor, *tensors: torch.Tensor | None) -> Any:
    """The kernel of thin products, which needs lines of whole vectors; None where the twin runs."""
    whole = all(t is None or t.shape[-1] % 16 == 0 for t in tensors)
    return pick(name, *tensors) if whole and a.dtype == torch.float32 else None
