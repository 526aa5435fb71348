"""What `max_length: auto` is in a study: a number, the same when the study goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import run_here
from tiny import reviews, write_csv
from tunelab import study
from tunelab.analysis import text_limits
from tunelab.core import study_folder
from tunelab.core.errors import ConfigError
from tunelab.models import bases, weights
from tunelab.study import resolve


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [
        (f"{text} " + "film plot " * (100 * (i % 3)), y) for i, (text, y) in enumerate(reviews(60))
    ]
    return write_csv(tmp_path / "long.csv", rows, ["text", "label"])


def planned(source: Path, **keys: object) -> study.Plan:
    given = {"data.source": str(source), "methods": ["svm"], "seeds": 1, "tuning": False}
    given["output_dir"] = str(source.parent / "study")
    return study.plan(resolve.resolve_study(None, given | keys))


def limits(plan: study.Plan) -> list[object]:
    return [m.settings["max_length"] for m in plan.spec.methods]


def test_auto_becomes_a_number_before_anything_is_planned(source):
    plan = planned(source, methods=["svm", {"name": "lora", "max_length": 32}, "svm-tfidf"])
    assert [m.settings.get("max_length") for m in plan.spec.methods] == [416, 32, None]
    assert plan.lengths is not None
    assert list(plan.lengths.chosen) == [416]
    (trial, *_) = study.expand(plan)
    fixed = planned(source, methods=[{"name": "svm", "max_length": 416}])
    assert study.expand(fixed)[0].trial_id == trial.trial_id
    said = text_limits.lines_of_limits(plan.lengths, text_limits.labels_by_limit(plan.spec.methods))
    assert said == [
        "lora: up to 32 tokens; 76.2% of 42 training texts are longer; --max-length 416 would cut "
        "none, for about 9.6 times the training time",
        "svm: up to 416 tokens (auto), 2.5 times the training time of 128; none of 42 training "
        "texts is longer",
    ]


def test_a_base_that_reads_no_more_says_so(source, tiny_bert):
    plan = planned(source, model=str(tiny_bert))
    assert limits(plan) == [64]
    (said,) = text_limits.warnings_of_limits(
        plan.lengths, text_limits.labels_by_limit(plan.spec.methods)
    )
    assert said.startswith("svm reads no more than 64 tokens of a text: 76.2% of 42 training texts")
    assert said.endswith("The model reads no more.")


def test_auto_may_be_tuned_and_stands_for_one_number(source):
    tune = {"name": "svm", "tune": {"max_length": [64, "auto", 416]}}
    plan = planned(source, methods=[tune], tuning=None)
    assert plan.spec.tuning.spaces["svm"]["max_length"] == (64, 416)


def test_a_method_that_is_another_one_by_auto_is_refused(source):
    with pytest.raises(
        ConfigError, match=r"svm\[max_length=416\] and svm\[max_length=auto\] are the"
    ):
        planned(source, methods=[{"name": "svm", "max_length": [416, "auto"]}])


@pytest.mark.parametrize("wrong", [3, 0, "long", 12.5, True])
def test_what_is_neither_a_number_nor_auto_is_refused(source, wrong):
    with pytest.raises(ConfigError, match="max_length: expected"):
        planned(source, methods=[{"name": "svm", "max_length": wrong}])


def test_a_study_of_before_goes_on_with_its_limit(source, tiny_bert):
    folder = source.parent / "study"
    args = ["compare", source, "--model", tiny_bert, "--methods", "svm", "--seeds", 1]
    args += ["--output-dir", folder, "--jobs", 1, "--tuning", "off"]
    assert run_here(*args, "--max-length", 32).code == 0
    (folder / "lengths.json").unlink()  # as a study of before
    told = run_here(*args)
    assert told.code == 0
    assert "svm: up to 32 tokens (as this study was begun); 76.2% of 42 training texts" in told.err
    assert "1 already done" in told.err
    assert study_folder.read_study(folder).settings["methods"][0]["max_length"] == 32
    warnings = json.loads((folder / "comparison.json").read_text("utf-8"))["warnings"]
    (warned,) = [w for w in warnings if "tokens" in w]
    assert "svm reads no more than 32 tokens of a text" in warned
    assert f"Note: {warned}" in told.out
    assert "svm reads no more than 32 tokens" in (folder / "report.html").read_text("utf-8")
    artifact = next(folder.glob("trials/*/artifact"))
    assert json.loads((artifact / "tunelab.json").read_text("utf-8"))["max_length"] == 32
    assert "svm reads no more than 32 tokens" in (artifact / "README.md").read_text("utf-8")
    said = run_here("predict", artifact, "film " * 50, "a film", "plot " * 50)
    assert said.code == 0
    assert said.err.count("2 of 3 texts are longer than the 32 tokens that this classifier") == 1
    assert not run_here("predict", artifact, "a film").err


def test_many_settings_are_checked_against_weights_that_are_read_once(
    source: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    headers = weights.tensors
    monkeypatch.setattr(bases, "tensors", lambda *a: reads.append(a) or headers(*a))
    rates = [1e-4 * (1 + i) for i in range(300)]
    entry = {"name": "lora", "learning_rate": rates, "max_length": 32, "r": [1, 2]}
    plan = planned(source, model=str(tiny_bert), methods=[entry])
    assert len(plan.spec.methods) == 600
    assert len(reads) <= 4


def test_methods_that_auto_makes_the_same_are_refused(source: Path, tiny_bert: Path) -> None:
    entries = [{"name": "svm", "max_length": n, "label": f"svm {n}"} for n in ("auto", 32, 64)]
    with pytest.raises(ConfigError, match="svm auto and svm 64 are the same, since max_length"):
        planned(source, model=str(tiny_bert), methods=entries)
