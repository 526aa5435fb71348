"""A study file read: YAML, each key once, with the place of a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tunelab.core.errors import ConfigError, suggest
from tunelab.study.faults import Faults

__all__ = [
    "as_entry",
    "as_list",
    "dotted_keys",
    "read_study_file",
    "scalar",
    "set_dotted",
]


# --- reading --------------------------------------------------------------------------------


def read_study_file(path: Path) -> dict[str, object]:
    """The keys of a YAML file. Raises ConfigError where it is none, or a key stands twice."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_KeysOnce)  # noqa: S506  a safe loader
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = suggest(path.name, near, what="Files there") if near else ""
        raise ConfigError(f"Config file {path}: there is no such file.{hint}") from None
    except (UnicodeDecodeError, IsADirectoryError, RecursionError) as e:
        raise ConfigError(f"Config file {path}: not readable as text ({e}).") from None
    except yaml.YAMLError as e:
        raise ConfigError(f"Config file {path}: not valid YAML ({_yaml_fault(e)}).") from None
    if not isinstance(value, dict):
        raise ConfigError(
            f"Config file {path}: expected keys such as data, model, methods; found "
            f"{'nothing' if value is None else type(value).__name__}."
        )
    if _values_in(value, {}) > _MOST_VALUES:
        raise ConfigError(
            f"Config file {path}: holds more than {_MOST_VALUES:,} values once its aliases (*name) "
            "are written out; expected the keys of a study. Write them out, and few of them."
        )
    return value


_MOST_VALUES = 100_000


def _values_in(value: object, known: dict[int, int]) -> int:
    """How many values a tree has with its aliases written out, each counted once; of one that
    holds itself, too many.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = _MOST_VALUES + 1  # until it is known: it would hold itself
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_values_in(v, known) for v in inside)
    return known[id(value)]


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


def dotted_keys(value: object, prefix: str = "") -> dict[str, object]:
    """Every value of a tree by its dotted key, such as methods.0.r."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    out: dict[str, object] = {}
    for key, inner in items:
        name = f"{prefix}{key}"
        out[name] = inner
        out |= dotted_keys(inner, name + ".")
    return out


def set_dotted(tree: dict[str, object], key: str, value: object, faults: Faults) -> None:
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


def as_entry(value: object) -> object:
    """An entry of `methods` that is a name alone, as a section; another as it is."""
    return {"name": value} if isinstance(value, str) else value
