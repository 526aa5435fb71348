"""Dropout, residual and LayerNorm in one pass; GELU."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from tunelab.kernels.dropout import Dropout, Mask, dropout
from tunelab.kernels.library import at, pick

__all__ = [
    "add_norm",
    "added_norm",
    "gelu",
]


# --- dropout, residual, normalisation --------------------------------------------------------


def add_norm(  # noqa: PLR0917  as torch's layer_norm takes them
    y: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    drop: Mask,
) -> torch.Tensor:
    """LayerNorm(dropout(y) + residual) (Ba et al. 2016) over the last dimension.

    `weight` and `bias` are float32; y and residual have one type, in which the result is given.
    """
    if residual is not None and residual.dtype != y.dtype:
        residual = residual.to(y.dtype)
    kernel = pick("add_norm", y, residual)
    if kernel is None or weight.dtype != torch.float32:
        total = dropout(y, drop) if residual is None else dropout(y, drop) + residual
        wide = total if total.dtype == torch.float64 else total.float()
        normed = functional.layer_norm(wide, (y.shape[-1],), weight, bias, eps)
        return normed.to(y.dtype)
    return _AddNorm.apply(y, residual, weight, bias, eps, drop)  # type: ignore[no-any-return,no-untyped-call]


def added_norm(
    y: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """LayerNorm(y + residual) of rows (n, d), without a gradient; weight and bias in float32."""
    kernel = pick("add_norm", y, residual)
    if kernel is None or weight.dtype != torch.float32:
        total = y + residual
        return functional.layer_norm(total, weight.shape, weight.to(y), bias.to(y), eps)
    y, residual = y.contiguous(), residual.contiguous()
    # What only the way back needs: one is overwritten by the result, the other thrown away.
    out, inverse = torch.empty_like(y), torch.empty(len(y))
    places = map(at, (y, residual, weight, bias, out, out, inverse))
    threads = torch.get_num_threads()
    kernel(*places, *y.shape, eps, *Dropout(0.0).arguments(), threads)
    return out


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        y: torch.Tensor,
        residual: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
        drop: Mask,
    ) -> torch.Tensor:
        y = y.contiguous()
        residual = None if residual is None else residual.contiguous()
        width = y.shape[-1]
        rows = y.numel() // width
        out, normed = torch.empty_like(y), torch.empty_like(y)
        inverse = torch.empty(rows, dtype=torch.float32)
        kernel, threads = pick("add_norm", y), torch.get_num_threads()
        for some, own in drop.by_rows(rows):
            given = (*(at(_as_rows(t, some)) for t in (y, residual)), at(weight), at(bias))
            results = (*(at(_as_rows(t, some)) for t in (out, normed)), at(inverse[some]))
            count = some.stop - some.start
            kernel(*given, *results, count, width, eps, *own.arguments(), threads)
        ctx.save_for_backward(normed, inverse, weight)
        ctx.drop = drop
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        normed, inverse, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        width = grad.shape[-1]
        dy = torch.empty_like(grad)
        wants_residual = ctx.needs_input_grad[1]
        # Without dropout, y and residual have the same gradient.
        apart = wants_residual and ctx.drop.limit
        dresidual = torch.empty_like(grad) if apart else None
        learns = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
        dweight, dbias = (torch.zeros_like(weight) if learns else None for _ in range(2))
        kernel, threads = pick("add_norm_back", grad), torch.get_num_threads()
        for some, own in ctx.drop.by_rows(grad.numel() // width):
            given = (
                *(at(_as_rows(t, some)) for t in (grad, normed)),
                at(inverse[some]),
                at(weight),
            )
            results = (*(at(_as_rows(t, some)) for t in (dy, dresidual)), at(dweight), at(dbias))
            count = some.stop - some.start
            kernel(*given, *results, count, width, *own.arguments(), threads)
        shared = dresidual if apart else (dy if wants_residual else None)
        return dy, shared, dweight, dbias, None, None


def _as_rows(t: torch.Tensor | None, some: slice) -> torch.Tensor | None:
    """Rows of a contiguous tensor, seen as (rows, width)."""
    return None if t is None else t.view(-1, t.shape[-1])[some]


# --- GELU -----------------------------------------------------------------------------------


def gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU x Phi(x) with the exact error function (Hendrycks & Gimpel 2016)."""
    if pick("gelu", x) is None:
        return functional.gelu(x)
    return _Gelu.apply(x)  # type: ignore[no-any-return,no-untyped-call]


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        out, slope = torch.empty_like(x), torch.empty_like(x)
        pick("gelu", x)(at(x), at(out), at(slope), x.numel(), torch.get_num_threads())
        ctx.save_for_backward(slope)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        slope: torch.Tensor = ctx.saved_tensors[0]
        return grads[0] * slope
