"""The only file that knows run folders: atomic, versioned, with provenance.

A study folder (a contract that others read):

    study.yaml          the resolved study, and where each value came from
    data.json           the data card: sizes, labels, duplicates, what was decided. Like the JSON
                        files below it holds the SHA-256 of its own content
    gate.json           what the data gate found: duplicates, leaks, label errors, ...
    lengths.json        how many texts limits in tokens cut; behaviour.json: cases of its tests
    given_rows/         rows that were given in Python: what data.source names
    rows.parquet        the validation and test rows: part, id, label, text, further columns
    results.csv         one row a trial; comparison.json: table and verdicts
    tuning.json         the settings each method tried, their validation scores, what was chosen
    race.json           rounds of a race: who was dropped, when and why, what was saved
    curves.json         scores by number of training rows; final.json: trainings on all rows
    exports.json        the best classifier in other forms: figures; exports/<form>/: what holds
    report.html
    checkpoints/<id>/   trainings in progress (`checkpoints`), until they end
    run.jsonl           what was said while it ran last (`run_log`)
    trials/<id>/        spec.json result.json history.jsonl predictions.parquet digests.json
                        artifact/ (`trial_files`)

A trial folder appears whole or not at all: it is written beside its place and renamed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tunelab.core.cards import DataCard, StudySettings
from tunelab.core.checkpoints import CHECKPOINTS
from tunelab.core.errors import ArtifactError
from tunelab.core.files import (
    HOLDER,
    SET_ASIDE,
    json_bytes,
    replacing_folder,
    write_bytes,
    write_text,
)
from tunelab.core.run_log import RUN_LOG
from tunelab.core.shapes import fault, fault_within
from tunelab.core.study_rows import StudyRows, read_rows, write_rows
from tunelab.core.tasks import TaskName
from tunelab.core.trial_files import (
    TRIAL_FILES,
    TRIAL_FORMAT,
    UNREADABLE,
    damage,
    read_history,
    read_predictions,
    read_result,
    spec_from_json,
    spec_of,
    trial_dir,
    write_trial,
)
from tunelab.core.values import Predictions, TrialResult

__all__ = [
    "EXPORTS",
    "EXTRAS",
    "GIVEN_ROWS",
    "TEST_ON",
    "TRIAL_FILES",
    "StudyRows",
    "StudyRecord",
    "artifact_dir",
    "damaged_trials",
    "find_studies",
    "is_study",
    "may_hold_study",
    "known_extra",
    "leftovers",
    "lying_there",
    "new_trial",
    "parse_extra",
    "read_extra",
    "read_history",
    "read_predictions",
    "read_result",
    "read_rows",
    "read_study",
    "remove_extra",
    "spec_from_json",
    "spec_of",
    "sweep",
    "trial_dir",
    "update_study",
    "write_card",
    "write_extra",
    "write_rows",
    "write_trial",
]


T = TypeVar("T")
TEST_ON = "test_on:"  # before the name of other data, in a trial's predictions


# --- trials ---------------------------------------------------------------------------------


def artifact_dir(study: Path, trial_id: str) -> Path:
    """Where a finished trial's deployable classifier lies."""
    return trial_dir(study, trial_id) / "artifact"


@contextmanager
def new_trial(study: Path, trial_id: str) -> Iterator[Path]:
    """Give an empty folder to fill; on success it becomes the trial's, on any error it is removed.

    A trial of the same id that was there before is replaced. It is put aside until the new one has
    its place, so that whenever the process is killed, `sweep` leaves the one or the other whole.
    """
    place = trial_dir(study, trial_id)
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(place) as folder:
        yield folder


def leftovers(study: Path, trial_id: str | None = None) -> Iterator[Path]:
    """What a killed run left half-written: files of the study, folders of trials (of one)."""
    if trial_id is None:
        for draft in study.glob(".*"):
            if draft.name[1:].rpartition(".")[0] in _WRITTEN and draft.is_file():
                yield draft
    for folder in (study / "trials").glob(f".{trial_id}.*" if trial_id else ".*"):
        if folder.is_dir():
            yield folder


def sweep(study: Path, trial_id: str | None = None) -> None:
    """Remove what a killed run left half-written; of all trials, only while none runs.

    A trial that was put aside, and whose place was not taken any more, gets it back.
    """
    for leftover in leftovers(study, trial_id):
        if leftover.is_file():
            leftover.unlink()
            continue
        place = trial_dir(study, leftover.name.removeprefix(".").removesuffix(SET_ASIDE))
        if leftover.name.endswith(SET_ASIDE) and not place.exists():
            leftover.replace(place)
        else:
            shutil.rmtree(leftover, ignore_errors=True)


# --- studies --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as it lies on disk. `results` in the order of the study's trials, those that exist.

    `settings` is study.yaml as a plain dict; `data` the data card; `missing` the ids of trials
    that have not been run, or are not whole any more: of these, `damaged` says what is wrong, a
    line each. `results` are what the table compares: trials on all training rows.
    `curve` holds those on fewer (`spec.train_rows`). Tries of settings are in neither; `tuning`,
    `race` and the others below are tuning.json, race.json, .., None where the study has none.
    """

    directory: Path
    settings: StudySettings
    data: DataCard
    results: tuple[TrialResult, ...]
    missing: tuple[str, ...]
    curve: tuple[TrialResult, ...] = ()
    tuning: Mapping[str, object] | None = None
    race: Mapping[str, object] | None = None
    curves: Mapping[str, object] | None = None
    gate: Mapping[str, object] | None = None
    lengths: Mapping[str, object] | None = None
    behaviour: Mapping[str, object] | None = None
    looks: Mapping[str, object] | None = None
    final: Mapping[str, object] | None = None
    exports: Mapping[str, object] | None = None
    before: Mapping[str, object] | None = None
    words: Mapping[str, object] | None = None
    damaged: tuple[str, ...] = ()

    @property
    def task(self) -> TaskName:
        """What is predicted of a text; studies of before predict classes and do not say so."""
        return self.data.get("task", "classes")

    @property
    def done(self) -> tuple[TrialResult, ...]:
        """The trials that ended well."""
        return tuple(r for r in self.results if r.status == "done")

    @property
    def failed(self) -> tuple[TrialResult, ...]:
        """The trials that failed; each keeps its error."""
        return tuple(r for r in self.results if r.status == "failed")

    @property
    def methods(self) -> tuple[str, ...]:
        """Labels of the methods, in the study's order."""
        return tuple(dict.fromkeys(r.spec.method.label for r in self.results))

    def parsed(self, name: str, read: Callable[[Any], T]) -> T | None:
        """What tuning.json, race.json, .. holds, as `read` reads it; None where there is none.

        Raises ArtifactError naming the file where it cannot be read so.
        """
        stored: Mapping[str, object] | None = getattr(self, name)
        return None if stored is None else parse_extra(self.directory, name, stored, read)

    def history(self, trial_id: str) -> list[dict[str, float]]:
        """Loss, learning-rate and evaluation history of a trial."""
        return read_history(self.directory, trial_id)

    def predictions(self, trial_id: str) -> dict[str, Predictions]:
        """Predictions of a trial by name: "validation", "test" and "test_on:<name>" for others."""
        return read_predictions(self.directory, trial_id)


def is_study(directory: Path) -> bool:
    """Whether a folder holds a study."""
    return (directory / "study.yaml").is_file() and (directory / "trials").is_dir()


def may_hold_study(directory: Path) -> bool:
    """Whether a study may be written into a folder: nothing is in it but what a study has.

    So also where the first write of a study failed, or where one lost its study.yaml.
    """
    return all(
        path.name in _WRITTEN or path.name[1:].rpartition(".")[0] in _WRITTEN
        for path in directory.iterdir()
    )


def find_studies(root: Path) -> list[Path]:
    """Study folders below `root`, two levels down at most, by name."""
    files = (p for pattern in ("*/study.yaml", "*/*/study.yaml") for p in root.glob(pattern))
    return sorted({p.parent for p in files if is_study(p.parent)})


def read_study(directory: Path) -> StudyRecord:
    """Read a study folder. Raises ArtifactError where it is not one."""
    if not is_study(directory):
        there = "there is no such folder" if not directory.exists() else "it has no study.yaml"
        raise ArtifactError(
            f"{directory} is not a study: {there}. Expected a folder written by `tunelab compare`; "
            "`tunelab runs list` shows those that exist."
        )
    settings: StudySettings = _read_required(directory / "study.yaml", _parse_yaml, StudySettings)
    data: DataCard = _read_required(directory / "data.json", _parse_sealed, DataCard)
    ids = (*settings["trials"], *settings["curve"])
    for i in ids:
        if Path(i).name != i or i.startswith("."):
            raise ArtifactError(f"{directory / 'study.yaml'}: {i!r} is no trial's id. {_ANEW}")
    labels = settings.get("labels", {})
    trials = [_result_as(directory, i, labels.get(i)) for i in settings["trials"]]
    curve = [_result_as(directory, i, labels.get(i)) for i in settings["curve"]]
    missing = tuple(i for i, r in zip(ids, (*trials, *curve), strict=True) if r is None)
    return StudyRecord(
        directory=directory,
        settings=settings,
        data=data,
        results=tuple(r for r in trials if r is not None),
        missing=missing,
        damaged=damaged_trials(directory, missing),
        curve=tuple(r for r in curve if r is not None),
        **{name: read_extra(directory, name) for name in EXTRAS},
    )


def lying_there(directory: Path) -> tuple[Any, Any] | None:
    """What study.yaml and data.json of a folder hold, unchecked, for whoever is about to write a
    study there; None where there is no study, or it is half-written, and so written anew.
    """
    import yaml

    if not is_study(directory):
        return None
    try:
        settings = _parse_yaml((directory / "study.yaml").read_text(encoding="utf-8"))
        return settings, _parse_sealed((directory / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _result_as(directory: Path, trial_id: str, label: str | None) -> TrialResult | None:
    result = read_result(directory, trial_id)
    return result if result is None or label is None else result.called(label)


def damaged_trials(directory: Path, missing: Iterable[str]) -> tuple[str, ...]:
    """What is wrong with those of a study's trials that are there and not whole, a line each."""
    said = (damage(directory, i) for i in missing)
    return tuple(line for line in said if line is not None)


_ANEW = "Write it anew: run `tunelab compare` with the same settings into this folder."


def _read_required(path: Path, parse: Callable[[str], Any], kind: Any) -> Any:
    """A file that every study has. Raises ArtifactError where it is not as it was written."""
    value = _read_as(path, parse, _ANEW)
    if wrong := fault(value, kind):
        raise ArtifactError(f"{path}: {wrong}. {_ANEW}")
    return value


def _read_as(path: Path, parse: Callable[[str], Any], what_to_do: str) -> Any:
    import yaml

    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: there is no such file. {what_to_do}") from None
    except (*UNREADABLE, yaml.YAMLError) as e:
        said = " ".join(str(e).split())[:120] or type(e).__name__
        raise ArtifactError(f"{path}: cannot be read ({said}). {what_to_do}") from None


def _parse_yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


# What a study may hold beside its trials, each a JSON file of that name.
EXTRAS = (
    *("tuning", "race", "curves", "gate", "lengths", "behaviour", "looks", "final", "exports"),
    *("before", "words"),
)
# The folder of rows that were given in Python: trials and later runs read them there.
GIVEN_ROWS = "given_rows"
EXPORTS = "exports"  # the folder of what exports.json tells of
_WRITTEN = frozenset(
    {"study.yaml", "data.json", "rows.parquet", "results.csv", "comparison.json", "report.html"}
    | {"review.html"}
    | {"trials", "tracking", CHECKPOINTS, GIVEN_ROWS, EXPORTS, HOLDER, RUN_LOG}
    | {f"{name}.json" for name in EXTRAS}
)


def write_extra(directory: Path, name: str, value: Mapping[str, object]) -> None:
    """Write tuning.json, race.json, curves.json or another of `EXTRAS`."""
    write_bytes(directory / f"{name}.json", _sealed({"format": TRIAL_FORMAT, **value}))


def write_card(directory: Path, card: DataCard) -> None:
    """Write data.json."""
    write_bytes(directory / "data.json", _sealed(card))


_SEAL = "sha256"


def _sealed(value: Mapping[str, object]) -> bytes:
    """JSON whose last key holds the SHA-256 of the JSON of the rest: one file, written at once."""
    return json_bytes({**value, _SEAL: hashlib.sha256(json_bytes(value)).hexdigest()})


def _parse_sealed(text: str) -> Any:
    """What `write_card` or `write_extra` wrote; of an older tunelab, which wrote no digest, what is
    there. Raises ValueError where it is not what was written.
    """
    value = json.loads(text)
    if not isinstance(value, dict) or not value:
        return value
    last = next(reversed(value))
    # With one character of its name damaged it is no other key.
    if len(last) == len(_SEAL) and sum(a != b for a, b in zip(last, _SEAL, strict=True)) <= 1:
        digest = value.pop(last)
        if last != _SEAL or digest != hashlib.sha256(json_bytes(value)).hexdigest():
            raise ValueError("it is not what was written: its SHA-256 is another")
    return value


def remove_extra(directory: Path, name: str) -> None:
    """Remove such a file where there is one."""
    (directory / f"{name}.json").unlink(missing_ok=True)


def read_extra(directory: Path, name: str) -> dict[str, object] | None:
    """Read tuning.json, race.json, curves.json, ...; None where there is none.

    Raises ArtifactError where it is not what `write_extra` wrote.
    """
    path = directory / f"{name}.json"
    if not path.is_file():
        return None
    value = _read_as(path, _parse_sealed, _if_damaged(name))
    if wrong := fault(value, dict[str, object]):
        raise ArtifactError(f"{path}: {wrong}. {_if_damaged(name)}")
    return dict(value)


def _if_damaged(name: str) -> str:
    if name == "looks":  # nothing but this file knows how often
        return (
            "It says how often the study was looked at: restore it. Without it (removed), levels "
            "are those of a first look."
        )
    return "`tunelab compare` with this study's study.yaml makes it anew."


def parse_extra(
    directory: Path, name: str, stored: Mapping[str, object], read: Callable[[Any], T]
) -> T:
    """What `read` makes of such a file's content.

    Raises ArtifactError naming the file where it lacks something, or holds something else.
    """
    try:
        value = read(stored)
        wrong = fault_within(value)
    except UNREADABLE as e:
        wrong = f"{type(e).__name__}: {' '.join(str(e).split())[:120]}"
    if wrong is not None:
        path = directory / f"{name}.json"
        raise ArtifactError(f"{path}: is not whole ({wrong}). {_if_damaged(name)}") from None
    return value


def known_extra(directory: Path, name: str, read: Callable[[Any], T]) -> T | None:
    """The same of what a run makes anew: None where there is none, or it is damaged."""
    try:
        stored = read_extra(directory, name)
        return None if stored is None else parse_extra(directory, name, stored, read)
    except ArtifactError:
        return None


def update_study(directory: Path, **values: object) -> None:
    """Replace top-level keys of study.yaml, such as the ids of its trials; the rest stays."""
    import yaml

    path = directory / "study.yaml"
    text = path.read_text(encoding="utf-8")
    head = "".join(line for line in text.splitlines(keepends=True)[:1] if line.startswith("#"))
    content = {**yaml.safe_load(text), **values}
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    write_text(path, head + body)
