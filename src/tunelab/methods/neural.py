"""What every method that trains a transformer by gradient shares: build, train, wrap.

May import: batching, models, train, transformer. Loads torch; import it inside `fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tunelab import bases, batching, models, train
from tunelab.errors import TrialError
from tunelab.methods.method import Adapt, Outcome, Task
from tunelab.settings import TrainingSettings
from tunelab.transformer import TransformerClassifier
from tunelab.types import Split

__all__ = ["adapted", "fit"]


def adapted(
    base: bases.Base, label_names: Sequence[str], settings: Any, adapt: Adapt, seed: int
) -> tuple[nn.Module, list[str]]:
    """Load the base with a new head and let `adapt` say what is trained; with the head's modules.

    Everything new is drawn after `seed` is set: head and adapter are a function of it.
    """
    family = models.family_of(base)
    loaded, fresh = models.load_classifier(base, label_names, seed)
    plain: Any = loaded
    head = models.head_modules(family, fresh)
    if getattr(settings, "gradient_checkpointing", False):
        plain.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    torch.manual_seed(seed)
    with models.quiet():
        return adapt(plain, family, head, settings), head


def fit(task: Task, adapt: Adapt) -> Outcome:
    """Load, adapt, train, count, wrap."""
    assert task.base is not None  # noqa: S101  the row says needs_base
    base, settings = task.base, task.settings
    bases.check_length(base, settings.max_length)
    tokenizer: Any = models.load_tokenizer(base)
    model, head = adapted(base, task.label_names, settings, adapt, task.seeds.init)
    model.to(models.device())
    counts: dict[str, int | None] = dict(models.parameter_counts(model, head))
    if not counts["trainable_parameters"]:
        raise TrialError("Nothing would be trained: every parameter is frozen.")

    fitted = train.fit(
        model,
        pad_id=int(tokenizer.pad_token_id),
        train=_data(tokenizer, task.train, settings),
        validation=_data(tokenizer, task.validation, settings),
        settings=settings,
        seeds=task.seeds,
        on_step=task.on_step,
    )
    classifier = TransformerClassifier(
        model, tokenizer, task.label_names, base.ref, settings.max_length,
        settings.per_device_eval_batch_size,
    )  # fmt: skip
    return Outcome(
        classifier=classifier,
        train_seconds=fitted.train_seconds,
        counts=counts,
        history=fitted.history,
        details={
            "best_epoch": fitted.best_epoch,
            "epochs": fitted.epochs,
            "steps": fitted.steps,
            "padding": fitted.padding,
            "device": str(models.device()),
            "head_modules": head,
        },
    )


def _data(tokenizer: Any, split: Split, settings: TrainingSettings) -> train.TrainingData:
    encoded = batching.encode(tokenizer, split.texts, settings.max_length)
    return train.TrainingData(encoded, split.labels, split.ids)
