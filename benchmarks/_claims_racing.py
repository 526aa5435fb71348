"""A race keeps the best in 95 of 100: simulated where methods are unlike each other.

Worlds of benchmarks/_worlds.py, none of which is normal: equal spreads over seeds; one method that
varies by 3 points among steady ones, and one that is steady among those; methods that no seed
changes; runs that break down; disagreement on one side only; rows of its own for each seed; folds,
of whose validation rows some are another seed's too. The best is as good as the others, or ahead by
one to three points; of equals, the one that is unlike the others is asked about, for it is lost
most easily. `python benchmarks/_claims_racing.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

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
    judged_on: Literal["same rows", "rows of its own", "folds"] = "same rows"  # each seed

    @property
    def all_rows(self) -> int:
        """Rows that seeds are judged on: `rows` a seed."""
        if self.judged_on == "folds":  # 15% of all rows are to choose on
            return round(self.rows / 0.15)
        return self.rows if self.judged_on == "same rows" else self.rows * self.seeds

    def __str__(self) -> str:
        lead = f", best by {100 * self.ahead:g}" if self.ahead else ""
        at = "" if self.accuracy == 0.86 else f", at {100 * self.accuracy:g}%"
        size = f"{self.methods} methods, {self.seeds} seeds, {self.rows:,} rows"
        return f"{self.name}{lead}{at}; {size}"


def draw(cell: Cell, study: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Who is right, (methods, seeds, rows), and on which rows, (seeds, rows)."""
    rng = np.random.default_rng([study, cell.methods, cell.seeds, cell.rows])
    accuracies = [cell.accuracy, *[cell.accuracy - cell.ahead] * (cell.methods - 1)]
    right = draw_right(cell.world, accuracies, cell.seeds, cell.all_rows, rng)
    for k in cell.fixed:
        right[k] = right[k, :1]
    rows = _judged_rows(cell, rng)
    return np.take_along_axis(right, rows[None], axis=2), rows


def _judged_rows(cell: Cell, rng: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of the rows that each seed is judged on, (seeds, rows)."""
    if cell.judged_on == "rows of its own":
        return np.arange(cell.all_rows).reshape(cell.seeds, cell.rows)
    if cell.judged_on == "same rows":
        return np.tile(np.arange(cell.rows), (cell.seeds, 1))
    tested = np.array_split(rng.permutation(cell.all_rows), cell.seeds)
    rest = [np.setdiff1d(np.arange(cell.all_rows), part) for part in tested]
    return np.stack([np.sort(rng.choice(r, cell.rows, replace=False)) for r in rest])


def race_of(cell: Cell, study: int) -> tuple[racing.Race, int]:
    """A race that was run, and its trials."""
    right, rows = draw(cell, study)
    numbers = None if cell.judged_on == "same rows" else dict(enumerate(rows))
    return racing.replay(right, range(cell.seeds), rows=numbers)


def loses_the_best(cell: Cell, study: int) -> bool:
    return "0" not in race_of(cell, study)[0].alive


# Sizes (methods, seeds, rows) at which the rule is strained most.
_ALIKE = ((2, 6, 5000), (4, 8, 1000), (8, 6, 300), (12, 10, 1000))
_UNLIKE = ((2, 6, 5000), (2, 20, 1000), (4, 8, 5000), (8, 6, 1000), (8, 12, 5000))
_OTHER = ((4, 6, 1000), (8, 10, 300), (2, 12, 5000))
_FOLDED = ((2, 6, 1000), (4, 6, 300), (8, 6, 300), (8, 12, 300))


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
    yield from _in_folds()


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
    own = _cell("rows of its own a seed, all vary by 1", small, 1.0, 1.0)
    yield replace(own, judged_on="rows of its own")
    one = _cell("rows of its own a seed, best varies by 3, others by 0.3", small, 3.0, 0.3)
    yield replace(one, judged_on="rows of its own")


def _in_folds() -> Iterator[Cell]:
    """What strains the rule most, where each seed chooses on rows of its fold."""
    for size in _FOLDED:
        of_folds = [
            _cell("folds, all vary by 1", size, 1.0, 1.0),
            _cell("folds, all vary by 0.2", size, 0.2, 0.2),
            _cell("folds, best varies by 3, others by 0.3", size, 3.0, 0.3),
            _cell("folds, best varies by 0.3, others by 3", size, 0.3, 3.0),
            replace(_rival_varies(size), name="folds, a rival varies by 3, others by 0.3"),
            replace(_cell("folds, best is fixed, others vary by 1.5", size, 0.0, 1.5), fixed=(0,)),
        ]
        one_side = _cell("folds, disagreement on one side", size, 0.3, 0.3)
        world = replace(one_side.world, own=0.0, fresh=0.0)
        of_folds.append(replace(one_side, world=world, ahead=0.01))
        yield from (replace(c, judged_on="folds") for c in of_folds)


def _cell(name: str, size: tuple[int, int, int], first: float, rest: float) -> Cell:
    methods, seeds, rows = size
    spreads = (first / 100, *[rest / 100] * (methods - 1))
    return Cell(name, World(name, seed_sd=spreads), methods, seeds, rows)


def _rival_varies(size: tuple[int, int, int]) -> Cell:
    cell = _cell("a rival varies by 3, others by 0.3", size, 0.3, 0.3)
    spreads = (0.003, 0.03, *[0.003] * (size[0] - 2))
    return replace(cell, world=replace(cell.world, seed_sd=spreads))


def claims(studies: int) -> Iterator[Claim]:
    """One claim a cell: the share of races in which the best is lost."""
    for c in cells():
        lost = [loses_the_best(c, i) for i in range(studies)]
        yield share_of(CLAIM, SAID, str(c), lost, at_most(0.05))


if __name__ == "__main__":
    print(table(list(claims(int(sys.argv[1]) if sys.argv[1:] else 300))))
