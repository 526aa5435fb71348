"""The study file's schema: each key declared once, with what its flag and its page say of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo

from tunelab.core.data_keys import DATA_FLAGS, Flag
from tunelab.core.errors import ConfigError
from tunelab.core.words import comma_names
from tunelab.methods import METHODS
from tunelab.models.bases import BUNDLED
from tunelab.study.space import LEARNING_RATE_FACTORS

__all__ = [
    "DEFAULT_METHODS",
    "WRITTEN_KEYS",
    "DataSection",
    "StudyFile",
    "StudyKey",
    "TuningSection",
    "keys_from_keywords",
    "refuse_study_keys",
    "study_schema",
    "setting_fields",
    "study_keys",
]


DEFAULT_METHODS = ("svm-tfidf", "svm", "full", "lora")
DEFAULT_SEEDS = 6  # with fewer, nothing is called better (stats.least_seeds)
# Written by us into a resolved study.yaml, and of no effect when it is read again.
WRITTEN_KEYS = ("tunelab", "command", "sources", "trials", "curve", "labels")


class DataSection(BaseModel):
    """Where the labelled texts are. `source` is a file, a folder, a hub id, demo or demo:stars."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="file, folder, hub id[:config][@revision], demo, demo:stars")
    text_column: Annotated[str | None, DATA_FLAGS["text_column"]] = Field(
        None, description="column of the texts; guessed when left out"
    )
    label_column: Annotated[str | None, DATA_FLAGS["label_column"]] = Field(
        None, description="column of the labels; guessed when left out"
    )
    id_column: Annotated[str | None, DATA_FLAGS["id_column"]] = Field(
        None, description="column that names the rows in what is shown; guessed, or none"
    )
    subset: Annotated[int | None, DATA_FLAGS["subset"]] = Field(
        None, ge=1, description="train on so many rows (stratified)"
    )
    split_seed: Annotated[int, DATA_FLAGS["split_seed"]] = Field(
        0, ge=0, description="seed of the split, where parts are split off"
    )
    encoding: Annotated[str, DATA_FLAGS["encoding"]] = Field(
        "utf-8", description="encoding of text files"
    )
    on_bad_rows: Annotated[Literal["fail", "drop"], DATA_FLAGS["on_bad_rows"]] = Field(
        "fail", description="rows without a text or a label, or that are broken: fail or drop"
    )
    on_leak: Annotated[Literal["warn", "drop", "fail"], DATA_FLAGS["on_leak"]] = Field(
        "warn",
        description="training rows that are, or nearly, in validation or test: warn, drop or fail",
    )
    quoting: Annotated[Literal["auto", "double", "none"], DATA_FLAGS["quoting"]] = Field(
        "auto",
        description="quotes in CSV and TSV: double (around fields), none (part of the texts), auto "
        "(double, but refused where a quote swallows rows)",
    )
    join_labels: Annotated[bool, DATA_FLAGS["join_labels"]] = Field(
        False,
        description="join labels that look alike: case, accents written in two ways, invisible "
        "characters, quotes, 01 and 1",
    )
    drop_classes: Annotated[list[str] | None, DATA_FLAGS["drop_classes"]] = Field(
        None, description="classes whose rows are left out"
    )
    min_rows_per_class: Annotated[int | None, DATA_FLAGS["min_rows_per_class"]] = Field(
        None, ge=1, description="leave out classes with fewer training rows than this"
    )
    task: Annotated[Literal["classes", "multilabel", "ordinal"] | None, DATA_FLAGS["task"]] = Field(
        None,
        description="one class a text, several labels (guessed where labels look so, and said), or "
        "one class of a scale (ordinal)",
    )
    label_separator: Annotated[str | None, DATA_FLAGS["label_separator"]] = Field(
        None, description="what stands between several labels of a text; guessed when left out"
    )
    label_columns: Annotated[list[str] | None, DATA_FLAGS["label_columns"]] = Field(
        None, description="columns that hold a label each, as 0 and 1; guessed when left out"
    )
    corrections: Annotated[str | None, DATA_FLAGS["corrections"]] = Field(
        None, description="labels put right by a reader: the file that `report --review` gives"
    )
    group_column: Annotated[str | None, DATA_FLAGS["group_column"]] = Field(
        None,
        description="column of what several rows have in common, such as an author, a document or "
        "a thread: such rows are never divided between parts, and intervals and tests resample it",
    )


class TuningSection(BaseModel):
    """How settings are tuned, equally for every method."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: list[float] | None = Field(
        None, min_length=1, description="the learning rates that every method tries"
    )
    around: list[float] = Field(
        list(LEARNING_RATE_FACTORS),
        min_length=1,
        description="multiples of each method's own learning rate",
    )
    space: dict[str, object] | None = Field(
        None, description="setting: [values], or setting: {low, high, log}"
    )
    budget: int | None = Field(
        None, ge=1, description="settings that Optuna proposes for each method; else the whole grid"
    )
    seeds: int | list[int] = Field(1, description="seeds of each try: how many, or which")
    prune: bool = Field(True, description="end a try that falls behind (with a budget)")


# The one declaration of a study's keys. One with a `Flag` is an option of the command line and a
# keyword of `tunelab.compare` too (`study_keys`); so are those of `data`. `training` is neither:
# there every setting of a method is one of its own. The schema and docs/reference are made of this.
class StudyFile(BaseModel):
    """A study's config file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Annotated[
        str | DataSection, Flag("File, folder, hub id, demo or demo:stars.", "DATA")
    ] = Field(description="a source, or a section with more")
    model: Annotated[str, Flag("Hub id or local folder (bundled MiniLM).", "MODEL")] = Field(
        BUNDLED, description="base model: hub id, local folder, or minilm"
    )
    trust_remote_code: Annotated[
        bool, Flag("Run the Python code that the model brings.", reads="switch")
    ] = Field(
        False,
        description="run the base model's own Python code: only the flag allows it, no file",
    )
    methods: Annotated[
        list[str | dict[str, object]],
        Flag("Methods to compare ({default}).", "A,B,..", reads="names"),
    ] = Field(
        list(DEFAULT_METHODS),
        min_length=1,
        description="method names, or entries with a name and settings; a list is a grid",
    )
    training: dict[str, object] = Field(
        default_factory=dict, description="settings for every method that knows them"
    )
    seeds: Annotated[int | list[int], Flag("Seeds of each method ({default}).", "N", least=1)] = (
        Field(DEFAULT_SEEDS, description="how many seeds, or which")
    )
    metric: Annotated[str, Flag("Metric for selection and verdicts ({default}).", "NAME")] = Field(
        "accuracy", description="main metric: selection and verdicts"
    )
    output_dir: Annotated[str | None, Flag("The study's folder.", "PATH", "run")] = Field(
        None, description="the study's folder"
    )
    report_to: Annotated[
        list[str] | str,
        Flag(
            "Trackers: trackio, wandb, mlflow, tensorboard (none).", "A,B,..", "run", reads="names"
        ),
    ] = Field(
        default_factory=list, description="trackers: trackio, wandb, mlflow, tensorboard, or none"
    )
    tuning: Annotated[
        bool | int | TuningSection,
        Flag(
            "Tune each method's learning rate on validation: a grid of three (on), not at all "
            "(off), or N settings proposed by Optuna.",
            "on|off|N",
            "protocol",
            reads="yaml",
        ),
    ] = Field(
        True,
        description="try settings on validation first, equally many for each method: on (three "
        "learning rates around each method's own), off, a budget, or a section with more",
    )
    vary_split: Annotated[
        bool,
        Flag(
            "Divide train and validation anew by each seed (test stays).",
            group="protocol",
            reads="switch",
            off="fixed-split",
        ),
    ] = Field(False, description="divide train and validation anew by each seed; test stays")
    folds: Annotated[
        Annotated[int, Field(ge=2)] | Literal["auto", "off"],
        Flag(
            "Cross-fit: test all rows, a part of them with each seed (auto: from 6 seeds on, where "
            "the data has no test part).",
            "N|auto|off",
            "protocol",
            reads="yaml",
        ),
    ] = Field(
        "auto",
        description="cross-fitting: all rows are divided into so many parts, and each seed tests "
        "another; auto: as many as seeds, from 6 seeds on and where the data has no test part of "
        "its own; off: one test part",
    )
    train_sizes: Annotated[
        str | list[int | Literal["all"]] | None,
        Flag("Learning curves: train on so many rows too.", "50,100,all", "protocol"),
    ] = Field(None, description="learning curves: train on so many rows too, as [50, 100, all]")
    test_on: Annotated[
        str | list[str | DataSection],
        Flag(
            "Score every trained classifier on other data too; may be repeated.",
            "DATA",
            "protocol",
            reads="repeated",
        ),
    ] = Field(
        default_factory=list, description="other data on which every trained classifier is scored"
    )
    race: Annotated[
        bool,
        Flag("Drop a method as soon as it is surely behind.", group="protocol", reads="switch"),
    ] = Field(False, description="drop a method as soon as it is surely behind")
    budget: Annotated[
        float | str | None,
        Flag("Race for so long at most: 90s, 20m, 1h30m.", "20m", "protocol"),
    ] = Field(None, description="race for so long: seconds, or as 90s, 20m, 1h30m")
    behaviour: Annotated[
        bool | str,
        Flag(
            "Behaviour tests of English sentiment (--set behaviour=FILE for others).",
            group="protocol",
            reads="switch",
        ),
    ] = Field(
        False, description="behaviour tests: true (English sentiment), or a suite's YAML file"
    )
    disagreement: Annotated[
        float | None,
        Flag(
            "Expected share of rows on which one of two methods alone is right, for the smallest "
            "detectable difference (0.08).",
            "SHARE",
            "protocol",
        ),
    ] = Field(
        None,
        gt=0,
        lt=1,
        description="expected share of test rows on which one of two methods alone is right, for "
        "the smallest detectable difference (0.08, or from trials or studies that are done)",
    )
    export: Annotated[
        list[str] | str,
        Flag(
            "At the end, the best classifier as merged, onnx, int8, openvino or openvino-int8 too: "
            "its size, speed, and whether predictions hold.",
            "A,B,..",
            "run",
            reads="names",
        ),
    ] = Field(
        default_factory=list,
        description="forms that the best classifier is exported to at the end, with size, speed "
        "and whether predictions hold: merged, onnx, int8, openvino, openvino-int8",
    )
    jobs: Annotated[
        Annotated[int, Field(ge=1)] | Literal["auto"],
        Flag("Trials at a time (auto: one a core; 1: each alone).", "N|auto", "run", reads="yaml"),
    ] = Field("auto", description="trials at a time; auto: one a core, as far as memory goes")
    stack: Annotated[
        Annotated[int, Field(ge=2)] | Literal["auto", "off"],
        Flag("LoRA trials in one pass (auto: where a card is).", "N|auto|off", "run", reads="yaml"),
    ] = Field(
        "auto",
        description="LoRA trials of one base that are trained in one pass, each as by itself: so "
        "many, off, or auto: on a card, as many as fill it",
    )

    checkpoint_every: Annotated[
        float | str | None,
        Flag("Keep trainings in progress: every 30s, 5m (off).", "5m", "run"),
    ] = Field(
        None,
        description="keep each training in progress on disk, every so many seconds, or 30s, 5m, 1h "
        "(and when told to end: SIGTERM, Ctrl-C), so that it goes on from there, bit for bit",
    )
    engine: Annotated[
        str,
        Flag(
            "Where trials run: process (each in its own), inline (this one), ray (a cluster); "
            "plain or auto: how a base is trained, a setting.",
            "NAME",
            "run",
        ),
    ] = Field(
        "process",
        description="where trials run: process (each in its own), inline (in this one), ray (on a "
        "cluster); how a base is trained is `training.engine`",
    )
    address: Annotated[
        str,
        Flag(
            "The Ray cluster: ray://HOST:10001, auto (the one that runs here), local.",
            "WHERE",
            "run",
        ),
    ] = Field(
        "auto",
        description="the Ray cluster: ray://HOST:10001, HOST:6379, auto (the one that this machine "
        "belongs to) or local (one that is started on it for the study)",
    )
    resources: Annotated[
        str | dict[str, float],
        Flag("What a trial takes of the cluster (cpu=1).", "cpu=2,gpu=0.25", "run"),
    ] = Field(
        "cpu=1",
        description="what a trial takes of the cluster: cpu (its threads too), gpu, memory in "
        "bytes, or others that its nodes offer, as cpu=2,gpu=0.25",
    )

    @field_validator("budget", "checkpoint_every", mode="before")
    @classmethod
    def _no_switch(cls, value: Any) -> Any:
        return str(value).lower() if isinstance(value, bool) else value  # else yes is a second

    @field_validator("stack", "folds", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads off as false


@dataclass(frozen=True, slots=True)
class StudyKey:
    """A study key that is a flag and a keyword too: `name` there, `path` in a study file."""

    name: str
    path: str
    field: FieldInfo
    flag: Flag

    @property
    def annotation(self) -> Any:
        """The type of its value, as declared."""
        return self.field.annotation

    @property
    def default(self) -> Any:
        """The value where the key is left out; PydanticUndefined where it has to be given."""
        return self.field.get_default(call_default_factory=True)


def study_keys() -> tuple[StudyKey, ...]:
    """Every key that is a flag and a keyword, in the order of --help: by group, then as declared.

    Those of `data` are keys of their own; what `data` itself takes there is the source.
    """
    keys = []
    for section, prefix in ((StudyFile, ""), (DataSection, "data.")):
        for name, info in section.model_fields.items():
            path = "data.source" if name == "data" else prefix + name
            flags = [m for m in info.metadata if isinstance(m, Flag)]
            keys += [StudyKey(name, path, info, flag) for flag in flags]
    groups = ("study", "protocol", "data", "run")
    return tuple(sorted(keys, key=lambda key: groups.index(key.flag.group)))


def keys_from_keywords(given: Mapping[str, object]) -> dict[str, object]:
    """Keywords of Python's door -> study keys by their path, with values as a study file has them.

    What is no study key is left out; a key that is not given is None.
    """
    return {key.path: _as_in_a_file(key, given.get(key.name)) for key in study_keys()}


def refuse_study_keys(settings: Mapping[str, object], door: str) -> None:
    """Refuse study keys that a door has no keyword for, with the way that it has instead.

    Raises ConfigError; what is no study key at all is a setting, and is checked as one.
    """
    known = {key.name for key in study_keys()} | {"source"}
    instead = {
        "data": f"the data are the first argument: {door}('reviews.csv')",
        "training": "each setting is a keyword of its own: learning_rate=3e-4",
        "seeds": "one seed is trained: give seed=0, or use tunelab.compare",
        "methods": "one method is trained: give method='lora', or use tunelab.compare",
    }
    for name in settings:
        if name in instead:
            raise ConfigError(f"{name}: {door} has no such keyword; {instead[name]}.")
        if name in known:
            one = f"{door} trains one method with one seed, and has no such keyword"
            raise ConfigError(f"{name}: {one}. Use tunelab.compare, or leave it out.")


def _as_in_a_file(key: StudyKey, value: object) -> object:
    """Paths as text, and one of several as a list.

    A text may hold several with commas, as on the command line; not of data, whose names may.
    """
    several = any(get_origin(t) is list for t in (key.annotation, *get_args(key.annotation)))
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str | Mapping) and several:
        if isinstance(value, str) and key.flag.reads != "repeated":
            return comma_names(value)
        return [value]
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [str(v) if isinstance(v, Path) else v for v in value]
    return value


def setting_fields() -> dict[str, tuple[list[str], str]]:
    """Every setting of every method: its name -> (methods that have it, description)."""
    out: dict[str, tuple[list[str], str]] = {}
    for method in METHODS.values():
        for name, info in method.settings.model_fields.items():
            out.setdefault(name, ([], info.description or ""))[0].append(method.name)
    return out


def study_schema() -> dict[str, object]:
    """JSON schema of a study file, with every method's settings, for editors."""
    out = StudyFile.model_json_schema()
    out["title"] = "tunelab study"
    defs = out.setdefault("$defs", {})
    entries = []
    for name, method in METHODS.items():
        entry = method.settings.model_json_schema()
        properties = {
            key: {
                "anyOf": [value, {"type": "array", "description": "a grid"}],
                **_words_and_default(value),
            }
            for key, value in entry.get("properties", {}).items()
        }
        head = {
            "name": {"const": name, "description": method.about},
            "label": {"type": "string"},
            "tune": {"description": "off, or setting: [values] or {low, high, log}"},
        }
        defs[name] = {
            "type": "object",
            "properties": {**head, **properties},
            "required": ["name"],
            "additionalProperties": False,
        }
        entries.append({"$ref": f"#/$defs/{name}"})
    names = {"type": "string", "enum": list(METHODS)}
    out["properties"]["methods"]["items"] = {"anyOf": [names, *entries]}
    for key in WRITTEN_KEYS:
        out["properties"][key] = {"description": "written by tunelab; has no effect"}
    return out


def _words_and_default(value: Mapping[str, object]) -> dict[str, object]:
    return {k: value[k] for k in ("description", "default") if k in value}
