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
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from tunelab.models import anatomy, company, pretrained
from tunelab.models.batches import Batch, Encoded
from tunelab.models.packed import Packed, why_not_packed
from tunelab.models.scoring_batches import (
    PRECISIONS,
    TEXTS_TOKENIZED_AT_A_TIME,
    TOKENS,
    TOKENS_ON_A_CARD,
    Halves,
    LowerScores,
    Prepared,
    batches,
    placed,
    texts_in_windows,
)
from tunelab.models.scoring_layers import Encoder, Format, NotAsShippedError, layers_of

__all__ = [
    "PRECISIONS",
    "TOKENS",
    "TOKENS_ON_A_CARD",
    "TEXTS_TOKENIZED_AT_A_TIME",
    "Halves",
    "LowerScores",
    "Prepared",
    "agrees",
    "batches",
    "fingerprint",
    "placed",
    "plain_scorer",
    "pooled",
    "prepare",
    "prepare_encoder",
    "texts_in_windows",
    "twin",
]


# Merged or not, float32 differs by rounding alone; more means that something was not understood.
_AGREE = 1e-3


# --- making a model ready -------------------------------------------------------------------


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
            packed = _Packed(whole or twin(inner), form.dtype)
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
    """Make a bare encoder ready: vectors (b, width of the pooling) as `pooled` gives them."""
    where = next(model.parameters()).device
    try:
        run = partial(_vectors, _encoder(model, Format.of("float32")), pooling)
    except NotAsShippedError as e:
        plain, leaks = _alone_in_company(model, partial(_plain_vectors, model, pooling), where)
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
            return pretrained.merged(twin(model, own=".base_layer.")).eval()
    except (AttributeError, NotImplementedError, ValueError, RuntimeError, TypeError):
        return None


def twin(model: Any, own: str | None = None) -> Any:
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
    """What peft or a user did to the model may be unknown to us."""
    if not agrees(run, model, where, dtype):
        raise NotAsShippedError("it computes something else than its layers say")


def agrees(run: Any, model: Any, where: torch.device, dtype: torch.dtype) -> bool:
    """Whether two short texts score the same both ways, to what rounding in `dtype` leaves."""
    plain, config = partial(_plain_scorer, model), model.config
    ends = (company.last_token(config, 7), company.last_token(config, 9))
    ids = np.asarray([[5, 6, ends[0]], [8, ends[1], config.pad_token_id or 0]])
    batch = Batch(np.arange(2), ids, np.asarray([[1, 1, 1], [1, 1, 0]]))
    with torch.inference_mode():
        ours, theirs = run(batch, where).float(), plain(batch, where).float()
    limit = _AGREE if dtype == torch.float32 else 0.1
    return bool(((ours - theirs).abs() <= limit * (1 + theirs.abs().max())).all())


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


def _logits(model: Any, encoder: Encoder, batch: Batch, where: torch.device) -> torch.Tensor:
    first = encoder(*placed(batch, where), first_only=True)
    return anatomy.logits_of(encoder.anatomy, model, first)


def _below(encoder: Encoder, where: torch.device, batch: Batch, layers: int) -> torch.Tensor:
    return encoder.below(*placed(batch, where), layers, first_only=True)


def _above(
    model: Any, encoder: Encoder, states: torch.Tensor, batch: Batch, layers: int
) -> torch.Tensor:
    _, lengths = placed(batch, states.device)
    first = encoder.above(states, lengths, layers, first_only=True).float()
    return anatomy.logits_of(encoder.anatomy, model, first)


def pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """(b, t, width) of each token -> (b, width) of each text; `mask` (b, t) is 1 where a token is.

    "cls": the first token's; "mean": the mean of all (Reimers & Gurevych 2019); "last": the last
    token's; several, joined by +: side by side.
    """
    parts = []
    for part in pooling.split("+"):
        if part == "cls":
            parts.append(hidden[:, 0])
            continue
        of_tokens = mask
        if part == "last":  # the one behind which no token is
            of_tokens = mask * (mask.flip(1).cumsum(1).flip(1) == 1)
        weight = of_tokens.unsqueeze(-1).to(hidden.dtype)
        parts.append((hidden * weight).sum(1) / weight.sum(1))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _vectors(encoder: Encoder, pooling: str, batch: Batch, where: torch.device) -> torch.Tensor:
    hidden = encoder(*placed(batch, where), first_only=pooling == "cls")
    return pooled(hidden, torch.from_numpy(batch.attention_mask).to(hidden.device), pooling)


def _plain_scorer(model: Any, batch: Batch, where: torch.device) -> torch.Tensor:
    logits: torch.Tensor = model(**_inputs(batch, where)).logits
    return logits


def _plain_vectors(model: Any, pooling: str, batch: Batch, where: torch.device) -> torch.Tensor:
    inputs = _inputs(batch, where)
    return pooled(model(**inputs).last_hidden_state, inputs["attention_mask"], pooling)


def _inputs(batch: Batch, where: torch.device) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.from_numpy(batch.input_ids).to(where, non_blocking=True),
        "attention_mask": torch.from_numpy(batch.attention_mask).to(where, non_blocking=True),
    }
