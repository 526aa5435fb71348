"""Tries of settings on validation, by a grid or by Optuna, before a study's trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from tunelab import stats
from tunelab.core import study_folder
from tunelab.core.plain import SettingValues
from tunelab.core.values import MethodSpec, TrialResult, TrialSpec
from tunelab.stats import choosing
from tunelab.stats.metrics import METRICS
from tunelab.study.executors import Executor
from tunelab.study.missing import ResultsThenSchedule, reschedule, run_missing
from tunelab.study.planning import Plan, grid_tries, start_settings, tries_of
from tunelab.study.progress import is_settled, read_results, recorded_tuning
from tunelab.study.proposals import Proposals
from tunelab.study.schedule import OnStudyEvent, Schedule
from tunelab.study.space import space_to_json

__all__ = [
    "tune",
]


# --- tuning ---------------------------------------------------------------------------------


def tune(first: Schedule, on_event: OnStudyEvent, run_all: Executor) -> ResultsThenSchedule:
    """Try settings on validation and settle on the best, for every method that is tuned."""
    plan = first.plan
    recorded = recorded_tuning(plan)
    tuned = [m for m in plan.spec.methods if m.label in plan.spec.tuning.spaces]
    if not tuned:
        return first
    # Not only where tries are to run: of those that have, the choice may be another now.
    if not all(m.label in recorded and is_settled(plan, m, recorded[m.label]) for m in tuned):
        if plan.spec.tuning.budget is None:
            yield from run_missing(first, first.progress.tries, on_event, run_all)
        else:
            yield from _search(first, plan.spec.tuning.budget, on_event, run_all)
        _record_tuning(plan)
    return reschedule(plan, on_event)


def _proposals(plan: Plan, m: MethodSpec) -> Proposals:
    space, start = plan.spec.tuning.spaces[m.label], start_settings(plan, m)
    # A study of Optuna's is of one question: other data, another space or metric, other seeds or
    # settings beside those tried would mix what is not alike. A larger budget goes on.
    tried = [t.trial_id for t in tries_of(plan, m, start)]
    asked = [tried, space_to_json(space), plan.spec.metric]
    name = f"{m.label} {hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]}"
    higher = METRICS[plan.spec.metric].higher_is_better
    return Proposals(plan.spec.output_dir, name, space, start, higher)


def _search(
    now: Schedule, budget: int, on_event: OnStudyEvent, run_all: Executor
) -> Iterator[TrialResult]:
    """Rounds of one proposal a method, until each has spent the budget."""
    plan, t = now.plan, now.plan.spec.tuning
    tuned = [m for m in plan.spec.methods if m.label in t.spaces]
    proposals = {m.label: _proposals(plan, m) for m in tuned}
    while True:
        asked = {}
        for m in tuned:
            if len(proposals[m.label].told) < budget:
                number, settings = proposals[m.label].ask()
                below = _stop_below(plan, m, proposals[m.label]) if t.prune else {}
                tries = [replace(s, stop_below=below) for s in tries_of(plan, m, settings)]
                asked[m.label] = (number, tries)
        if not asked:
            return
        yield from run_missing(now, [s for _, ts in asked.values() for s in ts], on_event, run_all)
        for label, (number, tries) in asked.items():
            value, pruned = _outcome_of(plan, tries)
            proposals[label].tell(number, value, pruned)
        _record_tuning(plan, proposals)


def _outcome_of(plan: Plan, tries: Sequence[TrialSpec]) -> tuple[float | None, bool]:
    """A setting's mean score over its tries, None where one has none; whether one was pruned."""
    results = read_results(plan.spec.output_dir, tries).values()
    values = [choosing.validation_value(r, plan.spec.metric) for r in results]
    known = [v for v in values if v is not None]
    value = float(np.mean(known)) if len(known) == len(tries) else None
    return value, any(r.details.pruned for r in results)


def _stop_below(plan: Plan, m: MethodSpec, proposals: Proposals) -> dict[str, float]:
    """Median scores by epoch of this method's tries that went to the end."""
    if not METRICS[plan.spec.metric].higher_is_better:
        return {}
    folder = plan.spec.output_dir
    done = [s for settings in proposals.told for s in tries_of(plan, m, settings)]
    results = [study_folder.read_result(folder, s.trial_id) for s in done]
    whole = [r.spec.trial_id for r in results if r is not None and r.details.pruned is None]
    return choosing.stop_below(
        (study_folder.read_history(folder, i) for i in whole), plan.spec.metric
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


def _record_tuning(plan: Plan, proposals: Mapping[str, Proposals] | None = None) -> None:
    """Write tuning.json from the tries that lie in the folder."""
    t, folder, metric = plan.spec.tuning, plan.spec.output_dir, plan.spec.metric
    methods: dict[str, choosing.TunedMethod] = {}
    before = recorded_tuning(plan)
    for m in plan.spec.methods:
        if m.label not in t.spaces:
            continue
        if m.label in before and is_settled(plan, m, before[m.label]):
            methods[m.label] = before[m.label]  # trials were made with what was chosen
        elif t.budget is None:
            methods[m.label] = _choice_among(plan, m, grid_tries(plan, m))
        else:
            told = (proposals[m.label] if proposals else _proposals(plan, m)).told
            tries = [(settings, s) for settings in told for s in tries_of(plan, m, settings)]
            methods[m.label] = _choice_among(plan, m, tries)
    higher, search = METRICS[metric].higher_is_better, "grid" if t.budget is None else "optuna"
    record = choosing.TuningRecord(metric, higher, t.seeds, search, t.budget, methods)
    study_folder.write_extra(folder, "tuning", choosing.tuning_to_json(record))


def _choice_among(
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
