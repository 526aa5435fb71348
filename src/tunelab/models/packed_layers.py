"""A whole layer on a packed row, and those after it in the same call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tunelab.kernels import attention, layers
from tunelab.kernels.dropout import Dropout
from tunelab.models import anatomy
from tunelab.models.anatomy import DistanceParts, LayerParts
from tunelab.models.packed_modules import SideBySide, is_gelu
from tunelab.models.packed_run import PackedRun

__all__ = [
    "Join",
    "LayerPass",
]


# Several layers of one x together; None where they stay apart.
Join = Callable[[Sequence[Any]], SideBySide | None]


class LayerPass:
    """A layer's forward pass; in the last layer only the tokens that the head reads ask.

    Where the kernels fit, it computes the layers after it in one call (`layers.sublayers`), and
    these give back what enters them: a hook on one of them sees the last one's result.
    """

    def __init__(self, run: PackedRun, module: Any, layer: LayerParts, join: Join) -> None:
        self._run, self._module, self._parts = run, module, layer
        self._join, self._joined = join, dict[str, "SideBySide | None"]()
        self._gelu = is_gelu(layer.activation)
        self._learns = any(p.requires_grad for p in module.parameters())
        self.next: LayerPass | None = None  # the layer after it

    def __call__(
        self,
        x: torch.Tensor,
        *_: Any,
        rel_embeddings: torch.Tensor | None = None,
        **__: Any,
    ) -> torch.Tensor:
        """x (1, T, width) -> the same, or (1, texts, width) in the last layer."""
        run = self._run
        if run.passes_on():
            return x
        chain: list[layers.Sublayer] = []
        at: LayerPass | None = self
        learning = x.requires_grad
        while at is not None:
            last = run.is_last(len(chain) // 2)
            if not (at._attends(x.dtype, last=last) and at._feeds_forward(x.dtype)):
                break
            chain += [at._attending(x.dtype, last=last), at._feeding_forward(x.dtype)]
            learning = learning or at._learns
            # Below all that learns, gradients would be computed for nothing, and where there are
            # none at all, what one layer leaves behind is free again before the next one.
            goes_on = learning and torch.is_grad_enabled()
            at = at.next if goes_on and at.next is not None and at.next._is_installed() else None
        if chain:
            run.did(len(chain) // 2)
            return layers.sublayers(x, chain)
        last = run.is_last()
        run.did(1)
        return self._feed_forward(self._attend(x, rel_embeddings, last=last))

    def _is_installed(self) -> bool:
        return self._module.__dict__.get("forward") is self

    def _together(self, name: str) -> SideBySide | None:
        """Some linear layers in one product; made when they are first asked for."""
        if name not in self._joined:
            query, *rest = self._parts.attention
            which: dict[str, Sequence[Any]] = {
                "query": [query],
                "rest": rest,
                "all": [query, *rest],
                "mixed": [self._parts.mixed],
                "wide": [self._parts.wide],
                "narrow": [self._parts.narrow],
            }
            self._joined[name] = self._join(which[name])
        return self._joined[name]

    def _fit(self, dtype: torch.dtype, *names: str) -> bool:
        sides = (self._together(name) for name in names)
        return all(s is not None and s.laid_out(dtype) is not None for s in sides)

    def _line(self, dtype: torch.dtype, name: str) -> layers.Linear:
        """Linear layers that fit, as kernels take them, with the next masks."""
        together = self._together(name)
        assert together is not None  # noqa: S101  the caller has asked
        return together.linear(dtype)

    def _attends(self, dtype: torch.dtype, *, last: bool) -> bool:
        """Whether the first half fits; in the `last` layer only the first of each text asks."""
        p = self._parts
        return (
            p.distances is None
            and layers.Norm.fits(p.norm)
            and self._fit(dtype, *(("query", "rest") if last else ("all",)), "mixed")
            and attention.fits(self._run.layout, p.mixed.in_features // p.heads)
        )

    def _attending(self, dtype: torch.dtype, *, last: bool) -> layers.Sublayer:
        run, p = self._run, self._parts
        drop = run.drop(p.drops[0], self._module.training)
        assert isinstance(drop, Dropout)  # noqa: S101  what shares the row is not joined
        how = layers.Attention(run.layout, p.heads, p.scale, drop)
        asking = self._line(dtype, "query") if last else None
        into, out = self._line(dtype, "rest" if last else "all"), self._line(dtype, "mixed")
        return layers.Sublayer(into, out, run.norm(p.norm, p.drops[1]), how, asking)

    def _feeds_forward(self, dtype: torch.dtype) -> bool:
        """Whether the second half fits."""
        norm = layers.Norm.fits(self._parts.last_norm)
        return self._gelu and norm and self._fit(dtype, "wide", "narrow")

    def _feeding_forward(self, dtype: torch.dtype) -> layers.Sublayer:
        wide, narrow = self._line(dtype, "wide"), self._line(dtype, "narrow")
        norm = self._run.norm(self._parts.last_norm, self._parts.drops[2])
        return layers.Sublayer(wide, narrow, norm)

    def _attend(self, x: torch.Tensor, table: torch.Tensor | None, *, last: bool) -> torch.Tensor:
        run, p = self._run, self._parts
        if self._attends(x.dtype, last=last):
            return layers.sublayers(x, [self._attending(x.dtype, last=last)])
        drop = run.drop(p.drops[0], self._module.training)
        asks = x.index_select(1, run.layout.starts) if last else x
        joined = None if last and p.distances is None else self._together("all")
        if p.distances is not None:
            assert table is not None  # noqa: S101  the encoder gives it
            query, key, value = p.attention
            qkv = joined(x) if joined else torch.cat([query(x), key(x), value(x)], dim=-1)
            far = self._measured(p.distances, table, x.dtype)
            y = run.attend_by_distance(qkv, p.heads, p.scale, drop, far)
            y = y.index_select(1, run.layout.starts) if last else y
        elif joined:
            y = run.attend_joined(joined(x), p.heads, p.scale, drop)
        else:
            query, key, value = p.attention
            y = run.attend(query(asks), key(x), value(x), p.heads, p.scale, drop)
        return run.add_norm(p.mixed(y), asks, p.norm, p.drops[1])

    def _measured(
        self, own: DistanceParts, table: torch.Tensor, dtype: torch.dtype
    ) -> attention.Distances:
        """Keys and queries of the distances in these texts, from their table of embeddings."""
        heads = self._parts.heads
        which = anatomy.by_distance(self._run.layout.shape[1], own)
        rows, each = (i.to(table.device, non_blocking=True) for i in which)
        read = own.dropout(table.index_select(0, rows)).to(dtype).unsqueeze(0)

        def projected(by: Any, each: torch.Tensor) -> torch.Tensor | None:
            if by is None:
                return None
            made: torch.Tensor = by(read)[0]
            return made.index_select(0, each).view(len(each), heads, -1).transpose(0, 1).float()

        return attention.Distances(projected(own.key, each.flip(0)), projected(own.query, each))

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self._parts
        if self._feeds_forward(x.dtype):
            return layers.sublayers(x, [self._feeding_forward(x.dtype)])
        return self._run.add_norm(p.narrow(p.activation(p.wide(x))), x, p.last_norm, p.drops[2])
