"""What a budget of seconds pays for: the cheapest methods first, and the cheapest one always."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tunelab.core.values import TrialResult, TrialSpec
from tunelab.study.progress import mean_seconds_by_method
from tunelab.study.schedule import Schedule

__all__ = [
    "Budget",
    "affordable",
    "first_answer_seconds",
    "labels_by_cost",
]


@dataclass(frozen=True, slots=True)
class Budget:
    """So many `seconds` from when it was made; None: no end."""

    seconds: float | None
    _started: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds that are left; below 0 where more were spent."""
        if self.seconds is None:
            return math.inf
        return self.seconds - (time.perf_counter() - self._started)


def first_answer_seconds(now: Schedule) -> dict[str, tuple[float, float]]:
    """By method: expected seconds of its tries of settings, and of its first trial, where these
    have not run.
    """
    progress, first_seed = now.progress, now.plan.spec.seeds[0]
    tries = dict.fromkeys((m.label for m in progress.methods), 0.0)
    first = dict(tries)
    for t in progress.tries:
        tries[t.method.label] += now.seconds.get(t.trial_id, 0.0)
    for t in progress.trials:
        if t.seed == first_seed:
            first[t.method.label] = now.seconds.get(t.trial_id, 0.0)
    for label, left in progress.proposals.items():
        tries[label] += left * len(now.plan.spec.tuning.seeds) * first[label]
    return {label: (tries[label] / now.jobs, first[label] / now.jobs) for label in tries}


def labels_by_cost(now: Schedule) -> list[str]:
    """Methods, those first whose first answer costs least."""
    costs = first_answer_seconds(now)
    return sorted(costs, key=lambda label: sum(costs[label]))


def affordable(now: Schedule, seconds: float) -> list[str]:
    """The methods that are expected to be tuned and tried once in so many seconds; the cheapest in
    any case.
    """
    costs = first_answer_seconds(now)
    within: list[str] = []
    for label in labels_by_cost(now):
        seconds -= sum(costs[label])
        if within and seconds < 0:
            break
        within.append(label)
    return within


def expected_seconds(now: Schedule, t: TrialSpec, results: Mapping[str, TrialResult]) -> float:
    """What a trial takes: as those of its method took, else as it was estimated."""
    if t.trial_id in now.progress.copies:
        return 0.0
    measured = mean_seconds_by_method(now.progress.trials, results)
    return measured.get(t.method.label, now.seconds.get(t.trial_id, 0.0)) / max(1, now.jobs)
