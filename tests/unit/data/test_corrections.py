"""Labels that a reader put right: which rows they are of, what they change, what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tunelab import data
from tunelab.core.errors import DataError
from tunelab.core.values import Dataset, DataSpec, Fold
from tunelab.data.corrections import CORRECTION_COLUMNS, text_digest

ROWS = [(f"r{i}", f"row number {i} says {'yes' if i % 2 else 'no'}", i % 2) for i in range(120)]


def put(path: Path, head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([head, *rows])
    return str(path)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return put(tmp_path / "data.csv", ("id", "text", "label"), list(ROWS))


def corrections(tmp_path: Path, *rows: tuple[int, str, str], study: str = "") -> str:
    lines: list[tuple[object, ...]] = [
        (ROWS[i][0], text_digest(ROWS[i][1]), old, new, study) for i, old, new in rows
    ]
    return put(tmp_path / "right.csv", CORRECTION_COLUMNS, lines)


def labels_by_id(dataset: Dataset) -> dict[str, tuple[str, str]]:
    return {
        str(name): (part, dataset.label_names[int(label)])
        for part, split in dataset.parts.items()
        for name, label in zip(split.columns["id"], split.labels, strict=True)
    }


def test_labels_are_put_right_and_no_row_changes_its_part(tmp_path: Path, source: str):
    plain = data.load(DataSpec(source))
    right = corrections(tmp_path, (3, "1", "0"), (4, "0", "1"), (6, "0", "0"), study="runs/a")
    fixed = data.load(DataSpec(source, corrections=right))
    before, after = labels_by_id(plain), labels_by_id(fixed)
    assert {i for i in before if before[i] != after[i]} == {"r3", "r4"}
    assert {i: part for i, (part, _) in before.items()} == {i: p for i, (p, _) in after.items()}
    assert fixed.fingerprint != plain.fingerprint
    assert fixed.corrected is not None
    assert fixed.corrected.study == "runs/a"
    assert sum(fixed.corrected.by_part.values()) == 2
    assert any("2 labels were put right" in note for note in fixed.notes)
    assert data.describe(fixed)["corrected"]["study"] == "runs/a"


def test_rows_without_a_column_of_ids_are_known_by_ours(tmp_path: Path):
    path = put(tmp_path / "plain.csv", ("text", "label"), [row[1:] for row in ROWS])
    plain = data.load(DataSpec(path))
    row, text = plain.train.ids[0], plain.train.texts[0]
    old = plain.label_names[int(plain.train.labels[0])]
    line = (row, text_digest(text), old, "1" if old == "0" else "0")
    right = put(tmp_path / "right.csv", CORRECTION_COLUMNS[:4], [line])
    fixed = data.load(DataSpec(path, corrections=right))
    assert (fixed.train.labels != plain.train.labels).nonzero()[0].tolist() == [0]


@pytest.mark.parametrize("together", [False, True])
def test_folds_and_subsets_have_the_rows_that_they_had(tmp_path: Path, source: str, together: bool):
    right = corrections(tmp_path, *((i, str(i % 2), str(1 - i % 2)) for i in range(0, 30, 7)))
    for number in range(3):
        fold = Fold(3, 0, number, together)
        of_both = [
            data.in_fold(data.load(spec), fold, spec)
            for spec in (DataSpec(source), DataSpec(source, corrections=right))
        ]
        for part in ("train", "validation", "test"):
            assert of_both[0].parts[part].ids == of_both[1].parts[part].ids
    small = [data.load(DataSpec(source, subset=20, corrections=c)).train.ids for c in (None, right)]
    assert small[0] == small[1]
    again = [
        data.redivided(data.load(DataSpec(source, corrections=c)), 1).train.ids
        for c in (None, right)
    ]
    assert again[0] == again[1]


def test_the_same_labels_divided_otherwise_are_other_data(tmp_path: Path, source: str):
    right = corrections(tmp_path, (3, "1", "0"))
    by_hand = [(i, t, 0 if i == "r3" else y) for i, t, y in ROWS]
    other = put(tmp_path / "data2.csv", ("id", "text", "label"), list(by_hand))
    Path(other).rename(source)  # ids hold the file's name
    assert (
        data.load(DataSpec(source)).fingerprint
        != data.load(DataSpec(put(tmp_path / "data.csv", ("id", "text", "label"), list(ROWS)),
                              corrections=right)).fingerprint
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            ("r3", text_digest(ROWS[3][1]), "0", "1"),
            "row 'r3' is labelled '1' in the data.*already",
        ),
        (("r4", text_digest(ROWS[4][1]), "1", "maybe"), "'r4' is labelled '0' in the data"),
        (
            ("r3", text_digest(ROWS[3][1]), "1", "maybe"),
            "'r3' is to be 'maybe'.*none of the labels",
        ),
        (("r3", text_digest("other"), "1", "0"), "row 'r3'.*has another text.*row number 3"),
        (("r999", text_digest("x"), "1", "0"), "row 'r999'.*none of the 120 rows"),
        (("r3", text_digest("x"), "1", "1"), "changes no label"),
        (("r3", "1", "0"), "row 2 has 3 fields, expected 4"),
    ],
)
def test_what_is_not_of_these_data_is_one_line(
    tmp_path: Path, source: str, row: tuple[str, ...], said: str
):
    right = put(tmp_path / "right.csv", CORRECTION_COLUMNS[:4], [row])
    with pytest.raises(DataError, match=said) as e:
        data.load(DataSpec(source, corrections=right))
    assert "\n" not in str(e.value)


def test_a_file_that_is_none_or_contradicts_itself_is_one_line(tmp_path: Path, source: str):
    spec = DataSpec(source, corrections=str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        data.load(spec)
    with pytest.raises(DataError, match="no column 'text_sha256', 'old_label'"):
        data.load(DataSpec(source, corrections=source))
    twice = corrections(tmp_path, (3, "1", "0"), (3, "1", "1"))
    with pytest.raises(DataError, match=r"'r3' has two labels, '0' .row 2. and '1' .row 3."):
        data.load(DataSpec(source, corrections=twice))
    with pytest.raises(DataError, match="corrections are of a study's own rows"):
        data.load_other(DataSpec(source, corrections=twice), ("0", "1"))


def test_a_class_without_a_row_in_a_subset_is_said(tmp_path: Path, source: str):
    kept = data.load(DataSpec(source, subset=2)).train
    assert np.bincount(kept.labels).tolist() == [1, 1]
    one = next(i for i, row in enumerate(ROWS) if row[0] == kept.columns["id"][0])
    old = str(ROWS[one][2])
    right = corrections(tmp_path, (one, old, str(1 - int(old))))
    with pytest.raises(DataError, match=f"--subset 2: .*class '{old}' has no row"):
        data.load(DataSpec(source, subset=2, corrections=right))
