"""What matters among the settings of a study: main effects, interactions, shares of the variance.

The trials of one method that differ in settings are an experiment. Where they are a full grid with
the same seeds in every cell, the variance splits exactly (analysis of variance, seeds as blocks);
else a random forest stands in for the grid and its predictions are split in the same way
(functional ANOVA, Hutter, Hoos and Leyton-Brown 2014).

May import: numpy, scipy and scikit-learn (inside functions), types, errors, metrics, store, stats,
summary. May not import: torch, plots, report, cli.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.errors import ConfigError, suggest
from tunelab.metrics import METRICS
from tunelab.stats import mean_interval
from tunelab.store import StudyRecord
from tunelab.summary import Column, column, cost_names, format_percent, format_value, value_of
from tunelab.types import Estimate, TrialResult

__all__ = ["Effect", "Level", "Sensitivity", "analyse", "anova_components", "display", "quantity"]

Floats = NDArray[np.float64]
FOREST_SEED = 0
TREES = 100
LEAST_FOREST = 10  # trials below which a forest says nothing
MOST_CELLS = 20_000
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


def quantity(record: StudyRecord, of: str | None) -> str:
    """The key of a quantity: None is the study's metric; a metric is on test where that is scored.

    Raises ConfigError for a name that no trial has.
    """
    metric = str(record.settings.get("metric", "accuracy"))
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
    found = []
    for name in dict.fromkeys(r.spec.method.name for r in record.done):
        trials = [
            r for r in record.done if r.spec.method.name == name and value_of(r, key) is not None
        ]
        factors = _factors(trials)
        if factors:
            found.append(_analyse(name, key, trials, factors))
    return tuple(found)


# --- factors: the settings that vary ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Factor:
    """A setting with its values in order, or several that always change together."""

    name: str
    values: tuple[str, ...]
    numbers: tuple[
        float, ...
    ]  # for a forest: the value itself where it is a number, else its place
    of: Mapping[str, int]  # label of a method -> place of its value


def _factors(trials: Sequence[TrialResult]) -> list[_Factor]:
    settings = {r.spec.method.label: r.spec.method.settings for r in trials}
    names = dict.fromkeys(k for s in settings.values() for k in s)
    found: dict[tuple[int, ...], _Factor] = {}
    for name in names:
        raw = {label: s.get(name) for label, s in settings.items()}
        texts = {label: _text(v) for label, v in raw.items()}
        if len(set(texts.values())) < 2:
            continue
        values = {t: raw[label] for label, t in texts.items()}
        order = sorted(values, key=lambda t: _place(values[t], t))
        of = {label: order.index(t) for label, t in texts.items()}
        numeric = all(isinstance(v, int | float) for v in values.values())
        numbers = tuple(float(values[t] or 0) if numeric else i for i, t in enumerate(order))
        # Settings that split the trials alike cannot be told apart: they are one factor.
        places = list(of.values())
        alike = tuple(list(dict.fromkeys(places)).index(p) for p in places)
        known = found.get(alike)
        if known is None:
            found[alike] = _Factor(name, tuple(order), numbers, of)
        else:
            found[alike] = _Factor(
                f"{known.name} with {name}", known.values, known.numbers, known.of
            )
    return list(found.values())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _place(value: Any, text: str) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, text)


# --- the split of the variance ------------------------------------------------------------------


def anova_components(grid: Floats) -> dict[tuple[int, ...], Floats]:
    """The functional ANOVA of a full grid: for each set of axes its component, by inclusion.

    grid (L_1, ..., L_f) is the sum of all components; each sums to zero along each of its axes and
    keeps the other axes with length one. The empty set is the mean.
    """
    axes = range(grid.ndim)
    found: dict[tuple[int, ...], Floats] = {}
    for size in range(grid.ndim + 1):
        for chosen in itertools.combinations(axes, size):
            others = tuple(a for a in axes if a not in chosen)
            marginal = grid.mean(axis=others, keepdims=True) if others else grid
            below = [c for s, c in found.items() if set(s) < set(chosen)]
            found[chosen] = np.asarray(marginal - sum(below, np.zeros(1)))
    return found


def _analyse(
    method: str, key: str, trials: Sequence[TrialResult], factors: Sequence[_Factor]
) -> Sensitivity:
    cube = _cube(key, trials, factors)
    if cube is not None:
        return _exact(method, key, cube, factors)
    return _forest(method, key, trials, factors)


def _cube(key: str, trials: Sequence[TrialResult], factors: Sequence[_Factor]) -> Floats | None:
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


def _exact(method: str, key: str, cube: Floats, factors: Sequence[_Factor]) -> Sensitivity:
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
    return _said(
        Sensitivity(
            method, key, procedure, n, *_sorted(effects),
            split.share(block, seeds - 1) if seeds > 1 else None,
            higher, residual, tuple(notes), (),
        )
    )  # fmt: skip


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
    axes: tuple[int, ...], split: _Split, factors: Sequence[_Factor], cube: Floats, of: Column
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
        share, min(low, share), max(high, share), split.n, "share of variance (omega squared), "
        "interval by noncentral F",
    )  # fmt: skip
    p = float(fdtrc(df, split.error_df, f))
    return Effect(names, known, squares, df, f, p, levels, span)


def _levels(
    axis: int, factors: Sequence[_Factor], cube: Floats, of: Column
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
    best, worst = (order[-1], order[0]) if _higher_is_better(of) else (order[0], order[-1])
    return levels, mean_interval((by_seed[best] - by_seed[worst]).tolist(), signed=True)


def _higher_is_better(of: Column) -> bool:
    metric = METRICS.get(of.name.partition("_")[2])
    return metric.higher_is_better if metric else of.name == "texts_per_second"


def _forest(
    method: str, key: str, trials: Sequence[TrialResult], factors: Sequence[_Factor]
) -> Sensitivity:
    """Functional ANOVA of a random forest's predictions on the full grid of the values seen.

    Shares are those of each tree's variance, averaged; the interval is what the middle 95% of the
    trees say, each grown on a bootstrap of the trials. They are scaled by the share of the
    variance that the forest predicts out of bag, so that noise is not credited to a setting.
    """
    values = np.array([value_of(r, key) for r in trials], dtype=np.float64)
    places = np.array([[f.of[r.spec.method.label] for f in factors] for r in trials])
    names = [f.name for f in factors]
    procedure = f"functional ANOVA of a random forest on {len(trials)} trials"
    nothing = Sensitivity(method, key, procedure, len(trials), (), (), None, 0.0, 1.0, (), ())
    if len(trials) < LEAST_FOREST or np.ptp(values) == 0:
        few = f"{len(trials)} trials that are no full grid: at least {LEAST_FOREST} are needed"
        note = few if np.ptp(values) else "every trial has the same value"
        return _said(_replace(nothing, notes=(note,)))
    from sklearn.ensemble import RandomForestRegressor

    numbers = np.array(
        [[f.numbers[p] for f, p in zip(factors, row, strict=True)] for row in places]
    )
    forest = RandomForestRegressor(
        TREES, oob_score=True, random_state=FOREST_SEED, min_samples_leaf=2
    )
    forest.fit(numbers, values)
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
    whole = sum(float(np.mean(v)) for v in shares.values())

    def effect(s: tuple[int, ...]) -> Effect:
        low, high = np.quantile(shares[s], [0.025, 0.975])
        mean = float(np.mean(shares[s]))
        known = Estimate(
            mean, min(float(low), mean), max(float(high), mean), len(trials), procedure
        )
        levels: tuple[Level, ...] = ()
        if len(s) == 1:
            at = factors[s[0]]
            levels = tuple(
                _seen(v, values[places[:, s[0]] == i], float(values.mean()))
                for i, v in enumerate(at.values)
            )
        return Effect(tuple(names[a] for a in s), known, levels=levels)

    effects = [effect(s) for s in shares if len(s) <= 2]
    higher = sum(float(np.mean(v)) for s, v in shares.items() if len(s) > 2)
    note = f"the forest predicts {100 * explained:.0f}% of the variance of trials it has not seen"
    main, interactions = _sorted(effects)
    return _said(
        _replace(
            nothing, effects=main, interactions=interactions, higher=higher,
            residual=max(0.0, 1 - whole), notes=(note,),
        )
    )  # fmt: skip


def _seen(value: str, values: Floats, mean: float) -> Level:
    return Level(value, float(values.mean()), mean_interval((values - mean).tolist(), signed=True))


def _thinned(numbers: Sequence[float], factors: int) -> list[float]:
    """At most so many values of a setting that the grid of all stays below MOST_CELLS."""
    most = max(2, int(MOST_CELLS ** (1 / factors)))
    values = sorted(set(numbers))
    if len(values) <= most:
        return values
    at = np.linspace(0, len(values) - 1, most).round().astype(int)
    return [values[i] for i in at]


def _replace(s: Sensitivity, **changes: Any) -> Sensitivity:
    from dataclasses import replace

    return replace(s, **changes)


def _sorted(effects: Sequence[Effect]) -> tuple[tuple[Effect, ...], tuple[Effect, ...]]:
    ranked = sorted(effects, key=lambda e: -e.share.value)
    pairs = [e for e in ranked if len(e.settings) == 2]
    return tuple(e for e in ranked if len(e.settings) == 1), tuple(pairs[:MOST_INTERACTIONS])


# --- words --------------------------------------------------------------------------------------


def _said(s: Sensitivity) -> Sensitivity:
    of = column(s.of)
    sentences = [_sentence(e, s, of) for e in s.effects]
    strong = [e for e in s.interactions if e.p_value is not None and e.p_value < 0.05]
    strong = strong or [e for e in s.interactions if e.p_value is None and e.share.value > 0.05]
    sentences += [
        f"{e.name} act together: {_share(e.share)} of the variance beyond what each does alone"
        for e in strong
    ]
    if s.effects and s.residual > 0.5:
        sentences.append(
            f"{format_percent(s.residual)}% of the variance of {of.about} is noise that no setting "
            "explains"
        )
    return _replace(s, sentences=tuple(sentences))


def _share(e: Estimate) -> str:
    text = f"{format_percent(e.value)}%"
    if e.low is None or e.high is None:
        return text
    return f"{text} ({format_percent(e.low)} to {format_percent(e.high)})"


def _sentence(e: Effect, s: Sensitivity, of: Column) -> str:
    said = (
        f"{e.name} explains {_share(e.share)} of the variance of {of.about} among {s.method} trials"
    )
    if not e.levels:
        return said
    key = (lambda v: v.mean) if _higher_is_better(of) else (lambda v: -v.mean)
    best, worst = max(e.levels, key=key), min(e.levels, key=key)
    if best.mean == worst.mean:
        return f"{e.name} changes nothing in {of.about} among {s.method} trials"
    if e.p_value is not None and e.p_value > 0.05:
        return f"{said}: no effect is shown (p = {e.p_value:.2g})"
    return (
        f"{said}: best {best.value} ({format_value(best.mean, of)}), "
        f"worst {worst.value} ({format_value(worst.mean, of)})"
    )


def display(s: Sensitivity) -> tuple[list[str], list[list[str]]]:
    """A table for readers: headings and cells, the largest share first, then what is left."""
    of = column(s.of)
    rows = [
        [
            e.name,
            _share(e.share),
            "-" if e.p_value is None else ("< 0.001" if e.p_value < 0.001 else f"{e.p_value:.2g}"),
            "; ".join(f"{v.value}: {format_value(v.mean, of)}" for v in e.levels),
        ]
        for e in (*s.effects, *s.interactions)
    ]
    rest = [("seeds", s.seeds), ("further interactions", s.higher), ("noise", s.residual)]
    rows += [[name, f"{format_percent(v)}%", "", ""] for name, v in rest if v]
    return ["Setting", "Share of variance", "p", f"Mean {of.about}"], rows
