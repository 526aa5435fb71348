"""Many adapters in one batch say what each says by itself, by peft, on texts of any lengths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, TaskType

import tunelab
from adapters_made import lora_config, make_adapter
from families import make_family
from tiny import BAD, GOOD
from tunelab.kernels import library
from tunelab.models.batches import encode
from tunelab.models.shared_row import RowMember, SharedRow

TEXTS = [
    *(f"{g} film and the plot is {b} {i}" for i, (g, b) in enumerate(zip(GOOD, BAD, strict=True))),
    "a", "very lovely scene , the actor was grim !", "the " * 40,
]  # fmt: skip
TARGETS = {
    "query and value": ["query", "value"],
    "all": ["query", "key", "value", "dense"],
    "feed-forward": ["intermediate.dense", "output.dense"],
    "query alone": ["query"],
}


def opened(folder: Path) -> Any:
    return tunelab.load(folder).computing_in("float32").classifier


def plain(own: Any, texts: list[str]) -> np.ndarray:
    """The model's own logits, padded by transformers, the adapter beside its weights."""
    given = own.tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.inference_mode():
        return np.asarray(own.model(**given).logits)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> list[Any]:
    root = tmp_path_factory.mktemp("row")
    made = []
    for seed, (name, targets) in enumerate(TARGETS.items()):
        labels = ("a", "b", "c", "d")[: 2 + seed % 3]
        config = lora_config(target_modules=targets, r=2 + 3 * seed, lora_alpha=5)
        made.append(opened(make_adapter(root / name, tiny_bert, labels, seed, config)))
    return made


def row_of(adapters: list[Any], precision: str = "float32") -> tuple[SharedRow, list[RowMember]]:
    row = SharedRow.of(adapters[0].model, precision, adapters[0].pad_id)
    assert row is not None
    members = [row.member(own.model, len(own.label_names)) for own in adapters]
    assert all(members)
    return row, [m for m in members if m is not None]


def ask(
    row: SharedRow,
    adapters: list[Any],
    members: list[RowMember],
    parts: list[list[str]],
    **more: int,
) -> list[np.ndarray]:
    asked = [
        (m, encode(own.tokenizer, texts, 32).ids)
        for m, own, texts in zip(members, adapters, parts, strict=True)
        if texts
    ]
    return row(asked, **more)


@pytest.mark.parametrize(
    ("precision", "near"), [("float32", 1e-5), ("auto", 1e-4), ("bfloat16", 0.1)]
)
def test_each_adapter_says_what_it_says_alone(adapters: list[Any], precision: str, near: float):
    row, members = row_of(adapters, precision)
    parts = [TEXTS[i:] for i in range(len(adapters))]
    for size in (64, 3):  # in one batch, and in many that have other adapters each
        given = ask(row, adapters, members, parts, batch_size=size)
        for own, texts, logits in zip(adapters, parts, given, strict=True):
            wanted = plain(own, texts)
            assert logits.shape == wanted.shape
            assert np.abs(logits - wanted).max() < near * (1 + np.abs(wanted).max())


def test_a_row_may_hold_one_adapter_or_one_text(adapters: list[Any]):
    row, members = row_of(adapters)
    for k, own in enumerate(adapters):
        (logits,) = ask(row, [own], [members[k]], [TEXTS[1:2]])
        np.testing.assert_allclose(logits, plain(own, TEXTS[1:2]), atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "auto", "bfloat16"])
def test_one_text_alone_scores_the_same_bit_for_bit(adapters: list[Any], precision: str):
    """Its layers run on memory that stays: with adapters beside them, and of a merged model."""
    row, members = row_of(adapters, precision)
    whole = adapters[0].prepared() if precision == "auto" else None
    for k, own in enumerate(adapters):
        for text in TEXTS[-3:]:
            ids = torch.from_numpy(encode(own.tokenizer, [text], 32).ids[0])[None]
            row._segments.set(((0, 1, members[k]),), 1, ids.shape[1])
            for encoder in (row._encoder, *([whole.compute.args[1]] if whole else [])):
                assert (encoder.one_text is not None) == library.available()
                with torch.inference_mode():
                    alone = encoder(ids, None, first_only=True)
                    usual = replace(encoder, one_text=None)(ids, None, first_only=True)
                assert torch.equal(alone, usual), (k, text)


def test_the_model_that_lent_its_base_is_not_changed(adapters: list[Any]):
    before = plain(adapters[0], TEXTS)
    row, members = row_of(adapters)
    ask(row, adapters, members, [TEXTS] * len(adapters))
    assert np.array_equal(plain(adapters[0], TEXTS), before)


def test_others_than_plain_lora_stay_out(tmp_path: Path, tiny_bert: Path, adapters: list[Any]):
    row, _ = row_of(adapters)
    strange = {
        "dora": lora_config(use_dora=True),
        "ia3": IA3Config(task_type=TaskType.SEQ_CLS, modules_to_save=["classifier"],
                         target_modules=["key", "output.dense"],
                         feedforward_modules=["output.dense"]),
        "norms": lora_config(modules_to_save=["classifier", "LayerNorm"]),
    }  # fmt: skip
    for name, config in strange.items():
        own = opened(make_adapter(tmp_path / name, tiny_bert, ("a", "b"), 1, config))
        assert row.member(own.model, 2) is None, name


HEADS = {"distilbert": ["pre_classifier", "classifier"]}
LAYERS = {"distilbert": ["q_lin", "v_lin", "lin1"], "albert": ["query", "value", "ffn"]}


@pytest.mark.parametrize("family", ["distilbert", "roberta", "albert", "electra"])
def test_every_family_that_is_scored_fast_may_share(
    tmp_path: Path, family: str, adapters: list[Any]
):
    base = make_family(tmp_path / "base", family)
    config = lora_config(
        target_modules=LAYERS.get(family, ["query", "value", "intermediate.dense"]),
        modules_to_save=HEADS.get(family, ["classifier"]),
    )
    own = [opened(make_adapter(tmp_path / f"a{k}", base, ("a", "b"), k, config)) for k in (1, 2)]
    row, members = row_of(own)
    for each, logits in zip(own, ask(row, own, members, [TEXTS, TEXTS[::2]]), strict=True):
        wanted = plain(each, TEXTS if each is own[0] else TEXTS[::2])
        np.testing.assert_allclose(logits, wanted, atol=1e-4)
    assert row_of(adapters)[0].member(own[0].model, 2) is None  # of another base
