"""Scoring many texts: tunelab against transformers.pipeline, tokenization included.

python benchmarks/inference.py [--rows 2000] [--rounds 5] [--artifact FOLDER] [--json]

Every contestant has the same LoRA-adapted MiniLM and labels the same Rotten Tomatoes sentences.
The pipeline, on the merged model (it does not take peft's wrapper), is measured as it ships (one
text at a time), in batches of 32, and in batches of 32 with the texts sorted by length; and so is,
where onnx, onnxscript and onnxruntime are installed (pip install '.[benchmarks]'), onnxruntime
in float32 in sorted batches. With --artifact, a classifier that was trained (a trial's folder): its
accuracy on the test part by the pipeline, in float32 and in bf16.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _measure import AS_SHIPPED, Contestant, arguments, compete, rate, report, shared_data

LABELS = ["negative", "positive"]


def texts(rows: int) -> list[str]:
    import pandas as pd

    found: list[str] = pd.read_parquet(shared_data() / "train.parquet").text.tolist()[:rows]
    return found


def adapted() -> tuple[Any, Any]:
    """A LoRA model and its tokenizer; its adapter is not zero, so that merging has work to do."""
    import torch

    from tunelab.methods import METHODS
    from tunelab.methods.neural import adapted as adapt
    from tunelab.models import bases, pretrained

    base = bases.resolve("minilm")
    row = METHODS["lora"]
    assert row.adapt is not None
    model, _ = adapt(base, LABELS, row.settings(), row.adapt, seed=0)
    torch.manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.02)
    return model.eval(), pretrained.load_tokenizer(base)


def ours(rows: int, precision: str) -> Callable[[], float]:
    from tunelab.core.values import BaseRef
    from tunelab.models.classifier import TransformerClassifier

    model, tokenizer = adapted()
    classifier = TransformerClassifier(
        model, tokenizer, tuple(LABELS), BaseRef("minilm", ""), 128, 64, precision=precision
    )  # fmt: skip
    some = texts(rows)
    classifier.scores(some)
    return rate(rows, lambda: classifier.scores(some))


def pipeline(rows: int, batch: int = 1, ordered: bool = False) -> Callable[[], float]:
    import transformers

    transformers.logging.set_verbosity_error()
    model, tokenizer = adapted()
    model = model.merge_and_unload()  # the pipeline does not take peft's wrapper
    tokenizer.model_max_length = 128
    run = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    some = sorted(texts(rows), key=len) if ordered else texts(rows)
    more = {"batch_size": batch} if batch > 1 else {}
    run(some[:64], truncation=True, **more)
    return rate(rows, lambda: run(some, truncation=True, **more))


def onnx(rows: int) -> Callable[[], float]:
    """onnxruntime on the merged model, as its exporter makes it, in sorted batches of 32."""
    import logging

    import numpy as np
    import onnxruntime
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model, tokenizer = adapted()
    model = model.merge_and_unload().eval()
    some = sorted(texts(rows), key=len)
    names = ["input_ids", "attention_mask"]
    example = tokenizer(some[:2], padding=True, return_tensors="pt")
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=512)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        torch.onnx.export(
            model, tuple(example[n] for n in names), path, input_names=names, dynamo=True,
            dynamic_shapes={n: {0: batch, 1: length} for n in names}, verbose=False,
        )  # fmt: skip
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(part: list[str]) -> Any:
        given = tokenizer(part, padding=True, truncation=True, max_length=128, return_tensors="np")
        return session.run(None, {n: given[n].astype(np.int64) for n in names})[0].argmax(1)

    def all_of_them() -> None:
        for i in range(0, rows, 32):
            run(some[i : i + 32])

    all_of_them()
    return rate(rows, all_of_them)


def agreement(rows: int) -> dict[str, float]:
    """How far from float32 on these texts: largest change of a logit, labels that flip."""
    import numpy as np

    from tunelab.models import batches, scoring

    model, tokenizer = adapted()
    encoded = batches.encode(tokenizer, texts(rows), 128)
    pad = tokenizer.pad_token_id
    exact, *others = (
        scoring.prepare(model, precision=p)(encoded, pad, 64)
        for p in ("float32", "auto", "bfloat16")
    )
    said: dict[str, float] = {}
    for name, found in zip(("auto", "bf16"), others, strict=True):
        said[f"largest change of a logit, {name}"] = float(np.abs(exact - found).max())
        said[f"labels that flip, {name}"] = int((exact.argmax(1) != found.argmax(1)).sum())
    return said


def accuracies(artifact: Path) -> dict[str, str]:
    """Accuracy of a trained classifier on Rotten Tomatoes' test part, by each way of scoring."""
    import pandas as pd
    import transformers

    import tunelab

    frame = pd.read_parquet(shared_data() / "test.parquet")
    some: list[str] = frame.text.tolist()
    model = tunelab.load(artifact)
    names = model.label_names
    with tempfile.TemporaryDirectory() as folder:
        own: Any = model.classifier
        merged = (
            own.model.merge_and_unload() if hasattr(own.model, "merge_and_unload") else own.model
        )
        merged.config.id2label = dict(enumerate(names))
        merged.save_pretrained(folder)
        own.tokenizer.save_pretrained(folder)
        run = transformers.pipeline("text-classification", model=folder)
        peer = [r["label"] for r in run(some, truncation=True, batch_size=32)]
    model = tunelab.load(artifact)
    found = {
        "pipeline": peer,
        "tunelab": model.predict(some),
        "tunelab float32": model.computing_in("float32").predict(some),
        "tunelab bf16": model.computing_in("bfloat16").predict(some),
    }
    truth = [names[k] for k in frame.label]
    said = {}
    for who, labels in found.items():
        right = sum(a == b for a, b in zip(labels, truth, strict=True))
        apart = sum(a != b for a, b in zip(labels, peer, strict=True))
        said[f"accuracy, {who}"] = (
            f"{100 * right / len(truth):.2f}% of {len(truth)}, {apart} labels unlike the pipeline's"
        )
    return said


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--artifact", type=Path)
    given = parser.parse_args()
    n = given.rows
    has_onnx = all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime")))
    contestants = [
        Contestant("pipeline, as it ships", pipeline, {"rows": n}, AS_SHIPPED),
        Contestant("pipeline, batch 32", pipeline, {"rows": n, "batch": 32}, AS_SHIPPED),
        Contestant("pipeline, batch 32, sorted", pipeline,
                   {"rows": n, "batch": 32, "ordered": True}, AS_SHIPPED),
        *([Contestant("onnxruntime, batch 32, sorted", onnx, {"rows": n})] if has_onnx else []),
        Contestant("tunelab", ours, {"rows": n, "precision": "auto"}),
        Contestant("tunelab float32", ours, {"rows": n, "precision": "float32"}),
        Contestant("tunelab bf16", ours, {"rows": n, "precision": "bfloat16"}),
    ]  # fmt: skip
    results = compete(contestants, given.rounds)
    report(
        f"Inference: {n} Rotten Tomatoes sentences, MiniLM with LoRA, tokenization included",
        results, unit="texts/s", baseline="pipeline, as it ships", as_json=given.as_json,
        **(accuracies(given.artifact) if given.artifact else agreement(n)),
    )  # fmt: skip


if __name__ == "__main__":
    # Nothing is downloaded, and nothing of the user's caches is written.
    with tempfile.TemporaryDirectory() as scratch:
        import os

        os.environ["TUNELAB_CACHE"] = str(Path(scratch))
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        main()
