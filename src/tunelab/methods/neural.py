"""What every method that trains a transformer by gradient shares: build it, and wrap what came
out.

Between the two somebody drives the training, alone or with others (`training.stack`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from tunelab.core import machine
from tunelab.core.details import Details, Trained
from tunelab.core.errors import TrialError
from tunelab.core.values import Split
from tunelab.methods.method import Adapt, Extras, Outcome, Task
from tunelab.methods.training import loop
from tunelab.methods.training.engine import forward, scored_in
from tunelab.models import bases, company, lengths, parts, pretrained, scoring, tokens
from tunelab.models.bases import Quantization
from tunelab.models.classifier import TransformerClassifier
from tunelab.models.families import FAMILIES, head_modules

__all__ = [
    "PreparedTask",
    "adapted",
    "finish_by_gradient",
    "prepare_by_gradient",
]


def adapted(
    base: bases.Base,
    label_names: Sequence[str],
    settings: Any,
    adapt: Adapt,
    seed: int,
    *,
    quantization: Quantization | None = None,
) -> tuple[nn.Module, list[str]]:
    """Load the base with a new head and let `adapt` say what is trained; with the head's modules.

    Everything new is drawn after `seed` is set: head and adapter are a function of it.
    """
    family = bases.family_of(base, settings)
    loaded, fresh = pretrained.load_classifier(base, label_names, seed, quantization)
    plain: Any = loaded
    head = head_modules(family, fresh)
    if getattr(settings, "gradient_checkpointing", False):
        plain.activation_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(seed)
    with pretrained.quiet():
        return adapt(plain, family, head, settings), head


@dataclass(frozen=True, slots=True, eq=False)
class PreparedTask:
    """A task whose model is built: `training` is driven next (`loop`), then `finish` wraps.

    `head`: names of the head's modules. `start`: what `extras.prepare` gave. `quantization`: how
    the base was loaded, `backend` by what. Bytes held by the process when it was `started_with` the
    task, and `held` with the model: None where the system does not say.
    """

    task: Task
    extras: Extras
    training: loop.Training
    tokenizer: Any
    head: list[str]
    counts: Mapping[str, int | None]
    start: Any
    quantization: Quantization | None
    backend: str | None
    started_with: int | None
    held: int | None


def prepare_by_gradient(task: Task, adapt: Adapt, extras: Extras) -> PreparedTask:
    """Load the base, adapt it, count, tokenize: all that comes before the first step."""
    assert task.base is not None  # noqa: S101  the row says needs_base
    base = task.base
    taken = getattr(task.settings, "num_virtual_tokens", 0)
    limit = lengths.limit_of(task.settings.max_length, base, task.train.texts, taken)
    settings = task.settings.model_copy(update={"max_length": limit})
    task = replace(task, settings=settings)
    started_with = machine.resident_bytes()
    bases.check_length(base, settings.max_length)
    tokenizer: Any = pretrained.load_tokenizer(base)
    quantization = extras.quantization(settings) if extras.quantization else None
    # Asked first: a machine that cannot do it must say so before anything is loaded.
    backend = pretrained.quantization_backend(quantization) if quantization else None
    model, head = adapted(
        base, task.label_names, settings, adapt, task.seeds.init, quantization=quantization
    )
    if not quantization:  # what is quantised was put there while it was loaded
        model.to(pretrained.device())
    if base.model_type not in FAMILIES:
        # For whoever pads its texts elsewhere; here they are put side by side without it.
        rows_of: company.Rows = partial(forward, model.eval(), where=pretrained.device())
        tokenizer.padding_side = company.padding_side(model, rows_of)
    texts = _tokenized(tokenizer, task.train, limit, base.runs_its_code)
    pad_id = int(tokenizer.pad_token_id)
    start = extras.prepare(model, texts.encoded, pad_id, settings) if extras.prepare else None
    counts: dict[str, int | None] = dict(parts.parameter_counts(model, head))
    if not counts["trainable_parameters"]:
        raise TrialError("Nothing would be trained: every parameter is frozen.")
    held = machine.resident_bytes()
    training = loop.Training(
        model,
        pad_id=pad_id,
        train=texts,
        validation=_tokenized(tokenizer, task.validation, limit, base.runs_its_code),
        settings=settings,
        seeds=task.seeds,
        on_step=task.on_step,
        hooks=extras.hooks,
        keeper=task.keeper,
    )
    return PreparedTask(
        task,
        extras,
        training,
        tokenizer,
        head,
        counts,
        start,
        quantization,
        backend,
        started_with,
        held,
    )


def finish_by_gradient(prepared: PreparedTask) -> Outcome:
    """Wrap what was trained as a classifier, with what is known of it.

    Raises what the training failed of.
    """
    task, extras, model = prepared.task, prepared.extras, prepared.training.model
    assert task.base is not None  # noqa: S101  as `prepare` has seen
    fitted = prepared.training.fitted()
    trained = scoring.fingerprint(model)
    own = extras.finish(model, prepared.start) if extras.finish else {}
    classifier = TransformerClassifier(
        model,
        prepared.tokenizer,
        task.label_names,
        task.base.ref,
        task.settings.max_length,
        task.settings.per_device_eval_batch_size,
        score_kind=task.logit_kind,
        quantization=prepared.quantization,
        precision=scored_in(task.settings),
    )
    if fitted.prepared:
        classifier.keep(trained, fitted.prepared)
    no_adapter = extras.no_adapter
    return Outcome(
        classifier=classifier,
        train_seconds=fitted.train_seconds,
        counts={**prepared.counts, **({"adapter_parameters": None} if no_adapter else {})},
        history=fitted.history,
        details=Details(
            _trained(prepared, fitted),
            own,
            notes=bases.notes_of_base(task.base, task.label_names),
        ),
        reasons={"adapter_parameters": no_adapter} if no_adapter else {},
        peak_memory_bytes=_peak(fitted.peak_memory_bytes, prepared.held, prepared.started_with),
        # What `finish` changed (it says so), and more texts than a window, may be scored otherwise.
        validation_scores=None
        if own or len(task.validation) > scoring.TEXTS_TOKENIZED_AT_A_TIME
        else fitted.validation,
    )


def _trained(prepared: PreparedTask, fitted: loop.Fitted) -> Trained:
    engine = fitted.engine
    return Trained(
        best_epoch=fitted.best_epoch,
        epochs=fitted.epochs,
        steps=fitted.steps,
        padding=fitted.padding,
        stack=engine.stack,
        stack_reason=engine.stack_reason,
        engine=engine.name,
        engine_reason=engine.reason,
        precision=engine.precision,
        precision_reason=engine.precision_reason,
        rounding=engine.rounding,
        kernels=engine.kernels,
        frozen_layers=fitted.frozen,
        device=str(pretrained.device()),
        head_modules=prepared.head,
        weight_bytes=parts.weight_bytes(prepared.training.model),
        quantization=prepared.backend,
    )


def _peak(above: int | None, held: int | None, started_with: int | None) -> int | None:
    """What a trial would hold at its peak if it computed what it read from the cache."""
    if above is None or held is None or started_with is None:
        return None
    return above + max(0, held - started_with)


def _tokenized(tokenizer: Any, split: Split, max_length: int, own_code: bool) -> loop.TrainingData:
    encoded = tokens.encoded(tokenizer, split.texts, max_length, own_code)
    return loop.TrainingData(encoded, split.labels, split.ids, split.ordered)
