"""The first line: what to take, why, how sure; ties, few seeds, small data, other metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import tunelab
from commands import run_here
from studies import METHODS, make_study
from tunelab.analysis import Summary, advice, answer, summarise, tradeoff, verdict
from tunelab.analysis.verdict import Answer
from tunelab.core.study_folder import read_study
from tunelab.core.values import Comparison, Estimate, Predictions
from tunelab.report import page, tables


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return summarise(read_study(make_study(tmp_path_factory.mktemp("study"), seeds=6, rows=600)))


def pair(
    b: str,
    size: float,
    ends: tuple[float, float] | None,
    verdict: Literal["better", "worse", "equivalent", "undecided"] = "undecided",
    *,
    seeds: int = 6,
) -> Comparison:
    low, high = ends or (None, None)
    d = Estimate(size, low, high, seeds, "")
    return Comparison("full", b, "accuracy", d, verdict, 0.01, None, "", f"full and {b}")


def answered(said: Summary, *pairs: Comparison) -> Answer:
    """The answer of a study with these comparisons, where nothing cheaper is good enough."""
    rows = [r for r in said.rows if r.label in {"full", *(p.b for p in pairs)}]
    told = replace(said, best="full", rows=tuple(rows), comparisons=pairs)
    return answer.answer(answer.Taken("full", 0.01, "none", (), ""), told, "")


def test_an_undecided_pair_that_leaves_zero_out_is_ahead_and_not_undecided() -> None:
    """Said beside "+10.6 points, 95% interval +5.1 to +16.2" of three seeds."""
    ahead = pair("svm", 0.106, (0.051, 0.162), seeds=3)
    assert verdict.standing(ahead) == "ahead, too few seeds to call"
    behind = pair("svm", -0.106, (-0.162, -0.051), seeds=3)
    assert verdict.standing(behind) == "behind, too few seeds to call"
    assert verdict.standing(pair("svm", 0.106, (0.051, 0.162))) == "ahead, not shown"
    assert verdict.standing(pair("svm", 0.106, (-0.051, 0.162))) == "within noise"
    assert verdict.standing(pair("svm", 0.106, None)) == "not known"
    assert verdict.standing(pair("svm", 0.106, (0.051, 0.162), "better")) == "better"
    lower_is_better = replace(ahead, metric="log_loss")
    assert verdict.standing(lower_is_better) == "behind, too few seeds to call"


def test_the_chance_stands_behind_the_verdict() -> None:
    c = pair("svm", 0.02, (0.01, 0.03), "better")
    assert verdict.with_chance(c) == "full and svm"
    told = verdict.with_chance(replace(c, chance=0.834))
    assert told == "full and svm; by more than 1 point with a chance of 83%"
    assert verdict.with_chance(replace(c, chance=0.9999, metric="f1_macro")).endswith(
        "; by more than 1 point of macro F1 with a chance of 99%"
    )
    undecided = replace(c, chance=0.834, verdict="undecided")
    assert verdict.with_chance(undecided).endswith("full is better by more than 1 point: 83%")


def test_a_tie_is_told_as_a_tie(said: Summary) -> None:
    found = answered(
        said, pair("lora", 0.002, (-0.01, 0.014)), pair("svm", 0.1, (0.08, 0.12), "better")
    )
    assert found.sentence == (
        "Take full: tied with lora within noise, first on validation, better than svm"
    )
    assert "Of 2 other methods: 1 shown to be worse and 1 not told apart from it" in found.sure


def test_every_standing_has_its_words(said: Summary) -> None:
    better = [pair(x, 0.1, (0.05, 0.15), "better") for x in ("lora", "svm")]
    assert answered(said, *better).why == "better than lora and svm"
    few = answered(said, pair("svm", 0.1, (0.05, 0.15), seeds=3))
    assert few.why == "best on validation, ahead of svm (too few seeds to call)"
    assert "Not sure: with 3 seeds no method is called better or worse (6 are needed)" in few.sure
    worse = answered(said, pair("svm", -0.1, (-0.15, -0.05), "worse"))
    assert worse.why == "best on validation, worse on test than svm"
    equal = answered(said, pair("svm", 0.001, (-0.005, 0.006), "equivalent"))
    assert equal.why == "best on validation, equivalent to svm"


def test_what_a_race_left_behind_is_not_tied_for_want_of_seeds(said: Summary) -> None:
    raced = replace(said, dropped=frozenset({"lora"}))
    few = pair("lora", 0.1, (-0.02, 0.22), seeds=3)
    found = answered(raced, few, pair("svm", 0.002, (-0.01, 0.014)))
    assert found.why == "tied with svm within noise, first on validation, ahead of lora in the race"
    assert "1 not told apart from it and 1 left behind by the race on validation" in found.sure
    alone = answered(raced, few)
    assert alone.why == "best on validation, ahead of lora in the race"
    assert "Not sure" not in alone.sure
    shown = answered(raced, replace(few, verdict="better"))  # test says it by itself
    assert shown.why == "better than lora"


def test_the_first_line_is_the_same_sentence_everywhere(tmp_path: Path) -> None:
    record = read_study(make_study(tmp_path, seeds=6, rows=300))
    said = summarise(record)
    assert tradeoff.recommend(record).answer == said.answer == said.advice.answer
    html = page.in_short(said.answer, ["Method"], [["<b>"]])
    assert html.startswith(f"<p><strong>{said.answer.sentence}.</strong></p>")
    assert "&lt;b&gt;" in html
    assert (
        tunelab.Study(record.directory)
        ._repr_html_()
        .startswith(f"<p><strong>{said.answer.sentence}.</strong></p><p>{said.answer.sure}</p>")
    )
    assert f'<h2 id="verdict-title">{said.answer.sentence}.</h2>' in page.render(record, said)
    shown = run_here("runs", "show", record.directory).out
    advised = run_here("recommend", record.directory).out
    assert shown.splitlines()[:2] == advised.splitlines()[:2]
    assert shown.startswith(f"{said.answer.sentence}.\n{said.answer.sure}\n")


def test_the_page_marks_what_is_to_be_taken_and_what_was_best(said: Summary) -> None:
    other = next(r.label for r in said.rows if r.label != said.best)
    taken = replace(said.advice, answer=replace(said.answer, take=other))
    cheaper = replace(said, advice=taken)
    assert [tables._tag(cheaper, str(x)) for x in (other, said.best)] == [
        "take",
        "best on validation",
    ]
    assert tables._tag(said, str(said.best)) == "take"
    assert tables._tag(said, other) == ""


def test_the_population_is_named(said: Summary) -> None:
    assert said.answer.sure.endswith(
        "Verdicts speak of other seeds and other test rows of this kind, given these training rows "
        "and these settings."
    )


def test_the_score_to_expect_is_of_seeds_that_did_not_choose(said: Summary, tmp_path: Path) -> None:
    assert said.score_of_best is not None
    assert "by seeds that did not choose it" in said.answer.sure
    assert answer.score_in_words(said) in said.answer.sure
    few = summarise(read_study(make_study(tmp_path, seeds=3)))
    assert few.score_of_best is None
    assert "which flatters: the same 3 seeds chose it" in few.answer.sure


def scored(counts: list[int], right: float = 0.8) -> Predictions:
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = len(labels)
    says = np.where(np.arange(rows) < right * rows, labels, (labels + 1) % len(counts))
    return Predictions(
        tuple(map(str, range(rows))), labels, np.eye(len(counts))[says], "probability"
    )


def test_small_data_begin_with_what_cannot_be_known(tmp_path: Path) -> None:
    # Agresti and Coull: 1.96 sqrt(p (1 - p) / (n + 1.96^2)), p = (64 + 1.92) / (80 + 3.84)
    assert answer.what_rows_cannot_tell(scored([40, 40]), "accuracy") == (
        "80 test rows cannot place accuracy closer than ± 9 points"
    )
    assert answer.what_rows_cannot_tell(scored([75, 75]), "accuracy") == ""
    assert answer.what_rows_cannot_tell(scored([400, 12]), "f1_macro") == (
        "12 test rows of the smallest class cannot place its recall closer than ± 25 points"
    )
    assert "accuracy (and so macro F1)" in answer.what_rows_cannot_tell(
        scored([40, 40]), "f1_macro"
    )
    said = summarise(read_study(make_study(tmp_path, seeds=2, rows=80)))
    assert said.answer.sentence.startswith("80 test rows cannot place accuracy closer than ± ")
    assert f"; take {said.best}: " in said.answer.sentence


def test_another_metric_is_named_in_its_own_words(tmp_path: Path) -> None:
    record = read_study(make_study(tmp_path, seeds=6, rows=600, methods=METHODS[2:]))
    said = summarise(record, "f1_macro")
    assert "percent macro F1 on test" in said.answer.sure
    assert "accuracy" not in said.answer.sentence
    told = advice.advise(record, said, {}, 0.02)
    assert "2 points of macro F1" in told.sentence or told.losses == ()
