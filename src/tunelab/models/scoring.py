"""Scoring texts fast: the one place where a trained model or an encoder is run for its answers.

Texts are sorted by length and cut into batches of like length, so that hardly any padding is
computed. An adapter is merged into a copy of the weights (the model itself stays as it is), query,
key and value are one product, and in the last layer only the first token's row goes on, because
the head reads nothing else. On a processor each thread takes batches of its own: two threads that
never wait for each other beat two that share every product (docs/log.md). No autograd.

Scores equal the model's own within rounding (tests/reference/models/test_inference.py). A family
whose layers are not known here is computed as it is trained, packed; what is no such thing, or has
an adapter that adds tokens, runs as it is, in the same batches.
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

from tunelab.models import anatomy, company, pretrained
from tunelab.models.batches import Batch, Encoded, pad
from tunelab.models.packed import Packed, why_not_packed
from tunelab.models.scoring_layers import Encoder, Format, NotAsShippedError, layers_of

__all__ = [
    "PRECISIONS",
    "TOKENS",
    "TOKENS_ON_A_CARD",
    "TEXTS_TOKENIZED_AT_A_TIME",
    "Halves",
    "LowerScores",
    "Prepared",
    "batches",
    "fingerprint",
    "plain_scorer",
    "prepare",
    "prepare_encoder",
    "texts_in_windows",
]


# What layers may compute in when texts are scored; the head is float32 in any case. "float32" is
# exact. "auto" is float32 too, with products on matrix tiles where the processor has them, twice as
# fast: a score then has five true digits (kernels.layers.Product).
PRECISIONS = ("auto", "float32", "bfloat16")
# Texts that are tokenized, sorted and scored at a time: memory is bounded however many there are.
TEXTS_TOKENIZED_AT_A_TIME = 4096

Floats = NDArray[np.float64]

# Tokens of a batch on a processor: as fast as more, in less memory (docs/log.md). And on a card,
# which they keep busy; not measured, no card was at hand.
TOKENS, TOKENS_ON_A_CARD = 1024, 16_384
# There it ends where a text is shorter than so much of its longest, once it is worth a product; and
# of the last tokens batches are no more than that, so that no thread waits long for another.
_ALIKE_LENGTH, _WORTH_IT, _LAST = 0.97, 256, 2 * TOKENS
# Merged or not, float32 differs by rounding alone; more means that something was not understood.
_AGREE = 1e-3


# --- making a model ready -------------------------------------------------------------------


class LowerScores(Protocol):
    """Keeps what the `layers` lowest, frozen layers give for each batch of one set of texts."""

    @property
    def layers(self) -> int:
        """How many of the lowest layers."""
        ...

    def states(
        self, i: int, batch: Batch, below: Callable[[Batch, int], torch.Tensor]
    ) -> torch.Tensor:
        """Of batch `i`: kept, or what `below(batch, layers)` gives."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """A classifier cut between two layers: above(below(batch, n), batch, n) are its logits.

    Bit for bit, at any n. After all layers, `below` gives the first tokens alone, (b, 1, width).
    """

    below: Callable[[Batch, int], torch.Tensor]
    above: Callable[[torch.Tensor, Batch, int], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What `scores` runs. `engine` is "fast", "packed" or "plain", `why` says why it is plain.

    `merged`: whether an adapter was merged into the copy that is run. `precision`: what its layers
    compute in.
    """

    compute: Callable[[Batch, torch.device], torch.Tensor]
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
        lower: LowerScores | None = None,
    ) -> NDArray[np.float32]:
        """Rows (n, width) of all texts in their order; `width` is needed only where n may be 0.

        `lower` keeps what frozen layers give for these texts, where the model has `halves`.
        """
        rows = batches(encoded.lengths, batch_size, self.where)
        out: list[NDArray[np.float32]] = [np.empty((0, width or 0), np.float32)] * len(rows)

        def one(i: int) -> None:
            with torch.inference_mode():
                batch = pad(encoded, rows[i], pad_id)
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
    starts = range(0, max(1, len(texts)), TEXTS_TOKENIZED_AT_A_TIME)
    return np.concatenate([score(texts[i : i + TEXTS_TOKENIZED_AT_A_TIME]) for i in starts])


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
            alike = int(np.searchsorted(-n[start:end], -_ALIKE_LENGTH * longest, side="right"))
            end = min(end, max(enough, start + alike))
        out.append(order[start:end])
        start = end
    return out


def prepare(model: Any, *, merge: bool = True, precision: str = "auto") -> Prepared:
    """Make a classifier ready: logits (b, n_classes). `model` itself is not changed.

    `merge=False` runs an adapter beside its weights. A quantised base is never merged into.
    `precision` (PRECISIONS) is what layers compute in, but for those with an adapter beside them.
    """
    prepared = _prepared(model, merge, Format.of(precision))
    inner = anatomy.classifier_in(model)
    if anatomy.is_quantised(inner):
        return replace(prepared, precision="as its base was loaded")
    return prepared


def _prepared(model: Any, merge: bool, form: Format) -> Prepared:
    where = next(model.parameters()).device
    plain, leaks = plain_scorer(model, where)
    peft = getattr(model, "active_peft_config", None)
    if peft is not None and (peft.is_prompt_learning or (leaks and company.may_mix_texts(model))):
        why = "its adapter adds tokens" if peft.is_prompt_learning else "its adapter mixes texts"
        return Prepared(plain, where, "plain", _and(why, leaks), False, False)
    whole = _merged_copy(model) if merge and peft is not None else None
    inner = whole or anatomy.classifier_in(model)
    bare = peft is None or whole is not None
    if bare and not anatomy.has_fast_scoring(inner) and _can_be_packed(inner, where):
        with suppress(NotAsShippedError):
            packed = _Packed(whole or _twin(inner), form.dtype)
            _check_inputs(packed, model, where, form.dtype)
            return Prepared(
                packed, where, "packed", None, whole is not None, False, str(form.dtype)[6:]
            )
    try:
        own = replace(form, takes=whole is not None)
        encoder = _encoder(anatomy.encoder_in(inner), own)
        run = partial(_logits, inner, encoder)
        _check_inputs(run, model, where, form.dtype)
    except NotAsShippedError as e:
        why = str(e)
    else:
        halves = Halves(partial(_below, encoder, where), partial(_above, inner, encoder))
        return Prepared(
            run,
            where,
            "fast",
            None,
            whole is not None,
            bare and where.type == "cpu",
            form.used(encoder.layers),
            halves,
        )
    try:
        whole = (
            _merged_copy(model) if whole is not None else None
        )  # its weights may have been taken
        if whole is not None:
            _check_inputs(partial(_plain_scorer, whole), model, where, torch.float32)
            plain_whole, leaks = plain_scorer(whole, where)
            return Prepared(plain_whole, where, "plain", _and(why, leaks), True, False)
    except NotAsShippedError:
        pass
    return Prepared(plain, where, "plain", _and(why, leaks), False, False)


def _and(why: str, leaks: bool) -> str:
    return f"{why}; {company.PADDING_CHANGES}" if leaks else why


def plain_scorer(
    model: Any, where: torch.device
) -> tuple[Callable[[Batch, torch.device], torch.Tensor], bool]:
    """A classifier as it is, and whether it is run on texts of one length at a time.

    Raises ModelError where a text's scores depend on others even then.
    """
    return _alone_in_company(model, partial(_plain_scorer, model), where)


def _alone_in_company(
    model: Any, plain: Callable[[Batch, torch.device], torch.Tensor], where: torch.device
) -> tuple[Callable[[Batch, torch.device], torch.Tensor], bool]:
    if not company.needs_one_length(model, lambda batch: plain(batch, where)):
        return plain, False

    def apart(batch: Batch, where: torch.device) -> torch.Tensor:
        return company.by_length(lambda some: plain(some, where))(batch)

    return apart, True


def prepare_encoder(model: Any, pooling: str) -> Prepared:
    """Make a bare encoder ready: vectors (b, width), of the first token or the mean of all."""
    where = next(model.parameters()).device
    first = pooling == "cls"
    try:
        run = partial(_vectors, _encoder(model, Format.of("float32")), first)
    except NotAsShippedError as e:
        plain, leaks = _alone_in_company(model, partial(_plain_vectors, model, first), where)
        return Prepared(plain, where, "plain", _and(str(e), leaks), False, False)
    return Prepared(run, where, "fast", None, False, where.type == "cpu")


def fingerprint(model: Any) -> tuple[Any, ...]:
    """Something that changes when what `prepare` made no longer says what the model says."""
    # Asked for with each text: torch's own walk would make up a name for everything.
    marks: list[Any] = [id(model)]
    waiting, seen = [model], set[int]()
    while waiting:
        m = waiting.pop()
        if id(m) in seen:
            continue
        seen.add(id(m))
        # Not asked of a module itself, which looks for what it has not everywhere.
        own, kind = m.__dict__, type(m)
        marks += [(p.data_ptr(), p._version) for p in own["_parameters"].values() if p is not None]
        if hasattr(kind, "merged_adapters") and hasattr(kind, "disable_adapters"):
            marks.append((tuple(m.active_adapters), tuple(m.merged_adapters), m.disable_adapters))
        waiting += [child for child in own["_modules"].values() if child is not None]
    return tuple(marks)


def _encoder(model: Any, form: Format) -> Encoder:
    family = anatomy.family_in(model)
    if family is None or not family.anatomy.has_fast_scoring:
        raise NotAsShippedError(f"{model.config.model_type} has no fast path")
    return Encoder(model, family.anatomy, layers_of(model, family, form), form)


def _merged_copy(model: Any) -> Any:
    """A copy with the adapter merged in; None where it cannot be, or the base is quantised.

    What is not adapted is shared with the model, not copied.
    """
    if anatomy.is_quantised(anatomy.classifier_in(model)):
        return None
    try:
        with pretrained.quiet(), torch.no_grad():
            return pretrained.merged(_twin(model, own=".base_layer.")).eval()
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
    return may and why_not_packed(model) is None


def _check_inputs(run: Any, model: Any, where: torch.device, dtype: torch.dtype) -> None:
    """Two short texts both ways: what peft or a user did to the model may be unknown to us."""
    plain = partial(_plain_scorer, model)
    config = model.config
    ends = (company.last_token(config, 7), company.last_token(config, 9))
    ids = np.asarray([[5, 6, ends[0]], [8, ends[1], config.pad_token_id or 0]])
    batch = Batch(np.arange(2), ids, np.asarray([[1, 1, 1], [1, 1, 0]]))
    with torch.inference_mode():
        ours, theirs = run(batch, where).float(), plain(batch, where).float()
    limit = _AGREE if dtype == torch.float32 else 0.1
    if not bool(((ours - theirs).abs() <= limit * (1 + theirs.abs().max())).all()):
        raise NotAsShippedError("it computes something else than its layers say")


# --- what is run ----------------------------------------------------------------------------


class _Packed:
    """A classifier of our own, computed without padding (`packed.Packed`), one batch at a time."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self._packed = Packed(model, dtype)
        self._alone = threading.Lock()
        # For as long as this lives: what is prepared for it is prepared once.
        installed = ExitStack()
        installed.enter_context(self._packed.installed())
        weakref.finalize(self, installed.close)

    def __call__(self, batch: Batch, where: torch.device) -> torch.Tensor:
        n = np.maximum(batch.attention_mask.sum(axis=1), 1)
        texts = Encoded(tuple(ids[:k] for ids, k in zip(batch.input_ids, n, strict=True)))
        with self._alone:
            return self._packed(texts, np.arange(len(texts)))[0]


def _placed(batch: Batch, where: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    ids = torch.from_numpy(batch.input_ids).to(where, non_blocking=True)
    if batch.attention_mask.all():
        return ids, None
    lengths = np.maximum(batch.attention_mask.sum(axis=1), 1)
    return ids, torch.from_numpy(lengths).to(where, non_blocking=True)


def _logits(model: Any, encoder: Encoder, batch: Batch, where: torch.device) -> torch.Tensor:
    first = encoder(*_placed(batch, where), first_only=True)
    return anatomy.logits_of(encoder.anatomy, model, first)


def _below(encoder: Encoder, where: torch.device, batch: Batch, layers: int) -> torch.Tensor:
    return encoder.below(*_placed(batch, where), layers, first_only=True)


def _above(
    model: Any, encoder: Encoder, states: torch.Tensor, batch: Batch, layers: int
) -> torch.Tensor:
    _, lengths = _placed(batch, states.device)
    first = encoder.above(states, lengths, layers, first_only=True).float()
    return anatomy.logits_of(encoder.anatomy, model, first)


def _vectors(encoder: Encoder, first: bool, batch: Batch, where: torch.device) -> torch.Tensor:
    return _pooled(encoder(*_placed(batch, where), first_only=first), first, batch)


def _plain_scorer(model: Any, batch: Batch, where: torch.device) -> torch.Tensor:
    logits: torch.Tensor = model(**_inputs(batch, where)).logits
    return logits


def _plain_vectors(model: Any, first: bool, batch: Batch, where: torch.device) -> torch.Tensor:
    return _pooled(model(**_inputs(batch, where)).last_hidden_state, first, batch)


def _inputs(batch: Batch, where: torch.device) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.from_numpy(batch.input_ids).to(where, non_blocking=True),
        "attention_mask": torch.from_numpy(batch.attention_mask).to(where, non_blocking=True),
    }


def _pooled(hidden: torch.Tensor, first: bool, batch: Batch) -> torch.Tensor:
    if first:
        return hidden[:, 0]
    mask = torch.from_numpy(batch.attention_mask).to(hidden.device)
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)
