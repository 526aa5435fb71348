"""benchmarks/statistics.py in small: the statistics on studies whose truth is known.

The page docs/statistics.md has the figures of 1,000 studies each; here fewer, with bounds that
leave room for that: they fail where a procedure is wrong, not where luck is.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def sim() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("simulation", BENCHMARKS / "statistics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulation"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["simulation"]


def test_the_worlds_are_what_they_say(sim: ModuleType) -> None:
    rng = np.random.default_rng(0)
    for world in sim.WORLDS:
        right = sim.draw(world, [0.9, 0.8], 30, 4000, rng).mean(axis=(1, 2))
        assert right == pytest.approx([0.9, 0.8], abs=0.025)
        runs = sim.as_runs(sim.draw(world, [0.9], 2, 50, np.random.default_rng(1)))
        p = runs[0].by_seed[0]
        expected = sim.draw(world, [0.9], 2, 50, np.random.default_rng(1))[0, 0]
        assert ((p.predicted == p.labels) == expected).all()
    shared = [sim.components(w, [0.86, 0.84])[1] for w in sim.WORLDS[:2]]
    assert shared[0] < 0.4 < shared[1]


def test_equals_are_not_called_better_and_a_stated_difference_is_found(sim: ModuleType) -> None:
    world = sim.WORLDS[0]
    false = sim.false_better(world, (6, 200), 80, 4)
    assert false.value <= 0.1
    found = sim.power(world, (6, 200), 80)
    assert 0.6 <= found.value <= 0.95
    inside = sim.coverage(world, (6, 200), 80)
    assert inside.value >= 0.87
    table = sim.table([false, found, inside])
    assert "| at most 5% | met |" in table


def test_a_missed_goal_is_said(sim: ModuleType) -> None:
    missed = sim._figure("x", sim.WORLDS[0], (6, 300), [True] * 300 + [False] * 700, "at most 0.05")
    assert not missed.met
    assert "MISSED" in sim.table([missed])
    assert sim._figure("x", sim.WORLDS[0], (6, 300), [True] * 95 + [False] * 5, "0.93 to 0.97").met


def test_the_file_does_not_hide_the_standard_module(tmp_path: Path) -> None:
    script = tmp_path / "use.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "import statistics; print(statistics.median([3, 1, 2]))"
    )
    out = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "2"


@pytest.mark.slow
def test_family_wise_error_coverage_equivalence_and_power(sim: ModuleType) -> None:
    """200 studies each: twice the standard error of 0.05 is 0.031, of 0.8 is 0.057."""
    for world in sim.WORLDS:
        assert sim.false_better(world, (10, 300), 200, 5).value <= 0.05 + 0.031
    for world in sim.WORLDS[:3]:
        assert 0.93 - 0.036 <= sim.coverage(world, (6, 1000), 200).value <= 0.97 + 0.02
        assert sim.false_equivalent(world, (6, 1000), 200, 0.03).value <= 0.05 + 0.031
        assert 0.75 - 0.06 <= sim.power(world, (6, 1000), 200).value <= 0.85 + 0.05
