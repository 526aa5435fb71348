"""What scores from a classifier's files alone, against the model that is loaded whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from commands import imported_by
from families import make_family
from tunelab.core.artifact import seal_again
from tunelab.core.errors import ArtifactError
from tunelab.methods import METHODS
from tunelab.methods.neural import adapted
from tunelab.models import bases, batches, pretrained
from tunelab.models.bare import BareClassifier
from tunelab.models.classifier import TransformerClassifier
from tunelab.models.families import FAMILIES
from tunelab.models.text_classifier import open_classifier

BARE = sorted(name for name, f in FAMILIES.items() if f.anatomy.tanh_head)
TEXTS = ["good film", "a", "", "the bad and the good " * 9, "zzz ü 映画", "film film film"] * 7


def saved(folder: Path, family: str, method: str, **settings: Any) -> Path:
    """A classifier with weights at random, adapters too."""
    base = bases.resolve(str(make_family(folder / "base", family)))
    row = METHODS[method]
    assert row.adapt is not None
    model, _ = adapted(base, ["a", "b", "c"], row.settings(**settings), row.adapt, seed=0)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.2
    tokenizer = pretrained.load_tokenizer(base)
    out = folder / "saved"
    out.mkdir()
    TransformerClassifier(model.eval(), tokenizer, ("a", "b", "c"), base.ref, 32, 64).save(out)
    return out


@pytest.mark.parametrize("family", BARE)
@pytest.mark.parametrize("method", ["full", "lora", "rslora"])
def test_scores_are_those_of_the_model(family: str, method: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, family, method)
    whole, bare = open_classifier(folder), open_classifier(folder, scores_only=True)
    assert isinstance(bare.classifier, BareClassifier)
    for precision in ("auto", "float32", "bfloat16"):
        ours, theirs = bare.computing_in(precision), whole.computing_in(precision)
        assert np.array_equal(ours.classifier.scores(TEXTS), theirs.classifier.scores(TEXTS))
    cut = batches.count_longer(whole.classifier.tokenizer, TEXTS, 32)
    assert bare.predict_proba_and_cut(TEXTS)[1] == whole.predict_proba_and_cut(TEXTS)[1] == cut > 0
    assert bare.classifier.scores([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("family", "method", "settings"),
    [
        ("bert", "dora", {}),
        ("bert", "lora", {"bias": "all"}),
        ("bert", "ia3", {}),
        ("electra", "lora", {}),
    ],
)
def test_what_is_not_known_by_heart_is_loaded_whole(
    family: str, method: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = saved(tmp_path, family, method, **settings)
    assert isinstance(open_classifier(folder, scores_only=True).classifier, TransformerClassifier)


@pytest.mark.parametrize("lost", ["layer.1", "classifier.bias", "query.lora_B", None])
def test_an_adapter_with_other_tensors_is_refused_as_ever(lost: str | None, tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert", "lora")
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    kept = {n: t.clone() for n, t in tensors.items() if lost is None or lost not in n}
    if lost is None:
        kept["base_model.model.bert.odd.weight"] = torch.ones(2)
    save_file(kept, file, {"format": "pt"})
    seal_again(folder, {})
    with pytest.raises(ArtifactError, match=r"lacks|no place|does not fit"):
        open_classifier(folder, scores_only=True)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_predict_imports_no_transformers_and_no_peft(method: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert", method)
    assert imported_by("predict", folder, "a film") <= {"torch", "tokenizers"}


def test_another_activation_is_left_to_transformers(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert", "full")
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_act": "relu"}))
    seal_again(folder, {})
    opened = open_classifier(folder, scores_only=True)
    assert isinstance(opened.classifier, TransformerClassifier)
