"""ENGINES: where trials run. An executor starts trials in order and yields results as they end.

`process` runs each trial in a fresh process, so that its peak memory is its own and a crash is one
failed trial, and several at a time where asked; `inline` runs them in this process, for debugging
and where no process can be started.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tunelab.core.events import OnEvent
from tunelab.core.values import TrialResult, TrialSpec
from tunelab.study.executors.process import Worker, run_in_processes
from tunelab.study.trial import run_and_store

__all__ = [
    "ENGINES",
    "Executor",
    "Worker",
]


class Executor(Protocol):
    """Stacks of specs, the study's folder and its main metric -> results, when they have ended.

    The trials of a stack are trained in one pass; most hold one trial. `jobs` stacks run at a
    time, each with so many `threads`; None: as its libraries choose. `worker`: the process that
    they are forked from, where one is kept for several calls.
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
        worker: Worker | None = None,
    ) -> Iterator[TrialResult]:
        """Run the trials."""
        ...


def run_inline(
    stacks: Sequence[Sequence[TrialSpec]],
    study: Path,
    metric: str,
    on_event: OnEvent,
    *,
    jobs: int = 1,
    threads: int | None = None,
    worker: Worker | None = None,
) -> Iterator[TrialResult]:
    """Run stacks one after the other in this process, whatever the rest says.

    Peak memory may include what came before.
    """
    del jobs, threads, worker
    for specs in stacks:
        for spec in specs:
            on_event({"event": "start", "trial_id": spec.trial_id})

        def tell(row: Mapping[str, Any]) -> None:
            on_event({"event": "step", **row})

        yield from run_and_store(specs, study, metric, tell)


ENGINES: dict[str, Executor] = {"process": run_in_processes, "inline": run_inline}
