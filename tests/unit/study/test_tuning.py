"""Tuning: spaces, the choice on validation, the expected best, and Optuna's proposals."""

from __future__ import annotations

import math
from itertools import combinations, product
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from tunelab.core.errors import ConfigError
from tunelab.stats.choosing import (
    Try,
    average_by_setting,
    choose_settings,
    expected_best,
    stop_below,
)
from tunelab.study.proposals import Proposals
from tunelab.study.space import Range, grid_points, parse_space, space_to_json


def row(rate: float, value: float | None, seed: int = 0, status: str = "done") -> Try:
    return Try({"learning_rate": rate}, seed, f"{rate}-{seed}", status, value)


def test_a_grid_is_every_point_once() -> None:
    space = parse_space({"r": [4, 8, 4], "target_modules": ["query", ["key", "value"]]})
    assert grid_points(space) == [
        {"r": r, "target_modules": t} for r in (4, 8) for t in ("query", ["key", "value"])
    ]
    assert space_to_json(space) == {
        "r": [4, 8],
        "target_modules": ["query", ["key", "value"]],
    }
    with pytest.raises(ConfigError, match="budget"):
        grid_points({"r": Range(1, 4)})


def test_the_best_mean_over_seeds_is_chosen_and_seconds_of_luck_are_not() -> None:
    tries = [row(1, 0.9), row(1, 0.5, seed=1), row(2, 0.8), row(2, 0.8, seed=1)]
    settings, value, why = choose_settings(tries, {"learning_rate": 1}, higher_is_better=True)
    assert settings == {"learning_rate": 2}
    assert value == pytest.approx(0.8)
    assert "best of 2" in why
    assert choose_settings(tries, {"learning_rate": 1}, higher_is_better=False)[0] == {
        "learning_rate": 1
    }


def test_among_equals_the_one_nearest_to_the_start_is_chosen() -> None:
    tries = [row(0.1, 0.8), row(0.9, 0.8), row(30, 0.8)]
    settings, _, why = choose_settings(tries, {"learning_rate": 1}, higher_is_better=True)
    assert settings == {"learning_rate": 0.9}
    assert "nearest to the start" in why


def test_a_lead_within_one_standard_error_does_not_move_a_method_from_its_start() -> None:
    tries = [row(0.3, 0.817), row(1, 0.822), row(3, 0.825), row(9, 0.4)]
    asked: list[tuple[Any, Any]] = []

    def error(a: Any, b: Any) -> float:
        asked.append((a, b))
        return 0.01

    start = {"learning_rate": 1}
    settings, value, why = choose_settings(tries, start, higher_is_better=True, error=error)
    assert (settings, value) == ({"learning_rate": 1}, 0.822)
    assert "the best of 4 on validation, which leads by 0.003 where one standard error" in why
    assert asked == [({0: "3-0"}, {0: "1-0"})]
    settings, _, why = choose_settings(tries, start, higher_is_better=True, error=lambda *_: 0.002)
    assert (settings, why) == ({"learning_rate": 3}, "best of 4 on validation")
    # Of a loss the lowest is best.
    settings, *_ = choose_settings(tries, {"learning_rate": 3}, higher_is_better=False, error=error)
    assert settings == {"learning_rate": 9}
    # Where nothing is known of the error, and what is no number.
    settings, _, why = choose_settings(tries, start, higher_is_better=True, error=lambda *_: None)
    assert settings == {"learning_rate": 3}
    assert "unknown" in why
    assert choose_settings([row(1, math.inf), row(2, math.nan)], start, False)[0] is None


def test_what_failed_or_was_ended_is_never_chosen() -> None:
    tries = [row(1, None, status="failed"), row(2, 0.99, status="pruned"), row(3, 0.1)]
    assert choose_settings(tries, {"learning_rate": 1}, higher_is_better=True)[0] == {
        "learning_rate": 3
    }
    assert [s.status for s in average_by_setting(tries)] == [
        "failed",
        "pruned",
        "done",
    ]
    assert choose_settings(tries[:2], {}, higher_is_better=True)[:2] == (None, None)


def test_expected_best_is_the_mean_over_all_samples() -> None:
    values = [0.7, 0.4, 0.9, 0.8]
    with_, without = expected_best(values), expected_best(values, replace=False)
    for n in range(1, 5):
        assert with_[n - 1] == pytest.approx(fmean(max(s) for s in product(values, repeat=n)))
        assert without[n - 1] == pytest.approx(fmean(max(s) for s in combinations(values, n)))
    losses = expected_best(values, higher_is_better=False, replace=False)
    assert losses[0] == pytest.approx(fmean(values))
    assert losses[-1] == pytest.approx(0.4)
    assert expected_best([]) == []


def test_a_try_is_measured_by_the_median_of_those_that_came_as_far() -> None:
    histories = [
        [{"epoch": 1.0, "eval_accuracy": a}, {"epoch": 1.5, "loss": 1.0},
         {"epoch": 2.0, "eval_accuracy": b}]
        for a, b in ((0.5, 0.7), (0.6, 0.4), (0.8, 0.9))
    ]  # fmt: skip
    assert stop_below(histories, "accuracy") == {"1": 0.6, "2": 0.7}  # best so far: 0.7, 0.6, 0.9
    assert stop_below(histories[:2], "accuracy") == {}
    assert stop_below([*histories[:2], histories[2][:1]], "accuracy") == {"1": 0.6}


def optimum(settings: dict[str, Any]) -> float:
    return -abs(settings["rate"] - 0.003) - 0.1 * (settings["r"] != 8)


def test_proposals_begin_at_the_start_stay_in_the_space_and_go_on(tmp_path: Path) -> None:
    space = parse_space({"rate": {"low": 1e-4, "high": 1e-1, "log": True}, "r": [4, 8, [1]]})
    start = {"rate": 0.05, "r": 4}

    def again() -> Proposals:
        return Proposals(tmp_path, "lora", space, start, higher_is_better=True)

    number, first = again().ask()
    assert first == start
    # Asked and not told, as where the study was stopped: the same one again, from the file.
    assert again().ask() == (number, first)
    again().tell(number, optimum(first), pruned=False)
    for i in range(11):
        number, settings = again().ask()
        assert 1e-4 <= settings["rate"] <= 1e-1
        assert settings["r"] in (4, 8, [1])
        again().tell(number, None if i == 2 else optimum(settings), pruned=i == 5)
    told = again().told
    assert len(told) == 12
    assert told[0] == start
    assert len({t["rate"] for t in told}) == 12
    assert max(map(optimum, told)) > optimum(start)
