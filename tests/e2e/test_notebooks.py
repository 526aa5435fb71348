"""The notebooks: kept as their sources say, with outputs; and (slow) each runs from the start."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _build() -> Any:
    spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = _build()


def kept(source: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(build.kept(source).read_text(encoding="utf-8"))[
        "cells"
    ]
    return cells


def test_there_are_seven() -> None:
    assert [s.stem[:2] for s in build.SOURCES] == [f"0{i}" for i in range(1, 8)]
    assert {p.stem for p in build.HERE.glob("*.ipynb")} == {s.stem for s in build.SOURCES}


@pytest.mark.parametrize("source", build.SOURCES, ids=lambda s: s.stem)
def test_is_kept_as_its_source_says_with_its_outputs(source: Path) -> None:
    cells = kept(source)
    written = [(c["cell_type"], "".join(c["source"])) for c in cells]
    assert written == build.cells(source.read_text(encoding="utf-8")), (
        f"{source.name} changed: run python notebooks/build.py {source.stem}"
    )
    outputs = [o for c in cells for o in c.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 1
    assert sum(o["output_type"] in {"stream", "execute_result"} for o in outputs) >= 4
    assert [c["execution_count"] for c in cells if c["cell_type"] == "code"] == list(
        range(1, 1 + sum(c["cell_type"] == "code" for c in cells))
    )
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    # What a reader's machine does not have: our folders.
    assert not re.search(r"/(tmp|home|root|work)/", json.dumps([o.get("text") for o in outputs]))
    last = written[-1]
    assert last[0] == "markdown"
    assert last[1].startswith("## Exercises") or "\n## Exercises\n" in last[1]
    assert "<details><summary>Answers</summary>" in last[1]
    questions, answers = last[1].split("<details>")
    numbered = re.compile(r"^(\d)\. ", re.MULTILINE)
    assert numbered.findall(questions.split("## Exercises")[1]) == numbered.findall(answers) != []


@pytest.mark.slow
@pytest.mark.timeout(900)  # minutes of training on a machine that is busy
@pytest.mark.parametrize("source", build.SOURCES, ids=lambda s: s.stem)
def test_runs(source: Path) -> None:
    made, _ = build.run(source)
    assert all(c.execution_count for c in made.cells if c.cell_type == "code")
