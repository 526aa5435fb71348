"""Every file and folder that appears whole: made beside its place, then renamed; and a lock."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunelab.core.errors import ConfigError

__all__ = [
    "SET_ASIDE",
    "Draft",
    "folder_bytes",
    "locked",
    "replacing",
    "replacing_folder",
    "put_in_place",
    "write_bytes",
    "write_json",
    "write_text",
]


# Behind the name of a folder whose place another takes, with a dot before it.
SET_ASIDE = ".before"


# A file system (some network's) that has no locks says so.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


# --- atomic writing -------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: into a neighbour first, then renamed over `path`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, as `write_text` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_bytes(content)


class Draft:
    """A new file beside `path`, to write into: it takes that place whole, or is given up.

    Until then what was there stays; several processes may do so at once. Its name begins with a
    dot. `private`: readable by its owner alone.
    """

    def __init__(self, path: Path, *, private: bool = False) -> None:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        self._path, self._private = path, private
        self.file = Path(name)

    def take_place(self) -> None:
        """Give the file its name, over what has it now."""
        if not self._private:
            # mkstemp makes the file private; a result is as readable as any other of the user's.
            umask = os.umask(0)
            os.umask(umask)
            self.file.chmod(0o666 & ~umask)
        self.file.replace(self._path)

    def give_up(self) -> None:
        """Remove the file."""
        self.file.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Give a new file beside `path`, to write into: it takes that place in the end (`Draft`).

    On any error it is removed, and what was there stays.
    """
    draft = Draft(path, private=private)
    try:
        yield draft.file
        draft.take_place()
    except BaseException:
        draft.give_up()
        raise


@contextmanager
def replacing_folder(place: Path, near: Path | None = None) -> Iterator[Path]:
    """Give a new, empty folder to fill: it takes its place in the end, whole (`put_in_place`).

    On any error it is removed, and what was there stays. `near`: the folder that it is made in,
    where that of its place may not be there yet; on the same disk.
    """
    place = place.absolute()  # of "." too, which has no name
    draft = Path(tempfile.mkdtemp(dir=near or place.parent, prefix=f".{place.name}."))
    try:
        draft.chmod(0o755)
        yield draft
        place.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(draft, place)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def put_in_place(folder: Path, place: Path) -> None:
    """Give a folder the place of another, which is there until then, and removed after.

    Between the two it is put aside (`SET_ASIDE` behind its name): whenever the process is killed,
    the one or the other is whole.
    """
    place = place.absolute()
    aside = place.with_name(f".{place.name}{SET_ASIDE}")
    if place.exists():
        _remove(aside)
        place.replace(aside)
    try:
        folder.replace(place)
    except BaseException:
        if aside.exists() and not place.exists():
            aside.replace(place)
        raise
    _remove(aside)


def _remove(folder: Path) -> None:
    """Remove a folder; of a link to one, the link."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


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
        except OSError as error:
            if error.errno in _NO_LOCKS:
                yield
                return
            if not isinstance(error, BlockingIOError):
                raise
            raise ConfigError(
                f"{study}: another tunelab is running trials in this folder. Wait until it ends, "
                "or choose another with --output-dir."
            ) from None
        yield
    finally:
        os.close(handle)
