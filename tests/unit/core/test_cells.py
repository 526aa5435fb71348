"""Cells that a spreadsheet would compute."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.core.cells import safe_cell
from tunelab.data import read_texts, write_table

FORMULAS = [
    "=1+1",
    "+A1",
    "-A1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "=cmd|' /C calc'!A0",
    "'=1",
    "-",
    "+-1",
]


def taken_back(text: str) -> str:
    """As docs/reference/formats.md says."""
    return re.sub(r"^'('*[=+\-@\t\r])", r"\1", text)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_a_text(text):
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "value", [-5, -0.5, "-5", "+1.5e-3", "-.5", None, "a=b", "'quoted'", True, ""]
)
def test_numbers_and_other_texts_are_untouched(value):
    assert safe_cell(value) is value


@given(st.text(st.sampled_from("'=+-@\t\r1a. ")))
def test_texts_can_be_read_back(text):
    assert taken_back(str(safe_cell(text))) == text


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_files_of_predictions_hold_no_formula(tmp_path: Path, suffix: str):
    path = tmp_path / f"r.{suffix}"
    write_table(path, {"=head": [*FORMULAS, "-1"], "n": [-1.5] * 11})
    with path.open(newline="", encoding="utf-8") as stream:
        cells = list(csv.reader(stream, delimiter="," if suffix == "csv" else "\t"))
    assert not [c for row in cells for c in row if re.match(r"[=+@\t\r]|-(?![0-9.])", c)]
    assert cells[1][1] == "-1.5"
    read = read_texts(path, "'=head").texts
    assert [taken_back(t) for t in read] == [*FORMULAS, "-1"]
