"""What plain peft saved gives peft's own logits here: every configuration, heads by any name, added
tokens, and a newer version's settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tunelab
from families import make_family
from others import make_unknown
from tunelab.core.errors import ArtifactError, ModelError
from tunelab.models import pretrained

pytestmark = pytest.mark.filterwarnings("ignore")
TEXTS = ["a good film", "the plot of it was very cold and grim", "a"]
CLASSES = 3

# A configuration for sequence classification each: peft's class, and what it is given.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "adalora": ("AdaLoraConfig", {"total_step": 1}),
    "adamss": ("AdamssConfig", {"r": 8}),
    "beft": ("BeftConfig", {}),
    "boft": ("BOFTConfig", {}),
    "c3a": ("C3AConfig", {"block_size": 1}),
    "deft": ("DeftConfig", {}),
    "delora": ("DeloraConfig", {"r": 2}),
    "fourierft": ("FourierFTConfig", {"n_frequency": 10}),
    "frod": ("FrodConfig", {"sparse_rate": 0.01}),
    "glora": ("GloraConfig", {}),
    "gralora": ("GraloraConfig", {}),
    "hira": ("HiraConfig", {}),
    "hra": ("HRAConfig", {}),
    "ia3": ("IA3Config", {}),
    "ia3, its own layers": ("IA3Config", {"target_modules": r".*(query|q_proj|value|v_proj)",
                                          "feedforward_modules": []}),
    "ln tuning": ("LNTuningConfig", {"target_modules": r".*(LayerNorm|_layernorm)"}),
    "loha": ("LoHaConfig", {"target_modules": r".*(query|q_proj|value|v_proj)"}),
    "lokr": ("LoKrConfig", {"target_modules": r".*(query|q_proj|value|v_proj)"}),
    "lora": ("LoraConfig", {"r": 4}),
    "lora on all layers": ("LoraConfig", {"r": 4, "target_modules": "all-linear"}),
    "lora with biases": ("LoraConfig", {"r": 4, "bias": "all"}),
    "lora with dropout": ("LoraConfig", {"r": 4, "lora_dropout": 0.5}),
    "lora with ranks by layer": ("LoraConfig", {"r": 4, "rank_pattern": {"layer.*0.*": 2}}),
    "lora with tokens": ("LoraConfig", {"r": 4, "trainable_token_indices": [2, 90, 91]}),
    "dora": ("LoraConfig", {"r": 4, "use_dora": True}),
    "rslora": ("LoraConfig", {"r": 4, "use_rslora": True}),
    "miss": ("MissConfig", {"r": 2}),
    "oft": ("OFTConfig", {}),
    "p-tuning": ("PromptEncoderConfig", {"num_virtual_tokens": 5, "encoder_hidden_size": 32}),
    "peanut": ("PeanutConfig", {"r": 8, "depth": 1, "act_fn": "relu"}),
    "prefix tuning": ("PrefixTuningConfig", {"num_virtual_tokens": 5}),
    "prompt tuning": ("PromptTuningConfig", {"num_virtual_tokens": 5}),
    "psoft": ("PsoftConfig", {"r": 16, "psoft_alpha": 16}),
    "pvera": ("PveraConfig", {"r": 4}),
    "randlora": ("RandLoraConfig", {"r": 4}),
    "road": ("RoadConfig", {"variant": "road_1", "group_size": 2}),
    "shira": ("ShiraConfig", {"r": 1, "init_weights": False}),
    "tiny lora": ("TinyLoraConfig", {}),
    "vblora": ("VBLoRAConfig", {"vector_length": 1, "num_vectors": 2}),
    "vera": ("VeraConfig", {"r": 8, "save_projection": True}),
    "waveft": ("WaveFTConfig", {"n_frequency": 8}),
}  # fmt: skip
FAMILIES = ("bert", "roberta", "llama")
ALL = [(c, f) for c in CONFIGS for f in FAMILIES]
SAMPLE = [("lora", "bert"), ("ia3", "roberta"), ("dora", "llama"), ("prompt tuning", "llama"),
          ("lora with tokens", "roberta"), ("ln tuning", "llama")]  # fmt: skip


def classifier_on(base: Path) -> Any:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=CLASSES)
    tokenizer = pretrained.load_tokenizer_from(base, "base")
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model


def saved_by_peft(folder: Path, base: Path, config: Any, tokens: tuple[str, ...] = ()) -> Path:
    """An adapter with drawn weights, as peft saves it."""
    model = classifier_on(base)
    if tokens:
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(list(tokens))
        tokenizer.save_pretrained(folder)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tuned = peft.get_peft_model(model, config)
    for p in tuned.parameters():
        if p.requires_grad and p.is_floating_point():
            p.data += torch.randn_like(p) * 0.2
    with pretrained.quiet():
        tuned.save_pretrained(folder)
    return folder


def pefts_logits(folder: Path, base: Path, tokens: bool = False) -> np.ndarray:
    """Of TEXTS, each by itself, from the folder alone."""
    model = classifier_on(base)
    tokenizer = AutoTokenizer.from_pretrained(folder if tokens else base)
    if tokens:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tuned: Any = peft.PeftModel.from_pretrained(model, folder).eval()
    out = []
    for text in TEXTS:
        asked = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            out.append(tuned(**asked).logits[0].numpy())
    return np.stack(out)


def answers_as_peft(
    folder: Path, base: Path, tokens: bool = False, texts: list[str] = TEXTS
) -> Any:
    loaded = tunelab.load(folder)
    ours = loaded.computing_in("float32").classifier.scores(texts)
    np.testing.assert_allclose(ours, pefts_logits(folder, base, tokens), atol=2e-5)
    return loaded


def check(name: str, family: str, home: Path) -> None:
    base = make_family(home / "base", family)
    kind, given = CONFIGS[name]
    config = getattr(peft, kind)(task_type="SEQ_CLS", **given)
    answers_as_peft(saved_by_peft(home / "adapter", base, config), base)


@pytest.mark.parametrize(("name", "family"), SAMPLE)
def test_a_sample_of_pefts_configurations(name: str, family: str, tmp_path: Path) -> None:
    check(name, family, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), ALL)
def test_every_configuration_of_peft(name: str, family: str, tmp_path: Path) -> None:
    check(name, family, tmp_path)


def test_an_adapter_whose_scores_depend_on_the_batch_is_refused(tmp_path: Path) -> None:
    """Lily routes by the mean over all tokens of a batch: no text has scores of its own."""
    base = make_family(tmp_path / "base", "bert")
    config = peft.LilyConfig(task_type="SEQ_CLS", r=8, stride_A=1, num_B=2)
    loaded = tunelab.load(saved_by_peft(tmp_path / "adapter", base, config))
    with pytest.raises(ModelError, match="gives a text other scores beside other texts"):
        loaded.predict(TEXTS)


@pytest.mark.parametrize("model_type", ["xlnet", "xlm", "openai-gpt", "deberta"])
def test_a_head_by_any_name(model_type: str, tmp_path: Path) -> None:
    """Whatever was saved in full is the head: logits_proj, a summary, a pooler."""
    base = make_unknown(tmp_path / "base", model_type)
    model = classifier_on(base)
    heads = [n for n, m in model.named_children()
             if n != model.base_model_prefix and any(True for _ in m.parameters())]  # fmt: skip
    config = peft.LoraConfig(
        task_type="SEQ_CLS", target_modules="all-linear", modules_to_save=heads
    )
    loaded = answers_as_peft(saved_by_peft(tmp_path / "adapter", base, config), base)
    assert len(loaded.label_names) == CLASSES


def test_settings_of_a_newer_peft_are_noted(tmp_path: Path) -> None:
    base = make_family(tmp_path / "base", "bert")
    folder = saved_by_peft(tmp_path / "adapter", base, peft.LoraConfig(task_type="SEQ_CLS", r=4))
    file = folder / "adapter_config.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**said, "peft_version": "99.1.0", "use_brand_new": False}))
    loaded = answers_as_peft(folder, base)
    (note,) = [n for n in loaded.notes if "99.1.0" in n]
    assert "newer than the" in note
    assert "use_brand_new left out" in note


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_vocabulary_that_grew(family: str, tmp_path: Path, monkeypatch: Any) -> None:
    base = make_family(tmp_path / "base", family)
    more = tuple(f"word{i}" for i in range(12))
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules="all-linear")
    folder = saved_by_peft(tmp_path / "adapter", base, config, tokens=more)
    monkeypatch.setattr("test_foreign_adapters.TEXTS", ["a word3 film", "word11", "good"])
    answers_as_peft(folder, base, tokens=True, texts=TEXTS)


def test_tokens_that_nobody_saved_a_row_for_are_refused(tmp_path: Path) -> None:
    base = make_family(tmp_path / "base", "bert")
    folder = saved_by_peft(tmp_path / "adapter", base, peft.LoraConfig(task_type="SEQ_CLS", r=4))
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"word{i}" for i in range(12)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(
        ArtifactError, match=r"the token 'word11' with the number 1\d\d, but the emb"
    ):
        tunelab.load(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    answers_as_peft(folder, base)


def test_a_whole_classifiers_tokens_have_rows_too(tmp_path: Path) -> None:
    base = make_family(tmp_path / "base", "bert")
    classifier_on(base).save_pretrained(tmp_path / "whole")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"word{i}" for i in range(12)])
    tokenizer.save_pretrained(tmp_path / "whole")
    with pytest.raises(ArtifactError, match=r"the token 'word11' with the number"):
        tunelab.load(tmp_path / "whole")
