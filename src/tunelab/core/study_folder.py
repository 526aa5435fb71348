"""The only file that knows run folders: atomic, versioned, with provenance.

A study folder (a contract that others read):

    study.yaml          the resolved study, and where each value came from
    data.json           the data card: sizes, labels, duplicates, what was decided
    gate.json           what the data gate found: duplicates, leaks, label errors, ...
    lengths.json        how many texts limits in tokens cut; behaviour.json: cases of its tests
    rows.parquet        the validation and test rows: part, id, label, text, further columns
    results.csv         one row a trial; comparison.json: table and verdicts
    tuning.json         the settings each method tried, their validation scores, what was chosen
    race.json           rounds of a race: who was dropped, when and why, what was saved
    curves.json         scores by number of training rows; final.json: trainings on all rows
    report.html
    trials/<id>/        spec.json result.json history.jsonl predictions.parquet artifact/

A trial folder appears whole or not at all: it is written beside its place and renamed.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.cards import DataCard, StudySettings
from tunelab.core.errors import ArtifactError, InputError
from tunelab.core.files import (
    SET_ASIDE,
    replacing_folder,
    write_bytes,
    write_json,
    write_text,
)
from tunelab.core.values import (
    BaseRef,
    Cost,
    Dataset,
    DataSpec,
    Details,
    Fold,
    MethodSpec,
    Predictions,
    Provenance,
    TrialResult,
    TrialSpec,
)

__all__ = [
    "EXTRAS",
    "TEST_ON",
    "TRIAL_FILES",
    "StudyRows",
    "StudyRecord",
    "artifact_dir",
    "find_studies",
    "is_study",
    "new_trial",
    "read_extra",
    "read_history",
    "read_predictions",
    "read_result",
    "read_rows",
    "read_study",
    "remove_extra",
    "results_rows",
    "spec_from_json",
    "spec_of",
    "sweep",
    "trial_dir",
    "update_study",
    "write_extra",
    "write_results_csv",
    "write_rows",
    "write_trial",
]


TRIAL_FORMAT = 1
TEST_ON = "test_on:"  # before the name of other data, in a trial's predictions
TRIAL_FILES = ("spec.json", "result.json", "history.jsonl", "predictions.parquet")


def _read_json_file(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# --- trials ---------------------------------------------------------------------------------


def trial_dir(study: Path, trial_id: str) -> Path:
    """Where a finished trial lies."""
    return study / "trials" / trial_id


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


def sweep(study: Path, trial_id: str | None = None) -> None:
    """Remove what a killed trial left half-written; of all trials, only while none runs.

    One that was put aside, and whose place was not taken any more, gets it back.
    """
    for leftover in (study / "trials").glob(f".{trial_id}.*" if trial_id else ".*"):
        if not leftover.is_dir():
            continue
        place = trial_dir(study, leftover.name.removeprefix(".").removesuffix(SET_ASIDE))
        if leftover.name.endswith(SET_ASIDE) and not place.exists():
            leftover.replace(place)
        else:
            shutil.rmtree(leftover, ignore_errors=True)


def spec_from_json(value: Mapping[str, Any]) -> TrialSpec:
    """Read a TrialSpec back from what `dataclasses.asdict` made of it."""
    return TrialSpec(
        data=DataSpec(**value["data"]),
        fingerprint=value["fingerprint"],
        base=BaseRef(**value["base"]) if value["base"] else None,
        method=MethodSpec(**value["method"]),
        seed=value["seed"],
        trial_id=value["trial_id"],
        purpose=value["purpose"],
        train_rows=value["train_rows"],
        vary_split=value["vary_split"],
        test_on=tuple(DataSpec(**d) for d in value["test_on"]),
        stop_below=value["stop_below"],
        fold=Fold(**value["fold"]) if value.get("fold") else None,
    )


def spec_of(artifact: Path) -> TrialSpec | None:
    """The spec of the trial that made a classifier's folder; None where it does not say."""
    for path in (artifact / "trial" / "spec.json", artifact.parent / "spec.json"):
        if path.is_file():
            return spec_from_json(_read_json_file(path))
    return None


def write_trial(
    directory: Path,
    result: TrialResult,
    history: Sequence[Mapping[str, float]],
    predictions: Mapping[str, Predictions],
) -> None:
    """Fill a folder from `new_trial`. `predictions` by split name; `history` a row a log step."""
    spec = {k: v for k, v in asdict(result.spec).items() if k != "fold" or v is not None}
    write_json(directory / "spec.json", spec)
    body = {f.name: getattr(result, f.name) for f in fields(result) if f.name != "spec"}
    body |= {"cost": asdict(result.cost), "details": result.details.to_json()}
    body["provenance"] = result.provenance.to_json()
    write_json(directory / "result.json", {"format": TRIAL_FORMAT, **body})
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in history)
    write_text(directory / "history.jsonl", lines)
    _write_predictions(directory / "predictions.parquet", predictions)


def read_result(study: Path, trial_id: str) -> TrialResult | None:
    """Read a trial's result, or None where that trial has not been run."""
    directory = trial_dir(study, trial_id)
    if not (directory / "result.json").exists():
        return None
    body = _read_json_file(directory / "result.json")
    other = "Use a new output directory."
    if body.pop("format") != TRIAL_FORMAT:
        raise InputError(
            f"{directory}: written in another result format than this tunelab reads "
            f"({TRIAL_FORMAT}). {other}"
        )
    try:
        body["cost"] = Cost(**body["cost"])
        body["details"] = Details.from_json(body["details"])
        body["provenance"] = Provenance.from_json(body["provenance"])
        return TrialResult(spec=spec_from_json(_read_json_file(directory / "spec.json")), **body)
    except (KeyError, TypeError) as e:
        raise InputError(f"{directory}: not a trial as tunelab writes it ({e}). {other}") from e


def read_history(study: Path, trial_id: str) -> list[dict[str, float]]:
    """Read the loss, learning-rate and evaluation history of a trial, in order."""
    text = (trial_dir(study, trial_id) / "history.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _write_predictions(path: Path, predictions: Mapping[str, Predictions]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    about = {}
    for split, p in predictions.items():
        columns: dict[str, object] = {
            "split": [split] * len(p.ids),
            "id": list(p.ids),
            "label": p.labels,
            "predicted": p.predicted,
        }
        for k in range(p.scores.shape[1]):
            columns[f"score_{k}"] = p.scores[:, k]
        tables.append(pa.table(columns))
        about[split] = {"score_kind": p.score_kind, "seconds": p.seconds}
    empty = {"split": pa.string(), "id": pa.string(), "label": pa.int64(), "predicted": pa.int64()}
    table = pa.concat_tables(tables) if tables else pa.schema(empty).empty_table()
    pq.write_table(table.replace_schema_metadata({"tunelab": json.dumps(about)}), path)


def _read_table(path: Path) -> Any:
    """A Parquet file as pyarrow's table.

    From its bytes, because a path opened by pyarrow would stay mapped while the study is rewritten;
    and in this thread, because one of pyarrow's that still holds a Python object when Python ends
    takes the process down with it (apache/arrow issue 34314).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(pa.BufferReader(path.read_bytes()), pre_buffer=False) as file:
        return file.read(use_threads=False)


def read_predictions(study: Path, trial_id: str) -> dict[str, Predictions]:
    """Read a trial's predictions by split name (a failed trial has none)."""
    table = _read_table(trial_dir(study, trial_id) / "predictions.parquet")
    about = json.loads((table.schema.metadata or {}).get(b"tunelab", b"{}"))
    names = [n for n in table.column_names if n.startswith("score_")]
    split = np.asarray(table["split"].to_pylist(), dtype=object)
    out = {}
    for name, facts in about.items():
        rows = np.flatnonzero(split == name)
        part = table.take(rows)
        out[name] = Predictions(
            ids=tuple(part["id"].to_pylist()),
            labels=part["label"].to_numpy().astype(np.int64),
            scores=np.column_stack([part[n].to_numpy() for n in names]).astype(np.float64),
            score_kind=facts["score_kind"],
            seconds=facts["seconds"],
        )
    return out


# --- the data of a study --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class StudyRows:
    """The rows of one part (n) in order: `ids`, `texts`, `labels` (n, int64), further `columns`."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    columns: Mapping[str, tuple[Any, ...]]


def write_rows(study: Path, dataset: Dataset) -> None:
    """Keep the validation and test rows (rows.parquet), so that predictions can be looked into."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    splits = [dataset.parts[part] for part in ("validation", "test")]
    columns: dict[str, object] = {
        "part": ["validation"] * len(splits[0]) + ["test"] * len(splits[1]),
        "id": [i for s in splits for i in s.ids],
        "label": np.concatenate([s.labels for s in splits]),
        "text": [t for s in splits for t in s.texts],
    }
    for name in dict.fromkeys(c for s in splits for c in s.columns):
        values = [v for s in splits for v in s.columns.get(name, (None,) * len(s))]
        columns[f"column:{name}"] = _one_type(values)
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    write_bytes(study / "rows.parquet", out.getvalue())


def _one_type(values: Sequence[Any]) -> list[Any]:
    """Values of one type, as a Parquet column takes them: a mixture becomes strings."""
    kinds = {type(v) for v in values if v is not None}
    if len(kinds) <= 1 and kinds <= {str, bool, float}:
        return list(values)
    if kinds == {int} and all(abs(v) < 2**53 for v in values if v is not None):
        return list(values)
    if kinds == {int, float}:
        return [None if v is None else float(v) for v in values]
    return [None if v is None else str(v) for v in values]


def read_rows(study: Path, part: str = "test") -> StudyRows | None:
    """Read the rows of "validation" or "test"; None where the study was written without them."""
    path = study / "rows.parquet"
    if not path.is_file():
        return None
    table = _read_table(path)
    table = table.take(np.flatnonzero(table["part"].to_numpy() == part))
    return StudyRows(
        ids=tuple(table["id"].to_pylist()),
        texts=tuple(table["text"].to_pylist()),
        labels=table["label"].to_numpy().astype(np.int64),
        columns={
            name.removeprefix("column:"): tuple(table[name].to_pylist())
            for name in table.column_names
            if name.startswith("column:") and table[name].null_count < len(table)
        },
    )


# --- studies --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as it lies on disk. `results` in the order of the study's trials, those that exist.

    `settings` is study.yaml as a plain dict; `data` the data card; `missing` the ids of trials
    that have not been run. `results` are what the table compares: trials on all training rows.
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

    def history(self, trial_id: str) -> list[dict[str, float]]:
        """Loss, learning-rate and evaluation history of a trial."""
        return read_history(self.directory, trial_id)

    def predictions(self, trial_id: str) -> dict[str, Predictions]:
        """Predictions of a trial by name: "validation", "test" and "test_on:<name>" for others."""
        return read_predictions(self.directory, trial_id)


def is_study(directory: Path) -> bool:
    """Whether a folder holds a study."""
    return (directory / "study.yaml").is_file() and (directory / "trials").is_dir()


def find_studies(root: Path) -> list[Path]:
    """Study folders below `root`, two levels down at most, by name."""
    files = (p for pattern in ("*/study.yaml", "*/*/study.yaml") for p in root.glob(pattern))
    return sorted({p.parent for p in files if is_study(p.parent)})


def read_study(directory: Path) -> StudyRecord:
    """Read a study folder. Raises ArtifactError where it is not one."""
    import yaml

    if not is_study(directory):
        there = "there is no such folder" if not directory.exists() else "it has no study.yaml"
        raise ArtifactError(
            f"{directory} is not a study: {there}. Expected a folder written by `tunelab compare`; "
            "`tunelab runs list` shows those that exist."
        )
    settings: StudySettings = yaml.safe_load((directory / "study.yaml").read_text(encoding="utf-8"))
    data: DataCard = _read_json_file(directory / "data.json")
    _check_keys(directory / "study.yaml", settings, StudySettings)
    _check_keys(directory / "data.json", data, DataCard)
    trials = [read_result(directory, i) for i in settings["trials"]]
    curve = [read_result(directory, i) for i in settings["curve"]]
    ids = (*settings["trials"], *settings["curve"])
    return StudyRecord(
        directory=directory,
        settings=settings,
        data=data,
        results=tuple(r for r in trials if r is not None),
        missing=tuple(i for i, r in zip(ids, (*trials, *curve), strict=True) if r is None),
        curve=tuple(r for r in curve if r is not None),
        **{name: read_extra(directory, name) for name in EXTRAS},
    )


def _check_keys(path: Path, content: object, kind: type[StudySettings | DataCard]) -> None:
    """Raise ArtifactError where a study's file is not whole; what came later may be missing."""
    there = content if isinstance(content, dict) else {}
    lacks = [key for key in kind.__annotations__ if key not in (*there, "folds", "id_column")]
    if lacks:
        raise ArtifactError(
            f"{path}: expected all that a study is written with, found none of {', '.join(lacks)}. "
            "Write it anew: run `tunelab compare` with the same settings into this folder."
        )


# What a study may hold beside its trials, each a JSON file of that name.
EXTRAS = ("tuning", "race", "curves", "gate", "lengths", "behaviour", "looks", "final")


def write_extra(directory: Path, name: str, value: Mapping[str, object]) -> None:
    """Write tuning.json, race.json, curves.json or another of `EXTRAS`."""
    write_json(directory / f"{name}.json", {"format": TRIAL_FORMAT, **value})


def remove_extra(directory: Path, name: str) -> None:
    """Remove such a file where there is one."""
    (directory / f"{name}.json").unlink(missing_ok=True)


def read_extra(directory: Path, name: str) -> dict[str, object] | None:
    """Read tuning.json, race.json, curves.json, ...; None where there is none."""
    path = directory / f"{name}.json"
    return dict(_read_json_file(path)) if path.is_file() else None


def update_study(directory: Path, **values: object) -> None:
    """Replace top-level keys of study.yaml, such as the ids of its trials; the rest stays."""
    import yaml

    path = directory / "study.yaml"
    text = path.read_text(encoding="utf-8")
    head = "".join(line for line in text.splitlines(keepends=True)[:1] if line.startswith("#"))
    content = {**yaml.safe_load(text), **values}
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    write_text(path, head + body)


def results_rows(results: Sequence[TrialResult]) -> list[dict[str, object]]:
    """One flat row a trial, every row with the same keys, as in results.csv."""
    setting_names = list(dict.fromkeys(k for r in results for k in r.spec.method.settings))
    score_names = sorted({k for r in results for k in r.scores})
    rows = []
    for r in results:
        settings = r.spec.method.settings
        row: dict[str, object] = {
            "trial_id": r.spec.trial_id,
            "method": r.spec.method.name,
            "label": r.spec.method.label,
            "base": r.spec.base.name if r.spec.base else None,
            **{k: _csv_cell(settings.get(k)) for k in setting_names},
            "seed": r.spec.seed,
            **({f"fold_{k}": v for k, v in asdict(r.spec.fold).items()} if r.spec.fold else {}),
            "train_rows": r.spec.train_rows,
            "status": r.status,
            **{k: r.scores.get(k) for k in score_names},
            **{f.name: getattr(r.cost, f.name) for f in fields(Cost)},
            "error": r.error,
        }
        rows.append(row)
    return rows


def _csv_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict | tuple) else value


def write_results_csv(path: Path, results: Sequence[TrialResult]) -> None:
    """Write results.csv: a header and one row a trial. Missing values are empty cells."""
    rows = results_rows(results)
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else ["trial_id"])
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, out.getvalue())
