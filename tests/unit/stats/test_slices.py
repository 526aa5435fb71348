"""Slices: named where a method truly differs, and almost never where it does not."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from commands import run_here
from studies import make_study
from tunelab.core import study_folder
from tunelab.core.study_folder import StudyRows
from tunelab.core.values import DataSpec, Predictions, Split
from tunelab.data import load
from tunelab.stats import Runs, slices
from tunelab.stats.shares import share_of_values
from tunelab.stats.slices import attributes, find_slices, named_slices, slice_sentence


def runs_of(right: np.ndarray, label: str = "m") -> Runs:
    """A method that is right where `right` (seeds, rows) says so."""
    labels = np.arange(right.shape[1]) % 2
    by_seed = {}
    for seed, row in enumerate(right):
        scores = np.eye(2)[np.where(row, labels, 1 - labels)]
        ids = tuple(map(str, range(len(labels))))
        by_seed[seed] = Predictions(ids, labels, scores, "probability")
    return Runs(label, by_seed)


def simulated(
    rng: np.random.Generator, seeds: int, rows: int, weak: np.ndarray | None = None
) -> np.ndarray:
    """Right or wrong by row difficulty, seed and chance; rows of `weak` are harder."""
    hard = rng.normal(size=rows) * 1.2 - (0 if weak is None else 2.0 * weak)
    logit = 1.2 + hard[None, :] + 0.3 * rng.normal(size=(seeds, 1))
    return rng.random((seeds, rows)) < 1 / (1 + np.exp(-logit))


def test_a_weak_slice_is_named_and_said():
    rng = np.random.default_rng(0)
    weak = np.arange(300) % 6 == 0
    found = find_slices([runs_of(simulated(rng, 4, 300, weak), "lora")],
                 {"kind": ["sarcasm" if w else "plain" for w in weak],
                  "other": rng.permutation(["a", "b", "c"] * 100).tolist()})  # fmt: skip
    assert {(s.column, s.value) for s in named_slices(found)} == {
        ("kind", "sarcasm"),
        ("kind", "plain"),
    }
    worst = named_slices(found)[0]
    assert worst.value == "sarcasm"
    assert worst.rows == 50
    assert worst.accuracy.value - worst.rest.value == pytest.approx(worst.difference.value)
    assert worst.difference.high is not None
    assert worst.difference.high < 0
    text = slice_sentence(worst, len(found))
    assert text.startswith("lora is weaker where kind is sarcasm: ")
    assert text.endswith("p < 0.001 over all 5 slices; 50 rows)")
    json.dumps(slices.slices_to_json(found))


def test_large_numbers_that_differ_in_late_digits_are_bins_of_their_own():
    values = [10_000_001 + i for i in range(40)]
    rows = StudyRows(tuple(map(str, values)), ("a text",) * 40, np.zeros(40, dtype=np.int64),
                {"user": tuple(values)})  # fmt: skip
    found = attributes(rows, ["only"])["user"]
    assert list(dict.fromkeys(found)) == [
        f"{a} to {a + 9}" for a in (10000001, 10000011, 10000021, 10000031)
    ]
    fine = {"time": tuple(0.1 + v / 1e9 for v in range(40))}
    found = attributes(replace(rows, columns=fine), ["only"])["time"]
    assert len(set(found)) == 4


def test_with_nothing_to_find_slices_are_hardly_ever_named():
    rng = np.random.default_rng(1)
    wrong = 0
    studies = 120
    for _ in range(studies):
        runs = [runs_of(simulated(rng, 3, 200), f"m{j}") for j in range(2)]
        by = {c: rng.choice(list("abcd"), 200).tolist() for c in ("x", "y")}
        wrong += bool(named_slices(find_slices(runs, by)))
    assert wrong <= 12  # 5% of 120 is 6; 12 or more happen by chance in 2% of such tests


@pytest.mark.parametrize(("seeds", "rows"), [(1, 60), (3, 60), (6, 200)])
def test_intervals_cover_the_truth(seeds: int, rows: int):
    rng = np.random.default_rng(2)
    big = simulated(np.random.default_rng(3), 400, 4000).mean()
    # With one seed the interval is for other rows; the seeds' own spread is not in it.
    spread = 0.0 if seeds == 1 else 0.3
    hits = 0
    for _ in range(300):
        hard = rng.normal(size=rows) * 1.2
        logit = 1.2 + hard[None, :] + spread * rng.normal(size=(seeds, 1))
        right = rng.random((seeds, rows)) < 1 / (1 + np.exp(-logit))
        e = share_of_values(right.astype(float)).estimate()
        assert e.low is not None
        assert e.high is not None
        hits += e.low - 0.002 <= big <= e.high + 0.002
    assert 0.92 <= hits / 300 <= 0.995


def test_a_share_and_its_variances():
    rng = np.random.default_rng(4)
    right = (rng.random((1, 50)) < 0.7).astype(float)
    one = share_of_values(right)
    assert one.row_variance is None  # Wilson's own, of 50 coins
    same = np.repeat(right, 5, axis=0)  # seeds that repeat each other add nothing
    assert share_of_values(same).seed_variance == 0
    everything = share_of_values(np.ones((3, 30))).estimate()
    assert everything.low == pytest.approx(0.025 ** (1 / 30))  # exact: p^30 = 0.025
    assert everything.high == 1.0


def test_a_slice_without_a_mistake_is_not_named_for_that():
    """Twenty rows that are all right, where 95% are: a t test would call that certain."""
    right = np.ones((4, 400))
    right[:, 20:40] = 0
    by = {"c": ["all right"] * 20 + ["rest"] * 380}
    found = find_slices([runs_of(right > 0)], by)
    assert [s.named for s in found] == [False, False]
    # One deal in three leaves twenty rows without one of twenty mistakes.
    chance = np.prod([(380 - k) / (400 - k) for k in range(20)])
    assert min(s.p_value for s in found) >= chance


def test_p_of_one_seed_is_fishers():
    """Dealing rows with one seed is Fisher's exact test of a 2 x 2 table (hypergeometric)."""
    right = np.ones((1, 60))
    right[:, [0, 1, 2, 3, 30]] = 0  # four of ten rows wrong, one of fifty
    by = {"c": ["few"] * 10 + ["many"] * 50}
    found = find_slices([runs_of(right > 0)], by)
    at_least_four = sum(math.comb(5, k) * math.comb(55, 10 - k) / math.comb(60, 10) for k in (4, 5))
    assert found[0].p_value == pytest.approx(at_least_four, abs=0.003)


def test_what_only_some_seeds_do_on_a_slice_is_not_named():
    """Three of six seeds fail it wholly, the others not at all: rows are certain, seeds not."""
    right = np.ones((6, 300))
    right[:, ::10] = 0
    right[:3, 1:60:2] = 0
    by = {"c": ["odd" if i < 60 and i % 2 else "rest" for i in range(300)]}
    assert not named_slices(find_slices([runs_of(right > 0)], by))
    right[:, 1:60:2] = 0
    assert named_slices(find_slices([runs_of(right > 0)], by))


def test_folds_have_other_rows_with_each_seed():
    """A seed a fold: slices are over the union of their rows, by id."""
    rng = np.random.default_rng(3)
    ids = tuple(f"r{i}" for i in range(300))
    right = rng.random(300) < np.where(np.arange(300) < 60, 0.4, 0.9)
    labels = np.arange(300) % 2
    scores = np.eye(2)[np.where(right, labels, 1 - labels)]
    by_seed = {}
    for fold in range(5):
        rows = np.flatnonzero(np.arange(300) % 5 == fold)[::-1]
        own = tuple(ids[i] for i in rows)
        by_seed[fold] = Predictions(own, labels[rows], scores[rows], "probability")
    by = {"c": ["hard"] * 60 + ["rest"] * 240}
    found = find_slices([Runs("m", by_seed)], by, ids=ids)
    hard = next(s for s in found if s.value == "hard")
    assert hard.accuracy.value == pytest.approx(right[:60].mean())
    assert hard.rows == 60
    assert {s.value for s in named_slices(found)} == {"hard", "rest"}
    with pytest.raises(ValueError, match="row 'r299' is not among"):
        find_slices([Runs("m", by_seed)], {"c": ["x"] * 299}, ids=ids[:299])


def test_small_slices_and_missing_values_are_left_out():
    right = np.random.default_rng(0).random((3, 60)) < 0.5
    by = {"c": ["few"] * 9 + [None] * 11 + ["many"] * 40, "d": ["x"] * 60}
    assert find_slices([runs_of(right)], by) == ()
    by = {"c": ["some"] * 10 + [None] * 10 + ["many"] * 40}
    assert [(s.value, s.rows) for s in find_slices([runs_of(right)], by)] == [
        ("many", 40),
        ("some", 10),
    ]
    with pytest.raises(ValueError, match="3 values for 60 rows"):
        find_slices([runs_of(right)], {"c": ["a", "b", "c"]})


def test_attributes():
    texts = tuple(" ".join(["w"] * n) for n in range(1, 41))
    rows = StudyRows(
        ids=tuple(f"{'ab'[i % 2]}:{i}" for i in range(40)),
        texts=texts,
        labels=np.arange(40) % 2,
        columns={
            "stars": tuple(float(i % 5) for i in range(40)),
            "price": (None, *(float(i * 3) for i in range(39))),
            "name": tuple(f"n{i}" for i in range(40)),
            "same": ("x",) * 40,
        },
    )
    found = attributes(rows, ["no", "yes"])
    assert set(found) == {"length", "label", "file", "stars", "price"}
    assert found["length"][0] == "1 to 10 words"
    assert found["length"][-1] == "31 to 40 words"
    assert found["label"][:2] == ("no", "yes")
    assert found["file"][:2] == ("a", "b")
    assert found["price"][0] is None
    assert len(set(found["price"])) == 5
    assert found["stars"][:2] == ("0.0", "1.0")


def test_a_study_on_the_command_line(tmp_path: Path):
    folder = make_study(tmp_path, rows=288)
    assert run_here("slices", folder).code == 2  # written without its rows
    dataset = load(DataSpec("demo"))
    study_folder.write_rows(folder, dataset)
    said = run_here("slices", folder, "--json")
    assert said.code == 2  # rows of other data
    assert "ids" in said.err
    record = study_folder.read_study(folder)
    p = study_folder.read_predictions(folder, record.done[0].spec.trial_id)["test"]
    test = Split(p.ids, dataset.test.texts, p.labels, dataset.test.columns)
    study_folder.write_rows(folder, replace(dataset, test=test))
    facts = json.loads(run_here("slices", folder, "--json").out)
    assert {s["column"] for s in facts["slices"]} >= {"length", "label", "phenomenon"}
    shown = run_here("slices", folder, "--by", "phenomenon")
    assert shown.code == 0
    assert "sarcasm" in shown.out
    nines = tuple(f"p{i // 9}" if i < 261 else None for i in range(len(test)))
    few = replace(test, columns={"phenomenon": nines})
    study_folder.write_rows(folder, replace(dataset, test=few))
    none = run_here("slices", folder, "--by", "phenomenon")
    assert none.code == 0
    assert none.out.startswith("No slice to look at: each needs 10 rows in it")
    study_folder.write_rows(folder, replace(dataset, test=test))
    wrong = run_here("slices", folder, "--by", "phenomenom")
    assert wrong.code == 2
    assert "phenomenon" in wrong.err
