"""What is written beside a study's trials: tables, comparisons, the report, model cards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tunelab import report
from tunelab.analysis import Summary, curves, summarise
from tunelab.analysis.corrected import conclusion_before
from tunelab.analysis.probabilities import Probabilities, judge_probabilities
from tunelab.core import results_table, study_folder
from tunelab.report import cards
from tunelab.study.looking import note_look

__all__ = [
    "Conclusions",
    "write_outputs",
]


@dataclass(frozen=True, slots=True)
class Conclusions:
    """What is said of a study, judged once for every place that says it."""

    summary: Summary
    probabilities: Probabilities


def write_outputs(directory: Path) -> Conclusions | None:
    """Write results.csv, comparison.json, report.html and model cards from what the study has.

    Gives what they say; None where no trial has ended.
    """
    note_look(study_folder.read_study(directory))
    record = study_folder.read_study(directory)
    results_table.write_results_csv(directory / "results.csv", record.results)
    learned = curves.learning_curves(record)
    if learned is not None:
        study_folder.write_extra(directory, "curves", curves.curves_to_json(learned))
        record = replace(record, curves=curves.curves_to_json(learned))
    if not record.results:
        return None
    before = conclusion_before(record, record.settings["metric"])
    if before is not None:
        study_folder.write_extra(directory, "before", before.to_json())
        record = replace(record, before=before.to_json())
    said, judged = summarise(record), judge_probabilities(record)
    report.write_comparison(record, directory / "comparison.json", said, judged)
    report.write_report(record, directory / "report.html", said, probabilities=judged)
    cards.write_cards(record, said)
    return Conclusions(said, judged)
