"""The methods of a study file: names, settings and labels, checked."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunelab.core.errors import ConfigError, suggest
from tunelab.core.plain import PlainValue, SettingValues
from tunelab.core.values import MethodSpec
from tunelab.methods import METHODS
from tunelab.methods.settings import ALIASES, Settings
from tunelab.stats.metrics import METRICS
from tunelab.study.faults import Faults, setting_faults
from tunelab.study.file import StudyFile, setting_fields, study_keys

__all__ = [
    "Entry",
    "label_methods",
    "resolve_entries",
    "settings_of_metric",
]


# More are a slip: each is a method of its own.
MOST_POINTS = 1_000


def resolve_entries(
    study: StudyFile,
    asked: Sequence[Any],
    wrong: frozenset[str],
    *,
    origin: Mapping[str, str],
    settings: Mapping[str, object],
    faults: Faults,
) -> list[Entry]:
    """Every method with its settings, a grid's points each as one. `asked`: as they are written."""
    of_metric = settings_of_metric(study.metric)
    flags = _without_aliases(settings, "command line", faults)
    shared = _without_aliases(study.training, "training", faults)
    # Methods that are there are checked even where another is no method at all.
    readable = asked if "methods" in wrong else study.methods
    given = {i: entry for i, entry in enumerate(readable) if isinstance(entry, dict)}
    out = [
        resolved
        for i, entry in given.items()
        for resolved in _resolve_entry(
            i, entry, of_metric, shared=shared, flags=flags, origin=origin, faults=faults
        )
    ]
    # What a method has that could not be read is not known; then only unknown names are faults.
    names = None if "methods" in wrong else [str(e.get("name")) for e in given.values()]
    faults.add(*_settings_of_no_method(flags, names, "Flag --"))
    faults.add(*_settings_of_no_method(shared, names, "training."))
    return out


def settings_of_metric(metric: str) -> dict[str, str]:
    """The best epoch is picked by what the study is judged by, where nothing else is said."""
    row = METRICS.get(metric)  # a name that is none is a fault of its own
    if row is None or metric == "accuracy":
        return {}
    by_loss = row.needs == "probability" or not row.higher_is_better
    return {"metric_for_best_model": "loss" if by_loss else metric}


# --- methods --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A method of a study: its settings, and where each came from. `tune`: as its entry says."""

    name: str
    label: str | None
    settings: SettingValues
    origin: dict[str, str]
    tune: object = None


def _without_aliases(values: Mapping[str, object], where: str, faults: Faults) -> dict[str, object]:
    """Translate names from other tools; a known name wins over its alias."""
    out: dict[str, object] = {}
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
    entry: Mapping[str, object],
    of_metric: Mapping[str, object],
    *,
    shared: Mapping[str, object],
    flags: Mapping[str, object],
    origin: Mapping[str, str],
    faults: Faults,
) -> list[Entry]:
    """One entry of `methods` -> its settings, one for each point of its grid; none at fault."""
    where = f"methods.{i}"
    name = entry.get("name")
    label = None if entry.get("label") is None else str(entry["label"])
    if not isinstance(name, str) or name not in METHODS:
        hint = suggest(str(name), METHODS, what="Methods")
        what = "has no name" if name is None else f"{name!r} is not a method"
        if "[" in str(name):
            hint = " Settings are flags (--r 4), or keys of an entry in a study file."
        faults.add(f"{where}: {what}.{hint}")
        return []
    model = METHODS[name].settings
    written = {k: v for k, v in entry.items() if k not in {"name", "label", "tune"}}
    own = _without_aliases(written, where, faults)
    known = model.model_fields
    unknown = [k for k in own if k not in known]
    faults.add(
        *(
            f"{where} ({name}): unknown setting {k!r}.{suggest(k, known, what='Settings')}"
            for k in unknown
        )
    )
    values: dict[str, object] = {}
    came: dict[str, str] = {}
    layers = ((of_metric, "metric"), (shared, "training"), (own, where), (flags, "command line"))
    for layer, said in layers:
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
        out.append(Entry(name, label, settings, whence, entry.get("tune")))
    return out


def _grid_points(
    model: type[Settings], values: Mapping[str, object]
) -> tuple[list[dict[str, object]], list[str]]:
    """Expand lists where the setting takes one value: r: [4, 8] gives two points."""
    faults: list[str] = []
    choices: dict[str, list[object]] = {}
    for key, value in values.items():
        if not setting_faults(model, {key: value}) or not isinstance(value, list) or not value:
            choices[key] = [value]
        else:
            choices[key] = value
    count = math.prod(map(len, choices.values()))
    if count > MOST_POINTS:
        return [], [
            f"its grid has {count:,} combinations of settings, more than {MOST_POINTS:,}. "
            "Make it smaller."
        ]
    points = [dict(zip(choices, p, strict=True)) for p in itertools.product(*choices.values())]
    for point in points:
        faults += setting_faults(model, point)
    return points, list(dict.fromkeys(faults))


def _settings_of_no_method(
    values: Mapping[str, object], methods: Sequence[str] | None, what: str
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
            keys = [key.name for key in study_keys()]
            known = [*fields, *keys] if what.startswith("Flag") else fields
            shown = key if what.startswith("Flag") else f"{what}{key}"
            out.append(f"{shown}: unknown setting.{suggest(key, known, what='Settings')}")
    return out


def label_methods(entries: Sequence[Entry]) -> tuple[MethodSpec, ...]:
    """Name each entry: its label, or its method with the settings in which it differs."""
    varying = _varying_settings(entries)
    called = Counter((e.name, e.label) for e in entries)
    labels: list[str] = []
    for entry in entries:
        if entry.label and called[entry.name, entry.label] == 1:
            labels.append(entry.label)
            continue
        inner = ",".join(f"{k}={_value_in_label(entry.settings[k])}" for k in varying[entry.name])
        labels.append(f"{entry.label or entry.name}[{inner}]" if inner else entry.name)
    twice = sorted(x for x, n in Counter(labels).items() if n > 1)
    if twice:
        raise ConfigError(
            f"methods: {twice[0]} stands twice with the same settings. Remove one, or change one."
        )
    return tuple(
        MethodSpec(e.name, label, e.settings) for e, label in zip(entries, labels, strict=True)
    )


def _varying_settings(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """The settings in which entries of a method differ, by method."""
    seen: dict[str, dict[str, set[str]]] = {}
    for e in entries:
        values = seen.setdefault(e.name, {k: set() for k in e.settings})
        for k, v in e.settings.items():
            values[k].add(repr(v))
    return {name: [k for k, v in values.items() if len(v) > 1] for name, values in seen.items()}


def _value_in_label(value: PlainValue) -> str:
    if isinstance(value, list):
        return "+".join(_value_in_label(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
