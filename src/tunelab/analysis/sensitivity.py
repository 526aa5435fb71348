"""What matters among the settings of a study: main effects, interactions, shares of the variance.

The trials of one method that differ in settings are an experiment. Where they are a full grid with
the same seeds in every cell, the variance splits exactly (analysis of variance, seeds as blocks);
else a random forest stands in for the grid and its predictions are split in the same way
(functional ANOVA, Hutter, Hoos and Leyton-Brown 2014).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunelab.analysis.forest import effects_by_forest
from tunelab.analysis.numbers import Column, column, cost_names, format_percent, format_value
from tunelab.analysis.reading import value_of
from tunelab.analysis.setting_effects import (
    Effect,
    Factor,
    Floats,
    Level,
    Sensitivity,
    anova_components,
    higher_is_better,
    largest_first,
    said_of_settings,
    share_in_words,
)
from tunelab.core.errors import ConfigError, suggest
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Estimate, TrialResult
from tunelab.stats import mean_interval
from tunelab.stats.metrics import METRICS

__all__ = [
    "Sensitivity",
    "analyse",
    "sensitivity_for_display",
    "quantity",
]


def quantity(record: StudyRecord, of: str | None) -> str:
    """The key of a quantity: None is the study's metric; a metric is on test where that is scored.

    Raises ConfigError for a name that no trial has.
    """
    metric = record.settings["metric"]
    name = of or metric
    scores = dict.fromkeys(k for r in record.done for k, v in r.scores.items() if v is not None)
    if name in METRICS:
        name = f"test_{name}" if f"test_{name}" in scores else f"eval_{name}"
    known = [*scores, *cost_names()]
    if name not in known:
        raise ConfigError(
            f"{record.directory}: no trial has {of or name!r}."
            f"{suggest(name, [*METRICS, *known], what='Known')}"
        )
    return name


def analyse(record: StudyRecord, of: str | None = None) -> tuple[Sensitivity, ...]:
    """One Sensitivity for each method of the study that has settings that vary among its trials.

    `of` is a metric ("accuracy": on test where it was scored), a score ("eval_accuracy") or a cost
    ("train_seconds"); None is the study's metric. Raises ConfigError where no trial has it. No
    method with settings that vary gives an empty tuple.
    """
    key = quantity(record, of)
    analyses = []
    for name in dict.fromkeys(r.spec.method.name for r in record.done):
        trials = [
            r for r in record.done if r.spec.method.name == name and value_of(r, key) is not None
        ]
        factors = _factors(trials)
        if factors:
            analyses.append(_analyse(name, key, trials, factors))
    return tuple(analyses)


def _factors(trials: Sequence[TrialResult]) -> list[Factor]:
    settings = {r.spec.method.label: r.spec.method.settings for r in trials}
    # What each fold of a method chose for itself is no setting that was varied.
    chosen = {
        k
        for r in trials
        for k, v in r.spec.method.settings.items()
        if settings[r.spec.method.label].get(k) != v
    }
    names = dict.fromkeys(k for s in settings.values() for k in s if k not in chosen)
    factors: dict[tuple[int, ...], Factor] = {}
    for name in names:
        raw = {label: s.get(name) for label, s in settings.items()}
        texts = {label: _text(v) for label, v in raw.items()}
        if len(set(texts.values())) < 2:
            continue
        values = {t: raw[label] for label, t in texts.items()}
        order = sorted(values, key=lambda t: _place(values[t], t))
        of = {label: order.index(t) for label, t in texts.items()}
        sizes = [v for t in order if isinstance(v := values[t], int | float)]
        numeric = len(sizes) == len(order)
        numbers = tuple(map(float, sizes)) if numeric else tuple(range(len(order)))
        # Settings that split the trials alike cannot be told apart: they are one factor.
        places = list(of.values())
        alike = tuple(list(dict.fromkeys(places)).index(p) for p in places)
        known = factors.get(alike)
        if known is None:
            factors[alike] = Factor(name, tuple(order), numbers, of)
        else:
            factors[alike] = Factor(
                f"{known.name} with {name}", known.values, known.numbers, known.of
            )
    return list(factors.values())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _place(value: Any, text: str) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, text)


def _analyse(
    method: str, key: str, trials: Sequence[TrialResult], factors: Sequence[Factor]
) -> Sensitivity:
    cube = _cube(key, trials, factors)
    if cube is not None:
        return _exact(method, key, cube, factors)
    return effects_by_forest(method, key, trials, factors)


def _cube(key: str, trials: Sequence[TrialResult], factors: Sequence[Factor]) -> Floats | None:
    """Values (L_1, ..., L_f, seeds) where the trials are a full grid, else None."""
    seeds = sorted({r.spec.seed for r in trials})
    shape = (*(len(f.values) for f in factors), len(seeds))
    if math.prod(shape) != len(trials):
        return None
    cube = np.full(shape, np.nan)
    for r in trials:
        at = (*(f.of[r.spec.method.label] for f in factors), seeds.index(r.spec.seed))
        value = value_of(r, key)
        cube[at] = math.nan if value is None else value
    return None if np.isnan(cube).any() else cube


def _exact(method: str, key: str, cube: Floats, factors: Sequence[Factor]) -> Sensitivity:
    """Analysis of variance of a full grid, seeds as blocks: y = mean + effects + seed + error.

    With one seed the interactions of highest order are the error. The share of an effect is its
    noncentrality against all: lambda / (sum of lambdas + N), with the unbiased lambda = SS / MSE
    - df (an omega squared: sum of squares alone would credit every setting with noise), and its
    interval from the noncentral F distribution (Steiger 2004).
    """
    shape = cube.shape
    seeds, n = shape[-1], cube.size
    of = column(key)
    total = float(((cube - cube.mean()) ** 2).sum())
    parts = {s: c for s, c in anova_components(cube.mean(axis=-1)).items() if s}
    squares = {s: float((c**2).sum()) * n / c.size for s, c in parts.items()}
    degrees = {s: math.prod(shape[a] - 1 for a in s) for s in parts}
    block = (
        float(((cube.mean(axis=tuple(range(cube.ndim - 1))) - cube.mean()) ** 2).sum()) * n / seeds
    )
    notes = []
    if seeds > 1:
        error, df = total - block - sum(squares.values()), (n // seeds - 1) * (seeds - 1)
    elif len(factors) > 1:
        top = tuple(range(len(factors)))
        error, df = squares.pop(top), degrees.pop(top)
        notes.append("one seed: the interaction of all settings counts as noise")
    else:
        error, df = 0.0, 0
        notes.append("one seed and one setting: noise cannot be told from effect")
    if error <= 1e-12 * total:
        error = 0.0
    split = _Split(total, error, df, n, block if seeds > 1 else 0.0, seeds - 1, squares, degrees)
    effects = [_effect(s, split, factors, cube, of) for s in squares if len(s) <= 2]
    higher = sum(split.share(squares[s], degrees[s]) for s in squares if len(s) > 2)
    procedure = (
        f"analysis of variance of a full grid of {n // seeds} settings x "
        f"{seeds} seed{'s' if seeds > 1 else ''}"
    )
    residual = split.residual
    return said_of_settings(
        Sensitivity(
            method,
            key,
            procedure,
            n,
            *largest_first(effects),
            split.share(block, seeds - 1) if seeds > 1 else None,
            higher,
            residual,
            tuple(notes),
            (),
        )
    )


@dataclass(frozen=True, slots=True)
class _Split:
    """Sums of squares of an analysis of variance: all, error, seeds, effects."""

    total: float
    error: float
    error_df: int
    n: int
    block: float
    block_df: int
    squares: Mapping[tuple[int, ...], float]
    degrees: Mapping[tuple[int, ...], int]

    def noncentrality(self, squares: float, df: int) -> float:
        """lambda = SS / MSE - df, not below zero."""
        return max(0.0, squares / (self.error / self.error_df) - df)

    @property
    def whole(self) -> float:
        """All noncentralities, and N for the error."""
        effects = sum(self.noncentrality(self.squares[s], self.degrees[s]) for s in self.squares)
        return effects + self.noncentrality(self.block, self.block_df) + self.n

    def share(self, squares: float, df: int) -> float:
        """Share of the variance, in [0, 1]."""
        if not self.total:
            return 0.0
        if not self.error or not self.error_df:
            return squares / self.total
        return self.noncentrality(squares, df) / self.whole

    @property
    def residual(self) -> float:
        """Share of the error."""
        return self.n / self.whole if self.total and self.error and self.error_df else 0.0

    def interval(self, f: float, df: int, level: float = 0.95) -> tuple[float, float]:
        """Interval of a share, the other effects held at their estimates."""
        own = self.noncentrality(f * df * self.error / self.error_df, df)
        rest = self.whole - own
        low, high = (
            _noncentrality_at(f, df, self.error_df, p) for p in ((1 + level) / 2, (1 - level) / 2)
        )
        return low / (low + rest), high / (high + rest)


def _noncentrality_at(f: float, df: int, error_df: int, probability: float) -> float:
    """The lambda at which P(F < f) is `probability`; 0 where even lambda = 0 has less."""
    from scipy.optimize import brentq
    from scipy.special import ncfdtr

    def off(x: float) -> float:
        return float(ncfdtr(df, error_df, x, f)) - probability

    if off(1e-9) <= 0:
        return 0.0
    top = max(1.0, 2 * f * df)
    while off(top) > 0:
        top *= 2
    return float(brentq(off, 1e-9, top))


def _effect(
    axes: tuple[int, ...], split: _Split, factors: Sequence[Factor], cube: Floats, of: Column
) -> Effect:
    from scipy.special import fdtrc

    squares, df = split.squares[axes], split.degrees[axes]
    share = split.share(squares, df)
    names = tuple(factors[a].name for a in axes)
    levels, span = ((), None) if len(axes) > 1 else _levels(axes[0], factors, cube, of)
    if not split.error or not split.error_df:
        why = "the seeds change nothing" if cube.shape[-1] > 1 else "no estimate of the noise"
        known = Estimate(share, None, None, split.n, f"share of the sum of squares; {why}")
        return Effect(names, known, squares, df, None, None, levels, span)
    f = squares / df / (split.error / split.error_df)
    low, high = split.interval(f, df)
    # A share is clipped at zero where the bound of the noncentral F may lie above.
    known = Estimate(
        share,
        min(low, share),
        max(high, share),
        split.n,
        "share of variance (omega squared), interval by noncentral F",
    )
    p = float(fdtrc(df, split.error_df, f))
    return Effect(names, known, squares, df, f, p, levels, span)


def _levels(
    axis: int, factors: Sequence[Factor], cube: Floats, of: Column
) -> tuple[tuple[Level, ...], Estimate]:
    """Means by level; effects and the span (best less worst) paired by seed."""
    others = tuple(a for a in range(cube.ndim - 1) if a != axis)
    by_seed = cube.mean(axis=others)  # (levels, seeds)
    means = by_seed.mean(axis=1)
    from_all = by_seed - by_seed.mean(axis=0)
    levels = tuple(
        Level(v, float(m), mean_interval(e.tolist(), signed=True))
        for v, m, e in zip(factors[axis].values, means, from_all, strict=True)
    )
    order = np.argsort(means)
    best, worst = (order[-1], order[0]) if higher_is_better(of) else (order[0], order[-1])
    return levels, mean_interval((by_seed[best] - by_seed[worst]).tolist(), signed=True)


def sensitivity_for_display(s: Sensitivity) -> tuple[list[str], list[list[str]]]:
    """A table for readers: headings and cells, the largest share first, then what is left."""
    of = column(s.of)
    rows = [
        [
            e.name,
            share_in_words(e.share),
            "-" if e.p_value is None else ("< 0.001" if e.p_value < 0.001 else f"{e.p_value:.2g}"),
            "; ".join(f"{v.value}: {format_value(v.mean, of)}" for v in e.levels),
        ]
        for e in (*s.effects, *s.interactions)
    ]
    rest = [("seeds", s.seeds), ("further interactions", s.higher), ("noise", s.residual)]
    rows += [[name, f"{format_percent(v)}%", "", ""] for name, v in rest if v]
    return ["Setting", "Share of variance", "p", f"Mean {of.about}"], rows
