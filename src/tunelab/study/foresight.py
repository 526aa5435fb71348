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
    rows, seeds = len(plan.dataset.test), len(spec.seeds)
    found, shared, seed_sd = _pilot(progress)
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
        gaps = np.array([a[s].astype(float) - b[s] for s in seeds])
        if not gaps.any():  # methods that never differ say nothing of those that do
            continue
        alone.append(float((gaps != 0).mean()))
        # With a split of its own, a seed has validation rows of its own.
        if len(seeds) > 2 and gaps.shape[1] > 1 and not spec.vary_split:
            several.append(components(gaps))
    if not alone:
        return None, 1.0, 0.0
    if not several:
        return float(np.mean(alone)), 1.0, 0.0
    within, common, seed = np.mean(several, axis=0)
    return float(np.mean(alone)), float(common / within) if within else 1.0, float(seed) ** 0.5
