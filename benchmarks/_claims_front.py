"""Claims on the front of score and cost, held to account: "beaten in both, and surely so"."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from _claims import Claim, at_most, share_of
from _worlds import World, study_of
from tunelab.analysis.front import surely_beaten
from tunelab.stats import compare_all

ROWS = 300
RESAMPLES = 200
COST = "train_seconds"


def claims(studies: int) -> list[Claim]:
    """Every cell: methods that are truly not beaten in both, and how often one is said to be."""
    return [
        beaten_claim(kind, methods, seeds, studies)
        for kind in ("equal scores", "equal costs", "equal in both")
        for methods in (2, 6)
        for seeds in (1, 2, 6, 10)
    ]


def beaten_claim(kind: str, methods: int, seeds: int, studies: int) -> Claim:
    """How often any method is called surely beaten in both, where none is."""
    hits = [bool(_surely(kind, methods, seeds, study)) for study in range(studies)]
    cell = f"{kind}; {methods} methods, {seeds} seed{'s' * (seeds > 1)}, {ROWS} rows"
    claim = '"beaten in both, and surely so", where it is not'
    return share_of(claim, "recommend, report", cell, hits, at_most(0.05))


def _surely(kind: str, methods: int, seeds: int, study: int) -> Mapping[str, str]:
    apart = 0.0 if kind != "equal costs" else 0.2
    accuracies = [0.85 - apart * k / methods for k in range(methods)]
    world = World("skewed seeds", seed_sd=0.01)
    runs, rng = study_of(world, accuracies, (seeds, ROWS), study)
    # Skewed: a run now and then takes far longer, for what else the machine did.
    spent = rng.gamma(4.0, 0.25, size=(methods, seeds))
    if kind == "equal scores":
        spent *= 2.0 ** np.arange(methods)[:, None]
    costs = {
        r.label: dict(zip(r.by_seed, s, strict=True)) for r, s in zip(runs, spent, strict=True)
    }
    found = compare_all(runs, "accuracy", rng, resamples=RESAMPLES)
    return surely_beaten(found, costs, COST)
