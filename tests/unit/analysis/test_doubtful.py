"""Doubtful labels by a study's own models, in the report's place of the data gate's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from studies import make_study
from tunelab.analysis.doubtful import gate_after_training, mean_probabilities, rows_in_doubt
from tunelab.analysis.reading import read_runs
from tunelab.core import study_folder
from tunelab.core.values import DataSpec, Predictions, Split
from tunelab.data import Gate, load
from tunelab.data.gate import values
from tunelab.stats import Runs

GATE = Gate("demo", "f", {}, (), {}, ("no label is called doubtful: TF-IDF is weak",))


def made_runs(
    ids: tuple[str, ...], labels: np.ndarray, truth: np.ndarray, strength: float
) -> dict[str, dict[str, Runs]]:
    """Two methods of three seeds on test: logits and margins around the truth, errors shared."""
    rng = np.random.default_rng(0)
    hard = rng.normal(size=(len(truth), 2))
    runs = {}
    for method, kind in (("lora", "logit"), ("svm", "margin")):
        by_seed = {}
        for seed in range(3):
            scores = hard + 0.3 * rng.normal(size=hard.shape)
            scores[np.arange(len(truth)), truth] += strength
            by_seed[seed] = Predictions(ids, labels, scores, kind)  # type: ignore[arg-type]
        runs[method] = Runs(method, by_seed)
    return {"test": runs, "validation": {}}


def a_study(tmp_path: Path, gate: Gate | None = GATE) -> study_folder.StudyRecord:
    folder = make_study(tmp_path, rows=60)
    ids = tuple(f"test:{i}" for i in range(1500))
    labels = np.random.default_rng(2).integers(0, 2, len(ids))
    whole = load(DataSpec("demo"))
    test = Split(ids, tuple(f"text number {i}" for i in range(1500)), labels)
    study_folder.write_rows(folder, replace(whole, test=test))
    if gate is not None:
        study_folder.write_extra(folder, "gate", values.gate_to_json(gate))
    return study_folder.read_study(folder)


def test_trained_models_list_what_tfidf_could_not(tmp_path: Path):
    record = a_study(tmp_path)
    rows = study_folder.read_rows(record.directory)
    assert rows is not None
    truth = rows.labels
    wrong = np.random.default_rng(1).random(len(truth)) < 0.1
    labels = np.where(wrong, 1 - truth, truth)
    gate = gate_after_training(record, made_runs(rows.ids, labels, truth, 4.0))
    assert gate is not None
    (finding,) = gate.of("label-errors")
    listed = np.isin(rows.ids, finding.test_ids)
    assert finding.of == len(truth)
    assert "the mean of 2 trained methods" in finding.says
    assert wrong[listed].mean() >= finding.numbers["precision"]
    assert finding.examples[0].rows[0].text
    assert finding.examples[0].rows[0].label in record.data["label_names"]
    assert not any("TF-IDF" in n for n in gate.notes)


def test_weak_models_list_nothing_and_say_why(tmp_path: Path):
    record = a_study(tmp_path)
    rows = study_folder.read_rows(record.directory)
    assert rows is not None
    gate = gate_after_training(record, made_runs(rows.ids, rows.labels, rows.labels, 0.3))
    assert gate is not None
    assert not gate.of("label-errors")
    assert "the mean of 2 trained methods doubts" in gate.notes[-1]
    assert len(gate.notes) == 1


def test_a_study_without_rows_or_gate_keeps_what_it_has(tmp_path: Path):
    record = a_study(tmp_path, None)
    assert gate_after_training(record, read_runs(record)) is None
    with_gate = replace(record, gate=values.gate_to_json(GATE))
    assert gate_after_training(with_gate, {"test": {}, "validation": {}}) == GATE


def test_methods_count_alike_however_many_seeds():
    ids, labels = ("a",), np.array([0])
    sure, unsure = np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])
    many = Runs("x", {s: Predictions(ids, labels, sure, "probability") for s in range(5)})
    few = Runs("y", {0: Predictions(ids, labels, unsure, "probability")})
    label, p = mean_probabilities({"test": {"x": many, "y": few}})["a"]
    assert label == 0
    assert np.allclose(p, [0.75, 0.25])


def test_rows_to_review_are_those_listed_with_their_own_names(tmp_path: Path):
    record = a_study(tmp_path)
    rows = study_folder.read_rows(record.directory)
    assert rows is not None
    truth = rows.labels
    wrong = np.random.default_rng(1).random(len(truth)) < 0.1
    labels = np.where(wrong, 1 - truth, truth)
    runs = made_runs(rows.ids, labels, truth, 4.0)
    doubted = rows_in_doubt(record, runs)
    gate = gate_after_training(record, runs)
    assert gate is not None
    assert tuple(r.id for r in doubted.rows) == gate.of("label-errors")[0].test_ids
    first = doubted.rows[0]
    assert first.text == rows.texts[rows.ids.index(first.id)]
    assert first.likely != first.label
    assert first.of_likely > first.of_label
    weak = rows_in_doubt(record, made_runs(rows.ids, truth, truth, 0.3))
    assert not weak.rows
    assert "the mean of 2 trained methods doubts" in weak.reason
