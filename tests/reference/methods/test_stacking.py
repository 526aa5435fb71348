"""Trainings that share a row: each equals its own separate run, at every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from families import make_family
from tunelab.core.errors import TrialError
from tunelab.core.values import Seeds
from tunelab.kernels import library
from tunelab.kernels.dropout import Dropout, Dropouts, Places
from tunelab.methods import METHODS
from tunelab.methods.neural import adapted
from tunelab.methods.training.loop import Fitted, Training, TrainingData
from tunelab.methods.training.stack import run_trainings, why_not_stacked
from tunelab.models import bases, families, many
from tunelab.models.batches import Encoded
from tunelab.models.packed import Packed

FAMILIES = [f for f in families.FAMILIES if f != "deberta-v2"]
# What may differ between trainings that share a row.
MEMBERS: list[dict[str, Any]] = [
    {"r": 2, "learning_rate": 3e-3},
    {"r": 8, "lora_alpha": 4, "target_modules": "query", "weight_decay": 0.1},
    {"r": 4, "lora_dropout": 0.3, "target_modules": "all-linear", "lr_scheduler_type": "cosine"},
    {"r": 2, "learning_rate": 1e-3, "max_grad_norm": 0.1, "label_smoothing_factor": 0.1,
     "class_weight": "balanced", "metric_for_best_model": "loss"},
]  # fmt: skip
SHARED: dict[str, Any] = {
    "num_train_epochs": 2, "per_device_train_batch_size": 8, "precision": "float32",
    "target_modules": "query-value",
}  # fmt: skip


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("stacked")
    return lambda f: root / f if (root / f).exists() else make_family(root / f, f)


def data(n: int, seed: int) -> TrainingData:
    """Texts of 1 to 30 tokens; the first gives away the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    ids = tuple(np.append(10 + y, rng.integers(20, 40, rng.integers(0, 30))) for y in labels)
    return TrainingData(Encoded(ids), labels, tuple(map(str, range(n))))


def made(folder: Path, k: int, dropout: bool, **more: Any) -> tuple[Any, Training]:
    """A model with the k-th seed, and the training that changes it."""
    row = METHODS["lora"]
    assert row.adapt is not None
    s: Any = row.settings(**{**SHARED, **more})
    base = bases.resolve(str(folder))
    model: Any = adapted(base, ["a", "b", "c"], s, row.adapt, seed=k)[0]
    if not dropout:
        for m in model.modules():
            if isinstance(m, torch.nn.Dropout):
                m.p = 0.0
    return model, Training(
        model, pad_id=0, train=data(44, 0), validation=data(20, 9), settings=s,
        seeds=Seeds(k, k + 1, k + 2), on_step=lambda _: None,
    )  # fmt: skip


def stacked(trainings: list[Training]) -> list[Fitted | Exception]:
    """What each gave, or what it failed of, in their order."""
    ended = list(run_trainings(trainings))
    assert {id(t) for t in ended} == {id(t) for t in trainings}
    return [t.error or t.fitted() for t in trainings]


def by_itself(training: Training) -> Fitted:
    (ended,) = run_trainings([training])
    assert ended is training
    return training.fitted()


def weights(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def both(
    folder: Path, members: list[dict[str, Any]], dropout: bool
) -> list[tuple[Any, Any, Any, Any]]:
    """(model, what training gave) alone, and the same stacked, for each member."""
    alone = []
    for k, m in enumerate(members):
        model, training = made(folder, k, dropout, **m)
        alone.append((model, by_itself(training)))
    pairs = [made(folder, k, dropout, **m) for k, m in enumerate(members)]
    gave = stacked([training for _, training in pairs])
    return [(*a, model, g) for a, (model, _), g in zip(alone, pairs, gave, strict=True)]


def assert_equal(alone: Any, gave: Any) -> None:
    assert isinstance(gave, Fitted), gave
    assert (gave.engine.stack, gave.engine.stack_reason) == (4, None)
    assert gave.best_epoch == alone.best_epoch
    assert len(gave.history) == len(alone.history) == 14  # 6 steps and an evaluation, twice
    for theirs, ours in zip(alone.history, gave.history, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(
    ("family", "dropout"),
    [*((f, True) for f in FAMILIES), *((f, False) for f in ("bert", "albert", "gpt2"))],
)
def test_each_equals_its_own_run_at_every_step(
    family: str, dropout: bool, folders: Callable[[str], Path]
) -> None:
    for model, alone, stacked, gave in both(folders(family), MEMBERS, dropout):
        assert_equal(alone, gave)
        torch.testing.assert_close(weights(stacked), weights(model), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_same_without_compiled_kernels_and_with_batched_products(
    family: str, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs on a card, here on a processor."""

    def at_once(run: Any, parts: Any, drops: Any, flat: torch.Tensor) -> Any:
        bounds = run.places.bounds(len(flat))
        if not parts:
            return many._OneByOne(parts, drops, bounds)
        return many._AtOnce(drops, *many._laid_out(bounds, parts, flat.device))

    monkeypatch.setattr(library, "_library", lambda: (None, "tried without"))
    monkeypatch.setattr(many, "_products", at_once)
    for _, alone, _, gave in both(folders(family), MEMBERS, dropout=True):
        assert_equal(alone, gave)


def test_one_that_diverges_does_not_take_the_others_along(folders: Callable[[str], Path]) -> None:
    model, training = made(folders("bert"), 0, True, **MEMBERS[0])
    alone = by_itself(training)
    pairs = [made(folders("bert"), k, True, **MEMBERS[k]) for k in range(4)]
    for n, p in pairs[1][0].named_parameters():
        if "lora_A" in n:
            torch.nn.init.constant_(p, math.nan)
    gave = stacked([training for _, training in pairs])
    assert isinstance(gave[1], TrialError)
    assert "diverged" in str(gave[1])
    assert_equal(alone, gave[0])
    torch.testing.assert_close(weights(pairs[0][0]), weights(model), rtol=1e-3, atol=1e-4)
    assert all(isinstance(g, Fitted) for g in (gave[2], gave[3]))


def test_one_that_stops_early_leaves_the_others(folders: Callable[[str], Path]) -> None:
    # The first carries the base for the others: it may end before they do.
    members = [{"early_stopping_patience": 1, "learning_rate": 1e-9}, *MEMBERS[1:]]
    more = {"num_train_epochs": 4, "lora_dropout": 0.1}
    found = both(folders("bert"), [{**m, **more} for m in members], dropout=True)
    assert [f[3].epochs for f in found] == [f[1].epochs for f in found]
    assert found[0][3].epochs < 4
    assert found[2][3].epochs == 4
    for _, alone, _, gave in found:
        for theirs, ours in zip(alone.history, gave.history, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)


def test_a_base_is_held_once_and_stays_as_it_was(folders: Callable[[str], Path]) -> None:
    pairs = [made(folders("bert"), k, True, **MEMBERS[k]) for k in range(3)]

    def dense(model: Any) -> torch.Tensor:
        name = "encoder.layer.0.output.dense.weight"
        named = model.get_base_model().bert.named_parameters()
        return next(p.detach() for n, p in named if n.replace(".base_layer", "") == name)

    before = [dense(model).clone() for model, _ in pairs]
    for model, _ in pairs[1:]:
        many.share_base(model, pairs[0][0])
    stacked([training for _, training in pairs])
    assert len({dense(model).data_ptr() for model, _ in pairs}) == 1
    assert all(torch.equal(b, dense(model)) for b, (model, _) in zip(before, pairs, strict=True))
    assert not any("forward" in m.__dict__ for model, _ in pairs for m in model.modules())


def test_what_cannot_share_a_row_runs_in_turn_and_says_why(folders: Callable[[str], Path]) -> None:
    first, training = made(folders("bert"), 0, True, **MEMBERS[0])
    other = made(folders("bert"), 1, True, **MEMBERS[1], bias="all")
    gave = stacked([training, other[1]])
    assert all(isinstance(g, Fitted) for g in gave)
    reasons = {g.engine.stack_reason for g in gave if isinstance(g, Fitted)}
    assert len(reasons) == 1
    assert "of the base is trained" in reasons.pop()
    assert why_not_stacked([first]) == "there is nothing to share it with"
    second = made(folders("bert"), 2, True, **MEMBERS[1])[0]
    assert why_not_stacked([first, second]) is None
    second.get_base_model().quantization_method = "bitsandbytes"
    assert why_not_stacked([first, second]) == "its base is quantised"
    first, second = (made(folders("deberta-v2"), k, True)[0] for k in (0, 1))
    assert "a table of distances" in str(why_not_stacked([first, second]))


def test_what_fails_on_the_way_back_stops_after_the_others_are_trained(
    folders: Callable[[str], Path],
) -> None:
    """Where no row is shared: the failure is heard in the end, and nobody's training is lost."""

    def fails(_: torch.Tensor) -> None:
        raise RuntimeError("no memory left")

    model, first = made(folders("bert"), 0, False)
    next(p for p in model.parameters() if p.requires_grad).register_hook(fails)
    _, second = made(folders("bert"), 1, False, engine="plain")
    gave: list[Training] = []
    with pytest.raises(RuntimeError, match="no memory left"):
        gave.extend(run_trainings([first, second]))
    assert [t is second for t in gave] == [True]
    assert second.fitted().engine.stack_reason == "the plain engine was asked for"


def test_masks_in_one_row_are_those_of_each_alone() -> None:
    places = Places((0, 5, 16), (0, 2, 5), (8, 16), rows=16)
    own = (Dropout(0.3, 7), Dropout(0.5, 2**32 - 5))
    both = Dropouts(own, places)
    like = torch.empty(0)
    torch.testing.assert_close(
        both.factors((16, 24), like),
        torch.cat([own[0].factors((5, 24), like), own[1].factors((11, 24), like)]),
        rtol=0, atol=0,
    )  # fmt: skip
    torch.testing.assert_close(
        both.factors((1, 5, 24), like)[0],
        torch.cat([own[0].factors((2, 24), like), own[1].factors((3, 24), like)]),
        rtol=0, atol=0,
    )  # fmt: skip
    mask = both.attention_factors(5, 3, 16, like)
    torch.testing.assert_close(mask[:2, :, :8, :8], own[0].factors((2, 3, 8, 8), like))
    torch.testing.assert_close(mask[2:], own[1].factors((3, 3, 16, 16), like))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "electra"])
def test_nothing_of_a_step_comes_back_from_the_device(
    family: str, dtype: torch.dtype, folders: Callable[[str], Path]
) -> None:
    """On torch's meta device a tensor left on the host, or a value asked for, raises."""
    models = [made(folders(family), k, True, **m)[0].to("meta").train() for k, m in
              enumerate(MEMBERS)]  # fmt: skip
    texts, rows = data(9, 0).encoded, np.arange(9)
    stack = many.Stacked(models, dtype, range(4))
    with stack.installed():
        logits = [x for x, _ in stack(dict.fromkeys(range(4), (texts, rows))).values()]
    packed = Packed(models[0], dtype)
    with packed.installed():
        logits.append(packed(texts, rows)[0])
    assert {x.device.type for x in logits} == {"meta"}
    torch.autograd.backward([x.sum() for x in logits])
    assert all(p.grad is not None for m in models for p in m.parameters() if p.requires_grad)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_each_equals_its_own_run_on_a_card(family: str, folders: Callable[[str], Path]) -> None:
    alone = []
    for k, m in enumerate(MEMBERS):
        model, training = made(folders(family), k, True, **m)
        model.cuda()
        alone.append(by_itself(training))
    pairs = [made(folders(family), k, True, **m) for k, m in enumerate(MEMBERS)]
    for model, _ in pairs:
        model.cuda()
    for a, g in zip(alone, stacked([t for _, t in pairs]), strict=True):
        assert_equal(a, g)
