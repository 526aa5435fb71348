"""What is said while a study runs: typed events, and the JSON that they travel as.

A trial says `Stage`, `Step` and `Evaluated`, who runs it `Started`, a study `Note`. One more,
`study.Replanned`, is said by a study alone and never leaves its process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Evaluated",
    "Event",
    "Note",
    "OnEvent",
    "OnProgress",
    "Progressed",
    "Stage",
    "Started",
    "Step",
    "event_from_json",
    "event_to_json",
]


@dataclass(frozen=True, slots=True)
class Started:
    """A trial is about to run."""

    trial_id: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A trial has come to a stage, such as "training". `trial_id`: None until it is known."""

    name: str
    trial_id: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A row of a training's history: so far `step` of `steps` optimizer steps and `epoch` epochs.

    `loss` is a mean over the steps since the last such row. `texts_per_second` counts training
    alone. `trial_id`: None until its trial is known.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    steps: int
    texts_per_second: float
    trial_id: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An epoch has ended: what validation gives, keys `eval_loss`, `eval_<metric>`."""

    step: int
    epoch: float
    scores: Mapping[str, float]
    steps: int
    trial_id: str | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something that is worth a line."""

    text: str


# What a training says of itself.
Progressed = Step | Evaluated
Event = Started | Stage | Step | Evaluated | Note
OnProgress = Callable[[Progressed], None]
OnEvent = Callable[[Event], None]


def event_to_json(event: Event) -> dict[str, object]:
    """The event as JSON: what a trial's process writes, and what a user's `on_event` is given."""
    match event:
        case Started():
            return {"event": "start", "trial_id": event.trial_id}
        case Note():
            return {"event": "note", "text": event.text}
        case Stage():
            said: dict[str, object] = {"stage": event.name}
        case Evaluated():
            said = {"step": event.step, "epoch": event.epoch, **event.scores, "steps": event.steps}
        case Step():
            said = {
                "step": event.step,
                "epoch": event.epoch,
                "loss": event.loss,
                "learning_rate": event.learning_rate,
                "steps": event.steps,
                "texts_per_second": event.texts_per_second,
            }
    trial = {} if event.trial_id is None else {"trial_id": event.trial_id}
    return {"event": "step", **said, **trial}


def event_from_json(value: Mapping[str, Any]) -> Event:
    """What `event_to_json` wrote."""
    if value["event"] == "start":
        return Started(value["trial_id"])
    if value["event"] == "note":
        return Note(value["text"])
    trial_id = value.get("trial_id")
    if "stage" in value:
        return Stage(value["stage"], trial_id)
    if "loss" in value:
        return Step(
            value["step"],
            value["epoch"],
            value["loss"],
            value["learning_rate"],
            value["steps"],
            value["texts_per_second"],
            trial_id,
        )
    scores = {k: v for k, v in value.items() if k.startswith("eval_")}
    return Evaluated(value["step"], value["epoch"], scores, value["steps"], trial_id)
