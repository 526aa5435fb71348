"""A training in progress on disk: what it needs to go on in the middle of an epoch, bit for bit.

Kept are what learns, buffers, the optimizer's moments, the schedule, the order of the epoch's rows,
the counters and streams that dropout is drawn from, what hooks keep, the best epoch and the
history. What stays frozen is built again as it was built at first.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

from tunelab.core import files, machine
from tunelab.core.checkpoints import (
    Checkpoints,
    checkpoint_is_whole,
    find_checkpoint,
    seal_checkpoint,
)
from tunelab.core.plain import PlainValue
from tunelab.core.version import __version__

if TYPE_CHECKING:
    import torch

__all__ = [
    "InProgress",
    "Keeper",
    "Numbers",
    "set_streams",
    "streams_of",
]


_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Numbers:
    """Where a training is: in which `epoch`, so many optimizer `steps` in all and so many
    `of_epoch`; `order`: numpy's generator before the epoch's rows were drawn; `passes`: batches
    that the packed engine has computed. The schedule and the scaler as torch says them; the best
    epoch and its value; what the history and its clock hold.
    """

    epoch: int
    of_epoch: int
    steps: int
    order: Mapping[str, PlainValue]
    passes: int
    schedule: Mapping[str, PlainValue]
    scaler: Mapping[str, PlainValue]
    best_epoch: int
    best_value: float
    history: list[dict[str, float]]
    recent: list[float]
    seconds: float
    tokens: int
    texts: int


@dataclass(frozen=True, slots=True, eq=False)
class InProgress:
    """A training between two optimizer steps: `numbers`, and `tensors` by name."""

    numbers: Numbers
    tensors: Mapping[str, torch.Tensor]

    def part(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors whose names begin so, by the rest of their names."""
        return {k.removeprefix(name): t for k, t in self.tensors.items() if k.startswith(name)}


def streams_of(where: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's random streams, of the processor and of the card that is used."""
    import torch

    card = {} if where.type == "cpu" else {where.type: torch.get_device_module(where)}
    return {"cpu": torch.get_rng_state(), **{k: m.get_rng_state() for k, m in card.items()}}


def set_streams(where: torch.device, states: Mapping[str, torch.Tensor]) -> None:
    """Let random streams go on from there."""
    import torch

    torch.set_rng_state(states["cpu"])
    if where.type in states and where.type != "cpu":
        torch.get_device_module(where).set_rng_state(states[where.type])


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As a file takes them: each whole, and none in the memory of another."""
    apart: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().contiguous()
        place = own.untyped_storage().data_ptr()
        apart[name] = own.clone() if place in places else own
        places.add(place)
    return apart


class Keeper:
    """Writes and reads one trial's checkpoint. `say` takes a line about it.

    Where it cannot be written, training goes on without: it is a help, and no result.
    """

    def __init__(self, checkpoints: Checkpoints, trial_id: str, say: Callable[[str], None]) -> None:
        self._all, self._trial_id, self._say = checkpoints, trial_id, say
        self._written = time.monotonic()
        self._noticed = False
        self._before: Any = signal.SIG_DFL

    def read(self, engine: str) -> InProgress | None:
        """What is there of this trial, on this engine; what is of no use is removed, and said."""
        folder = find_checkpoint(self._all, self._trial_id)
        if folder is None:
            return None
        kept, wrong = None, "it is damaged"
        if checkpoint_is_whole(folder):
            from safetensors.torch import load_file

            about = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            differs = [
                k for k, v in self._belongs_to(engine).items() if about["belongs_to"].get(k) != v
            ]
            wrong = f"it was made by another {' and '.join(differs)}"
            if not differs:
                kept = InProgress(
                    Numbers(**about["numbers"]), load_file(folder / "tensors.safetensors")
                )
        if kept is None:
            self._all.remove(self._trial_id)
            self._say(f"the checkpoint cannot be used ({wrong}): training starts anew")
            return None
        self._say(f"goes on after step {kept.numbers.steps}, from a checkpoint of {about['at']}")
        return kept

    def due(self) -> bool:
        """Whether it is time to write one, or this process was asked to end."""
        return self._noticed or time.monotonic() - self._written >= self._all.seconds

    def write(self, state: InProgress, engine: str) -> None:
        """Write one in the place of the one before; then end, where that was asked."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        about = {
            "belongs_to": self._belongs_to(engine),
            "at": datetime.now().astimezone().isoformat(" ", "seconds"),
            "numbers": asdict(state.numbers),
        }
        place = self._all.place(self._trial_id)
        try:
            files.make_folder(place.parent)
            with files.replacing_folder(place) as folder:
                save_file(_apart(state.tensors), folder / "tensors.safetensors")
                (folder / "state.json").write_text(json.dumps(about), encoding="utf-8")
                seal_checkpoint(folder)
        except (OSError, SafetensorError) as e:  # the latter of a full disk too
            self._say(f"no checkpoint could be written ({e}); training goes on")
        self._written = time.monotonic()
        self._heed()

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """Meanwhile SIGTERM waits for a step's end: a checkpoint is written, then it is heeded.

        Only where checkpoints are written, and in the main thread, the only one that hears signals.
        """
        main = threading.current_thread() is threading.main_thread()
        if math.isinf(self._all.seconds) or not main:
            yield
            return
        self._before = signal.signal(signal.SIGTERM, self._note) or signal.SIG_DFL
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, self._before)
            self._heed()

    def _note(self, _: int, __: FrameType | None) -> None:
        self._noticed = True

    def _heed(self) -> None:
        if self._noticed:
            self._noticed = False
            signal.signal(signal.SIGTERM, self._before)
            os.kill(os.getpid(), signal.SIGTERM)

    def _belongs_to(self, engine: str) -> dict[str, str]:
        versions = {k: v for k, v in machine.versions().items() if k in _DECIDING}
        return {
            "format": str(_FORMAT),
            "trial": self._trial_id,
            "tunelab": __version__,
            **versions,
            "engine": engine,
        }


# The packages that a training's numbers come from.
_DECIDING = ("torch", "transformers", "peft", "numpy")
