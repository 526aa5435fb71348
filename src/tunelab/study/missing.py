"""Trials that are missing, run on an executor; plans that change on the way."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from tunelab.core import study_folder
from tunelab.core.events import OnEvent
from tunelab.core.values import TrialResult, TrialSpec
from tunelab.study import durations
from tunelab.study.executors import Executor
from tunelab.study.planning import Plan
from tunelab.study.progress import is_done, read_results
from tunelab.study.record import trial_ids_of
from tunelab.study.schedule import OnStudyEvent, Replanned, Schedule, scheduled, stacks_of

__all__ = [
    "ResultsThenSchedule",
    "reschedule",
    "run_missing",
]


# --- running --------------------------------------------------------------------------------

# Results as they come, and in the end the schedule of what is left.
ResultsThenSchedule = Generator[TrialResult, None, Schedule]


def run_missing(
    now: Schedule, trials: Sequence[TrialSpec], on_event: OnEvent, run_all: Executor
) -> Iterator[TrialResult]:
    """Run those of `trials` that are not done. Every trial of a study runs through here."""
    plan, folder = now.plan, now.plan.spec.output_dir
    results = read_results(folder, trials)
    todo = [t for t in trials if not is_done(plan, results.get(t.trial_id), t)]
    stacks = stacks_of(plan, durations.starting_order(todo, now.seconds, now.jobs))
    metric, jobs, threads = plan.spec.metric, now.jobs, now.threads
    for result in run_all(stacks, folder, metric, on_event, jobs=jobs, threads=threads):
        if result.status == "done":
            durations.learn(result, plan.dataset, plan.base, threads)
        yield result


def reschedule(plan: Plan, on_event: OnStudyEvent) -> Schedule:
    """Schedule anew from what is on disk, put the trials' ids into study.yaml, and tell."""
    now = scheduled(plan)
    study_folder.update_study(plan.spec.output_dir, **trial_ids_of(now.progress))
    on_event(Replanned(now))
    return now
