"""`setfit`: the encoder learns which training texts are of one class, then a logistic head.

SetFit (Tunstall et al. 2022): the cosine of two texts' vectors is drawn to 1 where their labels are
the same, to 0 where they differ. A batch holds texts of several classes, and every pair in it
counts, so that a text is computed once for all its pairs; which texts are drawn is a function of
the seed. Meant for 8 to 500 rows: above, fine-tuning sees as much and needs no pairs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tunelab.core.details import Details
from tunelab.core.errors import ModelError
from tunelab.core.events import Step
from tunelab.methods.embedded import CGrid, EmbeddingSettings, fit_logistic
from tunelab.methods.method import Costs, Method, Outcome, Task
from tunelab.models.bases import Base

__all__ = [
    "METHODS",
    "SetfitSettings",
]

_TOLD_EVERY = 10  # steps


class SetfitSettings(CGrid, EmbeddingSettings):
    """Settings of `setfit`."""

    learning_rate: float = Field(5e-5, gt=0, le=10, description="peak learning rate of AdamW")
    num_train_epochs: int = Field(4, ge=1, description="passes over the training part")
    min_steps: int = Field(
        40, ge=1, description="steps at least, of so few rows that their passes are fewer"
    )
    per_device_train_batch_size: int = Field(
        16, ge=4, description="texts in one forward pass; each pair of them counts"
    )
    weight_decay: float = Field(
        0.01, ge=0, description="AdamW weight decay (not on biases and norms)"
    )
    warmup_steps: float = Field(
        0.1, ge=0, description="steps of linear warm-up; below 1, a share of all steps"
    )


def refuse_own_code(base: Base, settings: SetfitSettings) -> None:
    """Refuse a base whose trained weights could not be loaded without code that it brings."""
    if base.runs_its_code:
        raise ModelError(
            f"setfit cannot run on {base.ref.name}: what it saves is a whole encoder, and this one "
            "runs Python code of its own. Use logistic or lora."
        )


def fit_setfit(task: Task) -> Outcome:
    """Train the encoder by pairs, then logistic regression on its vectors."""
    from tunelab.models import bases, embeddings, lengths, parts, tokens
    from tunelab.models.embedded import EmbeddedClassifier
    from tunelab.models.trained_vectors import TrainedVectors

    assert task.base is not None  # noqa: S101  the row says needs_base
    s: SetfitSettings = task.settings
    limit = lengths.limit_of(s.max_length, task.base, task.train.texts)
    trained = TrainedVectors(task.base, s.pooling, task.seeds.dropout)
    encoded = tokens.encoded(trained.tokenizer, task.train.texts, limit, own_code=False)
    started = time.perf_counter()
    history = _train_by_pairs(task, trained, encoded)
    embedder = embeddings.Embedder(
        task.base, s.pooling, limit, s.per_device_eval_batch_size, encoder=trained.encoder
    )
    vectors = embedder(task.train.texts)
    seconds = time.perf_counter() - started
    validation = embedder(task.validation.texts)
    started = time.perf_counter()
    fitted = fit_logistic(task, vectors, validation)
    seconds += time.perf_counter() - started
    weights = parts.count_all(trained.encoder)
    return Outcome(
        classifier=EmbeddedClassifier(
            "setfit", embedder, fitted.head, task.label_names, task.base.ref, s.pooling, limit
        ),
        train_seconds=seconds,
        counts={
            "total_parameters": weights + fitted.held,
            "trainable_parameters": weights + fitted.trained,
            "head_parameters": fitted.trained,
            "adapter_parameters": None,
        },
        history=history,
        details=Details(
            own={
                **fitted.own,
                "steps": len(history),
                "engine": "plain" if trained.why_plain else "packed",
                **({"engine_reason": trained.why_plain} if trained.why_plain else {}),
            },
            notes=bases.notes_of_base(task.base, task.label_names, head=False),
        ),
        reasons={"adapter_parameters": "setfit trains the whole encoder, so there is no adapter"},
        validation_scores=fitted.head.scores(validation),
    )


# --- the pairs --------------------------------------------------------------------------------


def batches_of_classes(
    labels: NDArray[np.int64], size: int, steps: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Rows of each step: as many of each class, of at least two classes and two rows of each where
    there are, and no row twice. Every row of a class comes before one comes again.
    """
    queues = {int(c): np.empty(0, dtype=np.int64) for c in np.unique(labels)}
    rows = {c: np.flatnonzero(labels == c) for c in queues}
    for _ in range(steps):
        some = list(queues)
        if len(some) > size // 2:
            some = rng.choice(some, size // 2, replace=False).tolist()
        drawn = []
        for c in some:
            count = min(size // len(some), len(rows[c]))
            if len(queues[c]) < count:  # those that are left go first, none of them twice
                later = rng.permutation(np.setdiff1d(rows[c], queues[c]))
                queues[c] = np.concatenate([queues[c], later])
            drawn.append(queues[c][:count])
            queues[c] = queues[c][count:]
        yield np.concatenate(drawn)


def loss_of_pairs(vectors: Any, labels: Any) -> Any:
    """Mean squared distance of cosines from 1 (same label) and 0 (another), each kind half of it.

    `vectors` (b, width), `labels` (b,) of torch.
    """
    import torch

    unit = torch.nn.functional.normalize(vectors, dim=1)
    cosines = unit @ unit.T
    each_once = torch.ones_like(cosines, dtype=torch.bool).triu(1)
    same = labels[:, None] == labels[None]
    kinds = [(same & each_once, 1.0), (~same & each_once, 0.0)]
    losses = [((cosines[of] - target) ** 2).mean() for of, target in kinds if of.any()]
    return torch.stack(losses).mean()


def _train_by_pairs(task: Task, trained: Any, encoded: Any) -> tuple[dict[str, float], ...]:
    """Train the encoder in place; the loss and the rate of each step."""
    import torch

    s: SetfitSettings = task.settings
    labels, size = task.train.labels, s.per_device_train_batch_size
    steps = max(s.min_steps, s.num_train_epochs * math.ceil(len(labels) / size))
    decayed = [p for p in trained.encoder.parameters() if p.ndim > 1]
    others = [p for p in trained.encoder.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": s.weight_decay},
              {"params": others, "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=s.learning_rate)
    warm = max(1, math.ceil(s.warmup_steps * steps if s.warmup_steps < 1 else s.warmup_steps))
    rng = np.random.default_rng(task.seeds.order)
    where = next(trained.encoder.parameters()).device
    history = []
    started = time.perf_counter()
    trained.encoder.train()
    with trained.installed():
        for step, rows in enumerate(batches_of_classes(labels, size, steps, rng), 1):
            rate = s.learning_rate * min(step / warm, (steps - step + 1) / max(1, steps - warm))
            for group in optimizer.param_groups:
                group["lr"] = min(rate, s.learning_rate)
            of_rows = torch.from_numpy(labels[rows]).to(where)
            loss = loss_of_pairs(trained.vectors_of(encoded, rows), of_rows)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.encoder.parameters(), 1.0)
            optimizer.step()
            epoch, now = step * size / len(labels), float(loss.detach())
            history.append(
                {"step": float(step), "epoch": epoch, "loss": now, "learning_rate": rate}
            )
            if step % _TOLD_EVERY == 0 or step == steps:
                texts = step * size / (time.perf_counter() - started)
                task.on_step(Step(step, epoch, now, rate, steps, texts))
    trained.encoder.eval()
    return tuple(history)


METHODS = (
    Method(
        "setfit",
        "the encoder trained by pairs of texts of one class or two, then logistic regression",
        SetfitSettings,
        fit_setfit,
        check=refuse_own_code,
        by_metric=True,
        costs=Costs(work=6.5, weight_copies=4.0),
    ),
)
