"""METHODS: the ways of adapting a base model, a row each.

A row names a typed settings class and how a task becomes an Outcome: `fit`, or `prepare` and
`finish` around a training that somebody drives. Importing this loads no torch: what a method trains
with is imported when it is called.

settings      names, defaults and aliases that methods share
neural        what all that train a transformer have in common
inspection    a base as methods see it: parts, targets, trainable parameters
training/     how weights learn; `checkpoint`: what keeps a training in progress

May import: core, data, stats, kernels, models.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunelab.core.errors import ModelError
from tunelab.core.values import MethodSpec, TrialSpec
from tunelab.methods import (
    distil,
    embedded,
    full,
    llm,
    lora,
    prompts,
    scaling,
    setfit,
    static,
    svm,
    zero_shot,
)
from tunelab.methods.method import Costs, Extras, Method, Outcome, Task, Trainable, fit_alone
from tunelab.models import bases, usable
from tunelab.models.bases import Base, family_of
from tunelab.models.families import FAMILIES

__all__ = [
    "METHODS",
    "Costs",
    "Extras",
    "Method",
    "Outcome",
    "Task",
    "Trainable",
    "alike",
    "said_before",
    "check",
    "fit_alone",
    "notes",
    "virtual_tokens",
    "why_alone",
]


METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        *svm.METHODS,
        *embedded.METHODS,
        *static.METHODS,
        *zero_shot.METHODS,
        *llm.METHODS,
        *setfit.METHODS,
        *distil.METHODS,
        *full.METHODS,
        *lora.METHODS,
        *scaling.METHODS,
        *prompts.METHODS,
    )
}


def why_alone(spec: MethodSpec) -> str | None:
    """Why a method with these settings cannot be trained in one pass with others; else None."""
    method = METHODS[spec.name]
    if method.why_alone is None:
        return f"{spec.name} is not plain LoRA"
    return method.why_alone(method.settings(**spec.settings))


def alike(spec: TrialSpec) -> tuple[object, ...]:
    """What trials must have in common to be trained in one pass, where nothing else forbids it."""
    names = (
        "num_train_epochs",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "max_length",
        "precision",
    )
    shared = (spec.method.settings.get(n) for n in names)
    divided = spec.vary_split or spec.fold is not None
    return (spec.fingerprint, spec.base, spec.purpose, spec.train_rows, divided, *shared)


def check(base: Base, spec: MethodSpec, label_names: Sequence[str] = ()) -> None:
    """Refuse a method or settings that cannot work on a base, before anything is trained.

    `label_names`: of the data, where they are known. Raises InputError naming what does. Loads
    torch for settings that name modules, for quantisation, and the first time that a base is met
    (`models.usable`); weights only of a type that FAMILIES lacks.
    """
    method = METHODS[spec.name]
    if not method.needs_base:
        return
    usable.refuse_by_config(base)
    if base.model_type not in FAMILIES:
        from tunelab.models import pretrained

        pretrained.check_encoder(base)
    length = _asked_length(spec)
    if length is not None:
        bases.check_length(base, length)
    settings = method.settings(**spec.settings)
    if method.check_labels and label_names:
        method.check_labels(settings, label_names)
    if method.adapt is None:
        usable.check_base(base, length, head=False)
        if method.check:
            method.check(base, settings)
        return
    why = method.refused.get(base.model_type)
    if why:
        able = [m.name for m in METHODS.values() if m.adapt and base.model_type not in m.refused]
        raise ModelError(
            f"{spec.name} cannot run on {base.ref.name} ({base.model_type}): {why}. "
            f"What can: {', '.join(able)}."
        )
    family_of(base, settings)
    if base.model_type not in FAMILIES:
        pretrained.skeleton(base)
    if method.check:
        method.check(base, settings)
    usable.check_base(base, length, head=True)


def said_before(specs: Sequence[MethodSpec], texts: Sequence[str]) -> tuple[str, ...]:
    """What methods say before anything runs; `texts`: those that are scored."""
    said = []
    for spec in specs:
        row = METHODS[spec.name]
        if row.says_before is not None:
            said.append(row.says_before(row.settings(**spec.settings), texts))
    return tuple(dict.fromkeys(line for line in said if line))


def _asked_length(spec: MethodSpec) -> int | None:
    length = spec.settings.get("max_length")
    return length if isinstance(length, int) else None


def virtual_tokens(spec: MethodSpec) -> int:
    """Positions that a method takes for itself, beside a text's."""
    taken = spec.settings.get("num_virtual_tokens")
    return taken if isinstance(taken, int) else 0


def notes(base: Base, specs: Sequence[MethodSpec], label_names: Sequence[str]) -> tuple[str, ...]:
    """What is worth saying of a base before these methods, which were checked, are run on it."""
    asked = dict.fromkeys(
        (METHODS[spec.name].adapt is not None, _asked_length(spec))
        for spec in specs
        if METHODS[spec.name].needs_base
    )
    said: list[str] = []
    for head, length in asked:
        said += bases.notes_of_base(base, label_names, head=head)
        said += usable.check_base(base, length, head=head)
    return tuple(dict.fromkeys(said))
