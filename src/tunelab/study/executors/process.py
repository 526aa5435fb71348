"""Each trial, or stack, in a fresh process, forked from one that has only imported torch.

Importing torch, transformers and peft takes seconds; a worker (`tunelab.study.executors.worker`)
does it once and forks for each, `jobs` of them at a time. It may be started before it is known what
is to run, and is kept from one round of a study to the next (`Worker`). The two sides speak JSON
lines: specs go in on standard input; events come out on standard output, each with its trial's id,
the last being `Ended` with the id of a stack's first trial (`executors.wire`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tunelab.core import files, study_folder
from tunelab.core.checkpoints import Checkpoints
from tunelab.core.details import Provenance
from tunelab.core.events import OnEvent, Started
from tunelab.core.values import TrialResult, TrialSpec
from tunelab.study.elsewhere import not_scored
from tunelab.study.executors.wire import Ended, Job, job_to_line, said_from_line
from tunelab.study.trial import failed

__all__ = [
    "Worker",
    "keep_as_failed",
    "run_in_processes",
]


_NOTICE = 20.0  # clusters give 30 seconds between SIGTERM and SIGKILL
# Read once, when a library starts its threads.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Worker:
    """The process that trials are forked from: none yet, or one that runs. A context manager.

    `logs` holds what it and its trials say beside events.
    """

    def __init__(self) -> None:
        self._inside = ExitStack()
        self._folder = self._inside.enter_context(files.scratch_folder("tunelab-logs-"))
        self._process: subprocess.Popen[str] | None = None
        self._threads: int | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._inside.close()

    @property
    def logs(self) -> Path:
        """A folder that is there as long as this is."""
        return self._folder

    def started(self, methods: Iterable[str], threads: int | None) -> subprocess.Popen[str]:
        """The process whose trials have so many threads each: the one that runs, or a new one.

        A new one imports at once what the methods need; what others need, when they are asked for.
        """
        # Libraries read the number when they are loaded: it cannot be changed later.
        ready = self._threads == threads and self._process and self._process.poll() is None
        if not ready:
            self.stop()
            self._process, self._threads = _start(self.logs, methods, threads), threads
        assert self._process  # noqa: S101  just started
        return self._process

    def tell_to_end(self, jobs: int) -> None:
        """Have trainings write their checkpoints and end: so many, within `_NOTICE` seconds."""
        process = self._process
        if process is None or not hasattr(os, "killpg"):
            return

        def read() -> None:
            for _ in range(jobs):
                if _next_end(process, lambda _: None) is None:
                    return

        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(_NOTICE)

    def stop(self) -> None:
        """End the process and whatever trials it runs."""
        if self._process:
            _stop(self._process)
        self._process = None


@dataclass(slots=True, eq=False)
class _Stacks:
    """The stacks of a study that wait, and those that are run, by their job's name: `jobs` at a
    time of them, `beside` in all on this machine.
    """

    waiting: deque[tuple[TrialSpec, ...]]
    study: Path
    metric: str
    jobs: int
    beside: int
    logs: Path
    on_event: OnEvent
    checkpoints: Checkpoints | None
    running: dict[str, tuple[TrialSpec, ...]] = field(default_factory=dict)

    def send_what_fits(self, process: subprocess.Popen[str]) -> None:
        """Give the worker as many stacks as may run at a time, as long as it is there."""
        while self.waiting and len(self.running) < self.jobs and process.poll() is None:
            specs = self.waiting.popleft()
            for spec in specs:
                self.on_event(Started(spec.trial_id))
            log = str(self.logs / specs[0].trial_id)
            study = str(self.study.resolve())
            job = Job(specs, study, self.metric, self.beside, log, self.checkpoints)
            self.running[job.name] = specs
            _send_job(process, job)

    def results_of(self, specs: tuple[TrialSpec, ...], code: int) -> Iterator[TrialResult]:
        """What a stack left whose process ended; what several lack waits again, each by itself."""
        for spec in specs:
            done = study_folder.read_result(self.study, spec.trial_id)
            if code == 0 or len(specs) == 1:
                yield _result(spec, self.study, code, self.logs)
            elif done is not None and done.status == "done":
                yield done
            else:
                study_folder.sweep(self.study, spec.trial_id)
                self.waiting.appendleft((spec,))

    def results_after_crash(self, code: int) -> Iterator[TrialResult]:
        """The same of all that ran: the worker itself ended, and with it whatever it ran."""
        for specs in self.running.values():
            yield from self.results_of(specs, code or 1)
        self.running.clear()


def run_in_processes(
    stacks: Sequence[Sequence[TrialSpec]],
    study: Path,
    metric: str,
    on_event: OnEvent,
    *,
    jobs: int = 1,
    threads: int | None = None,
    worker: Worker | None = None,
    beside: int = 1,
    checkpoints: Checkpoints | None = None,
) -> Iterator[TrialResult]:
    """Run `jobs` stacks at a time, each in its own process; see `executors.Executor`.

    `worker`: the process that they are forked from, where one is kept for several calls. `beside`:
    how many run at a time on this machine, where others run some too; each result keeps it.
    Where the process of a stack dies, its trials that have no result are run again, each by itself.
    """
    if not stacks:
        return
    needed = dict.fromkeys(spec.method.name for specs in stacks for spec in specs)
    with ExitStack() as inside:
        worker = worker or inside.enter_context(Worker())
        waiting = deque(map(tuple, stacks))
        jobs, logs = min(jobs, len(stacks)), worker.logs
        beside = max(jobs, beside)
        now = _Stacks(waiting, study, metric, jobs, beside, logs, on_event, checkpoints)
        try:
            process = worker.started(needed, threads)
            while now.waiting or now.running:
                now.send_what_fits(process)
                end = _next_end(process, on_event)
                if end is not None:
                    yield from now.results_of(now.running.pop(end.trial_id), end.exit)
                    continue
                code = process.wait(timeout=10)
                worker.stop()
                yield from now.results_after_crash(code)
                if now.waiting:
                    process = worker.started(needed, threads)
        finally:
            if now.running:  # nobody waits for these any more
                if checkpoints is not None:
                    worker.tell_to_end(len(now.running))
                worker.stop()
            study_folder.sweep(study)


def _start(logs: Path, methods: Iterable[str], threads: int | None) -> subprocess.Popen[str]:
    env = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "PYTHONUNBUFFERED": "1"}
    if threads is not None:
        env |= dict.fromkeys(_THREAD_VARIABLES, str(threads))
        env.setdefault("TOKENIZERS_PARALLELISM", "false" if threads == 1 else "true")
    with (logs / "worker").open("a", encoding="utf-8") as log:
        return subprocess.Popen(  # noqa: S603  our own module
            # -P: no file of the folder that one stands in is taken for a package.
            [sys.executable, "-P", "-m", "tunelab.study.executors.worker", *methods],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=env,
            # Its own group: Ctrl-C reaches this process alone, which then stops the group itself.
            start_new_session=True,
        )


def _send_job(worker: subprocess.Popen[str], job: Job) -> None:
    assert worker.stdin  # noqa: S101  _start opened it
    # A worker that is gone is seen where its events are read.
    with suppress(BrokenPipeError):
        worker.stdin.write(job_to_line(job))
        worker.stdin.flush()


def _next_end(worker: subprocess.Popen[str], on_event: OnEvent) -> Ended | None:
    """Pass events on until a trial ends. None where the worker itself ended."""
    assert worker.stdout  # noqa: S101  _start opened it
    for line in worker.stdout:
        said = said_from_line(line)
        if isinstance(said, Ended):
            return said
        on_event(said)
    return None


def _result(spec: TrialSpec, study: Path, code: int, logs: Path) -> TrialResult:
    """What a trial left in the study, or that it died."""
    result = study_folder.read_result(study, spec.trial_id) if code == 0 else None
    if result is None:
        study_folder.sweep(study, spec.trial_id)
        result = _died(spec, study, code, logs)
    return result


def _died(spec: TrialSpec, study: Path, code: int, logs: Path) -> TrialResult:
    """Keep a trial whose process ended without a result: killed, out of memory, crashed."""
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
    return keep_as_failed(spec, study, text)


def keep_as_failed(spec: TrialSpec, study: Path, text: str) -> TrialResult:
    """Keep a trial that could not be run to its end, and why; one that was done before, and was
    only to be scored on other data, stays as it is.
    """
    before = study_folder.read_result(study, spec.trial_id)
    if before is not None and before.status == "done":
        return not_scored(before, text)
    result = failed(spec, text, Provenance())
    with study_folder.new_trial(study, spec.trial_id) as folder:
        study_folder.write_trial(folder, result, (), {})
    return result


def _stop(worker: subprocess.Popen[str]) -> None:
    """End the worker and whatever trials it runs; there is nothing that either has to put away."""
    with suppress(OSError):
        if worker.stdin:
            worker.stdin.close()
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    if worker.stdout:
        worker.stdout.close()
