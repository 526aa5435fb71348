"""benchmarks/few_rows.py: its table is the study's curves, with the number of seeds."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

from studies import METHODS, make_study
from tunelab.analysis.curves import learning_curves
from tunelab.analysis.numbers import format_estimate
from tunelab.core.study_folder import read_study

SCRIPT = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "few_rows.py"))


def test_the_table_is_the_studys_curves(tmp_path: Path) -> None:
    record = read_study(make_study(tmp_path, seeds=6, methods=METHODS[1:3]))
    fewer = tuple(replace(r, spec=replace(r.spec, train_rows=50)) for r in record.results)
    with_curve = replace(record, curve=fewer)
    lines = list(SCRIPT["_study"](with_curve))
    of = learning_curves(with_curve)
    assert of is not None
    assert "Seeds: 6." in lines
    assert "| method | 50 rows | 1,344 rows |" in lines
    for label in record.methods:
        cells = [format_estimate(p.estimate, "percent") for p in of.points if p.label == label]
        assert f"| `{label}` | {' | '.join(cells)} |" in lines
