"""A study -> one HTML file that needs nothing else, and comparison.json.

The report says what `summary` says, shows what `plots` draws, and adds what a reader needs to
argue about it: the data card, provenance, and the command that made it. The scripts that draw the
charts are inside the file; nothing is fetched. Sections without data are absent.

May import: types, store, cache, metrics, summary, plots, and altair, jinja2 and vl_convert inside
functions.
May not import: torch, trial, study, cli. Nobody but the command line and `study` imports it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tunelab import cache, evidence, sensitivity, tradeoff, versus
from tunelab import summary as say
from tunelab.evidence import Mistakes
from tunelab.plots import PLOTS, Plot, PlotData, colours, dashes, shapes
from tunelab.racing import RaceRecord, race_from_json
from tunelab.store import StudyRecord, artifact_dir, write_json, write_text
from tunelab.summary import Summary, column, format_estimate, summarise
from tunelab.tuning import TuningRecord, tuning_from_json
from tunelab.types import Estimate, TrialResult
from tunelab.versus import Versus

if TYPE_CHECKING:
    from jinja2 import Environment

    from tunelab.stats import Runs

__all__ = ["prepare_page", "render", "safe_json", "write_comparison", "write_report"]

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
    "use": "Use the model",
    "made": "How it was made",
}
"""Sections in the order of a reader, by id; those without data are absent."""

MOST_CLASS_ROWS = 50  # rows of the per-class table; the rest is in the predictions


def write_report(
    record: StudyRecord,
    path: Path,
    summary: Summary | None = None,
    texts: Mapping[str, str] | None = None,
    *,
    refresh: int | None = None,
    against: Versus | None = None,
) -> Path:
    """Write the report of a study: one HTML file. `summary` where it has been made already.

    `texts` by row id: with them the report shows the mistakes; None takes those that the study
    keeps. `refresh`:
    the page loads itself again after so many seconds, while a study runs. `against`: another study.
    """
    write_text(
        path, render(record, summary or summarise(record), texts, refresh=refresh, against=against)
    )
    return path


def write_comparison(record: StudyRecord, path: Path, summary: Summary | None = None) -> Path:
    """Write comparison.json: the table with intervals, all pairs, the sentences and warnings."""
    write_json(path, say.to_json(summary or summarise(record)))
    return path


def render(
    record: StudyRecord,
    summary: Summary,
    texts: Mapping[str, str] | None = None,
    *,
    refresh: int | None = None,
    against: Versus | None = None,
) -> str:
    """The report as HTML text. The same study gives the same text."""
    runs = say.read_runs(record)
    split = evidence.split_of(summary)
    found = {m: list(runs[split][m].by_seed.values()) for m in record.methods if m in runs[split]}
    data = evidence.plot_data(record, summary, found)
    texts = evidence.scored_texts(record) if texts is None else texts
    wrong = evidence.mistakes(record, summary, texts, found)
    figures = _figures(data)
    classes = _class_table(record, summary)
    use = _how_to_use(record, summary)
    blocks = _blocks_by_section(record, summary, data, runs)
    there = {
        *figures,
        *blocks,
        *(["results"] if any(r.n_seeds for r in summary.rows) else []),
        *(["confusion"] if classes else []),
        *(["mistakes"] if wrong else []),
        *(["versus"] if against else []),
        *(["failed"] if record.failed else []),
        *(["use"] if use else []),
        *("data", "made"),
    }
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            record=record,
            summary=summary,
            refresh=refresh,
            title=_title(record),
            verdict=_verdict_values(record, summary),
            scores=_score_table(summary, data),
            methods=_method_keys(data),
            figures=figures,
            contents=[(i, name) for i, name in SECTIONS.items() if i in there],
            classes=classes,
            mistakes=_mistakes(wrong),
            against=against,
            versus=versus.rows(against) if against else None,
            card=_data_card(record.data),
            gate=record.gate,
            blocks=blocks,
            provenance=_provenance_table(record),
            use=use,
            again=_commands(record),
            settings=_settings_as_yaml(record),
            bundle=_bundle,
        )
    )


def prepare_page() -> None:
    """Have ready what is the same in every report: seconds, which need not be spent at the end."""
    import altair  # noqa: F401

    _bundle()


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
    """A method as the bar above the charts shows it: its colour, shape and dashes."""

    label: str
    colour: str
    shape: str
    dash: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A number in a table: `text` and its `spread`, what it sorts by, and what a pointer shows."""

    text: str
    spread: str = ""
    sort: float | None = None
    title: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column that a reader can show or hide; those of one `group` stand together."""

    name: str
    heading: str
    about: str
    group: str
    shown: bool


@dataclass(frozen=True, slots=True)
class TableRow:
    """A method's row in a table: its colour in the charts, whether it was chosen, its cells."""

    label: str
    colour: str
    chosen: bool
    about: str
    cells: list[Cell]


def _figures(data: PlotData) -> dict[str, list[Figure]]:
    """What can be drawn, by section; two figures that are not wide stand side by side."""
    from altair.utils import schemapi

    drawn: dict[str, list[tuple[Plot, dict[str, Any]]]] = {}
    # A third of a report's time went into holding every part of every chart against Vega-Lite's
    # schema; the plots are ours, and their tests do that.
    with schemapi.debug_mode(False):
        for plot in PLOTS.values():
            charts: Mapping[str, Any]
            if plot.choices is not None:
                charts = plot.choices(data)
            else:
                chart = plot.function(data)
                charts = {} if chart is None else {"": chart}
            if charts:
                specs = {label: chart.to_dict(validate=False) for label, chart in charts.items()}
                drawn.setdefault(plot.section, []).append((plot, specs))
    return {section: _in_place(found, data) for section, found in drawn.items()}


def _in_place(drawn: Sequence[tuple[Plot, dict[str, Any]]], data: PlotData) -> list[Figure]:
    figures = []
    half_open = False
    for i, (plot, specs) in enumerate(drawn):
        pairs = not plot.wide and (half_open or (i + 1 < len(drawn) and not drawn[i + 1][0].wide))
        variants = []
        for label, spec in specs.items():
            # The page has its own headings, which screen readers and the outline know.
            head = spec.pop("title")
            variants.append(
                {
                    "label": label,
                    "heading": head["text"],
                    "subtitle": head["subtitle"],
                    "spec": spec,
                }
            )
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


@dataclass(frozen=True, slots=True)
class Block:
    """A table with sentences, below the charts of a section."""

    title: str
    about: str = ""
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    sentences: Sequence[str] = ()


def _blocks_by_section(
    record: StudyRecord,
    summary: Summary,
    data: PlotData,
    runs: Mapping[str, Mapping[str, Runs]],
) -> dict[str, list[Block]]:
    """What is said in words and tables, by section."""
    found: dict[str, list[Block]] = {}
    if len(summary.rows) > 1 and summary.best is not None:
        found["tradeoff"] = _tradeoff(record, summary)
    if summary.best is not None:
        key = f"{summary.part}_{summary.metric}"
        matter = [_settings_that_matter(s) for s in sensitivity.analyse(record, key) if s.effects]
        found |= {"sensitivity": matter} if matter else {}
    if data.part == "test" and data.reliability:
        found["calibration"] = [_calibration(runs)]
    if data.slices:
        found["slices"] = [_slices(data)]
    if record.curves and record.curves["crossings"]:
        said = [str(c["sentence"]) for c in record.curves["crossings"]]
        found.setdefault("learning", []).append(Block("Where methods cross", sentences=said))
    if record.tuning:
        found.setdefault("sensitivity", []).append(_tuning_block(tuning_from_json(record.tuning)))
    if record.race:
        found["race"] = [_race_block(race_from_json(record.race))]
    return found


def _tradeoff(record: StudyRecord, summary: Summary) -> list[Block]:
    """What to take where a point may be lost, and who is beaten in both score and cost."""
    advice = tradeoff.recommend(record, summary=summary)
    front = tradeoff.front(record, summary=summary)
    score, cost = column(f"{front.part}_{front.metric}"), column(front.cost)
    rows = [
        [
            p.label,
            format_estimate(p.score, score.kind),
            format_estimate(p.cost, cost.kind),
            "yes" if p.on_front else "no",
            say.MISSING if p.probability is None else f"{100 * p.probability:.0f}%",
            p.beaten_by or say.MISSING,
        ]
        for p in front.places
    ]
    return [
        Block(
            "What to take",
            "The cheapest method that is shown to lose less than one point against the best.",
            sentences=[f"{advice.sentence}.", *advice.conditions],
        ),
        Block(
            "Who is beaten in both",
            "On the front: no other method is at least as good in both and better in one. How "
            "surely: the share of draws of other seeds and test rows in which that is so.",
            ["Method", score.heading, cost.heading, "On the front", "How surely", "Beaten by"],
            rows,
        ),
    ]


def _settings_that_matter(s: sensitivity.Sensitivity) -> Block:
    headings, rows = sensitivity.display(s)
    return Block(
        f"What the settings of {s.method} do",
        f"By {s.procedure}: how much of the variance of single trials each setting explains.",
        headings,
        rows,
        [f"{x}." for x in (*s.sentences, *s.notes)],
    )


def _calibration(runs: Mapping[str, Mapping[str, Runs]]) -> Block:
    """Calibration error and Brier score, before and after temperature scaling."""
    from tunelab.calibration import calibrate_all, calibration_sentence

    found = [c for c in calibrate_all(runs["validation"], runs["test"]) if c.before is not None]
    rows = []
    for c in found:
        both = (c.before, c.after)
        rows.append(
            [
                c.label,
                *(format_estimate(q.ece if q else None, "percent") for q in both),
                *(format_estimate(q.brier if q else None, "number") for q in both),
                ", ".join(f"{t:.2f}" for t in c.temperatures.values()) or say.MISSING,
            ]
        )
    return Block(
        "Before and after temperature scaling",
        "A temperature is fitted on validation, one a seed, and applied to test (Guo et al. 2017). "
        "Above 1 the model was too sure. No class changes.",
        [
            "Method",
            "Calibration error, %",
            "after scaling",
            "Brier score",
            "after scaling",
            "Temperatures",
        ],
        rows,
        [calibration_sentence(c) for c in found][:4] if len(found) <= 4 else [],
    )


MOST_SLICES = 12


def _slices(data: PlotData) -> Block:
    """The slices that truly differ from the rest, the weakest first."""
    named = sorted((s for s in data.slices if s.named), key=lambda s: s.accuracy.value)
    rows = [
        [s.method, f"{s.column}: {s.value}", f"{s.rows:,}", format_estimate(s.accuracy, "percent")]
        for s in named[:MOST_SLICES]
    ]
    total = len(data.slices)
    said = (
        f"{len(named)} of {total:,} slices truly differ from the rest of their method's rows, "
        "after Holm's correction over all of them"
        if named
        else f"None of {total:,} slices is shown to differ from the rest of its method's rows"
    )
    return Block(
        "Slices that truly differ",
        "Only these may be spoken of; the others may be chance.",
        ["Method", "Slice", "Rows", "Accuracy, %"] if rows else (),
        rows,
        [said],
    )


def _tuning_block(tuning: TuningRecord) -> Block:
    """Every setting that was tried, and what each method chose."""
    rows = []
    for label, method in tuning.methods.items():
        for t in method.tries:
            settings = ", ".join(f"{k}={v}" for k, v in t.settings.items())
            shown = f"{t.value:.4f}" if t.value is not None else str(t.error or t.status)
            mark = "chosen" if dict(t.settings) == dict(method.chosen) else ""
            rows.append([label, settings, str(t.seed), shown, mark])
    return Block(
        "Every setting that was tried",
        f"By {tuning.metric} on validation, the same budget for every method.",
        ["Method", "Settings", "Seed", "Validation", "Chosen"],
        rows,
        [f"{label}: {m.reason}." for label, m in tuning.methods.items() if m.reason],
    )


def _race_block(record: RaceRecord) -> Block:
    """Who was dropped when, and what that saved."""
    rows = [
        [d.label, str(d.round), str(d.seeds), d.leader, d.sentence] for d in record.race.dropped
    ]
    saved = record.trials_full - record.trials_run
    said = [
        record.statement,
        f"{record.trials_run} of {record.trials_full} trials were run; "
        f"about {say.format_seconds(record.seconds_saved)} were saved"
        if saved
        else f"all {record.trials_run} trials were run",
    ]
    return Block(
        "Race",
        "Configurations that were behind with confidence got no further seeds.",
        ["Dropped", "Round", "Seeds", "Leader", "Why"],
        rows,
        said,
    )


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
        MethodKey(m, colour[m], _OUTLINES[shape[m]], " ".join(map(str, dash[m])))
        for m in data.methods
    ]


def safe_json(value: Any) -> str:
    """JSON that stays JSON inside a script element, whatever texts and labels say.

    An HTML parser ends a script at "</script" and changes its mode at "<!--"; U+2028 and U+2029
    end a line in older JavaScript. All are written as JSON escapes.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _title(record: StudyRecord) -> str:
    name = record.data.get("name") or record.settings.get("data", {}).get("source", "this data")
    return f"Which way of fine-tuning is worth it on {name}?"


def _verdict_values(record: StudyRecord, summary: Summary) -> dict[str, Any]:
    if summary.best is None:
        return {"lead": say.lead(summary), "tiles": [], "comparisons": [], "remarks": []}
    row = summary.row(summary.best)
    against = summary.against_best()
    tiles = [
        (shown.heading, _estimate_cell(row.estimates.get(shown.name), shown, row.reasons))
        for shown in say.shown_columns(summary)
        if shown.name in {f"{summary.part}_{summary.metric}", *_TILES}
    ]
    return {
        "lead": say.lead(summary),
        "basis": "Chosen by its mean on validation; the numbers below are from "
        + ("test, which chose nothing." if summary.part == "test" else "validation too."),
        "colour": colours(record.methods)[row.label],
        "tiles": tiles,
        "comparisons": against,
        "remarks": summary.sentences[len(against) :],
    }


_TILES = ("train_seconds", "peak_memory_bytes", "artifact_bytes", "latency_p50_seconds")


def _score_table(summary: Summary, data: PlotData) -> dict[str, Any] | None:
    """Every score and cost of every method; the columns that people read most are shown first."""
    if not any(r.n_seeds for r in summary.rows):
        return None
    shown = [c.name for c in say.shown_columns(summary)]
    present = [n for r in summary.rows for n, e in r.estimates.items() if e is not None]
    names = list(dict.fromkeys([*shown, *present]))
    groups = {name: _group(name) for name in names}
    order = list(_GROUPS)
    names.sort(key=lambda n: (order.index(groups[n]), n not in shown))
    columns = [
        TableColumn(n, column(n).heading, column(n).about, groups[n], n in shown) for n in names
    ]
    palette = colours(data.methods)
    rows = [
        TableRow(
            r.label,
            palette[r.label],
            r.label == summary.best,
            _method_facts(r),
            [_estimate_cell(r.estimates.get(n), column(n), r.reasons) for n in names],
        )
        for r in summary.rows
    ]
    by_group = {g: [c for c in columns if c.group == g] for g in order}
    return {
        "columns": columns,
        "rows": rows,
        "groups": {g: cs for g, cs in by_group.items() if cs},
    }


_GROUPS = ("Scores on test", "Scores on validation", "Costs")


def _group(name: str) -> str:
    part = name.partition("_")[0]
    return {"test": _GROUPS[0], "eval": _GROUPS[1]}.get(part, _GROUPS[2])


def _method_facts(row: say.Row) -> str:
    settings = ", ".join(f"{k}={v}" for k, v in row.settings.items())
    seeds = f"{row.n_seeds} seed{'' if row.n_seeds == 1 else 's'}"
    failed = f"{row.n_failed} failed" if row.n_failed else ""
    return " · ".join(part for part in (settings, seeds, failed) if part)


def _estimate_cell(
    estimate: Estimate | None, shown: say.Column, reasons: Mapping[str, str]
) -> Cell:
    if estimate is None:
        return Cell(say.MISSING, title=reasons.get(shown.name, "not measured"))
    bare = format_estimate(replace(estimate, low=None, high=None), shown.kind)
    _, _, spread = format_estimate(estimate, shown.kind).partition(" ± ")
    if not spread and "[" in (whole := format_estimate(estimate, shown.kind)):
        spread = whole[whole.index("[") : whole.index("]") + 1]  # lopsided
    elif spread:
        spread = f"± {spread}"
    low, high = (None, None) if estimate.low == estimate.high else (estimate.low, estimate.high)
    return Cell(bare, spread, estimate.value, estimate.procedure, low, high)


def _class_table(record: StudyRecord, summary: Summary) -> dict[str, Any] | None:
    """F1 of each class and method, mean over seeds; the classes that do worst first."""
    split = {"test": "test", "eval": "validation"}[summary.part]
    names = [str(n) for n in record.data["label_names"]]
    scores = {
        r.label: [
            t.details["per_class"][split]
            for t in record.done
            if t.spec.method.label == r.label and split in t.details.get("per_class", {})
        ]
        for r in summary.rows
    }
    scores = {label: found for label, found in scores.items() if found}
    if not scores:
        return None

    def mean(label: str, name: str, what: str) -> float:
        values = [s[name][what] for s in scores[label] if name in s]
        return float(np.mean(values)) if values else 0.0

    lead = summary.best if summary.best in scores else next(iter(scores))
    names.sort(key=lambda n: mean(lead, n, "f1"))
    rows = [
        {
            "name": n,
            "support": int(mean(lead, n, "support")),
            "precision": say.format_percent(mean(lead, n, "precision")),
            "recall": say.format_percent(mean(lead, n, "recall")),
            "f1": [say.format_percent(mean(label, n, "f1")) for label in scores],
        }
        for n in names[:MOST_CLASS_ROWS]
    ]
    return {
        "lead": lead,
        "labels": list(scores),
        "rows": rows,
        "split": split,
        "left_out": len(names) - len(rows),
    }


FIRST_ROWS = 8  # mistakes that are there without a script


def _mistakes(found: Mistakes | None) -> dict[str, Any] | None:
    """The mistakes as the page's script reads them, and the first of them for those without."""
    if found is None:
        return None
    rows = [
        {
            "id": row.id,
            "text": row.text,
            "label": row.label,
            "said": [[s.predicted, s.seeds_agreeing, s.strength] for s in row.said],
        }
        for row in found.shown
    ]
    values = {
        "methods": found.methods,
        "seeds": found.seeds,
        "kinds": found.kinds,
        "classes": found.class_names,
        "rows": rows,
    }
    return {"found": found, "json": safe_json(values), "first": rows[:FIRST_ROWS]}


def _commands(record: StudyRecord) -> str:
    """The commands that make the study again, continue it, and write this report anew."""
    folder = _near(record.directory)
    study = _quoted((folder / "study.yaml").as_posix())
    lines = []
    if record.settings.get("command", "").startswith("tunelab "):
        lines += ["# as it was run", str(record.settings["command"]), ""]
    lines += [
        "# the same study from its resolved settings; only what is missing is run",
        f"tunelab compare {study}",
        "",
        "# this report again",
        f"tunelab report {_quoted(folder.as_posix())}",
    ]
    return "\n".join(lines)


def _data_card(card: Mapping[str, Any]) -> dict[str, Any]:
    sizes: Mapping[str, int] = card.get("sizes", {})
    counts: Mapping[str, Mapping[str, int]] = card.get("label_counts", {})
    names = [str(n) for n in card.get("label_names", ())]
    duplicates = card.get("duplicates", {})
    labels = [
        (
            name,
            [
                (counts[p].get(name, 0), say.format_percent(counts[p].get(name, 0) / max(n, 1)))
                for p, n in sizes.items()
                if p in counts
            ],
        )
        for name in names
    ]
    return {
        "sizes": sizes,
        "words": card.get("words", {}),
        "within": duplicates.get("within", {}),
        "across": {k: n for k, n in duplicates.get("across", {}).items() if n},
        "conflicting": duplicates.get("conflicting", 0),
        "examples": duplicates.get("examples", ()),
        "labels": labels[:MOST_CLASS_ROWS],
        "labels_left_out": max(0, len(labels) - MOST_CLASS_ROWS),
        "parts_with_counts": [p for p in sizes if p in counts],
        "notes": card.get("notes", ()),
        "samples": list(card.get("samples", {}).items())[:MOST_CLASS_ROWS],
        "facts": [
            (heading, card[key])
            for key, heading in (
                ("name", "Source"),
                ("revision", "Revision"),
                ("text_column", "Text column"),
                ("label_column", "Label column"),
                ("fingerprint", "Fingerprint (SHA-256)"),
            )
            if card.get(key)
        ],
    }


def _provenance_table(record: StudyRecord) -> list[tuple[str, str]]:
    """What is known of how the study was made; values that differ between trials side by side."""
    seen: dict[str, dict[str, None]] = {}
    for r in record.results:
        for key, value in _flattened_facts(
            {k: v for k, v in r.provenance.items() if k not in _PER_TRIAL}
        ):
            seen.setdefault(key, {})[str(value)] = None
        if r.spec.base and not r.provenance.get("base"):
            seen.setdefault("base name", {})[r.spec.base.name] = None
    started = sorted(str(r.provenance["started"]) for r in record.results if _started(r))
    rows = []
    if "tunelab" in record.settings and "tunelab" not in seen:
        rows.append(("tunelab", str(record.settings["tunelab"])))
    if started:
        rows.append(("first trial started", started[0]))
        rows.append(("last trial started", started[-1]))
    seconds = [r.provenance["seconds"] for r in record.results if "seconds" in r.provenance]
    if seconds:
        rows.append((f"time of {len(seconds)} trials", say.format_seconds(sum(seconds))))
    return rows + [(key, ", ".join(values)) for key, values in seen.items()]


_PER_TRIAL = frozenset({"started", "seconds"})


def _started(result: TrialResult) -> bool:
    return bool(result.provenance.get("started"))


def _flattened_facts(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, item in value.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(item, Mapping):
            # "versions: torch" says no more than "torch".
            rows += _flattened_facts(item, "" if key in {"versions", "hardware"} else f"{key} ")
        elif isinstance(item, list | tuple):
            rows.append((name, ", ".join(map(str, item))))
        elif item is not None:
            # A size; not the package bitsandbytes, whose version ends here too.
            rows.append((name, say.format_bytes(item) if name.endswith(" bytes") else item))
    return rows


def _how_to_use(record: StudyRecord, summary: Summary) -> dict[str, str] | None:
    best = say.best_trial(record, summary)
    if best is None:
        return None
    folder = artifact_dir(_near(record.directory), best.spec.trial_id).as_posix()
    return {
        "label": best.spec.method.label,
        "seed": str(best.spec.seed),
        "shell": f'tunelab predict {_quoted(folder)} "a quiet, wonderful film"',
        "python": "import tunelab\n\n"
        f"classifier = tunelab.load({json.dumps(folder, ensure_ascii=False)})\n"
        'classifier.predict(["a quiet, wonderful film"])\n'
        'classifier.predict_proba(["a quiet, wonderful film"])',
    }


def _near(directory: Path) -> Path:
    """The folder as seen from here, so that a report says nothing of the machine where it can."""
    here = Path.cwd()
    return directory.relative_to(here) if directory.is_relative_to(here) else directory


def _quoted(path: str) -> str:
    return path if re.fullmatch(r"[\w./+@:-]+", path) else "'" + path.replace("'", "'\\''") + "'"


def _settings_as_yaml(record: StudyRecord) -> str:
    import yaml

    shown = {k: v for k, v in record.settings.items() if k != "trials"}
    return str(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))


# --- the page ---------------------------------------------------------------------------------


def _environment() -> Environment:
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
    return environment


@functools.cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script that sets `window.vegaEmbed`.

    Putting it together takes a second: it is kept for this version of the library.
    """
    version = importlib.metadata.version("vl-convert-python")
    kept = cache.machine_folder() / f"vega-{version}.js"
    script = ""
    with suppress(OSError, UnicodeDecodeError):
        script = kept.read_text(encoding="utf-8")
    if "window.vegaEmbed=" not in script[-100:]:
        import vl_convert

        script = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
        with suppress(OSError):  # a cache that cannot be written costs a second
            cache.replace(kept, script.encode())
    if "</script" in script.lower() or "<!--" in script:
        raise RuntimeError("the chart library cannot stand inside an HTML script element")
    return script
