"""Calibration against closed forms and planted temperatures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from commands import run_here
from studies import make_study
from tunelab.analysis.reading import read_runs
from tunelab.core import study_folder
from tunelab.core.values import Predictions, ScoreKind
from tunelab.stats import Runs, calibration
from tunelab.stats.calibration import at_temperature, calibrate, fit_temperature
from tunelab.stats.metrics import log_loss
from tunelab.stats.predictions import UndefinedMetricError, probabilities


def planted(
    n: int, temperature: float, seed: int, *, k: int = 3, kind: ScoreKind = "logit", noise: int = 0
) -> Predictions:
    """Labels drawn from softmax(z); scores are z times a temperature: too sure where it is > 1.

    `noise` above 0 is the seed of another model on the same rows.
    """
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=(n, k))
    p = probabilities(z, "logit")
    labels = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    scores = z * temperature
    if noise:
        scores = scores + 0.1 * np.random.default_rng([seed, noise]).normal(size=(n, k))
    if kind == "probability":
        scores = probabilities(scores, "logit")
    return Predictions(tuple(map(str, range(n))), labels, scores, kind)


@pytest.mark.parametrize("kind", ["logit", "probability"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found(kind: ScoreKind, temperature: float):
    found = fit_temperature(planted(20_000, temperature, 0, kind=kind))
    assert found == pytest.approx(temperature, rel=0.05)


def test_the_temperature_is_the_best_one():
    p = planted(500, 2.0, 1)
    best = fit_temperature(p)
    losses = [log_loss(at_temperature(p, t)) for t in np.geomspace(0.1, 10, 400)]
    assert log_loss(at_temperature(p, best)) <= min(losses) + 1e-6
    assert np.array_equal(at_temperature(p, best).predicted, p.predicted)
    half = probabilities(at_temperature(p, 2.0).scores, "logit")
    assert np.allclose(half, probabilities(p.scores / 2, "logit"))


def test_scaling_on_validation_mends_test():
    validation = Runs("m", {s: planted(2000, 2.5, 0, noise=s + 1) for s in range(3)})
    test = Runs("m", {s: planted(2000, 2.5, 10, noise=s + 1) for s in range(3)})
    found = calibrate(validation, test)
    assert found.before is not None
    assert found.after is not None
    assert found.after.ece.value < found.before.ece.value / 3
    assert found.after.brier.value < found.before.brier.value
    assert found.after.log_loss < found.before.log_loss
    assert all(t == pytest.approx(2.5, rel=0.15) for t in found.temperatures.values())
    assert sum(b.n for b in found.before.bins) == 6000
    for e in (found.before.ece, found.before.brier):
        assert e.low is not None
        assert e.high is not None
        assert e.low < e.value < e.high
    assert "too sure by" in calibration.calibration_sentence(found)
    json.dumps(calibration.calibrations_to_json([found]), allow_nan=False)


def test_brier_intervals_cover():
    truth = float(np.mean([
        ((probabilities(p.scores, "logit") - np.eye(3)[p.labels]) ** 2).sum(1).mean()
        for p in [planted(100_000, 2.0, 999, noise=1)]
    ]))  # fmt: skip
    hits = 0
    for i in range(60):
        runs = Runs("m", {s: planted(300, 2.0, 1000 + i, noise=s + 1) for s in range(3)})
        e = calibrate(None, runs)
        assert e.before is not None
        low, high = e.before.brier.low, e.before.brier.high
        assert low is not None
        assert high is not None
        hits += low <= truth <= high
    assert hits >= 53


def test_what_cannot_be_judged_says_why():
    p = planted(50, 1.0, 0)
    margins = Predictions(p.ids, p.labels, p.scores, "margin")
    none = calibrate(None, Runs("svm", {0: margins}))
    assert none.before is None
    assert "margins" in (none.reason or "")
    assert "svm: no probabilities" in calibration.calibration_sentence(none)
    with pytest.raises(UndefinedMetricError):
        fit_temperature(margins)
    alone = calibrate(Runs("m", {1: p}), Runs("m", {0: p}))
    assert alone.before is not None
    assert (alone.after, alone.reason) == (None, "no validation predictions to fit on")


def test_a_study_on_the_command_line(tmp_path: Path):
    folder = make_study(tmp_path, rows=120)
    facts = json.loads(run_here("calibration", folder, "--json").out)
    by_label = {m["label"]: m for m in facts["methods"]}
    assert by_label["svm"]["before"] is None
    assert set(by_label["lora"]["temperatures"]) == {"0", "1", "2"}
    runs = read_runs(study_folder.read_study(folder))
    again = calibrate(runs["validation"]["lora"], runs["test"]["lora"])
    assert again.before is not None
    assert by_label["lora"]["before"]["ece"]["value"] == again.before.ece.value
    assert "lora" in run_here("calibration", folder).out


def test_of_folds_all_rows_are_judged() -> None:
    """Each seed tests rows of its own: 3 x 100 are enough where one fold's would be too few."""
    folds = {}
    for s in range(3):
        p = planted(100, 1.0, 20 + s)
        folds[s] = Predictions(tuple(f"{s}:{i}" for i in p.ids), p.labels, p.scores, p.score_kind)
    of_folds = calibrate(None, Runs("m", folds)).before
    assert of_folds is not None
    assert (of_folds.rows, of_folds.too_few) == (300, None)
    alone = calibrate(None, Runs("m", {0: folds[0]})).before
    assert alone is not None
    assert alone.rows == 100
    assert alone.too_few is not None
    assert "100 rows" in alone.too_few
