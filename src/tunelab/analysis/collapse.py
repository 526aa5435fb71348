"""Which runs of a study broke down: trained, and learnt next to nothing that others learnt."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tunelab.core.words import counted
from tunelab.stats import Runs

__all__ = [
    "Collapse",
    "collapses",
    "without_broken",
]

# A hole between runs of one method, below which they are of another kind, is at least
GAP = 0.10  # so wide, in accuracy,
TIMES_ABOVE = 3  # so many times as wide as all runs above it lie apart,
TIMES_SPREAD = 7  # and so many standard deviations of the other methods' runs (by the median).


@dataclass(frozen=True, slots=True)
class Collapse:
    """A method with runs that broke down: `broken`, validation accuracy by seed; `best` of all."""

    label: str
    runs: int
    broken: Mapping[int, float]
    best: float

    @property
    def sentence(self) -> str:
        """What was seen: "lora broke down in 2 of 6 runs"."""
        return f"{self.label} broke down in {len(self.broken)} of {counted(self.runs, 'run')}"

    @property
    def accuracies(self) -> str:
        """The broken runs beside the best: "58.0 and 61.2 beside 73.4 percent accuracy ...\""""
        *most, last = [f"{100 * a:.1f}" for a in sorted(self.broken.values())]
        lowest = f"{', '.join(most)} and {last}" if most else last
        return f"{lowest} beside {100 * self.best:.1f} percent accuracy on validation"


def collapses(runs: Mapping[str, Runs]) -> dict[str, Collapse]:
    """The methods with runs that broke down, from their predictions on validation.

    Runs are broken that lie below a hole: the next better run of the same method is ten points of
    accuracy above or more, and further than the spread of the runs above it and of the other
    methods' runs lets expect. And they learnt less than half of what methods of the study reach on
    these rows, counted from the share of the largest class. So runs of one method are of two kinds,
    as Mosbach et al. 2021 ("On the Stability of Fine-tuning BERT") found; a method that is weak
    with every seed is not broken.
    """
    accuracy = {label: _accuracies(r) for label, r in runs.items() if r.by_seed}
    several = {label: a for label, a in accuracy.items() if len(a) > 1}
    if not several:
        return {}
    share = max(_largest_share(runs[label]) for label in several)
    typical = max(_upper_median(list(a.values())) for a in accuracy.values())
    broken_methods = {}
    for label, by_seed in several.items():
        best = max(by_seed.values())
        half = (share + max(typical, best)) / 2
        others = [a for other, a in several.items() if other != label]
        below = _below_the_hole(by_seed, max(GAP, TIMES_SPREAD * _ordinary_spread(others)))
        broken = {s: a for s, a in by_seed.items() if a <= below and a < half}
        if broken:
            broken_methods[label] = Collapse(label, len(by_seed), broken, best)
    return broken_methods


def without_broken(runs: Runs, collapse: Collapse) -> Runs:
    """A method's other runs."""
    kept = {s: p for s, p in runs.by_seed.items() if s not in collapse.broken}
    return replace(runs, by_seed=kept)


def _accuracies(runs: Runs) -> dict[int, float]:
    return {s: float((p.predicted == p.labels).mean()) for s, p in runs.by_seed.items()}


def _largest_share(runs: Runs) -> float:
    """What a model reaches that has learnt nothing; parts of other seeds have nearly the same."""
    labels = next(iter(runs.by_seed.values())).labels
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def _upper_median(values: list[float]) -> float:
    """The median, of an even number the upper one: half of the runs may have broken down."""
    return sorted(values)[len(values) // 2]


def _ordinary_spread(methods: Collection[Mapping[int, float]]) -> float:
    """Standard deviation of runs about their method's middle, by the median: broken ones are few.

    0 without methods, and where no seed changes anything.
    """
    away = [abs(a - float(np.median(list(m.values())))) for m in methods for a in m.values()]
    # Of each method one deviation is nothing, or next to it.
    return 1.4826 * float(np.median(sorted(away)[len(methods) :])) if away else 0.0


def _below_the_hole(by_seed: Mapping[int, float], least: float) -> float:
    """The best run below the largest hole between runs that is a hole; minus infinity without."""
    ranked = sorted(by_seed.values())
    hole, below = max((above - a, a) for a, above in itertools.pairwise(ranked))
    above_it = ranked[-1] - (below + hole)
    return below if hole >= max(least, TIMES_ABOVE * above_it) else -math.inf
