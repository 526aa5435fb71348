"""A ranked list of doubtful labels: no better than it is, and none from a weak model."""

from __future__ import annotations

import numpy as np
import pytest

from tunelab.data.duplicates import find_twins
from tunelab.data.gate import labels
from tunelab.data.gate.doubts import LEAST_TELLING, doubtful_labels
from tunelab.data.gate.values import bag_of


def predicted(labels: np.ndarray, k: int, sharpness: float, rng: np.random.Generator) -> np.ndarray:
    """Probabilities (n, k) of a model whose logits are noise, `sharpness` higher for the truth."""
    logits = rng.normal(size=(len(labels), k))
    logits[np.arange(len(labels)), labels] += sharpness
    p = np.exp(2 * logits)
    return p / p.sum(axis=1, keepdims=True)


def flipped(
    labels: np.ndarray, k: int, share: float, kind: str, rng: np.random.Generator
) -> np.ndarray:
    """Any class, or the next one from some classes only: the proof plants the first alone."""
    if kind == "any":
        return np.where(rng.random(len(labels)) < share,
                        (labels + rng.integers(1, k, len(labels))) % k, labels)  # fmt: skip
    often = share * np.where(labels % 2, 1.6, 0.4)
    return np.where(rng.random(len(labels)) < often, (labels + 1) % k, labels)


@pytest.mark.parametrize("k", [2, 5, 60])
@pytest.mark.parametrize("kind", ["any", "next"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("sharpness", [0.7, 2.0, 3.5])
def test_the_list_is_at_least_as_good_as_it_says(k: int, kind: str, share: float, sharpness: float):
    rng = np.random.default_rng(3)
    truth = rng.integers(0, k, 6000)
    p = predicted(truth, k, sharpness, rng)
    labels = flipped(truth, k, share, kind, rng)
    doubts = doubtful_labels(labels, p)
    if doubts.reason:
        assert len(doubts.rows) == 0
        return
    wrong = (labels != truth)[doubts.rows]
    error = 2 * np.sqrt(wrong.mean() * (1 - wrong.mean()) / len(wrong))
    assert wrong.mean() >= doubts.precision - error
    assert doubts.wrong_share <= share * 1.2
    half = len(wrong) // 2
    assert wrong[:half].mean() >= wrong[half:].mean() - 0.1


def test_a_strong_model_lists_what_was_planted():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 6000)
    labels = flipped(truth, 3, 0.1, "any", rng)
    doubts = doubtful_labels(labels, predicted(truth, 3, 3.5, rng))
    wrong = (labels != truth)[doubts.rows]
    assert not doubts.reason
    assert wrong.sum() >= 0.5 * (labels != truth).sum()
    assert doubts.precision >= 0.4


def test_a_weak_model_says_why_it_is_silent():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 5, 4000)
    doubts = doubtful_labels(truth, predicted(truth, 5, 0.7, rng))
    assert doubts.telling < LEAST_TELLING
    assert "doubts a wrong label that was planted more than a given one" in doubts.reason
    assert len(doubts.rows) == 0


def test_the_same_data_give_the_same_list():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 3000)
    labels = flipped(truth, 3, 0.1, "any", rng)
    p = predicted(truth, 3, 3.5, rng)
    one, two = doubtful_labels(labels, p), doubtful_labels(labels, p)
    assert np.array_equal(one.rows, two.rows)
    assert one.precision == two.precision


@pytest.mark.parametrize(("classes", "columns"), [(2, 40), (1_000, 20)])
def test_the_label_model_learns_what_several_texts_have_and_no_more(
    classes: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy.sparse import csr_array

    monkeypatch.setattr(labels, "MOST_WEIGHTS", 20_000)
    # Column i of 60: two texts more for each; from 40 on one text each.
    have = [2 + 2 * i if i < 40 else 1 for i in range(60)]
    text = np.concatenate([np.arange(n) for n in have])
    column = np.repeat(np.arange(60), have)
    features = csr_array((np.arange(1.0, len(text) + 1), (text, column)), shape=(100, 60))
    told = labels._told_columns(features, classes)
    assert told.shape == (100, columns)
    np.testing.assert_array_equal(told.toarray(), features.toarray()[:, 40 - columns : 40])


def test_of_many_rows_a_sample_is_learnt_and_every_row_is_judged(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 600)
    texts = [f"{('bad', 'good')[y]} w{i} w{i + 1}" for i, y in enumerate(truth)]
    twins = find_twins(texts)
    monkeypatch.setattr(labels, "LEARNT_FROM", 100)
    monkeypatch.setattr(labels, "JUDGED_AT_A_TIME", 7)
    p = labels.out_of_fold(twins, bag_of(twins), truth, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == truth).all()
