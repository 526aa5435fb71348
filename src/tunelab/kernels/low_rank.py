"""The thin products of LoRA, forward and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tunelab.kernels.dropout import Dropout, dropout
from tunelab.kernels.library import at, pick

__all__ = [
    "low_rank",
    "low_rank_back",
    "SEGMENT_FIELDS",
    "add_segments",
    "add_segments_at",
    "segment",
]


# --- thin products of some rows' own --------------------------------------------------------


SEGMENT_FIELDS = 7  # of a SegmentRecord, each of eight bytes


def segment(
    down: torch.Tensor, up: torch.Tensor, column: int
) -> tuple[tuple[int, ...], tuple[torch.Tensor, ...]]:
    """A thin product x down^T up, of down (r, k) and up (r, columns), on y's columns from `column`
    on (Hu et al. 2021): a SegmentRecord whose rows are yet to be said, and what its pointers need.
    """
    filled = tuple(
        functional.pad(m.detach().float(), (0, 0, 0, -len(m) % 4)).contiguous() for m in (down, up)
    )
    places = (filled[0].data_ptr(), filled[1].data_ptr())
    return (*places, 0, 0, len(filled[0]), column, up.shape[1]), filled


def add_segments(
    x: torch.Tensor, y: torch.Tensor, table: NDArray[np.int64], *, gelu: bool = False
) -> bool:
    """Add to rows of y (T, n), in place, the thin products of the same rows of x (T, k) that the
    lines of `table` (s, 7), SegmentRecords, say; then, with `gelu`, take the exact GELU of y.

    False, and nothing is done, where no kernel is. No two lines of one row have columns in common;
    one of rank 0 is passed over. x and y are contiguous, of one type.
    """
    (rows, k), n = x.shape, y.shape[1]
    kernel = None if k % 16 or n % 16 else pick("segments", x, y)
    if kernel is None:
        return False
    threads = torch.get_num_threads()
    kernel(table.ctypes.data, len(table), at(x), at(y), rows, k, n, gelu, threads)
    return True


def add_segments_at(
    table: NDArray[np.int64], x: int, y: int, sizes: tuple[int, int, int], dtype: torch.dtype,
    *, gelu: bool,
) -> None:  # fmt: skip
    """As `add_segments`, of x and y that lie at these addresses; `sizes`: T, k and n."""
    kernel = pick("segments", torch.empty(0, dtype=dtype))
    kernel(table.ctypes.data, len(table), x, y, *sizes, gelu, torch.get_num_threads())


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
