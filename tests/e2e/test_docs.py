"""The guide is true: its pages are current, its links lead somewhere, its commands run as written.

What a page quotes from tunelab (a ```console block) is what tunelab says now; every other command
and every piece of Python runs, on a small model and few rows.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
import yaml

import workplace
from commands import run_here
from tunelab.core.values import DataSpec, MethodSpec, TrialSpec
from tunelab.study.executors import process

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Pages about the house, and one whose suites need labels of their own (test_behaviour.py).
APART = {"log.md", "architecture.md", "engine.md", "formats.md", "behaviour.md"}
GUIDE = [p for p in PAGES if p.name not in APART]


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guide = _module(ROOT / "benchmarks" / "guide.py")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- pages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", guide.pages())
def test_the_reference_is_current(name: str) -> None:
    assert text_of(DOCS / name) == guide.pages()[name], "run python benchmarks/guide.py"


def test_every_command_and_key_is_in_the_reference() -> None:
    commands, config = guide.commands(), guide.config()
    for line in run_here("compare", "--help").out.splitlines():
        if option := re.match(r"\s+(?:-\w, )?(--[\w-]+)", line):
            key = option[1].removeprefix("--").replace("-", "_")
            assert f"{option[1]}" in commands or f"| `{key}` |" in config, option[1]
    assert "## tunelab adapters merge" in commands
    assert "| `report_to` |" in config


# --- links ----------------------------------------------------------------------------------


def links(text: str) -> list[str]:
    """Targets of all links and pictures outside code."""
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", plain)


def anchors(text: str) -> set[str]:
    """Names of a page's headings, as GitHub and mkdocs make them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in heads}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=named
)  # fmt: skip
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(text_of(page)):
        parts = urllib.parse.urlsplit(link)
        if parts.scheme:
            # The network is no part of the tests: others' pages are checked for their form.
            assert parts.scheme in {"https", "mailto"}, link
            assert parts.netloc == "" or "." in parts.netloc, link
            continue
        target = page.parent / parts.path if parts.path else page
        assert target.exists(), f"{named(page)}: {link}"
        if parts.fragment:
            assert parts.fragment in anchors(text_of(target)), f"{named(page)}: {link}"


def test_every_page_is_in_the_site(tmp_path: Path) -> None:
    pytest.importorskip("material")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    for page in PAGES:
        name = page.relative_to(DOCS).with_suffix("")
        assert (site / ("" if name.name == "index" else name) / "index.html").is_file(), named(page)
    lora = (site / "notebooks" / "04-lora-from-its-formula" / "index.html").read_text("utf-8")
    assert "<math" in lora
    assert "$$" not in lora
    assert "data:image/png;base64," in lora
    # No page asks another host for anything when it is opened.
    for page in site.rglob("*.html"):
        asked = re.findall(
            r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)"', page.read_text("utf-8")
        )
        assert asked == [], page


# --- what tunelab says ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", guide.quoted_pages(), ids=named)
def test_what_is_quoted_is_what_is_said(page: Path, tmp_path: Path) -> None:
    found = guide.quotes(text_of(page))
    assert found
    with workplace.furnished(tmp_path / "work"):
        for command, quoted in found:
            said = workplace.answer(shlex.split(command)[1:])
            assert said == quoted, f"{command}\nrun python benchmarks/guide.py --quotes"


def test_out_of_memory_is_quoted_as_it_is_said(tmp_path: Path) -> None:
    spec = TrialSpec(DataSpec("demo"), "f" * 64, None, MethodSpec("lora", "lora", {}), 0, "lora-0")
    (tmp_path / "trials").mkdir()
    result = process._died(spec, tmp_path, -9, tmp_path / "logs")
    assert f"> {result.error}\n" in text_of(DOCS / "troubleshooting.md")


# --- what runs ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in GUIDE if workplace.commands(text_of(p))], ids=named)
def test_every_command_runs(page: Path, tmp_path: Path) -> None:
    found = workplace.commands(text_of(page))
    with workplace.furnished(tmp_path / "work"):
        for block in workplace.blocks(text_of(page), "yaml")[:1]:
            Path("study.yaml").write_text(block, encoding="utf-8")
        if "runs/demo" in text_of(page):
            found = [workplace.DEMO, *found]
        for args in found:
            said = run_here(*workplace.small(args))
            assert said.code == 0, (args, said.err)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in GUIDE if workplace.blocks(text_of(p), "python")], ids=named
)
def test_the_python_runs(page: Path, tmp_path: Path) -> None:
    code = "\n".join(workplace.blocks(text_of(page), "python"))
    assert "output_dir=" in code
    small = 'model="tiny", subset=20, max_length=32, num_train_epochs=1, output_dir='
    code = code.replace("output_dir=", small).replace("seeds=3", "seeds=1")
    code = code.replace('"minilm"', '"tiny"')
    with workplace.furnished(tmp_path / "work"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr


def test_yaml_is_a_study_of_known_keys() -> None:
    from tunelab.study.file import StudyFile

    found = [b for p in GUIDE for b in workplace.blocks(text_of(p), "yaml")]
    assert found
    for block in found:
        StudyFile(**yaml.safe_load(block))
