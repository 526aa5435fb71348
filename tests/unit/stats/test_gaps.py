"""Gaps of a race: what rows and seeds bring, and what one erratic method explains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tunelab.stats.gaps import Gap, RowPart, erratic_gap, gap_between, known, row_part
from tunelab.stats.racing import replay


def answers(
    accuracy: float, sd: float, seeds: int, rows: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Right answers (seeds, rows), each row by its own luck: nothing is shared."""
    level = accuracy + sd * rng.normal(size=(seeds, 1))
    return rng.random((seeds, rows)) < level


def test_a_gap_is_read_from_the_seeds_that_both_have() -> None:
    rng = np.random.default_rng(0)
    first, second = answers(0.9, 0.01, 4, 500, rng), answers(0.8, 0.01, 4, 500, rng)
    right = {"a": dict(enumerate(first)), "b": {s: second[s] for s in (1, 2)}}
    gap = gap_between(known(right), "a", "b", 2)
    assert gap is not None
    assert gap.seeds == 2
    assert gap.behind == pytest.approx(first[1:3].mean() - second[1:3].mean())
    assert gap.moving == 2
    assert gap_between(known(right), "a", "b", 3) is None


def test_a_method_that_no_seed_changes_is_not_pooled() -> None:
    """Two that vary and three that do not: the spread of the two is not divided by five."""
    rng = np.random.default_rng(1)
    moving = [answers(0.8, 0.03, 6, 4000, rng) for _ in range(2)]
    fixed = [np.repeat(answers(0.8, 0.0, 1, 4000, rng), 6, axis=0) for _ in range(3)]
    right = {str(k): dict(enumerate(r)) for k, r in enumerate([*moving, *fixed])}
    alone = gap_between(known({k: right[k] for k in "01"}), "0", "1", 2)
    among = gap_between(known(right), "0", "1", 2)
    of_fixed = gap_between(known(right), "2", "3", 2)
    mixed = gap_between(known(right), "0", "3", 2)
    assert alone is not None
    assert among is not None
    assert of_fixed is not None
    assert mixed is not None
    assert among.steady == alone.steady
    assert (among.moving, mixed.moving, of_fixed.moving) == (2, 1, 0)
    assert of_fixed.seed_variance == 0
    assert erratic_gap(of_fixed, 0.001) == -math.inf


def test_rows_of_its_own_for_each_seed_are_counted_once() -> None:
    """The stated variance of the mean gap is that of many draws: no row seen twice, and some."""
    rng = np.random.default_rng(2)
    stated, seen = {}, {}
    for name in ("same", "own", "half"):
        means, variances = [], []
        for _ in range(1500):
            pool = rng.random(400) < 0.8, rng.random(400) < 0.8
            drawn = {
                "same": [np.arange(100)] * 4,
                "own": [np.arange(100) + 100 * s for s in range(4)],
                "half": [np.arange(100) + 50 * s for s in range(4)],
            }[name]
            gaps = [(pool[0][rows].astype(float) - pool[1][rows]) for rows in drawn]
            part = row_part(gaps, None if name == "same" else drawn)
            assert part is not None
            means.append(np.mean([g.mean() for g in gaps]))
            variances.append(max(part.least, part.item + part.seed / 4))
        stated[name], seen[name] = float(np.mean(variances)), float(np.var(means))
    assert stated["same"] == pytest.approx(seen["same"], rel=0.12)
    # The largest of two estimates is above the truth, the more so the fewer seeds.
    for name in ("own", "half"):
        assert 0.9 * seen[name] < stated[name] < 1.6 * seen[name]
    assert seen["own"] < 0.4 * seen["same"]


@pytest.mark.parametrize("seeds", [2, 3, 6])
@pytest.mark.parametrize("sd", [0.005, 0.015, 0.03])
def test_equals_are_told_apart_no_more_often_than_said(seeds: int, sd: float) -> None:
    """One method varies by `sd`, the other by nothing; whichever it is, the bound holds."""
    rng = np.random.default_rng(3)
    chance, crossed = 0.01, 0
    draws = rng.normal(0, sd, (4000, seeds)) + rng.normal(0, 0.003, (4000, 1))
    for gaps in draws:
        part = RowPart(1000, 0.003**2, 999, float(gaps.var(ddof=1)), 0.0, 0.0)
        crossed += float(gaps.mean()) >= erratic_gap(
            Gap(seeds, float(gaps.mean()), part, 1, 1e-6, 1), chance
        )
    assert crossed / 4000 <= chance * (1 - math.log(chance)) + 2 * math.sqrt(0.05 / 4000)


def test_more_seeds_that_agree_need_less_of_a_gap() -> None:
    def needed(seeds: int, spread: float) -> float:
        part = RowPart(1000, 1e-6, 999, spread**2, 0.0, 0.0)
        return erratic_gap(Gap(seeds, 0.1, part, 1, 1e-5, 3), 0.0005)

    close = [needed(s, 0.003) for s in (2, 3, 5, 9)]
    assert close == sorted(close, reverse=True)
    assert close[0] > 4 * close[-1]
    assert needed(5, 0.02) > needed(5, 0.003)


@pytest.mark.parametrize("noisy", [0, 1])
def test_a_method_unlike_the_others_is_no_way_to_lose_the_best(noisy: int) -> None:
    """Eight equals of which one varies by 3 points: the first is asked about, erratic or not."""
    lost = 0
    for study in range(150):
        rng = np.random.default_rng(study)
        spreads = [0.03 if k == noisy else 0.002 for k in range(8)]
        right = np.stack([answers(0.86, sd, 6, 3000, rng) for sd in spreads])
        lost += "0" not in replay(right, range(6))[0].alive
    assert lost <= 0.05 * 150 + 2 * math.sqrt(0.05 * 150)


def test_seeds_with_rows_of_their_own_are_raced() -> None:
    """What is far behind goes; equals stay, though each seed has other rows."""
    rng = np.random.default_rng(5)
    right = np.stack([answers(a, 0.01, 6, 400, rng) for a in (0.85, 0.85, 0.6)])
    rows = {s: np.arange(400) + 400 * s for s in range(6)}
    race, _ = replay(right, range(6), rows=rows)
    assert race.alive == ("0", "1")
    assert "on 800 validation rows" in race.dropped[0].sentence
