"""Studies whose truth is known, drawn without any of what the rules assume.

Nothing here is normal or additive. A row has its own chance to be answered rightly (beta, U-shaped:
most rows are easy or hopeless); methods share it, or have their own; a seed sees some rows its own
way (seed x row interaction); a seed's luck is a skewed or heavy-tailed shift that turns right
answers wrong or wrong ones right; a method that is worse gets some of its right answers wrong, so
that disagreement can be all on one side; runs break down. `World.accuracy` is exact: the mean over
endless rows and seeds, but for runs that break down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.core.values import Predictions
from tunelab.stats import Runs

__all__ = ["World", "as_runs", "draw_labels", "draw_right", "study_of"]


@dataclass(frozen=True, slots=True)
class World:
    """What moves an answer; shares in [0, 1], accuracies and spreads as fractions.

    `concentration`: of the beta of rows' chances (small: U-shaped). `own`: share of rows on which a
    method has a chance of its own. `fresh`: share of rows that a seed answers by its own chance.
    `seed_sd`: standard deviation of a method's accuracy over seeds, one for all or one a method.
    `shape`: of a seed's luck, "skewed" (a shifted gamma), "heavy" (t, 3 degrees of freedom) or
    "normal". `collapse`: the chance that a run answers one class only.
    """

    name: str
    concentration: float = 0.6
    own: float = 0.12
    fresh: float = 0.05
    seed_sd: float | tuple[float, ...] = 0.005
    shape: str = "skewed"
    collapse: float = 0.0

    def spreads(self, methods: int) -> NDArray[np.float64]:
        """Standard deviation over seeds by method, (methods,)."""
        return np.broadcast_to(np.asarray(self.seed_sd, dtype=float), (methods,))


def draw_right(
    world: World,
    accuracies: Sequence[float],
    seeds: int,
    rows: int,
    rng: np.random.Generator,
    *,
    base: float | None = None,
) -> NDArray[np.bool_]:
    """Who is right: (methods, seeds, rows).

    Rows are drawn at accuracy `base` (the mean of `accuracies`); a method's distance from it, and
    a seed's luck, turn that share of right answers wrong, or of wrong ones right.
    """
    m = len(accuracies)
    base = float(np.mean(accuracies)) if base is None else base
    a, b = world.concentration * base, world.concentration * (1 - base)
    shared, luck = rng.beta(a, b, rows), rng.random(rows)
    right = np.empty((m, seeds, rows), dtype=bool)
    spreads = world.spreads(m)
    for k, accuracy in enumerate(accuracies):
        other = rng.random(rows) < world.own
        of_method = luck < shared
        of_method[other] = _own_answers(a, b, int(other.sum()), rng)
        answers = np.tile(of_method, (seeds, 1))
        again = rng.random((seeds, rows), dtype=np.float32) < world.fresh
        answers[again] = _own_answers(a, b, int(again.sum()), rng)
        answers = _shifted(answers, accuracy - base, base, rng.random(rows))
        shift = spreads[k] * _seed_luck(world.shape, seeds, rng)
        limit = 0.8 * min(accuracy, 1 - accuracy)
        shift = np.clip(shift, -limit, limit)[:, None]
        answers = _shifted(answers, shift, accuracy, rng.random((seeds, rows), dtype=np.float32))
        right[k] = answers
    if world.collapse:
        broken = rng.random((m, seeds)) < world.collapse
        right[broken] = np.arange(rows) % 2 == 0
    return right


def _own_answers(a: float, b: float, rows: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Answers to rows by chances drawn anew, (rows,)."""
    return np.asarray(rng.random(rows) < rng.beta(a, b, rows))


def _seed_luck(shape: str, seeds: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Mean 0, variance 1, (seeds,); skewed: some seeds are far worse than the rest."""
    if shape == "heavy":
        return rng.standard_t(3, seeds) / np.sqrt(3)
    if shape == "normal":
        return rng.normal(size=seeds)
    return (2.0 - rng.gamma(2.0, 1.0, seeds)) / np.sqrt(2.0)


def _shifted(
    answers: NDArray[np.bool_],
    shift: float | NDArray[np.float64],
    accuracy: float,
    luck: NDArray[np.floating],
) -> NDArray[np.bool_]:
    """Answers whose share of right ones is moved by `shift`, in one direction only."""
    share = np.where(np.asarray(shift) > 0, shift / (1 - accuracy), -np.asarray(shift) / accuracy)
    change = (luck < share) & (answers == (np.asarray(shift) < 0))
    return answers ^ change


def draw_labels(rows: int, shares: Sequence[float], rng: np.random.Generator) -> NDArray[np.int64]:
    """Classes of rows with given shares, (rows,); every class has at least one row."""
    labels = rng.choice(len(shares), size=rows, p=np.asarray(shares))
    labels[: len(shares)] = np.arange(len(shares))
    return rng.permutation(labels).astype(np.int64)


def as_runs(
    right: NDArray[np.bool_], labels: NDArray[np.int64] | None = None, classes: int = 2
) -> list[Runs]:
    """Predictions that are right where they should be, else the next class; methods m0, m1, ..."""
    _, seeds, rows = right.shape
    labels = np.arange(rows) % classes if labels is None else labels
    ids = tuple(map(str, range(rows)))
    kinds = np.eye(classes)
    wrong = (labels + 1) % classes
    return [
        Runs(
            f"m{k}",
            {
                s: Predictions(ids, labels, kinds[np.where(of[s], labels, wrong)], "probability")
                for s in range(seeds)
            },
        )
        for k, of in enumerate(right)
    ]


def study_of(
    world: World, accuracies: Sequence[float], size: tuple[int, int], study: int
) -> tuple[list[Runs], np.random.Generator]:
    """One study of (seeds, rows), and the generator to judge it with."""
    seeds, rows = size
    rng = np.random.default_rng([study, seeds, rows, len(accuracies)])
    return as_runs(draw_right(world, accuracies, seeds, rows, rng)), rng
