"""Benchmarks that need what a test machine lacks: run small, and what they refuse is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_benchmark_of_cards_refuses_a_machine_without_one() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "gpu.py: expected a CUDA device, found none. Run it on a machine with a card; "
        "benchmarks/stack.py measures the same on a processor."
    ]


@pytest.mark.parametrize("size", [1, 2])
def test_what_the_benchmark_of_cards_measures_runs_on_a_processor(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    folder = tmp_path / "rotten_tomatoes"
    folder.mkdir()
    words = np.random.default_rng(0).choice(["good", "bad", "film", "plot"], (8, 6))
    frame = pd.DataFrame({"text": [" ".join(w) for w in words], "label": [0, 1] * 4})
    frame.to_parquet(folder / "train.parquet")
    monkeypatch.setenv("TUNELAB_DATA", str(tmp_path))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from stack import stacked

    run = stacked("minilm", size, batch=4, steps=2, precision="float32", dropout=0.1)
    assert run() > 0
