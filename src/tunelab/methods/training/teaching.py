"""The training loop to learn from: full fine-tuning and LoRA in plain PyTorch, in one sitting.

`loop` does the same with the same losses (tests/reference/methods/test_teaching.py), but faster:
without padding, in compiled kernels, several at once. `main` trains LoRA on 200 reviews.

Shapes: b texts in a batch, the longest of t tokens; c classes; a linear layer from k to d numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from tunelab.models.batches import Encoded, pad, train_batches

__all__ = ["LoraLinear", "Recipe", "add_lora", "train_plainly"]

Labelled = tuple[Encoded, NDArray[np.int64]]  # texts in tokens, and their labels (n,)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. The names are those of tunelab's settings, the values those of its `lora`."""

    learning_rate: float = 5e-4
    num_train_epochs: int = 3
    per_device_train_batch_size: int = 16
    weight_decay: float = 0.01
    warmup_steps: float = 0.06  # a share of all steps
    max_grad_norm: float = 1.0


class LoraLinear(nn.Module):
    """y = W x + c + (alpha / r) B A x with W (d, k) and c (d,) frozen, A (r, k), B (d, r).

    B starts at zero: at first the layer computes what it did. Hu et al. 2021, arXiv:2106.09685.
    """

    def __init__(self, linear: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        self.linear, self.scale = linear, alpha / r
        self.A = nn.Parameter(torch.empty(r, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., k) -> (..., d)."""
        out: torch.Tensor = self.linear(x) + self.scale * (x @ self.A.T @ self.B.T)
        return out


def add_lora(
    model: nn.Module, layers: Sequence[str], head: Sequence[str], r: int = 8, alpha: float = 16
) -> None:
    """Freeze all but the head's modules, and put LoRA on the linear layers of these names."""
    for name, p in model.named_parameters():
        p.requires_grad_(any(part in head for part in name.split(".")))
    plain: Any = [(m, n, c) for m in model.modules() for n, c in m.named_children() if n in layers]
    for parent, name, linear in plain:
        setattr(parent, name, LoraLinear(linear, r, alpha))


def train_plainly(  # noqa: PLR0917
    model: Any, texts: Labelled, validation: Labelled, recipe: Recipe, pad_id: int, seed: int = 0
) -> list[float]:
    """Train what requires a gradient; gives each step's loss, the mean over its batch.

    The model ends with the weights of the epoch that was most accurate on validation. `seed` draws
    the order of the texts; dropout, where the model has any, is torch's.
    """
    encoded, labels = texts
    learning = [p for p in model.parameters() if p.requires_grad]
    matrices, vectors = [p for p in learning if p.ndim > 1], [p for p in learning if p.ndim <= 1]
    decayed = {"params": matrices, "weight_decay": recipe.weight_decay}
    optimizer = torch.optim.AdamW([decayed, {"params": vectors, "weight_decay": 0.0}])
    batch_size, order = recipe.per_device_train_batch_size, np.random.default_rng(seed)
    steps = math.ceil(len(encoded) / batch_size) * recipe.num_train_epochs
    losses: list[float] = []
    best, best_weights = -1.0, learning
    for _ in range(recipe.num_train_epochs):
        model.train()
        for rows in train_batches(encoded.lengths, batch_size, order):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * rate_at(len(losses), steps, recipe)
            logits = logits_of_rows(model, encoded, rows, pad_id)
            loss = functional.cross_entropy(logits, torch.from_numpy(labels[rows]))
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(learning, recipe.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        if (right := accuracy(model, validation, pad_id)) > best:
            best, best_weights = right, [p.detach().clone() for p in learning]
    with torch.no_grad():
        for p, kept in zip(learning, best_weights, strict=True):
            p.copy_(kept)
    return losses


def rate_at(step: int, steps: int, recipe: Recipe) -> float:
    """Factor of the learning rate: up to 1 in the warm-up, then down to 0 in a line."""
    warm = math.ceil(recipe.warmup_steps * steps)
    return (step + 1) / warm if step < warm else (steps - step) / (steps - warm)


def logits_of_rows(
    model: Any, texts: Encoded, rows: NDArray[np.int64], pad_id: int
) -> torch.Tensor:
    """(b, c): the texts as (b, t), those that are shorter filled up with `pad_id` and masked."""
    batch = pad(texts, rows, pad_id)
    ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
    logits: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits


def accuracy(model: Any, texts: Labelled, pad_id: int) -> float:
    """Share of the texts whose largest logit is that of their label."""
    model.eval()
    parts = np.array_split(np.arange(len(texts[1])), math.ceil(len(texts[1]) / 64))
    with torch.no_grad():
        said = [logits_of_rows(model, texts[0], rows, pad_id).argmax(1).numpy() for rows in parts]
    return float((np.concatenate(said) == texts[1]).mean())


def main() -> None:
    """LoRA on MiniLM with reviews of the demo data."""
    from tunelab import data
    from tunelab.core import values
    from tunelab.models import bases, batches, pretrained

    reviews, base = data.load(values.DataSpec("demo", subset=200)), bases.resolve("minilm")
    tokenizer = pretrained.load_tokenizer(base)
    model, head = pretrained.load_classifier(base, reviews.label_names, seed=0)
    add_lora(model, ["query", "value"], head)
    few = ((part.texts[:200], part.labels[:200]) for part in (reviews.train, reviews.validation))
    texts, validation = ((batches.encode(tokenizer, t, 64), labels) for t, labels in few)
    for loss in train_plainly(model, texts, validation, Recipe(learning_rate=5e-3), pad_id=0):
        print(f"{loss:.4f}")


if __name__ == "__main__":
    main()
