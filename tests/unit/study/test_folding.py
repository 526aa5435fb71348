"""Which part of the rows each seed tests, and when a study does that by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tiny import reviews, write_csv
from tunelab import data
from tunelab.core.errors import ConfigError
from tunelab.core.values import DataSpec, Fold, MethodSpec
from tunelab.study import folding, resolve
from tunelab.study.foresight import _shared_in_folds
from tunelab.study.spec import StudySpec
from tunelab.study.trial import make_spec


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "reviews.csv", reviews(120), ["text", "label"])


def asked(source: Path, **flags: object) -> StudySpec:
    keys = {"data.source": str(source), "methods": ["svm-tfidf"], **flags}
    keys.setdefault("output_dir", str(source.parent / "study"))
    return resolve.resolve_study(None, keys)


def settled(spec: StudySpec) -> tuple[int | None, str]:
    found, _, notes = folding.settled(spec, data.load(spec.data))
    return found.parts, " ".join(notes)


def test_seeds_that_are_added_are_further_repetitions_and_change_nothing_before(source):
    six = replace(asked(source, seeds=6), folds=6)
    more = replace(six, seeds=(*six.seeds, 17, 9))
    first = [folding.fold_of(six, s) for s in six.seeds]
    assert first == [Fold(6, 0, k) for k in range(6)]
    assert [folding.fold_of(more, s) for s in six.seeds] == first
    assert folding.fold_of(more, 17) == Fold(6, 1, 0)
    assert folding.fold_of(more, 9) == Fold(6, 1, 1)
    assert folding.fold_of(replace(six, folds=None), 3) is None
    assert folding.folds_of(replace(six, folds=None)) == (None,)


def test_auto_is_on_from_six_seeds_on_where_the_data_has_no_test_part(source, tmp_path):
    assert settled(asked(source, seeds=6)) == (6, "")
    assert settled(asked(source, seeds=8)) == (8, "")
    few, note = settled(asked(source, seeds=3))
    assert few is None
    assert "with --seeds 6 all 120 rows would be tested" in note
    off = asked(source, seeds=6, folds="off")
    assert settled(off) == (None, "")
    assert settled(asked(source, seeds=6, vary_split=True)) == (None, "")
    two = ["svm-tfidf", {"name": "svm-tfidf", "c": 1}]
    assert settled(asked(source, seeds=6, race=True, methods=two)) == (None, "")
    assert settled(asked(source, seeds=6, race=True, methods=two, folds=6)) == (6, "")

    parts = tmp_path / "parts"
    parts.mkdir()
    for name, n in (("train", 90), ("test", 30)):
        write_csv(parts / f"{name}.csv", reviews(n, seed=n), ["text", "label"])
    own, note = settled(asked(parts, seeds=6))
    assert own is None
    assert "--folds 6 would test all 120 rows of train and test instead" in note
    assert settled(asked(parts, seeds=6, folds=6)) == (6, "")


def test_auto_leaves_a_class_that_is_too_rare_for_every_fold_in_one_part(tmp_path):
    rare = [*reviews(60), *[(f"an odd text {i}", "odd") for i in range(5)]]
    source = write_csv(tmp_path / "r.csv", rare, ["text", "label"])
    folds, note = settled(asked(source, seeds=6))
    assert folds is None
    assert "a class has 5 rows, and each of 6 folds has to test one of them" in note


def test_rows_left_out_of_the_train_of_folds_are_counted_before_the_run(tmp_path):
    rows = reviews(80)
    source = write_csv(tmp_path / "r.csv", [*rows, *rows[:30]], ["text", "label"])
    folds, note = settled(asked(source, seeds=6, **{"data.on_leak": "drop"}))
    assert folds == 6
    assert "are dropped from train" in note


def test_the_gate_finds_leaks_in_the_fold_that_tests_them(tmp_path):
    rows = reviews(60)
    one, other = sorted({y for _, y in rows})
    torn = [(t, other if y == one else one) for t, y in rows[:3]]
    source = write_csv(tmp_path / "r.csv", [*rows, *rows[:9], *torn], ["text", "label"])
    spec, whole, _ = folding.settled(asked(source, seeds=6), data.load(DataSpec(str(source))))
    folds = folding.first_repetition(spec, whole)
    alone = [g for f in folds for g in data.inspect(f, ["leak"]).of("leak", "train/test")]
    together = folding.gate_of_folds(folds)
    (leak,) = together.of("leak", "train/test")
    assert len(alone) > 1
    assert leak.count == sum(f.count for f in alone) > alone[0].count
    assert leak.of == len(data.tested_rows(whole)) == 72
    assert set(leak.test_ids) == {i for f in alone for i in f.test_ids}
    assert "rows of the test parts of 6 folds stand in train too" in leak.says
    (conflict,) = together.of("conflicts")
    assert len(conflict.test_ids) == conflict.count  # all of them are tested


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ({"folds": 6, "seeds": 3}, "folds: 6 folds test every row with 6 seeds or more, found 3"),
        ({"folds": 6, "vary_split": True}, "folds: each fold has a validation part of its own"),
        ({"folds": 1}, "folds"),
        ({"folds": "sometimes"}, "folds"),
    ],
)
def test_folds_that_cannot_be_are_refused_before_the_run(source, flags, fault):
    with pytest.raises(ConfigError, match=fault):
        asked(source, **{"seeds": 6, **flags})


def test_a_trial_pins_its_fold_and_trials_without_keep_their_ids():
    spec, method = DataSpec("a.csv"), MethodSpec("svm-tfidf", "svm-tfidf", {"c": [1.0]})

    def trial_id(**given: object) -> str:
        return make_spec(spec, "f", None, method, 0, **given).trial_id  # type: ignore[arg-type]

    # As results from before there were folds have it.
    assert trial_id() == "svm-tfidf-c23ef5c311f2"
    folds = [Fold(6, 0, 0), Fold(6, 0, 1), Fold(6, 1, 0), Fold(5, 0, 0), None]
    ids = [*(trial_id(fold=f) for f in folds), trial_id(purpose="final")]
    assert len(set(ids)) == len(ids)


def test_what_folds_find_counts_every_row_as_often_as_it_is_tested():
    # One repetition: no row is seen by two seeds, so that nothing of the disagreement averages out.
    assert _shared_in_folds(0.3, seeds=6, repetitions=1) == pytest.approx(1.0)
    # As many repetitions as seeds would be every row with every seed: the shared part as it is.
    assert _shared_in_folds(0.3, seeds=6, repetitions=6) == pytest.approx(0.3)
    assert 0.3 < _shared_in_folds(0.3, seeds=12, repetitions=2) < 1
