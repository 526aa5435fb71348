"""Events: the JSON lines between a study and its trials, and what a user's function is given."""

from __future__ import annotations

import json

import pytest

from tunelab.core.events import (
    Evaluated,
    Event,
    Note,
    Stage,
    Started,
    Step,
    event_from_json,
    event_to_json,
)

LINES: list[tuple[Event, str]] = [
    (Started("a"), '{"event": "start", "trial_id": "a"}'),
    (Note("so"), '{"event": "note", "text": "so"}'),
    (Stage("training", "a"), '{"event": "step", "stage": "training", "trial_id": "a"}'),
    (
        Step(20, 0.5, 0.41, 2e-4, 252, 310.0, "a"),
        '{"event": "step", "step": 20, "epoch": 0.5, "loss": 0.41, "learning_rate": 0.0002, '
        '"steps": 252, "texts_per_second": 310.0, "trial_id": "a"}',
    ),
    (
        Evaluated(21, 1.0, {"eval_loss": 0.3, "eval_accuracy": 0.9}, 252, "a"),
        '{"event": "step", "step": 21, "epoch": 1.0, "eval_loss": 0.3, "eval_accuracy": 0.9, '
        '"steps": 252, "trial_id": "a"}',
    ),
]


@pytest.mark.parametrize(("event", "line"), LINES, ids=lambda x: type(x).__name__)
def test_an_event_is_written_as_ever_and_read_back(event: Event, line: str) -> None:
    assert json.dumps(event_to_json(event)) == line
    assert event_from_json(json.loads(line)) == event
