"""Speeds that an earlier study has kept help an estimate; damaged ones are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunelab.study import estimate

OTHERS = (None, "x", [], {}, -1, 0, 1e300, True, [1])


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("key", ["work", "seconds"])
def test_speeds_that_are_no_numbers_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, other: object
) -> None:
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path))
    (tmp_path / "machine").mkdir()
    good = {"work": 10.0, "seconds": 2.0}
    kept = {"a/1/all/bert/lora": good, "b/1/all/bert/lora": {**good, key: other}, "c": good, "d": 1}
    (tmp_path / "machine" / "speeds.json").write_text(json.dumps(kept))
    assert estimate._known_speeds() == {"a/1/all/bert/lora": 5.0}
