"""Whose probabilities are better? A question of its own, beside whose classes are.

Accuracy asks which class is said. Who sorts texts by how sure a method is, or sets a threshold,
needs to know whose probabilities are nearer the truth: the Brier score, after every method's scores
are divided by the temperature fitted on validation, one a seed, so that a method that is only too
sure of itself is not the loser for that. Brier's score and not log loss: in simulations where
labels are noisy or scores heavy tailed it needs about a quarter fewer rows to tell two methods
apart, since no single confident mistake outweighs a hundred rows; where neither is, a little more
(`benchmarks/_claims_calibration.py`, which has also how often it is wrong of equals).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from tunelab.analysis.numbers import MISSING, format_estimate
from tunelab.analysis.reading import BOOTSTRAP_SEED, paired_by_seed, read_runs
from tunelab.analysis.verdict import Summary, joined_by_and
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Comparison, Estimate
from tunelab.stats import Runs, compare_all, means
from tunelab.stats.calibration import (
    AS_IT_IS,
    SEVERAL_LABELS,
    at_temperatures,
    fit_temperatures,
)
from tunelab.stats.metrics import METRICS, brier

__all__ = [
    "Probabilities",
    "decided_beside",
    "judge_probabilities",
    "probabilities_for_display",
    "probabilities_to_json",
]

METRIC = "brier"


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Brier scores on test after temperature scaling, lower is better, and who is better.

    `scores` by label; `best`: the lowest mean on validation (test chooses nothing). `comparisons`
    holds every pair, those of `best` first and from its side; their sentences speak of the Brier
    score. `left_out`: why a method has no part in it. `as_they_are`: methods whose probabilities
    were taken without scaling, since validation has too few rows or mistakes to fit on.
    """

    scores: Mapping[str, Estimate]
    best: str | None
    comparisons: tuple[Comparison, ...]
    left_out: Mapping[str, str]
    as_they_are: tuple[str, ...] = ()

    def against_best(self) -> tuple[Comparison, ...]:
        """`best` against every other method."""
        return tuple(c for c in self.comparisons if c.a == self.best)


def judge_probabilities(
    record: StudyRecord, runs: Mapping[str, Mapping[str, Runs]] | None = None
) -> Probabilities:
    """Compare all methods of a study by their calibrated probabilities on test.

    `runs` where they have been read already (`read_runs`). Methods with margins, without
    predictions on validation, or with other rows than the rest are left out.
    """
    runs = read_runs(record) if runs is None else runs
    validation, test = runs["validation"], runs["test"]
    scaled, on_validation, left_out, plain = {}, {}, {}, []
    for label, own in test.items():
        if any(p.score_kind == "margin" for p in own.by_seed.values()):
            left_out[label] = "its scores are margins, not probabilities"
        elif not all(p.of_one_class for p in own.by_seed.values()):
            left_out[label] = SEVERAL_LABELS
        elif label not in validation or set(own.by_seed) - set(validation[label].by_seed):
            left_out[label] = "no validation predictions to fit a temperature on"
        else:
            temperatures = fit_temperatures(validation[label].by_seed, own.by_seed)
            if AS_IT_IS in temperatures.values():
                plain.append(label)
            scaled[label] = at_temperatures(own, temperatures)
            on_validation[label] = at_temperatures(validation[label], temperatures)
    if not paired_by_seed(scaled):
        reason = "seeds were scored on other rows: no pair can be compared row by row"
        return Probabilities({}, None, (), {**left_out, **dict.fromkeys(scaled, reason)})
    best = min(on_validation, key=lambda k: _mean_brier(on_validation[k]), default=None)
    ordered = sorted(scaled.values(), key=lambda r: (r.label != best, _mean_brier(r)))
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    comparisons = tuple(compare_all(ordered, METRIC, rng)) if len(ordered) > 1 else ()
    scores = means(ordered, [METRIC], np.random.default_rng(BOOTSTRAP_SEED))
    return Probabilities(
        {label: e for (label, _), e in scores.items()}, best, comparisons, left_out, tuple(plain)
    )


def decided_beside(probabilities: Probabilities, summary: Summary) -> str | None:
    """One sentence where probabilities decide what the study's metric does not; else None."""
    open_pairs = {
        frozenset((c.a, c.b)) for c in summary.comparisons if c.verdict not in ("better", "worse")
    }
    behind = [
        c.b
        for c in probabilities.against_best()
        if c.verdict == "better" and frozenset((c.a, c.b)) in open_pairs
    ]
    if not behind or summary.metric in ("brier", "log_loss"):
        return None
    return (
        f"{probabilities.best}'s probabilities are better than those of {joined_by_and(behind)} "
        f"(Brier score after temperature scaling), where {METRICS[summary.metric].label} does not "
        "tell them apart"
    )


def probabilities_for_display(probabilities: Probabilities) -> tuple[list[str], list[list[str]]]:
    """The table as a reader sees it: headings, and cells a method, best first."""
    against = {c.b: c.verdict for c in probabilities.against_best()}
    verdicts = {"better": "worse", "worse": "better"}  # said of the row, not of the best
    said = {b: verdicts.get(v, v) for b, v in against.items()}
    if probabilities.best is not None:
        said[probabilities.best] = "best on validation"
    cells = [
        [label, format_estimate(e, "number"), said.get(label, MISSING)]
        for label, e in probabilities.scores.items()
    ]
    return ["Method", "Brier score, scaled", f"Against {probabilities.best}"], cells


def probabilities_to_json(probabilities: Probabilities) -> dict[str, object]:
    """Plain JSON values: the key "probabilities" of comparison.json."""
    return {
        "metric": METRIC,
        "best": probabilities.best,
        "scores": {label: asdict(e) for label, e in probabilities.scores.items()},
        "comparisons": [asdict(c) for c in probabilities.comparisons],
        "sentences": [c.sentence for c in probabilities.against_best()],
        "left_out": dict(probabilities.left_out),
        "as_they_are": list(probabilities.as_they_are),
    }


def _mean_brier(runs: Runs) -> float:
    return float(np.mean([brier(p) for p in runs.by_seed.values()]))
