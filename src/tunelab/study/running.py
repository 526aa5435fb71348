"""A study: methods x settings x seeds -> trials; run what is missing; keep what is done.

Three values: `Plan`, what is meant; `Progress`, how far its folder is; `Schedule`, what of the rest
runs when. Main path: `plan` -> `scheduled` -> `run`: tries of settings (`tune`) -> trials, all or
raced (`race_methods`) -> trials on fewer rows. Where settings were chosen or a method was dropped,
progress is read and scheduled anew.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tunelab.core import study_folder
from tunelab.core.events import Note
from tunelab.core.values import TrialResult
from tunelab.study import estimate, trackers
from tunelab.study.affording import Budget, first_answer_seconds, labels_by_cost
from tunelab.study.executors import ENGINES, Executor, Worker
from tunelab.study.foresight import remember_spreads
from tunelab.study.missing import run_missing
from tunelab.study.planning import count_trials
from tunelab.study.progress import read_progress
from tunelab.study.raced import race_methods
from tunelab.study.schedule import OnStudyEvent, Replanned, Schedule, StudyEvent
from tunelab.study.spec import StudySpec, checkpoints_of
from tunelab.study.tuning import tune

__all__ = [
    "run",
    "worker",
]


@contextmanager
def worker(spec: StudySpec, engine: str | None = None) -> Iterator[Worker]:
    """The process that a study's trials are forked from, for `run`, which may not need it.

    It is started at once and imports while the study is planned, unless the study has been run
    before: perhaps all is done. Where the plan gives trials other threads, `run` starts another.
    """
    with Worker() as made:
        if (engine or spec.engine) == "process" and not study_folder.is_study(spec.output_dir):
            names = dict.fromkeys(m.name for m in spec.methods)
            made.started(names, estimate.threads_ahead(spec.jobs, count_trials(spec)))
        yield made


def run(
    first: Schedule,
    on_event: OnStudyEvent,
    engine: str | None = None,
    worker: Worker | None = None,
    checkpoints: Path | None = None,
) -> Iterator[TrialResult]:
    """Run what is missing: tries of settings, then trials; each result is yielded when on disk.

    `engine`: a row of ENGINES (None: the study's). `worker`: the process that they are forked from,
    where one has been started (see `worker`); it is ended. `checkpoints`: where trainings in
    progress are kept, if not in the study's folder.
    Where what is to run changes (settings were chosen, a method was dropped from the race), the
    event `Replanned` says so. Trackers that the study reports to hear every event and result too;
    one that fails is left out, which an event `Note` says.
    """
    spec = first.plan.spec
    folder = spec.output_dir
    known = {t.trial_id: t for t in first.progress.todo}
    with ExitStack() as inside:
        # One for all rounds: each would wait for the imports again.
        worker = worker or inside.enter_context(Worker())
        inside.callback(worker.stop)
        kept = checkpoints_of(spec, checkpoints)
        run_all = inside.enter_context(ENGINES[engine or spec.engine](spec, worker, kept))
        reporter = inside.enter_context(
            trackers.Reporter(
                spec.report_to,
                folder.name,
                folder / trackers.TRACKING_FOLDER,
                known,
                lambda text: on_event(Note(text)),
            )
        )

        def hear(event: StudyEvent) -> None:
            on_event(event)
            if isinstance(event, Replanned):
                known.update({t.trial_id: t for t in event.schedule.progress.todo})
            else:
                reporter.event(event)

        for result in _run_stages(first, hear, run_all):
            reporter.result(result)
            yield result
    progress = read_progress(first.plan)
    for trial_id, result in progress.results.items():
        if kept is not None and result.status == "done":  # whoever ran it was killed just then
            kept.remove(trial_id)
    remember_spreads(progress)


def _run_stages(
    first: Schedule, on_event: OnStudyEvent, run_all: Executor
) -> Iterator[TrialResult]:
    """Tries of settings, then all trials or a race, then those on fewer rows."""
    spec = first.plan.spec
    left = Budget(spec.budget)
    if spec.budget is None:
        labels = [m.label for m in spec.methods]
        now = yield from tune(first, labels, on_event, run_all)
    else:
        now, labels = yield from _tune_in_time(first, on_event, run_all, left)
    if spec.race:
        now = yield from race_methods(now, labels, on_event, run_all, left)
        if left.left < 0:
            return  # what the budget left out is for another run
        yield from run_missing(now, now.progress.curve, on_event, run_all)
    else:
        trials = (*now.progress.trials, *now.progress.curve)
        yield from run_missing(now, trials, on_event, run_all)


def _tune_in_time(
    now: Schedule, on_event: OnStudyEvent, run_all: Executor, left: Budget
) -> Generator[TrialResult, None, tuple[Schedule, list[str]]]:
    """Tune method by method, the cheapest first, as long as its tries and a trial of each are
    expected to end in time; which those are. The cheapest is tuned in any case.
    """
    labels: list[str] = []
    for label in labels_by_cost(now):
        costs = first_answer_seconds(now)  # as what has just run says
        due = sum(costs[done][1] for done in labels) + sum(costs[label])
        if labels and due > left.left:
            break
        labels.append(label)
        now = yield from tune(now, [label], on_event, run_all)
    return now, labels
