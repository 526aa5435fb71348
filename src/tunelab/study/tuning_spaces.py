"""Which settings of which methods a study file asks to tune, and over what values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tunelab.core.errors import suggest
from tunelab.methods import METHODS
from tunelab.study.entries import Entry
from tunelab.study.faults import Faults, setting_faults
from tunelab.study.file import TuningSection, setting_fields
from tunelab.study.space import TUNING_SEED, Range, Space, parse_space

__all__ = [
    "tuning_seeds",
    "tuning_spaces",
]


# More are a slip: each is a training.
MOST_TRIES = 10_000
_FROM_FLAGS = ("command line", "--set")


def tuning_spaces(
    asked: bool | int | TuningSection, entries: Sequence[Entry], came: str | None, faults: Faults
) -> tuple[TuningSection, list[Space]]:
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
    spaces: list[Space] = []
    untuned: list[str] = []
    for i, entry in enumerate(entries):
        own = entry.tune is not None and came not in _FROM_FLAGS
        where = f"methods.{i} ({entry.name}): tune" if own else "tuning"
        wanted: Mapping[str, object] = {}
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
    tries = section.budget or max(map(_grid_size, spaces), default=0)
    if tries > MOST_TRIES:
        faults.add(f"tuning: {tries:,} tries of a method, expected at most {MOST_TRIES:,}.")
    return _with_sound_seeds(section, faults), spaces


def _with_sound_seeds(section: TuningSection, faults: Faults) -> TuningSection:
    """The section; where its seeds are at fault, with one."""
    if isinstance(section.seeds, int) and section.seeds > MOST_TRIES:
        faults.add(f"tuning.seeds: expected at most {MOST_TRIES:,}, found {section.seeds}.")
    elif tuning_seeds(section.seeds) == ():
        faults.add(f"tuning.seeds: expected a number from 1, found {section.seeds}.")
    else:
        return section
    return section.model_copy(update={"seeds": 1})


def _own_space(entry: Entry, where: str, faults: Faults) -> Mapping[str, object]:
    """What a method's own `tune` asks for, without what a flag sets."""
    if isinstance(entry.tune, Mapping):
        return {k: v for k, v in entry.tune.items() if entry.origin.get(k) not in _FROM_FLAGS}
    if entry.tune not in (False, "off"):
        faults.add(f"{where}: expected off or settings, found {entry.tune!r}.")
    return {}


def _default_space(
    section: TuningSection, entry: Entry, entries: Sequence[Entry], explicit: bool
) -> Mapping[str, object]:
    """What a method tries where its entry does not say: settings of the section that it has."""
    known = METHODS[entry.name].settings.model_fields
    if section.space is not None:
        return {k: v for k, v in section.space.items() if k in known}
    rate = entry.settings.get("learning_rate")
    if not isinstance(rate, int | float):  # it has none
        return {}
    if section.learning_rate is not None:
        return {"learning_rate": section.learning_rate}
    twins = {e.settings["learning_rate"] for e in entries if e.name == entry.name}
    given = not entry.origin["learning_rate"].startswith("default")
    # A rate that was given is what is compared; so is each point of a grid of rates.
    if given and (not explicit or len(twins) > 1):
        return {}
    if section.budget is not None:
        return {"learning_rate": {"low": rate / 10, "high": min(10.0, rate * 10), "log": True}}
    return {"learning_rate": [min(10.0, float(f"{rate * f:.3g}")) for f in section.around]}


def _checked_space(wanted: Mapping[str, object], name: str, where: str, faults: Faults) -> Space:
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
        ends = values if isinstance(values, tuple) else values.ends
        for value in ends:
            plain = list(value) if isinstance(value, tuple) else value
            wrong_lines += setting_faults(model, {key: plain})
    faults.add(*(f"{where}: {fault}" for fault in dict.fromkeys(wrong_lines)))
    return space


def _grid_size(space: Space) -> int:
    return math.prod(len(v) for v in space.values() if isinstance(v, tuple))


def tuning_seeds(value: int | list[int]) -> tuple[int, ...]:
    """Seeds of each try: so many from the first, or those listed; none where one is below 0."""
    if isinstance(value, int):
        return tuple(TUNING_SEED + i for i in range(value))
    return tuple(value) if all(s >= 0 for s in value) else ()
