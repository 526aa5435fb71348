"""benchmarks/statistics.py in small: the statistics on studies whose truth is known.

The page docs/statistics.md has the figures of hundreds of studies a cell; here fewer, with bounds
that leave room for that: they fail where a procedure is wrong, not where luck is.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def beside() -> Iterator[None]:
    """Scripts of that folder import each other."""
    sys.path.append(str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def module(name: str) -> Any:
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def page() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("all_claims", BENCHMARKS / "statistics.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["all_claims"] = loaded
    spec.loader.exec_module(loaded)
    yield loaded
    del sys.modules["all_claims"]


def test_the_worlds_are_what_they_say() -> None:
    worlds = module("_worlds")
    rng = np.random.default_rng(0)
    for shape in ("skewed", "heavy", "normal"):
        world = worlds.World("", seed_sd=(0.002, 0.03), shape=shape)
        right = worlds.draw_right(world, [0.9, 0.8], 200, 4000, rng)
        by_seed = right.mean(axis=2)
        assert by_seed.mean(axis=1) == pytest.approx([0.9, 0.8], abs=0.015)
        assert by_seed[1].std() == pytest.approx(0.03, rel=0.35)
        assert by_seed[0].std() < 0.01
    one_sided = worlds.World("", own=0.0, fresh=0.0, seed_sd=0.0)
    a, b = worlds.draw_right(one_sided, [0.95, 0.9], 2, 5000, rng)
    assert not (b & ~a).any()
    assert (a & ~b).any()


def test_runs_are_right_where_they_should_be() -> None:
    worlds = module("_worlds")
    right = np.random.default_rng(0).random((2, 3, 50)) < 0.8
    for of, runs in zip(right, worlds.as_runs(right), strict=True):
        for s, p in runs.by_seed.items():
            assert ((p.predicted == p.labels) == of[s]).all()


def test_equals_are_not_called_better_and_intervals_hold() -> None:
    worlds, verdicts = module("_worlds"), module("_claims_verdicts")
    world = worlds.World("", seed_sd=(0.002, 0.002, 0.02, 0.025))
    told = inside = 0
    for judged in verdicts._judged(world, [0.86] * 4, (6, 400), 60, 0.01):
        told += any(c.verdict in {"better", "worse"} for c in judged)
        inside += judged[0].difference.low <= 0 <= judged[0].difference.high
    assert told <= 8  # 5% of 60 is 3
    assert inside >= 51


def test_a_missed_goal_is_said() -> None:
    claims = module("_claims")
    missed = claims.share_of("x", "y", "z", [True] * 300 + [False] * 700, claims.at_most(0.05))
    assert not missed.met
    assert "30.0% ± 2.9 | at most 5% | MISSED" in claims.table([missed])
    held = claims.share_of("x", "y", "z", [True] * 95 + [False] * 5, claims.between(0.93, 0.97))
    assert held.met


def test_the_page_has_a_row_for_every_claim_that_was_kept(page: ModuleType) -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    kept = page.read_kept()
    assert set(kept) == set(page.TOPICS)
    assert page.summary_table(kept) in text
    for topic, found in kept.items():
        table = module("_claims").table(found)
        assert f"<!-- {topic}: begin -->\n{table}\n<!-- {topic}: end -->" in text
        assert len(found) >= 4


def test_every_file_of_claims_is_a_topic(page: ModuleType) -> None:
    files = {f.stem.removeprefix("_claims_") for f in BENCHMARKS.glob("_claims_*.py")}
    assert files == set(page.TOPICS)
    assert all(re.search(r"^def claims\(studies: int\)", f.read_text("utf-8"), re.MULTILINE)
               for f in BENCHMARKS.glob("_claims_*.py"))  # fmt: skip


def test_the_file_does_not_hide_the_standard_module(tmp_path: Path) -> None:
    script = tmp_path / "use.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "import statistics; print(statistics.median([3, 1, 2]))"
    )
    out = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "2"


@pytest.mark.slow
@pytest.mark.parametrize("topic", ["verdicts", "folds", "looks", "slices", "chance"])
def test_goals_are_met_by_few_studies_too(topic: str) -> None:
    """32 studies a cell: three standard errors are left for luck."""
    for c in module(f"_claims_{topic}").claims(32):
        assert c.goal.low - 2 * c.error <= c.value <= c.goal.high + 2 * c.error, c
