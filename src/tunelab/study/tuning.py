"""Tries of settings on validation, by a grid or by Optuna, before a study's trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tunelab.core import study_folder
from tunelab.core.values import Fold, MethodSpec, TrialResult, TrialSpec
from tunelab.stats import choosing
from tunelab.stats.metrics import METRICS
from tunelab.study.choices import (
    choice_among,
    joined_entries,
    recorded_entry,
    recorded_methods,
    settled_entry,
)
from tunelab.study.executors import Executor
from tunelab.study.folding import folds_of
from tunelab.study.missing import ResultsThenSchedule, reschedule, run_missing
from tunelab.study.planning import Plan, grid_tries, start_settings, tries_of
from tunelab.study.progress import read_results
from tunelab.study.proposals import Proposals
from tunelab.study.schedule import OnStudyEvent, Schedule
from tunelab.study.space import space_to_json

__all__ = [
    "tune",
]


# --- tuning ---------------------------------------------------------------------------------


def tune(
    first: Schedule, labels: Collection[str], on_event: OnStudyEvent, run_all: Executor
) -> ResultsThenSchedule:
    """Try settings on validation and settle on the best, for these methods that are tuned.

    In folds each chooses for itself, by its own validation part: what another fold tries and
    chooses on may be its test part.
    """
    plan = first.plan
    tuned = [(m, fold) for m, fold in _tuned_in_folds(plan) if m.label in labels]
    if not tuned:
        return first
    recorded = recorded_methods(plan)
    if all(recorded_entry(plan, recorded, m, fold) for m, fold in tuned):
        return reschedule(plan, on_event)
    if plan.spec.tuning.budget is None:
        tries = [t for t in first.progress.tries if t.method.label in labels]
        yield from run_missing(first, tries, on_event, run_all)
    else:
        left = [(m, fold) for m, fold in tuned if not settled_entry(plan, recorded, m, fold)]
        yield from _search(first, left, plan.spec.tuning.budget, on_event, run_all)
    # Also where no try is to run: it may be another choice, or another label, than is recorded.
    _record_tuning(plan)
    return reschedule(plan, on_event)


def _tuned_in_folds(plan: Plan) -> list[tuple[MethodSpec, Fold | None]]:
    """What is tuned: each method that has a space, in each fold where there are folds."""
    tuned = [m for m in plan.spec.methods if m.label in plan.spec.tuning.spaces]
    return [(m, fold) for fold in folds_of(plan.spec) for m in tuned]


def _proposals(plan: Plan, m: MethodSpec, fold: Fold | None) -> Proposals:
    space, start = plan.spec.tuning.spaces[m.label], start_settings(plan, m)
    # A study of Optuna's is of one question: other data, another space or metric, other seeds or
    # settings beside those tried would mix what is not alike. A larger budget goes on.
    tried = [t.trial_id for t in tries_of(plan, m, start, fold)]
    asked = [tried, space_to_json(space), plan.spec.metric]
    name = f"{m.label} {hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]}"
    higher = METRICS[plan.spec.metric].higher_is_better
    return Proposals(plan.spec.output_dir, name, space, start, higher)


def _search(
    now: Schedule,
    tuned: Sequence[tuple[MethodSpec, Fold | None]],
    budget: int,
    on_event: OnStudyEvent,
    run_all: Executor,
) -> Iterator[TrialResult]:
    """Rounds of one proposal a method (and fold), until each has spent the budget."""
    plan, t = now.plan, now.plan.spec.tuning
    proposals = {(m.label, fold): _proposals(plan, m, fold) for m, fold in tuned}
    while True:
        asked = {}
        for m, fold in tuned:
            key = (m.label, fold)
            if len(proposals[key].told) < budget:
                number, settings = proposals[key].ask()
                below = _stop_below(plan, m, fold, proposals[key]) if t.prune else {}
                tries = [replace(s, stop_below=below) for s in tries_of(plan, m, settings, fold)]
                asked[key] = (number, tries)
        if not asked:
            return
        yield from run_missing(now, [s for _, ts in asked.values() for s in ts], on_event, run_all)
        for key, (number, tries) in asked.items():
            value, pruned = _outcome_of(plan, tries)
            proposals[key].tell(number, value, pruned)
        _record_tuning(plan, proposals)


def _outcome_of(plan: Plan, tries: Sequence[TrialSpec]) -> tuple[float | None, bool]:
    """A setting's mean score over its tries, None where one has none; whether one was pruned."""
    results = read_results(plan.spec.output_dir, tries).values()
    values = [choosing.validation_value(r, plan.spec.metric) for r in results]
    known = [v for v in values if v is not None]
    value = float(np.mean(known)) if len(known) == len(tries) else None
    return value, any(r.details.pruned for r in results)


def _stop_below(
    plan: Plan, m: MethodSpec, fold: Fold | None, proposals: Proposals
) -> dict[str, float]:
    """Median scores by epoch of this method's tries that went to the end."""
    if not METRICS[plan.spec.metric].higher_is_better:
        return {}
    folder = plan.spec.output_dir
    done = [s for settings in proposals.told for s in tries_of(plan, m, settings, fold)]
    results = [study_folder.read_result(folder, s.trial_id) for s in done]
    whole = [r.spec.trial_id for r in results if r is not None and r.details.pruned is None]
    return choosing.stop_below(
        (study_folder.read_history(folder, i) for i in whole), plan.spec.metric
    )


# What proposes settings to a method, by its label and fold.
ProposalsByFold = Mapping[tuple[str, Fold | None], Proposals]


def _record_tuning(plan: Plan, proposals: ProposalsByFold | None = None) -> None:
    """Write tuning.json from the tries that lie in the folder."""
    t, folder, metric = plan.spec.tuning, plan.spec.output_dir, plan.spec.metric
    recorded = recorded_methods(plan)
    by_label: dict[str, dict[Fold | None, choosing.TunedMethod]] = {}
    for m, fold in _tuned_in_folds(plan):
        # Trials were made with what was chosen before.
        entry = settled_entry(plan, recorded, m, fold) or _entry_of(plan, m, fold, proposals)
        if not entry.tries:  # of a method that the budget has no time for
            continue
        by_label.setdefault(m.label, {})[fold] = entry
    methods = {
        label: of_fold[None] if None in of_fold else joined_entries(plan, of_fold)
        for label, of_fold in by_label.items()
    }
    higher, search = METRICS[metric].higher_is_better, "grid" if t.budget is None else "optuna"
    record = choosing.TuningRecord(metric, higher, t.seeds, search, t.budget, methods)
    study_folder.write_extra(folder, "tuning", choosing.tuning_to_json(record))


def _entry_of(
    plan: Plan, m: MethodSpec, fold: Fold | None, proposals: ProposalsByFold | None
) -> choosing.TunedMethod:
    """A method's entry for a fold, from the tries that were to be made of it so far."""
    if plan.spec.tuning.budget is None:
        return choice_among(plan, m, grid_tries(plan, m, fold))
    of_now = proposals.get((m.label, fold)) if proposals else None
    told = (of_now or _proposals(plan, m, fold)).told
    made = [(settings, s) for settings in told for s in tries_of(plan, m, settings, fold)]
    return choice_among(plan, m, made)
