"""The test score of what was chosen on validation: by seeds that did not choose it."""

from __future__ import annotations

import numpy as np
import pytest

from tunelab.core.values import Predictions
from tunelab.stats import Runs
from tunelab.stats.selection import chosen_score, cross_chosen, score_of_choice


def test_by_hand() -> None:
    validation = np.array([[4.0, 4.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    test = np.array([[40.0, 40.0, 0.0, 0.0], [10.0, 10.0, 10.0, 10.0]])
    # 0 and 1 choose the first, which has 0 with 2 and 3; 2 and 3 choose the second: 10. 1 and 2
    # choose the first (2 against 1): 20 with 0 and 3; 3 and 0 as well: 20 with 1 and 2.
    assert cross_chosen(validation, test) == (0 + 10 + 20 + 20) / 4
    assert test[0].mean() == 20  # what the table says, by the seeds that chose


def test_luck_that_chose_is_taken_back() -> None:
    """Twelve equal methods whose seeds differ by two points: the plain mean is a point high."""
    rng = np.random.default_rng(0)
    plain, honest = [], []
    for _ in range(2000):
        luck = 0.02 * rng.normal(size=(12, 6))
        validation, test = (0.8 + luck + 0.004 * rng.normal(size=luck.shape) for _ in range(2))
        plain.append(test[validation.mean(axis=1).argmax()].mean() - 0.8)
        honest.append(cross_chosen(validation, test) - 0.8)
    assert np.mean(plain) > 0.012
    assert abs(np.mean(honest)) < 3 * np.std(honest) / np.sqrt(2000) + 1e-3


def test_the_interval_has_the_parts_of_seeds_and_rows() -> None:
    rng = np.random.default_rng(1)
    validation = 0.8 + 0.01 * rng.normal(size=(3, 6))
    validation[1] += 1
    test = 0.8 + 0.01 * rng.normal(size=(3, 6))
    rows = score_of_choice(validation, test, row_variance=1e-2, row_df=1e9)
    assert rows.value == pytest.approx(test[1].mean())  # every half chooses the same
    assert rows.high == pytest.approx(rows.value + 1.96 * 0.1, rel=0.02)
    seeds = score_of_choice(validation, test, row_variance=0.0, row_df=1e9)
    variance = (4 * test.var(axis=1, ddof=1).mean() + 5 * test[1].var(ddof=1)) / 9 / 6
    assert seeds.high == pytest.approx(seeds.value + 2.262 * np.sqrt(variance), rel=1e-3)


def runs(label: str, seeds: int, right: float, part: int) -> Runs:
    labels = np.arange(200) % 2
    rng = np.random.default_rng([seeds, int(100 * right), part])
    return Runs(
        label,
        {
            s: Predictions(
                tuple(map(str, range(200))),
                labels,
                np.eye(2)[np.where(rng.random(200) < right, labels, 1 - labels)],
                "probability",
            )
            for s in range(seeds)
        },
    )


def parts(seeds: int) -> list[dict[str, Runs]]:
    return [{m: runs(m, seeds, r, p) for m, r in (("a", 0.9), ("b", 0.7))} for p in (0, 1)]


def test_from_predictions() -> None:
    validation, test = parts(4)
    rng = np.random.default_rng(0)
    found = chosen_score("a", validation, test, "accuracy", rng)
    assert found is not None
    mean = np.mean([(p.predicted == p.labels).mean() for p in test["a"].by_seed.values()])
    assert found.value == pytest.approx(mean)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.value < found.high <= 1
    loss = chosen_score("a", validation, test, "ece", rng)
    assert loss is not None
    assert loss.low is not None
    assert 0 <= loss.low <= loss.value


def test_fewer_than_four_seeds_or_no_rival_give_none() -> None:
    rng = np.random.default_rng(0)
    assert chosen_score("a", *parts(3), "accuracy", rng) is None
    validation, test = parts(4)
    alone = chosen_score("a", {"a": validation["a"]}, {"a": test["a"]}, "accuracy", rng)
    assert alone is None
