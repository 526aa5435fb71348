"""What a base model is, as `tunelab inspect model` shows it. Loads torch."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, TypedDict

import torch

from tunelab.core import cache
from tunelab.core.errors import ConfigError
from tunelab.core.shapes import fault
from tunelab.methods import METHODS
from tunelab.methods.method import Adapt
from tunelab.models import bases, batches, parts, pretrained, usable
from tunelab.models.families import head_modules
from tunelab.models.family import Family
from tunelab.models.names import is_within

__all__ = [
    "BaseCard",
    "inspect_base",
]


class ShownToken(TypedDict):
    """One token of a text, and whether the tokenizer added it."""

    id: int
    token: str
    special: bool


class Shapes(TypedDict):
    """Shapes of what goes in and comes out: (texts, tokens), (texts, tokens, width), ..."""

    input_ids: list[int]
    last_hidden_state: list[int]
    logits: list[int]


class BaseCard(TypedDict):
    """What a base model is.

    `parameters`: counts by part. `tokens` of `text`. `represents`: which vector a text is.
    `lora_targets`: module name endings by preset. `methods`: parameter counts of each that trains.
    """

    name: str
    sha256: str
    architecture: str
    model_type: str
    layers: int | None
    hidden_size: int | None
    vocabulary: int
    max_positions: int | None
    parameters: dict[str, int]
    text: str
    tokens: list[ShownToken]
    special_tokens: dict[str, str | list[str]]
    shapes: Shapes
    represents: str
    head_modules: list[str]
    lora_targets: dict[str, list[str]]
    linear_modules: list[str]
    methods: dict[str, dict[str, int]]


def inspect_base(name: str, text: str, classes: int = 2) -> BaseCard:
    """Facts of a base model: parts, tokens of `text`, shapes, LoRA targets, counts."""
    base = bases.resolve(name)
    family = bases.family_of(base)
    usable.refuse_by_config(base)
    usable.check_base(base, None, head=True)
    tokenizer: Any = pretrained.load_tokenizer(base)
    labels = [f"class {i}" for i in range(classes)]
    loaded, fresh = pretrained.load_classifier(base, labels, seed=0)
    model: Any = loaded
    model.eval()
    head = head_modules(family, fresh)
    encoded = batches.encode(tokenizer, [text], base.max_positions or 512)
    ids = encoded.ids[0]
    with torch.no_grad():
        batch = torch.from_numpy(ids)[None]
        out: Any = model(input_ids=batch, output_hidden_states=True)
    return {
        "name": base.ref.name,
        "sha256": base.ref.sha256,
        "architecture": type(model).__name__,
        "model_type": base.model_type,
        "layers": base.sizes.layers,
        "hidden_size": base.sizes.width,
        "vocabulary": len(tokenizer),
        "max_positions": base.max_positions,
        "parameters": _by_part(model, head, family),
        "text": text,
        "tokens": [
            {"id": int(i), "token": t, "special": int(i) in tokenizer.all_special_ids}
            for i, t in zip(ids, tokenizer.convert_ids_to_tokens(ids.tolist()), strict=True)
        ],
        "special_tokens": dict(tokenizer.special_tokens_map),
        "shapes": {
            "input_ids": list(batch.shape),
            "last_hidden_state": list(out.hidden_states[-1].shape),
            "logits": list(out.logits.shape),
        },
        "represents": family.represents,
        "head_modules": head,
        "lora_targets": {k: list(v) for k, v in family.targets.items()},
        "linear_modules": parts.linear_modules(model, head),
        "methods": _counts_by_method(base, model, head, family),
    }


def _by_part(model: Any, head: list[str], family: Family) -> dict[str, int]:
    """Parameters of embeddings, layers, pooler, head, ..."""
    parts: Counter[str] = Counter()
    for name, p in model.named_parameters():
        pieces = name.split(".")
        if is_within(name, head):
            parts["head"] += p.numel()
        elif is_within(name, family.anatomy.embeddings):
            parts["embeddings"] += p.numel()
        elif any(x.isdigit() for x in pieces):
            parts["layers"] += p.numel()
        else:
            parts[pieces[1] if len(pieces) > 2 else pieces[0]] += p.numel()
    return dict(parts)


# Changing how parameters are counted must change this, or old counts would be shown.
_PARAMETERS_VERSION = 1


def _counts_by_method(
    base: bases.Base, model: Any, head: list[str], family: Family
) -> dict[str, dict[str, int]]:
    """Parameters that each method with its default settings trains; without those that train none
    here. Kept by content: peft is loaded, and two dozen models are made, for a base's first time.
    """
    settings = {
        name: _quickly_started(row.settings())
        for name, row in METHODS.items()
        if row.adapt is not None and base.model_type not in row.refused
    }
    kept = cache.folder() / "bases" / f"{_key_of_counts(base, list(settings))}.json"
    known = cache.kept_json(kept)
    if known is not None and fault(known, dict[str, dict[str, int]]) is None:
        return dict(known)
    counts: dict[str, dict[str, int]] = {}
    for name, own in settings.items():
        adapt = METHODS[name].adapt
        if adapt is None:
            continue
        trained = _parameter_counts(adapt, own, copy.deepcopy(model), head, family)
        if trained is not None:
            counts[name] = trained
    cache.keep_json(kept, counts, bounded=False)
    return counts


def _quickly_started(settings: Any) -> Any:
    """Where A and B start has no part in their number, and some starts take a while."""
    if hasattr(settings, "init_lora_weights"):
        return settings.model_copy(update={"init_lora_weights": True})
    return settings


def _key_of_counts(base: bases.Base, methods: Sequence[str]) -> str:
    asked = {name: METHODS[name].settings().model_dump(mode="json") for name in methods}
    said = [_PARAMETERS_VERSION, version("peft"), version("transformers"), base.ref.sha256, asked]
    text = json.dumps([*said, base.config], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _parameter_counts(
    adapt: Adapt, settings: Any, model: Any, head: list[str], family: Family
) -> dict[str, int] | None:
    """What a method trains of a model, which it changes; None where it trains none."""
    try:
        with pretrained.quiet():
            return parts.parameter_counts(adapt(model, family, head, settings), head)
    except ConfigError:  # its defaults ask for more than a small base has
        return None
