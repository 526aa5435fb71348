"""Folders that hold adapters by name, as peft writes one that is not called "default"."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from commands import run_here
from tiny import make_tiny
from tunelab.core.errors import ArtifactError
from tunelab.models import foreign, pretrained


def save(folder: Path, name: str) -> Path:
    base = make_tiny(folder.parent / "base", "bert")
    with pretrained.quiet():  # peft looks for the base's card on the hub, and says so
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
        config = LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
        get_peft_model(model, config, adapter_name=name).save_pretrained(folder)
    return folder


def test_a_named_adapter_is_found_in_its_folder(tmp_path: Path) -> None:
    folder = save(tmp_path / "adapters", "sentiment")
    assert foreign.open_folder(folder).directory == folder / "sentiment"
    done = run_here("predict", folder, "a film")
    assert (done.code, done.out.count("\n")) == (0, 1)
    assert f"Reads 'sentiment', the only adapter or classifier in {folder}." in done.err
    assert "Reads" not in run_here("predict", folder / "sentiment", "a film").err
    shutil.copytree(folder / "sentiment", folder / "topic")
    with pytest.raises(ArtifactError, match="'sentiment', 'topic'"):
        foreign.open_folder(folder)
    assert run_here("predict", folder / "topic", "a film").out == done.out
    shown = run_here("adapters", "show", folder)
    assert (shown.code, len(shown.faults)) == (2, 1)


def test_adapters_beside_the_one_that_is_read_are_said(tmp_path: Path) -> None:
    folder = save(tmp_path / "adapters", "default")
    shutil.copytree(folder, tmp_path / "copy")
    shutil.move(tmp_path / "copy", folder / "topic")
    notes = foreign.open_folder(folder).manifest["notes"]
    assert any("Other adapters in the folder: topic" in note for note in notes)
