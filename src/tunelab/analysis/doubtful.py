"""Doubtful labels by the study's own models, once these exist: they read what TF-IDF cannot.

Validation and test rows are out of sample for every trained method. Their probabilities are
averaged over seeds, then over methods, so that one sure model alone lists nothing, and ranked as
the data gate ranks those of its TF-IDF model (`data.gate.doubts`), with the same proof by planted
noise. Validation also chose settings and checkpoints: labels there are doubted too little, if
anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunelab.analysis.predicted import names_of_rows
from tunelab.core import study_folder
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Predictions
from tunelab.core.words import counted, rows_word, short
from tunelab.data.gate.doubts import (
    LEAST_TELLING,
    SHOWN_DOUBTS,
    DoubtfulLabels,
    doubtful_labels,
    label_finding,
    reading,
)
from tunelab.data.gate.values import Example, Finding, Gate, RowRef, gate_from_json
from tunelab.stats import Runs
from tunelab.stats.predictions import log_softmax

__all__ = [
    "DoubtedRow",
    "RowsInDoubt",
    "gate_after_training",
    "mean_probabilities",
    "rows_in_doubt",
]

LEAST_ROWS_TO_RANK = 50
JUDGED_PARTS = ("validation", "test")


@dataclass(frozen=True, slots=True)
class DoubtedRow:
    """A row whose label the study's methods contradict: the name that its file of corrections is
    to have (the data's own id, else ours), its part, whole text and label, the likeliest class, and
    the probabilities of the two.
    """

    id: str
    part: str
    text: str
    label: int
    likely: int
    of_label: float
    of_likely: float


@dataclass(frozen=True, slots=True)
class RowsInDoubt:
    """Rows to read again, the most doubtful first, of so many that were judged (`of`).

    `precision`: the share of them that is wrong at least. `reason` says why there are none, ""
    where there are.
    """

    rows: tuple[DoubtedRow, ...]
    of: int
    precision: float
    reason: str


def rows_in_doubt(record: StudyRecord, runs: Mapping[str, Mapping[str, Runs]]) -> RowsInDoubt:
    """The rows of validation and test whose labels the study's methods doubt.

    `runs` as `analysis.reading.read_runs` gives them.
    """
    judged = _judge_rows(record, runs)
    if judged is None:
        why = (
            f"{rows_word(LEAST_ROWS_TO_RANK)} of validation and test with predictions and texts "
            "are needed, and the study has fewer"
        )
        if record.task == "multilabel":
            why = "texts have several labels, and doubt is known of one class a text alone"
        return RowsInDoubt((), 0, 0.0, why)
    doubts, n = judged.doubts, len(judged.ids)
    names: dict[str, str] = {}
    for part in JUDGED_PARTS:
        names |= names_of_rows(record, study_folder.read_rows(record.directory, part))
    rows = []
    for i in doubts.rows:
        part, text = judged.rows[judged.ids[i]]
        label, p = int(judged.labels[i]), judged.probabilities[i]
        likely = int(p.argmax())
        name = names.get(judged.ids[i], judged.ids[i])
        rows.append(DoubtedRow(name, part, text, label, likely, float(p[label]), float(p[likely])))
    return RowsInDoubt(tuple(rows), n, doubts.precision, judged.reason if not rows else "")


def gate_after_training(record: StudyRecord, runs: Mapping[str, Mapping[str, Runs]]) -> Gate | None:
    """What the data gate found, its doubtful labels replaced by those of the study's models.

    `runs` as `analysis.reading.read_runs` gives them. None where the study has no gate; the gate as
    it is where there are too few rows with predictions, or texts were not kept, and
    of several labels a text.
    """
    gate = record.parsed("gate", gate_from_json)
    judged = None if gate is None else _judge_rows(record, runs)
    if gate is None or judged is None:
        return gate
    doubts, ids = judged.doubts, judged.ids
    others = tuple(f for f in gate.findings if f.check != "label-errors")
    notes = tuple(n for n in gate.notes if "called doubtful" not in n)
    if not len(doubts.rows):
        if doubts.telling < LEAST_TELLING:
            notes = (*notes, f"no label is called doubtful: {judged.reason}")
        return replace(gate, findings=others, notes=notes)
    names = record.data["label_names"]

    def example(i: int) -> Example:
        part, text = judged.rows[ids[i]]
        label = int(judged.labels[i])
        row = RowRef(part, ids[i], names[label], short(text))
        return Example((row,), reading(names, judged.probabilities[i], label))

    finding = label_finding(
        doubts,
        of=len(ids),
        judges=f"{judged.judges}, on validation and test rows,",
        examples=tuple(example(i) for i in doubts.rows[:SHOWN_DOUBTS]),
        test_ids=tuple(ids[i] for i in doubts.rows if judged.rows[ids[i]][0] == "test"),
    )
    return replace(gate, findings=_by_level(others, finding), notes=notes)


@dataclass(frozen=True, slots=True, eq=False)
class _JudgedRows:
    """Rows (n) that were judged: `ids`, `labels` (n,), mean `probabilities` (n, k), which of them
    are in doubt; of each id its part and text in `rows`.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    doubts: DoubtfulLabels
    rows: Mapping[str, tuple[str, str]]
    judges: str

    @property
    def reason(self) -> str:
        """Why no label is in doubt."""
        return self.doubts.reason.replace("the model that judges them", self.judges)


def _judge_rows(record: StudyRecord, runs: Mapping[str, Mapping[str, Runs]]) -> _JudgedRows | None:
    """None where there are too few rows with predictions, or texts were not kept, and of several
    labels a text.
    """
    if record.task == "multilabel":
        return None  # no label is told from the others that its text has
    rows = _rows(record)
    means = mean_probabilities(runs)
    ids = tuple(i for i in means if i in rows and means[i][0] >= 0)
    if len(ids) < LEAST_ROWS_TO_RANK:
        return None
    labels = np.array([means[i][0] for i in ids], dtype=np.int64)
    probabilities = np.stack([means[i][1] for i in ids])
    methods = {label for part in JUDGED_PARTS for label in runs.get(part, {})}
    judges = f"the mean of {counted(len(methods), 'trained method')}"
    doubts = doubtful_labels(labels, probabilities)
    return _JudgedRows(ids, labels, probabilities, doubts, rows, judges)


def mean_probabilities(
    runs: Mapping[str, Mapping[str, Runs]],
) -> dict[str, tuple[int, NDArray[np.float64]]]:
    """Label and mean probabilities (k,) of each row: over a method's seeds, then over methods.

    Margins are no probabilities, but ranks need only an order: their softmax is taken.
    """
    labels: dict[str, int] = {}
    by_method: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    for part in JUDGED_PARTS:
        for method, of_method in runs.get(part, {}).items():
            for p in of_method.by_seed.values():
                for i, label, row in zip(p.ids, p.labels, _as_probabilities(p), strict=True):
                    labels[i] = int(label)
                    by_method.setdefault(i, {}).setdefault(method, []).append(row)
    return {
        i: (labels[i], np.mean([np.mean(rows, axis=0) for rows in methods.values()], axis=0))
        for i, methods in by_method.items()
    }


def _as_probabilities(p: Predictions) -> NDArray[np.float64]:
    if p.score_kind == "probability":
        return np.asarray(p.scores, dtype=np.float64)
    return np.exp(log_softmax(np.asarray(p.scores, dtype=np.float64)))


def _rows(record: StudyRecord) -> dict[str, tuple[str, str]]:
    """Part and text of each validation and test row by its id."""
    out: dict[str, tuple[str, str]] = {}
    for part in JUDGED_PARTS:
        kept = study_folder.read_rows(record.directory, part)
        if kept is not None:
            out |= {i: (part, text) for i, text in zip(kept.ids, kept.texts, strict=True)}
    return out


def _by_level(others: tuple[Finding, ...], finding: Finding) -> tuple[Finding, ...]:
    """The finding after those that are as bad or worse."""
    levels = ("fault", "warning", "note")
    return tuple(sorted((*others, finding), key=lambda f: levels.index(f.level)))
