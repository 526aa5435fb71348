"""Values as JSON and YAML have them, typed: what may be written, and what settings are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

__all__ = [
    "PlainValue",
    "SettingValues",
    "as_settings",
]

PlainValue: TypeAlias = (
    "str | int | float | bool | Sequence[PlainValue] | Mapping[str, PlainValue] | None"
)

# Values of settings by name. Which there are, and of what type, says a method's `Settings`.
SettingValues: TypeAlias = Mapping[str, PlainValue]


def as_settings(values: Mapping[str, object]) -> SettingValues:
    """Values that were read from a file, as the settings that they are. Raises TypeError else."""
    return {name: _as_plain(value) for name, value in values.items()}


def _as_plain(value: object) -> PlainValue:
    match value:
        case None | str() | int() | float():
            return value
        case list() | tuple():
            return [_as_plain(v) for v in value]
        case dict():
            return {str(k): _as_plain(v) for k, v in value.items()}
    raise TypeError(f"expected what JSON holds, found {type(value).__name__}: {value!r}")
