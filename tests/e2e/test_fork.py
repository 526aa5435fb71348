"""A classifier goes on in a process that is forked from the one that loaded and used it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BEFORE = Path(__file__).resolve().parents[1] / "fixtures" / "before"
CODE = """
import os, signal, tunelab
texts = ["a good film", "the dull plot and the cold scene was boring", "clever"] * 20
loaded = tunelab.load("adapter")
for used in (False, True):
    if used:
        expected = loaded.predict(texts)
    child = os.fork()
    if not child:
        signal.alarm(50)  # a thread that it waits for is not there
        said = loaded.predict(texts)
        os._exit(0 if not used or said == expected else 1)
    assert os.waitpid(child, 0)[1] == 0, f"used before: {used}"
assert loaded.predict(texts) == expected
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_scoring_in_a_fork_ends() -> None:
    threads = {"OMP_NUM_THREADS": "2", "RAYON_NUM_THREADS": "2"}
    env = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"} | threads
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=BEFORE, env=env, capture_output=True, text=True,
        check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
