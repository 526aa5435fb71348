"""Every file and folder that appears whole: made beside its place, then renamed; and a lock.

What has its name is on the disk (`sync`): a power cut a moment later finds it there, whole.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from tunelab.core.errors import ConfigError

__all__ = [
    "HOLDER",
    "SET_ASIDE",
    "Draft",
    "folder_bytes",
    "json_bytes",
    "locked",
    "make_folder",
    "replacing",
    "replacing_folder",
    "put_back",
    "put_in_place",
    "scratch_folder",
    "set_aside",
    "sync",
    "write_bytes",
    "write_json",
    "write_text",
]


# Behind the name of a folder whose place another takes, with a dot before it.
SET_ASIDE = ".before"


# --- on the disk ----------------------------------------------------------------------------


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk before going on.

    Without it the system writes within half a minute, names before content: after a power cut,
    files that had been finished were there, and empty.
    """
    if path.is_dir() and os.name == "nt":
        return  # a folder cannot be opened there
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as e:
        if e.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(handle)


# What some file systems (of a network, of a virtual machine) answer, which have no such thing.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)


def _sync_below(folder: Path) -> None:
    """Have all of a folder on the disk: its files, then the folders from the innermost on."""
    for where, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(where) / name
            if not file.is_symlink():
                sync(file)
        sync(Path(where))


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are not there, each named on the disk."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync(made.parent)


# --- atomic writing -------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: into a neighbour first, then renamed over `path`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, as `write_text` does."""
    make_folder(path.parent)
    with replacing(path) as beside:
        beside.write_bytes(content)


class Draft:
    """A new file beside `path`, to write into: it takes that place whole, or is given up.

    Until then what was there stays; several processes may do so at once. Its name begins with a
    dot. `private`: readable by its owner alone, and not worth waiting for the disk: of a cache.
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
            sync(self.file)
        self.file.replace(self._path)
        if not self._private:
            sync(self._path.parent)

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
    except BaseException as e:
        draft.give_up()
        if isinstance(e, OSError) and e.filename is None:  # of a write: the system names no file
            e.filename = str(path)
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
        make_folder(place.parent)
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
    aside = set_aside(place)
    _sync_below(folder)
    if place.exists():
        _remove(aside)
        place.replace(aside)
    try:
        folder.replace(place)
    except BaseException:
        if aside.exists() and not place.exists():
            aside.replace(place)
        raise
    sync(place.parent)
    _remove(aside)


def put_back(place: Path) -> None:
    """What a process that was killed in `put_in_place` had put aside gets its place back, or goes
    where another has taken it.
    """
    place = place.absolute()
    aside = set_aside(place)
    if not aside.is_dir():
        return
    if place.exists():
        _remove(aside)
    else:
        aside.replace(place)
        sync(place.parent)


def set_aside(place: Path) -> Path:
    """Where a folder lies while another takes its place."""
    return place.with_name(f".{place.name}{SET_ASIDE}")


def _remove(folder: Path) -> None:
    """Remove a folder; of a link to one, the link; or a file that has its name."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that any reader takes: no NaN, keys in the order given, a final newline."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """What `write_json` writes."""
    return f"{json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode()


def folder_bytes(directory: Path) -> int:
    """Total size in bytes of the files below a folder."""
    return sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())


# --- locks ----------------------------------------------------------------------------------


HOLDER = ".running.json"  # in a folder that is locked: who has it


@contextmanager
def locked(study: Path) -> Iterator[None]:
    """Keep every other process from running trials in this folder meanwhile.

    The lock is the system's, on the folder itself: it ends with the process, however that ends.
    `HOLDER` says who has it, and is the lock where the file system has none: that of a process that
    is no more is taken over. Raises ConfigError where another process has it.
    """
    make_folder(study)
    holder = study / HOLDER
    with ExitStack() as inside:
        had = _lock(study, inside)
        if had is False or (had is None and _still_runs(_holder_in(holder))):
            raise ConfigError(
                f"{study}: another tunelab is running trials in this folder"
                f"{_holder_in_words(_holder_in(holder))}. Wait until it ends, or choose another "
                "with --output-dir."
            )
        with suppress(OSError):  # it is a help: a disk that is full is said by what has to be there
            now = datetime.now().astimezone().isoformat(" ", "seconds")
            said = {"process": os.getpid(), "host": platform.node(), "since": now}
            holder.write_bytes(json_bytes(said))
        try:
            yield
        finally:
            with suppress(OSError):
                holder.unlink(missing_ok=True)


def _holder_in(path: Path) -> dict[str, object]:
    """What the holder of a folder said of itself; nothing where that cannot be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _holder_in_words(said: dict[str, object]) -> str:
    if not said:
        return ""
    return f" (process {said.get('process')} on {said.get('host')}, since {said.get('since')})"


def _still_runs(said: dict[str, object]) -> bool:
    """Whether the process that holds a folder runs, as far as can be known from this machine."""
    process = said.get("process")
    elsewhere = said.get("host") != platform.node() or os.name == "nt"
    if elsewhere or not isinstance(process, int) or process < 1 or process == os.getpid():
        return False
    try:
        os.kill(process, 0)  # asks, and sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # of another user
    return True


@contextmanager
def scratch_folder(prefix: str, near: Path | None = None) -> Iterator[Path]:
    """Give a folder of this process alone, whose name begins so; it is removed in the end.

    Near what it is for, or among the system's temporary folders. Those of this user that a killed
    process left there go first: nobody holds their lock.
    """
    where = near or Path(tempfile.gettempdir())
    for left in where.glob(f"{glob.escape(prefix)}*"):
        with ExitStack() as inside, suppress(OSError):
            about = left.lstat()
            if not stat.S_ISDIR(about.st_mode) or (_USER and about.st_uid != _USER()):
                continue
            if _lock(left, inside):
                shutil.rmtree(left, ignore_errors=True)
    # It has its name once it is locked: until then no other process sees that nobody holds it.
    made = Path(tempfile.mkdtemp(prefix=f".new{prefix}", dir=where))
    with ExitStack() as inside:
        folder = made
        try:
            _lock(made, inside)
            folder = made.rename(made.with_name(made.name.removeprefix(".new")))
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


_USER = getattr(os, "geteuid", None)


def _lock(folder: Path, inside: ExitStack) -> bool | None:
    """Lock a folder as long as the stack is open; False: another process has it locked.

    None where the system, or this file system, has no such locks: whether another process has the
    folder cannot be known.
    """
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(folder, os.O_RDONLY)
    inside.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        if e.errno not in _CANNOT_LOCK:
            raise
        return None
    return True


_CANNOT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
