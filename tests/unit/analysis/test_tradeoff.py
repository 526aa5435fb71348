"""Trade-off: the front and its probability, what is recommended, and in which words."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studies import METHODS, make_study
from tunelab.analysis import summarise, tradeoff
from tunelab.analysis.costs import COSTS, is_sure, ratio
from tunelab.analysis.front import _undominated, front, surely_beaten
from tunelab.analysis.numbers import cost_names
from tunelab.core.errors import ConfigError
from tunelab.core.study_folder import StudyRecord, read_study
from tunelab.core.values import Predictions


def study(tmp_path: Path, seeds: int = 6, rows: int = 1000) -> StudyRecord:
    return read_study(make_study(tmp_path, seeds=seeds, rows=rows))


def with_scores(record: StudyRecord, accuracy: dict[str, float], seed_sd: float) -> StudyRecord:
    """The study with predictions of known accuracy, on test and on validation."""
    rng = np.random.default_rng(0)
    rows = 4000
    labels = np.arange(rows) % 2
    ids = tuple(map(str, range(rows)))
    item = rng.normal(size=rows)
    found: dict[str, dict[str, Predictions]] = {}
    results = []
    for r in record.results:
        at = accuracy[r.spec.method.label]
        hard = 0.98 * item + 0.2 * rng.normal(size=rows)
        cut = np.quantile(hard, at + seed_sd * rng.normal())
        p = Predictions(
            ids, labels, np.eye(2)[np.where(hard < cut, labels, 1 - labels)], "probability"
        )
        found[r.spec.trial_id] = {"test": p, "validation": p}
        right = float((p.predicted == labels).mean())
        results.append(
            replace(r, scores={**r.scores, "test_accuracy": right, "eval_accuracy": right})
        )

    class Known(StudyRecord):
        __slots__ = ()

        def predictions(self, trial_id: str) -> dict[str, Predictions]:
            return found[trial_id]

    return Known(record.directory, record.settings, record.data, tuple(results), record.missing)


FAR = {"svm-tfidf": 0.70, "svm": 0.75, "full": 0.90, "lora": 0.899}


def test_every_cost_of_the_table_has_its_words() -> None:
    assert set(COSTS) == set(cost_names())


def test_the_front_by_means(tmp_path: Path) -> None:
    record = with_scores(study(tmp_path), FAR, 0.001)
    found = front(record, "artifact_bytes")
    by_label = {p.label: p for p in found.places}
    # lora 1.8 MB, svm-tfidf 4.1 MB, svm 91.3 MB, full 91.6 MB
    assert [p.label for p in found.places] == ["lora", "svm-tfidf", "svm", "full"]
    assert by_label["lora"].on_front
    assert by_label["full"].on_front
    assert not by_label["svm-tfidf"].on_front
    assert by_label["svm-tfidf"].beaten_by == "lora"
    assert by_label["svm-tfidf"].probability == 0.0
    assert by_label["lora"].probability == 1.0
    assert 0.5 < by_label["full"].probability < 1.0  # type: ignore[operator]
    assert found.sentences[0].startswith(
        "By the means no method beats these in both accuracy on test and size on disk"
    )
    assert "svm is beaten in both by lora, and surely so" in found.sentences
    json.dumps(tradeoff.recommendation_to_json(found))


def test_few_seeds_are_sure_of_no_place_on_the_front(tmp_path: Path) -> None:
    """Draws from one or two seeds called equals surely beaten in 8 to 22% of studies."""
    for seeds in (1, 2, 5):
        record = with_scores(study(tmp_path / str(seeds), seeds=seeds), FAR, 0.001)
        found = front(record, "train_seconds")
        assert all(p.probability is None for p in found.places)
        assert all(p.surely_beaten_by is None for p in found.places)
        assert len(found.sentences) == 1
        assert found.sentences[0].startswith("By the means no method beats these")


def test_surely_beaten_asks_for_a_verdict_and_for_a_sure_cost(tmp_path: Path) -> None:
    said = summarise(with_scores(study(tmp_path), FAR, 0.001))
    pair = next(c for c in said.comparisons if {c.a, c.b} == {"full", "svm"})
    assert pair.verdict in {"better", "worse"}
    best, worst = "full", "svm"

    def beaten(cheap: list[float], dear: list[float], *, told: bool = True) -> dict[str, str]:
        costs = {best: dict(enumerate(cheap)), worst: dict(enumerate(dear))}
        c = pair if told else replace(pair, verdict="undecided")
        return surely_beaten([c], costs, "train_seconds")

    slow = [2.0, 2.1, 1.9, 2.0, 2.2, 2.0]
    assert beaten([1.0] * 6, slow) == {worst: best}
    assert beaten(slow, [1.0] * 6) == {}
    assert beaten([1.0] * 6, slow, told=False) == {}
    assert beaten([1.0] * 5, slow[:5]) == {}  # fewer than six runs
    assert beaten([1.0, 5.0, 1.0, 1.0, 9.0, 1.0], slow) == {}  # an interval that holds 1
    assert beaten([1.0, 1.0], [2.0, 2.0]) == {worst: best}  # a cost that does not vary
    assert beaten([2.0, 2.0], [2.0, 2.0]) == {}


def test_throughput_is_a_cost_of_which_more_is_better(tmp_path: Path) -> None:
    found = front(with_scores(study(tmp_path), FAR, 0.001), "texts_per_second")
    assert found.places[0].label == "svm-tfidf"
    assert found.places[0].on_front


def test_undominated_by_hand() -> None:
    scores = np.array([[3.0, 2.0, 2.0, 1.0, 3.0]])
    costs = np.array([[5.0, 1.0, 2.0, 1.0, 5.0]])
    found = _undominated(scores, costs)[0]
    assert found.tolist() == [True, True, False, False, True]  # equals do not beat each other


def test_a_cheaper_method_that_loses_little_is_recommended(tmp_path: Path) -> None:
    record = with_scores(study(tmp_path), FAR, 0.001)
    r = tradeoff.recommend(record)
    assert (r.best, r.choice) == ("full", "lora")
    assert re.match(
        r"If a loss of 1 point is acceptable, lora: (equivalent to full within|shown to lose less "
        r"than) 1 point.*\(-?\d\.\d points lost, 90% interval -?\d\.\d to -?\d\.\d\), "
        r"1\.5x faster to train \(4\d s against 6\d s\), 1\.2x less memory to train .*"
        r"50\.9x smaller to ship \(1\.8 MB against 91\.6 MB\)",
        r.sentence,
    )
    assert any(x.startswith("svm loses more than 1 point against full") for x in r.reasons)
    assert any("If no loss at all is acceptable: full" in c for c in r.conditions)
    assert any("fewer texts a second" in c for c in r.conditions)
    assert any("base model, which must lie beside it" in c for c in r.conditions)
    assert any("1,000 rows of test" in c for c in r.conditions)
    assert re.fullmatch(
        r"Take lora: (equivalent within 1 point to|shown to lose less than 1 point against) full, "
        r"the best on validation, 1\.5x faster to train \(4\d s against 6\d s\)",
        r.answer.sentence,
    )
    generous = tradeoff.recommend(record, margin=0.3)
    assert generous.choice == "svm-tfidf"
    assert "If a loss of 30 points is acceptable, svm-tfidf" in generous.sentence
    strict = tradeoff.recommend(record, margin=0.0001)
    assert strict.choice == "full"
    assert "nothing else is shown to lose less than 0.01 points" in strict.sentence
    assert strict.answer.sentence == (
        "Take full: best on validation, equivalent to lora, better than svm and svm-tfidf; nothing "
        "cheaper is shown to lose less than 0.01 points"
    )
    for found in (r, generous, strict):
        assert len(found.answer.sentence) <= 160  # two lines of a terminal


def test_the_cost_decides_among_what_is_acceptable(tmp_path: Path) -> None:
    record = with_scores(study(tmp_path), {**FAR, "svm": 0.8995}, 0.0)
    assert tradeoff.recommend(record, cost="train_seconds").choice == "svm"
    assert tradeoff.recommend(record, cost="artifact_bytes").choice == "lora"


def test_few_seeds_recommend_the_best_and_say_why(tmp_path: Path) -> None:
    r = tradeoff.recommend(with_scores(study(tmp_path, seeds=3), FAR, 0.001))
    by_label = {x.label: x for x in r.losses}
    assert not by_label["lora"].acceptable
    assert "3 seeds: at least 6 are needed" in by_label["lora"].reason
    assert r.choice == "full"
    assert "with fewer than 6 seeds nothing cheaper can be shown to be as good" in r.sentence
    assert r.answer.take == "full"
    assert "with 3 seeds no method is called better or worse (6 are needed)" in r.answer.sure


def test_the_answer_of_the_cheapest_and_of_the_only_one(tmp_path: Path) -> None:
    cheap = with_scores(study(tmp_path), {**FAR, "svm-tfidf": 0.95, "svm": 0.9499}, 0.0)
    said = tradeoff.recommend(cheap).answer.sentence
    assert said.startswith("Take svm-tfidf: ")
    assert said.endswith("; also the cheapest (training time)")
    near = with_scores(study(tmp_path / "near"), {**FAR, "lora": 0.95, "full": 0.9499}, 0.0)
    said = tradeoff.recommend(near).answer.sentence
    assert said.startswith("Take lora: ")
    assert said.endswith("; cheaper than what comes near it")
    alone = read_study(make_study(tmp_path / "one", methods=METHODS[3:], seeds=6))
    assert tradeoff.recommend(alone).answer.sentence == (
        "Take lora: the only method that finished, so there is nothing to compare it with"
    )


def test_nothing_finished_and_bad_names(tmp_path: Path) -> None:
    record = study(tmp_path, seeds=1, rows=20)
    none = replace(record, results=tuple(replace(r, status="failed") for r in record.results))
    assert tradeoff.recommend(none).choice is None
    assert tradeoff.recommend(none).answer.sentence.startswith("No trial finished")
    assert front(none).places == ()
    with pytest.raises(ConfigError, match="Did you mean 'train_seconds'"):
        front(record, "train_second")
    with pytest.raises(ConfigError, match=r"margin: expected a loss above 0.*found 1"):
        tradeoff.recommend(record, margin=1)


def test_ratio_of_costs_is_paired_by_seed(tmp_path: Path) -> None:
    record = study(tmp_path, rows=20)
    factors = np.array([1.9, 2.0, 2.1, 2.0, 2.2, 1.8])
    results = tuple(
        replace(
            r,
            cost=replace(
                r.cost,
                train_seconds=10.0
                * (r.spec.seed + 1)
                * (factors[r.spec.seed] if r.spec.method.label == "full" else 1.0),
            ),
        )
        for r in record.results
    )
    e = ratio(replace(record, results=results), "full", "lora", "train_seconds")
    assert e is not None
    assert e.value == pytest.approx(np.exp(np.log(factors).mean()))
    assert e.low is not None
    assert e.high is not None
    assert 1.8 < e.low < e.value < e.high < 2.2
    assert ratio(record, "full", "svm-tfidf", "adapter_parameters") is None


def test_a_ratio_of_two_seeds_is_a_range_and_not_sure(tmp_path: Path) -> None:
    record = study(tmp_path, rows=20)
    slower = {0: 1.1, 1: 1.6}
    results = tuple(
        replace(r, cost=replace(r.cost, train_seconds=slower[r.spec.seed] if full else 1.0))
        for r in record.results
        if (full := r.spec.method.label == "full") or r.spec.method.label == "lora"
        if r.spec.seed in slower
    )
    e = ratio(replace(record, results=results), "full", "lora", "train_seconds")
    assert e is not None
    assert e.low is not None
    # Two runs have no interval: the smallest and the largest ratio are told, and are not sure.
    assert e.is_range
    assert (e.low, e.high) == (pytest.approx(1.1), pytest.approx(1.6))
    assert not is_sure(e)


def test_a_summary_may_be_given(tmp_path: Path) -> None:
    record = study(tmp_path, rows=60)
    said = summarise(record)
    assert front(record, summary=said) == front(record)
    assert tradeoff.recommend(record, summary=said) == tradeoff.recommend(record)
