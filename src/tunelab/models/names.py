"""Names of modules and parameters inside a model: what lies within what, what peft put between."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "PEFT_PREFIX",
    "ends_in",
    "is_within",
    "within_block",
    "without_peft",
]


# What peft puts before the names of a model that it has wrapped.
PEFT_PREFIX = "base_model.model."


def is_within(name: str, modules: Iterable[str]) -> bool:
    """Whether `name` is, or lies within, one of `modules`, which may be parts of longer names."""
    return any(f".{m}." in f".{name}." for m in modules)


def ends_in(name: str, endings: Iterable[str]) -> bool:
    """Whether a module's dotted name is, or ends with, one of `endings`."""
    return any(name == e or name.endswith("." + e) for e in endings)


def within_block(name: str) -> str:
    """Part of a module's name after its block number ("encoder.layer.3.attention.self.query")."""
    parts = name.split(".")
    numbers = [i for i, p in enumerate(parts) if p.isdigit()]
    return ".".join(parts[numbers[-1] + 1 :]) if numbers else name


def without_peft(name: str) -> str:
    """A parameter's name in the bare base, without what peft wrapped around it."""
    bare = name.removeprefix(PEFT_PREFIX)
    return bare.replace(".base_layer.", ".").replace(".original_module.", ".")
