"""Results that are kept on disk by content, for whoever needs them again.

A help and never a condition: nothing here raises because the cache is full, damaged, or cannot be
written. Each entry ends with the SHA-256 of what stands before it; one that is another's is said
(logger "tunelab") and made anew. What is run as code has to be of this user alone (`distrust`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tunelab.core import files

__all__ = [
    "append",
    "distrust",
    "folder",
    "is_whole",
    "keep",
    "keep_json",
    "kept",
    "kept_json",
    "limit_bytes",
    "machine_folder",
    "make_room",
    "read_json",
    "replace",
    "tell",
    "seal_entry",
]


_LIMIT_GB = 4.0
# What a disk must have left, whatever the limit says.
_LEAVE_FREE = 1_000_000_000
# Entries that go to make room; their notes (.json) go with them, and what else lies there stays.
_BOUNDED = (".bin", ".npy")
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


def append(path: Path, line: bytes) -> None:
    """Add a line to a file that several processes add to: each line stays whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, flags, 0o600)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


# --- entries --------------------------------------------------------------------------------

_SEAL_BYTES = len("\nsha256 \n") + 64


def tell(line: str) -> None:
    """Say something of the cache, wherever this runs: a trial's process hands it on as a note."""
    logging.getLogger("tunelab").warning(line)


def keep(path: Path, content: bytes, *, bounded: bool = True) -> str | None:
    """Keep an entry, whole or not at all; None, or why it could not be kept.

    `bounded`: among entries that may hold so much together (`make_room`).
    """
    why = make_room(path.parent, len(content)) if bounded else None
    if why is None:
        try:
            replace(path, content + _seal_of(hashlib.sha256(content)))
        except OSError as e:
            why = f"{path.parent} cannot be written ({e.strerror})"
    return why


def kept(path: Path) -> bytes | None:
    """An entry's content; None where there is none, or it is not what was kept."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body, ending = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    if ending != _seal_of(hashlib.sha256(body)):
        tell(f"{path}: is damaged; what it held is made anew")
        return None
    with suppress(OSError):
        os.utime(path)  # what was not used for longest goes first
    return body


def keep_json(path: Path, value: object, *, bounded: bool = True) -> str | None:
    """As `keep`, of a value that JSON has."""
    return keep(path, json.dumps(value).encode(), bounded=bounded)


def kept_json(path: Path) -> Any:
    """As `kept`, of what `keep_json` kept."""
    content = kept(path)
    return None if content is None else json.loads(content)


def seal_entry(file: Path) -> None:
    """Make an entry of a file that was written in parts: its SHA-256 at its end."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    with file.open("ab") as stream:
        stream.write(_seal_of(digest))


def is_whole(path: Path) -> bool:
    """Whether an entry is there and as it was kept, without holding it in memory."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            left = os.fstat(stream.fileno()).st_size - _SEAL_BYTES
            while left > 0 and (part := stream.read(min(left, 1 << 20))):
                digest.update(part)
                left -= len(part)
            whole = stream.read() == _seal_of(digest)
    except OSError:
        return False
    if not whole:
        tell(f"{path}: is damaged; what it held is made anew")
    return whole


def _seal_of(digest: hashlib._Hash) -> bytes:
    return b"\nsha256 %s\n" % digest.hexdigest().encode()


# --- code -----------------------------------------------------------------------------------


def distrust(path: Path) -> str | None:
    """Why a file must not be run as code, in words; None where only this user can have written it.

    The file and its folder have to be of this user or of root, and others may not write to them,
    nor to a folder above, unless they cannot rename there what is not theirs (the sticky bit, as
    /tmp has it). A file that is a link is refused. One that is not there passes by its folders.
    """
    user = getattr(os, "geteuid", None)
    if user is None:
        return None
    folder = path.parent.resolve()
    for place in dict.fromkeys([path, folder, *path.absolute().parents, *folder.parents]):
        try:
            about = place.lstat()
        except FileNotFoundError:
            continue
        except OSError as e:
            return f"{place} cannot be looked at ({e.strerror})"
        if place in {path, folder} and about.st_uid not in {user(), 0}:
            return f"{place} belongs to another user"
        if stat.S_ISLNK(about.st_mode):
            if place == path:
                return f"{place} is a link"
            continue  # where it leads is looked at too
        sticky = about.st_mode & stat.S_ISVTX and place not in {path, folder}
        if _others_write(about) and not sticky:
            return f"others can write to {place} (chmod go-w)"
    return None


def _others_write(about: os.stat_result) -> bool:
    """Whether others than its owner may write, a group of the owner's own left out."""
    if about.st_mode & stat.S_IWOTH:
        return True
    return bool(about.st_mode & stat.S_IWGRP) and not _is_own_group(about.st_gid)


def _is_own_group(number: int) -> bool:
    """Whether a group is of this user alone, as most systems give each user one."""
    try:
        import grp
        import pwd

        me = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(number)
    except (ImportError, KeyError):
        return False
    return number == me.pw_gid and group.gr_name == me.pw_name and set(group.gr_mem) <= {me.pw_name}


# --- room -----------------------------------------------------------------------------------


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
            if unfinished or (held + needed > limit and file.suffix in _BOUNDED):
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
