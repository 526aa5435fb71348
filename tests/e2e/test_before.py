"""Studies and artifacts written before the rebuild are read as they were, number by number.

`tests/fixtures/before` was written by `fixtures/make_before.py`; `expected.json` is what this
file, run as a script in that folder, printed at the time. Only what users have is called here: the
command line, and the names of `import tunelab`.
"""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunelab
from commands import run_here

BEFORE = Path(__file__).resolve().parents[1] / "fixtures" / "before"
ANSWERS = {
    "compared": ("runs", "show", "compared"),
    "raced": ("runs", "show", "raced"),
    "recommended": ("recommend", "compared"),
    "recommended by size": ("recommend", "compared", "--margin", "8", "--cost", "artifact_bytes"),
    "recommended after a race": ("recommend", "raced"),
    "sensitivity": ("sensitivity", "compared"),
    "slices": ("slices", "compared"),
    "calibration": ("calibration", "compared"),
    "behaviour": ("behaviour", "compared"),
    "ranks": ("rank", "compared", "raced"),
    "adapter": ("adapters", "show", "adapter"),
    "gate": ("inspect", "data", "reviews.csv"),
}
"""Commands that answer with JSON."""

SPOKEN = {
    "compared": ("runs", "show", "compared"),
    "recommended": ("recommend", "compared"),
    "artifacts": ("adapters", "list"),
    "svm": ("predict", "svm", "a lovely warm film", "the plot is dull"),
    "adapter": (
        "predict",
        "adapter",
        "--raw",  # probabilities were raw then
        "--precision",
        "float32",
        "a lovely warm film",
        "the plot is dull",
    ),
}
"""Commands that answer with text."""

FOLDERS = ("svm", "adapter", "compared", "raced")
_STEADY = ("seconds",)  # keys whose values are measured anew at every call


def answer(*args: str) -> Any:
    said = run_here(*args, "--json")
    assert said.code == 0, said.err
    return _without_measured(json.loads(said.out))


def speak(*args: str) -> list[str]:
    said = run_here(*args)
    assert said.code == 0, said.err
    return [line.rstrip() for line in said.out.splitlines()]


def _without_measured(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_measured(v) for k, v in value.items() if k not in _STEADY}
    return [_without_measured(v) for v in value] if isinstance(value, list) else value


def texts() -> list[str]:
    """Twenty texts that no trial was trained on."""
    lines = Path("others.csv").read_text(encoding="utf-8").splitlines()[1:21]
    return [line.partition(",")[0] for line in lines]


def probabilities(folder: str) -> list[list[float]]:
    classifier = tunelab.load(folder).raw().computing_in("float32")
    given: list[list[float]] = classifier.predict_proba(texts()).tolist()
    return given


def study_values(folder: str) -> dict[str, Any]:
    study = tunelab.Study(folder)
    rows = study.predictions()
    return {
        "repr": repr(study),
        "sentences": list(study.sentences()),
        "table": json.loads(
            study.table(all_columns=True).to_json(orient="split", double_precision=15)
        ),
        "trials": study.trials().select_dtypes("number").sum().to_dict(),
        "history": study.history().select_dtypes("number").sum().to_dict(),
        "right": int((rows["truth"] == rows["predicted"]).sum()),
        "best": study.best().directory.as_posix(),
        "advice": study.recommend(margin=0.05).sentence,
    }


def report_words(folder: str) -> list[str]:
    """What a reader of the report is told: its lines without markup, charts and scripts."""
    speak("report", folder)
    page = Path(folder, "report.html").read_text(encoding="utf-8")
    page = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    lines = html.unescape(re.sub(r"<[^>]*>", "\n", page)).splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


def observe() -> dict[str, Any]:
    """All that is held, of the studies and artifacts in the working directory."""
    return {
        "answers": {name: answer(*args) for name, args in ANSWERS.items()},
        "spoken": {name: speak(*args) for name, args in SPOKEN.items()},
        "studies": {name: study_values(name) for name in ("compared", "raced")},
        "reports": {name: report_words(name) for name in ("compared", "raced")},
        "probabilities": {name: probabilities(name) for name in FOLDERS},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of what was written before, as the working directory."""
    place = tmp_path_factory.mktemp("before") / "here"
    shutil.copytree(BEFORE, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((BEFORE / "expected.json").read_text(encoding="utf-8"))
    return content


def differences(now: Any, then: Any, tolerance: float = 1e-12, where: str = "") -> list[str]:
    """Where two JSON values differ; numbers may by `tolerance`, relative where they are large."""
    if isinstance(now, dict) and isinstance(then, dict):
        keys = {**now, **then}
        absent = [f"{where}.{k}: only on one side" for k in keys if (k in now) != (k in then)]
        both = [k for k in keys if k in now and k in then]
        inside = [differences(now[k], then[k], tolerance, f"{where}.{k}") for k in both]
        return absent + [fault for faults in inside for fault in faults]
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        inside = [
            differences(a, b, tolerance, f"{where}[{i}]")
            for i, (a, b) in enumerate(zip(now, then, strict=True))
        ]
        return [fault for faults in inside for fault in faults]
    numbers = not isinstance(now, bool) and isinstance(now, int | float)
    if numbers and isinstance(then, int | float):
        near = math.isclose(now, then, rel_tol=tolerance, abs_tol=tolerance)
        return [] if near else [f"{where}: {now!r}, before {then!r}"]
    return [] if now == then else [f"{where}: {now!r}, before {then!r}"]


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_what_they_were(folder: Path, expected: dict[str, Any], name: str):
    assert not differences(answer(*ANSWERS[name]), expected["answers"][name])


@pytest.mark.parametrize("name", SPOKEN)
def test_the_terminal_says_what_it_said(folder: Path, expected: dict[str, Any], name: str):
    assert speak(*SPOKEN[name]) == expected["spoken"][name]


@pytest.mark.parametrize("name", ["compared", "raced"])
def test_a_study_holds_what_it_held(folder: Path, expected: dict[str, Any], name: str):
    assert not differences(study_values(name), expected["studies"][name])


@pytest.mark.parametrize("name", ["compared", "raced"])
def test_a_report_tells_what_it_told(folder: Path, expected: dict[str, Any], name: str):
    assert report_words(name) == expected["reports"][name]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_classifier_scores_as_it_scored(folder: Path, expected: dict[str, Any], name: str):
    found, before = np.array(probabilities(name)), np.array(expected["probabilities"][name])
    assert np.abs(found - before).max() <= 1e-6


@pytest.mark.parametrize("name", ["svm", "adapter"])
def test_training_anew_gives_the_same_classifier(folder: Path, expected: dict[str, Any], name: str):
    spec = json.loads((folder / name / "trial" / "spec.json").read_text(encoding="utf-8"))
    method = {"name": spec["method"]["name"], **spec["method"]["settings"]}
    model = spec["base"]["name"] if spec["base"] else None
    tunelab.fine_tune("reviews.csv", method, model=model, output_dir=f"{name} anew")
    found, before = probabilities(f"{name} anew"), expected["probabilities"][name]
    # Sums are taken in another order on another processor, and training makes that larger.
    tolerance = 1e-6 if _same_processor(folder / name, folder / f"{name} anew") else 0.05
    assert np.abs(np.array(found) - np.array(before)).max() <= tolerance


def _same_processor(*folders: Path) -> bool:
    results = [json.loads((f / "trial" / "result.json").read_text("utf-8")) for f in folders]
    return len({r["provenance"]["hardware"]["processor"] for r in results}) == 1


@pytest.mark.parametrize("name", ["compared", "raced"])
def test_nothing_of_a_finished_study_is_run_again(folder: Path, name: str):
    trials = sorted(folder.glob(f"{name}/trials/*/result.json"))
    written = [p.stat().st_mtime_ns for p in trials]
    said = run_here("compare", f"{name}/study.yaml", "--jobs", "1", "-q")
    assert said.code == 0, said.err
    assert sorted(folder.glob(f"{name}/trials/*/result.json")) == trials
    assert [p.stat().st_mtime_ns for p in trials] == written
    table = Path(name, "results.csv")
    assert table.read_bytes() == (BEFORE / table).read_bytes()


if __name__ == "__main__":
    import contextlib
    import os

    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(Path.cwd(), Path(scratch, "here"))
        with contextlib.chdir(Path(scratch, "here")):
            os.environ["TUNELAB_CACHE"] = f"{scratch}/cache"
            json.dump(observe(), sys.stdout)
