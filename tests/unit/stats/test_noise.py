"""What chance adds to the means of several methods."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, t

from tunelab.core.values import Predictions
from tunelab.stats import LEAST_SEEDS, Runs, compare_all, holm
from tunelab.stats.crossed import moderated_variances, shared_part
from tunelab.stats.metrics import METRICS
from tunelab.stats.noise import (
    MethodNoise,
    behrens_fisher_spread,
    draw_statistics,
    noise_by_method,
    step_down,
)
from tunelab.stats.resampling import measure_all

SILENT = MethodNoise(0.0, 1.0, 0.0)


def runs_of(right: np.ndarray, ids=None) -> Runs:
    """A method from who is right, (seeds, rows); `ids` by seed where seeds have their own rows."""
    labels = np.arange(right.shape[1]) % 2
    return Runs(
        "m",
        {
            s: Predictions(
                tuple(map(str, range(right.shape[1]))) if ids is None else ids[s],
                labels,
                np.eye(2)[np.where(r, labels, 1 - labels)],
                "probability",
            )
            for s, r in enumerate(right)
        },
    )


# --- moderated variances ------------------------------------------------------------------------


def test_like_variances_become_one_that_knows_as_much_as_all():
    variances, df = moderated_variances(np.array([1.0, 1.1, 0.9, 1.0]), 5)
    assert variances == pytest.approx(np.full(4, 1.0), abs=0.03)
    assert list(df) == [20, 20, 20, 20]  # their own 5, and no more than the others' 15


def test_unlike_variances_are_left_alone():
    own = np.array([1e-6, 1e-6, 4e-4, 6e-4])
    variances, df = moderated_variances(own, 5)
    assert list(variances) == list(own)
    assert list(df) == [5, 5, 5, 5]


def test_methods_that_do_not_vary_help_nobody():
    variances, df = moderated_variances(np.array([0.0, 1.0, 1.0, 0.0]), 5)
    assert variances[0] == variances[3] == 0
    assert list(df) == [5, 10, 10, 5]
    assert moderated_variances(np.array([0.0, 2.0]), 5)[0].tolist() == [0.0, 2.0]


def test_some_scatter_moves_variances_towards_each_other_and_not_past():
    own = np.array([0.7, 0.9, 1.0, 1.4, 2.2])
    variances, df = moderated_variances(own, 5)
    assert (np.diff(variances) >= 0).all()
    assert own.min() < variances.min()
    assert variances.max() < own.max()
    assert 5 < df[0] <= 25


# --- the spread of a difference -----------------------------------------------------------------


def test_rows_alone_are_normal_and_one_noisy_method_is_student():
    rows = behrens_fisher_spread(4.0, (), 6, 1e9)
    assert rows.half_width(0.95) == pytest.approx(2 * norm.ppf(0.975), rel=0.02)
    one = behrens_fisher_spread(0.0, (MethodNoise(6.0, 5, 0.0), SILENT), 6, 1e9)
    assert one.variance == pytest.approx(1.0)
    assert one.half_width(0.95) == pytest.approx(t.ppf(0.975, 5), rel=0.03)


def test_two_methods_are_the_tabled_behrens_fisher_value():
    # Fisher & Yates, table V1: 6 and 6 degrees of freedom, 45 degrees, two-sided 5%: 2.435.
    both = behrens_fisher_spread(0.0, (MethodNoise(1.0, 6, 0.0),) * 2, 7, 1e9)
    assert both.half_width(0.95) / np.sqrt(both.variance) == pytest.approx(2.435, rel=0.03)


def test_seed_by_row_is_counted_with_the_rows_only():
    n = MethodNoise(2.0, 5, 2.0)
    assert behrens_fisher_spread(1.0, (n, n), 4, 1e9).variance == 1.0


def test_a_shared_row_variance_is_one_and_that_of_fresh_seeds_a_part():
    assert shared_part(0.01, 0.01, 1000, 6) == 1.0
    assert shared_part(0.01 / 6, 0.01, 1000, 6) == pytest.approx(1 / 6, rel=1e-3)
    assert shared_part(0.0, 0.0, 100, 6) == 1.0  # nothing is known: the cautious end


# --- several differences at once ----------------------------------------------------------------


def test_step_down_lies_between_each_p_and_holms():
    rng = np.random.default_rng(0)
    p = [0.001, 0.02, 0.03, 0.5]
    adjusted = step_down(p, rng.random((4000, 4)))
    for own, mine, by_holm in zip(p, adjusted, holm(p), strict=True):
        assert own <= mine <= by_holm + 1e-12
    assert adjusted[0] == pytest.approx(1 - (1 - 0.001) ** 4, rel=0.5)  # independent: Sidak


def test_tests_that_are_one_and_the_same_need_no_correction():
    drawn = np.repeat(np.random.default_rng(0).random((4000, 1)), 5, axis=1)
    assert step_down([0.03] * 5, drawn) == pytest.approx([0.03] * 5, abs=0.01)


def test_drawn_p_values_are_uniform_where_only_rows_matter():
    rng = np.random.default_rng(0)
    covariance = np.array([[2.0, 1.0], [1.0, 2.0]])
    spread = behrens_fisher_spread(2.0, (), 1, 1e9)
    drawn = draw_statistics(covariance, [SILENT, SILENT], [(0, 1)], [(spread, 2.0, 1)], rng)
    assert np.quantile(drawn[:, 0], [0.05, 0.5, 0.9]) == pytest.approx([0.05, 0.5, 0.9], abs=0.03)


# --- seeds that have rows of their own ----------------------------------------------------------


def folds(rng: np.random.Generator, hard: float, gap: float, k: int = 6, rows: int = 200):
    """Two methods over k folds, one of which is harder for both."""
    ids = {s: tuple(f"{s}-{i}" for i in range(rows)) for s in range(k)}
    easy = np.array([0.8] * (k - 1) + [0.8 - hard])[:, None]
    luck = rng.random((k, rows))
    return [
        Runs(name, runs_of(luck < easy - d, ids).by_seed) for name, d in (("a", 0.0), ("b", gap))
    ]


def test_a_hard_fold_is_no_noise_of_any_method():
    rng = np.random.default_rng(0)
    for hard in (0.0, 0.4):
        (measured,) = measure_all(folds(rng, hard, 0.02), [METRICS["accuracy"]], rng, 300)
        noises = noise_by_method(measured, [False, False], shared_rows=False)
        assert all(n.variance < 3e-4 for n in noises)
        # Half of five degrees of freedom each, and as much again from a method that scatters alike.
        assert all(n.df in {2.5, 5.0} for n in noises)


def test_folds_are_compared_over_all_their_rows():
    (c,) = compare_all(
        folds(np.random.default_rng(1), 0.3, 0.05), "accuracy", np.random.default_rng(0)
    )
    assert c.verdict == "better"
    assert "1,200 test rows" in c.difference.procedure
    assert LEAST_SEEDS == 6


def test_a_second_repetition_of_folds_does_not_count_rows_twice():
    rng = np.random.default_rng(2)
    rows, k = 1200, 6
    right = {"a": rng.random(rows) < 0.85, "b": rng.random(rows) < 0.8}
    labels = np.arange(rows) % 2

    def of(repetitions: int) -> list[Runs]:
        orders = [np.random.default_rng(r).permutation(rows) for r in range(repetitions)]
        seeds = [part for order in orders for part in np.array_split(order, k)]
        return [
            Runs(
                name,
                {
                    s: Predictions(
                        tuple(map(str, part)),
                        labels[part],
                        np.eye(2)[np.where(r[part], labels[part], 1 - labels[part])],
                        "probability",
                    )
                    for s, part in enumerate(seeds)
                },
            )
            for name, r in right.items()
        ]

    # The models are the same in every fold, so that a second look at the rows teaches nothing.
    once, twice = (compare_all(of(r), "accuracy", np.random.default_rng(0))[0] for r in (1, 2))
    assert once.difference.value == pytest.approx(twice.difference.value)
    width = [c.difference.high - c.difference.low for c in (once, twice)]
    assert width[1] == pytest.approx(width[0], rel=0.25)
