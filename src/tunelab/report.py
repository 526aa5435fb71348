"""A study -> one HTML file that needs nothing else, and comparison.json.

The report says what `summary` says, shows what `plots` draws, and adds what a reader needs to
argue about it: the data card, provenance, and the command that made it. The scripts that draw the
charts are inside the file; nothing is fetched. Sections without data are absent.

May import: types, store, metrics, summary, plots, and jinja2 and vl_convert inside functions.
May not import: torch, trial, study, cli. Nobody but the command line and `study` imports it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunelab import summary as say
from tunelab.metrics import METRICS, UndefinedMetricError, class_scores, roc_curve
from tunelab.plots import PLOTS, CurvePoint, Plot, PlotData, Roc, colours
from tunelab.store import StudyRecord, artifact_dir, write_json, write_text
from tunelab.summary import Summary, column, format_estimate, summarise
from tunelab.types import Estimate, Predictions, TrialResult

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["plot_data", "render", "write_comparison", "write_report"]

ROC_POINTS = 101
MOST_CLASSES = 50  # rows of the per-class table; the rest is in the predictions
OTHER_SCORES = ("f1_macro", "f1_weighted", "mcc", "roc_auc", "log_loss", "ece")


def write_report(record: StudyRecord, path: Path, summary: Summary | None = None) -> Path:
    """Write the report of a study: one HTML file. `summary` where it has been made already."""
    write_text(path, render(record, summary or summarise(record)))
    return path


def write_comparison(record: StudyRecord, path: Path, summary: Summary | None = None) -> Path:
    """Write comparison.json: the table with intervals, all pairs, the sentences and warnings."""
    write_json(path, say.to_json(summary or summarise(record)))
    return path


def render(record: StudyRecord, summary: Summary) -> str:
    """The report as HTML text. The same study gives the same text."""
    data = plot_data(record, summary)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            record=record,
            summary=summary,
            title=_title(record),
            verdict=_verdict(record, summary),
            scores=_score_table(summary, say.shown_columns(summary), data),
            other_scores=_score_table(summary, _other_columns(summary), data),
            figures=_figures(data),
            classes=_class_table(record, summary),
            card=_data_card(record.data),
            provenance=_provenance(record),
            use=_how_to_use(record, summary),
            settings=_settings(record),
            bundle=_bundle,
        )
    )


# --- values for the plots ---------------------------------------------------------------------


def plot_data(record: StudyRecord, summary: Summary) -> PlotData:
    """Everything that the plots of a study draw."""
    metric = METRICS[summary.metric]
    split = {"test": "test", "eval": "validation"}[summary.part]
    key = f"{summary.part}_{summary.metric}"
    names = tuple(str(n) for n in record.data["label_names"])
    trials = [r for r in record.done if r.spec.method.label in record.methods]
    histories = {r.spec.trial_id: record.history(r.spec.trial_id) for r in trials}
    return PlotData(
        methods=record.methods,
        seeds={r.label: r.n_seeds for r in summary.rows},
        metric=metric.label,
        percent=metric.percent,
        higher_is_better=metric.higher_is_better,
        part=split,
        best=summary.best,
        scores=_estimates(summary, key),
        seconds=_estimates(summary, "train_seconds"),
        differences=summary.against_best(),
        loss=_points(trials, histories, "loss"),
        validation=_points(trials, histories, f"eval_{summary.metric}"),
        roc=_rocs(record, summary, split, len(names)),
        confusion=_confusions(trials, split),
        class_names=names,
    )


def _estimates(summary: Summary, key: str) -> dict[str, Estimate]:
    return {r.label: e for r in summary.rows if (e := r.estimates.get(key)) is not None}


def _points(
    trials: Sequence[TrialResult], histories: Mapping[str, Sequence[Mapping[str, Any]]], key: str
) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(r.spec.method.label, r.spec.seed, float(row["epoch"]), float(row[key]))
        for r in trials
        for row in histories[r.spec.trial_id]
        if row.get(key) is not None
    )


def _rocs(record: StudyRecord, summary: Summary, split: str, k: int) -> dict[str, Roc]:
    """Mean curve over seeds (and over classes, one against the rest), at fixed false alarms."""
    found = {}
    for label in record.methods:
        area = summary.row(label).estimates.get(f"{summary.part}_roc_auc")
        if area is None:
            continue
        trials = [r for r in record.done if r.spec.method.label == label]
        predictions = [record.predictions(r.spec.trial_id)[split] for r in trials]
        grid = np.linspace(0, 1, ROC_POINTS)
        try:
            curves = [c for p in predictions for c in _curves(p, k, grid)]
        except UndefinedMetricError:
            continue
        mean = np.mean(curves, axis=0)
        # Curves start at (0, 0); the grid's first value is the hits without any false alarm.
        found[label] = Roc([0.0, *grid.tolist()], [0.0, *mean.tolist()], area.value)
    return found


def _curves(p: Predictions, k: int, grid: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """True positive rates on a grid of false positive rates, a curve a class."""
    out = []
    for c in [1] if k == 2 else range(k):
        false_alarms, hits = roc_curve(p.labels == c, class_scores(p, c), points=None)
        # At a jump the upper end counts: np.interp takes the last of equal x values.
        out.append(np.interp(grid, false_alarms, hits))
    return out


def _confusions(trials: Sequence[TrialResult], split: str) -> dict[str, list[list[int]]]:
    sums: dict[str, NDArray[np.int64]] = {}
    for r in trials:
        matrix = r.details.get("confusion", {}).get(split)
        if matrix is not None:
            label = r.spec.method.label
            sums[label] = sums.get(label, 0) + np.asarray(matrix, dtype=np.int64)
    return {label: matrix.tolist() for label, matrix in sums.items()}


# --- values for the page ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn plot: what stands around it, and its specification as JSON safe inside HTML."""

    plot: Plot
    heading: str
    subtitle: str
    alternative: str
    spec: str
    place: Literal["wide", "half", "alone"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A number in a table: `text` and its `spread`, what it sorts by, and what a pointer shows."""

    text: str
    spread: str = ""
    sort: float | None = None
    title: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A method's row in a table: its colour in the charts, whether it was chosen, its cells."""

    label: str
    colour: str
    chosen: bool
    about: str
    cells: list[Cell]


def _figures(data: PlotData) -> list[Figure]:
    drawn = [(p, chart) for p in PLOTS.values() if (chart := p.function(data)) is not None]
    figures = []
    half_open = False
    for i, (plot, chart) in enumerate(drawn):
        spec = chart.to_dict()
        # The page has its own headings, which screen readers and the outline know.
        head = spec.pop("title")
        pairs = not plot.wide and (half_open or (i + 1 < len(drawn) and not drawn[i + 1][0].wide))
        figures.append(
            Figure(
                plot=plot,
                heading=head["text"],
                subtitle=head["subtitle"],
                alternative=plot.describe(data),
                spec=safe_json(spec),
                place="wide" if plot.wide else "half" if pairs else "alone",
            )
        )
        half_open = pairs and not half_open
    return figures


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


def _verdict(record: StudyRecord, summary: Summary) -> dict[str, Any]:
    if summary.best is None:
        return {"lead": say.lead(summary), "tiles": [], "comparisons": [], "remarks": []}
    row = summary.row(summary.best)
    against = summary.against_best()
    tiles = [
        (shown.heading, _cell(row.estimates.get(shown.name), shown, row.reasons))
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


def _other_columns(summary: Summary) -> list[say.Column]:
    names = [f"{summary.part}_{m}" for m in OTHER_SCORES if m != summary.metric]
    return [column(n) for n in names if any(r.estimates.get(n) for r in summary.rows)]


def _score_table(
    summary: Summary, shown: Sequence[say.Column], data: PlotData
) -> dict[str, Any] | None:
    if not shown or not any(r.n_seeds for r in summary.rows):
        return None
    palette = colours(data.methods)
    rows = [
        TableRow(
            r.label,
            palette[r.label],
            r.label == summary.best,
            _about(r),
            [_cell(r.estimates.get(c.name), c, r.reasons) for c in shown],
        )
        for r in summary.rows
    ]
    return {"columns": shown, "rows": rows}


def _about(row: say.Row) -> str:
    settings = ", ".join(f"{k}={v}" for k, v in row.settings.items())
    seeds = f"{row.n_seeds} seed{'' if row.n_seeds == 1 else 's'}"
    failed = f"{row.n_failed} failed" if row.n_failed else ""
    return " · ".join(part for part in (settings, seeds, failed) if part)


def _cell(estimate: Estimate | None, shown: say.Column, reasons: Mapping[str, str]) -> Cell:
    if estimate is None:
        return Cell(say.MISSING, title=reasons.get(shown.name, "not measured"))
    bare = format_estimate(replace(estimate, low=None, high=None), shown.kind)
    _, _, spread = format_estimate(estimate, shown.kind).partition(" ± ")
    return Cell(bare, f"± {spread}" if spread else "", estimate.value, estimate.procedure)


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
        for n in names[:MOST_CLASSES]
    ]
    return {
        "lead": lead,
        "labels": list(scores),
        "rows": rows,
        "split": split,
        "left_out": len(names) - len(rows),
    }


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
        "labels": labels[:MOST_CLASSES],
        "labels_left_out": max(0, len(labels) - MOST_CLASSES),
        "parts_with_counts": [p for p in sizes if p in counts],
        "notes": card.get("notes", ()),
        "samples": list(card.get("samples", {}).items())[:MOST_CLASSES],
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


def _provenance(record: StudyRecord) -> list[tuple[str, str]]:
    """What is known of how the study was made; values that differ between trials side by side."""
    seen: dict[str, dict[str, None]] = {}
    for r in record.results:
        for key, value in _flat({k: v for k, v in r.provenance.items() if k not in _PER_TRIAL}):
            seen.setdefault(key, {})[str(value)] = None
        if r.spec.base:
            seen.setdefault("base model", {})[r.spec.base.name] = None
    started = sorted(str(r.provenance["started"]) for r in record.results if _started(r))
    rows = [("tunelab", str(record.settings["tunelab"]))] if "tunelab" in record.settings else []
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


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, item in value.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(item, Mapping):
            # "versions: torch" says no more than "torch".
            rows += _flat(item, "" if key in {"versions", "hardware"} else f"{key} ")
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


def _settings(record: StudyRecord) -> str:
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
    environment.filters["thousands"] = lambda n: f"{n:,.0f}"
    return environment


@functools.cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script that sets `window.vegaEmbed`."""
    import vl_convert

    script = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    if "</script" in script.lower() or "<!--" in script:
        raise RuntimeError("the chart library cannot stand inside an HTML script element")
    return script
