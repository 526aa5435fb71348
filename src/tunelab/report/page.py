"""A study -> one HTML file that needs nothing else.

The report says what `summary` says, shows what `charts` draws, and adds what a reader needs to
argue about it: the data card, provenance, and the command that made it. The scripts that draw the
charts are inside the file; nothing is fetched. Sections without data are absent.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from tunelab.analysis import Summary, summarise, versus
from tunelab.analysis.doubtful import gate_after_training
from tunelab.analysis.probabilities import Probabilities
from tunelab.analysis.reading import read_runs
from tunelab.analysis.summary import shown_columns
from tunelab.analysis.verdict import Answer, Standing
from tunelab.analysis.versus import Versus
from tunelab.core import cache
from tunelab.core.files import write_text
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Comparison
from tunelab.core.words import short_labels
from tunelab.report import evidence
from tunelab.report.charts import PLOTS, Plot, PlotData, colours, dashes, shapes
from tunelab.report.classes import class_table, confusion_table
from tunelab.report.mistakes import Mistakes, mistakes, scored_texts
from tunelab.report.provenance import provenance_table
from tunelab.report.tables import (
    Cell,
    blocks_by_section,
    data_card_block,
    estimate_cell,
    score_table,
)
from tunelab.report.using import commands, how_to_use, settings_as_yaml

if TYPE_CHECKING:
    from jinja2 import Template

    from tunelab.report.charts.values import Chart

__all__ = [
    "in_short",
    "page_template",
    "prepare_page",
    "render",
    "safe_json",
    "write_report",
]


SECTIONS = {
    "results": "Results",
    "differences": "Differences",
    "tradeoff": "Score and cost",
    "costs": "Costs",
    "curves": "Training",
    "ranking": "ROC and recall",
    "confusion": "Classes",
    "calibration": "Calibration",
    "sensitivity": "Sensitivity",
    "race": "Race",
    "learning": "Learning curves",
    "transfer": "Elsewhere",
    "slices": "Slices, behaviour",
    "mistakes": "Mistakes",
    "versus": "Against another study",
    "data": "Data card",
    "failed": "Failed trials",
    "forms": "In other forms",
    "use": "Use the model",
    "made": "How it was made",
}
"""Sections in the order of a reader, by id; those without data are absent."""


def write_report(
    record: StudyRecord,
    path: Path,
    summary: Summary | None = None,
    texts: Mapping[str, str] | None = None,
    *,
    refresh: int | None = None,
    against: Versus | None = None,
    probabilities: Probabilities | None = None,
) -> Path:
    """Write the report of a study: one HTML file.

    `summary` and `probabilities` (whose are better) where they have been made already.

    `texts` by row id: with them the report shows the mistakes; None takes those that the study
    keeps. `refresh`:
    the page loads itself again after so many seconds, while a study runs. `against`: another study.
    """
    html = render(
        record,
        summary or summarise(record),
        texts,
        refresh=refresh,
        against=against,
        probabilities=probabilities,
    )
    write_text(path, html)
    return path


def render(
    record: StudyRecord,
    summary: Summary,
    texts: Mapping[str, str] | None = None,
    *,
    refresh: int | None = None,
    against: Versus | None = None,
    probabilities: Probabilities | None = None,
) -> str:
    """The report as HTML text. The same study gives the same text."""
    runs = read_runs(record)
    scored = runs[summary.split]
    predictions = {m: list(scored[m].by_seed.values()) for m in record.methods if m in scored}
    data = evidence.plot_data(record, summary, predictions)
    texts = scored_texts(record) if texts is None else texts
    wrong = mistakes(record, summary, texts, predictions)
    figures = _figures(data)
    classes = class_table(record, summary)
    use = how_to_use(record, summary)
    blocks = blocks_by_section(record, summary, data, runs, probabilities)
    others = {
        "results": any(r.n_seeds for r in summary.rows),
        "confusion": classes,
        "mistakes": wrong,
        "versus": against,
        "failed": record.failed,
        "use": use,
    }
    return page_template("report.html.j2").render(
        record=record,
        summary=summary,
        refresh=refresh,
        title=_title(record),
        verdict=_verdict_block(record, summary),
        scores=score_table(summary, data),
        names=data.names,
        methods=_method_keys(data),
        figures=figures,
        contents=_contents((*figures, *blocks), others),
        classes=classes,
        confusions=confusion_table(record, summary),
        mistakes=_mistakes_block(wrong),
        against=against,
        versus=versus.rows(against) if against else None,
        card=data_card_block(record.data),
        gate=gate_after_training(record, runs),
        blocks=blocks,
        provenance=provenance_table(record),
        use=use,
        again=commands(record),
        settings=settings_as_yaml(record),
        bundle=_bundle,
    )


def _contents(drawn: Iterable[str], others: Mapping[str, object]) -> list[tuple[str, str]]:
    """Id and name of each section that is there: where something is drawn, or is not empty.

    Two sections have something to show of any study.
    """
    there = {*drawn, *(i for i, value in others.items() if value), "data", "made"}
    return [(i, name) for i, name in SECTIONS.items() if i in there]


def prepare_page() -> None:
    """Have ready what is the same in every report: seconds, which need not be spent at the end."""
    import altair  # noqa: F401

    _bundle()


def in_short(answer: Answer, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The answer and the table as HTML for a notebook's cell: no style, no script."""
    head = "".join(f"<th>{escape(h)}</th>" for h in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in rows)
    sure = f"<p>{escape(answer.sure)}</p>" if answer.sure else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    return f"<p><strong>{escape(answer.sentence)}.</strong></p>{sure}{table}"


# --- values for the page ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn plot: what stands around it, and its specifications as JSON safe inside HTML.

    `specs`: JSON of a list of {label, heading, subtitle, spec}, one for each choice of the reader
    (`choices`), or a single one.
    """

    plot: Plot
    heading: str
    subtitle: str
    alternative: str
    choices: list[str]
    specs: str
    place: Literal["wide", "half", "alone"]


@dataclass(frozen=True, slots=True)
class MethodKey:
    """A method as the bar above the charts shows it: its short name, colour, shape and dashes."""

    label: str
    name: str
    colour: str
    shape: str
    dash: str


def _figures(data: PlotData) -> dict[str, list[Figure]]:
    """What can be drawn, by section; two figures that are not wide stand side by side."""
    from altair.utils import schemapi

    drawn: dict[str, list[tuple[Plot, list[_Variant]]]] = {}
    # A third of a report's time went into holding every part of every chart against Vega-Lite's
    # schema; the plots are ours, and their tests do that.
    with schemapi.debug_mode(False):
        for plot in PLOTS.values():
            variants = [_variant(label, chart) for label, chart in plot.charts(data).items()]
            if variants:
                drawn.setdefault(plot.section, []).append((plot, variants))
    return {section: _in_place(charts, data) for section, charts in drawn.items()}


class _Variant(TypedDict):
    """A chart as the page's script reads it: its heading apart from its specification."""

    label: str
    heading: str
    subtitle: str
    spec: Mapping[str, object]


def _variant(label: str, chart: Chart) -> _Variant:
    spec = chart.to_dict(validate=False)
    # The page has its own headings, which screen readers and the outline know.
    head = spec.pop("title")
    return {"label": label, "heading": head["text"], "subtitle": head["subtitle"], "spec": spec}


def _in_place(drawn: Sequence[tuple[Plot, list[_Variant]]], data: PlotData) -> list[Figure]:
    figures = []
    half_open = False
    for i, (plot, variants) in enumerate(drawn):
        pairs = not plot.wide and (half_open or (i + 1 < len(drawn) and not drawn[i + 1][0].wide))
        figures.append(
            Figure(
                plot=plot,
                heading=variants[0]["heading"],
                subtitle=variants[0]["subtitle"],
                alternative=plot.describe(data),
                choices=[v["label"] for v in variants] if len(variants) > 1 else [],
                specs=safe_json(variants),
                place="wide" if plot.wide else "half" if pairs else "alone",
            )
        )
        half_open = pairs and not half_open
    return figures


# Outlines of Vega's symbols in a box of 12 x 12, for the bar above the charts.
_OUTLINES = {
    "circle": "M6 2a4 4 0 1 0 .01 0z",
    "square": "M2.5 2.5h7v7h-7z",
    "triangle-up": "M6 1.5 10.5 10h-9z",
    "diamond": "M6 1 10.5 6 6 11 1.5 6z",
    "cross": "M4.5 1.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "triangle-down": "M6 10.5 10.5 2h-9z",
    "triangle-right": "M10.5 6 2 10.5v-9z",
}


def _method_keys(data: PlotData) -> list[MethodKey]:
    colour, shape, dash = colours(data.methods), shapes(data.methods), dashes(data.methods)
    return [
        MethodKey(m, data.names[m], colour[m], _OUTLINES[shape[m]], " ".join(map(str, dash[m])))
        for m in data.methods
    ]


def safe_json(value: object) -> str:
    """JSON that stays JSON inside a script element, whatever texts and labels say.

    An HTML parser ends a script at "</script" and changes its mode at "<!--"; U+2028 and U+2029
    end a line in older JavaScript. All are written as JSON escapes.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _title(record: StudyRecord) -> str:
    return f"Which way of fine-tuning is worth it on {record.data['name']}?"


@dataclass(frozen=True, slots=True)
class VerdictBlock:
    """The top of the page: what to take and why, how sure, the figures of what is taken (`tiles`).

    `comparisons`: each with the words that say where it stands. Nothing finished: the answer alone.
    """

    answer: Answer
    basis: str | None = None
    colour: str | None = None
    tiles: Sequence[tuple[str, Cell]] = ()
    comparisons: Sequence[tuple[Comparison, Standing]] = ()


def _verdict_block(record: StudyRecord, summary: Summary) -> VerdictBlock:
    answer = summary.answer
    if answer.take is None:
        return VerdictBlock(answer)
    row = summary.row(answer.take)
    tiles = [
        (shown.heading, estimate_cell(row.estimates.get(shown.name), shown, row.reasons))
        for shown in shown_columns(summary)
        if shown.name in {f"{summary.part}_{summary.metric}", *_TILES}
    ]
    means = f"means over its {row.n_seeds} seeds" if row.n_seeds > 1 else "its one seed"
    return VerdictBlock(
        answer,
        basis=f"{row.label}, as in the table: {means}."
        + (f" Cross-fitted: {summary.cross_fitted}." if summary.cross_fitted else ""),
        colour=colours(record.methods)[row.label],
        tiles=tiles,
        comparisons=[(c, summary.standing(c)) for c in summary.against_best()],
    )


_TILES = ("train_seconds", "peak_memory_bytes", "artifact_bytes", "latency_p50_seconds")


FIRST_ROWS = 8  # mistakes that are there without a script


class _MistakeRow(TypedDict):
    """A row as the page's script reads it; `said` by each method: class, seeds that agree,
    strength, seeds that tested the row; `words`: from, to, and how far they moved the answer.
    """

    id: str
    text: str
    label: int
    said: list[tuple[int, int, float, int]]
    words: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True, slots=True)
class MistakesBlock:
    """The mistakes as the page's script reads them, and the first of them for those without."""

    wrong: Mistakes
    names: Sequence[str]
    json: str
    first: list[_MistakeRow]


def _mistakes_block(wrong: Mistakes | None) -> MistakesBlock | None:
    if wrong is None:
        return None
    names = short_labels(wrong.methods)
    rows: list[_MistakeRow] = [
        {
            "id": row.id,
            "text": row.text,
            "label": row.label,
            "said": [(s.predicted, s.seeds_agreeing, s.strength, s.seeds) for s in row.said],
            "words": tuple(sorted(row.words)),
        }
        for row in wrong.shown
    ]
    values = {
        "methods": wrong.methods,
        "names": list(names.values()),
        "seeds": wrong.seeds,
        "kinds": wrong.kinds,
        "classes": wrong.class_names,
        "rows": rows,
    }
    return MistakesBlock(wrong, list(names.values()), safe_json(values), rows[:FIRST_ROWS])


# --- the page ---------------------------------------------------------------------------------


def page_template(name: str) -> Template:
    """A template of this package, by its file's name: what it prints is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["first_capital"] = lambda s: s[:1].upper() + s[1:].rstrip(".")
    environment.filters["thousands"] = lambda n: f"{n:,.0f}"
    return environment.get_template(name)


@functools.cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script that sets `window.vegaEmbed`.

    Putting it together takes a second: it is kept for this version of the library.
    """
    version = importlib.metadata.version("vl-convert-python")
    kept = cache.machine_folder() / f"vega-{version}.sealed.js"
    # It is run by whoever reads a report.
    content = None if cache.distrust(kept) else cache.kept(kept)
    if content is None:
        import vl_convert

        content = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).encode()
        cache.keep(kept, content, bounded=False)
    script = content.decode()
    if "</script" in script.lower() or "<!--" in script:
        raise RuntimeError("the chart library cannot stand inside an HTML script element")
    return script
