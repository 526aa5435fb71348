"""Every install line of the README and the guide works in a clean environment."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDED = ("src", "notebooks", "pyproject.toml", "README.md", "LICENSE")


def install_lines() -> dict[str, str]:
    """Each line that installs something, and the page that has it; the log tells of the past."""
    found: dict[str, str] = {}
    for page in PAGES:
        if page.name == "log.md":
            continue
        text = page.read_text(encoding="utf-8")
        quoted = re.findall(r"`((?:python -m )?pip install [^`\n]+)`", text)
        fenced = re.findall(r"^((?:python -m )?pip install .+)$", text, re.MULTILINE)
        found |= dict.fromkeys((*quoted, *fenced), page.name)
    return found


def test_no_page_installs_what_no_index_has() -> None:
    """tunelab is in no index: it is installed from a clone."""
    lines = install_lines()
    assert len(lines) > 4
    for line, page in lines.items():
        names = [w for w in shlex.split(line)[2:] if not w.startswith("-")]
        assert not [n for n in names if re.match(r"tunelab\b", n)], f"{page}: {line}"


@pytest.mark.slow
@pytest.mark.timeout(1200)  # torch and its kin are installed anew
def test_every_install_line_works(tmp_path: Path) -> None:
    clone, place = tmp_path / "tunelab", tmp_path / "venv"
    clone.mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, clone / name)
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    # The versions that make installs: without, pip takes the newest torch, some gigabytes of it.
    environment["PIP_CONSTRAINT"] = str(ROOT / "requirements.lock")
    environment["PATH"] = f"{place / 'bin'}{os.pathsep}{environment['PATH']}"
    for line, page in install_lines().items():
        done = subprocess.run(
            ["bash", "-c", line], cwd=clone, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{page}: {line}\n{done.stderr}"
    for command in ("tunelab --help", "jupyter lab --version"):
        said = subprocess.run(
            [*shlex.split(command)], cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        assert said.returncode == 0, command
