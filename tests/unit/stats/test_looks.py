"""Looks at a growing study: their levels hold together what one look would, and no less."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from tunelab.stats.looks import (
    Looks,
    declare,
    levels_at,
    looked,
    looks_from_json,
    looks_in_words,
    looks_to_json,
    nominal_levels,
)

SHARES = tuple(s / 20 for s in range(6, 21, 2))


def test_one_look_with_all_seeds_has_the_whole_level() -> None:
    assert nominal_levels((1.0,), 0.05) == pytest.approx((0.05,))
    assert levels_at(Looks(20, 2, (20,)), 6).better == pytest.approx(0.05)
    assert levels_at(Looks(20, 2, (20,)), 6).equivalent == pytest.approx(0.05)


def paths(looks: int, studies: int, row_sd: float) -> NDArray[np.float64]:
    """|Z| of the mean of 6, 8, .. 20 seeds of two equals, (studies, looks)."""
    rng = np.random.default_rng(0)
    row = row_sd * rng.normal(size=(studies, 1))
    seeds = np.arange(6, 21, 2)[:looks]
    means = np.cumsum(rng.normal(size=(studies, 20)), axis=1)[:, seeds - 1] / seeds
    return np.asarray(np.abs(means + row) / np.sqrt(1 / seeds + row_sd**2))


def test_all_looks_together_keep_the_level() -> None:
    """As much as there is where seeds are all, and less where rows are most."""
    bounds = norm.isf(np.array(nominal_levels(SHARES, 0.05)) / 2)
    seeds_alone, rows_most = (
        float((paths(8, 200_000, sd) > bounds).any(axis=1).mean()) for sd in (0.0, 1.0)
    )
    assert seeds_alone == pytest.approx(0.05, abs=0.0015)
    assert rows_most < 0.04
    # After fewer looks, alpha t^2 has been spent.
    first_three = float((paths(3, 200_000, 0.0) > bounds[:3]).any(axis=1).mean())
    assert first_three == pytest.approx(0.05 * 0.5**2, abs=0.001)


@pytest.mark.parametrize("pairs", [3, 36])
def test_holm_at_these_levels_keeps_the_family_over_all_looks(pairs: int) -> None:
    """Of the pairs, each by itself, at each step of Holm: level / h at every look keeps 5% / h."""
    looks = [Looks(20, 2, tuple(range(6, last + 1, 2))) for last in range(6, 21, 2)]
    levels = np.array([levels_at(x, pairs).better for x in looks])
    z = paths(8, 400_000, 0.0)
    for h in (1, 3):
        crossed = float((z > norm.isf(levels / (2 * h))).any(axis=1).mean())
        assert crossed <= 0.05 / h + 3 * math.sqrt(0.05 / h / 400_000)
    assert (np.diff(levels) > 0).all()
    assert levels[-1] <= nominal_levels(SHARES, 0.05)[-1]


def test_looks_at_the_same_seeds_are_one_and_at_too_many_say_nothing() -> None:
    looks = declare(20, 2, 6)
    assert looked(looks, 6) is looks
    assert looked(looked(looks, 8), 8).seeds == (6, 8)
    beyond = Looks(10, 2, (6, 10, 12))
    assert levels_at(beyond, 1).better == 0
    assert levels_at(beyond, 1).equivalent == 0


def test_fewer_than_six_seeds_are_no_look() -> None:
    """Nothing is called better on them, so nothing of the 5% is spent."""
    looks = declare(20, 2, 2)
    assert looks.seeds == ()
    assert looked(looks, 4) is looks
    assert looked(looks, 6).seeds == declare(20, 2, 6).seeds == (6,)
    # Methods whose seeds all agree are judged over rows: as they will be at the first look.
    assert levels_at(looks, 3) == replace(levels_at(declare(20, 2, 6), 3), number=0)
    assert "6 seeds are needed" in looks_in_words(looks)


def test_looks_are_plain_json_and_say_themselves() -> None:
    looks = looked(declare(20, 2, 6), 8)
    assert looks_from_json(json.loads(json.dumps(looks_to_json(looks)))) == looks
    assert looks_in_words(looks).startswith("looked 2 times, with 6, 8 of at most 20 seeds")
    assert "once" in looks_in_words(declare(20, 2, 6))


def test_each_look_spends_its_part() -> None:
    """Three equal looks, by a million paths: alpha t^2 is spent after each."""
    shares = (1 / 3, 2 / 3, 1.0)
    rng = np.random.default_rng(1)
    sums = np.cumsum(rng.normal(size=(1_000_000, 3)) / math.sqrt(3), axis=1)
    z = np.abs(sums) / np.sqrt(shares)
    bounds = norm.isf(np.array(nominal_levels(shares, 0.05)) / 2)
    left, spent = np.ones(len(z), dtype=bool), 0.0
    for k, t in enumerate(shares):
        crossed = left & (z[:, k] > bounds[k])
        spent += float(crossed.mean())
        left &= ~crossed
        assert spent == pytest.approx(0.05 * t**2, abs=0.0007)
