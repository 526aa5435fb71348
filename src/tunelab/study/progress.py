"""What is on disk: which trials are done, which settings were chosen, how far a race is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunelab.core import study_folder
from tunelab.core.values import Fold, MethodSpec, Predictions, TrialResult, TrialSpec
from tunelab.stats import racing
from tunelab.stats.choosing import TunedMethod
from tunelab.study.choices import (
    joined_entries,
    recorded_entry,
    recorded_methods,
    settled_entry,
    tries_left_to_propose,
    with_chosen,
)
from tunelab.study.elsewhere import scored_on
from tunelab.study.folding import folds_of
from tunelab.study.planning import Plan, expand, grid_tries
from tunelab.study.same_run import copies_among
from tunelab.study.spec import StudySpec

__all__ = [
    "Progress",
    "RightBySeed",
    "ended_well",
    "is_done",
    "mean_seconds_by_method",
    "race_so_far",
    "read_progress",
    "read_results",
    "right_on_validation",
    "trials_still_racing",
]


# Whether each row of validation was classified right, by seed, by method.
RightBySeed = dict[str, dict[int, NDArray[np.bool_]]]


# --- progress: what is on disk --------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """How far a plan is: what its folder holds, read once.

    `methods` are the study's with their tuned settings, as far as tuning has been done; in folds,
    which choose for themselves, with what all folds together choose. `trials`
    are those that the table compares, `curve` those on fewer training rows, `tries` those of
    settings that are still to run (Optuna's are known only when it proposes them: `proposals` says
    how many each method has left). `todo`: what of all these is still to run. `results` are those
    on disk, by trial id, also of trials that failed and are in `todo` again. `renamed`: labels of
    those trials that had another one when they ran, by trial id. `copies`: trials in `todo` that
    are the same run as another one, by their id.
    """

    plan: Plan
    methods: tuple[MethodSpec, ...]
    trials: tuple[TrialSpec, ...]
    curve: tuple[TrialSpec, ...]
    tries: tuple[TrialSpec, ...]
    proposals: Mapping[str, int]
    todo: tuple[TrialSpec, ...]
    results: Mapping[str, TrialResult]
    renamed: Mapping[str, str]
    copies: Mapping[str, TrialSpec]
    notes: tuple[str, ...] = ()


def read_progress(plan: Plan) -> Progress:
    """See in a study's folder what was tuned, what is done, and what is still to run."""
    spec, folder = plan.spec, plan.spec.output_dir
    chosen = _choices(plan)
    tries, proposals = _tries_to_come(plan, chosen)
    by_fold = {
        fold: [with_chosen(m, by[m.label]) if m.label in by else m for m in spec.methods]
        for fold, by in chosen.items()
    }
    trials = expand(plan, by_fold)
    curve = expand(plan, by_fold, plan.sizes)
    stored = _stored_results(folder, (*tries, *trials, *curve))
    on_disk = _as_called_now(stored, (*tries, *trials, *curve))
    if spec.race:
        race, _ = race_so_far(plan, trials, on_disk)
        trials = trials_still_racing(race, spec, trials)
        curve = tuple(t for t in curve if t.method.label in race.alive)
    everything = (*tries, *trials, *curve)
    todo = tuple(t for t in everything if not is_done(plan, on_disk.get(t.trial_id), t))
    missing = {t.trial_id for t in todo}
    before = {i: stored[i].spec.method.label for i in on_disk}
    renamed = {i: old for i, old in before.items() if old != on_disk[i].spec.method.label}
    return Progress(
        plan=plan,
        methods=_methods_for_all(plan, chosen),
        trials=trials,
        curve=curve,
        tries=tuple(t for t in tries if t.trial_id in missing),
        proposals=proposals,
        todo=todo,
        results={t.trial_id: on_disk[t.trial_id] for t in everything if t.trial_id in on_disk},
        renamed=renamed,
        copies=copies_among(everything, {i for i, r in on_disk.items() if r.status == "done"}),
        notes=(
            *_no_longer_shown(plan, frozenset(renamed.values())),
            *_damaged(folder, everything, on_disk),
        ),
    )


# What is chosen for each tuned method, by fold (None: there are none), as far as it is settled.
Choices = Mapping[Fold | None, Mapping[str, TunedMethod]]


def _tries_to_come(plan: Plan, chosen: Choices) -> tuple[list[TrialSpec], dict[str, int]]:
    """Tries of the methods for which nothing is chosen yet, or how many are to be proposed."""
    recorded = recorded_methods(plan)
    tries: list[TrialSpec] = []
    proposals: dict[str, int] = {}
    for fold, by_label in chosen.items():
        for m in plan.spec.methods:
            if m.label not in plan.spec.tuning.spaces or m.label in by_label:
                continue
            if plan.spec.tuning.budget is None:
                tries += [t for _, t in grid_tries(plan, m, fold)]
            else:
                left = tries_left_to_propose(plan, recorded, m, fold)
                proposals[m.label] = proposals.get(m.label, 0) + left
    return tries, proposals


def _choices(plan: Plan) -> Choices:
    """What is chosen so far, from tuning.json or the tries on disk."""
    recorded = recorded_methods(plan)
    tuned = [m for m in plan.spec.methods if m.label in plan.spec.tuning.spaces]
    by_fold = {
        fold: {m.label: settled_entry(plan, recorded, m, fold) for m in tuned}
        for fold in folds_of(plan.spec)
    }
    return {
        fold: {label: e for label, e in by_label.items() if e is not None}
        for fold, by_label in by_fold.items()
    }


def _methods_for_all(plan: Plan, chosen: Choices) -> tuple[MethodSpec, ...]:
    """The methods of a study; those of folds with what these chose together, once all have."""
    recorded = recorded_methods(plan)
    out = []
    for m in plan.spec.methods:
        of_fold = {fold: by[m.label] for fold, by in chosen.items() if m.label in by}
        if len(of_fold) < len(chosen):
            out.append(m)
        elif plan.spec.parts is None:
            out.append(with_chosen(m, of_fold[None]))
        else:
            known = all(recorded_entry(plan, recorded, m, fold) for fold in chosen)
            entry = recorded[m.label] if known else joined_entries(plan, of_fold)
            out.append(with_chosen(m, entry))
    return tuple(out)


def read_results(folder: Path, trials: Sequence[TrialSpec]) -> dict[str, TrialResult]:
    """Results that are on disk, by trial id; each as its method is called now."""
    return _as_called_now(_stored_results(folder, trials), trials)


def _stored_results(folder: Path, trials: Iterable[TrialSpec]) -> dict[str, TrialResult]:
    on_disk = ((t.trial_id, study_folder.read_result(folder, t.trial_id)) for t in trials)
    return {trial_id: result for trial_id, result in on_disk if result is not None}


def _as_called_now(
    stored: Mapping[str, TrialResult], trials: Iterable[TrialSpec]
) -> dict[str, TrialResult]:
    now = ((t.trial_id, t.method.label) for t in trials if t.trial_id in stored)
    return {i: stored[i].called(label) for i, label in now}


def is_done(plan: Plan, result: TrialResult | None, trial: TrialSpec) -> bool:
    """Whether nothing of a trial is left to do: it is scored on all other data too."""
    # A trial that failed is tried again: the cause (memory, a missing package) may be mended. A
    # try of settings is not: that these settings fail is what was to be found out.
    if result is None:
        return False
    if trial.purpose == "tuning":
        return True
    others = zip(plan.spec.test_on, plan.others, strict=True)
    return result.status == "done" and all(
        scored_on(result, d, other.fingerprint) for d, other in others if d in trial.test_on
    )


def race_so_far(
    plan: Plan,
    trials: Sequence[TrialSpec],
    results: Mapping[str, TrialResult],
    tried: AbstractSet[str] = frozenset(),
    labels: Collection[str] | None = None,
) -> tuple[racing.Race, tuple[TrialSpec, ...]]:
    """The race as far as its trials have run, and the trials of its next round.

    From what is on disk each time: a race that was stopped goes on as if it had not been. A trial
    that failed is due again, unless it is one of `tried`. Only methods in `labels` take part, where
    they are given.
    """
    folder, spec = plan.spec.output_dir, plan.spec
    of = {(t.method.label, t.seed): t for t in trials}
    taking_part = [m.label for m in spec.methods if labels is None or m.label in labels]
    race = racing.start(taking_part, len(spec.seeds))
    right: RightBySeed = {label: {} for label in race.labels}
    ids: dict[int, tuple[str, ...]] = {}
    for seed in spec.seeds:
        if race.rounds and racing.over(race):
            break
        due = [of[label, seed] for label in racing.order(race) if (label, seed) in of]
        left = tuple(
            t
            for t in due
            if not is_done(plan, results.get(t.trial_id), t) and t.trial_id not in tried
        )
        if left:
            return race, left
        for t in due:
            if ended_well(results, t):
                of_trial = _on_validation(folder, t)
                right[t.method.label][seed] = of_trial.right
                ids[seed] = of_trial.ids
        race = racing.advance(race, right, _numbers_of_rows(ids))
    return race, ()


def mean_seconds_by_method(
    trials: Iterable[TrialSpec], results: Mapping[str, TrialResult]
) -> dict[str, float]:
    """Mean seconds of those of these trials that have run, by method."""
    seconds: dict[str, list[float]] = {}
    for t in trials:
        r = results.get(t.trial_id)
        if r is not None and r.provenance.seconds is not None:
            seconds.setdefault(t.method.label, []).append(r.provenance.seconds)
    return {label: float(np.mean(values)) for label, values in seconds.items()}


def ended_well(results: Mapping[str, TrialResult], t: TrialSpec) -> bool:
    """Whether a trial has been run, and did not fail."""
    return t.trial_id in results and results[t.trial_id].status == "done"


def right_on_validation(folder: Path, t: TrialSpec) -> NDArray[np.bool_]:
    """Whether a finished trial classified each row of validation right."""
    v = _on_validation(folder, t)
    right: NDArray[np.bool_] = v.right
    return right


def _on_validation(folder: Path, t: TrialSpec) -> Predictions:
    return study_folder.read_predictions(folder, t.trial_id)["validation"]


def _numbers_of_rows(ids: Mapping[int, tuple[str, ...]]) -> dict[int, NDArray[np.int64]] | None:
    """Numbers of each seed's validation rows; None where all seeds have the same rows.

    Methods of a seed have the same rows, whichever they are.
    """
    if len(set(ids.values())) <= 1:
        return None
    every = dict.fromkeys(row for rows in ids.values() for row in rows)
    number = {row: k for k, row in enumerate(every)}
    return {seed: np.array([number[r] for r in rows]) for seed, rows in ids.items()}


def trials_still_racing(
    race: racing.Race, spec: StudySpec, trials: Sequence[TrialSpec]
) -> tuple[TrialSpec, ...]:
    """The trials that a race ran or may still run."""
    until = {d.label: d.round for d in race.dropped}
    if racing.over(race):
        until |= dict.fromkeys(race.alive, len(race.rounds))
    place = {seed: i for i, seed in enumerate(spec.seeds)}
    return tuple(t for t in trials if place[t.seed] < until.get(t.method.label, len(place)))


def _damaged(
    folder: Path, trials: Sequence[TrialSpec], on_disk: Mapping[str, TrialResult]
) -> tuple[str, ...]:
    """What is wrong with trials that are there and not whole: they are run again."""
    ids = dict.fromkeys(t.trial_id for t in trials if t.trial_id not in on_disk)
    return study_folder.damaged_trials(folder, ids)


def _no_longer_shown(plan: Plan, reused: AbstractSet[str]) -> tuple[str, ...]:
    """What the study that lies in this folder shows, and will not once this one is written.

    `reused`: labels there of trials that this study shows under another one.
    """
    folder = plan.spec.output_dir
    known_study = study_folder.lying_there(folder)
    if known_study is None:
        return ()
    settings, card = known_study
    try:
        name, other = card["name"], card["fingerprint"] != plan.dataset.fingerprint
        labels = [m["label"] for m in settings["methods"]]
    except (LookupError, TypeError):
        return ()  # of another version: written anew
    kept = "its trials stay on disk; to keep its report, choose another --output-dir"
    if other:
        return (f"the study in {folder} is of other data ({name} as it was): replaced; {kept}",)
    gone = [x for x in labels if x not in {m.label for m in plan.spec.methods} | reused]
    if not gone:
        return ()
    return (
        f"the study in {folder} also has {', '.join(gone)}, which this one leaves out: name "
        "all methods to show them together",
    )
