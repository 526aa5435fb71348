"""Where each sequence of a packed row begins and ends."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = [
    "Layout",
]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where B texts, of at most `shape[1]` tokens, lie in a row of T tokens.

    `bounds` (B + 1,) says where each text begins and the last ends. For the twin in torch: `gather`
    (B * L,) takes row -> padded, `mask` (B, 1, 1, L) is true at real tokens, `scatter` (T,) takes
    padded -> row. `starts` (B,) are the first tokens, `reads` (B,) those that a head reads; None
    where it reads the first.
    """

    bounds: torch.Tensor
    gather: torch.Tensor
    mask: torch.Tensor
    scatter: torch.Tensor
    starts: torch.Tensor
    shape: tuple[int, int]
    reads: torch.Tensor | None = None
