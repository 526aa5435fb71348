"""A study for a paper: tables in Markdown, CSV and LaTeX, figures, and a lab report in Markdown.

The lab report has the parts of one (introduction, data, method, results, discussion), and every
sentence in it comes from the study's numbers: `summary` says them, and nothing else is claimed.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tunelab.analysis import Summary, numbers
from tunelab.analysis.folds import rows_in_words
from tunelab.analysis.markdown import in_markdown, table_lines
from tunelab.analysis.summary import shown_columns, summary_for_display, table_legend
from tunelab.core.cells import safe_cell
from tunelab.core.files import write_bytes, write_text
from tunelab.core.study_folder import StudyRecord
from tunelab.core.words import as_one, counted, told_apart
from tunelab.report.charts import PLOTS, PlotData
from tunelab.report.charts.base import capital
from tunelab.stats.metrics import METRICS

__all__ = [
    "FIGURES",
    "TABLES",
    "lab_report",
    "write_figures",
    "write_paper_table",
]


# --- figures ----------------------------------------------------------------------------------


def _svg(spec: Mapping[str, object]) -> bytes:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(dict(spec))).encode()


def _png(spec: Mapping[str, object]) -> bytes:
    import vl_convert

    return bytes(vl_convert.vegalite_to_png(dict(spec), scale=3.0))


def _pdf(spec: Mapping[str, object]) -> bytes:
    import vl_convert

    return bytes(vl_convert.vegalite_to_pdf(dict(spec)))


FIGURES = {"png": _png, "svg": _svg, "pdf": _pdf}
"""Formats of figures: a chart's specification -> the bytes of a file."""


def write_figures(data: PlotData, directory: Path, formats: Sequence[str]) -> list[Path]:
    """Write every chart of a study in every format, on white, for each choice; their paths."""
    written = []
    for plot in PLOTS.values():
        for choice, drawn in plot.charts(data).items():
            name = plot.name.replace("_", "-") + (f"-{_file_stem(choice)}" if choice else "")
            spec = {**drawn.to_dict(), "background": "white"}
            for kind in formats:
                path = directory / f"{name}.{kind}"
                write_bytes(path, FIGURES[kind](spec))
                written.append(path)
    return written


def _file_stem(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


# --- tables -----------------------------------------------------------------------------------


def markdown_table(summary: Summary) -> str:
    """The table as people read it, in GitHub's Markdown."""
    headings, rows = summary_for_display(summary)
    lines = table_lines(headings, ["---", *["--:"] * (len(headings) - 1)], rows)
    return "".join(f"{line}\n" for line in lines)


def csv_table(summary: Summary) -> str:
    """Numbers for programs: a row a method; each score and cost with the ends of its interval.

    Scores in [0, 1], seconds, bytes, counts, as in results.csv.
    """
    names = [
        n
        for n in dict.fromkeys(k for r in summary.rows for k in r.estimates)
        if any(r.estimates.get(n) for r in summary.rows)
    ]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ends = ("", "_low", "_high")
    writer.writerow(["label", "method", "seeds", "failed", *(n + e for n in names for e in ends)])
    for r in summary.rows:
        cells: list[float | None] = []
        for n in names:
            e = r.estimates.get(n)
            cells += [e.value, e.low, e.high] if e else [None, None, None]
        writer.writerow([safe_cell(r.label), r.method, r.n_seeds, r.n_failed, *cells])
    return out.getvalue()


def latex_table(summary: Summary) -> str:
    """The table for a paper, with booktabs: the best mean of every column that ranks is bold."""
    headings, rows = summary_for_display(summary)
    best = _best_cells(summary)
    lines = []
    for i, row in enumerate(rows):
        cells = [latex(c) for c in row]
        lines.append(
            " & ".join(f"\\textbf{{{c}}}" if (i, j) in best else c for j, c in enumerate(cells))
            + r" \\"
        )
    caption = latex(
        f"{table_legend(summary)} Bold: the best mean, whether or not the difference is real."
    )
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,adjustbox}",
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{caption}}}",
            r"\label{tab:tunelab}",
            r"\begin{adjustbox}{max width=\linewidth,max totalheight=0.85\textheight}",
            f"\\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
            r"\toprule",
            " & ".join(latex(h) for h in headings) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{adjustbox}",
            r"\end{table}",
            "",
        ]
    )


def _best_cells(summary: Summary) -> set[tuple[int, int]]:
    """(row, column) of the best mean of each column of scores."""
    cells = set()
    for j, column in enumerate(shown_columns(summary), start=1):
        metric = METRICS.get(column.name.partition("_")[2])
        values = [
            (e.value, i)
            for i, r in enumerate(summary.rows)
            if (e := r.estimates.get(column.name)) is not None
        ]
        if metric is None or len(values) < 2:
            continue
        ends = max(values) if metric.higher_is_better else min(values)
        cells |= {(i, j) for value, i in values if value == ends[0]}
    return cells


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",
    "]": "{]}",
    "±": r"$\pm$",
    numbers.MISSING: "--",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


def latex(text: str) -> str:
    """A text inside LaTeX: every character that means something there is written out."""
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))


TABLES = {
    "markdown": ("table.md", markdown_table),
    "csv": ("table.csv", csv_table),
    "latex": ("table.tex", latex_table),
}
"""Formats of the table: its file, and summary -> text."""


def write_paper_table(summary: Summary, directory: Path, kind: str) -> Path:
    """Write the table of a study in one of TABLES; its path."""
    name, function = TABLES[kind]
    write_text(directory / name, function(summary))
    return directory / name


# --- the lab report ---------------------------------------------------------------------------


def lab_report(
    record: StudyRecord, summary: Summary, data: PlotData, figures: Sequence[str] = ()
) -> str:
    """The study as a lab report in Markdown. `figures`: paths of pictures, seen from the report."""
    parts = [
        f"# Which way of fine-tuning is worth it on {in_markdown(record.data['name'])}?",
        "",
        f"**{in_markdown(summary.answer.sentence)}.**",
        "",
        in_markdown(summary.answer.sure),
        "",
        "## Introduction",
        "",
        _introduction(record, summary),
        "## Data",
        "",
        _data_section(record),
        "## Method",
        "",
        _method_section(record, summary),
        "## Results",
        "",
        markdown_table(summary),
        f"*{table_legend(summary)}*",
        "",
        _results(summary),
        _pictures(data, figures),
        "## Discussion",
        "",
        _discussion(summary, data),
        "## Reproduction",
        "",
        _reproduction(record),
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _introduction(record: StudyRecord, summary: Summary) -> str:
    base = f" on the base model {in_markdown(record.settings['model'])}"
    metric = METRICS[summary.metric].label
    methods = ", ".join(in_markdown(as_one(m)) for m in record.methods)
    return (
        f"{counted(len(record.methods), 'way')} of adapting a classifier{base} were compared by "
        f"{metric}: {methods}. The question is which is worth its cost on these texts, and how "
        "sure that is.\n"
    )


def _data_section(record: StudyRecord) -> str:
    card = record.data
    names, words = told_apart(card["label_names"]), card["words"]["train"]
    classes = ", ".join(in_markdown(as_one(n)) for n in names[:12])
    lines = [f"Rows: {rows_in_words(card)}. Classes: {classes}"]
    lines[0] += f" and {len(names) - 12} more." if len(names) > 12 else "."
    lines.append(
        f"A training text has {counted(round(words['p50']), 'word')} in the median, "
        f"{words['p95']:.0f} at most in 95% of the cases."
    )
    across = {k: n for k, n in card["duplicates"]["across"].items() if n}
    for pair, n in across.items():
        first, _, second = pair.partition("/")
        lines.append(f"{counted(n, 'text')} of {second} also stand in {first}.")
    if not across:
        lines.append("No text stands, letter for letter, in more than one part.")
    notes = [capital(in_markdown(n).rstrip(".")) for n in card["notes"]]
    return " ".join([*lines, *(f"{n}." for n in notes)]) + "\n"


def _method_section(record: StudyRecord, summary: Summary) -> str:
    seeds = sorted({r.n_seeds for r in summary.rows})
    each = counted(seeds[-1], "seed")
    each = each if len(seeds) == 1 else f"{seeds[0]} to {each}"
    text = (
        f"Every method was trained with {each} on the same splits; a seed sets new weights, "
        "the order of the rows and dropout, and is the same for every method. All choices were "
        f"made on validation. The {summary.split} part was scored "
        + ("once, after that. " if summary.part == "test" else "too, as test has no labels. ")
        + "Differences are paired over seeds and rows; p values hold for all "
        "pairs together (step-down minP, Romano and Wolf 2005), and nothing is called better on "
        "too few seeds.\n"
    )
    return f"{text}\n{_settings_table(record, summary)}"


def _settings_table(record: StudyRecord, summary: Summary) -> str:
    """What was set: of each method what is not its default, and what tells it from its kin."""
    origin = record.settings.get("sources", {})
    lines = ["| method | settings |", "|---|---|"]
    seen = {r.spec.method.label: r.spec.method for r in record.results}
    for i, (label, method) in enumerate(seen.items()):
        own = summary.row(label).settings
        shown = {
            k: v
            for k, v in method.settings.items()
            if k in own or not str(origin.get(f"methods.{i}.{k}", "default")).startswith("default")
        }
        settings = ", ".join(f"{k}={v}" for k, v in shown.items())
        lines.append(f"| {in_markdown(label)} | {in_markdown(settings or 'defaults')} |")
    lines += ["", "All other settings are the defaults of the method; study.yaml has every one."]
    return "\n".join(lines) + "\n"


def _results(summary: Summary) -> str:
    against = summary.against_best()
    lines = [f"- {in_markdown(c.sentence).rstrip('.')}." for c in against]
    return "\n" + "\n".join(lines) + "\n" if lines else "\n"


def _pictures(data: PlotData, figures: Sequence[str]) -> str:
    """Each plot once: of several choices, the first."""
    out = []
    for plot in PLOTS.values():
        stem = plot.name.replace("_", "-")
        first = next((f for f in figures if Path(f).stem == stem), None)
        if first is None and plot.choices is not None:
            wanted = [f"{stem}-{_file_stem(choice)}" for choice in plot.choices(data)]
            first = next((f for w in wanted for f in figures if Path(f).stem == w), None)
        if first is not None:
            words = "" if plot.name == "differences" else f" {in_markdown(plot.describe(data))}"
            out.append(f"![{in_markdown(plot.title)}]({first})\n\n*{plot.how_to_read}*{words}\n")
    return "\n".join(out)


def _discussion(summary: Summary, data: PlotData) -> str:
    lines = [f"{in_markdown(summary.answer.sentence)}. {in_markdown(summary.answer.sure)}".rstrip()]
    for cost in data.costs:
        if cost.name in {"train_seconds", "artifact_bytes"} and len(cost.front) > 1:
            names = ", ".join(in_markdown(as_one(m)) for m in cost.front)
            lines.append(f"By {cost.title}, these are not beaten in both score and cost: {names}.")
    caveats = "\n".join(f"- {in_markdown(w)}" for w in summary.warnings)
    text = " ".join(lines) + "\n"
    return f"{text}\nBefore these numbers are relied on:\n\n{caveats}\n" if caveats else text


def _reproduction(record: StudyRecord) -> str:
    lines = []
    if record.settings["command"].startswith("tunelab "):
        lines = ["```", record.settings["command"], "```", ""]
    versions: dict[str, None] = {}
    for r in record.results:
        for k, v in r.provenance.versions.items():
            versions[f"{k} {v}"] = None
    lines += [
        f"- data (SHA-256): `{record.data['fingerprint']}`",
        f"- versions: {', '.join(versions)}",
    ]
    return "\n".join(lines) + "\n"
