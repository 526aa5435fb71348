"""Every metric against scikit-learn, on random cases with ties, absent classes and few rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from tunelab.core.values import Predictions
from tunelab.stats.metrics import METRICS, evaluate, per_class
from tunelab.stats.predictions import class_scores, confusion
from tunelab.stats.threshold_curves import precision_recall_curve, roc_curve

AVERAGED = {
    "f1": sk.f1_score,
    "precision": sk.precision_score,
    "recall": sk.recall_score,
}


def random_case(seed: int) -> Predictions:
    """2 to 7 classes, 1 to 200 rows, with or without ties, sometimes with classes left out."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 8))
    n = int(rng.choice([1, 2, 3, 10, 50, 200]))
    labels = rng.integers(0, k, n)
    if seed % 3 == 0:  # some classes carry no label
        labels = labels % int(rng.integers(1, k + 1))
    scores = rng.normal(size=(n, k)) * rng.choice([0.5, 3.0, 15.0])
    scores[np.arange(n), labels] += rng.choice([0.0, 1.0, 5.0])
    scores += rng.normal(size=(n, 1)) * 10  # a shift per row, which softmax takes away
    if seed % 4 == 0:  # a class that is never predicted
        scores[:, -1] -= 1000
    if seed % 2:
        scores = scores.round()
    kind = ("logit", "probability", "margin")[seed % 5 % 3]
    if kind == "probability":
        scores = softmax(scores, axis=1)
    return Predictions(tuple(map(str, range(n))), labels, scores, kind)


CASES = [pytest.param(random_case(s), id=str(s)) for s in range(120)]


@pytest.mark.parametrize("p", CASES)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_all_of_the_winning_class(p):
    names = [f"c{i}" for i in range(p.scores.shape[1])]
    values, _ = evaluate(p, names)
    assert values["accuracy"] == pytest.approx(sk.accuracy_score(p.labels, p.predicted))
    for name, function in AVERAGED.items():
        for average in ("macro", "weighted"):
            expected = function(p.labels, p.predicted, average=average, zero_division=0)
            assert values[f"{name}_{average}"] == pytest.approx(expected), (name, average)
    balanced = sk.balanced_accuracy_score(p.labels, p.predicted)
    assert values["balanced_accuracy"] == pytest.approx(balanced)
    assert values["mcc"] == pytest.approx(sk.matthews_corrcoef(p.labels, p.predicted))
    k = len(names)
    expected_matrix = sk.confusion_matrix(p.labels, p.predicted, labels=range(k))
    assert np.array_equal(confusion(p.labels, p.predicted, k), expected_matrix)
    rows = sk.precision_recall_fscore_support(
        p.labels, p.predicted, labels=range(k), zero_division=0
    )
    found = per_class(p, names)
    for i, name in enumerate(names):
        expected_row = [column[i] for column in rows]
        assert list(found[name].values()) == pytest.approx(expected_row)


@pytest.mark.parametrize("p", CASES)
def test_roc_auc(p):
    k = p.scores.shape[1]
    values, reasons = evaluate(p, [f"c{i}" for i in range(k)])
    if len(np.unique(p.labels)) < k:
        absent = sorted(set(range(k)) - set(p.labels.tolist()))
        assert values["roc_auc"] is None
        assert reasons["roc_auc"].endswith(", ".join(f"'c{c}'" for c in absent))
        return
    if k == 2:
        expected = sk.roc_auc_score(p.labels, p.scores[:, 1] - p.scores[:, 0])
    elif p.score_kind == "margin":
        each = [sk.roc_auc_score(p.labels == c, p.scores[:, c]) for c in range(k)]
        expected = np.mean(each)
    else:
        prob = softmax(p.scores, axis=1) if p.score_kind == "logit" else p.scores
        expected = sk.roc_auc_score(p.labels, prob, multi_class="ovr", average="macro")
    assert values["roc_auc"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("p", CASES)
def test_log_loss(p):
    k = p.scores.shape[1]
    values, reasons = evaluate(p, [f"c{i}" for i in range(k)])
    if p.score_kind == "margin":
        assert values["log_loss"] is None
        assert values["ece"] is None
        assert {"log_loss", "ece"} <= set(reasons)
        return
    prob = softmax(p.scores, axis=1) if p.score_kind == "logit" else p.scores
    # scikit-learn clips probabilities; ours of logits are exact, so stay where both can be told.
    if prob[np.arange(len(prob)), p.labels].min() < 1e-12:
        assert np.isfinite(values["log_loss"])
        return
    assert values["log_loss"] == pytest.approx(sk.log_loss(p.labels, prob, labels=range(k)))


@pytest.mark.parametrize("p", CASES[::3])
def test_curves(p):
    for c in range(p.scores.shape[1]):
        truth, score = p.labels == c, class_scores(p, c)
        if not truth.any():
            continue
        precision, recall = precision_recall_curve(truth, score, points=None)
        expected = sk.precision_recall_curve(truth, score)
        np.testing.assert_allclose(precision, expected[0])
        np.testing.assert_allclose(recall, expected[1])
        if truth.all():
            continue
        fpr, tpr = roc_curve(truth, score, points=None)
        expected_fpr, expected_tpr, _ = sk.roc_curve(truth, score, drop_intermediate=False)
        np.testing.assert_allclose(fpr, expected_fpr)
        np.testing.assert_allclose(tpr, expected_tpr)


def test_the_cases_reach_what_they_are_meant_to_reach():
    cases = [c.values[0] for c in CASES]
    assert {p.score_kind for p in cases} == {"logit", "probability", "margin"}
    absent = [len(np.unique(p.labels)) < p.scores.shape[1] for p in cases]
    assert 20 < sum(absent) < 110
    scored = [p for p, a in zip(cases, absent, strict=True) if not a]
    assert {2, 3, 7} <= {p.scores.shape[1] for p in scored}
    assert {p.score_kind for p in scored if p.scores.shape[1] > 2} == {
        "logit",
        "probability",
        "margin",
    }
    assert set(METRICS) >= {"accuracy", "f1_macro", "roc_auc", "log_loss", "ece"}


@pytest.mark.parametrize("p", [c for c in CASES if c.values[0].score_kind == "probability"])
def test_brier(p):
    k = p.scores.shape[1]
    values, _ = evaluate(p, [f"c{i}" for i in range(k)])
    expected = sk.brier_score_loss(p.labels, p.scores, labels=range(k), scale_by_half=False)
    assert values["brier"] == pytest.approx(expected)
