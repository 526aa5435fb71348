"""A raced study: rounds of seeds, and methods that are surely behind drop out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tunelab.core import study_folder
from tunelab.core.values import TrialResult, TrialSpec
from tunelab.stats import racing
from tunelab.study.affording import Budget, expected_seconds
from tunelab.study.executors import Executor
from tunelab.study.missing import ResultsThenSchedule, reschedule, run_missing
from tunelab.study.planning import Plan
from tunelab.study.progress import (
    mean_seconds_by_method,
    race_so_far,
    read_results,
    trials_still_racing,
)
from tunelab.study.schedule import OnStudyEvent, Schedule

__all__ = [
    "race_methods",
]


# --- racing ---------------------------------------------------------------------------------


def race_methods(
    now: Schedule, labels: Collection[str], on_event: OnStudyEvent, run_all: Executor, left: Budget
) -> ResultsThenSchedule:
    """Round by round, a seed each, until one method is left, the seeds are used up, or the time.

    Methods that are not in `labels` are left out: the budget has no time for them.
    """
    plan, folder = now.plan, now.plan.spec.output_dir
    tried: set[str] = set()
    stopped: str | None = None
    everything = now.progress.trials
    results = read_results(folder, everything)
    while stopped is None:
        race, due = race_so_far(plan, everything, results, tried, labels)
        _record_race(plan, race, everything, results, None)
        batch = _affordable_trials(now, due, results, left)
        if not due:
            settled = "settled" if race.settled else "seeds"
            stopped = "decided" if len(race.alive) == 1 < len(race.labels) else settled
        elif len(batch) < len(due):
            stopped = "budget"
        # All tried ones are judged, also those that failed.
        tried |= {t.trial_id for t in batch}
        before = len(race.dropped)
        yield from run_missing(now, batch, on_event, run_all)
        results = read_results(folder, everything)
        race, _ = race_so_far(plan, everything, results, tried, labels)
        if len(race.dropped) > before:
            now = reschedule(plan, on_event)
    if len(race.labels) == 1:
        stopped = "budget"
    _record_race(plan, race, everything, results, stopped)
    return reschedule(plan, on_event)


def _affordable_trials(
    now: Schedule, due: Sequence[TrialSpec], results: Mapping[str, TrialResult], left: Budget
) -> tuple[TrialSpec, ...]:
    """The trials of a round that are expected to end in time; where nothing has run yet, the
    cheapest in any case.
    """
    if left.seconds is None:
        return tuple(due)
    expected = {t.trial_id: expected_seconds(now, t, results) for t in due}
    nothing_yet = not any(r.status == "done" for r in results.values())
    # Later rounds have an order of their own (`racing.order`).
    in_order = sorted(due, key=lambda t: expected[t.trial_id]) if nothing_yet else due
    out: list[TrialSpec] = []
    seconds = left.left
    for t in in_order:
        seconds -= expected[t.trial_id]
        if seconds < 0 and (out or not nothing_yet):
            break
        out.append(t)
    return tuple(out)


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
        left_out=tuple(m.label for m in plan.spec.methods if m.label not in race.labels),
    )
    study_folder.write_extra(plan.spec.output_dir, "race", racing.race_to_json(record))
