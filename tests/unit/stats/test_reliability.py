"""Reliability: bins, the calibration error without the luck of the labels, interval and band."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from tunelab.core.values import Predictions
from tunelab.stats.reliability import (
    calibration_error,
    consistency_band,
    miscalibration,
    reliability,
    resampled_errors,
)


def two_classes(confidence: np.ndarray, right: np.ndarray) -> Predictions:
    """Class 0 is said with a confidence, and true where `right`."""
    ids = tuple(map(str, range(len(right))))
    scores = np.stack([confidence, 1 - confidence], axis=1)
    return Predictions(ids, np.where(right, 0, 1), scores, "probability")


def drawn(n: int, seed: int, off: float = 0.0) -> Predictions:
    """Right as often as it is sure, less `off`."""
    rng = np.random.default_rng(seed)
    confidence = 0.55 + 0.4 * rng.random(n)
    return two_classes(confidence, rng.random(n) < confidence - off)


# --- bins -----------------------------------------------------------------------------------


def test_reliability_bins():
    p = two_classes(np.array([1.0, 0.5, 1.0]), np.array([True, False, False]))
    bins = reliability(p)
    assert len(bins) == 15
    assert [b.n for b in bins if b.n] == [1, 2]
    assert bins[-1].n == 2  # a confidence of exactly 1 belongs to the last bin
    assert (bins[-1].confidence, bins[-1].accuracy) == (1.0, 0.5)
    assert (bins[0].confidence, bins[0].accuracy) == (None, None)


def test_bins_are_closed_on_the_right():
    edge = float(np.linspace(0, 1, 16)[12])
    (filled,) = [b for b in reliability(two_classes(np.array([edge]), np.array([True]))) if b.n]
    assert filled.high == edge


def test_the_band_of_one_bin_is_the_binomials():
    from scipy.stats import binom

    p = two_classes(np.full(200, 0.9), np.ones(200, dtype=bool))
    (ends,) = [b for b in consistency_band([p]) if b is not None]
    expected = binom.ppf([0.025, 0.975], 200, 0.9) / 200
    assert ends == pytest.approx(tuple(expected), abs=0.011)
    # Seeds that state the same are right on the same rows: two are no surer than one.
    (both,) = [b for b in consistency_band([p, p]) if b is not None]
    assert both == pytest.approx(ends, abs=0.006)


# --- the error ------------------------------------------------------------------------------


def test_the_error_is_the_mean_of_products_of_two_rows():
    rng = np.random.default_rng(0)
    confidence = np.repeat([0.6, 0.7, 0.9], 40)  # three bins, since equal ones stay together
    right = rng.random(120) < 0.5
    expected = 0.0
    for c in (0.6, 0.7, 0.9):
        gaps = right[confidence == c] - c
        expected += np.mean([a * b for a, b in permutations(gaps, 2)]) / 3
    assert calibration_error(two_classes(confidence, right)) == pytest.approx(np.sqrt(expected))


def test_brockers_formula():
    """Brocker 2012, eq. 16: reliability less sum of n_b / n times the variance of a bin's mean."""
    rng = np.random.default_rng(1)
    confidence = np.repeat([0.55, 0.65, 0.75, 0.85, 0.95], 50)
    right = rng.random(250) < confidence - 0.15
    plain = bias = 0.0
    for c in np.unique(confidence):
        hits = right[confidence == c]
        plain += 0.2 * (hits.mean() - c) ** 2
        bias += 0.2 * hits.mean() * (1 - hits.mean()) / (len(hits) - 1)
    found = calibration_error(two_classes(confidence, right))
    assert found**2 == pytest.approx(plain - bias)


def test_the_square_error_is_unbiased_where_the_plain_one_is_not():
    plain = []
    for i in range(300):
        p = drawn(300, i)
        bins = [b for b in reliability(p) if b.n]
        plain.append(sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / 300)
    assert np.mean(plain) > 0.04
    assert np.mean([calibration_error(drawn(300, i)) == 0 for i in range(300)]) > 0.45
    off = [calibration_error(drawn(2000, i, 0.1)) ** 2 for i in range(100)]
    assert np.mean(off) == pytest.approx(0.01, abs=0.0006)


def test_perfect_and_perfectly_wrong():
    sure = np.ones(4)
    assert calibration_error(two_classes(sure, np.ones(4, dtype=bool))) == 0.0
    assert calibration_error(two_classes(sure, np.zeros(4, dtype=bool))) == 1.0


def test_resamples_of_every_row_once_give_the_error_itself():
    p = drawn(200, 3, 0.2)
    times = np.ones((200, 2))
    assert resampled_errors(p, times) == pytest.approx([calibration_error(p)] * 2)


# --- the interval and the verdict -----------------------------------------------------------


def test_calibrated_is_not_called_off_and_off_is():
    fine = [miscalibration([drawn(500, i)]) for i in range(60)]
    assert sum(m.shown for m in fine) <= 5
    assert sum(m.error.low == 0 for m in fine) >= 55
    bad = [miscalibration([drawn(1000, i, 0.08)]) for i in range(40)]
    assert sum(m.shown for m in bad) >= 35
    assert sum((m.error.low or 0) <= 0.08 <= (m.error.high or 0) for m in bad) >= 34


def test_few_rows_or_mistakes_are_not_judged():
    few = miscalibration([drawn(80, 0)])
    assert (few.error.low, few.p_value, few.shown) == (None, None, False)
    assert "80 rows" in (few.reason or "")
    sure = two_classes(np.full(500, 0.99), np.arange(500) > 2)
    assert "3 mistakes" in (miscalibration([sure]).reason or "")


def test_seeds_may_have_other_rows():
    whole = drawn(600, 1, 0.1)
    folds = [
        Predictions(whole.ids[k::3], whole.labels[k::3], whole.scores[k::3], "probability")
        for k in range(3)
    ]
    m = miscalibration(folds)
    assert m.shown
    assert m.error.low is not None
    assert len(consistency_band(folds)) == 15
