"""What a study says while it runs, kept in its folder for whoever looks on: run.jsonl.

A line is JSON: first {"event": "run"} with the process, then what `core.events` writes, "plan"
(what is to run), "end" (a trial has ended, and how) and, last, "over". The process that runs the
study has the file locked, so that others know whether it does. Each run writes it anew.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = [
    "RUN_LOG",
    "LogReader",
    "RunOfStudy",
    "is_run_by_another",
    "run_of_study",
    "writing_run_log",
]

RUN_LOG = "run.jsonl"


@dataclass(frozen=True, slots=True)
class RunOfStudy:
    """Who runs a study, or did so last: a process of a machine, since `at` (seconds since 1970)."""

    process: int
    machine: str
    at: float

    @property
    def is_here(self) -> bool:
        """Whether the process is, or was, one of this machine."""
        return self.machine == socket.gethostname()


@contextmanager
def writing_run_log(study: Path) -> Iterator[Callable[[Mapping[str, object]], None]]:
    """Give what writes a line, at once, with the time `at` which it is said."""
    path = study / RUN_LOG
    path.unlink(missing_ok=True)  # who reads the one before sees that this is another
    with path.open("x", encoding="utf-8") as log:
        _lock_whole(log)

        def write(said: Mapping[str, object]) -> None:
            line = json.dumps({**said, "at": round(time.time(), 4)}, ensure_ascii=False)
            with suppress(OSError):  # it is a help: a full disk is said by what has to be there
                log.write(line.encode("utf-8", "replace").decode() + "\n")
                log.flush()

        write({"event": "run", "process": os.getpid(), "machine": socket.gethostname()})
        yield write


def _lock_whole(log: IO[str]) -> None:
    """Lock a file until it is closed, where the system has locks."""
    try:
        import fcntl

        fcntl.flock(log, fcntl.LOCK_EX)  # who looks whether it is locked holds it for no time
    except (ImportError, OSError):
        return


def is_run_by_another(study: Path) -> bool:
    """Whether a process is running this study now; False also where that cannot be known."""
    try:
        import fcntl

        with (study / RUN_LOG).open("rb") as log:
            fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False


def run_of_study(study: Path) -> RunOfStudy | None:
    """Who ran a study last; None where nothing says so."""
    try:
        with (study / RUN_LOG).open(encoding="utf-8") as log:
            said = json.loads(log.readline())
        run = RunOfStudy(int(said["process"]), str(said["machine"]), float(said["at"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return run if run.process > 0 else None  # no other number is one process


class LogReader:
    """Reads what has been added to a study's log since it was last asked."""

    def __init__(self, study: Path) -> None:
        self._path = study / RUN_LOG
        self._first = b""  # the line that says who runs it: another one is another run's
        self._read = 0

    def new_lines(self) -> list[str]:
        """Whole lines (JSON); of another run than before all, from its first on."""
        try:
            with self._path.open("rb") as log:
                first = log.readline()
                if first != self._first:
                    self._first, self._read = first, 0
                log.seek(self._read)
                added = log.read()
        except OSError:
            return []
        *whole, half = added.split(b"\n")
        self._read += len(added) - len(half)
        return [line.decode("utf-8", "replace") for line in whole]
