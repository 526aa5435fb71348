"""The files of a trial's folder: written, read back, and told from damaged ones.

`digests.json` beside them holds the SHA-256 of each. A folder with a file that is missing, cut
short or another than was written is damaged: nothing of it is believed, and its trial is one that
has not been run.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import MANIFEST, read_manifest
from tunelab.core.errors import InputError
from tunelab.core.files import json_bytes
from tunelab.core.shapes import fault
from tunelab.core.values import (
    BaseRef,
    Cost,
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
    "TRIAL_FILES",
    "TRIAL_FORMAT",
    "UNREADABLE",
    "damage",
    "read_history",
    "read_predictions",
    "read_result",
    "read_table",
    "spec_from_json",
    "spec_of",
    "trial_dir",
    "write_trial",
]


TRIAL_FORMAT = 1
DIGESTS = "digests.json"
_CONTENTS = ("spec.json", "result.json", "history.jsonl", "predictions.parquet")
TRIAL_FILES = (*_CONTENTS, DIGESTS)


def trial_dir(study: Path, trial_id: str) -> Path:
    """Where a finished trial lies."""
    return study / "trials" / trial_id


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
        together=value.get("together", False),
    )


def spec_of(artifact: Path) -> TrialSpec | None:
    """The spec of the trial that made a classifier's folder; None where it does not say, or what
    it says cannot be read: a classifier is used without.
    """
    for path in (artifact / "trial" / "spec.json", artifact.parent / "spec.json"):
        if path.is_file():
            with suppress(*UNREADABLE, OSError):
                spec = spec_from_json(json.loads(path.read_text(encoding="utf-8")))
                if fault(spec, TrialSpec) is None:
                    return spec
    return None


def write_trial(
    directory: Path,
    result: TrialResult,
    history: Sequence[Mapping[str, float]],
    predictions: Mapping[str, Predictions],
) -> None:
    """Fill a folder from `new_trial`. `predictions` by split name; `history` a row a log step."""
    body = {f.name: getattr(result, f.name) for f in fields(result) if f.name != "spec"}
    body |= {"cost": asdict(result.cost), "details": result.details.to_json()}
    body["provenance"] = result.provenance.to_json()
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in history)
    contents = {
        "spec.json": json_bytes(result.spec.to_json()),
        "result.json": json_bytes({"format": TRIAL_FORMAT, **body}),
        "history.jsonl": lines.encode(),
        "predictions.parquet": _predictions_bytes(predictions),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents[DIGESTS] = json_bytes({"format": TRIAL_FORMAT, "sha256": digests})
    for name, content in contents.items():  # plainly: the folder appears whole
        (directory / name).write_bytes(content)


class _DamagedError(Exception):
    """What is wrong with a file of a trial, after its name."""


def read_result(study: Path, trial_id: str) -> TrialResult | None:
    """Read a trial's result, or None where that trial has not been run, or is damaged (`damage`).

    Raises InputError for a trial of another version's format.
    """
    directory = trial_dir(study, trial_id)
    try:
        return _read_whole(directory) if directory.exists() else None
    except _DamagedError:
        return None


def damage(study: Path, trial_id: str) -> str | None:
    """What is wrong with a trial's folder, in a line; None where it is whole, or not there."""
    directory = trial_dir(study, trial_id)
    try:
        if directory.exists():
            _read_whole(directory)
    except _DamagedError as e:
        return f"{directory / str(e)}; this trial counts as not run"
    return None


def _read_whole(directory: Path) -> TrialResult:
    """A trial's result where every file of its folder is as it was written."""
    contents = {name: _content_of(directory, name) for name in _CONTENTS}
    known = (directory / DIGESTS).is_file()
    if known:
        _check_digests(directory, contents)
    result = _parse_result(directory, contents)
    if not known:  # of before digests: what can be read is taken
        _parse("predictions.parquet", lambda: _parse_predictions(contents["predictions.parquet"]))
        _parse("history.jsonl", lambda: _parse_history(contents["history.jsonl"]))
    _check_artifact(directory)
    return result


def _content_of(directory: Path, name: str) -> bytes:
    try:
        return (directory / name).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise _DamagedError(f"{name}: is missing") from None


def _check_digests(directory: Path, contents: Mapping[str, bytes]) -> None:
    kept = _parse(DIGESTS, lambda: json.loads(_content_of(directory, DIGESTS))["sha256"])
    if fault(kept, dict[str, str]):
        raise _DamagedError(f"{DIGESTS}: does not hold the digests of files")
    for name, content in contents.items():
        if kept.get(name) != hashlib.sha256(content).hexdigest():
            raise _DamagedError(f"{name}: is not what was written (its SHA-256 is another)")


def _parse_result(directory: Path, contents: Mapping[str, bytes]) -> TrialResult:
    body = _parse("result.json", lambda: dict(json.loads(contents["result.json"])))
    if body.pop("format", None) != TRIAL_FORMAT:
        if fault(body, dict[str, object]) or "status" not in body:
            raise _DamagedError("result.json: is no result")
        raise InputError(
            f"{directory}: written in another result format than this tunelab reads "
            f"({TRIAL_FORMAT}). Use a new output directory."
        )
    spec = _parse("spec.json", lambda: spec_from_json(json.loads(contents["spec.json"])))
    if wrong := fault(spec, TrialSpec):
        raise _DamagedError(f"spec.json: {wrong}")
    if spec.trial_id != directory.name:
        raise _DamagedError(f"spec.json: is that of another trial ({spec.trial_id})")

    def build() -> TrialResult:
        typed = {
            "cost": Cost(**body["cost"]),
            "details": Details.from_json(body["details"]),
            "provenance": Provenance.from_json(body["provenance"]),
        }
        return TrialResult(spec=spec, **{**body, **typed})

    result = _parse("result.json", build)
    if wrong := fault(result, TrialResult):
        raise _DamagedError(f"result.json: {wrong}")
    for name, numbers in (("cost", asdict(result.cost)), ("scores", result.scores)):
        measured = [v for v in numbers.values() if isinstance(v, int | float)]
        if any(abs(v) > _MOST_MEASURED for v in measured):
            raise _DamagedError(f"result.json: {name}: holds a number that no trial can have")
    return result


_MOST_MEASURED = 1e30  # no cost and no score comes near, and its square is finite


def _check_artifact(directory: Path) -> None:
    """Raise where a classifier that is there lacks files, or has empty ones; their content is
    hashed when it is loaded. One that the user has removed is not missed.
    """
    folder = directory / "artifact"
    if not folder.is_dir():
        return
    files = _parse(f"artifact/{MANIFEST}", lambda: read_manifest(folder).manifest["files"])
    for name, digest in files.items():
        file = folder / name
        if not file.is_file() or (not file.stat().st_size and digest != _EMPTY):
            raise _DamagedError(f"artifact/{name}: is missing or empty")


_EMPTY = hashlib.sha256().hexdigest()
T = TypeVar("T")


# What readers of JSON, YAML and Parquet, and what takes values out of these, raise at what any
# bytes may hold; pyarrow an OSError besides.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


def _parse(name: str, read: Callable[[], T]) -> T:
    """What reading a file's content gives, or what is wrong with it."""
    try:
        return read()
    except _DamagedError:
        raise
    except (*UNREADABLE, OSError) as e:
        said = " ".join(str(e).split())[:120]
        raise _DamagedError(f"{name}: cannot be read ({said or type(e).__name__})") from e


def read_history(study: Path, trial_id: str) -> list[dict[str, float]]:
    """Read the loss, learning-rate and evaluation history of a trial, in order."""
    return _parse_history((trial_dir(study, trial_id) / "history.jsonl").read_bytes())


def _parse_history(content: bytes) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in content.decode("utf-8").splitlines()]
    if wrong := fault(rows, list[dict[str, float | None]]):
        raise ValueError(wrong)
    return rows


def _predictions_bytes(predictions: Mapping[str, Predictions]) -> bytes:
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
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"tunelab": json.dumps(about)}), out)
    return out.getvalue()


def read_table(content: bytes) -> Any:
    """A Parquet file's bytes as pyarrow's table.

    Of bytes, because a path opened by pyarrow would stay mapped while the study is rewritten; and
    in this thread, because one of pyarrow's that still holds a Python object when Python ends takes
    the process down with it (apache/arrow issue 34314).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pa.BufferReader(content)
    with pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=True) as file:
        return file.read(use_threads=False)


def read_predictions(study: Path, trial_id: str) -> dict[str, Predictions]:
    """Read a trial's predictions by split name (a failed trial has none)."""
    return _parse_predictions((trial_dir(study, trial_id) / "predictions.parquet").read_bytes())


def _column_values(column: Any) -> NDArray[Any]:
    """A column of pyarrow's as numpy's array; its own way to that would import pandas."""
    whole = column.combine_chunks()
    return np.asarray(whole.to_pylist()) if whole.null_count else np.from_dlpack(whole)


def _parse_predictions(content: bytes) -> dict[str, Predictions]:
    table = read_table(content)
    about = json.loads((table.schema.metadata or {}).get(b"tunelab", b"{}"))
    names = [n for n in table.column_names if n.startswith("score_")]
    split = np.asarray(table["split"].to_pylist(), dtype=object)
    ids = table["id"].to_pylist()
    labels = _column_values(table["label"]).astype(np.int64)
    scores = np.column_stack([_column_values(table[n]) for n in names]).astype(np.float64)
    out = {}
    for name, facts in about.items():
        rows = np.flatnonzero(split == name)
        out[name] = Predictions(
            ids=tuple(ids[i] for i in rows),
            labels=labels[rows],
            scores=scores[rows],
            score_kind=facts["score_kind"],
            seconds=facts["seconds"],
        )
    return out
