"""Scoring texts fast: the one place where a trained model or an encoder is run for its answers.

Texts are sorted by length and cut into batches of like length, so that hardly any padding is
computed. An adapter is merged into a copy of the weights (the model itself stays as it is), query,
key and value are one product, and in the last layer only the first token's row goes on, because
the head reads nothing else. On a processor each thread takes batches of its own: two threads that
never wait for each other beat two that share every product (docs/log.md). No autograd.

Scores equal the model's own within rounding (tests/reference/test_inference.py). A family whose
layers are not known here is computed as it is trained, packed; what is no such thing, or has an
adapter that adds tokens, runs as it is, in the same batches.

May import: anatomy, batching, family, fused, kernels, models, packing.
May not import: train, transformer, methods, trial.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from tunelab import anatomy, batching, fused, kernels, models, packed_modules, packing
from tunelab.batching import Encoded
from tunelab.family import Anatomy, Family

__all__ = ["PRECISIONS", "Halves", "Lower", "Prepared", "TOKENS", "TOKENS_ON_A_CARD",
           "WINDOW", "batches", "fingerprint", "prepare", "prepare_encoder",
           "texts_in_windows"]  # fmt: skip

# What layers may compute in when texts are scored; the head is float32 in any case. "float32" is
# exact. "auto" is float32 too, with products on matrix tiles where the processor has them, twice as
# fast: a score then has five true digits (fused.Product).
PRECISIONS = ("auto", "float32", "bfloat16")
# Texts that are tokenized, sorted and scored at a time: memory is bounded however many there are.
WINDOW = 4096

Floats = NDArray[np.float64]
Apply = Callable[[torch.Tensor], torch.Tensor]
Norm = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Tokens of a batch on a processor: as fast as more, in less memory (docs/log.md). And on a card,
# which they keep busy; not measured, no card was at hand.
TOKENS, TOKENS_ON_A_CARD = 1024, 16_384
# There it ends where a text is shorter than so much of its longest, once it is worth a product; and
# of the last tokens batches are no more than that, so that no thread waits long for another.
_ALIKE, _WORTH_IT, _LAST = 0.97, 256, 2 * TOKENS
# Merged or not, float32 differs by rounding alone; more means that something was not understood.
_AGREE = 1e-3


# --- the layers -----------------------------------------------------------------------------


class _First:
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
        wide, heads = x.float(), len(self._keys)
        asking = q.float().view(len(q), heads, -1).transpose(0, 1)
        scores = torch.matmul(asking, self._keys).transpose(0, 1) @ wide.transpose(1, 2)
        if lengths is not None:
            unseen = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
            scores = scores.masked_fill(unseen[:, None], float("-inf"))
        read = (torch.softmax(scores, dim=-1) @ wide).transpose(0, 1)
        out = torch.matmul(read, self._values.transpose(1, 2)).transpose(0, 1)
        return (out.reshape(q.shape) + self._bias).to(x.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class _Joined:
    """Attention whose queries, keys and values are one product; `first` in the last layer."""

    heads: int
    qkv: _Plain | fused.Product
    first: _First | None

    def __call__(
        self, x: torch.Tensor, lengths: torch.Tensor | None, first_only: bool
    ) -> torch.Tensor:
        """(b, n, width) -> (b * n, width), or (b, width) with `first_only`. `lengths` (b,)."""
        b, n, width = x.shape
        if first_only:
            assert self.first is not None  # noqa: S101  asked of the last layer alone
            return self.first(self.qkv.columns(0, width)(x[:, 0]), x, lengths)
        q, k, v = self.qkv(x.reshape(b * n, width)).view(b, n, 3, width).unbind(2)
        return kernels.attention_of_batch(q, k, v, self.heads, lengths).view(-1, width)


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
        """As `_Joined`."""
        b, n, width = x.shape
        flat = x.reshape(b * n, width)
        q = self.query(x[:, 0] if first_only else flat).view(b, -1, width)
        k, v = (f(flat).view(b, n, width) for f in (self.key, self.value))
        return kernels.attention_of_batch(q, k, v, self.heads, lengths).view(-1, width)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One encoder layer: LN(x + O(attention)), then LN(x + down(act(up(x)))) (Vaswani et al. 2017).

    All but attention map (tokens, width) to (tokens, width).
    """

    attention: _Joined | _Apart
    out: Apply
    norm: Norm
    up: Apply
    activation: Apply
    down: Apply
    last_norm: Norm

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
class _Format:
    """What layers compute in: a type, and whether five digits of float32 are enough.

    `takes`: a layer's weight is given up once it is laid out, as it is of a copy made for that.
    """

    dtype: torch.dtype
    in_two_parts: bool
    takes: bool = False

    @staticmethod
    def of(precision: str) -> _Format:
        """One of PRECISIONS."""
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        return _Format(dtype, precision == "auto")

    def product(
        self, weight: torch.Tensor, bias: torch.Tensor | None, of: Sequence[nn.Linear]
    ) -> _Plain | fused.Product:
        """x W^T + bias, W and bias being those of layers side by side."""
        weight = weight.detach().to(self.dtype)
        bias = None if bias is None else bias.detach().to(self.dtype)
        laid = fused.product(weight, bias, in_two_parts=self.in_two_parts)
        if laid is None:
            return _Plain(weight, bias)
        if self.takes:
            for layer in of:
                layer.weight.data = weight.new_empty(0)
        return laid

    def used(self, layers: Sequence[_Layer]) -> str:
        """In words, for the record."""
        parts = [x for m in layers for x in (m.out, m.up, m.down)]
        on_tiles = any(isinstance(x, fused.Product) and x.in_two_parts for x in parts)
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


def _linear(module: Any, form: _Format) -> Apply:
    """A layer as a function: plain ones in their format, whatever wraps one as it is."""
    if type(module) is nn.Linear:
        return form.product(module.weight, module.bias, [module])
    return module  # type: ignore[no-any-return]


def _joined(modules: Sequence[Any], form: _Format) -> _Plain | fused.Product:
    """Several plain layers of one input as one."""
    weight = torch.cat([m.weight.detach() for m in modules])
    bias = torch.cat([
        m.bias.detach() if m.bias is not None else weight.new_zeros(m.out_features) for m in modules
    ])  # fmt: skip
    return form.product(weight, bias, modules)


def _norm(module: Any) -> Norm:
    """Of what a sublayer gives and what it is added to."""
    if type(module) is not nn.LayerNorm:
        return lambda y, x: module(x + y)
    weight, bias = module.weight.detach(), module.bias.detach()
    return lambda y, x: kernels.added_norm(y, x, weight, bias, module.eps)


def _layer(form: _Format, parts: anatomy.LayerParts, *, last: bool) -> _Layer:
    """`last`: no layer comes after it."""
    qkv, attention = parts.attention, None
    if all(type(m) is nn.Linear for m in qkv):
        first = _First(parts.heads, *qkv[1:]) if last else None  # before their weights are taken
        attention = _Joined(parts.heads, _joined(qkv, form), first)
    wide, activation = _linear(parts.wide, form), parts.activation
    if isinstance(wide, fused.Product) and packed_modules.is_gelu(activation):
        wide, activation = replace(wide, gelu=True), nn.Identity()
    return _Layer(
        attention or _Apart(parts.heads, *(_linear(m, form) for m in qkv)),
        _linear(parts.mixed, form), _norm(parts.norm), wide, activation,
        _linear(parts.narrow, form), _norm(parts.last_norm),
    )  # fmt: skip


def _layers(encoder: Any, family: Family, form: _Format) -> tuple[_Layer, ...]:
    """From the lowest up; ALBERT's, which share their weights in groups, come several times."""
    names = family.anatomy.layer
    assert names is not None  # noqa: S101  it has fast scoring
    blocks = [m for m in encoder.modules() if type(m).__name__ == names.kind]
    parts = [anatomy.parts_of(block, names) for block in blocks]
    _as_shipped(encoder, parts)
    made = [_layer(form, x, last=x is parts[-1]) for x in parts]
    count = anatomy.layers_in(encoder)
    groups = getattr(encoder.config, family.keys.groups or "-", count)
    each = len(made) // groups
    return tuple(
        made[each * int(i / (count / groups)) + k] for i in range(count) for k in range(each)
    )


class _NotAsShippedError(Exception):
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
            raise _NotAsShippedError(f"{type(m).__name__} is not transformers' own")


@dataclass(frozen=True, slots=True, eq=False)
class _Encoder:
    """An encoder as its layers. `model` is transformers' (BertModel, ...), for its embeddings."""

    model: Any
    anatomy: Anatomy
    layers: tuple[_Layer, ...]
    form: _Format

    def __call__(
        self, ids: torch.Tensor, lengths: torch.Tensor | None, first_only: bool
    ) -> torch.Tensor:
        """Vectors (b, n or 1, width) of `ids` (b, n); `lengths` (b,) where they differ."""
        states = self.below(ids, lengths, 0, first_only)
        return self.above(states, lengths, 0, first_only).float()

    def below(
        self, ids: torch.Tensor, lengths: torch.Tensor | None, count: int, first_only: bool
    ) -> torch.Tensor:
        """What the `count` lowest layers give; with none, the embeddings."""
        columns = torch.arange(ids.shape[1], device=ids.device)
        offset = self.model.config.pad_token_id + 1 if self.anatomy.after_pad else 0
        more = {"token_type_ids": torch.zeros_like(ids)} if self.anatomy.token_types else {}
        x: torch.Tensor = self.model.embeddings(
            input_ids=ids, position_ids=(columns + offset).expand(ids.shape), **more
        )
        widening = anatomy.widening_in(self.model, self.anatomy)
        if widening is not None:
            x = widening(x)
        return self._through(x.to(self.form.dtype), lengths, range(count), first_only)

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


# --- making a model ready -------------------------------------------------------------------


class Lower(Protocol):
    """Keeps what the `layers` lowest, frozen layers give for each batch of one set of texts."""

    @property
    def layers(self) -> int:
        """How many of the lowest layers."""
        ...

    def states(
        self, i: int, batch: batching.Batch, below: Callable[[batching.Batch, int], torch.Tensor]
    ) -> torch.Tensor:
        """Of batch `i`: kept, or what `below(batch, layers)` gives."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """A classifier cut between two layers: above(below(batch, n), batch, n) are its logits.

    Bit for bit, at any n. After all layers, `below` gives the first tokens alone, (b, 1, width).
    """

    below: Callable[[batching.Batch, int], torch.Tensor]
    above: Callable[[torch.Tensor, batching.Batch, int], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What `scores` runs. `engine` is "fast", "packed" or "plain", `why` says why it is plain.

    `merged`: whether an adapter was merged into the copy that is run. `precision`: what its layers
    compute in.
    """

    compute: Callable[[batching.Batch, torch.device], torch.Tensor]
    where: torch.device
    engine: str
    why: str | None
    merged: bool
    side_by_side: bool
    precision: str = "float32"
    halves: Halves | None = None

    def __call__(
        self,
        encoded: Encoded,
        pad_id: int,
        batch_size: int,
        width: int | None = None,
        *,
        lower: Lower | None = None,
    ) -> NDArray[np.float32]:
        """Rows (n, width) of all texts in their order; `width` is needed only where n may be 0.

        `lower` keeps what frozen layers give for these texts, where the model has `halves`.
        """
        rows = batches(encoded.lengths, batch_size, self.where)
        out: list[NDArray[np.float32]] = [np.empty((0, width or 0), np.float32)] * len(rows)

        def one(i: int) -> None:
            with torch.inference_mode():
                batch = batching.pad(encoded, rows[i], pad_id)
                if lower is None or self.halves is None:
                    given = self.compute(batch, self.where)
                else:
                    states = lower.states(i, batch, self.halves.below).to(self.where)
                    given = self.halves.above(states, batch, lower.layers)
                out[i] = given.float().cpu().numpy()

        threads = torch.get_num_threads()
        if self.side_by_side and threads > 1 and len(rows) >= 2 * threads:
            with _one_thread_each(threads) as pool:
                list(pool.map(one, range(len(rows))))
        else:
            for i in range(len(rows)):
                one(i)
        if not rows:
            return np.empty((0, width or 0), np.float32)
        result = np.empty((len(encoded), out[0].shape[1]), np.float32)
        for which, values in zip(rows, out, strict=True):
            result[which] = values
        return result


def texts_in_windows(
    texts: Sequence[str], score: Callable[[Sequence[str]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Score texts window by window: rows in their order, tokens of one window in memory."""
    starts = range(0, max(1, len(texts)), WINDOW)
    return np.concatenate([score(texts[i : i + WINDOW]) for i in starts])


@contextmanager
def _one_thread_each(threads: int) -> Iterator[ThreadPoolExecutor]:
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)  # the number is also a process-wide default


def batches(
    lengths: NDArray[np.int64], batch_size: int, where: torch.device
) -> list[NDArray[np.int64]]:
    """Row numbers in batches of like length, longest first: every row once.

    A batch holds at most `batch_size` texts and TOKENS tokens (TOKENS_ON_A_CARD), unless one text
    has more. Longest first, so that memory is at its peak at once, and full batches of one length
    have one shape: where torch multiplies, its library plans each new shape anew.
    """
    order = np.argsort(-lengths, kind="stable")
    n = lengths[order]
    left = n[::-1].cumsum()[::-1]
    out, start, small = [], 0, where.type == "cpu"
    while start < len(order):
        longest = max(1, int(n[start]))
        room = TOKENS if left[start] > _LAST else _WORTH_IT
        most = max(1, min(batch_size, (room if small else TOKENS_ON_A_CARD) // longest))
        end = min(len(order), start + most)
        enough = start + max(1, _WORTH_IT // longest)
        if small and enough < end:
            # Descending, so the first that is too short ends the batch.
            alike = int(np.searchsorted(-n[start:end], -_ALIKE * longest, side="right"))
            end = min(end, max(enough, start + alike))
        out.append(order[start:end])
        start = end
    return out


def prepare(model: Any, *, merge: bool = True, precision: str = "auto") -> Prepared:
    """Make a classifier ready: logits (b, n_classes). `model` itself is not changed.

    `merge=False` runs an adapter beside its weights. A quantised base is never merged into.
    `precision` (PRECISIONS) is what layers compute in, but for those with an adapter beside them.
    """
    prepared = _prepared(model, merge, _Format.of(precision))
    inner = anatomy.classifier_in(model)
    if anatomy.is_quantised(inner):
        return replace(prepared, precision="as its base was loaded")
    return prepared


def _prepared(model: Any, merge: bool, form: _Format) -> Prepared:
    where = next(model.parameters()).device
    plain = partial(_plain, model)
    peft = getattr(model, "active_peft_config", None)
    if peft is not None and peft.is_prompt_learning:
        return Prepared(plain, where, "plain", "its adapter adds tokens", False, False)
    whole = _merged(model) if merge and peft is not None else None
    inner = whole or anatomy.classifier_in(model)
    bare = peft is None or whole is not None
    if bare and not anatomy.has_fast_scoring(inner) and _can_be_packed(inner, where):
        with suppress(_NotAsShippedError):
            packed = _Packed(whole or _twin(inner), form.dtype)
            _check(packed, model, where, form.dtype)
            return Prepared(
                packed, where, "packed", None, whole is not None, False, str(form.dtype)[6:]
            )
    try:
        own = replace(form, takes=whole is not None)
        encoder = _encoder(anatomy.encoder_in(inner), own)
        run = partial(_logits, inner, encoder)
        _check(run, model, where, form.dtype)
    except _NotAsShippedError as e:
        why = str(e)
    else:
        halves = Halves(partial(_below, encoder, where), partial(_above, inner, encoder))
        return Prepared(
            run, where, "fast", None, whole is not None, bare and where.type == "cpu",
            form.used(encoder.layers), halves,
        )  # fmt: skip
    try:
        whole = _merged(model) if whole is not None else None  # its weights may have been taken
        if whole is not None:
            _check(partial(_plain, whole), model, where, torch.float32)
            return Prepared(partial(_plain, whole), where, "plain", why, True, False)
    except _NotAsShippedError:
        pass
    return Prepared(plain, where, "plain", why, False, False)


def prepare_encoder(model: Any, pooling: str) -> Prepared:
    """Make a bare encoder ready: vectors (b, width), of the first token or the mean of all."""
    where = next(model.parameters()).device
    first = pooling == "cls"
    try:
        run = partial(_vectors, _encoder(model, _Format.of("float32")), first)
    except _NotAsShippedError as e:
        run = partial(_plain_vectors, model, first)
        return Prepared(run, where, "plain", str(e), False, False)
    return Prepared(run, where, "fast", None, False, where.type == "cpu")


def fingerprint(model: Any) -> tuple[Any, ...]:
    """Something that changes when what `prepare` made no longer says what the model says."""
    # Asked for with each text: torch's own walk would make up a name for everything.
    found: list[Any] = [id(model)]
    waiting, seen = [model], set[int]()
    while waiting:
        m = waiting.pop()
        if id(m) in seen:
            continue
        seen.add(id(m))
        # Not asked of a module itself, which looks for what it has not everywhere.
        own, kind = m.__dict__, type(m)
        found += [(p.data_ptr(), p._version) for p in own["_parameters"].values() if p is not None]
        if hasattr(kind, "merged_adapters") and hasattr(kind, "disable_adapters"):
            found.append((tuple(m.active_adapters), tuple(m.merged_adapters), m.disable_adapters))
        waiting += [child for child in own["_modules"].values() if child is not None]
    return tuple(found)


def _encoder(model: Any, form: _Format) -> _Encoder:
    family = anatomy.family_in(model)
    if family is None or not family.anatomy.has_fast_scoring:
        raise _NotAsShippedError(f"{model.config.model_type} has no fast path")
    return _Encoder(model, family.anatomy, _layers(model, family, form), form)


def _merged(model: Any) -> Any:
    """A copy with the adapter merged in; None where it cannot be, or the base is quantised.

    What is not adapted is shared with the model, not copied.
    """
    if anatomy.is_quantised(anatomy.classifier_in(model)):
        return None
    try:
        with models.quiet(), torch.no_grad():
            return models.merged(_twin(model, own=".base_layer.")).eval()
    except (AttributeError, NotImplementedError, ValueError, RuntimeError, TypeError):
        return None


def _twin(model: Any, own: str | None = None) -> Any:
    """A copy that shares its weights with the model, but for those in whose names `own` is."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False)
        for name, p in model.named_parameters()
        if own is None or own not in name
    }
    return copy.deepcopy(model, memo)


def _can_be_packed(model: Any, where: torch.device) -> bool:
    """On a card torch's own attention is the better one: it keeps no table of scores."""
    may = where.type == "cpu" and not anatomy.is_quantised(model)
    return may and packing.why_not_packed(model) is None


def _check(run: Any, model: Any, where: torch.device, dtype: torch.dtype) -> None:
    """Two short texts both ways: what peft or a user did to the model may be unknown to us."""
    plain = partial(_plain, model)
    ids = np.asarray([[5, 6, 7], [8, 9, model.config.pad_token_id or 0]])
    batch = batching.Batch(np.arange(2), ids, np.asarray([[1, 1, 1], [1, 1, 0]]))
    with torch.inference_mode():
        ours, theirs = run(batch, where).float(), plain(batch, where).float()
    limit = _AGREE if dtype == torch.float32 else 0.1
    if not bool(((ours - theirs).abs() <= limit * (1 + theirs.abs().max())).all()):
        raise _NotAsShippedError("it computes something else than its layers say")


# --- what is run ----------------------------------------------------------------------------


class _Packed:
    """A classifier of our own, computed without padding (`packing.Packed`), one batch at a time."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self._packed = packing.Packed(model, dtype)
        self._alone = threading.Lock()
        # For as long as this lives: what is prepared for it is prepared once.
        installed = ExitStack()
        installed.enter_context(self._packed.installed())
        weakref.finalize(self, installed.close)

    def __call__(self, batch: batching.Batch, where: torch.device) -> torch.Tensor:
        n = np.maximum(batch.attention_mask.sum(axis=1), 1)
        texts = Encoded(tuple(ids[:k] for ids, k in zip(batch.input_ids, n, strict=True)))
        with self._alone:
            return self._packed(texts, np.arange(len(texts)))[0]


def _placed(batch: batching.Batch, where: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    ids = torch.from_numpy(batch.input_ids).to(where, non_blocking=True)
    if batch.attention_mask.all():
        return ids, None
    lengths = np.maximum(batch.attention_mask.sum(axis=1), 1)
    return ids, torch.from_numpy(lengths).to(where, non_blocking=True)


def _logits(
    model: Any, encoder: _Encoder, batch: batching.Batch, where: torch.device
) -> torch.Tensor:
    first = encoder(*_placed(batch, where), first_only=True)
    return anatomy.logits_of(encoder.anatomy, model, first)


def _below(
    encoder: _Encoder, where: torch.device, batch: batching.Batch, layers: int
) -> torch.Tensor:
    return encoder.below(*_placed(batch, where), layers, first_only=True)


def _above(
    model: Any, encoder: _Encoder, states: torch.Tensor, batch: batching.Batch, layers: int
) -> torch.Tensor:
    _, lengths = _placed(batch, states.device)
    first = encoder.above(states, lengths, layers, first_only=True).float()
    return anatomy.logits_of(encoder.anatomy, model, first)


def _vectors(
    encoder: _Encoder, first: bool, batch: batching.Batch, where: torch.device
) -> torch.Tensor:
    return _pooled(encoder(*_placed(batch, where), first_only=first), first, batch)


def _plain(model: Any, batch: batching.Batch, where: torch.device) -> torch.Tensor:
    logits: torch.Tensor = model(**_inputs(batch, where)).logits
    return logits


def _plain_vectors(
    model: Any, first: bool, batch: batching.Batch, where: torch.device
) -> torch.Tensor:
    return _pooled(model(**_inputs(batch, where)).last_hidden_state, first, batch)


def _inputs(batch: batching.Batch, where: torch.device) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.from_numpy(batch.input_ids).to(where, non_blocking=True),
        "attention_mask": torch.from_numpy(batch.attention_mask).to(where, non_blocking=True),
    }


def _pooled(hidden: torch.Tensor, first: bool, batch: batching.Batch) -> torch.Tensor:
    if first:
        return hidden[:, 0]
    mask = torch.from_numpy(batch.attention_mask).to(hidden.device)
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)
