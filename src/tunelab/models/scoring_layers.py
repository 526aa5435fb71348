"""An encoder's layers as scoring computes them: weights laid out, adapters merged, norms joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tunelab.kernels import norms
from tunelab.kernels.attention import attention_of_batch
from tunelab.kernels.layers import Product, product
from tunelab.models import anatomy
from tunelab.models.family import Anatomy, Family
from tunelab.models.one_text import OneText, PlainLayer, ThinProducts

__all__ = [
    "Apply",
    "Encoder",
    "First",
    "Format",
    "Joined",
    "Layer",
    "NotAsShippedError",
    "layers_from",
    "layers_of",
    "one_text_of",
]

Apply = Callable[[torch.Tensor], torch.Tensor]
ScoringNorm = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


# --- the layers -----------------------------------------------------------------------------


class First:
    """Attention of each text's first token alone: no token's key or value has to be computed.

    q (K x + b) is (q K) x and something that softmax does not see, and the sum of a (V x + c) is
    V (sum of a x) + c: products of texts, not of tokens, in float32.
    """

    def __init__(self, heads: int, key: nn.Linear, value: nn.Linear) -> None:
        keys, self._values = (
            m.weight.detach().float().view(heads, -1, m.in_features) for m in (key, value)
        )
        self._keys = keys * keys.shape[1] ** -0.5
        self._bias = 0.0 if value.bias is None else value.bias.detach().float()

    def __call__(
        self, q: torch.Tensor, x: torch.Tensor, lengths: torch.Tensor | None
    ) -> torch.Tensor:
        """q (b, width), x (b, n, width) and `lengths` (b,) -> (b, width)."""
        return self.given(self.read(self.asked(q), x, lengths)).flatten(1).to(x.dtype)

    def asked(self, q: torch.Tensor) -> torch.Tensor:
        """q K, by head: (b, heads, width)."""
        asking = q.float().view(len(q), len(self._keys), -1).transpose(0, 1)
        return torch.matmul(asking, self._keys).transpose(0, 1)

    def read(
        self, asked: torch.Tensor, x: torch.Tensor, lengths: torch.Tensor | None
    ) -> torch.Tensor:
        """The sum of a x, by head: (b, heads, width)."""
        wide = x.float()
        scores = asked @ wide.transpose(1, 2)
        if lengths is not None:
            unseen = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
            scores = scores.masked_fill(unseen[:, None], float("-inf"))
        return torch.softmax(scores, dim=-1) @ wide

    def given(self, read: torch.Tensor) -> torch.Tensor:
        """V (sum of a x) + c, (b, heads, width of a head)."""
        out = torch.matmul(read.transpose(0, 1), self._values.transpose(1, 2)).transpose(0, 1)
        return (out.flatten(1) + self._bias).view(out.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Attention whose queries, keys and values are one product; `first` in the last layer."""

    heads: int
    qkv: _Plain | Product
    first: First | None

    def __call__(
        self, x: torch.Tensor, lengths: torch.Tensor | None, first_only: bool
    ) -> torch.Tensor:
        """(b, n, width) -> (b * n, width), or (b, width) with `first_only`. `lengths` (b,)."""
        b, n, width = x.shape
        if first_only:
            assert self.first is not None  # noqa: S101  asked of the last layer alone
            return self.first(self.qkv.columns(0, width)(x[:, 0]), x, lengths)
        q, k, v = self.qkv(x.reshape(b * n, width)).view(b, n, 3, width).unbind(2)
        return attention_of_batch(q, k, v, self.heads, lengths).view(-1, width)


@dataclass(frozen=True, slots=True, eq=False)
class _Apart:
    """Attention whose layers are called one by one, as where an adapter stands beside them."""

    heads: int
    query: Apply
    key: Apply
    value: Apply

    def __call__(
        self, x: torch.Tensor, lengths: torch.Tensor | None, first_only: bool
    ) -> torch.Tensor:
        """As `Joined`."""
        b, n, width = x.shape
        flat = x.reshape(b * n, width)
        q = self.query(x[:, 0] if first_only else flat).view(b, -1, width)
        k, v = (f(flat).view(b, n, width) for f in (self.key, self.value))
        return attention_of_batch(q, k, v, self.heads, lengths).view(-1, width)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One encoder layer: LN(x + O(attention)), then LN(x + down(act(up(x)))) (Vaswani et al. 2017).

    All but attention map (tokens, width) to (tokens, width).
    """

    attention: Callable[[torch.Tensor, torch.Tensor | None, bool], torch.Tensor]
    out: Apply
    norm: ScoringNorm
    up: Apply
    activation: Apply
    down: Apply
    last_norm: ScoringNorm

    def __call__(
        self, x: torch.Tensor, lengths: torch.Tensor | None, first_only: bool
    ) -> torch.Tensor:
        """(b, n, width) -> the same, or (b, 1, width) with `first_only`. `lengths` (b,)."""
        b, _, width = x.shape
        rows = self.out(self.attention(x, lengths, first_only))
        rows = self.norm(rows, (x[:, :1] if first_only else x).reshape(-1, width))
        rows = self.last_norm(self.down(self.activation(self.up(rows))), rows)
        return rows.view(b, -1, width)


@dataclass(frozen=True, slots=True)
class Format:
    """What layers compute in: a type, and whether five digits of float32 are enough.

    `takes`: a layer's weight is given up once it is laid out, as it is of a copy made for that.
    """

    dtype: torch.dtype
    in_two_parts: bool
    takes: bool = False

    @staticmethod
    def of(precision: str) -> Format:
        """One of PRECISIONS."""
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        return Format(dtype, precision == "auto")

    def product(
        self, weight: torch.Tensor, bias: torch.Tensor | None, of: Sequence[nn.Linear]
    ) -> _Plain | Product:
        """x W^T + bias, W and bias being those of layers side by side."""
        weight = weight.detach().to(self.dtype)
        bias = None if bias is None else bias.detach().to(self.dtype)
        laid = product(weight, bias, in_two_parts=self.in_two_parts)
        if laid is None:
            return _Plain(weight, bias)
        if self.takes:
            for layer in of:
                layer.weight.data = weight.new_empty(0)
        return laid

    def used(self, layers: Sequence[Layer]) -> str:
        """In words, for the record."""
        parts = [x for m in layers for x in (m.out, m.up, m.down)]
        on_tiles = any(isinstance(x, Product) and x.in_two_parts for x in parts)
        return "float32, products on matrix tiles" if on_tiles else str(self.dtype)[6:]


@dataclass(frozen=True, slots=True, eq=False)
class _Plain:
    """A layer as torch computes it."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)

    def columns(self, start: int, stop: int) -> _Plain:
        """For some columns of the result; nothing is copied."""
        return _Plain(self.weight[start:stop], None if self.bias is None else self.bias[start:stop])


def _linear(module: Any, form: Format) -> Apply:
    """A layer as a function: plain ones in their format, whatever wraps one as it is."""
    if type(module) is nn.Linear:
        return form.product(module.weight, module.bias, [module])
    return module  # type: ignore[no-any-return]


def _joined(modules: Sequence[Any], form: Format) -> _Plain | Product:
    """Several plain layers of one input as one."""
    weight = torch.cat([m.weight.detach() for m in modules])
    bias = torch.cat(
        [
            m.bias.detach() if m.bias is not None else weight.new_zeros(m.out_features)
            for m in modules
        ]
    )
    return form.product(weight, bias, modules)


def _norm(module: Any) -> ScoringNorm:
    """Of what a sublayer gives and what it is added to."""
    if type(module) is not nn.LayerNorm:
        return lambda y, x: module(x + y)
    return _Norm(module.weight.detach(), module.bias.detach(), module.eps)


@dataclass(frozen=True, slots=True, eq=False)
class _Norm:
    """LN(y + x) (Ba et al. 2016)."""

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    def __call__(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return norms.added_norm(y, x, self.weight, self.bias, self.eps)


def _layer(form: Format, parts: anatomy.LayerParts, *, last: bool) -> Layer:
    """`last`: no layer comes after it."""
    qkv, attention = parts.attention, None
    if all(type(m) is nn.Linear for m in qkv):
        first = First(parts.heads, *qkv[1:]) if last else None  # before their weights are taken
        attention = Joined(parts.heads, _joined(qkv, form), first)
    wide, activation = _linear(parts.wide, form), parts.activation
    if isinstance(wide, Product) and _is_gelu(activation):
        wide, activation = replace(wide, gelu=True), nn.Identity()
    return Layer(
        attention or _Apart(parts.heads, *(_linear(m, form) for m in qkv)),
        _linear(parts.mixed, form),
        _norm(parts.norm),
        wide,
        activation,
        _linear(parts.narrow, form),
        _norm(parts.last_norm),
    )


def _is_gelu(activation: Any) -> bool:
    if type(activation) is nn.GELU:
        return activation.approximate == "none"
    from tunelab.models import packed_modules  # imports much of transformers, and it is there

    return packed_modules.is_gelu(activation)


def layers_from(parts: Sequence[anatomy.LayerParts], form: Format) -> tuple[Layer, ...]:
    """From the lowest up, each with weights of its own."""
    return tuple(_layer(form, x, last=x is parts[-1]) for x in parts)


def layers_of(encoder: Any, family: Family, form: Format) -> tuple[Layer, ...]:
    """From the lowest up; ALBERT's, which share their weights in groups, come several times."""
    names = family.anatomy.layer
    assert names is not None  # noqa: S101  it has fast scoring
    blocks = [m for m in encoder.modules() if type(m).__name__ == names.kind]
    parts = [anatomy.parts_of(block, names) for block in blocks]
    _as_shipped(encoder, parts)
    layers = layers_from(parts, form)
    count = anatomy.layers_in(encoder)
    groups = getattr(encoder.config, family.keys.groups or "-", count)
    each = len(layers) // groups
    return tuple(
        layers[each * int(i / (count / groups)) + k] for i in range(count) for k in range(each)
    )


def one_text_of(
    layers: Sequence[Layer], form: Format, add: ThinProducts | None = None
) -> OneText | None:
    """What runs all layers but the last on one text alone, where they are known; `add` as there."""
    return OneText.of([_plain_layer(layer) for layer in layers[:-1]], form.dtype, add)


def _plain_layer(layer: Layer) -> PlainLayer | None:
    """A layer that is products alone, in torch's own norms of float32; None for others."""
    attention, norm, last = layer.attention, layer.norm, layer.last_norm
    up, out, down = layer.up, layer.out, layer.down
    if not (isinstance(attention, Joined) and isinstance(attention.qkv, Product)):
        return None
    if not (isinstance(up, Product) and isinstance(out, Product) and isinstance(down, Product)):
        return None
    if not (isinstance(norm, _Norm) and isinstance(last, _Norm) and up.gelu):
        return None
    if any(t.dtype != torch.float32 for m in (norm, last) for t in (m.weight, m.bias)):
        return None
    return PlainLayer(attention.heads, attention.qkv, out, norm, up, down, last)


class NotAsShippedError(Exception):
    """A model is not what its layers would be read as; the message says how."""


def _as_shipped(encoder: Any, parts: Sequence[anatomy.LayerParts]) -> None:
    """What lies between an encoder and its layers' parts does what transformers' does."""
    known = {
        id(m)
        for x in parts
        for m in (*x.attention, x.mixed, x.norm, x.wide, x.activation, x.narrow, x.last_norm)
    }
    for m in encoder.modules():
        around = id(m) not in known and any(id(x) in known for x in m.modules())
        if m is encoder or not around or type(m) is nn.ModuleList:
            continue
        if not type(m).__module__.startswith("transformers.") or m._forward_hooks:
            raise NotAsShippedError(f"{type(m).__name__} is not transformers' own")


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """An encoder as its layers. `model` is transformers' (BertModel, ...), for its embeddings.

    `one_text` runs all layers but the last on a text alone.
    """

    model: Any
    anatomy: Anatomy
    layers: tuple[Layer, ...]
    form: Format
    one_text: OneText | None = None

    def __call__(
        self, ids: torch.Tensor, lengths: torch.Tensor | None, first_only: bool
    ) -> torch.Tensor:
        """Vectors (b, n or 1, width) of `ids` (b, n); `lengths` (b,) where they differ."""
        states = self.below(ids, lengths, 0, first_only)
        if self.one_text is not None and len(ids) == 1:
            before_last = self.one_text(states)
            if before_last is not None:
                return self.layers[-1](before_last, None, first_only).float()
        return self.above(states, lengths, 0, first_only).float()

    def below(
        self, ids: torch.Tensor, lengths: torch.Tensor | None, count: int, first_only: bool
    ) -> torch.Tensor:
        """What the `count` lowest layers give; with none, the embeddings."""
        more = {"token_type_ids": torch.zeros_like(ids)} if self.anatomy.token_types else {}
        x: torch.Tensor = self.model.embeddings(
            input_ids=ids, position_ids=self._positions(ids), **more
        )
        widening = anatomy.widening_in(self.model, self.anatomy)
        if widening is not None:
            x = widening(x)
        return self._through(x.to(self.form.dtype), lengths, range(count), first_only)

    def _positions(self, ids: torch.Tensor) -> torch.Tensor:
        """Of each token. Where they count from the pad id on, a pad id in a text has no place."""
        if self.anatomy.after_pad:
            pad = self.model.config.pad_token_id
            real = ids != pad
            after: torch.Tensor = real.cumsum(dim=1) * real + pad
            return after
        return torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)

    def above(
        self, states: torch.Tensor, lengths: torch.Tensor | None, count: int, first_only: bool
    ) -> torch.Tensor:
        """What the layers above the `count` lowest make of what those gave."""
        return self._through(states, lengths, range(count, len(self.layers)), first_only)

    def _through(
        self, x: torch.Tensor, lengths: torch.Tensor | None, which: range, first_only: bool
    ) -> torch.Tensor:
        for i in which:
            x = self.layers[i](x, lengths, first_only and i == len(self.layers) - 1)
        return x
