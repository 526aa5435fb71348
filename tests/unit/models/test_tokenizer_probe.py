"""A tokenizer that would never end, or eat all memory, is refused by a process that is ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny import make_tiny
from tunelab.core.errors import ModelError
from tunelab.core.values import Artifact
from tunelab.models import bases, exported, lengths, pretrained, tokenizer_probe

DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
BOMBS: dict[str, dict[str, Any]] = {
    "doubled forty times": {"normalizer": {"type": "Sequence", "normalizers": [DOUBLING] * 40}},
    "one letter becomes many": {
        "normalizer": {**DOUBLING, "content": "a" * 400_000},
    },
    "a pattern that tries every way": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "(a+)+$"},
            "behavior": "Removed",
            "invert": False,
        }
    },
}
HARMLESS = {"normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}}


def with_parts(folder: Path, parts: dict[str, Any]) -> Path:
    file = make_tiny(folder, "bert") / "tokenizer.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**said, **parts}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused(bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_probe, "_SECONDS", 1)
    base = bases.resolve(str(with_parts(tmp_path / "b", BOMBS[bomb])))
    for _ in range(2):  # what was refused is not remembered as fine
        with pytest.raises(ModelError, match=r"its tokenizer\.json cannot be used") as e:
            pretrained.load_tokenizer(base)
        assert "\n" not in str(e.value)


def test_a_pattern_that_ends_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = bases.resolve(str(with_parts(tmp_path / "b", HARMLESS)))
    pretrained.load_tokenizer(base)
    monkeypatch.setattr(tokenizer_probe.subprocess, "run", pytest.fail)
    assert pretrained.load_tokenizer(base).tokenize("a  film") == ["a", "film"]


def test_nothing_is_imported_from_the_folder_that_one_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = bases.resolve(str(with_parts(tmp_path / "b", HARMLESS)))
    (base.path / "tokenizers.py").write_text("open('ran', 'w').close()\n")
    monkeypatch.chdir(base.path)
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "cache"))  # tried anew
    tokenizer_probe.refuse_endless("b", base.path)
    assert not (base.path / "ran").exists()


def test_whoever_reads_a_tokenizer_without_transformers_has_it_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_probe, "_SECONDS", 1)
    base = bases.resolve(str(with_parts(tmp_path / "b", BOMBS["doubled forty times"])))
    with pytest.raises(ModelError, match=r"its tokenizer\.json cannot be used"):
        lengths.count_tokens(base, ["a quiet film"])
    with pytest.raises(ModelError, match=r"its tokenizer\.json cannot be used"):
        exported.FileTokenizer(
            Artifact(base.path, {"kind": "onnx", "label_names": [], "files": {}})
        )
