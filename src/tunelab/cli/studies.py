"""`tunelab runs`, `slices`, `calibration` and `behaviour`: what a study's folder holds."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunelab.cli.lines import say_sentences
from tunelab.cli.options import FOLDER, json_option, print_json, trust_option
from tunelab.cli.show import show_summary
from tunelab.cli.streams import echo
from tunelab.core.errors import InputError

if TYPE_CHECKING:
    from tunelab.api import Study

__all__ = [
    "behaviour_",
    "calibration_",
    "runs",
    "slices_",
]


# --- runs -----------------------------------------------------------------------------------


@click.group(short_help="List studies and show their results.")
def runs() -> None:
    """List studies and show their results."""


@runs.command("list")
@click.argument("root", type=FOLDER, required=False)
@json_option
def runs_list(root: Path | None, as_json: bool) -> None:
    """Studies in a folder (runs): how far each is, and its best method."""
    from tunelab import api
    from tunelab.core import study_folder

    if root is not None and not root.is_dir():
        raise InputError(f"{root}: there is no such folder. Give one that holds studies.")
    root = root or Path("runs")
    folders = study_folder.find_studies(root)
    rows: list[dict[str, object]] = []
    notes: list[str] = []
    for folder in folders:
        try:
            row, damaged = _row_of_study(api.Study(folder))
        except (InputError, OSError) as e:  # one that cannot be read hides no other
            row, damaged = dict.fromkeys(_KEYS_OF_STUDY, None), (str(e),)
        rows.append({**row, "study": str(folder), "damaged": list(damaged) or None})
        notes += damaged
    if as_json:
        print_json(rows)
        return
    for line in notes:
        echo(f"Note: {line}", err=True)
    if not rows:
        say_sentences(f"No studies in {root}. Make one: tunelab compare --data demo")
        return
    from tunelab.cli.terminal import print_table

    heads = ["Study", "Data", "Model", "Done", "Failed", "Missing", "Best"]
    keys = ["study", "data", "model", "done", "failed", "missing", "best"]
    print_table(heads, [[str(r[k] if r[k] is not None else "-") for k in keys] for r in rows])


# What is said of a study in a list.
_KEYS_OF_STUDY = ("study", "done", "failed", "missing", "best", "data", "model", "answer")


def _row_of_study(study: Study) -> tuple[dict[str, object], tuple[str, ...]]:
    """A study's row, by `_KEYS_OF_STUDY`, and what of it is damaged."""
    r = study.record
    said = study.summary if r.results else None
    row: dict[str, object] = {
        "study": str(study.directory),
        "done": len(r.done),
        "failed": len(r.failed),
        "missing": len(r.missing),
        "best": said.best if said else None,
        "data": r.settings["data"]["source"],
        "model": r.settings["model"],
        "answer": said.answer.sentence if said else None,
    }
    return row, r.damaged


@runs.command("show")
@click.argument("folder", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Table, comparisons and sentences as JSON.")
@click.option("--metric", metavar="NAME", help="Judge by another metric.")
def runs_show(folder: Path, as_json: bool, metric: str | None) -> None:
    """The table and verdicts of a study."""
    from tunelab.analysis import summary
    from tunelab.analysis.opened import OpenedStudy

    study = OpenedStudy(folder)
    if metric is not None:
        from tunelab.study import resolve

        resolve.require_metric(metric)
    if as_json:
        print_json(summary.summary_to_json(study.judged_by(metric)))
    else:
        show_summary(study, metric)


@runs.command("check")
@click.argument("folder", type=FOLDER, metavar="STUDY")
@click.option("--repair", is_flag=True, help="Make anew what follows from the rest.")
@json_option
def runs_check(folder: Path, repair: bool, as_json: bool) -> None:
    """Whether a study is as it was written: digests, predictions against scores, ids against specs.

    --repair writes tables, report and cards anew, and removes what was left half-written. It runs
    no trial and removes none. Exit code 1 where something is wrong.
    """
    from tunelab.core.words import counted
    from tunelab.study import check

    checked = check.repair_study(folder) if repair else check.check_study(folder)
    if as_json:
        print_json({"folder": str(folder), **asdict(checked)})
    else:
        for fault in checked.faults:
            echo(fault.sentence)
        missing = f", {checked.missing} not run yet" if checked.missing else ""
        faults = counted(len(checked.faults), "fault") if checked.faults else "no fault"
        echo(f"{folder}: {counted(checked.trials, 'trial')} whole{missing}; {faults}.")
    if checked.faults:
        sys.exit(1)


# --- where a method fails, and whether it knows ----------------------------------------------


@click.command("slices", short_help="Where each method of a study is weaker or stronger.")
@click.argument("folder", type=FOLDER, metavar="STUDY")
@click.option("--by", metavar="A,B,..", help="length, label, file or columns of the data (all).")
@json_option
def slices_(folder: Path, by: str | None, as_json: bool) -> None:
    """Accuracy by length, label, file and any column, with intervals over seeds and rows.

    A slice is named only where it truly differs from the rest, tested over all that were looked at.
    """
    from tunelab.analysis.slicing import slice_study
    from tunelab.core import study_folder
    from tunelab.core.words import comma_names
    from tunelab.stats.slices import slices_to_json

    cuts = None if by is None else comma_names(by)
    slices = slice_study(study_folder.read_study(folder), cuts)
    if as_json:
        print_json(slices_to_json(slices.looked_at))
        return
    from tunelab.cli.terminal import console, print_table, say

    if slices.looked_at:
        print_table(*slices.for_display(), keys=2)
    mark = "* " if slices.named else ""
    out = console()
    for line in slices.sentences():
        say(out, f"{mark}{line}.", indent=2)


@click.command(
    "calibration", short_help="Whether the probabilities of a study's methods are right."
)
@click.argument("folder", type=FOLDER, metavar="STUDY")
@json_option
def calibration_(folder: Path, as_json: bool) -> None:
    """Calibration error and Brier score on test with intervals, before and after temperature
    scaling (fitted on validation).
    """
    from tunelab.analysis.calibrations import calibrate_study
    from tunelab.core import study_folder
    from tunelab.stats.calibration import calibrations_to_json

    calibrations = calibrate_study(study_folder.read_study(folder))
    if as_json:
        print_json(calibrations_to_json(calibrations.methods))
        return
    from tunelab.cli.terminal import console, print_table, say

    print_table(*calibrations.for_display())
    out = console()
    for line in calibrations.sentences():
        say(out, f"{line}.", indent=2)


@click.command("behaviour", short_help="Behaviour tests of a classifier or of a study's methods.")
@click.argument("folder", type=FOLDER, metavar="FOLDER")
@click.option("--suite", metavar="FILE", help="A suite's YAML file (English sentiment).")
@trust_option
@json_option
def behaviour_(
    folder: Path, suite: str | None, trust_remote_code: bool | None, as_json: bool
) -> None:
    """How often negation, names, typos, praise added and the like lead a classifier astray.

    FOLDER is a folder from `train`, a trial's, or a study: there every method, over its seeds.
    """
    from dataclasses import asdict

    from tunelab.analysis.numbers import format_estimate
    from tunelab.cli.terminal import print_table
    from tunelab.evaluation import behaviour

    failures = behaviour(folder, suite, trust_remote_code=bool(trust_remote_code))
    if as_json:
        print_json([asdict(r) for r in failures])
        return
    labels = list(dict.fromkeys(r.label for r in failures))
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for r in failures:
        key = (r.test, r.capability, r.kind, str(r.cases))
        rows.setdefault(key, {})[r.label] = format_estimate(r.failure, "percent")
    print_table(
        ["Test", "Capability", "Kind", "Cases", *labels],
        [[*key, *(row.get(m, "-") for m in labels)] for key, row in rows.items()],
        "Failures in percent, with 95% intervals over seeds and cases",
    )
    for r in failures:
        for e in r.examples[:1]:
            then = f" -> {e.other!r} [{e.predicted_other}]" if e.other is not None else ""
            say_sentences(f"{r.label}, {r.test}: {e.text!r} [{e.predicted}]{then}")
