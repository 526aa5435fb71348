"""Packed training equals transformers (and peft) on the padded batch: loss and every gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tunelab import bases, batching, packing, train
from tunelab.batching import Encoded
from tunelab.methods import METHODS
from tunelab.methods.neural import adapted

# Odd shapes: one token, one row, all alike, very different, more tokens than positions.
SHAPES = [[1], [7], [1, 1, 1], [2, 30, 1, 17], [30] * 20, list(range(1, 31))]


def loaded(folder: Path, method: str, **settings: Any) -> Any:
    row = METHODS[method]
    assert row.adapt is not None
    base = bases.resolve(str(folder))
    model, _ = adapted(base, ["a", "b", "c"], row.settings(**settings), row.adapt, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_B" in name:  # zero at first: then A would have no gradient to compare
            torch.nn.init.normal_(p, std=0.05, generator=generator)
    return model.double()


def loss_and_gradients(model: Any, logits: torch.Tensor, labels: torch.Tensor) -> Any:
    model.zero_grad()
    loss = functional.cross_entropy(logits, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("lengths", SHAPES, ids=str)
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", ["tiny_bert", "tiny_distilbert"])
def test_packed_equals_padded(
    family: str, method: str, lengths: list[int], request: pytest.FixtureRequest
) -> None:
    model = loaded(request.getfixturevalue(family), method).eval()
    rng = np.random.default_rng(0)
    texts = Encoded(tuple(rng.integers(5, 40, n) for n in lengths))
    rows = np.arange(len(lengths))
    labels = torch.from_numpy(rng.integers(0, 3, len(lengths)))
    packed = packing.Packed(model)
    with packed.installed():
        ours, tokens = packed(texts, rows)
        ours_loss, ours_gradients = loss_and_gradients(model, ours, labels)
    batch = batching.pad(texts, rows, pad_id=0)
    theirs = train.forward(model, batch, torch.device("cpu"))
    loss, gradients = loss_and_gradients(model, theirs, labels)

    assert sum(lengths) <= tokens < sum(lengths) + 32
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert float(ours_loss) == pytest.approx(float(loss), rel=1e-6)
    # The padded path also touches BERT's second token type or pad rows with zero gradients only.
    assert ours_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours_gradients[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


def test_attention_and_dropout_are_put_back(tiny_bert: Path) -> None:
    model = loaded(tiny_bert, "lora", lora_dropout=0.5)
    before = [type(m) for m in model.modules()]
    attention = model.get_base_model().config._attn_implementation
    packed = packing.Packed(model)
    with packed.installed():
        assert [type(m) for m in model.modules()] != before
    assert [type(m) for m in model.modules()] == before
    assert model.get_base_model().config._attn_implementation == attention


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_fast_dropout_has_the_right_rate_scale_and_gradient(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(400, 503, requires_grad=True)
    y = packing.fast_dropout(x, p)
    kept = y != 0
    # Five standard errors of a rate over 200,000 draws.
    assert abs(float(kept.float().mean()) - (1 - p)) < 5 * (p * (1 - p) / x.numel()) ** 0.5
    assert torch.allclose(y[kept], torch.tensor(1 / (1 - p)), rtol=1e-4)
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    # Neither rows nor columns share a mask, and neighbours are not correlated.
    k = kept.float() - kept.float().mean()
    assert abs(float((k[:, 1:] * k[:, :-1]).mean())) < 5 * p * (1 - p) / x.numel() ** 0.5


def test_dropout_is_a_function_of_the_seed() -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return packing.fast_dropout(torch.ones(1000), 0.3)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_what_cannot_be_packed_says_why(tiny_bert: Path) -> None:
    model = loaded(tiny_bert, "full")
    assert packing.why_not(model) is None
    model.config.model_type = "strange"
    assert packing.why_not(model) == "strange has no packed path"
