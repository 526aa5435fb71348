"""docs/peers.md names a test for each failure of the peers: every named test is there."""

from __future__ import annotations

import ast
import mmap
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from families import make_family
from tunelab.core import machine
from tunelab.methods import METHODS, Task
from tunelab.methods.neural import adapted
from tunelab.models import bases
from tunelab.models.families import FAMILIES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| \d+ \|", line)]
ITEMS = [*range(1, 23), 24, 26, 27, 28, 29]


def test_every_item_has_a_row_with_a_test() -> None:
    assert [int(row.split("|")[1]) for row in ROWS] == ITEMS
    assert all(re.search(r"`tests/\S+::test_\w+`", row) for row in ROWS)


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`(tests/\S+?)::", PAGE))))
def test_every_named_test_exists(file: str) -> None:
    named = set(re.findall(rf"`{re.escape(file)}::(test_\w+)`", PAGE))
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    there = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    assert named <= there, named - there


# --- those that have no better place --------------------------------------------------------


def test_distilbert_has_targets_without_naming_any(tmp_path: Path) -> None:  # FIELD 4
    base = bases.resolve(str(make_family(tmp_path / "distilbert", "distilbert")))
    row = METHODS["lora"]
    assert row.adapt
    model, _ = adapted(base, ["a", "b"], row.settings(), row.adapt, seed=0)
    adapted_layers = {n.split(".lora_A")[0].rsplit(".", 1)[-1]
                      for n, _ in model.named_parameters() if "lora_A" in n}  # fmt: skip
    assert adapted_layers == {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"}
    assert set(FAMILIES["distilbert"].targets["all-linear"]) == adapted_layers


def test_a_method_is_never_given_the_test_part() -> None:  # FIELD 16
    assert {f.name for f in fields(Task)} & {"train", "validation", "test"} == {
        "train", "validation",
    }  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak cannot be reset")
def test_peak_memory_does_not_count_what_was_there_before() -> None:  # FIELD 27
    # Memory from the system itself: the C library may hand out again what it kept.
    def touched(size: int) -> mmap.mmap:
        block = mmap.mmap(-1, size)
        block.write(b"1" * size)
        return block

    touched(128 << 20).close()
    size = 32 << 20
    peak = machine.PeakMemory()
    during = touched(size)
    seen = peak.bytes()
    during.close()
    assert seen is not None
    assert 0.9 * size < seen < 3 * size
