"""A slot: what runs on a node of a cluster, a stack of trials at a time, in today's worker process.

The engine makes an actor of it. Nothing is shared with the study's own machine: rows, bases and
what a trial needs of the study's folder come as bytes, and what it leaves goes back as bytes.
"""

from __future__ import annotations

import hashlib
import os
import platform
import queue
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tunelab.core import files, machine, study_folder
from tunelab.core.details import BaseRef, Hardware
from tunelab.core.errors import ModelError
from tunelab.core.events import Event
from tunelab.core.sent import SENT_VARIABLE, SentKind, place_of_sent
from tunelab.core.values import TrialResult, TrialSpec
from tunelab.core.version import __version__
from tunelab.models import bases
from tunelab.study.executors.process import Worker, run_in_processes

__all__ = ["Content", "StackEnded", "Heard", "Installed", "SentStack", "Slot", "installed"]

Content = Mapping[str, bytes]  # files by their path in a folder
# Seconds that a slot waits for something to say. It answers even if there is nothing: so it lives.
_WAITS = 2.0


@dataclass(frozen=True, slots=True)
class Installed:
    """What results depend on beside data, base and settings, as a machine has it."""

    machine: str
    tunelab: str
    code: str
    versions: Mapping[str, str]
    hardware: Hardware
    compiler: bool

    def differences(self, other: Installed) -> list[str]:
        """In what results of another machine could differ from those of this one: "torch 2.13.0
        instead of 2.12.1". Hardware is none: it stands in each result.
        """
        names = dict.fromkeys((*self.versions, *other.versions))
        pairs = [(n, self.versions.get(n, "none"), other.versions.get(n, "none")) for n in names]
        pairs.append(("tunelab", self.tunelab, other.tunelab))
        said = [f"{name} {b} instead of {a}" for name, a, b in pairs if a != b]
        if not said and self.code != other.code:
            said = ["another tunelab of the same version"]
        if self.compiler != other.compiler:
            which = ("no C++ compiler", "a C++ compiler")[other.compiler]
            said.append(f"{which}, so other kernels")
        return said


def installed() -> Installed:
    """The same of this machine."""
    from tunelab.kernels import build

    code = hashlib.sha256()
    package = Path(str(resources.files("tunelab")))
    for file in sorted(package.rglob("*")):
        if file.suffix in {".py", ".cpp", ".h"}:
            code.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return Installed(
        machine=platform.node(),
        tunelab=__version__,
        code=code.hexdigest(),
        versions=machine.versions(),
        hardware=machine.hardware(),
        compiler=build.compiler() is not None,
    )


@dataclass(frozen=True, slots=True)
class SentStack:
    """Trials to run in one pass, judged by a study's metric. `files`: what they need of its folder.

    `beside`: how many run at a time on the slot's machine.
    """

    specs: tuple[TrialSpec, ...]
    metric: str
    files: Content
    beside: int


@dataclass(frozen=True, slots=True)
class StackEnded:
    """A stack's results, and the files of its trials' folders by id; or the `fault` of the slot."""

    results: tuple[TrialResult, ...] = ()
    files: Mapping[str, Content] | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a slot has to say since it was last asked. `ended`: of the stack that it was given."""

    events: tuple[Event, ...]
    ended: StackEnded | None = None


class Slot:
    """A place for one stack at a time, whose trials have so many threads each."""

    def __init__(self, methods: Sequence[str], threads: int) -> None:
        self._inside = ExitStack()
        self._folder = self._inside.enter_context(files.scratch_folder("tunelab-slot-"))
        # For the worker, whose trials look there for rows and bases.
        os.environ[SENT_VARIABLE] = str(self._folder / "sent")
        self._worker = self._inside.enter_context(Worker())
        self._threads = threads
        self._said: queue.Queue[Event | StackEnded] = queue.Queue()
        self._worker.started(methods, threads)  # it imports meanwhile

    def about(self, refs: Sequence[BaseRef]) -> tuple[Installed, tuple[str, ...]]:
        """This machine, and the SHA-256 of those bases that are not here."""
        return installed(), tuple(ref.sha256 for ref in refs if not _is_here(ref))

    def take(self, kind: SentKind, key: str, content: bytes | Content) -> None:
        """Keep rows or a base for trials to come."""
        place = place_of_sent(self._folder / "sent", kind, key)
        if place.exists():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            files.write_bytes(place, content)
        else:
            write_content(place, content)

    def begin(self, stack: SentStack) -> None:
        """Start a stack; `listen` says how it goes."""
        threading.Thread(target=self._run, args=(stack,), daemon=True).start()

    def listen(self) -> Heard:
        """What has been said since; waits for it a moment."""
        heard: list[Event | StackEnded] = []
        try:
            heard.append(self._said.get(timeout=_WAITS))
            while True:
                heard.append(self._said.get_nowait())
        except queue.Empty:
            pass
        events = tuple(h for h in heard if not isinstance(h, StackEnded))
        return Heard(events, next((h for h in heard if isinstance(h, StackEnded)), None))

    def close(self) -> None:
        """End what runs, and remove all that was written here."""
        self._inside.close()

    def _run(self, stack: SentStack) -> None:
        study = self._folder / "study"
        try:
            write_content(study, stack.files)
            (study / "trials").mkdir(exist_ok=True)
            ran = run_in_processes(
                [stack.specs],
                study,
                stack.metric,
                self._said.put,
                threads=self._threads,
                worker=self._worker,
                beside=stack.beside,
            )
            results = tuple(ran)
            folders = {s.trial_id: study_folder.trial_dir(study, s.trial_id) for s in stack.specs}
            left = {i: read_content(folder) for i, folder in folders.items() if folder.is_dir()}
            self._said.put(StackEnded(results, left))
        except Exception as e:  # whatever it is, who asked is told
            self._said.put(StackEnded(fault=f"{type(e).__name__}: {' '.join(str(e).split())}"))
        finally:
            shutil.rmtree(study, ignore_errors=True)


def _is_here(ref: BaseRef) -> bool:
    """Whether a base is bundled with this machine's tunelab, or lies in the same folder here."""
    if ref.name != bases.BUNDLED and not Path(ref.name).is_dir():
        return False
    try:
        return bases.resolve(ref.name, bool(ref.code_sha256)).ref == ref
    except ModelError:
        return False


def read_content(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    there = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in there}


def write_content(folder: Path, content: Content) -> None:
    """Write files below a folder. Raises ValueError for a path that leads out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    inside = folder.resolve()
    for name, content_of_file in content.items():
        place = (folder / name).resolve()
        if not place.is_relative_to(inside):
            raise ValueError(f"{name}: leads out of its folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content_of_file)
