"""Training on several labels a text: the loss and its gradients are those of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from families import make_family
from tunelab.core.values import Seeds
from tunelab.methods import METHODS
from tunelab.methods.neural import adapted
from tunelab.methods.training import loop
from tunelab.methods.training.loop import TrainingData
from tunelab.methods.training.updates import Hooks, Updates
from tunelab.models import bases
from tunelab.models.batches import Encoded

NAMES = ["a", "b", "c"]
SEEDS = Seeds(init=1, order=2, dropout=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bases.Base:
    return bases.resolve(str(make_family(tmp_path_factory.mktemp("several") / "bert", "bert")))


def data(n: int, seed: int) -> TrainingData:
    """Texts of which three tokens give away a label each."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < 0.4).astype(np.int64)
    ids = tuple(
        np.concatenate([[2], 10 + np.flatnonzero(row), rng.integers(20, 40, 5), [3]])
        for row in labels
    )
    return TrainingData(Encoded(ids), labels, tuple(map(str, range(n))))


def model_of(base: bases.Base, **settings: Any) -> tuple[Any, Any]:
    asked = METHODS["full"].settings(**settings)
    adapt = METHODS["full"].adapt
    assert adapt is not None
    return adapted(base, NAMES, asked, adapt, SEEDS.init)[0], asked


def test_the_loss_is_that_of_transformers(base: bases.Base) -> None:
    model, settings = model_of(base)
    texts = data(9, 0)
    ids = torch.tensor([[*row[:3], *row[-3:]] for row in texts.encoded.ids])
    model.eval()
    model.config.problem_type = "multi_label_classification"
    theirs = model(input_ids=ids, labels=torch.tensor(texts.labels, dtype=torch.float32))
    theirs.loss.backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    updates = Updates(model, texts.labels, settings, Hooks(), 10, "float32")
    logits = model(input_ids=ids).logits
    loss = updates.sum_of_losses(logits, texts.labels, np.arange(9)) / updates.weight_of(
        texts.labels
    )
    assert loss.item() == pytest.approx(theirs.loss.item())
    loss.backward()
    ours = [p.grad for p in model.parameters() if p.grad is not None]
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def losses(base: bases.Base, engine: str) -> tuple[list[float], float]:
    """The loss of each step, and the best micro F1 on validation."""
    model, settings = model_of(
        base,
        engine=engine,
        precision="float32",
        learning_rate=3e-3,
        num_train_epochs=5,
        metric_for_best_model="f1_micro",
    )
    for m in model.modules():
        if isinstance(m, torch.nn.Dropout):
            m.p = 0.0
    fitted = loop.train_model(
        model,
        pad_id=0,
        train=data(120, 0),
        validation=data(60, 9),
        settings=settings,
        seeds=SEEDS,
        on_step=lambda _: None,
    )
    assert fitted.engine.name == ("plain" if engine == "plain" else "packed")
    best = max(row["eval_f1_micro"] for row in fitted.history if "eval_f1_micro" in row)
    return [row["loss"] for row in fitted.history if "loss" in row], best


def test_both_engines_learn_the_same(base: bases.Base) -> None:
    (packed, best), (plain, _) = losses(base, "auto"), losses(base, "plain")
    np.testing.assert_allclose(packed, plain, rtol=2e-3)
    assert best > 0.75
