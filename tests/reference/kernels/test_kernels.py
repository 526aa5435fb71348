"""Each compiled kernel against its twin in torch, and both against torch's own functions."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tunelab.core import machine
from tunelab.kernels import library, norms, precision
from tunelab.kernels.attention import attention, attention_of_batch, self_attention
from tunelab.kernels.dropout import Dropout, dropout
from tunelab.kernels.layout import Layout
from tunelab.kernels.low_rank import low_rank, low_rank_back

needs_compiler = pytest.mark.skipif(
    not library.available(), reason=f"no compiled kernels: {library.why_not()}"
)


def layout(lengths: list[int]) -> Layout:
    """As packing makes it, here from its definition."""
    n = np.asarray(lengths)
    bounds = np.concatenate([[0], np.cumsum(n)])
    longest = int(n.max())
    gather = [bounds[i] + min(j, n[i] - 1) for i in range(len(n)) for j in range(longest)]
    scatter = [i * longest + j for i in range(len(n)) for j in range(n[i])]
    mask = np.arange(longest)[None] < n[:, None]
    return Layout(
        torch.from_numpy(bounds), torch.tensor(gather), torch.from_numpy(mask)[:, None, None],
        torch.tensor(scatter), torch.from_numpy(bounds[:-1]), (len(n), longest),
    )  # fmt: skip


def run(f: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> list[torch.Tensor]:
    """Result and gradients of all arguments."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    out = f(*leaves)
    weights = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.dtype)
    out.backward(weights)  # type: ignore[no-untyped-call]
    return [out.detach(), *[t.grad for t in leaves if t.grad is not None]]


def both(
    monkeypatch: pytest.MonkeyPatch, f: Callable[..., torch.Tensor], *tensors: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    ours = run(f, *tensors)
    with monkeypatch.context() as m:
        m.setattr(library, "_library", lambda: (None, "tried without"))
        twin = run(f, *tensors)
    return ours, twin


def assert_near(ours: list[torch.Tensor], twin: list[torch.Tensor], rtol: float) -> None:
    assert len(ours) == len(twin)
    for a, b in zip(ours, twin, strict=True):
        assert a.dtype == b.dtype
        assert float((a.float() - b.float()).abs().max()) <= rtol * float(b.float().abs().max())


TYPES = [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)]


@needs_compiler
@pytest.mark.parametrize(("dtype", "rtol"), TYPES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("width", [5, 16, 32, 47, 64])
@pytest.mark.parametrize("lengths", [[1], [1, 1], [3, 17, 8, 33], [70, 2], [16, 32, 48]], ids=str)
def test_attention(  # noqa: PLR0917
    lengths: list[int], width: int, first_only: bool, causal: bool, dtype: torch.dtype,
    rtol: float, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if first_only and causal:
        pytest.skip("causal models read the last token")
    where = layout(lengths)
    total, heads = sum(lengths), 3
    torch.manual_seed(0)
    # Views, as a layer gives them: (1, T, heads * width) seen as (1, heads, T, width).
    made = [torch.randn(1, total, heads * width).to(dtype) for _ in range(3)]
    if first_only:
        made[0] = made[0][:, : len(lengths)]

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        split = [t.view(1, -1, heads, width).transpose(1, 2) for t in (q, k, v)]
        return attention(
            split[0], split[1], split[2], where, scale=0.3, drop=Dropout(0.2, 7), causal=causal
        )

    ours, twin = both(monkeypatch, attend, *made)
    assert_near(ours, twin, rtol)

    def together(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        one = torch.stack([t.view(1, total, heads, width) for t in (q, k, v)], 2)
        return self_attention(one, where, scale=0.3, drop=Dropout(0.2, 7), causal=causal)

    if not first_only:
        for a, b in zip(both(monkeypatch, together, *made), (ours, twin), strict=True):
            for own, apart in zip(a, b, strict=True):
                assert torch.equal(own, apart)


@needs_compiler
@pytest.mark.parametrize(("dtype", "rtol"), TYPES)
@pytest.mark.parametrize("lengths", [[512, 9], [1100, 300]], ids=str)
def test_attention_in_long_texts(
    lengths: list[int], dtype: torch.dtype, rtol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(1, sum(lengths), 3, 2, 32).to(dtype)

    def attend(t: torch.Tensor) -> torch.Tensor:
        return self_attention(t, layout(lengths), scale=0.2, drop=Dropout(0.1, 3))

    assert_near(*both(monkeypatch, attend, qkv), rtol)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [[30, 5], [64, 3, 40, 12], [33, 1]], ids=str)
def test_a_text_that_is_no_number_does_not_reach_the_others(
    lengths: list[int], causal: bool, dtype: torch.dtype
) -> None:
    heads, width, first = 2, 32, lengths[0]
    torch.manual_seed(0)
    good = torch.randn(1, sum(lengths), 3, heads, width).to(dtype)
    bad = good.clone()
    bad[:, 0, 2] = float("nan")

    def attend(qkv: torch.Tensor) -> torch.Tensor:
        return self_attention(qkv, layout(lengths), scale=0.3, drop=Dropout(0.0), causal=causal)

    for ours, alone in zip(run(attend, bad), run(attend, good), strict=True):
        assert ours[:, :first].isnan().any()
        assert torch.equal(ours[:, first:], alone[:, first:])


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_the_same_on_any_number_of_threads(dtype: torch.dtype) -> None:
    where = layout([30, 5, 17, 64])
    torch.manual_seed(0)
    qkv = torch.randn(1, 116, 3, 4, 32).to(dtype)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(
                run(lambda t: self_attention(t, where, scale=0.3, drop=Dropout(0.1, 5)), qkv)
            )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_torchs_own_on_each_text(causal: bool) -> None:
    lengths = [5, 1, 12]
    q, k, v = torch.randn(3, 1, 2, sum(lengths), 8).unbind(0)
    out = attention(q, k, v, layout(lengths), scale=8**-0.5, drop=Dropout(0.0), causal=causal)
    at = 0
    for n in lengths:
        part = slice(at, at + n)
        own = functional.scaled_dot_product_attention(
            q[:, :, part], k[:, :, part], v[:, :, part], is_causal=causal
        )
        torch.testing.assert_close(out[:, part], own.transpose(1, 2), rtol=1e-5, atol=1e-6)
        at += n


@needs_compiler
@pytest.mark.parametrize(("dtype", "rtol"), TYPES)
@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("width", [7, 32, 100])
def test_add_norm(
    width: int, p: float, dtype: torch.dtype, rtol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    y, x = torch.randn(2, 19, width).to(dtype)
    weight, bias = torch.randn(2, width)
    ours, twin = both(
        monkeypatch,
        lambda y, x, w, b: norms.add_norm(y, x, w, b, 1e-5, Dropout(p, 3)),
        y, x, weight, bias,
    )  # fmt: skip
    assert_near(ours, twin, rtol)
    alone = run(lambda y, w, b: norms.add_norm(y, None, w, b, 1e-5, Dropout(0.0)), y, weight, bias)
    own = run(
        lambda y, w, b: functional.layer_norm(y.float(), (width,), w, b, 1e-5), y, weight, bias
    )
    assert_near([t.float() for t in alone], [t.float() for t in own], max(rtol, 1e-5))


@needs_compiler
@pytest.mark.parametrize(("dtype", "rtol"), TYPES)
def test_gelu(dtype: torch.dtype, rtol: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.linspace(-12, 12, 4001).to(dtype)
    ours, twin = both(monkeypatch, norms.gelu, x)
    assert_near(ours, twin, rtol)


@needs_compiler
@pytest.mark.parametrize(("dtype", "rtol"), TYPES)
@pytest.mark.parametrize("drop", [Dropout(0.0), Dropout(0.3, 1)])
@pytest.mark.parametrize(("tokens", "rank"), [(13, 1), (13, 3), (300, 8), (130, 21)])
def test_low_rank(  # noqa: PLR0917
    tokens: int, rank: int, drop: Dropout, dtype: torch.dtype, rtol: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    x, y, g = (torch.randn(tokens, n).to(dtype) for n in (48, 32, 32))
    a, b, bias = torch.randn(rank, 48), torch.randn(32, rank), torch.randn(32).to(dtype)

    def compute() -> list[torch.Tensor]:
        # Some columns of a wider tensor, as where several layers share a product.
        out, dx = torch.cat([y, y, y], 1)[:, 32:64], x.clone()
        low = low_rank(x, a, b, out, 2.0, bias, drop)
        da, db = low_rank_back(g, x, a, b, low, dx, 2.0, drop)
        nobody = low_rank_back(g, x, a, b, low, None, 2.0, drop)
        assert torch.equal(nobody[0], da)
        assert torch.equal(nobody[1], db)
        wider = torch.cat([y, g, y], 1)[:, 32:64]
        assert torch.equal(low_rank_back(wider, x, a, b, low, None, 2.0, drop)[1], db)
        return [out, low[:, :rank], dx, da, db]

    ours = compute()
    monkeypatch.setattr(library, "_library", lambda: (None, "tried without"))
    assert_near(ours, compute(), rtol)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_has_the_right_rate_scale_and_gradient(p: float) -> None:
    x = torch.ones(400, 503, requires_grad=True)
    y = dropout(x, Dropout(p, seed=11))
    kept = y != 0
    # Five standard errors of a rate over 200,000 draws.
    assert abs(float(kept.float().mean()) - (1 - p)) < 5 * (p * (1 - p) / x.numel()) ** 0.5
    assert torch.allclose(y[kept], torch.tensor(1 / (1 - p)), rtol=1e-6)
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    # Neither rows nor columns share a mask, and neighbours are not correlated.
    k = kept.float() - kept.float().mean()
    for pairs in (k[:, 1:] * k[:, :-1], k[1:] * k[:-1]):
        assert abs(float(pairs.mean())) < 5 * p * (1 - p) / x.numel() ** 0.5


def test_dropout_masks_of_two_seeds_are_independent() -> None:
    a, b = (Dropout(0.5, s).factors((200_000,), torch.ones(1)) > 0 for s in (1, 2))
    both_kept = float((a & b).float().mean())
    assert abs(both_kept - 0.25) < 5 * (0.25 * 0.75 / 200_000) ** 0.5


@needs_compiler
@pytest.mark.parametrize("n", [1, 15, 16, 17, 5000])
def test_dropout_in_torch_has_the_same_mask(n: int) -> None:
    for seed in (0, 1, 2**31, 2**32 - 1):
        drop = Dropout(0.3, seed)
        x = torch.ones(n)
        assert torch.equal(dropout(x, drop), drop.factors((n,), x))


def test_without_a_compiler_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELAB_KERNELS", "off")
    found, why = library._library.__wrapped__()
    assert found is None
    assert why == "TUNELAB_KERNELS=off"


def test_the_number_format_asks_no_clock_and_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine, another number of threads or an older answer that was kept change nothing."""
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path))
    monkeypatch.setattr(time, "perf_counter", lambda: pytest.fail("timed"))
    choose = precision.choose.__wrapped__
    assert choose() == choose()
    assert not list(tmp_path.rglob("*"))
    has = machine.multiplies_bfloat16()
    assert choose().dtype == ("bfloat16" if has else "float32")


@pytest.mark.parametrize(
    ("has_bfloat16", "amd", "errors", "dtype", "route"),
    [
        (True, False, (3e-3, 3e-3), "bfloat16", "mkl"),
        (True, True, (3e-3, 3e-3), "bfloat16", "mkl"),  # the flag truly uses bfloat16
        (True, False, (0.5, 3e-3), "float32", "mkl"),  # fast and wrong
        (False, False, (3e-3, 1e-7), "float32", "mkl"),
        (False, True, (3e-3, 1e-7), "float32", "onednn"),
        (False, True, (3e-3, 1e-4), "float32", "mkl"),
    ],
)
def test_precision_follows_the_processor_and_its_errors(
    has_bfloat16: bool, amd: bool, errors: tuple[float, float], dtype: str, route: str
) -> None:
    got = precision.decide(has_bfloat16, amd, precision.Errors(*errors))
    assert (got.dtype, got.route) == (dtype, route)


@needs_compiler
@pytest.mark.parametrize(("dtype", "rtol"), TYPES)
@pytest.mark.parametrize(("heads", "width"), [(2, 32), (3, 20), (1, 64)])
@pytest.mark.parametrize("lengths", [None, [9, 1, 17], [17, 17, 17]], ids=str)
@pytest.mark.parametrize("first_only", [False, True])
def test_attention_of_a_padded_batch(  # noqa: PLR0917
    dtype: torch.dtype, rtol: float, heads: int, width: int, lengths: list[int] | None,
    first_only: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    b, n, d = 3, 17, heads * width
    q, k, v = torch.randn(b, n, 3, d).to(dtype).unbind(2)
    if first_only:
        q = q[:, :1].contiguous()
    some = None if lengths is None else torch.tensor(lengths)
    ours = attention_of_batch(q, k, v, heads, some)
    monkeypatch.setattr(library, "_library", lambda: (None, "tried without"))
    twin = attention_of_batch(q, k, v, heads, some)
    assert ours.shape == q.shape
    for i, length in enumerate(lengths or [n] * b):
        assert_near([ours[i, :length]], [twin[i, :length]], rtol)
        assert not ours[i, length:].any() or first_only


@pytest.mark.parametrize("n", [300, 1100])
def test_attention_of_a_padded_batch_of_long_texts_is_torchs(n: int) -> None:
    q = torch.randn(2, n, 32)
    y = attention_of_batch(q, q, q, 2, torch.tensor([n, 4]))
    t = q.view(2, n, 2, 16).transpose(1, 2)
    whole = functional.scaled_dot_product_attention(t[:1], t[:1], t[:1])
    torch.testing.assert_close(y[:1], whole.transpose(1, 2).reshape(1, n, 32))


@needs_compiler
@pytest.mark.parametrize(("dtype", "rtol"), TYPES)
def test_norm_of_a_sum_without_a_gradient(
    dtype: torch.dtype, rtol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    y, x = torch.randn(2, 7, 40).to(dtype).unbind(0)
    weight, bias = torch.randn(40), torch.randn(40)
    ours = norms.added_norm(y[:, :], x, weight, bias, 1e-5)
    exact = functional.layer_norm(y.double() + x.double(), (40,), weight.double(), bias.double())
    assert_near([ours], [exact.to(dtype)], rtol)
    monkeypatch.setattr(library, "_library", lambda: (None, "tried without"))
    assert_near([norms.added_norm(y, x, weight, bias, 1e-5)], [exact.to(dtype)], rtol)
