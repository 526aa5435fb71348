"""Several labels a text: read in every form, divided evenly, looked at by the gate."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunelab import data
from tunelab.core.errors import DataError
from tunelab.core.values import Dataset, DataSpec

NAMES = ("late", "rude", "pricey")
SETS = [("late",), ("late", "rude"), (), ("pricey",), ("rude", "pricey"), ("late", "pricey")]
ROWS = [(f"parcel {i} and word {i * 7 % 31}", SETS[i % len(SETS)]) for i in range(120)]


def load(path: Path, **given: Any) -> Dataset:
    return data.load(DataSpec(str(path), **given))


def refusal(path: Path, **given: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(path, **given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lists(path: Path, rows: Any = ROWS) -> Path:
    text = "\n".join(json.dumps({"text": t, "labels": list(labels)}) for t, labels in rows)
    path.write_text(text, encoding="utf-8")
    return path


def joined(path: Path, separator: str = "|", rows: Any = ROWS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "labels"))
        writer.writerows((t, separator.join(labels)) for t, labels in rows)
    return path


def flags(path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", *NAMES))
        writer.writerows((t, *(int(n in labels) for n in NAMES)) for t, labels in ROWS)
    return path


def as_read(dataset: Dataset) -> dict[str, set[str]]:
    return {
        text: {dataset.label_names[k] for k in np.flatnonzero(row)}
        for part in dataset.parts.values()
        for text, row in zip(part.texts, part.labels, strict=True)
    }


def test_every_form_gives_the_same_labels(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"text": [t for t, _ in ROWS], "labels": [list(s) for _, s in ROWS]})
    pq.write_table(table, tmp_path / "r.parquet")
    expected = {t: set(labels) for t, labels in ROWS}
    for dataset in (
        load(lists(tmp_path / "r.jsonl")),
        load(joined(tmp_path / "r.csv")),
        load(joined(tmp_path / "s.csv", " + "), label_separator=" + "),
        load(flags(tmp_path / "f.csv")),
        load(flags(tmp_path / "f.csv"), label_columns=["pricey", "late", "rude"]),
        load(tmp_path / "r.parquet"),
    ):
        assert dataset.task == "multilabel"
        assert set(dataset.label_names) == set(NAMES)
        assert as_read(dataset) == expected
        assert any("several labels" in n or "for each label" in n for n in dataset.notes)


def test_parts_have_every_label_in_proportion(tmp_path: Path) -> None:
    dataset = load(lists(tmp_path / "r.jsonl"))
    shares = [part.labels.mean(axis=0) for part in dataset.parts.values()]
    assert np.abs(np.stack(shares) - np.stack(shares).mean(axis=0)).max() < 0.1


def test_sets_are_classes_where_that_is_asked(tmp_path: Path) -> None:
    dataset = load(joined(tmp_path / "r.csv"), task="classes", on_bad_rows="drop")
    assert dataset.task == "classes"
    assert set(dataset.label_names) == {"|".join(s) for s in SETS if s}


def test_labels_are_left_out_and_their_rows_stay(tmp_path: Path) -> None:
    dataset = load(lists(tmp_path / "r.jsonl"), drop_classes=["rude"])
    assert dataset.label_names == ("late", "pricey")
    assert sum(len(p) for p in dataset.parts.values()) == len(ROWS)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    rows = [*ROWS, ("odd", [{"a": 1}])]
    assert "objects among its labels" in refusal(lists(tmp_path / "a.jsonl", rows))
    assert "late" in refusal(joined(tmp_path / "r.csv"), drop_classes=["lat"])
    assert "no column 'latte'" in refusal(
        flags(tmp_path / "f.csv"), label_columns=["latte", "rude"]
    )
    assert "task is classes" in refusal(
        joined(tmp_path / "r.csv"), task="classes", label_separator="|"
    )
    one = [(t, ("late",) if i % 2 else ()) for i, (t, _) in enumerate(ROWS)]
    assert "1 label" in refusal(lists(tmp_path / "one.jsonl", one))
    rare = [*ROWS, ("a rare one", ("broken",))]
    assert "a label has too few rows: 'broken' (1)" in refusal(lists(tmp_path / "rare.jsonl", rare))
    assert load(tmp_path / "rare.jsonl", min_rows_per_class=3).label_names == tuple(sorted(NAMES))


def test_the_gate_names_labels_of_all_and_of_hardly_any_rows(tmp_path: Path) -> None:
    rows = [(t, ("text", *labels, *(["broken"] if i % 17 == 0 else []))) for i, (t, labels) in
            enumerate(ROWS)]  # fmt: skip
    rows += [(ROWS[0][0], ("pricey",))]
    gate = data.inspect(load(lists(tmp_path / "r.jsonl", rows)))
    said = {f.where: f.says for f in gate.of("labels")}
    assert "'text' stands on 99%" in said["train"]
    assert "'broken'" in said["all"]
    assert gate.of("conflicts")


def test_folds_test_every_row_once(tmp_path: Path) -> None:
    from tunelab.core.values import Fold

    whole = load(lists(tmp_path / "r.jsonl"))
    spec = DataSpec(str(tmp_path / "r.jsonl"))
    parts = [data.in_fold(whole, Fold(4, 0, k), spec) for k in range(4)]
    assert sorted(i for p in parts for i in p.test.ids) == sorted(data.tested_rows(whole).ids)
    for part in parts:
        assert part.train.labels.sum(axis=0).min() > 0
