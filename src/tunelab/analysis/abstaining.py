"""What it costs to be wrong seldom: how many test texts each method answers where at most a stated
share of all may be answered wrongly, and how many it does answer wrongly.

The threshold of confidence comes from validation alone, one a seed, as that of `predict --abstain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tunelab.analysis.numbers import format_percent
from tunelab.core.values import Predictions
from tunelab.stats import Runs
from tunelab.stats.abstention import NoThresholdError, abstention_of
from tunelab.stats.calibration import as_given, fit_on_validation
from tunelab.stats.predictions import UndefinedMetricError

__all__ = ["Abstaining", "abstaining_for_display", "abstaining_of"]

ERRORS = (0.01, 0.05, 0.10)


@dataclass(frozen=True, slots=True)
class Abstaining:
    """A method that may answer this share of all texts wrongly (`error`): of the test rows, the
    shares that it answers and that it answers wrongly, means over its `seeds`.
    """

    label: str
    error: float
    answered: float
    wrong: float
    seeds: int


def abstaining_of(runs: Mapping[str, Mapping[str, Runs]]) -> tuple[Abstaining, ...]:
    """Of every method with probabilities whose validation rows are enough to promise an error, in
    the order of `runs` (as `analysis.reading.read_runs` gives them).
    """
    said = []
    for label, tested in runs["test"].items():
        validated = runs["validation"].get(label)
        for error in ERRORS:
            shares = [
                s
                for seed, p in tested.by_seed.items()
                if validated is not None and seed in validated.by_seed
                if (s := _answered_and_wrong(validated.by_seed[seed], p, error)) is not None
            ]
            if shares:
                answered, wrong = (float(x) for x in np.mean(shares, axis=0))
                said.append(Abstaining(label, error, answered, wrong, len(shares)))
    return tuple(said)


def _answered_and_wrong(
    validation: Predictions, test: Predictions, error: float
) -> tuple[float, float] | None:
    """Of the test rows with labels, the shares answered and answered wrongly by one run."""
    known = test.labels >= 0
    if not known.any():
        return None
    temperature = fit_on_validation(validation).temperature
    try:
        of_validation = as_given(validation.scores, validation.score_kind, temperature)
        of_test = as_given(test.scores, test.score_kind, temperature)[known]
        answers = abstention_of(of_validation, validation.labels).answers(of_test, error)
    except (NoThresholdError, UndefinedMetricError):
        return None
    wrong = of_test.argmax(axis=1) != test.labels[known]
    return float(answers.mean()), float((answers & wrong).mean())


def abstaining_for_display(
    said: tuple[Abstaining, ...],
) -> tuple[list[str], list[list[str]]]:
    """A row a method; for each error the share answered, and the share answered wrongly."""
    errors = [e for e in ERRORS if any(s.error == e for s in said)]
    at = {(s.label, s.error): s for s in said}
    headings = ["Method", *(f"At most {e:.0%} wrong" for e in errors)]
    rows = []
    for label in dict.fromkeys(s.label for s in said):
        cells = [at.get((label, e)) for e in errors]
        rows.append([label, *(_cell(c) for c in cells)])
    return headings, rows


def _cell(s: Abstaining | None) -> str:
    if s is None:
        return "too few rows"
    return f"{format_percent(s.answered)}% answered, {format_percent(s.wrong)}% wrong"
