"""A study of several labels a text, from a file to predictions, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tunelab
from commands import FAST, Said, run_here
from tiny import BAD, GOOD, PLAIN
from tunelab.core import study_folder
from tunelab.core.errors import DataError

WORDS = {"praise": GOOD, "blame": BAD, "cast": ("actor", "scene")}


def rows(n: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    out: list[dict[str, object]] = []
    for i in range(n):
        labels = [name for name in WORDS if rng.random() < 0.4]
        said = [*rng.choice(PLAIN[:2] + PLAIN[4:], 5), *(rng.choice(WORDS[k]) for k in labels)]
        rng.shuffle(said)
        out.append({"text": f"{' '.join(said)} {i}", "labels": labels})
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several") / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, rows(120))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def study(data: Path, tiny_bert: Path) -> tuple[Path, Said]:
    folder = data.parent / "study"
    said = run_here("compare", data, "--model", tiny_bert, "--methods", "svm-tfidf,logistic,lora",
                    "--seeds", "2", "--output-dir", folder, *FAST)  # fmt: skip
    assert said.code == 0, said.err
    return folder, said


def test_a_study_says_its_task_and_judges_by_micro_f1(study: tuple[Path, Said]) -> None:
    folder, said = study
    assert "several labels a text" in said.err + said.out
    assert "Test micro F1, %" in " ".join((said.out + said.err).split())
    record = study_folder.read_study(folder)
    assert record.settings["metric"] == "f1_micro"
    assert record.settings["data"]["task"] == record.data["task"] == "multilabel"
    best = [r for r in record.done if r.spec.method.name == "svm-tfidf"]
    assert all(float(r.scores["test_f1_micro"] or 0) > 0.7 for r in best)
    lora = next(m for m in record.settings["methods"] if m["name"] == "lora")
    assert lora["metric_for_best_model"] == "f1_micro"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Test micro F1" in page
    assert "cast | praise" in page  # a row's labels, among the mistakes
    assert run_here("runs", "check", folder).code == 0
    for result in record.done:
        card = study_folder.artifact_dir(folder, result.spec.trial_id) / "README.md"
        words = card.read_text(encoding="utf-8")
        assert "predict_labels([" in words
        assert ("sigmoid" in words) == (result.spec.method.name == "lora")


def test_thresholds_are_kept_and_read(study: tuple[Path, Said]) -> None:
    folder, _ = study
    record = study_folder.read_study(folder)
    for result in record.done:
        stored = record.predictions(result.spec.trial_id)["test"]
        loaded = tunelab.load(study_folder.artifact_dir(folder, result.spec.trial_id))
        assert loaded.thresholds == pytest.approx(stored.thresholds)
        texts = study_folder.read_rows(folder, "test").texts
        assert (loaded.decided(loaded.predict_proba(list(texts))) == stored.predicted).all()


def test_predict_gives_all_labels(study: tuple[Path, Said], tmp_path: Path) -> None:
    folder, _ = study
    record = study_folder.read_study(folder)
    trial = next(r for r in record.done if r.spec.method.name == "svm-tfidf")
    artifact = study_folder.artifact_dir(folder, trial.spec.trial_id)
    said = run_here("predict", artifact, "a good film and a dull actor 7", "the plot 3")
    first, second = (line.split("\t") for line in said.out.splitlines())
    assert set(first[0].split("|")) == set(WORDS)
    assert second[0] == "-"
    answer = json.loads(run_here("predict", artifact, "--json", "a good film 7").out)
    assert answer["labels"][0] == "praise"
    assert set(answer["probabilities"]) == set(WORDS)
    texts = tmp_path / "t.csv"
    texts.write_text("text\na good film and a dull actor 7\nthe plot 3\n", encoding="utf-8")
    out = tmp_path / "o.csv"
    assert run_here("predict", artifact, "--file", texts, "--output-file", out).code == 0
    head, one, two = out.read_text(encoding="utf-8").splitlines()
    assert head.startswith("text,predicted_labels,probability_")
    assert len(one.split(",")[1].split("|")) == 3
    assert two.split(",")[1] == ""
    for flags in (["--explain"], ["--abstain", "0.1"]):
        said = run_here("predict", artifact, *flags, "a good film")
        assert (said.code, len(said.err.strip().splitlines())) == (2, 1)
    loaded = tunelab.load(artifact)
    assert loaded.predict_labels(["the plot 3"]) == [()]
    with pytest.raises(DataError, match="predict_labels"):
        loaded.predict(["the plot 3"])


def test_a_saved_classifier_is_evaluated(study: tuple[Path, Said], data: Path) -> None:
    folder, _ = study
    said = run_here("evaluate", folder, "--data", data, "--part", "test", "--json")
    scores = next(iter(json.loads(said.out)["scores"].values()))
    assert scores["f1_micro"] > 0.5
    assert "accuracy" not in scores
    shown = run_here("evaluate", folder, "--data", data)
    assert shown.code == 0, shown.err
    assert "by class" in shown.out


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--methods", "knn,svm"], "'knn' predicts one class a text"),
        (["--metric", "mcc"], "mcc is not for several labels"),
        (["--race"], "race is decided by the accuracy of one class"),
        (["--behaviour"], "behaviour: the suites expect one class"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    data: Path, tmp_path: Path, asked: list[str], said: str
) -> None:
    refused = run_here("compare", data, *asked, "--output-dir", tmp_path / "s")
    assert refused.code == 2
    assert said in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("method", ["svm-tfidf", pytest.param("lora", marks=pytest.mark.slow)])
def test_an_export_says_the_same(study: tuple[Path, Said], tmp_path: Path, method: str) -> None:
    pytest.importorskip("onnxruntime")
    folder, _ = study
    record = study_folder.read_study(folder)
    trial = next(r for r in record.done if r.spec.method.name == method)
    artifact = study_folder.artifact_dir(folder, trial.spec.trial_id)
    out = tmp_path / "o"
    said = run_here("export", artifact, "--to", "onnx", "--output-dir", out)
    assert said.code == 0, said.err
    texts = list(study_folder.read_rows(folder, "test").texts)
    loaded, exported = tunelab.load(artifact), tunelab.load(out)
    assert exported.task == "multilabel"
    assert np.abs(loaded.predict_proba(texts) - exported.predict_proba(texts)).max() < 1e-4
    assert loaded.predict_labels(texts) == exported.predict_labels(texts)
    if method == "lora":
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
        assert config["problem_type"] == "multi_label_classification"


@pytest.mark.parametrize("verb", ["serve", "ensemble"])
def test_what_takes_one_class_says_so(study: tuple[Path, Said], verb: str) -> None:
    folder, _ = study
    said = run_here(verb, folder, *(["--port", "0"] if verb == "serve" else []))
    assert said.code == 2
    assert "several labels" in said.err
    assert "Traceback" not in said.err
