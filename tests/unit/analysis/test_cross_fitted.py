"""What is said of a study whose seeds test other rows each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studies import METHODS, make_study
from tunelab.analysis import summarise
from tunelab.analysis.effects import effects
from tunelab.analysis.folds import cross_fitted, final_trials, how_often_tested
from tunelab.analysis.reading import on_every_row, paired_by_seed
from tunelab.analysis.sensitivity import analyse
from tunelab.analysis.summary import table
from tunelab.core.study_folder import read_study
from tunelab.core.values import Predictions
from tunelab.data.gate import Finding, Gate
from tunelab.stats import Runs


def predictions(ids: str, right: str) -> Predictions:
    labels = np.zeros(len(ids), dtype=np.int64)
    wrong = np.array([i not in right for i in ids], dtype=np.int64)
    return Predictions(tuple(ids), labels, np.eye(2)[wrong], "probability")


@pytest.mark.parametrize(
    ("seeds", "often"),
    [(6, "once"), (8, "once or twice"), (12, "twice"), (18, "3 times"), (20, "3 times or 4 times")],
)
def test_how_often_rows_are_tested_in_words(seeds, often):
    said = f"6 folds: every one of 1,920 rows is tested {often}"
    assert how_often_tested(6, 1920, seeds) == said
    assert cross_fitted({"folds": {"of": 6, "rows": 1920}}, seeds) == said
    assert cross_fitted({}, seeds) is None


def test_the_answer_says_that_its_score_is_cross_fitted(tmp_path: Path):
    record = read_study(make_study(tmp_path, data={"folds": {"of": 3, "rows": 300}}))
    tail = "percent accuracy on test, cross-fitted (3 folds: every one of 300 rows is tested once)"
    assert tail in summarise(record).answer.sure
    plain = replace(record, data={k: v for k, v in record.data.items() if k != "folds"})
    assert "cross-fitted" not in summarise(plain).answer.sure
    assert final_trials(record) == ()


def test_the_rows_that_a_method_was_tested_on_are_those_of_all_its_seeds():
    folds = Runs("x", {0: predictions("abc", "a"), 1: predictions("cde", "cd")})
    rows = on_every_row(folds)
    assert "".join(rows.ids) == "abcde"
    assert (rows.predicted == rows.labels).tolist() == [True, False, False, True, False]
    same = Runs("x", {0: predictions("abc", "a"), 1: predictions("abc", "b")})
    assert on_every_row(same).scores.tolist() == same.by_seed[0].scores.tolist()


def test_methods_are_paired_by_seed_only_where_each_seed_has_the_same_rows_for_all():
    same = {m: Runs(m, {0: predictions("abc", "a"), 1: predictions("abc", "b")}) for m in "xy"}
    assert paired_by_seed(same)
    torn = {
        "x": Runs("x", {0: predictions("abc", "a"), 1: predictions("def", "d")}),
        "y": Runs("y", {0: predictions("abc", "a"), 1: predictions("deg", "d")}),
    }
    assert not paired_by_seed(torn)


def test_the_effect_of_a_finding_counts_the_rows_of_every_fold():
    runs = [
        Runs("good", {0: predictions("abcd", "abcd"), 1: predictions("efgh", "efgh")}),
        Runs("lucky", {0: predictions("abcd", "bcd"), 1: predictions("efgh", "fgh")}),
    ]
    leak = Finding("leak", "train/test", "fault", 2, 8, "", "", test_ids=("a", "e"))
    gate = Gate("rows", "f", {"train": 8, "validation": 0, "test": 4}, (leak,), {})
    (found,) = effects(gate, runs)
    assert (found.removed, found.rows) == (2, 8)
    assert [m.all.value for m in found.methods] == [1.0, 0.75]
    assert [m.without.value for m in found.methods if m.without] == [1.0, 1.0]
    assert [m.alone.value for m in found.methods if m.alone] == [1.0, 0.0]
    # Where a fold has none of the rows, it says nothing of them.
    (first,) = effects(replace(gate, findings=(replace(leak, test_ids=("a",)),)), runs)
    assert [m.alone.value for m in first.methods if m.alone] == [1.0, 0.0]


def test_what_each_fold_chose_is_no_setting_that_tells_methods_apart(tmp_path: Path):
    record = read_study(make_study(tmp_path, methods=[METHODS[2], METHODS[3]]))
    rates = iter([1e-4, 5e-4, 5e-4])

    def chosen(r):
        if r.spec.method.name != "lora":
            return r
        settings = {**r.spec.method.settings, "learning_rate": next(rates)}
        return replace(r, spec=replace(r.spec, method=replace(r.spec.method, settings=settings)))

    twice = [chosen(r) for r in record.results]
    other = [
        replace(r, spec=replace(r.spec, method=replace(r.spec.method, label="lora 2")))
        for r in record.results
        if r.spec.method.name == "lora"
    ]
    folded = replace(record, results=(*twice, *other))
    rows = {r.label: r.settings for r in summarise(folded).rows}
    assert "learning_rate" not in rows["lora"]
    assert analyse(folded) == ()
    assert "learning_rate" not in table(summarise(folded)).columns or rows["lora 2"]
