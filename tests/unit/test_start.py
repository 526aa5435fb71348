"""What starting costs: what a command imports, and what threads do while they wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own, without variables of OpenMP but these."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )


# --- threads ----------------------------------------------------------------------------------

_LOAD_OPENMP = """
import ctypes, importlib.util, pathlib, tunelab
libraries = pathlib.Path(importlib.util.find_spec("torch").origin).parent / "lib"
for runtime in sorted(libraries.glob("libgomp*.so*"))[:1]:
    ctypes.CDLL(str(runtime))
"""


@pytest.mark.parametrize(
    ("variables", "spins"),
    [
        ({}, "3000"),
        ({"GOMP_SPINCOUNT": "77"}, "77"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "0"),
    ],
)
def test_threads_that_wait_sleep_soon_unless_the_user_says_otherwise(
    variables: dict[str, str], spins: str
) -> None:
    said = run(_LOAD_OPENMP, OMP_DISPLAY_ENV="VERBOSE", **variables).stderr
    if "OPENMP" not in said:
        pytest.skip("torch brings no OpenMP runtime of GNU's here")
    assert f"GOMP_SPINCOUNT = '{spins}'" in said
