"""Texts of many adapters on one base, scored in one batch: the base's products are done once.

A batch lies sorted by adapter. Each layer of the base is one product for all of it, and to each
adapter's rows its own thin product is added (Chen et al. 2023 call that a segmented one). In the
last layer only the rows go on that heads read, as in `scoring`, which this is built of.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tunelab.kernels import low_rank
from tunelab.kernels.attention import attention_of_batch
from tunelab.kernels.layers import Product
from tunelab.kernels.low_rank import SEGMENT_FIELDS
from tunelab.models import anatomy, scoring
from tunelab.models.batches import Batch, Encoded
from tunelab.models.packed_modules import is_plain_lora
from tunelab.models.scoring_layers import (
    Apply,
    Encoder,
    Format,
    Joined,
    Layer,
    NotAsShippedError,
    layers_of,
    one_text_of,
)

__all__ = [
    "RowMember",
    "SharedRow",
]

# A layer's linear parts, in the order of `anatomy.LayerParts`.
_PARTS = ("query", "key", "value", "mixed", "wide", "narrow")
_JOINED = "query, key and value"  # of one x: one product, as of the base
_LinearPart = tuple[int, str]


@dataclass(frozen=True, slots=True, eq=False)
class _Thin:
    """x A^T B^T s (Hu et al. 2021): `down` is A^T (i, r), `up` is s B^T (r, o)."""

    down: torch.Tensor
    up: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class RowMember:
    """An adapter that can be in a row: its thin products by place, and `model`, for its head.

    `table` (layers, 6, 7) has them as the kernel takes them, of each layer's parts in order;
    `tensors` are what it points at.
    """

    model: Any
    thin: Mapping[_LinearPart, _Thin]
    classes: int
    table: NDArray[np.int64]
    tensors: tuple[torch.Tensor, ...]


class _Segments(threading.local):
    """Whose rows are where in the batch that a thread computes: text bounds and members.

    `tables` has the members' tables side by side, (layers, 6, members, 7), for so many rows a text.
    """

    texts: int = 1
    own: tuple[tuple[int, int, RowMember], ...] = ()
    tables: Mapping[int, NDArray[np.int64]] = MappingProxyType({})

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype  # of states

    def set(self, own: tuple[tuple[int, int, RowMember], ...], texts: int, tokens: int) -> None:
        """A batch of so many texts, of so many tokens each."""
        self.own, self.texts = own, texts
        table = np.stack([m.table for _, _, m in own], axis=2)
        bounds = np.asarray([(start, stop) for start, stop, _ in own])
        tables = {}
        for each in {1, tokens}:  # a text has a row for each token, or one
            tables[each] = table.copy()
            tables[each][..., 2:4] = bounds * each
        self.tables = tables

    def adds(self, place: _LinearPart) -> bool:
        """Whether anything is added at a place."""
        return any(place in m.thin for _, _, m in self.own)

    def at(self, place: _LinearPart) -> Iterator[tuple[slice, _Thin]]:
        """The texts to which something is added at a place, and what."""
        for start, stop, member in self.own:
            t = member.thin.get(place)
            if t is not None:
                yield slice(start, stop), t

    def add(
        self, place: _LinearPart, x: torch.Tensor, y: torch.Tensor, *, gelu: bool = False
    ) -> None:
        """Add to y (rows, o), in place, each adapter's product of its own rows of x (rows, i).

        Then, with `gelu`, take GELU of all of it.
        """
        each = len(x) // self.texts
        if low_rank.add_segments(x, y, self.lines(place, each), gelu=gelu):
            return
        for texts, t in self.at(place):
            some = slice(texts.start * each, texts.stop * each)
            y[some].addmm_(x[some] @ t.down, t.up)
        if gelu:
            torch.ops.aten.gelu_(y)

    def lines(self, place: _LinearPart, each: int) -> NDArray[np.int64]:
        """Segments of a place, where a text has so many rows: (s, 7)."""
        block, part = place
        table = self.tables[each][block]
        lines = table[:3] if part == _JOINED else table[_PARTS.index(part)]
        return np.asarray(lines.reshape(-1, SEGMENT_FIELDS))

    def by_text(self, place: _LinearPart) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Down (b, i, r) and up (b, r, o) of each text, in float32, of ranks that are filled up;
        None where nothing is added at a place.
        """
        spans = [(b - a, m.thin.get(place)) for a, b, m in self.own]
        known = [t for _, t in spans if t is not None]
        if not known:
            return None
        rank = max(len(t.up) for t in known)
        none = _Thin(known[0].down[:, :0], known[0].up[:0])
        own = [none if t is None else t for _, t in spans]
        lacks = [rank - len(t.up) for t in own]
        downs = [
            functional.pad(t.down, (0, n)) if n else t.down for t, n in zip(own, lacks, strict=True)
        ]
        ups = [
            functional.pad(t.up, (0, 0, 0, n)) if n else t.up
            for t, n in zip(own, lacks, strict=True)
        ]
        down, up = torch.stack(downs).float(), torch.stack(ups).float()
        which = torch.repeat_interleave(torch.tensor([n for n, _ in spans]).to(up.device))
        return down[which], up[which]


@dataclass(frozen=True, slots=True, eq=False)
class _AddedAlone:
    """What adapters add to each layer of one text alone (`one_text.ThinProducts`)."""

    segments: _Segments
    blocks: tuple[int, ...]  # of each layer: those that share their weights have one

    def __call__(  # noqa: PLR0917
        self, block: int, part: str, x: int, y: int, rows: int, k: int, n: int, gelu: bool
    ) -> None:
        table = self.segments.lines((self.blocks[block], part), rows)
        low_rank.add_segments_at(table, x, y, (rows, k, n), self.segments.dtype, gelu=gelu)

    def adds(self, block: int, part: str) -> bool:
        """Whether anything is added there."""
        return self.segments.adds((self.blocks[block], part))


@dataclass(frozen=True, slots=True, eq=False)
class _Beside:
    """A layer of the base, with what adapters add to it."""

    base: Apply
    place: _LinearPart
    segments: _Segments

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y = self.base(x)
        self.segments.add(self.place, x, y)
        return y


@dataclass(frozen=True, slots=True, eq=False)
class _BesideGelu:
    """A layer that has GELU in its product, which comes after what adapters add."""

    base: Product
    place: _LinearPart
    segments: _Segments

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if not self.segments.adds(self.place):
            return self.base(x)
        x = x.contiguous()
        y = replace(self.base, gelu=False)(x)
        self.segments.add(self.place, x, y, gelu=True)
        return y


@dataclass(frozen=True, slots=True, eq=False)
class _SharedAttention:
    """Attention whose queries, keys and values are one product, with what adapters add to each."""

    base: Joined
    block: int
    segments: _Segments

    def __call__(
        self, x: torch.Tensor, lengths: torch.Tensor | None, first_only: bool
    ) -> torch.Tensor:
        """As `Joined`."""
        b, n, width = x.shape
        if first_only:
            return self._of_first(x, lengths)
        flat = x.reshape(b * n, width).contiguous()
        y = self.base.qkv(flat)
        self.segments.add((self.block, _JOINED), flat, y)
        q, k, v = y.view(b, n, 3, width).unbind(2)
        return attention_of_batch(q, k, v, self.base.heads, lengths).view(-1, width)

    def _of_first(self, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """As `First`, of keys (K + s B A) x and values (V + s B A) x."""
        first = self.base.first
        assert first is not None  # noqa: S101  asked of the last layer alone
        b, _, width = x.shape
        heads = self.base.heads
        asking = x[:, 0].contiguous()
        q = self.base.qkv.columns(0, width)(asking)
        self.segments.add((self.block, "query"), asking, q)
        asked, by_head = first.asked(q), q.float().view(b, heads, -1)
        keys = self.segments.by_text((self.block, "key"))
        if keys is not None:
            down, up = keys[0], keys[1].view(b, -1, *by_head.shape[1:])
            low = torch.einsum("bhd,brhd->bhr", by_head, up)
            asked = asked + (low * by_head.shape[2] ** -0.5) @ down.transpose(1, 2)
        read = first.read(asked, x, lengths)
        given = first.given(read)
        values = self.segments.by_text((self.block, "value"))
        if values is not None:
            up = values[1].view(b, -1, *by_head.shape[1:])
            given = given + torch.einsum("bhr,brhd->bhd", read @ values[0], up)
        return given.flatten(1).to(x.dtype)


def _with_adapters(layer: Layer, block: int, segments: _Segments) -> Layer | None:
    """A layer to which adapters may add; None where its attention is not one product."""
    if not isinstance(layer.attention, Joined):
        return None
    up = layer.up
    fused = isinstance(up, Product) and up.gelu
    return replace(
        layer,
        attention=_SharedAttention(layer.attention, block, segments),
        out=_Beside(layer.out, (block, "mixed"), segments),
        up=_BesideGelu(up, (block, "wide"), segments)
        if isinstance(up, Product) and fused
        else _Beside(up, (block, "wide"), segments),
        down=_Beside(layer.down, (block, "narrow"), segments),
    )


class SharedRow:
    """A base that many adapters are scored on together. `of` gives None where it cannot be.

    `row.member(model)` takes an adapter in; `row([(member, ids), ...])` gives each one's logits.
    """

    def __init__(self, encoder: Encoder, segments: _Segments, pad_id: int) -> None:
        self._encoder = encoder
        self._segments = segments
        self._pad_id = pad_id
        self._where = next(encoder.model.parameters()).device
        self.where = self._where.type
        self.precision = str(encoder.form.dtype)[6:]

    @staticmethod
    def of(model: Any, precision: str, pad_id: int) -> SharedRow | None:
        """The base under a model with an adapter, whose weights are shared and not changed."""
        inner = anatomy.classifier_in(model)
        family = anatomy.family_in(inner)
        if family is None or not family.anatomy.has_fast_scoring or anatomy.is_quantised(inner):
            return None
        form = Format.of(precision)
        segments = _Segments(form.dtype)
        if _thin_products(model, form.dtype) is None:
            return None
        bare = anatomy.encoder_in(anatomy.classifier_in(scoring.twin(model).unload()))
        try:
            layers = layers_of(bare, family, form)
        except NotAsShippedError:
            return None
        blocks = list({id(layer): layer for layer in layers}.values())
        made = {id(x): _with_adapters(x, i, segments) for i, x in enumerate(blocks)}
        shared = [made[id(layer)] for layer in layers]
        whole = tuple(layer for layer in shared if layer is not None)
        if len(whole) < len(layers):
            return None
        places = [blocks.index(layer) for layer in layers]
        alone = one_text_of(layers, form, _AddedAlone(segments, tuple(places)))
        return SharedRow(Encoder(bare, family.anatomy, whole, form, alone), segments, pad_id)

    def member(self, model: Any, classes: int) -> RowMember | None:
        """An adapter of this base; None where it is no plain LoRA on known layers alone.

        Judged by its scores too: what it gives here is what the model itself gives.
        """
        inner, bare = anatomy.classifier_in(model), self._encoder.model
        encoder, thin = anatomy.encoder_in(inner), _thin_products(model, self._encoder.form.dtype)
        sizes = (anatomy.width_of(bare), anatomy.layers_in(bare))
        if thin is None or type(encoder) is not type(bare):
            return None
        if (anatomy.width_of(encoder), anatomy.layers_in(encoder)) != sizes:
            return None
        member = RowMember(inner, thin, classes, *_segment_table(thin, len(self._encoder.layers)))
        run = partial(self._compute, (member,), np.zeros(2, np.int64), classes)
        same = scoring.agrees(run, model, self._where, self._encoder.form.dtype)
        return member if same else None

    def __call__(
        self, asked: Sequence[tuple[RowMember, Sequence[NDArray[np.int64]]]], batch_size: int = 64
    ) -> list[NDArray[np.float64]]:
        """Logits (n, n_classes) of each member's texts, given as token ids."""
        members = tuple(member for member, _ in asked)
        owner = np.repeat(np.arange(len(asked)), [len(texts) for _, texts in asked])
        width = max(m.classes for m in members)
        run = partial(self._compute, members, owner, width)
        small = self._where.type == "cpu"
        prepared = scoring.Prepared(run, self._where, "fast", None, False, small)
        encoded = Encoded(tuple(text for _, texts in asked for text in texts))
        rows = prepared(encoded, self._pad_id, batch_size, width).astype(np.float64)
        return [rows[owner == k, : m.classes] for k, m in enumerate(members)]

    def _compute(
        self,
        members: Sequence[RowMember],
        owner: NDArray[np.int64],
        width: int,
        batch: Batch,
        where: torch.device,
    ) -> torch.Tensor:
        """Logits (b, width) of a batch; a member of fewer classes leaves the last columns."""
        own = owner[batch.rows]
        order = np.argsort(own, kind="stable")
        ids, lengths = scoring.placed(
            Batch(batch.rows[order], batch.input_ids[order], batch.attention_mask[order]), where
        )
        present, starts = np.unique(own[order], return_index=True)
        stops = [*starts[1:], len(order)]
        spans = [
            (int(a), int(b), members[k]) for k, a, b in zip(present, starts, stops, strict=True)
        ]
        self._segments.set(tuple(spans), len(order), ids.shape[1])
        first = self._encoder(ids, lengths, first_only=True)
        sorted_logits = first.new_zeros(len(order), width)
        for a, b, m in spans:
            logits = anatomy.logits_of(self._encoder.anatomy, m.model, first[a:b])
            sorted_logits[a:b, : m.classes] = logits.float()
        out = torch.empty_like(sorted_logits)
        out[torch.from_numpy(order)] = sorted_logits
        return out


def _thin_products(model: Any, dtype: torch.dtype) -> dict[_LinearPart, _Thin] | None:
    """An adapter's products by place; None where it has others than plain LoRA's, or elsewhere."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    inner = anatomy.classifier_in(model)
    encoder, family = anatomy.encoder_in(inner), anatomy.family_in(inner)
    names = family.anatomy.layer if family is not None else None
    if names is None or not hasattr(model, "peft_config"):
        return None
    thin: dict[_LinearPart, _Thin] = {}
    known = set[int]()
    blocks = [m for m in encoder.modules() if type(m).__name__ == names.kind]
    for i, block in enumerate(blocks):
        parts = anatomy.parts_of(block, names)
        modules = (*parts.attention, parts.mixed, parts.wide, parts.narrow)
        for part, module in zip(_PARTS, modules, strict=True):
            if not is_plain_lora(module):
                continue
            known.add(id(module))
            name = module.active_adapters[0]
            a, b = (m[name].weight.detach().float() for m in (module.lora_A, module.lora_B))
            up = b.t() * float(module.scaling[name])
            thin[i, part] = _Thin(*(m.to(dtype).contiguous() for m in (a.t(), up)))
        joined = _side_by_side([thin.get((i, part)) for part in _PARTS[:3]])
        if joined is not None:
            thin[i, _JOINED] = joined
    inside = (m for block in blocks for m in block.modules())
    strange = any(isinstance(m, BaseTunerLayer) and id(m) not in known for m in inside)
    return thin if thin and not strange else None


def _side_by_side(parts: Sequence[_Thin | None]) -> _Thin | None:
    """Products of one x whose results lie side by side, as one; None where there is none."""
    present = [t for t in parts if t is not None]
    if not present:
        return None
    width = present[0].up.shape[1]
    up = [
        functional.pad(t.up, (i * width, (len(parts) - 1 - i) * width))
        for i, t in enumerate(parts)
        if t is not None
    ]
    return _Thin(torch.cat([t.down for t in present], dim=1), torch.cat(up))


def _segment_table(
    thin: Mapping[_LinearPart, _Thin], layers: int
) -> tuple[NDArray[np.int64], tuple[torch.Tensor, ...]]:
    """`RowMember.table` and `tensors`."""
    table = np.zeros((layers, len(_PARTS), SEGMENT_FIELDS), np.int64)
    tensors: list[torch.Tensor] = []
    for (i, part), t in thin.items():
        if part == _JOINED:
            continue
        k = _PARTS.index(part)
        # Queries, keys and values lie side by side in one result.
        line, own = low_rank.segment(t.down.t(), t.up, t.up.shape[1] * k if k < 3 else 0)
        table[i, k] = line
        tensors += own
    return table, tuple(tensors)
