"""Texts that methods got wrong, chosen and ordered for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.analysis import Summary
from tunelab.analysis.explanations import explained_mistakes
from tunelab.analysis.predicted import names_of_rows
from tunelab.core.study_folder import StudyRecord, read_rows
from tunelab.core.tasks import Labels, label_words
from tunelab.core.values import Predictions
from tunelab.core.words import told_apart
from tunelab.report.evidence import Floats, by_method, common_rows, voice_of

__all__ = [
    "Mistakes",
    "Said",
    "TextRow",
    "mistakes",
    "scored_texts",
]


# --- single rows: where methods disagree, and the most confident mistakes ---------------------

MOST_MISTAKES = 1200
LONGEST_TEXT = 700


@dataclass(frozen=True, slots=True)
class Said:
    """What a method says of a row: the class by its mean scores over seeds; how many of its seeds
    say the same, of the `seeds` that tested the row; its mean probability of that class, or its
    mean margin. Of several labels a text a class is a set of them.
    """

    predicted: int
    seeds_agreeing: int
    strength: float
    seeds: int


@dataclass(frozen=True, slots=True)
class TextRow:
    """A row of the scored part: its id (the data's own where it has one), text, true class, and
    what each method says of it. `words`: which characters of the text moved the classifier that was
    explained, and how far.
    """

    id: str
    text: str
    label: int
    said: tuple[Said, ...]
    words: tuple[tuple[int, int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Rows worth reading: those where a method is wrong, the most confident mistakes first.

    `methods` in the order of `said`; `seeds` and `kinds` ("probability" or "margin") beside them.
    `total` of the part's `rows` had a mistake; `shown` may be fewer. `explained`: the method and
    seed whose words are marked, "" where none are.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    kinds: tuple[str, ...]
    class_names: tuple[str, ...]
    part: str
    shown: tuple[TextRow, ...]
    total: int
    rows: int
    explained: str = ""


def mistakes(
    record: StudyRecord,
    summary: Summary,
    texts: Mapping[str, str],
    predictions: Mapping[str, Sequence[Predictions]] | None = None,
    most: int = MOST_MISTAKES,
) -> Mistakes | None:
    """Rows that some method gets wrong, those with the most confident mistake first.

    `texts` by row id (see `scored_texts`); rows without a text are left out. None where nothing is
    wrong, or nothing was predicted.
    """
    split = summary.split
    predictions = by_method(record, split) if predictions is None else predictions
    if not predictions or not texts:
        return None
    voices = common_rows({m: voice_of(ps) for m, ps in predictions.items()})
    first = next(iter(voices.values()))
    names_of_said, labels, decided = _numbers_of_sets(
        first.labels, [v.predicted for v in voices.values()], record.data["label_names"]
    )
    strength = np.stack([v.strength for v in voices.values()])
    agreeing = np.stack([v.agreeing for v in voices.values()])
    asked = np.stack([v.asked for v in voices.values()])
    wrong = decided != labels
    known = np.asarray([i in texts for i in first.ids])
    candidates = np.flatnonzero(wrong.any(axis=0) & known)
    if not len(candidates):
        return None
    order = _most_confident(wrong, _ranks(strength, wrong), candidates)
    names = names_of_rows(record, read_rows(record.directory, split))
    why = explained_mistakes(record)
    words = {} if why is None else why.rows
    shown = tuple(
        TextRow(
            names.get(first.ids[i], first.ids[i]),
            _cut(texts[first.ids[i]]),
            int(labels[i]),
            tuple(
                Said(
                    int(decided[m, i]),
                    int(agreeing[m, i]),
                    round(float(strength[m, i]), 3),
                    int(asked[m, i]),
                )
                for m in range(len(voices))
            ),
            tuple(w for w in words.get(first.ids[i], ()) if w[1] <= LONGEST_TEXT),
        )
        for i in order[:most]
    )
    kinds = [
        "margin" if predictions[m][0].score_kind == "margin" else "probability" for m in voices
    ]
    return Mistakes(
        methods=tuple(voices),
        seeds=tuple(len(predictions[m]) for m in voices),
        kinds=tuple(kinds),
        class_names=tuple(told_apart(names_of_said)),
        part=split,
        shown=shown,
        total=len(candidates),
        rows=len(first.ids),
        explained="" if why is None else f"{why.label} (seed {why.seed})",
    )


def _numbers_of_sets(
    labels: Labels, said: Sequence[Labels], names: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """What rows are called, their true number (n,), and what each method says, (methods, n): of
    several labels a text each set of them has a number.
    """
    if labels.ndim == 1:
        return tuple(str(n) for n in names), labels, np.stack(said)
    every = np.concatenate([labels, *said])
    distinct, number = np.unique(every, axis=0, return_inverse=True)
    called = tuple(label_words(row, names) for row in distinct)
    numbers = number.reshape(1 + len(said), len(labels))
    return called, numbers[0], numbers[1:]


def _ranks(strength: Floats, wrong: NDArray[np.bool_]) -> Floats:
    """Each method's confidence in a row as its rank among all rows, in [0, 1]; 0 where right.

    Ranks compare what margins and probabilities cannot.
    """
    ranks = strength.argsort(axis=1).argsort(axis=1) / max(strength.shape[1] - 1, 1)
    return np.where(wrong, ranks, 0.0)


def _most_confident(
    wrong: NDArray[np.bool_], ranks: Floats, rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rows by the mean rank of the methods that are wrong, weighed by how many are."""
    weight = ranks.sum(axis=0) / wrong.shape[0]
    return rows[np.argsort(-weight[rows], kind="stable")]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " …"


def scored_texts(record: StudyRecord) -> dict[str, str]:
    """The texts of the scored parts by row id, as the study keeps them; empty where it does not."""
    parts = [read_rows(record.directory, part) for part in ("validation", "test")]
    return {
        i: text
        for rows in parts
        if rows is not None
        for i, text in zip(rows.ids, rows.texts, strict=True)
    }
