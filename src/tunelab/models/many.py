"""Several adapters on one base in one pass: stacked layers, and each one's part of the batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from tunelab.kernels.dropout import Dropout, Dropouts, Mask, Places
from tunelab.kernels.layout import Layout
from tunelab.kernels.low_rank import low_rank, low_rank_back
from tunelab.models import packed
from tunelab.models.anatomy import classifier_in, encoder_in, is_quantised, reads_distances
from tunelab.models.packed import Packed
from tunelab.models.packed_modules import CastWeights, is_plain_lora
from tunelab.models.packed_run import PackedRun

__all__ = [
    "Stacked",
    "share_base",
    "why_no_shared_base",
    "why_no_stack",
]


# --- which models, and their bases ----------------------------------------------------------


def why_no_stack(model: Any) -> str | None:
    """Say why a model cannot take part in any stack; None where it can."""
    plain = classifier_in(model)
    why = packed.why_not_packed(model) or packed.why_float32(model)
    if why is not None:
        return why
    if reads_distances(plain):
        return "its adapters also read a table of distances, which is one for all texts"
    if is_quantised(plain):
        return "its base is quantised"
    return None


def why_no_shared_base(model: Any, other: Any) -> str | None:
    """Say why one base cannot carry the adapters of two models; None where it can."""
    own, first = classifier_in(model), classifier_in(other)
    if own.config.to_dict() != first.config.to_dict():
        return "their models are not configured alike"
    for name, p in _of_base(own).items():
        if p.requires_grad:
            return f"{name} of the base is trained"
    differs = _differs(own, first)
    return f"their bases differ in {differs}" if differs is not None else None


def _is_head(name: str) -> bool:
    """Whether a module of the encoder is read by the head alone."""
    return name.startswith("pooler")


def _of_base(plain: Any) -> dict[str, nn.Parameter]:
    """The encoder's own parameters, by the names that they have without adapters."""
    return {
        n.replace(".base_layer.", "."): p
        for n, p in encoder_in(plain).named_parameters()
        if "lora_" not in n and not _is_head(n)
    }


def _differs(own: Any, first: Any) -> str | None:
    """The first parameter of the base that differs; None where all are equal."""
    a, b = _of_base(own), _of_base(first)
    if a.keys() != b.keys():
        return str(next(iter(a.keys() ^ b.keys())))
    for name, p in a.items():
        if p.data_ptr() != b[name].data_ptr() and not torch.equal(p, b[name]):
            return name
    return None


def share_base(model: Any, first: Any) -> None:
    """Let a model use the first one's frozen weights, where they are equal: K bases become one."""
    own, its = classifier_in(model), classifier_in(first)
    if type(own) is type(its) and _differs(own, its) is None:
        for name, p in _of_base(own).items():
            other = _of_base(its)[name]
            if not p.requires_grad and not other.requires_grad:
                p.data = other.data


# --- the model ------------------------------------------------------------------------------


class Stacked:
    """Computes the batches of K classifiers of one base in one packed row.

    `stacked({k: (encoded, rows)})` gives {k: (logits (b, n_classes), tokens)}. The first model's
    encoder carries all of them: its weights are frozen, and equal to the others'.
    """

    def __init__(
        self, models: Sequence[Any], dtype: torch.dtype = torch.float32, seeds: Sequence[int] = ()
    ) -> None:
        seeds = seeds or [0] * len(models)
        self.members = [Packed(m, dtype, s) for m, s in zip(models, seeds, strict=True)]
        self._carrier = _Carrier(models[0], dtype, self.members)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While inside, the carrier's and all heads' forward passes are the stack's."""
        # Its owner may have ended, and left it in evaluation mode.
        self._carrier.encoder.train()
        with self._carrier.installed():
            yield

    def __call__(self, batches: Mapping[int, Any]) -> dict[int, tuple[torch.Tensor, int]]:
        """Logits of each model's batch in float32, and the number of its tokens computed."""
        texts = {k: [encoded.ids[r] for r in rows] for k, (encoded, rows) in batches.items()}
        return self._carrier.compute(texts)


class _StackRun(PackedRun):
    """Draws the masks of all that share the row, each from its own seed, step and place."""

    def __init__(self, model: Any, family: Any, runs: Sequence[PackedRun]) -> None:
        super().__init__(model, family, 0)
        self.runs = runs
        self.active: list[int] = []
        self.places: Places
        self.laid_out: dict[Any, tuple[torch.Tensor, ...]] = {}

    def begin_all(self, layout: Layout, places: Places, active: Sequence[int]) -> None:
        self.begin(layout)
        self.places, self.active = places, list(active)
        self.laid_out.clear()
        for k in active:
            self.runs[k].begin(layout)

    def own(self, k: int, p: float, training: bool) -> Dropout:
        """The next mask of one of them, as alone."""
        drawn = self.runs[k].drop(p, training)
        assert isinstance(drawn, Dropout)  # noqa: S101  it draws for itself alone
        return drawn

    def drop(self, p: float, training: bool) -> Mask:
        """The next mask of all of them."""
        own = tuple(self.own(k, p, training) for k in self.active)
        return Dropouts(own, self.places) if any(d.limit for d in own) else Dropout(0.0)


class _Carrier(Packed):
    """The one encoder that computes for all, with every member's adapters in its layers."""

    def __init__(self, model: Any, dtype: torch.dtype, members: Sequence[Packed]) -> None:
        super().__init__(model, dtype)
        self._members = members
        self.run: _StackRun = _StackRun(self.model, self.family, [m.run for m in members])
        # Layer's name -> member -> its adapter there.
        self._adapters: dict[str, dict[int, Any]] = {}
        for k, m in enumerate(members):
            for name, module in m.encoder.named_modules():
                if is_plain_lora(module):
                    self._adapters.setdefault(_name_without_adapter(name), {})[k] = module

    def compute(self, texts: Mapping[int, Sequence[Any]]) -> dict[int, tuple[torch.Tensor, int]]:
        """{member: logits of its texts, its tokens}."""
        active = list(texts)
        ids, positions, layout = self.pack([t for k in active for t in texts[k]])
        sizes = [[len(t) for t in texts[k]] for k in active]
        tokens, bounds = [0], [0]
        for n in sizes:
            tokens.append(tokens[-1] + sum(n))
            bounds.append(bounds[-1] + len(n))
        longest = tuple(packed.rounded_length(max(n)) for n in sizes)
        places = Places(tuple(tokens), tuple(bounds), longest, ids.shape[1])
        self.run.begin_all(layout, places, active)
        read = self.vectors_of(ids, positions)
        own = places.bounds(places.rows)
        return {
            k: (self._members[k].logits_of(read[bounds[i] : bounds[i + 1]]), own[i + 1] - own[i])
            for i, k in enumerate(active)
        }

    def forwards(
        self, cast: CastWeights
    ) -> Iterator[tuple[nn.Module, Callable[..., torch.Tensor]]]:
        for name, module in self.encoder.named_modules():
            if _is_head(name):
                continue
            if name == _name_without_adapter(name) and name in self._adapters:
                yield module, self._with_adapters(module, self._adapters[name], cast)
            else:
                forward = self.forward_of(module, cast)
                if forward is not None:
                    yield module, forward
        for m in self._members:
            inside = {id(x) for n, x in m.encoder.named_modules() if not _is_head(n)}
            for module in m.model.modules():
                forward = None if id(module) in inside else m.forward_of(module, cast)
                if forward is not None:
                    yield module, forward

    def join(self, modules: Sequence[Any], cast: CastWeights) -> None:
        """Each layer meets several adapters: layers stay apart."""

    def _with_adapters(
        self, module: Any, adapters: Mapping[int, Any], cast: CastWeights
    ) -> Callable[..., torch.Tensor]:
        """A linear layer's forward pass, in which each member's tokens meet its own adapter."""
        base = getattr(module, "base_layer", module)
        flipped, run = type(base) is Conv1D, self.run

        def forward(x: torch.Tensor) -> torch.Tensor:
            weight = cast(base.weight, x.dtype)
            assert weight is not None  # noqa: S101  a linear layer has one
            parts: list[_Part] = []
            thin: list[torch.Tensor] = []
            drops = [Dropout(0.0)] * len(run.active)
            for i, k in enumerate(run.active):
                m = adapters.get(k)
                if m is not None:
                    name = m.active_adapters[0]
                    p = float(getattr(m.lora_dropout[name], "p", 0.0))
                    drops[i] = run.own(k, p, m.training)
                    parts.append(_Part(i, float(m.scaling[name])))
                    thin += [m.lora_A[name].weight, m.lora_B[name].weight]
            out: torch.Tensor = _StackedLora.apply(  # type: ignore[no-untyped-call]
                x,
                weight.t() if flipped else weight,
                cast(base.bias, x.dtype),
                run,
                tuple(parts),
                Dropouts(tuple(drops), run.places),
                *thin,
            )
            return out

        return forward


def _name_without_adapter(name: str) -> str:
    """A module's name without what peft put between."""
    return name.replace(".base_layer", "")


# --- the adapters' products -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """An adapter in a stack: the place of its training in the row, and its scale."""

    place: int
    scale: float


class _StackedLora(torch.autograd.Function):
    """y = x W^T + c, and on the tokens of each training k: + s_k (drop_k(x) A_k^T) B_k^T.

    x (..., i), W (o, i), A_k (r_k, i), B_k (o, r_k); ranks may differ. On a processor the thin
    products are done part by part, in place; elsewhere all at once as batched products, padded to
    the longest part and the highest rank: their number does not depend on K.
    """

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        run: _StackRun,
        parts: tuple[_Part, ...],
        drops: Dropouts,
        *thin: torch.Tensor,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        y = flat @ weight.t()
        products = _products(run, parts, drops, flat)
        kept = products.forward(flat, y, bias, thin)
        ctx.save_for_backward(flat, weight, *thin, *kept)
        ctx.rest = (x.shape, products)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        flat, weight, *more = ctx.saved_tensors
        shape, products = ctx.rest
        need_x, learns = ctx.needs_input_grad[0], ctx.needs_input_grad[6:]
        thin, kept = more[: len(learns)], more[len(learns) :]
        g = grads[0].reshape(-1, grads[0].shape[-1]).contiguous()
        dx = g @ weight if need_x else g.new_zeros(flat.shape)
        made = products.backward(flat, g, dx, thin, kept)
        own = [t if needed else None for t, needed in zip(made, learns, strict=True)]
        return dx.view(shape) if need_x else None, None, None, None, None, None, *own


@dataclass(frozen=True, slots=True, eq=False)
class _OneByOne:
    """The thin products part by part, in slices of the whole: nothing is copied."""

    parts: tuple[_Part, ...]
    drops: Dropouts
    bounds: tuple[int, ...]

    def _each(self) -> Iterator[tuple[int, _Part, slice, Dropout]]:
        for j, part in enumerate(self.parts):
            some = slice(self.bounds[part.place], self.bounds[part.place + 1])
            yield 2 * j, part, some, self.drops.own[part.place]

    def forward(
        self,
        flat: torch.Tensor,
        y: torch.Tensor,
        bias: torch.Tensor | None,
        thin: Sequence[torch.Tensor],
    ) -> list[torch.Tensor]:
        """Add to y in place; gives what the backward pass needs again."""
        adapted = {p.place for p in self.parts}
        if bias is not None:
            for i, (a, b) in enumerate(itertools.pairwise(self.bounds)):
                if i not in adapted:
                    y[a:b] += bias
        return [
            low_rank(
                flat[some],
                thin[j].contiguous(),
                thin[j + 1].contiguous(),
                y[some],
                part.scale,
                bias,
                drop,
            )
            for j, part, some, drop in self._each()
        ]

    def backward(
        self,
        flat: torch.Tensor,
        g: torch.Tensor,
        dx: torch.Tensor,
        thin: Sequence[torch.Tensor],
        kept: Sequence[torch.Tensor],
    ) -> list[torch.Tensor]:
        """Add to dx in place; gives the gradients of A_0, B_0, A_1, ..."""
        made: list[torch.Tensor] = []
        for j, part, some, drop in self._each():
            made += low_rank_back(
                g[some],
                flat[some],
                thin[j].contiguous(),
                thin[j + 1].contiguous(),
                kept[j // 2],
                dx[some],
                part.scale,
                drop,
            )
        return made


@dataclass(frozen=True, slots=True, eq=False)
class _AtOnce:
    """The thin products of all parts as batched ones; no part's numbers ever meet another's.

    `gather` (K, longest): rows of the tensor, side by side, the last repeated to fill up; `real`
    (K, longest, 1) is 0 there; `cells`: where each of `rows` lies among them; `scales` (K, 1, 1).
    """

    drops: Dropouts
    gather: torch.Tensor
    real: torch.Tensor
    rows: torch.Tensor
    cells: torch.Tensor
    scales: torch.Tensor

    def forward(
        self,
        flat: torch.Tensor,
        y: torch.Tensor,
        bias: torch.Tensor | None,
        thin: Sequence[torch.Tensor],
    ) -> list[torch.Tensor]:
        """As `_OneByOne.forward`."""
        if bias is not None:
            y += bias
        a, b = _stacked(thin)
        seen, _ = self._dropped(flat, a.dtype)
        low = torch.bmm(seen[self.gather], a.transpose(1, 2)) * self.scales
        more = torch.bmm(low, b.transpose(1, 2)).flatten(0, 1)[self.cells]
        y.index_add_(0, self.rows, more.to(y.dtype))
        return [low]

    def backward(
        self,
        flat: torch.Tensor,
        g: torch.Tensor,
        dx: torch.Tensor,
        thin: Sequence[torch.Tensor],
        kept: Sequence[torch.Tensor],
    ) -> list[torch.Tensor]:
        """As `_OneByOne.backward`."""
        a, b = _stacked(thin)
        seen, mask = self._dropped(flat, a.dtype)
        # Rows that fill up must add nothing to a gradient, whatever stands in them.
        wide = g.to(a.dtype)[self.gather].masked_fill(self.real == 0, 0)
        dlow = torch.bmm(wide, b) * self.scales
        da = torch.bmm(dlow.transpose(1, 2), seen[self.gather])
        db = torch.bmm(wide.transpose(1, 2), kept[0])
        more = torch.bmm(dlow, a).flatten(0, 1)[self.cells]
        dx.index_add_(0, self.rows, (more if mask is None else more * mask[self.rows]).to(dx.dtype))
        ranks = [t.shape[0] for t in thin[::2]]
        return [t for k, r in enumerate(ranks) for t in (da[k, :r], db[k, :, :r])]

    def _dropped(
        self, flat: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        wide = flat.to(dtype)
        if not self.drops.limit:
            return wide, None
        mask = self.drops.factors(flat.shape, wide)
        return wide * mask, mask


def _stacked(thin: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """A (K, r, i) and B (K, o, r), filled up with zeros to the highest rank."""
    rank = max(a.shape[0] for a in thin[::2])
    a = [functional.pad(a, (0, 0, 0, rank - len(a))) if len(a) < rank else a for a in thin[::2]]
    b = [functional.pad(b, (0, rank - b.shape[1])) if b.shape[1] < rank else b for b in thin[1::2]]
    return torch.stack(a), torch.stack(b)


def _products(
    run: _StackRun, parts: tuple[_Part, ...], drops: Dropouts, flat: torch.Tensor
) -> _OneByOne | _AtOnce:
    bounds = run.places.bounds(len(flat))
    if flat.device.type == "cpu" or not parts:
        return _OneByOne(parts, drops, bounds)
    # The same for all layers of a step: made once, and sent to the card once.
    key = (bounds, parts)
    if key not in run.laid_out:
        run.laid_out[key] = _laid_out(bounds, parts, flat.device)
    return _AtOnce(drops, *run.laid_out[key])


def _laid_out(
    bounds: Sequence[int], parts: Sequence[_Part], where: torch.device
) -> tuple[torch.Tensor, ...]:
    """The tensors of `_AtOnce`, in its order."""
    starts = torch.tensor([[bounds[p.place]] for p in parts])
    sizes = torch.tensor([[bounds[p.place + 1]] for p in parts]) - starts
    columns = torch.arange(int(sizes.max()))
    gather = starts + torch.minimum(columns, sizes - 1)
    real = columns < sizes
    cells = real.flatten().nonzero().squeeze(1)
    scales = torch.tensor([p.scale for p in parts]).view(-1, 1, 1)
    made = (gather, real.unsqueeze(-1), gather.flatten()[cells], cells, scales)
    return tuple(t.to(where, non_blocking=True) for t in made)
