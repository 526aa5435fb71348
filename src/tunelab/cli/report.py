"""`tunelab report`: write a study's report, tables, figures and model cards again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunelab.cli.lines import say_sentences
from tunelab.cli.options import FOLDER, trust_option
from tunelab.cli.show import show_answer
from tunelab.core.errors import InputError
from tunelab.core.words import counted

if TYPE_CHECKING:
    from tunelab.analysis.versus import Versus

__all__ = [
    "report",
]


_WATCH_SECONDS = 3


def _format_names(_c: click.Context, _p: click.Parameter, value: str | None) -> tuple[str, ...]:
    from tunelab.core.words import comma_names

    return tuple(dict.fromkeys(comma_names((value or "").lower())))


@click.command(short_help="Write a study's report, tables, figures and model cards.")
@click.argument("study", type=FOLDER)
@click.option(
    "--compare",
    "other",
    type=FOLDER,
    metavar="STUDY2",
    help="A second study: its methods beside these, on the test rows that both have.",
)
@click.option(
    "--format",
    "formats",
    metavar="A,B,..",
    default="html",
    show_default=True,
    callback=_format_names,
    help="html; markdown: a lab report and the table; csv, latex: the table.",
)
@click.option(
    "--figures",
    metavar="A,B,..",
    callback=_format_names,
    help="Every chart as a file: png, svg, pdf.",
)
@click.option(
    "--review",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Instead, a page on which labels in doubt are kept or changed (STUDY/review.html).",
)
@click.option("--metric", metavar="NAME", help="Judge by another metric.")
@click.option("--output-dir", type=FOLDER, help="Where to write (the study).")
@click.option(
    "--explain",
    is_flag=True,
    help="Mark the words that moved the best classifier's mistakes (it is loaded for that).",
)
@trust_option
@click.option("--watch", is_flag=True, help="Write report.html anew while the study runs.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def report(
    study: Path,
    *,
    other: Path | None,
    formats: tuple[str, ...],
    figures: tuple[str, ...],
    review: str | None,
    metric: str | None,
    output_dir: Path | None,
    explain: bool,
    trust_remote_code: bool,
    watch: bool,
    quiet: bool,
) -> None:
    """Write a study's report, tables, figures and model cards.

    \b
    tunelab report runs/demo                                  report.html and the model cards
    tunelab report runs/demo --format markdown,latex --figures pdf
    tunelab report runs/today --compare runs/yesterday
    tunelab report runs/demo --watch                          in a second terminal, while it runs
    tunelab report runs/demo --review                         labels in doubt, to keep or change
    """
    from tunelab.analysis.opened import OpenedStudy
    from tunelab.report import writing

    if watch:
        _watch(study, output_dir or study, metric, quiet)
        return
    if review is not None:
        from tunelab import api

        page = api.Study(study).review(
            review or (output_dir / "review.html" if output_dir else None)
        )
        if not quiet:
            say_sentences(f"{page}: open it in a browser. It saves corrections.csv.")
        return
    asked = OpenedStudy(study)
    if metric is not None:
        from tunelab.study import resolve

        resolve.require_metric(metric)
    if explain:
        from tunelab.study.explaining import explain_best

        explain_best(asked.record, asked.judged_by(metric), bool(trust_remote_code))
        asked = OpenedStudy(study)  # with what was kept just now
    written = writing.write_study(
        asked,
        formats,
        figures=figures,
        compare=None if other is None else OpenedStudy(other),
        metric=metric,
        output_dir=output_dir,
    )
    if not quiet:
        show_answer(asked.judged_by(metric).answer)
        if written.against is not None:
            _show_against(written.against)
        for line in written.lines():
            say_sentences(line)


def _show_against(against: Versus) -> None:
    from tunelab.analysis import versus
    from tunelab.cli import terminal

    headings, cells, sentences = versus.rows(against)
    terminal.print_table(headings, cells, f"{against.here} against {against.there}")
    out = terminal.console()
    for line in (*sentences, *against.notes):
        terminal.say(out, f"{line.removesuffix('.')}.", indent=2)
    out.print()


def _watch(study: Path, out: Path, metric: str | None, quiet: bool) -> None:
    """Write the report whenever a trial has ended, until none is missing."""
    from tunelab import analysis
    from tunelab.core import study_folder
    from tunelab.report import write_report
    from tunelab.study import resolve

    if metric is not None:
        resolve.require_metric(metric)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder, found a file. Choose another --output-dir.")
    seen = -1
    while True:
        record = study_folder.read_study(study)
        n, left = len(record.results), len(record.missing)
        if n != seen and n:
            said = analysis.summarise(record, metric)
            refresh = _WATCH_SECONDS if left else None
            path = write_report(record, out / "report.html", said, refresh=refresh)
            if not quiet:
                say_sentences(
                    f"{path}: {n} of {counted(n + left, 'trial')}. {said.answer.sentence}"
                )
        elif n != seen and not quiet:
            say_sentences(f"{study}: no trial has ended yet; waiting.")
        seen = n
        if not left:
            return
        time.sleep(_WATCH_SECONDS)
