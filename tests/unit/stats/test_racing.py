"""Racing: the best is kept, what is surely behind is dropped, and the bound's promise holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from tunelab.stats import racing
from tunelab.stats.racing import (
    RaceRecord,
    advance,
    crossing_chance,
    order,
    over,
    race_from_json,
    race_to_json,
    replay,
    sentences,
    start,
)


def grid(
    skills: list[float], seeds: int = 6, rows: int = 600, seed_sd: float = 0.01, seed: int = 0
) -> NDArray[np.bool_]:
    """Right answers (methods, seeds, rows): rows are hard or easy for all alike."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=rows)
    own = rng.normal(size=(len(skills), rows))
    luck = rng.normal(0, seed_sd, size=(len(skills), seeds, 1))
    noise = rng.normal(size=(len(skills), seeds, rows))
    scores = 1.5 * hard + 0.4 * own[:, None] + 0.4 * noise
    ranks = scores.argsort(axis=2).argsort(axis=2) / rows
    return ranks < np.array(skills)[:, None, None] + luck


def test_a_race_drops_what_is_behind_and_spends_little() -> None:
    right = grid([0.9, 0.6, 0.55, 0.5, 0.7, 0.65])
    race, spent = replay(right, range(6))
    assert race.alive == ("0",)
    assert spent < 0.5 * right.shape[0] * right.shape[1]
    assert {d.label for d in race.dropped} == set("12345")
    for d in race.dropped:
        assert d.t == pytest.approx(d.behind / d.error)
        assert d.t >= d.threshold > norm.isf(0.05 / 5)
        assert d.seeds >= 2
        assert f"{d.label} was dropped after {d.seeds} seeds" in d.sentence
    assert "0 is the best of 6 with 95% confidence" in racing.statement(race)


def test_what_is_near_stays_and_runs_with_every_seed() -> None:
    right = grid([0.8, 0.797, 0.5])
    race, spent = replay(right, range(6))
    assert set(race.alive) == {"0", "1"}
    assert spent == 6 + 6 + race.dropped[0].seeds
    assert "the best of 3 is among these 2 with 95% confidence" in racing.statement(race)


def test_nobody_is_dropped_after_one_seed() -> None:
    right = grid([0.95, 0.3])
    race = advance(start(["0", "1"], 6), {"0": {0: right[0, 0]}, "1": {0: right[1, 0]}})
    assert race.alive == ("0", "1")
    assert len(race.rounds) == 1


def test_a_lucky_seed_is_not_taken_for_skill() -> None:
    """One seed in which a method collapsed is no reason, where its others are as good."""
    right = grid([0.8, 0.8, 0.8], seed_sd=0.0)
    right[1, 0] = grid([0.5], seed=3)[0, 0]
    race = start(["0", "1", "2"], 6)
    known = {str(k): {s: right[k, s] for s in range(2)} for k in range(3)}
    assert "1" in advance(race, known).alive


def test_the_order_is_the_leader_first_and_failed_methods_are_not_judged() -> None:
    right = grid([0.6, 0.8, 0.78])
    known = {"0": {0: right[0, 0]}, "1": {0: right[1, 0]}, "2": {0: right[2, 0]}, "3": {}}
    race = advance(start(["0", "1", "2", "3"], 6), known)
    assert order(race) == ("1", "2", "0", "3")
    assert race.rounds[0].leader == "1"
    assert "3" not in race.rounds[0].scores
    assert order(start(["b", "a"], 2)) == ("b", "a")


def paths(ratio: float, seeds: int) -> NDArray[np.float64]:
    """Statistics of two equals after 2, 3, .. seeds, (many, looks): a row part that stays."""
    rng = np.random.default_rng(0)
    row = rng.normal(size=(200_000, 1))
    luck = np.cumsum(np.sqrt(ratio) * rng.normal(size=(200_000, seeds)), axis=1)
    s = np.arange(1, seeds + 1)
    return ((row + luck / s) / np.sqrt(1 + ratio / s))[:, 1:]


@pytest.mark.parametrize("ratio", [0.1, 2.0, 30.0])
def test_no_look_of_a_race_crosses_the_bound_more_often_than_it_says(ratio: float) -> None:
    """Hunter's inequality, against the paths themselves: above the truth, and not by much."""
    high = paths(ratio, 8).max(axis=1)
    for bound in (2.0, 2.6):
        seen, said = float((high > bound).mean()), crossing_chance(bound, ratio, 8)
        assert norm.sf(bound) < seen * 1.05
        assert seen * 0.97 <= said <= seen * 1.4
        assert said < 7 * norm.sf(bound)
    assert crossing_chance(2.0, ratio, 2) == pytest.approx(norm.sf(2.0))  # one look


def test_a_race_ends_where_more_seeds_would_not_tell() -> None:
    """Two methods that differ on a few rows only, the same with every seed."""
    right = grid([0.8, 0.8, 0.4], seeds=12, seed_sd=0.001)
    right[1] = right[0]
    right[1, :, :6] = ~right[0, :, :6]
    race, spent = replay(right, range(12))
    assert race.settled
    assert over(race)
    assert set(race.alive) == {"0", "1"}
    assert len(race.rounds) == 6
    assert spent < 2 * 6 + 6 + 1
    # What more seeds may yet tell goes on: here they differ by seeds alone.
    right = grid([0.8, 0.79, 0.4], seeds=12, seed_sd=0.02, rows=3000)
    known = {str(k): {s: right[k, s] for s in range(6)} for k in range(3)}
    assert not advance(start("012", 60), known).settled
    # And nobody gives up before there are as many seeds as a verdict asks for.
    known = {str(k): {s: right[0, s] for s in range(5)} for k in range(2)}
    assert not over(advance(start("01", 12), known))


def test_the_best_is_kept_in_nineteen_of_twenty_races_of_equals() -> None:
    """Where nobody is better, whoever is best by a hair must not be lost."""
    lost = 0
    for seed in range(60):
        right = grid([0.8] * 4 + [0.6], rows=300, seed_sd=0.015, seed=seed)
        race, _ = replay(right, range(6))
        lost += "0" not in race.alive
    assert lost <= 3


@pytest.mark.parametrize(("name", "most"), [("wide", 0.33), ("close", 0.45)])
def test_on_a_recorded_grid_the_best_is_kept_and_not_everything_is_run(
    name: str, most: float
) -> None:
    """A small version of benchmarks/racing.py, on its grids."""
    with np.load(Path(__file__).parents[3] / "benchmarks/racing.npz") as stored:
        right = np.unpackbits(stored[name], axis=2, count=int(stored["rows"])).astype(bool)
    best = str(right.mean(axis=(1, 2)).argmax())
    rng = np.random.default_rng(0)
    seeds = right.shape[1]
    races = [replay(right, [int(s) for s in rng.permutation(seeds)]) for _ in range(10)]
    assert all(best in race.alive for race, _ in races)
    assert np.mean([spent for _, spent in races]) <= most * right.shape[0] * seeds


def test_a_race_is_plain_json_and_says_itself() -> None:
    race, spent = replay(grid([0.9, 0.5]), range(6))
    record = RaceRecord(
        "accuracy", None, "decided", race, racing.statement(race), spent, 12, 1.0, 2.0
    )
    stored = race_from_json(json.loads(json.dumps(race_to_json(record))))
    assert stored == record
    lines = sentences(stored)
    assert lines[0].startswith("Race: 0 is the best of 2")
    assert "1 was dropped" in lines[1]
    assert lines[-1] == f"{spent} of 12 trials were run ({12 - spent} were not)."
