"""Models that people bring: what cannot be right is refused in the plan, in one line, exit code 2;
what loads answers as transformers does.
"""

from __future__ import annotations

import json
import re
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
from families import make_family
from others import make_unknown
from tiny import make_tiny, reviews, write_csv
from tunelab.models import pretrained


def edit(folder: Path, file: str = "config.json", **keys: object) -> Path:
    """Other keys in a JSON file of the folder; None takes one out."""
    path = folder / file
    value = {**json.loads(path.read_text(encoding="utf-8")), **keys}
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}), encoding="utf-8")
    return folder


def with_tokens(folder: Path, *words: str, pad: str | None = None) -> Path:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(words))
    if pad:
        tokenizer.add_special_tokens({"pad_token": pad})
    tokenizer.save_pretrained(folder)
    return folder


def without_special_tokens(folder: Path) -> Path:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder


def sharded(folder: Path, lost: bool = True) -> Path:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    where = {n: parts[i >= 20] for i, n in enumerate(names)}
    for part in parts[: 1 if lost else 2]:
        own = {n: weights[n] for n in names if where[n] == part}
        save_file(own, folder / part, {"format": "pt"})
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def adapter(folder: Path, whole: bool) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = Path(shutil.copytree(folder, folder.parent / "base-of-it"))
    with pretrained.quiet():  # peft looks for the base's card on the hub, and says so
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
        tuned = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))
        tuned.save_pretrained(folder)
    if not whole:
        (folder / "model.safetensors").unlink()
    return folder


def newer_tokenizer(folder: Path) -> Path:
    return edit(folder, "tokenizer.json", model={"type": "New", "vocab": [["a", 0]]})


def renamed(folder: Path, name: str) -> Path:
    (folder / "model.safetensors").rename(folder / name)
    return folder


Made = tuple[Callable[[Path], Path], str]
BERT: Callable[[Path], Path] = lambda f: make_tiny(f, "bert")  # noqa: E731
BROUGHT: dict[str, Made] = {
    "a token beyond the embedding": (
        lambda f: with_tokens(BERT(f), "new"), r"token 'new' with the number 106.* has 106 rows"),
    "a pad token beyond the embedding": (
        lambda f: with_tokens(make_family(f, "llama"), *(f"x{i}" for i in range(9)), pad="[P]"),
        r"with the number 1\d\d, but its embedding has 1\d\d rows"),
    "a token beyond, of an unknown type": (
        lambda f: with_tokens(make_unknown(f, "mpnet"), *(f"x{i}" for i in range(9))),
        r"'x8' with the number|has 1\d\d rows"),
    "no pad token": (lambda f: without_special_tokens(BERT(f)), "names no padding token"),
    "a missing shard": (lambda f: sharded(BERT(f)), "lists 2 files, of which model-00002-of-00002"),
    "an index of nothing": (
        lambda f: edit(sharded(BERT(f)), "model.safetensors.index.json", weight_map=None),
        "does not say which file holds which tensor"),
    "weights of another precision": (
        lambda f: renamed(BERT(f), "model.fp16.safetensors"),
        r"expected model\.safetensors, found model\.fp16\.safetensors"),
    "a tokenizer of another version": (
        lambda f: newer_tokenizer(BERT(f)), "its tokenizer cannot be loaded"),
    "weights that are quantised": (
        lambda f: edit(BERT(f), quantization_config={"quant_method": "gptq", "bits": 4}),
        r"quantised already \(gptq\)"),
    "attention that is not installed": (
        lambda f: edit(make_family(f, "llama"), _attn_implementation="flash_attention_2",
                       attn_implementation="flash_attention_2"), "cannot load it"),
    "an adapter": (lambda f: adapter(BERT(f), whole=False), "is an adapter"),
    "an adapter beside its base": (lambda f: adapter(BERT(f), whole=True), "is an adapter"),
    "an encoder with a decoder": (lambda f: make_unknown(f, "bart"), "an encoder with a decoder"),
    "positions after another pad id": (
        lambda f: make_family(f, "roberta", pad_token_id=2, bos_token_id=1),
        "has positions for 63 tokens"),
    "positions of an unknown type": (
        lambda f: make_unknown(f, "mpnet"), "computes texts of 64 tokens at most"),
    "positions of another unknown type": (
        lambda f: make_unknown(f, "longformer"), "computes texts of 65 tokens at most"),
    "a negative number of layers": (
        lambda f: edit(BERT(f), num_hidden_layers=-2), "num_hidden_layers is -2"),
    "a type that is no word": (
        lambda f: edit(BERT(f), model_type=["bert"]), "expected a model_type"),
    "a type of nobody": (lambda f: edit(BERT(f), model_type="evil"), "unknown to tunelab"),
    "a config that does not fit itself": (
        lambda f: edit(BERT(f), num_attention_heads=5), "cannot load it"),
}  # fmt: skip
LONGER = {"positions after another pad id": 64, "positions of an unknown type": 66,
          "positions of another unknown type": 66}  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("rows") / "r.csv", reviews(60), ("text", "label"))


# An unknown type has to be named a head and layers for lora.
PAIRS = [
    (w, m) for w in BROUGHT for m in ("lora", "svm", "full") if "unknown" not in w or m != "lora"
]


@pytest.mark.parametrize(("what", "method"), PAIRS)
def test_what_cannot_be_right_is_refused_in_the_plan(
    what: str, method: str, rows: Path, tmp_path: Path
) -> None:
    make, words = BROUGHT[what]
    folder = make(tmp_path / "model")
    done = run_here("compare", rows, "--methods", method, "--seeds", "1", "--model", folder,
                    "--max-length", LONGER.get(what, 32), "--tuning", "off", "--dry-run",
                    "--output-dir", tmp_path / "o")  # fmt: skip
    assert (done.code, done.out) == (2, ""), done.err
    (line,) = done.err.strip().splitlines()
    assert re.search(words, line), line
    assert not (tmp_path / "o").exists()


def test_the_shards_of_a_whole_model_are_read(tmp_path: Path) -> None:
    whole = tunelab.load_base(str(make_tiny(tmp_path / "a", "bert")))[0].state_dict()
    parts = tunelab.load_base(str(sharded(make_tiny(tmp_path / "b", "bert"), lost=False)))[0]
    assert all(torch.equal(v, whole[k]) for k, v in parts.state_dict().items())


# --- classifiers that others saved ----------------------------------------------------------

TEXTS = ["a good film", "the plot of the film was very very cold and the scene grim", "a [SEP]"]


def whole(folder: Path, base: Path, labels: int = 3, **keys: object) -> Path:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    for p in model.parameters():
        p.data = torch.randn_like(p) * 0.2
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return edit(folder, **keys)


def probabilities(folder: Path, labels: int) -> Any:
    """Of TEXTS, each by itself, by transformers alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels).eval()
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    out = []
    for text in TEXTS:
        asked = tokenizer(text, return_tensors="pt")
        asked.pop("token_type_ids", None)
        with torch.no_grad():
            out.append(model(**asked).logits.softmax(-1)[0].double().numpy())
    return np.stack(out)


def test_a_decoder_without_a_pad_id_has_its_tokenizers(tmp_path: Path) -> None:
    base = make_family(tmp_path / "b", "llama")
    with_tokens(base, pad="[PAD]")
    folder = whole(tmp_path / "c", base, pad_token_id=None)
    loaded = tunelab.load(folder)
    ours = loaded.computing_in("float32").predict_proba(TEXTS)
    np.testing.assert_allclose(ours, probabilities(folder, 3), atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "names", "note"),
    [
        ({"id2label": {"0": "n", "1": "p"}, "label2id": {"n": 0, "p": 1}},
         ("LABEL_0", "LABEL_1", "LABEL_2"), "no names for its 3 classes"),
        ({"id2label": None, "label2id": {"a": 0, "c": 2, "b": 1}}, ("a", "b", "c"), None),
        ({"id2label": {"0": "a", "1": "b", "5": "c"}, "label2id": None},
         ("LABEL_0", "LABEL_1", "LABEL_2"), "no names for its 3 classes"),
        ({"id2label": {str(i): f"n{i}" for i in range(4)}, "label2id": None},
         ("LABEL_0", "LABEL_1", "LABEL_2"), "no names for its 3 classes"),
    ],
)  # fmt: skip
def test_a_classifier_has_as_many_classes_as_rows(
    keys: dict[str, object], names: tuple[str, ...], note: str | None, tmp_path: Path
) -> None:
    folder = whole(tmp_path / "c", make_tiny(tmp_path / "b", "bert"), **keys)
    loaded = tunelab.load(folder)
    assert loaded.label_names == names
    assert any(note in n for n in loaded.notes) if note else len(loaded.notes) == 2
    ours = loaded.computing_in("float32").predict_proba(TEXTS)
    np.testing.assert_allclose(ours, probabilities(folder, 3), atol=1e-5)
    assert run_here("predict", folder, "a film").code == 0


def test_a_saved_classifier_cuts_texts_elsewhere_as_here(rows: Path, tmp_path: Path) -> None:
    from transformers import pipeline

    base = make_tiny(tmp_path / "b", "bert")
    tunelab.fine_tune(rows, "full", output_dir=tmp_path / "o", model=str(base), max_length=12,
                      num_train_epochs=1)  # fmt: skip
    text = "the plot of the film was very very cold and the scene grim with it " * 9
    label = pipeline("text-classification", str(tmp_path / "o"), top_k=None)
    (theirs,) = label([text], truncation=True)
    ours = dict(zip(tunelab.load(tmp_path / "o").label_names,
                    tunelab.load(tmp_path / "o").predict_proba(text)[0], strict=True))  # fmt: skip
    assert {x["label"]: x["score"] for x in theirs} == pytest.approx(ours, abs=1e-4)
