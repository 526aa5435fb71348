"""What a base or a classifier has to be: whole, finite, of its own type, with a head by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tunelab
from commands import run_here
from families import DECODERS, FAMILY_NAMES, make_family
from tiny import make_tiny, reviews, write_csv
from tunelab import adapters
from tunelab.core.errors import InputError, ModelError
from tunelab.core.values import MethodSpec, Seeds, Split
from tunelab.methods import METHODS, Task, check, fit_alone
from tunelab.models import bases, embeddings, heads, pretrained

LABELS = ("bad", "good")
Weights = dict[str, torch.Tensor]


def rekeyed(folder: Path, change: Callable[[Weights], Weights]) -> Path:
    """The folder with other tensors in its weights' file."""
    file = folder / "model.safetensors"
    changed = {k: v.clone() for k, v in change(load_file(file)).items()}
    save_file(changed, file, metadata={"format": "pt"})
    return folder


def edited(folder: Path, **keys: object) -> Path:
    """The folder with other keys in its config.json; None takes one out."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text(encoding="utf-8")), **keys}
    kept = {k: v for k, v in config.items() if v is not None}
    file.write_text(json.dumps(kept), encoding="utf-8")
    return folder


@pytest.fixture
def copy(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "base"))


def part() -> Split:
    texts, labels = zip(*reviews(16), strict=True)
    return Split(tuple(map(str, range(16))), texts, np.asarray([LABELS.index(y) for y in labels]))


def train(method: str, base: bases.Base, **more: Any) -> Any:
    settings = {"max_length": 32, **more}
    if METHODS[method].adapt:
        settings = {"num_train_epochs": 1, "precision": "float32", **settings}
    check(base, MethodSpec(method, method, settings))
    row = METHODS[method]
    rows = part()
    seeds = Seeds(1, 2, 3)
    return fit_alone(
        row, Task(LABELS, rows, rows, base, row.settings(**settings), seeds, "accuracy", print)
    )


def every_way(folder: Path) -> list[Callable[[], Any]]:
    """All that reads a base's weights."""
    base = bases.resolve(str(folder))
    return [
        lambda: pretrained.load_encoder(base),
        lambda: pretrained.load_classifier(base, LABELS, 0),
        lambda: embeddings.Embedder(base, "mean", 16),
        lambda: tunelab.load_base(str(folder)),
        lambda: check(base, MethodSpec("svm", "svm", {"max_length": 16})),
        lambda: check(base, MethodSpec("lora", "lora", {"max_length": 16})),
        lambda: train("full", base),
    ]


# --- weights that are not there -------------------------------------------------------------


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda w: {k: v for k, v in w.items() if part not in k}


def renamed(name: Callable[[str], str]) -> Callable[[Weights], Weights]:
    return lambda w: {name(k): v for k, v in w.items()}


DAMAGE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a tensor is missing": (
        lambda f: rekeyed(f, without("layer.1.output.dense.b")),
        r"1 of its tensors is not .*layer\.1\.output\.dense\.bias",
    ),
    "all embeddings are missing": (
        lambda f: rekeyed(f, without("embeddings")),
        r"5 of its tensors are not .*embeddings",
    ),
    "names with a prefix of nobody": (
        lambda f: rekeyed(f, renamed(lambda k: f"mine.{k}")),
        r"of its tensors .* they hold mine\.",
    ),
    "some names with a wrapper's prefix": (
        lambda f: rekeyed(f, renamed(lambda k: f"module.{k}" if "layer.0" in k else k)),
        r"of its tensors .* they hold module\.encoder\.layer\.0",
    ),
    "more layers in the config": (lambda f: edited(f, num_hidden_layers=3), r"layer\.2"),
    "fewer layers in the config": (
        lambda f: edited(f, num_hidden_layers=1),
        r"does not count .*layer\.1",
    ),
    "another width in the config": (
        lambda f: edited(f, intermediate_size=48),
        r"intermediate\.dense\.bias is \[64\] in its files and \[48\] by its config",
    ),
    "another type in the config": (
        lambda f: edited(f, model_type="electra"),
        "BertModel is of the type 'bert'",
    ),
    "another type, and no architecture": (
        lambda f: edited(f, model_type="distilbert", architectures=None),
        "of its tensors",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_would_be_random_is_refused_on_every_way(what: str, copy: Path) -> None:
    damage, words = DAMAGE[what]
    damage(copy)
    for way in every_way(copy):
        with pytest.raises(ModelError, match=words) as e:
            way()
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_are_no_numbers_are_refused(
    value: float, dtype: torch.dtype, copy: Path
) -> None:
    def change(weights: Weights) -> Weights:
        name = "encoder.layer.1.attention.self.query.weight"
        weights = {k: v.to(dtype) for k, v in weights.items()}
        weights[name][3, 5] = value
        return weights

    bases.resolve(str(copy))  # before, and whatever is remembered of it
    bases.resolve.cache_clear()
    rekeyed(copy, change)
    with pytest.raises(ModelError, match=r"query\.weight in model\.safetensors holds NaN or inf"):
        bases.resolve(str(copy))


def test_numbers_at_the_ends_of_their_type_are_numbers(copy: Path) -> None:
    def change(weights: Weights) -> Weights:
        weights = {k: v.to(torch.bfloat16) for k, v in weights.items()}
        weights["pooler.dense.bias"][:2] = torch.tensor([3.3e38, -1e-40])
        return weights

    bases.resolve(str(rekeyed(copy, change)))


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "num_attention_heads"])
@pytest.mark.parametrize("value", [-2, 0, -0.5])
def test_sizes_below_one_are_refused(key: str, value: float, copy: Path) -> None:
    with pytest.raises(ModelError, match=f"{key} is {value} in its config"):
        bases.resolve(str(edited(copy, **{key: value})))


def test_layers_that_the_files_cannot_hold_are_refused_before_they_are_built(copy: Path) -> None:
    with pytest.raises(ModelError, match="asks for 999 layers, but its weights hold 39 tensors"):
        bases.resolve(str(edited(copy, num_hidden_layers=999)))
    with pytest.raises(ModelError, match="num_hidden_layers is 10000 in its config"):
        bases.resolve(str(edited(copy, num_hidden_layers=10_000)))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrappers_prefix_is_taken_off_and_that_is_said(
    prefix: str, tiny_bert: Path, copy: Path
) -> None:
    whole = bases.resolve(str(tiny_bert))
    wrapped = bases.resolve(str(rekeyed(copy, lambda w: {prefix + k: v for k, v in w.items()})))
    assert bases.matrices(wrapped) == bases.matrices(whole)
    ours, theirs = (pretrained.load_encoder(b).state_dict() for b in (wrapped, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    outcome = train("lora", wrapped)
    assert f"begin with {prefix!r}" in outcome.details.notes[0]
    assert outcome.details.to_json()["notes"] == list(outcome.details.notes)
    np.testing.assert_array_equal(
        outcome.classifier.scores(part().texts),
        train("lora", whole).classifier.scores(part().texts),
    )


def test_a_new_pooler_and_a_new_head_are_no_fault(copy: Path) -> None:
    rekeyed(copy, lambda w: {k: v for k, v in w.items() if "pooler" not in k})
    base = bases.resolve(str(copy))
    _, new = pretrained.load_classifier(base, LABELS, 0)
    assert "bert.pooler.dense" in new
    pretrained.load_encoder(base)
    check(base, MethodSpec("lora", "lora", {"max_length": 32}))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_what_checkpoints_bring_beside_an_encoder_is_no_fault(family: str, tmp_path: Path) -> None:
    """Language models' heads, classifiers, and what older versions of transformers saved."""
    import transformers as t

    folder = make_family(tmp_path / family, family)
    config = t.AutoConfig.from_pretrained(folder)
    language = t.AutoModelForCausalLM if family in DECODERS else t.AutoModelForMaskedLM
    for auto in (language, t.AutoModelForTokenClassification, t.AutoModelForSequenceClassification):
        model = auto.from_config(config)
        model.save_pretrained(folder)
        rekeyed(folder, lambda w, m=model: as_long_ago(w, m.base_model_prefix, family))
        bases.resolve.cache_clear()
        base = bases.resolve(str(folder))
        for method in ("lora", "svm"):
            check(base, MethodSpec(method, method, {"max_length": 32}))
    pretrained.load_saved(folder, LABELS, 3)


def as_long_ago(weights: Weights, prefix: str, family: str) -> Weights:
    old = {f"{prefix}.position_ids": torch.arange(64)[None]}
    if family == "gpt2":
        old |= {f"{prefix}.h.0.attn.masked_bias": torch.tensor(-1e4)}
    if family == "llama":
        old |= {f"{prefix}.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    if family == "roberta":
        old |= {f"{prefix}.pooler.dense.weight": torch.ones(32, 32)}
    if family == "bert":  # as TensorFlow called them
        weights = {
            k.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): v
            for k, v in weights.items()
        }
    return {**weights, **old}


def test_types_that_differ_in_name_alone_may_be_mixed(tmp_path: Path) -> None:
    folder = edited(make_family(tmp_path / "kin", "roberta"), model_type="camembert")
    pretrained.load_encoder(bases.resolve(str(folder)))


# --- whole classifiers, adapters and SVMs ---------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("saved")
    base = bases.resolve(str(make_tiny(home / "base", "bert")))
    for method in ("full", "lora", "svm"):
        (home / method).mkdir()
        train(method, base).classifier.save(home / method)
    return home


def changed(folder: Path, file: str, change: Callable[[Weights], Weights]) -> Path:
    """A sealed artifact with other tensors, sealed again as if it had been saved so."""
    from tunelab.core.artifact import seal_again

    weights = {k: v.clone().contiguous() for k, v in change(load_file(folder / file)).items()}
    save_file(weights, folder / file, {"format": "pt"})
    seal_again(folder, {})
    return folder


def with_nan(weights: Weights) -> Weights:
    name = max(weights, key=lambda k: weights[k].numel())
    weights[name].view(-1)[0] = float("nan")
    return weights


CHANGES: dict[str, tuple[str, Callable[[Weights], Weights], str]] = {
    "a tensor of the head": ("full", without("classifier.bias"), r"classifier\.bias is missing"),
    "a tensor of a layer": (
        "full",
        without("layer.1.output.dense.w"),
        r"layer\.1\.output\.dense\.weight is missing",
    ),
    "every name": ("full", renamed(lambda k: f"mine.{k}"), "is missing"),
    "a stray tensor": (
        "full",
        lambda w: {**w, "more.weight": torch.zeros(2)},
        r"more\.weight has no place",
    ),
    "a shape": (
        "full",
        lambda w: {**w, "classifier.bias": torch.zeros(5)},
        "classifier.bias has another shape",
    ),
    "a number": ("full", with_nan, "NaN or infinity"),
    "an adapter's number": ("lora", with_nan, "NaN or infinity"),
    "an SVM's number": ("svm", with_nan, "NaN or infinity"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_verify_finds_loading_refuses(what: str, saved: Path, tmp_path: Path) -> None:
    kind, change, words = CHANGES[what]
    file = {"full": "model", "lora": "adapter_model", "svm": "svm"}[kind] + ".safetensors"
    folder = changed(Path(shutil.copytree(saved / kind, tmp_path / kind)), file, change)
    with pytest.raises(InputError, match=words) as e:
        tunelab.load(folder)
    assert "\n" not in str(e.value)
    done = run_here("predict", folder, "a film")
    assert (done.code, done.out) == (2, "")
    if kind != "svm":
        faults = [c.detail for c in adapters.verify(folder) if c.status == "fault"]
        assert any(words.replace("\\", "") in f for f in faults)


def test_a_merge_whose_scores_overflow_writes_nothing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN in the manifest would be no JSON."""
    change = adapters.Change(2, float("nan"), 0)
    monkeypatch.setattr("tunelab.exporting.merging.change_of", lambda *_: change)
    with pytest.raises(InputError, match="no finite numbers"):
        adapters.merge(saved / "lora", tmp_path / "m", ("a film", "good"), allow_changes=True)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("kind", ["lora", "svm"])
def test_a_base_that_lost_a_tensor_is_refused_for_what_was_trained_on_it(
    kind: str, saved: Path, tmp_path: Path
) -> None:
    """Also where its hash says that it is the one."""
    home = Path(shutil.copytree(saved, tmp_path / "moved"))
    edited(home / "base", num_hidden_layers=3)
    manifest = json.loads((home / kind / "tunelab.json").read_text())
    manifest["base"]["name"] = str(home / "base")
    (home / kind / "tunelab.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"would be random, the first is .*layer\.2"):
        tunelab.load(home / kind)


def test_a_saved_svm_answers_the_same_again_and_again(saved: Path) -> None:
    texts = part().texts
    first = tunelab.load(saved / "svm").predict_proba(texts)
    for _ in range(2):
        bases.resolve.cache_clear()
        np.testing.assert_array_equal(tunelab.load(saved / "svm").predict_proba(texts), first)


def test_vectors_of_another_config_are_not_read_back(copy: Path) -> None:
    """The weights are the same, what they compute is not."""
    texts = part().texts
    plain = embeddings.cached(bases.resolve(str(edited(copy))), texts, "mean", 32)
    bases.resolve.cache_clear()
    other = bases.resolve(str(edited(copy, hidden_act="relu")))
    again = embeddings.cached(other, texts, "mean", 32)
    assert not again.from_cache
    assert np.abs(again.vectors - plain.vectors).max() > 1e-3
    bases.resolve.cache_clear()
    labels = edited(copy, hidden_act="gelu", id2label={"0": "x"}, hidden_dropout_prob=0.0)
    assert embeddings.cached(bases.resolve(str(labels)), texts, "mean", 32).from_cache


# --- a head that a base brings --------------------------------------------------------------


def classifier_of(folder: Path, base: Path, names: tuple[str, ...], kind: str = "bert") -> Path:
    """What transformers saves of a classifier for these labels."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(names), id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)},
    )  # fmt: skip
    for p in model.parameters():
        p.data = torch.randn_like(p) * 0.2
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def logits_by_name(model: Any, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    ids = torch.tensor([[2, 40, 41, 3], [2, 50, 60, 3]])
    with torch.no_grad():
        rows = model.eval()(input_ids=ids).logits.numpy()
    return {n: rows[:, i] for i, n in enumerate(names)}


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "deberta-v2", "gpt2", "llama"])
@pytest.mark.parametrize(
    "asked", [("a", "b", "c"), ("c", "a", "b"), ("C", "B", " A")], ids=" ".join
)
def test_rows_of_a_head_go_by_name(family: str, asked: tuple[str, ...], tmp_path: Path) -> None:
    folder = classifier_of(tmp_path / "c", make_family(tmp_path / "b", family), ("a", "b", "c"))
    base = bases.resolve(str(folder))
    theirs = logits_by_name(pretrained.load_saved(folder, ("a", "b", "c"), 3), ("a", "b", "c"))
    ours = logits_by_name(pretrained.load_classifier(base, asked, 1)[0], asked)
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name.strip().lower()], atol=1e-6)
    assert "row by name" in bases.notes_of_base(base, asked)[-1]


@pytest.mark.parametrize("there", [("x", "y"), ("LABEL_0", "LABEL_1"), ("good", "bad!")])
def test_a_head_for_other_labels_starts_anew(
    there: tuple[str, ...], tiny_bert: Path, tmp_path: Path
) -> None:
    folder = classifier_of(tmp_path / "c", tiny_bert, there)
    base = bases.resolve(str(folder))
    states = [pretrained.load_classifier(base, LABELS, s)[0].state_dict() for s in (1, 1, 2)]
    file = load_file(folder / "model.safetensors")
    head = [s["classifier.weight"] for s in states]
    assert torch.equal(head[0], head[1])
    assert not torch.equal(head[0], head[2])
    assert float(head[0].std()) == pytest.approx(0.02, rel=0.5)
    assert not states[0]["classifier.bias"].any()
    assert all(torch.equal(states[0][k], v) for k, v in file.items() if "classifier" not in k)
    (note,) = bases.notes_of_base(base, LABELS)
    # transformers does not write the names that it gives by itself.
    named = "labels that its config does not name" if "_" in there[0] else ", ".join(there)
    assert f"head is for {named}, not for these labels" in note
    assert train("lora", base).details.notes == (note,)


def test_a_head_without_names_or_of_another_number_starts_anew(
    tiny_bert: Path, tmp_path: Path
) -> None:
    nameless = edited(
        classifier_of(tmp_path / "n", tiny_bert, LABELS), id2label=None, label2id=None
    )
    three = classifier_of(tmp_path / "3", tiny_bert, ("bad", "good", "fair"))
    for folder in (nameless, three):
        base = bases.resolve(str(folder))
        file = load_file(folder / "model.safetensors")["classifier.weight"]
        new = pretrained.load_classifier(base, LABELS, 1)[0].state_dict()["classifier.weight"]
        assert not any(torch.equal(row, r) for row in new for r in file)
        assert "starts anew" in bases.notes_of_base(base, LABELS)[0]
    assert bases.notes_of_base(bases.resolve(str(tiny_bert)), LABELS) == ()


def test_names_in_label2id_alone_are_names(tiny_bert: Path, tmp_path: Path) -> None:
    folder = edited(classifier_of(tmp_path / "c", tiny_bert, ("good", "bad")), id2label=None)
    assert heads.labels_in(bases.resolve(str(folder)).config) == ("good", "bad")
    assert heads.rows_by_name(bases.resolve(str(folder)).config, LABELS) == (1, 0)


def test_names_that_are_alike_but_for_capitals_are_told_apart() -> None:
    config = {"id2label": {"0": "A", "1": "a"}}
    assert heads.rows_by_name(config, ("a", "A")) == (1, 0)
    assert heads.rows_by_name(config, ("a", "B")) is None


def test_what_becomes_of_a_head_is_said_in_the_plan_and_the_result(
    tiny_bert: Path, tmp_path: Path
) -> None:
    folder = classifier_of(tmp_path / "c", tiny_bert, ("good", "bad"))
    rows = write_csv(tmp_path / "r.csv", reviews(60), ("text", "label"))
    asked = ("--model", folder, "--max-length", "32", "--num-train-epochs", "1")
    plan = run_here("compare", rows, "--methods", "lora", "--seeds", "1", *asked, "--dry-run",
                    "--output-dir", tmp_path / "o")  # fmt: skip
    assert plan.code == 0, plan.err
    assert "row by name, whose order is another there" in " ".join((plan.out + plan.err).split())
    done = run_here("train", rows, "--method", "lora", *asked, "--output-dir", tmp_path / "t")
    assert done.code == 0, done.err
    assert "row by name" in " ".join(done.err.split())
    result = json.loads((tmp_path / "t" / "trial" / "result.json").read_text())
    assert "row by name" in result["details"]["notes"][0]


def test_a_copy_in_another_precision_beside_the_weights_counts_once(copy: Path) -> None:
    count = bases.count_parameters(bases.resolve(str(copy)))
    halves = {k: v.half() for k, v in load_file(copy / "model.safetensors").items()}
    save_file(halves, copy / "model.fp16.safetensors", metadata={"format": "pt"})
    bases.resolve.cache_clear()
    both = bases.resolve(str(copy))
    assert bases.count_parameters(both) == count
    assert pretrained.load_encoder(both).dtype == torch.float32
