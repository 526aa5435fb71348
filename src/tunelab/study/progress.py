"""What is on disk: which trials are done, which settings were chosen, how far a race is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from tunelab.core import study_folder
from tunelab.core.plain import as_settings
from tunelab.core.values import Fold, MethodSpec, Predictions, TrialResult, TrialSpec
from tunelab.stats import choosing, racing
from tunelab.study import space
from tunelab.study.elsewhere import scored_on
from tunelab.study.folding import folds_of
from tunelab.study.planning import Plan, expand, grid_tries, start_settings, tries_of
from tunelab.study.spec import StudySpec

__all__ = [
    "Progress",
    "RightBySeed",
    "ended_well",
    "is_done",
    "is_settled",
    "race_so_far",
    "read_progress",
    "read_results",
    "recorded_tuning",
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
    on disk, by trial id, also of trials that failed and are in `todo` again.
    """

    plan: Plan
    methods: tuple[MethodSpec, ...]
    trials: tuple[TrialSpec, ...]
    curve: tuple[TrialSpec, ...]
    tries: tuple[TrialSpec, ...]
    proposals: Mapping[str, int]
    todo: tuple[TrialSpec, ...]
    results: Mapping[str, TrialResult]
    notes: tuple[str, ...] = ()


def read_progress(plan: Plan) -> Progress:
    """See in a study's folder what was tuned, what is done, and what is still to run."""
    spec, folder = plan.spec, plan.spec.output_dir
    by_fold, tries, proposals = _tuned_so_far(plan)
    trials = expand(plan, by_fold)
    curve = expand(plan, by_fold, plan.sizes)
    on_disk = read_results(folder, (*tries, *trials, *curve))
    if spec.race:
        race, _ = race_so_far(plan, trials, on_disk)
        trials = trials_still_racing(race, spec, trials)
        curve = tuple(t for t in curve if t.method.label in race.alive)
    everything = (*tries, *trials, *curve)
    todo = tuple(t for t in everything if not is_done(plan, on_disk.get(t.trial_id), t))
    missing = {t.trial_id for t in todo}
    return Progress(
        plan=plan,
        methods=_methods_for_all(plan, by_fold),
        trials=trials,
        curve=curve,
        tries=tuple(t for t in tries if t.trial_id in missing),
        proposals=proposals,
        todo=todo,
        results={t.trial_id: on_disk[t.trial_id] for t in everything if t.trial_id in on_disk},
        notes=(*_no_longer_shown(plan), *_damaged(folder, everything, on_disk)),
    )


def _tuned_so_far(
    plan: Plan,
) -> tuple[dict[Fold | None, list[MethodSpec]], list[TrialSpec], dict[str, int]]:
    """Methods with the settings chosen for them, by fold; tries of the others, or how many to
    propose.
    """
    spec = plan.spec
    methods: dict[Fold | None, list[MethodSpec]] = {}
    tries: list[TrialSpec] = []
    proposals: dict[str, int] = {}
    for fold in folds_of(spec):
        recorded = recorded_tuning(plan, fold)
        methods[fold] = []
        for m in spec.methods:
            entry = recorded.get(m.label)
            if m.label not in spec.tuning.spaces:
                methods[fold].append(m)
            elif entry is not None and is_settled(plan, m, entry, fold):
                methods[fold].append(with_chosen(m, entry))
            else:
                methods[fold].append(m)
                if spec.tuning.budget is None:
                    tries += [t for _, t in grid_tries(plan, m, fold)]
                else:
                    spent = count_recorded_tries(plan, m, entry, fold) if entry else 0
                    left = max(1, spec.tuning.budget - spent)
                    proposals[m.label] = proposals.get(m.label, 0) + left
    return methods, tries, proposals


def with_chosen(m: MethodSpec, entry: choosing.TunedMethod) -> MethodSpec:
    """A method with the settings that were chosen for it."""
    return MethodSpec(m.name, m.label, {**m.settings, **as_settings(entry.chosen)})


def _methods_for_all(
    plan: Plan, by_fold: Mapping[Fold | None, Sequence[MethodSpec]]
) -> tuple[MethodSpec, ...]:
    """The methods of a study; those of folds with what these chose together, once all have."""
    if plan.spec.parts is None:
        return tuple(by_fold[None])
    recorded = _recorded_methods(plan)
    settled = {
        m.label
        for m in plan.spec.methods
        if m.label in recorded
        and all(
            (entry := recorded_tuning(plan, fold).get(m.label)) is not None
            and is_settled(plan, m, entry, fold)
            for fold in by_fold
        )
    }
    return tuple(
        with_chosen(m, recorded[m.label]) if m.label in settled else m for m in plan.spec.methods
    )


def read_results(folder: Path, trials: Iterable[TrialSpec]) -> dict[str, TrialResult]:
    """Results that are on disk, by trial id."""
    on_disk = ((t.trial_id, study_folder.read_result(folder, t.trial_id)) for t in trials)
    return {trial_id: result for trial_id, result in on_disk if result is not None}


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


def _recorded_methods(plan: Plan) -> Mapping[str, choosing.TunedMethod]:
    """What tuning.json holds of each method; nothing where it was chosen by another metric."""
    folder = plan.spec.output_dir
    stored = study_folder.known_extra(folder, "tuning", choosing.tuning_from_json)
    return stored.methods if stored is not None and stored.metric == plan.spec.metric else {}


def recorded_tuning(plan: Plan, fold: Fold | None = None) -> Mapping[str, choosing.TunedMethod]:
    """What tuning.json holds of each method in a fold, where there are folds."""
    recorded = _recorded_methods(plan)
    if fold is None:
        return {label: entry for label, entry in recorded.items() if not entry.folds}
    return {
        label: replace(
            entry,
            chosen=own.chosen,
            value=own.value,
            reason=own.reason,
            tries=tuple(t for t in entry.tries if t.trial_id in own.trials),
            folds=(),
        )
        for label, entry in recorded.items()
        for own in entry.folds
        if (own.repetition, own.fold) == (fold.repetition, fold.number)
    }


def is_settled(
    plan: Plan, m: MethodSpec, entry: choosing.TunedMethod, fold: Fold | None = None
) -> bool:
    """Whether what is recorded is what would be tried now, and all of it."""
    if entry.start != start_settings(plan, m):
        return False
    ids = {t.trial_id for t in entry.tries}
    if plan.spec.tuning.budget is None:
        return ids == {t.trial_id for _, t in grid_tries(plan, m, fold)}
    return entry.space == space.space_to_json(plan.spec.tuning.spaces[m.label]) and (
        count_recorded_tries(plan, m, entry, fold) >= plan.spec.tuning.budget
    )


def count_recorded_tries(
    plan: Plan, m: MethodSpec, entry: choosing.TunedMethod, fold: Fold | None = None
) -> int:
    """How many of the recorded settings were tried on this data, with these seeds."""
    settings = [as_settings(s.settings) for s in choosing.average_by_setting(entry.tries)]
    ours = {t.trial_id for s in settings for t in tries_of(plan, m, s, fold)}
    # A setting that Optuna proposed twice counts twice: it was spent.
    return sum(t.trial_id in ours for t in entry.tries) // len(plan.spec.tuning.seeds)


def race_so_far(
    plan: Plan,
    trials: Sequence[TrialSpec],
    results: Mapping[str, TrialResult],
    tried: AbstractSet[str] = frozenset(),
) -> tuple[racing.Race, tuple[TrialSpec, ...]]:
    """The race as far as its trials have run, and the trials of its next round.

    From what is on disk each time: a race that was stopped goes on as if it had not been. A trial
    that failed is due again, unless it is one of `tried`.
    """
    folder, spec = plan.spec.output_dir, plan.spec
    of = {(t.method.label, t.seed): t for t in trials}
    race = racing.start([m.label for m in spec.methods], len(spec.seeds))
    right: RightBySeed = {label: {} for label in race.labels}
    ids: dict[int, tuple[str, ...]] = {}
    for seed in spec.seeds:
        if racing.over(race):
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
                right[t.method.label][seed] = of_trial.predicted == of_trial.labels
                ids[seed] = of_trial.ids
        race = racing.advance(race, right, _numbers_of_rows(ids))
    return race, ()


def ended_well(results: Mapping[str, TrialResult], t: TrialSpec) -> bool:
    """Whether a trial has been run, and did not fail."""
    return t.trial_id in results and results[t.trial_id].status == "done"


def right_on_validation(folder: Path, t: TrialSpec) -> NDArray[np.bool_]:
    """Whether a finished trial classified each row of validation right."""
    v = _on_validation(folder, t)
    right: NDArray[np.bool_] = v.predicted == v.labels
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


def _no_longer_shown(plan: Plan) -> tuple[str, ...]:
    """What the study that lies in this folder shows, and will not once this one is written."""
    folder = plan.spec.output_dir
    if not study_folder.is_study(folder):
        return ()
    try:
        settings = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
        card = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        name, other = card["name"], card["fingerprint"] != plan.dataset.fingerprint
        labels = [m["label"] for m in settings["methods"]]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return ()  # half-written, or of another version: written anew
    kept = "its trials stay on disk; to keep its report, choose another --output-dir"
    if other:
        return (f"the study in {folder} is of other data ({name} as it was): replaced; {kept}",)
    gone = [x for x in labels if x not in {m.label for m in plan.spec.methods}]
    if not gone:
        return ()
    return (
        f"the study in {folder} also has {', '.join(gone)}, which this one leaves out: name "
        "all methods to show them together",
    )
