"""What commands print, kept word by word at 80 and 120 columns and in a pipe.

A change of words is seen here, and written anew with UPDATE=1 in the environment.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import tunelab
from commands import run_here
from studies import GRID, METHODS, make_study
from tiny import make_tiny, reviews, write_csv
from tunelab.core import study_folder

KEPT = Path(__file__).resolve().parents[2] / "fixtures" / "terminal"
COMMANDS: dict[str, tuple[str, ...]] = {
    "help": ("--help",),
    "runs-list": ("runs", "list", "."),
    "runs-show": ("runs", "show", "grid"),
    "recommend": ("recommend", "grid"),
    "sensitivity": ("sensitivity", "grid"),
    "calibration": ("calibration", "grid"),
    "slices": ("slices", "small"),
    "rank": ("rank", "grid", "small"),
    "report": ("report", "small", "--format", "csv", "--compare", "grid"),
    "adapters-list": ("adapters", "list", "."),
    "adapters-show": ("adapters", "show", "svm"),
    "adapters-verify": ("adapters", "verify", "svm"),
    "evaluate": ("evaluate", "svm", "--data", "reviews.csv"),
    "predict": ("predict", "svm", "a quiet, wonderful film"),
    "behaviour": ("behaviour", "svm"),
    "inspect-data": ("inspect", "data", "reviews.csv"),
    "inspect-model": ("inspect", "model", "tiny", "--text", "a good film"),
    "compare-plan": (
        "compare",
        "reviews.csv",
        "--methods",
        "svm-tfidf,lora,full",
        "--model",
        "tiny",
        "--max-length",
        "32",
        "--dry-run",
    ),
    "compare-done": ("compare", "ran"),
    "train": (
        "train",
        "reviews.csv",
        "--method",
        "svm-tfidf",
        "--output-dir",
        "trained",
        "--overwrite",
    ),
    "predict-file": ("predict", "svm", "--file", "reviews.csv", "--output-file", "labelled.csv"),
    "export": ("export", "svm", "--to", "onnx", "--output-dir", "exported"),
    "no-export": ("export", "svm", "--to", "onxx", "--output-dir", "no"),
    "no-server": ("serve",),
    "no-served": ("serve", "a-classifier-that-is-not-there"),
    "no-study": ("runs", "show", "a-study-that-is-not-there"),
    "no-method": ("compare", "reviews.csv", "--methods", "lorra,loraplus,nothing", "--dry-run"),
    "no-option": ("compare", "reviews.csv", "--lerning-rate", "1"),
}
TIMED = ("compare-plan", "compare-done", "train")
# How long something takes here, or will: another number each time.
_DURATION = re.compile(r"\b\d[\d.]* (?:ms|s|min|h)\b")
# What is there to be copied stays in one piece, whatever the width.
WHOLE = ("Report: ", "Use it", "Reasons and conditions: ", "Train it on all rows: ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies, one of them a grid, and a file; their names are relative: no path of ours."""
    out = tmp_path_factory.mktemp("kept")
    make_study(out, methods=GRID[:7], seeds=6, rows=200).rename(out / "grid")
    make_study(out, methods=METHODS, seeds=2, rows=200).rename(out / "small")
    rows = write_csv(out / "reviews.csv", reviews(60, 2), ["text", "label"])
    tunelab.fine_tune(rows, "svm-tfidf", output_dir=out / "svm")
    make_tiny(out / "tiny", "bert")
    with pytest.MonkeyPatch.context() as patch:  # so that the study names its data as users would
        patch.chdir(out)
        tunelab.compare("reviews.csv", methods="svm-tfidf", seeds=1, output_dir="ran",
                        engine="inline")  # fmt: skip
    cost_the_same(out / "ran")
    return out


def cost_the_same(study: Path) -> None:
    """Write other costs into a study's trials: those that were measured differ from run to run."""
    record = study_folder.read_study(study)
    for r in record.results:
        i = r.spec.trial_id
        cost = replace(r.cost, train_seconds=0.02, peak_memory_bytes=426_000,
                       texts_per_second=12_000.0, latency_p50_seconds=2e-4)  # fmt: skip
        history = study_folder.read_history(study, i)
        folder, predictions = study_folder.trial_dir(study, i), record.predictions(i)
        study_folder.write_trial(folder, replace(r, cost=cost), history, predictions)


@pytest.mark.parametrize("columns", [80, 120, None])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_prints(
    name: str, columns: int | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    said = run_here(*COMMANDS[name])
    lines = [line.rstrip() for line in f"{said.out}{said.err}".splitlines()]
    if (folder / "exported").exists():
        shutil.rmtree(folder / "exported")
    if name in TIMED:
        lines = [_DURATION.sub("0 s", line) for line in lines]
    if name.startswith("adapters"):  # where and when a trial ran is part of its files
        lines = [re.sub(r"\d(?=[\d.]* k?B\b)", "0", line) for line in lines]
    wide = [
        x
        for x in lines
        if columns and len(x.replace(f"{folder}/", "")) > columns and not x.startswith(WHOLE)
    ]
    assert not wide
    text = "\n".join(
        [f"$ tunelab {' '.join(COMMANDS[name])}   (exit code {said.code})", *lines, ""]
    )
    # A base is named by its whole path, which may be of any length.
    text = re.sub(rf"{re.escape(str(folder))}/tiny\s+\(bert\)", "tiny (bert)", text)
    text = text.replace(f"{folder}/", "")
    kept = KEPT / f"{name}-{columns or 'piped'}.txt"
    if os.environ.get("UPDATE"):
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(text, encoding="utf-8")
    assert text == kept.read_text(encoding="utf-8"), "if that is meant: UPDATE=1 pytest " + __file__


def test_every_kept_file_is_of_a_command() -> None:
    assert {p.name.rpartition("-")[0] for p in KEPT.glob("*.txt")} == set(COMMANDS)
