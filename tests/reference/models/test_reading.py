"""The token that a head reads, and where tokens stand: as transformers has it, pad ids or not.

A pad id may stand in a text: decoders pad with the token that texts end with, and anybody may write
"[PAD]". transformers' heads read the last token that is not the pad id; RoBERTa's positions skip
it. Training, scoring, merging and the saved folder in transformers must agree on both.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from families import DECODERS, FAMILY_NAMES, make_family
from tunelab import adapters
from tunelab.core.values import Seeds, Split
from tunelab.methods import METHODS, Task, fit_alone
from tunelab.models import bases, batches, embeddings, pretrained, scoring
from tunelab.models.packed import Packed

SEEDS = Seeds(1, 2, 3)
LABELS = ("bad", "good")
TEXTS = (
    "a good film",
    "a good film [SEP]",
    "a [SEP] good film [SEP] [SEP]",
    "[SEP]",
    "[SEP] [SEP] [SEP]",
    "a [PAD] good [PAD] [PAD] plot with warm scene",
    "[PAD] a dull plot [PAD]",
    "[PAD]",
    "the plot of the film was very very cold and the scene grim [SEP] and with it the actor",
    "",
)


def folder_of(path: Path, family: str) -> Path:
    """A tiny base; a decoder's tokenizer ends every text with the token that it pads with."""
    folder = make_family(path, family)
    if family in DECODERS:
        from tokenizers import Tokenizer, processors

        words = Tokenizer.from_file(str(folder / "tokenizer.json"))
        words.post_processor = processors.TemplateProcessing(
            single="$A [SEP]", special_tokens=[("[SEP]", 3)]
        )
        words.save(str(folder / "tokenizer.json"))
    return folder


def as_transformers(folder: Path, texts: tuple[str, ...], length: int) -> Any:
    """Logits of a saved classifier, each text by itself, by nothing of ours."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    out = []
    with torch.no_grad():
        for text in texts:
            asked = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
            asked.pop("token_type_ids", None)
            out.append(model(**asked).logits[0].double().numpy())
    return np.stack(out)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_way_of_computing_reads_what_transformers_reads(family: str, tmp_path: Path) -> None:
    base = bases.resolve(str(folder_of(tmp_path / family, family)))
    tokenizer: Any = pretrained.load_tokenizer(base)
    model: Any = pretrained.load_classifier(base, LABELS, 1)[0].eval()
    encoded = batches.encode(tokenizer, TEXTS, 32)
    rows = np.arange(len(TEXTS))
    with torch.no_grad():
        alone = [
            model(input_ids=torch.from_numpy(i)[None], attention_mask=torch.ones(1, len(i))).logits
            for i in encoded.ids
        ]
        theirs = torch.cat(alone).numpy()
        packed = Packed(model)
        with packed.installed():
            trained = packed(encoded, rows)[0].numpy()
    assert np.abs(theirs - theirs.mean(0)).max() > 1e-2  # they differ, so that it shows
    np.testing.assert_allclose(trained, theirs, atol=2e-5)
    for precision in ("float32", "auto"):
        ready = scoring.prepare(model, precision=precision)
        assert ready.engine != "plain"
        scored = ready(encoded, int(tokenizer.pad_token_id), 8)
        np.testing.assert_allclose(scored, theirs, atol=2e-5 if precision == "float32" else 1e-3)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_vectors_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    base = bases.resolve(str(folder_of(tmp_path / family, family)))
    model = pretrained.load_encoder(base)
    encoded = batches.encode(pretrained.load_tokenizer(base), TEXTS, 32)
    with torch.no_grad():
        asked = (torch.from_numpy(i)[None] for i in encoded.ids)
        states = [
            model(input_ids=a, attention_mask=torch.ones_like(a)).last_hidden_state for a in asked
        ]
    theirs = {"mean": [s[0].mean(0) for s in states], "cls": [s[0, 0] for s in states]}
    for pooling, rows in theirs.items():
        ours = embeddings.Embedder(base, pooling, 32)(TEXTS)
        np.testing.assert_allclose(ours, torch.stack(rows).numpy(), atol=2e-5)


@pytest.mark.parametrize("engine", ["auto", "plain"])
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama", "qwen2"])
def test_what_is_trained_scores_as_its_folder_in_transformers(
    family: str, engine: str, tmp_path: Path
) -> None:
    base = bases.resolve(str(folder_of(tmp_path / family, family)))
    classifier = trained("full", base, engine)
    classifier.save(tmp_path / "saved")
    ours = replace(classifier, precision="float32").scores(TEXTS[:-1])
    theirs = as_transformers(tmp_path / "saved", TEXTS[:-1], 32)
    np.testing.assert_allclose(ours, theirs, atol=5e-5)


@pytest.mark.parametrize("family", ["roberta", "gpt2", "llama", "qwen3"])
def test_what_is_merged_scores_as_its_folder_in_transformers(family: str, tmp_path: Path) -> None:
    base = bases.resolve(str(folder_of(tmp_path / family, family)))
    classifier = trained("lora", base, "auto")
    classifier.save(tmp_path / "adapter")
    made = adapters.merge(tmp_path / "adapter", tmp_path / "merged", TEXTS)
    assert made.change.acceptable
    ours = replace(classifier, precision="float32").scores(TEXTS[:-1])
    theirs = as_transformers(tmp_path / "merged", TEXTS[:-1], 32)
    np.testing.assert_allclose(ours, theirs, atol=5e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "roberta"])
def test_both_engines_train_the_same_function(family: str, tmp_path: Path) -> None:
    base = bases.resolve(str(folder_of(tmp_path / family, family)))
    packed, plain = (trained("full", base, e).scores(TEXTS) for e in ("auto", "plain"))
    np.testing.assert_allclose(packed, plain, atol=2e-3)


def trained(method: str, base: bases.Base, engine: str) -> Any:
    """A classifier after four epochs on texts whose class stands before the token they end with."""
    row = METHODS[method]
    texts = tuple(f"{TEXTS[i % 6]} {('dull', 'warm')[i % 2]} [SEP]" for i in range(16))
    part = Split(tuple(map(str, range(16))), texts, np.arange(16) % 2)
    settings = row.settings(
        engine=engine, precision="float32", num_train_epochs=4, max_length=32,
        per_device_train_batch_size=8, learning_rate=3e-3, metric_for_best_model="loss",
    )  # fmt: skip
    base_of_no_dropout(base)
    task = Task(LABELS, part, part, base, settings, SEEDS, "accuracy", lambda _: None)
    return fit_alone(row, task).classifier


def base_of_no_dropout(base: bases.Base) -> None:
    """Engines draw their masks in their own ways."""
    import json

    file = base.path / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    names = [k for k in config if k.endswith(("dropout", "dropout_prob", "pdrop", "drop"))]
    file.write_text(json.dumps({**config, **dict.fromkeys(names, 0.0)}), encoding="utf-8")
