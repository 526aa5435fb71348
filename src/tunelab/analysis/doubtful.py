"""Doubtful labels by the study's own models, once these exist: they read what TF-IDF cannot.

Validation and test rows are out of sample for every trained method. Their probabilities are
averaged over seeds, then over methods, so that one sure model alone lists nothing, and ranked as
the data gate ranks those of its TF-IDF model (`data.gate.doubts`), with the same proof by planted
noise. Validation also chose settings and checkpoints: labels there are doubted too little, if
anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tunelab.core import study_folder
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Predictions
from tunelab.core.words import counted, short
from tunelab.data.gate.doubts import (
    LEAST_TELLING,
    SHOWN_DOUBTS,
    doubtful_labels,
    label_finding,
    reading,
)
from tunelab.data.gate.values import Example, Finding, Gate, RowRef, gate_from_json
from tunelab.stats import Runs
from tunelab.stats.predictions import log_softmax

__all__ = ["gate_after_training", "mean_probabilities"]

LEAST_ROWS_TO_RANK = 50
JUDGED_PARTS = ("validation", "test")


def gate_after_training(record: StudyRecord, runs: Mapping[str, Mapping[str, Runs]]) -> Gate | None:
    """What the data gate found, its doubtful labels replaced by those of the study's models.

    `runs` as `analysis.reading.read_runs` gives them. None where the study has no gate; the gate as
    it is where there are too few rows with predictions, or texts were not kept, and
    of several labels a text.
    """
    gate = record.parsed("gate", gate_from_json)
    if gate is None:
        return None
    if record.data.get("task") == "multilabel":
        return gate  # no label is told from the others that its text has
    rows = _rows(record)
    means = mean_probabilities(runs)
    ids = [i for i in means if i in rows]
    if len(ids) < LEAST_ROWS_TO_RANK:
        return gate
    labels = np.array([means[i][0] for i in ids], dtype=np.int64)
    probabilities = np.stack([means[i][1] for i in ids])
    doubts = doubtful_labels(labels, probabilities)
    others = tuple(f for f in gate.findings if f.check != "label-errors")
    notes = tuple(n for n in gate.notes if "called doubtful" not in n)
    methods = {label for part in JUDGED_PARTS for label in runs.get(part, {})}
    judges = f"the mean of {counted(len(methods), 'trained method')}"
    if not len(doubts.rows):
        if doubts.telling < LEAST_TELLING:
            why = doubts.reason.replace("the model that judges them", judges)
            notes = (*notes, f"no label is called doubtful: {why}")
        return replace(gate, findings=others, notes=notes)
    names = record.data["label_names"]
    listed = [ids[i] for i in doubts.rows]
    finding = label_finding(
        doubts,
        of=len(ids),
        judges=f"{judges}, on validation and test rows,",
        examples=tuple(
            Example(
                (_row_ref(rows[ids[i]], names[labels[i]]),),
                reading(names, probabilities[i], int(labels[i])),
            )
            for i in doubts.rows[:SHOWN_DOUBTS]
        ),
        test_ids=tuple(i for i in listed if rows[i].part == "test"),
    )
    return replace(gate, findings=_by_level(others, finding), notes=notes)


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


def _rows(record: StudyRecord) -> dict[str, RowRef]:
    """Validation and test rows by id, as a finding names them, without their labels' names."""
    out = {}
    for part in JUDGED_PARTS:
        kept = study_folder.read_rows(record.directory, part)
        if kept is not None:
            out.update(
                {
                    i: RowRef(part, i, "", short(text))
                    for i, text in zip(kept.ids, kept.texts, strict=True)
                }
            )
    return out


def _row_ref(row: RowRef, label: str) -> RowRef:
    return replace(row, label=label)


def _by_level(others: tuple[Finding, ...], finding: Finding) -> tuple[Finding, ...]:
    """The finding after those that are as bad or worse."""
    levels = ("fault", "warning", "note")
    return tuple(sorted((*others, finding), key=lambda f: levels.index(f.level)))
