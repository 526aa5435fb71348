"""Variance of a mean over seeds and rows: unbiased parts, and what they add up to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tunelab.stats import components
from tunelab.stats.crossed import (
    Spread,
    components_of_resamples,
    components_of_values,
    pooled_seed_variance,
    spread_of,
    t_quantile,
    unseen_variance,
)

SEEDS, ROWS = 5, 60
SEED_SD, ITEM_SD, REST_SD = 0.4, 2.0, 3.0


def drawn_values(rng: np.random.Generator, seeds: int = SEEDS, rows: int = ROWS) -> np.ndarray:
    """Values (S, n) of the model that the module describes, with a mean of 1."""
    seed = SEED_SD * rng.normal(size=(seeds, 1))
    item = ITEM_SD * rng.normal(size=(1, rows))
    return 1.0 + seed + item + REST_SD * rng.normal(size=(seeds, rows))


def test_the_parts_are_unbiased_and_add_up_to_the_variance_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    studies = [drawn_values(rng) for _ in range(3000)]
    parts = [components_of_values(x) for x in studies]
    rest = REST_SD**2 / (SEEDS * ROWS)
    assert np.mean([p.rest for p in parts]) == pytest.approx(rest, rel=0.02)
    assert np.mean([p.row_means for p in parts]) == pytest.approx(
        ITEM_SD**2 / ROWS + rest, rel=0.02
    )
    assert np.mean([p.seed for p in parts if p.seed is not None]) == pytest.approx(
        SEED_SD**2 + REST_SD**2 / ROWS, rel=0.04
    )
    true = SEED_SD**2 / SEEDS + ITEM_SD**2 / ROWS + rest
    assert np.var([x.mean() for x in studies]) == pytest.approx(true, rel=0.06)
    # No less than the rows alone bring: that cut makes the total a little too large on average.
    assert true < np.mean([p.spread().variance for p in parts]) < 1.05 * true


def test_resampling_rows_finds_the_same_parts_as_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(1)
    x = drawn_values(rng, rows=200)
    index = rng.integers(0, 200, size=(4000, 200))
    drawn = x[:, index].mean(axis=2).T
    boot, exact = components_of_resamples(x.mean(axis=1), drawn, 200), components_of_values(x)
    assert boot.seed == pytest.approx(exact.seed)
    assert boot.row_means == pytest.approx(exact.row_means, rel=0.05)
    assert boot.rest == pytest.approx(exact.rest, rel=0.1)
    assert boot.item == pytest.approx(exact.item, rel=0.1)


def test_what_differs_by_seed_alone_or_by_row_alone_lands_in_its_own_part() -> None:
    by_row = np.tile(np.arange(10.0), (4, 1))
    p = components_of_values(by_row)
    assert (p.seed, p.rest) == (0.0, 0.0)
    assert p.item == p.row_means == pytest.approx(by_row[0].var(ddof=1) / 10)
    q = components_of_values(by_row.T)
    assert q.row_means == q.item == 0.0
    assert q.spread().variance == q.by_seed == pytest.approx(by_row[0].var(ddof=1) / 10)


def test_one_seed_has_no_spread_over_seeds_and_one_row_none_over_rows() -> None:
    one_seed = components_of_values(np.array([[0.0, 1.0, 1.0, 0.0]]))
    assert one_seed.seed is None
    assert one_seed.spread() == Spread(one_seed.row_means, 3)
    one_row = components_of_values(np.array([[1.0], [0.0], [1.0]]))
    assert one_row.row_means == math.inf


def test_rows_that_are_all_alike_leave_what_they_do_not_show() -> None:
    p = components_of_values(np.ones((6, 20)), unseen=unseen_variance(20))
    assert p.item == p.row_means == 1 / 22**2
    assert p.spread().variance > 0


def test_a_spread_gives_the_interval_and_the_p_value_of_the_same_t_test() -> None:
    spread = spread_of(0.03, 0.01, seed_df=5, item_df=199)
    assert spread.variance == pytest.approx(0.04)
    assert spread.df == pytest.approx(0.04**2 / (0.03**2 / 5 + 0.01**2 / 199))
    half = spread.half_width(0.95)
    assert half == pytest.approx(0.2 * t_quantile(0.95, spread.df))
    assert spread.p_value(half) == pytest.approx(0.05)
    assert spread_of(0.0, 0.0, seed_df=1, item_df=1).df == math.inf
    assert Spread(0.0, math.inf).p_value(0.0) == 1.0
    assert Spread(0.0, math.inf).p_value(0.1) == 0.0


def test_the_pooled_variance_over_seeds_leaves_out_what_a_seed_does_to_all() -> None:
    rng = np.random.default_rng(2)
    shared = 10.0 * rng.normal(size=(1, 4000))
    variance, df = pooled_seed_variance(shared + 0.3 * rng.normal(size=(4, 4000)))
    assert df == 3 * 3999
    assert variance == pytest.approx(2 * 0.3**2, rel=0.05)


def test_the_components_of_one_gap_agree_with_those_of_its_mean() -> None:
    gaps = drawn_values(np.random.default_rng(3), rows=400)
    within, common, seed = components(gaps)
    parts = components_of_values(gaps)
    assert within - common == pytest.approx(parts.rest * parts.seeds * parts.rows)
    assert common == pytest.approx(parts.item * parts.rows)
    assert seed == pytest.approx(max(0.0, (parts.seed or 0) - (within - common) / 400))
