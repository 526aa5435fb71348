"""Each trial in a fresh process, forked from one that has imported torch and done nothing else.

Importing torch, transformers and peft takes seconds; a worker (`python -m tunelab.engines.worker`)
does it once and forks for each trial. The two sides speak JSON lines: a spec goes in on standard
input; events come out on standard output, the last of which is `{"event": "end"}`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from tunelab import store
from tunelab.errors import TunelabError
from tunelab.trial import OnEvent, failed
from tunelab.types import TrialResult, TrialSpec

__all__ = ["run_in_processes"]


def run_in_processes(
    specs: Sequence[TrialSpec], study: Path, metric: str, on_event: OnEvent
) -> Iterator[TrialResult]:
    """Run trials one after the other, each in its own process; see `tunelab.engines.Engine`."""
    if not specs:
        return
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        worker = _start(log)
        try:
            for spec in specs:
                on_event({"event": "start", "trial_id": spec.trial_id})
                if worker.poll() is not None:
                    worker = _start(log)
                end = _run_one(worker, spec, study, metric, on_event)
                result = store.read_result(study, spec.trial_id)
                if end is None or end["exit"] or result is None:
                    code = end["exit"] if end else worker.wait(timeout=10)
                    if end is None:
                        _stop(worker)  # the trial may have outlived it
                    store.sweep(study)
                    result = _died(spec, study, code, log)
                yield result
        finally:
            _stop(worker)
            store.sweep(study)


def _start(log: IO[str]) -> subprocess.Popen[str]:
    env = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tunelab.engines.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
        env=env,
        # Its own group: Ctrl-C reaches this process alone, which then stops the group itself.
        start_new_session=True,
    )


def _run_one(
    worker: subprocess.Popen[str], spec: TrialSpec, study: Path, metric: str, on_event: OnEvent
) -> dict[str, Any] | None:
    """Send one trial and pass its events on. None where the worker itself ended."""
    assert worker.stdin  # noqa: S101  _start opened both
    assert worker.stdout  # noqa: S101
    job = {"spec": asdict(spec), "study": str(study.resolve()), "metric": metric}
    try:
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.flush()
    except BrokenPipeError:
        return None
    for line in worker.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "end":
            return event
        on_event({**event, "trial_id": spec.trial_id})
    return None


def _died(spec: TrialSpec, study: Path, code: int, log: IO[str]) -> TrialResult:
    """Keep a trial whose process ended without a result: killed, out of memory, crashed."""
    log.seek(0)
    said = [ln.strip() for ln in log if ln.strip() and "Warning: " not in ln]
    last = said[-1] if said else ""
    if code == -signal.SIGKILL:
        text = (
            "The trial's process was killed (SIGKILL), most often because memory ran out. "
            "Lower per_device_train_batch_size or max_length, or turn on gradient_checkpointing."
        )
    else:
        how = f"with signal {-code}" if code < 0 else f"with exit code {code}"
        text = f"The trial's process ended {how}. Its last words: {last or 'none'}"
    result = failed(spec, text, {})
    with store.new_trial(study, spec.trial_id) as folder:
        store.write_trial(folder, result, (), {})
    return result


def _stop(worker: subprocess.Popen[str]) -> None:
    """End the worker and whatever trial it runs."""
    with suppress(OSError, TunelabError):
        if worker.stdin:
            worker.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        worker.wait(timeout=0.5)
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    if worker.stdout:
        worker.stdout.close()
