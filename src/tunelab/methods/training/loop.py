"""The one training loop; it knows no method by name.

A `Training` is driven: `drive` asks it for the next rows, has their logits computed, asks it for
the loss, and lets it step. It drives K of them over one `Engine`, and K = 1 is the ordinary case;
`stack` has an engine that computes K adapters of one base in one pass. `teaching` is the same
loop without all that makes this one fast.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tunelab.core.details import FrozenLayers
from tunelab.core.errors import TrialError
from tunelab.core.events import OnProgress
from tunelab.core.tasks import label_counts
from tunelab.core.values import Predictions, ScoreKind, Seeds
from tunelab.kernels import library
from tunelab.methods.settings import TrainingSettings
from tunelab.methods.training.checkpoint import (
    InProgress,
    Keeper,
    Numbers,
    set_streams,
    streams_of,
)
from tunelab.methods.training.engine import Engine, RowsToCompute, choose_engine, scored_in
from tunelab.methods.training.lowest import Lowest
from tunelab.methods.training.records import BestEpoch, HistoryLog
from tunelab.methods.training.updates import Hooks, MakeHooks, Updates, trainable
from tunelab.models import batches, scoring
from tunelab.models.batches import Encoded
from tunelab.stats import metrics
from tunelab.stats.thresholds import with_own_thresholds

__all__ = [
    "Fitted",
    "Training",
    "TrainingData",
    "drive",
    "train_epoch",
    "train_model",
    "validation_scores",
]


# --- what a training is given, and gives ----------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """Tokenized texts with their labels, (n,) or of several a text (n, n_labels), and row ids."""

    encoded: Encoded
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    ordered: bool = False


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
    frozen: FrozenLayers | None
    peak_memory_bytes: int | None
    validation: NDArray[np.float64]
    prepared: scoring.Prepared | None = None


# --- a training, driven step by step --------------------------------------------------------


@dataclass(slots=True, eq=False)
class _OptimizerStep:
    """One optimizer step: its rows, the parts of them that are still to be computed, the part that
    is, and what those before gave. `whole`: what the step's mean loss is a mean over.
    """

    rows: NDArray[np.int64]
    whole: float
    left: deque[NDArray[np.int64]]
    part: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    loss: float = 0.0
    tokens: int = 0


class Training:
    """Trains what requires a gradient, keeps the epoch that is best on validation.

    AdamW (Loshchilov & Hutter 2019), linear warm-up, batches of like length. The model is changed
    in place and left in evaluation mode with the best epoch's weights. Whoever drives it (`drive`)
    calls `begin` once; in each epoch `begin_epoch`, for each forward pass `next_rows`, `loss` and,
    after the backward pass, `step`; then `evaluate`, until it has `ended`: well, or with an
    `error`. `fitted` is what it gave. With a `keeper` it is kept on disk now and then, and goes on
    from there.
    """

    _engine: Engine
    _log: HistoryLog
    _low: Lowest
    _updates: Updates
    _step: _OptimizerStep

    def __init__(
        self,
        model: nn.Module,
        *,
        pad_id: int,
        train: TrainingData,
        validation: TrainingData,
        settings: TrainingSettings,
        seeds: Seeds,
        on_step: OnProgress,
        hooks: MakeHooks | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.model, self.pad_id, self.settings, self.seeds = model, pad_id, settings, seeds
        self.error: Exception | None = None
        self.ended = False
        self._train, self._validation = train, validation
        self._on_step, self._make_hooks, self._keeper = on_step, hooks, keeper
        self._lengths = train.encoded.lengths
        self._rows_per_step = (
            settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        )
        self._epoch = self._steps_of_epoch = self._steps_to_skip = 0
        self._best = BestEpoch()
        self._prepared: scoring.Prepared | None = None
        self._steps_left: Iterator[NDArray[np.int64]] = iter(())
        self._open = ExitStack()

    @property
    def training_texts(self) -> Encoded:
        """What it learns from, in tokens."""
        return self._train.encoded

    def begin(self, engine: Engine) -> None:
        """Get ready for `engine`, which computes what is asked from now on."""
        per_epoch = math.ceil(len(self._lengths) / self._rows_per_step)
        steps = per_epoch * self.settings.num_train_epochs
        self._engine = engine
        self._log = HistoryLog(
            self._on_step, max(1, per_epoch // 20), steps, len(self._lengths), engine.clock
        )
        hooks = self._make_hooks(self.model, self.settings, steps) if self._make_hooks else Hooks()
        self._low = Lowest(
            self.model, engine, self._train.encoded, self._validation.encoded, self.settings
        )
        self._open.callback(self._low.close)
        self._updates = Updates(
            self.model, self._train.labels, self.settings, hooks, steps, engine.precision
        )
        library.keep_memory()
        self._order = np.random.default_rng(self.seeds.order)
        torch.manual_seed(self.seeds.dropout)
        if self._keeper is not None:
            self._open.enter_context(self._keeper.heeding())
            kept = self._keeper.read(engine.in_words)
            if kept is not None:
                self._go_on_from(kept)

    def begin_epoch(self) -> None:
        """Draw the order of the next epoch's rows."""
        self._epoch += 1
        self.model.train()
        self._low.disable_dropout()
        self._log.start()
        self._order_before = self._order.bit_generator.state
        drawn = batches.train_batches(self._lengths, self._rows_per_step, self._order)
        self._steps_left = iter(drawn[self._steps_to_skip :])
        self._steps_of_epoch, self._steps_to_skip = self._steps_to_skip, 0
        self._step = _OptimizerStep(np.empty(0, dtype=np.int64), 1.0, deque())

    def next_rows(self) -> RowsToCompute | None:
        """What the next forward pass computes; None where the epoch, or the training, is over."""
        if self.ended:
            return None
        if not self._step.left:
            rows = next(self._steps_left, None)
            if rows is None:
                self._log.pause()
                return None
            parts = math.ceil(len(rows) / self.settings.per_device_train_batch_size)
            whole = self._updates.weight_of(self._train.labels[rows])
            self._step = _OptimizerStep(rows, whole, deque(np.array_split(rows, parts)))
        self._step.part = self._step.left.popleft()
        return self._low.rows_to_compute(self._train.encoded, self._step.part)

    def loss(self, logits: torch.Tensor, tokens: int) -> torch.Tensor:
        """The share of the step's loss that the rows asked last have, from their logits.

        The step's loss is the mean over all its rows, also when the last part is smaller:
        accumulation gives exactly the gradient of one large batch.
        """
        self._step.tokens += tokens
        rows = self._step.part
        losses = self._updates.sum_of_losses(logits, self._train.labels[rows], rows)
        return losses / self._step.whole

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss as it enters the backward pass."""
        return self._updates.scaled(loss)

    def step(self, loss: float) -> None:
        """Count that loss, whose gradients are there; after a step's last part, move the weights.

        Raises TrialError where the loss is no longer finite.
        """
        step = self._step
        step.loss += loss
        if step.left:
            return
        step.loss += self._updates.penalise()
        rate = self._updates.rate
        if not math.isfinite(step.loss):
            raise TrialError(
                f"The loss became {step.loss} at a learning rate of {rate:.2g}: training "
                "diverged. Lower learning_rate or max_grad_norm."
            )
        self._updates.apply()
        self._log.step(len(step.rows), step.loss, rate, step.tokens)
        self._steps_of_epoch += 1
        if self._keeper is not None and self._keeper.due():
            self._keeper.write(self._in_progress(), self._engine.in_words)

    def evaluate(self) -> None:
        """Score validation, keep weights that are better than before, end where it is time to.

        Raises TrialError where validation has no value for what picks the best epoch.
        """
        settings = self.settings
        with self._low.scored() as lower:
            prepared = _ready_to_score(self.model, settings)
            logits = _eval_logits(prepared, self._validation.encoded, self.pad_id, settings, lower)
        scores = _history_scores(logits, self._validation, settings)
        self._log.evaluated(self._epoch, scores)
        value = _chosen_value(scores, self._validation, logits.shape[1], settings)
        if value > self._best.value:
            self._best.keep(self._epoch, value, logits, self.model)
        patience = settings.early_stopping_patience
        waited = self._epoch - self._best.epoch
        if self._epoch < settings.num_train_epochs and (patience is None or waited < patience):
            return  # `prepared` has a copy of the weights: not needed while training goes on
        if waited:
            self._best.restore(self.model)
        else:
            self._prepared = prepared
        # As large as all that was trained, each of them: the test part is scored without.
        self._best.forget_weights()
        del self._updates
        self.model.eval()
        self.ended = True
        self.close()

    def _in_progress(self) -> InProgress:
        """All that it needs to go on from here, between two steps, in another process."""
        log = self._log
        numbers = Numbers(
            epoch=self._epoch,
            of_epoch=self._steps_of_epoch,
            order=self._order_before,
            passes=self._engine.packed.passes if self._engine.packed else 0,
            schedule=self._updates.schedule_numbers(),
            scaler=self._updates.scaler_numbers(),
            steps=log.steps_done,
            history=log.history,
            recent=log.recent,
            seconds=log.seconds_so_far(),
            tokens=log.tokens,
            texts=log.texts,
            best_epoch=self._best.epoch,
            best_value=self._best.value,
        )
        where = next(self.model.parameters()).device
        named = {
            "model.": _changing(self.model),
            "updates.": self._updates.tensors(),
            "best.": self._best.tensors(),
            "stream.": streams_of(where),
        }
        return InProgress(numbers, {p + k: t for p, part in named.items() for k, t in part.items()})

    def _go_on_from(self, kept: InProgress) -> None:
        """Be where that training was; what it said of its epochs is said again."""
        numbers = kept.numbers
        self._epoch, self._steps_to_skip = numbers.epoch - 1, numbers.of_epoch
        self._order.bit_generator.state = dict(numbers.order)
        if self._engine.packed:
            self._engine.packed.passes = numbers.passes
        with torch.no_grad():
            for name, value in _changing(self.model).items():
                value.copy_(kept.tensors[f"model.{name}"])
        self._updates.go_on_from(numbers, kept.part("updates."))
        self._best.go_on_from(numbers, kept.part("best."))
        set_streams(next(self.model.parameters()).device, kept.part("stream."))
        self._log.go_on_from(numbers)

    @contextmanager
    def failing_alone(self) -> Iterator[None]:
        """What goes wrong inside ends this training, and no other."""
        try:
            yield
        except Exception as e:  # whatever it is: the others go on
            self.fail(e)

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        self.error, self.ended = error, True
        self.close()

    def close(self) -> None:
        """Give up what it has open."""
        self._open.close()

    def fitted(self) -> Fitted:
        """What it gave; what it was scored with is handed over, once. Raises what it failed of."""
        if self.error is not None:
            raise self.error
        prepared, self._prepared = self._prepared, None
        log, low = self._log, self._low
        padding = 1 - int(self._lengths.sum()) * self._epoch / log.tokens
        return Fitted(
            tuple(log.history),
            self._best.epoch,
            self._epoch,
            log.steps_done,
            log.seconds + low.seconds,
            padding,
            self._engine,
            low.frozen_layers(),
            low.peak_memory_bytes,
            self._best.logits,
            prepared,
        )


def _changing(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training may change: what learns, and buffers."""
    buffers = {f"buffer {n}": b for n, b in model.named_buffers() if not b.is_complex()}
    return dict(trainable(model)) | buffers


def drive(trainings: Sequence[Training], engine: Engine) -> Iterator[Training]:
    """Train all of them over one engine; gives each as soon as it has ended.

    Each fails by itself (`Training.error`). Raises what goes wrong in a backward pass: it is
    nobody's own.
    """
    going = dict(enumerate(trainings))
    with ExitStack() as inside:
        for t in trainings:
            inside.callback(t.close)
            with t.failing_alone():
                t.begin(engine)
        while going:
            train_epoch(going, engine)
            for k, t in list(going.items()):
                if not t.ended:
                    with t.failing_alone():
                        t.evaluate()
                if t.ended:
                    yield going.pop(k)


def train_epoch(trainings: Mapping[int, Training], engine: Engine) -> None:
    """One epoch of all of them, by their place in the engine; those that fail have ended."""
    with engine.installed():
        for t in trainings.values():
            if not t.ended:
                with t.failing_alone():
                    t.begin_epoch()
        while asked := {k: r for k, t in trainings.items() if (r := t.next_rows()) is not None}:
            _one_pass(trainings, asked, engine)


def _one_pass(
    trainings: Mapping[int, Training], asked: Mapping[int, RowsToCompute], engine: Engine
) -> None:
    """One forward and one backward pass for all that ask, and a step of each."""
    try:
        computed = engine.compute(asked)
    except Exception as e:  # out of memory, say: it is nobody's own
        for k in asked:
            trainings[k].fail(e)
        return
    losses: dict[int, torch.Tensor] = {}
    for k, (logits, tokens) in computed.items():
        with trainings[k].failing_alone():
            losses[k] = trainings[k].loss(logits, tokens)
    if not losses:
        return
    torch.autograd.backward([trainings[k].scaled(loss) for k, loss in losses.items()])
    # Read together: a card is waited for once in a step, not K times.
    values = torch.stack([loss.detach() for loss in losses.values()]).tolist()
    for k, value in zip(losses, values, strict=True):
        with trainings[k].failing_alone():
            trainings[k].step(value)


def train_model(model: nn.Module, **arguments: Any) -> Fitted:
    """Train by itself what requires a gradient: a `Training` of these arguments, driven alone."""
    t = Training(model, **arguments)
    engine = choose_engine(model, t.pad_id, t.settings, t.seeds.dropout, t.training_texts)
    list(drive([t], engine))
    return t.fitted()


def _ready_to_score(model: nn.Module, settings: TrainingSettings) -> scoring.Prepared:
    """What scores texts with the model as it is. Leaves it in evaluation mode."""
    model.eval()
    return scoring.prepare(model, precision=scored_in(settings))


def _eval_logits(
    prepared: scoring.Prepared,
    encoded: Encoded,
    pad_id: int,
    settings: TrainingSettings,
    lower: scoring.LowerScores | None = None,
) -> NDArray[np.float64]:
    """Logits of all texts in their order, (n, n_classes)."""
    size = settings.per_device_eval_batch_size
    return prepared(encoded, pad_id, size, lower=lower).astype(np.float64)


def validation_scores(
    model: nn.Module, pad_id: int, data: TrainingData, settings: TrainingSettings
) -> dict[str, float]:
    """Scores for the history and for picking the best epoch, keys `eval_<metric>`."""
    logits = _eval_logits(_ready_to_score(model, settings), data.encoded, pad_id, settings)
    return _history_scores(logits, data, settings)


def _history_scores(
    logits: NDArray[np.float64], data: TrainingData, settings: TrainingSettings
) -> dict[str, float]:
    if not np.isfinite(logits).all():
        raise TrialError(
            "The model's scores are not finite: training diverged. Lower learning_rate."
        )
    names = [str(i) for i in range(logits.shape[1])]
    kind: ScoreKind = "label_logit" if data.labels.ndim == 2 else "logit"
    plain = Predictions(data.ids, data.labels, logits, kind, ordered=data.ordered)
    values, _ = metrics.evaluate(with_own_thresholds(plain), names)
    wanted = {"accuracy", "f1_macro", "f1_weighted", "f1_micro", settings.metric_for_best_model}
    row = {f"eval_{k}": v for k, v in values.items() if k in wanted and v is not None}
    return {"eval_loss": float(values["log_loss"] or 0.0), **row}


def _chosen_value(
    scores: Mapping[str, float], data: TrainingData, classes: int, settings: TrainingSettings
) -> float:
    """What picks the best epoch, the higher the better."""
    chosen = settings.metric_for_best_model
    if f"eval_{chosen}" not in scores:
        raise TrialError(
            f"metric_for_best_model: {chosen} has no value on the validation part, which "
            f"has {np.count_nonzero(label_counts(data.labels, classes))} of the {classes} classes. "
            "Use accuracy or loss, or validate on rows of every class."
        )
    # A lower loss is better; every other choice is a score where higher is better (settings).
    return -scores["eval_loss"] if chosen == "loss" else scores[f"eval_{chosen}"]
