"""The serving benchmark, small: its claims of no wrong and no lost answer hold here too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "serving.py"


def run(part: str, *more: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), part, "--small", "--json", *more],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, dict[str, float]] = json.loads(done.stdout)
    return said[part]


@pytest.mark.slow
def test_many_adapters_in_one_batch_say_what_peft_says():
    assert run("mixed")["apart"] < 1e-4


@pytest.mark.slow
def test_models_that_come_and_go_give_no_wrong_answer():
    said = run("swaps")
    assert (said["wrong"], said["5xx"], said["other"]) == (0, 0, 0)
    assert said["answers"] > 100


@pytest.mark.slow
def test_clients_that_never_rest_lose_nothing():
    said = run("soak")
    assert (said["wrong"], said["lost"]) == (0, 0)
    assert said["answers"] > 50
