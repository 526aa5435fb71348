"""Looking again: `extend --until decided` is wrong in 5% over all its looks, and what it costs.

Worlds of benchmarks/_worlds.py, judged by `stats.compare_all` after 6, 8, ... 20 seeds at the
levels of `stats.looks`. Counted over all looks together: "better" of any two equals, "equivalent"
of two that are a margin apart. `python benchmarks/_claims_looks.py [STUDIES]` prints these; with
`--cost` how many seeds it takes and how often the better one of two is found, against as many
seeds as are allowed at most and against six, with one look.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from _claims import Claim, at_most, share_of, table
from _worlds import World, as_runs, draw_right
from tunelab.core.values import Comparison
from tunelab.stats import Runs, compare_all
from tunelab.stats.looks import Looks, declare, levels_at, looked

FIRST, STEP, MOST = 6, 2, 20
RESAMPLES = 200  # of the rows, for each look; real studies take 2,000
WORLDS = (
    World("rows above all", seed_sd=0.002),
    World("rows and seeds", seed_sd=0.008),
    World("seeds above all", fresh=0.02, seed_sd=0.02, own=0.03),
    World("seeds above all, normal", fresh=0.02, seed_sd=0.02, own=0.03, shape="normal"),
)


@dataclass(frozen=True)
class Growing:
    """A study that may grow to `MOST` seeds: all its runs, and a generator for each look."""

    runs: Sequence[Runs]
    number: int

    def with_seeds(self, seeds: int, looks: Looks | None = None) -> list[Comparison]:
        """The verdicts with so many seeds; of one look at 5%, or at a level of many looks."""
        runs = [Runs(r.label, {s: r.by_seed[s] for s in range(seeds)}) for r in self.runs]
        rng = np.random.default_rng([self.number, seeds])
        if looks is None:
            return compare_all(runs, "accuracy", rng, margin=MARGIN, resamples=RESAMPLES)
        look = levels_at(looks, len(runs) * (len(runs) - 1) // 2)
        return compare_all(
            runs, "accuracy", rng, margin=MARGIN, resamples=RESAMPLES,
            alpha=look.better, alpha_equivalent=look.equivalent,
        )  # fmt: skip


MARGIN = 0.02


def study(world: World, accuracies: Sequence[float], rows: int, number: int) -> Growing:
    rng = np.random.default_rng([number, rows, len(accuracies)])
    return Growing(as_runs(draw_right(world, accuracies, MOST, rows, rng)), number)


def looks_of(growing: Growing) -> Iterator[tuple[int, list[Comparison]]]:
    """Verdicts of one look after the other, with how many seeds each had."""
    looks = declare(MOST, STEP, FIRST)
    for seeds in range(FIRST, MOST + 1, STEP):
        looks = looked(looks, seeds)
        yield seeds, growing.with_seeds(seeds, looks)


def _is_decided(found: Sequence[Comparison], verdicts: set[str]) -> bool:
    return any(c.verdict in verdicts for c in found)


def _false_better(world: World, methods: int, rows: int, number: int) -> bool:
    growing = study(world, [0.86] * methods, rows, number)
    return any(_is_decided(found, {"better", "worse"}) for _, found in looks_of(growing))


def _false_equivalent(world: World, rows: int, number: int) -> bool:
    growing = study(world, [0.86 + MARGIN / 2, 0.86 - MARGIN / 2], rows, number)
    return any(_is_decided(found, {"equivalent"}) for _, found in looks_of(growing))


def claims(studies: int) -> list[Claim]:
    """Whether the 5% hold over all looks."""
    said = "statistics.md, extend --until decided"
    found = []
    for world in WORLDS:
        for methods, rows in ((2, 300), (2, 1000), (4, 300)):
            hits = [_false_better(world, methods, rows, i) for i in range(studies)]
            what = f'"better" said at any look at {methods} equals'
            found.append(share_of(what, said, f"{world.name}; {rows:,} rows", hits, at_most(0.05)))
        hits = [_false_equivalent(world, 1000, i) for i in range(studies)]
        what = '"equivalent" said at any look, a margin apart (2 points)'
        found.append(share_of(what, said, f"{world.name}; 1,000 rows", hits, at_most(0.05)))
    return found


@dataclass(frozen=True)
class Cost:
    """Two methods `apart`: share of studies in which the better one is found, and seeds spent."""

    world: str
    apart: float
    found: float
    seeds: float
    found_with_most: float
    found_with_first: float


def costs(studies: int) -> list[Cost]:
    """What looking again takes and gives, against one look with six seeds or with twenty."""
    out = []
    for world in WORLDS[:3]:
        for apart in (0.0, 0.01, 0.02, 0.04):
            found, seeds, most, first = [], [], [], []
            for i in range(studies):
                growing = study(world, [0.86 + apart / 2, 0.86 - apart / 2], 1000, i)
                for have, verdicts in looks_of(growing):
                    if verdicts[0].verdict != "undecided" or have == MOST:
                        found.append(verdicts[0].verdict == "better")
                        seeds.append(have)
                        break
                most.append(growing.with_seeds(MOST)[0].verdict == "better")
                first.append(growing.with_seeds(FIRST)[0].verdict == "better")
            means = [float(np.mean(x)) for x in (found, seeds, most, first)]
            out.append(Cost(world.name, apart, *means))
    return out


def cost_table(found: Sequence[Cost]) -> str:
    """The costs as Markdown."""
    lines = [
        "| what varies | truly apart, points | found, until decided | seeds spent | found, "
        f"{MOST} seeds | found, {FIRST} seeds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {c.world} | {100 * c.apart:g} | {c.found:.0%} | {c.seeds:.1f} "
        f"| {c.found_with_most:.0%} | {c.found_with_first:.0%} |"
        for c in found
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    many = [int(a) for a in sys.argv[1:] if a.isdigit()] or [300]
    print(cost_table(costs(many[0])) if "--cost" in sys.argv else table(claims(many[0])))
