"""What every method that trains a transformer by gradient shares: build, train, wrap.

May import: inference, measure, models, tokens, train, transformer. Loads torch; import it inside
`fit`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tunelab import bases, inference, measure, models, tokens, train
from tunelab.errors import TrialError
from tunelab.families import head_modules
from tunelab.methods.method import Adapt, Extras, Outcome, Task
from tunelab.settings import TrainingSettings
from tunelab.transformer import TransformerClassifier
from tunelab.types import Split

__all__ = ["adapted", "fit", "session"]


def adapted(
    base: bases.Base,
    label_names: Sequence[str],
    settings: Any,
    adapt: Adapt,
    seed: int,
    *,
    quantization: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, list[str]]:
    """Load the base with a new head and let `adapt` say what is trained; with the head's modules.

    Everything new is drawn after `seed` is set: head and adapter are a function of it.
    """
    family = bases.family_of(base, settings)
    loaded, fresh = models.load_classifier(base, label_names, seed, quantization)
    plain: Any = loaded
    head = head_modules(family, fresh)
    if getattr(settings, "gradient_checkpointing", False):
        plain.activation_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(seed)
    with models.quiet():
        return adapt(plain, family, head, settings), head


def fit(task: Task, adapt: Adapt, extras: Extras = Extras()) -> Outcome:  # noqa: B008  frozen
    """Load, adapt, train, count, wrap."""
    return train.alone(session(task, adapt, extras))


def session(task: Task, adapt: Adapt, extras: Extras) -> Generator[train.Ask, Any, Outcome]:
    """`fit` as a training that asks for what it needs computed (see `train.alone`)."""
    assert task.base is not None  # noqa: S101  the row says needs_base
    base, settings = task.base, task.settings
    started_with = measure.resident_bytes()
    bases.check_length(base, settings.max_length)
    tokenizer: Any = models.load_tokenizer(base)
    quantization = extras.quantization(settings) if extras.quantization else None
    # Asked first: a machine that cannot do it must say so before anything is loaded.
    backend = models.quantization_backend(quantization) if quantization else None
    model, head = adapted(
        base, task.label_names, settings, adapt, task.seeds.init, quantization=quantization
    )
    if not quantization:  # what is quantised was put there while it was loaded
        model.to(models.device())
    texts = _data(tokenizer, task.train, settings, base.runs_its_code)
    pad_id = int(tokenizer.pad_token_id)
    prepared = extras.prepare(model, texts.encoded, pad_id, settings) if extras.prepare else None
    counts: dict[str, int | None] = dict(models.parameter_counts(model, head))
    if not counts["trainable_parameters"]:
        raise TrialError("Nothing would be trained: every parameter is frozen.")

    held = measure.resident_bytes()
    fitted = yield from train.training(
        model,
        pad_id=pad_id,
        train=texts,
        validation=_data(tokenizer, task.validation, settings, base.runs_its_code),
        settings=settings,
        seeds=task.seeds,
        on_step=task.on_step,
        hooks=extras.hooks,
    )
    trained = inference.fingerprint(model)
    found = extras.finish(model, prepared) if extras.finish else {}
    classifier = TransformerClassifier(
        model, tokenizer, task.label_names, base.ref, settings.max_length,
        settings.per_device_eval_batch_size, quantization=quantization,
        precision=train.scored_in(settings),
    )  # fmt: skip
    if fitted.prepared:
        classifier.keep(trained, fitted.prepared)
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
            **fitted.engine.facts(),
            **({"frozen_layers": fitted.frozen} if fitted.frozen else {}),
            "device": str(models.device()),
            "head_modules": head,
            "weight_bytes": models.weight_bytes(model),
            **({"quantization": backend} if backend else {}),
            **found,
        },
        peak_memory_bytes=_peak(fitted.peak_memory_bytes, held, started_with),
        # What `finish` changed (it says so), and more texts than a window, may be scored otherwise.
        validation_scores=None
        if found or len(task.validation) > inference.WINDOW
        else fitted.validation,
    )


def _peak(above: int | None, held: int | None, started_with: int | None) -> int | None:
    """What a trial would hold at its peak if it computed what it read from the cache."""
    if above is None or held is None or started_with is None:
        return None
    return above + max(0, held - started_with)


def _data(
    tokenizer: Any, split: Split, settings: TrainingSettings, own_code: bool
) -> train.TrainingData:
    encoded = tokens.encoded(tokenizer, split.texts, settings.max_length, own_code)
    return train.TrainingData(encoded, split.labels, split.ids)
