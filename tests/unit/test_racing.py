"""Racing: the best is kept, what is surely behind is dropped, and the bet's promise holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tunelab import racing
from tunelab.racing import advance, capital, order, replay, sentences, start, to_json


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
        assert d.e_value >= d.threshold == pytest.approx(2 * 5 * 5 / 0.05)
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


def test_the_bet_loses_its_promise_to_no_distribution() -> None:
    """P(capital >= 1 / a) <= a under a mean at the bound: Ville's inequality."""
    rng = np.random.default_rng(0)
    for values, weights, mean in (
        ((-1.0, 0.0, 1.0), (0.05, 0.9, 0.05), 0.0),
        ((-0.5, 1.0), (0.6, 0.4), 0.1),
        ((-1.0, 1.0), (0.5, 0.5), 0.0),
    ):
        drawn = rng.choice(values, p=weights, size=(3000, 300))
        won = np.array([capital(x, mean) for x in drawn])
        for a in (0.05, 0.01):
            assert (won >= 1 / a).mean() <= a
    ahead = rng.choice((-1.0, 0.0, 1.0), p=(0.02, 0.83, 0.15), size=(200, 600))
    assert np.mean([capital(x, 0.0) >= 1000 for x in ahead]) > 0.95
    assert np.mean([capital(x, 0.2) >= 20 for x in ahead]) <= 0.05
    assert capital(np.ones(100), 1.5) == 1.0


def test_the_best_is_kept_in_nineteen_of_twenty_races_of_equals() -> None:
    """Where nobody is better, whoever is best by a hair must not be lost."""
    lost = 0
    for seed in range(60):
        right = grid([0.8] * 4 + [0.6], rows=300, seed_sd=0.015, seed=seed)
        race, _ = replay(right, range(6))
        lost += "0" not in race.alive
    assert lost <= 3


def test_on_a_recorded_grid_the_best_is_kept_and_not_everything_is_run() -> None:
    """A small version of benchmarks/racing.py, on its grid of settings that lie close together."""
    with np.load(Path(__file__).parents[2] / "benchmarks/racing.npz") as stored:
        right = np.unpackbits(stored["close"], axis=2, count=int(stored["rows"])).astype(bool)
    best = str(right.mean(axis=(1, 2)).argmax())
    rng = np.random.default_rng(0)
    races = [replay(right, [int(s) for s in rng.permutation(10)]) for _ in range(5)]
    assert all(best in race.alive for race, _ in races)
    assert np.mean([spent for _, spent in races]) <= 0.75 * right.shape[0] * right.shape[1]


def test_a_race_is_plain_json_and_says_itself() -> None:
    race, spent = replay(grid([0.9, 0.5]), range(6))
    stored = json.loads(json.dumps(to_json(race)))
    lines = sentences({**stored, "stopped": "decided", "trials_run": spent, "trials_full": 12})
    assert lines[0].startswith("Race: 0 is the best of 2")
    assert "1 was dropped" in lines[1]
    assert lines[-1] == f"{spent} of 12 trials were run ({12 - spent} were not)."
