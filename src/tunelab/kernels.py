"""Fused kernels for a processor, each with a twin in torch that gives the same numbers.

`kernels/cpp` is compiled when it is first needed (`compiled`). Where there is no compiler (or
TUNELAB_KERNELS=off), and for types other than float32 and bfloat16, the twins run.

Dropout (Srivastava et al. 2014) draws no random numbers: whether an element is kept is a hash of
its index and a seed, so that the mask is a function of seed and step, alike in kernel and twin, and
is not stored for the backward pass.

May import: abi, compiled, errors. May not import: packing, train, methods.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from tunelab import abi, compiled
from tunelab.errors import ConfigError

__all__ = [
    "Dropout",
    "Distances",
    "Dropouts",
    "Layout",
    "Mask",
    "Places",
    "add_norm",
    "added_norm",
    "at",
    "attention",
    "attention_of_batch",
    "available",
    "built",
    "dropout",
    "fits",
    "gelu",
    "give_back",
    "keep_memory",
    "low_rank",
    "low_rank_back",
    "pick",
    "self_attention",
    "why_not",
]

_WORD = 0xFFFFFFFF
_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.uint8: "uint8"}


# --- building -------------------------------------------------------------------------------


@functools.cache
def _library() -> tuple[dict[str, Any] | None, str | None]:
    """The compiled kernels, or None and why there are none."""
    path, why = compiled.library()
    try:
        return (None, why) if path is None else (abi.load_functions(path), None)
    except OSError as e:
        return None, compiled.not_built(str(e))
    except abi.AbiError as e:
        if not compiled.named_library():
            raise
        raise ConfigError(
            f"TUNELAB_KERNELS={path} is of another version of tunelab: {e}. "
            "Name one that was built from this version, or unset TUNELAB_KERNELS."
        ) from e


def available() -> bool:
    """Whether the compiled kernels run here; builds them when asked for the first time."""
    return _library()[0] is not None


def why_not() -> str | None:
    """Say why the twins in torch run; None where the compiled kernels do."""
    return _library()[1]


def built(dtype: torch.dtype) -> str:
    """What computes in this type on this processor, for the record."""
    why = why_not()
    if why is not None:
        return why
    if pick("sublayers", torch.empty(0, dtype=dtype)) is None:
        return "compiled"
    on_tiles = dtype == torch.bfloat16 and pick("product", torch.empty(0)) is not None
    return f"compiled, {'matrix tiles' if on_tiles else 'wide vectors'}"


def pick(name: str, *tensors: torch.Tensor | None) -> Any:
    """The compiled kernel for these tensors, or None: then something else has to run."""
    kind, found = None, [t for t in tensors if t is not None]
    for t in found:
        if not t.is_cpu or t.dtype is not found[0].dtype:
            return None
        kind = _TYPES.get(t.dtype)
    library, _ = _library()
    return None if library is None or kind is None else library.get(f"{name}_{kind}")


def at(t: torch.Tensor | None) -> int | None:
    """Where a tensor lies, as the kernels take it."""
    return None if t is None else t.data_ptr()


# --- dropout --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dropout:
    """A rate p and the seed of one mask. With p = 0 nothing is dropped."""

    p: float
    seed: int = 0

    @property
    def limit(self) -> int:
        """Hashes below this are dropped: p * 2^32."""
        return min(_WORD, round(self.p * 2**32))

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
        h = _counted(count, like.device).add_(_signed(self.seed))
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
        starts = [d.seed - _GOLDEN * b * width for d, b in zip(self.own, bounds, strict=False)]
        h = _counted(rows * width, like.device).view(rows, width)
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
        h = index.to(torch.int32).mul_(_signed(_GOLDEN)).view(texts, -1)
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
_GOLDEN = 0x9E3779B9


def _counted(count: int, where: torch.device) -> torch.Tensor:
    """0, 1, 2, ... times the hash's first factor; 32-bit integers wrap around as in C."""
    h = torch.arange(count, dtype=torch.int64, device=where).to(torch.int32)
    return h.mul_(_signed(_GOLDEN))


def _hashed(h: torch.Tensor) -> torch.Tensor:
    """murmur3's finaliser, in place; a shift must not bring in the sign."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None)):
        h.bitwise_xor_((h >> shift).bitwise_and_(_WORD >> shift))
        if factor:
            h.mul_(_signed(factor))
    return h


def _signed(word: int) -> int:
    word &= _WORD
    return word - 2**32 if word >= 2**31 else word


class _DropoutFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, drop: Mask) -> torch.Tensor:
        ctx.drop = drop
        return _dropped(x, drop)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _dropped(grads[0], ctx.drop), None


def _dropped(x: torch.Tensor, drop: Mask) -> torch.Tensor:
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


# --- attention ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where B texts, of at most `shape[1]` tokens, lie in a row of T tokens.

    `bounds` (B + 1,) says where each text begins and the last ends. For the twin in torch: `gather`
    (B * L,) takes row -> padded, `mask` (B, 1, 1, L) is true at real tokens, `scatter` (T,) takes
    padded -> row. `starts` (B,) are the first tokens.
    """

    bounds: torch.Tensor
    gather: torch.Tensor
    mask: torch.Tensor
    scatter: torch.Tensor
    starts: torch.Tensor
    shape: tuple[int, int]


# The kernel is the faster one at every length that was tried, up to 512 (docs/log.md); the room
# that a thread needs grows with the square.
_LONGEST = 1024


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
    return longest <= _LONGEST and width <= 256


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
            given = (*(at(_rows(t, some)) for t in (y, residual)), at(weight), at(bias))
            results = (*(at(_rows(t, some)) for t in (out, normed)), at(inverse[some]))
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
            given = (*(at(_rows(t, some)) for t in (grad, normed)), at(inverse[some]), at(weight))
            results = (*(at(_rows(t, some)) for t in (dy, dresidual)), at(dweight), at(dbias))
            count = some.stop - some.start
            kernel(*given, *results, count, width, *own.arguments(), threads)
        shared = dresidual if apart else (dy if wants_residual else None)
        return dy, shared, dweight, dbias, None, None


def _rows(t: torch.Tensor | None, some: slice) -> torch.Tensor | None:
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


def give_back() -> None:
    """Ask the C library to give back what is free in it. Only glibc has this."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_memory() -> None:
    """Ask the C library to keep freed memory for the next step instead of giving it back.

    Each step frees and takes the same hundreds of megabytes; giving them back costs a page fault
    for every 4 kB. Only glibc has this; elsewhere nothing happens.
    """
    trim, mmap, pad = -1, -3, -2  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_TOP_PAD of <malloc.h>
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((trim, 2**31 - 1), (mmap, 32 * 2**20), (pad, 64 * 2**20)):
            mallopt(option, value)
