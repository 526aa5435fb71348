"""Weight files: which there are, what their headers say, and whether all of it is numbers.

Reads safetensors without torch, and never a pickle.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from tunelab.core.errors import ModelError

__all__ = [
    "INDEX",
    "WRAPPER",
    "TensorEntry",
    "files_read",
    "listing",
    "refuse_not_finite",
    "tensors",
    "weight_files",
    "wrapper_of",
]


_WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# What wrappers for training put before every name (DistributedDataParallel, torch.compile, fully
# sharded training, DeepSpeed): taken off, the names are those of the model.
WRAPPER = r"^(?:module\.|_orig_mod\.|_fsdp_wrapped_module\.|_forward_module\.)+"
# Numbers that are looked at in one go.
_NUMBERS_AT_A_TIME = 1 << 24
# Of each type: how it is read, and the bits of the exponent, all of which are set in what is no
# finite number. Types of whole numbers have none.
_EXPONENTS = {"F64": ("<u8", 0x7FF << 52), "F32": ("<u4", 0xFF << 23),
              "F16": ("<u2", 0x1F << 10), "BF16": ("<u2", 0xFF << 7)}  # fmt: skip


_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}


class TensorEntry(TypedDict):
    """A tensor in a safetensors file: where its bytes begin and end, counted after the header."""

    dtype: str
    shape: list[int]
    data_offsets: list[int]


def weight_files(name: str, path: Path) -> list[Path]:
    """The safetensors files of a model's folder. Raises ModelError where transformers would read
    none of them, or lacks one of several.
    """
    files = sorted(path.glob("*.safetensors"))
    names = {f.name for f in files}
    if _WHOLE in names or (path / INDEX).is_file():
        if _WHOLE not in names:
            _refuse_missing_parts(name, path, names)
        return files
    if files:
        raise ModelError(
            f"Model {name}: expected {_WHOLE}, found {', '.join(sorted(names)[:4])}. "
            f"Give the weights that name: rename the file, or save the model anew."
        )
    pickles = sorted(p.name for p in [*path.glob("*.bin"), *path.glob("*.pt")])
    if pickles:
        raise ModelError(
            f"Model {name}: its weights are a pickle ({pickles[0]}), which can run code when it is "
            "read. Expected model.safetensors; convert it: "
            "AutoModel.from_pretrained(...).save_pretrained(folder)"
        )
    raise ModelError(f"Model {name}: expected {_WHOLE}, found {listing(path)}.")


def files_read(name: str, path: Path) -> list[Path]:
    """Of a model's weight files, those that transformers reads: the whole, or the parts of the
    index; a copy in another precision beside them is none.
    """
    files = weight_files(name, path)
    if any(f.name == _WHOLE for f in files):
        return [path / _WHOLE]
    listed = json.loads((path / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
    return [f for f in files if f.name in set(listed)]


def _refuse_missing_parts(name: str, path: Path, there: Iterable[str]) -> None:
    try:
        listed = json.loads((path / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        parts = {str(v) for v in listed}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(
            f"Model {name}: {INDEX} does not say which file holds which tensor. Copy it again."
        ) from None
    missing = sorted(parts - set(there))
    if missing:
        raise ModelError(
            f"Model {name}: {INDEX} lists {len(parts)} files, of which {missing[0]} is missing"
            f"{f' (and {len(missing) - 1} more)' if len(missing) > 1 else ''}. Copy or download it."
        )


def listing(path: Path) -> str:
    """The first names in a folder, for a message."""
    names = sorted(p.name for p in path.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def tensors(name: str, file: Path) -> dict[str, TensorEntry]:
    """Shape, type and place of each tensor in a safetensors file, from its header.

    Raises ModelError for a file that is not one, that was cut short, or whose header is not of its
    bytes.
    """
    try:
        size = file.stat().st_size
    except OSError as e:
        raise ModelError(f"Model {name}: expected {file.name}, found none ({e.strerror}).") from e
    fault = f"Model {name}: {file.name} ({size:,} bytes) "
    again = "Download or copy it again (git-lfs leaves a small text file in a weight file's place)."
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\xff"))
        if length > size - 8:
            raise ModelError(f"{fault}is not a safetensors file. {again}")
        try:
            header: dict[str, TensorEntry] = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            odd = [name for name, entry in header.items() if not _is_entry(entry)]
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise ModelError(f"{fault}is not a safetensors file. {again}") from None
    if odd:
        raise ModelError(
            f"{fault}says nothing sensible of {odd[0][:80]!r}: expected its type, its shape and "
            f"its bytes, which belong together. {again}"
        )
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end != size:
        raise ModelError(f"{fault}was cut short or altered: expected {end:,} bytes. {again}")
    return header


def _is_entry(entry: object) -> bool:
    """Whether a header's entry is a tensor whose bytes are as many as its type and shape ask for.

    Of types that are packed below a byte, or newer than this, the number of bytes is not known.
    """
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]}:
            counts = [*shape, begin, end]
            if not all(type(n) is int and n >= 0 for n in counts) or begin > end:
                return False
            width = _BYTES.get(dtype)
            return width is None or end - begin == width * math.prod(shape)
    return False


def wrapper_of(names: Iterable[str]) -> str:
    """What a wrapper put before all names; "" where there is nothing of that kind before all."""
    first = {match.group() if (match := re.match(WRAPPER, n)) else "" for n in names}
    return first.pop() if len(first) == 1 else ""


def refuse_not_finite(name: str, files: Iterable[Path]) -> None:
    """Raise ModelError naming a tensor in which something is no finite number."""
    for file in files:
        header = tensors(name, file)
        if not header:
            continue
        ends = [entry["data_offsets"][1] for entry in header.values()]
        data = (
            np.memmap(file, mode="r", offset=file.stat().st_size - max(ends)) if max(ends) else None
        )
        bad = [
            n for n, entry in header.items() if data is not None and _has_not_finite(data, entry)
        ]
        if bad:
            more = f" and {len(bad) - 1} other tensors" if len(bad) > 1 else ""
            raise ModelError(
                f"Model {name}: {bad[0]}{more} in {file.name} holds NaN or infinity, so that every "
                "answer would be nothing. Save the model again from a training that did not "
                "diverge, or download it again."
            )


def _has_not_finite(data: NDArray[np.uint8], entry: TensorEntry) -> bool:
    kind = _EXPONENTS.get(str(entry.get("dtype")))
    if kind is None:
        return False
    begin, end = entry["data_offsets"]
    bits = data[begin:end].view(kind[0])
    mask = bits.dtype.type(kind[1])
    parts = (bits[i : i + _NUMBERS_AT_A_TIME] for i in range(0, len(bits), _NUMBERS_AT_A_TIME))
    return any(bool(((part & mask) == mask).any()) for part in parts)
