"""The lines between a study and the process that runs its trials: their form is kept."""

from __future__ import annotations

import json
from dataclasses import asdict

from tunelab.core.checkpoints import Checkpoints
from tunelab.core.events import Stage
from tunelab.core.values import BaseRef, DataSpec, MethodSpec, TrialSpec
from tunelab.study.executors.wire import (
    Ended,
    Job,
    job_from_line,
    job_to_line,
    said_from_line,
    said_to_line,
)

SPEC = TrialSpec(
    DataSpec("demo"),
    "f" * 64,
    BaseRef("minilm", "ab"),
    MethodSpec("lora", "lora", {"r": 4, "target_modules": ["query"]}),
    0,
    "lora-1",
    test_on=(DataSpec("other.csv"),),
    stop_below={"1": 0.5},
)


def test_a_job_is_a_line_of_its_specs_and_where_they_run() -> None:
    job = Job((SPEC,), "/study", "accuracy", 2, "/log", Checkpoints("/kept", 300.0))
    line = job_to_line(job)
    assert json.loads(line) == json.loads(
        json.dumps(
            {
                "specs": [asdict(SPEC)],
                "study": "/study",
                "metric": "accuracy",
                "jobs": 2,
                "log": "/log",
                "checkpoints": {"folder": "/kept", "seconds": 300.0},
            }
        )
    )
    assert line.endswith("}\n")
    assert job_from_line(line) == job
    assert job.name == "lora-1"


def test_what_a_worker_says_is_a_line() -> None:
    end = '{"event": "end", "trial_id": "lora-1", "exit": -9}\n'
    assert said_to_line(Ended("lora-1", -9)) == end
    assert said_from_line(end) == Ended("lora-1", -9)
    stage = Stage("training", "lora-1")
    assert said_from_line(said_to_line(stage)) == stage
