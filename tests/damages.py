"""Files damaged in every way that a disk, a crash or a person has: for whatever reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml


def flipped(content: bytes) -> bytes:
    """One bit in the middle is another."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :] if content else b"x"


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda b: b[: len(b) // 2],
    "zeroed": lambda b: bytes(len(b) or 10),
    "flipped": flipped,
    "binary": lambda _: b"\xff\x00\x01PAR1" * 50,
    "a list": lambda _: b"[]",
    "a list of text": lambda _: b'["a", "b"]',
    "no keys": lambda _: b"{}",
    "format alone": lambda _: b'{"format": 1}',
    "null": lambda _: b"null",
    "text": lambda _: b"hello\n",
    "deep": lambda _: b"[" * 5000,
}
"""What becomes of a file's content, by the name of the damage."""

OTHERS: tuple[object, ...] = (None, -1, 1e308, "x", [], ["x"], [[1]], {}, {"a": {"b": 1}}, True)


def tree_of(path: Path) -> Any:
    """The content of a JSON or YAML file, None of another and of one that is not there."""
    if path.suffix not in {".json", ".yaml"} or not path.is_file():
        return None
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def places(tree: Any, most: int = 40) -> list[tuple[Any, ...]]:
    """Paths of the values of a tree, the outermost first; of each list the first alone."""
    out: list[tuple[Any, ...]] = []
    level: list[tuple[tuple[Any, ...], Any]] = [((), tree)] if isinstance(tree, dict | list) else []
    while level and len(out) < most:
        below: list[tuple[tuple[Any, ...], Any]] = []
        for path, node in level:
            items = node.items() if isinstance(node, dict) else list(enumerate(node))[:1]
            for key, value in items:
                out.append((*path, key))
                if isinstance(value, dict | list):
                    below.append(((*path, key), value))
        level = below
    return out[:most]


def with_other(path: Path, place: tuple[Any, ...], value: object) -> None:
    """Put another value into a JSON or YAML file; `...` takes its key out."""
    tree = tree_of(path)
    node = tree
    for key in place[:-1]:
        node = node[key]
    if value is ...:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    path.write_text(json.dumps(tree), encoding="utf-8")


def damaged(path: Path, name: str) -> None:
    """Damage a file in one of the ways of `BYTES`, or take it away."""
    if name == "missing":
        path.unlink()
    else:
        path.write_bytes(BYTES[name](path.read_bytes()))
