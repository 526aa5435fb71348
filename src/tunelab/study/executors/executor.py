"""What an engine offers: a function that runs trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tunelab.core.events import OnEvent
from tunelab.core.values import TrialResult, TrialSpec

__all__ = ["Executor"]


class Executor(Protocol):
    """Stacks of specs, the study's folder and its main metric -> results, when they have ended.

    The trials of a stack are trained in one pass; most hold one trial. `jobs` stacks run at a
    time, each with so many `threads`; None: as its libraries choose.
    """

    def __call__(
        self,
        stacks: Sequence[Sequence[TrialSpec]],
        study: Path,
        metric: str,
        on_event: OnEvent,
        *,
        jobs: int = 1,
        threads: int | None = None,
    ) -> Iterator[TrialResult]:
        """Run the trials."""
        ...
