"""`tunelab runs check`: whether a study's folder is as it was written, and its repair.

What follows from the rest of the folder is made anew (tables, the report, cards). What does not is
told, with what to do about it: no trial is run here, and nothing is removed but what was left
half-written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunelab.core import files, results_table, study_folder
from tunelab.core.artifact import open_artifact
from tunelab.core.errors import ArtifactError, InputError
from tunelab.core.study_folder import StudyRecord
from tunelab.core.tasks import row_codes
from tunelab.core.trial_files import UNREADABLE, damage
from tunelab.core.values import Predictions, TrialResult
from tunelab.stats.metrics import METRICS
from tunelab.study.measures import scores_of_parts
from tunelab.study.outputs import write_outputs
from tunelab.study.record import PARSED_EXTRAS
from tunelab.study.trial import make_spec

__all__ = [
    "Checked",
    "StudyFault",
    "check_study",
    "repair_study",
]

# Of these metrics no version has changed what they are.
_LASTING = ("accuracy", "log_loss", "matthews_correlation")
_WRITTEN_OUT = ("comparison.json", "report.html")


@dataclass(frozen=True, slots=True)
class StudyFault:
    """What is wrong with a file of a study, and what to do; `follows`: `repair_study` makes it anew
    from the rest.
    """

    where: str
    wrong: str
    remedy: str
    follows: bool = False

    @property
    def sentence(self) -> str:
        """The same in a line."""
        return f"{self.where}: {self.wrong}. {self.remedy}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked at: whole `trials`, those that are `missing` and no fault, and the faults."""

    trials: int
    missing: int
    faults: tuple[StudyFault, ...]


def check_study(directory: Path) -> Checked:
    """Look at every file of a study. Raises ArtifactError where study.yaml or data.json is not
    there, or not as it was written: nothing can be said without them.
    """
    record = study_folder.read_study(directory)
    folders = sorted(p for p in (directory / "trials").glob("[!.]*"))
    faults: list[StudyFault] = []
    whole = 0
    labels = _labels_by_id(directory)
    for folder in folders:
        of_trial = list(_faults_of_trial(record, folder, labels))
        faults += of_trial
        whole += not of_trial
    faults += _faults_of_extras(record)
    faults += _faults_of_outputs(record)
    faults += _leftovers(directory)
    there = {p.name for p in folders}
    return Checked(whole, sum(i not in there for i in record.missing), tuple(faults))


def repair_study(directory: Path) -> Checked:
    """Make anew what follows from the rest of a study's folder, and look at it again.

    Raises ConfigError where another process runs trials there.
    """
    study_folder.read_study(directory)  # before a folder is made to be locked
    with files.locked(directory):
        if any(fault.follows for fault in check_study(directory).faults):
            study_folder.sweep(directory)
            write_outputs(directory)
    return check_study(directory)


# --- trials -----------------------------------------------------------------------------------


def _faults_of_trial(
    record: StudyRecord, folder: Path, labels: Mapping[str, int] | None
) -> Iterator[StudyFault]:
    again = f"It is run again by: tunelab compare {record.directory / 'study.yaml'}"
    where = f"trials/{folder.name}"
    told = damage(record.directory, folder.name)
    if told is not None:
        yield StudyFault(where, told.removeprefix(f"{folder}/").partition(";")[0], again)
        return
    result = study_folder.read_result(record.directory, folder.name)
    assert result is not None  # noqa: S101  it is there, and whole
    wrong: str | None
    remove = f"Remove {folder}. {again}"
    # An earlier study in this folder may have had another metric, other folds, other data.
    if folder.name not in {_id_of(result, metric) for metric in METRICS}:
        expected = _id_of(result, record.settings["metric"])
        yield StudyFault(where, f"its spec.json is that of {expected}, not of this id", remove)
    if result.status == "done" and result.spec.fingerprint == record.data["fingerprint"]:
        predictions = record.predictions(folder.name)
        for wrong in _unlike_predictions(result, predictions, record.data["label_names"]):
            yield StudyFault(where, wrong, remove)
        named = {*record.settings["trials"], *record.settings.get("curve", ())}
        if labels and folder.name in named and (wrong := _unlike_rows(predictions, labels)):
            yield StudyFault(where, wrong, remove)
    if (folder / "artifact").is_dir():
        try:
            open_artifact(folder / "artifact")
        except ArtifactError as e:
            yield StudyFault(f"{where}/artifact", str(e).partition(". ")[0], remove)


def _id_of(result: TrialResult, metric: str) -> str:
    """The id that a trial's spec has, computed anew."""
    s = result.spec
    return make_spec(
        s.data, s.fingerprint, s.base, s.method, s.seed, purpose=s.purpose,
        train_rows=s.train_rows, vary_split=s.vary_split, fold=s.fold, together=s.together,
        metric=metric,
    ).trial_id  # fmt: skip


def _unlike_predictions(
    result: TrialResult, predictions: Mapping[str, Predictions], label_names: list[str]
) -> Iterator[str]:
    """Scores of a result that its predictions do not give."""
    parts = {"eval": predictions.get("validation"), "test": predictions.get("test")}
    some = {name: p for name, p in parts.items() if p is not None and len(p.ids)}
    values, _ = scores_of_parts(some, tuple(label_names))
    for name in (f"{part}_{metric}" for part in some for metric in _LASTING):
        kept, made = result.scores.get(name), values.get(name)
        if kept is not None and made is not None and not math.isclose(kept, made, abs_tol=1e-9):
            yield f"result.json has {name} {kept:g}, its predictions give {made:g}"


def _labels_by_id(directory: Path) -> dict[str, int] | None:
    """Labels of the rows that the study keeps, by id; None where it keeps none."""
    out: dict[str, int] = {}
    for part in ("validation", "test"):
        try:
            rows = study_folder.read_rows(directory, part)
        except ArtifactError:
            return None  # told as a fault of its own
        if rows is None:
            return None
        out |= dict(zip(rows.ids, row_codes(rows.labels).tolist(), strict=True))
    return out


def _unlike_rows(predictions: Mapping[str, Predictions], labels: Mapping[str, int]) -> str | None:
    p = predictions.get("test")
    if p is None:
        return None
    known = np.asarray([labels.get(i, -1) for i in p.ids])
    unlike = int((known != row_codes(p.labels)).sum())
    return f"{unlike} of {len(known)} test rows are not those of rows.parquet" if unlike else None


# --- the rest ---------------------------------------------------------------------------------


def _faults_of_extras(record: StudyRecord) -> Iterator[StudyFault]:
    """What is wrong with rows.parquet, and with JSON files that can be read and are not whole."""
    checks: dict[str, Callable[[], object]] = {
        "rows.parquet": lambda: study_folder.read_rows(record.directory)
    }
    for name, read in PARSED_EXTRAS.items():
        checks[f"{name}.json"] = lambda name=name, read=read: record.parsed(name, read)  # type: ignore[misc]
    for name, check in checks.items():
        try:
            check()
        except InputError as e:
            wrong, _, remedy = str(e).removeprefix(f"{record.directory / name}: ").partition(". ")
            yield StudyFault(name, wrong, remedy, follows=name == "curves.json")


def _faults_of_outputs(record: StudyRecord) -> Iterator[StudyFault]:
    """Tables and pages that are not there, or are not what the trials give."""
    repair = f"It is made anew by: tunelab runs check {record.directory} --repair"
    if not record.results:
        return
    for name in _WRITTEN_OUT:
        file = record.directory / name
        if not file.is_file() or not file.stat().st_size:
            yield StudyFault(name, "is missing or empty", repair, follows=True)
    try:
        kept = (record.directory / "results.csv").read_bytes()
        unlike = kept != results_table.results_csv(record.results).encode()
    except (OSError, *UNREADABLE):
        unlike = True
    if unlike:
        yield StudyFault("results.csv", "is not what the trials give", repair, follows=True)


def _leftovers(directory: Path) -> Iterator[StudyFault]:
    """What a killed process left half-written."""
    for path in sorted(study_folder.leftovers(directory)):
        name = path.relative_to(directory).as_posix()
        remedy = f"It is removed by: tunelab runs check {directory} --repair"
        yield StudyFault(name, "was left by a process that was ended", remedy, follows=True)
