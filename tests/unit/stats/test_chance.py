"""The probability that one method is better by more than a margin."""

from __future__ import annotations

import numpy as np
import pytest

from tunelab.stats.chance import chances_of_more


def one(gap: float, error: float, margin: float = 0.01, df: float = 1e6) -> float:
    means = np.array([0.8 + gap, 0.8])
    return chances_of_more(means, error**2 / 2 * np.eye(2), [(0, 1)], [df], margin)[0]


def test_a_sure_difference_is_sure_and_none_is_even():
    assert one(0.10, 0.005) > 0.999
    assert one(0.0, 0.01, margin=0.0 + 1e-9) == pytest.approx(0.5, abs=0.01)
    assert one(-0.10, 0.005) < 0.001


def test_what_is_uncertain_is_shrunk_towards_no_difference():
    # Without a belief the chance would be P(N(0.03, 0.03) > 0.01) = 0.75.
    assert one(0.03, 0.03) < 0.6
    assert one(0.03, 0.005) > one(0.03, 0.01) > one(0.03, 0.03)


def test_few_degrees_of_freedom_make_it_less_sure():
    assert one(0.04, 0.01, df=3) < one(0.04, 0.01)


def test_methods_that_are_all_alike_make_a_lead_less_believable():
    covariance = 0.01**2 * np.eye(6)
    alike = np.array([0.83, 0.8, 0.801, 0.799, 0.8, 0.8])
    apart = np.array([0.83, 0.8, 0.7, 0.9, 0.75, 0.86])
    pair = [(0, 1)]
    near, far = (chances_of_more(m, covariance, pair, [1e6], 0.01)[0] for m in (alike, apart))
    assert near < far


def test_true_differences_are_as_frequent_as_the_chances_say():
    rng, methods = np.random.default_rng(0), 4
    pairs = [(i, j) for i in range(methods) for j in range(i)]
    said, true = [], []
    for i in range(400):
        spread = (0.005, 0.01, 0.02, 0.04)[i % 4]
        truth = 0.8 + spread * rng.standard_t(4, size=methods) / 2**0.5
        # Drawn part by part: a draw from the covariance depends on how the machine factorises it.
        own = (0.005, 0.008, 0.012)[i % 3]
        seen = truth + rng.normal(0, 2e-4**0.5) + rng.normal(0, own, size=methods)
        covariance = 2e-4 + own**2 * np.eye(methods)
        said += chances_of_more(seen, covariance, pairs, [1e6] * len(pairs), 0.01)
        true += [truth[i] - truth[j] > 0.01 for i, j in pairs]
    chances, happened = np.array(said), np.array(true)
    for low, high in ((0.0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.01)):
        some = (chances >= low) & (chances < high)
        assert some.sum() > 75
        assert (
            abs(happened[some].mean() - chances[some].mean()) < 0.09
        )  # twice the standard error of the smallest band
