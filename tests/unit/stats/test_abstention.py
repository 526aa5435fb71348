"""When a classifier had better not answer: the promise holds, and bad content is refused."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from tunelab.stats.abstention import (
    Abstention,
    NoThresholdError,
    abstention_from_json,
    abstention_of,
)


def test_a_threshold_leaves_room_for_the_next_row():
    known = Abstention(19, (0.9, 0.8, 0.7))
    assert known.threshold(0.05) == 0.9  # none of 19 may be wrong: the new one is the twentieth
    assert known.threshold(0.0999) == 0.9
    assert known.threshold(0.1) == 0.8
    assert known.threshold(0.2) == 0.0  # all of them are allowed to be
    p = np.array([[0.8, 0.2], [0.1, 0.9]])
    assert known.answers(p, 0.1).tolist() == [False, True]  # as sure as a wrong one is not enough


@pytest.mark.parametrize(("error", "rows"), [(0.05, 18), (0.01, 98), (0.5, 0)])
def test_too_few_rows_promise_nothing(error: float, rows: int):
    with pytest.raises(NoThresholdError, match=rf"takes {rows + 1} validation rows, found {rows}"):
        Abstention(rows, ()).threshold(error)
    assert Abstention(rows + 1, ()).threshold(error) == 0.0


@pytest.mark.parametrize("error", [0.0, 1.0, -0.1, float("nan")])
def test_an_error_is_a_share(error: float):
    with pytest.raises(NoThresholdError, match="between 0 and 1"):
        Abstention(1000, ()).threshold(error)


def test_confidences_of_wrong_rows_are_kept_and_read_back():
    p = np.array([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9]])
    known = abstention_of(p, np.array([0, 0, 1, 1]))
    assert known == Abstention(4, (0.8, 0.6))
    assert abstention_from_json(json.loads(json.dumps(asdict(known)))) == known


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"rows": 3}, {"rows": "3", "wrong": []}, {"rows": 1, "wrong": [0.5, 0.5]},
     {"rows": 3, "wrong": [1.5]}, {"rows": 3, "wrong": ["0.5"]}, {"rows": 3, "wrong": None}],
)  # fmt: skip
def test_anything_else_is_refused(content: object):
    with pytest.raises(ValueError, match="expected"):
        abstention_from_json(content)


@pytest.mark.parametrize("rows", [19, 60, 301])
@pytest.mark.parametrize("error", [0.06, 0.2])
@pytest.mark.parametrize("ties", [False, True])
def test_the_stated_error_is_kept_and_no_more_is_given_away(rows: int, error: float, ties: bool):
    """A model that is wrong in two of five, whose confidence says little: over 2,000 validation
    parts the share of new rows that are answered wrongly is the stated error, less what a whole
    number of rows leaves.
    """
    rng = np.random.default_rng(rows)
    draws = 2000
    wrong = rng.random((draws, rows + 1)) < 0.4
    confidence = np.clip(rng.normal(0.7, 0.15, wrong.shape) - 0.05 * wrong, 0.5, 1.0)
    if ties:
        confidence = np.round(confidence, 1)
    missed = 0
    for w, c in zip(wrong, confidence, strict=True):
        known = Abstention(rows, tuple(sorted(c[:-1][w[:-1]], reverse=True)))
        missed += bool(w[-1]) and bool(c[-1] > known.threshold(error))
    sure = 3 * np.sqrt(error * (1 - error) / draws)
    whole = np.floor(error * (rows + 1) + 1e-9) / (rows + 1)
    assert missed / draws <= error + sure
    assert ties or missed / draws >= whole - sure
