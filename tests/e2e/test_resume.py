"""Studies that stop and go on: grown, failed, interrupted, killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from commands import Said, command, run_here
from tiny import reviews, write_csv
from tunelab.core import study_folder

NOW_AND_THEN = 0.05


def trials(study: Path) -> dict[str, int]:
    """Trials by id, with when each folder was written."""
    return {p.name: p.stat().st_mtime_ns for p in (study / "trials").iterdir()}


def results(study: Path) -> list[dict[str, str]]:
    with (study / "results.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(NOW_AND_THEN)
    raise AssertionError(f"waited {seconds} seconds in vain")


@contextmanager
def started(*args: object) -> Iterator[subprocess.Popen[str]]:
    """The command line in a process of its own; whatever happens, nothing of it is left."""
    # A shell that starts the tests in the background has Ctrl-C ignored, by their children too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    family: list[psutil.Process] = []
    try:
        yield process
    finally:
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
        for one in family:
            one.kill()
        process.communicate()


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def training(process: subprocess.Popen[str], study: Path) -> psutil.Process | None:
    """The process of the long trial, once it runs: the worker's child, with a folder to fill."""
    staged = list((study / "trials").glob(".lora*")) if (study / "trials").is_dir() else []
    family = descendants(process)
    return family[1] if staged and len(family) > 1 else None


@pytest.fixture
def long_study(tmp_path: Path, reviews_csv: Path, tiny_bert: Path) -> tuple[Path, list[object]]:
    """Arguments of a study whose second trial (lora) would train for minutes."""
    (tmp_path / "study.yaml").write_text(
        f"data: {reviews_csv}\nmodel: {tiny_bert}\nseeds: 1\ntuning: off\n"
        "methods: [svm-tfidf, {name: lora, num_train_epochs: 3000, max_length: 32}, "
        "{name: svm, max_length: 32}]\n"
    )
    study = tmp_path / "long"
    return study, ["compare", tmp_path / "study.yaml", "--output-dir", study, "--jobs", 1]


def finish(study: Path, args: list[object]) -> Said:
    """Run the long study again, with the trial that takes so long cut to one epoch."""
    return run_here(*args, "--set", "methods.1.num_train_epochs=1")


def test_a_study_grows_and_only_what_is_missing_is_run(
    cli: Callable[..., Said], tmp_path: Path, reviews_csv: Path, tiny_bert: Path
) -> None:
    study = tmp_path / "out"
    base = ("compare", reviews_csv, "--output-dir", study, "--model", tiny_bert)
    assert cli(*base, "--methods", "svm-tfidf", "--seeds", 1).code == 0
    first = trials(study)
    again = cli(*base, "--methods", "svm-tfidf", "--seeds", 1)
    assert again.code == 0
    assert "0 to run, 1 already done" in again.err
    assert not any(line.startswith("done") for line in again.faults)
    assert trials(study) == first

    more = cli(*base, "--methods", "svm-tfidf,svm", "--seeds", 2, "--max-length", 32)
    assert more.code == 0, more.err
    assert "1 to run, 1 already done, 2 that a run with another seed serves" in more.err
    assert first.items() <= trials(study).items()
    assert len(results(study)) == len(trials(study)) == 4

    # A smaller study in the same folder: its own trials alone are shown, nothing is thrown away.
    fewer = cli(*base, "--methods", "svm", "--seeds", 1, "--max-length", 32)
    assert "0 to run, 1 already done" in fewer.err
    assert len(results(study)) == 1
    assert len(trials(study)) == 4


def test_other_content_or_another_subset_is_another_trial(
    cli: Callable[..., Said], tmp_path: Path
) -> None:
    data = tmp_path / "r.csv"
    lines = [f"good words {i},yes\nbad words {i},no\n" for i in range(40)]
    data.write_text("text,label\n" + "".join(lines))
    base = ("compare", data, "--methods", "svm-tfidf", "--seeds", 1, "--output-dir", "out")
    assert cli(*base).code == 0
    for other in (["--subset", 20], ["--split-seed", 1], ["--c", 2], ["--min-df", 2]):
        assert "1 to run" in cli(*base, *other, "--dry-run").err
    # How a column is named to us, or a default said aloud, changes nothing.
    for same in (
        ["--text-column", "text"],
        ["--c", "[0.01, 0.1, 1, 10]"],
        ["--metric", "accuracy"],
    ):
        assert "0 to run, 1 already done" in cli(*base, *same, "--dry-run").err
    data.write_text("text,label\n" + "".join(reversed(lines)))
    assert "1 to run" in cli(*base, "--dry-run").err


def test_what_a_study_in_the_same_folder_would_hide_is_said_before(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "r.csv", reviews(60), ["text", "label"])
    where = ("--output-dir", tmp_path / "s", "--seeds", 1)
    first = run_here("compare", data, "--methods", "svm-tfidf", "--word-ngrams", "[1, 2]", *where)
    assert first.code == 0, first.err
    assert "the study in" not in first.out + first.err
    ask = ("compare", data, "--methods", "svm-tfidf", *where, "--dry-run")
    same = run_here(*ask, "--word-ngrams", "[1, 2]")
    assert "2 already done" in same.err
    assert "the study in" not in same.err
    fewer = run_here(*ask, "--word-ngrams", 1)
    # The one with 1 is reused, under another label.
    assert "also has svm-tfidf[word_ngrams=2], which" in fewer.err
    write_csv(data, reviews(62), ["text", "label"])
    other = run_here(*ask)
    assert "s is of other data (r.csv as it was): replaced; its trials stay on disk" in other.err
    assert "word_ngrams=1" in (tmp_path / "s" / "study.yaml").read_text(encoding="utf-8")


def test_a_failed_trial_keeps_its_error_and_is_tried_again(
    cli: Callable[..., Said], tmp_path: Path, reviews_csv: Path, tiny_bert: Path
) -> None:
    (tmp_path / "study.yaml").write_text(
        f"data: {reviews_csv}\nmodel: {tiny_bert}\nseeds: 1\noutput_dir: out\ntuning: off\n"
        "jobs: 1\n"
        "training: {max_length: 32, num_train_epochs: 5}\n"
        "methods:\n  - {name: svm-tfidf, label: words}\n"
        "  - {name: svm-tfidf, label: lost, min_df: 10000}\n"
        "  - {name: full, label: wild, learning_rate: 10, max_grad_norm: 0,"
        " weight_decay: 1.0e+37}\n"
        "  - svm\n"
        "  - {name: svm-tfidf, label: bare, word_ngrams: 0, char_ngrams: 0}\n"
    )
    said = cli("compare", "study.yaml")
    assert said.code == 1
    assert "3 of 5 trials failed" in said.err
    assert "Traceback" not in said.err + said.out
    failed = [line for line in said.faults if line.startswith("failed")]
    assert len(failed) == 3
    assert "found no word n-gram" in failed[0]
    assert "diverged" in failed[1]
    assert "Lower learning_rate" in failed[1]
    assert "svm-tfidf has no features" in failed[2]
    rows = {r["label"]: r for r in results(tmp_path / "out")}
    assert [rows[k]["status"] for k in ("words", "lost", "wild", "svm", "bare")] == [
        "done", "failed", "failed", "done", "failed",
    ]  # fmt: skip
    assert "found no word n-gram" in rows["lost"]["error"]
    assert rows["lost"]["test_accuracy"] == ""
    folder = tmp_path / "out/trials" / rows["lost"]["trial_id"]
    assert not (folder / "artifact").exists()
    assert json.loads((folder / "result.json").read_text())["status"] == "failed"
    assert "found no word n-gram" in (tmp_path / "out/report.html").read_text()

    before = trials(tmp_path / "out")
    again = cli("compare", "study.yaml")
    assert again.code == 1
    assert "3 to run, 2 already done" in again.err
    after = trials(tmp_path / "out")
    changed = {k for k in after if after[k] != before[k]}
    assert changed == {rows[k]["trial_id"] for k in ("lost", "wild", "bare")}

    shown = cli("runs", "show", "out")
    assert shown.code == 0
    assert "failed" in shown.out
    (row,) = json.loads(cli("runs", "list", ".", "--json").out)
    assert (row["done"], row["failed"]) == (2, 3)


def test_a_study_without_any_success(cli: Callable[..., Said], reviews_csv: Path) -> None:
    said = cli("compare", reviews_csv, "--methods", "svm-tfidf", "--seeds", 1, "--min-df", 10_000,
               "--output-dir", "out")  # fmt: skip
    assert said.code == 1
    assert "min_df" in said.err
    assert cli("runs", "show", "out").code == 0
    loaded = cli("predict", "out", "text")
    assert loaded.code == 2
    assert "no trial ended well" in loaded.err
    assert len(loaded.faults) == 1


def test_train_that_fails_leaves_nothing(
    cli: Callable[..., Said], tmp_path: Path, reviews_csv: Path
) -> None:
    said = cli("train", reviews_csv, "--method", "svm-tfidf", "--min-df", 10_000, "--output-dir",
               "new/out")  # fmt: skip
    assert said.code == 1
    assert said.faults[-1].startswith("tunelab: svm-tfidf found no word n-gram")
    assert not (tmp_path / "new" / "out").exists()
    assert not list((tmp_path / "new").glob(".*"))


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)],
)
def test_ctrl_c_leaves_a_study_that_goes_on(
    long_study: tuple[Path, list[object]], number: signal.Signals
) -> None:
    study, args = long_study
    with started(*args) as process:
        wait_for(lambda: training(process, study))
        family = descendants(process)
        assert len(family) >= 2
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "Traceback" not in err + out
    assert "go on with: tunelab compare" in err
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, alive
    assert [p.name.rpartition("-")[0] for p in (study / "trials").iterdir()] == ["svm-tfidf"]
    assert [r["status"] for r in results(study)] == ["done"]
    assert (study / "report.html").is_file()
    if number != signal.SIGINT:
        return
    kept = trials(study)
    said = finish(study, args)
    assert said.code == 0, said.err
    assert "2 to run, 1 already done" in said.err
    assert kept.items() <= trials(study).items()


def test_a_killed_trial_is_a_failed_trial(long_study: tuple[Path, list[object]]) -> None:
    study, args = long_study
    with started(*args) as process:
        trial = wait_for(lambda: training(process, study))
        trial.kill()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "killed (SIGKILL)" in err
    assert "per_device_train_batch_size" in err
    assert "Traceback" not in err + out
    assert [r["status"] for r in results(study)] == ["done", "failed", "done"]
    assert not list((study / "trials").glob(".*"))


def test_a_killed_worker_does_not_stop_the_study(long_study: tuple[Path, list[object]]) -> None:
    study, args = long_study
    with started(*args) as process:
        trial = wait_for(lambda: training(process, study))
        worker = psutil.Process(trial.ppid())
        worker.kill()
        _, err = process.communicate(timeout=60)
        assert not psutil.wait_procs([trial], timeout=10)[1]
    assert process.returncode == 1, err
    assert [r["status"] for r in results(study)] == ["done", "failed", "done"]
    assert not list((study / "trials").glob(".*"))


def test_a_killed_command_line_leaves_nothing_that_runs(
    long_study: tuple[Path, list[object]],
) -> None:
    study, args = long_study
    with started(*args) as process:
        trial = wait_for(lambda: training(process, study))
        family = descendants(process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert trial in family
        assert not psutil.wait_procs(family, timeout=20)[1]
    # What it had begun is swept away by the next run, and only then.
    said = finish(study, args)
    assert said.code == 0, said.err
    assert not list((study / "trials").glob(".*"))
    assert len(results(study)) == 3


def test_what_is_said_before_is_what_runs(
    cli: Callable[..., Said], reviews_csv: Path, tmp_path: Path
) -> None:
    """A point of a grid that ran under another label is taken as it is, tuned, under its own."""
    (tmp_path / "study.yaml").write_text(
        f"data: {reviews_csv}\nseeds: 2\nvary_split: true\noutput_dir: out\nmethods:\n"
        "  - {name: svm-tfidf, label: a, c: 1, min_df: 3}\n"
        "  - {name: svm-tfidf, label: b, c: 1, min_df: [1, 2], tune: {word_ngrams: [1, 2]}}\n"
    )

    def ran(*args: object) -> tuple[int, Said]:
        before = set((tmp_path / "out/trials").glob("*"))
        said = cli("compare", "study.yaml", *args)
        assert said.code == 0, said.err
        new = set((tmp_path / "out/trials").glob("*")) - before
        return len(new), said

    new, said = ran("--set", "methods.1.min_df=2")
    assert new == 6
    assert "6 to run, 2 of them to tune" in said.err
    new, said = ran()
    assert new == 4
    assert "4 to run, 2 of them to tune, 4 already done" in said.err
    assert "also has" not in said.err
    assert "b[min_df=2]: word_ngrams = 2 (chosen, as recommended)" in said.err
    record = study_folder.read_study(tmp_path / "out")
    assert record.methods == ("a", "b[min_df=1]", "b[min_df=2]")
    new, said = ran("--set", "methods.1.word_ngrams=1", "--tuning", "off")
    # Trained before as a try, but not as a trial.
    assert f"{new} to run" in said.err
    new, said = ran()
    assert new == 0
    # Of three settings that may be chosen two have been trained: none or both seeds may be left.
    (tmp_path / "study.yaml").write_text(
        (tmp_path / "study.yaml").read_text().replace("[1, 2]}}", "[0, 1, 2]}}")
    )
    new, said = ran()
    assert "2 to 6 to run, 2 of them to tune, fewer where tuning chooses" in said.err
    assert 2 <= new <= 6
