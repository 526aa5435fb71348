"""What a cluster's slot is given and gives back, without a cluster."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tiny import reviews, write_csv
from tunelab import data, study
from tunelab.core import study_folder
from tunelab.core.errors import ConfigError
from tunelab.core.events import Started
from tunelab.core.sent import SENT_VARIABLE, place_of_sent
from tunelab.core.values import BaseRef, DataSpec
from tunelab.data.sent import key_of_rows, rows_to_send
from tunelab.models import bases
from tunelab.study import resolve
from tunelab.study.executors import slot
from tunelab.study.executors.cluster import _room_of


def test_rows_that_were_sent_are_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a folder of parts and of a file: the same data set, though the source is gone."""
    parts = tmp_path / "parts"
    parts.mkdir()
    for part, seed in (("train", 1), ("test", 2)):
        write_csv(parts / f"{part}.csv", reviews(40, seed), ["text", "label"])
    lines = "".join(json.dumps({"text": t, "label": k}) + "\n" for t, k in reviews(50, 3))
    (tmp_path / "x.jsonl").write_text(lines)
    for source in (parts, tmp_path / "x.jsonl"):
        spec = DataSpec(str(source))
        before = data.load(spec)
        place = place_of_sent(tmp_path / "sent", "rows", key_of_rows(spec))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(rows_to_send(spec))
        source.rename(source.with_name("gone" + source.suffix))
        with monkeypatch.context() as m:
            m.setenv(SENT_VARIABLE, str(tmp_path / "sent"))
            after = data.load(spec)
        assert (after.fingerprint, after.notes) == (before.fingerprint, before.notes)


def test_a_base_that_was_sent_keeps_its_name(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base = bases.resolve(str(tiny_bert))
    ref = replace(base.ref, name="/nowhere/here")
    content = {name: path.read_bytes() for name, path in bases.files_to_send(base).items()}
    slot.write_content(place_of_sent(tmp_path, "bases", ref.sha256), content)
    monkeypatch.setenv(SENT_VARIABLE, str(tmp_path))
    there = bases.resolve_exactly(ref, Path("a trial"))
    assert there.ref == ref
    assert bases.weight_shapes(there) == bases.weight_shapes(base)


def test_files_go_nowhere_but_into_their_folder(tmp_path: Path):
    slot.write_content(tmp_path / "in", {"a/b": b"1"})
    assert slot.read_content(tmp_path / "in") == {"a/b": b"1"}
    for name in ("../out", "/etc/out", "a/../../out"):
        with pytest.raises(ValueError, match="leads out"):
            slot.write_content(tmp_path / "in", {name: b"2"})
    assert not (tmp_path / "out").exists()


def test_machines_whose_results_would_differ_are_told_apart():
    here = slot.installed()
    assert not here.differences(slot.installed())
    older = replace(here, versions={**here.versions, "torch": "1.0"})
    assert here.differences(older) == [f"torch 1.0 instead of {here.versions['torch']}"]
    assert here.differences(replace(here, code="x")) == ["another tunelab of the same version"]
    other = replace(here, compiler=not here.compiler)
    assert "other kernels" in here.differences(other)[0]


@pytest.mark.parametrize(
    ("has", "takes", "room"),
    [
        ({"CPU": 8.0, "GPU": 1.0}, {"cpu": 2.0, "gpu": 0.25}, 4),
        ({"CPU": 8.0}, {"cpu": 2.0}, 4),
        ({"CPU": 8.0}, {"cpu": 1.0, "gpu": 1.0}, 0),
        ({"CPU": 0.0}, {"cpu": 1.0}, 0),
        ({"CPU": 1.0}, {"cpu": 0.1}, 10),
        ({"CPU": 4.0, "memory": 8e9}, {"cpu": 1.0, "memory": 4e9}, 2),
    ],
)
def test_a_node_has_room_for_so_many(has: dict[str, float], takes: dict[str, float], room: int):
    assert _room_of(has, takes) == room


@pytest.mark.parametrize(
    "said",
    ["cpu", "cpu=", "cpu=x", "cpu=0", "gpu=-1", "=2", "cpu=1.5", "tpu=0.5", "cpu=inf", "cpu=nan"],
)
def test_resources_that_are_none_are_refused(said: str):
    with pytest.raises(ConfigError, match="resources: expected names with whole numbers"):
        resolve.resolve_study(None, {"data.source": "demo", "resources": said})


def test_another_engine_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"'dask' is no place where trials run.*process"):
        resolve.resolve_study(None, {"data.source": "demo", "engine": "dask"})


@pytest.mark.slow
def test_a_slot_needs_nothing_of_the_disk(tiny_bert: Path, tmp_path: Path):
    """Rows and base are gone once they were sent; what is trained is what was trained here."""
    base = shutil.copytree(tiny_bert, tmp_path / "base")
    rows = write_csv(tmp_path / "r.csv", reviews(80), ["text", "label"])
    keys = {"data.source": str(rows), "model": str(base), "methods": ["lora"], "seeds": 1}
    keys |= {"tuning": False, "jobs": 1, "output_dir": str(tmp_path / "here")}
    spec = resolve.resolve_study(None, keys, {"num_train_epochs": 1, "max_length": 32})
    plan = study.plan(spec)
    (trial,) = study.read_progress(plan).trials
    assert isinstance(trial.base, BaseRef)
    ref = trial.base
    content = {n: p.read_bytes() for n, p in bases.files_to_send(bases.resolve(str(base))).items()}
    sent = rows_to_send(trial.data)
    study.write(study.read_progress(plan), "test")
    (mine,) = study.run(study.scheduled(plan), lambda _: None, engine="process")
    assert mine.status == "done", mine.error
    rows.unlink()
    shutil.rmtree(base)
    bases.resolve.cache_clear()
    one = slot.Slot(["lora"], 1)
    try:
        assert one.about([ref])[1] == (ref.sha256,)
        one.take("rows", key_of_rows(trial.data), sent)
        one.take("bases", ref.sha256, content)
        one.begin(slot.SentStack((trial,), "accuracy", {}, 2))
        heard, until = [one.listen()], time.monotonic() + 120
        while heard[-1].ended is None and time.monotonic() < until:
            heard.append(one.listen())
    finally:
        one.close()
    ended = heard[-1].ended
    assert ended is not None
    assert not ended.fault
    assert heard[0].events[0] == Started(trial.trial_id)
    (theirs,) = ended.results
    assert theirs.status == "done", theirs.error
    assert theirs.scores == mine.scores
    assert theirs.provenance.jobs == 2
    folder = tmp_path / "back" / "trials" / trial.trial_id
    slot.write_content(folder, (ended.files or {})[trial.trial_id])
    a = study_folder.read_predictions(tmp_path / "back", trial.trial_id)
    b = study_folder.read_predictions(tmp_path / "here", trial.trial_id)
    assert all(np.array_equal(a[k].scores, b[k].scores) for k in ("validation", "test"))
    kept = tmp_path / "here" / "trials" / trial.trial_id / "artifact"
    assert slot.read_content(folder / "artifact") == slot.read_content(kept)
