"""A file or a folder appears whole or not at all, wherever its making is stopped."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tunelab.core import cache, files
from tunelab.core.artifact import read_manifest
from tunelab.core.errors import ArtifactError, ConfigError
from tunelab.exporting.merging import new_folder


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder that is there, with a file."""
    place = tmp_path / "x"
    place.mkdir()
    (place / "old").write_text("old")
    return place


def stop_half_way(
    making: AbstractContextManager[Path | tuple[Path, Path]], error: type[BaseException]
) -> None:
    with making as given:
        draft = given if isinstance(given, Path) else given[0]
        (draft / "half" if draft.is_dir() else draft).write_text("half")
        raise error


# --- what a power cut leaves -----------------------------------------------------------------


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is asked of the disk, in order: ("sync", name) and ("rename", new name)."""
    said: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.replace

    def synced(handle: int) -> None:
        said.append(("sync", Path(f"/proc/self/fd/{handle}").readlink().name))
        fsync(handle)

    def renamed(self: Path, target: Path) -> Path:
        said.append(("rename", target.name))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    return said


@pytest.mark.skipif(sys.platform != "linux", reason="reads names of open files from /proc")
def test_content_is_on_the_disk_before_its_name_and_the_name_before_going_on(
    tmp_path: Path, log: list[tuple[str, str]]
) -> None:
    files.write_text(tmp_path / "new" / "x", "content")
    # The folder's own name, the content, the name of the file.
    (_, parent), (_, draft), *rest = log
    assert parent == tmp_path.name
    assert draft.startswith(".x.")
    assert rest == [("rename", "x"), ("sync", "new")]
    log.clear()
    with files.replacing_folder(tmp_path / "folder") as filled:
        (filled / "inner").mkdir()
        for name in ("a", "inner/b"):
            (filled / name).write_text(name)
    at = log.index(("rename", "folder"))
    assert {name for what, name in log[:at] if what == "sync"} >= {"a", "b", "inner", filled.name}
    assert log[at + 1 :] == [("sync", tmp_path.name)]


def test_scratch_of_a_killed_process_is_swept_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom tunelab.core import files\n"
        "with files.scratch_folder('mine-', Path(sys.argv[1])) as folder:\n"
        "    (folder / 'x').touch()\n    print(folder.name, flush=True)\n    input()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    theirs = other.stdout.readline().strip()
    (tmp_path / "mine-link").symlink_to(tmp_path)
    with files.scratch_folder("mine-", tmp_path) as folder:
        assert {p.name for p in tmp_path.iterdir()} == {theirs, folder.name, "mine-link"}
    other.kill()
    other.communicate()
    with files.scratch_folder("mine-", tmp_path) as folder:
        assert {p.name for p in tmp_path.iterdir()} == {folder.name, "mine-link"}
    assert names(tmp_path) == ["mine-link"]


def test_scratch_that_may_be_of_a_living_process_stays_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with files.scratch_folder("mine-", tmp_path) as theirs:
        (theirs / "x").touch()
        with files.scratch_folder("mine-", tmp_path):
            assert (theirs / "x").is_file()
    assert names(tmp_path) == []
    with files.locked(tmp_path):  # a study runs there all the same
        pass


# --- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("locks", [True, False])
def test_the_lock_of_a_dead_process_is_taken_over_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    if not locks:  # as on some file systems of a network
        monkeypatch.setattr(files, "_lock", lambda *_: None)
    code = "import sys, time; from pathlib import Path; from tunelab.core import files\n" \
           "with files.locked(Path(sys.argv[1])): print(1, flush=True); time.sleep(60)"  # fmt: skip
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ConfigError, match=rf"\(process {other.pid} on .*, since 20\d\d-"):  # noqa: SIM117
            with files.locked(tmp_path):
                pass
    finally:
        other.kill()
        other.communicate()
    assert (tmp_path / files.HOLDER).is_file()
    with files.locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / files.HOLDER).read_text()
    assert names(tmp_path) == []


def test_a_file_takes_its_place_and_can_be_read_by_others(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "x") as draft:
        draft.write_text("new")
        assert names(tmp_path) == [draft.name]
        assert draft.name.startswith(".x.")
    assert names(tmp_path) == ["x"]
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    with files.replacing(tmp_path / "y", private=True) as draft:
        draft.write_text("new")
    assert stat.S_IMODE((tmp_path / "y").stat().st_mode) == 0o600


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_file_that_is_given_up_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException]
) -> None:
    (tmp_path / "x").write_text("old")
    with pytest.raises(error):
        stop_half_way(files.replacing(tmp_path / "x"), error)
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_a_draft_that_nobody_finished_makes_room_in_the_cache(tmp_path: Path) -> None:
    fresh, stale = files.Draft(tmp_path / "x.bin"), files.Draft(tmp_path / "x.bin")
    os.utime(stale.file, (1, 1))
    assert cache.make_room(tmp_path, 1) is None
    assert names(tmp_path) == [fresh.file.name]


# --- folders --------------------------------------------------------------------------------


def test_a_folder_takes_its_place(tmp_path: Path) -> None:
    with files.replacing_folder(tmp_path / "x") as draft:
        (draft / "new").write_text("new")
        assert names(tmp_path) == [draft.name, f"{draft.name}/new"]
    assert names(tmp_path) == ["x", "x/new"]
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o755


def test_a_folder_takes_the_place_of_another(old: Path) -> None:
    with files.replacing_folder(old) as draft:
        (draft / "new").write_text("new")
        assert (old / "old").is_file()
    assert names(old.parent) == ["x", "x/new"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_folder_that_is_given_up_leaves_what_was_there(
    old: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        stop_half_way(files.replacing_folder(old), error)
    assert names(old.parent) == ["x", "x/old"]


def test_a_folder_that_is_given_up_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stop_half_way(files.replacing_folder(tmp_path / "a" / "x", tmp_path), KeyboardInterrupt)
    assert names(tmp_path) == []


@pytest.mark.parametrize("stops_at", [1, 2])
def test_a_rename_that_fails_leaves_what_was_there(
    old: Path, monkeypatch: pytest.MonkeyPatch, stops_at: int
) -> None:
    rename, renamed = Path.replace, 0

    def stopping(self: Path, target: Path) -> Path:
        nonlocal renamed
        renamed += 1
        if renamed == stops_at:
            raise OSError("no more")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", stopping)
    with pytest.raises(OSError, match="no more"), files.replacing_folder(old) as draft:
        (draft / "new").write_text("new")
    assert names(old.parent) == ["x", "x/old"]


def test_of_a_process_that_is_killed_one_of_both_is_left_whole(old: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from tunelab.core import files\n"
        "rename = Path.replace\n"
        "def dying(self, target):\n"
        "    rename(self, target)\n"
        "    os._exit(9)\n"
        "Path.replace = dying\n"
        "with files.replacing_folder(Path(sys.argv[1])) as draft:\n"
        "    (draft / 'new').write_text('new')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(old)], check=False)
    assert done.returncode == 9
    assert (old.parent / f".x{files.SET_ASIDE}" / "old").read_text() == "old"
    with files.replacing_folder(old) as draft:  # whoever comes next clears it away
        (draft / "new").write_text("new")
    assert [n for n in names(old.parent) if files.SET_ASIDE in n] == []
    assert (old / "new").is_file()


def test_what_a_killed_process_put_aside_comes_back_or_goes(old: Path) -> None:
    aside = files.set_aside(old)
    old.rename(aside)  # killed between its two renames
    with pytest.raises(ArtifactError, match=rf"put it aside: rename {aside.name}"):
        read_manifest(old)
    files.put_back(old)
    assert names(old.parent) == ["x", "x/old"]
    aside.mkdir()  # killed while it removed what it had replaced
    files.put_back(old)
    assert names(old.parent) == ["x", "x/old"]


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        pytest.raises(OSError, match=r"No space left on device: .*kept\.json"),
        files.replacing(tmp_path / "kept.json") as beside,
    ):
        full(beside)


def test_a_link_to_a_folder_is_replaced_and_the_folder_stays(old: Path) -> None:
    link = old.with_name("link")
    link.symlink_to(old)
    with files.replacing_folder(link) as draft:
        (draft / "new").write_text("new")
    assert names(old.parent) == ["link", "link/new", "x", "x/old"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_made_artifact_that_is_given_up_leaves_not_even_a_parent(
    old: Path, error: type[BaseException]
) -> None:
    out = old.parent / "a" / "b"
    with pytest.raises(error):
        stop_half_way(new_folder(out, [old]), error)
    assert names(old.parent) == ["x", "x/old"]
    with new_folder(out, [old]) as (draft, place):
        assert place == out
        (draft / "whole").write_text("whole")
    assert names(out) == ["whole"]
