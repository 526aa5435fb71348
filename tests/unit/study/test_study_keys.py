"""One declaration per study key: flags, keywords, YAML, schema and reference page are equal.

`StudyFile` and its sections declare; each of the five is read as its users meet it, and held
against that: the same keys, types, defaults and words.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import click
import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tunelab import api, cli, evaluation
from tunelab.api import compare, fine_tune, load_data
from tunelab.cli.flags import StudyCommand, take_study_keys
from tunelab.cli.options import trust_option
from tunelab.core.data_keys import DATA_FLAGS, TEXT_FILE_KEYS
from tunelab.core.values import DataSpec
from tunelab.methods import settings
from tunelab.study import file, resolve
from tunelab.study.file import DataSection, StudyFile, StudyKey, TuningSection, study_keys
from tunelab.study.spec import StudySpec, study_yaml

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "config.md"
KEYS = {key.name: key for key in study_keys()}
# What `tunelab train` and `fine_tune` take of a study's keys; the rest is fixed for one trial.
ONE_TRIAL = {
    *("model", "trust_remote_code", "metric", "report_to", "checkpoint_every"),
    *DataSection.model_fields,
} - {"source"}


# --- keys -----------------------------------------------------------------------------------


def test_every_key_is_a_flag_and_a_keyword_but_training() -> None:
    # Under `training` stand settings of methods, which are flags and keywords themselves.
    declared = {*StudyFile.model_fields, *DataSection.model_fields} - {"source"}
    assert set(KEYS) == declared - {"training"}
    assert {key.path for key in KEYS.values()} == {
        "data.source"
        if name == "data"
        else f"data.{name}"
        if name in DataSection.model_fields
        else name
        for name in KEYS
    }


def test_no_setting_of_a_method_is_called_like_a_study_key() -> None:
    # But for one, whose values tell where trials run from how a base is trained.
    assert set(file.setting_fields()) & {*KEYS, "training"} == {"engine"}
    spec = from_flags(["--data", "demo", "--methods", "lora", "--engine", "plain"])
    assert (spec.engine, spec.methods[0].settings["engine"]) == ("process", "plain")


# --- flags ----------------------------------------------------------------------------------


def options(command: click.Command) -> dict[str, click.Option]:
    """The flags of a command by name, without settings of methods."""
    context = click.Context(command)
    found = {
        p.name: p
        for p in command.get_params(context)
        if isinstance(p, click.Option) and p.expose_value
    }
    of_methods = command.settings(context) if isinstance(command, StudyCommand) else set()
    return {str(n): p for n, p in found.items() if n not in of_methods}


def shown(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("name", KEYS)
def test_a_flag_says_what_is_declared(name: str) -> None:
    key, option = KEYS[name], options(cli.app.commands["compare"])[name]
    assert option.opts == ["--" + name.replace("_", "-")]
    assert option.help == key.flag.help.replace("{default}", shown(key.field))
    if option.is_flag or option.multiple:
        return
    limits = {
        k: getattr(m, k)
        for m in key.field.metadata
        for k in ("ge", "gt", "le", "lt")
        if hasattr(m, k)
    }
    if isinstance(option.type, click.Choice):
        kinds = (key.annotation, *typing.get_args(key.annotation))
        literal = next(k for k in kinds if typing.get_origin(k) is typing.Literal)
        assert option.type.choices == typing.get_args(literal)
    elif isinstance(option.type, click.IntRange | click.FloatRange):
        low = limits.get("ge", limits.get("gt", key.flag.least))
        assert (option.type.min, option.type.max) == (low, limits.get("lt"))
        assert (option.type.min_open, option.type.max_open) == ("gt" in limits, "lt" in limits)
    else:
        assert not limits


def test_a_flag_that_is_left_out_says_nothing() -> None:
    given = cli.app.commands["compare"].make_context("compare", []).params
    assert {n: given[n] for n in KEYS} == {n: () if n == "test_on" else None for n in KEYS}


def test_flags_of_compare_train_and_inspect_are_those_declared() -> None:
    own = {"sets", "yes", "dry_run", "quiet", *settings.ALIASES}
    assert set(options(cli.app.commands["compare"])) - own == set(KEYS)
    own |= {"method", "seed", "overwrite", "from_study"}
    assert set(options(cli.app.commands["train"])) - own == ONE_TRIAL | {"output_dir"}
    inspect_data = typing.cast(click.Group, cli.app.commands["inspect"]).commands["data"]
    assert set(options(inspect_data)) - {"model", "max_length", "others", "as_json"} == set(
        DataSection.model_fields
    ) - {"source"}


def commands(group: click.Group = cli.app, path: str = "") -> dict[str, click.Command]:
    """Every command by its words."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        inner = isinstance(command, click.Group)
        found |= commands(command, f"{name} ") if inner else {path + name: command}  # type: ignore[arg-type]
    return found


# What says how data is read, but what changes training rows alone, and what names rows.
TO_SCORE = set(DATA_FLAGS) - {"id_column", "subset", "on_leak", "corrections"}
# Of texts without labels: their ids are shown by `predict` alone.
TEXTS = set(TEXT_FILE_KEYS)
READING = {
    "compare": set(DATA_FLAGS),
    "train": set(DATA_FLAGS),
    "inspect data": set(DATA_FLAGS),
    "evaluate": TO_SCORE,
    "predict": TEXTS,
    "suggest": TEXTS,
    "export": TEXTS - {"id_column"},
    "adapters merge": TEXTS - {"id_column"},
}


def test_every_command_that_reads_a_file_has_the_flags_that_say_how() -> None:
    assert set(DATA_FLAGS) == set(DataSection.model_fields) - {"source"}
    declared = options(cli.app.commands["compare"])
    for words, command in commands().items():
        taken = {n: o for n, o in options(command).items() if n in DATA_FLAGS}
        reads = {"file", "source", "data"} & {p.name for p in command.params}
        assert set(taken) == READING.get(words, set()), words
        assert bool(reads or words == "compare") == (words in READING), words
        for name, option in taken.items():
            said = (option.opts, option.help, option.metavar, option.default, option.is_flag)
            meant = declared[name]
            assert said == (meant.opts, meant.help, meant.metavar, meant.default, meant.is_flag)
            assert vars(option.type) == vars(meant.type), (words, name)


def test_keywords_of_evaluate_are_those_declared() -> None:
    asked = keywords(evaluation.evaluate)
    assert set(asked) - {"part", "model", "trust_remote_code"} == TO_SCORE
    assert {k: asked[k] for k in TO_SCORE} == {k: keywords(load_data)[k] for k in TO_SCORE}


def test_trusting_code_is_said_alike_everywhere() -> None:
    @trust_option
    def verb() -> None: ...

    (option,) = verb.__click_params__  # type: ignore[attr-defined]
    assert option.help == KEYS["trust_remote_code"].flag.help


# --- keywords -------------------------------------------------------------------------------


def atoms(annotation: Any) -> set[Any]:
    """The types that a value may be of, as a caller in Python has them."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in {types.UnionType, typing.Union}:
        return {a for part in parts for a in atoms(part)}
    if origin is typing.Annotated:
        return atoms(parts[0])
    if origin is Literal:
        return set(parts)
    if origin in {list, Sequence}:
        return {("several", a) for a in atoms(parts[0])}
    if origin in {dict, Mapping} or (
        isinstance(annotation, type) and issubclass(annotation, BaseModel)
    ):
        return {Mapping}
    return {annotation}


def keywords(function: Any) -> dict[str, tuple[Any, Any]]:
    """A function's keywords: (types, default)."""
    hints = typing.get_type_hints(function)
    return {
        name: (hints[name], p.default)
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }


def test_keywords_of_compare_are_those_declared() -> None:
    own = {"config_file", "on_event"}
    assert set(keywords(compare)) - own == set(KEYS) - {"data"}
    own = {"seed", "output_dir", "overwrite", "on_event"}
    assert set(keywords(fine_tune)) - own == ONE_TRIAL
    assert set(keywords(load_data)) == set(DataSection.model_fields) - {"source"}


# In Python a path may be a Path, several names may be one string with commas, and a size may be
# a text as it is on the command line.
EASIER = {
    "output_dir": {Path},
    "corrections": {Path},
    "test_on": {Path, ("several", Path), object},  # rows that are in memory
    "methods": {str},
    "train_sizes": {("several", str)},
}


@pytest.mark.parametrize("name", sorted(set(KEYS) - {"data"}))
def test_a_keyword_has_the_types_that_are_declared(name: str) -> None:
    asked, default = keywords(compare)[name]
    assert default is None  # left to the config file, else to the declared default
    declared = atoms(KEYS[name].annotation) - (
        {("several", "all")} if name == "train_sizes" else set()
    )
    assert atoms(asked) - {type(None)} == declared - {type(None)} | EASIER.get(name, set())
    if name in ONE_TRIAL:
        assert keywords(fine_tune)[name] == (asked, None)


@pytest.mark.parametrize("name", sorted(set(DataSection.model_fields) - {"source"}))
def test_data_are_declared_alike_for_load_data_and_in_a_spec(name: str) -> None:
    field = DataSection.model_fields[name]
    asked, default = keywords(load_data)[name]
    assert (atoms(asked), default) == (atoms(field.annotation), field.default)
    spec = next(f for f in fields(DataSpec) if f.name == name)
    assert spec.default == field.default
    assert atoms(typing.get_type_hints(DataSpec)[name]) == atoms(field.annotation)
    assert {f.name for f in fields(DataSpec)} == set(DataSection.model_fields)


# --- values: the same key, said in three ways -----------------------------------------------

# As words of a command line, as a keyword, as YAML.
SAID: dict[str, tuple[list[str], Any, Any]] = {
    "data": (["--data", "demo:stars"], "demo:stars", "demo:stars"),
    "model": (["--model", "some/base"], "some/base", "some/base"),
    "trust_remote_code": (["--trust-remote-code"], True, True),
    "methods": (["--methods", "svm, lora"], "svm, lora", ["svm", "lora"]),
    "seeds": (["--seeds", "3"], 3, 3),
    "metric": (["--metric", "f1_macro"], "f1_macro", "f1_macro"),
    "tuning": (["--tuning", "off"], False, False),
    "vary_split": (["--vary-split"], True, True),
    "folds": (["--folds", "6"], 6, 6),
    "train_sizes": (["--train-sizes", "50,100,all"], [50, 100, "all"], [50, 100, "all"]),
    "test_on": (
        ["--test-on", "a.csv", "--test-on", "b,c.csv"],
        [Path("a.csv"), "b,c.csv"],
        ["a.csv", "b,c.csv"],
    ),
    "race": (["--race"], True, True),
    "budget": (["--budget", "20m"], "20m", 1200),
    "behaviour": (["--behaviour"], True, True),
    "disagreement": (["--disagreement", "0.2"], 0.2, 0.2),
    "text_column": (["--text-column", "said"], "said", "said"),
    "label_column": (["--label-column", "kind"], "kind", "kind"),
    "subset": (["--subset", "100"], 100, 100),
    "split_seed": (["--split-seed", "7"], 7, 7),
    "encoding": (["--encoding", "latin-1"], "latin-1", "latin-1"),
    "on_bad_rows": (["--on-bad-rows", "drop"], "drop", "drop"),
    "id_column": (["--id-column", "key"], "key", "key"),
    "on_leak": (["--on-leak", "fail"], "fail", "fail"),
    "quoting": (["--quoting", "none"], "none", "none"),
    "join_labels": (["--join-labels"], True, True),
    "drop_classes": (["--drop-classes", "a, b"], ["a", "b"], ["a", "b"]),
    "group_column": (["--group-column", "author"], "author", "author"),
    "min_rows_per_class": (["--min-rows-per-class", "5"], 5, 5),
    "task": (["--task", "multilabel"], "multilabel", "multilabel"),
    "label_separator": (["--label-separator", ";"], ";", ";"),
    "label_columns": (["--label-columns", "a, b"], ["a", "b"], ["a", "b"]),
    "corrections": (["--corrections", "right.csv"], Path("right.csv"), "right.csv"),
    "output_dir": (["--output-dir", "out/a"], Path("out/a"), "out/a"),
    "report_to": (["--report-to", "none"], "none", "none"),
    "jobs": (["--jobs", "2"], 2, 2),
    "engine": (["--engine", "ray"], "ray", "ray"),
    "address": (["--address", "local"], "local", "local"),
    "resources": (
        ["--resources", "cpu=2,gpu=0.25"],
        {"cpu": 2, "gpu": 0.25},
        {"cpu": 2, "gpu": 0.25},
    ),
    "export": (["--export", "onnx, int8"], "onnx, int8", ["onnx", "int8"]),
    "stack": (["--stack", "off"], "off", "off"),
    "checkpoint_every": (["--checkpoint-every", "5m"], "5m", 300),
}


class StoppedError(Exception):
    """Carries what was resolved out of `compare`."""

    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec


def from_flags(words: list[str]) -> StudySpec:
    command = cli.app.commands["compare"]
    assert isinstance(command, StudyCommand)
    given = command.make_context("compare", list(words)).params
    own = {"what", "sets", "yes", "dry_run", "quiet"}
    return resolve.resolve_study(
        None, *take_study_keys({k: v for k, v in given.items() if k not in own})
    )


def from_keywords(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]) -> StudySpec:
    def stop(spec: StudySpec) -> None:
        raise StoppedError(spec)

    monkeypatch.setattr(api.study, "worker", stop)
    with pytest.raises(StoppedError) as asked:
        compare(given.pop("data", None), **given)
    return asked.value.spec


def from_yaml(folder: Path, key: StudyKey, value: Any) -> StudySpec:
    section, dot, inner = key.path.partition(".")
    content: dict[str, Any] = {"data": {"source": "demo"}}
    if dot:
        content[section][inner] = value
    else:
        content[section] = value
    path = folder / "demo-minilm-l3.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return resolve.resolve_study(path, {})


def test_every_key_is_tried() -> None:
    assert set(SAID) == set(KEYS)


@pytest.mark.parametrize("name", SAID)
def test_a_flag_a_keyword_and_yaml_mean_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, keyword, plain = SAID[name]
    rest: list[str] = [] if name == "data" else ["--data", "demo"]
    data = {} if name == "data" else {"data": "demo"}
    specs = [
        from_flags([*words, *rest]),
        from_keywords(monkeypatch, {name: keyword, **data}),
        from_yaml(tmp_path, KEYS[name], plain),
    ]
    if name == "trust_remote_code":  # whoever runs a file has not always read it
        assert not specs[2].trust_remote_code
        assert "allows nothing" in specs[2].notes[0]
        specs[2] = replace(specs[2], trust_remote_code=True, notes=specs[0].notes)
    out = specs[0].output_dir
    alike = [
        replace(s, sources={}, output_dir=s.output_dir if name == "output_dir" else out)
        for s in specs
    ]
    assert alike[0] == alike[1] == alike[2]
    default = from_flags(rest) if rest else from_flags(["--data", "demo"])
    unlike = replace(default, sources={}, output_dir=alike[0].output_dir)
    # `none` is what report_to is without it, and `off` what a processor's stack is said to be.
    assert (alike[0] == unlike) == (name in {"report_to", "output_dir"})
    path = KEYS[name].path
    assert specs[0].sources.get(path, "command line") == "command line"
    assert default.sources.get(path, "default") == ("command line" if name == "data" else "default")


# --- the schema and the page ----------------------------------------------------------------


def property_of(schema: dict[str, Any], path: str) -> dict[str, Any]:
    section, _, inner = path.rpartition(".")
    node = schema["$defs"][section] if section else schema
    return dict(node["properties"][inner])


@pytest.mark.parametrize(
    ("model", "section"),
    [(StudyFile, ""), (DataSection, "DataSection"), (TuningSection, "TuningSection")],
)
def test_the_schema_has_the_keys_with_their_words_and_defaults(
    model: type[BaseModel], section: str
) -> None:
    schema = file.study_schema()
    node = schema["$defs"][section] if section else schema
    written = set() if section else set(file.WRITTEN_KEYS)
    assert set(node["properties"]) - written == set(model.model_fields)
    for name, field in model.model_fields.items():
        said = property_of(schema, f"{section}.{name}" if section else name)
        assert said["description"] == field.description
        if field.default_factory is None:
            assert said.get("default", PydanticUndefined) == field.default


def rows_of(heading: str) -> dict[str, list[str]]:
    """The table below a heading of the reference page, by key."""
    page = REFERENCE.read_text(encoding="utf-8")
    part = re.split(r"^#+ ", page.split(f"{heading}\n", 1)[1], flags=re.MULTILINE)[0]
    rows = [
        re.split(r"(?<!\\) \| ", line.strip("| "))
        for line in part.splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


@pytest.mark.parametrize(
    ("model", "heading"),
    [(StudyFile, "## The study"), (DataSection, "### data"), (TuningSection, "### tuning")],
)
def test_the_page_has_the_keys_with_their_words(model: type[BaseModel], heading: str) -> None:
    rows = rows_of(heading)
    assert list(rows) == list(model.model_fields)
    for name, field in model.model_fields.items():
        _, default, words = rows[name]
        assert words == field.description
        value = field.get_default(call_default_factory=True)
        if isinstance(value, str) and not field.is_required():
            assert default == f"`{value}`"
        assert (default == "required") == field.is_required()


def test_a_spec_and_a_resolved_file_have_what_a_file_has() -> None:
    keys = set(StudyFile.model_fields) - {"training"}
    # `together` follows from the data: whether rows that are alike stay in one part.
    assert {f.name for f in fields(StudySpec)} - {"sources", "notes", "together"} == keys
    assert set(study_yaml(from_flags(["--data", "demo"]))) - {"sources"} == keys
