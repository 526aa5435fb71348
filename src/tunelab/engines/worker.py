"""The worker's side of `tunelab.engines.process`: import once, then a fork for each trial.

Started as `python -m tunelab.engines.worker`. Reads one JSON job a line from standard input, writes
JSON events to standard output, ends when its input ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tunelab.store import spec_from_json
from tunelab.trial import run_and_store


def _import_heavy() -> None:
    """Import what a base model needs, without starting a thread: forking after that is unsafe."""
    import peft
    import transformers.models.auto.modeling_auto  # noqa: F401

    import tunelab.methods.neural  # noqa: F401

    del peft


def _send(out: IO[str], event: Mapping[str, Any]) -> None:
    out.write(json.dumps(event) + "\n")
    out.flush()


def _run(job: Mapping[str, Any], out: IO[str]) -> None:
    spec = spec_from_json(job["spec"])

    def tell(row: Mapping[str, Any]) -> None:
        try:
            _send(out, {"event": "step", **row})
        except BrokenPipeError:
            # The command line was killed: nobody waits for this trial, and it has not failed.
            os._exit(1)

    run_and_store(spec, Path(job["study"]), job["metric"], tell)


def _fork(job: Mapping[str, Any], out: IO[str]) -> int:
    """Run the job in a child; give its exit code (minus the signal that killed it)."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _die_with_parent()
            _run(job, out)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _die_with_parent() -> None:
    """End this trial when the worker is gone, so that nothing trains on unseen."""
    parent = os.getppid()

    def watch() -> None:
        stop = threading.Event()
        while not stop.wait(1.0):
            if os.getppid() != parent:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Serve jobs until standard input ends."""
    # Events have standard output to themselves: whatever a library prints goes to the log.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        import sklearn.svm  # noqa: F401

        for line in sys.stdin:
            job = json.loads(line)
            # Seconds that a study of linear models on words does not need. Done once, then cached.
            if job["spec"]["base"] is not None:
                _import_heavy()
            if hasattr(os, "fork"):
                code = _fork(job, out)
            else:
                _run(job, out)
                code = 0
            _send(out, {"event": "end", "exit": code})


if __name__ == "__main__":
    main()
