"""Whether a value that was read from a file has the type that it is declared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

__all__ = [
    "fault",
    "fault_within",
]


def fault(value: object, kind: Any, where: str = "") -> str | None:
    """What of a value is not of its declared type, in words, or None.

    `kind`: a type, as in annotations: of plain values, lists and mappings of these, TypedDict or
    dataclass, looked into field by field. Types that it does not know pass.

    >>> fault({"a": [1, "x"]}, dict[str, list[int]])
    "a.1: expected a number, found 'x'"
    """
    if kind in _NAMES:  # most values of a study are these
        return None if _is_of_kind(value, kind) else _unlike(where, _NAMES[kind], value)
    alternatives = _alternatives(kind)
    if alternatives:
        faults = [fault(value, a, where) for a in alternatives]
        return None if None in faults else faults[0]
    inside = _items(value, kind)
    if isinstance(inside, str):
        return _unlike(where, inside, value)
    dot = f"{where}." if where else ""
    for key, item, of in inside:
        wrong = f"{dot}{key}: is missing" if item is _MISSING else fault(item, of, f"{dot}{key}")
        if wrong is not None:
            return wrong
    return None


_MISSING = object()


def _items(value: object, kind: Any) -> str | list[tuple[object, object, Any]]:  # noqa: PLR0911
    """What a value holds, each with its key and declared type; or what was expected instead."""
    origin, args = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        return _items_of_keys(value, kind) if isinstance(value, Mapping) else "a mapping"
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, kind):
            return kind.__name__
        return [(f.name, getattr(value, f.name), _hints(kind)[f.name]) for f in fields(kind)]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            return "a mapping"
        return [(k, v, args[1]) for k, v in value.items()]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            return "a list"
        each = _types_of_items(origin, args, len(value))
        if len(each) != len(value):
            return f"{len(each)} values"
        return [(k, v, a) for k, (v, a) in enumerate(zip(value, each, strict=True))]
    if origin is Literal:
        return [] if value in args else f"one of {', '.join(map(str, args))}"
    return []


_NAMES: dict[Any, str] = {
    float: "a number",
    int: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
}


@cache
def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else ()


def fault_within(value: object) -> str | None:
    """The same of a value that is a dataclass, or a tuple of such: each as it declares itself."""
    if isinstance(value, tuple):
        return next((f for v in value if (f := fault_within(v))), None)
    return fault(value, type(value)) if is_dataclass(value) else None


def _items_of_keys(value: Mapping[Any, object], kind: Any) -> list[tuple[object, object, Any]]:
    """The keys of a TypedDict, with what stands there; `_MISSING` where it must and does not."""
    out: list[tuple[object, object, Any]] = []
    for name, hint in _hints(kind).items():
        optional = get_origin(hint) is NotRequired or not kind.__total__
        if name in value or not optional:
            of = get_args(hint)[0] if get_origin(hint) is NotRequired else hint
            out.append((name, value.get(name, _MISSING), of))
    return out


@cache
def _hints(kind: Any) -> dict[str, object]:
    # What names itself (`core.plain`) would not end, and is looked into no further.
    plain = {"PlainValue": object, "Sequence": Sequence, "Mapping": Mapping}
    return get_type_hints(kind, localns=plain, include_extras=True)


def _types_of_items(origin: Any, args: tuple[Any, ...], length: int) -> list[Any]:
    if issubclass(origin, tuple) and args[-1:] != (...,):
        return list(args)
    return [args[0]] * length


def _is_of_kind(value: object, kind: Any) -> bool:
    if kind in (int, float):  # shares of a stack are no whole numbers
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    return type(value) is kind


def _unlike(where: str, expected: str, value: object) -> str:
    short = isinstance(value, float | str) and len(str(value)) < 20
    what = repr(value) if short else type(value).__name__
    return f"{where or 'content'}: expected {expected}, found {what}"
