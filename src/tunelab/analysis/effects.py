"""What the gate's findings do to a conclusion: scores with and without the rows concerned."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace

import numpy as np

from tunelab.core.values import Estimate
from tunelab.core.words import agreeing, counted, signed
from tunelab.data.gate.values import Gate
from tunelab.stats import Runs, mean_interval
from tunelab.stats.metrics import METRICS

__all__ = [
    "FindingEffect",
    "MethodEffect",
    "effects",
]


# --- what it does to the conclusion ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MethodEffect:
    """A method's metric over all test rows, without the affected ones, and on those alone.

    Means over seeds with Student's t intervals; None where the rows that are left cannot be scored.
    """

    label: str
    all: Estimate
    without: Estimate | None
    alone: Estimate | None


@dataclass(frozen=True, slots=True)
class FindingEffect:
    """What the test rows of one finding do to the conclusion of a study.

    `removed` of `rows` test rows are affected. `first` and `first_without` are the methods with
    the best mean on test; where they differ, the finding decides the conclusion.
    """

    check: str
    where: str
    metric: str
    removed: int
    rows: int
    methods: tuple[MethodEffect, ...]
    first: str
    first_without: str | None
    sentence: str


def effects(
    gate: Gate,
    runs: Sequence[Runs],
    metric: str = "accuracy",
    checks: Sequence[str] = ("leak", "conflicts", "label-errors", "duplicates"),
) -> tuple[FindingEffect, ...]:
    """Score methods with and without the test rows of each finding, where it has any.

    `runs` are test predictions by method and seed; methods on which the metric has no value are
    left out. Raises KeyError for an unknown metric.
    """
    out = []
    for finding in gate.findings:
        if finding.check not in checks or not finding.test_ids or not runs:
            continue
        tested = {i for r in runs for p in r.by_seed.values() for i in p.ids}
        hit = tested.intersection(finding.test_ids)
        if not hit:
            continue
        methods = tuple(
            MethodEffect(
                r.label,
                whole,
                _mean_on_rows(r, metric, tested - hit),
                _mean_on_rows(r, metric, hit),
            )
            for r in runs
            if (whole := _mean_on_rows(r, metric, tested)) is not None
        )
        if not methods:
            continue
        sign = 1 if METRICS[metric].higher_is_better else -1
        first = max(methods, key=lambda m: sign * m.all.value).label
        scored = [m for m in methods if m.without is not None]
        first_without = (
            max(scored, key=lambda m: sign * m.without.value).label if scored else None  # type: ignore[union-attr]
        )
        partial = FindingEffect(
            finding.check,
            finding.where,
            metric,
            len(hit),
            len(tested),
            methods,
            first,
            first_without,
            "",
        )
        values = {f.name: getattr(partial, f.name) for f in fields(FindingEffect)}
        out.append(FindingEffect(**{**values, "sentence": _effect_sentence(partial)}))
    return tuple(out)


def _mean_on_rows(runs: Runs, metric: str, ids: AbstractSet[str]) -> Estimate | None:
    """The mean over seeds on the rows with these ids; None where one cannot be scored on them.

    In folds, where each seed has rows of its own, a seed without any of them is left out.
    """
    values = []
    for p in runs.by_seed.values():
        rows = np.fromiter((i in ids for i in p.ids), np.bool_, len(p.ids))
        if not rows.any():
            continue
        kept = replace(p, ids=(), labels=p.labels[rows], scores=p.scores[rows])
        try:
            values.append(METRICS[metric].function(kept))
        except ValueError:  # a class is not among the rows that are left
            return None
    return mean_interval(values) if values else None


_OF_CHECK = {
    "leak": "leaked",
    "conflicts": "with conflicting labels",
    "label-errors": "with doubtful labels",
    "duplicates": "repeated",
}


def _effect_sentence(e: FindingEffect) -> str:
    are = agreeing(e.removed, "are")
    what = f"{e.removed:,} of {counted(e.rows, 'test row')} {are} {_OF_CHECK.get(e.check, e.check)}"
    if e.check == "leak":
        what += f" from {e.where.split('/')[0]}"
    percent = METRICS[e.metric].percent
    scale, unit, digits = (100.0, " points", 1) if percent else (1.0, "", 3)
    changes = [scale * (m.without.value - m.all.value) for m in e.methods if m.without is not None]
    if not changes:
        return f"{what}: without them nothing is left to score"
    low, high = (signed(x, digits) for x in (min(changes), max(changes)))
    label = METRICS[e.metric].label
    if low == high == signed(0, digits):
        span = f"{label} stays the same"
    else:
        span = f"{label} changes by {' to '.join(dict.fromkeys((low, high)))}{unit}"
    then = (
        f"{e.first} stays first"
        if e.first == e.first_without
        else f"{e.first_without} is first then, not {e.first}"
    )
    if len(e.methods) == 1:
        return f"{what}: without them {span}"
    return f"{what}: without them {span}, and {then}"
