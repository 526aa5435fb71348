"""Each trial, or stack, in a fresh process, forked from one that has only imported torch.

Importing torch, transformers and peft takes seconds; a worker (`python -m tunelab.engines.worker`)
does it once and forks for each, `jobs` of them at a time. The two sides speak JSON lines: specs go
in on standard input; events come out on standard output, each with its trial's id, the last being
`{"event": "end"}` with the id of a stack's first trial.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunelab import store
from tunelab.errors import TunelabError
from tunelab.trial import OnEvent, failed, not_scored
from tunelab.types import TrialResult, TrialSpec

__all__ = ["run_in_processes"]

# Read once, when a library starts its threads.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_in_processes(
    stacks: Sequence[Sequence[TrialSpec]],
    study: Path,
    metric: str,
    on_event: OnEvent,
    *,
    jobs: int = 1,
    threads: int | None = None,
) -> Iterator[TrialResult]:
    """Run `jobs` stacks at a time, each in its own process; see `tunelab.engines.Engine`.

    Where the process of a stack dies, its trials that have no result are run again, each by itself.
    """
    if not stacks:
        return
    jobs = min(jobs, len(stacks))
    waiting, running = deque(map(tuple, stacks)), dict[str, tuple[TrialSpec, ...]]()

    def ended(specs: tuple[TrialSpec, ...], code: int) -> Iterator[TrialResult]:
        for spec in specs:
            done = store.read_result(study, spec.trial_id)
            if code == 0 or len(specs) == 1:
                yield _result(spec, study, code, Path(logs))
            elif done is not None and done.status == "done":
                yield done
            else:
                store.sweep(study, spec.trial_id)
                waiting.appendleft((spec,))

    with tempfile.TemporaryDirectory(prefix="tunelab-") as logs:
        worker = _start(Path(logs), threads)
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    if worker.poll() is not None:
                        break
                    specs = waiting.popleft()
                    for spec in specs:
                        on_event({"event": "start", "trial_id": spec.trial_id})
                    running[specs[0].trial_id] = specs
                    _send(worker, {
                        "specs": [asdict(s) for s in specs], "study": str(study.resolve()),
                        "metric": metric, "jobs": jobs, "log": str(Path(logs) / specs[0].trial_id),
                    })  # fmt: skip
                end = _next_end(worker, on_event)
                if end is not None:
                    yield from ended(running.pop(end["trial_id"]), end["exit"])
                    continue
                # The worker itself ended, and with it whatever it ran.
                code = worker.wait(timeout=10)
                _stop(worker)
                for specs in running.values():
                    yield from ended(specs, code or 1)
                running.clear()
                if waiting:
                    worker = _start(Path(logs), threads)
        finally:
            _stop(worker)
            store.sweep(study)


def _start(logs: Path, threads: int | None) -> subprocess.Popen[str]:
    env = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "PYTHONUNBUFFERED": "1"}
    if threads is not None:
        env |= dict.fromkeys(_THREAD_VARIABLES, str(threads))
        env.setdefault("TOKENIZERS_PARALLELISM", "false" if threads == 1 else "true")
    with (logs / "worker").open("a", encoding="utf-8") as log:
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


def _send(worker: subprocess.Popen[str], job: Mapping[str, Any]) -> None:
    assert worker.stdin  # noqa: S101  _start opened it
    # A worker that is gone is seen where its events are read.
    with suppress(BrokenPipeError):
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.flush()


def _next_end(worker: subprocess.Popen[str], on_event: OnEvent) -> dict[str, Any] | None:
    """Pass events on until a trial ends. None where the worker itself ended."""
    assert worker.stdout  # noqa: S101  _start opened it
    for line in worker.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "end":
            return event
        on_event(event)
    return None


def _result(spec: TrialSpec, study: Path, code: int, logs: Path) -> TrialResult:
    """What a trial left in the study, or that it died."""
    result = store.read_result(study, spec.trial_id) if code == 0 else None
    if result is None:
        store.sweep(study, spec.trial_id)
        result = _died(spec, study, code, logs)
    return result


def _died(spec: TrialSpec, study: Path, code: int, logs: Path) -> TrialResult:
    """Keep a trial whose process ended without a result: killed, out of memory, crashed.

    One that was done, and was only to be scored on other data, stays as it is.
    """
    said = [
        line.strip()
        for log in (logs / spec.trial_id, logs / "worker")
        if log.is_file()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip() and "Warning: " not in line
    ]
    last = said[-1] if said else ""
    if code == -signal.SIGKILL:
        text = (
            "The trial's process was killed (SIGKILL), most often because memory ran out. "
            "Lower per_device_train_batch_size or max_length, turn on gradient_checkpointing, or "
            "run fewer trials at a time (--jobs 1)."
        )
    else:
        how = f"with signal {-code}" if code < 0 else f"with exit code {code}"
        text = f"The trial's process ended {how}. Its last words: {last or 'none'}"
    before = store.read_result(study, spec.trial_id)
    if before is not None and before.status == "done":
        return not_scored(before, text)
    result = failed(spec, text, {})
    with store.new_trial(study, spec.trial_id) as folder:
        store.write_trial(folder, result, (), {})
    return result


def _stop(worker: subprocess.Popen[str]) -> None:
    """End the worker and whatever trials it runs."""
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
