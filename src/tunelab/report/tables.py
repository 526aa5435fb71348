"""The report's tables: what stands in each cell, ready for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from tunelab.analysis import Summary, numbers, sensitivity, setting_effects, verdict
from tunelab.analysis.abstaining import abstaining_for_display, abstaining_of
from tunelab.analysis.calibrations import calibrate_study
from tunelab.analysis.curves import curves_from_json
from tunelab.analysis.folds import fold_in_words, rows_in_words
from tunelab.analysis.front import front, front_for_display
from tunelab.analysis.numbers import column, format_estimate, format_spread
from tunelab.analysis.probabilities import (
    Probabilities,
    judge_probabilities,
    probabilities_for_display,
)
from tunelab.analysis.summary import shown_columns, table_legend
from tunelab.analysis.winners_forms import (
    forms_about,
    forms_for_display,
    reasons_of_refusal,
    winners_forms,
)
from tunelab.core.cards import DataCard
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Estimate
from tunelab.core.words import agreeing, counted, told_apart
from tunelab.report.charts import PlotData, colours
from tunelab.report.classes import MOST_CLASS_ROWS
from tunelab.stats.calibration import calibration_sentence
from tunelab.stats.choosing import TuningRecord, tuning_from_json
from tunelab.stats.metrics import METRICS
from tunelab.stats.racing import RaceRecord, race_from_json

if TYPE_CHECKING:
    from tunelab.core.cards import DuplicateExample, LengthFigures
    from tunelab.core.forms import StudyExports
    from tunelab.stats import Runs

__all__ = [
    "Cell",
    "blocks_by_section",
    "data_card_block",
    "estimate_cell",
    "score_table",
]


MOST_SENTENCES = 4  # of methods, one each, below a table


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
    """A method's row in a table: its name and colour as in the charts, its cells; `tag` where it
    stands out.
    """

    label: str
    name: str
    colour: str
    tag: str
    about: str
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Block:
    """A table with sentences, below the charts of a section."""

    title: str
    about: str = ""
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    sentences: Sequence[str] = ()


def blocks_by_section(
    record: StudyRecord,
    summary: Summary,
    data: PlotData,
    runs: Mapping[str, Mapping[str, Runs]],
    probabilities: Probabilities | None = None,
) -> dict[str, list[Block]]:
    """What is said in words and tables, by section.

    `probabilities`: whose are better, where it has been judged already.
    """
    blocks: dict[str, list[Block]] = {}
    if len(summary.rows) > 1 and summary.best is not None:
        blocks["tradeoff"] = _tradeoff(record, summary)
    if summary.best is not None:
        key = f"{summary.part}_{summary.metric}"
        matter = [_settings_that_matter(s) for s in sensitivity.analyse(record, key) if s.effects]
        blocks |= {"sensitivity": matter} if matter else {}
    if data.part == "test" and data.reliability:
        judged = probabilities or judge_probabilities(record, runs)
        blocks["calibration"] = [
            _calibration(record, runs),
            *_whose_probabilities(judged),
            *_abstaining(runs),
        ]
    if data.slices:
        blocks["slices"] = [_slices(data)]
    curves = record.parsed("curves", curves_from_json)
    if curves is not None and curves.crossings:
        said = [c.sentence for c in curves.crossings]
        blocks.setdefault("learning", []).append(Block("Where methods cross", sentences=said))
    if (tuned := record.parsed("tuning", tuning_from_json)) is not None:
        blocks.setdefault("sensitivity", []).append(_tuning_block(tuned))
    if (race := record.parsed("race", race_from_json)) is not None:
        blocks["race"] = [_race_block(race)]
    if (made := winners_forms(record)) is not None:
        blocks["forms"] = [_forms_block(made)]
    return blocks


def _forms_block(made: StudyExports) -> Block:
    headings, rows = forms_for_display(made)
    reasons = [f"{x.removesuffix('.')}." for x in reasons_of_refusal(made)]
    return Block(
        "The best classifier in other forms", f"{forms_about(made)}.", headings, rows, reasons
    )


def _tradeoff(record: StudyRecord, summary: Summary) -> list[Block]:
    """What to take where a point may be lost, and who is beaten in both score and cost."""
    advice = summary.advice
    pareto = front(record, summary=summary)
    headings, rows = front_for_display(pareto)
    return [
        Block(
            "What to take",
            "The cheapest method that is shown to lose less than one point against the best.",
            sentences=[
                f"{advice.sentence}.",
                *(f"{x}." for x in advice.reasons),
                *advice.conditions,
            ],
        ),
        Block(
            "Who is beaten in both",
            "On the front: by the means, no other method is at least as good in both and better in "
            "one. In brackets how surely: the share of draws of other seeds and test rows in which "
            "that is so, from six seeds on. Surely beaten: by a method that is shown to be better, "
            "and whose cost surely is smaller.",
            headings,
            rows,
            [f"{x}." for x in pareto.sentences],
        ),
    ]


def _settings_that_matter(s: setting_effects.Sensitivity) -> Block:
    headings, rows = sensitivity.sensitivity_for_display(s)
    return Block(
        f"What the settings of {s.method} do",
        f"By {s.procedure}: how much of the variance of single trials each setting explains.",
        headings,
        rows,
        [f"{x}." for x in (*s.sentences, *s.notes)],
    )


def _calibration(record: StudyRecord, runs: Mapping[str, Mapping[str, Runs]]) -> Block:
    """Calibration error and Brier score, before and after temperature scaling."""
    calibrations = calibrate_study(record, runs)
    headings, rows = calibrations.for_display()
    few = len(rows) <= MOST_SENTENCES
    said = [calibration_sentence(c) for c in calibrations.methods if few and c.before is not None]
    return Block(
        "Before and after temperature scaling",
        "A temperature is fitted on validation, one a seed, and applied to test (Guo et al. 2017). "
        "Above 1 the model was too sure. No class changes. The calibration error is the root mean "
        "square distance between confidence and accuracy, with the luck of the labels taken off.",
        headings,
        rows,
        said,
    )


def _whose_probabilities(probabilities: Probabilities) -> list[Block]:
    """Whose probabilities are better, a verdict beside that of the study's metric."""
    if len(probabilities.scores) < 2:
        return []
    headings, rows = probabilities_for_display(probabilities)
    left_out = [
        f"{label} has no part in it: {why}." for label, why in probabilities.left_out.items()
    ]
    return [
        Block(
            "Whose probabilities are better?",
            "The Brier score on test, lower is better, after temperature scaling; tested as the "
            "methods' metric is. It decides where texts are sorted by how sure a method is.",
            headings,
            rows,
            [f"{c.sentence}." for c in probabilities.against_best()][:4] + left_out,
        )
    ]


def _abstaining(runs: Mapping[str, Mapping[str, Runs]]) -> list[Block]:
    """How many test texts are answered where few of all may be wrong, and how many are wrong."""
    said = abstaining_of(runs)
    if not said:
        return []
    headings, rows = abstaining_for_display(said)
    return [
        Block(
            "When not to answer",
            "A threshold of confidence from validation rows, one a seed, that lets at most so many "
            "of all texts be answered wrongly (split conformal prediction; tunelab predict "
            "--abstain). Of the test rows: the share that is answered, and the share that is "
            "answered wrongly, which the threshold does not know.",
            headings,
            rows,
        )
    ]


MOST_SLICES = 12


def _slices(data: PlotData) -> Block:
    """The slices that truly differ from the rest, the weakest first."""
    named = sorted((s for s in data.slices if s.named), key=lambda s: s.accuracy.value)
    rows = [
        [s.method, f"{s.column}: {s.value}", f"{s.rows:,}", format_estimate(s.accuracy, "percent")]
        for s in named[:MOST_SLICES]
    ]
    total = counted(len(data.slices), "slice")
    said = (
        f"{len(named)} of {total} truly {agreeing(len(named), 'differ')} from the rest of their "
        "method's rows, tested over all of them at once"
        if named
        else f"None of {total} is shown to differ from the rest of its method's rows"
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
        in_fold = {i: f for f in method.folds for i in f.trials}
        for t in method.tries:
            settings = ", ".join(f"{k}={v}" for k, v in t.settings.items())
            shown = f"{t.value:.4f}" if t.value is not None else str(t.error or t.status)
            fold = in_fold.get(t.trial_id)
            place = f", {fold_in_words(fold.repetition, fold.fold)}" if fold else ""
            mark = "chosen" if dict(t.settings) == dict((fold or method).chosen) else ""
            rows.append([label, settings, f"{t.seed}{place}", shown, mark])
    return Block(
        "Every setting that was tried",
        f"By {METRICS[tuning.metric].label} on validation, the same budget for every method.",
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
        f"{record.trials_run} of {counted(record.trials_full, 'trial')} were run; "
        f"about {numbers.format_seconds(record.seconds_saved)} were saved"
        if saved
        else f"all {counted(record.trials_run, 'trial')} were run",
    ]
    return Block(
        "Race",
        "Configurations that were behind with confidence got no further seeds.",
        ["Dropped", "Round", "Seeds", "Leader", "Why"],
        rows,
        said,
    )


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """A row a method, a cell a column; `groups` are the columns by what they stand together for.

    `legend`: what its figures are, in a sentence.
    """

    columns: list[TableColumn]
    rows: list[TableRow]
    groups: Mapping[str, list[TableColumn]]
    legend: str


def score_table(summary: Summary, data: PlotData) -> ScoreTable | None:
    """Every score and cost of every method; the columns that people read most are shown first."""
    if not any(r.n_seeds for r in summary.rows):
        return None
    shown = [c.name for c in shown_columns(summary)]
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
            data.names[r.label],
            palette[r.label],
            _tag(summary, r.label),
            _method_facts(r),
            [estimate_cell(r.estimates.get(n), column(n), r.reasons) for n in names],
        )
        for r in summary.rows
    ]
    by_group = {g: [c for c in columns if c.group == g] for g in order}
    groups_shown = {g: cs for g, cs in by_group.items() if cs}
    return ScoreTable(columns, rows, groups_shown, table_legend(summary))


def _tag(summary: Summary, label: str) -> str:
    """What is to be taken, and what was best on validation where that is another method."""
    if label == summary.answer.take:
        return "take"
    return "best on validation" if label == summary.best else ""


_GROUPS = ("Scores on test", "Scores on validation", "Costs")


def _group(name: str) -> str:
    part = name.partition("_")[0]
    return {"test": _GROUPS[0], "eval": _GROUPS[1]}.get(part, _GROUPS[2])


def _method_facts(row: verdict.Row) -> str:
    written = {k: f"{v:g}" if isinstance(v, float) else v for k, v in row.settings.items()}
    settings = ", ".join(f"{k}={v}" for k, v in written.items())
    seeds = counted(row.n_seeds, "seed")
    if row.n_runs not in (None, row.n_seeds):
        seeds = f"{seeds}, {counted(row.n_runs or 0, 'run')}"
    failed = f"{row.n_failed} failed" if row.n_failed else ""
    return " · ".join(part for part in (settings, seeds, failed) if part)


def estimate_cell(
    estimate: Estimate | None, shown: numbers.Column, reasons: Mapping[str, str]
) -> Cell:
    """An estimate as a table shows it, with its interval, or why there is none."""
    if estimate is None:
        return Cell(numbers.MISSING, title=reasons.get(shown.name, "not measured"))
    bare = format_estimate(replace(estimate, low=None, high=None), shown.kind)
    spread = format_spread(estimate, shown.kind)
    low, high = (None, None) if estimate.low == estimate.high else (estimate.low, estimate.high)
    return Cell(bare, spread, estimate.value, estimate.procedure, low, high)


@dataclass(frozen=True, slots=True)
class DataCardBlock:
    """What the page says of the data: its parts, lengths, duplicates, labels, samples and facts.

    `rows`: how many there are, in words. With `folds`, parts are those of the first, and labels are
    counted over all rows; else by part. `words` by part, `across` by pair of parts, as in
    data.json. `labels`: each with its count and share in each of `label_parts`.
    """

    rows: str
    folds: int | None
    sizes: Mapping[str, int]
    words: Mapping[str, LengthFigures]
    within: Mapping[str, int]
    across: Mapping[str, int]
    conflicting: int
    examples: Sequence[DuplicateExample]
    label_parts: Sequence[str]
    labels: Sequence[tuple[str, list[tuple[int, str]]]]
    labels_left_out: int
    notes: Sequence[str]
    samples: Sequence[tuple[str, list[str]]]
    facts: Sequence[tuple[str, str]]


def data_card_block(card: DataCard) -> DataCardBlock:
    """What the page says of the data."""
    sizes, counts, duplicates = card["sizes"], card["label_counts"], card["duplicates"]
    folds = card.get("folds")
    columns = {part: [part] for part in sizes} if folds is None else {"all rows": list(sizes)}

    def count_and_share(name: str, parts: Sequence[str]) -> tuple[int, str]:
        count = sum(counts[part][name] for part in parts)
        return count, numbers.format_percent(count / max(sum(sizes[p] for p in parts), 1))

    shown = dict(zip(card["label_names"], told_apart(card["label_names"]), strict=True))
    labels = [
        (shown[x], [count_and_share(x, parts) for parts in columns.values()])
        for x in card["label_names"]
    ]
    return DataCardBlock(
        rows=rows_in_words(card),
        folds=folds["of"] if folds else None,
        sizes=sizes,
        label_parts=list(columns),
        words=card["words"],
        within=duplicates["within"],
        across={k: n for k, n in duplicates["across"].items() if n},
        conflicting=duplicates["conflicting"],
        examples=duplicates["examples"],
        labels=labels[:MOST_CLASS_ROWS],
        labels_left_out=max(0, len(labels) - MOST_CLASS_ROWS),
        notes=card["notes"],
        samples=[(shown[x], ts) for x, ts in card["samples"].items()][:MOST_CLASS_ROWS],
        facts=[(heading, str(card[key])) for key, heading in _CARD_FACTS if card.get(key)],
    )


_CardFact = Literal["name", "revision", "text_column", "label_column", "id_column", "fingerprint"]
_CARD_FACTS: tuple[tuple[_CardFact, str], ...] = (
    ("name", "Source"),
    ("revision", "Revision"),
    ("text_column", "Text column"),
    ("label_column", "Label column"),
    ("id_column", "Id column"),
    ("fingerprint", "Fingerprint (SHA-256)"),
)
