"""YAML + flags -> StudySpec: strict, all faults in one message, every value with its origin.

Order, from weak to strong: a method's own default, the file's `training`, the method's entry in the
file, flags, `--set`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from tunelab.core import study_folder
from tunelab.core.errors import ConfigError, suggest
from tunelab.core.forms import form_fault
from tunelab.core.values import DataSpec
from tunelab.data.behaviour import BUNDLED_SUITE
from tunelab.data.given import given_as
from tunelab.stats.metrics import METRICS
from tunelab.study.entries import Entry, label_methods, resolve_entries
from tunelab.study.executors import ENGINES
from tunelab.study.faults import Faults, pydantic_faults
from tunelab.study.file import DEFAULT_METHODS, WRITTEN_KEYS, DataSection, StudyFile
from tunelab.study.reading import (
    as_entry,
    as_list,
    dotted_keys,
    read_study_file,
    scalar,
    set_dotted,
)
from tunelab.study.space import Tuning
from tunelab.study.spec import StudySpec
from tunelab.study.trackers import faults as tracker_faults
from tunelab.study.tuning_spaces import tuning_seeds, tuning_spaces

__all__ = [
    "require_metric",
    "resolve_study",
]


def resolve_study(
    path: Path | None,
    flags: Mapping[str, object],
    settings: Mapping[str, object] | None = None,
    sets: Sequence[str] = (),
) -> StudySpec:
    """Resolve a study from a file (or none), flags, settings' flags and `--set` strings.

    `flags` are top-level keys (data keys as `data.subset`), `settings` are settings of methods.
    Raises ConfigError naming every fault, a line each.
    """
    faults = Faults()
    flags, settings = _where_or_how(flags, settings or {})
    raw, origin = _lay_over(path, flags, sets, faults)
    study, wrong = _parse_keys(raw, path, faults)
    entries = resolve_entries(
        study, as_list(raw["methods"]), wrong, origin=origin, settings=settings, faults=faults
    )
    seeds = _seed_numbers(study.seeds, faults)
    trackers, forms = _trackers_of(study, faults), _forms_of(study, faults)
    tuning, spaces = tuning_spaces(study.tuning, entries, origin.get("tuning"), faults)
    train_sizes = _train_sizes(study.train_sizes, faults)
    race = study.race or study.budget is not None
    budget = _race_budget(study, race, len(entries), faults)
    checkpoint_every = _duration("checkpoint_every", study.checkpoint_every, faults)
    faults.add(*_metric_faults(study.metric), *_faults_of_folds(study, len(seeds)))
    resources = _resources_of(study, faults)
    faults.refuse()

    methods = label_methods(entries)
    data = study.data
    assert isinstance(data, DataSection)  # noqa: S101  `_lay_over` made one
    output = study.output_dir or f"runs/{_folder_name(path, data.source, study.model)}"
    by_label = {m.label: s for m, s in zip(methods, spaces, strict=True) if s}
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
        tuning=Tuning(by_label, tuning.budget, tuning_seeds(tuning.seeds), tuning.prune),
        vary_split=study.vary_split,
        train_sizes=train_sizes,
        test_on=tuple(_data_spec_of(d, data) for d in as_list(study.test_on)),
        race=race,
        budget=budget,
        disagreement=study.disagreement,
        jobs=None if study.jobs == "auto" else study.jobs,
        stack=study.stack if isinstance(study.stack, int) else _STACK[study.stack],
        behaviour=BUNDLED_SUITE if study.behaviour is True else study.behaviour or None,
        folds=None if study.folds == "off" else study.folds,
        export=forms,
        checkpoint_every=checkpoint_every,
        engine=study.engine,
        address=study.address,
        resources=resources,
    )


# More are a slip: each is a training of every method.
MOST_SEEDS = 10_000
MOST_SIZES = 1_000

_STACK = {"auto": None, "off": 1}

_WAYS_TO_TRAIN = ("auto", "plain")
_HOW_OR_WHERE = " How a base is trained (auto, plain) is a setting: training.engine."


def _trackers_of(study: StudyFile, faults: Faults) -> tuple[str, ...]:
    trackers = tuple(t for t in dict.fromkeys(as_list(study.report_to)) if t != "none")
    faults.add(*tracker_faults(trackers))
    return trackers


def _forms_of(study: StudyFile, faults: Faults) -> tuple[str, ...]:
    forms = tuple(dict.fromkeys(as_list(study.export)))
    faults.add(*(f"export: {unknown}" for name in forms if (unknown := form_fault(name))))
    return forms


def _where_or_how(
    flags: Mapping[str, object], settings: Mapping[str, object]
) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """The flag `engine` as what it means: where trials run, or a setting of methods."""
    if flags.get("engine") not in _WAYS_TO_TRAIN:
        return flags, settings
    return {**flags, "engine": None}, {**settings, "engine": flags["engine"]}


def _resources_of(study: StudyFile, faults: Faults) -> dict[str, float]:
    """What a trial takes of a cluster, by name. An unknown engine is a fault too."""
    if study.engine not in ENGINES:
        near = suggest(study.engine, ENGINES, what="Engines")
        faults.add(f"engine: {study.engine!r} is no place where trials run.{_HOW_OR_WHERE}{near}")
    given, out = study.resources, dict[str, float]()
    pairs = given.items() if isinstance(given, Mapping) else _pairs_of(given)
    for name, value in pairs:
        try:
            out[name] = float(value)
        except ValueError:
            out[name] = math.nan
        share = name in {"cpu", "gpu"} and 0 < out[name] < 1
        if not name or not (share or (0 < out[name] < math.inf and out[name].is_integer())):
            faults.add(
                "resources: expected names with whole numbers above 0, or shares of one of a cpu "
                f"or gpu, such as cpu=2,gpu=0.25; found {name}={value}."
            )
            return {"cpu": 1}
    return {"cpu": 1, **out}


def _pairs_of(text: str) -> list[tuple[str, str]]:
    parts = (part.partition("=") for part in text.split(",") if part.strip())
    return [(name.strip(), value.strip()) for name, _, value in parts]


# Keys of a study file whose origin is kept as they stand.
_KEYS_OF_ONE_VALUE = tuple(
    k for k in StudyFile.model_fields if k not in {"data", "methods", "training"}
)


def _lay_over(
    path: Path | None, flags: Mapping[str, object], sets: Sequence[str], faults: Faults
) -> tuple[dict[str, object], dict[str, str]]:
    """The file with flags and --set laid over it, and where each of its dotted keys came from."""
    raw = read_study_file(path) if path else {}
    if path and study_folder.is_study(path.parent) and path.name == "study.yaml":
        raw["output_dir"] = str(path.parent)  # where it lies now: a study may have been moved
        raw |= {k: _with_rows_found(raw[k], path.parent) for k in ("data", "test_on") if k in raw}
    if raw.pop("trust_remote_code", None) and not flags.get("trust_remote_code"):
        # Whoever runs a file has not always read it.
        faults.note(
            f"{path}: trust_remote_code in a file allows nothing; a model's own code runs only "
            "with --trust-remote-code (trust_remote_code=True in Python)"
        )
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


def _with_rows_found(data: object, folder: Path) -> object:
    """A study's `data` or `test_on`, naming the rows that it was given where the study lies now."""
    if isinstance(data, list | tuple):
        return [_with_rows_found(one, folder) for one in data]
    if isinstance(data, dict):
        return {k: _with_rows_found(v, folder) if k == "source" else v for k, v in data.items()}
    if not isinstance(data, str) or given_as(Path(data)) is None:
        return data
    kept = folder / study_folder.GIVEN_ROWS / Path(data).name
    return str(kept) if kept.exists() else data


def _parse_keys(
    raw: dict[str, object], path: Path | None, faults: Faults
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
        return StudyFile.model_validate(given), frozenset()
    except ValidationError as e:
        faults.add(*pydantic_faults(e, "", StudyFile))
        wrong = frozenset(str(fault["loc"][0]) for fault in e.errors())
    sound = {k: v for k, v in given.items() if str(k) not in wrong}
    return StudyFile.model_validate({"data": {"source": "?"}, **sound}), wrong


def _sources_of_values(origin: Mapping[str, str], entries: Sequence[Entry]) -> dict[str, str]:
    """Where each value of a spec came from, by its dotted key."""
    whole = origin.get("data", "default")
    return {
        **{f"data.{k}": origin.get(f"data.{k}", whole) for k in DataSection.model_fields},
        **{k: origin.get(k, "default") for k in _KEYS_OF_ONE_VALUE},
        **{f"methods.{i}.{k}": v for i, e in enumerate(entries) for k, v in e.origin.items()},
    }


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
    if isinstance(value, int) and value > MOST_SEEDS:
        faults.add(f"seeds: expected at most {MOST_SEEDS:,}, found {value}.")
        return (0,)
    seeds = tuple(range(value)) if isinstance(value, int) else tuple(value)
    if not seeds or min(seeds) < 0:
        faults.add(f"seeds: expected a number from 1, or a list of numbers from 0, found {value}.")
    elif len(set(seeds)) < len(seeds):
        faults.add(f"seeds: expected different numbers, found {list(seeds)}.")
    return seeds


def _train_sizes(value: str | list[int | Literal["all"]] | None, faults: Faults) -> tuple[int, ...]:
    """Sizes below all, rising. `all` is always run: it is what the table compares."""
    if value is None:
        return ()
    parts = [p.strip() for p in value.split(",")] if isinstance(value, str) else value
    sizes = set()
    for part in parts:
        if part == "all":
            continue
        if not re.fullmatch(r"[0-9]{1,18}", str(part)) or int(part) < 1:
            wanted = "numbers of rows and all, such as 50,100,all"
            faults.add(f"train_sizes: expected {wanted}; found {part!r}.")
            return ()
        sizes.add(int(part))
    if len(sizes) > MOST_SIZES:
        faults.add(f"train_sizes: expected at most {MOST_SIZES:,} sizes, found {len(sizes):,}.")
        return ()
    return tuple(sorted(sizes))


_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def _race_budget(study: StudyFile, race: bool, methods: int, faults: Faults) -> float | None:
    """Seconds of a race's budget; what stands in a race's way are faults."""
    seconds = _duration("budget", study.budget, faults)
    if race and study.metric != "accuracy":
        faults.add(
            f"race: a race is decided row by row, by accuracy; the metric is {study.metric}. Leave "
            "race out, or judge by accuracy."
        )
    if race and isinstance(study.data, DataSection) and study.data.group_column is not None:
        faults.add(
            "race: a race is decided row by row, as if rows were independent; by group_column they "
            "are not. Leave race out."
        )
    if race and methods == 1:
        faults.add("race: expected two or more methods, found one.")
    return seconds


def _duration(key: str, value: float | str | None, faults: Faults) -> float | None:
    """Its seconds, above 0; None where it is left out, or is a fault."""
    seconds = None if value is None else _seconds_of(value)
    if value is None or (seconds and 0 < seconds < math.inf):
        return seconds
    faults.add(f"{key}: expected a duration above 0, such as 90s, 20m or 1h30m, found {value!r}.")
    return None


def _faults_of_folds(study: StudyFile, seeds: int) -> list[str]:
    """What stands in the way of a number of folds that was asked for."""
    if not isinstance(study.folds, int):
        return []
    out = []
    if seeds < study.folds:
        out.append(
            f"folds: {study.folds} folds test every row with {study.folds} seeds or more, found "
            f"{seeds}. Give --seeds {study.folds}, or --folds off for one test part."
        )
    if study.vary_split:
        out.append("folds: each fold has a validation part of its own. Leave vary_split out.")
    return out


def _seconds_of(duration: float | str) -> float | None:
    """Seconds of a number, or of 90s, 20m, 1h30m; None for another text."""
    if not isinstance(duration, str):
        return float(duration)
    match = _DURATION.fullmatch(duration.replace(" ", ""))
    if match is None or not any(match.groups()):
        return None
    return sum(float(v or 0) * u for v, u in zip(match.groups(), (3600, 60, 1), strict=True))


def _data_spec_of(value: str | DataSection, of: DataSection) -> DataSpec:
    """Data to score on: a source alone has its classes read as those of the study's data are."""
    if isinstance(value, str):
        return DataSpec(
            value,
            join_labels=of.join_labels,
            drop_classes=of.drop_classes,
            label_separator=of.label_separator,
            label_columns=of.label_columns,
        )
    return DataSpec(**value.model_dump())


def _folder_name(path: Path | None, source: str, model: str) -> str:
    if path is not None:
        return path.parent.name if path.name == "study.yaml" and path.parent.name else path.stem
    parts = [Path(source).stem if Path(source).suffix else Path(source).name, Path(model).name]
    text = "-".join(parts).lower()
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
