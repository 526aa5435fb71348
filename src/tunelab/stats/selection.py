"""What the method that was chosen on validation truly scores on test.

Validation and test are scored by the same trained models: a method is chosen partly because its
seeds were lucky, and the same lucky seeds then score on test. Its mean there flatters, by 0.8
points where seeds differ by two. Here some seeds choose and the others are reported.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tunelab.core.values import Estimate
from tunelab.stats.contrasts import LEAST_RESAMPLES
from tunelab.stats.crossed import LEVEL, components_of_resamples, spread_of
from tunelab.stats.metrics import METRICS
from tunelab.stats.resampling import (
    MEAN_RESAMPLES,
    Floats,
    Runs,
    count_units,
    defined_resamples,
    measure_all,
    metric_named,
)

__all__ = [
    "LEAST_SEEDS_TO_SPLIT",
    "chosen_score",
    "cross_chosen",
    "score_of_choice",
]

LEAST_SEEDS_TO_SPLIT = 4  # two to choose, two to report
PRIOR_DF = 4  # what the other methods' spread over seeds counts for, in degrees of freedom


def chosen_score(
    label: str,
    validation: Mapping[str, Runs],
    test: Mapping[str, Runs],
    metric: str,
    rng: np.random.Generator,
    *,
    level: float = LEVEL,
) -> Estimate | None:
    """The test score of the method `label`, chosen on validation among all, without its luck.

    Runs by label on both parts. Methods that lack one of its seeds, or a value of the metric, took
    no part in the choice. None with fewer than four seeds, without a rival, or without an interval.
    """
    chosen = metric_named(metric)
    there = [test[label], *(r for k, r in test.items() if k != label and k in validation)]
    first = measure_all([test[label]], [chosen], rng, MEAN_RESAMPLES)[0]
    seeds = list(first[0].values) if first else []
    usable = [r for r in there if set(seeds) <= set(r.by_seed) & set(validation[r.label].by_seed)]
    if len(seeds) < LEAST_SEEDS_TO_SPLIT or len(usable) < 2 or usable[0].label != label:
        return None
    drawn = defined_resamples(np.stack([first[0].resampled[s] for s in seeds], axis=1))
    rows = count_units(test[label], seeds)
    if rows < 2 or len(drawn) < LEAST_RESAMPLES:
        return None
    of_test = np.array([first[0].values[s] for s in seeds])
    parts = components_of_resamples(of_test, drawn, rows)
    known = [
        (v, t)
        for r in usable
        if (v := _values(validation[r.label], metric, seeds)) is not None
        and (t := _values(r, metric, seeds)) is not None
    ]
    if len(known) < 2:
        return None
    sign = 1.0 if chosen.higher_is_better else -1.0
    estimate = score_of_choice(
        sign * np.array([v for v, _ in known]),
        sign * np.array([t for _, t in known]),
        row_variance=parts.item,
        row_df=parts.item_df,
        level=level,
    )
    return _within(estimate, sign, (0.0, 1.0) if chosen.percent else None)


def cross_chosen(validation: Floats, test: Floats) -> float:
    """The mean test score of what half of the seeds choose, by the other half of them.

    Both (methods, seeds), higher is better. Each half is as many seeds in a row, in a circle: so
    every seed chooses and is reported equally often.
    """
    seeds = validation.shape[1]
    half = seeds // 2
    scores = []
    for start in range(seeds):
        choosing = np.isin(np.arange(seeds), (start + np.arange(half)) % seeds)
        best = int(validation[:, choosing].mean(axis=1).argmax())
        scores.append(float(test[best, ~choosing].mean()))
    return float(np.mean(scores))


def score_of_choice(
    validation: Floats,
    test: Floats,
    *,
    row_variance: float,
    row_df: float,
    level: float = LEVEL,
) -> Estimate:
    """`cross_chosen` with its Student t interval, for other seeds and other rows.

    `row_variance`: what rows bring to the mean of the chosen method on test, in score units
    squared, with its degrees of freedom. The spread over seeds is the chosen method's, drawn
    towards that of all methods (Smyth 2004): it was chosen among them, and few seeds tell little.
    """
    seeds = test.shape[1]
    best = int(validation.mean(axis=1).argmax())
    own = test.var(axis=1, ddof=1)
    varied = own[own > 0]
    prior = PRIOR_DF if own[best] > 0 and len(varied) > 1 else 0
    pooled = float(varied.mean()) if prior else 0.0
    df = seeds - 1 + prior
    seed_variance = (prior * pooled + (seeds - 1) * float(own[best])) / df
    spread = spread_of(seed_variance / seeds, row_variance, seed_df=df, item_df=row_df)
    value = cross_chosen(validation, test)
    half = spread.half_width(level)
    procedure = (
        f"half of {seeds} seeds choose among {len(test)} methods, the others are reported, in "
        f"turn; Student t with {spread.df:.1f} df"
    )
    return Estimate(value, value - half, value + half, seeds, procedure)


def _values(runs: Runs, metric: str, seeds: list[int]) -> list[float] | None:
    """The metric with each seed; None where it has no value."""
    try:
        return [METRICS[metric].function(runs.by_seed[s]) for s in seeds]
    except ValueError:
        return None


def _within(e: Estimate, sign: float, limits: tuple[float, float] | None) -> Estimate:
    """The estimate in the metric's own units, ending where no value can be."""
    low, high = sorted((sign * float(e.low or 0.0), sign * float(e.high or 0.0)))
    if limits is not None:
        low, high = max(limits[0], low), min(limits[1], high)
    return Estimate(sign * e.value, low, high, e.n, e.procedure)
