"""How many trainings are still to run, as far as it can be known before settings are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunelab.core.plain import SettingValues
from tunelab.core.values import Fold, MethodSpec, TrialSpec
from tunelab.study.folding import fold_of, folds_of
from tunelab.study.planning import Plan, trial_of, tries_of
from tunelab.study.progress import Progress, is_done, read_results
from tunelab.study.same_run import copies_among
from tunelab.study.space import Range, grid_points

__all__ = [
    "ToCome",
    "to_come",
]


@dataclass(frozen=True, slots=True)
class ToCome:
    """Trainings that are still to run, from `least` to `most`, and of these the `tries` of settings
    and, at most, those `on_fewer_rows`; `done`: of those that the study shows.

    `copies`: trials beside these that are the same run with another seed.

    The ends differ where settings are still to be chosen and some were trained with before; in a
    race fewer may run.
    """

    least: int
    most: int
    tries: int
    on_fewer_rows: int
    done: int
    copies: int


def to_come(progress: Progress) -> ToCome:
    """Count what is to run. What is trained with settings that tries are still to choose is counted
    for each setting that they may choose.
    """
    plan = progress.plan
    todo = {t.trial_id for t in progress.todo}
    tries = sum(t.trial_id not in progress.copies for t in progress.tries)
    for label, left in progress.proposals.items():
        tries += left * _runs_of_a_setting(plan, label)
    open_labels = {t.method.label for t in progress.tries} | set(progress.proposals)
    shown = (*progress.trials, *progress.curve)
    known = [t for t in shown if t.method.label not in open_labels]
    copies = [t for t in known if t.trial_id in progress.copies]
    missing = sum(t.trial_id in todo for t in known) - len(copies)
    ends = [
        _least_and_most(plan, m, fold)
        for m in plan.spec.methods
        if m.label in open_labels
        for fold in folds_of(plan.spec)
    ]
    least, most = (sum(e[i] for e in ends) for i in (0, 1))
    curve = sum(t.trial_id in todo for t in progress.curve)
    done = sum(t.trial_id not in todo for t in known)
    first = tries + missing
    of_open = sum(e[2] for e in ends)
    return ToCome(first + least, first + most, tries, curve, done, len(copies) + of_open)


def _runs_of_a_setting(plan: Plan, label: str) -> int:
    """Trainings of one setting with all tuning seeds."""
    m = next(m for m in plan.spec.methods if m.label == label)
    tries = tries_of(plan, m, {}, folds_of(plan.spec)[0])
    return len(tries) - len(copies_among(tries, ()))


def _least_and_most(plan: Plan, m: MethodSpec, fold: Fold | None) -> tuple[int, int, int]:
    """How many trainings of a method in a fold are missing, by what tuning may choose for it; and
    how many trials are the same run as one of these.
    """
    seeds = [s for s in plan.spec.seeds if fold_of(plan.spec, s) == fold]
    space = plan.spec.tuning.spaces[m.label]
    every = list(_trials_of(plan, m, fold, seeds))
    same = len(copies_among(every, ()))
    if plan.spec.tuning.budget is None and not any(isinstance(v, Range) for v in space.values()):
        counts = [_missing(plan, m, point, fold, seeds) for point in grid_points(space)]
        return min(counts), max(counts), same
    # What Optuna proposes is not known; the start is always among it.
    return _missing(plan, m, {}, fold, seeds), len(every) - same, same


def _missing(
    plan: Plan, m: MethodSpec, settings: SettingValues, fold: Fold | None, seeds: Sequence[int]
) -> int:
    method = MethodSpec(m.name, m.label, {**m.settings, **settings})
    trials = list(_trials_of(plan, method, fold, seeds))
    results = read_results(plan.spec.output_dir, trials)
    done = {t.trial_id for t in trials if is_done(plan, results.get(t.trial_id), t)}
    copies = copies_among(trials, done)
    return sum(t.trial_id not in done and t.trial_id not in copies for t in trials)


def _trials_of(
    plan: Plan, m: MethodSpec, fold: Fold | None, seeds: Sequence[int]
) -> Iterable[TrialSpec]:
    for size in (None, *plan.sizes):
        for seed in seeds:
            yield trial_of(plan, m, seed, fold, train_rows=size)
