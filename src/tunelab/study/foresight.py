"""The smallest difference that a planned study can show, from earlier trials or what is usual."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tunelab import stats
from tunelab.stats import components
from tunelab.study.progress import Progress, RightBySeed, ended_well, right_on_validation

__all__ = [
    "Power",
    "power",
]


# --- before the run -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Power:
    """The smallest true difference in accuracy that this study finds four times out of five.

    `difference` of two methods compared on their own, `among` of the first of all pairs that Holm's
    correction tests; `rows` and `seeds` it rests on; `least_seeds`: below which no method is called
    better (`stats.least_seeds`);
    `disagreement`: share of test rows on which exactly one of two methods is right, `shared`: the
    part of it that is the same with every seed, and where both come from (`source`; what is not
    known is taken as 1, the cautious end); `seed_sd`: standard deviation over seeds of the
    difference, on endless rows.
    """

    difference: float
    among: float
    rows: int
    seeds: int
    least_seeds: int
    disagreement: float
    seed_sd: float
    source: Literal["stated", "trials that are done", "usual"]
    shared: float = 1.0


# FIELD: two good classifiers of the same texts disagree about so often.
_USUAL_DISAGREEMENT = 0.08


def power(progress: Progress) -> Power:
    """What this study could find: from its test rows, its seeds, and what is known of its methods.

    The disagreement is that which the study states; else that of its finished trials on
    validation (a pilot: test decides nothing, not even this); else 8%.
    """
    plan, spec = progress.plan, progress.plan.spec
    rows, seeds = len(plan.scored.test), len(spec.seeds)
    found, shared, seed_sd = _pilot(progress)
    if spec.parts is not None:
        shared = _shared_in_folds(shared, seeds, seeds / spec.parts)
    source: Literal["stated", "trials that are done", "usual"] = "trials that are done"
    if spec.disagreement is not None:
        found, source = spec.disagreement, "stated"
    elif found is None:
        found, source = _USUAL_DISAGREEMENT, "usual"
    one, first = (
        stats.detectable_difference(rows, seeds, found, seed_sd=seed_sd, shared=shared, pairs=pairs)
        for pairs in (1, max(1, math.comb(len(spec.methods), 2)))
    )
    least = stats.least_seeds()
    return Power(one, first, rows, seeds, least, found, seed_sd, source, shared)


def _shared_in_folds(shared: float, seeds: int, repetitions: float) -> float:
    """The shared part that counts where each row is tested by one seed of a repetition alone.

    Of n rows and s seeds the variance is disagreement x (shared + (1 - shared) / s) / n; in folds a
    row has as many seeds as there are repetitions, and not s.
    """
    seen = shared + (1 - shared) / repetitions
    return (seen - 1 / seeds) / (1 - 1 / seeds) if seeds > 1 else 1.0


def _pilot(progress: Progress) -> tuple[float | None, float, float]:
    """Of the finished trials, over pairs: disagreement, its shared part, sd over seeds."""
    spec = progress.plan.spec
    right: RightBySeed = {}
    for t in progress.trials:
        if ended_well(progress.results, t):
            by_seed = right.setdefault(t.method.label, {})
            by_seed[t.seed] = right_on_validation(spec.output_dir, t)
    alone, several = [], []
    for a, b in itertools.combinations(right.values(), 2):
        seeds = sorted(a.keys() & b.keys())
        of_seed = [a[s].astype(float) - b[s] for s in seeds]
        gaps = np.concatenate(of_seed or [np.zeros(0)])
        if not gaps.any():  # methods that never differ say nothing of those that do
            continue
        alone.append(float((gaps != 0).mean()))
        # With a split or a fold of its own, a seed has validation rows of its own.
        alike = not spec.vary_split and spec.parts is None
        if len(seeds) > 2 and len(of_seed[0]) > 1 and alike:
            several.append(components(np.array(of_seed)))
    if not alone:
        return None, 1.0, 0.0
    if not several:
        return float(np.mean(alone)), 1.0, 0.0
    within, common, seed = np.mean(several, axis=0)
    return float(np.mean(alone)), float(common / within) if within else 1.0, float(seed) ** 0.5
