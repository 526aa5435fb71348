"""Runs that broke down: which, and what may still be said of their method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from studies import METHODS, make_study
from tunelab.analysis import caveats, collapse, pairs, summarise, tradeoff
from tunelab.core.study_folder import StudyRecord, read_study
from tunelab.core.values import Predictions
from tunelab.stats import Runs

LABELS = np.arange(1000) % 2
IDS = tuple(map(str, range(1000)))


def run(accuracy: float) -> Predictions:
    says = LABELS.copy()
    wrong = round(1000 * (1 - accuracy))
    says[:wrong] = 1 - says[:wrong]
    return Predictions(IDS, LABELS, np.eye(2)[says], "probability")


def study(**accuracies: Sequence[float]) -> dict[str, Runs]:
    return {k: Runs(k, dict(enumerate(map(run, v)))) for k, v in accuracies.items()}


def broken(**accuracies: Sequence[float]) -> dict[str, list[int]]:
    return {k: list(c.broken) for k, c in collapse.collapses(study(**accuracies)).items()}


SOUND = (0.731, 0.735, 0.728, 0.740, 0.733, 0.729)


def test_58_percent_beside_73_is_broken() -> None:
    seen = (0.58, 0.732, 0.727, 0.735, 0.612, 0.730)
    assert broken(r4=seen, r8=SOUND) == {"r4": [0, 4]}
    assert broken(r4=seen) == {"r4": [0, 4]}
    assert broken(r4=(0.58, 0.73)) == {"r4": [0]}
    assert broken(r4=(0.5, 0.51, 0.5, 0.52, 0.73, 0.5), r8=SOUND) == {"r4": [0, 1, 2, 3, 5]}


def test_a_method_that_is_weak_with_every_seed_is_not_broken() -> None:
    assert broken(svm=[0.60] * 6, lora=SOUND) == {}
    assert broken(weak=(0.60, 0.57, 0.62, 0.64, 0.59, 0.61), lora=SOUND) == {}
    assert broken(lora=SOUND, guess=[0.5] * 6) == {}
    assert broken(a=(0.5, 0.51), b=(0.49, 0.5)) == {}  # nobody learnt anything
    assert broken(one=[0.58], lora=SOUND) == {}  # of one run nothing can be said


def test_worse_is_not_broken() -> None:
    assert broken(lora=(0.90, 0.78, 0.91, 0.90, 0.91, 0.92)) == {}  # it has learnt much
    wide = (0.60, 0.71, 0.75, 0.79, 0.66, 0.72)
    assert broken(lora=wide, full=(0.62, 0.70, 0.74, 0.78, 0.65, 0.71)) == {}


def test_most_of_one_class_is_nothing_learnt() -> None:
    labels = (np.arange(1000) % 20 == 0).astype(np.int64)

    def of(wrong: int) -> Predictions:
        says = labels.copy()
        says[:wrong] = 1 - says[:wrong]
        return Predictions(IDS, labels, np.eye(2)[says], "probability")

    assert collapse.collapses({"lora": Runs("lora", {0: of(12), 1: of(18), 2: of(50)})}) == {}


def test_what_was_seen_is_said_and_the_rest_compared_as_such() -> None:
    runs = study(lora=(0.58, 0.732, 0.727, 0.735, 0.612, 0.730), full=SOUND, svm=[0.65] * 6)
    broke = collapse.collapses(runs)
    found = {(c.a, c.b): c for c in pairs.comparisons(runs, list(runs), "accuracy", broke)}
    assert list(found) == [("lora", "full"), ("lora", "svm"), ("full", "svm")]
    told = found["lora", "full"]
    assert told.verdict == "undecided"
    assert told.p_value is None
    assert told.sentence.startswith(
        "lora broke down in 2 of 6 runs (58.0 and 61.2 beside 73.5 percent accuracy on "
        "validation), so its mean gets no verdict; the other 4 runs of lora against full: "
    )
    expected = np.mean([0.732, 0.727, 0.735, 0.730]) - np.mean([SOUND[s] for s in (1, 2, 3, 5)])
    assert abs(told.difference.value - expected) < 1e-9
    # The others are judged as if the broken method were not there.
    alone = pairs.comparisons(
        {k: runs[k] for k in ("full", "svm")}, ["full", "svm"], "accuracy", {}
    )
    assert found["full", "svm"] == alone[0]
    assert caveats._caveat_of_collapse(broke["lora"]).startswith(
        "lora broke down in 2 of 6 runs (58.0 with seed 0, 61.2 with seed 4, 73.5 with its best"
    )


def test_a_collapse_of_equals_gives_no_verdict_on_the_mean() -> None:
    """One run of six at chance, five a little better: means differ by three points."""
    found = pairs.comparisons(
        runs := study(lora=(0.5, *SOUND[1:]), full=SOUND),
        ["full", "lora"],
        "accuracy",
        collapse.collapses(runs),
    )
    assert [c.verdict for c in found] == ["undecided"]
    assert found[0].difference.value == 0.0


def with_broken_lora(record: StudyRecord) -> StudyRecord:
    """The study with two runs of lora that answer one class, on every part."""

    class Broken(StudyRecord):
        __slots__ = ()

        def predictions(self, trial_id: str) -> dict[str, Predictions]:
            found = record.predictions(trial_id)
            if not trial_id.startswith(("lora-0", "lora-1")):
                return found
            return {
                part: replace(p, scores=np.tile([1.0, 0.0], (len(p.ids), 1)))
                for part, p in found.items()
            }

    return Broken(record.directory, record.settings, record.data, record.results, record.missing)


def test_a_best_method_that_broke_down_says_so_first(tmp_path: Path) -> None:
    strong = [replace(METHODS[3], skill=2.5), replace(METHODS[2], skill=0.1)]
    record = read_study(make_study(tmp_path, seeds=6, rows=400, methods=strong))
    results = tuple(
        replace(r, scores={**r.scores, "eval_accuracy": 0.9})
        if r.spec.method.label == "lora"
        else r
        for r in record.results
    )
    said = summarise(with_broken_lora(replace(record, results=results)))
    assert said.best == "lora"
    assert said.answer.sentence == (
        "Take lora: best on validation; also the cheapest (training time); broke down in 2 of 6 "
        "runs, so look at each run's validation score"
    )
    assert "with the runs that broke down" in said.answer.sure
    assert "No verdict against the others: lora broke down in 2 of 6 runs" in said.answer.sure


def test_broken_runs_recommend_nothing(tmp_path: Path) -> None:
    """The worst method of eight was "the cheapest within noise", for its wide interval."""
    folder = make_study(tmp_path, seeds=6, rows=400, methods=METHODS[1:])
    said = summarise(record := with_broken_lora(read_study(folder)))
    assert set(said.collapses) == {"lora"}
    assert said.answer.take != "lora"
    against = next(c for c in said.against_best() if c.b == "lora")
    assert said.standing(against) == "broke down"
    assert "1 with runs that broke down" in said.answer.sure or "broke down" in said.answer.sure
    for margin in (0.01, 0.3):
        told = tradeoff.recommend(record, margin=margin, summary=said)
        assert told.choice != "lora"
        assert "lora broke down in 2 of 6 runs, so its loss is not judged" in told.reasons
