"""The protocol on real, tiny trainings: tuning, seeds that are added, sizes, other data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunelab
from commands import Said
from tiny import reviews, write_csv
from tunelab import data, stats, study
from tunelab.core import artifact, study_folder
from tunelab.core.errors import ConfigError
from tunelab.core.values import DataSpec
from tunelab.study import resolve
from tunelab.study.spreads import keep_spreads, read_spreads

SMALL = {"num_train_epochs": 2, "max_length": 16, "per_device_train_batch_size": 16}


def compare(source: Path, **given: Any) -> tunelab.Study:
    return tunelab.compare(source, engine="inline", **{**SMALL, **given})


def trials(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (folder / "trials").iterdir()}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [(t, y, ("books", "films")[i % 3 == 0]) for i, (t, y) in enumerate(reviews(30, seed=9))]
    path = tmp_path_factory.mktemp("data") / "elsewhere.csv"
    return write_csv(path, rows, ["text", "label", "domain"])


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, reviews_csv: Path, tiny_bert: Path, elsewhere: Path
) -> tunelab.Study:
    """Two methods, two seeds, three rates each, two sizes, scored elsewhere too."""
    folder = tmp_path_factory.mktemp("protocol") / "study"
    return compare(
        reviews_csv, model=str(tiny_bert), methods=["svm-tfidf", "full"], seeds=2,
        train_sizes=[20, "all"], test_on=elsewhere, tuning={"learning_rate": [1e-6, 1e-2]},
        num_train_epochs=4, per_device_train_batch_size=8, output_dir=folder,
    )  # fmt: skip


def test_every_try_is_recorded_and_the_best_on_validation_is_used(made: tunelab.Study) -> None:
    recorded = made.record.tuning
    assert recorded is not None
    assert set(recorded["methods"]) == {"full"}
    entry = recorded["methods"]["full"]
    assert [t["settings"]["learning_rate"] for t in entry["tries"]] == [1e-6, 1e-2]
    best = max(entry["tries"], key=lambda t: t["value"])
    assert best["value"] > min(t["value"] for t in entry["tries"])
    assert entry["chosen"] == best["settings"]
    for r in made.record.results:
        if r.spec.method.label == "full":
            assert r.spec.method.settings["learning_rate"] == best["settings"]["learning_rate"]
    for row in entry["tries"]:
        tried = study_folder.read_result(made.directory, row["trial_id"])
        assert tried is not None
        assert row["seed"] == tried.spec.seed
        assert tried.spec.seed not in made.record.settings["seeds"]


def test_a_try_never_sees_the_test_part(made: tunelab.Study) -> None:
    assert made.record.tuning is not None
    for row in made.record.tuning["methods"]["full"]["tries"]:
        tried = study_folder.read_result(made.directory, row["trial_id"])
        assert tried is not None
        assert all(k.startswith("eval_") for k in tried.scores)
        assert set(study_folder.read_predictions(made.directory, row["trial_id"])) == {"validation"}
        assert not (study_folder.trial_dir(made.directory, row["trial_id"]) / "artifact").exists()


def test_trials_on_fewer_rows_stand_beside_the_table(made: tunelab.Study) -> None:
    assert {r.spec.train_rows for r in made.record.results} == {None}
    assert {r.spec.train_rows for r in made.record.curve} == {20}
    assert len(made.record.curve) == len(made.record.results) == 4
    assert not made.record.missing
    pairs = {(r.spec.method.label, r.spec.seed) for r in made.record.curve}
    assert pairs == {(r.spec.method.label, r.spec.seed) for r in made.record.results}


def test_curves_are_written_and_shown(made: tunelab.Study, cli: Callable[..., Said]) -> None:
    found = made.record.curves
    assert found is not None
    assert found["sizes"] == [20, made.record.data["sizes"]["train"]]
    points = {(p["label"], p["rows"]): p for p in found["points"]}
    assert len(points) == 4
    for label in ("svm-tfidf", "full"):
        scores = [r.scores["test_accuracy"] for r in made.record.curve
                  if r.spec.method.label == label]  # fmt: skip
        assert points[label, 20]["estimate"]["value"] == pytest.approx(np.mean(scores))
        assert points[label, 20]["seeds"] == 2
    said = cli("runs", "show", made.directory)
    assert "Learning curves" in said.out
    assert "On other data" in said.out
    assert "films" in said.out


def test_other_data_is_scored_once_whole_and_by_domain(made: tunelab.Study) -> None:
    for r in made.record.results:
        facts = r.details["transfer"]["elsewhere.csv"]
        assert facts["rows"] == 30
        assert {k: v["rows"] for k, v in facts["domains"].items()} == {"films": 10, "books": 20}
        p = made.record.predictions(r.spec.trial_id)[f"{study_folder.TEST_ON}elsewhere.csv"]
        assert len(p.ids) == 30
        right = p.predicted == p.labels
        assert facts["scores"]["accuracy"] == pytest.approx(right.mean())
        films = np.arange(30) % 3 == 0
        found = facts["domains"]["films"]["scores"]["accuracy"]
        assert found == pytest.approx(right[films].mean())
    for r in made.record.curve:
        assert "transfer" not in r.details


def test_run_again_and_nothing_is_left_to_run(made: tunelab.Study) -> None:
    again = study.read_progress(
        study.plan(resolve.resolve_study(made.directory / "study.yaml", {}))
    )
    assert not again.todo
    assert not again.tries
    assert [t.trial_id for t in again.trials] == made.record.settings["trials"]


def test_seeds_are_added_and_what_is_there_stays(
    reviews_csv: Path, tmp_path: Path, cli: Callable[..., Said]
) -> None:
    first = tunelab.compare(
        reviews_csv, methods=["svm-tfidf"], seeds=[0, 3], engine="inline", output_dir=tmp_path / "s"
    )
    before = trials(first.directory)
    more = first.extend(seeds=4, engine="inline")
    assert [r.spec.seed for r in more.record.results] == [0, 3, 1, 2]
    assert before.items() <= trials(more.directory).items()
    # `seeds` is their number in all, here as in --seeds: what once meant "two more" says so.
    with pytest.raises(ConfigError, match=r"has 4 seeds .* found 2\. For 2 more: --seeds 6"):
        more.extend(2)
    said = cli("extend", "s", "--seeds", 5)
    assert said.code == 0, said.err
    assert "0 to run, 4 already done, 1 that a run with another seed serves too" in said.err
    assert len(tunelab.Study(tmp_path / "s").record.results) == 5
    refused = cli("extend", "s", "--seeds", 4)
    assert refused.code == 2
    assert "has 5 seeds" in refused.err


def test_other_data_is_added_to_trials_without_training_them_again(
    reviews_csv: Path, elsewhere: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"methods": ["svm-tfidf"], "seeds": 1, "engine": "inline",
                             "output_dir": tmp_path / "s"}  # fmt: skip
    first = tunelab.compare(reviews_csv, **given).record.results[0]
    second = tunelab.compare(reviews_csv, test_on=elsewhere, **given).record.results[0]
    assert second.provenance["started"] == first.provenance["started"]
    assert second.scores == first.scores
    assert second.details["transfer"]["elsewhere.csv"]["rows"] == 30
    best = tunelab.load(tmp_path / "s")
    assert best.label_names == ("bad", "good")


def test_other_data_that_changed_is_scored_again_for_every_trial(
    reviews_csv: Path, tmp_path: Path
) -> None:
    path = tmp_path / "o.csv"
    given: dict[str, Any] = {"methods": ["svm-tfidf"], "engine": "inline", "test_on": path,
                             "output_dir": tmp_path / "s"}  # fmt: skip
    for rows, seeds in ((30, 1), (20, 2)):
        write_csv(path, reviews(rows, seed=9), ["text", "label"])
        found = tunelab.compare(reviews_csv, seeds=seeds, **given).record
        assert len(found.results) == seeds
        for r in found.results:
            assert r.details["transfer"].keys() == {"o.csv"}
            assert r.details["transfer"]["o.csv"]["rows"] == rows
            predictions = found.predictions(r.spec.trial_id)
            assert predictions.keys() == {"validation", "test", "test_on:o.csv"}
            assert len(predictions["test_on:o.csv"].labels) == rows
    kept = trials(tmp_path / "s")
    tunelab.compare(reviews_csv, seeds=2, **given)
    assert trials(tmp_path / "s") == kept


def test_other_data_whose_rows_were_trained_on_is_said(
    cli: Callable[..., Said], reviews_csv: Path, tmp_path: Path
) -> None:
    train = data.load(DataSpec(str(reviews_csv))).train
    rows = [
        (f"{t}!", ("bad", "good")[y]) for t, y in zip(train.texts[:7], train.labels, strict=False)
    ]
    new = [(f"entirely other words number {i} here", "good") for i in range(5)]
    path = write_csv(tmp_path / "o.csv", [*rows, *new], ["text", "label"])
    said = cli("compare", reviews_csv, "--test-on", path, "--methods", "svm-tfidf", "--seeds", 1,
               "--tuning", "off", "--output-dir", "s")  # fmt: skip
    assert said.code == 0, said.err
    assert "7 of them stand, or nearly, in train too" in said.err
    (warning,) = [w for w in tunelab.Study(tmp_path / "s").summary.warnings if "o.csv" in w]
    assert warning.startswith("7 of 12 rows of o.csv stand, or nearly, in train: ")


def test_what_an_earlier_run_had_is_not_told_as_this_ones(
    reviews_csv: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"methods": [{"name": "svm-tfidf", "char_ngrams": 0}], "seeds": 1,
                             "engine": "inline", "output_dir": tmp_path / "s"}  # fmt: skip
    more = {"tuning": {"space": {"word_ngrams": [1, 3]}}, "train_sizes": [20]}
    full = tunelab.compare(reviews_csv, **more, **given).record
    assert full.tuning is not None
    assert full.curves is not None
    plain = tunelab.compare(reviews_csv, tuning=False, **given).record
    assert (plain.tuning, plain.curves) == (None, None)
    again = tunelab.compare(reviews_csv, **more, **given).record
    assert again.tuning == full.tuning
    assert again.curves == full.curves


def test_other_data_with_other_labels_is_refused_before_anything_is_run(
    cli: Callable[..., Said], tmp_path: Path, reviews_csv: Path
) -> None:
    write_csv(tmp_path / "o.csv", [("a b", "good"), ("c d", "soso")], ["text", "label"])
    said = cli("compare", reviews_csv, "--test-on", "o.csv", "--methods", "svm-tfidf",
               "--output-dir", "out")  # fmt: skip
    assert said.code == 2
    assert "--test-on o.csv: label 'soso' is none of the training data's" in said.err
    assert not (tmp_path / "out").exists()


def test_a_split_that_varies_is_the_same_for_every_method(
    reviews_csv: Path, tmp_path: Path
) -> None:
    done = tunelab.compare(
        reviews_csv, methods=["svm-tfidf", {"name": "svm-tfidf", "label": "other", "c": 1}],
        seeds=2, vary_split=True, engine="inline", output_dir=tmp_path / "s",
    )  # fmt: skip
    rows: dict[int, set[tuple[str, ...]]] = {}
    tests = set()
    for r in done.record.results:
        p = done.record.predictions(r.spec.trial_id)
        rows.setdefault(r.spec.seed, set()).add(p["validation"].ids)
        tests.add(p["test"].ids)
    assert [len(v) for v in rows.values()] == [1, 1]
    assert rows[0] != rows[1]
    assert len(tests) == 1


def test_smaller_parts_are_nested_stratified_and_drawn_by_the_seed(reviews_csv: Path) -> None:
    whole = data.load(DataSpec(str(reviews_csv)))
    small, large = (data.smaller(whole, n, seed=1).train for n in (10, 40))
    assert set(small.ids) < set(large.ids) < set(whole.train.ids)
    assert np.bincount(small.labels).tolist() == [5, 5]
    assert set(data.smaller(whole, 40, seed=2).train.ids) != set(large.ids)
    other = data.redivided(whole, seed=3)
    pool = {*whole.train.ids, *whole.validation.ids}
    assert {*other.train.ids, *other.validation.ids} == pool
    assert not set(other.train.ids) & set(other.validation.ids)
    assert other.test is whole.test
    assert len(other.validation) == len(whole.validation)


def test_optuna_spends_the_budget_ends_what_is_behind_and_goes_on(
    tmp_path: Path, reviews_csv: Path, tiny_bert: Path
) -> None:
    rates = {"low": 1e-7, "high": 1e-2, "log": True}
    given: dict[str, Any] = {
        "model": str(tiny_bert), "methods": ["full"], "seeds": 1, "output_dir": tmp_path / "s",
        "tuning": {"budget": 5, "space": {"learning_rate": rates}},
    }  # fmt: skip
    done = compare(reviews_csv, **given)
    assert done.record.tuning is not None
    entry = done.record.tuning["methods"]["full"]
    assert len(entry["tries"]) == 5
    assert entry["tries"][0]["settings"] == entry["start"]
    assert {t["status"] for t in entry["tries"]} <= {"done", "pruned"}
    best = max(t["value"] for t in entry["tries"] if t["status"] == "done")
    assert entry["value"] == best
    assert (tmp_path / "s/tuning.optuna.log").is_file()
    kept = trials(tmp_path / "s")
    # A larger budget goes on from there.
    given["tuning"]["budget"] = 6
    more = compare(reviews_csv, **given)
    assert more.record.tuning is not None
    tries = more.record.tuning["methods"]["full"]["tries"]
    assert len(tries) == 6
    assert [t["trial_id"] for t in tries[:5]] == [t["trial_id"] for t in entry["tries"]]
    assert kept.items() <= trials(tmp_path / "s").items()


def test_another_space_or_another_metric_is_searched_anew(
    tmp_path: Path, reviews_csv: Path
) -> None:
    given: dict[str, Any] = {
        "methods": ["svm-tfidf"], "seeds": 1, "output_dir": tmp_path / "s",
        "tuning": {"budget": 2, "space": {"min_df": {"low": 1, "high": 2}}},
    }  # fmt: skip
    tunelab.compare(reviews_csv, engine="inline", **given)
    for changes in (
        {"tuning": {"budget": 2, "space": {"char_ngrams": {"low": 2, "high": 5}}}},
        {"metric": "log_loss"},
    ):
        given |= changes
        found = tunelab.compare(reviews_csv, engine="inline", **given).record.tuning
        assert found is not None
        assert found["metric"] == given.get("metric", "accuracy")
        tries = found["methods"]["svm-tfidf"]["tries"]
        assert [set(t["settings"]) for t in tries] == [{"char_ngrams"}] * 2


def test_tries_that_are_done_are_chosen_from_anew(tmp_path: Path, reviews_csv: Path) -> None:
    given: dict[str, Any] = {
        "methods": [{"name": "svm-tfidf", "char_ngrams": 0}], "seeds": 1,
        "output_dir": tmp_path / "s", "engine": "inline",
    }  # fmt: skip

    def chosen(words: list[int]) -> tuple[Any, Any]:
        record = tunelab.compare(
            reviews_csv, tuning={"space": {"word_ngrams": words}}, **given
        ).record
        assert record.tuning is not None
        entry = record.tuning["methods"]["svm-tfidf"]
        assert sorted(t["settings"]["word_ngrams"] for t in entry["tries"]) == words
        return entry["chosen"]["word_ngrams"], record.results[0].spec.method.settings["word_ngrams"]

    first = chosen([1, 3])
    kept = trials(tmp_path / "s")
    assert chosen([3]) == (3, 3)  # a smaller grid: nothing is left to try
    (tmp_path / "s/tuning.json").unlink()  # stopped after the last try, before it was written
    assert chosen([1, 3]) == first
    assert kept.items() <= trials(tmp_path / "s").items()


def test_a_trial_that_cannot_be_written_anew_stays_done(
    tmp_path: Path, reviews_csv: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {
        "methods": ["svm-tfidf"], "seeds": 1, "output_dir": tmp_path / "s", "engine": "inline",
    }  # fmt: skip
    before = tunelab.compare(reviews_csv, **given).record.results

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("shutil.copytree", full)
        tunelab.compare(reviews_csv, test_on=elsewhere, **given)
    assert study_folder.read_study(tmp_path / "s").results == before
    (mended,) = tunelab.compare(reviews_csv, test_on=elsewhere, **given).record.results
    assert mended.scores == before[0].scores
    assert mended.details["transfer"].keys() == {"elsewhere.csv"}


def test_before_the_run_the_smallest_detectable_difference_is_said(
    cli: Callable[..., Said], reviews_csv: Path
) -> None:
    asked = ("compare", reviews_csv, "--methods", "svm-tfidf,full", "--disagreement", 0.1,
             "--dry-run")  # fmt: skip
    # 2.80 (0.10 / 160)^(1/2) = 7.0 where all 160 rows are tested, each by one seed; one of the two
    # varies by 0.8 points over seeds.
    folded = cli(*asked)
    find = stats.detectable_difference(160, 6, 0.1, seed_sd=0.008)
    assert 0.07 < find < 0.072
    said = f"differences of {100 * find:.1f} points of accuracy and more, 4 times of 5 (160 test"
    assert said in folded.err
    said = cli(*asked, "--folds", "off")
    assert said.code == 0, said.err
    # One of the two varies by 0.8 points over seeds; of 24 test rows that is next to nothing.
    find = stats.detectable_difference(24, 6, 0.1, seed_sd=0.008)
    assert f"differences of {100 * find:.1f} points of accuracy and more, 4 times of 5" in said.err
    assert "24 test rows, 10% disagreement, as stated" in said.err
    assert "assuming a seed spread of 0.8 points, as fine-tuning usually has" in said.err
    assert "10 to run, 3 of them to tune, 5 that a run with another seed serves" in said.err
    few = cli("compare", reviews_csv, "--methods", "svm-tfidf,full", "--seeds", 5, "--dry-run")
    assert "with fewer than 6 seeds no method is called better" in few.err


def test_studies_on_this_machine_say_how_far_methods_vary(
    cli: Callable[..., Said], reviews_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "cache"))
    methods = ["svm-tfidf", {"name": "svm-tfidf", "label": "other", "c": 1, "char_ngrams": 0}]
    out = tmp_path / "s"
    tunelab.compare(reviews_csv, methods=methods, seeds=3, engine="inline", output_dir=out)
    mine = read_spreads()
    assert [(s.method, s.family, s.seeds) for s in mine] == [("svm-tfidf", "none", 3)] * 2
    assert [s.sd for s in mine] == [0, 0]
    full = [replace(s, study=k, method="full", family="bert", seeds=6, sd=0.021)
            for k, s in zip("ab", mine, strict=True)]  # fmt: skip
    keep_spreads(full)
    said = cli("compare", reviews_csv, "--methods", "svm-tfidf,full", "--dry-run")
    assert said.code == 0, said.err
    assert "assuming a seed spread of 2.1 points, as in 2 studies on this machine" in said.err


def test_trials_that_are_done_say_what_more_seeds_could_find(
    cli: Callable[..., Said], tmp_path: Path
) -> None:
    write_csv(tmp_path / "r.csv", reviews(400), ["text", "label"])
    (tmp_path / "study.yaml").write_text(
        "data: r.csv\nseeds: 3\noutput_dir: out\nmethods:\n"
        "  - {name: svm-tfidf, label: words}\n"
        "  - {name: svm-tfidf, label: blind, word_ngrams: 1, char_ngrams: 0, min_df: 100}\n"
    )
    said = cli("compare", "study.yaml")
    assert said.code == 0, said.err
    record = study_folder.read_study(tmp_path / "out")
    parts = [study_folder.read_predictions(tmp_path / "out", r.spec.trial_id)["validation"]
             for r in record.results]  # fmt: skip
    right = [p.predicted == p.labels for p in parts]
    apart = float((right[0] != right[1]).mean())
    # The SVM is the same with every seed: all of its disagreement is common, and stated so.
    p = study.plan(resolve.resolve_study(tmp_path / "out/study.yaml", {}))
    found = study.power(study.read_progress(p))
    assert found.source == "trials that are done"
    assert found.disagreement == pytest.approx(apart)
    assert found.shared == pytest.approx(1.0)
    assert found.difference == stats.detectable_difference(found.rows, 3, apart)
    again = cli("compare", "out/study.yaml", "--seeds", 8, "--dry-run")
    assert f"{100 * apart:.0f}% disagreement, as in the trials that are done" in again.err


def test_hidden_test_labels_are_refused_and_a_part_is_split_off_train(
    cli: Callable[..., Said], tmp_path: Path
) -> None:
    """SST-2's shape on the hub: the test part's labels are all -1."""
    folder = tmp_path / "sst2"
    folder.mkdir()
    index = {"bad": 0, "good": 1}
    for part, n, seed in (("train", 120, 0), ("validation", 30, 1), ("test", 30, 2)):
        rows = [(i, t, -1 if part == "test" else index[y]) for i, (t, y) in
                enumerate(reviews(n, seed))]  # fmt: skip
        write_csv(folder / f"{part}.csv", rows, ["idx", "sentence", "label"])
    said = cli("compare", folder, "--methods", "svm-tfidf", "--seeds", 1, "--output-dir", "out")
    assert said.code == 0, said.err
    assert "the test part is unlabelled" in said.err
    assert "the validation part serves as test; a new one is split off train" in said.err
    (result,) = study_folder.read_study(tmp_path / "out").results
    found = study_folder.read_predictions(tmp_path / "out", result.spec.trial_id)
    assert {i.partition(":")[0] for i in found["test"].ids} == {"validation"}
    assert {i.partition(":")[0] for i in found["validation"].ids} == {"train"}
    assert -1 not in found["test"].labels
    card = json.loads((tmp_path / "out/data.json").read_text())
    assert card["sizes"] == {"train": 102, "validation": 18, "test": 30}


def test_a_race_drops_what_is_behind_and_says_so(cli: Callable[..., Said], tmp_path: Path) -> None:
    write_csv(tmp_path / "r.csv", reviews(600), ["text", "label"])
    (tmp_path / "study.yaml").write_text(
        "data: r.csv\nrace: true\noutput_dir: out\nmethods:\n"
        "  - {name: svm-tfidf, label: words}\n"
        # Terms that nearly every review has: nothing to learn from.
        "  - {name: svm-tfidf, label: blind, word_ngrams: 1, char_ngrams: 0, min_df: 100}\n"
    )
    said = cli("compare", "study.yaml")
    assert said.code == 0, said.err
    assert "blind was dropped after 2 seeds" in said.out
    assert "Race: words is the best of 2 with 95% confidence" in said.out
    record = study_folder.read_study(tmp_path / "out")
    race = record.race
    assert race is not None
    assert race["alive"] == ["words"]
    assert race["stopped"] == "decided"
    assert (race["trials_run"], race["trials_full"]) == (4, 12)
    assert race["seconds_saved"] > 0
    assert [(r.spec.method.label, r.spec.seed) for r in record.results] == [
        ("words", 0), ("blind", 0), ("words", 1), ("blind", 1)
    ]  # fmt: skip
    assert not record.missing
    assert "0 to run, 4 already done" in cli("compare", "out/study.yaml", "--dry-run").err


@pytest.mark.parametrize("own_rows", [("--vary-split",), ("--folds", "4")])
def test_a_race_on_rows_of_its_own_for_each_seed(
    cli: Callable[..., Said], tmp_path: Path, own_rows: tuple[str, ...]
) -> None:
    """Divided anew, or in folds, each seed has other validation rows, the same for both methods."""
    write_csv(tmp_path / "r.csv", reviews(600), ["text", "label"])
    (tmp_path / "study.yaml").write_text(
        "data: r.csv\nseeds: 4\noutput_dir: out\nmethods:\n"
        "  - {name: svm-tfidf, label: words}\n"
        "  - {name: svm-tfidf, label: blind, word_ngrams: 1, char_ngrams: 0, min_df: 100}\n"
    )
    said = cli("compare", "study.yaml", "--race", *own_rows)
    assert said.code == 0, said.err
    assert "Race: words is the best of 2 with 95% confidence" in said.out
    assert "ahead of blind in the race" in said.out
    in_folds = "--folds" in own_rows
    assert ("4 folds of 600 rows, not all of them tested" in said.out) == in_folds
    assert ("blind left the race early" in said.out) == in_folds
    record = study_folder.read_study(tmp_path / "out")
    first, second = (record.predictions(r.spec.trial_id)["validation"] for r in record.results[::2])
    union = len({*first.ids, *second.ids})
    assert len(first.ids) < union
    assert f"behind words on {union} validation rows" in said.out


def test_a_budget_that_is_too_small_gives_the_cheapest_answer_and_says_what_is_left_out(
    cli: Callable[..., Said], reviews_csv: Path, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(
        f"data: {reviews_csv}\nseeds: 2\noutput_dir: out\nmethods:\n"
        "  - {name: svm-tfidf, label: one, tune: {min_df: [1, 2]}}\n"
        "  - {name: svm-tfidf, label: two, c: 1, tune: {min_df: [1, 2, 3]}}\n"
    )
    base = ("compare", "study.yaml")
    said = cli(*base, "--budget", "0.001s")
    assert said.code == 0, said.err
    assert "no time is expected for two" in said.err
    assert "one ran alone" in said.out
    assert "The budget had no time for two" in said.out
    record = study_folder.read_study(tmp_path / "out")
    assert [r.spec.method.label for r in record.results] == ["one"]
    assert record.tuning is not None
    assert list(record.tuning["methods"]) == ["one"]
    race = record.race
    assert race is not None
    assert (race["stopped"], race["trials_run"], race["left_out"]) == ("budget", 1, ["two"])
    again = cli(*base, "--budget", "5m")
    assert again.code == 0, again.err
    record = study_folder.read_study(tmp_path / "out")
    assert len(record.results) == 4
    assert record.race is not None
    assert (record.race["stopped"], record.race["left_out"]) == ("seeds", [])
    assert record.tuning is not None
    assert list(record.tuning["methods"]) == ["one", "two"]


def test_what_no_seed_changes_is_run_once_and_counted_once(
    cli: Callable[..., Said], reviews_csv: Path, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(
        f"data: {reviews_csv}\nseeds: 3\noutput_dir: out\nfolds: off\nmethods:\n"
        "  - {name: svm-tfidf, c: 1, tune: {min_df: [1, 2]}}\n"
    )
    said = cli("compare", "study.yaml")
    assert said.code == 0, said.err
    assert "3 to run, 2 of them to tune, 2 that a run with another seed serves too" in said.err
    assert "3 (1 run)" in said.out
    assert "Nothing in svm-tfidf depends on the seed" in " ".join(said.out.split())
    first, *others = study_folder.read_study(tmp_path / "out").results
    assert first.cost.train_seconds
    scores = first.scores
    for r in others:
        assert r.provenance.same_run_as == first.spec.trial_id
        assert r.scores == scores
        assert (r.cost.train_seconds, r.cost.latency_p50_seconds) == (None, None)
        assert r.cost.head_parameters == first.cost.head_parameters
        assert "same run as seed 0" in r.reasons["train_seconds"]
        assert artifact.open_artifact(study_folder.artifact_dir(tmp_path / "out", r.spec.trial_id))
    more = cli("extend", "out", "--seeds", "4")
    assert "0 to run, 3 already done, 1 that a run with another seed serves too" in more.err
    assert "4 (1 run)" in more.out
    # In folds, and with a split of its own, each seed has other rows.
    for rows in ("--folds", "2"), ("--vary-split",):
        asked = cli("compare", "study.yaml", "--seeds", "2", "--output-dir", "o", *rows,
                    "--tuning", "off", "--dry-run")  # fmt: skip
        assert "2 to run" in asked.err
        assert "serves too" not in asked.err
