"""The best classifier of a study in other forms (`compare --export`): size, speed, verdict."""

from __future__ import annotations

from tunelab.analysis.numbers import format_bytes
from tunelab.core.forms import AS_TRAINED, StudyExports, WinnersForm, exports_from_json
from tunelab.core.study_folder import StudyRecord

__all__ = [
    "forms_about",
    "forms_for_display",
    "reasons_of_refusal",
    "winners_forms",
]


def winners_forms(record: StudyRecord) -> StudyExports | None:
    """What `compare --export` made; None where nothing was exported."""
    return record.parsed("exports", exports_from_json)


def forms_for_display(made: StudyExports) -> tuple[list[str], list[list[str]]]:
    """The table that people read: a row a form, the classifier as it was trained first."""
    headings = ["form", "size", "texts/s", "ms a text", "labels changed", "verdict"]
    return headings, [_row_of_form(f) for f in made.forms]


def _row_of_form(f: WinnersForm) -> list[str]:
    changed = "" if f.changed is None else f"{f.changed} of {f.texts}"
    verdict = "holds" if f.fault is None else "refused" if f.texts else "cannot be made"
    return [
        f.form,
        "" if f.bytes is None else format_bytes(f.bytes),
        "" if f.texts_per_second is None else f"{f.texts_per_second:,.0f}",
        "" if f.milliseconds is None else f"{f.milliseconds:.1f}",
        changed,
        "" if f.form == AS_TRAINED else verdict,
    ]


def forms_about(made: StudyExports) -> str:
    """What the table's figures are, in a sentence."""
    return (
        f"Of {made.label}, compared with it on {made.described}; speed on this machine, with all "
        "of its cores, after a first text. Size: with the base that an adapter needs"
    )


def reasons_of_refusal(made: StudyExports) -> tuple[str, ...]:
    """Why forms were refused or could not be made, a sentence each."""
    return tuple(f"{f.form}: {f.fault}" for f in made.forms if f.fault is not None)
