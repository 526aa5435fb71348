"""A study on a Ray cluster, which is started on this machine and loses its slots on the way."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import tunelab
from tunelab.core import study_folder
from tunelab.study.executors import slot

pytest.importorskip("ray", reason="needs ray")
pytestmark = pytest.mark.slow


def kill_slots() -> int:
    """End the processes of all slots at once, as a node that fails does."""
    killed = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.name().startswith("ray::Slot"):
                process.kill()
                killed += 1
    return killed


def test_a_study_survives_its_slots_and_is_the_same_as_without_a_cluster(
    reviews_csv: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    notes: list[str] = []
    killed: list[int] = []

    def hear(event: Mapping[str, object]) -> None:
        if event["event"] == "note":
            notes.append(str(event["text"]))
        if event["event"] == "start" and not killed:
            killed.append(kill_slots())

    same = {"model": tiny_bert, "methods": ["lora"], "seeds": 2, "tuning": False,
            "num_train_epochs": 1, "max_length": 32}  # fmt: skip
    there = tunelab.compare(
        reviews_csv, engine="ray", address="local", output_dir=tmp_path / "there", on_event=hear,
        **same,
    )  # fmt: skip
    assert killed[0] >= 1
    assert any("was lost" in n and "for the second time of 3" in n for n in notes), notes
    here = tunelab.compare(
        reviews_csv, engine="process", jobs=2, output_dir=tmp_path / "here", **same
    )
    assert not there.record.failed
    for a, b in zip(there.record.results, here.record.results, strict=True):
        assert a.spec == b.spec
        assert a.scores == b.scores
        kept = [study_folder.artifact_dir(s.directory, a.spec.trial_id) for s in (there, here)]
        files = [slot.read_content(k) for k in kept]
        for content in files:
            del content["README.md"]  # it tells what the trial cost
        assert files[0] == files[1]
    assert sorted(p.name for p in there.directory.iterdir()) == sorted(
        p.name for p in here.directory.iterdir()
    )
