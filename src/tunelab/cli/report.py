"""`tunelab report`: write a study's report, tables, figures and model cards again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunelab.cli.options import FOLDER
from tunelab.cli.show import show_answer
from tunelab.cli.streams import echo
from tunelab.core.errors import InputError, suggest

if TYPE_CHECKING:
    from tunelab.analysis import Summary
    from tunelab.core.study_folder import StudyRecord

__all__ = [
    "report",
]


_FORMATS = ("html", "markdown", "csv", "latex")
_FIGURES = ("png", "svg", "pdf")
_WATCH_SECONDS = 3


def _several(
    allowed: Sequence[str], what: str
) -> Callable[[click.Context, click.Parameter, str | None], tuple[str, ...]]:
    def read(_c: click.Context, _p: click.Parameter, value: str | None) -> tuple[str, ...]:
        names = [v.strip().lower() for v in (value or "").split(",") if v.strip()]
        for v in names:
            if v not in allowed:
                raise InputError(f"Unknown {what} {v!r}.{suggest(v, allowed, what='Known')}")
        return tuple(dict.fromkeys(names))

    return read


@click.command(short_help="Write a study's report, tables, figures and model cards.")
@click.argument("study", type=FOLDER)
@click.option(
    "--compare",
    "other",
    type=FOLDER,
    metavar="STUDY2",
    help="A second study on the same data: its methods beside these.",
)
@click.option(
    "--format",
    "formats",
    metavar="A,B,..",
    default="html",
    show_default=True,
    callback=_several(_FORMATS, "format"),
    help="html; markdown: a lab report and the table; csv, latex: the table.",
)
@click.option(
    "--figures",
    metavar="A,B,..",
    callback=_several(_FIGURES, "figure format"),
    help="Every chart as a file: png, svg, pdf.",
)
@click.option("--metric", metavar="NAME", help="Judge by another metric.")
@click.option("--output-dir", type=FOLDER, help="Where to write (the study).")
@click.option("--watch", is_flag=True, help="Write report.html anew while the study runs.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def report(
    study: Path,
    *,
    other: Path | None,
    formats: tuple[str, ...],
    figures: tuple[str, ...],
    metric: str | None,
    output_dir: Path | None,
    watch: bool,
    quiet: bool,
) -> None:
    """Write a study's report, tables, figures and model cards.

    \b
    tunelab report runs/demo                                  report.html and the model cards
    tunelab report runs/demo --format markdown,latex --figures pdf
    tunelab report runs/today --compare runs/yesterday
    tunelab report runs/demo --watch                          in a second terminal, while it runs
    """
    from tunelab.core import study_folder
    from tunelab.study import resolve

    if metric is not None:
        resolve.require_metric(metric)
    record = study_folder.read_study(study)
    out = output_dir or study
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder, found a file. Choose another --output-dir.")
    if watch:
        _watch(study, out, metric, quiet)
        return
    if not record.results:
        raise InputError(
            f"{study}: no trial has been run yet, so there is nothing to report. "
            f"Run it: tunelab compare {study / 'study.yaml'}"
        )
    said, written = _write_all(
        record, out, metric=metric, formats=formats, figures=figures, other=other
    )
    if not quiet:
        show_answer(said.answer)
        for path in written:
            echo(path)


def _write_all(
    record: StudyRecord,
    out: Path,
    *,
    metric: str | None,
    formats: Sequence[str],
    figures: Sequence[str],
    other: Path | None,
) -> tuple[Summary, list[str]]:
    from tunelab import analysis
    from tunelab.analysis import versus
    from tunelab.core import files, study_folder
    from tunelab.report import cards, evidence, paper, write_report

    said = analysis.summarise(record, metric)
    against = versus.between(record, study_folder.read_study(other), said.metric) if other else None
    written: list[str] = []
    data = evidence.plot_data(record, said) if figures or "markdown" in formats else None
    drawn: list[Path] = []
    if data is not None and figures:
        drawn = paper.write_figures(data, out / "figures", figures)
        written += [f"{len(drawn)} figures in {out / 'figures'}"]
    if "html" in formats:
        path = write_report(record, out / "report.html", said, against=against)
        written.append(str(path))
    if "markdown" in formats and data is not None:
        shown = [p.relative_to(out).as_posix() for p in drawn if p.suffix in {".svg", ".png"}]
        first = [p for p in shown if p.endswith(shown[0][-4:])] if shown else []
        text = paper.lab_report(record, said, data, first)
        if against:
            text += "\n" + versus.markdown(against)
        files.write_text(out / "report.md", text)
        written.append(str(out / "report.md"))
    written += [str(paper.write_paper_table(said, out, f)) for f in formats if f in paper.TABLES]
    made = cards.write_cards(record, said)
    if made:
        written.append(f"{len(made)} model cards ({cards.CARD} beside each artifact)")
    return said, written


def _watch(study: Path, out: Path, metric: str | None, quiet: bool) -> None:
    """Write the report whenever a trial has ended, until none is missing."""
    from tunelab import analysis
    from tunelab.core import study_folder
    from tunelab.report import write_report

    seen = -1
    while True:
        record = study_folder.read_study(study)
        n, left = len(record.results), len(record.missing)
        if n != seen and n:
            said = analysis.summarise(record, metric)
            refresh = _WATCH_SECONDS if left else None
            path = write_report(record, out / "report.html", said, refresh=refresh)
            if not quiet:
                echo(f"{path}: {n} of {n + left} trials. {said.answer.sentence}")
        elif n != seen and not quiet:
            echo(f"{study}: no trial has ended yet; waiting.")
        seen = n
        if not left:
            return
        time.sleep(_WATCH_SECONDS)
