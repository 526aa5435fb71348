"""Whole layers in one call against the same computed in float32 by torch, with the same masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from processors import in_bfloat16, on_tiles, on_vectors
from tunelab.kernels import layers
from tunelab.kernels import weights as kernel_weights
from tunelab.kernels.dropout import Dropout, dropout
from tunelab.kernels.layers import Adapter, Linear
from tunelab.kernels.layout import Layout

TYPES = [
    pytest.param(torch.bfloat16, marks=in_bfloat16, id="bfloat16"),
    pytest.param(torch.float32, marks=on_vectors, id="float32"),
]

# A difference's length over the whole's: bfloat16 has 8 bits, and what is between is rounded too.
NEAR = {torch.bfloat16: 3e-2, torch.float32: 3e-6}


@pytest.fixture(params=TYPES, name="dtype")
def _dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """What layers compute in."""
    found = request.param
    assert isinstance(found, torch.dtype)
    return found


def wide(layer: tuple[torch.Tensor, torch.Tensor], like: Linear, x: torch.Tensor) -> torch.Tensor:
    """The layer in float32, from its definition."""
    weight, bias = layer
    y = x @ weight.t() + bias
    parts = list(y.split(1, dim=-1))
    for p, a, b in zip(like.adapters, like.thin[::2], like.thin[1::2], strict=True):
        more = p.scale * (dropout(x, p.drop) @ a.t()) @ b.t()
        for j, column in enumerate(range(p.columns.start, p.columns.stop)):
            parts[column] = parts[column] + more[..., j : j + 1]
    return torch.cat(parts, dim=-1)


def layer(
    k: int,
    columns: Sequence[int],
    ranks: Sequence[int],
    p: float,
    dtype: torch.dtype,
    *,
    learns: bool = False,
) -> tuple[tuple[torch.Tensor, torch.Tensor], Linear]:
    """Weights that the type holds, and the layer of them; rank 0 for columns without adapter.

    In float32 only biases learn.
    """
    weights = [(torch.randn(n, k) / k**0.5).to(dtype) for n in columns]
    biases = [torch.randn(n).to(dtype) for n in columns]
    bias = torch.cat(biases)
    if learns and dtype == torch.bfloat16:
        weights = [w.float().requires_grad_() for w in weights]
    if learns:
        biases = [b.float().requires_grad_() for b in biases]
    found = kernel_weights.laid_out(weights, dtype)
    assert found is not None
    adapters, thin, first = [], [], 0
    for seed, (n, r) in enumerate(zip(columns, ranks, strict=True)):
        if r:
            adapters.append(Adapter(slice(first, first + n), 1.5, Dropout(p, 5 + seed)))
            thin += [torch.randn(r, k) / k**0.5, torch.randn(n, r) / r**0.5]
        first += n
    thin = [t.requires_grad_() for t in thin]
    kept = Linear(found, bias, adapters, thin, biases if learns else ())
    assert len(kept.learns) == len(thin) + (1 + (dtype == torch.bfloat16)) * len(columns) * learns
    return (torch.cat(weights).float(), torch.cat(biases).float()), kept


def assert_near(
    ours: Callable[[torch.Tensor], torch.Tensor],
    theirs: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    learns: Sequence[torch.Tensor],
    noise: Sequence[torch.Tensor] = (),
) -> None:
    """Same result and gradients; of `noise` the gradient is zero but for rounding."""
    g = torch.randn(theirs(x.float()).shape).to(x.dtype)
    found: list[list[torch.Tensor]] = []
    for f, dtype in ((ours, x.dtype), (theirs, torch.float32)):
        leaf = x.to(dtype).requires_grad_()
        y = f(leaf)
        found.append(
            [y.detach(), *torch.autograd.grad(y, [leaf, *learns], g.to(dtype), retain_graph=True)]
        )
    # One that is zero but for rounding is held to the others.
    most = max(float(b.norm()) for b in found[1])
    of = [None, None, *learns]
    for t, a, b in zip(of, *found, strict=True):
        floor = (0.02 if any(t is one for one in noise) else 0.01) * most
        assert float((a.float() - b).norm()) <= NEAR[x.dtype] * max(floor, float(b.norm()))


@pytest.mark.parametrize("rows", [1, 16, 33, 130])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("ranks", [(0, 0), (1, 0), (8, 8), (21, 40)], ids=str)
@pytest.mark.parametrize("learns", [False, True])
def test_layers_side_by_side(
    rows: int, p: float, ranks: tuple[int, int], learns: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    weights, own = layer(96, (64, 32), ranks, p, dtype, learns=learns)
    x = torch.randn(1, rows, 96).to(dtype)
    assert_near(lambda t: layers.linear(t, own), lambda t: wide(weights, own, t), x, own.learns)


def laid_out(lengths: list[int], fill: int) -> Layout:
    n = np.asarray(lengths)
    bounds = torch.from_numpy(np.concatenate([[0], np.cumsum(n)]))
    nothing = torch.zeros(int(bounds[-1]) + fill, dtype=torch.int64)
    return Layout(bounds, nothing, nothing, nothing, bounds[:-1], (len(n), int(n.max())))


def test_adapters_with_and_without_dropout_in_one_layer(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weights, own = layer(32, (64, 32), (8, 4), 0.3, dtype)
    some = [replace(own.adapters[0], drop=Dropout(0.0)), own.adapters[1]]
    mixed = replace(own, adapters=some)
    x = torch.randn(1, 45, 32).to(dtype)
    assert_near(lambda t: layers.linear(t, mixed), lambda t: wide(weights, mixed, t), x, own.learns)


@pytest.mark.parametrize("rows", [40, 700])
def test_a_large_weight_is_gone_through_by_several_blocks_of_rows(
    rows: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    weights, own = layer(512, (1600,), (8,), 0.1, dtype)
    x = torch.randn(1, rows, 512).to(dtype)
    assert_near(lambda t: layers.linear(t, own), lambda t: wide(weights, own, t), x, own.learns)


def norm_of(d: int, p: float, *, learns: bool) -> layers.Norm:
    both = [1 + torch.randn(d) / 9, torch.randn(d)]
    return layers.Norm(*(t.requires_grad_(learns) for t in both), 1e-5, Dropout(p, 3))


@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("lengths", [[1], [3, 17, 8, 33], [70, 2]], ids=str)
@pytest.mark.parametrize("learns", [False, True])
def test_attention_dropout_residual_and_norm_in_one(
    p: float, lengths: list[int], learns: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    heads, d = 2, 64
    into_w, into = layer(d, (d, d, d), (8, 0, 8), p, dtype, learns=learns)
    out_w, out = layer(d, (d,), (4,), p, dtype, learns=learns)
    norm = norm_of(d, p, learns=learns)
    fill = 5
    how = layers.Attention(laid_out(lengths, fill), heads, 0.2, Dropout(p, 4))
    x = torch.randn(1, sum(lengths) + fill, d).to(dtype)

    def composed(t: torch.Tensor) -> torch.Tensor:
        q, k, v = wide(into_w, into, t).view(1, -1, 3, heads, d // heads).unbind(2)
        most = max(lengths)
        mask = how.drop.factors((len(lengths), heads, most, most), t)
        rows, first = [], 0
        for i, n in enumerate(lengths):
            some = slice(first, first + n)
            scores = torch.einsum("qhw,khw->hqk", q[0, some], k[0, some]) * how.scale
            weights = scores.softmax(-1) * mask[i, :, :n, :n]
            rows.append(torch.einsum("hqk,khw->qhw", weights, v[0, some]).reshape(n, d))
            first += n
        act = torch.cat([*rows, t.new_zeros(fill, d)]).unsqueeze(0)
        y = dropout(wide(out_w, out, act), norm.drop) + t
        return functional.layer_norm(y, (d,), norm.weight, norm.bias, norm.eps)

    every = [*into.learns, *out.learns, *norm.learns]
    # A shift of all keys changes nothing, but attention rounds the gradient of its scores.
    noise = into.biases[1:2]
    assert_near(
        lambda t: layers.sublayers(t, [layers.Sublayer(into, out, norm, how)]),
        composed,
        x,
        every,
        noise,
    )


@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("rows", [1, 45])
@pytest.mark.parametrize("learns", [False, True])
def test_feed_forward_dropout_residual_and_norm_in_one(
    p: float, rows: int, learns: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    into_w, into = layer(64, (96,), (8,), p, dtype, learns=learns)
    out_w, out = layer(96, (64,), (4,), p, dtype, learns=learns)
    norm = norm_of(64, p, learns=learns)
    x = torch.randn(1, rows, 64).to(dtype)

    def composed(t: torch.Tensor) -> torch.Tensor:
        y = wide(out_w, out, functional.gelu(wide(into_w, into, t)))
        y = dropout(y, norm.drop) + t
        return functional.layer_norm(y, (64,), norm.weight, norm.bias, norm.eps)

    every = [*into.learns, *out.learns, *norm.learns]
    assert_near(
        lambda t: layers.sublayers(t, [layers.Sublayer(into, out, norm)]), composed, x, every
    )


def test_weights_that_are_not_of_whole_tiles_are_left_to_others(dtype: torch.dtype) -> None:
    assert kernel_weights.laid_out([torch.zeros(64, 64)], dtype) is not None
    assert kernel_weights.laid_out([torch.zeros(64, 48)], dtype) is None
    assert kernel_weights.laid_out([torch.zeros(64, 64), torch.zeros(8, 64)], dtype) is None
    some, others = torch.zeros(64, 64, requires_grad=True), torch.zeros(64, 64)
    assert kernel_weights.laid_out([some, others], dtype) is None


def test_other_types_are_left_to_others() -> None:
    for dtype in (torch.float64, torch.float16):
        assert kernel_weights.laid_out([torch.zeros(64, 64)], dtype) is None
        assert kernel_weights.laid_out([torch.zeros(64, 64, requires_grad=True)], dtype) is None


@on_vectors
def test_weights_that_learn_in_float32_are_left_to_others() -> None:
    assert kernel_weights.laid_out([torch.zeros(64, 64, requires_grad=True)], torch.float32) is None


@on_tiles
@pytest.mark.parametrize("rows", [1, 31, 64, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_float32_as_two_numbers_of_bfloat16(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    weight, shift = torch.randn(160, 96), torch.randn(160) if bias else None
    found = layers.product(weight, shift, in_two_parts=True)
    assert found is not None
    x = torch.randn(2, rows, 96)
    exact = functional.linear(
        x.double(), weight.double(), None if shift is None else shift.double()
    )
    y = found(x)
    assert y.dtype == torch.float32
    off = float((y - exact).norm() / exact.norm())
    # 16 of 24 bits: far nearer than bfloat16 (2e-3), and not float32 (1e-7).
    assert 2e-7 < off < 6e-6
    assert torch.equal(found.columns(32, 128)(x), y[..., 32:128])
    # A row's result does not depend on what lies beside it.
    assert torch.equal(found(x[1, -1:]), y[1, -1:])
    assert found(x[:0]).shape == (0, rows, 160)
    wide = replace(found, gelu=True)(x)
    assert torch.allclose(wide, functional.gelu(y), atol=3e-6)


@pytest.mark.parametrize("rows", [0, 1, 31, 64, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_alone(rows: int, bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, shift = torch.randn(160, 96).to(dtype), torch.randn(160).to(dtype) if bias else None
    found = layers.product(weight, shift)
    assert found is not None
    x = torch.randn(2, rows, 96).to(dtype)
    exact = functional.linear(
        x.double(), weight.double(), None if shift is None else shift.double()
    )
    y, near = found(x), {torch.float32: 1e-6, torch.bfloat16: 4e-3}[dtype]
    assert y.dtype == dtype
    assert y.shape == (2, rows, 160)
    assert float((y - exact).norm()) <= near * float(exact.norm())
    assert torch.equal(found.columns(32, 128)(x), y[..., 32:128])
    # A row's result does not depend on what lies beside it.
    assert torch.equal(found(x[1, -1:]), y[1, -1:])
    wide, soft = replace(found, gelu=True)(x), functional.gelu(exact)
    assert float((wide - soft).norm()) <= near * float(soft.norm())


def test_products_that_are_not_of_whole_tiles_are_left_to_torch(dtype: torch.dtype) -> None:
    for two in (False, True):
        assert layers.product(torch.zeros(64, 48, dtype=dtype), None, in_two_parts=two) is None
