"""`compare --export`: the best classifier of a study in other forms, with figures and verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunelab
from commands import run_here
from tiny import reviews
from tunelab.core import forms, study_folder
from tunelab.core.errors import ConfigError

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("winner")
    rows = "".join(f'"{t}",{n}\n' for t, n in reviews(300))
    (root / "rows.csv").write_text("text,label\n" + rows)
    compare(root)
    return root / "study"


def compare(root: Path, **given: object) -> tunelab.Study:
    asked: dict[str, object] = {
        "methods": "svm-tfidf", "seeds": 1, "tuning": False, "engine": "inline",
        "output_dir": root / "study", "export": "onnx,int8",
    }  # fmt: skip
    return tunelab.compare(root / "rows.csv", **(asked | given))  # type: ignore[arg-type]


def test_a_study_says_size_speed_and_verdict_of_its_best_in_other_forms(study: Path):
    opened = tunelab.Study(study)
    made = opened.exports()
    assert made is not None
    as_trained, onnx, int8 = made.forms
    assert as_trained.form == forms.AS_TRAINED
    assert (onnx.form, onnx.folder, onnx.changed, onnx.fault) == ("onnx", "exports/onnx", 0, None)
    assert onnx.bytes
    assert onnx.bytes > 1000
    assert onnx.texts_per_second
    assert onnx.texts_per_second > 1
    assert onnx.milliseconds
    texts = ["a good film", "dull"]
    assert tunelab.load(study / "exports" / "onnx").predict(texts) == tunelab.load(study).predict(
        texts
    )
    assert int8.folder is None
    assert "has one sparse product" in str(int8.fault)
    assert made.trial == opened.best().directory.parent.name


def test_terminal_and_report_show_them(study: Path):
    said = run_here("runs", "show", study)
    assert said.code == 0, said.err
    assert "In other forms" in said.out
    assert "cannot be made" in said.out
    page = (study / "report.html").read_text()
    assert 'id="forms"' in page
    assert "Of svm-tfidf, compared with it on 45 texts of its validation part" in page


def test_a_second_run_keeps_what_is_there_and_one_that_asks_for_none_says_nothing(study: Path):
    graph = study / "exports" / "onnx" / "onnx" / "model.onnx"
    before = graph.stat().st_mtime_ns
    compare(study.parent)
    assert graph.stat().st_mtime_ns == before
    (study / "exports" / "onnx" / "config.json").parent.rename(study / "exports" / "aside")
    compare(study.parent)
    assert graph.is_file()  # made anew
    compare(study.parent, export=None)
    assert tunelab.Study(study).exports() is None
    assert "exports" not in {p.stem for p in study.glob("*.json")}


def test_a_form_that_is_unknown_or_cannot_be_made_here_is_said_before_anything_is_trained(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = study.parent / "rows.csv"
    with pytest.raises(ConfigError, match=r"export: .*'onx' is unknown. Did you mean 'onnx'\?"):
        tunelab.compare(rows, export="onx", output_dir=tmp_path / "new")
    monkeypatch.setattr(forms.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"Export to int8: needs onnx"):
        tunelab.compare(rows, export="int8", output_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_damaged_file_of_exports_is_named(study: Path):
    study_folder.write_extra(study, "exports", {"forms": 3})
    said = run_here("runs", "show", study)
    assert said.code == 2
    assert len(said.faults) == 1
    assert "exports.json" in said.err
    study_folder.remove_extra(study, "exports")
