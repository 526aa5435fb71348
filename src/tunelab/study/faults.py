"""Faults of a study file, collected: one message names them all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ValidationError

from tunelab.core.errors import ConfigError, suggest
from tunelab.core.words import short
from tunelab.methods.settings import Settings
from tunelab.study.file import DataSection, TuningSection

__all__ = [
    "Faults",
    "pydantic_faults",
    "setting_faults",
]


# Faults that are said, and characters of each.
_MOST_FAULTS = 20
_LONGEST_LINE = 800


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
        lines = list(dict.fromkeys(short(line, _LONGEST_LINE) for line in self.lines))
        if len(lines) > _MOST_FAULTS:
            lines[_MOST_FAULTS:] = [f"... and {len(lines) - _MOST_FAULTS:,} more faults."]
        if lines:
            raise ConfigError("\n".join(lines))


def setting_faults(model: type[Settings], values: Mapping[str, object]) -> list[str]:
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
        if fault["type"] in {"extra_forbidden", "invalid_key"}:
            section = _SECTION_OF_KEY.get(key.partition(".")[0], model) if "." in key else model
            fields = section.model_fields
            known = suggest(parts[-1], fields, what="Known")
            out[key] = f"{key}: unknown key.{known}"
        elif fault["type"] == "missing":
            out[key] = f"{key}: missing. It has to be given."
        else:
            wanted.setdefault(key, []).append(_expected_in_words(fault["msg"]))
            said = " or ".join(dict.fromkeys(wanted[key]))
            out[key] = f"{key}: expected {said}, found {short(repr(fault['input']), 200)}."
    # Of a value that may be of several types, the fault that lies deepest is the one that was made.
    return [line for key, line in out.items() if not any(k.startswith(f"{key}.") for k in out)]


# The parts of a fault's place that name a branch of a union, and no key.
_UNION_BRANCH = re.compile(
    r"(str|int|float|bool|DataSection|TuningSection)$|(function-|tuple|list|dict|literal|constrained-)"
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
