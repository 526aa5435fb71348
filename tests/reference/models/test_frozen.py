"""Frozen layers computed once: found, cut, kept and read back bit for bit."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from families import make_family
from tunelab.core import cache
from tunelab.core.values import Seeds
from tunelab.methods import METHODS
from tunelab.methods.neural import adapted
from tunelab.methods.training import loop
from tunelab.methods.training.loop import TrainingData
from tunelab.models import bases, batches, frozen, scoring
from tunelab.models.batches import Encoded
from tunelab.models.frozen import Kept
from tunelab.models.packed import Packed

FAMILIES = ["bert", "distilbert", "electra", "albert", "gpt2", "modernbert", "llama", "deberta-v2"]
NO_DROPOUT = ("albert", "modernbert", "llama")
SEEDS = Seeds(init=1, order=2, dropout=3)
# method, settings -> how many of the two layers are frozen; ALBERT's share their weights
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "probe": ("probe", {}, 2),
    "freeze one": ("full", {"freeze_layers": 1}, 1),
    "top adapter": ("lora", {"layers_to_transform": [1]}, 1),
    "low adapter": ("lora", {"layers_to_transform": [0]}, 0),
    "everything": ("full", {}, 0),
    "bitfit": ("bitfit", {}, 0),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "frozen"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("frozen")
    return {f: make_family(root / f, f) for f in (*FAMILIES, "roberta")}


def made(folder: Path, method: str, **settings: Any) -> tuple[Any, Any]:
    row = METHODS[method]
    assert row.adapt is not None
    asked = row.settings(**{"num_train_epochs": 2, "learning_rate": 1e-3, **settings})
    return adapted(bases.resolve(str(folder)), ["a", "b"], asked, row.adapt, SEEDS.init)[0], asked


def data(n: int = 40, seed: int = 0) -> TrainingData:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    ids = tuple(
        np.concatenate([[2, 10 + y], rng.integers(20, 40, rng.integers(1, 12)), [3]])
        for y in labels
    )
    return TrainingData(Encoded(ids), labels, tuple(map(str, range(n))))


def trained(
    folder: Path, method: str, rows: TrainingData | None = None, *, seeds: Seeds = SEEDS,
    **settings: Any,
) -> tuple[torch.Tensor, loop.Fitted]:  # fmt: skip
    model, asked = made(folder, method, **settings)
    fitted = loop.train_model(
        model, pad_id=0, train=rows or data(), validation=data(30, seed=9), settings=asked,
        seeds=seeds, on_step=lambda _: None,
    )  # fmt: skip
    learnt = [p.detach().flatten() for p in model.parameters() if p.requires_grad]
    return torch.cat(learnt), fitted


# --- which layers are frozen ----------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_below_all_that_learns_are_found(
    family: str, case: str, folders: dict[str, Path]
) -> None:
    method, settings, count = CASES[case]
    if family == "albert" and case in {"freeze one", "top adapter", "low adapter"}:
        pytest.skip("its layers share their weights")
    if family in {"modernbert", "llama"} and case == "bitfit":
        pytest.skip("its layers have no biases")
    model, _ = made(folders[family], method, **settings)
    found = frozen.find_lower(model)
    if (family, case) == ("deberta-v2", "freeze one"):
        count = 0  # the norm of its relative positions learns, and its lowest layer reads them
    assert (found.layers if found else 0) == count
    if found:
        assert found.of == 2
        assert found.dropout == pytest.approx(0.0 if family in NO_DROPOUT else 0.1)
        learning = {id(p) for p in model.parameters() if p.requires_grad}
        assert not any(
            id(p) in learning for m in found.modules.values() for p in m.parameters(recurse=False)
        )


def test_only_what_is_frozen_stops_dropping(folders: dict[str, Path]) -> None:
    model, _ = made(folders["bert"], "lora", layers_to_transform=[1], lora_dropout=0.2)
    found = frozen.find_lower(model)
    assert found is not None
    model.train()
    found.disable_dropout()
    drops = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout) and m.training}
    encoder = model.get_base_model()
    assert all("layer.1." in n or n.endswith("model.dropout") for n in drops)
    assert {n for n in drops if "lora_dropout" in n}
    assert not encoder.bert.embeddings.dropout.training
    assert encoder.dropout.training  # the head's own


# --- a pass in two parts --------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_two_parts_of_a_training_step_are_the_whole_bit_for_bit(
    family: str, layers: int, folders: dict[str, Path]
) -> None:
    if family == "albert" and layers < 2:
        pytest.skip("its layers share their weights")
    model, _ = made(folders[family], "full" if layers == 0 else "probe")
    model.eval()
    texts, rows = data(5).encoded, np.arange(5)
    results = []
    for cut in (False, True):
        packed = Packed(model, torch.bfloat16, seed=4)
        model.zero_grad()
        with packed.installed():
            if cut:
                states = packed.below(texts, rows, layers)
                logits, tokens = packed.above(texts, rows, layers, states)
            else:
                logits, tokens = packed(texts, rows)
        functional.cross_entropy(logits, torch.ones(5, dtype=torch.long)).backward()  # type: ignore[no-untyped-call]
        head = [p.grad for n, p in model.named_parameters() if not re.search("embed|wte|wpe", n)]
        results.append((logits.detach(), head, tokens))
    (whole, gradients, count), (parts, theirs, other) = results
    assert torch.equal(whole, parts)
    assert all((a is None) == (b is None) for a, b in zip(gradients, theirs, strict=True))
    assert all(
        torch.equal(a, b)
        for a, b in zip(gradients, theirs, strict=True)
        if a is not None and b is not None
    )
    assert other == count or layers == 2  # at the top nothing is rounded up


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_two_parts_of_scoring_are_the_whole_bit_for_bit(
    family: str, layers: int, folders: dict[str, Path]
) -> None:
    model, _ = made(folders[family], "lora")
    model.eval()
    prepared = scoring.prepare(model)
    assert prepared.halves is not None
    texts = data(9).encoded
    with torch.inference_mode():
        for rows in scoring.batches(texts.lengths, 4, prepared.where):
            batch = batches.pad(texts, rows, 0)
            states = prepared.halves.below(batch, layers)
            parts = prepared.halves.above(states, batch, layers)
            assert torch.equal(parts, prepared.compute(batch, prepared.where))
            assert states.shape[1] == 1 or layers < 2


# --- training from what was kept ------------------------------------------------------------

KEPT = [("probe", {}), ("full", {"freeze_layers": 1}), ("lora", {"layers_to_transform": [1]})]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("method", "settings"), KEPT, ids=[m for m, _ in KEPT])
def test_reading_equals_computing_bit_for_bit(
    method: str, settings: dict[str, Any], precision: str, tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Computed and kept; read; computed again; and, within rounding, computed in each step."""
    own_cache = cache.folder() / "frozen"
    asked: Any = {**settings, "frozen_dropout": False, "precision": precision}
    run = partial(trained, tiny_bert, method, **asked)
    first, cold = run()
    kept = sorted(f.name for f in own_cache.iterdir())
    for note in own_cache.glob("*.json"):  # as if they were of a busy hour
        cache.keep_json(note, {**cache.kept_json(note), "seconds": 1e6}, bounded=False)
    second, warm = run()
    assert torch.equal(first, second)
    assert cold.frozen is not None
    assert warm.frozen is not None
    assert (cold.frozen.from_cache, warm.frozen.from_cache) == (False, True)
    assert cold.frozen.computed == warm.frozen.computed == "once"
    assert warm.frozen.seconds is not None
    assert 0 < warm.frozen.seconds < 60
    assert np.array_equal(cold.validation, warm.validation)
    assert sorted(f.name for f in own_cache.iterdir()) == kept
    assert len(kept) == 4  # what training and validation start from, each with its note
    for file in own_cache.iterdir():
        file.unlink()
    again, _ = run()
    assert torch.equal(first, again)

    for file in own_cache.iterdir():
        file.unlink()
    monkeypatch.setenv("TUNELAB_CACHE_GB", "0")
    each, fitted = run()
    assert fitted.frozen is not None
    assert fitted.frozen.computed == "each step"
    assert "TUNELAB_CACHE_GB" in str(fitted.frozen.why)
    close = {"rtol": 1e-4, "atol": 1e-5} if precision == "float32" else {"rtol": 0, "atol": 5e-3}
    torch.testing.assert_close(each, first, **close)


def test_other_seeds_read_the_same_states(folders: dict[str, Path], own_cache: Path) -> None:
    first, _ = trained(folders["bert"], "probe")
    other, fitted = trained(folders["bert"], "probe", seeds=replace(SEEDS, order=7, dropout=8))
    assert fitted.frozen is not None
    assert fitted.frozen.from_cache
    assert not torch.equal(first, other)


def test_dropout_in_frozen_layers_is_left_on_unless_asked(folders: dict[str, Path]) -> None:
    """As transformers' Trainer does: then they are computed in each step, and it says so."""
    with_dropout, on = trained(folders["bert"], "full", freeze_layers=1)
    without, off = trained(folders["bert"], "full", freeze_layers=1, frozen_dropout=False)
    assert on.frozen is not None
    assert off.frozen is not None
    assert (on.frozen.dropout, on.frozen.computed) == (True, "each step")
    assert "frozen_dropout: true" in str(on.frozen.why)
    assert (off.frozen.dropout, off.frozen.why) == (False, None)
    assert not torch.equal(with_dropout, without)
    assert trained(folders["bert"], "full")[1].frozen is None  # nothing is frozen


def test_the_plain_engine_keeps_frozen_layers_still_too(folders: dict[str, Path]) -> None:
    _, fitted = trained(folders["deberta-v2"], "probe", engine="plain")
    assert fitted.frozen is not None
    assert (fitted.frozen.dropout, fitted.frozen.computed) == (False, "each step")
    assert "plain engine" in str(fitted.frozen.why)
    model, _ = made(folders["deberta-v2"], "probe")
    found = frozen.find_lower(model)
    assert found is not None
    model.train()
    found.disable_dropout()
    texts = batches.pad(data(4).encoded, np.arange(4), 0)
    ids, mask = (torch.from_numpy(a) for a in (texts.input_ids, texts.attention_mask))
    encoder = getattr(model, model.base_model_prefix)
    a, b = (encoder(input_ids=ids, attention_mask=mask).last_hidden_state for _ in range(2))
    assert torch.equal(a, b)


def test_nothing_else_is_read_back(folders: dict[str, Path], tmp_path: Path) -> None:
    """Other texts, weights, number formats and layers have keys of their own."""
    run = partial(trained, frozen_dropout=False, precision="float32")
    run(folders["bert"], "full", freeze_layers=1)
    others: list[tuple[Path, str, TrainingData | None, dict[str, Any]]] = [
        (folders["bert"], "full", data(41), {"freeze_layers": 1}),
        (make_family(tmp_path / "b", "bert", seed=5), "full", None, {"freeze_layers": 1}),
        (folders["bert"], "full", None, {"freeze_layers": 1, "precision": "bfloat16"}),
        (folders["bert"], "probe", None, {}),
    ]
    for folder, method, rows, settings in others:
        _, fitted = run(folder, method, rows, **settings)
        assert fitted.frozen is not None
        assert not fitted.frozen.from_cache


# --- the file -------------------------------------------------------------------------------


def test_a_file_is_found_only_when_it_is_whole(tmp_path: Path) -> None:
    path, shapes = tmp_path / "x.bin", [(2, 3), (5, 3)]
    parts = [torch.randn(s).bfloat16() for s in shapes]
    kept = Kept(path, shapes, torch.bfloat16)
    assert kept.open() is None
    assert kept.begin() is None
    kept.write(1, parts[1])
    kept.finish({"seconds": 1})  # one is missing
    assert Kept(path, shapes, torch.bfloat16).open() is None
    assert torch.equal(kept.read([1]), parts[1])
    kept.write(0, parts[0])
    kept.finish({"seconds": 1})
    kept.close()
    other = Kept(path, shapes, torch.bfloat16)
    assert other.open() == {"seconds": 1}
    assert torch.equal(other.read([1, 0, 1]), torch.cat([parts[1], parts[0], parts[1]]))
    other.close()
    path.write_bytes(path.read_bytes()[:-1])
    assert Kept(path, shapes, torch.bfloat16).open() is None
    assert sorted(f.suffix for f in tmp_path.iterdir()) == [".bin", ".json"]


def test_a_part_that_was_not_written_is_not_taken_for_written(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    kept = Kept(tmp_path / "a.bin", [(600, 500), (600, 500)], torch.float32)
    assert kept.begin() is None
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, old[1]))
    try:
        with pytest.raises(OSError, match="wrote 800000 of 1200000 bytes"):
            kept.write(1, torch.ones(600, 500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    kept.write(0, torch.ones(600, 500))
    kept.finish({})
    kept.close()
    assert not list(tmp_path.iterdir())


def test_one_that_was_given_up_leaves_nothing(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "x.bin", [(1, 2)], torch.float32)
    kept.begin()
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_who_writes_at_the_same_time_does_no_harm(tmp_path: Path) -> None:
    shapes = [(50, 40)] * 20
    expected = torch.tensor([7.0] * 50 + [3.0] * 50)

    def write_and_read(_: int) -> bool:
        kept = Kept(tmp_path / "x.bin", shapes, torch.float32)
        kept.begin()
        for i in range(20):
            kept.write(i, torch.full((50, 40), float(i)))
        kept.finish({"seconds": 1})
        kept.close()
        again = Kept(tmp_path / "x.bin", shapes, torch.float32)
        same = again.open() is not None and torch.equal(again.read([7, 3])[:, 0], expected)
        again.close()
        return same

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write_and_read, range(40)))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["x.bin", "x.json"]


def test_the_files_not_used_for_longest_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_CACHE_GB", "1e-6")  # 1,000 bytes
    for age, name in enumerate(("new", "middle", "old")):
        for suffix, size in ((".bin", 300), (".json", 10)):
            file = tmp_path / f"{name}{suffix}"
            file.write_bytes(b"x" * size)
            os.utime(file, (1e9 - age, 1e9 - age))
    (tmp_path / ".left.bin.x1").write_bytes(b"x")
    os.utime(tmp_path / ".left.bin.x1", (1, 1))
    assert cache.make_room(tmp_path, 500) is None
    assert sorted(f.name for f in tmp_path.iterdir()) == ["new.bin", "new.json"]
    why = cache.make_room(tmp_path, 1001)
    assert why is not None
    assert "TUNELAB_CACHE_GB" in why
    assert sorted(f.name for f in tmp_path.iterdir()) == ["new.bin", "new.json"]
