"""Every atomic write: beside its place, then renamed; JSON, text, bytes; and a folder's lock."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunelab.core.errors import ConfigError

__all__ = [
    "folder_bytes",
    "locked",
    "replacing",
    "write_bytes",
    "write_json",
    "write_text",
]


# --- atomic writing -------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: into a neighbour first, then renamed over `path`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, as `write_text` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_bytes(content)


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Give a new file beside `path`, to write into: it takes that place in the end, whole.

    On any error it is removed, and what was there stays; several processes may do so at once.
    `private`: readable by its owner alone.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        if not private:
            # mkstemp makes the file private; a result is as readable as any other of the user's.
            umask = os.umask(0)
            os.umask(umask)
            beside.chmod(0o666 & ~umask)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON that any reader takes: no NaN, keys in the order given, a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def folder_bytes(directory: Path) -> int:
    """Total size in bytes of the files below a folder."""
    return sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())


@contextmanager
def locked(study: Path) -> Iterator[None]:
    """Keep every other process from running trials in this folder meanwhile.

    The lock is the system's, on the folder itself: it ends with the process, however that ends.
    Raises ConfigError where another process has it.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    study.mkdir(parents=True, exist_ok=True)
    handle = os.open(study, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{study}: another tunelab is running trials in this folder. Wait until it ends, "
                "or choose another with --output-dir."
            ) from None
        yield
    finally:
        os.close(handle)
