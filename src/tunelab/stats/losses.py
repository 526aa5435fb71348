"""How much a method surely loses against the best: what a recommendation rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunelab.core.values import Estimate
from tunelab.core.words import counted
from tunelab.stats.crossed import LEVEL
from tunelab.stats.intervals import Contrast, contrast_of, estimate_of
from tunelab.stats.resampling import (
    LEAST_SEEDS,
    RESAMPLES,
    Runs,
    check_fractions,
    measure_all,
    metric_named,
)
from tunelab.stats.tests import holm

__all__ = [
    "MARGIN",
    "Loss",
    "losses",
]


MARGIN = 0.01


@dataclass(frozen=True, slots=True)
class Loss:
    """What is lost by taking `label` instead of the reference, in metric units (above 0: worse).

    `loss` has the interval at 2 level - 1 (90%). `p_value` is of the test that the loss is the
    margin or more, Holm-adjusted over all candidates; `acceptable` where it is at most 1 - level
    and there are enough seeds.
    """

    label: str
    loss: Estimate
    p_value: float | None
    acceptable: bool
    reason: str


def losses(
    reference: Runs,
    others: Sequence[Runs],
    metric: str,
    rng: np.random.Generator,
    *,
    margin: float = MARGIN,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> list[Loss]:
    """Which methods lose less than a margin against a reference: one-sided t tests, Holm-adjusted.

    Non-inferiority, the half of TOST that a user needs who would take something cheaper: being
    better is no fault. Methods without a shared seed or a value are left out. Raises ValueError
    where rows differ or the reference has no value.
    """
    from scipy.special import stdtr

    chosen = metric_named(metric)
    check_fractions(level=level, margin=margin)
    (measured,) = measure_all([reference, *others], [chosen], rng, resamples)
    if not measured or measured[0].runs is not reference:
        raise ValueError(f"{reference.label}: no value of {metric}, so nothing can be lost")
    sign = 1.0 if chosen.higher_is_better else -1.0
    found: list[tuple[str, Contrast, float | None]] = []
    for m in measured[1:]:
        c = contrast_of(measured[0], m, chosen, rng)
        if c is None:
            continue
        p = None
        if c.spread is not None and (c.seeds > 1 or c.deterministic):
            # An Agresti half disagreement keeps a percent metric's variance above zero.
            t = (sign * c.value - margin) / math.sqrt(max(c.spread.variance, 1e-300))
            p = float(stdtr(c.spread.df, t))
        found.append((m.runs.label, c, p))
    adjusted = iter(holm([p for _, _, p in found if p is not None]))
    out = []
    for label, c, p in found:
        q = None if p is None else next(adjusted)
        enough = c.deterministic or c.seeds >= LEAST_SEEDS
        acceptable = enough and q is not None and q <= 1 - level
        few = f"{counted(c.seeds, 'seed')}: at least {LEAST_SEEDS} are needed"
        reason = "one-sided t test" if enough else few
        out.append(
            Loss(
                label,
                _as_loss(estimate_of(c, 2 * level - 1, resamples), sign),
                q,
                acceptable,
                reason,
            )
        )
    return out


def _as_loss(e: Estimate, sign: float) -> Estimate:
    if sign > 0 or e.low is None or e.high is None:
        return Estimate(sign * e.value, e.low, e.high, e.n, e.procedure)
    return Estimate(-e.value, -e.high, -e.low, e.n, e.procedure)
