"""The cache is a help and never a condition; damage is seen; code is the user's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import damages
from tunelab.core import cache
from tunelab.core.errors import ConfigError
from tunelab.kernels import build
from tunelab.report import page


@pytest.mark.parametrize("damage", ["missing", *damages.BYTES])
def test_an_entry_is_what_was_kept_or_nothing(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    entry = tmp_path / "x.npy"
    assert cache.keep(entry, b"some content") is None
    assert cache.kept(entry) == b"some content"
    assert cache.is_whole(entry)
    assert not caplog.records
    damages.damaged(entry, damage)
    assert cache.kept(entry) is None
    assert not cache.is_whole(entry)
    # Each is said, but for what is not there.
    assert len(caplog.messages) == (0 if damage == "missing" else 2)
    assert all(m.startswith(f"{entry}: is damaged") for m in caplog.messages)
    assert cache.keep(entry, b"again") is None
    assert cache.kept(entry) == b"again"


def test_a_file_written_in_parts_is_an_entry_once_sealed(tmp_path: Path) -> None:
    entry = tmp_path / "x.bin"
    entry.write_bytes(b"a" * 3_000_000)
    cache.seal_entry(entry)
    assert cache.is_whole(entry)
    assert cache.kept(entry) == b"a" * 3_000_000


def test_what_cannot_be_kept_is_said_and_nothing_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "embeddings" / "x.npy"
    assert "cannot be written" in str(cache.keep(inside, b"x"))
    assert "cannot be written" in str(cache.keep(inside, b"x", bounded=False))
    assert cache.kept(inside) is None
    assert not cache.is_whole(inside)
    monkeypatch.setenv("TUNELAB_CACHE_GB", "1e-9")
    assert "TUNELAB_CACHE_GB" in str(cache.keep(tmp_path / "x.npy", b"some content"))
    assert not (tmp_path / "x.npy").exists()


def test_making_room_takes_no_file_that_is_none_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_CACHE_GB", "1e-6")
    for name in ("thesis.doc", "x.npy", "x.json"):
        (tmp_path / name).write_bytes(b"x" * 800)
    assert cache.make_room(tmp_path, 900) is None
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


# --- code -----------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the compiled kernels in a cache of its own, and a file in it."""
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "c"))
    monkeypatch.delenv("TUNELAB_KERNELS", raising=False)
    monkeypatch.setattr(build, "build", _built)
    path, why = build.library()
    assert why is None
    assert path is not None
    return path


def _built(to: Path) -> None:
    """Stands for the compiler, which takes half a minute."""
    to.unlink(missing_ok=True)
    to.write_bytes(b"built here")
    cache.seal_entry(to)
    to.chmod(0o600)


def test_kernels_are_loaded_from_the_cache_as_they_were_built(
    library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = library.stat().st_mtime_ns
    assert build.library() == (library, None)
    assert library.stat().st_mtime_ns == before
    assert library.parent.stat().st_mode & 0o777 == 0o700
    for damage in ("empty", "flipped", "text"):
        damages.damaged(library, damage)
        assert build.library() == (library, None)
        assert cache.kept(library) == b"built here"
    assert len(caplog.messages) == 3


def _written_by_others(library: Path) -> None:
    library.chmod(0o666)


def _a_link(library: Path) -> None:
    library.rename(library.with_name("elsewhere"))
    library.symlink_to(library.with_name("elsewhere"))


def _of_another(library: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(library, 65534, 65534)


@pytest.mark.parametrize("planted", [_written_by_others, _a_link, _of_another])
def test_a_library_that_others_may_have_written_is_built_anew(
    library: Path, planted: object, caplog: pytest.LogCaptureFixture
) -> None:
    library.write_bytes(b"evil")
    cache.seal_entry(library)
    planted(library)  # type: ignore[operator]
    assert build.library() == (library, None)
    assert cache.kept(library) == b"built here"
    assert "built anew" in caplog.text


def _open_folder(library: Path) -> None:
    library.parent.chmod(0o777)


def _open_cache(library: Path) -> None:
    library.parent.parent.chmod(0o777)


def _linked_folder(library: Path) -> None:
    elsewhere = library.parents[2] / "elsewhere"
    library.parent.rename(elsewhere)
    library.parent.symlink_to(elsewhere)
    elsewhere.chmod(0o777)


@pytest.mark.parametrize("opened", [_open_folder, _open_cache, _linked_folder])
def test_no_code_is_loaded_from_a_folder_that_others_can_write_to(
    library: Path, opened: object, caplog: pytest.LogCaptureFixture
) -> None:
    opened(library)  # type: ignore[operator]
    path, why = build.library()
    assert path is None
    assert "others can write to" in str(why)
    assert "slower" in caplog.text


def test_a_named_library_is_refused_where_others_can_write_to_it(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = library.rename(library.with_name("named.so"))
    monkeypatch.setenv("TUNELAB_KERNELS", str(named))
    assert build.library() == (named, None)
    named.chmod(0o666)
    with pytest.raises(ConfigError, match=r"TUNELAB_KERNELS=.*others can write to .*chmod go-w"):
        build.library()


def test_the_bundle_of_charts_is_what_was_kept_or_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path))
    page._bundle.cache_clear()
    bundle = page._bundle()
    (entry,) = (tmp_path / "machine").glob("vega-*")
    cache.keep(entry, b"evil()", bounded=False)
    for spoil in (lambda: entry.chmod(0o666), lambda: entry.write_bytes(b"evil()")):
        spoil()
        page._bundle.cache_clear()
        assert page._bundle() == bundle
    assert cache.kept(entry) == bundle.encode()
