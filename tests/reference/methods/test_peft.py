"""What we write loads unchanged in peft and transformers, with the right labels and no warning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from families import make_family
from tunelab.core.values import Seeds, Split
from tunelab.methods import METHODS, Outcome, Task, fit_alone
from tunelab.models import bases, pretrained

LABELS = ("10", "2", "so-so, really")  # FIELD 7: unsorted, and "10" before "2"
WORDS = ("bad dull", "good warm", "film plot")
TEXTS = [f"{w} the {'very ' * (i % 3)}scene" for i in range(6) for w in WORDS]
SPLIT = Split(tuple(map(str, range(18))), tuple(TEXTS), np.arange(18) % 3)


def train(method: str, folder: Path, **settings: Any) -> Outcome:
    row = METHODS[method]
    chosen = row.settings(
        num_train_epochs=4, max_length=16, per_device_train_batch_size=6, learning_rate=1e-2,
        **settings,
    )  # fmt: skip
    base = bases.resolve(str(folder))
    return fit_alone(
        row, Task(LABELS, SPLIT, SPLIT, base, chosen, Seeds(1, 2, 3), "accuracy", lambda _: None)
    )


@pytest.fixture(scope="module", params=["bert", "distilbert", "gpt2"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp("ref") / request.param, request.param)


def exact(classifier: Any) -> Any:
    return replace(classifier, precision="float32")


def logits(model: Any, tokenizer: Any) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        return np.stack([
            model(**{k: v for k, v in tokenizer(t, return_tensors="pt").items()
                     if k != "token_type_ids"}).logits[0].numpy()
            for t in TEXTS
        ])  # fmt: skip


@pytest.mark.parametrize("method", ["full", "lora", "lora-plus", "pissa", "qlora-4bit"])
def test_scores_of_the_best_epoch_are_kept_where_they_are_what_the_classifier_gives(
    method: str, family: Path
) -> None:
    outcome = train(method, family)
    kept = outcome.validation_scores
    if method == "pissa":  # written as another adapter: rounding may differ
        assert kept is None
    else:
        assert kept is not None
        assert np.array_equal(kept, outcome.classifier.scores(SPLIT.texts))


@pytest.mark.parametrize("method", ["lora", "pissa", "adalora"])
def test_auto_peft_loads_our_adapter(  # FIELD 1, 6 (peft 310, 577, 602, 1070, 1486, 554)
    method: str, family: Path, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoConfig, AutoTokenizer

    small = {"init_r": 4, "target_r": 2} if method == "adalora" else {"r": 4}
    outcome = train(method, family, **small)
    outcome.classifier.save(tmp_path)
    written = AutoConfig.from_pretrained(tmp_path)
    assert tuple(written.id2label[i] for i in range(3)) == LABELS
    with pretrained.quiet():  # transformers reports the head that peft is about to fill in
        theirs = AutoPeftModelForSequenceClassification.from_pretrained(
            tmp_path, num_labels=3, id2label=written.id2label, label2id=written.label2id,
            pad_token_id=written.pad_token_id,
        )  # fmt: skip
    assert theirs.config.label2id == {n: i for i, n in enumerate(LABELS)}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    np.testing.assert_allclose(
        logits(theirs, tokenizer), exact(outcome.classifier).scores(TEXTS), atol=1e-5
    )


def test_a_merged_model_runs_in_a_pipeline(  # FIELD 8, 12 (unsloth-zoo 1087, peft 1488)
    family: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import pipeline

    outcome = train("lora", family, r=4)
    classifier: Any = exact(outcome.classifier)
    expected = classifier.scores(TEXTS)
    merged = classifier.model.merge_and_unload()
    assert {p.dtype for p in merged.parameters()} == {torch.float32}  # FIELD 9
    merged.save_pretrained(tmp_path)
    classifier.tokenizer.save_pretrained(tmp_path)
    pipe = pipeline("text-classification", model=str(tmp_path), top_k=None, device="cpu")
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]
    for text, row in zip(TEXTS, expected, strict=True):
        shares = torch.softmax(torch.tensor(row), 0)
        found = {d["label"]: d["score"] for d in pipe([text])[0]}
        assert set(found) == set(LABELS)
        np.testing.assert_allclose([found[n] for n in LABELS], shares, atol=1e-5)


def test_prompt_methods_train_and_save_the_head(tmp_path: Path) -> None:  # FIELD 2 (peft 2642)
    from safetensors.torch import load_file

    base = make_family(tmp_path / "bert", "bert")
    outcome = train("prompt-tuning", base, num_virtual_tokens=4)
    saved = tmp_path / "saved"
    saved.mkdir()
    outcome.classifier.save(saved)
    tensors = load_file(saved / "adapter_model.safetensors")
    assert any("classifier" in n for n in tensors)


def test_adaloras_ranks_fall_to_the_target(tmp_path: Path) -> None:  # FIELD 18
    outcome = train("adalora", make_family(tmp_path / "bert", "bert"), init_r=6, target_r=2,
                    metric_for_best_model="loss")  # fmt: skip
    ranks = outcome.details["ranks"]
    assert len(ranks) == 12
    assert outcome.details["mean_rank"] < 6
    assert max(ranks.values()) <= 6


def test_lora_plus_moves_b_faster(tmp_path: Path) -> None:
    folder = make_family(tmp_path / "bert", "bert")
    moved = {}
    for ratio in (1, 16):
        outcome = train("lora-plus", folder, r=4, loraplus_lr_ratio=ratio, warmup_steps=0)
        model: Any = outcome.classifier.model  # type: ignore[attr-defined]
        moved[ratio] = sum(float(p.detach().abs().sum()) for n, p in model.named_parameters()
                           if "lora_B" in n)  # fmt: skip
    assert moved[16] > 4 * moved[1]


def test_eva_shares_out_the_same_budget(tmp_path: Path) -> None:
    outcome = train("eva", make_family(tmp_path / "bert", "bert"), r=4, rho=2)
    ranks = outcome.details["ranks"].values()
    assert max(ranks) <= 8
    assert sum(ranks) <= 4 * 12
    assert len(set(ranks)) > 1


@pytest.mark.parametrize("quantised", ["qlora-8bit", "qlora-4bit"])
def test_qlora_records_what_ran_and_merges_onto_the_full_base(  # FIELD 10, 22
    quantised: str, tmp_path: Path
) -> None:
    from tunelab.core.artifact import open_artifact
    from tunelab.models.classifier import open_transformer

    folder = make_family(tmp_path / "bert", "bert")
    outcome = train(quantised, folder, r=4)
    assert outcome.details["quantization"].startswith("bitsandbytes ")
    plain = train("lora", folder, r=4)
    assert outcome.details["weight_bytes"] < plain.details["weight_bytes"]
    saved = tmp_path / "saved"
    saved.mkdir()
    outcome.classifier.save(saved)
    again = open_transformer(open_artifact(saved))
    np.testing.assert_array_equal(again.scores(TEXTS), outcome.classifier.scores(TEXTS))
    full: Any = pretrained.load_adapter(bases.resolve(str(folder)), saved, LABELS)
    merged = full.merge_and_unload()
    assert {p.dtype for p in merged.parameters()} == {torch.float32}


@pytest.mark.parametrize("bits", [8, 4])
def test_a_merge_from_few_bits_goes_onto_the_full_base_and_reports(  # FIELD 10 (peft 2321)
    bits: int, tmp_path: Path
) -> None:
    """128 wide: bitsandbytes keeps 4-bit blocks of 64, and narrower layers have too few of them."""
    import shutil

    from transformers import BertConfig, BertModel

    from tunelab import exporting
    from tunelab.core.artifact import open_artifact
    from tunelab.core.errors import ArtifactError
    from tunelab.exporting import merging
    from tunelab.models.classifier import open_transformer

    folder = tmp_path / "wide"
    shutil.copytree(make_family(tmp_path / "bert", "bert"), folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=200, hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=256, max_position_embeddings=64, initializer_range=0.2,
        )
    ).save_pretrained(folder)  # fmt: skip
    outcome = train(f"qlora-{bits}bit", folder, r=4)
    assert outcome.details["quantization"].startswith("bitsandbytes ")
    classifier: Any = outcome.classifier
    head = classifier.model.get_base_model().classifier.modules_to_save["default"]
    assert type(head) is torch.nn.Linear  # FIELD 21
    assert head.weight.dtype == torch.float32
    classifier.save(saved := tmp_path / "saved")
    quantised = classifier.scores(TEXTS)
    # What merging has to give: the same adapter on the base in full precision.
    full: Any = pretrained.load_adapter(bases.resolve(str(folder)), saved, LABELS)
    tokenizer = classifier.tokenizer
    expected = logits(full, tokenizer)
    moved = float(np.abs(expected - quantised).max())
    flips = int((expected.argmax(1) != quantised.argmax(1)).sum())
    assert moved > merging.LIMIT
    with pytest.raises(ArtifactError, match=r"largest change of a score .* predictions flipped"):
        exporting.merge(saved, tmp_path / "merged", TEXTS)
    made = exporting.merge(saved, tmp_path / "merged", TEXTS, allow_changes=True)
    assert made.change.largest == pytest.approx(moved, rel=1e-3)
    assert made.change.flips == flips
    again = open_transformer(open_artifact(tmp_path / "merged"))
    # The merged weights are rounded once more: seen up to 1.5e-5 of logits up to 3.
    np.testing.assert_allclose(exact(again).scores(TEXTS), expected, atol=5e-5)
    assert {p.dtype for p in again.model.parameters()} == {torch.float32}
    assert made.artifact.manifest["merged_from"]["flips"] == flips
