"""Every metric against scikit-learn, on random cases with ties, absent classes and few rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from tunelab.core.values import Predictions
from tunelab.stats.metrics import METRICS, evaluate, metrics_of, per_class
from tunelab.stats.predictions import class_scores, confusion
from tunelab.stats.resampling import Runs, measure_all
from tunelab.stats.threshold_curves import precision_recall_curve, roc_curve
from tunelab.stats.thresholds import with_own_thresholds

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


# --- several labels a text --------------------------------------------------------------------


def several(seed: int) -> Predictions:
    """2 to 6 labels on 60 rows, each label on some of them; of odd ones at their own thresholds."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 7))
    labels = (rng.random((60, k)) < rng.uniform(0.1, 0.7, k)).astype(np.int64)
    labels[0], labels[1] = 1, 0
    scores = rng.normal(size=labels.shape) + 2 * labels - 1
    p = Predictions(tuple(map(str, range(60))), labels, scores, "label_logit")
    return with_own_thresholds(p) if seed % 2 else p


@pytest.mark.parametrize("seed", range(6))
def test_metrics_of_several_labels(seed):
    p = several(seed)
    values, reasons = evaluate(p, [f"l{i}" for i in range(p.labels.shape[1])])
    assert (set(values), reasons) == (set(metrics_of("multilabel")), {})
    chance = 1 / (1 + np.exp(-p.scores))
    for name, function in AVERAGED.items():
        for average in ("macro", "weighted"):
            expected = function(p.labels, p.predicted, average=average, zero_division=0)
            assert values[f"{name}_{average}"] == pytest.approx(expected), (name, average)
    for average in ("micro", "samples"):
        expected = sk.f1_score(p.labels, p.predicted, average=average, zero_division=0)
        assert values[f"f1_{average}"] == pytest.approx(expected)
    assert values["subset_accuracy"] == pytest.approx(sk.accuracy_score(p.labels, p.predicted))
    assert values["hamming_loss"] == pytest.approx(sk.hamming_loss(p.labels, p.predicted))
    assert values["roc_auc"] == pytest.approx(sk.roc_auc_score(p.labels, chance))
    losses = [sk.log_loss(y, c) for y, c in zip(p.labels.T, chance.T, strict=True)]
    assert values["log_loss"] == pytest.approx(np.mean(losses))
    brier = [sk.brier_score_loss(y, c) for y, c in zip(p.labels.T, chance.T, strict=True)]
    assert values["brier"] == pytest.approx(np.mean(brier))
    of_label = per_class(p, [f"l{i}" for i in range(p.labels.shape[1])])
    f1 = sk.f1_score(p.labels, p.predicted, average=None, zero_division=0)
    assert [c["f1"] for c in of_label.values()] == pytest.approx(f1.tolist())


def test_no_other_threshold_has_a_higher_f1():
    p = several(1)
    for k in range(p.labels.shape[1]):
        truth, scores = p.labels[:, k], p.scores[:, k]
        best = max(sk.f1_score(truth, scores >= cut) for cut in scores)
        assert sk.f1_score(truth, p.predicted[:, k]) == pytest.approx(best)


def scale(seed: int) -> Predictions:
    """A scale of five on 60 rows."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 60)
    scores = rng.normal(size=(60, 5)) - 0.6 * np.abs(np.arange(5) - labels[:, None])
    return Predictions(tuple(map(str, range(60))), labels, scores, "logit", ordered=True)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_a_scale(seed):
    p = scale(seed)
    values, _ = evaluate(p, list("12345"))
    expected = sk.cohen_kappa_score(p.labels, p.predicted, weights="quadratic")
    assert values["quadratic_kappa"] == pytest.approx(expected)
    assert values["scale_error"] == pytest.approx(sk.mean_absolute_error(p.labels, p.predicted))
    assert values["accuracy"] == pytest.approx(sk.accuracy_score(p.labels, p.predicted))
    none, why = evaluate(replace(p, labels=p.labels * 0, scores=p.scores * 0), list("12345"))
    assert none["quadratic_kappa"] is None
    assert "two classes" in why["quadratic_kappa"]


RESAMPLED = [
    *((several(3), m) for m in metrics_of("multilabel").values()),
    *((scale(3), m) for m in metrics_of("ordinal").values() if m.tasks == ("ordinal",)),
]


@pytest.mark.parametrize(("p", "metric"), RESAMPLED, ids=lambda x: getattr(x, "name", ""))
def test_resamples_give_what_the_metric_gives_of_their_rows(p, metric):
    rows = 60
    (measured,) = measure_all([Runs("m", {0: p})], [metric], np.random.default_rng(5), 8)
    drawn = np.random.default_rng(5).integers(0, rows, size=(8, rows))
    for value, index in zip(measured[0].resampled[0], drawn, strict=True):
        some = replace(p, ids=(), labels=p.labels[index], scores=p.scores[index])
        assert value == pytest.approx(metric.function(some))
