"""The page on which a reader keeps or changes labels in doubt: one HTML file, offline."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

from tunelab.analysis.doubtful import RowsInDoubt, rows_in_doubt
from tunelab.analysis.reading import read_runs
from tunelab.core.errors import InputError
from tunelab.core.files import write_text
from tunelab.core.study_folder import StudyRecord
from tunelab.core.version import __version__
from tunelab.core.words import agreeing, counted
from tunelab.data.corrections import CORRECTION_COLUMNS, text_digest
from tunelab.report.page import page_template, safe_json

__all__ = ["render_review", "write_review"]


def write_review(record: StudyRecord, path: Path) -> Path:
    """Write the page of a study's rows whose labels are in doubt.

    Raises InputError, before anything is written, where there are none.
    """
    doubted = rows_in_doubt(record, read_runs(record))
    if not doubted.rows:
        raise InputError(
            f"{record.directory}: no label is in doubt, so there is nothing to review: "
            f"{doubted.reason}."
        )
    write_text(path, render_review(record, doubted))
    return path


def render_review(record: StudyRecord, doubted: RowsInDoubt) -> str:
    """The page of these rows as HTML text."""
    folder = record.directory.resolve()
    values = {
        "study": str(folder),
        "labels": list(record.data["label_names"]),
        "columns": CORRECTION_COLUMNS,
        "rows": [
            {
                "id": row.id,
                "part": row.part,
                "text": row.text,
                "sha256": text_digest(row.text),
                "label": row.label,
                "likely": row.likely,
                "of_label": round(row.of_label, 4),
                "of_likely": round(row.of_likely, 4),
            }
            for row in doubted.rows
        ],
    }
    # Answers of another study, or of other doubts, are not these.
    listed = "\n".join([record.data["fingerprint"], *(row.id for row in doubted.rows)])
    values["key"] = f"tunelab-review-{hashlib.sha256(listed.encode()).hexdigest()[:16]}"
    n = len(doubted.rows)
    again = [
        "tunelab compare",
        shlex.quote(str(record.directory / "study.yaml")),
        "--corrections corrections.csv --output-dir",
        shlex.quote(f"{record.directory}-corrected"),
    ]
    return page_template("review.html.j2").render(
        name=record.data["name"],
        about=f"{counted(n, 'label')} of {doubted.of:,} {agreeing(n, 'are')} contradicted by what "
        "the methods of the study say; at least "
        f"{100 * doubted.precision:.0f}% of these are wrong by estimate, most of them first.",
        bias=_what_it_does_to_scores(doubted),
        command=" ".join(again),
        version=__version__,
        rows=safe_json(values),
    )


def _what_it_does_to_scores(doubted: RowsInDoubt) -> str:
    tested = sum(row.part == "test" for row in doubted.rows)
    if not tested:
        return ""
    return (
        f"{tested:,} of the {counted(len(doubted.rows), 'row')} {agreeing(tested, 'are')} test "
        "rows. Putting those right makes the test better, and its scores a little too good: only "
        "rows are looked at where methods and label differ, not where both are wrong alike. The "
        "new study says by how much at most."
    )
