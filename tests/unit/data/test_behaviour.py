"""Behaviour tests: classifiers made to fail in known ways fail those tests and no others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from commands import run_here
from tiny import write_csv
from tunelab import api, evaluation
from tunelab.analysis.behaviour import results
from tunelab.core import study_folder
from tunelab.core.errors import ConfigError, DataError
from tunelab.core.values import ScoreKind
from tunelab.data import behaviour
from tunelab.data.behaviour import CHANGES, cases, load_suite, predict_cases, roles
from tunelab.stats import Runs

NAMES = ("negative", "positive")
SUITE = load_suite()
FOOLED_BY = ("Aisha", "Mary", "Wei")
GOOD = list(SUITE.words["good"])
BAD = list(SUITE.words["bad"])


class Counting:
    """Counts words of praise and blame; knows no negation, no order of time."""

    label_names = NAMES
    score_kind: ScoreKind = "logit"

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        out = []
        for text in texts:
            words = text.lower().replace(".", " ").replace(",", " ").replace("!", " ").split()
            good = sum(w in {*GOOD, "loved", "recommended", "better", "glad"} for w in words)
            bad = sum(w in {*BAD, "hated", "ruined", "worse", "sorry", "away"} for w in words)
            out.append([bad, good + 0.1])
        return np.array(out, dtype=float)

    def save(self, directory: Path) -> None:
        raise NotImplementedError


class Fooled(Counting):
    """The same, but some names make everything negative."""

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        out = super().scores(texts)
        out[[any(n in t for n in FOOLED_BY) for t in texts], 0] += 50
        return out


def rates(classifier: Counting) -> dict[str, float]:
    some = cases(SUITE)
    runs = [Runs("c", {0: predict_cases(classifier, some), 1: predict_cases(classifier, some)})]
    return {r.test: r.failure.value for r in results(SUITE, some, runs, NAMES)}


def test_the_bundled_suite_has_what_it_promises():
    some = cases(SUITE)
    assert {c.capability for c in some} >= {"negation", "intensity", "names", "time", "comparison"}
    assert {c.kind for c in some} == {"minimum", "invariance", "direction"}
    asked = Counter(c.test for c in some)
    for t in SUITE.tests:
        assert 8 <= asked[t.test] <= t.cases, t.test
    assert len({(c.test, c.text, c.other) for c in some}) == len(some)
    assert cases(load_suite()) == some
    assert all("{" not in t for t in behaviour.texts_of_cases(some))
    assert 400 <= len(some) <= 900


def test_a_word_counter_fails_where_words_are_not_enough():
    found = rates(Counting())
    assert found["plain praise"] == 0
    assert found["plain blame"] == 0
    assert found["praise negated"] == 1
    assert found["it was bad and is good now"] + found["it was good and is bad now"] == 1
    for test in ("names of people", "names of cities", "days of the week", "upper case",
                 "punctuation", "neutral words"):  # fmt: skip
        assert found[test] == 0, test
    assert found["praise added"] < 0.1


def test_a_name_that_fools_it_shows_in_the_names_alone():
    plain, fooled = rates(Counting()), rates(Fooled())
    assert fooled["names of people"] > 0.05
    assert fooled["names of cities"] == plain["names of cities"]
    some = cases(SUITE)
    runs = [Runs("c", {0: predict_cases(Fooled(), some)})]
    (result,) = [r for r in results(SUITE, some, runs, NAMES) if r.test == "names of people"]
    assert result.failure.low is not None
    assert result.failure.low < result.failure.value
    for e in result.examples:
        assert any(n in e.text + str(e.other) for n in FOOLED_BY)
        assert e.predicted != e.predicted_other


def test_predictions_of_a_suite_that_was_changed_are_known_for_it():
    some = cases(SUITE)
    p = predict_cases(Counting(), some)
    other = (replace(some[0], text="It was not what we hoped for."), *some[1:])
    assert behaviour.are_of_cases(p, some)
    assert not behaviour.are_of_cases(p, other)
    with pytest.raises(ValueError, match="of another suite"):
        results(SUITE, other, [Runs("c", {0: p})], NAMES)
    assert not behaviour.are_of_cases(p, some[1:])


def test_direction_needs_a_fall_of_more_than_a_tenth():
    suite = behaviour.Suite("s", SUITE.labels, {}, ())
    some = tuple(behaviour.Case(str(i), "d", "direction", "a", "b", "positive") for i in range(3))
    p = np.array([[0.5, 0.5], [0.59, 0.41], [0.5, 0.5], [0.61, 0.39], [0.9, 0.1], [0.1, 0.9]])
    made = predict_cases(Counting(), some)
    fixed = type(made)(made.ids, made.labels, p, "probability")
    rate = [r.failure.value for r in results(suite, some, [Runs("c", {0: fixed})], NAMES)]
    assert rate == [0, 1, 0]
    margins = type(made)(made.ids, made.labels, p - 0.45, "margin")
    rate = [r.failure.value for r in results(suite, some, [Runs("c", {0: margins})], NAMES)]
    assert rate == [0, 0, 0]  # argmax of [.5, .5] is the first class: never positive before


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("0", "1"), ("negative", "positive")),
        (("1", "2", "3", "4", "5"), ("negative", "negative", "neutral", "positive", "positive")),
        (("Neg", "POS"), ("negative", "positive")),
        (("negative", "neutral", "positive"), ("negative", "neutral", "positive")),
        (("other", "bad", "good"), (None, "negative", "positive")),
    ],
)
def test_roles(names: tuple[str, ...], expected: tuple[str | None, ...]):
    assert roles(SUITE, names) == expected


def test_classes_of_another_kind_are_refused():
    with pytest.raises(ConfigError, match="no class of 'sport', 'politics' is positive"):
        roles(SUITE, ("sport", "politics"))


def test_changes_change_and_keep():
    rng = np.random.default_rng(0)
    text = "It was not good, and we are sure that wonderful things happen."
    for name, change in CHANGES.items():
        assert change(text, rng) != text, name
    swapped = CHANGES["typo"](text, rng)
    assert sorted(swapped) == sorted(text)
    assert len(swapped) == len(text)
    assert CHANGES["contraction"]("It is bad and was not good.", rng) == "It's bad and wasn't good."
    assert CHANGES["contraction"]("You will not find it.", rng) == "You won't find it."


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "expected a mapping with `tests`"),
        ("tests: []", "no tests"),
        ("tests: [{test: a, kind: minimal, templates: [x]}]", "Did you mean 'minimum'"),
        ("tests: [{test: a, kind: minimum, templates: ['{thing}'], expect: positive}]", "no words"),
        ("tests: [{test: a, kind: minimum, templates: [x], expect: good}]", "expected one of"),
        ("tests: [{test: a, kind: invariance, templates: [x]}]", "`change` or `vary`"),
        ("tests: [{test: a, kind: invariance, templates: [x], change: typos}]", "typo"),
        ("tests: [{test: a, kind: direction, templates: [x], expect: positive}]", "`add`"),
        ("tests: [{test: a, kind: minimum, templates: [x], expects: positive}]", "unknown key"),
        ("tests: [{test: a, kind: minimum, templates: [1], expect: positive}]", "list of strings"),
        ("tests: [", "not a YAML file"),
    ],
)
def test_a_faulty_suite_is_refused_in_one_line(tmp_path: Path, content: str, says: str):
    path = tmp_path / "suite.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_suite(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_suite_of_the_documentation_works(tmp_path: Path):
    text = (Path(__file__).resolve().parents[3] / "docs" / "behaviour.md").read_text("utf-8")
    path = tmp_path / "suite.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    suite = load_suite(path)
    assert {c.kind for c in cases(suite)} == {"minimum", "invariance", "direction"}
    assert roles(suite, ("complaint", "praise")) == ("negative", "positive")


def test_a_study_keeps_the_predictions_and_an_artifact_answers_the_same(tmp_path: Path):
    words = {"positive": GOOD, "negative": BAD}
    rows = [[f"the {words[y][i % 8]} thing number {i}", y] for i in range(20) for y in words]
    data = write_csv(tmp_path / "r.csv", rows, ["text", "label"])
    folder = tmp_path / "study"
    said = run_here("compare", data, "--methods", "svm-tfidf", "--seeds", "2", "--tuning", "off",
                    "--behaviour", "--output-dir", folder)  # fmt: skip
    assert said.code == 0, said.err
    record = study_folder.read_study(folder)
    assert record.behaviour is not None
    stored = record.predictions(record.done[0].spec.trial_id)["behaviour"]
    assert len(stored.scores) == len(behaviour.texts_of_cases(cases(SUITE)))
    found = evaluation.behaviour(folder)
    by_test = {r.test: r.failure.value for r in found}
    assert by_test["plain praise"] < 0.5
    assert by_test["praise negated"] > 0.5
    artifact = study_folder.artifact_dir(folder, record.done[0].spec.trial_id)
    alone = json.loads(run_here("behaviour", artifact, "--json").out)
    assert {r["test"]: r["failure"]["value"] for r in alone} == pytest.approx(by_test)
    shown = run_here("behaviour", folder)
    assert "praise negated" in shown.out
    # The suite was changed since: its trials are asked anew, and no old answer is taken for a new.
    asked = record.behaviour["cases"]
    blame = next(c["text"] for c in asked if c["test"] == "plain blame")
    swapped = [{**c, "text": blame} if c["test"] == "plain praise" else c for c in asked]
    for some in (swapped, swapped[1:]):
        study_folder.write_extra(folder, "behaviour", {**record.behaviour, "cases": some})
        assert {r.test: r.failure.value for r in evaluation.behaviour(folder)}["plain praise"] > 0.5
    assert run_here("report", folder).code == 0
    other = write_csv(tmp_path / "o.csv", [[r[0], {"positive": "sport"}.get(r[1], "art")]
                                           for r in rows], ["text", "label"])  # fmt: skip
    refused = run_here("compare", other, "--methods", "svm-tfidf", "--behaviour", "--output-dir",
                       tmp_path / "none")  # fmt: skip
    assert refused.code == 2
    assert "is positive" in refused.err
    assert not (tmp_path / "none").exists()


def test_from_python_a_suite_and_leaks_are_named_too(tmp_path: Path):
    words = {"positive": GOOD, "negative": BAD}
    rows = [[f"the {words[y][i % 8]} thing number {i}", y] for i in range(20) for y in words]
    data = write_csv(tmp_path / "r.csv", [*rows, *rows], ["text", "label"])
    assert api.load_data(data).fingerprint == api.load_data(data, on_leak="warn").fingerprint
    with pytest.raises(ConfigError, match="no such suite"):
        api.compare(
            data, methods=["svm-tfidf"], behaviour="missing.yaml", output_dir=tmp_path / "o"
        )
    with pytest.raises(DataError, match="--on-leak drop"):
        api.compare(data, methods=["svm-tfidf"], on_leak="fail", output_dir=tmp_path / "o")
