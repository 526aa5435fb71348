"""Claims about slices and shares: how often a slice is named for nothing, what intervals hold.

Worlds of `_worlds`; slices are cut at random, so none differs in truth. In the worlds with "seeds
of their own" each seed of each method has its own luck with each slice. Shares: the accuracy of a
slice of so many rows, whose truth is the world's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from _claims import Claim, Goal, at_most, between, share_of
from _worlds import World, as_runs, draw_right
from tunelab.stats import slice_tests
from tunelab.stats.shares import share_of_values
from tunelab.stats.slices import find_slices, named_slices

__all__ = ["claims"]

NAMED = "a slice is named though none differs"
HELD = "the interval of a slice's accuracy holds the truth"
FOUND = "a slice that is weaker is named"
SAID = "slices"
DEALS = 499  # of the rows, for each study; real studies deal 1,999 times


@dataclass(frozen=True, slots=True)
class Cell:
    """Studies of one kind; `own`: standard deviation of a seed's luck with a slice."""

    methods: int
    seeds: int
    rows: int
    accuracy: float
    own: float = 0.0

    def __str__(self) -> str:
        seeds = f"{self.seeds} seed{'s' * (self.seeds > 1)}"
        luck = f", a seed's luck with a slice {100 * self.own:g} points" if self.own else ""
        return (
            f"{self.methods} methods, {seeds}, {self.rows:,} rows, "
            f"{100 * self.accuracy:g}% right{luck}"
        )


CELLS = (
    Cell(4, 6, 1000, 0.95),
    Cell(4, 6, 1000, 0.80),
    Cell(2, 1, 1000, 0.98),
    Cell(2, 3, 300, 0.98),
    Cell(12, 3, 300, 0.90),
    Cell(2, 10, 300, 0.60),
    Cell(4, 3, 150, 0.90),
    Cell(4, 6, 150, 0.97),
    Cell(2, 3, 1000, 0.90, own=0.02),
    Cell(4, 6, 1000, 0.90, own=0.03),
    Cell(4, 10, 300, 0.95, own=0.025),
)


def claims(studies: int) -> list[Claim]:
    """Every claim, from so many studies a cell; the intervals from twice as many."""
    before = slice_tests.DEALS
    slice_tests.DEALS = DEALS
    try:
        return [*_named(studies), *_weak(max(studies // 4, 50)), *_held(2 * studies)]
    finally:
        slice_tests.DEALS = before


def _named(studies: int) -> Iterator[Claim]:
    for cell in CELLS:
        hits = []
        for study in range(studies):
            rng = np.random.default_rng([study, cell.methods, cell.seeds, cell.rows])
            right, by = _study(cell, rng)
            hits.append(bool(named_slices(find_slices(as_runs(right), by))))
        yield share_of(NAMED, SAID, str(cell), hits, at_most(0.05))


def _weak(studies: int) -> Iterator[Claim]:
    """How often a slice that is 10 points weaker is found: no promise is made."""
    for size in (50, 200):
        cell = Cell(4, 6, 1000, 0.90)
        hits = []
        for study in range(studies):
            rng = np.random.default_rng([study, size])
            right, by = _study(cell, rng)
            weak = np.flatnonzero(np.array(by["sizes"]) == str(size))
            right[0, :, weak] &= rng.random((len(weak), 1)) > 0.1 / 0.9
            named = named_slices(find_slices(as_runs(right), by))
            hits.append(any((s.label, s.value) == ("m0", str(size)) for s in named))
        yield share_of(FOUND, SAID, f"{cell}; {size} rows, 10 points weaker", hits, Goal(0.0, 1.0))


def _study(
    cell: Cell, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], dict[str, Sequence[str | None]]]:
    """Who is right, and three columns that have nothing to do with it: quarters, halves, sizes."""
    world = World("slices", seed_sd=min(0.01, (1 - cell.accuracy) / 4))
    right = draw_right(world, [cell.accuracy] * cell.methods, cell.seeds, cell.rows, rng)
    order = rng.permutation(cell.rows)
    sizes = np.full(cell.rows, "rest", dtype=object)
    start = 0
    for size in (10, 20, 50, 100, 200, 500):
        if start + size < cell.rows - 10:
            sizes[order[start : start + size]] = str(size)
            start += size
    half = np.where(rng.random(cell.rows) < 0.5, "a", "b").astype(object)
    half[rng.random(cell.rows) < 0.1] = None
    by = {
        "quarters": [f"q{x}" for x in rng.integers(0, 4, cell.rows)],
        "halves": half.tolist(),
        "sizes": sizes.tolist(),
    }
    if cell.own:
        for values in by.values():
            _give_seeds_their_own(right, np.array(values, dtype=object), cell, rng)
    return right, by


def _give_seeds_their_own(
    right: NDArray[np.bool_], values: NDArray[np.object_], cell: Cell, rng: np.random.Generator
) -> None:
    for value in {v for v in values if v is not None}:
        luck = cell.own * rng.normal(size=(cell.methods, cell.seeds, 1))
        inside = values == value
        chance = rng.random(right.shape)
        lost = inside & right & (chance < np.maximum(-luck, 0) / cell.accuracy)
        won = inside & ~right & (chance < np.maximum(luck, 0) / (1 - cell.accuracy))
        right ^= lost | won


def _held(studies: int) -> Iterator[Claim]:
    for rows in (10, 25, 50, 150, 300, 1000):
        for accuracy in (0.60, 0.90, 0.98):
            for seeds, sd in ((1, 0.0), (3, 0.005), (6, 0.0), (10, 0.025)):
                if sd > (1 - accuracy) / 4:
                    continue  # a seed's luck would not fit above
                world = World("shares", seed_sd=sd)
                hits = []
                for study in range(studies):
                    rng = np.random.default_rng([study, rows, seeds])
                    right = draw_right(world, [accuracy], seeds, rows, rng)[0]
                    e = share_of_values(right.astype(np.float64)).estimate()
                    hits.append((e.low or 0.0) <= accuracy <= (1.0 if e.high is None else e.high))
                seeds_say = f"{seeds} seed{'s' * (seeds > 1)}"
                cell = (
                    f"{rows:,} rows, {100 * accuracy:g}% right, {seeds_say}, "
                    f"their standard deviation {100 * sd:g} points"
                )
                # Few rows have few values, and few intervals: at least what is promised.
                few = rows * (1 - accuracy) < 10
                yield share_of(HELD, SAID, cell, hits, between(0.93, 1.0 if few else 0.97))
