"""The benchmarks' own contestants, in small: a benchmark that no longer runs measures nothing."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("scripts")]
SAME = {"model": "minilm", "batch": 4, "steps": 2, "dropout": 0.1}


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """benchmarks/ as it is imported by its own scripts, on rows made here."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    folder = tmp_path / "rotten_tomatoes"
    folder.mkdir()
    monkeypatch.setenv("TUNELAB_DATA", str(tmp_path))
    frame = pd.DataFrame({"text": ["a film to see", "dull and long"] * 20, "label": [1, 0] * 20})
    for part in ("train", "validation", "test"):
        frame.to_parquet(folder / f"{part}.parquet")
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).parent == BENCHMARKS:
            del sys.modules[name]


@pytest.mark.parametrize("engine", ["plain", "auto"])
@pytest.mark.parametrize("mode", ["lora", "query-value", "full", "qlora-4bit"])
def test_training_runs(mode: str, engine: str) -> None:
    import training

    work = training.ours(**SAME, mode=mode, engine=engine, precision="auto")
    assert math.isfinite(work())
    assert work() > 0


def test_a_stack_runs() -> None:
    import stack

    assert stack.stacked("minilm", 2, 4, 2, "float32", 0.1)() > 0


def test_inference_runs() -> None:
    import inference

    assert inference.ours(8, "float32")() > 0
    assert inference.pipeline(8)() > 0
    assert inference.agreement(8)["labels that flip, auto"] == 0
