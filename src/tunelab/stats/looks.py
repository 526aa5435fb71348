"""Looking again: at what level each look at a growing study may say "better", so that all of them
together are wrong in 5%.

Seeds are added and the study is judged anew. With s of at most S seeds a look has seen the share
t = s / S, and all looks up to it may have spent alpha(t) = alpha t^2 (Kim and DeMets 1987, after
Lan and DeMets 1983: looks need not be planned, only S). What a look's own level is follows from
how looks hang together: the mean over seeds moves like a sum of independent steps. Where rows vary
more than seeds, looks agree more often than that, and all of them are wrong less often.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.stats.resampling import LEAST_SEEDS

__all__ = [
    "Look",
    "Looks",
    "declare",
    "levels_at",
    "looked",
    "looks_from_json",
    "looks_in_words",
    "looks_to_json",
    "nominal_levels",
]


Floats = NDArray[np.float64]

_NODES = 401  # of Simpson's rule: levels are good to three digits


@dataclass(frozen=True, slots=True)
class Looks:
    """Looks at a study: how many seeds it may have at most, and how many it had at each look.

    `max_seeds` and `step` were declared before the second look. `alpha` is what all looks share.
    """

    max_seeds: int
    step: int
    seeds: tuple[int, ...]
    alpha: float = 0.05


@dataclass(frozen=True, slots=True)
class Look:
    """What a look may say: two-sided level of "better", over all pairs of methods; one-sided level
    of each of the two tests of "equivalent".
    """

    number: int
    better: float
    equivalent: float


def declare(max_seeds: int, step: int, seeds: int) -> Looks:
    """Looks of a study that has so many seeds: looked at once, or with too few not yet."""
    return looked(Looks(max_seeds, step, ()), seeds)


def looked(looks: Looks, seeds: int) -> Looks:
    """With a look more; a look at the same seeds is none, nor is one at fewer than six: seeds are
    not judged then, and where each gives the same predictions the test is the same at every look.
    """
    least = max(LEAST_SEEDS, looks.seeds[-1] + 1 if looks.seeds else 0)
    return looks if seeds < least else replace(looks, seeds=(*looks.seeds, seeds))


def levels_at(looks: Looks, pairs: int) -> Look:
    """The levels of the last look at so many pairs of methods.

    A step-down correction tests some pair at level / h, for h from 1 to `pairs`, at each look: over
    all looks that must keep alpha / h. The level is the smallest that does so for every h.
    """
    last = [
        h * nominal_levels(_shares(looks), looks.alpha / h)[-1]
        for h in sorted({1, 2, 4, 8, 16, 32, max(1, pairs)})
        if h <= max(1, pairs)
    ]
    # Two equals at the margin are told equivalent by one of the two tests: one side counts.
    one_sided = nominal_levels(_shares(looks), 2 * looks.alpha)[-1] / 2
    return Look(len(looks.seeds), min(last), one_sided)


def _shares(looks: Looks) -> tuple[float, ...]:
    """What each look has seen of all seeds; before the first, what that will have."""
    seeds = looks.seeds or (LEAST_SEEDS,)
    return tuple(min(1.0, s / looks.max_seeds) for s in seeds)


@functools.lru_cache(maxsize=200)
def nominal_levels(shares: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Two-sided level of each look at increasing shares of the seeds, in (0, 1].

    With all of them, some look is below its level in alpha t^2 of studies of equals, t the last
    share: Armitage, McPherson and Rowe 1969, by Simpson's rule. A share that is not above the one
    before adds nothing: its level is 0.
    """
    from scipy.special import ndtr

    reached, density = np.zeros(1), np.ones(1)  # of the sum so far, where no look has crossed
    before, levels = 0.0, []
    for t in shares:
        if t <= before:
            levels.append(0.0)
            continue
        step = math.sqrt(t - before)
        bound = _bound_that_spends(alpha * (t**2 - before**2), reached, density, step)
        levels.append(float(2 * ndtr(-bound / math.sqrt(t))))
        grid = np.linspace(-bound, bound, _NODES)
        kernel = np.exp(-0.5 * ((grid[:, None] - reached) / step) ** 2)
        density = (kernel @ density) * _simpson_weights(grid) / (step * math.sqrt(2 * math.pi))
        reached, before = grid, t
    return tuple(levels)


def _bound_that_spends(share: float, reached: Floats, density: Floats, step: float) -> float:
    """The bound, either side, that a further step crosses with this probability."""
    from scipy.special import ndtr

    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        outside = ndtr((-middle - reached) / step) + ndtr((reached - middle) / step)
        low, high = (middle, high) if float(outside @ density) > share else (low, middle)
    return high


def _simpson_weights(grid: Floats) -> Floats:
    weights = np.ones(len(grid))
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return np.asarray(weights * (grid[1] - grid[0]) / 3)


def looks_in_words(looks: Looks) -> str:
    """How often a study has been looked at, and what that means for its levels."""
    if not looks.seeds:
        return f"not judged yet: {LEAST_SEEDS} seeds are needed, of at most {looks.max_seeds}"
    times = "once" if len(looks.seeds) == 1 else f"{len(looks.seeds)} times"
    seeds = ", ".join(map(str, looks.seeds))
    return (
        f"looked {times}, with {seeds} of at most {looks.max_seeds} seeds; levels adjusted so that "
        f"all looks together are wrong in {100 * looks.alpha:g}%"
    )


def looks_to_json(looks: Looks) -> dict[str, object]:
    """The content of looks.json."""
    return asdict(looks)


def looks_from_json(value: Mapping[str, Any]) -> Looks:
    """Read the content of looks.json."""
    return Looks(value["max_seeds"], value["step"], tuple(value["seeds"]), value["alpha"])
