"""What a base model is, as `tunelab inspect model` shows it. Loads torch."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypedDict

import torch

from tunelab.core.errors import ConfigError
from tunelab.methods import METHODS
from tunelab.methods.neural import adapted
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
        "methods": {m: c for m in METHODS if (c := _parameter_counts(m, base, labels)) is not None},
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


def _parameter_counts(method: str, base: bases.Base, labels: list[str]) -> dict[str, int] | None:
    """Parameters that a method with its default settings trains; None where it trains none here."""
    row = METHODS[method]
    if row.adapt is None or base.model_type in row.refused:
        return None
    settings = row.settings()
    if hasattr(settings, "init_lora_weights"):
        # Where A and B start has no part in their number, and some starts take a while.
        settings = settings.model_copy(update={"init_lora_weights": True})
    try:
        model, head = adapted(base, labels, settings, row.adapt, seed=0)
    except ConfigError:  # its defaults ask for more than a small base has
        return None
    return parts.parameter_counts(model, head)
