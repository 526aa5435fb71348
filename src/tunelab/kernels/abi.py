"""What Python and the kernels' C++ have to agree on: records and functions, compared at load.

The library describes its structs and the arguments of its functions by their types
(`kernels/cpp/abi.h`). Whatever lies elsewhere here, or is of another type, or is known to one side
alone is an error that names it.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "AbiError",
    "AdapterRecord",
    "DropoutRecord",
    "LateRowsRecord",
    "LayerRecord",
    "PieceRecord",
    "SegmentRecord",
    "SublayerRecord",
    "WeightRowsRecord",
    "check_library",
    "load_functions",
]


_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
_WORD, _FLOAT = ctypes.c_uint32, ctypes.c_float
_CTYPES: dict[str, type[Any]] = {"p": _POINTER, "l": _LONG, "i": _INT, "u": _WORD, "f": _FLOAT}
_LETTERS = {kind: letter for letter, kind in _CTYPES.items()}


class AbiError(RuntimeError):
    """A library does not have the records and functions that are called here."""


# --- records, with the fields of C++'s structs; what they hold is said there ---------------------


def _fields(*groups: tuple[type[Any], str]) -> tuple[tuple[str, type[Any]], ...]:
    """Fields in order, those of one type together."""
    return tuple((name, kind) for kind, names in groups for name in names.split())


class PieceRecord(ctypes.Structure):
    """Some numbers of a weight, for AdamW (adamw.h)."""

    _fields_ = _fields((_POINTER, "p m v g"), (_LONG, "n"), (_FLOAT, "keep size root"))


class LateRowsRecord(ctypes.Structure):
    """An embedding of which rows are to be brought up to date (adamw.h)."""

    _fields_ = _fields(
        (_POINTER, "p m v last since keep size root"),
        (_LONG, "width"),
        (_FLOAT, "first second eps"),
    )


class SegmentRecord(ctypes.Structure):
    """A thin product of some rows' own (low_rank.h)."""

    _fields_ = _fields((_POINTER, "down up"), (_LONG, "first last rank column columns"))


class DropoutRecord(ctypes.Structure):
    """One mask (dropout.h)."""

    _fields_ = _fields((_WORD, "seed limit"), (_FLOAT, "scale"))


class WeightRowsRecord(ctypes.Structure):
    """Rows of a weight that a call lays out (layers.h)."""

    _fields_ = _fields((_POINTER, "whole codes numbers scales"), (_LONG, "block n"))


class AdapterRecord(ctypes.Structure):
    """LoRA on some columns of a layer's output (layers.h)."""

    _fields_ = _fields(
        (_POINTER, "a b low kept da db"),
        (_LONG, "first columns rank"),
        (_FLOAT, "scale"),
        (_WORD, "seed limit"),
    )


class LayerRecord(ctypes.Structure):
    """A linear layer and its adapters (layers.h)."""

    _fields_ = _fields(
        (_POINTER, "ahead back bias dw dbias parts rows"), (_LONG, "count pieces k n")
    )


class SublayerRecord(ctypes.Structure):
    """A sublayer of an encoder (sublayers.h)."""

    _fields_ = _fields(
        (LayerRecord, "into out"),
        (_POINTER, "asking x inner firsts queries act result normed inverse"),
        (_POINTER, "weight shift bounds g dx dweight dshift"),
        (_LONG, "rows texts heads longest"),
        (_FLOAT, "eps scale"),
        (DropoutRecord, "attending after"),
    )


# --- functions: a letter for each argument; a mask is uuf: seed, limit and scale ------------------

_FOR_EITHER_TYPE = {
    "attention": "ppp llllll pp llll ii f uuf ppppp l i",
    "add_norm": "ppppppp ll f uuf i",
    "add_norm_back": "pppppppp ll uuf i",
    "dropout": "pp l uuf i",
    "gelu": "ppp l i",
    "low_rank": "ppppp l p llll f uuf i",
    "low_rank_back": "p l ppppppp llll f uuf i",
    "segments": "p l pp lll i i",
}
_OF_OPTIMIZER = {
    "squares_float32": "p l p i",
    "adamw_float32": "p l ffff i",
    "adamw_late_float32": "pp ll i",
}
_OF_LAYERS = {
    "adapted": "ppp i l i",
    "adapted_back": "pppp l i",
    "sublayers": "p l i",
    "sublayers_back": "p l i",
}
_LAYS_OUT = "p llll p"


def _in_type(kind: str, functions: Mapping[str, str]) -> dict[str, str]:
    return {f"{name}_{kind}": letters for name, letters in functions.items()}


# --- both sides described alike -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Described:
    """A record and its size, a field with its letter and offset, or a function and its letters."""

    of: str  # "record", "function", or the record of a field
    name: str
    letters: str
    number: int

    @property
    def title(self) -> str:
        """Which one it is."""
        whole = self.of in {"record", "function"}
        return f"{self.of} {self.name}" if whole else f"field {self.of}.{self.name}"

    @property
    def form(self) -> str:
        """What both sides have to agree on."""
        if self.of == "record":
            return f"of {self.number} bytes"
        return f"({self.letters})" if self.of == "function" else f"{self.letters} at {self.number}"


def describe_records(
    records: Sequence[type[ctypes.Structure]], functions: Mapping[str, str]
) -> tuple[Described, ...]:
    """Records and functions as the library describes its own."""
    lines: list[Described] = []
    for record in records:
        of = record.__name__.removesuffix("Record")
        lines.append(Described("record", of, "", ctypes.sizeof(record)))
        for name, kind, *_ in record._fields_:
            offset = getattr(record, name).offset
            lines.append(Described(of, name, _LETTERS.get(kind, "s"), offset))
    for name, letters in functions.items():
        lines.append(Described("function", name, letters.replace(" ", ""), 0))
    return tuple(lines)


# The first part is in every library, and each other one as a whole or not at all: layers in float32
# where vectors are wide, those in bfloat16 where they multiply pairs, and what needs matrix tiles.
LIBRARY_PARTS = (
    describe_records(
        [PieceRecord, LateRowsRecord, SegmentRecord, DropoutRecord],
        _in_type("float32", _FOR_EITHER_TYPE)
        | _in_type("bfloat16", _FOR_EITHER_TYPE)
        | _OF_OPTIMIZER,
    ),
    describe_records(
        [WeightRowsRecord, AdapterRecord, LayerRecord, SublayerRecord],
        _in_type("float32", _OF_LAYERS) | {"panels_float32": _LAYS_OUT},
    ),
    describe_records([], _in_type("bfloat16", _OF_LAYERS) | {"lay_out_bfloat16": _LAYS_OUT}),
    describe_records([], {"lay_out_float32": _LAYS_OUT, "product_float32": "pppp lll i i"}),
)


class _AbiRow(ctypes.Structure):
    """A row of the library's tables (abi.h)."""

    _fields_ = _fields((ctypes.c_char_p, "of name letters"), (_LONG, "number"), (_POINTER, "place"))


def _described_rows(library: ctypes.CDLL) -> Iterator[_AbiRow]:
    """Every row of every table; an empty one ends a table, and null ends the tables."""
    try:
        describe_library = library.abi_1
    except AttributeError:
        raise AbiError("the library does not describe itself") from None
    describe_library.restype = ctypes.POINTER(ctypes.POINTER(_AbiRow))
    tables = describe_library()
    for table in itertools.takewhile(bool, (tables[i] for i in itertools.count())):
        yield from itertools.takewhile(lambda row: row.of, (table[i] for i in itertools.count()))


def _read_description(row: _AbiRow) -> Described:
    return Described(row.of.decode(), row.name.decode(), row.letters.decode(), row.number)


def check_library(described: Sequence[Described]) -> None:
    """Raise AbiError where a library that is described so is not the one that is called here."""
    expected = {line.title: line for part in LIBRARY_PARTS for line in part}
    for there in described:
        here = expected.get(there.title)
        if here is None:
            raise AbiError(f"the library has {there.title}, which is unknown here")
        if here != there:
            raise AbiError(f"{there.title} is {there.form} in the library and {here.form} here")
    offered = set(described)
    for part in LIBRARY_PARTS:
        missing = [line for line in part if line not in offered]
        if missing and (part is LIBRARY_PARTS[0] or len(missing) < len(part)):
            raise AbiError(f"the library lacks {missing[0].title}")


def load_functions(path: Path) -> dict[str, Callable[..., None]]:
    """Name and type of a kernel -> its function, which takes plain numbers.

    Raises OSError where there is no library, and AbiError where it is another version's.
    """
    rows = list(_described_rows(ctypes.CDLL(str(path))))
    described = [_read_description(row) for row in rows]
    check_library(described)
    functions: dict[str, Callable[..., None]] = {}
    for line, row in zip(described, rows, strict=True):
        if line.of == "function":
            prototype = ctypes.CFUNCTYPE(None, *(_CTYPES[letter] for letter in line.letters))
            functions[line.name] = prototype(row.place)
    return functions
