"""A study with labels put right says whether the verdict moved against the study before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from studies import METHODS, make_study
from tunelab.analysis import summarise
from tunelab.analysis.corrected import before_from_json, conclusion_before
from tunelab.core.study_folder import StudyRecord, read_study


def with_corrections(root: Path, of: Path | str, first: float, **data: object) -> StudyRecord:
    """A study of two methods, whose labels were corrected; `first`: the skill of the one."""
    methods = [replace(METHODS[2], skill=first), replace(METHODS[3], skill=0.6)]
    card = {"corrected": {"study": str(of), "by_part": {"train": 3, "test": 2}}, **data}
    return read_study(make_study(root, methods=methods, seeds=6, data=card))


def notes(record: StudyRecord) -> tuple[str, ...]:
    before = conclusion_before(record, "accuracy")
    if before is not None:
        record = replace(record, before=before.to_json())
        assert before_from_json(before.to_json()) == before
    return summarise(record).warnings


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (0.95, 0.95, ": the verdict stands, take full, as in study."),
        (0.3, 0.95, ": the verdict moved: take full (in study: lora)."),
        (0.55, 0.2, "take lora; lora against full is better (in study: within noise)"),
    ],
)
def test_the_verdict_stands_or_moves(tmp_path: Path, there: float, here: float, said: str) -> None:
    earlier = make_study(
        tmp_path / "a",
        methods=[replace(METHODS[2], skill=there), replace(METHODS[3], skill=0.6)],
        seeds=6,
    )
    first, second, *_ = notes(with_corrections(tmp_path / "b", earlier, here))
    assert first.startswith("5 labels were put right (3 of train, 2 of test)")
    assert said in first
    assert "2 corrected rows are tested on" in second
    assert "by 0.7 points" in second  # 2 of 288


def test_without_the_study_before_it_says_so(tmp_path: Path) -> None:
    said = notes(with_corrections(tmp_path, tmp_path / "gone", 0.9))[0]
    assert "the study before is not known" in said
    of_itself = with_corrections(tmp_path / "c", tmp_path / "c" / "runs" / "study", 0.9)
    assert conclusion_before(of_itself, "accuracy") is None


def test_in_folds_all_corrected_rows_are_tested(tmp_path: Path) -> None:
    record = with_corrections(tmp_path, "", 0.9, folds={"of": 6, "rows": 500})
    first, second, *_ = notes(record)
    assert first.startswith("5 labels were put right: ")
    assert second.startswith("5 corrected rows are tested on")
    assert "by 1.0 points" in second
