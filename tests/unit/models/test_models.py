"""Families, loading, and settings that cannot work on a base."""

from __future__ import annotations

import importlib.util
import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from families import make_family
from tunelab.core.errors import InputError, ModelError
from tunelab.core.values import MethodSpec
from tunelab.methods import METHODS, check
from tunelab.methods.neural import adapted
from tunelab.models import bases, parts, pretrained
from tunelab.models.families import FAMILIES
from tunelab.study import resolve

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> bases.Base:
    return bases.resolve(str(make_family(tmp_path_factory.mktemp("models") / "bert", "bert")))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> bases.Base:
    return bases.resolve(str(make_family(tmp_path_factory.mktemp("models") / "gpt2", "gpt2")))


def refusal(base: bases.Base, method: str, **settings: Any) -> str:
    with pytest.raises(InputError) as e:
        check(base, MethodSpec(method, method, settings))
    assert "\n" not in str(e.value)
    return str(e.value)


def accept(base: bases.Base, method: str, **settings: Any) -> None:
    check(base, MethodSpec(method, method, settings))


def wrap(base: bases.Base, method: str, **settings: Any) -> Any:
    row = METHODS[method]
    assert row.adapt
    return adapted(base, ["a", "b"], row.settings(**settings), row.adapt, seed=0)[0]


# --- before anything is trained -------------------------------------------------------------


def test_a_target_that_matches_nothing_lists_what_there_is(bert: bases.Base) -> None:
    line = refusal(bert, "lora", target_modules=["qury"])
    assert "'qury' matches no module" in line
    assert "attention.self.query" in line


def test_a_regex_that_matches_nothing_is_refused_before_training(bert: bases.Base) -> None:
    with pytest.raises(ModelError, match="matches no module"):
        wrap(bert, "lora", target_modules=r".*qury")


def test_a_broken_regex_is_refused(bert: bases.Base) -> None:
    assert "regular expression" in refusal(bert, "lora", target_modules="(query")


@pytest.mark.parametrize("method", ["lora", "dora", "pissa", "adalora", "qlora-4bit", "loha"])
def test_a_rank_above_the_width_is_refused(bert: bases.Base, method: str) -> None:
    name = "init_r" if method == "adalora" else "r"
    assert "is 32 wide" in refusal(bert, method, **{name: 33})
    accept(bert, method, **{name: 32})


def test_a_rank_in_a_pattern_is_checked_too(bert: bases.Base) -> None:
    assert "r is 40" in refusal(bert, "lora", rank_pattern={"query": 40})


def test_vera_may_have_more_ranks_than_width(bert: bases.Base) -> None:
    accept(bert, "vera", r=256)


def test_a_rank_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match=r"methods\.0 \(lora\): r: expected .*greater"):
        resolve.resolve_study(None, {"data.source": "demo", "methods": ["lora"]}, {"r": 0})


def test_virtual_tokens_count_towards_positions(bert: bases.Base) -> None:
    line = refusal(bert, "prompt-tuning", max_length=60, num_virtual_tokens=20)
    assert "--max-length 44" in line
    accept(bert, "prompt-tuning", max_length=44, num_virtual_tokens=20)


def test_more_frequencies_than_entries_are_refused(bert: bases.Base) -> None:
    assert "1024 entries" in refusal(bert, "fourierft", n_frequency=1025)


def test_freezing_all_layers_is_refused(bert: bases.Base) -> None:
    assert "use the method probe" in refusal(bert, "full", freeze_layers=2)


def test_missing_bitsandbytes_says_what_to_install(
    bert: bases.Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert 'pip install "bitsandbytes>=' in refusal(bert, "qlora-8bit")


def test_a_method_that_cannot_run_names_those_that_can(gpt2: bases.Base) -> None:
    line = refusal(gpt2, "lokr")  # FIELD 20: never a silent no-op on Conv1D
    assert "Conv1D" in line
    assert "What can: full, probe, bitfit, lora" in line


def test_an_unknown_type_of_peft_lists_the_known() -> None:
    with pytest.raises(InputError, match="BOFT"):
        resolve.resolve_study(
            None, {"data.source": "demo", "methods": ["peft"]}, {"peft_type": "BOFFT"}
        )


def test_an_unknown_argument_of_a_peft_config_is_suggested(bert: bases.Base) -> None:
    with pytest.raises(InputError, match="boft_block_size"):
        wrap(bert, "peft", peft_type="BOFT", peft_kwargs={"boft_block_sise": 4})


def test_layers_with_a_regex_say_what_to_do(bert: bases.Base) -> None:
    line = refusal(bert, "lora", target_modules=".*query", layers_to_transform=[1])
    assert "Write the layers into the regex" in line


# --- families -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> bases.Base:
    from transformers import MPNetConfig, MPNetModel

    folder = tmp_path_factory.mktemp("models") / "mpnet"
    bert = make_family(tmp_path_factory.mktemp("models") / "bert", "bert")
    shutil.copytree(bert, folder)
    MPNetModel(
        MPNetConfig(
            vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=64,
        )
    ).save_pretrained(folder)  # fmt: skip
    return bases.resolve(str(folder))


def test_an_unknown_family_says_what_to_name(unknown: bases.Base) -> None:
    line = refusal(unknown, "lora")
    assert "type 'mpnet', unknown to tunelab" in line
    assert "modules_to_save" in line
    assert "target_modules: [" in line


def test_an_unknown_family_works_once_it_is_named(unknown: bases.Base) -> None:
    named = {"target_modules": ["q", "v"], "modules_to_save": ["classifier"]}
    accept(unknown, "lora", **named)
    model = wrap(unknown, "lora", **named)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert any(".q.lora_A" in n for n in trained)
    assert any(".classifier." in n for n in trained)
    out = model(input_ids=torch.tensor([[2, 60, 3]]), attention_mask=torch.ones(1, 3).long())
    assert out.logits.shape == (1, 2)


def test_linear_modules_list_conv1d(gpt2: bases.Base) -> None:
    model, _ = pretrained.load_classifier(gpt2, ["a", "b"], seed=0)
    found = parts.linear_modules(model, ["score"])
    assert found == ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]


def test_gpt2_pads_with_a_token_that_its_config_knows(gpt2: bases.Base) -> None:  # FIELD 19
    tokenizer: Any = pretrained.load_tokenizer(gpt2)
    model: Any = pretrained.load_classifier(gpt2, ["a", "b"], seed=0)[0]
    assert tokenizer.pad_token_id is not None
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.padding_side == "right"


def test_the_head_is_never_wrapped(bert: bases.Base) -> None:  # FIELD 5
    for method in ("lora", "adalora"):
        model = wrap(bert, method, **({"r": 4} if method == "lora" else {"init_r": 4}))
        assert not any("classifier" in n and "lora" in n for n, _ in model.named_parameters())


def test_distilberts_pre_classifier_is_trained_and_saved(tiny_distilbert: Path) -> None:  # FIELD 3
    model = wrap(bases.resolve(str(tiny_distilbert)), "lora")
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert any("pre_classifier.modules_to_save" in n for n in trained)
    assert "pre_classifier" in model.peft_config["default"].modules_to_save


def test_freeze_layers_keeps_the_lowest_and_the_embeddings(bert: bases.Base) -> None:
    model = wrap(bert, "full", freeze_layers=1)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert any("layer.0." in n for n in frozen)
    assert any("word_embeddings" in n for n in frozen)
    assert not any("layer.1." in n or "classifier" in n for n in frozen)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"target_modules": "query"}, {"query"}),
        ({"target_modules": "query-value"}, {"query", "value"}),
        ({"target_modules": ["key"]}, {"key"}),
        ({"target_modules": r".*layer\.1.*\.value"}, {"value"}),
        ({"target_modules": "query", "layers_to_transform": [1]}, {"query"}),
    ],
)
def test_presets_names_and_patterns(
    bert: bases.Base, settings: dict[str, Any], expected: set[str]
) -> None:
    model = wrap(bert, "lora", **settings)
    names = [n.partition(".lora_A")[0] for n, _ in model.named_parameters() if "lora_A" in n]
    assert {n.rsplit(".", 1)[-1] for n in names} == expected
    if settings.get("layers_to_transform") or "layer" in str(settings["target_modules"]):
        assert all("layer.1." in n for n in names)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_bias_trains_biases(bert: bases.Base, bias: str) -> None:
    model = wrap(bert, "lora", bias=bias, target_modules="query")
    biases = {n for n, p in model.named_parameters() if p.requires_grad and n.endswith(".bias")}
    assert any("query" in n for n in biases)
    assert any("key" in n for n in biases) == (bias == "all")


# --- quantisation ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "share"), [({"load_in_8bit": True}, 0.5), ({"load_in_4bit": True}, 0.4)]
)
def test_quantised_layers_are_smaller_and_the_head_stays_float(  # FIELD 21
    bert: bases.Base, asked: dict[str, Any], share: float
) -> None:
    quantised: Any = pretrained.load_classifier(bert, ["a", "b"], 0, asked)[0]
    plain: Any = pretrained.load_classifier(bert, ["a", "b"], 0)[0]
    assert type(quantised.classifier) is torch.nn.Linear
    assert quantised.classifier.weight.dtype == torch.float32
    assert type(quantised.bert.pooler.dense) is torch.nn.Linear
    layer, original = quantised.bert.encoder.layer[0], plain.bert.encoder.layer[0]
    assert parts.weight_bytes(layer) < share * parts.weight_bytes(original)
    counts = parts.parameter_counts(quantised, ["classifier"])
    assert counts["total_parameters"] == sum(p.numel() for p in plain.parameters())


def test_the_backend_that_runs_is_named() -> None:  # FIELD 22
    line = pretrained.quantization_backend({"load_in_8bit": True})
    assert line.startswith("bitsandbytes ")
    assert line.endswith(f" on {pretrained.device().type}")


# --- pages and configs ----------------------------------------------------------------------


def test_pages_are_as_the_code_says() -> None:
    written = runpy.run_path(str(ROOT / "benchmarks" / "docs.py"))["pages"]()
    for name, text in written.items():
        assert (ROOT / "docs" / name).read_text("utf-8") == text, "run python benchmarks/docs.py"


def test_the_matrix_is_of_these_methods_and_families() -> None:
    page = (ROOT / "docs" / "matrix.md").read_text("utf-8")
    head, _, *rows = (line for line in page.splitlines() if line.startswith("|"))
    assert [c.strip() for c in head.split("|")[2:-1]] == list(FAMILIES)
    found = {r.split("`")[1]: [c.strip() for c in r.split("|")[2:-1]] for r in rows}
    assert found == {
        m.name: ["refused" if f in m.refused else "passes" for f in FAMILIES]
        for m in METHODS.values()
        if m.adapt
    }, "run python benchmarks/matrix.py"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_ready_studies_resolve_and_can_run(path: Path, bert: bases.Base, gpt2: bases.Base) -> None:
    spec = resolve.resolve_study(path, {})
    base = gpt2 if spec.model == "gpt2" else bert
    for m in spec.methods:
        short = {"max_length": 32} if "max_length" in m.settings else {}
        check(base, MethodSpec(m.name, m.label, {**m.settings, **short}))
    assert json.dumps([m.settings for m in spec.methods])
