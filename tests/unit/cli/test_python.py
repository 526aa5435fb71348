"""What a command says of a study, Python's `Study` gives as a value: the same figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import tunelab
from commands import run_here
from studies import make_study
from tiny import reviews, write_csv
from tunelab.core.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tunelab.Study:
    return tunelab.Study(make_study(tmp_path_factory.mktemp("made") / "study", seeds=6))


def test_calibration_is_what_the_command_says(study: tunelab.Study) -> None:
    found = study.calibration()
    said = json.loads(run_here("calibration", study.directory, "--json").out)["methods"]
    frame = found.to_frame().set_index("label")
    assert list(frame.index) == [m["label"] for m in said]
    for method in said:
        row = frame.loc[method["label"]]
        if method["before"] is None:
            assert math.isnan(row["ece"])
            continue
        assert row["ece"] == method["before"]["ece"]["value"]
        assert row["brier_low"] == method["before"]["brier"]["low"]
        assert row["temperature"] == pytest.approx(np.mean(list(method["temperatures"].values())))
    assert found.sentences() == tuple(m["sentence"] for m in said)
    assert repr(found).startswith("Calibrations(calibration error, %: ")
    assert len(repr(found).splitlines()) == 1


def test_slices_are_what_the_command_says(tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "r.csv", reviews(200, 3), ["text", "label"])
    made = tunelab.compare(
        rows, methods="svm-tfidf", seeds=2, tuning=False, engine="inline", output_dir=tmp_path / "s"
    )
    found = made.slices(by="label, length")
    said = json.loads(run_here("slices", made.directory, "--by", "label,length", "--json").out)
    frame = found.to_frame()
    assert set(frame["slice"]) <= {"label", "length"}
    assert len(frame) == len(found.looked_at) == len(said["slices"]) > 0
    assert list(frame["accuracy"]) == [s["accuracy"]["value"] for s in said["slices"]]
    assert repr(found) == f"Slices({len(frame)} slices, none differs from the rest)"
    with pytest.raises(InputError, match=r"slices: 'lenght': no such cut\. Did you mean 'length'"):
        made.slices("lenght")


def test_a_report_is_written_from_python(study: tunelab.Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = study.report("markdown, csv", figures="pdf", output_dir=out, metric="f1_macro")
    assert written.files == (out / "report.md", out / "table.md", out / "table.csv")
    assert all(path.is_file() for path in (*written.files, *written.figures))
    # A reader of Markdown shows no PDF: the report has its pictures all the same.
    assert ".png)" in written.files[0].read_text("utf-8")
    assert repr(written).startswith(f"Written({len(written.figures)} figures in {out / 'figures'}")
    with pytest.raises(InputError, match=r"Unknown format 'htm'\. Did you mean 'html'"):
        study.report("htm", output_dir=tmp_path / "none")
    with pytest.raises(ConfigError, match="'f1' is not a metric"):
        study.report(metric="f1", output_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"data": "r.csv"}, r"data: tunelab.fine_tune has no such keyword; the data are the first"),
        ({"seeds": 3}, "seeds: tunelab.fine_tune has no such keyword; one seed is trained"),
        ({"folds": 6}, "folds: tunelab.fine_tune trains one method with one seed"),
        ({"training": {}}, "training: .* each setting is a keyword of its own"),
        ({"labels_column": "x"}, "labels_column: unknown setting. Did you mean 'label_column'?"),
    ],
)
def test_a_keyword_that_fine_tune_has_not_is_told(
    given: dict[str, object], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        tunelab.fine_tune("demo", "svm-tfidf", output_dir=tmp_path / "o", **given)
    assert not (tmp_path / "o").exists()


def test_columns_are_named_in_python(tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "r.csv", reviews(60, 1), ["said", "mood"])
    columns = {"text_column": "said", "label_column": "mood"}
    tunelab.fine_tune(rows, "svm-tfidf", output_dir=tmp_path / "o", **columns)
    found = tunelab.evaluate(tmp_path / "o", rows, part="all", **columns)
    assert (found.rows, list(found.to_frame()["classifier"])) == (60, [str(tmp_path / "o")])
    with pytest.raises(InputError, match="part: expected 'test', 'validation', 'train', 'all'"):
        tunelab.evaluate(tmp_path / "o", rows, part="tests", **columns)  # type: ignore[arg-type]
