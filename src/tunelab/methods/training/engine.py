"""Engines: how a batch becomes logits - packed, on kernels, or plain - and the number format."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tunelab.core.errors import TrialError
from tunelab.kernels import library, precision
from tunelab.methods.settings import TrainingSettings
from tunelab.models import batches, company
from tunelab.models.batches import Encoded
from tunelab.models.packed import Packed, why_float32, why_not_packed

__all__ = [
    "Calculate",
    "Engine",
    "MOST_ROUNDING",
    "RowsToCompute",
    "bounded",
    "choose_engine",
    "difference_from_float32",
    "forward",
    "number_format",
    "scored_in",
]


# The farthest that logits may be from exact float32 where `auto` took another format, as a share,
# and the texts that say so. MiniLM in bfloat16 is 0.5% off.
MOST_ROUNDING, _TEXTS_COMPARED = 0.05, 8


@dataclass(frozen=True, slots=True, eq=False)
class RowsToCompute:
    """One training's share of a forward pass: the texts of these row numbers.

    Where the lowest layers were computed before (`frozen`), `entering` is what enters the layer
    above the `layers` lowest: (tokens, width), or (rows, width) above all of them.
    """

    encoded: Encoded
    rows: NDArray[np.int64]
    layers: int = 0
    entering: torch.Tensor | None = None


# {place of a training: what it asks} -> {its place: logits (rows, n_classes), tokens computed}
Calculate = Callable[[Mapping[int, RowsToCompute]], dict[int, tuple[torch.Tensor, int]]]


@dataclass(frozen=True, slots=True)
class Engine:
    """How batches are computed, for one training or for several that share each pass.

    `name` (packed or plain) and, where it is not packed, why; the type of activations and frozen
    weights, and why that one; `rounding`: how far that moves logits (`difference_from_float32`);
    `kernels`, compiled (and for what) or torch's own; `stack`: so many trainings share each pass,
    or why they do not. `compute` works while `installed`. `clock`: the seconds that count as each
    training's. `packed`: what computes one training, where that is packed.
    """

    name: str
    reason: str | None
    precision: str
    precision_reason: str
    kernels: str
    compute: Calculate
    installed: Callable[[], AbstractContextManager[None]]
    clock: Callable[[], float] = time.perf_counter
    stack: int | None = None
    stack_reason: str | None = None
    rounding: float | None = None
    # What the lowest layers give (packed.Packed.below), where they can be computed apart, and the
    # route of its products.
    below: Callable[[Encoded, NDArray[np.int64], int], torch.Tensor] | None = None
    route: str = "mkl"
    packed: Packed | None = None

    @property
    def in_words(self) -> str:
        """What bits depend on, in a line."""
        return f"engine ({self.name}, {self.precision}, {self.kernels}, {self.route})"


def choose_engine(
    model: nn.Module,
    pad_id: int,
    settings: TrainingSettings,
    seed: int = 0,
    texts: Encoded | None = None,
) -> Engine:
    """Packed where the model can, in the fastest number format that it and the machine allow.

    `seed` decides the packed engine's dropout masks. With `texts`, the first of them say how far
    the format is from exact float32 (`bounded`). Raises TrialError for a precision that this
    machine does not have.
    """

    def make(asked: str) -> Engine:
        return _engine_in(model, pad_id, settings, asked, seed)

    return make(settings.precision) if texts is None else bounded(make, settings, [(model, texts)])


def bounded(
    make: Callable[[str], Engine],
    settings: TrainingSettings,
    trained: Sequence[tuple[nn.Module, Encoded]],
) -> Engine:
    """What `make` gives for the precision of `settings`, with its difference from exact float32 on
    texts that each of its models is `trained` on; in float32, where that is beyond MOST_ROUNDING
    and nobody asked for the format.
    """
    asked = settings.precision
    engine = make(asked)
    if engine.precision == "float32":
        return engine
    rounding = difference_from_float32(engine, trained)
    if asked != "auto" or rounding <= MOST_ROUNDING:
        return replace(make(asked), rounding=rounding)  # anew: masks are counted from the first
    why = f"logits in {engine.precision} are {rounding:.1%} off exact float32"
    return replace(make("float32"), precision_reason=why)


def difference_from_float32(engine: Engine, trained: Sequence[tuple[nn.Module, Encoded]]) -> float:
    """How far the logits of each model's first texts are from its own in exact float32, without
    dropout: the largest norm of a difference, as a share of the norm of the exact ones.
    """
    before = [model.training for model, _ in trained]
    rows = [np.arange(min(_TEXTS_COMPARED, len(texts))) for _, texts in trained]
    asked = {k: RowsToCompute(t, rows[k]) for k, (_, t) in enumerate(trained)}
    try:
        for model, _ in trained:
            model.eval()
        with torch.no_grad():
            exact = [_each_alone(model, texts, rows[k]) for k, (model, texts) in enumerate(trained)]
            with engine.installed():
                ours = engine.compute(asked)
    finally:
        for (model, _), training in zip(trained, before, strict=True):
            model.train(training)
    return max(
        float((ours[k][0].float() - whole).norm() / whole.norm().clamp_min(1e-30))
        for k, whole in enumerate(exact)
    )


def _each_alone(model: nn.Module, texts: Encoded, rows: NDArray[np.int64]) -> torch.Tensor:
    """Logits of texts one by one, which no padding can change."""
    where = next(model.parameters()).device
    return torch.cat([forward(model, batches.pad(texts, rows[i : i + 1], 0), where) for i in rows])


def _engine_in(
    model: nn.Module, pad_id: int, settings: TrainingSettings, asked: str, seed: int
) -> Engine:
    reason = why_not_packed(model)
    if settings.gradient_checkpointing:
        reason = "gradient checkpointing recomputes through the plain path"
    if settings.engine == "plain":
        reason = "engine: plain was asked for"
    where = next(model.parameters()).device
    chosen, why, route = number_format(model, asked, where, packed=reason is None)
    dtype = getattr(torch, chosen)
    narrow = torch.autocast(where.type, dtype, enabled=dtype != torch.float32)
    if reason is not None:
        compute, leaks = _plainly(model, pad_id, where, narrow)
        if leaks:
            reason = f"{reason}; {company.PADDING_CHANGES}"
        return Engine("plain", reason, chosen, why, "torch", compute, nullcontext)
    if why_float32(model) is not None:  # autocast narrows what can be narrowed
        packed = Packed(model, torch.float32, seed)
        return Engine(
            "packed",
            None,
            chosen,
            why,
            library.built(torch.float32),
            _packed(packed, narrow),
            packed.installed,
            below=_inside(narrow, packed.below),
            route=f"autocast {chosen}",
            packed=packed,
        )
    packed = Packed(model, dtype, seed)

    @contextmanager
    def installed() -> Iterator[None]:
        with packed.installed(), precision.float32_route(route):
            yield

    return Engine(
        "packed",
        None,
        chosen,
        why,
        library.built(dtype),
        _packed(packed, nullcontext()),
        installed,
        below=packed.below,
        route=route,
        packed=packed,
    )


def _packed(packed: Packed, within: AbstractContextManager[Any]) -> Calculate:
    """Rows of one training as a packed row, from the layer that they enter."""

    def compute(
        asked: Mapping[int, RowsToCompute],
    ) -> dict[int, tuple[torch.Tensor, int]]:
        with within:
            return {
                k: packed(a.encoded, a.rows)
                if a.entering is None
                else packed.above(a.encoded, a.rows, a.layers, a.entering)
                for k, a in asked.items()
            }

    return compute


def _plainly(
    model: nn.Module, pad_id: int, where: torch.device, within: AbstractContextManager[Any]
) -> tuple[Calculate, bool]:
    """Rows of one training side by side through the model as it is, padded where that changes
    nothing; else length by length, and True.
    """
    rows_of: company.Rows = partial(forward, model, where=where)
    leaks = company.needs_one_length(model, rows_of)
    logits_of = company.by_length(rows_of) if leaks else rows_of

    def compute(
        asked: Mapping[int, RowsToCompute],
    ) -> dict[int, tuple[torch.Tensor, int]]:
        computed = {}
        for k, a in asked.items():
            batch = batches.pad(a.encoded, a.rows, pad_id)
            with within:
                size = a.encoded.lengths_of(a.rows).sum() if leaks else batch.input_ids.size
                computed[k] = logits_of(batch), int(size)
        return computed

    return compute, leaks


def _inside(
    context: AbstractContextManager[Any], compute: Callable[..., torch.Tensor]
) -> Callable[..., torch.Tensor]:
    def inside(*given: Any) -> torch.Tensor:
        with context:
            return compute(*given)

    return inside


def number_format(
    model: nn.Module, asked: str, where: torch.device, *, packed: bool
) -> tuple[str, str, str]:
    """The number format, why, and the route of float32 products (see `precision`)."""
    if asked == "float16" and where.type == "cpu":
        raise TrialError(
            "precision: float16 needs a GPU, found a processor. Use auto, bfloat16 or float32."
        )
    if asked != "auto":
        return asked, "asked for", "mkl"
    if where.type == "cuda":
        able = torch.cuda.is_bf16_supported()
        return (
            ("bfloat16", "the GPU has it", "mkl")
            if able
            else ("float32", "the GPU has no bfloat16", "mkl")
        )
    if not packed:
        return "float32", "the plain engine computes in float32", "mkl"
    choice = precision.choose()
    reason = why_float32(model)
    if choice.dtype == "bfloat16" and reason is not None:
        return "float32", reason, choice.route
    return choice.dtype, choice.reason, choice.route


def forward(model: nn.Module, batch: batches.Batch, where: torch.device) -> torch.Tensor:
    """Logits (b, n_classes) of a padded batch, in float32."""
    out = model(
        input_ids=torch.from_numpy(batch.input_ids).to(where, non_blocking=True),
        attention_mask=torch.from_numpy(batch.attention_mask).to(where, non_blocking=True),
    )
    logits: torch.Tensor = out.logits
    return logits.float()


def scored_in(settings: TrainingSettings) -> str:
    """What a model trained so is scored in (scoring.PRECISIONS): never bfloat16."""
    return "float32" if settings.precision == "float32" else "auto"
