"""The command line as a user goes through it: compare, continue, train, predict, look."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

import tunelab
from commands import FAST, Said, command, run_fresh, run_here
from tiny import reviews, write_csv

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("svm-tfidf", "svm", "full", "lora")
COSTS = (
    "train_seconds", "peak_memory_bytes", "adapter_parameters", "head_parameters",
    "trainable_parameters", "total_parameters", "artifact_bytes", "texts_per_second",
    "latency_p50_seconds", "latency_p95_seconds", "error",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, reviews_csv: Path, tiny_bert: Path
) -> tuple[Path, Said]:
    """A study of four methods with two seeds, made once, and what making it said."""
    folder = tmp_path_factory.mktemp("study") / "four"
    said = run_fresh("compare", reviews_csv, "--model", tiny_bert, "--seeds", 2, *FAST,
                     "--output-dir", folder)  # fmt: skip
    assert said.code == 0, said.err
    return folder, said


@pytest.fixture(scope="module")
def study_dir(made: tuple[Path, Said]) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, reviews_csv: Path, tiny_distilbert: Path
) -> dict[str, Path]:
    """A classifier of each method on the tiny DistilBERT: lora by `train`, others from a study."""
    root = tmp_path_factory.mktemp("trained")
    base = ("--model", tiny_distilbert, "--max-length", 32, "--num-train-epochs", 1)
    said = run_here("train", reviews_csv, "--method", "lora", *base, "--output-dir", root / "lora")
    assert said.code == 0, said.err
    assert f"Try it: tunelab predict {root / 'lora'}" in said.out
    said = run_here("compare", reviews_csv, "--methods", "svm-tfidf,svm,full", "--seeds", 1, *base,
                    "--tuning", "off", "--output-dir", root / "study")  # fmt: skip
    assert said.code == 0, said.err
    found = {r["method"]: r["trial_id"] for r in rows_of(root / "study/results.csv")}
    for method, trial in found.items():
        shutil.copytree(root / "study/trials" / trial / "artifact", root / method)
    return {name: root / name for name in METHODS}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def result_of(trial: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((trial / "result.json").read_text())
    return found


# --- compare --------------------------------------------------------------------------------


def test_says_before_what_will_run_and_after_how_it_went(made: tuple[Path, Said]) -> None:
    folder, said = made
    before, after = said.err, said.out
    assert "112 / 24 / 24 rows" in before
    assert "2 classes: bad, good" in before
    assert "'text' (guessed)" in before
    assert "no test part: 24 of 160 rows split off" in before
    assert "exact duplicates: none" in before
    # The second seed of both SVMs is a copy of the first: no seed changes it.
    assert re.search(r"6 to run, 2 that a run with another seed serves too: \w+ ", before)
    assert sum(line.startswith("done") for line in said.faults) == 8
    assert all(name in after for name in METHODS)
    assert f"Report: {folder / 'report.html'}" in after
    # It begins with what to take, and what so few rows cannot tell; it ends with a command that
    # works as it stands.
    take, (use, why) = after.splitlines()[0], after.splitlines()[-2:]
    assert re.match(r"24 test rows cannot place accuracy closer than .+; take [\w-]+: .+\.$", take)
    said_it = run_here(*shlex.split(use.removeprefix("Use it: tunelab ")))
    assert said_it.code == 0, said_it.err
    assert said_it.out.endswith("your text\n")
    assert run_here(*shlex.split(why.partition(": tunelab ")[2])).out.startswith(take)
    # A pipe is not a terminal: no colours, no moving bar, no line cut in two.
    assert "\x1b" not in before + after
    assert "\r" not in before + after
    assert all("left)" in line for line in said.faults if line.startswith("done") and "(" in line)


def test_the_folder_is_as_promised(study_dir: Path) -> None:
    assert {p.name for p in study_dir.iterdir()} == {
        "study.yaml", "data.json", "gate.json", "lengths.json", "rows.parquet", "results.csv",
        "comparison.json", "report.html", "trials", "run.jsonl",
    }  # fmt: skip
    trials = sorted((study_dir / "trials").iterdir())
    assert len(trials) == 8
    for trial in trials:
        assert {p.name for p in trial.iterdir()} == {
            "spec.json", "result.json", "history.jsonl", "predictions.parquet", "digests.json",
            "artifact",
        }  # fmt: skip
        assert (trial / "artifact" / "tunelab.json").is_file()
        spec = json.loads((trial / "spec.json").read_text())
        assert spec["trial_id"] == trial.name
        history = [json.loads(x) for x in (trial / "history.jsonl").read_text().splitlines()]
        assert bool(history) == (spec["method"]["name"] in {"full", "lora"})
        predictions = pq.read_table(trial / "predictions.parquet")
        assert predictions.num_rows == 48
        assert set(predictions["split"].to_pylist()) == {"validation", "test"}


def test_results_csv_has_a_row_a_trial(study_dir: Path) -> None:
    rows = rows_of(study_dir / "results.csv")
    assert [(r["method"], r["seed"]) for r in rows] == [
        (name, str(seed)) for seed in (0, 1) for name in METHODS
    ]
    head = list(rows[0])
    assert head[:2] == ["trial_id", "method"]
    assert tuple(head[-len(COSTS) :]) == COSTS
    order = [head.index(c) for c in ("seed", "status", "eval_accuracy", "test_accuracy")]
    assert order == sorted(order)
    for row in rows:
        assert row["status"] == "done"
        result = result_of(study_dir / "trials" / row["trial_id"])
        assert float(row["test_accuracy"]) == result["scores"]["test_accuracy"]
        if result["provenance"].get("same_run_as"):  # measured once, where it ran
            assert row["train_seconds"] == row["texts_per_second"] == ""
            continue
        assert float(row["train_seconds"]) > 0
        assert float(row["texts_per_second"]) > 0
        assert float(row["latency_p50_seconds"]) <= float(row["latency_p95_seconds"])
        assert int(row["artifact_bytes"]) > 0
        if row["method"] == "lora":
            parts = int(row["adapter_parameters"]) + int(row["head_parameters"])
            assert parts == int(row["trainable_parameters"]) < int(row["total_parameters"])
        else:
            assert row["adapter_parameters"] == ""


def test_study_yaml_says_where_each_value_came_from(study_dir: Path) -> None:
    study = yaml.safe_load((study_dir / "study.yaml").read_text())
    assert [m["name"] for m in study["methods"]] == list(METHODS)
    assert study["sources"]["methods.3.num_train_epochs"] == "command line"
    assert study["sources"]["methods.3.r"] == "default of lora"
    assert study["sources"]["seeds"] == "command line"
    assert study["sources"]["metric"] == "default"
    assert sorted(study["trials"]) == sorted(p.name for p in (study_dir / "trials").iterdir())


def test_the_report_is_one_file_that_needs_no_network(study_dir: Path) -> None:
    html = (study_dir / "report.html").read_text(encoding="utf-8")
    assert "<script src=" not in html
    assert '<link rel="stylesheet"' not in html
    assert all(name in html for name in METHODS)
    assert "tunelab compare" in html


def test_comparison_json_agrees_with_runs_show(study_dir: Path) -> None:
    said = run_here("runs", "show", study_dir, "--json")
    assert said.code == 0
    shown = json.loads(said.out)
    written = json.loads((study_dir / "comparison.json").read_text())
    assert {k: written[k] for k in shown if k in written} == {
        k: v for k, v in shown.items() if k in written
    }
    assert set(shown) & set(written)


def test_every_metric_can_be_shown_afterwards(study_dir: Path) -> None:
    said = run_here("runs", "show", study_dir, "--metric", "f1_macro")
    assert said.code == 0
    assert "F1" in said.out


def test_runs_list_finds_it(study_dir: Path) -> None:
    said = run_here("runs", "list", study_dir.parent, "--json")
    (row,) = json.loads(said.out)
    assert (row["done"], row["failed"], row["missing"]) == (8, 0, 0)
    assert row["best"] in METHODS
    assert "four" in run_here("runs", "list", study_dir.parent).out


def test_runs_list_with_nothing_to_show(cli: Callable[..., Said]) -> None:
    assert "No studies" in cli("runs", "list").out
    assert json.loads(cli("runs", "list", "--json").out) == []


def test_dry_run_writes_nothing(
    cli: Callable[..., Said], reviews_csv: Path, tmp_path: Path
) -> None:
    said = cli("compare", reviews_csv, "--methods", "svm-tfidf", "--dry-run")
    assert said.code == 0
    assert "6 to run" in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_study_file_and_set_and_flags(
    cli: Callable[..., Said], tmp_path: Path, reviews_csv: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"data: {{source: {reviews_csv}, subset: 40}}\n"
        "methods:\n  - {name: svm-tfidf, c: 1.0, char_ngrams: [0, 3]}\n  - svm-tfidf\nseeds: [5]\n"
    )
    said = cli("compare", "mine.yaml", "--set", "methods.1.min_df=2", "--word-ngrams", 1, "-q")
    assert said.code == 0, said.err
    assert said.err == ""
    assert "Report: " in said.out
    assert said.out.splitlines()[0].endswith("so there is nothing to compare it with.") or (
        "take " in said.out.splitlines()[0].lower()
    )
    assert "Use it: " not in said.out  # quiet: results, no advice
    study = yaml.safe_load((tmp_path / "runs/mine/study.yaml").read_text())
    assert [m["label"] for m in study["methods"]] == [
        "svm-tfidf[c=1,char_ngrams=0,min_df=1]",
        "svm-tfidf[c=1,char_ngrams=3,min_df=1]",
        "svm-tfidf[c=0.01+0.1+1+10,char_ngrams=5,min_df=2]",
    ]
    assert study["sources"]["methods.2.min_df"] == "--set"
    assert study["sources"]["methods.0.word_ngrams"] == "command line"
    assert {r["seed"] for r in rows_of(tmp_path / "runs/mine/results.csv")} == {"5"}
    # The resolved study is a study: run again, it finds all of it done.
    again = cli("compare", "runs/mine/study.yaml")
    assert "0 to run, 3 already done" in again.err
    assert again.code == 0


def test_names_from_other_tools_are_taken_and_said(
    cli: Callable[..., Said], reviews_csv: Path, tiny_bert: Path
) -> None:
    said = cli("compare", reviews_csv, "--model", tiny_bert, "--methods", "lora", "--max-length",
               32, "--lora-r", 4, "--epochs", 2, "--lr", "1e-3", "--dry-run")  # fmt: skip
    assert said.code == 0, said.err
    assert "lora_r is called r here" in said.err
    assert "lr is called learning_rate here" in said.err


def test_the_same_spec_twice_gives_equal_predictions(
    study_dir: Path, tmp_path: Path, reviews_csv: Path, tiny_bert: Path
) -> None:
    again = tmp_path / "again"
    said = run_here("compare", reviews_csv, "--model", tiny_bert, "--seeds", 1, *FAST,
                    "--output-dir", again)  # fmt: skip
    assert said.code == 0, said.err
    trials = sorted(p.name for p in (again / "trials").iterdir())
    assert len(trials) == 4
    for trial in trials:
        first, second = (
            pq.read_table(d / "trials" / trial / "predictions.parquet") for d in (study_dir, again)
        )
        assert first.equals(second), trial
        # The name says the method: another seed is another trial with other scores.
        scores = result_of(again / "trials" / trial)["scores"]
        assert scores == result_of(study_dir / "trials" / trial)["scores"]


# --- train and predict ----------------------------------------------------------------------


def predict_json(folder: Path, *args: object, stdin: str = "") -> list[dict[str, Any]]:
    said = run_here("predict", folder, "--json", *args, stdin=stdin)
    assert said.code == 0, said.err
    assert said.err == ""
    return [json.loads(line) for line in said.out.splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_train_then_predict(trained: dict[str, Path], method: str) -> None:
    folder = trained[method]
    assert not list(folder.parent.glob(".*"))
    if method == "lora":
        assert result_of(folder / "trial")["status"] == "done"
    found = predict_json(folder, "a lovely warm film", "grim and dull")
    assert [f["text"] for f in found] == ["a lovely warm film", "grim and dull"]
    for one in found:
        assert list(one["probabilities"]) == ["bad", "good"]
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert one["label"] == max(one["probabilities"], key=one["probabilities"].__getitem__)


def test_a_result_says_which_path_measured_its_speed(trained: dict[str, Path]) -> None:
    said = {}
    for trial in (trained["lora"].parent / "study/trials").iterdir():
        result = result_of(trial)
        assert result["cost"]["latency_p50_seconds"] > 0
        said[trial.name.rpartition("-")[0]] = result["details"].get("scoring")
    computes = [s.pop("in") for s in (said["svm"], said["full"])]
    assert computes[0] == "float32"
    assert computes[1].startswith("float32")
    fast = {"engine": "fast", "why": None, "merged": False}
    assert said == {"svm-tfidf": None, "svm": fast, "full": fast}
    lora = result_of(trained["lora"] / "trial")["details"]["scoring"]
    assert lora.items() >= {"engine": "fast", "why": None, "merged": True}.items()


def test_predict_learns_what_was_there_to_learn(trained: dict[str, Path]) -> None:
    said = run_here("predict", trained["svm-tfidf"], "a lovely warm film", "grim and dull")
    assert [line.split("\t")[0] for line in said.out.splitlines()] == ["good", "bad"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_predict_a_file_keeps_rows_and_columns(
    trained: dict[str, Path], tmp_path: Path, suffix: str
) -> None:
    from tunelab.data import write_table

    texts = [text for text, _ in reviews(30, seed=9)]
    columns: dict[str, Sequence[Any]] = {
        "number": [str(i) for i in range(30)], "text": texts,
        "label": ['with, comma and "quotes"'] * 30,
    }  # fmt: skip
    source, out = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    write_table(source, columns)
    said = run_here("predict", trained["svm"], "--file", source, "--output-file", out)
    assert said.code == 0, said.err
    assert said.out == ""
    if suffix == "parquet":
        rows = pq.read_table(out).to_pylist()
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        with out.open(newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t" if suffix == "tsv" else ","))
    assert list(rows[0]) == ["number", "text", "label", "predicted_label", "probability"]
    for name, values in columns.items():
        assert [r[name] for r in rows] == list(values)
    direct = tunelab.load(trained["svm"]).predict(texts)
    assert [r["predicted_label"] for r in rows] == direct


def test_predict_says_which_texts_mean_nothing_and_reads_other_encodings(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    ask = [*command("predict", trained["svm-tfidf"], "-", "--json")]
    lines = b"a lovely caf\xe9\r\n\n"
    wrong = subprocess.run(ask, input=lines, capture_output=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(b"tunelab: standard input: line 1 is not UTF-8.")
    assert wrong.stderr.count(b"\n") == 1
    right = subprocess.run(
        [*ask, "--encoding", "cp1252"], input=lines, capture_output=True, check=True
    )
    assert [json.loads(x)["text"] for x in right.stdout.splitlines()] == ["a lovely café", ""]
    assert right.stderr == b"1 text is blank: its label means nothing.\n"
    out = tmp_path / "out.csv"
    (tmp_path / "in.csv").write_text("text,n\na lovely film,1\n,2\n,3\n", encoding="utf-8")
    said = run_here("predict", trained["svm-tfidf"], "--file", tmp_path / "in.csv",
                    "--output-file", out)  # fmt: skip
    assert "2 texts are blank: their labels mean nothing." in said.err


def test_a_label_of_two_lines_is_said_in_one(tmp_path: Path) -> None:
    rows = [(text, f"{label}\nor so") for text, label in reviews(60)]
    data = write_csv(tmp_path / "r.csv", rows, ["text", "label"])
    out = tmp_path / "out"
    assert run_here("train", data, "--method", "svm-tfidf", "--output-dir", out, "-q").code == 0
    said = run_here("predict", out, "a lovely film\nindeed")
    assert re.fullmatch(r"good or so\t\d\.\d{3}\ta lovely film indeed\n", said.out)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command("schema"), stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"tunelab: No space left on device. Make room")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_predict_in_windows_says_what_it_says_at_once(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    from tunelab.data import read_texts, write_table
    from tunelab.data.texts import TextFile, TextTable

    source = tmp_path / f"in.{suffix}"
    write_table(source, {"text": [text for text, _ in reviews(50, seed=9)] + ["", " "]})
    args = ("predict", trained["svm-tfidf"], "--file", source)

    def labelled(out: Path) -> TextTable:
        said = run_here(*args, "--output-file", out)
        assert said.code == 0, said.err
        assert "Labelled 52 texts" in said.err
        return read_texts(out)

    once, printed = labelled(tmp_path / f"once.{suffix}"), run_here(*args, "--json").out
    whole = TextFile.windows
    monkeypatch.setattr(TextFile, "windows", lambda file, size=7: whole(file, size))
    many = labelled(tmp_path / f"many.{suffix}")
    assert many.columns == once.columns
    assert len({*once.columns["predicted_label"]}) == 2
    assert run_here(*args, "--json").out == printed


def test_predict_refuses_a_file_with_a_fault_and_keeps_what_was_there(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.csv"
    source.write_text('{"text": "a lovely film"}\n' * 5000 + '{"text": 7}\n')
    out.write_text("before")
    said = run_here("predict", trained["svm-tfidf"], "--file", source, "--output-file", out)
    assert said.code == 2
    assert "line 5001: 7" in said.err
    assert out.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out.csv"]


def test_predict_in_bfloat16_agrees_and_an_svm_says_that_it_cannot(
    trained: dict[str, Path],
) -> None:
    texts = ["a lovely warm film", "grim and dull"]
    exact = predict_json(trained["lora"], "--precision", "float32", *texts)
    usual = predict_json(trained["lora"], *texts)
    for a, b in zip(exact, usual, strict=True):
        assert a["probabilities"]["good"] == pytest.approx(b["probabilities"]["good"], abs=1e-4)
    half = predict_json(trained["lora"], "--precision", "bfloat16", *texts)
    for a, b in zip(exact, half, strict=True):
        assert a["label"] == b["label"]
        assert a["probabilities"]["good"] == pytest.approx(b["probabilities"]["good"], abs=0.02)
    assert exact != half  # it does compute in another precision
    said = run_here("predict", trained["svm-tfidf"], "--precision", "bfloat16", "x")
    assert said.code == 2
    assert "found svm-tfidf" in said.err


def test_predict_reads_standard_input(trained: dict[str, Path]) -> None:
    found = predict_json(trained["svm-tfidf"], "-", stdin="a lovely film\ngrim and dull\n")
    assert [f["label"] for f in found] == ["good", "bad"]


@pytest.mark.parametrize("method", METHODS)
def test_predict_takes_odd_texts(trained: dict[str, Path], method: str) -> None:
    odd = ["", "   ", "\n\t", "😀 é 中文 \u200b", "w" * 50_000, "a\tb\nc", "--not-a-flag"]
    found = tunelab.load(trained[method]).predict_proba(odd)
    assert found.shape == (7, 2)
    assert np.isfinite(found).all()
    said = run_here("predict", trained[method], "", "a\tb\nc")
    assert said.code == 0, said.err
    assert len(said.out.splitlines()) == 2


def test_predict_a_text_that_looks_like_a_flag(trained: dict[str, Path]) -> None:
    (one,) = predict_json(trained["svm-tfidf"], "--", "--dull")
    assert one["text"] == "--dull"


@pytest.mark.parametrize("method", METHODS)
def test_no_texts_give_no_predictions(trained: dict[str, Path], method: str) -> None:
    model = tunelab.load(trained[method])
    assert model.predict([]) == []
    assert model.predict_proba([]).shape == (0, 2)


@pytest.mark.parametrize("method", METHODS)
def test_batching_and_order_do_not_change_predictions(
    trained: dict[str, Path], method: str
) -> None:
    texts = [text for text, _ in reviews(20, seed=3)] + ["a " * 40, "good"]
    model = tunelab.load(trained[method])
    together = model.predict_proba(texts)
    alone = np.concatenate([model.predict_proba([t]) for t in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_predict_from_a_study_a_trial_and_an_artifact(study_dir: Path) -> None:
    best = run_here("predict", study_dir, "a lovely film")
    assert best.code == 0, best.err
    trial = next((study_dir / "trials").glob("lora-*"))
    assert predict_json(trial, "x") == predict_json(trial / "artifact", "x")


@pytest.mark.parametrize("method", METHODS)
def test_every_artifact_keeps_its_temperature(trained: dict[str, Path], method: str) -> None:
    folder = trained[method]
    kept = json.loads((folder / "calibration.json").read_text())
    plain = predict_json(folder, "a film")
    if kept["temperature"] is None:  # few rows, or few mistakes
        assert kept["rows"] < 50 or "mistakes" in kept["reason"]
        said = run_here("predict", folder, "a film", "--calibrated")
        assert said.code == 2
        assert kept["reason"] in said.err
        return
    assert kept["log_loss"]["after"] <= kept["log_loss"]["before"] + 1e-6
    truer = predict_json(folder, "a film", "--calibrated")
    assert [row["label"] for row in truer] == [row["label"] for row in plain]


def test_a_moved_artifact_still_works(trained: dict[str, Path], tmp_path: Path) -> None:
    for method in ("svm-tfidf", "full", "lora"):
        moved = tmp_path / method
        shutil.copytree(trained[method], moved)
        assert predict_json(moved, "a film") == predict_json(trained[method], "a film")


def test_overwrite_replaces_a_classifier(
    cli: Callable[..., Said], reviews_csv: Path, tmp_path: Path, trained: dict[str, Path]
) -> None:
    shutil.copytree(trained["lora"], tmp_path / "out")
    said = cli("train", reviews_csv, "--method", "svm-tfidf", "--seed", 1, "--output-dir", "out",
               "--overwrite")  # fmt: skip
    assert said.code == 0, said.err
    assert json.loads((tmp_path / "out/trial/spec.json").read_text())["seed"] == 1
    assert not (tmp_path / "out/adapter_model.safetensors").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


LABELS: dict[str, list[Any]] = {
    "numbers as text": ["10", "2", "1"],
    "unsorted words": ["zebra", "ape", "Mole"],
    "ints 1 to 5": [1, 2, 3, 4, 5],
    "bools": [True, False],
}


@pytest.mark.parametrize("name", LABELS)
def test_label_names_survive_into_another_process(name: str, tmp_path: Path) -> None:
    labels = LABELS[name]
    words = ["alpha", "beta", "gamma", "delta", "omega"]
    rows = [(f"{words[i % len(labels)]} {i}", labels[i % len(labels)]) for i in range(60)]
    if name == "bools":
        import pyarrow as pa

        data = tmp_path / "r.parquet"
        pq.write_table(
            pa.table({"text": [t for t, _ in rows], "label": [y for _, y in rows]}), data
        )
    else:
        data = write_csv(tmp_path / "r.csv", rows, ["text", "label"])
    tunelab.compare(
        data, methods=["svm-tfidf"], seeds=1, output_dir=tmp_path / "out", engine="inline"
    )
    code = (
        "import sys, json, tunelab\n"
        "m = tunelab.load(sys.argv[1])\n"
        "print(json.dumps([m.label_names, m.predict(json.loads(sys.argv[2]))]))\n"
    )
    asked = [f"{words[i]} 1" for i in range(len(labels))]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out"), json.dumps(asked)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names, predicted = json.loads(done.stdout)
    expected = {
        "numbers as text": ["1", "2", "10"],
        "unsorted words": ["Mole", "ape", "zebra"],
        "ints 1 to 5": ["1", "2", "3", "4", "5"],
        "bools": ["False", "True"],
    }
    assert names == expected[name]
    assert predicted == [str(y) for y in labels]


# --- other tools read what we write ---------------------------------------------------------


def logits(model: Any, folder: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        out = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt"))
    return np.asarray(out.logits.numpy())


TEXTS = ["a lovely warm film", "grim", "the plot was dull and the actor was cold"]


@pytest.mark.filterwarnings("ignore")
def test_peft_loads_a_lora_artifact(trained: dict[str, Path]) -> None:
    from peft import AutoPeftModelForSequenceClassification

    folder = trained["lora"]
    theirs = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    ours = tunelab.load(folder).classifier.scores(TEXTS)
    np.testing.assert_allclose(logits(theirs, folder, TEXTS), ours, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_transformers_loads_a_full_artifact(trained: dict[str, Path]) -> None:
    from transformers import pipeline

    folder = trained["full"]
    theirs = pipeline("text-classification", model=str(folder), top_k=None)(TEXTS)
    ours = tunelab.load(folder)
    for found, p in zip(theirs, ours.predict_proba(TEXTS), strict=True):
        scores = {f["label"]: f["score"] for f in found}
        assert scores == pytest.approx(dict(zip(ours.label_names, p, strict=True)), abs=1e-6)


# --- Python, help, schema -------------------------------------------------------------------


def test_python_does_the_same(study_dir: Path, reviews_csv: Path, tiny_bert: Path) -> None:
    data = tunelab.load_data(reviews_csv)
    assert [len(s) for s in data.parts.values()] == [112, 24, 24]
    settings = {"num_train_epochs": 1, "max_length": 32, "per_device_train_batch_size": 8}
    before = {p.name: p.stat().st_mtime_ns for p in (study_dir / "trials").iterdir()}
    study = tunelab.compare(
        reviews_csv, model=str(tiny_bert), seeds=2, tuning=False, output_dir=study_dir, **settings
    )
    assert {p.name: p.stat().st_mtime_ns for p in (study_dir / "trials").iterdir()} == before
    table = study.table()
    assert len(table) == 4
    assert "test_accuracy" in table.columns
    model = tunelab.load(study.best())
    assert set(model.predict(TEXTS)) <= {"bad", "good"}
    assert model.predict_proba(TEXTS).sum(axis=1) == pytest.approx(1)
    assert model.predict("one text") == model.predict(["one text"])
    with pytest.raises(tunelab.TunelabError, match="Text 1 is int"):
        model.predict(["a", 3])  # type: ignore[list-item]


def test_schema_accepts_the_configs_and_refuses_nonsense(study_dir: Path) -> None:
    import jsonschema

    schema = json.loads(run_here("schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    files = [*(ROOT / "configs").glob("*.yaml"), study_dir / "study.yaml"]
    for file in files:
        jsonschema.validate(yaml.safe_load(file.read_text()), schema)
    for wrong in ({"data": "x", "modle": "y"}, {"data": "x", "methods": [{"name": "lorra"}]},
                  {"data": "x", "methods": [{"name": "lora", "rr": 1}]}):  # fmt: skip
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_version_and_help_load_no_torch() -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['tunelab', *sys.argv[1:]]\n"
        "try:\n    runpy.run_module('tunelab.cli', run_name='__main__')\n"
        "except SystemExit as e:\n    assert not e.code, e.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'pandas', 'sklearn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    for args in (["--version"], ["--help"], ["compare", "--help"], ["train", "-h"], []):
        done = subprocess.run(
            [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.strip()
    assert run_here("--version").out.strip() == f"tunelab, version {tunelab.__version__}"


def test_help_names_every_setting() -> None:
    from tunelab.study.file import setting_fields

    said = run_here("compare", "--help")
    assert all("--" + name.replace("_", "-") in said.out for name in setting_fields())


def test_inspect_data_and_model(reviews_csv: Path, tiny_bert: Path) -> None:
    said = run_here("inspect", "data", reviews_csv, "--model", tiny_bert, "--max-length", 11,
                    "--json")  # fmt: skip
    facts = json.loads(said.out)
    assert facts["sizes"] == {"train": 112, "validation": 24, "test": 24}
    cut = facts["tokens"]["parts"]["train"]["cut"]
    assert 0 < cut < 112
    facts = json.loads(run_here("inspect", "model", tiny_bert, "--json").out)
    assert (facts["layers"], facts["hidden_size"]) == (2, 32)
    assert facts["methods"]["lora"]["adapter_parameters"] == 7168
    for what in (["data", reviews_csv, "--model", tiny_bert], ["model", tiny_bert]):
        shown = run_here("inspect", *what)
        assert shown.code == 0, shown.err
        assert "Traceback" not in shown.err
        assert len(shown.out) > 500


def in_a_terminal(columns: int, *args: str) -> list[str]:
    """Lines that a command writes to a terminal of so many columns, without their colours."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES", "NO_COLOR"}}
    with subprocess.Popen(
        [sys.executable, "-m", "tunelab.cli", *args], stdin=secondary, stdout=secondary,
        stderr=subprocess.PIPE, env={**env, "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(secondary)
        seen = b""
        while piece := _read(primary):
            seen += piece
    os.close(primary)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode()).replace("\r", "").splitlines()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_table_fits_the_terminal(study_dir: Path, columns: int) -> None:
    lines = in_a_terminal(columns, "runs", "show", str(study_dir))
    # What is there to be copied stays in one piece.
    path = [x for x in lines if x.startswith(("Report: ", "Use it: ", "Reasons and conditions: "))]
    assert len(path) == 3
    assert max(len(line) for line in lines if line not in path) <= columns
    # One table: neither a heading nor a name is cut, and what has no room is named.
    text = " ".join(" ".join(lines).split())
    assert all(x in text for x in ("Validation", "accuracy,", "Training", "Latency", "svm-tfidf"))
    assert sum(line.startswith("Method") for line in lines) == 1
    assert ("No room for" in text) == (columns < 200)
