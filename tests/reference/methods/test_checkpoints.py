"""A training that was ended in the middle of an epoch goes on, bit for bit as if it never was."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

from tiny import make_tiny, reviews
from tunelab.core.checkpoints import Checkpoints, seal_checkpoint
from tunelab.core.events import Evaluated, Progressed, Step
from tunelab.core.values import Seeds, Split
from tunelab.methods import METHODS, Outcome, Task, fit_alone
from tunelab.methods.training.checkpoint import Keeper
from tunelab.models import bases

EPOCHS, STEPS_OF_EPOCH = 3, 5
# Each way that a training's state can be kept: engines and number formats, own and torch's
# optimizer, rows of embeddings that lag, dropout by hashes and by torch, what is computed once,
# hooks with and without a memory.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("lora", {"precision": "float32", "lora_dropout": 0.2}),
    "auto": ("lora", {"lora_dropout": 0.1}),
    "bfloat16": ("lora", {"precision": "bfloat16"}),
    "plain": ("lora", {"engine": "plain", "lora_dropout": 0.2}),
    "all weights": ("full", {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}),
    "all weights, plain": ("full", {"engine": "plain"}),
    "frozen layers once": ("probe", {}),
    "autocast": ("dora", {"precision": "bfloat16"}),
    "hooks that remember": ("adalora", {"tinit": 2, "tfinal": 4, "delta_t": 2}),
    "other rates": ("lora-plus", {}),
    "prompts": ("prompt-tuning", {"num_virtual_tokens": 4}),
    "losses of a teacher": ("distil", {"teacher": "svm-tfidf", "made_texts": 0}),
}


class ToldToEnd(BaseException):
    """What a process does that is told to end."""


@pytest.fixture(autouse=True)
def told_to_end() -> Iterator[None]:
    def end(_: int, __: FrameType | None) -> None:
        raise ToldToEnd

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bases.Base:
    return bases.resolve(str(make_tiny(tmp_path_factory.mktemp("base"), "bert")))


def part(first: int, last: int) -> Split:
    rows = reviews(last)[first:]
    labels = np.array([label == "good" for _, label in rows], dtype=np.int64)
    return Split(tuple(map(str, range(first, last))), tuple(t for t, _ in rows), labels)


def task(base: bases.Base, kind: str) -> tuple[str, Task]:
    name, own = KINDS[kind]
    settings = METHODS[name].settings(
        **{
            "num_train_epochs": EPOCHS,
            "per_device_train_batch_size": 8,
            "learning_rate": 3e-3,
            **own,
        }
    )
    return name, Task(
        ("bad", "good"), part(0, 38), part(38, 50), base, settings, Seeds(1, 2, 3), "accuracy",
        lambda _: None,
    )  # fmt: skip


def ended_at(step: int) -> Callable[[Progressed], None]:
    def on_step(event: Progressed) -> None:
        if isinstance(event, Step) and event.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_step


def kept(folder: Path, said: list[str], seconds: float = 3600.0) -> Keeper:
    return Keeper(Checkpoints(str(folder), seconds), "trial", said.append)


def assert_same(one: Outcome, other: Outcome) -> None:
    assert one.history == other.history
    # What was computed once was read from the cache when it went on.
    a, b = (replace(o.details.trained, frozen_layers=None) for o in (one, other))
    assert a == b
    texts = part(38, 50).texts
    np.testing.assert_array_equal(one.classifier.scores(texts), other.classifier.scores(texts))


def gone_on(base: bases.Base, kind: str, folder: Path, steps: Sequence[int]) -> list[str]:
    """End it at each of these steps, go on, and hold what it gives to an undisturbed one; what was
    said.
    """
    name, asked = task(base, kind)
    said: list[str] = []
    for step in steps:
        told = replace(asked, on_step=ended_at(step), keeper=kept(folder, said))
        with pytest.raises(ToldToEnd):
            fit_alone(METHODS[name], told)
    last = fit_alone(METHODS[name], replace(asked, keeper=kept(folder, said)))
    assert_same(fit_alone(METHODS[name], asked), last)
    return said


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_bit_for_bit(kind: str, base: bases.Base, tmp_path: Path) -> None:
    (said,) = gone_on(base, kind, tmp_path, [STEPS_OF_EPOCH + 2])
    assert said.startswith(f"goes on after step {STEPS_OF_EPOCH + 2}, from a checkpoint of 20")


def test_it_goes_on_from_what_had_gone_on(base: bases.Base, tmp_path: Path) -> None:
    # The first step, the last of an epoch, the first of the next, the last but one of all.
    steps = (1, STEPS_OF_EPOCH, STEPS_OF_EPOCH + 1, EPOCHS * STEPS_OF_EPOCH - 1)
    said = gone_on(base, "float32", tmp_path, steps)
    assert [int(line.split()[4].strip(",")) for line in said] == list(steps)


def test_one_of_no_use_is_thrown_away_and_said(base: bases.Base, tmp_path: Path) -> None:
    name, asked = task(base, "float32")
    told = replace(asked, on_step=ended_at(3), keeper=kept(tmp_path, []))
    with pytest.raises(ToldToEnd):
        fit_alone(METHODS[name], told)
    undisturbed = fit_alone(METHODS[name], asked)
    for damage, reason in (
        (_cut_short, "it is damaged"),
        (_of_another_version, "it was made by another torch and engine"),
    ):
        folder = tmp_path / reason[-6:]
        shutil.copytree(tmp_path / "trial", folder / "trial")
        damage(folder / "trial")
        said: list[str] = []
        assert_same(
            undisturbed, fit_alone(METHODS[name], replace(asked, keeper=kept(folder, said)))
        )
        assert said == [f"the checkpoint cannot be used ({reason}): training starts anew"]
        assert not folder.exists()


def _cut_short(folder: Path) -> None:
    tensors = folder / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])


def _of_another_version(folder: Path) -> None:
    state = folder / "state.json"
    about = json.loads(state.read_text(encoding="utf-8"))
    about["belongs_to"] |= {"torch": "1.0", "engine": "engine (plain)"}
    state.write_text(json.dumps(about), encoding="utf-8")
    seal_checkpoint(folder)


def test_a_checkpoint_that_cannot_be_written_ends_nothing(base: bases.Base, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    name, asked = task(base, "float32")
    said: list[str] = []
    outcome = fit_alone(
        METHODS[name], replace(asked, keeper=kept(tmp_path / "file", said, seconds=1e-9))
    )
    assert_same(fit_alone(METHODS[name], asked), outcome)
    assert said[0].startswith("no checkpoint could be written (")


def test_epochs_are_told_again_to_whoever_ends_tries(base: bases.Base, tmp_path: Path) -> None:
    name, asked = task(base, "float32")
    with pytest.raises(ToldToEnd):
        fit_alone(METHODS[name], replace(asked, on_step=ended_at(7), keeper=kept(tmp_path, [])))
    heard: list[Progressed] = []
    fit_alone(METHODS[name], replace(asked, on_step=heard.append, keeper=kept(tmp_path, [])))
    assert [e.epoch for e in heard if isinstance(e, Evaluated)] == [1.0, 2.0, 3.0]


def test_tensors_in_one_memory_and_views_are_kept_apart(base: bases.Base, tmp_path: Path) -> None:
    name, asked = task(base, "float32")
    told = replace(asked, on_step=ended_at(1), keeper=kept(tmp_path, []))
    with pytest.raises(ToldToEnd):
        fit_alone(METHODS[name], told)
    keeper = kept(tmp_path / "again", [])
    whole = torch.arange(6.0).view(2, 3)
    state = kept(tmp_path, []).read(engine_of(tmp_path))
    assert state is not None
    views = {"whole": whole, "row": whole[0], "turned": whole.T}
    keeper.write(replace(state, tensors=views), "engine")
    again = keeper.read("engine")
    assert again is not None
    for key, tensor in views.items():
        assert torch.equal(again.tensors[key], tensor)


def engine_of(folder: Path) -> str:
    about = json.loads((folder / "trial" / "state.json").read_text(encoding="utf-8"))
    return str(about["belongs_to"]["engine"])
