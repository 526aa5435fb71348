"""Keys that were asked for are there, or the server does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunelab.core.errors import ConfigError
from tunelab.serving.keys import API_KEYS, read_keys


def test_keys_of_a_file_and_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("one\n\ntwo\n", encoding="utf-8")
    monkeypatch.delenv(API_KEYS, raising=False)
    assert read_keys(None) == ()
    assert read_keys(tmp_path / "keys") == ("one", "two")
    monkeypatch.setenv(API_KEYS, "three, one")
    assert read_keys(tmp_path / "keys") == ("three", "one", "two")


@pytest.mark.parametrize("nothing", ["", ",", " \n"])
def test_an_empty_place_of_keys_opens_no_server(
    nothing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(API_KEYS, nothing)
    with pytest.raises(ConfigError, match=f"{API_KEYS}: expected keys, found none"):
        read_keys(None)
