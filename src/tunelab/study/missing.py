"""Trials that are missing, run on an executor; plans that change on the way."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from tunelab.core import study_folder
from tunelab.core.events import OnEvent, Started
from tunelab.core.values import TrialResult, TrialSpec
from tunelab.study import durations
from tunelab.study.executors import Executor
from tunelab.study.planning import Plan
from tunelab.study.progress import is_done, read_results
from tunelab.study.record import trial_ids_of
from tunelab.study.same_run import copies_among, copy_run
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
    known = (*trials, *now.progress.trials)
    results = read_results(folder, known)
    done = {i for i, r in results.items() if r.status == "done"}
    missing = [t for t in trials if not is_done(plan, results.get(t.trial_id), t)]
    copies = copies_among([*(t for t in known if t.trial_id in done), *missing], done)

    def copies_of(result: TrialResult) -> Iterator[TrialResult]:
        for t in missing:
            if t.trial_id in copies and copies[t.trial_id].trial_id == result.spec.trial_id:
                on_event(Started(t.trial_id))
                yield copy_run(folder, result, t)

    for trial_id in dict.fromkeys(t.trial_id for t in copies.values() if t.trial_id in done):
        yield from copies_of(results[trial_id])
    todo = [t for t in missing if t.trial_id not in copies]
    stacks = stacks_of(plan, durations.starting_order(todo, now.seconds, now.jobs))
    metric, jobs, threads = plan.spec.metric, now.jobs, now.threads
    for result in run_all(stacks, folder, metric, on_event, jobs=jobs, threads=threads):
        if result.status == "done":
            durations.learn(result, plan.dataset, plan.base, threads)
        yield result
        yield from copies_of(result)


def reschedule(plan: Plan, on_event: OnStudyEvent) -> Schedule:
    """Schedule anew from what is on disk, put the trials' ids into study.yaml, and tell."""
    now = scheduled(plan)
    study_folder.update_study(plan.spec.output_dir, **trial_ids_of(now.progress))
    on_event(Replanned(now))
    return now
