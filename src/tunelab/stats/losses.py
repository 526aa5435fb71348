"""How much a method surely loses against the best: what a recommendation rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunelab.core.values import Estimate
from tunelab.core.words import counted
from tunelab.stats.contrasts import contrasts_between, estimate_of
from tunelab.stats.crossed import LEVEL
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
    "margin_in_points",
]


MARGIN = 0.01


def margin_in_points(margin: float) -> str:
    """A margin of a metric in [0, 1], in words: 0.01 is "1 point", 0.005 "0.5 points"."""
    points = f"{100 * margin:g}"
    return f"{points} point{'' if points == '1' else 's'}"


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
    alpha: float | None = None,
) -> list[Loss]:
    """Which methods lose less than a margin against a reference: one-sided t tests, Holm-adjusted.

    Non-inferiority, the half of TOST that a user needs who would take something cheaper: being
    better is no fault. Of accuracy with Tango's score for the rows (`Contrast.variance_at`).
    `alpha`: the level of the tests where it is not 1 - level, at one of several looks.
    Methods without a shared seed or a value are left out. Raises ValueError where rows differ or
    the reference has no value.
    """
    chosen = metric_named(metric)
    check_fractions(level=level, margin=margin)
    (measured,) = measure_all([reference, *others], [chosen], rng, resamples)
    if not measured or measured[0].runs is not reference:
        raise ValueError(f"{reference.label}: no value of {metric}, so nothing can be lost")
    sign = 1.0 if chosen.higher_is_better else -1.0
    contrasts = contrasts_between(measured[0], measured[1:], chosen, rng)
    p_values = [
        c.p_not_below(margin) if chosen.higher_is_better else c.p_not_above(-margin)
        for c in contrasts
    ]
    adjusted = iter(holm([p for p in p_values if p is not None]))
    out = []
    for c, p in zip(contrasts, p_values, strict=True):
        q = None if p is None else next(adjusted)
        enough = c.deterministic or c.seeds >= LEAST_SEEDS
        acceptable = enough and q is not None and q <= (1 - level if alpha is None else alpha)
        few = f"{counted(c.seeds, 'seed')}: at least {LEAST_SEEDS} are needed"
        reason = "one-sided t test" if enough else few
        out.append(
            Loss(
                c.b,
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
