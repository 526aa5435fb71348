"""From logits to losses, and from gradients to weights: loss, AdamW, schedule, hooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from tunelab.core.plain import PlainValue
from tunelab.kernels.adamw import AdamW
from tunelab.methods.settings import TrainingSettings
from tunelab.methods.training.checkpoint import Numbers

__all__ = [
    "Hooks",
    "MakeHooks",
    "Updates",
    "class_weights",
    "rate_factor",
    "trainable",
]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a method changes in the loop: `rate(name)`, the factor of a parameter's learning rate;
    `penalty()`, a term added to each step's loss; `after_step()`, called after each optimizer step
    while the gradients are still there. `row_losses(logits (b, c), rows, cross-entropies (b,))`
    gives these training rows' losses (b,) in the place of the cross-entropies. Where they keep
    something from step to step, `kept()` gives it for a checkpoint, and `go_on_from` takes it.
    """

    rate: Callable[[str], float] | None = None
    row_losses: Callable[[torch.Tensor, NDArray[np.int64], torch.Tensor], torch.Tensor] | None = (
        None
    )
    penalty: Callable[[], torch.Tensor] | None = None
    after_step: Callable[[], None] | None = None
    kept: Callable[[], dict[str, torch.Tensor]] | None = None
    go_on_from: Callable[[Mapping[str, torch.Tensor]], None] | None = None


# (model, settings, number of steps) -> hooks
MakeHooks = Callable[[Any, Any, int], Hooks]


class Updates:
    """From logits to losses, and from gradients to weights: the optimizer and all around it."""

    def __init__(  # noqa: PLR0917
        self,
        model: nn.Module,
        labels: NDArray[np.int64],
        settings: TrainingSettings,
        hooks: Hooks,
        steps: int,
        precision: str,
    ) -> None:
        self._where = next(model.parameters()).device
        self._smoothing, self._hooks = settings.label_smoothing_factor, hooks
        self._weights = class_weights(labels, settings)
        self._optimizer = _optimizer(model, settings, hooks)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, rate_factor(settings, steps)
        )
        # float16 loses small gradients unless the loss is scaled up (Micikevicius et al. 2018).
        self._scaler = torch.amp.GradScaler(self._where.type, enabled=precision == "float16")

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def weight_of(self, labels: NDArray[np.int64]) -> float:
        """How much these rows weigh in a loss: their number, where classes weigh alike; of several
        labels a text, the number of all that they have and have not.
        """
        if labels.ndim == 2:
            return float(labels.size)
        return float(len(labels)) if self._weights is None else float(self._weights[labels].sum())

    def sum_of_losses(
        self, logits: torch.Tensor, labels: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> torch.Tensor:
        """Cross-entropy of each of these training rows, weighted by its class, in sum; or what the
        method has in its place. Of several labels a text the binary cross-entropy of each label.
        """
        if labels.ndim == 2:
            return self._sum_over_labels(logits, labels)
        own = self._hooks.row_losses
        losses = functional.cross_entropy(
            logits,
            torch.from_numpy(labels).to(self._where),
            weight=None if self._weights is None else self._weights.to(self._where),
            label_smoothing=self._smoothing,
            reduction="sum" if own is None else "none",
        )
        return losses if own is None else own(logits, rows, losses).sum()

    def _sum_over_labels(self, logits: torch.Tensor, labels: NDArray[np.int64]) -> torch.Tensor:
        smooth = labels * (1 - self._smoothing) + self._smoothing / 2
        return functional.binary_cross_entropy_with_logits(
            logits,
            torch.from_numpy(smooth).to(self._where, logits.dtype),
            pos_weight=None if self._weights is None else self._weights.to(self._where),
            reduction="sum",
        )

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """Times what keeps small gradients of float16; unchanged in other types."""
        scaled: torch.Tensor = self._scaler.scale(loss)
        return scaled

    def penalise(self) -> float:
        """Add the gradients of the method's own term, where it has one; gives its value."""
        if self._hooks.penalty is None:
            return 0.0
        extra = self._hooks.penalty()
        self.scaled(extra).backward()  # type: ignore[no-untyped-call]
        return float(extra.detach())

    def apply(self) -> None:
        """Move the weights by the gradients that there are, and forget these."""
        self._scaler.unscale_(self._optimizer)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._hooks.after_step:
            self._hooks.after_step()  # before the gradients go: AdaLoRA's importance needs them
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)

    # What a checkpoint needs of it.

    def schedule_numbers(self) -> Mapping[str, PlainValue]:
        """Where the schedule of the learning rate is."""
        numbers: Mapping[str, PlainValue] = self._schedule.state_dict()
        return numbers

    def scaler_numbers(self) -> Mapping[str, PlainValue]:
        """How losses are scaled; empty where they are not."""
        numbers: Mapping[str, PlainValue] = self._scaler.state_dict()
        return numbers

    def tensors(self) -> dict[str, torch.Tensor]:
        """The optimizer's, and what hooks keep."""
        own = self._hooks.kept() if self._hooks.kept else {}
        return self._optimizer.tensors() | {f"hooks.{k}": t for k, t in own.items()}

    def go_on_from(self, numbers: Numbers, tensors: Mapping[str, torch.Tensor]) -> None:
        """Be as the one that gave these."""
        self._schedule.load_state_dict(dict(numbers.schedule))
        rates = self._schedule.get_last_lr()
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if numbers.scaler:
            self._scaler.load_state_dict(dict(numbers.scaler))
        self._optimizer.go_on_from(tensors)
        if self._hooks.go_on_from:
            own = {k: t for k, t in tensors.items() if k.startswith("hooks.")}
            self._hooks.go_on_from({k.removeprefix("hooks."): t for k, t in own.items()})


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """What learns, by name."""
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]


def class_weights(labels: NDArray[np.int64], settings: TrainingSettings) -> torch.Tensor | None:
    """Weights n / (n_classes * count), as class_weight="balanced" in scikit-learn; of several
    labels a text, for each the rows that lack it to one that has it.
    """
    if settings.class_weight == "none":
        return None
    if labels.ndim == 2:
        having = np.maximum(labels.sum(axis=0), 1)
        return torch.tensor((len(labels) - having) / having, dtype=torch.float32)
    counts = np.bincount(labels)
    return torch.tensor(len(labels) / (len(counts) * counts), dtype=torch.float32)


def _optimizer(model: nn.Module, settings: TrainingSettings, hooks: Hooks) -> AdamW:
    """AdamW without weight decay on biases and normalisation weights, as in transformers."""
    named = trainable(model)
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


def rate_factor(settings: TrainingSettings, steps: int) -> Callable[[int], float]:
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
