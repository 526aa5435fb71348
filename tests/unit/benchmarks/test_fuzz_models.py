"""A sample of benchmarks/fuzz_models.py: of broken folders, none ends in a traceback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def fuzz_models(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    import fuzz_models

    yield fuzz_models
    del sys.modules["fuzz_models"]


@pytest.mark.filterwarnings("ignore")
def test_broken_folders_are_refused_or_work(fuzz_models) -> None:
    ends = fuzz_models.fuzz(120, seed=11)
    crashes = {end: n for counts in ends.values() for end, n in counts.items() if "crash" in end}
    assert not crashes, crashes
    assert sum(counts["refused"] for counts in ends.values()) > 60
