"""Trials side by side: the same results, honest about time, safe when something dies."""

from __future__ import annotations

import gc
import json
import os
import platform
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from commands import Said
from tunelab import api, study
from tunelab.core import files, machine, study_folder
from tunelab.core.details import Hardware
from tunelab.core.events import Step
from tunelab.report import page
from tunelab.study import resolve
from tunelab.study.durations import Duration, seconds_to_import
from tunelab.study.estimate import threads_ahead
from tunelab.study.executors import Worker, process
from tunelab.study.spec import StudySpec

QUICK = (
    "--tuning",
    "off",
    "--methods",
    "svm-tfidf,lora",
    "--num-train-epochs",
    1,
    "--max-length",
    32,
)
SHORT = {"max_length": 32}


def test_side_by_side_gives_the_results_of_one_by_one(
    cli: Callable[..., Said], reviews_csv: Path, tiny_bert: Path
) -> None:
    args = ("compare", reviews_csv, "--model", tiny_bert, "--seeds", 2, *QUICK)
    two = cli(*args, "--jobs", 2, "--output-dir", "two")
    assert two.code == 0, two.err
    assert "2 at a time" in two.err
    assert "4 of 4" not in two.err
    assert "ran beside others, 2 at a time" in two.out.replace("\n", " ")
    one = cli(*args, "--jobs", 1, "--output-dir", "one")
    assert one.code == 0, one.err
    assert "beside others" not in one.out
    records = [study_folder.read_study(Path(d)) for d in ("two", "one")]
    for a, b in zip(*(r.results for r in records), strict=True):
        assert a.spec == b.spec
        if a.provenance.same_run_as or b.provenance.same_run_as:  # measured where it ran
            assert a.provenance.same_run_as == b.provenance.same_run_as
            continue
        assert (a.provenance["jobs"], a.provenance["measured_alone"]) == (2, False)
        assert (b.provenance["jobs"], b.provenance["measured_alone"]) == (1, True)
        both = [r.predictions(a.spec.trial_id)["test"].scores for r in records]
        np.testing.assert_allclose(*both, atol=1e-4)
    threads = max(1, (machine.hardware().cores or 1) // 2)
    lora = [r for r in records[0].results if r.spec.method.name == "lora"]
    assert [r.provenance["threads"] for r in lora] == [threads] * 2


def scheduled(spec: StudySpec) -> study.Schedule:
    return study.scheduled(study.plan(spec))


def test_a_trial_that_is_killed_leaves_the_other_alone(
    cli: Callable[..., Said], tmp_path: Path, reviews_csv: Path, tiny_bert: Path
) -> None:
    (tmp_path / "study.yaml").write_text(
        f"data: {reviews_csv}\nmodel: {tiny_bert}\nseeds: 1\noutput_dir: out\njobs: 2\n"
        "training: {max_length: 32}\ntuning: off\n"
        "methods: [{name: lora, num_train_epochs: 3000}, {name: full, num_train_epochs: 2}]\n"
    )
    planned = scheduled(resolve.resolve_study(Path("study.yaml"), {}))
    assert planned.jobs == 2
    killed = False

    def kill_the_long_one(event: study.StudyEvent) -> None:
        nonlocal killed
        if not killed and isinstance(event, Step) and str(event.trial_id).startswith("lora"):
            killed = True
            me = psutil.Process()
            trials = [p for w in me.children() for p in w.children()]
            # Forked first: the long one is the oldest.
            os.kill(min(trials, key=lambda p: p.pid).pid, signal.SIGKILL)

    study.write(planned.progress, "test")
    results = {r.spec.method.name: r for r in study.run(planned, kill_the_long_one)}
    assert killed
    assert results["lora"].status == "failed"
    assert "killed (SIGKILL)" in str(results["lora"].error)
    assert results["full"].status == "done", results["full"].error
    assert not list((tmp_path / "out/trials").glob(".*"))


def test_two_on_one_folder_are_refused(cli: Callable[..., Said], reviews_csv: Path) -> None:
    args = ("compare", reviews_csv, "--methods", "svm-tfidf", "--seeds", 1, "--tuning", "off",
            "--output-dir", "out")  # fmt: skip
    with files.locked(Path("out")):
        said = cli(*args)
    assert said.code == 2
    who = f"(process {os.getpid()} on {platform.node()}, since 20"
    assert f"another tunelab is running trials in this folder {who}" in said.faults[-1]
    assert cli(*args).code == 0
    assert json.loads(cli("runs", "list", ".", "--json").out)[0]["done"] == 1


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_jobs_that_are_no_number_are_refused(
    value: str, cli: Callable[..., Said], reviews_csv: Path
) -> None:
    said = cli("compare", reviews_csv, "--methods", "svm-tfidf", "--jobs", value)
    assert said.code == 2
    assert "jobs" in said.err


def test_too_little_memory_lowers_jobs_and_says_so(
    reviews_csv: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "hardware", lambda: Hardware("p", 8))
    monkeypatch.setattr(machine, "has_card", lambda: False)
    flags = {"data.source": str(reviews_csv), "model": str(tiny_bert), "methods": ["lora"],
             "tuning": False, "seeds": 20, "output_dir": str(tmp_path / "out")}  # fmt: skip
    monkeypatch.setattr(machine, "available_bytes", lambda: 100_000_000_000)
    much = scheduled(resolve.resolve_study(None, flags, SHORT))
    assert (much.jobs, much.threads) == (8, 1)
    assert scheduled(resolve.resolve_study(None, {**flags, "jobs": 3}, SHORT)).jobs == 3
    monkeypatch.setattr(machine, "available_bytes", lambda: 1_200_000_000)
    little = scheduled(resolve.resolve_study(None, flags, SHORT))
    assert 1 <= little.jobs < 8
    assert f"{little.jobs} at a time instead of 8: each needs about" in little.why
    monkeypatch.setattr(machine, "available_bytes", lambda: 1)
    assert scheduled(resolve.resolve_study(None, flags, SHORT)).jobs == 1
    monkeypatch.setattr(machine, "available_bytes", lambda: None)
    assert scheduled(resolve.resolve_study(None, flags, SHORT)).jobs == 8


def test_the_estimate_counts_trials_side_by_side(
    reviews_csv: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    flags = {"data.source": str(reviews_csv), "model": str(tiny_bert), "methods": ["lora"],
             "tuning": False, "seeds": 3, "output_dir": str(tmp_path / "o"), "jobs": 2}  # fmt: skip
    planned = scheduled(resolve.resolve_study(None, flags, SHORT))
    each = [Duration(5.0, 2.0), Duration(2.0, 1.0), Duration(2.0, 1.0)]
    fixed = replace(planned, durations=dict(zip(planned.durations, each, strict=True)))
    imports = seconds_to_import(planned.progress.todo)
    assert fixed.total_seconds == 5 + imports  # the third starts where the second ended
    assert replace(fixed, jobs=1).total_seconds == 9 + imports
    assert replace(fixed, jobs=1).total_range == (6.5 + imports, 14 + imports)


def test_one_worker_serves_all_rounds_of_a_study_and_is_started_before_the_plan(
    reviews_csv: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tries of settings, then trials: each would wait for the imports anew."""
    said: list[object] = []

    def starting(*given: Any) -> Any:
        said.append("started")
        return begin(*given)

    def planning(*given: Any, **more: Any) -> study.Plan:
        said.append("planned")
        return make(*given, **more)

    begin, make = process._start, study.plan
    monkeypatch.setattr(process, "_start", starting)
    monkeypatch.setattr(study, "plan", planning)
    made = api.compare(
        reviews_csv, model=str(tiny_bert), methods=["lora"], seeds=2, jobs=2, num_train_epochs=1,
        max_length=32, tuning={"learning_rate": [1e-4, 1e-3]}, output_dir=tmp_path / "out",
    )  # fmt: skip
    assert [r.status for r in made.record.results] == ["done", "done"]
    assert said == ["started", "planned"]
    # Where trials are there already, it is first seen whether anything is to run.
    made.extend(3)
    assert said[2:] == ["planned", "started"]
    assert not psutil.Process().children()


def test_a_worker_is_kept_while_its_threads_are_those_asked_for(tmp_path: Path) -> None:
    with Worker() as worker:
        first = worker.started(["svm-tfidf"], 1)
        assert worker.started(["svm-tfidf"], 1) is first
        second = worker.started(["svm-tfidf"], 2)
        assert first.returncode is not None
        assert second.poll() is None
        second.kill()
        second.wait()
        third = worker.started(["svm-tfidf"], 2)
        assert third.poll() is None
    assert third.returncode is not None
    assert not worker.logs.exists()


def test_a_worker_takes_no_file_of_the_current_folder_for_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("random", "numpy", "sklearn"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()\nraise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(Path(study.__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    started = process._start(tmp_path, ["svm-tfidf"], 1)
    started.communicate()
    assert started.returncode == 0, (tmp_path / "worker").read_text()
    assert not (tmp_path / "ran").exists()


def test_a_plan_that_is_refused_leaves_no_process(
    cli: Callable[..., Said], tmp_path: Path, reviews_csv: Path
) -> None:
    said = cli("compare", reviews_csv, "--methods", "svm-tfidf", "--label-column", "none")
    assert said.code == 2
    assert not psutil.Process().children()
    assert gc.isenabled()
    said = cli("compare", reviews_csv, "--methods", "svm-tfidf", "--dry-run")
    assert said.code == 0
    assert not psutil.Process().children()


@pytest.mark.parametrize("asked", [None, 1, 3])
@pytest.mark.parametrize("seeds", [1, 2, 20])
@pytest.mark.parametrize("card", [True, False])
def test_threads_are_foreseen_where_memory_suffices(  # noqa: PLR0917
    asked: int | None, seeds: int, card: bool, reviews_csv: Path, tiny_bert: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(machine, "hardware", lambda: Hardware("p", 8))
    monkeypatch.setattr(machine, "has_card", lambda: card)
    monkeypatch.setattr(machine, "available_bytes", lambda: None)
    flags = {"data.source": str(reviews_csv), "model": str(tiny_bert), "methods": ["lora"],
             "tuning": False, "seeds": seeds, "output_dir": str(tmp_path / "out"), "stack": "off",
             **({"jobs": asked} if asked else {})}  # fmt: skip
    spec = resolve.resolve_study(None, flags, SHORT)
    planned = scheduled(spec)
    assert threads_ahead(spec.jobs, len(planned.progress.todo)) == planned.threads


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_report_is_prepared_beside_trials_but_not_beside_one_measured_alone(
    jobs: int, reviews_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(page, "prepare_page", lambda: seen.append("prepared"))

    def hear(event: Any) -> None:
        seen.append(event["event"])

    api.compare(
        reviews_csv, methods=["svm-tfidf", {"name": "svm-tfidf", "label": "b", "c": 1}], seeds=2,
        jobs=jobs, tuning=False,
        output_dir=tmp_path / "out", on_event=hear,
    )  # fmt: skip
    assert seen.count("prepared") == (jobs > 1)
    if jobs > 1:
        assert seen[:4] == ["start", "start", "step", "prepared"]
