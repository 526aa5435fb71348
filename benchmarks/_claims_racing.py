"""A race keeps the best in 95 of 100: simulated where methods are unlike each other.

Worlds of benchmarks/_worlds.py, none of which is normal: equal spreads over seeds; one method that
varies by 3 points among steady ones, and one that is steady among those; methods that no seed
changes; runs that break down; disagreement on one side only; rows of its own for each seed. The
best is as good as the others, or ahead by one to three points; of equals, the one that is unlike
the others is asked about, for it is lost most easily. `python benchmarks/_claims_racing.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from _claims import Claim, at_most, share_of, table
from _worlds import World, draw_right
from tunelab.stats import racing

CLAIM, SAID = "a race loses the best", "statistics.md, --race"


@dataclass(frozen=True)
class Cell:
    """A race of methods whose first is the best, by `ahead`: which is drawn, and how many seeds."""

    name: str
    world: World
    methods: int
    seeds: int
    rows: int
    ahead: float = 0.0
    accuracy: float = 0.86
    fixed: tuple[int, ...] = ()  # methods that no seed changes
    own_rows: bool = False  # each seed is judged on rows of its own

    def __str__(self) -> str:
        lead = f", best by {100 * self.ahead:g}" if self.ahead else ""
        at = "" if self.accuracy == 0.86 else f", at {100 * self.accuracy:g}%"
        size = f"{self.methods} methods, {self.seeds} seeds, {self.rows:,} rows"
        return f"{self.name}{lead}{at}; {size}"


def draw(cell: Cell, study: int) -> NDArray[np.bool_]:
    """Who is right, (methods, seeds, rows)."""
    rng = np.random.default_rng([study, cell.methods, cell.seeds, cell.rows])
    accuracies = [cell.accuracy, *[cell.accuracy - cell.ahead] * (cell.methods - 1)]
    if cell.own_rows:  # a method meets other rows with each seed
        many = draw_right(cell.world, accuracies, cell.seeds, cell.seeds * cell.rows, rng)
        parts = many.reshape(cell.methods, cell.seeds, cell.seeds, cell.rows)
        return np.stack([parts[:, s, s] for s in range(cell.seeds)], axis=1)
    right = draw_right(cell.world, accuracies, cell.seeds, cell.rows, rng)
    for k in cell.fixed:
        right[k] = right[k, :1]
    return right


def loses_the_best(cell: Cell, study: int) -> bool:
    rows = (
        {s: np.arange(cell.rows) + s * cell.rows for s in range(cell.seeds)}
        if cell.own_rows
        else None
    )
    race, _ = racing.replay(draw(cell, study), range(cell.seeds), rows=rows)
    return "0" not in race.alive


# Sizes (methods, seeds, rows) at which the rule is strained most.
_ALIKE = ((2, 6, 5000), (4, 8, 1000), (8, 6, 300), (12, 10, 1000))
_UNLIKE = ((2, 6, 5000), (2, 20, 1000), (4, 8, 5000), (8, 6, 1000), (8, 12, 5000))
_OTHER = ((4, 6, 1000), (8, 10, 300), (2, 12, 5000))


def cells() -> Iterator[Cell]:
    """Every world at its sizes. `first` varies by so many points, the others by `rest`."""
    for size, points in product(_ALIKE, (0.2, 1.0, 2.5)):
        yield _cell(f"all vary by {points:g}", size, points, points)
    for size in _UNLIKE:
        yield _cell("best varies by 3, others by 0.3", size, 3.0, 0.3)
        normal = _cell("best varies by 3 (normal), others by 0.3", size, 3.0, 0.3)
        yield replace(normal, world=replace(normal.world, shape="normal"))
        yield _rival_varies(size)
        yield _cell("best varies by 0.3, others by 3", size, 0.3, 3.0)
        yield replace(_cell("best is fixed, others vary by 1.5", size, 0.0, 1.5), fixed=(0,))
        alone = _cell("best varies by 1.5, others are fixed", size, 1.5, 0.0)
        yield replace(alone, fixed=tuple(range(1, size[0])))
        yield replace(_cell("best varies by 3, others by 0.3", size, 3.0, 0.3), ahead=0.01)
    for size in _OTHER:
        yield from _other_cells(size)


def _other_cells(size: tuple[int, int, int]) -> Iterator[Cell]:
    broken = _cell("runs break down, 5%", size, 0.5, 0.5)
    yield replace(broken, world=replace(broken.world, collapse=0.05))
    heavy = _cell("seeds far off now and then", size, 1.5, 1.5)
    yield replace(heavy, world=replace(heavy.world, shape="heavy"))
    one_side = _cell("disagreement on one side", size, 0.3, 0.3)
    yield replace(one_side, world=replace(one_side.world, own=0.0, fresh=0.0), ahead=0.01)
    yield replace(_rival_varies(size), ahead=0.01)
    yield replace(_cell("all vary by 1", size, 1.0, 1.0), ahead=0.03)
    yield replace(_cell("all vary by 0.5", size, 0.5, 0.5), accuracy=0.98)
    yield replace(_cell("all vary by 1.5", size, 1.5, 1.5), accuracy=0.6)
    small = (size[0], size[1], min(size[2], 1000))
    yield replace(_cell("rows of its own a seed, all vary by 1", small, 1.0, 1.0), own_rows=True)
    yield replace(_cell("rows of its own a seed, best by 3", small, 3.0, 0.3), own_rows=True)


def _cell(name: str, size: tuple[int, int, int], first: float, rest: float) -> Cell:
    methods, seeds, rows = size
    spreads = (first / 100, *[rest / 100] * (methods - 1))
    return Cell(name, World(name, seed_sd=spreads), methods, seeds, rows)


def _rival_varies(size: tuple[int, int, int]) -> Cell:
    cell = _cell("a rival varies by 3, others by 0.3", size, 0.3, 0.3)
    spreads = (0.003, 0.03, *[0.003] * (size[0] - 2))
    return replace(cell, world=replace(cell.world, seed_sd=spreads))


def claims(studies: int) -> list[Claim]:
    """One claim a cell: the share of races in which the best is lost."""
    return [
        share_of(CLAIM, SAID, str(c), [loses_the_best(c, i) for i in range(studies)], at_most(0.05))
        for c in cells()
    ]


if __name__ == "__main__":
    print(table(claims(int(sys.argv[1]) if sys.argv[1:] else 300)))
