"""YAML + flags -> StudySpec: strict, all faults in one message, every value with its origin.

Order, from weak to strong: a method's own default, the file's `training`, the method's entry in the
file, flags, `--set`.
May import: settings, methods, metrics, tuning, types, errors. May not import: torch.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from tunelab.bases import BUNDLED
from tunelab.behaviour import BUNDLED_SUITE
from tunelab.errors import ConfigError, suggest
from tunelab.methods import METHODS
from tunelab.metrics import METRICS
from tunelab.settings import ALIASES, Settings
from tunelab.trackers import faults as tracker_faults
from tunelab.tuning import (
    LEARNING_RATE_FACTORS,
    TUNING_SEED,
    Range,
    Tuning,
    parse_space,
    space_to_json,
)
from tunelab.types import DataSpec, MethodSpec

__all__ = [
    "DEFAULT_METHODS",
    "Flag",
    "StudyFile",
    "StudyKey",
    "StudySpec",
    "keys_from_keywords",
    "require_metric",
    "resolve_study",
    "scalar",
    "schema",
    "setting_fields",
    "study_keys",
    "study_yaml",
]

DEFAULT_METHODS = ("svm-tfidf", "svm", "full", "lora")
DEFAULT_SEEDS = 6  # with fewer, no two-sided sign-flip p can be 0.05 or less (stats.least_seeds)
MOST_TRIALS = 1000
# Written by us into a resolved study.yaml, and of no effect when it is read again.
WRITTEN_KEYS = ("tunelab", "command", "sources", "trials", "curve")


@dataclass(frozen=True, slots=True)
class Flag:
    """How a study key is said on the command line, where its name and type do not say it.

    `help`: what --help says; {default} stands for the key's default. `reads`: "value", as the
    key's type says; "switch", on without a value (and off by `off`, where there is one); "names",
    several with commas; "repeated", one each time; "yaml", as a study file reads it. `least`: the
    smallest number. `group`: flags of a group stand together in --help.
    """

    help: str
    metavar: str | None = None
    group: Literal["study", "protocol", "data", "run"] = "study"
    reads: Literal["value", "switch", "names", "repeated", "yaml"] = "value"
    off: str | None = None
    least: int | None = None


class DataSection(BaseModel):
    """Where the labelled texts are. `source` is a file, a folder, a hub id, demo or demo:stars."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="file, folder, hub id[:config][@revision], demo, demo:stars")
    text_column: Annotated[
        str | None, Flag("Column of the texts (else guessed).", "NAME", "data")
    ] = Field(None, description="column of the texts; guessed when left out")
    label_column: Annotated[
        str | None, Flag("Column of the labels (else guessed).", "NAME", "data")
    ] = Field(None, description="column of the labels; guessed when left out")
    subset: Annotated[int | None, Flag("Train on N rows, stratified.", "N", "data")] = Field(
        None, ge=1, description="train on so many rows (stratified)"
    )
    split_seed: Annotated[
        int, Flag("Seed of the split, where parts are split off.", "N", "data")
    ] = Field(0, ge=0, description="seed of the split, where parts are split off")
    encoding: Annotated[str, Flag("Encoding of text files ({default}).", "NAME", "data")] = Field(
        "utf-8", description="encoding of text files"
    )
    on_bad_rows: Annotated[
        Literal["fail", "drop"],
        Flag("Null or blank texts and null labels ({default}).", group="data"),
    ] = Field("fail", description="null or blank texts: fail or drop")
    on_leak: Annotated[
        Literal["warn", "drop", "fail"],
        Flag("Training rows that are, or nearly, in validation or test ({default}).", group="data"),
    ] = Field(
        "warn",
        description="training rows that are, or nearly, in validation or test: warn, drop or fail",
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
    space: dict[str, Any] | None = Field(
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
    ] = Field(False, description="run the Python code that the base model brings")
    methods: Annotated[
        list[str | dict[str, Any]],
        Flag("Methods to compare ({default}).", "A,B,..", reads="names"),
    ] = Field(
        list(DEFAULT_METHODS),
        min_length=1,
        description="method names, or entries with a name and settings; a list is a grid",
    )
    training: dict[str, Any] = Field(
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
        "the smallest detectable difference (0.08, or from trials that are done)",
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

    @field_validator("stack", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads off as false


@dataclass(frozen=True, slots=True)
class StudySpec:
    """A resolved study: nothing is left to default. `sources` says where each value came from.

    `train_sizes` are numbers of training rows below all, in rising order. `budget`: seconds that a
    race may take; None: as long as it needs. `jobs`: trials at a time; None: as many as there are
    cores and memory for. `stack`: trials in one pass; None: as many as fill a card, 1: each alone.
    """

    data: DataSpec
    model: str
    trust_remote_code: bool
    methods: tuple[MethodSpec, ...]
    seeds: tuple[int, ...]
    metric: str
    output_dir: Path
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    report_to: tuple[str, ...] = ()
    tuning: Tuning = field(default_factory=Tuning)
    vary_split: bool = False
    train_sizes: tuple[int, ...] = ()
    test_on: tuple[DataSpec, ...] = ()
    race: bool = False
    budget: float | None = None
    disagreement: float | None = None
    jobs: int | None = None
    stack: int | None = None
    behaviour: str | None = None

    @property
    def needs_base(self) -> bool:
        """Whether any method reads the texts through a base model."""
        return any(METHODS[m.name].needs_base for m in self.methods)


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


def _as_in_a_file(key: StudyKey, value: object) -> object:
    """Paths as text, and one of several as a list.

    A text may hold several with commas, as on the command line; not of data, whose names may.
    """
    several = any(get_origin(t) is list for t in (key.annotation, *get_args(key.annotation)))
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str | Mapping) and several:
        if isinstance(value, str) and key.flag.reads != "repeated":
            return [name.strip() for name in value.split(",") if name.strip()]
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


def schema() -> dict[str, Any]:
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


def _words_and_default(value: Mapping[str, Any]) -> dict[str, Any]:
    return {k: value[k] for k in ("description", "default") if k in value}


# --- resolving ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Faults:
    """Gathers what is wrong, to say all of it at once; and notes on what was understood."""

    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *faults: str) -> None:
        """Keep faults, each a line."""
        self.lines.extend(faults)

    def note(self, *notes: str) -> None:
        """Keep what is worth saying, and no fault."""
        self.notes.extend(notes)

    def refuse(self) -> None:
        """Raise ConfigError naming every fault, where there is one."""
        if self.lines:
            raise ConfigError("\n".join(dict.fromkeys(self.lines)))


def resolve_study(
    path: Path | None,
    flags: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
) -> StudySpec:
    """Resolve a study from a file (or none), flags, setting flags and `--set key=value` strings.

    `flags` are top-level keys (data keys as `data.subset`), `settings` are settings of methods.
    Raises ConfigError naming every fault, a line each.
    """
    faults = Faults()
    raw, origin = _lay_over(path, flags, sets, faults)
    study, wrong = _parse_keys(raw, path, faults)
    entries = resolve_entries(
        study, raw["methods"], wrong, origin=origin, settings=settings or {}, faults=faults
    )
    faults.add(*_metric_faults(study.metric))
    seeds = _seed_numbers(study.seeds, faults)
    trackers = tuple(t for t in dict.fromkeys(as_list(study.report_to)) if t != "none")
    faults.add(*tracker_faults(trackers))
    tuning, spaces = tuning_spaces(study.tuning, entries, origin.get("tuning"), faults)
    train_sizes = _train_sizes(study.train_sizes, faults)
    race = study.race or study.budget is not None
    budget = _race_budget(study, race, len(entries), faults)
    faults.refuse()

    methods = label_methods(entries)
    data = study.data
    assert isinstance(data, DataSection)  # noqa: S101  `_lay_over` made one
    output = study.output_dir or f"runs/{_folder_name(path, data.source, study.model)}"
    spaces_by_label = {m.label: s for m, s in zip(methods, spaces, strict=True) if s}
    return StudySpec(
        data=DataSpec(**data.model_dump()),
        model=study.model,
        trust_remote_code=study.trust_remote_code,
        methods=methods,
        seeds=seeds,
        metric=study.metric,
        output_dir=Path(output),
        sources=_sources_of_values(origin, entries),
        notes=tuple(dict.fromkeys(faults.notes)),
        report_to=trackers,
        tuning=Tuning(spaces_by_label, tuning.budget, tuning_seeds(tuning.seeds), tuning.prune),
        vary_split=study.vary_split,
        train_sizes=train_sizes,
        test_on=tuple(_data_spec_of(d) for d in as_list(study.test_on)),
        race=race,
        budget=budget,
        disagreement=study.disagreement,
        jobs=None if study.jobs == "auto" else study.jobs,
        stack=study.stack if isinstance(study.stack, int) else _STACK[study.stack],
        behaviour=BUNDLED_SUITE if study.behaviour is True else study.behaviour or None,
    )


_STACK = {"auto": None, "off": 1}

# Keys of a study file whose origin is kept as they stand.
_KEYS_OF_ONE_VALUE = tuple(
    k for k in StudyFile.model_fields if k not in {"data", "methods", "training"}
)


def _lay_over(
    path: Path | None, flags: Mapping[str, Any], sets: Sequence[str], faults: Faults
) -> tuple[dict[str, Any], dict[str, str]]:
    """The file with flags and --set laid over it, and where each of its dotted keys came from."""
    raw = read_study_file(path) if path else {}
    origin = {key: str(path) for key in dotted_keys(raw)} if path else {}
    if isinstance(raw.get("data"), str):
        raw["data"] = {"source": raw["data"]}
    for key, value in flags.items():
        if value is not None:
            set_dotted(raw, key, value, faults)
            origin[key] = "command line"
    raw["methods"] = [as_entry(m) for m in as_list(raw.get("methods", DEFAULT_METHODS))]
    raw.setdefault("data", {})
    for text in sets:
        key, sep, value = text.partition("=")
        if not sep:
            faults.add(f"--set {text}: expected key=value, such as methods.0.r=16.")
            continue
        set_dotted(raw, key, scalar(value), faults)
        origin[key] = "--set"
    return raw, origin


def _parse_keys(
    raw: dict[str, Any], path: Path | None, faults: Faults
) -> tuple[StudyFile, frozenset[str]]:
    """The file's own keys, and those that are left to their default because they are at fault."""
    data = raw["data"]
    if not isinstance(data, dict):
        where = f"{path}: " if path else ""
        faults.add(f"{where}data: expected a source or a section with `source`.")
    elif not data.get("source"):
        faults.add(
            "No data given: expected a file, a folder, a hub id or demo. "
            "For example: tunelab compare reviews.csv"
        )
    if not isinstance(data, dict) or not data.get("source"):
        data = {**(data if isinstance(data, dict) else {}), "source": "?"}
    given = {k: v for k, v in (raw | {"data": data}).items() if k not in WRITTEN_KEYS}
    try:
        return StudyFile(**given), frozenset()
    except ValidationError as e:
        faults.add(*pydantic_faults(e, "", StudyFile))
        wrong = frozenset(str(fault["loc"][0]) for fault in e.errors())
    sound = {k: v for k, v in given.items() if k not in wrong}
    return StudyFile(**{"data": {"source": "?"}, **sound}), wrong


def resolve_entries(
    study: StudyFile,
    asked: Sequence[Any],
    wrong: frozenset[str],
    *,
    origin: Mapping[str, str],
    settings: Mapping[str, Any],
    faults: Faults,
) -> list[Entry]:
    """Every method with its settings, a grid's points each as one. `asked`: as they are written."""
    flags = _without_aliases(settings, "command line", faults)
    shared = _without_aliases(study.training, "training", faults)
    # Methods that are there are checked even where another is no method at all.
    readable = asked if "methods" in wrong else study.methods
    given = {i: entry for i, entry in enumerate(readable) if isinstance(entry, dict)}
    out = [
        resolved
        for i, entry in given.items()
        for resolved in _resolve_entry(
            i, entry, shared=shared, flags=flags, origin=origin, faults=faults
        )
    ]
    # What a method has that could not be read is not known; then only unknown names are faults.
    names = None if "methods" in wrong else [str(e.get("name")) for e in given.values()]
    faults.add(*_settings_of_no_method(flags, names, "Flag --"))
    faults.add(*_settings_of_no_method(shared, names, "training."))
    return out


def _sources_of_values(origin: Mapping[str, str], entries: Sequence[Entry]) -> dict[str, str]:
    """Where each value of a spec came from, by its dotted key."""
    whole = origin.get("data", "default")
    return {
        **{f"data.{k}": origin.get(f"data.{k}", whole) for k in DataSection.model_fields},
        **{k: origin.get(k, "default") for k in _KEYS_OF_ONE_VALUE},
        **{f"methods.{i}.{k}": v for i, e in enumerate(entries) for k, v in e.origin.items()},
    }


# --- reading --------------------------------------------------------------------------------


def read_study_file(path: Path) -> dict[str, Any]:
    """The keys of a YAML file. Raises ConfigError where it is none, or a key stands twice."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_KeysOnce)  # noqa: S506  a safe loader
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = suggest(path.name, near, what="Files there") if near else ""
        raise ConfigError(f"Config file {path}: there is no such file.{hint}") from None
    except (UnicodeDecodeError, IsADirectoryError) as e:
        raise ConfigError(f"Config file {path}: not readable as text ({e}).") from None
    except yaml.YAMLError as e:
        raise ConfigError(f"Config file {path}: not valid YAML ({_yaml_fault(e)}).") from None
    if not isinstance(value, dict):
        raise ConfigError(
            f"Config file {path}: expected keys such as data, model, methods; found "
            f"{'nothing' if value is None else type(value).__name__}."
        )
    return value


class _KeysOnce(yaml.SafeLoader):
    """YAML without a key that stands twice, of which the last would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key in (k for k, _ in node.value if isinstance(k, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                said = f"{key.value} stands in line {lines[key.value]} and in line {line}: keep one"
                raise yaml.YAMLError(said)
            lines[key.value] = line
        return super().construct_mapping(node, deep)


def _yaml_fault(error: yaml.YAMLError) -> str:
    """What is wrong and where, in one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem is None:
        return " ".join(str(error).split())
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    begins = f" that begins in line {error.context_mark.line + 1}" if error.context_mark else ""
    during = f", {error.context}{begins}" if error.context else ""
    return f"{where}{error.problem}{during}"


def scalar(text: str) -> Any:
    """A flag's or --set's value as YAML reads it, with 1e-4 as the number that it is."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if isinstance(value, list):
        return [scalar(v) if isinstance(v, str) else v for v in value]
    return value


def dotted_keys(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every value of a tree by its dotted key, such as methods.0.r."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    out: dict[str, Any] = {}
    for key, inner in items:
        name = f"{prefix}{key}"
        out[name] = inner
        out |= dotted_keys(inner, name + ".")
    return out


def set_dotted(tree: dict[str, Any], key: str, value: Any, faults: Faults) -> None:
    """Set a dotted key such as methods.0.r; a fault where the path does not exist."""
    *path, last = key.split(".")
    node: Any = tree
    for i, part in enumerate(path):
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                faults.add(
                    f"{key}: there is no {'.'.join(path[: i + 1])}; "
                    f"numbers from 0 to {len(node) - 1} exist."
                )
                return
            if isinstance(node[int(part)], str):
                node[int(part)] = as_entry(node[int(part)])
            node = node[int(part)]
        else:
            node = node.setdefault(part, {})
        if not isinstance(node, dict | list):
            faults.add(f"{key}: {'.'.join(path[: i + 1])} is {node!r}, which has no parts.")
            return
    if isinstance(node, list):
        if not last.isdigit() or int(last) >= len(node):
            faults.add(f"{key}: numbers from 0 to {len(node) - 1} exist.")
            return
        node[int(last)] = as_entry(value)
    else:
        node[last] = value


def as_list(value: Any) -> list[Any]:
    """One of several as a list of it."""
    return list(value) if isinstance(value, list | tuple) else [value]


def as_entry(value: Any) -> Any:
    """An entry of `methods` that is a name alone, as a section; another as it is."""
    return {"name": value} if isinstance(value, str) else value


# --- methods --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A method of a study: its settings, and where each came from. `tune`: as its entry says."""

    name: str
    label: str | None
    settings: dict[str, Any]
    origin: dict[str, str]
    tune: Any = None


def _without_aliases(values: Mapping[str, Any], where: str, faults: Faults) -> dict[str, Any]:
    """Translate names from other tools; a known name wins over its alias."""
    out: dict[str, Any] = {}
    known = setting_fields()
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known and name in ALIASES:
            faults.note(f"{where}: {name} is called {ALIASES[name]} here; taken as that.")
            name = ALIASES[name]
        out[name] = value
    return out


def _resolve_entry(
    i: int,
    entry: Mapping[str, Any],
    *,
    shared: Mapping[str, Any],
    flags: Mapping[str, Any],
    origin: Mapping[str, str],
    faults: Faults,
) -> list[Entry]:
    """One entry of `methods` -> its settings, one for each point of its grid; none at fault."""
    where = f"methods.{i}"
    name = entry.get("name")
    if name not in METHODS:
        hint = suggest(str(name), METHODS, what="Methods")
        what = "has no name" if name is None else f"{name!r} is not a method"
        faults.add(f"{where}: {what}.{hint}")
        return []
    model = METHODS[name].settings
    own = {k: v for k, v in entry.items() if k not in {"name", "label", "tune"}}
    own = _without_aliases(own, where, faults)
    known = model.model_fields
    unknown = [k for k in own if k not in known]
    faults.add(
        *(
            f"{where} ({name}): unknown setting {k!r}.{suggest(k, known, what='Settings')}"
            for k in unknown
        )
    )
    values: dict[str, Any] = {}
    came: dict[str, str] = {}
    for layer, said in ((shared, "training"), (own, where), (flags, "command line")):
        for key, value in layer.items():
            if key in known:
                values[key] = value
                came[key] = origin.get(f"{where}.{key}", said) if layer is own else said
    if unknown:
        return []
    points, wrong_lines = _grid_points(model, values)
    if wrong_lines:
        faults.add(*(f"{where} ({name}): {fault}" for fault in wrong_lines))
        return []
    out = []
    for point in points:
        settings = model(**point).model_dump(mode="json")
        whence = {k: came.get(k, f"default of {name}") for k in settings}
        out.append(Entry(name, entry.get("label"), settings, whence, entry.get("tune")))
    return out


def _grid_points(
    model: type[Settings], values: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Expand lists where the setting takes one value: r: [4, 8] gives two points."""
    faults: list[str] = []
    choices: dict[str, list[Any]] = {}
    for key, value in values.items():
        if not setting_faults(model, {key: value}) or not isinstance(value, list) or not value:
            choices[key] = [value]
        else:
            choices[key] = value
    points = [dict(zip(choices, p, strict=True)) for p in itertools.product(*choices.values())]
    for point in points:
        faults += setting_faults(model, point)
    return points, list(dict.fromkeys(faults))


def setting_faults(model: type[Settings], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with a method's settings, a line each."""
    try:
        model(**values)
    except ValidationError as e:
        return pydantic_faults(e, "", model)
    return []


def pydantic_faults(error: ValidationError, prefix: str, model: type[BaseModel]) -> list[str]:
    """A line for each fault: the key, what was expected, what was found."""
    out: dict[str, str] = {}
    wanted: dict[str, list[str]] = {}
    for fault in error.errors():
        parts = [str(p) for p in fault["loc"] if not _UNION_BRANCH.match(str(p))]
        key = prefix + ".".join(parts)
        if fault["type"] == "extra_forbidden":
            section = _SECTION_OF_KEY.get(key.partition(".")[0], model) if "." in key else model
            fields = section.model_fields
            known = suggest(parts[-1], fields, what="Known")
            out[key] = f"{key}: unknown key.{known}"
        elif fault["type"] == "missing":
            out[key] = f"{key}: missing. It has to be given."
        else:
            wanted.setdefault(key, []).append(_expected_in_words(fault["msg"]))
            said = " or ".join(dict.fromkeys(wanted[key]))
            out[key] = f"{key}: expected {said}, found {fault['input']!r}."
    # Of a value that may be of several types, the fault that lies deepest is the one that was made.
    return [line for key, line in out.items() if not any(k.startswith(f"{key}.") for k in out)]


# The parts of a fault's place that name a branch of a union, and no key.
_UNION_BRANCH = re.compile(
    r"(str|int|float|bool|DataSection|TuningSection)$|(function-|tuple|list|dict|literal)"
)
_SECTION_OF_KEY: dict[str, type[BaseModel]] = {
    "data": DataSection,
    "test_on": DataSection,
    "tuning": TuningSection,
}


_EXPECTED_IN_WORDS = {
    "a valid boolean": "true or false",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a text",
    "a valid list": "a list",
    "a valid dictionary": "a section",
}


def _expected_in_words(message: str) -> str:
    """What pydantic expected, as we would say it."""
    for prefix in ("Input should be ", "Value error, ", "List should have "):
        message = message.removeprefix(prefix)
    message = message.split(", unable to ")[0].split(" after validation")[0]
    message = message.removesuffix(" or instance of TuningSection")
    return _EXPECTED_IN_WORDS.get(message, message)


def _settings_of_no_method(
    values: Mapping[str, Any], methods: Sequence[str] | None, what: str
) -> list[str]:
    """Settings that no method of this study has: a knob that is read by nothing is refused.

    Where a method is not known (or `methods` is None), it might have them.
    """
    fields = setting_fields()
    sure = methods is not None and all(m in METHODS for m in methods)
    used = {k for k, (has, _) in fields.items() if not sure or set(has) & set(methods or ())}
    out = []
    for key in values:
        if key in used:
            continue
        shown = key.replace("_", "-") if what.startswith("Flag") else key
        if key in fields:
            has = ", ".join(fields[key][0])
            out.append(f"{what}{shown}: no method of this study has it; it belongs to {has}.")
        else:
            # A flag that is not known never comes so far: this is a keyword of `tunelab.compare`.
            known = [*fields, *StudyFile.model_fields] if what.startswith("Flag") else fields
            shown = key if what.startswith("Flag") else f"{what}{key}"
            out.append(f"{shown}: unknown setting.{suggest(key, known, what='Settings')}")
    return out


def label_methods(entries: Sequence[Entry]) -> tuple[MethodSpec, ...]:
    """Name each entry: its label, or its method with the settings in which it differs."""
    labels: list[str] = []
    for entry in entries:
        twins = [e for e in entries if e.name == entry.name]
        varying = [
            k for k in entry.settings if any(e.settings[k] != entry.settings[k] for e in twins)
        ]
        grid = [e for e in twins if e.label == entry.label]
        if entry.label and len(grid) == 1:
            labels.append(entry.label)
            continue
        inner = ",".join(f"{k}={_value_in_label(entry.settings[k])}" for k in varying)
        labels.append(f"{entry.label or entry.name}[{inner}]" if inner else entry.name)
    twice = sorted({x for x in labels if labels.count(x) > 1})
    if twice:
        raise ConfigError(
            f"methods: {twice[0]} stands twice with the same settings. Remove one, or change one."
        )
    return tuple(
        MethodSpec(e.name, label, e.settings) for e, label in zip(entries, labels, strict=True)
    )


def _value_in_label(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(_value_in_label(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def require_metric(metric: str) -> None:
    """Raise ConfigError for a name that is not a metric's."""
    faults = _metric_faults(metric)
    if faults:
        raise ConfigError(faults[0])


def _metric_faults(metric: str) -> list[str]:
    if metric in METRICS:
        return []
    return [f"metric: {metric!r} is not a metric.{suggest(metric, METRICS, what='Metrics')}"]


def _seed_numbers(value: int | list[int], faults: Faults) -> tuple[int, ...]:
    seeds = tuple(range(value)) if isinstance(value, int) else tuple(value)
    if not seeds or min(seeds) < 0:
        faults.add(f"seeds: expected a number from 1, or a list of numbers from 0, found {value}.")
    elif len(set(seeds)) < len(seeds):
        faults.add(f"seeds: expected different numbers, found {list(seeds)}.")
    return seeds


# --- protocol -------------------------------------------------------------------------------

_FROM_FLAGS = ("command line", "--set")


def tuning_spaces(
    asked: bool | int | TuningSection, entries: Sequence[Entry], came: str | None, faults: Faults
) -> tuple[TuningSection, list[dict[str, Any]]]:
    """The section, and the space of each entry (empty: not tuned).

    `came` is where `asked` came from, None for the default. A flag wins over the file's entries.
    """
    section = asked if isinstance(asked, TuningSection) else TuningSection.model_validate({})
    if not isinstance(asked, bool | TuningSection):
        if asked < 1:
            faults.add(f"tuning: expected off, on, or a budget from 1, found {asked}.")
            return section, []
        section = TuningSection.model_validate({"budget": asked})
    fields = setting_fields()
    for key in section.space or {}:
        if key not in fields:
            hint = suggest(key, fields, what="Settings")
            faults.add(f"tuning.space: unknown setting {key!r}.{hint}")
    spaces: list[dict[str, Any]] = []
    untuned: list[str] = []
    for i, entry in enumerate(entries):
        own = entry.tune is not None and came not in _FROM_FLAGS
        where = f"methods.{i} ({entry.name}): tune" if own else "tuning"
        wanted: dict[str, Any] = {}
        if own:
            wanted = _own_space(entry, where, faults)
        elif asked is not False:
            wanted = _default_space(section, entry, entries, came is not None)
            if not wanted and "learning_rate" in entry.settings:
                untuned.append(entry.label or entry.name)
        space = _checked_space(wanted, entry.name, where, faults)
        spaces.append(space)
        if section.budget is None and any(isinstance(v, Range) for v in space.values()):
            faults.add(f"{where}: a range needs a budget: tuning: {{budget: 10}}, or --tuning 10.")
    if untuned:
        names = ", ".join(dict.fromkeys(untuned))
        faults.note(
            f"tuning: not for {names}, whose learning_rate was given; --tuning on tunes around it."
        )
    if tuning_seeds(section.seeds) == ():
        faults.add(f"tuning.seeds: expected a number from 1, found {section.seeds}.")
    return section, spaces


def _own_space(entry: Entry, where: str, faults: Faults) -> dict[str, Any]:
    """What a method's own `tune` asks for, without what a flag sets."""
    if isinstance(entry.tune, Mapping):
        return {k: v for k, v in entry.tune.items() if entry.origin.get(k) not in _FROM_FLAGS}
    if entry.tune not in (False, "off"):
        faults.add(f"{where}: expected off or settings, found {entry.tune!r}.")
    return {}


def _default_space(
    section: TuningSection, entry: Entry, entries: Sequence[Entry], explicit: bool
) -> dict[str, Any]:
    """What a method tries where its entry does not say: settings of the section that it has."""
    known = METHODS[entry.name].settings.model_fields
    if section.space is not None:
        return {k: v for k, v in section.space.items() if k in known}
    if "learning_rate" not in known:
        return {}
    if section.learning_rate is not None:
        return {"learning_rate": section.learning_rate}
    rate = entry.settings["learning_rate"]
    twins = {e.settings["learning_rate"] for e in entries if e.name == entry.name}
    given = not entry.origin["learning_rate"].startswith("default")
    # A rate that was given is what is compared; so is each point of a grid of rates.
    if given and (not explicit or len(twins) > 1):
        return {}
    if section.budget is not None:
        return {"learning_rate": {"low": rate / 10, "high": min(10.0, rate * 10), "log": True}}
    return {"learning_rate": [min(10.0, float(f"{rate * f:.3g}")) for f in section.around]}


def _checked_space(
    wanted: Mapping[str, Any], name: str, where: str, faults: Faults
) -> dict[str, Any]:
    """A space as it is searched, checked against a method's settings."""
    model = METHODS[name].settings
    unknown = [
        f"{where}: {name} has no setting {k!r}.{suggest(k, model.model_fields, what='Settings')}"
        for k in wanted
        if k not in model.model_fields
    ]
    if unknown:
        faults.add(*unknown)
        return {}
    try:
        space = parse_space(wanted)
    except ValueError as e:
        faults.add(f"{where}: {e}.")
        return {}
    wrong_lines = []
    for key, values in space.items():
        ends = values if isinstance(values, tuple) else (values.low, values.high)
        for value in ends:
            plain: Any = list(value) if isinstance(value, tuple) else value
            whole = isinstance(values, Range) and values.integer
            wrong_lines += setting_faults(model, {key: int(plain) if whole else plain})
    faults.add(*(f"{where}: {fault}" for fault in dict.fromkeys(wrong_lines)))
    return space


def tuning_seeds(value: int | list[int]) -> tuple[int, ...]:
    """Seeds of each try: so many from the first, or those listed; none where one is below 0."""
    if isinstance(value, int):
        return tuple(TUNING_SEED + i for i in range(value))
    return tuple(value) if all(s >= 0 for s in value) else ()


def _train_sizes(value: str | list[int | Literal["all"]] | None, faults: Faults) -> tuple[int, ...]:
    """Sizes below all, rising. `all` is always run: it is what the table compares."""
    if value is None:
        return ()
    parts = [p.strip() for p in value.split(",")] if isinstance(value, str) else value
    sizes = set()
    for part in parts:
        if part == "all":
            continue
        if not str(part).isdigit() or int(part) < 1:
            wanted = "numbers of rows and all, such as 50,100,all"
            faults.add(f"train_sizes: expected {wanted}; found {part!r}.")
            return ()
        sizes.add(int(part))
    return tuple(sorted(sizes))


_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def _race_budget(study: StudyFile, race: bool, methods: int, faults: Faults) -> float | None:
    """Seconds of a race's budget; what stands in a race's way are faults."""
    seconds = None if study.budget is None else _seconds_of(study.budget)
    if study.budget is not None and not seconds:
        faults.add(
            f"budget: expected a duration such as 90s, 20m or 1h30m, found {study.budget!r}."
        )
    if race and study.metric != "accuracy":
        faults.add(
            f"race: a race is decided row by row, by accuracy; the metric is {study.metric}. Leave "
            "race out, or judge by accuracy."
        )
    if race and study.vary_split:
        faults.add(
            "race: a race compares methods on the same validation rows; vary_split divides them "
            "anew by each seed. Leave one of them out."
        )
    if race and methods == 1:
        faults.add("race: expected two or more methods, found one.")
    return seconds


def _seconds_of(duration: float | str) -> float | None:
    """Seconds of a number, or of 90s, 20m, 1h30m; None for another text."""
    if not isinstance(duration, str):
        return float(duration)
    match = _DURATION.fullmatch(duration.replace(" ", ""))
    if match is None or not any(match.groups()):
        return None
    return sum(float(v or 0) * u for v, u in zip(match.groups(), (3600, 60, 1), strict=True))


def _data_spec_of(value: str | DataSection) -> DataSpec:
    return DataSpec(value) if isinstance(value, str) else DataSpec(**value.model_dump())


def study_yaml(spec: StudySpec) -> dict[str, Any]:
    """A study's keys as a resolved study.yaml has them, and `resolve_study` reads them again."""
    t = spec.tuning
    return {
        "data": asdict(spec.data),
        "model": spec.model,
        "trust_remote_code": spec.trust_remote_code,
        "methods": [
            {"name": m.name, "label": m.label, "tune": _tune_yaml(spec, m.label), **m.settings}
            for m in spec.methods
        ],
        "seeds": list(spec.seeds),
        "metric": spec.metric,
        "output_dir": str(spec.output_dir),
        "report_to": list(spec.report_to),
        "jobs": spec.jobs or "auto",
        "stack": {None: "auto", 1: "off"}.get(spec.stack, spec.stack),
        "tuning": {"budget": t.budget, "seeds": list(t.seeds), "prune": t.prune},
        "vary_split": spec.vary_split,
        "train_sizes": [*spec.train_sizes, "all"] if spec.train_sizes else None,
        "test_on": [asdict(d) for d in spec.test_on],
        "race": spec.race,
        "budget": spec.budget,
        "disagreement": spec.disagreement,
        "behaviour": spec.behaviour or False,
        "sources": dict(spec.sources),
    }


def _tune_yaml(spec: StudySpec, label: str) -> dict[str, Any] | bool:
    space = spec.tuning.spaces.get(label)
    return space_to_json(space) if space else False


def _folder_name(path: Path | None, source: str, model: str) -> str:
    if path is not None:
        return path.parent.name if path.name == "study.yaml" and path.parent.name else path.stem
    parts = [Path(source).stem if Path(source).suffix else Path(source).name, Path(model).name]
    text = "-".join(parts).lower()
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
