"""The worker's side of `executors.process`: import once, then a fork for each trial.

Started with `-m` and names of methods, it imports what these need. Reads
one JSON job a line from standard input and starts it at once; writes JSON events to standard
output; ends when its input has ended and nothing runs any more.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tunelab.core import machine, study_folder
from tunelab.core.events import Event, Note, OnEvent
from tunelab.methods import METHODS
from tunelab.study.executors.wire import Ended, Job, job_from_line, said_to_line
from tunelab.study.trial import run_and_store

# How long an ended trial may wait to be noticed, in seconds.
_LOOK_EVERY = 0.01


def _import_for(name: str) -> None:
    """Import what a method's trials need, without starting a thread: forking after that is unsafe.

    Seconds for a base model, which a study of linear models on words does not need.
    """
    import pandas
    import pyarrow.parquet  # noqa: F401  a trial reads its data and keeps its predictions with both

    del pandas
    method = METHODS[name]
    if method.adapt is None:  # what trains no transformer is scikit-learn's
        import sklearn.feature_extraction.text
        import sklearn.svm  # noqa: F401
    if method.needs_base:
        _import_heavy(method.adapt is not None)


@functools.cache
def _import_heavy(trains: bool) -> None:
    """Import what runs a base model, and have ready what trains one."""
    done = _building() if trains and hasattr(os, "fork") else None
    import peft
    import torch
    import transformers.models.auto.modeling_auto  # noqa: F401

    import tunelab.methods.neural
    import tunelab.methods.training.stack  # noqa: F401

    if done:
        done()
    del torch, peft


def _building() -> Callable[[], object] | None:
    """Have the kernels compiled by a child, where a processor trains and they are not there yet.

    Else the first trials would all do so, each for itself. Gives what waits for the end of it.
    """
    if machine.has_card():
        return None
    child = os.fork()
    if not child:
        try:
            from tunelab.kernels import build

            build.library()
        finally:
            os._exit(0)
    return functools.partial(os.waitpid, child, 0)


def _say(out: int, said: Event | Ended) -> None:
    # One write of less than a pipe's buffer is never cut, so trials may share the pipe.
    os.write(out, said_to_line(said).encode())


def _run_job(job: Job, out: int) -> None:
    def tell(event: Event) -> None:
        try:
            _say(out, event)
        except BrokenPipeError:
            # The command line was killed: nobody waits for this trial, and it has not failed.
            os._exit(1)

    logging.getLogger("tunelab").addHandler(_Telling(tell))
    run_and_store(job.specs, Path(job.study), job.metric, tell, job.jobs, job.checkpoints)


class _Telling(logging.Handler):
    """Says what is logged (of the cache) as a note of the study."""

    def __init__(self, tell: OnEvent) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        self._tell(Note(record.getMessage()))


def _fork(job: Job, out: int) -> int:
    """Run the job in a child whose output goes to a log of its own; give the child's id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # Else the end of the worker's input would not be seen, and libraries could read jobs.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        gc.enable()
        # What this process is told is heeded here: at once, or when a checkpoint is written.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _die_with_parent()
        _run_job(job, out)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _die_with_parent() -> None:
    """End this trial when the worker is gone, so that nothing trains on unseen."""
    parent = os.getppid()

    def watch() -> None:
        stop = threading.Event()
        while not stop.wait(1.0):
            if os.getppid() != parent:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _tell_ended(running: dict[int, Job], out: int) -> None:
    """Say which children have ended, without waiting for any."""
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        code = os.waitstatus_to_exitcode(status)
        _say(out, Ended(running.pop(child).name, code))


def _give_up(running: dict[int, Job]) -> None:
    """End all trials, and remove what they have half-written: nobody waits for them any more.

    The process that asked for them was killed; one that ends by itself has waited for them, or ends
    this one too.
    """
    for child in running:
        os.kill(child, signal.SIGKILL)
    for child, job in running.items():
        os.waitpid(child, 0)
        for spec in job.specs:
            study_folder.sweep(Path(job.study), spec.trial_id)
    running.clear()


def _serve(out: int) -> None:
    """Start jobs as they come in and report them as they end."""
    running: dict[int, Job] = {}
    text, reading = b"", True
    while reading:
        # No thread may wait for the children: this process forks.
        ready = select.select([0], [], [], _LOOK_EVERY if running else None)[0]
        if ready:
            read = os.read(0, 1 << 16)
            reading = bool(read)
            if not reading:
                _give_up(running)
            *lines, text = (text + read).split(b"\n")
            for line in lines:
                job = job_from_line(line)
                for spec in job.specs:
                    _import_for(spec.method.name)
                # What is imported stays: each trial would look through it for garbage, and the
                # pages that it shares with this process would be copied for that.
                gc.freeze()
                running[_fork(job, out)] = job
        _tell_ended(running, out)


def _serve_without_fork(out: int) -> None:
    for line in sys.stdin:
        job = job_from_line(line)
        _run_job(job, out)
        _say(out, Ended(job.name, 0))


def main() -> None:
    """Serve jobs until standard input ends."""
    # Events have standard output to themselves: whatever a library prints goes to the log.
    out = os.dup(1)
    os.dup2(2, 1)
    forks = hasattr(os, "fork")
    if forks:
        # A cluster tells every process. This one ends with its input, when its trials have ended.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # Looking for garbage in what is being imported takes a fifth of the time, and finds none.
        gc.disable()
    for name in sys.argv[1:]:
        _import_for(name)
    if forks:
        _serve(out)
    else:
        _serve_without_fork(out)


if __name__ == "__main__":
    main()
