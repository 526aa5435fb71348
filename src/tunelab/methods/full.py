"""Full fine-tuning: every weight of the base and the new head is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from tunelab.methods.method import Method, Outcome, Task
from tunelab.settings import TrainingSettings

__all__ = ["METHODS", "FullSettings"]


class FullSettings(TrainingSettings):
    """Settings of `full`."""

    learning_rate: float = Field(5e-5, gt=0, le=10, description="peak learning rate of AdamW")


def adapt_full(model: Any, _family: Any, _head: list[str], _settings: FullSettings) -> Any:
    """Train every parameter (Devlin et al. 2019): nothing is frozen, nothing is added."""
    return model


def fit_full(task: Task) -> Outcome:
    """Train every parameter."""
    from tunelab.methods import neural

    outcome = neural.fit(task, adapt_full)
    counts = {**outcome.counts, "adapter_parameters": None}
    reason = "full fine-tuning has no adapter: the base itself is trained"
    return replace(outcome, counts=counts, reasons={"adapter_parameters": reason})


METHODS = (
    Method(
        "full", "full fine-tuning: every weight is trained", FullSettings, fit_full,
        adapt=adapt_full,
    ),
)  # fmt: skip
