"""A claim that a user can read, and the figure that holds it to account."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Claim", "Goal", "at_most", "between", "share_of", "table"]


@dataclass(frozen=True, slots=True)
class Goal:
    """Where a share must lie, both ends in [0, 1]."""

    low: float
    high: float

    def __str__(self) -> str:
        if self.low <= 0:
            return f"at most {100 * self.high:g}%"
        if self.high >= 1:
            return f"at least {100 * self.low:g}%"
        return f"{100 * self.low:g} to {100 * self.high:g}%"


def at_most(share: float) -> Goal:
    return Goal(0.0, share)


def between(low: float, high: float) -> Goal:
    return Goal(low, high)


@dataclass(frozen=True, slots=True)
class Claim:
    """One cell of a simulation: `value` is the share of `studies` in which something happened.

    `claim` is what a user reads, `said` where, `cell` the world that was drawn. `met`: the share
    lies within the goal, or outside by no more than twice its standard error.
    """

    claim: str
    said: str
    cell: str
    value: float
    studies: int
    goal: Goal

    @property
    def error(self) -> float:
        """Twice the standard error of `value`, the Monte Carlo error that is stated."""
        p = min(max(self.value, 1 / self.studies), 1 - 1 / self.studies)
        return 2 * math.sqrt(p * (1 - p) / self.studies)

    @property
    def met(self) -> bool:
        return self.goal.low - self.error <= self.value <= self.goal.high + self.error


def share_of(
    claim: str, said: str, cell: str, hits: Sequence[bool] | Sequence[float], goal: Goal
) -> Claim:
    """A claim from one outcome a study."""
    return Claim(claim, said, cell, float(sum(hits)) / len(hits), len(hits), goal)


def table(claims: Sequence[Claim]) -> str:
    """The claims as a Markdown table, in the order given."""
    lines = [
        "| claim | said in | world | studies | figure | goal | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {c.claim} | {c.said} | {c.cell} | {c.studies:,} "
        f"| {100 * c.value:.1f}% ± {100 * c.error:.1f} | {c.goal} "
        f"| {'met' if c.met else 'MISSED'} |"
        for c in claims
    ]
    return "\n".join(lines)
