"""A study -> comparison.json: what is said of it, for programs."""

from __future__ import annotations

from pathlib import Path

from tunelab.analysis import Summary, summarise
from tunelab.analysis.probabilities import (
    Probabilities,
    judge_probabilities,
    probabilities_to_json,
)
from tunelab.analysis.summary import summary_to_json
from tunelab.core.files import write_json
from tunelab.core.study_folder import StudyRecord

__all__ = ["write_comparison"]


def write_comparison(
    record: StudyRecord,
    path: Path,
    summary: Summary | None = None,
    probabilities: Probabilities | None = None,
) -> Path:
    """Write comparison.json: the table with intervals, all pairs, the sentences and warnings.

    Beside them, under "probabilities", whose probabilities are better. `summary` and
    `probabilities` where they have been made already.
    """
    said = summary_to_json(summary or summarise(record))
    judged = probabilities or judge_probabilities(record)
    if judged.scores:
        said["probabilities"] = probabilities_to_json(judged)
    write_json(path, said)
    return path
