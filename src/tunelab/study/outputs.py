"""What is written beside a study's trials: tables, comparisons, the report, model cards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tunelab import report
from tunelab.analysis import curves, summarise
from tunelab.core import results_table, study_folder
from tunelab.report import cards
from tunelab.study.looking import note_look

__all__ = [
    "write_outputs",
]


def write_outputs(directory: Path) -> None:
    """Write results.csv, comparison.json, report.html and model cards from what the study has."""
    note_look(study_folder.read_study(directory))
    record = study_folder.read_study(directory)
    results_table.write_results_csv(directory / "results.csv", record.results)
    learned = curves.learning_curves(record)
    if learned is not None:
        study_folder.write_extra(directory, "curves", curves.curves_to_json(learned))
        record = replace(record, curves=curves.curves_to_json(learned))
    if record.results:
        said = summarise(record)
        report.write_comparison(record, directory / "comparison.json", said)
        report.write_report(record, directory / "report.html", said)
        cards.write_cards(record, said)
