"""The compiled library, loaded: fused kernels, each with a twin in torch that computes the same.

`kernels/cpp` is compiled when it is first needed (`build`). Where there is no compiler (or
TUNELAB_KERNELS=off), and for types other than float32 and bfloat16, the twins run.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tunelab.core.errors import ConfigError
from tunelab.kernels import abi, build

__all__ = [
    "at",
    "available",
    "built",
    "give_back",
    "keep_memory",
    "pick",
    "why_not",
]

_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.uint8: "uint8"}


# --- loading --------------------------------------------------------------------------------


@functools.cache
def _library() -> tuple[Mapping[str, Callable[..., None]] | None, str | None]:
    """The compiled kernels, or None and why there are none."""
    path, why = build.library()
    try:
        return (None, why) if path is None else (abi.load_functions(path), None)
    except OSError as e:
        return None, build.not_built(str(e))
    except abi.AbiError as e:
        if not build.named_library():
            raise
        raise ConfigError(
            f"TUNELAB_KERNELS={path} is of another version of tunelab: {e}. "
            "Name one that was built from this version, or unset TUNELAB_KERNELS."
        ) from e


def available() -> bool:
    """Whether the compiled kernels run here; builds them when asked for the first time."""
    return _library()[0] is not None


def why_not() -> str | None:
    """Say why the twins in torch run; None where the compiled kernels do."""
    return _library()[1]


def built(dtype: torch.dtype) -> str:
    """What computes in this type on this processor, for the record."""
    why = why_not()
    if why is not None:
        return why
    if pick("sublayers", torch.empty(0, dtype=dtype)) is None:
        return "compiled"
    on_tiles = dtype == torch.bfloat16 and pick("product", torch.empty(0)) is not None
    return f"compiled, {'matrix tiles' if on_tiles else 'wide vectors'}"


def pick(name: str, *tensors: torch.Tensor | None) -> Any:
    """The compiled kernel for these tensors, or None: then something else has to run."""
    kind, given = None, [t for t in tensors if t is not None]
    for t in given:
        if not t.is_cpu or t.dtype is not given[0].dtype:
            return None
        kind = _TYPES.get(t.dtype)
    library, _ = _library()
    return None if library is None or kind is None else library.get(f"{name}_{kind}")


def at(t: torch.Tensor | None) -> int | None:
    """Where a tensor lies, as the kernels take it."""
    return None if t is None else t.data_ptr()


def give_back() -> None:
    """Ask the C library to give back what is free in it. Only glibc has this."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_memory() -> None:
    """Ask the C library to keep freed memory for the next step instead of giving it back.

    Each step frees and takes the same hundreds of megabytes; giving them back costs a page fault
    for every 4 kB. Only glibc has this; elsewhere nothing happens.
    """
    trim, mmap, pad = -1, -3, -2  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_TOP_PAD of <malloc.h>
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((trim, 2**31 - 1), (mmap, 32 * 2**20), (pad, 64 * 2**20)):
            mallopt(option, value)
