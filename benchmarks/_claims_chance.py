"""Claims about "the chance that it is better by more than a point"."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from _claims import Claim, between, share_of
from _quickly import drawn_once
from _worlds import World, study_of
from tunelab.stats import compare_all

__all__ = ["claims"]

BANDS = ((0.0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.001))
WITHIN = 0.1  # what is said, and what is true, may differ by so much
METHODS = 3


def claims(studies: int) -> Iterator[Claim]:
    """How often what is said to be so likely is true, over studies of all kinds.

    The true scores of a study's methods scatter by half a point to four points, heavy-tailed (t, 4
    degrees of freedom); which it is differs from study to study, and is not told.
    """
    said, true = [], []
    for i in range(studies):
        rng = np.random.default_rng([13, i])
        spread = (0.005, 0.01, 0.02, 0.04)[i % 4]
        scatter = spread * rng.standard_t(4, METHODS) / np.sqrt(2)
        accuracies = np.clip(0.82 + scatter, 0.6, 0.97)
        seed_sd = (0.003, 0.01, 0.02)[i % 3]
        size = (6, (300, 1000)[i % 2])
        runs, _ = study_of(World("", seed_sd=seed_sd), list(accuracies), size, i)
        with drawn_once():
            compared = compare_all(runs, "accuracy", rng, resamples=300)
        for c in compared:
            apart = float(accuracies[int(c.a[1:])] - accuracies[int(c.b[1:])])
            said += [c.chance]
            true += [apart > c.margin]
    chances = np.array(said, dtype=float)
    for low, high in BANDS:
        some = (chances >= low) & (chances < high)
        if some.sum() < 20:
            continue
        mean = float(chances[some].mean())
        hits = [t for t, here in zip(true, some, strict=True) if here]
        top = min(1.0, high)
        yield share_of(
            f"a chance of {100 * low:.0f} to {100 * top:.0f}% is true so often (said: "
            f"{100 * mean:.0f}% on average)",
            "beside each verdict",
            "3 methods, 6 seeds, 300 and 1,000 rows, seed sd 0.3 to 2 points",
            hits,
            between(round(max(0.0, mean - WITHIN), 2), round(min(1.0, mean + WITHIN), 2)),
        )
