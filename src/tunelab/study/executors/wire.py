"""The lines that a study's process and its worker speak: a job in, events out, JSON each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tunelab.core.checkpoints import Checkpoints
from tunelab.core.events import Event, event_from_json, event_to_json
from tunelab.core.study_folder import spec_from_json
from tunelab.core.values import TrialSpec

__all__ = [
    "Ended",
    "Job",
    "job_from_line",
    "job_to_line",
    "said_from_line",
    "said_to_line",
]


@dataclass(frozen=True, slots=True)
class Job:
    """A stack of trials to run in one process, of a study in this folder, judged by its metric.

    `jobs` of them run at a time; what the process prints goes into the file `log`.
    """

    specs: Sequence[TrialSpec]
    study: str
    metric: str
    jobs: int
    log: str
    checkpoints: Checkpoints | None = None

    @property
    def name(self) -> str:
        """The id of its first trial."""
        return self.specs[0].trial_id


@dataclass(frozen=True, slots=True)
class Ended:
    """A job has ended. `trial_id`: of its first trial; `exit` below 0: minus a signal."""

    trial_id: str
    exit: int


def job_to_line(job: Job) -> str:
    """A job as one line, with its end."""
    return json.dumps(asdict(job)) + "\n"


def job_from_line(line: str | bytes) -> Job:
    """The job of a line."""
    value = json.loads(line)
    kept = value["checkpoints"]
    specs = tuple(spec_from_json(s) for s in value["specs"])
    return Job(**{**value, "specs": specs, "checkpoints": kept and Checkpoints(**kept)})


def said_to_line(said: Event | Ended) -> str:
    """What a worker says, as one line, with its end."""
    if isinstance(said, Ended):
        return json.dumps({"event": "end", "trial_id": said.trial_id, "exit": said.exit}) + "\n"
    return json.dumps(event_to_json(said)) + "\n"


def said_from_line(line: str) -> Event | Ended:
    """What a worker said in a line."""
    value = json.loads(line)
    if value["event"] == "end":
        return Ended(value["trial_id"], value["exit"])
    return event_from_json(value)
