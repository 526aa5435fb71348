"""The studies below the given folders: how far each is, and what may be said of it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunelab.core import study_folder
from tunelab.core.errors import InputError
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import TrialResult
from tunelab.core.words import free_name
from tunelab.desk.runs import RunsOfStudies
from tunelab.serving.refusal import Refusal
from tunelab.stats.metrics import METRICS

__all__ = ["StudiesOfFolders", "StudyDetails", "StudyLine", "TrialLine", "words_to_go_on"]

_SECONDS_UNREAD = 10.0
StudyState = Literal["starting", "running", "done", "paused", "damaged"]


@dataclass(frozen=True, slots=True)
class StudyLine:
    """A study in the list. `key`: what it is asked for by; `headline`: what to take, where it has
    been said; `fault`: why it cannot be read, or how its run has failed.
    """

    key: str
    state: StudyState
    done: int = 0
    failed: int = 0
    missing: int = 0
    headline: str = ""
    data: str = ""
    changed: float = 0.0
    fault: str = ""

    @property
    def runs(self) -> bool:
        """Whether a process is at work on it."""
        return self.state in {"starting", "running"}


@dataclass(frozen=True, slots=True)
class TrialLine:
    """A trial that has ended; `score` of the study's metric on validation."""

    trial_id: str
    name: str
    status: str
    error: str | None
    score: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class StudyDetails:
    """A study by itself. `has_model`: whether its best classifier may be loaded."""

    line: StudyLine
    metric: str = ""
    is_share: bool = True
    trials: tuple[TrialLine, ...] = ()
    has_report: bool = False
    has_model: bool = False
    command: str = ""


@dataclass(slots=True)
class StudiesOfFolders:
    """All studies in the folders that the server was given, and no other.

    `roots`: folders of studies, or of one.
    """

    roots: tuple[Path, ...]
    runs: RunsOfStudies
    _read: dict[Path, _ReadStudy] = field(default_factory=dict)

    def folders(self) -> dict[str, Path]:
        """Every study's folder by its key; what leads out of the given folders is left out."""
        studies: dict[str, Path] = {}
        for key, folder in self._inside():
            studies[free_name(key, studies)] = folder
        return studies

    def _inside(self) -> Iterator[tuple[str, Path]]:
        for root in self.roots:
            inside = root.resolve()
            here = [root] if study_folder.is_study(root) else study_folder.find_studies(root)
            begun = (f for f in self.runs.folders if f not in here and f.is_relative_to(root))
            for folder in (*here, *begun):
                if folder.resolve().is_relative_to(inside):
                    below = folder.relative_to(root).as_posix()
                    yield (inside.name if below == "." else f"{inside.name}/{below}"), folder

    def folder(self, key: str) -> Path:
        """A study's folder. Raises Refusal for a key of none: a path is never made of it."""
        try:
            return self.folders()[key]
        except KeyError:
            raise Refusal("unknown", f"{key!r}: there is no such study.") from None

    def key(self, folder: Path) -> str:
        """The key of a study's folder."""
        return next(key for key, other in self.folders().items() if other == folder)

    @property
    def home(self) -> Path | None:
        """Where new studies go: the first folder that is no study itself; None without one."""
        return next((r for r in self.roots if not study_folder.is_study(r)), None)

    def lines(self) -> list[StudyLine]:
        """All studies, the last that changed first."""
        lines = [self._line(key, folder) for key, folder in self.folders().items()]
        return sorted(lines, key=lambda line: (not line.runs, -line.changed, line.key))

    def details(self, key: str) -> StudyDetails:
        """A study with its trials; without, where it cannot be read (yet)."""
        folder = self.folder(key)
        record, line = self._record(folder), self._line(key, folder)
        if isinstance(record, str):
            return StudyDetails(line)
        metric = record.settings["metric"]
        known = METRICS.get(metric)  # of another version's studies perhaps not
        return StudyDetails(
            line=line,
            metric=known.label if known else metric,
            is_share=known is not None and known.percent,
            trials=tuple(_trial_line(r, metric) for r in record.results),
            has_report=self.report(key) is not None,
            has_model=bool(record.done) and self.runs.state(folder) is None,
            command="tunelab " + shlex.join(words_to_go_on(folder)),
        )

    def report(self, key: str) -> Path | None:
        """A study's report, where it has one inside its folder."""
        folder = self.folder(key)
        report = folder / "report.html"
        inside = report.resolve().is_relative_to(folder.resolve())
        return report if inside and report.is_file() else None

    def _line(self, key: str, folder: Path) -> StudyLine:
        record, changed = self._record(folder), _changed(folder)
        if isinstance(record, str):
            if self.runs.state(folder) is not None:
                return StudyLine(key, "starting", changed=time.time())
            fault = self.runs.fault(folder) or record
            return StudyLine(key, "damaged", changed=changed, fault=fault)
        missing = len(record.missing)
        ended: StudyState = "paused" if missing else "done"
        return StudyLine(
            key=key,
            state=self.runs.state(folder) or ended,
            done=len(record.done),
            failed=len(record.failed),
            missing=missing,
            headline=_headline(folder),
            data=str(record.settings["data"]["source"]),
            changed=changed,
            fault=self.runs.fault(folder, failed=bool(record.failed)),
        )

    def _record(self, folder: Path) -> StudyRecord | str:
        """A study as it lies there, or why it cannot be read; read again where it has changed.

        One that runs changes all the time, and says itself what has ended: it is not read anew for
        a while.
        """
        seen = tuple(_time_ns(folder / name) for name in ("study.yaml", "data.json", "trials"))
        before = self._read.get(folder)
        if before is not None:
            new = time.monotonic() - before.at < _SECONDS_UNREAD
            whole = isinstance(before.record, StudyRecord)
            if before.seen == seen or (new and whole and self.runs.state(folder) is not None):
                return before.record
        try:
            record: StudyRecord | str = study_folder.read_study(folder)
        except (InputError, OSError) as e:  # one that cannot be read hides no other
            record = str(e)
        self._read[folder] = _ReadStudy(record, seen, time.monotonic())
        return record


@dataclass(frozen=True, slots=True)
class _ReadStudy:
    """A study, or why it cannot be read, when it was `seen` to be of these times."""

    record: StudyRecord | str
    seen: tuple[int, ...]
    at: float


def words_to_go_on(folder: Path) -> list[str]:
    """The command, after `tunelab`, that runs what a study lacks."""
    return ["compare", str(folder / "study.yaml")]


def _trial_line(result: TrialResult, metric: str) -> TrialLine:
    spec = result.spec
    return TrialLine(
        trial_id=spec.trial_id,
        name=f"{spec.method.label} seed {spec.seed}",
        status=result.status,
        error=result.error,
        score=result.scores.get(f"eval_{metric}"),
        seconds=result.cost.train_seconds,
    )


def _headline(folder: Path) -> str:
    """What comparison.json says first; "" where nothing has been said yet."""
    try:
        said = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
        return str(said["headline"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _time_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _changed(folder: Path) -> float:
    """When something was last added to a study, in seconds since 1970."""
    return max(_time_ns(folder / n) for n in ("study.yaml", "trials", "comparison.json")) / 1e9
