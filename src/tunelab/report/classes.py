"""The report's tables of classes: scores class by class, and which are taken for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunelab.analysis import Summary, numbers
from tunelab.analysis.confusions import ConfusedPair, confused_pairs, confusion_sums
from tunelab.core.study_folder import StudyRecord
from tunelab.core.words import told_apart
from tunelab.report.charts import MOST_CLASSES

__all__ = [
    "MOST_CLASS_ROWS",
    "class_table",
    "confusion_table",
]


MOST_CLASS_ROWS = 50  # rows of the per-class table; the rest is in the predictions


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class: its rows and the best method's precision and recall, and each method's `f1`."""

    name: str
    support: int
    precision: str
    recall: str
    f1: list[str]


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Scores by class on a `split`; `lead` is the best method, `labels` are all of them.

    `left_out`: so many easier classes are not among the `rows`.
    """

    lead: str
    labels: list[str]
    rows: list[ClassRow]
    split: str
    left_out: int


def class_table(record: StudyRecord, summary: Summary) -> ClassTable | None:
    """F1 of each class and method, mean over seeds; the classes that do worst first."""
    split = summary.split
    names = [str(n) for n in record.data["label_names"]]
    scores = {
        r.label: [
            t.details.per_class[split]
            for t in record.done
            if t.spec.method.label == r.label
            and t.details.per_class
            and split in t.details.per_class
        ]
        for r in summary.rows
    }
    scores = {label: of_trials for label, of_trials in scores.items() if of_trials}
    if not scores:
        return None

    def mean(label: str, name: str, what: str) -> float:
        values = [s[name][what] for s in scores[label] if name in s]
        return float(np.mean(values)) if values else 0.0

    lead = summary.best if summary.best in scores else next(iter(scores))
    shown = dict(zip(names, told_apart(names), strict=True))
    names.sort(key=lambda n: mean(lead, n, "f1"))
    rows = [
        ClassRow(
            name=shown[n],
            support=int(mean(lead, n, "support")),
            precision=numbers.format_percent(mean(lead, n, "precision")),
            recall=numbers.format_percent(mean(lead, n, "recall")),
            f1=[numbers.format_percent(mean(label, n, "f1")) for label in scores],
        )
        for n in names[:MOST_CLASS_ROWS]
    ]
    return ClassTable(lead, list(scores), rows, split, len(names) - len(rows))


MOST_PAIRS = 1000  # rows of the table of confused pairs


@dataclass(frozen=True, slots=True)
class ConfusionTable:
    """Pairs of classes that are confused: of each the `lead` method's rows, and each method's share
    of the true class. `left_out`: so many rarer pairs are not among them; `no_chart`: why no matrix
    is drawn, "" where one is.
    """

    lead: str
    labels: list[str]
    pairs: list[tuple[ConfusedPair, list[str]]]
    left_out: int
    no_chart: str


def confusion_table(record: StudyRecord, summary: Summary) -> ConfusionTable | None:
    """The confused pairs of three and more classes, those of most rows of the best method first."""
    names = told_apart(record.data["label_names"])
    sums = confusion_sums(record, summary.split)
    if len(names) < 3 or not sums:
        return None
    lead = summary.best if summary.best in sums else next(iter(sums))
    shares = {m: c / np.maximum(c.sum(axis=1, keepdims=True), 1) for m, c in sums.items()}
    place = {name: i for i, name in enumerate(names)}
    confused = confused_pairs(sums[lead], names)
    pairs = [
        (
            p,
            [
                numbers.format_percent(float(s[place[p.true], place[p.predicted]]))
                for s in shares.values()
            ],
        )
        for p in confused[:MOST_PAIRS]
    ]
    many = f"A matrix of {len(names)} classes cannot be read as a chart"
    no_chart = f"{many}: search these pairs." if len(names) > MOST_CLASSES else ""
    return ConfusionTable(lead, list(sums), pairs, len(confused) - len(pairs), no_chart)
