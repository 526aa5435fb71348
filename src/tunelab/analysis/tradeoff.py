"""What a loss of score buys, asked of a study on disk: `recommend`."""

from __future__ import annotations

from dataclasses import asdict

from tunelab.analysis.advice import advise
from tunelab.analysis.costs import check_cost
from tunelab.analysis.front import Front
from tunelab.analysis.reading import read_runs
from tunelab.analysis.summary import summarise
from tunelab.analysis.verdict import Recommendation, Summary
from tunelab.core.errors import ConfigError
from tunelab.core.study_folder import StudyRecord
from tunelab.stats.losses import MARGIN

__all__ = [
    "recommend",
    "recommendation_to_json",
]


def recommend(
    record: StudyRecord,
    *,
    margin: float = MARGIN,
    cost: str = "train_seconds",
    summary: Summary | None = None,
) -> Recommendation:
    """The cheapest method that is shown to lose less than `margin` against the best.

    `margin` in metric units (0.01 is one point of accuracy). The best is that on validation; what
    is lost is measured on test, and the candidates are corrected for together. Raises ConfigError
    for an unknown cost or a margin that is none.
    """
    check_cost(cost)
    if not 0 < margin < 1:
        raise ConfigError(
            f"margin: expected a loss above 0 and below 1 (0.01 is one point), found {margin:g}."
        )
    said = summary or summarise(record)
    if (margin, cost) == (said.advice.margin, said.advice.cost):
        return said.advice
    return advise(record, said, read_runs(record)[said.split], margin, cost)


def recommendation_to_json(r: Recommendation | Front) -> dict[str, object]:
    """Plain JSON values; of a recommendation the answer in one sentence as well."""
    values = asdict(r)
    if isinstance(r, Recommendation):
        values["answer"]["sentence"] = r.answer.sentence
    return values
