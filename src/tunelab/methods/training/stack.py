"""Several LoRA trainings of one base in one pass: the base is computed once for all of them.

Batches of a small model do not fill a card. A stack puts the batches of K trainings, each with its
own rows, adapter, head, dropout masks, optimizer and schedule, end to end into one packed row; the
frozen layers see one long row, each adapter its own tokens, each head its own texts. What each
training gives equals what it gives alone (tests/reference/methods/test_stacking.py): `loop.drive`
drives both, only the engine differs. In the manner of PLoRA (Yan et al. 2025) and ALTO; HFTA (Wang
et al. 2021) fuses whole models the same way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from tunelab.kernels import library, precision
from tunelab.methods.training import loop
from tunelab.methods.training.engine import (
    Engine,
    RowsToCompute,
    bounded,
    choose_engine,
    number_format,
)
from tunelab.methods.training.loop import Training
from tunelab.models.many import Stacked, why_no_shared_base, why_no_stack

__all__ = [
    "run_trainings",
    "shared_engine",
    "why_not_stacked",
]


# --- driving --------------------------------------------------------------------------------


def run_trainings(trainings: Sequence[Training], stack_size: int = 1) -> Iterator[Training]:
    """Drive trainings to their ends, in one pass where they can share it; gives each once it ended.

    Those that cannot share a row are driven one after the other, and their results say why.
    `stack_size`: how many were to share one, where some failed before they could.
    """
    if stack_size <= 1 and len(trainings) == 1:
        yield from _by_itself(trainings[0], None)
        return
    why = why_not_stacked([t.model for t in trainings], [t.settings for t in trainings])
    if why is None:
        yield from loop.drive(trainings, shared_engine(trainings))
        return
    failed: Exception | None = None
    for t in trainings:
        try:
            yield from _by_itself(t, why)
        except Exception as e:  # the others are trained first; then whoever drives them hears it
            failed = failed or e
    if failed is not None:
        raise failed


def _by_itself(training: Training, why: str | None) -> Iterator[Training]:
    t = training
    with t.failing_alone():
        engine = choose_engine(t.model, t.pad_id, t.settings, t.seeds.dropout, t.training_texts)
    if t.ended:
        yield t
    else:
        yield from loop.drive([t], replace(engine, stack_reason=why))


def shared_engine(trainings: Sequence[Training]) -> Engine:
    """Computes the rows of all of them in one row of tokens."""
    make = partial(_shared_in, trainings)
    return bounded(make, trainings[0].settings, [(t.model, t.training_texts) for t in trainings])


def _shared_in(trainings: Sequence[Training], asked: str) -> Engine:
    model = trainings[0].model
    where = next(model.parameters()).device
    chosen, reason, route = number_format(model, asked, where, packed=True)
    stack = Stacked(
        [t.model for t in trainings],
        getattr(torch, chosen),
        [t.seeds.dropout for t in trainings],
    )
    clock = _Clock()

    def compute(asked: Mapping[int, RowsToCompute]) -> dict[int, tuple[torch.Tensor, int]]:
        clock.shared_by(len(asked))
        return stack({k: (a.encoded, a.rows) for k, a in asked.items()})

    @contextmanager
    def installed() -> Iterator[None]:
        with stack.installed(), precision.float32_route(route):
            yield

    # No kernels of whole layers: those with several adapters are not fused.
    built = library.built(torch.float32)
    size = len(trainings)
    return Engine("packed", None, chosen, reason, built, compute, installed, clock, size)


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


def why_not_stacked(models: Sequence[Any], settings: Sequence[Any] = ()) -> str | None:
    """Say why these cannot share a row; None where they can.

    What differs may be ranks, scales, dropout and places of LoRA's adapters, and the heads.
    """
    if len(models) < 2:
        return "there is nothing to share it with"
    return next((why for why in _reasons_against(models, settings) if why is not None), None)


def _reasons_against(models: Sequence[Any], settings: Sequence[Any]) -> Iterator[str | None]:
    for model in models:
        yield why_no_stack(model)
    for s in settings:
        if s.gradient_checkpointing or s.engine == "plain":
            yield "the plain engine was asked for"
        if not getattr(s, "frozen_dropout", True):
            yield "frozen layers without dropout are computed apart (frozen_dropout: false)"
        if s.precision != settings[0].precision:
            yield "they are trained in different precisions"
    for model in models:
        yield why_no_shared_base(model, models[0])
