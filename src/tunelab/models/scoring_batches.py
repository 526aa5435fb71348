"""Texts in batches of like length through what scores them, on threads that share nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tunelab.models.batches import Batch, Encoded, pad

__all__ = [
    "PRECISIONS",
    "TEXTS_TOKENIZED_AT_A_TIME",
    "TOKENS",
    "TOKENS_ON_A_CARD",
    "Halves",
    "LowerScores",
    "Prepared",
    "batches",
    "placed",
    "texts_in_windows",
]


# What layers may compute in when texts are scored; the head is float32 in any case. "float32" is
# exact. "auto" is float32 too, with products on matrix tiles where the processor has them, twice as
# fast: a score then has five true digits (kernels.layers.Product).
PRECISIONS = ("auto", "float32", "bfloat16")
# Texts that are tokenized, sorted and scored at a time: memory is bounded however many there are.
TEXTS_TOKENIZED_AT_A_TIME = 4096

Floats = NDArray[np.float64]

# Tokens of a batch on a processor: as fast as more, in less memory (docs/log.md). And on a card,
# which they keep busy; not measured, no card was at hand.
TOKENS, TOKENS_ON_A_CARD = 1024, 16_384
# There it ends where a text is shorter than so much of its longest, once it is worth a product; and
# of the last tokens batches are no more than that, so that no thread waits long for another.
_ALIKE_LENGTH, _WORTH_IT, _LAST = 0.97, 256, 2 * TOKENS


class LowerScores(Protocol):
    """Keeps what the `layers` lowest, frozen layers give for each batch of one set of texts."""

    @property
    def layers(self) -> int:
        """How many of the lowest layers."""
        ...

    def states(
        self, i: int, batch: Batch, below: Callable[[Batch, int], torch.Tensor]
    ) -> torch.Tensor:
        """Of batch `i`: kept, or what `below(batch, layers)` gives."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """A classifier cut between two layers: above(below(batch, n), batch, n) are its logits.

    Bit for bit, at any n. After all layers, `below` gives the first tokens alone, (b, 1, width).
    """

    below: Callable[[Batch, int], torch.Tensor]
    above: Callable[[torch.Tensor, Batch, int], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What `scores` runs. `engine` is "fast", "packed" or "plain", `why` says why it is plain.

    `merged`: whether an adapter was merged into the copy that is run. `precision`: what its layers
    compute in.
    """

    compute: Callable[[Batch, torch.device], torch.Tensor]
    where: torch.device
    engine: str
    why: str | None
    merged: bool
    side_by_side: bool
    precision: str = "float32"
    halves: Halves | None = None

    def __call__(
        self,
        encoded: Encoded,
        pad_id: int,
        batch_size: int,
        width: int | None = None,
        *,
        lower: LowerScores | None = None,
    ) -> NDArray[np.float32]:
        """Rows (n, width) of all texts in their order; `width` is needed only where n may be 0.

        `lower` keeps what frozen layers give for these texts, where the model has `halves`.
        """
        rows = batches(encoded.lengths, batch_size, self.where)
        out: list[NDArray[np.float32]] = [np.empty((0, width or 0), np.float32)] * len(rows)

        def one(i: int) -> None:
            with torch.inference_mode():
                batch = pad(encoded, rows[i], pad_id)
                if lower is None or self.halves is None:
                    given = self.compute(batch, self.where)
                else:
                    states = lower.states(i, batch, self.halves.below).to(self.where)
                    given = self.halves.above(states, batch, lower.layers)
                out[i] = given.float().cpu().numpy()

        threads = torch.get_num_threads()
        if self.side_by_side and threads > 1 and len(rows) >= 2 * threads:
            with _one_thread_each(threads) as pool:
                list(pool.map(one, range(len(rows))))
        else:
            for i in range(len(rows)):
                one(i)
        if not rows:
            return np.empty((0, width or 0), np.float32)
        result = np.empty((len(encoded), out[0].shape[1]), np.float32)
        for which, values in zip(rows, out, strict=True):
            result[which] = values
        return result


def texts_in_windows(
    texts: Sequence[str], score: Callable[[Sequence[str]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Score texts window by window: rows in their order, tokens of one window in memory."""
    starts = range(0, max(1, len(texts)), TEXTS_TOKENIZED_AT_A_TIME)
    return np.concatenate([score(texts[i : i + TEXTS_TOKENIZED_AT_A_TIME]) for i in starts])


@contextmanager
def _one_thread_each(threads: int) -> Iterator[ThreadPoolExecutor]:
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)  # the number is also a process-wide default


def batches(
    lengths: NDArray[np.int64], batch_size: int, where: torch.device
) -> list[NDArray[np.int64]]:
    """Row numbers in batches of like length, longest first: every row once.

    A batch holds at most `batch_size` texts and TOKENS tokens (TOKENS_ON_A_CARD), unless one text
    has more. Longest first, so that memory is at its peak at once, and full batches of one length
    have one shape: where torch multiplies, its library plans each new shape anew.
    """
    order = np.argsort(-lengths, kind="stable")
    n = lengths[order]
    left = n[::-1].cumsum()[::-1]
    out, start, small = [], 0, where.type == "cpu"
    while start < len(order):
        longest = max(1, int(n[start]))
        room = TOKENS if left[start] > _LAST else _WORTH_IT
        most = max(1, min(batch_size, (room if small else TOKENS_ON_A_CARD) // longest))
        end = min(len(order), start + most)
        enough = start + max(1, _WORTH_IT // longest)
        if small and enough < end:
            # Descending, so the first that is too short ends the batch.
            alike = int(np.searchsorted(-n[start:end], -_ALIKE_LENGTH * longest, side="right"))
            end = min(end, max(enough, start + alike))
        out.append(order[start:end])
        start = end
    return out


def placed(batch: Batch, where: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids (b, n) and the lengths of the texts (b,); None where all are as long."""
    ids = torch.from_numpy(batch.input_ids).to(where, non_blocking=True)
    if batch.attention_mask.all():
        return ids, None
    lengths = np.maximum(batch.attention_mask.sum(axis=1), 1)
    return ids, torch.from_numpy(lengths).to(where, non_blocking=True)
