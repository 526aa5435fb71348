"""Claims on the chosen method's score and on runs that broke down, held to account.

A study's validation and test rows are answered by the same trained models, so that a seed's luck is
in both: they are drawn as one set of rows and cut in two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from _claims import Claim, Goal, at_most, between, share_of
from _worlds import World, as_runs, draw_right
from tunelab.analysis.collapse import collapses
from tunelab.analysis.pairs import comparisons
from tunelab.stats.selection import score_of_choice

VALIDATION, TEST = 500, 2000


def claims(studies: int) -> list[Claim]:
    """Every cell: the chosen method's interval, and alarms that were false or missed."""
    return [
        *_claims_of_choice(studies),
        *_claims_of_alarms(studies),
        *_claims_of_broken(studies),
        *_claims_of_verdicts(studies),
    ]


# --- the score of what was chosen ---------------------------------------------------------------


def _claims_of_choice(studies: int) -> list[Claim]:
    return [
        choice_claim(sd, seeds, methods, spread, studies)
        for sd in (0.005, 0.015, 0.02)
        for seeds in (4, 6, 10)
        for methods, spread in ((2, 0.0), (12, 0.0), (12, 0.03))
    ]


def choice_claim(sd: float, seeds: int, methods: int, spread: float, studies: int) -> Claim:
    """How often the stated interval holds the true score of the method that was chosen."""
    world = World("skewed seeds", seed_sd=sd)
    accuracies = 0.8 - spread * np.linspace(0, 1, methods)
    hits = [_holds(world, accuracies, seeds, study) for study in range(studies)]
    apart = f"up to {100 * spread:g} points apart" if spread else "equal"
    cell = f"{methods} methods, {apart}; {seeds} seeds, sd {100 * sd:g} points"
    claim = "the interval of the chosen method's score holds the truth"
    return share_of(claim, "first lines", cell, hits, between(0.93, 0.97))


def _holds(world: World, accuracies: NDArray[np.float64], seeds: int, study: int) -> bool:
    # One stream for all cells would make the same study lucky in each.
    rng = np.random.default_rng([study, seeds, len(accuracies), int(1e4 * world.spreads(1)[0])])
    right = draw_right(world, list(accuracies), seeds, VALIDATION + TEST, rng, base=0.8)
    validation = right[:, :, :VALIDATION].mean(axis=2)
    test = right[:, :, VALIDATION:].astype(float)
    best = int(validation.mean(axis=1).argmax())
    e = score_of_choice(
        validation, test.mean(axis=2), row_variance=_of_rows(test[best]), row_df=TEST - 1
    )
    assert e.low is not None
    assert e.high is not None
    return bool(e.low <= accuracies[best] <= e.high)


def _of_rows(right: NDArray[np.float64]) -> float:
    """Variance that other rows would bring to the mean of (seeds, rows), less what seeds bring."""
    seeds, rows = right.shape
    residuals = right - right.mean(axis=0) - right.mean(axis=1)[:, None] + right.mean()
    rest = (residuals**2).sum() / ((seeds - 1) * (rows - 1)) / (rows * seeds)
    return max(0.0, float(right.mean(axis=0).var(ddof=1)) / rows - float(rest))


# --- runs that broke down -----------------------------------------------------------------------


def _claims_of_alarms(studies: int) -> list[Claim]:
    return [
        alarm_claim(shape, sd, seeds, methods, studies)
        for shape, sd in (("normal", 0.025), ("skewed", 0.015), ("skewed", 0.025))
        for seeds, methods in ((3, 4), (6, 8), (10, 12))
    ]


def alarm_claim(shape: str, sd: float, seeds: int, methods: int, studies: int) -> Claim:
    """How often a run is called broken in a study where half of the methods are merely weak."""
    world = World(shape, seed_sd=sd, shape=shape)
    accuracies = [0.73] * (methods // 2) + [0.60] * (methods - methods // 2)
    hits = [bool(_broken(world, accuracies, seeds, study)) for study in range(studies)]
    cell = f"{methods} methods, half weak; {seeds} seeds, sd {100 * sd:g} points, {shape}"
    return share_of("a run broke down, where none did", "warnings", cell, hits, at_most(0.01))


def _claims_of_broken(studies: int) -> list[Claim]:
    return [
        broken_claim(0.50, 300, studies, between(0.9, 1.0)),
        broken_claim(0.58, 1000, studies, between(0.8, 1.0)),
    ]


def broken_claim(reached: float, rows: int, studies: int, goal: Goal) -> Claim:
    """How often two of six runs of a method are named that reach little; the others reach 73%."""
    hits = []
    for study in range(studies):
        rng = np.random.default_rng([study, 6, rows])
        right = draw_right(World("", seed_sd=0.01), [0.73] * 4, 6, rows, rng)
        right[0, :2] = rng.random((2, rows)) < reached
        hits.append(set(_named(right).get("m0", ())) == {0, 1})
    cell = f"4 methods of 73%, 6 seeds, {rows:,} rows; two runs at {100 * reached:.0f}%"
    return share_of("the broken runs are named, and no other", "warnings", cell, hits, goal)


def _claims_of_verdicts(studies: int) -> list[Claim]:
    return [verdict_claim(methods, seeds, studies) for methods in (2, 4) for seeds in (6, 10)]


def verdict_claim(methods: int, seeds: int, studies: int) -> Claim:
    """How often "better" is said of any two equal methods of which 5% of the runs break down."""
    hits = []
    for study in range(studies):
        rng = np.random.default_rng([study, seeds, methods])
        world = World("", seed_sd=0.005, collapse=0.05)
        right = draw_right(world, [0.8] * methods, seeds, 2 * VALIDATION, rng)
        broke = collapses({r.label: r for r in as_runs(right[:, :, :VALIDATION])})
        runs = {r.label: r for r in as_runs(right[:, :, VALIDATION:])}
        found = comparisons(runs, list(runs), "accuracy", broke)
        hits.append(any(c.verdict in {"better", "worse"} for c in found))
    cell = f"{methods} equal methods, {seeds} seeds; 5% of runs break down"
    return share_of('"better" said of equals', "verdicts", cell, hits, at_most(0.05))


def _broken(world: World, accuracies: Sequence[float], seeds: int, study: int) -> object:
    rng = np.random.default_rng([study, seeds, len(accuracies)])
    return _named(draw_right(world, accuracies, seeds, 300, rng))


def _named(right: NDArray[np.bool_]) -> dict[str, tuple[int, ...]]:
    """The seeds that are called broken, by method."""
    found = collapses({r.label: r for r in as_runs(right)})
    return {label: tuple(c.broken) for label, c in found.items()}
