"""Learning curves: where two methods cross, how sure that is, and what is said of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from studies import METHODS, make_study
from tunelab.analysis.curves import (
    Crossing,
    Curves,
    Point,
    crossing,
    curves_from_json,
    curves_to_json,
    learning_curves,
)
from tunelab.analysis.summary import summarise
from tunelab.core.study_folder import read_study
from tunelab.core.values import Estimate

SIZES = (50, 100, 300, 1000, 3000)


def gaps(*values: float, half: float = 0.02) -> dict[int, Estimate]:
    """Differences at SIZES, each with an interval of that half-width."""
    return {
        n: Estimate(v, v - half, v + half, 6, "made up")
        for n, v in zip(SIZES, values, strict=False)
    }


def line(at: float, slope: float = -0.05) -> list[float]:
    """A difference that falls by a line over the logarithm of the rows, and is zero at `at`."""
    return [slope * math.log(n / at) for n in SIZES]


def test_a_straight_line_crosses_where_it_does_and_its_ends_are_fiellers() -> None:
    found = crossing("svm", "lora", gaps(*line(400)))
    assert found is not None
    assert (found.a, found.b, found.rows) == ("svm", "lora", 400)
    # |0.05 log(n / 400)| = 0.02 at 400 exp(-+0.4)
    assert (found.low, found.high) == (270, 600)
    assert found.sentence == (
        "below about 400 training rows svm is at least as good as lora, above it lora is "
        "(95% interval 270 to 600 rows)"
    )


def test_who_is_ahead_below_does_not_depend_on_the_order_or_the_metrics_direction() -> None:
    one = crossing("svm", "lora", gaps(*line(400)))
    turned = crossing("lora", "svm", gaps(*(-v for v in line(400))))
    losses = crossing("svm", "lora", gaps(*(-v for v in line(400))), sign=-1)
    assert one == turned == losses


def test_an_end_that_is_beyond_the_sizes_is_none_and_said() -> None:
    found = crossing("svm", "lora", gaps(*line(60)))
    assert found is not None
    assert found.low is None
    assert found.high == 90
    assert "below 50 to 90 rows" in found.sentence
    wide = crossing("svm", "lora", gaps(*line(400), half=1.0))
    assert wide is not None
    assert (wide.low, wide.high) == (None, None)
    assert "cannot be told apart at any size from 50 to 3,000 rows" in wide.sentence


def test_no_crossing_where_one_is_always_ahead() -> None:
    assert crossing("a", "b", gaps(0.1, 0.2, 0.3, 0.2, 0.1)) is None
    assert crossing("a", "b", gaps(0.1, 0.0, 0.1, 0.1, 0.1)) is None
    assert crossing("a", "b", gaps(0.0, 0.0, 0.0, 0.0, 0.0)) is None
    assert crossing("a", "b", gaps(0.1)) is None


def test_equal_scores_between_are_bridged_and_the_last_crossing_counts() -> None:
    level = crossing("a", "b", gaps(0.1, 0.0, 0.0, -0.1, -0.1))
    assert level is not None
    assert level.rows == 170  # the middle of 100 and 300, by their logarithms
    twice = crossing("a", "b", gaps(0.1, -0.1, 0.1, 0.1, -0.1))
    assert twice is not None
    assert twice.a == "a"
    assert 1000 < twice.rows < 3000


def test_the_interval_covers_the_true_crossing() -> None:
    """In 95% of studies at a size that was measured, in more between two, which noise averages."""
    rng = np.random.default_rng(0)
    truth, sd, hits, found = 400, 0.02, 0, 0
    for _ in range(2000):
        noisy = [v + rng.normal(0, sd) for v in line(truth)]
        c = crossing("a", "b", gaps(*noisy, half=1.96 * sd))
        if c is None:
            continue
        found += 1
        hits += (c.low or 0) <= truth * 1.02 and truth <= (c.high or math.inf) * 1.02
    assert found > 1950
    assert 0.94 < hits / found < 0.995


def test_what_is_written_to_curves_json_is_read_back() -> None:
    curves = Curves(
        "accuracy",
        "test",
        (50, 200),
        (
            Point("lora", 50, 3, Estimate(0.8, 0.7, 0.9, 3, "t")),
            Point("full", 200, 1, Estimate(0.9, None, None, 1, "t")),
        ),
        (Crossing("lora", "full", 120, None, 150, "so"),),
    )
    text = json.dumps({"format": 1, **curves_to_json(curves)})
    assert curves_from_json(json.loads(text)) == curves


def test_with_all_rows_a_curve_ends_where_the_table_is(tmp_path: Path) -> None:
    """One estimate with one interval: over seeds and rows, as in the table."""
    record = read_study(make_study(tmp_path, seeds=6, methods=METHODS[1:3]))
    fewer = [replace(r, spec=replace(r.spec, train_rows=50)) for r in record.results]
    found = learning_curves(replace(record, curve=tuple(fewer)))
    assert found is not None
    table = {r.label: r.estimates["test_accuracy"] for r in summarise(record).rows}
    for rows in found.sizes:
        assert {p.label: p.estimate for p in found.points if p.rows == rows} == table
