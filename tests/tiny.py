"""Tiny inputs for tests: texts that can be learnt, and random base models to learn with."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
GOOD = ("good", "lovely", "warm", "clever", "moving", "bright")
BAD = ("bad", "dull", "cold", "clumsy", "boring", "grim")
PLAIN = ("film", "plot", "scene", "actor", "the", "a", "and", "is", "was", "very", "of", "with")


def vocabulary() -> list[str]:
    """A WordPiece vocabulary that spells every lower-case word, with some words whole."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    all_of = (*SPECIAL, *letters, *(f"##{c}" for c in letters), *".,!?-'", *GOOD, *BAD, *PLAIN)
    return list(dict.fromkeys(all_of))


def reviews(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """Distinct texts with the label "good" or "bad", in turn, that a bag of words can learn."""
    rng = np.random.default_rng(seed)
    out: dict[str, str] = {}
    while len(out) < n:
        label, words = (("good", GOOD), ("bad", BAD))[len(out) % 2]
        said = [*rng.choice(words, 1), *rng.choice(PLAIN, 6), str(len(out))]
        rng.shuffle(said)
        out[" ".join(said)] = label
    return list(out.items())


def make_tiny(folder: Path, kind: str, seed: int = 0) -> Path:
    """Write a random base model in the hub's layout: 2 layers, 32 wide, 64 positions."""
    import torch
    from transformers import (
        BertConfig,
        BertModel,
        BertTokenizerFast,
        DistilBertConfig,
        DistilBertModel,
    )

    vocab = {token: i for i, token in enumerate(vocabulary())}
    size = {"vocab_size": len(vocab), "max_position_embeddings": 64}
    torch.manual_seed(seed)
    model: BertModel | DistilBertModel
    if kind == "bert":
        model = BertModel(
            BertConfig(
                **size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=64,
            )
        )  # fmt: skip
    else:
        model = DistilBertModel(
            DistilBertConfig(**size, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
        )
    model.save_pretrained(folder)
    BertTokenizerFast(vocab=vocab, model_max_length=64).save_pretrained(folder)
    return folder


def write_csv(path: Path, rows: Sequence[Sequence[object]], head: Sequence[str]) -> Path:
    """Write a CSV file and give its path."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(head)
        writer.writerows(rows)
    return path
