"""The one training loop; it knows no method by name.

May import: batching, frozen, inference, kernels, metrics, models, optim, packing, precision,
settings, types, errors. May not import: methods, trial.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from tunelab import batching, frozen, inference, kernels, metrics, packing
from tunelab import precision as precisions
from tunelab.batching import Encoded
from tunelab.errors import TrialError
from tunelab.optim import AdamW
from tunelab.settings import TrainingSettings
from tunelab.types import Predictions, Seeds

__all__ = [
    "Ask",
    "Backward",
    "Compute",
    "Engine",
    "Fitted",
    "Hooks",
    "Join",
    "OnStep",
    "TrainingData",
    "Turn",
    "alone",
    "choose_engine",
    "fit",
    "number_format",
    "training",
]

T = TypeVar("T")
OnStep = Callable[[Mapping[str, Any]], None]
# (texts, row numbers) -> logits (rows, n_classes) and how many tokens were computed
Calculate = Callable[[Encoded, NDArray[np.int64]], tuple[torch.Tensor, int]]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a method changes in the loop: `rate(name)`, the factor of a parameter's learning rate;
    `penalty()`, a term added to each step's loss; `after_step()`, called after each optimizer step
    while the gradients are still there.
    """

    rate: Callable[[str], float] | None = None
    penalty: Callable[[], torch.Tensor] | None = None
    after_step: Callable[[], None] | None = None


# (model, settings, number of steps) -> hooks
MakeHooks = Callable[[Any, Any, int], Hooks]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """Tokenized texts with their labels (n,) and row ids."""

    encoded: Encoded
    labels: NDArray[np.int64]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What training gave: `history` (rows for history.jsonl), the epoch whose weights were kept,
    seconds of training without evaluation, the share of computed tokens that were padding, and how
    it was computed. `frozen`: the layers below all that learn, where there are any: how many,
    whether they drop, and whether they were computed once or in each step, and why. Seconds count
    what computing them once took, also when another trial did, whose peak of memory above what it
    held is `peak_memory_bytes` then. `validation` is the best epoch's logits; `prepared` what
    computed them, where that epoch was the last.
    """

    history: tuple[dict[str, float], ...]
    best_epoch: int
    epochs: int
    steps: int
    train_seconds: float
    padding: float
    engine: Engine
    frozen: dict[str, Any] | None
    peak_memory_bytes: int | None
    validation: NDArray[np.float64]
    prepared: inference.Prepared | None = None


# --- what a training asks for ---------------------------------------------------------------
#
# A training is a generator: it asks, and whoever drives it answers. `alone` drives one; several are
# driven together in `stacking`, which answers them all from one forward and one backward pass.


@dataclass(frozen=True, slots=True, eq=False)
class Join:
    """Asks for an Engine that computes batches of `model`. The first thing that is asked."""

    model: nn.Module
    pad_id: int
    settings: TrainingSettings
    seed: int


@dataclass(frozen=True, slots=True)
class Turn:
    """Says that training goes on, or that it rests for an evaluation. Answered with None."""

    training: bool


@dataclass(frozen=True, slots=True, eq=False)
class Compute:
    """Asks for the logits (rows, n_classes) of some rows and how many tokens were computed."""

    encoded: Encoded
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Backward:
    """Asks for the gradients of `loss`, which may be scaled, and for `value` as a number."""

    loss: torch.Tensor
    value: torch.Tensor


Ask = Join | Turn | Compute | Backward


def alone(
    asks: Generator[Ask, Any, T], first: Ask | None = None, engine: Engine | None = None
) -> T:
    """Drive one training to its end and give what it returns.

    `first`: what it has asked already, where it was begun elsewhere. `engine`: of one that joined.
    """
    answer: Any = None
    with ExitStack() as inside:
        while True:
            try:
                ask, first = first or asks.send(answer), None
            except StopIteration as end:
                done: T = end.value
                return done
            answer = None
            if isinstance(ask, Join):
                answer = engine = choose_engine(ask.model, ask.pad_id, ask.settings, ask.seed)
                continue
            assert engine is not None  # noqa: S101  every training joins first
            if isinstance(ask, Compute):
                answer = engine.compute(ask.encoded, ask.rows)
            elif isinstance(ask, Backward):
                ask.loss.backward()  # type: ignore[no-untyped-call]
                answer = float(ask.value)
            elif ask.training:
                inside.enter_context(engine.installed())
            else:
                inside.close()


def fit(model: nn.Module, **arguments: Any) -> Fitted:
    """Train by itself what requires a gradient: `training`, driven to its end."""
    return alone(training(model, **arguments))


def training(
    model: nn.Module,
    *,
    pad_id: int,
    train: TrainingData,
    validation: TrainingData,
    settings: TrainingSettings,
    seeds: Seeds,
    on_step: OnStep,
    hooks: MakeHooks | None = None,
) -> Generator[Ask, Any, Fitted]:
    """Train what requires a gradient, keep the epoch that is best on validation.

    AdamW (Loshchilov & Hutter 2019), linear warm-up, batches of like length. The model is changed
    in place and left in evaluation mode with the best epoch's weights. Raises TrialError where the
    loss is no longer finite.
    """
    lengths = train.encoded.lengths
    rows_per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    steps_per_epoch = math.ceil(len(lengths) / rows_per_step)
    steps = steps_per_epoch * settings.num_train_epochs
    engine: Engine = yield Join(model, pad_id, settings, seeds.dropout)
    every = max(1, steps_per_epoch // 20)
    log = _Log(on_step, every, steps, rows=len(lengths), clock=engine.clock)
    own = hooks(model, settings, steps) if hooks else Hooks()
    low = _Lowest(model, engine, train.encoded, validation.encoded, settings)
    step_once = _stepper(model, engine, train, settings, low, steps=steps, hooks=own)
    kernels.keep_memory()
    order = np.random.default_rng(seeds.order)
    torch.manual_seed(seeds.dropout)

    best_value, best_epoch = -math.inf, 0
    best_state: dict[str, torch.Tensor] = {}
    best_logits = np.empty((0, 0))
    prepared: inference.Prepared | None = None
    with low:
        for epoch in range(1, settings.num_train_epochs + 1):
            prepared = None  # its copy of the weights is not needed while training goes on
            yield Turn(training=True)
            model.train()
            low.still()
            log.start()
            for rows in batching.train_batches(lengths, rows_per_step, order):
                log.step(len(rows), *(yield from step_once(rows)))
            log.pause()

            yield Turn(training=False)
            with low.scored() as lower:
                prepared = _prepared(model, settings)
                logits = _logits(prepared, validation.encoded, pad_id, settings, lower)
            scores = _scores(logits, validation, settings)
            log.evaluated(epoch, scores)
            chosen = settings.metric_for_best_model
            if f"eval_{chosen}" not in scores:
                raise TrialError(
                    f"metric_for_best_model: {chosen} has no value on the validation part, which "
                    f"has {len(np.unique(validation.labels))} of the {logits.shape[1]} classes. "
                    "Use accuracy or loss, or validate on rows of every class."
                )
            # A lower loss is better; every other choice is a score where higher is better.
            value = -scores["eval_loss"] if chosen == "loss" else scores[f"eval_{chosen}"]
            if value > best_value:
                best_value, best_epoch, best_logits = value, epoch, logits
                best_state = {}  # not both at a time
                best_state = {n: p.detach().clone() for n, p in _trainable(model)}
            patience = settings.early_stopping_patience
            if patience is not None and epoch - best_epoch >= patience:
                break

    if best_epoch != epoch:
        prepared = None
        with torch.no_grad():
            for name, p in _trainable(model):
                p.copy_(best_state[name])
    model.eval()
    padding = 1 - int(lengths.sum()) * epoch / log.tokens
    return Fitted(
        tuple(log.history), best_epoch, epoch, log.steps_done, log.seconds + low.seconds, padding,
        engine, low.facts(), low.peak_memory_bytes, best_logits, prepared,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Engine:
    """How batches are computed: `name` (packed or plain) and, where it is not packed, why; the type
    of activations and frozen weights, and why that one; `kernels`, compiled (and for what) or
    torch's own; `more` facts of a stack. `clock`: the seconds that count as this training's.
    """

    name: str
    reason: str | None
    precision: str
    precision_reason: str
    kernels: str
    compute: Calculate
    installed: Callable[[], AbstractContextManager[None]]
    clock: Callable[[], float] = time.perf_counter
    more: Mapping[str, Any] = field(default_factory=dict)
    # A forward pass in two parts (packing.Packed.below, .above), and the route of its products.
    below: Callable[[Encoded, NDArray[np.int64], int], torch.Tensor] | None = None
    above: (
        Callable[[Encoded, NDArray[np.int64], int, torch.Tensor], tuple[torch.Tensor, int]] | None
    ) = None
    route: str = "mkl"

    def facts(self) -> dict[str, Any]:
        """For the trial's result."""
        return {
            **self.more,
            "engine": self.name,
            "engine_reason": self.reason,
            "precision": self.precision,
            "precision_reason": self.precision_reason,
            "kernels": self.kernels,
        }


def choose_engine(
    model: nn.Module, pad_id: int, settings: TrainingSettings, seed: int = 0
) -> Engine:
    """Packed where the model can, in the fastest number format that it and the machine allow.

    `seed` decides the packed engine's dropout masks. Raises TrialError for a precision that this
    machine does not have.
    """
    reason = packing.why_not(model)
    if settings.gradient_checkpointing:
        reason = "gradient checkpointing recomputes through the plain path"
    if settings.engine == "plain":
        reason = "engine: plain was asked for"
    where = next(model.parameters()).device
    chosen, why, route = number_format(model, settings.precision, where, packed=reason is None)
    dtype = getattr(torch, chosen)
    if reason is None and packing.why_float32(model) is None:
        packed = packing.Packed(model, dtype, seed)

        @contextmanager
        def installed() -> Iterator[None]:
            with packed.installed(), precisions.float32_route(route):
                yield

        return Engine(
            "packed", None, chosen, why, kernels.built(dtype), packed, installed,
            below=packed.below, above=packed.above, route=route,
        )  # fmt: skip

    narrow = torch.autocast(where.type, dtype, enabled=dtype != torch.float32)
    if reason is None:
        packed = packing.Packed(model, torch.float32, seed)

        def within(run: Callable[..., Any]) -> Callable[..., Any]:
            def compute(*given: Any) -> Any:
                with narrow:
                    return run(*given)

            return compute

        return Engine(
            "packed", None, chosen, why, kernels.built(torch.float32), within(packed),
            packed.installed, below=within(packed.below), above=within(packed.above),
            route=f"autocast {chosen}",
        )  # fmt: skip

    def plain(encoded: Encoded, rows: NDArray[np.int64]) -> tuple[torch.Tensor, int]:
        batch = batching.pad(encoded, rows, pad_id)
        with narrow:
            return forward(model, batch, where), batch.input_ids.size

    return Engine("plain", reason, chosen, why, "torch", plain, nullcontext)


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
        return ("bfloat16", "the GPU has it", "mkl") if able else (
            "float32", "the GPU has no bfloat16", "mkl"
        )  # fmt: skip
    if not packed:
        return "float32", "the plain engine computes in float32", "mkl"
    choice = precisions.choose()
    reason = packing.why_float32(model)
    if choice.dtype == "bfloat16" and reason is not None:
        return "float32", reason, choice.route
    return choice.dtype, choice.reason, choice.route


def _stepper(
    model: nn.Module,
    engine: Engine,
    train: TrainingData,
    settings: TrainingSettings,
    low: _Lowest | None = None,
    *,
    steps: int,
    hooks: Hooks,
) -> Callable[[NDArray[np.int64]], Generator[Ask, Any, tuple[float, float, int]]]:
    """One optimizer step on the given rows: returns loss, learning rate and tokens computed.

    `low`: the frozen layers below all that learn, where they are computed apart.
    """
    where = next(model.parameters()).device
    weights = _class_weights(train.labels, settings)
    optimizer = _optimizer(model, settings, hooks)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(settings, steps))
    # float16 loses small gradients unless the loss is scaled up (Micikevicius et al. 2018).
    scaler = torch.amp.GradScaler(where.type, enabled=engine.precision == "float16")

    def step_once(
        rows: NDArray[np.int64],
    ) -> Generator[Ask, Any, tuple[float, float, int]]:
        rate = float(schedule.get_last_lr()[0])
        loss, tokens = 0.0, 0
        # The step's loss is the mean over all its rows, also when the last part is smaller:
        # accumulation gives exactly the gradient of one large batch.
        whole = float(len(rows)) if weights is None else float(weights[train.labels[rows]].sum())
        for part in np.array_split(
            rows, math.ceil(len(rows) / settings.per_device_train_batch_size)
        ):
            above = low.compute(train.encoded, part) if low else None
            logits, computed = above or (yield Compute(train.encoded, part))
            tokens += computed
            share = (
                functional.cross_entropy(
                    logits,
                    torch.from_numpy(train.labels[part]).to(where),
                    weight=None if weights is None else weights.to(where),
                    label_smoothing=settings.label_smoothing_factor,
                    reduction="sum",
                )
                / whole
            )
            loss += yield Backward(scaler.scale(share), share.detach())
        if hooks.penalty:
            extra = hooks.penalty()
            loss += yield Backward(scaler.scale(extra), extra.detach())
        if not math.isfinite(loss):
            raise TrialError(
                f"The loss became {loss} at a learning rate of {rate:.2g}: training diverged. "
                "Lower learning_rate or max_grad_norm."
            )
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        if hooks.after_step:
            hooks.after_step()  # before the gradients go: AdaLoRA's importance needs them
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        return loss, rate, tokens

    return step_once


@dataclass(slots=True)
class _Log:
    """Keeps the history and the clock of training; tells `on_step` what happens."""

    on_step: OnStep
    every: int
    steps: int
    rows: int
    clock: Callable[[], float] = time.perf_counter
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    steps_done: int = 0
    _texts: int = 0
    _started: float = 0.0
    _recent: list[float] = field(default_factory=list)

    def start(self) -> None:
        self._started = self.clock()

    def pause(self) -> None:
        self.seconds += self.clock() - self._started

    def step(self, rows: int, loss: float, rate: float, tokens: int) -> None:
        self.steps_done += 1
        self.tokens += tokens
        self._texts += rows
        self._recent.append(loss)
        if len(self._recent) == self.every:
            self.history.append(
                {"step": self.steps_done, "epoch": self._texts / self.rows,
                 "loss": float(np.mean(self._recent)), "learning_rate": rate}
            )  # fmt: skip
            self._recent.clear()
            so_far = self.seconds + self.clock() - self._started
            self._tell({"texts_per_second": self._texts / so_far})

    def evaluated(self, epoch: int, scores: Mapping[str, float]) -> None:
        self.history.append({"step": self.steps_done, "epoch": float(epoch), **scores})
        self._tell({})

    def _tell(self, more: Mapping[str, float]) -> None:
        self.on_step({**self.history[-1], "steps": self.steps, **more})


class _Lowest:
    """The frozen layers below all that learn: without dropout if asked, computed once if possible.

    `compute` starts above them where they are computed once.
    """

    def __init__(
        self,
        model: nn.Module,
        engine: Engine,
        train: Encoded,
        validation: Encoded,
        settings: TrainingSettings,
    ) -> None:
        self._engine = engine
        self._where = next(model.parameters()).device
        self.seconds, self.peak_memory_bytes = 0.0, None
        self._states: frozen.States | str = ""
        self._lower: frozen.Lower | None = None
        self._found = frozen.find(model)
        if self._found is None:
            return
        # Methods without this setting train in the lowest layer, or all of it.
        self._drops = bool(self._found.dropout) and getattr(settings, "frozen_dropout", True)
        self._states = self._keep(model, train)
        if isinstance(self._states, frozen.States):
            self.seconds = self._states.seconds
            if self._states.from_cache:
                self.peak_memory_bytes = self._states.peak_memory_bytes
        self._lower = frozen.lower(
            self._found, model, validation, settings.per_device_eval_batch_size,
            scored_in(settings),
        )  # fmt: skip

    def _keep(self, model: nn.Module, train: Encoded) -> frozen.States | str:
        if self._found is None:
            return ""
        if self._drops:
            return (
                f"dropout of {self._found.dropout:g} in them differs in each step "
                "(frozen_dropout: true)"
            )
        engine = self._engine
        if engine.below is None:
            return (
                "several trainings share each step"
                if engine.name == "packed"
                else "the plain engine computes them in each step"
            )
        with engine.installed():
            return frozen.keep_states(self._found, model, train, engine.below, [engine.route])

    def compute(self, encoded: Encoded, rows: NDArray[np.int64]) -> tuple[torch.Tensor, int] | None:
        """Logits of some rows, and tokens computed, from what is kept; None where nothing is."""
        if not isinstance(self._states, frozen.States):
            return None
        assert self._engine.above is not None  # noqa: S101  _keep asked
        assert self._found is not None  # noqa: S101
        states = self._states.of(rows).to(self._where)
        return self._engine.above(encoded, rows, self._found.layers, states)

    def still(self) -> None:
        """Turn dropout off in them, where the settings say so."""
        if self._found is not None and not self._drops:
            self._found.still()

    @contextmanager
    def scored(self) -> Iterator[frozen.Lower | None]:
        """What they give for validation's batches; kept when all of these were scored."""
        yield self._lower
        if self._lower is not None:
            self._lower.finish()

    def facts(self) -> dict[str, Any] | None:
        """For the trial's result."""
        if self._found is None:
            return None
        kept = self._states
        once = isinstance(kept, frozen.States)
        return {
            "layers": self._found.layers,
            "of": self._found.of,
            "dropout": self._drops,
            "computed": "once" if once else "each step",
            "why": None if once else kept,
            **({"from_cache": kept.from_cache, "seconds": kept.seconds,
                "bytes": kept.kept.bytes} if isinstance(kept, frozen.States) else {}),
        }  # fmt: skip

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        for one in (self._lower, getattr(self._states, "kept", None)):
            if one is not None:
                one.close()


def forward(model: nn.Module, batch: batching.Batch, where: torch.device) -> torch.Tensor:
    """Logits (b, n_classes) of a padded batch, in float32."""
    out = model(
        input_ids=torch.from_numpy(batch.input_ids).to(where, non_blocking=True),
        attention_mask=torch.from_numpy(batch.attention_mask).to(where, non_blocking=True),
    )
    logits: torch.Tensor = out.logits
    return logits.float()


def _prepared(model: nn.Module, settings: TrainingSettings) -> inference.Prepared:
    """What scores texts with the model as it is. Leaves it in evaluation mode."""
    model.eval()
    return inference.prepare(model, precision=scored_in(settings))


def _logits(
    prepared: inference.Prepared,
    encoded: Encoded,
    pad_id: int,
    settings: TrainingSettings,
    lower: inference.Lower | None = None,
) -> NDArray[np.float64]:
    """Logits of all texts in their order, (n, n_classes)."""
    size = settings.per_device_eval_batch_size
    return prepared(encoded, pad_id, size, lower=lower).astype(np.float64)


def scored_in(settings: TrainingSettings) -> str:
    """What a model trained so is scored in (inference.PRECISIONS): never bfloat16."""
    return "float32" if settings.precision == "float32" else "auto"


def evaluate(
    model: nn.Module, pad_id: int, data: TrainingData, settings: TrainingSettings
) -> dict[str, float]:
    """Scores for the history and for picking the best epoch, keys `eval_<metric>`."""
    logits = _logits(_prepared(model, settings), data.encoded, pad_id, settings)
    return _scores(logits, data, settings)


def _scores(
    logits: NDArray[np.float64], data: TrainingData, settings: TrainingSettings
) -> dict[str, float]:
    if not np.isfinite(logits).all():
        raise TrialError(
            "The model's scores are not finite: training diverged. Lower learning_rate."
        )
    names = [str(i) for i in range(logits.shape[1])]
    values, _ = metrics.evaluate(Predictions(data.ids, data.labels, logits, "logit"), names)
    wanted = {"accuracy", "f1_macro", "f1_weighted", settings.metric_for_best_model}
    row = {f"eval_{k}": v for k, v in values.items() if k in wanted and v is not None}
    return {"eval_loss": float(values["log_loss"] or 0.0), **row}


# --- the pieces -----------------------------------------------------------------------------


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]


def _class_weights(labels: NDArray[np.int64], settings: TrainingSettings) -> torch.Tensor | None:
    """Weights n / (n_classes * count), as class_weight="balanced" in scikit-learn."""
    if settings.class_weight == "none":
        return None
    counts = np.bincount(labels)
    return torch.tensor(len(labels) / (len(counts) * counts), dtype=torch.float32)


def _optimizer(model: nn.Module, settings: TrainingSettings, hooks: Hooks) -> AdamW:
    """AdamW without weight decay on biases and normalisation weights, as in transformers."""
    named = _trainable(model)
    factors = {n: hooks.rate(n) if hooks.rate else 1.0 for n, _ in named}
    groups = [
        {
            "params": [p for n, p in named if factors[n] == factor and (p.ndim >= 2) == matrix],
            "weight_decay": settings.weight_decay if matrix else 0.0,
            "lr": settings.learning_rate * factor,
        }
        for factor in sorted(set(factors.values()))
        for matrix in (True, False)
    ]
    return AdamW(
        groups,
        lr=settings.learning_rate,
        max_norm=settings.max_grad_norm,
        fused=hooks.after_step is None,  # it looks at gradients as they were clipped
    )


def _schedule(settings: TrainingSettings, steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at a step: linear warm-up, then as `lr_scheduler_type` says."""
    asked = settings.warmup_steps
    warm = math.ceil(asked * steps) if asked < 1 else int(asked)

    def factor(step: int) -> float:
        if step < warm:
            # Counted from 1, so that the first step is not wasted at a rate of zero.
            return (step + 1) / warm
        done = (step - warm) / max(1, steps - warm)
        if settings.lr_scheduler_type == "linear":
            return 1 - done
        if settings.lr_scheduler_type == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0

    return factor
