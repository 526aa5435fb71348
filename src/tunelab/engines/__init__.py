"""ENGINES: where trials run. An engine takes specs in order and yields their results in order.

`process` runs each trial in a fresh process, so that its peak memory is its own and a crash is one
failed trial; `inline` runs them in this process, for debugging and where no process can be started.
May import: trial, store and the rooms below. May not import: study, report, cli.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tunelab.engines.process import run_in_processes
from tunelab.trial import OnEvent, run_and_store
from tunelab.types import TrialResult, TrialSpec

__all__ = ["ENGINES", "Engine"]

# (specs, study folder, main metric, on_event) -> results, each yielded when its trial has ended.
Engine = Callable[[Sequence[TrialSpec], Path, str, OnEvent], Iterator[TrialResult]]


def run_inline(
    specs: Sequence[TrialSpec], study: Path, metric: str, on_event: OnEvent
) -> Iterator[TrialResult]:
    """Run trials one after the other in this process. Peak memory may include what came before."""
    for spec in specs:
        on_event({"event": "start", "trial_id": spec.trial_id})

        def tell(row: object, trial_id: str = spec.trial_id) -> None:
            on_event({"event": "step", "trial_id": trial_id, **dict(row)})  # type: ignore[call-overload]

        yield run_and_store(spec, study, metric, tell)


ENGINES: dict[str, Engine] = {"process": run_in_processes, "inline": run_inline}
