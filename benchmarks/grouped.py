"""How often what is said is wrong where rows come in groups (`group_column`).

`python benchmarks/grouped.py` simulates studies whose rows are several of one author, document or
thread, and prints how often equals are told apart, how often intervals hold the truth, and how
often methods a margin apart are called equivalent. `--alone` judges the same studies as if their
rows were independent.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from _claims import Claim, at_most, between, share_of, table
from _quickly import verdicts_alone
from _worlds import as_runs
from tunelab.core.values import Comparison
from tunelab.stats import Runs, compare_all, means

SAID = "verdicts of groups"
SEEDS, RESAMPLES = 6, 400
SHARED_LUCK = 0.7  # share of rows on which all methods and seeds have the same luck


@dataclass(frozen=True, slots=True)
class Grouped:
    """Groups of about `rows` each, all alike or from one row to many.

    A group is easier or harder by `of_all` for every method, and by `of_one` for each by itself,
    one way or the other: the mean over groups is the method's accuracy, exactly. `seed_sd`: what a
    seed moves a method by; 0: every seed gives the same.
    """

    groups: int
    rows: int
    even: bool
    of_all: float = 0.07
    of_one: float = 0.08
    seed_sd: float = 0.01

    def sizes(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Rows of each group."""
        if self.even:
            return np.full(self.groups, self.rows)
        return np.asarray(rng.geometric(1 / self.rows, self.groups), dtype=np.int64)


def grouped_runs(
    world: Grouped, accuracies: Sequence[float], rng: np.random.Generator, alone: bool = False
) -> list[Runs]:
    """Runs of methods with these accuracies on rows that come in groups."""
    group = np.repeat(np.arange(world.groups), world.sizes(rng))
    methods, rows = len(accuracies), len(group)
    hard = rng.choice([-world.of_all, world.of_all], world.groups)[group]
    own = rng.choice([-world.of_one, world.of_one], (methods, world.groups))[:, group]
    seed = rng.normal(0.0, world.seed_sd, (methods, SEEDS))
    chance = np.asarray(accuracies)[:, None, None] + seed[:, :, None] + (hard + own)[:, None, :]
    luck = rng.random((methods, SEEDS, rows))
    shared = SHARED_LUCK if world.seed_sd else 1.0  # without luck of its own each seed repeats
    luck = np.where(rng.random(rows) < shared, rng.random(rows), luck)
    groups = None if alone else {str(i): str(g) for i, g in enumerate(group)}
    return [replace(r, groups=groups) for r in as_runs(luck < chance)]


def judged(
    world: Grouped, accuracies: Sequence[float], studies: int, alone: bool = False
) -> Iterator[list[Comparison]]:
    """The verdicts of studies of a world."""
    for i in range(studies):
        rng = np.random.default_rng([23, i, world.groups, world.rows, world.even])
        runs = grouped_runs(world, accuracies, rng, alone)
        yield compare_all(runs, "accuracy", rng, resamples=RESAMPLES)


CELLS: tuple[tuple[Grouped, int], ...] = (
    (Grouped(30, 10, True), 2),
    (Grouped(30, 10, False), 2),
    (Grouped(60, 20, False), 2),
    (Grouped(150, 5, False), 2),
    (Grouped(150, 5, True), 4),
    (Grouped(60, 10, False, seed_sd=0.0), 2),
    (Grouped(400, 10, True, of_all=0.05, of_one=0.02, seed_sd=0.001), 2),
)


def claims(studies: int, alone: bool = False) -> Iterator[Claim]:
    """No false "better" or "equivalent", and intervals that hold the truth."""
    with verdicts_alone():
        for world, methods in CELLS:
            yield from _claims_of(world, methods, studies, alone)


def _claims_of(world: Grouped, methods: int, studies: int, alone: bool) -> Iterator[Claim]:
    sizes = "of" if world.even else "of one to many rows, on average"
    cell = f"{methods} methods, {world.groups} groups {sizes} {world.rows}"
    cell += ", seeds alike" if not world.seed_sd else ""
    hits = [
        any(c.verdict in {"better", "worse"} for c in some)
        for some in judged(world, [0.8] * methods, studies, alone)
    ]
    said = "no false 'better' or 'worse' among equals, all pairs together"
    yield share_of(said, SAID, cell, hits, at_most(0.05))
    if methods > 2:
        return
    held, mean_held = [], []
    for some in judged(world, [0.81, 0.79], studies, alone):
        d = some[0].difference
        held.append(d.low is not None and d.high is not None and d.low <= 0.02 <= d.high)
    said = "the 95% interval of a difference holds the true one"
    yield share_of(said, SAID, cell, held, between(0.93, 0.97))
    equivalent = [
        some[0].verdict == "equivalent" for some in judged(world, [0.805, 0.795], studies, alone)
    ]
    yield share_of("no false 'equivalent' at the margin", SAID, cell, equivalent, at_most(0.05))
    for i in range(studies):
        rng = np.random.default_rng([29, i, world.groups, world.rows, world.even])
        (estimate,) = means(grouped_runs(world, [0.8], rng, alone), ["accuracy"], rng).values()
        low, high = estimate.low, estimate.high
        mean_held.append(low is not None and high is not None and low <= 0.8 <= high)
    said = "the 95% interval of a method's mean holds the true one"
    yield share_of(said, SAID, cell, mean_held, between(0.93, 0.97))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=400, help="a cell (400)")
    parser.add_argument("--alone", action="store_true", help="take rows as independent")
    given = parser.parse_args()
    print(table(list(claims(given.studies, given.alone))))


if __name__ == "__main__":
    main()
