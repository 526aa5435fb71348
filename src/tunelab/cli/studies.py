"""`tunelab runs`, `slices`, `calibration` and `behaviour`: what a study's folder holds."""

from __future__ import annotations

from pathlib import Path

import click

from tunelab.cli.flags import comma_names
from tunelab.cli.options import FOLDER, json_option, print_json, trust_option
from tunelab.cli.show import show_summary
from tunelab.cli.streams import echo
from tunelab.core.errors import InputError

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
    rows = []
    for folder in folders:
        study = api.Study(folder)
        r = study.record
        said = study.summary if r.results else None
        rows.append(
            {
                "study": str(folder),
                "done": len(r.done),
                "failed": len(r.failed),
                "missing": len(r.missing),
                "best": said.best if said else None,
                "data": r.settings["data"]["source"],
                "model": r.settings["model"],
                "answer": said.answer.sentence if said else None,
            }
        )
    if as_json:
        print_json(rows)
        return
    if not rows:
        echo(f"No studies in {root}. Make one: tunelab compare --data demo")
        return
    from tunelab.cli.terminal import print_table

    heads = ["Study", "Data", "Model", "Done", "Failed", "Missing", "Best"]
    keys = ["study", "data", "model", "done", "failed", "missing", "best"]
    print_table(heads, [[str(r[k] if r[k] is not None else "-") for k in keys] for r in rows])


@runs.command("show")
@click.argument("folder", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Table, comparisons and sentences as JSON.")
@click.option("--metric", metavar="NAME", help="Judge by another metric.")
def runs_show(folder: Path, as_json: bool, metric: str | None) -> None:
    """The table and verdicts of a study."""
    from tunelab import analysis, api
    from tunelab.analysis import summary
    from tunelab.study import resolve

    study = api.Study(folder)
    if metric is not None:
        resolve.require_metric(metric)
    if as_json:
        said = analysis.summarise(study.record, metric)
        print_json(summary.summary_to_json(said))
    else:
        show_summary(study, metric)


# --- where a method fails, and whether it knows ----------------------------------------------


@click.command("slices", short_help="Where each method of a study is weaker or stronger.")
@click.argument("folder", type=FOLDER, metavar="STUDY")
@click.option("--by", metavar="A,B,..", help="length, label, file or columns of the data (all).")
@json_option
def slices_(folder: Path, by: str | None, as_json: bool) -> None:
    """Accuracy by length, label, file and any column, with intervals over seeds and rows.

    A slice is named only where it truly differs from the rest, tested over all that were looked at.
    """
    from tunelab.analysis.reading import read_runs
    from tunelab.core import study_folder
    from tunelab.core.errors import suggest
    from tunelab.stats import slices

    record = study_folder.read_study(folder)
    runs = read_runs(record)["test"]
    rows = study_folder.read_rows(folder)
    if rows is None or not runs:
        what = "no finished trial" if rows is not None else "no rows.parquet (an older study)"
        raise InputError(
            f"{folder}: {what}, so there is nothing to cut. Run it again: tunelab compare {folder}"
        )
    own = set(rows.ids)
    if any(not own.issuperset(p.ids) for r in runs.values() for p in r.by_seed.values()):
        raise InputError(
            f"{folder}: rows.parquet has other row ids than the predictions. "
            f"Run the study again: tunelab compare {folder}"
        )
    cuts = slices.attributes(rows, record.data["label_names"])
    for name in comma_names(by) or []:
        if name not in cuts:
            raise InputError(f"--by {name}: no such cut.{suggest(name, cuts, what='Cuts')}")
    chosen = {name: cuts[name] for name in comma_names(by) or cuts}
    looked_at = slices.find_slices(list(runs.values()), chosen, ids=rows.ids)
    if as_json:
        print_json(slices.slices_to_json(looked_at))
        return
    from tunelab.analysis.numbers import format_estimate
    from tunelab.cli.terminal import console, print_table, say

    heads = ["Slice", "Value", "Rows", *runs]
    cells: dict[tuple[str, str, int], dict[str, str]] = {}
    for s in looked_at:
        text = format_estimate(s.accuracy, "percent") + (" *" if s.named else "")
        cells.setdefault((s.column, s.value, s.rows), {})[s.label] = text
    if not looked_at:
        echo(
            f"No slice to look at: each needs {slices.LEAST_ROWS_OF_SLICE} test rows in it and as "
            f"many outside; the test part has {len(rows.ids):,}."
        )
        return
    print_table(
        heads,
        [[c, v, f"{n:,}", *(row.get(m, "-") for m in runs)] for (c, v, n), row in cells.items()],
    )
    told = [slices.slice_sentence(s, len(looked_at)) for s in slices.named_slices(looked_at)]
    out = console()
    for line in told or [f"None of {len(looked_at)} slices is shown to differ from the rest."]:
        say(out, f"* {line}" if told else line, indent=2)


@click.command(
    "calibration", short_help="Whether the probabilities of a study's methods are right."
)
@click.argument("folder", type=FOLDER, metavar="STUDY")
@json_option
def calibration_(folder: Path, as_json: bool) -> None:
    """Calibration error and Brier score on test with intervals, before and after temperature
    scaling (fitted on validation).
    """
    from tunelab.analysis import numbers
    from tunelab.analysis.reading import read_runs
    from tunelab.core import study_folder
    from tunelab.stats import calibration

    runs = read_runs(study_folder.read_study(folder))
    calibrated = calibration.calibrate_all(runs["validation"], runs["test"])
    if as_json:
        print_json(calibration.calibrations_to_json(calibrated))
        return
    from tunelab.cli.terminal import console, print_table, say

    heads = ["Method", "Calibration error, %", "scaled", "Brier score", "scaled", "Temperature"]
    rows = []
    for c in calibrated:
        both = (c.before, c.after)
        ece = [numbers.format_estimate(q.ece if q else None, "percent") for q in both]
        score = [numbers.format_estimate(q.brier if q else None, "number") for q in both]
        hot = ", ".join(f"{t:.2f}" for t in c.temperatures.values())
        rows.append([c.label, *ece, *score, hot or "-"])
    print_table(heads, rows)
    out = console()
    for c in calibrated:
        say(out, f"{calibration.calibration_sentence(c)}.", indent=2)


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

    from tunelab import api
    from tunelab.analysis.numbers import format_estimate
    from tunelab.cli.terminal import print_table

    failures = api.behaviour(folder, suite, trust_remote_code=bool(trust_remote_code))
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
            echo(f"{r.label}, {r.test}: {e.text!r} [{e.predicted}]{then}")
