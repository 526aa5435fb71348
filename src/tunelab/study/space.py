"""Spaces of settings: which values a method may try."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tunelab.core.errors import ConfigError
from tunelab.core.plain import PlainValue, SettingValues

__all__ = [
    "LEARNING_RATE_FACTORS",
    "TUNING_SEED",
    "Range",
    "Space",
    "Tuning",
    "as_hashable",
    "grid_points",
    "parse_space",
    "space_to_json",
]


# A third, once and three times a method's recommended learning rate. On nine variants of LoRA the
# learning rate is what decides (arXiv:2602.04998); a small grid beats search at equal time
# (arXiv:2106.09204).
LEARNING_RATE_FACTORS = (0.3, 1.0, 3.0)
# The seed of tries: none of a study's own (0, 1, 2, ...), so that a lucky try is not a result.
TUNING_SEED = 1_000_003


@dataclass(frozen=True, slots=True)
class Range:
    """Values from `low` to `high`, both included; `log`: by their logarithm; `integer`: whole."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends, as the numbers that a setting takes."""
        return (int(self.low), int(self.high)) if self.integer else (self.low, self.high)


# setting -> the values to try, or the range to draw them from
Space = Mapping[str, tuple[PlainValue, ...] | Range]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is tried. `spaces` by a method's label; a method without one is not tuned.

    `budget`: settings proposed by Optuna for each method; None tries every point of the grid.
    `prune`: a try that is behind the median of those before it, at the same epoch, is ended.
    """

    spaces: Mapping[str, Space] = field(default_factory=dict)
    budget: int | None = None
    seeds: tuple[int, ...] = (TUNING_SEED,)
    prune: bool = True

    def tries(self, label: str) -> int:
        """How many settings a method tries."""
        if label not in self.spaces:
            return 0
        return self.budget or math.prod(len(tuple(v)) for v in _listed_values(self.spaces[label]))


def _listed_values(space: Space) -> Iterable[tuple[PlainValue, ...]]:
    return (v for v in space.values() if isinstance(v, tuple))


def parse_space(value: Mapping[str, object]) -> Space:
    """Read a space as users write it: {setting: [..]} or {setting: {low, high, log}}.

    Raises ValueError, without the setting's owner, for what is neither.
    """
    out: dict[str, tuple[PlainValue, ...] | Range] = {}
    for name, given in value.items():
        if isinstance(given, list | tuple) and given:
            # Each once: a value given twice would be tried twice.
            try:
                out[name] = tuple(dict.fromkeys(as_hashable(v) for v in given))
            except TypeError:
                raise ValueError(f"{name}: expected plain values, found {given!r}") from None
        elif isinstance(given, Mapping):
            out[name] = _parse_range(name, given)
        else:
            raise ValueError(f"{name}: expected a list of values, or low and high, found {given!r}")
    return out


def as_hashable(value: PlainValue) -> PlainValue:
    """A value that can be a key."""
    return tuple(value) if isinstance(value, list) else value


def _parse_range(name: str, given: Mapping[str, object]) -> Range:
    unknown = [k for k in given if k not in ("low", "high", "log")]
    low, high = given.get("low"), given.get("high")
    if unknown or not isinstance(low, int | float) or not isinstance(high, int | float):
        raise ValueError(f"{name}: expected low and high (and log: true), found {dict(given)!r}")
    log = bool(given.get("log", False))
    if not low < high or (log and low <= 0):
        above = "above 0 " if log else ""
        raise ValueError(f"{name}: expected low {above}and below high, found {low} and {high}")
    whole = isinstance(low, int) and isinstance(high, int)
    return Range(float(low), float(high), log, whole)


def space_to_json(space: Space) -> SettingValues:
    """A space as users write it."""
    out: dict[str, PlainValue] = {}
    for name, values in space.items():
        if isinstance(values, Range):
            low, high = values.ends
            out[name] = {"low": low, "high": high, "log": values.log}
        else:
            out[name] = [list(v) if isinstance(v, tuple) else v for v in values]
    return out


def grid_points(space: Space) -> list[SettingValues]:
    """Every point of a space of lists, in order. Raises ConfigError for a range."""
    for name, values in space.items():
        if isinstance(values, Range):
            raise ConfigError(
                f"tuning: {name} is a range; expected a budget with it, such as budget: 10, or a "
                "list of values."
            )
    return [
        {k: list(v) if isinstance(v, tuple) else v for k, v in zip(space, point, strict=True)}
        for point in itertools.product(*(tuple(v) for v in space.values()))  # type: ignore[arg-type]
    ]
