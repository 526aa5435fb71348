"""Adapters as a user handles them, against peft and transformers themselves, on a tiny BERT."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import (
    AutoPeftModelForSequenceClassification,
    IA3Config,
    LoraConfig,
    PeftModel,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import tunelab
from commands import run_here
from tiny import BAD, GOOD, make_tiny
from tunelab import exporting
from tunelab.core.artifact import MANIFEST, seal, sha256
from tunelab.core.errors import ArtifactError, ModelError
from tunelab.core.values import Classifier, DataSpec, MethodSpec, Predictions, TrialSpec
from tunelab.exporting import merging
from tunelab.models import bases, foreign, pretrained
from tunelab.models.classifier import TransformerClassifier, stray_tensors
from tunelab.models.text_classifier import TextClassifier
from tunelab.serving import adapter_set
from tunelab.serving.adapter_set import AdapterSet
from tunelab.stats import calibration

TEXTS = [
    *(f"{w} film and the plot is {v} {i}" for i, (w, v) in enumerate(zip(GOOD, BAD, strict=True))),
    "a", "very lovely scene , the actor was grim !", "the " * 40,
]  # fmt: skip
TWO, THREE = ("bad", "good"), ("no", "maybe", "yes")
TARGETS = ["query", "value", "intermediate.dense"]


def lora(**more: Any) -> LoraConfig:
    settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, **more}
    return LoraConfig(task_type=TaskType.SEQ_CLS, modules_to_save=["classifier"], **settings)


def save_adapter(
    folder: Path,
    base: Path,
    labels: Sequence[str],
    config: Any = None,
    *,
    seed: int = 1,
    quantization: dict[str, Any] | None = None,
) -> Path:
    """An adapter with random, large weights, as if trained: peft starts LoRA's B at zero."""
    resolved = bases.resolve(str(base))
    model, _ = pretrained.load_classifier(resolved, labels, seed, quantization)
    with pretrained.quiet():
        wrapped = get_peft_model(model, config or lora())
    torch.manual_seed(seed)
    for name, p in wrapped.named_parameters():
        if p.requires_grad and "original_module" not in name:
            p.data.normal_(1.0 if "ia3" in name else 0.0, 0.3)
    wrapped.eval()
    tokenizer = pretrained.load_tokenizer(resolved)
    folder.mkdir(parents=True)
    TransformerClassifier(
        wrapped, tokenizer, tuple(labels), resolved.ref, 32, 16, quantization=quantization
    ).save(folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """Adapters a, b (two classes), c (three), ia3, prompt. Not to be changed: copy them first."""
    root = tmp_path_factory.mktemp("adapters")
    save_adapter(root / "a", tiny_bert, TWO)
    save_adapter(root / "b", tiny_bert, TWO, seed=2)
    save_adapter(root / "c", tiny_bert, THREE, seed=3)
    ia3 = IA3Config(task_type=TaskType.SEQ_CLS, modules_to_save=["classifier"],
                    target_modules=["key", "value", "output.dense"],
                    feedforward_modules=["output.dense"])  # fmt: skip
    save_adapter(root / "ia3", tiny_bert, TWO, ia3, seed=4)
    prompt = PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=3)
    save_adapter(root / "prompt", tiny_bert, TWO, prompt, seed=5)
    return root


def exact(classifier: TextClassifier) -> Classifier:
    return classifier.computing_in("float32").classifier


def scores(folder: Path) -> np.ndarray:
    return exact(tunelab.load(folder)).scores(TEXTS)


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def edit(path: Path, **more: Any) -> None:
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, **more}))


def reseal(folder: Path) -> None:
    """Write the checksums anew, as somebody would who changes files on purpose."""
    said = json.loads((folder / MANIFEST).read_text())
    facts = {k: v for k, v in said.items() if k not in {"files", "format", "tunelab"}}
    seal(folder, facts)


# --- merge ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "c", "ia3"])
def test_merged_predicts_the_same_and_the_original_is_untouched(
    home: Path, tmp_path: Path, name: str
):
    before = bytes_of(home / name)
    made = exporting.merge(home / name, tmp_path / "merged")
    assert bytes_of(home / name) == before
    assert np.abs(scores(tmp_path / "merged") - scores(home / name)).max() <= 1e-5
    assert made.change.flips == 0
    assert made.change.largest <= 1e-5
    assert made.change.texts == len(merging.sample_texts())
    manifest = tunelab.load(tmp_path / "merged").artifact.manifest
    own = tunelab.load(home / name).artifact.manifest
    assert manifest["kind"] == "model"
    assert manifest["base"] == own["base"]
    assert manifest["label_names"] == own["label_names"]
    weights = home / name / "adapter_model.safetensors"
    assert manifest["merged_from"]["sha256"] == sha256(weights)
    assert not list(tmp_path.glob(".merged*"))


@pytest.mark.parametrize("name", ["a", "c", "ia3"])
def test_the_change_reported_is_against_the_unmerged_adapter(home: Path, tmp_path: Path, name: str):
    made = exporting.merge(home / name, tmp_path / "merged", TEXTS)
    own: Any = tunelab.load(home / name).classifier
    unmerged = replace(own, precision="float32", merge=False).scores(TEXTS)
    true = np.abs(unmerged - scores(tmp_path / "merged")).max()
    # Rounding differs: a difference of exactly nothing is that of a merged copy from another.
    assert 0 < true < 1e-4
    assert made.change.largest == pytest.approx(true, rel=1e-6)


def test_merged_keeps_the_temperature_of_its_scores(home: Path, tmp_path: Path):
    shutil.copytree(home / "a", tmp_path / "a")
    rows = Predictions(
        tuple(map(str, range(200))),
        np.arange(200) % 2,
        np.random.default_rng(0).normal(size=(200, 2)),
        "logit",
    )
    calibration.write_calibration(tmp_path / "a", rows)
    made = exporting.merge(tmp_path / "a", tmp_path / "merged")
    assert calibration.read_temperature(made.artifact) == pytest.approx(
        calibration.fit_temperature(rows)
    )
    before = tunelab.load(tmp_path / "a").computing_in("float32").calibrated().predict_proba(TEXTS)
    after = (
        tunelab.load(tmp_path / "merged").computing_in("float32").calibrated().predict_proba(TEXTS)
    )
    assert np.abs(before - after).max() <= 1e-5


def test_merged_is_what_peft_itself_merges(home: Path, tmp_path: Path):
    exporting.merge(home / "a", tmp_path / "merged", TEXTS)
    with pretrained.quiet():  # peft 0.21 asks transformers for an attribute that is deprecated
        model = AutoPeftModelForSequenceClassification.from_pretrained(home / "a", num_labels=2)
        expected = model.merge_and_unload().state_dict()
    found = load_file(tmp_path / "merged" / "model.safetensors")
    assert set(found) == set(expected)
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def test_merged_loads_in_a_plain_pipeline_with_labels_and_no_warning(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    exporting.merge(home / "c", tmp_path / "merged", TEXTS)
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["id2label"] == {str(i): n for i, n in enumerate(THREE)}
    assert config["label2id"] == {n: i for i, n in enumerate(THREE)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classify = pipeline("text-classification", model=str(tmp_path / "merged"), top_k=None)
        found = classify(TEXTS, truncation=True)  # cut where the adapter's texts were cut
    assert not [r for r in caplog.records if r.levelname in {"WARNING", "ERROR"}]
    expected = tunelab.load(home / "c").predict_proba(TEXTS)
    for row, p in zip(found, expected, strict=True):
        by_label = {each["label"]: each["score"] for each in row}
        np.testing.assert_allclose([by_label[n] for n in THREE], p, atol=1e-5)


def test_merging_what_is_merged_says_so_and_changes_nothing(home: Path, tmp_path: Path):
    exporting.merge(home / "a", tmp_path / "merged", TEXTS)
    before = bytes_of(tmp_path / "merged")
    with pytest.raises(ArtifactError, match=r"merged already \(from lora, a\)"):
        exporting.merge(tmp_path / "merged", tmp_path / "again", TEXTS)
    assert bytes_of(tmp_path / "merged") == before
    assert not (tmp_path / "again").exists()


def test_merge_that_changes_predictions_is_refused_and_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = merging._merged_classifier

    def flipped(model: Any, artifact: Any) -> Any:
        merged = real(model, artifact)
        merged.classifier.weight.data.neg_()
        merged.classifier.bias.data.neg_()
        return merged

    monkeypatch.setattr(merging, "_merged_classifier", flipped)
    with pytest.raises(ArtifactError, match=r"change its predictions.*flipped.*--allow-changes"):
        exporting.merge(home / "a", tmp_path / "deep" / "merged", TEXTS)
    assert list(tmp_path.iterdir()) == []
    made = exporting.merge(home / "a", tmp_path / "deep" / "merged", TEXTS, allow_changes=True)
    assert made.change.flips > 0
    assert made.artifact.manifest["merged_from"]["flips"] == made.change.flips


@pytest.mark.parametrize(
    ("largest", "flips", "fine"),
    [(1e-4, 0, True), (1.01e-4, 0, False), (0.0, 1, False), (float("nan"), 0, False)],
)
def test_what_counts_as_a_change(largest: float, flips: int, fine: bool):
    assert merging.Change(3, largest, flips).acceptable is fine


def test_a_method_that_cannot_be_merged_is_refused(home: Path, tmp_path: Path):
    with pytest.raises(ArtifactError, match=r"prompt_tuning cannot be merged .*adds tokens"):
        exporting.merge(home / "prompt", tmp_path / "merged", TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_qlora_merges_onto_the_float_base_and_says_what_changes(tiny_bert: Path, tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    resolved = bases.resolve(str(tiny_bert))
    quantization = {"load_in_8bit": True}  # 4 bits need layers wider than these
    try:
        pretrained.quantization_backend(quantization)
    except tunelab.TunelabError as e:
        pytest.skip(str(e))
    save_adapter(tmp_path / "q", tiny_bert, TWO, quantization=quantization)
    save_adapter(tmp_path / "float", tiny_bert, TWO)
    # The same adapter on float weights: what merging onto the float base must give.
    name = "adapter_model.safetensors"
    shutil.copy(tmp_path / "q" / name, tmp_path / "float" / name)
    reseal(tmp_path / "float")
    with pytest.raises(ArtifactError, match="largest change of a score"):
        exporting.merge(tmp_path / "q", tmp_path / "merged", TEXTS)
    made = exporting.merge(tmp_path / "q", tmp_path / "merged", TEXTS, allow_changes=True)
    assert made.change.largest > merging.LIMIT
    found = scores(tmp_path / "merged")
    np.testing.assert_allclose(found, scores(tmp_path / "float"), atol=1e-5)
    assert made.change.largest == pytest.approx(np.abs(found - scores(tmp_path / "q")).max())
    several = AdapterSet(tiny_bert, {"q": tmp_path / "q", "float": tmp_path / "float"})
    assert several.predict(TEXTS) == tunelab.load(tmp_path / "q").predict(TEXTS)
    with pytest.raises(ArtifactError, match="rounded again"):
        several.merge("q")
    assert resolved.ref == several.base


def test_output_folders_that_would_hurt_are_refused(home: Path, tmp_path: Path):
    shutil.copytree(home / "a", tmp_path / "a")
    for bad in (tmp_path / "a", tmp_path / "a" / "merged"):
        with pytest.raises(ArtifactError, match="folder of the original"):
            exporting.merge(tmp_path / "a", bad, TEXTS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="not empty"):
        exporting.merge(tmp_path / "a", tmp_path / "full", TEXTS)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="a file"):
        exporting.merge(tmp_path / "a", tmp_path / "file", TEXTS)
    with pytest.raises(ArtifactError, match="No texts"):
        exporting.merge(tmp_path / "a", tmp_path / "out", [])
    (tmp_path / "empty").mkdir()
    exporting.merge(tmp_path / "a", tmp_path / "empty", TEXTS)
    assert bytes_of(tmp_path / "a") == bytes_of(home / "a")


# --- combine --------------------------------------------------------------------------------


def headless(home: Path, base: Path, names: Sequence[str]) -> Any:
    """peft's own model with the adapters' LoRA parts alone, which it can combine."""
    model: Any = None
    for i, name in enumerate(names):
        said = LoraConfig.from_pretrained(home / name)
        config = replace(said, modules_to_save=None, task_type=None)
        with pretrained.quiet():
            if model is None:
                bare = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
                model = PeftModel(bare, config, adapter_name=f"s{i}")
            else:
                model.add_adapter(f"s{i}", config)
        own = dict(model.named_parameters())
        for key, tensor in load_file(home / name / "adapter_model.safetensors").items():
            if "lora_" in key:
                own[key.replace(".weight", f".s{i}.weight")].data.copy_(tensor)
    return model


@pytest.mark.parametrize(
    ("how", "density"),
    [("linear", None), ("ties", 0.5), ("dare_ties", 0.5), ("svd", None), ("cat", None)],
)
def test_combined_equals_pefts_own(
    home: Path, tiny_bert: Path, tmp_path: Path, how: str, density: float | None
):
    parts = [(home / "a", 0.7), (home / "b", 0.3)]
    made = exporting.combine(parts, tmp_path / "made", how, density)
    peft_made = headless(home, tiny_bert, ["a", "b"])
    torch.manual_seed(0)
    peft_made.add_weighted_adapter(["s0", "s1"], [0.7, 0.3], "ours", how, density=density)
    own = dict(peft_made.named_parameters())
    found = load_file(tmp_path / "made" / "adapter_model.safetensors")
    compared = 0
    for key, tensor in found.items():
        if "lora_" in key:
            expected = own[key.replace(".weight", ".ours.weight")]
            torch.testing.assert_close(tensor, expected.data, atol=1e-6, rtol=1e-6)
            compared += 1
    assert compared == 2 * 2 * len(TARGETS)
    a, b = (load_file(home / n / "adapter_model.safetensors") for n in "ab")
    for key in ("base_model.model.classifier.weight", "base_model.model.classifier.bias"):
        torch.testing.assert_close(found[key], 0.7 * a[key] + 0.3 * b[key])
    assert any("averaged with shares 0.70, 0.30" in n for n in made.notes)
    again = tunelab.load(tmp_path / "made")
    assert again.label_names == TWO
    assert again.artifact.manifest["combined_from"]["combination_type"] == how
    assert sorted(p.name for p in (tmp_path / "made").iterdir() if p.is_dir()) == []
    assert np.isfinite(again.predict_proba(TEXTS)).all()


def update_of(tensors: dict[str, torch.Tensor], module: str, scale: float) -> torch.Tensor:
    return scale * (tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"])


@pytest.mark.parametrize("rslora", [False, True])
def test_cat_is_the_exact_weighted_sum_of_updates(tiny_bert: Path, tmp_path: Path, rslora: bool):
    # peft itself scales the combination of rsLoRA adapters sqrt(r) times too large.
    sets = {"use_rslora": rslora, "lora_alpha": 8}
    save_adapter(tmp_path / "a", tiny_bert, TWO, lora(r=4, **sets), seed=1)
    save_adapter(tmp_path / "b", tiny_bert, TWO, lora(r=2, **sets), seed=2)
    exporting.combine([(tmp_path / "a", 2.0), (tmp_path / "b", -0.5)], tmp_path / "made", "cat")
    a, b, made = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("a", "b", "made"))
    config = json.loads((tmp_path / "made" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (6, 6, False)
    module = "base_model.model.bert.encoder.layer.1.attention.self.query"
    scale_a, scale_b = (8 / np.sqrt(4), 8 / np.sqrt(2)) if rslora else (8 / 4, 8 / 2)
    expected = 2.0 * update_of(a, module, scale_a) - 0.5 * update_of(b, module, scale_b)
    torch.testing.assert_close(update_of(made, module, 1.0), expected, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_combined_is_refused(home: Path, tiny_bert: Path, tmp_path: Path):
    other_base = make_tiny(tmp_path / "other-base", "bert", seed=9)
    save_adapter(tmp_path / "other", other_base, TWO)
    save_adapter(tmp_path / "dora", tiny_bert, TWO, lora(use_dora=True))
    save_adapter(tmp_path / "bias", tiny_bert, TWO, lora(bias="all"))
    save_adapter(tmp_path / "rank", tiny_bert, TWO, lora(r=2))
    save_adapter(tmp_path / "layer", tiny_bert, TWO, lora(layers_to_transform=[0]))
    save_adapter(tmp_path / "order", tiny_bert, TWO[::-1])
    a, b, out = home / "a", home / "b", tmp_path / "made"
    for other, words in (
        (home / "c", "'no', 'maybe', 'yes'"), (tmp_path / "order", "'good', 'bad'"),
        (tmp_path / "other", "one base"), (home / "ia3", "it is ia3"),
        (tmp_path / "dora", "magnitudes"), (tmp_path / "bias", "biases"),
        (tmp_path / "rank", "same r"),
    ):  # fmt: skip
        with pytest.raises(ArtifactError, match=words):
            exporting.combine([(a, 1), (other, 1)], out)
    with pytest.raises(ArtifactError, match="layers_to_transform"):
        exporting.combine([(tmp_path / "layer", 1), (a, 1)], out)
    for parts, how, density, words in (
        ([(a, 1)], "linear", None, "two or more"),
        ([(a, 1), (b, -1)], "linear", None, "sum above 0"),
        ([(a, 1), (b, float("nan"))], "linear", None, "expected numbers"),
        ([(a, 1), (b, 1)], "ties", None, "--density 0.5"),
        ([(a, 1), (b, 1)], "ties", 1.5, "at most 1"),
        ([(a, 1), (b, 1)], "svd", 0.5, "density is for"),
        ([(a, 1), (b, 1)], "tie", 0.5, "Did you mean 'ties'"),
    ):
        with pytest.raises(ArtifactError, match=words):
            exporting.combine(parts, out, how, density)
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))


# --- several at once ------------------------------------------------------------------------


def test_rows_by_adapter_equal_one_by_one(home: Path, tiny_bert: Path):
    names = ["a", "c", "b", "ia3", "prompt"]
    several = AdapterSet(tiny_bert, {n: home / n for n in names})
    rows = [names[i % len(names)] for i in range(len(TEXTS))]
    found = several.predict_proba(TEXTS, adapters=rows)
    labels = several.predict(TEXTS, adapters=rows)
    alone = {n: tunelab.load(home / n) for n in names}
    for i, name in enumerate(rows):
        expected = alone[name].predict_proba([TEXTS[i]])[0]
        assert len(found[i]) == (3 if name == "c" else 2)
        np.testing.assert_allclose(found[i], expected, atol=1e-5)
        assert labels[i] == alone[name].predict(TEXTS[i])[0]


def test_use_switches_and_the_base_is_in_memory_once(home: Path, tiny_bert: Path):
    several = AdapterSet(tiny_bert, {n: home / n for n in "abc"})
    assert several.active == "a"
    assert several.label_names == TWO
    assert several.use("c").label_names == THREE
    assert several.predict(TEXTS) == tunelab.load(home / "c").predict(TEXTS)
    assert several.use("a").predict(TEXTS[0]) == tunelab.load(home / "a").predict(TEXTS[0])
    places = {
        n: {k: p.data_ptr() for k, p in adapter_set._model_of(several[n]).named_parameters()}
        for n in "abc"
    }
    of_base = [k for k in places["a"] if "lora_" not in k and "classifier" not in k]
    assert len(of_base) > 30
    assert all(places["a"][k] == places["b"][k] == places["c"][k] for k in of_base)
    own = [k for k in places["a"] if "lora_" in k or "modules_to_save" in k]
    assert own
    assert all(len({places[n][k] for n in "abc"}) == 3 for k in own)


def test_merge_in_memory_and_unmerge_leave_the_others_alone(home: Path, tiny_bert: Path):
    several = AdapterSet(tiny_bert, {n: home / n for n in ("a", "b", "ia3")})
    before = {n: exact(several[n]).scores(TEXTS) for n in several.names}
    weights = {
        k: (p.data_ptr(), p.clone())
        for k, p in adapter_set._model_of(several["a"]).named_parameters()
    }
    for name in ("a", "ia3"):
        several.merge(name)
        several.merge(name)  # a second time changes nothing
        for n in several.names:
            now = exact(several[n]).scores(TEXTS)
            np.testing.assert_allclose(now, before[n], atol=1e-5)
        layer = adapter_set._model_of(several[name]).get_submodule(
            "base_model.model.bert.encoder.layer.0.attention.self.value"
        )
        assert layer.merged
        several.unmerge(name)
        several.unmerge(name)
        assert not layer.merged
    for n in several.names:
        assert np.array_equal(exact(several[n]).scores(TEXTS), before[n])
    for k, p in adapter_set._model_of(several["a"]).named_parameters():
        place, tensor = weights[k]
        assert p.data_ptr() == place
        assert torch.equal(p, tensor)


def test_a_set_refuses_what_does_not_belong(home: Path, tiny_bert: Path, tmp_path: Path):
    other = make_tiny(tmp_path / "other", "bert", seed=9)
    with pytest.raises(ArtifactError, match=r"trained on .*, but the base given is"):
        AdapterSet(other, {"a": home / "a"})
    exporting.merge(home / "a", tmp_path / "merged", TEXTS)
    with pytest.raises(ArtifactError, match="expected an adapter"):
        AdapterSet(tiny_bert, {"merged": tmp_path / "merged"})
    with pytest.raises(ArtifactError, match="one or more"):
        AdapterSet(tiny_bert, {})
    several = AdapterSet(tiny_bert, {"films": home / "a", "prompt": home / "prompt"})
    with pytest.raises(ArtifactError, match="Did you mean 'films'"):
        several.use("film")
    with pytest.raises(ArtifactError, match="No adapter"):
        several.predict(["x", "y"], adapters=["films", "books"])
    with pytest.raises(ArtifactError, match="found 1 names"):
        several.predict(["x", "y"], adapters=["films"])
    with pytest.raises(ArtifactError, match="adds tokens"):
        several.merge("prompt")
    assert several.predict([], adapters=[]) == []


def test_a_base_that_moved_is_found_by_its_hash(home: Path, tiny_bert: Path, tmp_path: Path):
    shutil.copytree(tiny_bert, tmp_path / "moved")
    several = AdapterSet(tmp_path / "moved", {"a": home / "a"})
    assert several.predict(TEXTS) == tunelab.load(home / "a").predict(TEXTS)


# --- show, list, verify ---------------------------------------------------------------------


def test_show_tells_adapter_and_head_apart(home: Path):
    facts = exporting.show(home / "a")
    tensors = load_file(home / "a" / "adapter_model.safetensors")
    head = sum(t.nbytes for k, t in tensors.items() if "classifier" in k)
    assert facts["bytes"] == {"adapter": sum(t.nbytes for t in tensors.values()) - head,
                              "head": head}  # fmt: skip
    assert head == 4 * (32 * 2 + 2)
    assert facts["method"]["name"] == "lora"
    assert facts["method"]["settings"]["r"] == 4
    assert facts["label_names"] == list(TWO)
    assert facts["files"]["adapter_model.safetensors"] > head
    assert len(facts["base"]["sha256"]) == 64


def test_list_finds_what_lies_below(home: Path, tmp_path: Path):
    shutil.copytree(home / "a", tmp_path / "study" / "trials" / "xyz" / "artifact")
    shutil.copytree(home / "b", tmp_path / "broken")
    (tmp_path / "broken" / "tunelab.json").write_text("{")
    shutil.copytree(home / "b", tmp_path / ".hidden")
    spec = TrialSpec(
        DataSpec("demo"), "0", None, MethodSpec("lora", "lora[r=4]", {"r": 4}), 7, "xyz"
    )
    (tmp_path / "study" / "trials" / "xyz" / "spec.json").write_text(json.dumps(spec.to_json()))
    broken, trial = exporting.find_artifacts(tmp_path)
    assert "not valid JSON" in broken["error"]
    assert (trial["kind"], trial["method"], trial["error"]) == ("adapter", "lora[r=4]", None)
    assert exporting.show(tmp_path / "study" / "trials" / "xyz")["method"]["seed"] == 7
    with pytest.raises(ArtifactError, match="no such folder"):
        exporting.find_artifacts(tmp_path / "nowhere")


def faults(folder: Path) -> dict[str, str]:
    return {c.name: c.detail for c in exporting.verify(folder) if c.status == "fault"}


def test_verify_passes_what_is_whole(home: Path, tmp_path: Path):
    for name in ("a", "c", "ia3", "prompt"):
        assert {c.status for c in exporting.verify(home / name)} == {"ok"}
    exporting.merge(home / "a", tmp_path / "merged", TEXTS)
    assert faults(tmp_path / "merged") == {}


def test_verify_and_load_name_what_was_tampered_with(home: Path, tmp_path: Path):
    whole = home / "a"
    weights = "adapter_model.safetensors"

    def copy(name: str) -> Path:
        return Path(shutil.copytree(whole, tmp_path / name))

    flipped = copy("flipped")
    raw = bytearray((flipped / weights).read_bytes())
    raw[-1] ^= 1
    (flipped / weights).write_bytes(bytes(raw))
    assert weights in faults(flipped)["checksums"]
    with pytest.raises(ArtifactError, match=f"{weights}: its content"):
        tunelab.load(flipped)

    (gone := copy("gone")).joinpath("adapter_config.json").unlink()
    with pytest.raises(ArtifactError, match=r"adapter_config\.json is missing"):
        tunelab.load(gone)

    cut = copy("cut")
    (cut / weights).write_bytes(bytes(raw[:-40]))
    assert "cut short" in faults(cut)["tensors readable"]

    pickled = copy("pickled")
    torch.save({}, pickled / "adapter_model.bin")
    assert "adapter_model.bin" in faults(pickled)["pickles"]
    with pytest.raises(ArtifactError, match=r"pickle \(adapter_model\.bin\)"):
        tunelab.load(pickled)
    with pytest.raises(ArtifactError, match=r"pickle \(adapter_model\.bin\)"):
        exporting.merge(pickled, tmp_path / "out", TEXTS)

    added = copy("added")
    save_file({"x": torch.zeros(1)}, added / "more.safetensors")
    assert "more.safetensors was added" in faults(added)["checksums"]

    noted = copy("noted")
    (noted / "notes.md").write_text("mine")
    assert faults(noted) == {}
    tunelab.load(noted)

    outside = copy("outside")
    edit(outside / "tunelab.json", files={"../a/tunelab.json": "0"})
    with pytest.raises(ArtifactError, match="outside"):
        tunelab.load(outside)


@pytest.mark.parametrize(("change", "words"), [
    ("missing", "lacks base_model.model.bert.encoder.layer.1"),
    ("missing head", "classifier"),
    ("stray", "has base_model.model.bert.encoder.layer.7"),
    ("shape", "does not fit its base"),
])  # fmt: skip
def test_tensors_missing_stray_or_misshapen_are_named(
    home: Path, tmp_path: Path, change: str, words: str
):
    """peft fills in random numbers, or drops what it does not know, and warns at most."""
    folder = Path(shutil.copytree(home / "a", tmp_path / "a"))
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    query = "base_model.model.bert.encoder.layer.1.attention.self.query.lora_A.weight"
    if change == "missing":
        del tensors[query]
    elif change == "missing head":
        del tensors["base_model.model.classifier.bias"]
    elif change == "stray":
        tensors[query.replace("layer.1", "layer.7")] = tensors[query].clone()
    else:
        tensors[query] = torch.zeros(3, 3)
    save_file(tensors, weights)
    reseal(folder)
    with pytest.raises(ArtifactError, match=words):
        tunelab.load(folder)
    assert words in faults(folder)["tensors complete"]


def test_another_base_is_refused_by_name(home: Path, tmp_path: Path):
    other = make_tiny(tmp_path / "other", "bert", seed=9)
    folder = Path(shutil.copytree(home / "a", tmp_path / "a"))
    ref = json.loads((folder / "tunelab.json").read_text())["base"]
    edit(folder / "tunelab.json", base={**ref, "name": str(other)})
    with pytest.raises(ArtifactError, match="predict nonsense"):
        tunelab.load(folder)
    assert str(other) in faults(folder)["base"]


def test_verify_of_a_whole_model_names_missing_tensors(home: Path, tmp_path: Path):
    exporting.merge(home / "a", tmp_path / "merged", TEXTS)
    weights = tmp_path / "merged" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["classifier.bias"]
    save_file(tensors, weights, {"format": "pt"})
    reseal(tmp_path / "merged")
    assert faults(tmp_path / "merged") == {"tensors complete": "classifier.bias is missing"}


# --- what plain peft and transformers wrote -------------------------------------------------


def plain_peft(folder: Path, base: Path, labels: int, **more: Any) -> tuple[Path, np.ndarray]:
    """Save with peft alone; give the folder and the logits of TEXTS by peft and torch alone."""
    torch.manual_seed(11)
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=TARGETS, **more)
    with pretrained.quiet():
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
        wrapped = get_peft_model(model, config).eval()
    for name, p in wrapped.named_parameters():
        if p.requires_grad and "original_module" not in name:
            p.data.normal_(0, 0.3)
    wrapped.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        logits = [
            wrapped(**tokenizer(t, return_tensors="pt", truncation=True)).logits[0] for t in TEXTS
        ]
    return folder, torch.stack(logits).numpy()


def test_what_peft_wrote_loads(tiny_bert: Path, tmp_path: Path):
    folder, expected = plain_peft(tmp_path / "theirs", tiny_bert, 3)
    before = bytes_of(folder)
    loaded = tunelab.load(folder)
    np.testing.assert_allclose(exact(loaded).scores(TEXTS), expected, atol=1e-5)
    assert loaded.label_names == ("LABEL_0", "LABEL_1", "LABEL_2")
    said = " ".join(loaded.notes)
    assert "LABEL_0" in said
    assert "base's is used" in said
    assert str(tiny_bert) in said
    assert bytes_of(folder) == before
    assert exporting.show(folder)["kind"] == "adapter"
    assert [r["folder"] for r in exporting.find_artifacts(tmp_path)] == [str(folder)]
    assert {c.name: c.status for c in exporting.verify(folder)}["checksums"] == "skipped"
    exporting.merge(folder, tmp_path / "merged")
    np.testing.assert_allclose(scores(tmp_path / "merged"), expected, atol=1e-5)
    several = AdapterSet(tiny_bert, {"theirs": folder})
    assert several.predict(TEXTS) == loaded.predict(TEXTS)
    done = run_here("predict", folder, "a lovely film")
    assert done.code == 0
    assert "Written by peft" in done.err


def test_label_names_beside_a_plain_adapter_are_used(tiny_bert: Path, tmp_path: Path):
    folder, _ = plain_peft(tmp_path / "theirs", tiny_bert, 2)
    shutil.copy(tiny_bert / "config.json", folder)
    edit(folder / "config.json", id2label={"1": "good", "0": "bad"})
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    loaded = tunelab.load(folder)
    assert loaded.label_names == ("bad", "good")
    assert not any("LABEL_0" in n or "base's is used" in n for n in loaded.notes)
    edit(folder / "config.json", id2label={"0": "a", "1": "b", "2": "c"})
    assert tunelab.load(folder).label_names == ("LABEL_0", "LABEL_1")


def test_what_transformers_wrote_loads(tiny_bert: Path, tmp_path: Path):
    folder = tmp_path / "theirs"
    names = {0: "negative", 1: "neutral", 2: "positive"}
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_bert, id2label=names, label2id={n: i for i, n in names.items()}
    ).eval()
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.save_pretrained(folder)
    torch.save({"never": "read"}, folder / "training_args.bin")  # Trainer leaves it there
    loaded = tunelab.load(folder)
    assert loaded.label_names == ("negative", "neutral", "positive")
    with torch.no_grad():
        expected = [model(**tokenizer(t, return_tensors="pt")).logits[0].numpy() for t in TEXTS]
    np.testing.assert_allclose(exact(loaded).scores(TEXTS), expected, atol=1e-5)
    assert faults(folder) == {}
    edit(folder / "config.json", problem_type="multi_label_classification")
    with pytest.raises(ArtifactError, match="multi_label_classification"):
        tunelab.load(folder)


def test_foreign_folders_that_cannot_be_read_say_why(tiny_bert: Path, tmp_path: Path):
    with pytest.raises(ArtifactError, match="without a trained head"):
        tunelab.load(tiny_bert)
    folder, _ = plain_peft(tmp_path / "theirs", tiny_bert, 2)
    tensors = load_file(folder / "adapter_model.safetensors")

    edit(folder / "adapter_config.json", base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(ArtifactError, match="needs the base"):
        tunelab.load(folder)
    assert AdapterSet(tiny_bert, {"x": folder}).predict("a")  # the base is given
    edit(folder / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(ArtifactError, match="does not name its base"):
        tunelab.load(folder)
    edit(folder / "adapter_config.json", base_model_name_or_path=str(tiny_bert))

    save_file({k: t for k, t in tensors.items() if "classifier" not in k},
              folder / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(ArtifactError, match="no classification head"):
        tunelab.load(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec")
    with pytest.raises(ModelError, match="not a safetensors file"):
        tunelab.load(folder)
    (folder / "adapter_model.safetensors").unlink()
    torch.save(tensors, folder / "adapter_model.bin")
    with pytest.raises(ArtifactError, match=r"pickle \(adapter_model\.bin\)"):
        tunelab.load(folder)


def test_code_in_a_model_folder_is_not_run(tiny_bert: Path, tmp_path: Path):
    folder = tmp_path / "theirs"
    AutoModelForSequenceClassification.from_pretrained(tiny_bert).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    auto = dict.fromkeys(("AutoConfig", "AutoModelForSequenceClassification"), "evil.Evil")
    edit(folder / "config.json", auto_map=auto)
    tunelab.load(folder)
    assert not (tmp_path / "ran").exists()
    edit(folder / "config.json", auto_map=auto, model_type="evil")
    with pytest.raises(tunelab.TunelabError, match="code of its own"):
        tunelab.load(folder)
    assert not (tmp_path / "ran").exists()


def test_stray_tensors_are_none_after_every_save(home: Path):
    for name in ("a", "c", "ia3", "prompt"):
        classifier: Any = tunelab.load(home / name).classifier
        assert stray_tensors(classifier.model, home / name) == ([], [])
    assert foreign.find_artifact(home / "a") == home / "a"


# --- the command line -----------------------------------------------------------------------


def test_command_line(home: Path, tmp_path: Path):
    listed = run_here("adapters", "list", home, "--json")
    assert [Path(r["folder"]).name for r in json.loads(listed.out)] == [
        "a", "b", "c", "ia3", "prompt",
    ]  # fmt: skip
    assert "lora" in run_here("adapters", "list", home).out
    shutil.copytree(home / "a", tmp_path / "trials" / "lora-1" / "artifact")
    shown = run_here("adapters", "list", tmp_path / "trials").out
    assert "lora-1" in shown
    assert "/artifact" not in shown  # a trial's folder stands for it, and is shorter
    shown = run_here("adapters", "show", home / "a")
    assert shown.code == 0
    assert "Size, head" in shown.out
    assert json.loads(run_here("adapters", "show", home / "c", "--json").out)["kind"] == "adapter"

    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:5]) + "\n")
    merged = run_here("adapters", "merge", home / "a", "--output-dir", tmp_path / "m",
                      "--file", tmp_path / "texts.txt")  # fmt: skip
    assert merged.code == 0, merged.err
    assert re.search(r"(largest change of a score \S+e-0[78], 0 of 5|no score of 5)", merged.out)
    assert run_here("adapters", "verify", tmp_path / "m").code == 0

    combined = run_here("adapters", "combine", f"{home / 'a'}=0.5", f"{home / 'b'}=0.5",
                        "--type", "svd", "--output-dir", tmp_path / "ab", "--json")  # fmt: skip
    assert combined.code == 0, combined.err
    said = json.loads(combined.out)
    assert said["flips"] == 0
    texts = exporting.sample_texts()
    both = tunelab.load(tmp_path / "ab").predict(texts)
    for part, note in zip("ab", said["notes"][-2:], strict=True):
        same = sum(
            x == y for x, y in zip(tunelab.load(home / part).predict(texts), both, strict=True)
        )
        assert note == f"Labels {same} of {len(texts)} sample texts as {home / part} does."
    assert run_here("predict", tmp_path / "ab", "a lovely film").code == 0


def test_command_line_faults_are_one_line_and_code_2(home: Path, tmp_path: Path):
    broken = Path(shutil.copytree(home / "a", tmp_path / "broken"))
    (broken / "tokenizer_config.json").write_text("{}")
    checked = run_here("adapters", "verify", broken)
    assert checked.code == 2
    assert "tokenizer_config.json" in checked.out
    for args in (
        ("merge", home / "prompt", "--output-dir", tmp_path / "x"),
        ("combine", f"{home / 'a'}=half", home / "b", "--output-dir", tmp_path / "x"),
        ("combine", home / "a", home / "c", "--output-dir", tmp_path / "x"),
        ("combine", home / "a", home / "nowhere", "--output-dir", tmp_path / "x"),
        ("show", tmp_path / "nowhere"),
        ("list", tmp_path / "nowhere"),
        ("verify", tmp_path),
    ):
        done = run_here("adapters", *args)
        assert (done.code, len(done.faults)) == (2, 1), done.err
    assert not (tmp_path / "x").exists()
