"""Trackers: what a study reports, read back from each tracker's own files, without a network."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commands import FAST, run_fresh, run_here
from tunelab.core import study_folder
from tunelab.core.events import Evaluated, Stage, Step
from tunelab.core.values import Cost, DataSpec, MethodSpec, TrialResult, TrialSpec
from tunelab.study import trackers

FINAL = ("final/eval_accuracy", "final/test_accuracy", "cost/train_seconds")


def needs(name: str) -> Any:
    missing = importlib.util.find_spec(trackers.TRACKERS[name].module) is None
    return pytest.mark.skipif(missing, reason=f"{name} is not installed")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What a TensorBoard folder holds: tag -> (step, value) in order."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {t: [(e.step, e.value) for e in events.Scalars(t)] for t in events.Tags()["scalars"]}


def histories(study: Path) -> dict[str, list[dict[str, Any]]]:
    """Method -> the rows of its history as the study keeps them."""
    out = {}
    for result in study_folder.read_study(study).results:
        path = study_folder.trial_dir(study, result.spec.trial_id) / "history.jsonl"
        out[result.spec.method.label] = [json.loads(x) for x in path.read_text().splitlines()]
    return out


@pytest.fixture
def study(
    request: pytest.FixtureRequest, tmp_path: Path, reviews_csv: Path, tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:  # fmt: skip
    """A study of two methods, reported to the trackers that the test names."""
    for key, value in {
        "TRACKIO_DIR": tmp_path / "trackio", "WANDB_MODE": "offline", "WANDB_SILENT": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, str(value))
    said = run_fresh("compare", reviews_csv, "--model", tiny_bert, "--seeds", 1, *FAST,
                     "--methods", "svm-tfidf,lora", "--output-dir", "ours",
                     "--report-to", request.param, cwd=tmp_path)  # fmt: skip
    assert said.code == 0, said.err
    assert "is left out" not in said.err
    assert "Reports  to " in said.err
    # Standard output is the table's: nothing that a tracker prints is among it.
    lines = said.out.strip().splitlines()
    assert "Report: ours/report.html" in lines
    assert len(lines) < 25
    return tmp_path / "ours"


@pytest.mark.slow
@needs("tensorboard")
@needs("trackio")
@pytest.mark.parametrize("study", ["tensorboard,trackio"], indirect=True)
def test_tensorboard_and_trackio(study: Path) -> None:
    results = {r.spec.method.label: r for r in study_folder.read_study(study).results}
    history = histories(study)["lora"]
    losses = [(r["step"], pytest.approx(r["loss"])) for r in history if "loss" in r]
    assert losses
    folder = study / "tracking" / "tensorboard"
    found = {m: scalars(folder / m / "seed-0") for m in results}
    assert found["lora"]["train/loss"] == losses
    assert [s for s, _ in found["lora"]["eval/accuracy"]] == [history[-1]["step"]]
    assert "train/loss" not in found["svm-tfidf"]

    # In trackio: a run for each trial, its settings and its group beside the same numbers.
    code = (
        "import json, trackio; from trackio.sqlite_storage import SQLiteStorage as S;"
        "print(json.dumps([[r.name, r.config, S.get_logs('ours', r.name)]"
        " for r in trackio.Api().runs('ours')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    runs = {name: (config, logs) for name, config, logs in json.loads(done.stdout)}
    assert set(runs) == {"lora seed-0", "svm-tfidf seed-0"}
    config, logs = runs["lora seed-0"]
    assert config["_Group"] == "lora"
    assert config["r"] == results["lora"].spec.method.settings["r"]
    assert [(r["step"], r["train/loss"]) for r in logs if "train/loss" in r] == losses
    for method, result in results.items():
        last = runs[f"{method} seed-0"][1][-1]
        for key in FINAL:
            part, name = key.split("/")
            value = result.scores[name] if part == "final" else result.cost.train_seconds
            assert last[key] == pytest.approx(value)
            assert found[method][key][-1][1] == pytest.approx(value)


@pytest.mark.slow
@needs("mlflow")
@pytest.mark.parametrize("study", ["mlflow"], indirect=True)
def test_mlflow(study: Path) -> None:
    code = (
        "import json, mlflow; print(json.dumps([[r.info.run_name, r.data.tags['group'],"
        " r.data.params, r.data.metrics] for r in"
        " mlflow.search_runs(search_all_experiments=True, output_format='list')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    runs = {name: rest for name, *rest in json.loads(done.stdout)}
    assert set(runs) == {"lora seed-0", "svm-tfidf seed-0"}
    group, settings, metrics = runs["lora seed-0"]
    assert (group, settings["r"]) == ("lora", "8")
    assert {*FINAL, "train/loss", "eval/accuracy"} <= set(metrics)


@pytest.mark.slow
@needs("wandb")
@pytest.mark.parametrize("study", ["wandb"], indirect=True)
def test_wandb(study: Path) -> None:
    runs = list((study / "tracking" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 2
    assert all(r.stat().st_size for r in runs)


# --- one trial at a time, and failures --------------------------------------------------------


def trial(name: str, seed: int = 0) -> TrialSpec:
    method = MethodSpec(name, name, {"r": 4, "targets": ["query"], "bias": None})
    return TrialSpec(DataSpec("demo"), "f" * 64, None, method, seed, f"{name}-{seed}")


def ended(spec: TrialSpec, accuracy: float) -> TrialResult:
    return TrialResult(spec, "done", {"test_accuracy": accuracy, "test_loss": None}, Cost(2.0))


@needs("tensorboard")
def test_trials_that_run_side_by_side_are_not_mixed(tmp_path: Path) -> None:
    a, b, c = trial("a"), trial("b"), trial("c")
    said: list[str] = []
    trials = {t.trial_id: t for t in (a, b, c)}
    with trackers.Reporter(["tensorboard"], "p", tmp_path, trials, said.append) as reporter:
        for step in (1, 2):
            for spec, loss in ((a, 1.0), (b, 2.0), (c, 3.0)):
                trial_id = spec.trial_id
                reporter.event(Stage("training", trial_id))
                reporter.event(Step(step, 1.0, loss + step, 2e-4, 2, 400.0, trial_id))
                reporter.event(Evaluated(step, 1.0, {"eval_accuracy": 0.5}, 2, trial_id))
        # They end in another order than they began.
        for spec, accuracy in ((c, 0.75), (a, 0.25), (b, 0.5)):
            reporter.result(ended(spec, accuracy))
    assert said == []
    for spec, loss, accuracy in ((a, 1.0, 0.25), (b, 2.0, 0.5), (c, 3.0, 0.75)):
        found = scalars(tmp_path / "tensorboard" / spec.method.label / "seed-0")
        assert found["train/loss"] == [(1, loss + 1), (2, loss + 2)]
        assert found["eval/accuracy"] == [(1, 0.5), (2, 0.5)]
        assert found["final/test_accuracy"] == [(2, accuracy)]
        assert "final/test_loss" not in found


@needs("tensorboard")
def test_tries_and_parts_of_the_rows_are_runs_of_their_own(tmp_path: Path) -> None:
    whole = trial("a")
    tries = [replace(whole, purpose="tuning", trial_id=f"a-{x}") for x in ("one123", "two456")]
    part = replace(whole, train_rows=50, trial_id="a-part")
    trials = {t.trial_id: t for t in (whole, *tries, part)}
    said: list[str] = []
    with trackers.Reporter(["tensorboard"], "p", tmp_path, trials, said.append) as reporter:
        for spec in trials.values():
            reporter.result(ended(spec, 0.5))
    assert said == []
    found = {p.name for p in (tmp_path / "tensorboard" / "a").iterdir()}
    assert found == {"seed-0", "tuning-one123", "tuning-two456", "seed-0-rows-50"}


@needs("tensorboard")
def test_a_tracker_that_fails_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    said: list[str] = []
    spec = trial("a")
    reporter = trackers.Reporter(["tensorboard"], "p", tmp_path, {"a-0": spec}, said.append)
    with reporter:
        for step in (1, 2):
            reporter.event(Step(step, 1.0, 1.0, 2e-4, 2, 400.0, "a-0"))
        reporter.result(ended(spec, 0.5))
    (line,) = said
    assert line.startswith("report_to: tensorboard failed and is left out from here on: ")


# --- names ------------------------------------------------------------------------------------


def test_an_unknown_name_is_one_line_that_names_those_known(
    tmp_path: Path, reviews_csv: Path
) -> None:
    said = run_here("compare", reviews_csv, "--report-to", "tensorbord,none",
                    "--output-dir", tmp_path / "study")  # fmt: skip
    assert said.code == 2
    assert said.faults == [
        "tunelab: report_to: 'tensorbord' is not a tracker. Did you mean 'tensorboard'? "
        "Known: trackio, wandb, mlflow, tensorboard."
    ]


def test_one_that_is_not_installed_is_said_before_anything_is_written(
    tmp_path: Path, reviews_csv: Path
) -> None:
    known = trackers.TRACKERS.values()
    absent = next((t for t in known if importlib.util.find_spec(t.module) is None), None)
    if absent is None:
        pytest.skip("every tracker is installed")
    said = run_here("compare", reviews_csv, "--methods", "svm-tfidf", "--report-to", absent.name,
                    "--output-dir", tmp_path / "study")  # fmt: skip
    assert said.code == 2
    assert said.faults == [
        f"tunelab: report_to: {absent.name} is not installed. "
        f"Install it (pip install {absent.package}), or leave it out."
    ]
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
@needs("tensorboard")
def test_train_reports_too(tmp_path: Path, reviews_csv: Path, tiny_bert: Path) -> None:
    out = tmp_path / "out"
    said = run_here("train", reviews_csv, "--method", "lora", "--model", tiny_bert, *FAST[:-2],
                    "--report-to", "tensorboard", "--output-dir", out)  # fmt: skip
    assert said.code == 0, said.err
    found = scalars(out / "trial" / "tracking" / "tensorboard" / "lora" / "seed-0")
    assert {"train/loss", "final/test_accuracy"} <= set(found)
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208  hidden ones too
