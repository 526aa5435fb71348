"""A raced study: rounds of seeds, and methods that are surely behind drop out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tunelab.core import study_folder
from tunelab.core.values import TrialResult, TrialSpec
from tunelab.stats import racing
from tunelab.study.executors import Executor
from tunelab.study.missing import ResultsThenSchedule, reschedule, run_missing
from tunelab.study.planning import Plan
from tunelab.study.progress import race_so_far, read_results, trials_still_racing
from tunelab.study.schedule import OnStudyEvent, Schedule

__all__ = [
    "race_methods",
]


# --- racing ---------------------------------------------------------------------------------


def race_methods(
    now: Schedule, on_event: OnStudyEvent, run_all: Executor, started: float
) -> ResultsThenSchedule:
    """Round by round, a seed each, until one method is left, the seeds are used up, or the time."""
    plan, folder = now.plan, now.plan.spec.output_dir
    tried: set[str] = set()
    stopped: str | None = None
    everything = now.progress.trials
    results = read_results(folder, everything)
    while stopped is None:
        race, due = race_so_far(plan, everything, results, tried)
        _record_race(plan, race, everything, results, None)
        batch = _affordable(now, due, results, started)
        if not due:
            settled = "settled" if race.settled else "seeds"
            stopped = "decided" if len(race.alive) == 1 else settled
        elif len(batch) < len(due):
            stopped = "budget"
        # All tried ones are judged, also those that failed.
        tried |= {t.trial_id for t in batch}
        before = len(race.dropped)
        yield from run_missing(now, batch, on_event, run_all)
        results = read_results(folder, everything)
        race, _ = race_so_far(plan, everything, results, tried)
        if len(race.dropped) > before:
            now = reschedule(plan, on_event)
    _record_race(plan, race, everything, results, stopped)
    return reschedule(plan, on_event)


def _affordable(
    now: Schedule, due: Sequence[TrialSpec], results: Mapping[str, TrialResult], started: float
) -> tuple[TrialSpec, ...]:
    """The first of these trials that are expected to end within the budget."""
    budget = now.plan.spec.budget
    if budget is None:
        return tuple(due)
    spent = time.perf_counter() - started
    measured = mean_seconds_by_method(now.progress.trials, results)
    out = []
    for t in due:
        expected = measured.get(t.method.label, now.seconds.get(t.trial_id, 0.0))
        spent += expected / max(1, now.jobs)
        if spent > budget:
            break
        out.append(t)
    return tuple(out)


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


def _record_race(
    plan: Plan,
    race: racing.Race,
    everything: Sequence[TrialSpec],
    results: Mapping[str, TrialResult],
    stopped: str | None,
) -> None:
    """Write race.json: the rounds, who was dropped, and what that saved."""
    ran = [t for t in everything if t.trial_id in results]
    measured = mean_seconds_by_method(everything, results)
    known = {t.trial_id for t in (*ran, *trials_still_racing(race, plan.spec, everything))}
    left = [t for t in everything if t.trial_id not in known]
    record = racing.RaceRecord(
        metric=plan.spec.metric,
        budget_seconds=plan.spec.budget,
        stopped=stopped,
        race=race,
        statement=racing.statement(race),
        trials_run=len(ran),
        trials_full=len(everything),
        seconds_run=sum(measured[t.method.label] for t in ran if t.method.label in measured),
        seconds_saved=sum(measured.get(t.method.label, 0.0) for t in left),
    )
    study_folder.write_extra(plan.spec.output_dir, "race", racing.race_to_json(record))
