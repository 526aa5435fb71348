"""A study file read: YAML, each key once, with the place of a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tunelab.core.bounded_yaml import LONGEST, BoundedLoader
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
        if path.exists() and not path.is_file():
            raise ConfigError(f"Config file {path}: is no file. Expected a YAML file.")
        with path.open(encoding="utf-8") as stream:
            text = stream.read(LONGEST + 1)
        value = yaml.load(text, Loader=BoundedLoader)  # noqa: S506  a safe loader
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = suggest(path.name, near, what="Files there") if near else ""
        raise ConfigError(f"Config file {path}: there is no such file.{hint}") from None
    except (OSError, ValueError) as e:
        if isinstance(e, ConfigError):
            raise
        raise ConfigError(f"Config file {path}: not readable as text ({e}).") from None
    except yaml.YAMLError as e:
        raise ConfigError(f"Config file {path}: not valid YAML ({_yaml_fault(e)}).") from None
    if not isinstance(value, dict):
        raise ConfigError(
            f"Config file {path}: expected keys such as data, model, methods; found "
            f"{'nothing' if value is None else type(value).__name__}."
        )
    return value


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
        value = yaml.load(text, Loader=BoundedLoader)  # noqa: S506  a safe loader
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
