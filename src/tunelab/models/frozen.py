"""The frozen lower layers of a model that is trained: found, computed once, kept on disk.

Where only upper layers learn (a probe, `layers_to_transform`, `freeze_layers`), what the layers
below give for a text is the same in each epoch and for each seed, as long as nothing is dropped
there. Then it is computed once for a data set, in batches that depend on the texts alone, and
training starts at the lowest layer that learns. What is read back is bit for bit what computing it
again gives: the key is the weights, the tokens, the layers, the number format and all else that
decides a bit. Against computing it within each step, in other batches, products may round
differently in their last bit.

Files are read, not mapped, so that a trial's peak memory is its own; the system shares their pages
between trials all the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import transformers
from torch import nn

from tunelab.core import cache, files, machine
from tunelab.core.shapes import fault
from tunelab.kernels import build, library
from tunelab.models import anatomy, bases, scoring
from tunelab.models.batches import Batch, Encoded

__all__ = [
    "Frozen",
    "Kept",
    "Lower",
    "States",
    "find_lower",
    "keep_states",
    "lower",
]


# Changing how states are computed must change this, or old ones would be read back.
_STATES_VERSION = 4
# Texts in a batch when states are computed; with scoring's own limit on tokens.
_TEXTS = 64


# --- what is frozen -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """The `layers` lowest of `of` layers, below everything that is trained.

    `modules`: they and what lies below them, by name. `dropout`: the highest rate among them.
    `why_not`: why they cannot be computed apart; None where they can.
    """

    layers: int
    of: int
    modules: dict[str, nn.Module]
    dropout: float
    why_not: str | None

    def disable_dropout(self) -> None:
        """Turn their dropout off, until the model is put into training mode again."""
        for module in self.modules.values():
            module.training = False


def find_lower(model: Any) -> Frozen | None:
    """The layers below the lowest that learns; None where there are none.

    Autograd knows: a few tokens are sent through, and what needs no gradient is frozen, whoever
    froze it and however an adapter is built. Leaves the model in evaluation mode.
    """
    inner = anatomy.classifier_in(model)
    encoder = anatomy.encoder_in(inner)
    if encoder is None or all(p.requires_grad for p in encoder.parameters()):
        return None
    blocks = {id(m) for m in anatomy.blocks_in(encoder)}
    learns: list[bool] = []  # of each layer in turn
    called: dict[str, int] = {}  # module -> layers entered by its last call
    entered = [0]
    hooks = []

    def enter(*_: Any) -> None:
        entered[0] += 1

    def leave(module: nn.Module, _: Any, out: Any) -> None:
        learns.append(_needs_gradient(out))

    for name, module in encoder.named_modules():
        if id(module) in blocks:
            hooks += [module.register_forward_pre_hook(enter)]
            hooks += [module.register_forward_hook(leave)]

        def note(_m: nn.Module, _a: Any, _o: Any, name: str = name) -> None:
            called[name] = entered[0]

        # A layer inside an adapter belongs to it; some adapters warn of hooks there.
        if "base_layer" not in name.split("."):
            hooks.append(module.register_forward_hook(note))
    model.eval()
    where = next(model.parameters()).device
    ids = torch.tensor([[5, 6, 7]], device=where)
    try:
        with torch.enable_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
    count = learns.index(True) if True in learns else len(learns)
    if not count:
        return None
    known = dict(encoder.named_modules())
    # The encoder itself ends with its last layer. Parts are taken with what they hold: attention
    # reads the rate of its dropout and never calls that module.
    low = [n for n, layer in called.items() if layer <= count and n]
    modules = {f"{n}.{part}".rstrip("."): m for n in low for part, m in known[n].named_modules()}
    rate = max((m.p for m in modules.values() if isinstance(m, nn.Dropout)), default=0.0)
    why = None
    if anatomy.is_quantised(inner):
        why = "quantised weights are computed in each step"
    elif count < len(learns) != len(blocks):
        why = "its layers share their weights"
    return Frozen(count, len(learns), modules, rate, why)


def _needs_gradient(out: Any) -> bool:
    if isinstance(out, torch.Tensor):
        return out.requires_grad
    parts = out.values() if hasattr(out, "values") else out
    return isinstance(parts, Iterable) and any(_needs_gradient(p) for p in parts)


# --- what is kept ---------------------------------------------------------------------------


class StatesFacts(TypedDict, total=False):
    """What is noted beside a complete file: what computing it took, and its size."""

    seconds: float
    peak_memory_bytes: int | None
    bytes: int


class Kept:
    """Tensors of one type in one file: written once, whole or not at all, read by any process.

    `shapes` says of what shape each is. Until all are written they lie in a file of its own.
    """

    def __init__(self, path: Path, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> None:
        self._path, self._shapes, self._dtype = path, shapes, dtype
        sizes = [math.prod(s) * dtype.itemsize for s in shapes]
        self._at = np.concatenate([[0], np.cumsum(np.asarray(sizes, dtype=np.int64))])
        self._lock = threading.Lock()
        self._stream: Any = None
        self._left: set[int] = set()
        self._draft: files.Draft | None = None

    @property
    def bytes(self) -> int:
        """Size of the file, known before anything is computed."""
        return int(self._at[-1])

    def open(self) -> StatesFacts | None:
        """Open the file for reading where it is complete, and give what was noted of it."""
        facts = cache.kept_json(self._path.with_suffix(".json"))
        if fault(facts, StatesFacts) or not cache.is_whole(self._path):
            return None
        try:
            self._stream = self._path.open("rb", buffering=0)
            os.utime(self._path)  # the file that was not used for longest goes first
        except OSError:
            return None
        noted: StatesFacts = facts
        return noted

    def begin(self) -> str | None:
        """Get ready to write; why not, where the file has no room."""
        why = cache.make_room(self._path.parent, self.bytes)
        if why is None:
            try:
                self._draft = files.Draft(self._path, private=True)
                self._stream = self._draft.file.open("w+b", buffering=0)
            except OSError as e:
                return f"{self._path.parent} cannot be written ({e.strerror})"
            self._left = set(range(len(self._shapes)))
        return why

    def write(self, i: int, tensor: torch.Tensor) -> None:
        """Write tensor `i`."""
        raw = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
        with self._lock:
            self._stream.seek(int(self._at[i]))
            wrote = self._stream.write(raw.data)
            if wrote != raw.nbytes:  # a disk that is nearly full takes a part, and says so
                raise OSError(f"{self._path}: wrote {wrote} of {raw.nbytes} bytes")
            self._left.discard(i)

    def has(self, i: int) -> bool:
        """Whether tensor `i` can be read."""
        return i not in self._left

    def finish(self, facts: StatesFacts) -> None:
        """Give the file its name, and note `facts` beside it: from now on it is found."""
        if self._draft is not None and not self._left:
            cache.seal_entry(self._draft.file)
            self._draft.take_place()
            self._draft = None
            cache.keep_json(self._path.with_suffix(".json"), facts, bounded=False)

    def read(self, which: Iterable[int]) -> torch.Tensor:
        """Tensors one after the other along their first axis."""
        which = list(which)
        rows = sum(self._shapes[i][0] for i in which)
        out = torch.empty((rows, *self._shapes[which[0]][1:]), dtype=self._dtype)
        raw = out.view(torch.uint8).numpy().reshape(-1).data
        start = 0
        with self._lock:
            for i in which:
                size = int(self._at[i + 1] - self._at[i])
                self._stream.seek(int(self._at[i]))
                got = self._stream.readinto(raw[start : start + size])
                if got != size:
                    raise OSError(f"{self._path}: expected {size} bytes of it, found {got}")
                start += size
        return out

    def close(self) -> None:
        """Close the file; one that is not complete is removed."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._draft is not None:
            self._draft.give_up()
            self._draft = None


def _states_key(frozen: Frozen, model: Any, encoded: Encoded, more: Sequence[object]) -> str:
    """Hash of all that states depend on to the last bit: weights, tokens, and how they are run."""
    inner = anatomy.classifier_in(model)
    # The library's name says which source it was built from; `built`, what of it runs here.
    head = [
        _STATES_VERSION,
        frozen.layers,
        bases.what_computes(inner.config.to_dict()),
        str(build.library()[0]),
        library.built(torch.bfloat16),
        hashlib.sha256(build.processor()).hexdigest(),
        torch.get_num_threads(),
        torch.__version__,
        transformers.__version__,
        *more,
    ]
    where = next(model.parameters()).device
    if where.type != "cpu":
        head.append(torch.cuda.get_device_name(where) if where.type == "cuda" else where.type)
    digest = hashlib.sha256(json.dumps(head, sort_keys=True, default=str).encode())
    for name, module in frozen.modules.items():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for part, tensor in own:
            digest.update(f"{name}.{part} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    digest.update(encoded.lengths.tobytes())
    for ids in encoded.ids:
        digest.update(ids.tobytes())
    return digest.hexdigest()[:32]


def _file(key: str) -> Path:
    return cache.folder() / "frozen" / f"{key}.bin"


# --- training -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """What the frozen layers give for each of a set of texts.

    `seconds` is what computing them takes, where they were read by a sample; `peak_memory_bytes`
    what it took.
    """

    kept: Kept
    seconds: float
    peak_memory_bytes: int | None
    from_cache: bool

    def of(self, rows: Iterable[int]) -> torch.Tensor:
        """States of these texts one after the other: (tokens, width), or (b, width) at the top."""
        return self.kept.read(int(r) for r in rows)


def keep_states(
    frozen: Frozen,
    model: Any,
    encoded: Encoded,
    compute: Callable[[Encoded, Any, int], torch.Tensor],
    how: Sequence[object],
) -> States | str:
    """States of all texts, read from the cache or computed and kept there; or why they are not.

    `compute(encoded, rows, layers)` gives those of some texts; the model is in evaluation mode.
    `how` names what else decides their bits, such as the number format.
    """
    if frozen.why_not is not None:
        return frozen.why_not
    top = frozen.layers == frozen.of
    lengths = encoded.lengths
    # Of what type and width they are, the first text says.
    first = compute(encoded, np.asarray([0]), frozen.layers)
    shapes = [(1 if top else int(n), first.shape[1]) for n in lengths]
    key = _states_key(frozen, model, encoded, ["train", str(first.dtype), _TEXTS, *how])
    kept = Kept(_file(key), shapes, first.dtype)
    facts = kept.open()
    batches = scoring.batches(lengths, _TEXTS, first.device)
    if facts is not None:
        # What was kept may be of a busy hour, or of another version.
        sample = batches[:: max(1, len(batches) // 4)]
        started = time.perf_counter()
        for rows in sample:
            compute(encoded, rows, frozen.layers)
        seconds = time.perf_counter() - started
        share = sum(int(lengths[rows].sum()) for rows in sample) / int(lengths.sum())
        return States(kept, seconds / share, facts.get("peak_memory_bytes"), True)
    why = kept.begin()
    if why is not None:
        return why
    peak = machine.PeakMemory()
    started = time.perf_counter()
    try:
        for rows in batches:
            given = compute(encoded, rows, frozen.layers)
            for r, part in zip(rows, torch.split(given, [shapes[r][0] for r in rows]), strict=True):
                kept.write(int(r), part)
        seconds = time.perf_counter() - started
        kept.finish({"seconds": seconds, "peak_memory_bytes": peak.bytes(), "bytes": kept.bytes})
    except OSError as e:
        kept.close()
        return f"they could not be kept on disk ({e.strerror or e})"
    return States(kept, seconds, peak.bytes(), False)


# --- scoring --------------------------------------------------------------------------------


class Lower:
    """What frozen layers give for each batch of texts that are scored (scoring.LowerScores)."""

    def __init__(self, kept: Kept, layers: int) -> None:
        self._kept = kept
        self.layers = layers

    def states(
        self, i: int, batch: Batch, below: Callable[[Batch, int], torch.Tensor]
    ) -> torch.Tensor:
        """Of batch `i`: read, or computed and kept."""
        if self._kept.has(i):
            return self._kept.read([i])
        given = below(batch, self.layers)
        with suppress(OSError):  # a full disk costs the cache, not the trial
            self._kept.write(i, given)
        return given

    def finish(self) -> None:
        """All batches were scored: keep them for other trials."""
        with suppress(OSError):
            self._kept.finish({"bytes": self._kept.bytes})

    def close(self) -> None:
        """Close the file."""
        self._kept.close()


def lower(
    frozen: Frozen, model: Any, encoded: Encoded, batch_size: int, precision: str
) -> Lower | None:
    """Keep what frozen layers give when these texts are scored, in one of scoring.PRECISIONS, for
    each epoch and each trial after; None where that cannot be.
    """
    if frozen.why_not is not None or not anatomy.has_fast_scoring(model):
        return None
    top = frozen.layers == frozen.of
    width = anatomy.width_of(model)
    lengths = encoded.lengths
    shapes = [
        (len(rows), 1 if top else int(lengths[rows].max()), width)
        for rows in scoring.batches(lengths, batch_size, next(model.parameters()).device)
    ]
    key = _states_key(frozen, model, encoded, ["scored", shapes, precision])
    kept = Kept(_file(key), shapes, torch.float32)
    if kept.open() is None and kept.begin() is not None:
        return None
    return Lower(kept, frozen.layers)
