"""Studies that run: begun in processes of their own, paused, gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunelab.core.run_log import is_run_by_another, run_of_study
from tunelab.serving.refusal import Refusal

__all__ = ["RunsOfStudies"]

_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class _Begun:
    process: subprocess.Popen[bytes]
    log: Path
    at: float = field(default_factory=time.time)


@dataclass(slots=True)
class RunsOfStudies:
    """The studies that this server has begun to run, by folder; they outlive it.

    `scratch`: where it keeps what they print.
    """

    scratch: Path
    _begun: dict[Path, _Begun] = field(default_factory=dict)

    def begin(self, folder: Path, command: Sequence[str]) -> None:
        """Run `tunelab` with these words, which runs the study of a folder. Raises Refusal where
        something runs it already.
        """
        if self.state(folder) is not None:
            raise Refusal("exists", f"{folder.name}: runs already.")
        log = self.scratch / f"run-{len(list(self.scratch.glob('run-*')))}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603  our own command line
                # -P: no file of the folder that one stands in is taken for a package.
                [sys.executable, "-P", "-m", "tunelab", *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                # Neither Ctrl-C nor the end of the server's terminal reaches it.
                start_new_session=True,
            )
        self._begun[folder] = _Begun(process, log)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of the studies that were begun here."""
        return tuple(self._begun)

    def state(self, folder: Path) -> Literal["starting", "running"] | None:
        """Whether a study runs, whoever has begun it, or is about to; None: neither."""
        if is_run_by_another(folder):
            return "running"
        begun = self._begun.get(folder)
        if begun is None or begun.process.poll() is not None:
            return None
        run = run_of_study(folder)  # its own from the moment on when it runs trials
        return "running" if run and run.process == begun.process.pid else "starting"

    def fault(self, folder: Path, *, failed: bool = False) -> str:
        """What a run of this server's printed last, where it did not end well; else "".

        `failed`: the study shows trials that failed, for which a run ends with 1 too.
        """
        begun = self._begun.get(folder)
        # Paused runs end by a signal, as they were told to.
        well = {None, 0, 128 + signal.SIGTERM, *((1,) if failed else ())}
        if begun is None or begun.process.poll() in well:
            return ""
        run = run_of_study(folder)
        if run is not None and run.process != begun.process.pid and run.at > begun.at:
            return ""  # somebody has run it since
        text = begun.log.read_text(encoding="utf-8", errors="replace").strip()
        return text[-_SHOWN_CHARACTERS:] or f"It ended with exit code {begun.process.poll()}."

    def pause(self, folder: Path) -> None:
        """Have a run end as Ctrl-C ends it: what is done is kept. Raises Refusal where it cannot
        be reached from here.
        """
        run = run_of_study(folder)
        if run is None or not run.is_here or self.state(folder) != "running":
            raise Refusal("invalid", f"{folder.name}: does not run (yet), or not on this machine.")
        begun = self._begun.get(folder)
        ours = begun is not None and begun.process.pid == run.process
        with suppress(ProcessLookupError):  # it has just ended
            # Another's may be a notebook or a script: SIGTERM would end all of it.
            os.kill(run.process, signal.SIGTERM if ours else signal.SIGINT)
