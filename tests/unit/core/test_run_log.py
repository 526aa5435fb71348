"""What a study says while it runs, as others read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunelab.core.run_log import (
    RUN_LOG,
    LogReader,
    is_run_by_another,
    run_of_study,
    writing_run_log,
)

NASTY = "</script><b onclick=x>'\"&\u2028"


@pytest.mark.parametrize(
    "line",
    ["", "[]", "{}", "null", "[" * 9000, '{"process": -1, "machine": "x", "at": 1}',
     '{"process": "x", "machine": "x", "at": 1}', "\x00"],
)  # fmt: skip
def test_what_is_no_log_names_no_process(tmp_path: Path, line: str):
    (tmp_path / RUN_LOG).write_text(line + "\n")
    assert run_of_study(tmp_path) is None
    assert not is_run_by_another(tmp_path)


def test_a_log_is_read_as_it_is_written(tmp_path: Path):
    reader = LogReader(tmp_path)
    assert reader.new_lines() == []
    assert run_of_study(tmp_path) is None
    for number in range(2):  # each run writes it anew
        with writing_run_log(tmp_path) as write:
            assert is_run_by_another(tmp_path)
            write({"event": "note", "text": f"\ud800{NASTY}{number}"})
            first, second = map(json.loads, reader.new_lines())
            assert first["event"] == "run"
            assert second["text"] == f"?{NASTY}{number}"
            with (tmp_path / RUN_LOG).open("a") as half:
                half.write('{"event": ')
            assert reader.new_lines() == []  # half a line is none yet
        assert not is_run_by_another(tmp_path)
        run = run_of_study(tmp_path)
        assert run is not None
        assert run.is_here
