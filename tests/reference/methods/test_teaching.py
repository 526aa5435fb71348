"""The teaching loop gives the losses of the real one, and has no tricks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from families import make_family
from tunelab.core.values import Seeds
from tunelab.methods import METHODS
from tunelab.methods.neural import adapted
from tunelab.methods.training import loop, teaching
from tunelab.methods.training.loop import TrainingData
from tunelab.methods.training.teaching import LoraLinear, Recipe, add_lora, train_plainly
from tunelab.models import bases, pretrained
from tunelab.models.batches import Encoded
from tunelab.models.families import head_modules

LABELS = ["bad", "good"]
SEEDS = Seeds(init=1, order=2, dropout=3)
RECIPE = Recipe(learning_rate=2e-3, weight_decay=0.1)
LAYERS = ["query", "value"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bases.Base:
    return bases.resolve(str(make_family(tmp_path_factory.mktemp("teaching") / "bert", "bert")))


def data(n: int, seed: int) -> TrainingData:
    """Texts whose first token gives away their class, but for every fifth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    ids = tuple(
        np.concatenate([[2, 10 + y * (i % 5 > 0)], rng.integers(20, 40, rng.integers(1, 12)), [3]])
        for i, y in enumerate(labels)
    )
    return TrainingData(Encoded(ids), labels, tuple(map(str, range(n))))


def without_dropout(model: Any) -> None:
    for m in model.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0


def by_the_engine(base: bases.Base, method: str, **settings: Any) -> tuple[Any, Any, list[float]]:
    """The model before and after training, and its losses."""
    row = METHODS[method]
    assert row.adapt is not None
    asked = row.settings(
        learning_rate=RECIPE.learning_rate,
        weight_decay=RECIPE.weight_decay,
        precision="float32",
        **settings,
    )
    model, _ = adapted(base, LABELS, asked, row.adapt, SEEDS.init)
    without_dropout(model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    fitted = loop.train_model(
        model,
        pad_id=0,
        train=data(70, 0),
        validation=data(30, 9),
        settings=asked,
        seeds=SEEDS,
        on_step=lambda _: None,
    )
    return before, model, [row["loss"] for row in fitted.history if "loss" in row]


def plainly(model: nn.Module) -> list[float]:
    without_dropout(model)
    texts, validation = ((d.encoded, d.labels) for d in (data(70, 0), data(30, 9)))
    return train_plainly(model, texts, validation, RECIPE, pad_id=0, seed=SEEDS.order)


def assert_close(ours: Iterable[torch.Tensor], theirs: Iterable[torch.Tensor]) -> None:
    # Single numbers part a little more than losses do: Adam divides by the size of gradients.
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def test_full_fine_tuning_has_the_losses_of_the_engine(base: bases.Base) -> None:
    _, theirs, expected = by_the_engine(base, "full")
    ours: Any = pretrained.load_classifier(base, LABELS, SEEDS.init)[0]
    losses = plainly(ours)
    assert len(losses) == len(expected) == 15
    assert losses == pytest.approx(expected, abs=1e-5)
    assert min(losses) < 0.9 * losses[0]
    # Softmax takes no notice of a key's bias: its gradient is rounding, which Adam makes large.
    learnt = dict(theirs.named_parameters())
    names = [n for n, _ in ours.named_parameters() if not n.endswith("key.bias")]
    assert_close([ours.get_parameter(n) for n in names], [learnt[n] for n in names])


def test_lora_has_the_losses_of_the_engine(base: bases.Base) -> None:
    before, theirs, expected = by_the_engine(base, "lora", target_modules=LAYERS)
    ours: Any
    ours, head = pretrained.load_classifier(base, LABELS, SEEDS.init)
    add_lora(ours, LAYERS, head_modules(bases.family_of(base, None), head))
    starts = [p for n, p in before.items() if "lora_A" in n]
    layers = [m for m in ours.modules() if isinstance(m, LoraLinear)]
    for layer, start in zip(layers, starts, strict=True):
        layer.A.data.copy_(start)
    losses = plainly(ours)
    assert len(losses) == len(expected) == 15
    assert losses == pytest.approx(expected, abs=1e-5)
    learnt = {n: p for n, p in theirs.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in learnt.values()) == sum(
        p.numel() for p in ours.parameters() if p.requires_grad
    )
    assert_close([m.A for m in layers], [p for n, p in learnt.items() if "lora_A" in n])
    assert_close([m.B for m in layers], [p for n, p in learnt.items() if "lora_B" in n])


def test_it_is_read_in_one_sitting() -> None:
    assert teaching.__file__ is not None
    assert len(Path(teaching.__file__).read_text(encoding="utf-8").splitlines()) <= 150
