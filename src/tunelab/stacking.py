"""Several LoRA trainings of one base in one pass: the base is computed once for all of them.

Batches of a small model do not fill a card. A stack puts the batches of K trainings, each with its
own rows, adapter, head, dropout masks, optimizer and schedule, end to end into one packed row; the
frozen layers see one long row, each adapter its own tokens, each head its own texts. What each
training gives equals what it gives alone (tests/reference/test_stacking.py): the step is
`train.training`'s in both cases, only who answers it differs. In the manner of PLoRA (Yan et al.
2025) and ALTO; HFTA (Wang et al. 2021) fuses whole models the same way.

May import: anatomy, train, packing, kernels. May not import: methods, trial, study.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from tunelab import kernels, packing, train
from tunelab import precision as precisions
from tunelab.anatomy import classifier_in, encoder_in, is_quantised, reads_distances
from tunelab.kernels import Dropout, Dropouts, Layout, Mask, Places
from tunelab.packing import Packed
from tunelab.train import Ask, Backward, Compute, Engine, Join

__all__ = ["Stacked", "run", "why_not"]

T = TypeVar("T")
Session = Generator[Ask, Any, T]


# --- driving --------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Member:
    """A training, what it asks now, and what it gave (or raised) where it has ended."""

    session: Session[Any]
    ask: Ask | None = None
    gave: Any = None

    def answer(self, value: Any) -> None:
        """Go on to the next thing that is asked."""
        self._on(lambda: self.session.send(value))

    def fail(self, error: Exception) -> None:
        """Go on with an error in place of an answer."""
        self._on(lambda: self.session.throw(error))

    def _on(self, go: Callable[[], Ask]) -> None:
        self.ask = None
        try:
            self.ask = go()
        except StopIteration as end:
            self.gave = end.value
        except Exception as e:  # one that fails must not take the others along
            self.gave = e


def run(sessions: Sequence[Session[T]]) -> list[T | Exception]:
    """Drive trainings together; what each returns, or the exception that ended it, in their order.

    Trainings that cannot share a row are driven one after the other, and their results say why.
    """
    members = [_Member(s) for s in sessions]
    for m in members:
        m.answer(None)
        if isinstance(m.ask, Join) and m is not members[0] and isinstance(members[0].ask, Join):
            _share(m.ask.model, members[0].ask.model)  # before the next one is loaded
    joined = [m for m in members if isinstance(m.ask, Join)]
    asks = [m.ask for m in joined if isinstance(m.ask, Join)]
    why = why_not([a.model for a in asks], asks)
    if why is None:
        _together(joined, asks)
    else:
        _in_turn(joined, asks, why)
    return [m.gave for m in members]


def _in_turn(members: Sequence[_Member], asks: Sequence[Join], why: str) -> None:
    for m, a in zip(members, asks, strict=True):
        chosen = train.choose_engine(a.model, a.pad_id, a.settings, a.seed)
        chosen = replace(chosen, more={"stack_reason": why})
        m.answer(chosen)
        if m.ask is not None:
            try:
                m.gave = train.alone(m.session, m.ask, chosen)
            except Exception as e:
                m.gave = e


def _together(members: Sequence[_Member], asks: Sequence[Join]) -> None:
    """Step by step: all forward passes in one, all backward passes in one, then K optimizers."""
    first = asks[0]
    where = next(first.model.parameters()).device
    chosen, reason, route = train.number_format(
        first.model, first.settings.precision, where, packed=True
    )
    dtype = getattr(torch, chosen)
    stack = Stacked([a.model for a in asks], dtype, [a.seed for a in asks])
    built = kernels.built(torch.float32)  # none on tiles: those with adapters are not fused
    clock = _Clock()
    for i, m in enumerate(members):
        m.answer(Engine(
            "packed", None, chosen, reason, built, stack.members[i], stack.members[i].installed,
            clock, {"stack": len(members)},
        ))  # fmt: skip
    while any(m.ask for m in members):
        with stack.installed(), precisions.float32_route(route):
            # All that are left stand at the beginning of an epoch.
            for m in members:
                if m.ask is not None:
                    m.answer(None)
            while asking := {i: m.ask for i, m in enumerate(members) if isinstance(m.ask, Compute)}:
                clock.shared_by(len(asking))
                _step(stack, {i: members[i] for i in asking}, asking)
        # And now at its end: each is evaluated, goes on to the next epoch, or ends.
        for m in members:
            if m.ask is not None:
                m.answer(None)


def _step(stack: Stacked, members: Mapping[int, _Member], asking: Mapping[int, Compute]) -> None:
    try:
        made = stack({i: (a.encoded, a.rows) for i, a in asking.items()})
    except Exception as e:  # out of memory, say: it is nobody's own
        for m in members.values():
            m.fail(e)
        return
    for i, m in members.items():
        m.answer(made[i])
    while asked := [(m, m.ask) for m in members.values() if isinstance(m.ask, Backward)]:
        torch.autograd.backward([a.loss for _, a in asked])
        # Read together: a card is waited for once in a step, not K times.
        values = torch.stack([a.value for _, a in asked]).tolist()
        for (m, _), value in zip(asked, values, strict=True):
            m.answer(value)


class _Clock:
    """Seconds that count as one training's: of those that K share, a K-th part."""

    def __init__(self) -> None:
        self._members = 1
        self._seconds, self._last = 0.0, time.perf_counter()

    def shared_by(self, members: int) -> None:
        self()
        self._members = members

    def __call__(self) -> float:
        now = time.perf_counter()
        self._seconds += (now - self._last) / self._members
        self._last = now
        return self._seconds


# --- what can be stacked --------------------------------------------------------------------


def why_not(models: Sequence[Any], asks: Sequence[Join] = ()) -> str | None:
    """Say why these cannot share a row; None where they can. Frozen weights are shared by `_share`.

    What differs may be ranks, scales, dropout and places of LoRA's adapters, and the heads.
    """
    if len(models) < 2:
        return "there is nothing to share it with"
    return next((why for why in _reasons(models, asks) if why is not None), None)


def _reasons(models: Sequence[Any], asks: Sequence[Join]) -> Iterator[str | None]:
    for model in models:
        yield packing.why_not(model) or packing.why_float32(model)
        if reads_distances(classifier_in(model)):
            yield "its adapters also read a table of distances, which is one for all texts"
        if is_quantised(classifier_in(model)):
            yield "its base is quantised"
    for a in asks:
        if a.settings.gradient_checkpointing or a.settings.engine == "plain":
            yield "the plain engine was asked for"
        if not getattr(a.settings, "frozen_dropout", True):
            yield "frozen layers without dropout are computed apart (frozen_dropout: false)"
        if a.settings.precision != asks[0].settings.precision:
            yield "they are trained in different precisions"
    first = classifier_in(models[0])
    for own in map(classifier_in, models):
        if own.config.to_dict() != first.config.to_dict():
            yield "their models are not configured alike"
        for name, p in _of_base(own).items():
            if p.requires_grad:
                yield f"{name} of the base is trained"
        differs = _differs(own, first)
        if differs is not None:
            yield f"their bases differ in {differs}"


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


def _share(model: Any, first: Any) -> None:
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


class _Run(packing._Run):
    """Draws the masks of all that share the row, each from its own seed, step and place."""

    def __init__(self, model: Any, family: Any, runs: Sequence[packing._Run]) -> None:
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
        self._run: _Run = _Run(self._model, self._family, [m._run for m in members])
        # Layer's name -> member -> its adapter there.
        self._adapters: dict[str, dict[int, Any]] = {}
        for k, m in enumerate(members):
            for name, module in m._encoder.named_modules():
                if packing._is_plain_lora(module):
                    self._adapters.setdefault(_name(name), {})[k] = module

    @property
    def encoder(self) -> Any:
        """Where all tokens go through."""
        return self._encoder

    def compute(self, texts: Mapping[int, Sequence[Any]]) -> dict[int, tuple[torch.Tensor, int]]:
        """{member: logits of its texts, its tokens}."""
        active = list(texts)
        ids, positions, layout = self._pack([t for k in active for t in texts[k]])
        sizes = [[len(t) for t in texts[k]] for k in active]
        tokens, bounds = [0], [0]
        for n in sizes:
            tokens.append(tokens[-1] + sum(n))
            bounds.append(bounds[-1] + len(n))
        longest = tuple(packing.rounded_length(max(n)) for n in sizes)
        places = Places(tuple(tokens), tuple(bounds), longest, ids.shape[1])
        self._run.begin_all(layout, places, active)
        read = self._vectors(ids, positions)
        own = places.bounds(places.rows)
        return {
            k: (self._members[k]._head(read[bounds[i] : bounds[i + 1]]), own[i + 1] - own[i])
            for i, k in enumerate(active)
        }

    def _forwards(
        self, cast: packing._Cast
    ) -> Iterator[tuple[nn.Module, Callable[..., torch.Tensor]]]:
        for name, module in self._encoder.named_modules():
            if _is_head(name):
                continue
            if name == _name(name) and name in self._adapters:
                yield module, self._with_adapters(module, self._adapters[name], cast)
            else:
                forward = self._forward_of(module, cast)
                if forward is not None:
                    yield module, forward
        for m in self._members:
            inside = {id(x) for n, x in m._encoder.named_modules() if not _is_head(n)}
            for module in m._model.modules():
                forward = None if id(module) in inside else m._forward_of(module, cast)
                if forward is not None:
                    yield module, forward

    def _join(self, modules: Sequence[Any], cast: packing._Cast) -> None:
        """Each layer meets several adapters: layers stay apart."""

    def _with_adapters(
        self, module: Any, adapters: Mapping[int, Any], cast: packing._Cast
    ) -> Callable[..., torch.Tensor]:
        """A linear layer's forward pass, in which each member's tokens meet its own adapter."""
        base = getattr(module, "base_layer", module)
        flipped, run = type(base) is Conv1D, self._run

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
                x, weight.t() if flipped else weight, cast(base.bias, x.dtype), run, tuple(parts),
                Dropouts(tuple(drops), run.places), *thin,
            )  # fmt: skip
            return out

        return forward


def _name(name: str) -> str:
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
        run: _Run,
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
            kernels.low_rank(
                flat[some], thin[j].contiguous(), thin[j + 1].contiguous(), y[some],
                part.scale, bias, drop,
            )
            for j, part, some, drop in self._each()
        ]  # fmt: skip

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
            made += kernels.low_rank_back(
                g[some], flat[some], thin[j].contiguous(), thin[j + 1].contiguous(), kept[j // 2],
                dx[some], part.scale, drop,
            )  # fmt: skip
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
    run: _Run, parts: tuple[_Part, ...], drops: Dropouts, flat: torch.Tensor
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
