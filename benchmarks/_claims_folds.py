"""Claims about studies whose every row is tested once: folds, and a second repetition of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from _claims import Claim, at_most, between, share_of
from _quickly import verdicts_alone
from _worlds import World, draw_right
from tunelab.core.values import Comparison, Predictions
from tunelab.stats import Runs, compare_all

__all__ = ["claims"]

ROWS, FOLDS, RESAMPLES = 1920, 6, 400
SAID = "verdicts of folds"


def cross_fitted_runs(right: NDArray[np.bool_], rng: np.random.Generator) -> list[Runs]:
    """Runs in which seed k saw fold k alone, from who would be right: (methods, seeds, rows).

    After six seeds the rows are divided anew, so that each is tested again.
    """
    _, seeds, rows = right.shape
    divisions = [np.array_split(rng.permutation(rows), FOLDS) for _ in range(-(-seeds // FOLDS))]
    parts = [np.sort(part) for division in divisions for part in division][:seeds]
    out = []
    for m, of in enumerate(right):
        by_seed = {}
        for s, part in enumerate(parts):
            labels = part % 2
            scores = np.eye(2)[np.where(of[s, part], labels, 1 - labels)]
            by_seed[s] = Predictions(tuple(map(str, part)), labels, scores, "probability")
        out.append(Runs(f"m{m}", by_seed))
    return out


def _judged(
    world: World, accuracies: Sequence[float], size: tuple[int, int], studies: int
) -> Iterator[list[Comparison]]:
    seeds, rows = size
    for i in range(studies):
        rng = np.random.default_rng([11, i, seeds, rows])
        right = draw_right(world, accuracies, seeds, rows, rng)
        yield compare_all(cross_fitted_runs(right, rng), "accuracy", rng, resamples=RESAMPLES)


CELLS: tuple[tuple[World, int, tuple[int, int]], ...] = (
    (World("", seed_sd=0.003), 2, (6, ROWS)),
    (World("", seed_sd=0.015), 2, (6, ROWS)),
    (World("", seed_sd=(0.002, 0.025)), 2, (6, 600)),
    (World("", seed_sd=0.01), 6, (6, ROWS)),
    (World("", seed_sd=(0.002, 0.002, 0.02, 0.025)), 4, (6, ROWS)),
    (World("", seed_sd=0.01), 2, (12, ROWS)),
    (World("", seed_sd=0.003), 4, (12, 600)),
)


def claims(studies: int) -> Iterator[Claim]:
    """No false "better", and intervals that hold the truth."""
    with verdicts_alone():
        yield from _each_claim(studies)


def _each_claim(studies: int) -> Iterator[Claim]:
    for world, methods, size in CELLS:
        sd = np.unique(world.spreads(methods)) * 100
        spread = (
            " to ".join(f"{x:g}" for x in (sd.min(), sd.max())) if len(sd) > 1 else f"{sd[0]:g}"
        )
        cell = f"{methods} methods, {size[0]} trainings, {size[1]:,} rows, seed sd {spread} points"
        hits = [
            any(c.verdict in {"better", "worse"} for c in judged)
            for judged in _judged(world, [0.86] * methods, size, studies)
        ]
        said = "no false 'better' or 'worse' among equals, all pairs together"
        yield share_of(said, SAID, cell, hits, at_most(0.05))
        if methods == 2:
            held = []
            for (c,) in _judged(world, [0.87, 0.85], size, studies):
                d = c.difference
                held.append(d.low is not None and d.high is not None and d.low <= 0.02 <= d.high)
            said = "the 95% interval of a difference holds the true one"
            yield share_of(said, SAID, cell, held, between(0.93, 0.97))
