"""benchmarks/results.py: a study is run or continued, and its table written from the folder."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny import reviews, write_csv
from tunelab.core import study_folder
from tunelab.methods import METHODS

ROOT = Path(__file__).parents[2]
CHOSEN = ["svm-tfidf", "lora", "qlora-8bit", "qlora-4bit"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tuple[Path, Any]:
    root = tmp_path_factory.mktemp("results")
    data = write_csv(root / "r.csv", reviews(60), ["text", "label"])
    few = root / "methods.yaml"
    few.write_text(yaml.safe_dump({"methods": CHOSEN}))
    script = runpy.run_path(str(ROOT / "benchmarks" / "results.py"))
    script["run"].__globals__["METHODS_FILE"] = few
    settings = {"num_train_epochs": 1, "max_length": 32, "learning_rate": 1e-3}
    script["run"](str(data), root / "study", str(tiny_bert), **settings)
    before = {p: p.stat().st_mtime_ns for p in (root / "study" / "trials").rglob("result.json")}
    script["run"](str(data), root / "study", str(tiny_bert), **settings)  # nothing is left to run
    assert before == {p: p.stat().st_mtime_ns for p in before}
    return root / "study", script


def test_every_method_has_a_row_of_what_was_measured(made: tuple[Path, Any]) -> None:
    folder, script = made
    page = script["page"](folder)
    assert f"`{script['COMMAND']}`" in page
    table = page.partition("## QLoRA")[0]
    for r in study_folder.read_study(folder).results:
        assert r.status == "done", r.error
        (line,) = [x for x in table.splitlines() if x.startswith(f"| `{r.spec.method.label}` |")]
        assert f"{100 * r.scores['eval_accuracy']:.1f}" in line  # type: ignore[operator]
        assert f"{r.cost.head_parameters:,}" in line
        if r.cost.adapter_parameters is not None:
            assert f"| {r.cost.adapter_parameters:,} |" in line


def test_quantised_weights_are_set_beside_lora(made: tuple[Path, Any]) -> None:  # FIELD 26
    folder, script = made
    rows = script["page"](folder).partition("## QLoRA")[2].splitlines()
    lines = [line for line in rows if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == CHOSEN[1:]
    assert all("bitsandbytes" in line for line in lines[1:])
    results = {r.spec.method.label: r for r in study_folder.read_study(folder).results}
    sizes = [results[m].details["weight_bytes"] for m in CHOSEN[1:]]
    # Which of 8 and 4 bits is smaller depends on the width: these layers are 32 wide.
    assert max(sizes[1:]) < sizes[0]
    # The comparison is of the base's weights alone: whatever else could differ does not.
    same = ("per_device_train_batch_size", "max_length", "num_train_epochs", "learning_rate", "r")
    assert len({tuple(results[m].spec.method.settings[k] for k in same) for m in CHOSEN[1:]}) == 1


def test_the_whole_study_has_every_method_that_runs_on_the_bundled_model() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "results.py"))
    listed = yaml.safe_load(script["METHODS_FILE"].read_text())["methods"]
    elsewhere = {"peft", "llm", "zero-shot-nli"}  # a type, an endpoint or another head is needed
    assert set(listed) == {m.name for m in METHODS.values() if "bert" not in m.refused} - elsewhere
