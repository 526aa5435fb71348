"""What a training has so far: its history with its clock, and its best epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tunelab.core.events import Evaluated, OnProgress, Step
from tunelab.methods.training.checkpoint import Numbers
from tunelab.methods.training.updates import trainable

__all__ = [
    "BestEpoch",
    "HistoryLog",
]


@dataclass(slots=True, eq=False)
class BestEpoch:
    """The epoch that was best on validation: its score, logits (n, n_classes) and weights."""

    value: float = -math.inf
    epoch: int = 0
    logits: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    _weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def keep(self, epoch: int, value: float, logits: NDArray[np.float64], model: nn.Module) -> None:
        """Copy what the model has learnt."""
        self.epoch, self.value, self.logits = epoch, value, logits
        self._weights = {}  # not both at a time
        self._weights = {n: p.detach().clone() for n, p in trainable(model)}

    def restore(self, model: nn.Module) -> None:
        """Put the weights back."""
        with torch.no_grad():
            for name, p in trainable(model):
                p.copy_(self._weights[name])

    def forget_weights(self) -> None:
        """Free the copy."""
        self._weights = {}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its logits and weights by name."""
        return {
            "logits": torch.from_numpy(self.logits),
            **{f"of {n}": t for n, t in self._weights.items()},
        }

    def go_on_from(self, numbers: Numbers, tensors: Mapping[str, torch.Tensor]) -> None:
        """Be as the one that gave these."""
        self.value, self.epoch = numbers.best_value, numbers.best_epoch
        self.logits = tensors["logits"].numpy()
        self._weights = {k.removeprefix("of "): t for k, t in tensors.items() if k != "logits"}


@dataclass(slots=True)
class HistoryLog:
    """Keeps the history and the clock of training; tells `on_step` what happens."""

    on_step: OnProgress
    every: int
    steps: int
    rows: int
    clock: Callable[[], float] = time.perf_counter
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    steps_done: int = 0
    texts: int = 0
    recent: list[float] = field(default_factory=list)
    _started: float | None = None

    def start(self) -> None:
        """Have the clock run."""
        self._started = self.clock()

    def pause(self) -> None:
        """Once, however often it is asked for."""
        self.seconds = self.seconds_so_far()
        self._started = None

    def seconds_so_far(self) -> float:
        """Of training, without evaluation."""
        return self.seconds + (0.0 if self._started is None else self.clock() - self._started)

    def step(self, rows: int, loss: float, rate: float, tokens: int) -> None:
        """Note an optimizer step; every so many are a row of the history."""
        self.steps_done += 1
        self.tokens += tokens
        self.texts += rows
        self.recent.append(loss)
        if len(self.recent) == self.every:
            loss, epoch = float(np.mean(self.recent)), self.texts / self.rows
            self.recent.clear()
            self.history.append(
                {"step": self.steps_done, "epoch": epoch, "loss": loss, "learning_rate": rate}
            )
            speed = self.texts / self.seconds_so_far()
            self.on_step(Step(self.steps_done, epoch, loss, rate, self.steps, speed))

    def go_on_from(self, numbers: Numbers) -> None:
        """Be as the one that gave these, and say again what it said of its epochs."""
        self.history, self.recent = list(numbers.history), list(numbers.recent)
        self.steps_done, self.texts = numbers.steps, numbers.texts
        self.seconds, self.tokens = numbers.seconds, numbers.tokens
        for row in self.history:
            scores = {k: v for k, v in row.items() if k.startswith("eval_")}
            if scores:
                self.on_step(Evaluated(int(row["step"]), row["epoch"], scores, self.steps))

    def evaluated(self, epoch: int, scores: Mapping[str, float]) -> None:
        """Note what validation gives after an epoch."""
        self.history.append({"step": self.steps_done, "epoch": float(epoch), **scores})
        self.on_step(Evaluated(self.steps_done, float(epoch), scores, self.steps))
