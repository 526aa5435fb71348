"""Intervals of shares: Wilson's and Clopper and Pearson's values, and what seeds add."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tunelab.stats.shares import interval_of_share, share_of_values


def test_wilsons_interval_as_published():
    """Newcombe 1998, table I, method 3 (score): 81/263, 15/148."""
    assert interval_of_share(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert interval_of_share(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_the_exact_interval_where_all_are_alike():
    """Newcombe 1998, table I, method 5 (exact): 0/20 and, as a mirror, 20/20; 1/29."""
    assert interval_of_share(0.0, 20) == pytest.approx((0.0, 0.1684), abs=5e-5)
    assert interval_of_share(1.0, 20) == pytest.approx((1 - 0.1684, 1.0), abs=5e-5)
    low, high = interval_of_share(1 / 29, 29)
    assert low == pytest.approx(0.0009, abs=5e-5)  # exact; Wilson's begins at 0.0061
    assert high == pytest.approx(0.1776, abs=5e-5)


def test_what_seeds_add_is_added_as_squares():
    low, high = interval_of_share(0.8, 200)
    wide = interval_of_share(0.8, 200, seed_variance=0.02**2, seed_df=4)
    half = 2.7764451 * 0.02  # Student's t, 4 degrees of freedom
    assert wide[0] == pytest.approx(0.8 - math.hypot(0.8 - low, half))
    assert wide[1] == pytest.approx(0.8 + math.hypot(high - 0.8, half))


def test_rows_that_seeds_answer_differently_count_for_more():
    """Seeds that are coins on every row make a mean over ten of them ten times as sure."""
    rng = np.random.default_rng(0)
    coins = share_of_values((rng.random((10, 400)) < 0.5).astype(float)).estimate()
    same = share_of_values(np.repeat(rng.random((1, 400)) < 0.5, 10, axis=0).astype(float))
    fixed = same.estimate()
    assert coins.low is not None
    assert coins.high is not None
    assert fixed.low is not None
    assert fixed.high is not None
    assert coins.high - coins.low < (fixed.high - fixed.low) / 2


def test_folds_count_rows_alike():
    """Two folds of other rows; one row has no answer of the second, and no row is lost."""
    values = np.full((2, 40), np.nan)
    values[0, :30] = 1.0
    values[1, 30:] = 0.0
    share = share_of_values(values)
    assert share.value == pytest.approx(0.75)
    assert share.estimate().low is not None
    none = share_of_values(np.vstack([values, np.full((1, 40), np.nan)]))
    assert none.seeds == 2


def test_a_difference_of_two_shares_as_published():
    """Newcombe 1998, "Interval estimation for the difference", table II, 10: 56/70, 48/80."""
    a = share_of_values((np.arange(70) < 56).astype(float)[None])
    b = share_of_values((np.arange(80) < 48).astype(float)[None])
    e = a.minus(b, 0.0)
    assert (e.low, e.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
