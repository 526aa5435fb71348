"""Attention within each sequence of a packed row, forward and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from tunelab.kernels.dropout import Dropout, Mask
from tunelab.kernels.layout import Layout
from tunelab.kernels.library import at, pick

__all__ = [
    "Distances",
    "attention",
    "attention_of_batch",
    "fits",
    "self_attention",
]


# The kernel is the faster one at every length that was tried, up to 512 (docs/log.md); the room
# that a thread needs grows with the square.
_LONGEST_IN_KERNEL = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """What disentangled attention (He et al. 2021) adds to the score of tokens i and j of a text.

    q_i keys[d] + k_j queries[d], d being i - j. Both (heads, 2 L - 1, width) for texts of L tokens
    at most, or None: `keys` from d = L - 1 down, `queries` from d = 1 - L up.
    """

    keys: torch.Tensor | None
    queries: torch.Tensor | None


def _by_distance(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """x_a table[L - 1 - a + b] for each a and b: (B, heads, L, width) -> (B, heads, L, L)."""
    b, heads, n, width = x.shape
    rows = x.transpose(0, 1).reshape(heads, b * n, width)
    every = torch.matmul(rows, table.transpose(-1, -2)).view(heads, b, n * (2 * n - 1))
    # A row of which each begins one place before the one above: read with one place less to a row.
    some = every[..., n - 1 : n - 1 + n * (2 * n - 2)].view(heads, b, n, 2 * n - 2)[..., :n]
    return some.transpose(0, 1)


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: Layout,
    *,
    scale: float,
    drop: Mask,
    causal: bool = False,
    window: int | None = None,
    distances: Distances | None = None,
) -> torch.Tensor:
    """Attention within each text, dropout(softmax(scale Q K^T)) V (Vaswani et al. 2017).

    q, k, v: (1, heads, T, width), any strides but 1 in the last dimension; gives (1, T, heads,
    width). Where q has B rows instead of T, only the first token of each text asks. With `window`,
    tokens so far apart, or farther, do not see each other (Beltagy et al. 2020). With `distances`,
    where all of T ask, scores depend on them too.
    """
    if distances is not None or (window is not None and window < layout.shape[1]):
        return _padded_attention(q, k, v, layout, scale, drop, causal, window, distances)
    if _has_kernel(q, k, v, layout):
        given = [
            t.transpose(1, 2) if t.stride(3) == 1 else t.transpose(1, 2).contiguous()
            for t in (q, k, v)
        ]
        return _Attention.apply(layout, scale, drop, causal, *given)  # type: ignore[no-any-return,no-untyped-call]
    return _padded_attention(q, k, v, layout, scale, drop, causal)


def self_attention(
    qkv: torch.Tensor, layout: Layout, *, scale: float, drop: Mask, causal: bool = False
) -> torch.Tensor:
    """As `attention`, of queries, keys and values that lie in one tensor (1, T, 3, heads, width).

    Their gradients lie in one tensor too, so that the layer before needs one product for all three.
    """
    q, k, v = (t.transpose(1, 2) for t in qkv.unbind(2))
    if _has_kernel(q, k, v, layout):
        return _Attention.apply(layout, scale, drop, causal, qkv)  # type: ignore[no-any-return,no-untyped-call]
    return _padded_attention(q, k, v, layout, scale, drop, causal)


def fits(layout: Layout, width: int) -> bool:
    """Whether attention's kernel is the best choice for these texts and heads of this width."""
    return _is_short(layout.shape[1], width)


def _is_short(longest: int, width: int) -> bool:
    return longest <= _LONGEST_IN_KERNEL and width <= 256


def _has_kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> bool:
    return fits(layout, k.shape[3]) and pick("attention", q, k, v) is not None


def _padded_attention(  # noqa: PLR0917
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: Layout,
    scale: float,
    drop: Mask,
    causal: bool,
    window: int | None = None,
    distances: Distances | None = None,
) -> torch.Tensor:
    """Plain products on the batch padded to its longest text.

    On a processor this beats torch's fused attention with a mask, whose backward pass is slow.
    """
    b, longest = layout.shape

    def padded(t: torch.Tensor) -> torch.Tensor:
        rows = t[0].transpose(0, 1).index_select(0, layout.gather)
        return rows.view(b, longest, t.shape[1], t.shape[3]).transpose(1, 2)

    asks_all = q.shape[2] == layout.scatter.shape[0]
    asking = padded(q) if asks_all else q[0].transpose(0, 1).unsqueeze(2)
    asking, keys = asking * scale, padded(k)
    scores = torch.matmul(asking, keys.transpose(-1, -2))
    if distances is not None and distances.keys is not None:
        scores = scores + _by_distance(asking, distances.keys)
    if distances is not None and distances.queries is not None:
        scores = scores + _by_distance(keys * scale, distances.queries).transpose(-1, -2)
    unseen = ~layout.mask
    if causal and asks_all:
        later = torch.ones(longest, longest, dtype=torch.bool, device=q.device).triu(1)
        unseen = unseen | later
    if window is not None:
        columns = torch.arange(longest, device=q.device)
        unseen = unseen | ((columns[:, None] - columns).abs() >= window)[: scores.shape[2]]
    # Not minus infinity: what fills up a text may see nothing at all, and must stay a number.
    weights = torch.softmax(scores.masked_fill(unseen, torch.finfo(scores.dtype).min), dim=-1)
    if drop.limit:
        whole = weights.new_empty(0)
        mask = drop.attention_factors(b, weights.shape[1], longest, whole)
        weights = weights * (mask if asks_all else mask[:, :, :1])
    out = torch.matmul(weights, padded(v))
    if not asks_all:
        return out.squeeze(2).unsqueeze(0)
    flat = out.transpose(1, 2).reshape(b * longest, q.shape[1], q.shape[3])
    return flat.index_select(0, layout.scatter).unsqueeze(0)


def _parts(given: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Three of (1, T, heads, width), given as they are or as one of (1, T, 3, heads, width)."""
    return given[0].unbind(2) if len(given) == 1 else given


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, layout: Layout, scale: float, drop: Mask, causal: bool, *given: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(*given)
        ctx.rest = (layout, scale, drop, causal)
        q, k, v = (t.transpose(1, 2) for t in _parts(given))
        # Tokens that fill up belong to no text: nobody writes their rows, which must be finite.
        out = q.new_zeros(1, q.shape[2], q.shape[1], q.shape[3])
        _call_attention(q, k, v, *ctx.rest, out=out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        given = ctx.saved_tensors
        q, k, v = (t.transpose(1, 2) for t in _parts(given))
        gradients = [t.new_zeros(t.shape) for t in given]
        _call_attention(q, k, v, *ctx.rest, grad=grads[0].contiguous(), gradients=_parts(gradients))
        return None, None, None, None, *gradients


def _call_attention(  # noqa: PLR0917
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: Layout,
    scale: float,
    drop: Mask,
    causal: bool,
    *,
    out: torch.Tensor | None = None,
    grad: torch.Tensor | None = None,
    gradients: Sequence[torch.Tensor] | None = None,
) -> None:
    kernel, asks_all = pick("attention", q, k, v), q.shape[2] == k.shape[2]
    dq, dk, dv = gradients or (None, None, None)
    steps = [t.stride(i) for t in (q, k, v) for i in (2, 1)]
    heads, width, step = q.shape[1], q.shape[3], 0 if dq is None else dq.stride(1)
    for first, last, longest, own in drop.by_texts(layout):
        # Rows of tokens are found through `bounds`; those of texts count from the part's first.
        a = 0 if asks_all else first
        given = (at(q[:, :, a:]), at(k), at(v), *steps)
        texts = (at(layout.bounds[first:]), at(layout.bounds[first + 1 :]), last - first)
        form = (heads, width, longest, asks_all, causal, scale, *own.arguments())
        asking = [at(None if t is None else t[:, a:]) for t in (out, grad, dq)]
        threads = torch.get_num_threads()
        kernel(*given, *texts, *form, *asking, at(dk), at(dv), step, threads)


def attention_of_batch(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, lengths: torch.Tensor | None
) -> torch.Tensor:
    """Attention in a padded batch, without dropout and without a gradient.

    q (b, n or 1, d), k and v (b, n, d); `lengths` (b,) where texts are shorter than n. Gives as
    many rows as q has, (b, n or 1, d); what is computed for padding is zero or unused.
    """
    b, n, d = k.shape
    asks, width = q.shape[1], d // heads
    kernel = pick("attention", q, k, v) if _is_short(n, width) else None
    if kernel is None or any(t.stride(0) != t.shape[1] * t.stride(1) for t in (q, k, v)):
        columns = torch.arange(n, device=k.device)
        mask = None if lengths is None else (columns < lengths[:, None])[:, None, None, :]
        query, key, value = (t.reshape(b, -1, heads, width).transpose(1, 2) for t in (q, k, v))
        y = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return y.transpose(1, 2).reshape(b, asks, d)
    out = q.new_empty(b, asks, d) if lengths is None else q.new_zeros(b, asks, d)
    starts = torch.arange(0, b * n, n)
    ends = starts + (n if lengths is None else lengths)
    steps = [step for t in (q, k, v) for step in (t.stride(1), width)]
    given = (at(q), at(k), at(v), *steps, at(starts), at(ends), b)
    form = (heads, width, n, asks == n, False, width**-0.5, *Dropout(0.0).arguments())
    no_gradients = (None, None, None, None, 0)
    kernel(*given, *form, at(out), *no_gradients, torch.get_num_threads())
    return out
