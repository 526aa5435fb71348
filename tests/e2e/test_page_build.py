"""The page that is shipped is what web/ builds, byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "src" / "tunelab" / "desk" / "page.html"


def test_the_page_is_one_file():
    text = PAGE.read_text(encoding="utf-8")
    assert len(text) < 150_000
    assert "src=" not in text.partition("<script")[0]
    assert "import(" not in text
    assert 'type="module" crossorigin' not in text


@pytest.mark.slow
def test_the_page_is_what_its_sources_build(tmp_path: Path):
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("needs Node and npm to build the page")
    web = tmp_path / "web"
    shutil.copytree(ROOT / "web", web, ignore=shutil.ignore_patterns("node_modules"))
    environment = {**os.environ, "PAGE_DIR": str(tmp_path / "out")}

    def npm(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["npm", *words], cwd=web, env=environment, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip

    installed = npm("ci", "--prefer-offline", "--no-audit", "--no-fund")
    if installed.returncode:
        pytest.skip(f"npm cannot install Vite and Preact: {installed.stderr.strip()[-200:]}")
    built = npm("run", "build")
    assert built.returncode == 0, built.stdout + built.stderr
    assert (tmp_path / "out" / "page.html").read_bytes() == PAGE.read_bytes(), (
        "web/ has changed since the page was built: cd web && npm ci && npm run build"
    )
