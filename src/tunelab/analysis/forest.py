"""Shares of variance where settings form no full grid: by a random forest."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunelab.analysis.reading import value_of
from tunelab.analysis.setting_effects import (
    Effect,
    Factor,
    Floats,
    Level,
    Sensitivity,
    anova_components,
    largest_first,
    said_of_settings,
)
from tunelab.core.values import Estimate, TrialResult
from tunelab.stats import mean_interval

__all__ = [
    "effects_by_forest",
]

FOREST_SEED = 0
TREES = 100
LEAST_FOREST = 10  # trials below which a forest says nothing
MOST_CELLS = 20_000


def effects_by_forest(
    method: str, key: str, trials: Sequence[TrialResult], factors: Sequence[Factor]
) -> Sensitivity:
    """Functional ANOVA of a random forest's predictions on the full grid of the values seen.

    Shares are those of each tree's variance, averaged; the interval is what the middle 95% of the
    trees say, each grown on a bootstrap of the trials. They are scaled by the share of the
    variance that the forest predicts out of bag, so that noise is not credited to a setting.
    """
    seen = _Trials(
        factors,
        values=np.array([value_of(r, key) for r in trials], dtype=np.float64),
        places=np.array([[f.of[r.spec.method.label] for f in factors] for r in trials]),
        procedure=f"functional ANOVA of a random forest on {len(trials)} trials",
    )
    nothing = Sensitivity(method, key, seen.procedure, len(trials), (), (), None, 0.0, 1.0, (), ())
    if len(trials) < LEAST_FOREST or np.ptp(seen.values) == 0:
        few = f"{len(trials)} trials that are no full grid: at least {LEAST_FOREST} are needed"
        note = few if np.ptp(seen.values) else "every trial has the same value"
        return said_of_settings(replace(nothing, notes=(note,)))
    explained, shares = _shares_by_tree(seen)
    means = {s: float(np.mean(v)) for s, v in shares.items()}
    effects = [_forest_effect(s, shares[s], seen) for s in shares if len(s) <= 2]
    main, interactions = largest_first(effects)
    note = f"the forest predicts {100 * explained:.0f}% of the variance of trials it has not seen"
    return said_of_settings(
        replace(
            nothing,
            effects=main,
            interactions=interactions,
            higher=sum(v for s, v in means.items() if len(s) > 2),
            residual=max(0.0, 1 - sum(means.values())),
            notes=(note,),
        )
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Trials:
    """n trials: their `values` (n,), and `places` (n, factors) of their settings in each factor."""

    factors: Sequence[Factor]
    values: Floats
    places: NDArray[np.int64]
    procedure: str


def _shares_by_tree(seen: _Trials) -> tuple[float, dict[tuple[int, ...], list[float]]]:
    """The variance explained out of bag, and each tree's share of it by the factors concerned."""
    from sklearn.ensemble import RandomForestRegressor

    factors = seen.factors
    numbers = np.array(
        [[f.numbers[p] for f, p in zip(factors, row, strict=True)] for row in seen.places]
    )
    forest = RandomForestRegressor(
        TREES, oob_score=True, random_state=FOREST_SEED, min_samples_leaf=2
    )
    forest.fit(numbers, seen.values)
    explained = max(0.0, float(forest.oob_score_))
    grid_values = [_thinned(f.numbers, len(factors)) for f in factors]
    points = np.array(list(itertools.product(*grid_values)))
    shape = tuple(len(v) for v in grid_values)
    shares: dict[tuple[int, ...], list[float]] = {}
    for tree in forest.estimators_:
        parts = anova_components(tree.predict(points).reshape(shape))
        spread = {s: float((c**2).mean()) for s, c in parts.items() if s}
        total = sum(spread.values())
        for s, v in spread.items():
            shares.setdefault(s, []).append(explained * v / total if total else 0.0)
    return explained, shares


def _forest_effect(axes: tuple[int, ...], shares: Sequence[float], seen: _Trials) -> Effect:
    low, high = np.quantile(shares, [0.025, 0.975])
    mean, n = float(np.mean(shares)), len(seen.values)
    known = Estimate(mean, min(float(low), mean), max(float(high), mean), n, seen.procedure)
    names = tuple(seen.factors[a].name for a in axes)
    if len(axes) > 1:
        return Effect(names, known)
    (axis,) = axes
    whole = float(seen.values.mean())
    levels = tuple(
        _level_seen(v, seen.values[seen.places[:, axis] == i], whole)
        for i, v in enumerate(seen.factors[axis].values)
    )
    return Effect(names, known, levels=levels)


def _level_seen(value: str, values: Floats, mean: float) -> Level:
    return Level(value, float(values.mean()), mean_interval((values - mean).tolist(), signed=True))


def _thinned(numbers: Sequence[float], factors: int) -> list[float]:
    """At most so many values of a setting that the grid of all stays below MOST_CELLS."""
    most = max(2, int(MOST_CELLS ** (1 / factors)))
    values = sorted(set(numbers))
    if len(values) <= most:
        return values
    at = np.linspace(0, len(values) - 1, most).round().astype(int)
    return [values[i] for i in at]
