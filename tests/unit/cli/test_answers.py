"""recommend, sensitivity, rank and evaluate from the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.stats import binomtest

import tunelab
from commands import run_here
from studies import METHODS, make_study
from tiny import reviews, write_csv
from tunelab import data
from tunelab.cli import app
from tunelab.core import artifact, study_folder
from tunelab.core.errors import InputError
from tunelab.core.values import DataSpec, Predictions, Seeds, Split
from tunelab.methods import METHODS as TRAINABLE
from tunelab.methods import Task, fit_alone
from tunelab.models.text_classifier import open_classifier
from tunelab.stats import calibration, metrics, predictions
from tunelab.study import announcing

LORA = METHODS[3]


def run(*words: object) -> str:
    found = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    variants = [
        replace(LORA, label=f"lora[r={r}]", skill=0.7 + r / 40, settings={**LORA.settings, "r": r})
        for r in (4, 16)
    ]
    return make_study(tmp_path_factory.mktemp("grid"), methods=[METHODS[0], *variants], seeds=6)


def test_recommend_says_its_reasons_and_shows_the_front(grid: Path) -> None:
    said = run("recommend", grid, "--margin", 20)
    assert said.startswith("Take svm-tfidf: shown to lose less than 20 points against ")
    assert "\nIf a loss of 20 points is acceptable, svm-tfidf: " in said
    assert "- If no loss at all is acceptable: lora[r=16]" in said
    assert "Beaten by" in said
    assert ", surely" in said or "yes (" in said
    found = json.loads(run("recommend", grid, "--json", "--cost", "artifact_bytes"))
    assert found["recommendation"]["choice"] == "lora[r=16]"
    assert {p["label"] for p in found["front"]["places"]} >= {"svm-tfidf", "lora[r=4]"}


def test_sensitivity_of_the_metric_and_of_a_cost(grid: Path) -> None:
    said = run("sensitivity", grid)
    assert "r explains" in said
    assert "analysis of variance of a full grid of 2 settings x 6 seeds" in said
    (found,) = json.loads(run("sensitivity", grid, "--of", "train_seconds", "--json"))
    assert found["of"] == "train_seconds"
    assert found["effects"][0]["settings"] == ["r"]


def test_nothing_varies_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no method has settings that vary.*r: \[4, 8, 16\]"):
        run("sensitivity", make_study(tmp_path, seeds=1, rows=20))


def test_rank_of_two_studies(grid: Path, tmp_path: Path) -> None:
    methods = [METHODS[0], *(replace(LORA, label=f"lora[r={r}]") for r in (4, 16))]
    other = make_study(tmp_path, methods=methods, source="b.csv", data={"fingerprint": "b" * 64})
    said = run("rank", grid, other)
    assert "Average" in said
    assert "2 data sets: at least 6 are needed" in said
    found = json.loads(run("rank", grid, other, "--json"))
    assert set(found["ranks"]) == {"svm-tfidf", "lora[r=4]", "lora[r=16]"}


# --- evaluate: real classifiers on real rows ------------------------------------------------------


def split(n: int, seed: int) -> Split:
    rows = reviews(n, seed)
    labels = np.array([int(name == "good") for _, name in rows], dtype=np.int64)
    return Split(tuple(f"r{i}" for i in range(n)), tuple(t for t, _ in rows), labels)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two saved SVMs, one trained on a sixth of the rows, and labelled rows."""
    root = tmp_path_factory.mktemp("saved")
    row = TRAINABLE["svm-tfidf"]
    for name, n in (("many", 120), ("few", 12)):
        task = Task(
            label_names=("bad", "good"), train=split(n, 0), validation=split(40, 1), base=None,
            settings=row.settings(), seeds=Seeds(1, 2, 3), metric="accuracy",
            on_step=lambda _: None,
        )  # fmt: skip
        (root / name).mkdir()
        fit_alone(row, task).classifier.save(root / name)
    found = reviews(300, 7)
    columns = {"text": [t for t, _ in found], "label": [name for _, name in found]}
    data.write_table(root / "rows.csv", columns)
    return root / "many", root / "few", root / "rows.csv"


def test_evaluate_two_models_by_mcnemars_exact_test(saved: tuple[Path, Path, Path]) -> None:
    many, few, rows = saved
    found = json.loads(run("evaluate", many, few, "--data", rows, "--part", "all", "--json"))
    labelled = reviews(300, 7)
    right = {}
    for folder in (many, few):
        guesses = open_classifier(folder).predict([t for t, _ in labelled])
        right[folder] = np.array(guesses) == np.array([name for _, name in labelled])
        accuracy = found["scores"][str(folder)]["accuracy"]
        assert accuracy == pytest.approx(right[folder].mean())
    (test,) = found["mcnemar"]
    only = test["only_a_right"], test["only_b_right"]
    assert sum(only) > 0
    assert test["p_value"] == pytest.approx(binomtest(only[0], sum(only), 0.5).pvalue)
    value = tunelab.evaluate([many, few], rows, part="all")
    frame = value.to_frame().set_index("classifier")
    assert frame.loc[str(few), "f1_macro"] == found["scores"][str(few)]["f1_macro"]
    assert value.pairs_to_frame().to_dict("records") == [test]
    assert repr(value).startswith(f"Evaluation(300 rows of {rows}; accuracy, %: ")
    said = run("evaluate", many, few, "--data", rows, "--part", "all")
    assert "exact McNemar" in said
    assert "right alone on" in said
    assert "rows of" in said


def test_a_kept_temperature_is_used_when_asked_for_and_by_evaluate(
    saved: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, few, rows = saved
    folder = shutil.copytree(few, tmp_path / "copy")
    plain = open_classifier(folder)
    texts = [t for t, _ in reviews(300, 7)]
    labels = np.array([plain.label_names.index(name) for _, name in reviews(300, 7)])
    scores = plain.classifier.scores(texts)
    # As if it had been far too sure: its scores, three times as large.
    sure = Predictions(tuple(map(str, range(300))), labels, 3 * scores, "logit")
    calibration.write_calibration(folder, sure)
    opened = artifact.open_artifact(folder)  # checks every hash
    assert artifact.CALIBRATION in opened.manifest["files"]
    temperature = calibration.read_temperature(opened)
    assert temperature == pytest.approx(calibration.fit_temperature(sure))
    known, wrong = calibration.read_abstention(opened), scores.argmax(axis=1) != labels
    given = predictions.probabilities(3 * scores / temperature, "logit").max(axis=1)[wrong]
    assert (known.rows, list(known.wrong)) == (300, pytest.approx(sorted(given, reverse=True)))

    again = open_classifier(folder)
    assert np.array_equal(again.raw().predict_proba(texts), plain.predict_proba(texts))
    expected = predictions.probabilities(scores / temperature, "logit")
    assert again.predict_proba(texts) == pytest.approx(expected)
    assert np.array_equal(again.calibrated().predict_proba(texts), again.predict_proba(texts))
    assert again.predict(texts) == plain.predict(texts)
    unscaled = plain.predict_proba(texts)
    for flags, each in (([], expected), (["--calibrated"], expected), (["--raw"], unscaled)):
        said = run_here("predict", folder, texts[0], *flags, "--json")
        assert said.code == 0, said.err
        shown = json.loads(said.out)["probabilities"]
        assert list(shown.values()) == pytest.approx(each[0], abs=1e-6)
    assert run_here("predict", folder, "x", "--raw", "--calibrated").code == 2

    found = json.loads(run("evaluate", folder, "--data", rows, "--part", "all", "--json"))
    own = found["calibrated"][str(folder)]
    values, _ = metrics.evaluate(
        Predictions(sure.ids, labels, scores / temperature, "logit"), plain.label_names
    )
    assert own["temperature"] == temperature
    assert own["ece"] == pytest.approx(values["ece"])
    assert found["scores"][str(folder)]["ece"] == own["ece"]  # of what predict says
    raw, _ = metrics.evaluate(Predictions(sure.ids, labels, scores, "logit"), plain.label_names)
    assert own["raw_ece"] == pytest.approx(raw["ece"])
    assert "; raw (predict --raw) by" in run("evaluate", folder, "--data", rows)

    kept = folder / artifact.CALIBRATION
    kept.write_text(kept.read_text().replace('"part"', '"Part"'))
    assert f"{artifact.CALIBRATION}: its content is not what was saved" in (
        run_here("predict", folder, "x").err
    )
    kept.unlink()
    artifact.seal_again(folder, {})
    said = run_here("predict", folder, "x", "--calibrated")
    assert said.code == 2
    assert "expected calibration.json, found none" in said.err
    calibration.write_calibration(
        folder, Predictions(sure.ids[:20], labels[:20], scores[:20], "logit")
    )
    said = run_here("predict", folder, "x", "--calibrated")
    assert said.code == 2
    assert "20 validation rows" in said.err
    told = run("evaluate", folder, "--data", rows, "--part", "all")
    assert "not calibrated: it has no temperature" in told


def test_evaluate_scores_every_row_by_class_and_says_what_is_taken_for_what(
    saved: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, few, _ = saved
    labelled = [(text, label) for text, label in reviews(9, 3)]
    rows = write_csv(tmp_path / "nine.csv", labelled, ["text", "label"])
    found = json.loads(run("evaluate", few, "--data", rows, "--json"))
    said = open_classifier(few).predict([text for text, _ in labelled])
    truth = [label for _, label in labelled]
    names = ["bad", "good"]
    counts = [[sum(t == a and p == b for t, p in zip(truth, said, strict=True)) for b in names]
              for a in names]  # fmt: skip
    assert (found["part"], found["rows"], found["label_names"]) == ("all", 9, names)
    assert found["confusion"] == {str(few): counts}
    good = found["per_class"][str(few)]["good"]
    assert good["recall"] == pytest.approx(counts[1][1] / sum(counts[1]))
    assert good["support"] == truth.count("good")
    told = run("evaluate", few, "--data", rows)
    assert "9 rows of" in told
    assert f"{few}, by class" in told
    assert sum(map(sum, counts)) == 9
    wrong = [(a, b) for a, b in ((0, 1), (1, 0)) if counts[a][b]]
    for a, b in wrong:
        assert f"{names[a]} for {names[b]} ({counts[a][b]})" in told
    one = write_csv(
        tmp_path / "one.csv", [r for r in labelled if r[1] == "good"], ["text", "label"]
    )
    assert (
        json.loads(run("evaluate", few, "--data", one, "--json"))["rows"] == len(labelled) // 2 + 1
    )


def test_predict_keeps_ids_and_gives_every_class(
    saved: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    many, _, _ = saved
    labelled = [(f"r-{i}", text) for i, (text, _) in enumerate(reviews(5, 11))]
    rows = write_csv(tmp_path / "in.csv", labelled, ["Review ID", "text"])
    expected = open_classifier(many).predict_proba([text for _, text in labelled])
    asked = ("predict", many, "--file", rows)
    lines = [json.loads(line) for line in run(*asked, "--json").splitlines()]
    assert [line["id"] for line in lines] == [i for i, _ in labelled]
    for out in ("out.csv", "out.jsonl", "out.parquet"):
        said = run_here(*asked, "--output-file", tmp_path / out, "--json")
        assert said.code == 0, said.err
        columns = data.read_texts(tmp_path / out).columns
        assert columns["Review ID"] == [i for i, _ in labelled]
        for k, name in enumerate(("bad", "good")):
            found = [float(v) for v in columns[f"probability_{name}"]]
            assert found == pytest.approx(list(expected[:, k]), abs=1e-6)
    assert run_here(*asked, "--output-file", tmp_path / "plain.csv").code == 0
    assert "probability_good" not in data.read_texts(tmp_path / "plain.csv").columns
    assert not run(*asked).startswith("r-0")
    assert run(*asked, "--id-column", "Review ID").startswith("r-0\t")
    said = run_here(*asked, "--id-column", "nr")
    assert (said.code, "no column 'nr' (--id-column)" in said.err) == (2, True)


def test_evaluate_refuses_other_labels_and_a_folder_twice(
    saved: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    many, few, _ = saved
    other = tmp_path / "other.csv"
    texts = [t for t, _ in reviews(60, 3)]
    data.write_table(other, {"text": texts, "label": ["up", "down"] * 30})
    with pytest.raises(InputError, match="label 'down', 'up' is none of the classifier's"):
        run("evaluate", many, few, "--data", other)
    with pytest.raises(InputError, match="labels 'bad', 'good'; the data has 'down', 'up'"):
        run("evaluate", many, few, "--data", other, "--part", "test")
    with pytest.raises(InputError, match="given twice"):
        run("evaluate", many, many, "--data", other)
    with pytest.raises(InputError, match="are one classifier"):
        run("evaluate", many, many / ".." / "many", "--data", other)


def test_evaluate_reads_a_file_as_training_does(
    saved: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    many, _, _ = saved
    lines = [f'"{t} caf\xe9;{label.upper()}' for t, label in reviews(20, 3)]
    rows = tmp_path / "other.csv"
    rows.write_text("\n".join(["text;label", *lines, ";good", "x;rare"]), encoding="latin-1")
    reading = ("--encoding", "latin-1", "--quoting", "none", "--on-bad-rows", "drop",
               "--join-labels", "--drop-classes", "rare")  # fmt: skip
    found = json.loads(run("evaluate", many, "--data", rows, *reading, "--json"))
    assert (found["rows"], found["label_names"]) == (20, ["bad", "good"])
    told = " ".join(run("evaluate", many, "--data", rows, *reading).split())
    assert "dropped 1 row without text" in told
    assert "left out 1 row of classes that are dropped" in told
    with pytest.raises(InputError, match=r"\(--drop-classes\); --join-labels joins"):
        run("evaluate", many, "--data", rows, *reading[:6])
    whole = write_csv(tmp_path / "whole.csv", reviews(60, 5), ["text", "label"])
    shares = [
        json.loads(run("evaluate", many, "--data", whole, "--part", "test", *seed, "--json"))
        for seed in ((), ("--split-seed", "3"))
    ]
    assert shares[0]["scores"] != shares[1]["scores"]  # other rows are its test part
    with pytest.raises(InputError, match="split_seed and min_rows_per_class say what the parts"):
        run("evaluate", many, "--data", whole, "--split-seed", "3")


def test_evaluate_says_which_rows_a_classifier_was_trained_on(tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "r.csv", reviews(200, seed=5), ["text", "label"])
    folder = tmp_path / "s"
    (tmp_path / "s.yaml").write_text(
        f"data: {{source: {rows}, split_seed: 1}}\nmethods: [svm-tfidf]\nseeds: 1\ntuning: off\n"
        f"output_dir: {folder}\n"
    )
    said = run_here("compare", tmp_path / "s.yaml")
    assert said.code == 0, said.err
    study = study_folder.read_study(folder)
    trained = set(data.load(study.done[0].spec.data).train.texts)
    asked = [t for t in data.load(DataSpec(str(rows))).test.texts if t in trained]
    assert len(asked) > 10  # another split's test rows
    for part, memory, many in ((["--part", "test"], len(asked), 30), ([], len(trained), 200)):
        found = json.loads(run("evaluate", folder, "--data", rows, *part, "--json"))
        assert (found["rows"], found["trained_on"]) == (many, {str(folder): memory})
        told = run("evaluate", folder, "--data", rows, *part)
        assert f"trained on {memory} of these {many} rows" in " ".join(told.split())
    rows.write_text("text,label\n" + "".join(f"new {i},{'good' if i % 2 else 'bad'}\n"
                                             for i in range(40)))  # fmt: skip
    found = json.loads(run("evaluate", folder, "--data", rows, "--json"))
    assert found["trained_on"] == {str(folder): None}  # its own rows are there no more


def test_evaluate_takes_a_studys_best_model_as_predict_does(
    saved: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    many, _, rows = saved
    study = tunelab.compare(
        rows, methods=["svm-tfidf"], seeds=1, output_dir=tmp_path / "s", engine="inline"
    )
    best = study.best().directory
    asked = ("evaluate", many, "--data", rows, "--json")
    by_study, by_folder = (json.loads(run(*asked, f)) for f in (study.directory, best))
    assert by_study["scores"][str(study.directory)] == by_folder["scores"][str(best)]
    said = run("evaluate", study.directory, "--data", rows, "--part", "test")
    assert f"{study.directory}: its best model, {best}." in said
    assert "no test part: " in said
    with pytest.raises(InputError, match="are one classifier"):
        run("evaluate", study.directory, best.parent, "--data", rows)
    facts = json.loads(run("adapters", "show", study.directory, "--json"))
    assert facts["folder"] == str(best)


def test_what_python_users_give_is_understood_or_refused_in_a_line(
    saved: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    many, _, rows = saved
    assert tunelab.load_data(pd.read_csv(rows)).label_names == tunelab.load_data(rows).label_names
    with pytest.raises(InputError, match=r"methods.1: 'loar' is not a method. Did you mean 'lora'"):
        tunelab.compare(rows, methods="svm-tfidf, loar", output_dir=tmp_path / "no")
    with pytest.raises(InputError, match=r"^seed: unknown setting. Did you mean 'seeds'"):
        tunelab.compare(rows, methods="svm-tfidf", seed=1, output_dir=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    classifier = tunelab.load(many)
    assert classifier.predict([]) == []
    assert classifier.predict(pd.Series(["good"])) == classifier.predict("good")
    for wrong, said in ((3, "found 3"), ([None], "Text 0 is NoneType"), (["\udce9"], "surrogate")):
        with pytest.raises(InputError, match=said):
            classifier.predict(wrong)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("accuracy", "accuracy"),
        ("f1_macro", "macro F1 (about, as of accuracy)"),
        ("log_loss", "accuracy (for log loss none is known before)"),
    ],
)
def test_what_a_study_finds_is_said_of_its_own_metric(metric: str, said: str) -> None:
    progress: Any = SimpleNamespace(plan=SimpleNamespace(spec=SimpleNamespace(metric=metric)))
    assert announcing._metric_in_words(progress) == said
