"""Study files and flags: who wins, where a value came from, grids, names, faults all at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tunelab.core.errors import ConfigError
from tunelab.stats.metrics import METRICS
from tunelab.study import file, resolve
from tunelab.study.space import space_to_json
from tunelab.study.spec import StudySpec, study_yaml


def load(tmp_path: Path, text: str = "data: demo", **more: Any) -> StudySpec:
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    flags = more.pop("flags", {})
    return resolve.resolve_study(path, flags, more.pop("settings", {}), more.pop("sets", ()))


def faults(tmp_path: Path, text: str, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as e:
        load(tmp_path, text, **more)
    return str(e.value).splitlines()


def test_defaults_are_the_four_methods_and_six_seeds_on_the_bundled_model(tmp_path: Path) -> None:
    spec = load(tmp_path)
    assert [m.label for m in spec.methods] == ["svm-tfidf", "svm", "full", "lora"]
    assert spec.seeds == (0, 1, 2, 3, 4, 5)
    assert spec.model == "minilm"
    assert spec.metric == "accuracy"


def test_lora_learns_about_ten_times_as_fast_as_full(tmp_path: Path) -> None:
    rates = {m.name: m.settings.get("learning_rate") for m in load(tmp_path).methods}
    assert rates["lora"] == pytest.approx(10 * rates["full"])


def test_from_weak_to_strong_and_where_each_came_from(tmp_path: Path) -> None:
    text = """
data: demo
methods: [full, {name: lora, r: 4, num_train_epochs: 2}]
training: {num_train_epochs: 7, weight_decay: 0.1}
"""
    spec = load(tmp_path, text, settings={"weight_decay": 0.2}, sets=["methods.1.lora_alpha=64"])
    full, lora = (m.settings for m in spec.methods)
    assert full["num_train_epochs"] == 7
    assert lora["num_train_epochs"] == 2
    assert full["weight_decay"] == lora["weight_decay"] == 0.2
    assert lora["lora_alpha"] == 64
    came = spec.sources
    assert came["methods.0.num_train_epochs"] == "training"
    assert came["methods.0.weight_decay"] == "command line"
    assert came["methods.1.lora_alpha"] == "--set"
    assert came["methods.1.lora_dropout"] == "default of lora"
    assert came["seeds"] == "default"
    assert str(tmp_path) in came["methods.1.r"]


def test_a_list_is_a_grid_and_names_come_by_themselves(tmp_path: Path) -> None:
    text = "data: demo\nmethods: [full, {name: lora, r: [4, 8], lora_alpha: [8, 16]}]"
    labels = [m.label for m in load(tmp_path, text).methods]
    assert labels == [
        "full", "lora[r=4,lora_alpha=8]", "lora[r=4,lora_alpha=16]",
        "lora[r=8,lora_alpha=8]", "lora[r=8,lora_alpha=16]",
    ]  # fmt: skip


def test_a_setting_that_is_a_list_is_no_grid(tmp_path: Path) -> None:
    text = "data: demo\nmethods: [{name: lora, target_modules: [query, value]}]"
    (only,) = load(tmp_path, text).methods
    assert only.settings["target_modules"] == ["query", "value"]
    assert only.label == "lora"
    text = "data: demo\nmethods: [{name: lora, target_modules: [[query], [query, value]]}]"
    labels = [m.label for m in load(tmp_path, text).methods]
    assert labels == ["lora[target_modules=query]", "lora[target_modules=query+value]"]


def test_two_entries_of_one_method_are_told_apart(tmp_path: Path) -> None:
    text = "data: demo\nmethods: [{name: lora, r: 4}, {name: lora, r: 4, bias: all}]"
    assert [m.label for m in load(tmp_path, text).methods] == ["lora[bias=none]", "lora[bias=all]"]
    text = "data: demo\nmethods: [{name: lora, label: small, r: 2}, lora]"
    assert [m.label for m in load(tmp_path, text).methods] == ["small", "lora[r=8]"]
    assert "stands twice" in faults(tmp_path, "data: demo\nmethods: [lora, lora]")[0]


def test_names_from_other_tools_are_taken_and_said(tmp_path: Path) -> None:
    text = "data: demo\nmethods: [{name: lora, lora_rank: 4}]\ntraining: {micro_batch_size: 4}"
    spec = load(tmp_path, text, settings={"lr": 1e-3})
    (lora,) = spec.methods
    assert lora.settings["r"] == 4
    assert lora.settings["per_device_train_batch_size"] == 4
    assert lora.settings["learning_rate"] == 1e-3
    assert any("lora_rank is called r here" in n for n in spec.notes)
    assert len([n for n in spec.notes if "called" in n]) == 3


def test_1e_4_in_yaml_is_a_number(tmp_path: Path) -> None:
    text = "data: demo\nmethods: [{name: lora, learning_rate: 1e-4}]"
    assert load(tmp_path, text).methods[0].settings["learning_rate"] == 1e-4


def test_all_faults_at_once_each_with_its_remedy(tmp_path: Path) -> None:
    text = """
data: {source: demo, subset: 0}
methods: [lorra, {name: lora, rr: 4}]
seeds: 3
metric: acuracy
"""
    lines = faults(tmp_path, text, settings={"c": 0.5, "q": 1})
    assert [line.split(":")[0] for line in lines] == [
        "data.subset", "methods.0", "methods.1 (lora)", "q", "metric",
    ]  # fmt: skip
    assert "Did you mean 'lora'?" in lines[1]
    assert "Did you mean 'accuracy'?" in lines[4]


def test_a_setting_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    text = "data: demo\nmethods: [svm-tfidf]"
    (line,) = faults(tmp_path, text, settings={"lora_alpha": 8})
    assert line.startswith("Flag --lora-alpha: no method of this study has it; it belongs to")
    assert "lora" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: demo\nmethods: [{name: lora, r: 0}]", "r: expected greater than or equal to 1"),
        ("data: demo\nmethods: [{name: lora, r: [4, 0]}]", "found 0"),
        ("data: demo\nmethods: [{name: lora, bias: some}]", "bias: expected 'none', 'all'"),
        ("data: demo\nseeds: []", "seeds: expected"),
        ("data: demo\nseeds: [1, 1]", "seeds: expected different"),
        ("data: demo\nmethods: []", "methods: expected"),
        ("- a\n- b", "expected keys such as data"),
        ("", "found nothing"),
        ("data: [", "not valid YAML"),
        ("methods: [lora]", "No data given"),
        ("data: demo\nmodle: x", "Did you mean 'model'?"),
        ("data: {source: demo, subst: 3}", "Did you mean 'subset'?"),
    ],
)
def test_faults_name_the_key_and_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    (line,) = faults(tmp_path, text)
    assert said in line


@pytest.mark.parametrize("key", ["methods.9.r=4", "methods.x=4", "model.a.b=1", "nothing"])
def test_set_names_a_path_that_does_not_exist(tmp_path: Path, key: str) -> None:
    (line, *_) = faults(tmp_path, "data: demo\nmodel: minilm", sets=[key])
    assert key.split("=", maxsplit=1)[0] in line


def test_a_resolved_study_reads_back_as_itself(tmp_path: Path) -> None:
    text = "data: demo\nmethods: [svm, {name: lora, r: [2, 4]}]\nseeds: [3, 5]"
    spec = load(tmp_path, text)
    resolved = {
        "tunelab": "x", "command": "c", "sources": {}, "trials": [],
        "data": {"source": "demo"}, "seeds": list(spec.seeds), "model": spec.model,
        "output_dir": "runs/x",
        "methods": [{"name": m.name, "label": m.label, **m.settings} for m in spec.methods],
    }  # fmt: skip
    again = load(tmp_path, yaml.safe_dump(resolved))
    assert again.methods == spec.methods
    assert again.seeds == spec.seeds


def test_the_schema_takes_good_files_and_refuses_bad_ones() -> None:
    schema = file.study_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    good = yaml.safe_load("data: demo\nmethods: [svm, {name: lora, r: [4, 8], bias: all}]")
    jsonschema.validate(good, schema)
    for bad in ("data: demo\nmethods: [svmm]", "data: demo\nmethods: [{name: lora, rr: 4}]"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml.safe_load(bad), schema)


# --- protocol -------------------------------------------------------------------------------


def spaces(spec: StudySpec) -> dict[str, Any]:
    return {label: space_to_json(space) for label, space in spec.tuning.spaces.items()}


def test_every_method_that_learns_by_gradient_tries_equally_many_rates(tmp_path: Path) -> None:
    spec = load(tmp_path)
    assert spaces(spec) == {
        "full": {"learning_rate": [1.5e-05, 5e-05, 0.00015]},
        "lora": {"learning_rate": [0.00015, 0.0005, 0.0015]},
    }
    assert {spec.tuning.tries(label) for label in spec.tuning.spaces} == {3}
    assert not set(spec.tuning.seeds) & set(spec.seeds)
    assert spaces(load(tmp_path, "data: demo\ntuning: off")) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tuning: {learning_rate: [1.0e-4, 1.0e-3]}", {"learning_rate": [1e-4, 1e-3]}),
        ("tuning: {around: [1, 2]}", {"learning_rate": [5e-4, 1e-3]}),
        ("tuning: 5", {"learning_rate": {"low": 5e-5, "high": 5e-3, "log": True}}),
        ("tuning: {budget: 4, space: {r: [2, 4], weight_decay: {low: 0.0, high: 0.1}}}",
         {"r": [2, 4], "weight_decay": {"low": 0.0, "high": 0.1, "log": False}}),
    ],
)  # fmt: skip
def test_what_is_tried_is_what_was_asked(
    tmp_path: Path, text: str, expected: dict[str, Any]
) -> None:
    spec = load(tmp_path, f"data: demo\nmethods: [svm-tfidf, lora]\n{text}")
    assert spaces(spec) == {"lora": expected}


def test_a_rate_that_was_given_is_kept_unless_tuning_is_asked_for(tmp_path: Path) -> None:
    text = "data: demo\nmethods: [full, {name: lora, learning_rate: 1.0e-3}]\n"
    spec = load(tmp_path, text)
    assert set(spaces(spec)) == {"full"}
    assert any("not for lora" in n for n in spec.notes)
    assert spaces(load(tmp_path, text + "tuning: on"))["lora"]["learning_rate"][1] == 1e-3
    # A grid of rates is what is compared: its points are not tuned away from each other.
    grid = "data: demo\ntuning: on\nmethods: [{name: lora, learning_rate: [1.0e-4, 1.0e-3]}]"
    assert spaces(load(tmp_path, grid)) == {}


def test_an_entry_says_what_it_tries_and_a_flag_wins(tmp_path: Path) -> None:
    text = "data: demo\nmethods: [{name: lora, tune: {r: [4, 8]}}, {name: full, tune: off}]"
    assert spaces(load(tmp_path, text)) == {"lora": {"r": [4, 8]}}
    assert spaces(load(tmp_path, text, flags={"tuning": False})) == {}
    assert spaces(load(tmp_path, text, settings={"r": 16})) == {}
    assert load(tmp_path, text, settings={"r": 16}).methods[0].settings["r"] == 16


@pytest.mark.parametrize("how", ["vary_split: true", "race: true\nbudget: 1h30m"])
def test_a_resolved_protocol_reads_back_the_same(tmp_path: Path, how: str) -> None:
    text = (
        "data: demo\nmethods: [full, {name: lora, tune: {r: [4, 8]}}, svm-tfidf]\n"
        "train_sizes: [100, 50, all]\ntest_on: [demo, {source: x.csv, text_column: t}]\n"
        f"{how}\ndisagreement: 0.1\n"
    )
    spec = load(tmp_path, text)
    assert spec.train_sizes == (50, 100)
    assert spec.budget == (5400 if spec.race else None)
    assert [d.source for d in spec.test_on] == ["demo", "x.csv"]
    again = load(tmp_path, yaml.safe_dump(study_yaml(spec)))
    assert replace(again, sources=spec.sources) == spec


def test_a_label_that_yaml_reads_as_a_number_is_a_text(tmp_path: Path) -> None:
    spec = load(tmp_path, "data: demo\nmethods: [{name: lora, label: 5}, {name: svm, label: 1.5}]")
    assert [m.label for m in spec.methods] == ["5", "1.5"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tuning: 0", "tuning: expected off, on, or a budget from 1, found 0"),
        ("tuning: {rates: [1]}", "tuning.rates: unknown key"),
        ("tuning: {space: {lr: [1]}}", "tuning.space: unknown setting 'lr'"),
        ("tuning: {space: {learning_rate: {low: 1.0e-5, high: 1.0e-3}}}", "a range needs a budget"),
        ("tuning: {learning_rate: [0]}", "tuning: learning_rate: expected greater than 0, found 0"),
        ("methods: [{name: lora, tune: {rr: [4]}}]", "methods.0 (lora): tune: lora has no setting"),
        ("methods: [{name: lora, tune: {r: 4}}]", "r: expected a list of values, or low and high"),
        ("methods: [{name: lora, tune: {r: {low: 9, high: 3}}}]", "r: expected low and below high"),
        ("methods: [{name: lora, tune: maybe}]", "expected off or settings, found 'maybe'"),
        ("tuning: {seeds: 0}", "tuning.seeds: expected a number from 1"),
        ("train_sizes: [50, many]", "train_sizes"),
        ("train_sizes: 50,x", "train_sizes: expected numbers of rows and all"),
        *(
            (
                f"budget: {given}",
                "budget: expected a duration above 0, such as 90s, 20m or 1h30m, found",
            )
            for given in ("soon", "-5", "0", "0s", ".nan", ".inf", "yes", "-5s", "''", "1e999")
        ),
        ("race: true\nmetric: f1_macro", "race: a race is decided row by row, by accuracy"),
        ("race: true\nmethods: [svm]", "race: expected two or more methods"),
        ("disagreement: 2", "disagreement: expected less than 1"),
        ("test_on: [{sauce: x}]", "test_on"),
        ("1: x", "the key 1, which is no name"),
    ],
)
def test_faults_of_the_protocol(tmp_path: Path, text: str, said: str) -> None:
    found = faults(tmp_path, "data: demo\n" + text)
    assert any(said in line for line in found), found


@pytest.mark.parametrize(
    ("metric", "picks"),
    [("accuracy", "accuracy"), ("f1_macro", "f1_macro"), ("mcc", "mcc"), ("log_loss", "loss")],
)
def test_the_best_epoch_is_picked_by_the_metric(metric: str, picks: str) -> None:
    flags = {"data.source": "demo", "methods": ["svm-tfidf", "lora"], "metric": metric}
    found = {m.name: m.settings for m in resolve.resolve_study(None, flags).methods}
    assert found["lora"]["metric_for_best_model"] == picks
    assert "metric_for_best_model" not in found["svm-tfidf"]
    asked = resolve.resolve_study(None, flags, {"metric_for_best_model": "accuracy"})
    assert asked.methods[1].settings["metric_for_best_model"] == "accuracy"


def test_every_metric_can_pick_the_best_epoch() -> None:
    for metric in METRICS:
        resolve.resolve_study(None, {"data.source": "demo", "methods": ["lora"], "metric": metric})


def test_settings_in_brackets_are_told_where_they_go() -> None:
    flags = {"data.source": "demo", "methods": ["lora[r=4,bias=all]"]}
    with pytest.raises(ConfigError, match=r"'lora\[r=4,bias=all\]' is not a method\. Settings are"):
        resolve.resolve_study(None, flags)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n" + "".join(f"b{i}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n"
                                  for i in range(12)),
        "data: demo\nmethods: &m [*m]\n",
    ],
    ids=["laughs", "holds itself"],
)  # fmt: skip
def test_aliases_that_never_end_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"more than 100,000 values|holds itself"):
        resolve.resolve_study(path, {})
