"""benchmarks/choosing.py: the guide's page on choosing a method says what the studies say."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from studies import METHODS, make_study
from tunelab.analysis import tradeoff
from tunelab.core import study_folder

ROOT = Path(__file__).parents[3]
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "choosing.py"))
page: Callable[[Sequence[Path]], str] = SCRIPT["page"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("a"), seeds=6, rows=300)


@pytest.fixture(scope="module")
def written(folder: Path) -> str:
    return page([folder])


def test_each_answer_is_that_of_recommend(folder: Path, written: str) -> None:
    record = study_folder.read_study(folder)
    rows = {
        cells[1]: (cells[2], cells[3])
        for line in written.splitlines()
        if len(cells := [c.strip() for c in line.split("|")]) == 5
    }
    for cost, matters in SCRIPT["MATTERS"].items():
        found = tradeoff.recommend(record, cost=cost)
        (take, because), *more = (v for k, v in rows.items() if matters in k)
        assert not more
        assert take == f"`{found.choice}`"
        assert because.replace("\\", "").startswith(found.sentence.partition(": ")[2][:40])
    assert rows["only the score counts"][0] == f"`{tradeoff.recommend(record).best}`"
    assert rows["you have fewer rows"][0] == "not known"


def test_every_method_stands_beside_the_best_with_intervals(written: str) -> None:
    cells = [line.split("|") for line in written.splitlines() if re.match(r"\| `[\w-]+` \|", line)]
    found = {c[1].strip(" `"): c[2].strip() for c in cells}
    assert len(found) == len(METHODS) - 1
    assert all(re.fullmatch(r"-?\d+\.\d points \(-?\d+\.\d to -?\d+\.\d\)", x)
               for x in found.values())  # fmt: skip


def test_no_path_of_the_machine_is_on_it(folder: Path, written: str) -> None:
    assert "`python benchmarks/choosing.py --study runs/study`" in written
    assert str(folder) not in written


def test_several_studies_are_ranked_together(folder: Path, tmp_path: Path) -> None:
    other = make_study(tmp_path / "b", seeds=3, source="b.csv", data={"fingerprint": "b" * 64})
    both = page([folder, other])
    assert "## Over all of them" in both
    assert "2 data sets: at least 6 are needed" in both
    assert both.count("| only the score counts |") == 2


def test_the_page_in_the_guide_was_written_by_this_script() -> None:
    kept = (ROOT / "docs" / "guide" / "choosing-a-method.md").read_text(encoding="utf-8")
    head = kept.partition("\n## ")[0]
    assert head == page([]).partition("\n## ")[0], "run benchmarks/choosing.py on the studies again"
