"""AdamW of our own against torch's, also where it moves only rows of an embedding that are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tunelab.kernels import adamw, library
from tunelab.models import packed_modules

needs_kernels = pytest.mark.skipif(
    not library.available(), reason="there is no compiler: torch's AdamW runs"
)


def groups(params: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": params[:2], "weight_decay": 0.1, "lr": 1e-2},
        {"params": params[2:], "weight_decay": 0.0, "lr": 3e-3},
    ]


def params(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(40, 24), (7, 3), (1,), (2500,)]
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def torchs(some: list[torch.nn.Parameter]) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups(some), betas=(0.9, 0.999), eps=1e-8)


@needs_kernels
@pytest.mark.parametrize("max_norm", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("threads", [1, 2])
def test_steps_are_torchs(max_norm: float, threads: int) -> None:
    three = [params(), params(), params(torch.float64)]
    own = adamw.AdamW(groups(three[0]), lr=1e-2, max_norm=max_norm)
    optimizers = [own, torchs(three[1]), torchs(three[2])]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for step in range(30):
            for i, alike in enumerate(zip(*three, strict=True)):
                g = torch.randn(
                    alike[0].shape, generator=torch.Generator().manual_seed(99 * step + i)
                )
                for p in alike:
                    # One has no gradient in some steps: its own count of steps waits with it.
                    p.grad = None if i == 1 and step % 3 == 0 else g.to(p.dtype, copy=True)
            if max_norm:
                for theirs in three[1:]:
                    torch.nn.utils.clip_grad_norm_(theirs, max_norm)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] *= 0.97
                optimizer.step()
    finally:
        torch.set_num_threads(before)
    for ours, torchs_own, exact in zip(*three, strict=True):
        # As near to float64 as torch's own.
        assert (ours - exact).norm() <= 2.5 * (torchs_own - exact).norm() + 1e-7
        torch.testing.assert_close(ours, torchs_own, rtol=1e-5, atol=3e-6)


@needs_kernels
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_rows_that_are_not_read_end_where_torch_has_them(decay: float) -> None:
    """Over gaps of up to 700 steps, with rows never read, and steps that give a whole gradient."""
    vocabulary, width = 50, 24
    start = torch.randn(vocabulary, width, generator=torch.Generator().manual_seed(0))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    group: dict[str, Any] = {"weight_decay": decay, "lr": 1e-2}
    own = adamw.AdamW([{"params": [ours], **group}], lr=1e-2, max_norm=1.0)
    other = torch.optim.AdamW([{"params": [theirs], **group}], betas=(0.9, 0.999), eps=1e-8)
    rows = adamw.rows_of(ours)
    random = np.random.default_rng(0)
    for step in range(760):
        # Rows 40 to 44 are read at the start and at the end, 45 to 49 never.
        seen = [40, 41, 42, 43, 44] if step in {0, 3, 704, 730} else []
        picked = [*random.integers(0, 20 if step % 100 else 40, 12).tolist(), *seen]
        ids = torch.tensor(picked).view(1, -1)
        parts = ids.split(7, dim=1)  # accumulated, as batches before a step are
        g = [torch.randn(*p.shape, width, generator=torch.Generator().manual_seed(step))
             for p in parts]  # fmt: skip
        for p, some in zip(parts, g, strict=True):
            rows.reading(ours, p)
            read = functional.embedding(p, theirs)
            torch.testing.assert_close(functional.embedding(p, ours), read, rtol=1e-5, atol=1e-5)
            read.backward(some)  # type: ignore[no-untyped-call]
            rows.add(ours, p, some, None)
        if step in {100, 101, 500}:
            more = torch.ones_like(theirs)
            ours.grad = more.clone()
            assert theirs.grad is not None
            theirs.grad += more
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        for optimizer in (own, other):
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 800)
            optimizer.step()
            optimizer.zero_grad()
        assert ours.grad is None
    rows.settle(ours)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    moved = (ours.detach() - start).abs().amax(1)
    assert float(moved[:45].min()) > 1e-3


@needs_kernels
def test_whole_gradients_are_left_where_nobody_takes_rows() -> None:
    weight = torch.nn.Parameter(torch.zeros(9, 4))
    rows = adamw.rows_of(weight)
    for seen in ([1, 1, 3], [2]):
        weight.grad = None
        rows.reading(weight, torch.tensor(seen))
        rows.add(weight, torch.tensor(seen), torch.ones(len(seen), 4), padding=3)
        expected = torch.zeros(9, 4)
        for i in seen:
            expected[i] += i != 3
        assert weight.grad is not None
        assert torch.equal(weight.grad, expected)
    assert rows.take() is None


@needs_kernels
@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_training_by_rows_equals_training_as_a_whole(
    engine: str, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_train import run, weights

    monkeypatch.setattr(packed_modules, "_LARGE_GRADIENT", 0)
    more = {"engine": engine, "precision": "float32", "num_train_epochs": 3, "weight_decay": 0.1}
    ours, fitted = run(tiny_bert, "full", **more)
    monkeypatch.setattr(library, "_library", lambda: (None, "tried without"))
    theirs, other = run(tiny_bert, "full", **more)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-4, atol=1e-5)
    losses = [[row["loss"] for row in f.history if "loss" in row] for f in (fitted, other)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
