"""What a setting does to a score, as values and in a sentence."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunelab.analysis.numbers import Column, column, format_percent, format_value
from tunelab.core.values import Estimate
from tunelab.stats.metrics import METRICS

__all__ = [
    "Effect",
    "Factor",
    "Floats",
    "Level",
    "Sensitivity",
    "anova_components",
    "higher_is_better",
    "largest_first",
    "said_of_settings",
    "share_in_words",
]


Floats = NDArray[np.float64]
MOST_INTERACTIONS = 5


@dataclass(frozen=True, slots=True)
class Level:
    """A value of a setting: the mean of the trials that have it, and how far that is from all."""

    value: str
    mean: float
    effect: Estimate


@dataclass(frozen=True, slots=True)
class Effect:
    """A setting, or two that act together. `share` is of the variance of single trials, in [0, 1].

    `sum_squares`, `df`, `f` and `p_value` are those of the analysis of variance, None from a
    forest. `levels` of a single setting, in their order; `span` is best less worst level.
    """

    settings: tuple[str, ...]
    share: Estimate
    sum_squares: float | None = None
    df: int | None = None
    f: float | None = None
    p_value: float | None = None
    levels: tuple[Level, ...] = ()
    span: Estimate | None = None

    @property
    def name(self) -> str:
        """The settings in words: "r", "r x lora_alpha"."""
        return " x ".join(self.settings)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What the settings of one method do to one quantity (`of`: "test_accuracy", "train_seconds").

    `effects` and `interactions` with the largest share first. `seeds`, `higher` and `residual` are
    the shares of seeds, of all further interactions, and of what nothing explains; they and all
    effects sum to one. `seeds` is None where it cannot be told.
    """

    method: str
    of: str
    procedure: str
    trials: int
    effects: tuple[Effect, ...]
    interactions: tuple[Effect, ...]
    seeds: float | None
    higher: float
    residual: float
    notes: tuple[str, ...]
    sentences: tuple[str, ...]


# --- factors: the settings that vary ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Factor:
    """A setting with its values in order, or several that always change together."""

    name: str
    values: tuple[str, ...]
    numbers: tuple[
        float, ...
    ]  # for a forest: the value itself where it is a number, else its place
    of: Mapping[str, int]  # label of a method -> place of its value


# --- the split of the variance ------------------------------------------------------------------


def anova_components(grid: Floats) -> dict[tuple[int, ...], Floats]:
    """The functional ANOVA of a full grid: for each set of axes its component, by inclusion.

    grid (L_1, ..., L_f) is the sum of all components; each sums to zero along each of its axes and
    keeps the other axes with length one. The empty set is the mean.
    """
    axes = range(grid.ndim)
    components: dict[tuple[int, ...], Floats] = {}
    for size in range(grid.ndim + 1):
        for chosen in itertools.combinations(axes, size):
            others = tuple(a for a in axes if a not in chosen)
            marginal = grid.mean(axis=others, keepdims=True) if others else grid
            below = [c for s, c in components.items() if set(s) < set(chosen)]
            components[chosen] = np.asarray(marginal - sum(below, np.zeros(1)))
    return components


def higher_is_better(of: Column) -> bool:
    """Whether more of a column is better."""
    metric = METRICS.get(of.name.partition("_")[2])
    return metric.higher_is_better if metric else of.name == "texts_per_second"


def largest_first(effects: Sequence[Effect]) -> tuple[tuple[Effect, ...], tuple[Effect, ...]]:
    """Effects of single settings and interactions, the largest share of the variance first."""
    ranked = sorted(effects, key=lambda e: -e.share.value)
    pairs = [e for e in ranked if len(e.settings) == 2]
    return tuple(e for e in ranked if len(e.settings) == 1), tuple(pairs[:MOST_INTERACTIONS])


# --- words --------------------------------------------------------------------------------------


def said_of_settings(s: Sensitivity) -> Sensitivity:
    """The analysis with its sentences."""
    of = column(s.of)
    sentences = [_setting_sentence(e, s, of) for e in s.effects]
    strong = [e for e in s.interactions if e.p_value is not None and e.p_value < 0.05]
    strong = strong or [e for e in s.interactions if e.p_value is None and e.share.value > 0.05]
    sentences += [
        f"{e.name} act together: {share_in_words(e.share)} of the variance beyond "
        "what each does alone"
        for e in strong
    ]
    if s.effects and s.residual > 0.5:
        sentences.append(
            f"{format_percent(s.residual)}% of the variance of {of.about} is noise that no setting "
            "explains"
        )
    return replace(s, sentences=tuple(sentences))


def share_in_words(e: Estimate) -> str:
    """A share as it is said, with its interval."""
    text = f"{format_percent(e.value)}%"
    if e.low is None or e.high is None:
        return text
    return f"{text} ({format_percent(e.low)} to {format_percent(e.high)})"


def _setting_sentence(e: Effect, s: Sensitivity, of: Column) -> str:
    share = share_in_words(e.share)
    said = f"{e.name} explains {share} of the variance of {of.about} among {s.method} trials"
    if not e.levels:
        return said
    key = (lambda v: v.mean) if higher_is_better(of) else (lambda v: -v.mean)
    best, worst = max(e.levels, key=key), min(e.levels, key=key)
    if best.mean == worst.mean:
        return f"{e.name} changes nothing in {of.about} among {s.method} trials"
    if e.p_value is not None and e.p_value > 0.05:
        return f"{said}: no effect is shown (p = {e.p_value:.2g})"
    return (
        f"{said}: best {best.value} ({format_value(best.mean, of)}), "
        f"worst {worst.value} ({format_value(worst.mean, of)})"
    )
