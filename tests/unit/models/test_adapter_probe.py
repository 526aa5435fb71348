"""Files of a classifier that lead the libraries astray: one line, in time, whoever reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunelab
from adapters_made import make_adapter, make_model
from tunelab.core.artifact import seal_again
from tunelab.core.errors import TunelabError
from tunelab.models import adapter_probe
from tunelab.models.text_classifier import open_classifier


def said_of(folder: Path, scores_only: bool) -> str:
    with pytest.raises(TunelabError) as refused:
        open_classifier(folder, scores_only=scores_only).predict(["a good film"])
    assert "\n" not in str(refused.value)
    return str(refused.value)


def change(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file, and say that it was saved so."""
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)
    file.write_text(json.dumps(content), encoding="utf-8")
    seal_again(file.parent, {})


ADAPTERS: dict[str, tuple[dict[str, Any], str]] = {
    "a rank that is not there": ({"r": 10**6}, "its rank is 1,000,000"),
    "no rank": ({"r": 0}, "positive integer"),
    "layers without end": ({"layer_replication": [[0, 2]] * 10_000}, "20,000 layers of 2"),
    "iterations without end": ({"init_lora_weights": "pissa_niter_1000000000"}, "iterations"),
    "targets that take for ever": ({"target_modules": "(((a*)*)*)*[^b]$|(.*.*.*)*z"}, "more than"),
    "ranks that take for ever": ({"rank_pattern": {"(.*.*.*.*.*)*z": 2}}, "more than"),
}  # fmt: skip


@pytest.mark.parametrize("scores_only", [True, False])
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_config_that_asks_for_too_much_is_refused(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, scores_only: bool
) -> None:
    monkeypatch.setattr(adapter_probe, "_SECONDS_TO_MATCH", 1)
    other, said = ADAPTERS[name]
    make_adapter(tmp_path / "a", tiny_bert, ("bad", "good"), 1)
    change(tmp_path / "a" / "adapter_config.json", lambda c: c.update(other))
    assert said in said_of(tmp_path / "a", scores_only)


def test_patterns_of_peft_are_read_as_ever(tiny_bert: Path, tmp_path: Path) -> None:
    make_adapter(tmp_path / "a", tiny_bert, ("bad", "good"), 1)
    before = tunelab.load(tmp_path / "a").predict_proba(["a good film"])
    targets = json.loads((tmp_path / "a" / "adapter_config.json").read_text())["target_modules"]
    pattern = rf".*\.({'|'.join(targets)})"
    change(tmp_path / "a" / "adapter_config.json", lambda c: c.update(target_modules=pattern))
    assert (tunelab.load(tmp_path / "a").predict_proba(["a good film"]) == before).all()


def _beyond(content: dict[str, Any]) -> None:
    content["model"]["vocab"]["with"] = 10_000


MODELS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "no heads": ("config.json", lambda c: c.update(num_attention_heads=0)),
    "heads that do not divide": ("config.json", lambda c: c.update(num_attention_heads=7)),
    "layers without end": ("config.json", lambda c: c.update(num_hidden_layers=10**7)),
    "layers that the file cannot hold": (
        "config.json",
        lambda c: c.update(num_hidden_layers=999),
    ),
    "a width without end": ("config.json", lambda c: c.update(hidden_size=10**9)),
    "a token beyond the embedding": ("tokenizer.json", _beyond),
}


@pytest.mark.parametrize("scores_only", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_files_that_do_not_fit_each_other_are_refused(
    tiny_bert: Path, tmp_path: Path, name: str, scores_only: bool
) -> None:
    file, edit = MODELS[name]
    make_model(tmp_path / "m", tiny_bert, ("x", "y"), 3)
    change(tmp_path / "m" / file, edit)
    said_of(tmp_path / "m", scores_only)


@pytest.mark.parametrize("scores_only", [True, False])
@pytest.mark.parametrize("dtype", ["EVIL", 5])
def test_a_header_that_is_none_is_refused(
    tiny_bert: Path, tmp_path: Path, dtype: object, scores_only: bool
) -> None:
    make_model(tmp_path / "m", tiny_bert, ("x", "y"), 3)
    file = tmp_path / "m" / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    next(iter(v for k, v in header.items() if k != "__metadata__"))["dtype"] = dtype
    made = json.dumps(header).encode()
    file.write_bytes(len(made).to_bytes(8, "little") + made + content[8 + length :])
    seal_again(tmp_path / "m", {})
    said_of(tmp_path / "m", scores_only)
