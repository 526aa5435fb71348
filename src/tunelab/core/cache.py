"""Results that are kept on disk by content, for whoever needs them again."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tunelab.core import files

__all__ = [
    "folder",
    "limit_bytes",
    "machine_folder",
    "make_room",
    "read_json",
    "replace",
]


_LIMIT_GB = 4.0
# What a disk must have left, whatever the limit says.
_LEAVE_FREE = 1_000_000_000
# A file that is being written is never so old.
_SECONDS_TO_WRITE = 86_400


def folder() -> Path:
    """Where reusable results are kept: TUNELAB_CACHE, or the user's cache folder."""
    named = os.environ.get("TUNELAB_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tunelab"


def machine_folder() -> Path:
    """Where what was built or measured on this machine is kept."""
    return folder() / "machine"


def replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, however many processes do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path, private=True) as beside:
        beside.write_bytes(data)


def limit_bytes() -> int:
    """How much a folder of `make_room` may hold: TUNELAB_CACHE_GB, or 4 GB."""
    try:
        return int(float(os.environ.get("TUNELAB_CACHE_GB", _LIMIT_GB)) * 1e9)
    except ValueError:
        return int(_LIMIT_GB * 1e9)


def make_room(where: Path, needed: int) -> str | None:
    """Make room for a file of `needed` bytes: the files not used for longest go. None, or why not.

    A file that another process has open can still be read there when it is gone from the folder.
    """
    limit = limit_bytes()
    if needed > limit:
        return (
            f"{needed / 1e9:.1f} GB is more than the cache may hold "
            f"({limit / 1e9:.1f} GB, TUNELAB_CACHE_GB)"
        )
    try:
        where.mkdir(parents=True, exist_ok=True)
        there = []
        for file in where.iterdir():
            with suppress(FileNotFoundError):  # another process made room
                about = file.stat()
                there.append((about.st_mtime, about.st_size, file))
        held = sum(size for _, size, _ in there)
        for touched, size, file in sorted(there):
            unfinished = file.name.startswith(".")  # a `files.Draft`
            if unfinished and time.time() - touched < _SECONDS_TO_WRITE:
                continue
            if unfinished or (held + needed > limit and file.suffix != ".json"):
                file.unlink(missing_ok=True)
                file.with_suffix(".json").unlink(missing_ok=True)
                held -= size
        free = shutil.disk_usage(where).free
    except OSError as e:
        return f"{where} cannot be written ({e.strerror})"
    if free - needed < _LEAVE_FREE:
        return f"{needed / 1e9:.1f} GB would fill the disk, which has {free / 1e9:.1f} GB left"
    return None


def read_json(path: Path) -> Any:
    """The value in a JSON file; None where there is none, or what is there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
