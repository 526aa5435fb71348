"""What was chosen for tuned methods: as tuning.json holds it, or as the tries on disk say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from tunelab import stats
from tunelab.core import study_folder
from tunelab.core.plain import SettingValues, as_settings
from tunelab.core.values import Fold, MethodSpec, TrialSpec
from tunelab.stats import choosing
from tunelab.stats.metrics import METRICS
from tunelab.study.planning import Plan, grid_tries, start_settings, tries_of
from tunelab.study.space import space_to_json

__all__ = [
    "choice_among",
    "joined_entries",
    "recorded_entry",
    "recorded_methods",
    "settled_entry",
    "tries_left_to_propose",
    "with_chosen",
]


# --- what tuning.json holds -----------------------------------------------------------------


def recorded_methods(plan: Plan) -> Mapping[str, choosing.TunedMethod]:
    """What tuning.json holds of each method; nothing where it was chosen by another metric."""
    folder = plan.spec.output_dir
    stored = study_folder.known_extra(folder, "tuning", choosing.tuning_from_json)
    return stored.methods if stored is not None and stored.metric == plan.spec.metric else {}


def recorded_entry(
    plan: Plan, recorded: Mapping[str, choosing.TunedMethod], m: MethodSpec, fold: Fold | None
) -> choosing.TunedMethod | None:
    """What tuning.json says under a method's own label, where that is what would be tried now."""
    own = _of_fold(recorded[m.label], fold) if m.label in recorded else None
    return own if own is not None and _is_settled(plan, m, own, fold) else None


def settled_entry(
    plan: Plan, recorded: Mapping[str, choosing.TunedMethod], m: MethodSpec, fold: Fold | None
) -> choosing.TunedMethod | None:
    """What is chosen for a method in a fold, where nothing is left to try; else None.

    What was `recorded` goes before what its tries say: trials were made with it. A method that had
    another label when it was tuned is known by its tries.
    """
    own = recorded_entry(plan, recorded, m, fold)
    if own is not None:
        return own
    if plan.spec.tuning.budget is None:
        tries, folder = grid_tries(plan, m, fold), plan.spec.output_dir
        if any(study_folder.read_result(folder, t.trial_id) is None for _, t in tries):
            return None
        return choice_among(plan, m, tries)
    others = (_of_fold(entry, fold) for label, entry in recorded.items() if label != m.label)
    return next((e for e in others if e is not None and _is_settled(plan, m, e, fold)), None)


def _of_fold(entry: choosing.TunedMethod, fold: Fold | None) -> choosing.TunedMethod | None:
    """What an entry of tuning.json holds of a fold, where there are folds; None where nothing."""
    if fold is None:
        return None if entry.folds else entry
    for own in entry.folds:
        if (own.repetition, own.fold) == (fold.repetition, fold.number):
            return replace(
                entry,
                chosen=own.chosen,
                value=own.value,
                reason=own.reason,
                tries=tuple(t for t in entry.tries if t.trial_id in own.trials),
                folds=(),
            )
    return None


def _is_settled(plan: Plan, m: MethodSpec, entry: choosing.TunedMethod, fold: Fold | None) -> bool:
    """Whether what is recorded is what would be tried now, and all of it."""
    if entry.start != start_settings(plan, m):
        return False
    ids = {t.trial_id for t in entry.tries}
    if plan.spec.tuning.budget is None:
        return ids == {t.trial_id for _, t in grid_tries(plan, m, fold)}
    return entry.space == space_to_json(plan.spec.tuning.spaces[m.label]) and (
        _count_recorded_tries(plan, m, entry, fold) >= plan.spec.tuning.budget
    )


def _count_recorded_tries(
    plan: Plan, m: MethodSpec, entry: choosing.TunedMethod, fold: Fold | None
) -> int:
    """How many of the recorded settings were tried on this data, with these seeds."""
    settings = [as_settings(s.settings) for s in choosing.average_by_setting(entry.tries)]
    ours = {t.trial_id for s in settings for t in tries_of(plan, m, s, fold)}
    # A setting that Optuna proposed twice counts twice: it was spent.
    return sum(t.trial_id in ours for t in entry.tries) // len(plan.spec.tuning.seeds)


def tries_left_to_propose(
    plan: Plan, recorded: Mapping[str, choosing.TunedMethod], m: MethodSpec, fold: Fold | None
) -> int:
    """How many settings Optuna may still propose for a method that is not settled."""
    entry = _of_fold(recorded[m.label], fold) if m.label in recorded else None
    spent = _count_recorded_tries(plan, m, entry, fold) if entry else 0
    return max(1, (plan.spec.tuning.budget or 0) - spent)


def with_chosen(m: MethodSpec, entry: choosing.TunedMethod) -> MethodSpec:
    """A method with the settings that were chosen for it."""
    return MethodSpec(m.name, m.label, {**m.settings, **as_settings(entry.chosen)})


# --- what tries choose ----------------------------------------------------------------------


def choice_among(
    plan: Plan, m: MethodSpec, asked: Sequence[tuple[SettingValues, TrialSpec]]
) -> choosing.TunedMethod:
    """A method's entry in tuning.json: its tries so far, (setting, try), and what they choose."""
    t, folder, metric = plan.spec.tuning, plan.spec.output_dir, plan.spec.metric
    results = [(settings, study_folder.read_result(folder, s.trial_id)) for settings, s in asked]
    tries = [choosing.try_of(settings, r, metric) for settings, r in results if r is not None]
    start = start_settings(plan, m)
    # While tries are still to come, the choice is for the eye.
    whole = len(asked) >= t.tries(m.label) * len(t.seeds)
    error = {"error": partial(_error_of_difference, plan)} if whole else {}
    higher = METRICS[metric].higher_is_better
    chosen, value, reason = choosing.choose_settings(tries, start, higher, **error)
    return choosing.TunedMethod(
        space=space_to_json(t.spaces[m.label]),
        start=start,
        chosen=chosen if chosen is not None else start,
        value=value,
        reason=reason,
        tries=tuple(tries),
    )


def _error_of_difference(plan: Plan, a: Mapping[int, str], b: Mapping[int, str]) -> float | None:
    """Standard error of the difference on validation between two settings, from their tries."""
    if plan.spec.vary_split and len(plan.spec.tuning.seeds) > 1:
        return None  # each seed has rows of its own

    def runs(tries: Mapping[int, str]) -> stats.Runs:
        by_seed = {
            s: study_folder.read_predictions(plan.spec.output_dir, i) for s, i in tries.items()
        }
        return stats.Runs("", {s: f["validation"] for s, f in by_seed.items()})

    try:
        both = runs(a), runs(b)
    except (OSError, KeyError):  # predictions that are not there any more
        return None
    return stats.standard_error(*both, plan.spec.metric, np.random.default_rng(0))


def joined_entries(
    plan: Plan, of_fold: Mapping[Fold | None, choosing.TunedMethod]
) -> choosing.TunedMethod:
    """A method's entry over all folds: all tries, each fold's choice, and what they choose
    together, for the classifier that is trained on all rows.
    """
    higher = METRICS[plan.spec.metric].higher_is_better
    first = next(iter(of_fold.values()))
    tries = [t for entry in of_fold.values() for t in entry.tries]
    # Each fold's tries count as another seed's: the mean is over folds and seeds.
    numbered = [
        replace(t, seed=1000 * i + plan.spec.tuning.seeds.index(t.seed))
        for i, entry in enumerate(of_fold.values())
        for t in entry.tries
    ]
    values = {t.trial_id: t.value for t in tries}

    def error(a: Mapping[int, str], b: Mapping[int, str]) -> float | None:
        gaps = [
            x - y
            for k in a.keys() & b.keys()
            if (x := values[a[k]]) is not None and (y := values[b[k]]) is not None
        ]
        return float(np.std(gaps, ddof=1)) / len(gaps) ** 0.5 if len(gaps) > 1 else None

    chosen, value, reason = choosing.choose_settings(numbered, first.start, higher, error)
    return replace(
        first,
        chosen=chosen if chosen is not None else first.start,
        value=value,
        reason=reason,
        tries=tuple(tries),
        folds=tuple(
            choosing.FoldChoice(
                repetition=fold.repetition,
                fold=fold.number,
                chosen=entry.chosen,
                value=entry.value,
                reason=entry.reason,
                trials=tuple(t.trial_id for t in entry.tries),
            )
            for fold, entry in of_fold.items()
            if fold is not None
        ),
    )
