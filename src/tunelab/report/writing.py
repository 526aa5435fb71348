"""What `tunelab report` and `Study.report` write of a study, in the formats asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunelab.analysis import Summary, versus
from tunelab.analysis.opened import OpenedStudy
from tunelab.analysis.versus import Versus
from tunelab.core import files
from tunelab.core.errors import InputError, suggest
from tunelab.core.study_folder import StudyRecord
from tunelab.core.words import counted
from tunelab.report import cards, evidence, page, paper

__all__ = [
    "REPORT_FORMATS",
    "Written",
    "write_formats",
    "write_study",
]

REPORT_FORMATS = ("html", *paper.TABLES)
IN_MARKDOWN = ("svg", "png")  # figures that a reader of Markdown sees as pictures, the first best


@dataclass(frozen=True, slots=True, repr=False)
class Written:
    """What was written: `files` (report, tables), `figures` in `folder`/figures, model `cards`;
    `against`: what is said of the study beside another.
    """

    folder: Path
    files: tuple[Path, ...]
    figures: tuple[Path, ...]
    cards: tuple[Path, ...]
    against: Versus | None = None

    def lines(self) -> tuple[str, ...]:
        """A line for each file, one for all figures and one for all cards."""
        lines = [str(path) for path in self.files]
        if self.figures:
            figures = counted(len(self.figures), "figure")
            lines.insert(0, f"{figures} in {self.folder / 'figures'}")
        if self.cards:
            made = counted(len(self.cards), "model card")
            lines.append(f"{made} ({cards.CARD} beside each artifact)")
        return tuple(lines)

    def __repr__(self) -> str:
        """The lines, in one."""
        return f"Written({'; '.join(self.lines())})"


def write_study(
    study: OpenedStudy,
    formats: Sequence[str],
    *,
    figures: Sequence[str] = (),
    compare: OpenedStudy | None = None,
    metric: str | None = None,
    output_dir: Path | None = None,
) -> Written:
    """`write_formats` of a study's folder, judged by `metric`, beside another study (`compare`).

    `output_dir`: where to (the study's folder). Raises InputError, before anything is written.
    """
    if not study.record.results:
        raise InputError(
            f"{study.directory}: no trial has been run yet, so there is nothing to report. "
            f"Run it: tunelab compare {study.directory / 'study.yaml'}"
        )
    said = study.judged_by(metric)
    against = versus.between(study.record, compare.record, said.metric) if compare else None
    out = study.directory if output_dir is None else output_dir
    return write_formats(study.record, said, out, formats=formats, figures=figures, against=against)


def write_formats(
    record: StudyRecord,
    said: Summary,
    out: Path,
    *,
    formats: Sequence[str] = ("html",),
    figures: Sequence[str] = (),
    against: Versus | None = None,
) -> Written:
    """Write a study's report in `formats`, its charts as `figures`, and its model cards.

    A lab report in Markdown shows pictures: where `figures` have no format for that, PNG is
    written too. Raises InputError for a format that there is not, before anything is written.
    """
    _require(formats, REPORT_FORMATS, "format")
    _require(figures, tuple(paper.FIGURES), "figure format")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder, found a file. Choose another folder.")
    if "markdown" in formats and figures and not set(IN_MARKDOWN).intersection(figures):
        figures = (*figures, "png")
    written: list[Path] = []
    drawn: list[Path] = []
    data = evidence.plot_data(record, said) if figures or "markdown" in formats else None
    if data is not None and figures:
        drawn = paper.write_figures(data, out / "figures", figures)
    if "html" in formats:
        written.append(page.write_report(record, out / "report.html", said, against=against))
    if "markdown" in formats and data is not None:
        kind = next((k for k in IN_MARKDOWN if k in figures), None)
        shown = [p.relative_to(out).as_posix() for p in drawn if p.suffix == f".{kind}"]
        text = paper.lab_report(record, said, data, shown)
        if against:
            text += "\n" + versus.markdown(against)
        files.write_text(out / "report.md", text)
        written.append(out / "report.md")
    written += [paper.write_paper_table(said, out, f) for f in formats if f in paper.TABLES]
    made = cards.write_cards(record, said)
    return Written(out, tuple(written), tuple(drawn), tuple(made), against)


def _require(names: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"Unknown {what} {name!r}.{suggest(name, known, what='Known')}")
