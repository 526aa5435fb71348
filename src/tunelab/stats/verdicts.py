"""Scores per seed and row -> Estimate, Comparison, verdict.

Two methods are compared on the same test rows and over the seeds that both have. Two things make
their difference uncertain: other seeds would have trained other models, and other test rows would
have been easier or harder. Both count in the interval and in the test (`contrasts`, `noise`), and
the test must hold for all pairs of the study at once (see `compare_all`).
docs/statistics.md explains each procedure and shows, by simulation, how often it is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tunelab.core.values import Comparison, Estimate
from tunelab.core.words import counted, signed
from tunelab.stats.contrasts import Contrast, estimate_of, no_interval_reason, together
from tunelab.stats.crossed import LEVEL
from tunelab.stats.intervals import no_shared_seed
from tunelab.stats.losses import MARGIN, margin_in_points
from tunelab.stats.metrics import Metric
from tunelab.stats.power import Decision, Observed, least_seeds, more_rows, more_seeds
from tunelab.stats.resampling import (
    LEAST_SEEDS,
    RESAMPLES,
    Runs,
    check_fractions,
    measure_all,
    metric_named,
    resamples_for,
)

__all__ = [
    "compare",
    "compare_all",
    "decimals",
]

Verdict = Literal["better", "worse", "equivalent", "undecided"]


# --- verdicts -------------------------------------------------------------------------------


def compare(
    a: Runs,
    b: Runs,
    metric: str,
    rng: np.random.Generator,
    *,
    margin: float = MARGIN,
    level: float = LEVEL,
) -> Comparison:
    """Compare one pair on its own (`compare_all` of two). Raises as `difference` does."""
    comparisons = compare_all([a, b], metric, rng, margin=margin, level=level)
    if comparisons:
        return comparisons[0]
    for runs in (a, b):
        for p in runs.by_seed.values():
            metric_named(metric).function(p)  # raises where that was the reason
    raise no_shared_seed(a, b)


def compare_all(
    runs: Sequence[Runs],
    metric: str,
    rng: np.random.Generator,
    *,
    margin: float = MARGIN,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    alpha: float | None = None,
    alpha_equivalent: float | None = None,
) -> list[Comparison]:
    """Compare all pairs on one metric, in the order of `runs`; p values hold for all at once.

    "better" and "worse" need at least 6 shared seeds and the t test that belongs to the interval of
    `difference`, which counts seeds and rows, at `alpha` (1 - level) after a step-down correction
    over all pairs that knows how they hang together (Romano & Wolf 2005). "equivalent", for metrics
    in [0, 1], needs 6 seeds and two one-sided tests at `alpha_equivalent` (1 - level; Schuirmann
    1987), of accuracy with Tango's score for the rows; it is of each pair. Where every seed of both
    methods gives the same predictions, seeds are no repetition: the test is then over test rows
    (exact McNemar for accuracy), and two seeds are enough. Where seeds move the scores but no
    class, the test for metrics of classes is over rows too, but six seeds stay the rule. All else
    is "undecided". `alpha` and `alpha_equivalent` are smaller where a study is looked at more than
    once.

    `simultaneous` is the interval at the level at which those of all pairs hold at once. Where the
    test, which is sharper, tells a pair from zero and that interval does not, it ends at zero.

    Pairs without a shared seed, and methods on which the metric has no value (log loss of an
    SVM's margins), are left out. Raises ValueError where the test rows differ.
    """
    chosen = metric_named(metric)
    check_fractions(level=level, margin=margin)
    # The score table has None, with its reason, where a metric has no value.
    (measured,) = measure_all(runs, [chosen], rng, resamples)
    of_all = together(measured, chosen, rng)
    alpha = 1 - level if alpha is None else alpha
    rule = _StudyRule(
        chosen,
        margin,
        level,
        len(of_all.contrasts),
        of_all.level_for_all(level),
        of_all.level_for_all(1 - alpha),
        resamples,
        alpha,
        1 - level if alpha_equivalent is None else alpha_equivalent,
    )
    chances = of_all.chances(chosen, margin)
    return [
        replace(_comparison_of(c, p, rule), chance=chance)
        for c, p, chance in zip(of_all.contrasts, of_all.adjusted, chances, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _StudyRule:
    """What all pairs share.

    `level_for_all`: of one interval, so that all hold at once; `level_to_tell`: of one that
    excludes zero where a pair is told apart at this look.
    """

    metric: Metric
    margin: float
    level: float
    pairs: int
    level_for_all: float
    level_to_tell: float
    resamples: int
    alpha: float
    alpha_equivalent: float

    def tells(self, p: float | None) -> bool:
        """Whether an adjusted p tells a pair from zero."""
        return p is not None and p <= self.alpha + 1e-12


def _comparison_of(c: Contrast, p: float | None, rule: _StudyRule) -> Comparison:
    verdict = _verdict_of(c, p, rule)
    seeds: int | None = None
    rows: int | None = None
    if verdict == "undecided":
        need = _what_is_missing(c, p, rule)
        seeds, rows, reason = need.seeds, need.rows, need.reason
        sentence = _undecided_sentence(c, p, rule, need)
    else:
        reason = f"p by {c.test}" if verdict != "equivalent" else "two one-sided tests"
        sentence = _decided_sentence(c, p, rule, verdict)
    return Comparison(
        a=c.a,
        b=c.b,
        metric=rule.metric.name,
        difference=estimate_of(c, rule.level, resamples_for(rule.metric, rule.resamples)),
        verdict=verdict,
        p_value=p,
        seeds_needed=seeds,
        reason=reason,
        sentence=sentence,
        rows_needed=rows,
        p_seeds=c.p_seeds,
        simultaneous=_simultaneous(c, p, rule),
        margin=rule.margin,
    )


def _simultaneous(c: Contrast, p: float | None, rule: _StudyRule) -> tuple[float, float] | None:
    interval = c.interval(rule.level_for_all)
    if interval is None or not rule.tells(p):
        return interval
    low, high = interval
    return (max(low, 0.0), high) if c.value > 0 else (low, min(high, 0.0))


def _excludes_zero(c: Contrast, level: float) -> bool:
    interval = c.interval(level)
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def _interval_within(c: Contrast, level: float, margin: float) -> bool:
    interval = c.interval(level)
    return interval is not None and -margin < interval[0] and interval[1] < margin


def _is_ahead(c: Contrast, rule: _StudyRule) -> bool:
    return (c.value > 0) == rule.metric.higher_is_better


def _verdict_of(c: Contrast, p: float | None, rule: _StudyRule) -> Verdict:
    if not c.deterministic and c.seeds < LEAST_SEEDS:
        return "undecided"
    if rule.tells(p) and _excludes_zero(c, rule.level):
        return "better" if _is_ahead(c, rule) else "worse"
    if rule.metric.percent and _is_equivalent(c, rule):
        return "equivalent"
    return "undecided"


def _is_equivalent(c: Contrast, rule: _StudyRule) -> bool:
    """Both one-sided tests, and the interval that is shown, rule out the margin."""
    above, below = c.p_not_below(rule.margin), c.p_not_above(-rule.margin)
    if above is None or below is None or max(above, below) > rule.alpha_equivalent:
        return False
    return _interval_within(c, 1 - 2 * rule.alpha_equivalent, rule.margin)


@dataclass(frozen=True, slots=True)
class _Missing:
    """About how many more seeds, or how many more rows, would decide; None where they cannot."""

    seeds: int | None
    rows: int | None
    reason: str


def _what_is_missing(c: Contrast, p: float | None, rule: _StudyRule) -> _Missing:
    least = least_seeds()
    if c.spread is None or c.item_variance is None:
        return _Missing(None, None, no_interval_reason(c.rows).removeprefix("no interval: "))
    if not c.deterministic and c.seeds == 1:
        reason = f"one seed: the spread over seeds is unknown; at least {least} are needed"
        return _Missing(None, None, reason)
    margin = rule.margin if rule.metric.percent else None
    at_margin = max(c.variance_at(rule.margin), c.variance_at(-rule.margin))
    observed = Observed(
        c.value,
        c.noises_of_more_seeds,
        c.item_variance,
        c.seeds,
        c.rows,
        max(0.0, at_margin - c.spread.variance),
        c.units,
    )
    equivalent = 1 - 2 * rule.alpha_equivalent
    goal = Decision(abs(c.value), rule.level_to_tell, equivalent, margin)
    if c.deterministic:
        rows, reason = more_rows(observed, goal)
        return _Missing(None, rows, reason)
    seeds, reason = more_seeds(observed, goal)
    rows, _ = more_rows(observed, goal)
    if rule.tells(p) and c.seeds < least:
        few = f"{c.seeds} seeds: at least {least} are needed"
        return _Missing(max(1, least - c.seeds), None, few)
    return _Missing(seeds, rows, reason)


# --- plain words ----------------------------------------------------------------------------


def _decided_sentence(c: Contrast, p: float | None, rule: _StudyRule, verdict: Verdict) -> str:
    a, b, size = c.a, c.b, _size_in_words(c, rule.metric)
    if verdict == "equivalent":  # with the interval that the verdict rests on
        tost = _interval_in_words(c, 1 - 2 * rule.alpha_equivalent, rule.metric)
        within = margin_in_points(rule.margin)
        return f"{a} and {b} are equivalent within {within}: {size}, {tost} ({_basis_in_words(c)})"
    interval = _interval_in_words(c, rule.level, rule.metric)
    tail = f"{interval}, {_test_in_words(c, p, rule)}, {_basis_in_words(c)}"
    small = rule.metric.percent and _interval_within(c, rule.level, rule.margin)
    within = f"; real, but within {margin_in_points(rule.margin)}" if small else ""
    return f"{a} is {verdict} than {b}: {size} ({tail}){within}"


def _undecided_sentence(c: Contrast, p: float | None, rule: _StudyRule, need: _Missing) -> str:
    a, b, size = c.a, c.b, _size_in_words(c, rule.metric)
    if c.spread is None:
        return f"{a} and {b} cannot be told apart: {size}, no interval ({need.reason})"
    tail = f"{size}, {_interval_in_words(c, rule.level, rule.metric)}"
    if not _excludes_zero(c, rule.level):
        return f"{a} is within noise of {b}: {tail}; {_remedy_in_words(c, need)}"
    place, word = ("ahead of", "better") if _is_ahead(c, rule) else ("behind", "worse")
    lead = f"{a} is {place} {b}: {tail}"
    least = least_seeds()
    if not c.deterministic and c.seeds < least:
        have = counted(c.seeds, "seed")
        return f"{lead} ({have}: at least {least} are needed before tunelab says {word})"
    return f"{lead}, but {_test_in_words(c, p, rule)}; {_remedy_in_words(c, need)}"


def _remedy_in_words(c: Contrast, need: _Missing) -> str:
    """What would decide, in words."""
    ways = []
    if need.seeds is not None:
        ways.append(counted(need.seeds, "more seed"))
    if need.rows is not None:
        ways.append(f"{c.rows + need.rows:,} test rows instead of {c.rows:,}")
    if ways:
        return f"needs about {' or '.join(ways)} to tell"
    rows = need.reason.removeprefix("more test rows are needed: ")
    if rows != need.reason and not c.deterministic:
        many, _, seeds = rows.partition(", and ")
        more = f" and {seeds}" if seeds else ""
        return f"more seeds alone will not tell; needs {many} test rows{more}"
    return need.reason


def _basis_in_words(c: Contrast) -> str:
    if c.deterministic:
        return f"{c.rows:,} test rows, every seed predicts the same"
    return counted(c.seeds, "seed")


def _test_in_words(c: Contrast, p: float | None, rule: _StudyRule) -> str:
    if p is None:
        return "no test"
    value = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    after = f" among {rule.pairs} pairs" if rule.pairs > 1 else ""
    exact = ", exact McNemar" if "McNemar" in c.test else ""
    asked = rule.alpha < 1 - rule.level - 1e-12 and not rule.tells(p)
    look = f" (this look asks for {rule.alpha:.2g})" if asked else ""
    return f"{value}{after}{exact}{look}"


def decimals(difference: Estimate, metric: Metric) -> int:
    """Decimals of a difference in words: one of points, three of other units, or more where its
    interval is so narrow that it would be rounded to nothing.
    """
    least, scale = (1, 100) if metric.percent else (3, 1)
    if difference.low is None or difference.high is None or difference.high <= difference.low:
        return least
    half = scale * (difference.high - difference.low) / 2
    return min(least + 4, max(least, math.ceil(-math.log10(2 * half))))


def _in_units(value: float, c: Contrast, metric: Metric) -> str:
    low, high = c.interval(LEVEL) or (None, None)
    places = decimals(Estimate(c.value, low, high, c.seeds, ""), metric)
    return signed(100 * value if metric.percent else value, places)


def _size_in_words(c: Contrast, metric: Metric) -> str:
    number = _in_units(c.value, c, metric)
    lower = "" if metric.higher_is_better else " (lower is better)"
    if not metric.percent:
        return f"{number} {metric.label}{lower}"
    what = "" if metric.name == "accuracy" else f" of {metric.label}"
    return f"{number} points{what}{lower}"


def _interval_in_words(c: Contrast, level: float, metric: Metric) -> str:
    low, high = c.interval(level) or (c.value, c.value)
    return (
        f"{100 * level:.3g}% interval {_in_units(low, c, metric)} to {_in_units(high, c, metric)}"
    )
