"""What is in a loaded model: its linear layers, its parameters, its bytes; layers frozen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from tunelab.core.errors import ModelError
from tunelab.models import anatomy
from tunelab.models.names import is_within, within_block

__all__ = [
    "drop_upper_layers",
    "freeze_layers",
    "linear_modules",
    "parameter_counts",
    "weight_bytes",
]


def linear_modules(model: nn.Module, head: Sequence[str]) -> list[str]:
    """Distinct last parts of the names of linear layers outside the head: what LoRA can target."""
    names = {
        name
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear | Conv1D)
        and not any(h == p for h in head for p in name.split("."))
    }
    return sorted({within_block(n) for n in names})


def parameter_counts(model: nn.Module, head: Sequence[str]) -> dict[str, int]:
    """Count parameters: total, trainable, and the trainable ones of head and adapter apart."""
    total = trainable = in_head = 0
    for name, p in model.named_parameters():
        if "original_module" in name:
            continue  # peft's untouched copy of the head: not part of the deployed model
        # Two 4-bit weights lie in one byte; the quantised tensor knows how many there are.
        state = getattr(p, "quant_state", None)
        total += math.prod(state.shape) if state is not None else p.numel()
        if p.requires_grad:
            trainable += p.numel()
            in_head += p.numel() if is_within(name, head) else 0
    return {
        "total_parameters": total,
        "trainable_parameters": trainable,
        "head_parameters": in_head,
        "adapter_parameters": trainable - in_head,
    }


def count_all(model: nn.Module) -> int:
    """All parameters of a model."""
    return sum(p.numel() for p in model.parameters())


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all weights and buffers as they lie in memory, quantisation constants included."""
    seen = {
        t.data_ptr(): t.numel() * t.element_size()
        for t in [*model.parameters(), *model.buffers()]
        if t.numel()
    }
    states = [s for p in model.parameters() if (s := getattr(p, "quant_state", None)) is not None]
    extra = [t for s in states for t in s.as_dict(packed=True).values()]
    return int(sum(seen.values()) + sum(t.numel() * t.element_size() for t in extra))


def freeze_layers(model: nn.Module, count: int) -> None:
    """Freeze the embeddings and the `count` lowest layers. Raises ModelError for too many."""
    blocks = anatomy.blocks_in(model)
    if count >= len(blocks):
        raise ModelError(
            f"freeze_layers: expected fewer than the model's {len(blocks)} layers, found {count}. "
            "To train the head alone, use the method probe."
        )
    frozen: list[nn.Module] = [*blocks[:count]]
    if count:  # what lies below the first layer: the tables, their norm, ELECTRA's projection
        frozen += [
            m
            for n, m in model.named_modules()
            if isinstance(m, nn.Embedding) or "embed" in n.rpartition(".")[2]
        ]
    for module in frozen:
        module.requires_grad_(False)


def drop_upper_layers(model: nn.Module, count: int) -> None:
    """Keep the `count` lowest layers, in the model and in its config."""
    config: Any = model.config
    blocks = anatomy.blocks_in(model)
    if len(blocks) == config.num_hidden_layers:  # ALBERT's are one, computed so many times
        del blocks[count:]
    config.num_hidden_layers = count
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = list(kinds)[:count]
