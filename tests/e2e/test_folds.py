"""Cross-fitting on real, tiny trainings: every row is tested once, and what comes of that."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tunelab
from commands import Said, run_here
from tunelab import data, study
from tunelab.analysis.folds import final_trial
from tunelab.core import study_folder
from tunelab.core.errors import ArtifactError
from tunelab.core.values import DataSpec
from tunelab.study import resolve, trial

METHODS = ("--methods", "svm-tfidf,svm-tfidf", "--set", "methods.1.c=0.001",
           "--set", "methods.1.label=stiff")  # fmt: skip


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory, reviews_csv: Path) -> Path:
    """Two SVMs with six seeds: six folds by default, as the data has no test part."""
    folder = tmp_path_factory.mktemp("folds") / "study"
    done = run_here("compare", reviews_csv, *METHODS, "--seeds", "6", "--output-dir", folder)
    assert done.code == 0, done.err
    return folder


def whole_ids(source: Path) -> tuple[str, ...]:
    return data.tested_rows(data.load(DataSpec(str(source)))).ids


def test_the_plan_says_that_every_row_is_tested_and_what_a_fold_has(
    cli: Callable[..., Said], reviews_csv: Path
) -> None:
    said = cli("compare", reviews_csv, *METHODS, "--seeds", "6", "--dry-run")
    words = " ".join(said.err.split())
    assert "6 folds: every one of 160 rows is tested once; in each about 109 to train" in words
    assert "12 to run" in words
    assert "(160 test rows" in words  # what the study can find rests on all of them
    few = cli("compare", reviews_csv, *METHODS, "--seeds", "3", "--dry-run")
    assert "with --seeds 6 all 160 rows would be tested" in " ".join(few.err.split())


def test_every_row_is_tested_once_by_each_method_and_alike(folded: Path, reviews_csv: Path) -> None:
    found = tunelab.Study(folded).predictions()
    assert set(found["repetition"]) == {0}
    assert sorted(set(found["fold"])) == list(range(6))
    for _, own in found.groupby("label"):
        assert Counter(own["id"]) == Counter(whole_ids(reviews_csv))
    rows = found.groupby(["seed", "label"])["id"].apply(tuple).unstack()
    assert (rows["stiff"] == rows.drop(columns="stiff").iloc[:, 0]).all()
    with (folded / "results.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    assert [r["fold_number"] for r in table if r["label"] == "stiff"] == list("012345")
    kept = study_folder.read_rows(folded)
    assert kept is not None
    assert kept.ids == whole_ids(reviews_csv)


def test_no_row_of_a_fold_is_in_what_its_trial_was_trained_on(folded: Path) -> None:
    from tunelab.study import folding

    for r in tunelab.Study(folded).record.done:
        rows = trial.rows_for_trial(folding.loaded_for(r.spec), r.spec)
        tested = set(study_folder.read_predictions(folded, r.spec.trial_id)["test"].ids)
        assert tested == set(rows.test.ids)
        assert not tested & {*rows.train.ids, *rows.validation.ids}


def test_what_is_said_of_it_says_that_it_is_cross_fitted(folded: Path) -> None:
    said = "cross-fitted (6 folds: every one of 160 rows is tested once)"
    shown = run_here("runs", "show", folded)
    assert said in " ".join(shown.out.split())
    written = json.loads((folded / "comparison.json").read_text(encoding="utf-8"))
    assert said in written["answer"]["sure"]
    (pair,) = written["comparisons"]
    assert pair["difference"]["n"] == 6
    assert pair["difference"]["low"] < pair["difference"]["high"]
    for row in written["rows"]:
        estimate = row["estimates"]["test_accuracy"]
        assert estimate["low"] < estimate["high"]
    judged = json.loads(run_here("calibration", folded, "--json").out)["methods"]
    assert [m["before"]["ece"]["n"] for m in judged] == [6, 6]
    cut = json.loads(run_here("slices", folded, "--by", "label", "--json").out)["slices"]
    assert {s["rows"] for s in cut} == {80}  # all rows of a label, whichever seed tested them
    page = (folded / "report.html").read_text(encoding="utf-8")
    assert "Cross-fitted: 6 folds: every one of 160 rows is tested once." in page
    assert "6 folds: every one of 160 rows is tested once; in each about 109 to train" in page
    mistakes = page[page.index('id="mistakes"') :]
    assert "of 160 test rows are wrong for at least one method" in " ".join(mistakes.split())


def test_running_it_again_runs_nothing(folded: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in (folded / "trials").iterdir()}
    assert len(before) == 13  # six folds of two methods, and one training on all rows
    done = run_here("compare", folded / "study.yaml")
    assert done.code == 0, done.err
    assert "0 to run, 12 already done" in done.err
    assert before == {p.name: p.stat().st_mtime_ns for p in (folded / "trials").iterdir()}


def test_the_classifier_of_the_study_was_trained_on_all_rows(
    folded: Path, reviews_csv: Path, tmp_path: Path
) -> None:
    made = tunelab.Study(folded)
    final = final_trial(made.record)
    assert final is not None
    assert final.spec.method.label == made.recommend().choice
    assert not any(k.startswith("test_") for k in final.scores)
    rows = trial.rows_for_trial(data.load(DataSpec(str(reviews_csv))), final.spec)
    assert {*rows.train.ids, *rows.validation.ids} == set(whole_ids(reviews_csv))
    assert len(rows.test) == 0
    best = made.best()
    assert best.directory == study_folder.artifact_dir(folded, final.spec.trial_id)
    expected = best.manifest["expected"]
    estimate = made.summary.row(final.spec.method.label).estimates["test_accuracy"]
    assert isinstance(expected, dict)
    assert estimate is not None
    assert expected["value"] == estimate.value
    assert "6 folds: every one of 160 rows is tested once" in str(expected["from"])
    card = (best.directory / "README.md").read_text(encoding="utf-8")
    assert "No rows were left to test this classifier." in card
    assert "all 160 rows" in card
    assert run_here("predict", folded, "a lovely warm film").code == 0

    out = tmp_path / "other"
    said = run_here("train", "--from-study", folded, "--method", "stiff", "--output-dir", out)
    assert said.code == 0, said.err
    assert "stiff: trained on all rows, none left to test it. To expect: " in said.out
    assert tunelab.load(out).predict(["a lovely warm film"])
    assert study_folder.spec_of(out) is not None
    # What was asked for last is the study's.
    assert (
        tunelab.Study(folded).best().manifest["files"]
        == tunelab.load(out).artifact.manifest["files"]
    )
    again = run_here("train", "--from-study", folded, "--output-dir", out)
    assert again.code == 2
    assert "not empty. Give --overwrite" in again.err


def test_seeds_that_are_added_test_other_parts_and_keep_what_is_there(
    folded: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "study"
    shutil.copytree(folded, copy)
    before = {p.name: p.stat().st_mtime_ns for p in (copy / "trials").iterdir()}
    said = run_here("extend", copy, "--seeds", "8")
    assert said.code == 0, said.err
    assert "every one of 160 rows is tested once or twice" in " ".join(said.err.split())
    after = {p.name: p.stat().st_mtime_ns for p in (copy / "trials").iterdir()}
    assert before.items() <= after.items()
    found = tunelab.Study(copy).predictions()
    (pair,) = tunelab.Study(copy).summary.comparisons
    assert pair.difference.n == 8
    new = found[found["seed"] >= 6]
    assert sorted(set(zip(new["repetition"], new["fold"], strict=True))) == [(1, 0), (1, 1)]
    old = set(found[(found["seed"] == 0)]["id"])
    assert set(new[new["seed"] == 6]["id"]) != old
    # What "auto" says of more seeds in the same folder is what it has.
    resolved = yaml.safe_load((copy / "study.yaml").read_text(encoding="utf-8"))
    assert resolved["folds"] == 6
    flags = {k: resolved[k] for k in ("methods", "model")} | {"seeds": 12}
    spec = resolve.resolve_study(
        None, flags | {"data.source": resolved["data"]["source"], "output_dir": str(copy)}
    )
    assert study.plan(spec).spec.parts == 6


def test_a_study_from_one_test_part_stays_one_and_has_no_training_on_all_rows(
    cli: Callable[..., Said], reviews_csv: Path
) -> None:
    run = ("compare", reviews_csv, "--methods", "svm-tfidf", "--output-dir", "plain")
    assert cli(*run, "--seeds", "1").code == 0
    more = cli(*run, "--seeds", "6", "--dry-run")
    words = " ".join(more.err.split())
    assert "one test part, as the study in plain has; in another --output-dir all 160 rows" in words
    assert "0 to run, 1 already done, 5 that a run with another seed serves too" in words
    refused = cli("train", "--from-study", "plain")
    assert refused.code == 2
    assert "plain: its methods were tested on one part of the data" in refused.err
    both = cli("train", reviews_csv, "--from-study", "plain", "--r", "4")
    assert both.code == 2
    assert "train --from-study: takes data, model and settings from the study" in both.err
    nothing = cli("train", reviews_csv)
    assert nothing.code == 2
    assert "Missing option '--method'" in nothing.err


def test_without_a_training_on_all_rows_the_study_says_how_to_make_one(
    folded: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "study"
    shutil.copytree(folded, copy)
    (copy / "final.json").unlink()
    with pytest.raises(ArtifactError, match="Train one: tunelab train --from-study"):
        tunelab.Study(copy).best()
    made = tunelab.Study(copy).train_on_all_rows("stiff")
    assert made.directory.parent.name.startswith("svm-tfidf-")
    unknown = run_here("train", "--from-study", copy, "--method", "stif")
    assert unknown.code == 2
    assert "no method 'stif'. Did you mean 'stiff'?" in unknown.err


def test_each_fold_of_a_transformer_chooses_its_settings_for_itself(
    tmp_path: Path, reviews_csv: Path, tiny_bert: Path
) -> None:
    given: dict[str, Any] = {
        "model": str(tiny_bert), "methods": ["full"], "seeds": 3, "folds": 3, "engine": "inline",
        "num_train_epochs": 2, "max_length": 16, "per_device_train_batch_size": 16,
        "tuning": {"learning_rate": [1e-6, 1e-2]}, "train_sizes": [30, "all"],
        "on_leak": "drop", "output_dir": tmp_path / "s",
    }  # fmt: skip
    made = tunelab.compare(reviews_csv, **given)
    recorded = made.record.tuning
    assert recorded is not None
    entry = recorded["methods"]["full"]
    assert len(entry["tries"]) == 6
    assert [(f["repetition"], f["fold"]) for f in entry["folds"]] == [(0, 0), (0, 1), (0, 2)]
    by_id = {t["trial_id"]: t for t in entry["tries"]}
    for r, fold in zip(made.record.done, entry["folds"], strict=True):
        assert r.spec.fold is not None
        assert r.spec.fold.number == fold["fold"]
        own = [by_id[i] for i in fold["trials"]]
        assert len(own) == 2
        assert fold["chosen"] in [t["settings"] for t in own]
        assert r.spec.method.settings["learning_rate"] == fold["chosen"]["learning_rate"]
        for i in fold["trials"]:  # a try sees its own fold's rows, and none of its test part
            tried = study_folder.read_result(tmp_path / "s", i)
            assert tried is not None
            assert tried.spec.fold == r.spec.fold
    assert made.record.curves is not None
    assert made.record.curves["sizes"][0] == 30
    final = final_trial(made.record)
    assert final is not None
    assert final.spec.method.settings["learning_rate"] == entry["chosen"]["learning_rate"]
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s/trials").iterdir()}
    assert len(kept) == 6 + 3 + 3 + 1
    tunelab.compare(reviews_csv, **given)
    assert kept == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s/trials").iterdir()}
