"""How far methods vary: what a machine has seen, and what is usual; a damaged file is no harm."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tunelab.core import cache
from tunelab.core.values import MethodSpec
from tunelab.study.spreads import (
    USUAL_SEED_SD,
    SeenSpread,
    keep_spreads,
    read_spreads,
    spread_of_methods,
    spread_over_seeds,
)

LORA = SeenSpread("one", "lora", "bert", 2048, 6, 0.02, 0.1, 0.7)
METHODS = [MethodSpec("lora", "lora", {}), MethodSpec("svm", "svm", {})]


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path))
    return cache.machine_folder() / "spreads.jsonl"


def test_without_studies_what_trains_varies_as_usual_and_an_svm_does_not() -> None:
    found = spread_of_methods(METHODS, "bert", 2000, [])
    assert found.sd == pytest.approx(USUAL_SEED_SD)
    assert found.gap_variance == pytest.approx(USUAL_SEED_SD**2)  # of one of the two
    assert (found.studies, found.disagreement) == (0, None)
    assert spread_of_methods(METHODS[1:], "none", 2000, []).sd == 0


def test_studies_like_this_one_are_taken_and_others_are_not() -> None:
    found = spread_of_methods(METHODS, "bert", 1500, [LORA])
    assert found.sd == pytest.approx(0.02)
    assert (found.studies, found.disagreement, found.shared) == (1, 0.1, 0.7)
    for other in (
        replace(LORA, method="full"),
        replace(LORA, family="gpt2"),
        replace(LORA, rows=65_536),
        replace(LORA, seeds=3),  # two degrees of freedom
    ):
        assert spread_of_methods(METHODS, "bert", 1500, [other]).studies == 0
    twice = [replace(LORA, seeds=3, sd=0.01), replace(LORA, study="two", seeds=5, sd=0.02)]
    pooled = spread_of_methods(METHODS, "bert", 1500, twice)
    assert pooled.sd == pytest.approx(math.sqrt((2 * 0.01**2 + 4 * 0.02**2) / 6))
    assert pooled.studies == 2


def test_the_spread_is_that_on_endless_rows() -> None:
    """Luck with 200 rows is taken off: seeds that differ by it alone have no spread."""
    rng = np.random.default_rng(0)
    for sd in (0.0, 0.03):
        seen = [
            spread_over_seeds([rng.random(200) < 0.8 + sd * rng.normal() for _ in range(30)]) ** 2
            for _ in range(200)
        ]
        assert np.mean(seen) == pytest.approx(sd**2, abs=1.5e-4)


def test_a_study_that_is_run_again_counts_once(file: Path) -> None:
    keep_spreads([LORA, replace(LORA, study="two")])
    keep_spreads([replace(LORA, sd=0.03)])
    keep_spreads([replace(LORA, study="few", seeds=2)])
    assert sorted((s.study, s.sd) for s in read_spreads()) == [("one", 0.03), ("two", 0.02)]
    assert len(file.read_text().splitlines()) == 2


def test_a_damaged_file_costs_its_damaged_lines(file: Path) -> None:
    keep_spreads([LORA])
    good = file.read_text()
    changes: list[dict[str, object]] = [{"sd": "much"}, {"rows": 0}, {"more": 1}, {"sd": math.nan}]
    bad = [json.dumps(asdict(LORA) | change) for change in changes]
    bad += ["{", "[]", "3", "null", "{}", '{"study": "x"}']
    file.write_bytes(b"\xff\xfe\n" + "\n".join([*bad, good]).encode())
    assert read_spreads() == [LORA]
    keep_spreads([replace(LORA, study="two")])
    assert [s.study for s in read_spreads()] == ["one", "two"]


def test_a_place_that_cannot_be_written_is_no_fault(file: Path) -> None:
    file.parent.parent.mkdir(parents=True, exist_ok=True)
    file.parent.write_text("in the way")
    keep_spreads([LORA])
    assert read_spreads() == []
