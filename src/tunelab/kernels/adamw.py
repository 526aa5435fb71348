"""AdamW in two passes over memory, and embeddings of which a step moves only what it reads.

Norm, clipping and update of all that learns are one call each of `kernels`. The rows of a large
embedding that a step does not read have no gradient, and what AdamW does with them is known
beforehand: they are brought up to date when they are read next, or at the end of an epoch.
Where the kernels do not run, torch's own AdamW does, over every row in every step.
"""

from __future__ import annotations

import array
import ctypes
import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.optimizer import ParamsT
from torch.utils.weak import WeakIdKeyDictionary

from tunelab.kernels import library
from tunelab.kernels.abi import LateRowsRecord, PieceRecord
from tunelab.kernels.library import at

__all__ = [
    "AdamW",
    "EmbeddingRows",
    "rows_of",
]


_BETAS, _EPS = (0.9, 0.999), 1e-8
_PIECE_LENGTH = 2**18
# Pieces lie one behind the other.
_PIECE = np.dtype(PieceRecord)


class EmbeddingRows:
    """The gradient of a large embedding, of which each step reads few rows.

    An optimizer that takes rows gets these alone. For any other the whole gradient is kept from
    step to step, and only rows of a step's tokens are cleared: a new tensor of zeros for the whole
    vocabulary took a fifth of a step (docs/log.md).
    """

    def __init__(self) -> None:
        self._taken_by: weakref.ref[AdamW] | None = None
        self._given: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._whole: torch.Tensor | None = None
        self._touched: list[torch.Tensor] = []

    def give_to(self, taker: AdamW | None) -> None:
        """Name who takes rows from now on; None: whole gradients are given."""
        self._taken_by = weakref.ref(taker) if taker else None
        self.forget()

    def forget(self) -> None:
        """Drop what was given and not taken, as `zero_grad` does."""
        self._given.clear()

    def _taker(self) -> AdamW | None:
        return self._taken_by() if self._taken_by else None

    def reading(self, weight: torch.Tensor, ids: torch.Tensor) -> None:
        """Bring rows up to date before they are read."""
        taker = self._taker()
        if taker is not None:
            taker.catch_up(weight, torch.unique(ids))

    def settle(self, weight: torch.Tensor) -> None:
        """Bring every row up to date, so that weights are what AdamW gives, and keep nothing."""
        self.reading(weight, torch.arange(len(weight), device=weight.device))
        self._whole = None
        self._touched.clear()

    def add(
        self, weight: torch.Tensor, ids: torch.Tensor, grad: torch.Tensor, padding: int | None
    ) -> None:
        """Add the gradient of these tokens."""
        flat = ids.reshape(-1)
        rows = grad.reshape(-1, grad.shape[-1])
        if padding is not None:
            real = flat != padding
            flat, rows = flat[real], rows[real]
        if self._taker() is not None and weight.grad is None:
            self._given.append((flat, rows))
            return
        if weight.grad is None:
            if self._whole is None:
                self._whole = torch.zeros_like(weight)
            for before in self._touched:
                self._whole[before] = 0
            self._touched.clear()
            weight.grad = self._whole
        weight.grad.index_add_(0, flat, rows)
        if weight.grad is self._whole:
            self._touched.append(flat)

    def take(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The rows that were read since, each once, and their gradients; None if none were."""
        if not self._given:
            return None
        ids = torch.cat([i for i, _ in self._given])
        grads = torch.cat([g for _, g in self._given])
        self._given.clear()
        rows, where = torch.unique(ids, return_inverse=True)
        return rows, grads.new_zeros(len(rows), grads.shape[1]).index_add_(0, where, grads)


_rows_of_weight: WeakIdKeyDictionary = WeakIdKeyDictionary()


def rows_of(weight: torch.Tensor) -> EmbeddingRows:
    """The gradient by rows of an embedding's weight."""
    rows: EmbeddingRows | None = _rows_of_weight.get(weight)  # type: ignore[no-untyped-call]
    if rows is None:
        rows = _rows_of_weight[weight] = EmbeddingRows()
    return rows


def _zeros(like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.zeros(like.shape, dtype=np.float32))


@dataclass(slots=True)
class _Lag:
    """How far each row of an embedding is: the last step that it has, and that had a gradient (0:
    none); and of each step its decay, its rate and the root of its correction.
    """

    last: torch.Tensor
    since: torch.Tensor
    numbers: tuple[array.array[float], ...]

    @classmethod
    def at(cls, step: int, rows: int) -> _Lag:
        """Rows that all have so many steps."""
        last, since = (torch.full((rows,), step, dtype=torch.int32) for _ in range(2))
        return cls(last, since, tuple(array.array("f", [1.0] * step) for _ in range(3)))

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it, by name."""
        numbers = (torch.tensor(of_steps, dtype=torch.float32) for of_steps in self.numbers)
        return {"last": self.last, "since": self.since} | dict(zip("abc", numbers, strict=True))

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> _Lag:
        """As it was that gave these."""
        numbers = tuple(array.array("f", tensors[k].tolist()) for k in "abc")
        return cls(tensors["last"], tensors["since"], numbers)

    def note(self, numbers: tuple[float, ...], moved: Any) -> None:
        """Take down a step, and which rows it moved."""
        for kept, number in zip(self.numbers, numbers, strict=True):
            kept.append(number)
        self.last[moved] = self.since[moved] = len(self.numbers[0])


class _Pieces:
    """Pieces of weights; of which weight each is, and where it begins there in bytes."""

    def __init__(self, pieces: list[tuple[Any, ...]], of: list[int], offsets: list[int]) -> None:
        self._pieces = np.array(pieces, dtype=_PIECE)
        self._of = np.array(of, dtype=np.int64)
        self._offsets = np.array(offsets, dtype=np.uint64)

    def given(self, gradients: NDArray[np.uint64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Those whose weight has a gradient, with its place (0: none), and whose they are."""
        some = gradients[self._of] > 0
        of, pieces = self._of[some], self._pieces[some]
        pieces["g"] = gradients[of] + self._offsets[some]
        return pieces, of


class AdamW(torch.optim.AdamW):
    """torch's AdamW (Loshchilov & Hutter 2019), before which gradients are scaled down to a norm of
    `max_norm` (0: they are not).

    `fused`: in own kernels where they run. Gradients are not changed then.
    """

    def __init__(self, groups: ParamsT, *, lr: float, max_norm: float, fused: bool = True) -> None:
        super().__init__(groups, lr=lr, betas=_BETAS, eps=_EPS, fused=True)
        self._max_norm = max_norm
        pairs = [(p, g) for g in self.param_groups for p in g["params"]]
        self._params, self._groups = [p for p, _ in pairs], [g for _, g in pairs]
        self._own = fused and all(
            p.is_contiguous() and library.pick("adamw", p) is not None for p in self._params
        )
        self._rows = {i: rows_of(p) for i, p in enumerate(self._params) if p.ndim == 2}
        for rows in self._rows.values():
            rows.give_to(self if self._own else None)
        if not self._own:
            return
        # numpy's zeros take memory only when they are written to: rows never read need none.
        self._m, self._v = ([_zeros(p) for p in self._params] for _ in range(2))
        self._steps = np.zeros(len(self._params), dtype=np.int64)
        self._place = {id(p): i for i, p in enumerate(self._params)}
        self._lags: dict[int, _Lag] = {}
        # All weights as pieces, without gradients and numbers; and where the weights lie.
        self._all = _Pieces([], [], [])
        self._pointers: list[int] = []

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's, and forget rows that no step has taken."""
        super().zero_grad(set_to_none)
        for rows in self._rows.values():
            rows.forget()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step."""
        if not self._own:
            if self._max_norm:
                nn.utils.clip_grad_norm_(self._params, self._max_norm)
            super().step(closure)
            return
        pieces, alive = self._pieces()
        threads, some = torch.get_num_threads(), self._params[0]
        scale = 1.0
        if self._max_norm:
            total = ctypes.c_double()
            library.pick("squares", some)(
                pieces.ctypes.data, len(pieces), ctypes.addressof(total), threads
            )
            scale = min(1.0, self._max_norm / (math.sqrt(total.value) + 1e-6))
        library.pick("adamw", some)(pieces.ctypes.data, len(pieces), scale, *_BETAS, _EPS, threads)
        del alive  # until here: pieces point into them
        torch.autograd.graph.increment_version(self._params)

    def _pieces(self) -> tuple[NDArray[Any], list[torch.Tensor]]:
        """What is updated in this step, and the gradients that belong to it."""
        alive: list[torch.Tensor] = []
        taken: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for i, rows in self._rows.items():
            some = rows.take()
            if some is not None:
                taken[i] = some
        where = np.zeros(len(self._params), dtype=np.uint64)
        pointers = [p.data_ptr() for p in self._params]
        if pointers != self._pointers:  # the first step, or somebody gave a weight another tensor
            self._pointers, self._all = pointers, self._whole_pieces()
        for i, p in enumerate(self._params):
            grad = p.grad
            if grad is None:
                continue
            if i in taken:  # read as a whole as well
                grad.index_add_(0, *taken.pop(i))
            if not grad.is_contiguous():
                grad = grad.contiguous()
                alive.append(grad)
            where[i] = grad.data_ptr()
        moved = where > 0
        moved[list(taken)] = True
        self._steps += moved
        keep, size, root = self._numbers()
        parts = []
        for i, some in taken.items():
            if i not in self._lags:
                self._lags[i] = _Lag.at(int(self._steps[i]) - 1, len(self._params[i]))
            parts.append(self._row_pieces(i, *some, (keep[i], size[i], root[i])))
            alive += some
        for i, lag in self._lags.items():
            if where[i]:
                self._rows[i].settle(self._params[i])
            if moved[i]:
                rows_moved = taken[i][0] if i in taken else slice(None)
                lag.note((float(keep[i]), float(size[i]), float(root[i])), rows_moved)
        whole, of = self._all.given(where)
        whole["keep"], whole["size"], whole["root"] = keep[of], size[of], root[of]
        return np.concatenate([whole, *parts]), alive

    def _numbers(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Decay, rate and the root of the correction of each weight's present step."""
        rate, decay = (np.array([g[name] for g in self._groups]) for name in ("lr", "weight_decay"))
        steps = np.maximum(self._steps, 1)
        size = rate / (1 - _BETAS[0] ** steps)
        return 1 - rate * decay, size, np.sqrt(1 - _BETAS[1] ** steps)

    def _whole_pieces(self) -> _Pieces:
        """All weights, a large one in several pieces, so that threads share it."""
        pieces, of, offsets = [], [], []
        for i, p in enumerate(self._params):
            where = [t.data_ptr() for t in (p, self._m[i], self._v[i])]
            for first in range(0, p.numel(), _PIECE_LENGTH):
                offset = first * p.element_size()
                many = min(_PIECE_LENGTH, p.numel() - first)
                pieces.append((*(w + offset for w in where), 0, many, 0.0, 0.0, 0.0))
                of.append(i)
                offsets.append(offset)
        return _Pieces(pieces, of, offsets)

    def _row_pieces(
        self, i: int, rows: torch.Tensor, grads: torch.Tensor, numbers: tuple[float, ...]
    ) -> NDArray[Any]:
        pieces = np.empty(len(rows), dtype=_PIECE)
        wide = grads.shape[1] * grads.element_size()
        for name, t in (("p", self._params[i]), ("m", self._m[i]), ("v", self._v[i])):
            pieces[name] = t.data_ptr() + rows.numpy() * wide
        pieces["g"] = grads.data_ptr() + np.arange(len(rows)) * wide
        pieces["n"] = grads.shape[1]
        pieces["keep"], pieces["size"], pieces["root"] = numbers
        return pieces

    def tensors(self) -> dict[str, torch.Tensor]:
        """What it has of the steps before: moments, numbers of steps, rows that lag; by name."""
        if not self._own:
            of = enumerate(self._params)
            return {f"{i}.{k}": t for i, p in of for k, t in self.state[p].items()}
        kept = {f"{i}.m": t for i, t in enumerate(self._m)}
        kept |= {f"{i}.v": t for i, t in enumerate(self._v)}
        for i, lag in self._lags.items():
            kept |= {f"{i}.lag.{k}": t for k, t in lag.tensors().items()}
        return {**kept, "steps": torch.from_numpy(self._steps)}

    def go_on_from(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Be as the one that gave these tensors, of the same weights in the same order."""
        for i, p in enumerate(self._params):
            own = {k.removeprefix(f"{i}."): t for k, t in tensors.items() if k.startswith(f"{i}.")}
            if not self._own:
                if own:
                    self.state[p] = {
                        k: t.to(p.device if t.ndim else t.device) for k, t in own.items()
                    }
                continue
            self._m[i].copy_(own["m"])
            self._v[i].copy_(own["v"])
            if "lag.last" in own:
                lag = {k.removeprefix("lag."): t for k, t in own.items() if k.startswith("lag.")}
                self._lags[i] = _Lag.of(lag)
        if self._own:
            self._steps[:] = tensors["steps"].numpy()

    def catch_up(self, weight: torch.Tensor, rows: torch.Tensor) -> None:
        """Bring some rows of an embedding, each named once, to the last step."""
        i = self._place.get(id(weight), -1)
        lag = self._lags.get(i)
        if lag is None:
            return
        p = self._params[i]
        places = map(at, (p, self._m[i], self._v[i], lag.last, lag.since))
        numbers = (of_steps.buffer_info()[0] for of_steps in lag.numbers)
        record = LateRowsRecord(*places, *numbers, p.shape[1], *_BETAS, _EPS)
        late, steps = ctypes.addressof(record), len(lag.numbers[0])
        threads = torch.get_num_threads()
        library.pick("adamw_late", p)(late, at(rows), len(rows), steps, threads)
