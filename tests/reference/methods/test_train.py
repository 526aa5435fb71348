"""The training loop against a plain loop in torch; every training setting does something."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from tunelab.core.errors import TrialError
from tunelab.core.values import Seeds
from tunelab.kernels import precision
from tunelab.methods import METHODS
from tunelab.methods.neural import adapted
from tunelab.methods.settings import TrainingSettings
from tunelab.methods.training import engine, loop, updates
from tunelab.methods.training.engine import forward
from tunelab.methods.training.loop import TrainingData
from tunelab.models import bases, scoring
from tunelab.models.batches import Encoded, encode, pad, train_batches

SEEDS = Seeds(init=1, order=2, dropout=3)


def data(n: int = 40, seed: int = 0, classes: int = 2) -> TrainingData:
    """Texts whose first token gives away their class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    ids = tuple(
        np.concatenate([[2, 10 + y], rng.integers(20, 40, rng.integers(1, 12)), [3]])
        for y in labels
    )
    return TrainingData(Encoded(ids), labels, tuple(str(i) for i in range(n)))


def fresh(folder: Path, method: str = "full", **settings: Any) -> tuple[Any, Any]:
    row = METHODS[method]
    assert row.adapt is not None
    s = row.settings(
        **{"num_train_epochs": 2, "learning_rate": 1e-3, "precision": "float32", **settings}
    )
    model, _ = adapted(bases.resolve(str(folder)), ["a", "b"], s, row.adapt, seed=SEEDS.init)
    return model, s


def run(
    folder: Path, method: str = "full", seeds: Seeds = SEEDS, rows: TrainingData | None = None,
    dropout: bool = True, **settings: Any,
) -> tuple[Any, loop.Fitted]:  # fmt: skip
    model, s = fresh(folder, method, **settings)
    if not dropout:
        without_dropout(model)
    steps: list[Any] = []
    fitted = loop.train_model(
        model, pad_id=0, train=rows or data(), validation=data(30, seed=9), settings=s,
        seeds=seeds, on_step=steps.append,
    )  # fmt: skip
    assert steps
    return model, fitted


def without_dropout(model: Any) -> None:
    for m in model.modules():
        if isinstance(m, torch.nn.Dropout):
            m.p = 0.0
        if hasattr(m, "dropout_prob"):
            m.dropout_prob = 0.0


def weights(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("way", ["auto", "plain"])
def test_equals_a_plain_loop_in_torch(tiny_bert: Path, way: str) -> None:
    ours, _ = run(tiny_bert, engine=way, dropout=False, num_train_epochs=1)
    model, s = fresh(tiny_bert)
    without_dropout(model)
    model.train()
    rows = data()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": s.weight_decay},
         {"params": plain, "weight_decay": 0.0}], lr=s.learning_rate,
    )  # fmt: skip
    order = np.random.default_rng(SEEDS.order)
    batches = train_batches(rows.encoded.lengths, 16, order)
    warm = math.ceil(0.06 * len(batches))
    for step, picked in enumerate(batches):
        left = (len(batches) - step) / (len(batches) - warm)
        factor = (step + 1) / warm if step < warm else left
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * factor
        batch = pad(rows.encoded, picked, 0)
        out = model(
            input_ids=torch.from_numpy(batch.input_ids),
            attention_mask=torch.from_numpy(batch.attention_mask),
            labels=torch.from_numpy(rows.labels[picked]),
        )
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(weights(ours), weights(model), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_same_spec_twice_is_bit_equal(tiny_bert: Path, method: str) -> None:
    first, _ = run(tiny_bert, method)
    torch.rand(7)  # what else draws in the process must not matter
    again, _ = run(tiny_bert, method)
    assert torch.equal(weights(first), weights(again))


def in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = precision.Choice("bfloat16", "the processor multiplies bfloat16", "mkl")
    monkeypatch.setattr(precision, "choose", lambda: choice)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_auto_says_how_far_it_is_from_exact_float32(
    tiny_bert: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_bfloat16(monkeypatch)
    model, fitted = run(tiny_bert, method, precision="auto")
    assert fitted.engine.precision == "bfloat16"
    assert fitted.engine.rounding is not None
    assert 1e-5 < fitted.engine.rounding < engine.MOST_ROUNDING
    # That it was looked at changes nothing.
    unseen, s = fresh(tiny_bert, method, precision="auto")
    t = loop.Training(
        unseen, pad_id=0, train=data(), validation=data(30, seed=9), settings=s, seeds=SEEDS,
        on_step=lambda _: None,
    )  # fmt: skip
    list(loop.drive([t], engine.choose_engine(unseen, 0, s, SEEDS.dropout)))
    assert torch.equal(weights(model), weights(unseen))


def test_beyond_its_bound_auto_is_float32_and_what_was_asked_for_is_not(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_bfloat16(monkeypatch)
    monkeypatch.setattr(engine, "MOST_ROUNDING", 1e-6)
    model, fitted = run(tiny_bert, precision="auto")
    assert fitted.engine.precision == "float32"
    assert "off exact float32" in fitted.engine.precision_reason
    exact, _ = run(tiny_bert, precision="float32")
    assert torch.equal(weights(model), weights(exact))
    _, asked = run(tiny_bert, precision="bfloat16")
    assert asked.engine.precision == "bfloat16"
    assert asked.engine.rounding is not None


@pytest.mark.parametrize("name", ["order", "dropout"])
def test_every_seed_changes_something(tiny_bert: Path, name: str) -> None:
    first, _ = run(tiny_bert)
    other, _ = run(tiny_bert, seeds=replace(SEEDS, **{name: 99}))
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.parametrize(("small", "parts"), [(8, 2), (4, 4), (5, 3)])
def test_accumulation_equals_one_large_batch(tiny_bert: Path, small: int, parts: int) -> None:
    rows = data(37)  # the last step is smaller, and not a multiple of the parts
    settings = {"class_weight": "balanced", "label_smoothing_factor": 0.1}
    large, _ = run(
        tiny_bert, rows=rows, dropout=False, per_device_train_batch_size=small * parts, **settings
    )
    pieces, _ = run(
        tiny_bert, rows=rows, dropout=False, per_device_train_batch_size=small,
        gradient_accumulation_steps=parts, **settings,
    )  # fmt: skip
    torch.testing.assert_close(weights(pieces), weights(large), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "setting",
    [
        {"learning_rate": 5e-4}, {"num_train_epochs": 3}, {"per_device_train_batch_size": 8},
        {"gradient_accumulation_steps": 2}, {"weight_decay": 0.5}, {"warmup_steps": 4},
        {"lr_scheduler_type": "cosine"}, {"lr_scheduler_type": "constant"},
        {"max_grad_norm": 0.01}, {"precision": "bfloat16"}, {"label_smoothing_factor": 0.2},
        {"class_weight": "balanced"},
    ],
    ids=str,
)  # fmt: skip
def test_every_training_setting_changes_the_result(
    tiny_bert: Path, setting: dict[str, Any]
) -> None:
    # Unbalanced on purpose: with equal classes, balanced weights would rightly change nothing.
    rows = data(40)
    rows = replace(rows, labels=np.where(np.arange(40) < 30, 0, rows.labels))
    first, _ = run(tiny_bert, rows=rows)
    other, _ = run(tiny_bert, rows=rows, **setting)
    assert not torch.equal(weights(first), weights(other))


def test_gradient_checkpointing_gives_the_same_result(tiny_bert: Path) -> None:
    plain, fitted = run(tiny_bert, engine="plain", dropout=False)
    checkpointed, other = run(tiny_bert, gradient_checkpointing=True, dropout=False)
    torch.testing.assert_close(weights(checkpointed), weights(plain), rtol=1e-5, atol=1e-6)
    assert fitted.engine.reason == "engine: plain was asked for"
    assert "checkpointing" in str(other.engine.reason)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_gradient_checkpointing_keeps_less_for_the_backward_pass(
    tiny_bert: Path, method: str
) -> None:
    """Bytes that autograd keeps of one forward pass, weights left out; the loss is the same."""
    batch = pad(data().encoded, np.arange(16), 0)
    kept, losses = {}, {}
    for checkpointing in (False, True):
        model, _ = fresh(tiny_bert, method, gradient_checkpointing=checkpointing)
        without_dropout(model)
        model.train()
        weights_of = {p.untyped_storage().data_ptr() for p in model.parameters()}
        seen: dict[int, int] = {}

        def keep(t: torch.Tensor, own: set[int] = weights_of, out: dict[int, int] = seen) -> Any:
            where = t.untyped_storage()
            if where.data_ptr() not in own:
                out[where.data_ptr()] = where.nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            logits = forward(model, batch, torch.device("cpu"))
            loss = torch.nn.functional.cross_entropy(logits, torch.zeros(16, dtype=torch.long))
        kept[checkpointing], losses[checkpointing] = sum(seen.values()), float(loss.detach())
    assert kept[True] < 0.7 * kept[False]
    assert losses[True] == pytest.approx(losses[False], abs=1e-6)


def test_the_seed_of_initialisation_draws_head_and_adapter(tiny_bert: Path) -> None:  # FIELD 14
    row = METHODS["lora"]
    assert row.adapt is not None
    base = bases.resolve(str(tiny_bert))

    def new(seed: int) -> dict[str, torch.Tensor]:
        assert row.adapt is not None
        torch.rand(seed + 3)  # what was drawn before must not matter
        model, _ = adapted(base, ["a", "b"], row.settings(), row.adapt, seed=seed)
        return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}

    first, again, other = new(1), new(1), new(2)
    assert all(torch.equal(first[n], again[n]) for n in first)
    for part in ("lora_A", "classifier.modules_to_save.default.weight"):
        assert not all(torch.equal(first[n], other[n]) for n in first if part in n), part


def test_freezing_lower_layers_leaves_them_as_they_were(tiny_bert: Path) -> None:
    before, _ = fresh(tiny_bert)
    after, _ = run(tiny_bert, freeze_layers=1)
    old = dict(before.named_parameters())
    for name, p in after.named_parameters():
        low = "embeddings" in name or "layer.0." in name
        assert torch.equal(p, old[name]) == low, name


def test_max_length_cuts_what_is_trained_on(tiny_bert: Path) -> None:
    from tunelab.models import pretrained

    tokenizer: Any = pretrained.load_tokenizer(bases.resolve(str(tiny_bert)))
    texts = ["good film " * 9, "bad plot " * 3]
    short, long = (encode(tokenizer, texts, n).lengths for n in (8, 32))
    assert list(short) == [8, 8]
    assert list(long) == [20, 8]


def test_the_best_epoch_of_an_adapter_comes_back_too(tiny_bert: Path) -> None:  # FIELD 17
    model, fitted = run(
        tiny_bert, "lora", num_train_epochs=6, learning_rate=0.2, lr_scheduler_type="constant",
        metric_for_best_model="loss",
    )  # fmt: skip
    losses = [row["eval_loss"] for row in fitted.history if "eval_loss" in row]
    assert all("eval_accuracy" in r for r in fitted.history if "eval_loss" in r)  # FIELD 13
    assert fitted.best_epoch == int(np.argmin(losses)) + 1
    again = loop.validation_scores(model, 0, data(30, seed=9), TrainingSettings())
    # In other batches: on matrix tiles scores have five digits.
    assert again["eval_loss"] == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_scored_validation_is_handed_over_where_no_earlier_epoch_comes_back(
    tiny_bert: Path, method: str
) -> None:
    rows = data(30, seed=9).encoded
    model, fitted = run(tiny_bert, method, num_train_epochs=1)
    assert fitted.prepared is not None
    anew = scoring.prepare(model, precision="float32")
    np.testing.assert_array_equal(fitted.prepared(rows, 0, 64), anew(rows, 0, 64))
    np.testing.assert_array_equal(fitted.validation, anew(rows, 0, 64))
    # What it learns is wrong on validation: the first epoch is the best.
    contrary = replace(data(), labels=1 - data().labels)
    _, wrecked = run(
        tiny_bert, method, rows=contrary, num_train_epochs=4, learning_rate=5e-3,
        metric_for_best_model="loss",
    )  # fmt: skip
    assert wrecked.best_epoch < wrecked.epochs
    assert wrecked.prepared is None


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.repeat([0, 1, 2], [5, 20, 75])
    ours = updates.class_weights(labels, TrainingSettings(class_weight="balanced"))
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert ours is not None
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6)


def test_the_best_epoch_is_kept_not_the_last(tiny_bert: Path) -> None:
    """With a rate that wrecks the model after a while, the weights of the best epoch come back."""
    settings = {"num_train_epochs": 6, "learning_rate": 0.02, "lr_scheduler_type": "constant",
                "metric_for_best_model": "loss"}  # fmt: skip
    model, fitted = run(tiny_bert, **settings)
    losses = [row["eval_loss"] for row in fitted.history if "eval_loss" in row]
    assert fitted.best_epoch == int(np.argmin(losses)) + 1
    s = TrainingSettings()
    again = loop.validation_scores(model, 0, data(30, seed=9), s)
    # In other batches: on matrix tiles scores have five digits.
    assert again["eval_loss"] == pytest.approx(min(losses), rel=1e-4)


def test_a_best_epoch_by_a_score_that_validation_does_not_have(tiny_bert: Path) -> None:
    model, s = fresh(tiny_bert, metric_for_best_model="roc_auc")
    one = data(30, seed=9)
    one = replace(one, labels=np.zeros_like(one.labels))
    with pytest.raises(TrialError, match=r"roc_auc has no value .* 1 of the 2 classes"):
        loop.train_model(
            model, pad_id=0, train=data(), validation=one, settings=s, seeds=SEEDS,
            on_step=lambda _: None,
        )  # fmt: skip


def test_early_stopping_stops(tiny_bert: Path) -> None:
    _, fitted = run(
        tiny_bert, num_train_epochs=30, learning_rate=0.05, lr_scheduler_type="constant",
        early_stopping_patience=2,
    )  # fmt: skip
    assert fitted.epochs == fitted.best_epoch + 2 < 30


def test_a_loss_that_is_not_finite_says_what_to_do(tiny_bert: Path) -> None:
    model, s = fresh(tiny_bert)
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(TrialError, match=r"learning rate of .* diverged\. Lower learning_rate"):
        loop.train_model(
            model, pad_id=0, train=data(), validation=data(), settings=s, seeds=SEEDS,
            on_step=lambda _: None,
        )  # fmt: skip


def test_history_has_losses_rates_and_evaluations_in_order(tiny_bert: Path) -> None:
    _, fitted = run(tiny_bert, num_train_epochs=3)
    steps = [r["step"] for r in fitted.history]
    assert steps == sorted(steps)
    assert [r["epoch"] for r in fitted.history if "eval_loss" in r] == [1.0, 2.0, 3.0]
    rates = [r["learning_rate"] for r in fitted.history if "loss" in r]
    assert max(rates) <= 1e-3
    assert rates[-1] < rates[0]
    assert fitted.train_seconds > 0
    assert fitted.engine.name == "packed"
    # A tiny row of 16 short texts is rounded up to 32 tokens: some is padding, and it is counted.
    assert 0 <= fitted.padding < 0.3
