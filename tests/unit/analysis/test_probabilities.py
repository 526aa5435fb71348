"""Whose probabilities are better: after temperature scaling, by the Brier score."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studies import make_study
from tunelab import Study
from tunelab.analysis import probabilities
from tunelab.analysis.probabilities import (
    decided_beside,
    judge_probabilities,
    probabilities_for_display,
    probabilities_to_json,
)
from tunelab.analysis.summary import summarise
from tunelab.core import study_folder
from tunelab.core.values import Predictions
from tunelab.report import write_comparison
from tunelab.stats import Runs, compare_all
from tunelab.study import write_outputs


def runs_of(label: str, noise: float, temperature: float, rows: int, seed: int) -> Runs:
    """Six seeds that see the truth through so much noise, and are too sure by a temperature."""
    rng = np.random.default_rng(seed)
    truth = 2 * rng.normal(size=rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(np.int64)
    ids = tuple(map(str, range(rows)))
    own = np.random.default_rng([seed, int(1000 * noise)])
    blurred = truth + noise * own.normal(size=rows)
    by_seed = {}
    for s in range(6):
        z = temperature * (blurred + 0.1 * own.normal(size=rows))
        by_seed[s] = Predictions(ids, labels, np.stack([-z / 2, z / 2], axis=1), "logit")
    return Runs(label, by_seed)


@pytest.fixture(scope="module")
def parts() -> dict[str, dict[str, Runs]]:
    made = {"sharp": (0.1, 3.0), "blurred": (3.0, 1.0), "twin": (0.1, 1.0)}
    return {
        part: {k: runs_of(k, *how, 900, seed) for k, how in made.items()}
        for part, seed in (("validation", 1), ("test", 2))
    }


def test_the_better_probabilities_are_found_and_a_temperature_is_no_fault(parts, tmp_path: Path):
    record = study_folder.read_study(make_study(tmp_path, rows=60))
    found = judge_probabilities(record, parts)
    assert set(found.scores) == {"sharp", "blurred", "twin"}
    said = {(c.a, c.b): c.verdict for c in found.comparisons}
    assert found.best in {"sharp", "twin"}
    assert said[found.best, "blurred"] == "better"
    pair = next(v for k, v in said.items() if set(k) == {"sharp", "twin"})
    assert pair == "undecided"  # the one that is too sure by a factor of three is not worse
    assert abs(found.scores["sharp"].value - found.scores["twin"].value) < 0.005
    headings, cells = probabilities_for_display(found)
    assert headings[0] == "Method"
    assert {row[2] for row in cells} >= {"best on validation", "worse"}
    json.dumps(probabilities_to_json(found), allow_nan=False)


def test_it_is_said_only_where_the_metric_is_silent(parts, tmp_path: Path):
    record = study_folder.read_study(make_study(tmp_path, rows=60))
    found = judge_probabilities(record, parts)
    pair = next(c for c in found.against_best() if c.b == "blurred")
    silent = replace(
        summarise(record), metric="accuracy", comparisons=(replace(pair, verdict="undecided"),)
    )
    said = decided_beside(found, silent)
    assert said is not None
    assert said.startswith(f"{found.best}'s probabilities are better than those of blurred")
    loud = replace(silent, comparisons=(replace(pair, verdict="better"),))
    assert decided_beside(found, loud) is None


def test_margins_and_other_rows_have_no_part_in_it(parts, tmp_path: Path):
    record = study_folder.read_study(make_study(tmp_path, rows=60))
    some = dict(parts["test"])
    p = some["twin"].by_seed[0]
    some["twin"] = Runs("twin", {0: replace(p, score_kind="margin")})
    found = judge_probabilities(record, {"validation": parts["validation"], "test": some})
    assert "margins" in found.left_out["twin"]
    some["twin"] = Runs("twin", {0: replace(p, ids=tuple(f"x{i}" for i in p.ids))})
    found = judge_probabilities(record, {"validation": parts["validation"], "test": some})
    assert (found.scores, found.best, found.comparisons) == ({}, None, ())
    assert "other rows" in found.left_out["sharp"]


def test_a_study_says_it_in_comparison_json_and_in_python(tmp_path: Path):
    folder = make_study(tmp_path, rows=200)
    path = write_comparison(study_folder.read_study(folder), tmp_path / "comparison.json")
    facts = json.loads(path.read_text())
    found = Study(folder).probabilities()
    assert facts["probabilities"]["best"] == found.best
    assert set(facts["probabilities"]["scores"]) == set(found.scores)
    assert set(found.left_out) >= {"svm"}


def test_it_is_judged_once_for_every_place_that_says_it(tmp_path: Path, monkeypatch):
    asked: list[str] = []

    def counting(*args, **kwargs):
        asked.append("judged")
        return compare_all(*args, **kwargs)

    folder = make_study(tmp_path, rows=200)
    monkeypatch.setattr(probabilities, "compare_all", counting)
    said = write_outputs(folder)
    assert said is not None
    facts = json.loads((folder / "comparison.json").read_text())["probabilities"]
    page = (folder / "report.html").read_text()
    told = Study(folder, said=said).probabilities()
    assert len(asked) == 1
    assert facts["sentences"] == [c.sentence for c in told.against_best()]
    assert facts["sentences"]
    assert "Whose probabilities are better?" in page
    again = Study(folder)
    assert again.probabilities() is again.probabilities()
    assert len(asked) == 2
    assert json.dumps(probabilities_to_json(again.probabilities())) == json.dumps(
        probabilities_to_json(told)
    )
