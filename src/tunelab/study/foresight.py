"""The smallest difference that a planned study can show, from earlier trials or what is usual."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunelab import stats
from tunelab.stats import components
from tunelab.study.planning import Plan
from tunelab.study.progress import Progress, RightBySeed, ended_well, right_on_validation
from tunelab.study.spreads import (
    SeenSpread,
    UsualSpread,
    keep_spreads,
    read_spreads,
    spread_of_methods,
    spread_over_seeds,
)

__all__ = [
    "Power",
    "power",
    "remember_spreads",
]


# --- before the run -------------------------------------------------------------------------


Origin = Literal["stated", "trials that are done", "studies on this machine", "usual"]


@dataclass(frozen=True, slots=True)
class Power:
    """The smallest true difference in accuracy that this study finds four times out of five.

    `difference` of two methods compared on their own, `among` of the first of all pairs that the
    correction tests; `rows` and `seeds` it rests on; `least_seeds`: below which no method is called
    better (`stats.least_seeds`);
    `disagreement`: share of test rows on which exactly one of two methods is right, `shared`: the
    part of it that is the same with every seed, and where both come from (`source`; what is not
    known is taken as 1, the cautious end); `seed_sd`: standard deviation over seeds of the
    difference, on endless rows; `method_sd`: of the accuracy of one method that varies, and where
    they come from (`spread_source`, of so many `studies` where they are of this machine).
    """

    difference: float
    among: float
    rows: int
    seeds: int
    least_seeds: int
    disagreement: float
    seed_sd: float
    source: Origin
    shared: float
    method_sd: float
    spread_source: Origin
    studies: int


# FIELD: two good classifiers of the same texts disagree about so often.
_USUAL_DISAGREEMENT = 0.08
_MOST_DISAGREEMENT = 0.999  # a tiny pilot may disagree on every row


def power(progress: Progress) -> Power:
    """What this study could find: from its test rows, its seeds, and what is known of its methods.

    The disagreement is that which the study states; else that of its finished trials on
    validation (a pilot: test decides nothing, not even this); else that of earlier studies on this
    machine; else 8%. The spread over seeds is that of the pilot, of earlier studies, or the usual.
    """
    plan, spec = progress.plan, progress.plan.spec
    rows, seeds = len(plan.scored.test), len(spec.seeds)
    pilot, usual = _pilot(progress), _usual(progress)
    disagreement, source = _disagreement(spec.disagreement, pilot, usual)
    disagreement = min(disagreement, _MOST_DISAGREEMENT)
    shared = usual.shared if source == "studies on this machine" else pilot.shared
    seed_sd, method_sd = pilot.seed_sd, pilot.method_sd
    spread_source: Origin = "trials that are done"
    if seed_sd is None:
        seed_sd, method_sd = math.sqrt(usual.gap_variance), usual.sd
        spread_source = "studies on this machine" if usual.studies else "usual"
    shared = 1.0 if shared is None else shared
    if spec.parts is not None:
        shared = _shared_in_folds(shared, seeds, seeds / spec.parts)
    one, first = (
        stats.detectable_difference(
            rows, seeds, disagreement, seed_sd=seed_sd, shared=shared, pairs=pairs
        )
        for pairs in (1, max(1, math.comb(len(spec.methods), 2)))
    )
    return Power(
        difference=one,
        among=first,
        rows=rows,
        seeds=seeds,
        least_seeds=stats.least_seeds(),
        disagreement=disagreement,
        seed_sd=seed_sd,
        source=source,
        shared=shared,
        method_sd=method_sd or 0.0,
        spread_source=spread_source,
        studies=usual.studies,
    )


def _shared_in_folds(shared: float, seeds: int, repetitions: float) -> float:
    """The shared part that counts where each row is tested by one seed of a repetition alone.

    Of n rows and s seeds the variance is disagreement x (shared + (1 - shared) / s) / n; in folds a
    row has as many seeds as there are repetitions, and not s.
    """
    seen = shared + (1 - shared) / repetitions
    return (seen - 1 / seeds) / (1 - 1 / seeds) if seeds > 1 else 1.0


def _disagreement(stated: float | None, pilot: _Pilot, usual: UsualSpread) -> tuple[float, Origin]:
    if stated is not None:
        return stated, "stated"
    if pilot.disagreement is not None:
        return pilot.disagreement, "trials that are done"
    if usual.disagreement:
        return usual.disagreement, "studies on this machine"
    return _USUAL_DISAGREEMENT, "usual"


def _usual(progress: Progress) -> UsualSpread:
    plan = progress.plan
    rows = len(plan.dataset.train)
    return spread_of_methods(plan.spec.methods, _family_of(plan), rows, read_spreads())


def _family_of(plan: Plan) -> str:
    return plan.base.model_type if plan.base else "none"


@dataclass(frozen=True, slots=True)
class _Pilot:
    """What finished trials say, the mean over pairs; None where they say nothing."""

    disagreement: float | None = None
    shared: float | None = None
    seed_sd: float | None = None
    method_sd: float | None = None


def _pilot(progress: Progress) -> _Pilot:
    right = _right_by_label(progress)
    alone, several = [], []
    for a, b in itertools.combinations(right.values(), 2):
        gaps = _gaps(a, b)
        every = np.concatenate(gaps or [np.zeros(0)])
        if not every.any():  # methods that never differ say nothing of those that do
            continue
        alone.append(float((every != 0).mean()))
        # With a split or a fold of its own, a seed has validation rows of its own.
        if len(gaps) > 2 and len(gaps[0]) > 1 and _seeds_share_rows(progress.plan):
            several.append(components(np.stack(gaps)))
    if not alone:
        return _Pilot()
    if not several:
        return _Pilot(float(np.mean(alone)))
    within, common, seed = np.mean(several, axis=0)
    shared = float(common / within) if within else 1.0
    each = [spread_over_seeds(list(own.values())) for own in right.values() if len(own) > 2]
    moving = [sd**2 for sd in each if sd > 0]
    method_sd = math.sqrt(float(np.mean(moving))) if moving else 0.0
    return _Pilot(float(np.mean(alone)), shared, math.sqrt(float(seed)), method_sd)


def _right_by_label(progress: Progress) -> RightBySeed:
    right: RightBySeed = {}
    for t in progress.trials:
        if ended_well(progress.results, t):
            by_seed = right.setdefault(t.method.label, {})
            by_seed[t.seed] = right_on_validation(progress.plan.spec.output_dir, t)
    return right


def _gaps(
    a: Mapping[int, NDArray[np.bool_]], b: Mapping[int, NDArray[np.bool_]]
) -> list[NDArray[np.float64]]:
    """Who of two methods is right alone, a row of 1, -1 or 0 for each seed that both have."""
    return [a[s].astype(float) - b[s] for s in sorted(a.keys() & b.keys())]


def _seeds_share_rows(plan: Plan) -> bool:
    """Whether all seeds are judged on the same validation rows."""
    return not plan.spec.vary_split and plan.spec.parts is None


def remember_spreads(progress: Progress) -> None:
    """Keep how far a finished study's methods vary, for the planning of the next one."""
    plan = progress.plan
    if not _seeds_share_rows(plan) or progress.todo:
        return
    right = _right_by_label(progress)
    names = {m.label: m.name for m in plan.spec.methods}
    study = hashlib.sha256(f"{plan.dataset.fingerprint} {sorted(names)}".encode()).hexdigest()[:16]
    rows = 2 ** round(math.log2(max(1, len(plan.dataset.train))))
    keep_spreads(
        SeenSpread(
            study=study,
            method=names[label],
            family=_family_of(plan),
            rows=rows,
            seeds=len(own),
            sd=spread_over_seeds(list(own.values())),
            disagreement=float(np.mean([(g != 0).mean() for g in others])),
            shared=float(np.mean([_shared_part(g) for g in others])),
        )
        for label, own in right.items()
        if (others := _gaps_to_others(right, label))
    )


def _gaps_to_others(right: RightBySeed, label: str) -> list[NDArray[np.float64]]:
    """Gaps between a method and each that shares two seeds or more with it."""
    gaps = (_gaps(right[label], own) for other, own in right.items() if other != label)
    return [np.stack(g) for g in gaps if len(g) > 1]


def _shared_part(gaps: NDArray[np.float64]) -> float:
    within, common, _ = components(gaps)
    return float(common / within) if within else 1.0
