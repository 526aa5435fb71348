"""What a study says while it runs, written into its folder (`core.run_log`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from tunelab.core.errors import TunelabError
from tunelab.core.events import Stage, event_to_json
from tunelab.core.run_log import writing_run_log
from tunelab.core.values import TrialResult, TrialSpec
from tunelab.study.schedule import OnStudyEvent, Replanned, Schedule, StudyEvent

__all__ = ["Telling", "meanwhile", "name_of_trial", "tell_both", "telling"]


T = TypeVar("T")


def name_of_trial(t: TrialSpec, schedule: Schedule) -> str:
    """What a trial is called: "lora seed 3", "lora on 100 rows seed 3", "lora try r=4"."""
    if t.purpose == "tuning":
        tuned = schedule.plan.spec.tuning.spaces.get(t.method.label, {})
        said = " ".join(f"{k}={t.method.settings[k]}" for k in tuned)
        return f"{t.method.label} try {said or t.trial_id[-6:]}"
    if t.purpose == "final":
        return f"{t.method.label} on all rows"
    rows = f" on {t.train_rows:,} rows" if t.train_rows is not None else ""
    return f"{t.method.label}{rows} seed {t.seed}"


class Telling:
    """Writes down what is to run, what runs, and how it ended."""

    def __init__(self, schedule: Schedule, write: Callable[[Mapping[str, object]], None]) -> None:
        self._write = write
        self._schedule = schedule
        self._plan(schedule)

    def event(self, event: StudyEvent) -> None:
        """Write an event."""
        if isinstance(event, Replanned):
            self._plan(event.schedule)
        else:
            self._write(event_to_json(event))

    def result(self, result: TrialResult) -> None:
        """Write how a trial ended."""
        spec = self._schedule.plan.spec
        self._write(
            {
                "event": "end",
                "trial_id": result.spec.trial_id,
                "name": name_of_trial(result.spec, self._schedule),
                "status": result.status,
                "error": result.error,
                "score": result.scores.get(f"eval_{spec.metric}"),
                "seconds": result.cost.train_seconds,
            }
        )

    def _plan(self, schedule: Schedule) -> None:
        self._schedule = schedule
        trials = [
            {"trial_id": t.trial_id, "name": name_of_trial(t, schedule)}
            for t in schedule.progress.todo
        ]
        seconds = schedule.total_seconds
        self._write({"event": "plan", "trials": trials, "seconds": round(seconds, 1)})


@contextmanager
def telling(folder: Path, schedule: Schedule) -> Iterator[Telling]:
    """While inside, what the study says is written down; in the end, how that was."""
    with writing_run_log(folder) as write:
        try:
            yield Telling(schedule, write)
        except BaseException as e:
            known = isinstance(e, TunelabError)
            fault = str(e) if known else type(e).__name__
            stopped = isinstance(e, KeyboardInterrupt)
            write({"event": "over", "stopped": stopped, "error": None if stopped else fault})
            raise
        write({"event": "over", "stopped": False, "error": None})


def tell_both(first: Callable[[T], None], then: Callable[[T], None]) -> Callable[[T], None]:
    """Tell two listeners."""

    def hear(said: T) -> None:
        first(said)
        then(said)

    return hear


def meanwhile(on_event: OnStudyEvent, do: Callable[[], None]) -> OnStudyEvent:
    """Pass events on, and do something once, as soon as the first trial says that it runs."""
    done = False

    def hear(event: StudyEvent) -> None:
        nonlocal done
        on_event(event)
        if not done and isinstance(event, Stage):
            done = True
            with suppress(Exception):  # said again where it is needed, when all trials are kept
                do()

    return hear
