"""A try of settings that is behind other tries is ended after an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tunelab.core.events import Evaluated, OnProgress, Progressed

__all__ = [
    "BehindOthers",
    "stopping_below",
]


class BehindOthers(Exception):  # noqa: N818  no error: a try that is behind is ended
    """Ends a try after an epoch that is behind those of other tries."""

    def __init__(self, at: Evaluated, below: float) -> None:
        self.at = at
        self.below = below


def stopping_below(on_step: OnProgress, limits: Mapping[str, float], metric: str) -> OnProgress:
    """Pass events on; end the try at an epoch whose score is below that of other tries.

    `limits`: by the epoch's number, as a text.
    """
    if not limits:
        return on_step
    best = -math.inf

    def watch(event: Progressed) -> None:
        nonlocal best
        on_step(event)
        if not isinstance(event, Evaluated) or f"eval_{metric}" not in event.scores:
            return
        best = max(best, event.scores[f"eval_{metric}"])
        below = limits.get(str(round(event.epoch)))
        # In the last epoch there is nothing left to save.
        if below is not None and best < below and event.step != event.steps:
            raise BehindOthers(event, below)

    return watch
