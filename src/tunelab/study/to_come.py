"""How many trainings are still to run, as far as it can be known before settings are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunelab.core.plain import SettingValues
from tunelab.core.values import Fold, MethodSpec, TrialSpec
from tunelab.study.folding import fold_of, folds_of
from tunelab.study.planning import Plan, trial_of
from tunelab.study.progress import Progress, is_done, read_results
from tunelab.study.space import Range, grid_points

__all__ = [
    "ToCome",
    "to_come",
]


@dataclass(frozen=True, slots=True)
class ToCome:
    """Trainings that are still to run, from `least` to `most`, and of these the `tries` of settings
    and, at most, those `on_fewer_rows`; `done`: of those that the study shows.

    The ends differ where settings are still to be chosen and some were trained with before; in a
    race fewer may run.
    """

    least: int
    most: int
    tries: int
    on_fewer_rows: int
    done: int


def to_come(progress: Progress) -> ToCome:
    """Count what is to run. What is trained with settings that tries are still to choose is counted
    for each setting that they may choose.
    """
    plan = progress.plan
    todo = {t.trial_id for t in progress.todo}
    tries = len(progress.tries) + sum(progress.proposals.values()) * len(plan.spec.tuning.seeds)
    open_labels = {t.method.label for t in progress.tries} | set(progress.proposals)
    shown = (*progress.trials, *progress.curve)
    known = [t for t in shown if t.method.label not in open_labels]
    missing = sum(t.trial_id in todo for t in known)
    ends = [
        _least_and_most(plan, m, fold)
        for m in plan.spec.methods
        if m.label in open_labels
        for fold in folds_of(plan.spec)
    ]
    least, most = (sum(e[i] for e in ends) for i in (0, 1))
    curve = sum(t.trial_id in todo for t in progress.curve)
    done = sum(t.trial_id not in todo for t in known)
    return ToCome(tries + missing + least, tries + missing + most, tries, curve, done)


def _least_and_most(plan: Plan, m: MethodSpec, fold: Fold | None) -> tuple[int, int]:
    """How many trainings of a method in a fold are missing, by what tuning may choose for it."""
    seeds = [s for s in plan.spec.seeds if fold_of(plan.spec, s) == fold]
    space = plan.spec.tuning.spaces[m.label]
    whole = len(seeds) * (1 + len(plan.sizes))
    if plan.spec.tuning.budget is None and not any(isinstance(v, Range) for v in space.values()):
        counts = [_missing(plan, m, point, fold, seeds) for point in grid_points(space)]
        return min(counts), max(counts)
    # What Optuna proposes is not known; the start is always among it.
    return _missing(plan, m, {}, fold, seeds), whole


def _missing(
    plan: Plan, m: MethodSpec, settings: SettingValues, fold: Fold | None, seeds: Sequence[int]
) -> int:
    method = MethodSpec(m.name, m.label, {**m.settings, **settings})
    trials = list(_trials_of(plan, method, fold, seeds))
    results = read_results(plan.spec.output_dir, trials)
    return sum(not is_done(plan, results.get(t.trial_id), t) for t in trials)


def _trials_of(
    plan: Plan, m: MethodSpec, fold: Fold | None, seeds: Sequence[int]
) -> Iterable[TrialSpec]:
    for size in (None, *plan.sizes):
        for seed in seeds:
            yield trial_of(plan, m, seed, fold, train_rows=size)
