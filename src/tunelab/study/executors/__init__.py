"""ENGINES: where trials run. An executor starts trials in order and yields results as they end.

`process` runs each trial in a fresh process, so that its peak memory is its own and a crash is one
failed trial, and several at a time where asked; `inline` runs them in this process, for debugging
and where no process can be started; `ray` runs each in a process on a node of a cluster.

process worker wire        the processes of this machine, and what they say
cluster slot connection    the same on the nodes of a cluster
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from tunelab.core.checkpoints import Checkpoints
from tunelab.core.events import OnEvent, Started
from tunelab.core.values import TrialResult, TrialSpec
from tunelab.study.executors.cluster import on_cluster
from tunelab.study.executors.executor import Executor
from tunelab.study.executors.process import Worker, run_in_processes
from tunelab.study.spec import StudySpec
from tunelab.study.trial import run_and_store

__all__ = [
    "ENGINES",
    "Executor",
    "Worker",
]


def run_inline(
    stacks: Sequence[Sequence[TrialSpec]],
    study: Path,
    metric: str,
    on_event: OnEvent,
    *,
    jobs: int = 1,
    threads: int | None = None,
    checkpoints: Checkpoints | None = None,
) -> Iterator[TrialResult]:
    """Run stacks one after the other in this process, whatever the rest says.

    Peak memory may include what came before.
    """
    del jobs, threads
    for specs in stacks:
        for spec in specs:
            on_event(Started(spec.trial_id))
        yield from run_and_store(specs, study, metric, on_event, checkpoints=checkpoints)


def _in_processes(
    _: StudySpec, worker: Worker, checkpoints: Checkpoints | None
) -> AbstractContextManager[Executor]:
    return nullcontext(partial(run_in_processes, worker=worker, checkpoints=checkpoints))


def _inline(
    _: StudySpec, __: Worker, checkpoints: Checkpoints | None
) -> AbstractContextManager[Executor]:
    return nullcontext(partial(run_inline, checkpoints=checkpoints))


def _on_ray(spec: StudySpec, _: Worker, __: Checkpoints | None) -> AbstractContextManager[Executor]:
    return on_cluster(spec)  # without checkpoints: its nodes share no disk


# What a study's trials run on, kept open for all of its rounds. The worker is the process that
# trials of this machine are forked from; checkpoints are where trainings in progress are kept.
ENGINES: dict[
    str, Callable[[StudySpec, Worker, Checkpoints | None], AbstractContextManager[Executor]]
] = {
    "process": _in_processes,
    "inline": _inline,
    "ray": _on_ray,
}
