"""metrics: what is refused, what is undefined and why, hand-computed values, curves and bins."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest

from tunelab.core.values import Predictions
from tunelab.stats.metrics import (
    METRICS,
    evaluate,
    log_loss,
    metrics_of,
    per_class,
    roc_auc,
)
from tunelab.stats.predictions import (
    UndefinedMetricError,
    class_scores,
    confusion,
    counts,
    probabilities,
)
from tunelab.stats.threshold_curves import precision_recall_curve, roc_curve


def predictions(labels, scores, kind="logit"):
    labels = np.asarray(labels, dtype=np.int64)
    return Predictions(
        ids=tuple(str(i) for i in range(len(labels))),
        labels=labels,
        scores=np.asarray(scores, dtype=np.float64),
        score_kind=kind,
    )


@pytest.fixture
def four_rows():
    # probabilities of class 1: 0.9, 0.4, 0.6, 0.2; labels 1, 1, 0, 0
    p1 = np.array([0.9, 0.4, 0.6, 0.2])
    return predictions([1, 1, 0, 0], np.column_stack([1 - p1, p1]), "probability")


def test_values_by_hand(four_rows):
    values, reasons = evaluate(four_rows, ["no", "yes"])
    assert reasons == {}
    assert set(values) == set(metrics_of("classes"))
    assert values["accuracy"] == 0.5
    assert values["f1_macro"] == 0.5
    assert values["mcc"] == 0.0
    assert values["roc_auc"] == 0.75  # of four pairs only (0.4, 0.6) is in the wrong order
    expected = -(math.log(0.9) + math.log(0.4) + math.log(0.4) + math.log(0.8)) / 4
    assert values["log_loss"] == pytest.approx(expected)
    # one bin; gaps 0.1, -0.6, -0.6, 0.2: of 12 products of two different rows the mean
    assert values["ece"] == pytest.approx(math.sqrt((0.9**2 - 0.77) / 12))


def test_metric_rows_are_consistent():
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.label
        assert metric.higher_is_better == (
            name not in {"log_loss", "brier", "ece", "hamming_loss", "scale_error"}
        )
        if "classes" not in metric.tasks:
            assert metric.from_counts or metric.weighted
        else:
            assert (metric.needs == "class") == (metric.from_counts is not None)
    assert not METRICS["log_loss"].percent
    assert not METRICS["mcc"].percent


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["logit", "probability", "margin"])
def test_scores_that_are_not_finite_are_refused_everywhere(bad, kind):
    p = predictions([0, 1, 0], [[1, 0], [0, 1], [bad, 0]], kind)
    with pytest.raises(ValueError, match=r"1 of 3 rows .*first: row 2.*diverged"):
        evaluate(p, ["a", "b"])
    for metric in METRICS.values():
        with pytest.raises(ValueError, match="diverged"):
            metric.function(p)
    with pytest.raises(ValueError, match="diverged"):
        per_class(p, ["a", "b"])


def test_unusable_predictions_are_refused_in_one_line():
    good = [[0.0, 1.0], [1.0, 0.0]]
    cases = [
        (predictions([], np.zeros((0, 2))), ["a", "b"], "no rows"),
        (predictions([-1, -1], good), ["a", "b"], r"2 of 2 labels .*unlabelled"),
        (predictions([0, 2], good), ["a", "b"], r"1 of 2 labels .*0\.\.1"),
        (predictions([0, 1, 1], good), ["a", "b"], "shape"),
        (predictions([0, 1], [0.1, 0.9]), ["a", "b"], "shape"),
        (predictions([0, 1], good), ["a", "b", "c"], "2 columns of scores for 3 label names"),
        (predictions([0, 1], [[0.2, 0.9], [1, 0]], "probability"), ["a", "b"], "sum to one"),
        (predictions([0, 1], [[-0.2, 1.2], [1, 0]], "probability"), ["a", "b"], r"0\.\.1"),
    ]
    for p, names, text in cases:
        with pytest.raises(ValueError, match=text) as caught:
            evaluate(p, names)
        assert "\n" not in str(caught.value)


def test_one_row():
    values, reasons = evaluate(predictions([1], [[0.0, 2.0]]), ["bad", "good"])
    assert values["accuracy"] == values["f1_macro"] == values["balanced_accuracy"] == 1.0
    assert values["roc_auc"] is None
    assert reasons == {"roc_auc": "ROC-AUC needs rows of every class: none of 'bad'"}


def test_margins_have_a_ranking_but_no_probability():
    p = predictions([0, 1, 2, 1], [[2, -1, -1], [0, 3, -2], [0, 1, 0], [-1, 2, 0]], "margin")
    values, reasons = evaluate(p, ["a", "b", "c"])
    assert values["accuracy"] == 0.75
    assert values["roc_auc"] is not None
    assert values["log_loss"] is None
    assert values["ece"] is None
    assert set(reasons) == {"log_loss", "brier", "ece"}
    assert "margins" in reasons["ece"]
    with pytest.raises(ValueError, match="margins"):
        probabilities(p.scores, "margin")


def test_auc_is_not_that_of_the_raw_logit_of_class_1():
    # Every row is ranked right by its probability, and wrong by the raw logit of class 1.
    p = predictions([0, 0, 1, 1], [[9, 8], [8, 7], [1, 2], [0, 1]])
    assert roc_auc(p) == 1.0
    assert roc_auc(predictions(p.labels, p.scores, "margin")) == 1.0


def test_binary_auc_does_not_saturate():
    # Softmax gives exactly 1.0 for both rows; the logits still rank them.
    p = predictions([0, 1], [[-50.0, 0.0], [-60.0, 0.0]])
    assert (probabilities(p.scores, "logit")[:, 1] == 1.0).all()
    assert roc_auc(p) == 1.0


@pytest.mark.parametrize("shift", [0.0, 1e6, -1e6])
def test_probabilities_of_huge_logits(shift):
    p = probabilities(np.array([[1000.0, 0.0], [0.0, -1000.0], [3.0, 3.0]]) + shift, "logit")
    np.testing.assert_allclose(p, [[1, 0], [1, 0], [0.5, 0.5]])
    float32 = probabilities(np.array([[1, 2]], dtype=np.float32), "logit")
    assert float32.dtype == np.float64


def test_log_loss_of_a_confident_error_is_not_clipped_for_logits():
    assert log_loss(predictions([1], [[500.0, 0.0]])) == 500.0
    sure = predictions([1], [[1.0, 0.0]], "probability")
    assert log_loss(sure) == pytest.approx(-math.log(np.finfo(np.float64).eps))


def test_constant_scores_are_all_ties():
    values, _ = evaluate(predictions([0, 1, 1], np.zeros((3, 2))), ["a", "b"])
    assert values["roc_auc"] == 0.5
    assert values["accuracy"] == pytest.approx(1 / 3)  # the first class wins a tie
    assert values["log_loss"] == pytest.approx(math.log(2))


def test_class_neither_labelled_nor_predicted_is_left_out_of_macro():
    p = predictions([0, 0, 1, 1], [[3, 1, 0], [3, 1, 0], [1, 3, 0], [1, 3, 0]])
    values, reasons = evaluate(p, ["a", "b", "never"])
    assert values["f1_macro"] == values["precision_macro"] == values["recall_macro"] == 1.0
    assert reasons["roc_auc"].endswith("none of 'never'")
    assert per_class(p, ["a", "b", "never"])["never"] == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": 0,
    }


def test_confusion_rows_are_true_classes():
    labels, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    assert confusion(labels, predicted, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert confusion(labels, predicted, 4)[3].sum() == 0


def test_from_counts_works_on_any_leading_shape():
    rng = np.random.default_rng(0)
    many = rng.integers(0, 20, size=(3, 5, 4, 4))
    for metric in METRICS.values():
        if metric.from_counts is None:
            continue
        together = metric.from_counts(counts(many))
        assert together.shape == (3, 5)
        one = metric.from_counts(counts(many[2, 4]))
        assert together[2, 4] == pytest.approx(float(one))


def test_evaluation_leaves_its_input_alone(four_rows):
    before = four_rows.scores.copy()
    evaluate(four_rows, ["a", "b"])
    assert np.array_equal(four_rows.scores, before)


def test_row_order_does_not_matter():
    rng = np.random.default_rng(1)
    p = predictions(rng.integers(0, 3, 60), rng.normal(size=(60, 3)).round(1))
    order = rng.permutation(60)
    q = dataclasses.replace(p, labels=p.labels[order], scores=p.scores[order])
    a, b = evaluate(p, list("abc"))[0], evaluate(q, list("abc"))[0]
    assert a == pytest.approx(b)


# --- curves ---------------------------------------------------------------------------------


def test_curves_are_thinned_without_losing_ends_or_area():
    rng = np.random.default_rng(3)
    truth = rng.random(5000) < 0.3
    score = rng.normal(size=5000) + truth
    fpr, tpr = roc_curve(truth, score)
    assert len(fpr) == len(tpr) <= 200
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    full = roc_curve(truth, score, points=None)
    assert len(full[0]) > 1000
    assert np.trapezoid(tpr, fpr) == pytest.approx(np.trapezoid(full[1], full[0]), abs=2e-3)
    precision, recall = precision_recall_curve(truth, score)
    assert len(recall) <= 200
    assert (precision[-1], recall[-1], recall[0]) == (1, 0, 1)


@pytest.mark.parametrize("points", [2, 3, 10, 199])
def test_thinning_never_exceeds_what_was_asked(points):
    rng = np.random.default_rng(4)
    truth = np.arange(400) % 2 == 0
    for score in (rng.normal(size=400), truth.astype(float), -np.arange(400.0)):
        fpr, tpr = roc_curve(truth, score, points=points)
        assert 2 <= len(fpr) <= max(points, 3)
        assert (fpr[-1], tpr[-1]) == (1, 1)


def test_curves_that_cannot_be_drawn_say_why():
    score = np.array([0.1, 0.2])
    for truth in ([True, True], [False, False]):
        with pytest.raises(UndefinedMetricError):
            roc_curve(np.array(truth), score)
    with pytest.raises(UndefinedMetricError):
        precision_recall_curve(np.array([False, False]), score)
    with pytest.raises(ValueError, match="diverged"):
        roc_curve(np.array([True, False]), np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match="no rows"):
        roc_curve(np.array([], dtype=bool), np.array([]))


def test_class_scores_of_two_classes_are_antisymmetric():
    p = predictions([0, 1], [[1.0, 4.0], [2.0, 0.0]])
    assert class_scores(p, 1).tolist() == [3.0, -2.0]
    assert class_scores(p, 0).tolist() == [-3.0, 2.0]


def test_importing_metrics_and_stats_is_light():
    code = (
        "import sys, tunelab.stats.metrics, tunelab.stats;"
        "print([m for m in ('torch', 'scipy', 'sklearn', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
