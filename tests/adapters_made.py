"""Adapters with random, large weights, as if trained: made in no time, each with its own head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, TaskType, get_peft_model

from tunelab.models import bases, pretrained
from tunelab.models.classifier import TransformerClassifier

TARGETS = ("query", "value", "intermediate.dense")


def lora_config(**more: Any) -> LoraConfig:
    """LoRA of rank 4 on some layers of a BERT; `more` is peft's."""
    settings: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": list(TARGETS),
        "modules_to_save": ["classifier"],
    }
    return LoraConfig(task_type=TaskType.SEQ_CLS, **(settings | more))


def make_adapter(
    folder: Path,
    base: Path | str,
    labels: Sequence[str],
    seed: int,
    config: Any = None,
    *,
    max_length: int = 32,
    spread: float = 0.3,
) -> Path:
    """Save an adapter on a base, with weights of this standard deviation, drawn by `seed`."""
    resolved = bases.resolve(str(base))
    model, _ = pretrained.load_classifier(resolved, labels, seed)
    with pretrained.quiet():
        wrapped = get_peft_model(model, config or lora_config())
    generator = torch.Generator().manual_seed(seed)
    for name, p in wrapped.named_parameters():
        if p.requires_grad and "original_module" not in name:
            mean = 1.0 if "ia3" in name else 0.0
            p.data.normal_(mean, spread, generator=generator)
    wrapped.eval()
    folder.mkdir(parents=True)
    tokenizer = pretrained.load_tokenizer(resolved)
    own = TransformerClassifier(wrapped, tokenizer, tuple(labels), resolved.ref, max_length, 16)
    own.save(folder)
    return folder


def make_model(folder: Path, base: Path, labels: Sequence[str], seed: int) -> Path:
    """Save a whole model with a random head."""
    resolved = bases.resolve(str(base))
    model, _ = pretrained.load_classifier(resolved, labels, seed)
    folder.mkdir(parents=True)
    tokenizer = pretrained.load_tokenizer(resolved)
    TransformerClassifier(model.eval(), tokenizer, tuple(labels), resolved.ref, 32, 16).save(folder)
    return folder


def make_embedding_svm(folder: Path, base: Path, labels: Sequence[str], seed: int) -> Path:
    """Save an SVM on a base's embeddings, with random planes."""
    from tunelab.models.embedded import EmbeddedClassifier
    from tunelab.models.embeddings import Embedder
    from tunelab.models.vector_heads import Hyperplanes, LinearHead, Standard

    resolved = bases.resolve(str(base))
    embedder = Embedder(resolved, "mean", 32)
    width = embedder(["a"]).shape[1]
    draw = np.random.default_rng(seed).normal
    planes = Hyperplanes(draw(size=(len(labels), width)), draw(size=len(labels)), 1.0)
    head = LinearHead(planes, Standard(np.zeros(width), np.ones(width)))
    folder.mkdir(parents=True)
    EmbeddedClassifier(
        "svm", embedder, head, tuple(labels), resolved.ref, "mean", 32
    ).save(folder)  # fmt: skip
    return folder


def make_svm(folder: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """Train and save a TF-IDF SVM."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    from tunelab.models.linear import TfidfSvm, tfidf_features
    from tunelab.models.tfidf import NgramWeights
    from tunelab.models.vector_heads import Hyperplanes

    names = sorted({label for _, label in rows})
    texts = [text for text, _ in rows]
    vectorizer = TfidfVectorizer(analyzer="word", sublinear_tf=True).fit(texts)
    own = LinearSVC().fit(
        tfidf_features([vectorizer], texts), [names.index(label) for _, label in rows]
    )
    weights, offsets = own.coef_, own.intercept_
    if len(names) == 2:  # scikit-learn keeps the second class's plane alone
        weights, offsets = np.concatenate([-weights, weights]), np.concatenate([-offsets, offsets])
    folder.mkdir(parents=True)
    planes = Hyperplanes(weights, offsets, 2.0)
    TfidfSvm((NgramWeights.of(vectorizer),), planes, tuple(names)).save(folder)
    return folder
