"""Details and provenance of results: typed in Python, and on disk as they ever were."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunelab.core import study_folder
from tunelab.core.details import (
    BaseRef,
    Details,
    DomainScores,
    FrozenLayers,
    Hardware,
    Provenance,
    Pruned,
    Scoring,
    Seeds,
    Trained,
    Transfer,
)
from tunelab.core.values import TrialResult

BEFORE = Path(__file__).parents[2] / "fixtures" / "before"
TRIALS = sorted(p.parent for p in BEFORE.rglob("trials/*/result.json"))


def test_there_are_results_of_before() -> None:
    assert len(TRIALS) > 40


@pytest.mark.parametrize("trial", TRIALS, ids=lambda p: f"{p.parents[1].name}-{p.name}")
def test_a_result_of_before_is_written_again_byte_for_byte(trial: Path, tmp_path: Path) -> None:
    shutil.copytree(trial, tmp_path / "trials" / trial.name)
    result = study_folder.read_result(tmp_path, trial.name)
    assert result is not None
    again = tmp_path / "again"
    again.mkdir()
    study_folder.write_trial(again, result, (), {})
    for name in ("spec.json", "result.json"):
        assert (again / name).read_bytes() == (trial / name).read_bytes()
    written = json.loads((trial / "result.json").read_text())
    assert dict(result.details) == written["details"]
    assert dict(result.provenance) == written["provenance"]


FULL = Details(
    Trained(
        best_epoch=2,
        epochs=3,
        steps=60,
        padding=0.1,
        stack_reason="apart",
        engine="packed",
        precision="float32",
        precision_reason="asked for",
        kernels="torch",
        frozen_layers=FrozenLayers(1, 2, True, "each step", "dropout"),
        device="cpu",
        head_modules=["classifier"],
        weight_bytes=10,
        quantization="bitsandbytes 0.50",
    ),
    own={"ranks": {"query": 3}},
    per_class={"test": {"good": {"f1": 0.5}}},
    confusion={"test": [[1, 0], [0, 1]]},
    transfer={
        "o.csv": Transfer(
            "o.csv", 3, "ab", {"accuracy": None}, {"accuracy": "why"}, {"x": DomainScores(1, {})}
        )
    },
    scoring=Scoring("fast", None, True, "float32"),
)
COMES_FROM = Provenance(
    tunelab="1",
    versions={"python": "3.12"},
    hardware=Hardware("p", 2, None, "Linux"),
    stack=2,
    base=BaseRef("b", "ab"),
    seeds=Seeds(1, 2, 3),
    started="2026-12-01T00:00:00+00:00",
    seconds=1.5,
)


@pytest.mark.parametrize(
    "value",
    [
        Details(),
        FULL,
        Details(Trained(epochs=1), pruned=Pruned(1, 0.5, 0.6)),
        Details(traceback="Traceback"),
        Details(own={"C": 0.1}, from_cache=False),
        Provenance(),
        COMES_FROM,
    ],
)
def test_what_is_written_is_read_back(value: Details | Provenance) -> None:
    text = json.dumps(value.to_json())
    read = type(value).from_json(json.loads(text))
    assert json.dumps(read.to_json()) == text
    assert read == value


def test_keys_lie_where_they_always_lay() -> None:
    assert list(FULL.to_json()) == [
        "best_epoch", "epochs", "steps", "padding", "stack_reason", "engine", "engine_reason",
        "precision", "precision_reason", "kernels", "frozen_layers", "device", "head_modules",
        "weight_bytes", "quantization", "ranks", "per_class", "confusion", "transfer", "scoring",
    ]  # fmt: skip
    assert FULL.to_json()["scoring"]["in"] == "float32"
    frozen = FULL.to_json()["frozen_layers"]
    assert list(frozen) == ["layers", "of", "dropout", "computed", "why"]
    assert COMES_FROM.to_json()["revision"] is None
    assert list(COMES_FROM.to_json()["hardware"]) == [
        "processor", "cores", "memory_bytes", "system",
    ]  # fmt: skip


def test_scripts_may_read_by_key(tmp_path: Path) -> None:
    assert FULL["weight_bytes"] == FULL.get("weight_bytes") == 10
    assert "quantization" in FULL
    assert "traceback" not in FULL
    assert {**COMES_FROM}["base"] == {"name": "b", "sha256": "ab", "code_sha256": None}


def test_an_old_study_lacks_what_came_later() -> None:
    old = Provenance.from_json({"versions": {"python": "3.11"}, "threads": 2, "seconds": 1.0})
    assert (old.jobs, old.measured_alone, old.base) == (None, None, None)
    assert Details.from_json({"tried": [], "C": 1.0}).own == {"tried": [], "C": 1.0}


def test_a_result_says_which_details_differ() -> None:
    assert replace(FULL, from_cache=True) != FULL
    assert TrialResult.__dataclass_fields__["details"].default_factory is Details


@pytest.mark.parametrize(
    "value",
    [
        {"frozen_layers": None},
        {"pruned": {"epoch": 1, "value": 0.5, "below": 0.6, "later": 1}},
        {"transfer": None},
    ],
)
def test_what_a_later_version_wrote_is_read(value: dict[str, Any]) -> None:
    read = Details.from_json(value)
    assert Details.from_json(read.to_json()) == read


def test_hardware_of_a_later_version_is_read() -> None:
    there = Provenance.from_json({"hardware": {"processor": "p", "cores": 8, "later": 1}})
    assert there.hardware.processor == "p"
    assert there.to_json()["hardware"] == {"processor": "p", "cores": 8}
