"""The README's commands and its Python run as they stand, on a small model and few rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import workplace
from commands import run_here

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with what the README speaks of."""
    folder = tmp_path / "work"
    with workplace.furnished(folder):
        (study,) = workplace.blocks(README, "yaml")
        Path("study.yaml").write_text(study, encoding="utf-8")
        yield folder


@pytest.mark.slow
def test_every_command_runs(place: Path) -> None:
    found = [workplace.DEMO, *workplace.commands(README)]
    assert len(found) > 12
    for args in found:
        said = run_here(*workplace.small(args))
        assert said.code == 0, (args, said.err)
    assert (place / "labelled.csv").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_the_python_runs() -> None:
    (code,) = workplace.blocks(README, "python")
    assert "seeds=3" in code
    code = code.replace("seeds=3", "seeds=1, model='tiny', subset=20, max_length=32")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
