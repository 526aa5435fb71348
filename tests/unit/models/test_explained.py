"""Which words moved an answer: what is found moves it further than other words, of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from adapters_made import make_model
from tiny import make_tiny, reviews
from tunelab.classifiers import load
from tunelab.models.explained import explain, moved_in_words, spans_of_words, without, words_moved
from tunelab.models.linear import TfidfSvm
from tunelab.models.tfidf import NgramWeights
from tunelab.models.vector_heads import Hyperplanes
from tunelab.stats.predictions import probabilities

TEXTS = ["a warm and lovely film", "a dull and tedious film", "lovely cast", "tedious plot"] * 3


def by_counting(texts: list[str]) -> np.ndarray:
    """Two classes: log odds of the second are the number of "good" minus that of "bad"."""
    odds = np.array([t.split().count("good") - t.split().count("bad") for t in texts], float)
    p = 1 / (1 + np.exp(-odds))
    return np.stack([1 - p, p], axis=1)


def test_a_word_moves_the_log_odds_by_what_leaving_it_out_takes():
    (said,) = explain(by_counting, ("no", "yes"), ["good  film, good but bad"])
    assert said.label == "yes"
    moved = {said.text[w.start : w.stop]: w.moved for w in said.words}
    assert moved == pytest.approx({"good": 1, "film,": 0, "but": 0, "bad": -1}, abs=1e-9)
    assert len(said.words) == 5
    assert moved_in_words(said.text, said.words, 3) == "good +1.00, good +1.00, bad -1.00"


def test_many_texts_are_explained_as_each_alone(monkeypatch: pytest.MonkeyPatch):
    texts = ["good a b", "", "bad " * 7, "c good"]
    alone = [explain(by_counting, ("no", "yes"), [t])[0] for t in texts]
    asked = []

    def counted(some: list[str]) -> np.ndarray:
        asked.append(len(some))
        return by_counting(some)

    monkeypatch.setattr("tunelab.models.explained._EXPLAINED_AT_A_TIME", 9)
    assert explain(counted, ("no", "yes"), texts) == alone
    assert asked == [5, 8, 3]
    assert alone[1].words == ()


def test_of_a_linear_classifier_it_is_what_the_weights_say(tmp_path: Path):
    vectorizer = TfidfVectorizer()
    labels = ["lovely" in t for t in TEXTS]
    svm = LinearSVC().fit(vectorizer.fit_transform(TEXTS), labels)
    planes = Hyperplanes(np.concatenate([-svm.coef_, svm.coef_]), np.zeros(2), 1.0)
    own = TfidfSvm((NgramWeights.of(vectorizer),), planes, ("no", "yes"))
    (said,) = explain(
        lambda t: probabilities(own.scores(t), "logit"), own.label_names, ["lovely film and plot"]
    )
    moved = {said.text[w.start : w.stop]: w.moved for w in said.words}
    weight = dict(zip(vectorizer.get_feature_names_out(), svm.coef_[0], strict=True))
    assert max(moved, key=lambda w: moved[w]) == max(moved, key=lambda w: weight[w]) == "lovely"


def deletion(predict_proba, texts: list[str], top: bool, k: int = 3) -> float:  # type: ignore[no-untyped-def]
    """By how much leaving out k words lowers the log odds of the label, on average."""
    falls = []
    rng = np.random.default_rng(0)
    for said in explain(predict_proba, ("a", "b"), texts):
        words = sorted(said.words, key=lambda w: -w.moved)
        chosen = words[:k] if top else list(rng.permutation(np.array(words, object))[:k])
        text = said.text
        for w in sorted(chosen, key=lambda w: -w.start):
            (text,) = without(text, [(w.start, w.stop)])
        rows = predict_proba([said.text, text])
        falls.append(words_moved([(0, 0)], rows)[0].moved)
    return float(np.mean(falls))


def test_leaving_out_the_top_words_of_a_transformer_moves_it_more_than_others(tmp_path: Path):
    base = make_tiny(tmp_path / "base", "bert")
    own = load(make_model(tmp_path / "own", base, ["a", "b"], 0)).classifier
    texts = [text for text, _ in reviews(12)]

    def predict_proba(some: list[str]) -> np.ndarray:
        return probabilities(own.scores(some), own.score_kind)

    assert deletion(predict_proba, texts, top=True) > 2 * abs(deletion(predict_proba, texts, False))


def test_words_of_a_long_text_are_left_out_in_groups():
    assert len(spans_of_words("word " * 900, 400)) == 300
