"""Looking again: `extend --until decided` is wrong in 5% over all its looks, and what it costs.

Worlds of benchmarks/_worlds.py, judged by `stats.compare_all` after 6, 8, ... 20 seeds at the
levels of `stats.looks`. Counted over all looks together: "better" of any two equals, "equivalent"
of two that are a margin apart. `python benchmarks/_claims_looks.py [STUDIES]` prints these; with
`--cost` how many seeds it takes and how often the better one of two is found, against as many
seeds as are allowed at most and against six, with one look. The levels by themselves are also held
to account with a t test of drawn means, ten times as many studies.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from _claims import Claim, at_most, share_of, table
from _quickly import verdicts_alone
from _worlds import World, _seed_luck, as_runs, draw_right
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


def claims(studies: int) -> Iterator[Claim]:
    """Whether the 5% hold over all looks."""
    with verdicts_alone():
        yield from _each_claim(studies)


def _each_claim(studies: int) -> Iterator[Claim]:
    yield from _claims_of_levels(10 * studies)
    said = "statistics.md, extend --until decided"
    for (methods, rows), world in product(((2, 300), (4, 300), (2, 1000)), WORLDS):
        hits = [_false_better(world, methods, rows, i) for i in range(studies)]
        what = f'"better" said at any look at {methods} equals'
        yield share_of(what, said, f"{world.name}; {rows:,} rows", hits, at_most(0.05))
    for world in WORLDS:
        hits = [_false_equivalent(world, 1000, i) for i in range(studies)]
        what = '"equivalent" said at any look, a margin apart (2 points)'
        yield share_of(what, said, f"{world.name}; 1,000 rows", hits, at_most(0.05))


# --- the levels by themselves: t tests of drawn means, many studies at once --------------------


@dataclass(frozen=True)
class Means:
    """Scores over seeds whose luck has a `shape` and variance 1; rows add `row_variance` each."""

    shape: str
    row_variance: float

    def p_values(
        self, methods: int, apart: float, studies: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Smallest p of any pair, times the pairs, at each look, (studies, looks).

        The first method is `apart` ahead; a t test with the variance of all methods together.
        """
        scores = np.stack(
            [_seed_luck(self.shape, MOST, rng) for _ in range(studies * methods)]
        ).reshape(studies, methods, MOST)
        scores += np.sqrt(self.row_variance) * rng.normal(size=(studies, methods, 1))
        scores[:, 0] += apart
        pairs = list(combinations(range(methods), 2))
        found = []
        for seeds in range(FIRST, MOST + 1, STEP):
            mean = scores[:, :, :seeds].mean(axis=2)
            by_seed = 2 * scores[:, :, :seeds].var(axis=2, ddof=1).mean(axis=1) / seeds
            variance = by_seed + 2 * self.row_variance
            df = variance**2 / (by_seed**2 / (methods * (seeds - 1)))
            gaps = np.max([np.abs(mean[:, i] - mean[:, j]) for i, j in pairs], axis=0)
            found.append(2 * len(pairs) * stdtr(df, -gaps / np.sqrt(variance)))
        return np.stack(found, axis=1)


def _levels(methods: int) -> NDArray[np.float64]:
    """The level of each look."""
    looks, levels = declare(MOST, STEP, FIRST), []
    for seeds in range(FIRST, MOST + 1, STEP):
        looks = looked(looks, seeds)
        levels.append(levels_at(looks, methods * (methods - 1) // 2).better)
    return np.array(levels)


def _claims_of_levels(studies: int) -> Iterator[Claim]:
    what, said = (
        "any of 8 looks at equals tells them apart",
        "statistics.md, extend --until decided",
    )
    shapes, rows = ("normal", "skewed", "heavy"), (0.0, 0.1, 1.0)
    for methods, shape, row_variance in product((2, 4), shapes, rows):
        p = Means(shape, row_variance).p_values(methods, 0.0, studies, np.random.default_rng(0))
        hits = (p <= _levels(methods)).any(axis=1).tolist()
        cell = f"{methods} methods, {shape} seeds, rows {row_variance:g} of their variance"
        yield share_of(what, said, cell, hits, at_most(0.05))


def cost_table(studies: int) -> str:
    """What looking again takes and gives, against one look at all seeds or at the first six."""
    lines = [
        "| rows vary by, of a seed's variance | apart, sd of seeds | found, looking again | seeds "
        f"spent | found, {MOST} seeds | found, {FIRST} seeds | found, looks not counted |",
        "|---|---|---|---|---|---|---|",
    ]
    levels = _levels(2)
    for row_variance, apart in product((0.0, 0.1, 0.5), (0.0, 0.5, 0.8, 1.2, 2.0)):
        rng = np.random.default_rng(1)
        p = Means("normal", row_variance).p_values(2, apart, studies, rng)
        told = p <= levels
        spent = np.where(told.any(axis=1), FIRST + STEP * told.argmax(axis=1), MOST).mean()
        shares = (told.any(axis=1), p[:, -1] <= 0.05, p[:, 0] <= 0.05, (p <= 0.05).any(axis=1))
        again, most, first, uncounted = (f"{x.mean():.1%}" for x in shares)
        lines.append(
            f"| {row_variance:g} | {apart:g} | {again} | {spent:.1f} | {most} | {first} "
            f"| {uncounted} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    many = [int(a) for a in sys.argv[1:] if a.isdigit()] or [300]
    if "--cost" in sys.argv:
        print(cost_table(10 * many[0]))
        sys.exit()
    for claim in claims(many[0]):
        print(table([claim]).splitlines()[-1], flush=True)
