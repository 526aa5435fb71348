"""Which of the texts without labels to label next, by what a study's classifiers say of them.

Python's door to it is `tunelab.suggest`, the terminal's `tunelab suggest`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunelab import data
from tunelab.analysis.curves import learning_curves, outlook
from tunelab.analysis.summary import summarise
from tunelab.core import study_folder
from tunelab.core.data_keys import TextFileKeys
from tunelab.core.errors import InputError
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import TrialResult
from tunelab.core.words import agreeing, counted, free_name
from tunelab.models.text_classifier import open_classifier
from tunelab.stats.acquisition import Doubt, doubt_of
from tunelab.study import folding

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Suggested", "Suggestions", "suggest"]

MOST_OF_A_METHOD = 3  # classifiers: more of one method say little more, and each takes its time


@dataclass(frozen=True, slots=True)
class Suggested:
    """A text to label: its place among those given (from 0), its `id` where the file names rows,
    what the classifiers say of it with what probability, and how much they do not know
    (`uncertainty`, from 0 to 1), of that the part on which they disagree.
    """

    row: int
    id: str | None
    text: str
    label: str
    probability: float
    uncertainty: float
    disagreement: float


@dataclass(frozen=True, slots=True, eq=False)
class Suggestions:
    """The texts to label, most uncertain first, of so many that were judged (`of`).

    `outlook`: what as many more rows would bring by the learning curve, or how to get one, in
    words. `notes`: what was decided on the way.
    """

    rows: tuple[Suggested, ...]
    of: int
    outlook: str
    notes: tuple[str, ...]
    columns: dict[str, list[Any]]

    def table(self) -> pd.DataFrame:
        """One row a text: the columns that were given and what is said of it."""
        import pandas as pd

        return pd.DataFrame(self.columns)


def suggest(
    study: str | Path,
    texts: str | Path | Sequence[str],
    n: int = 100,
    *,
    text_column: str | None = None,
    id_column: str | None = None,
    encoding: str = "utf-8",
    quoting: Literal["auto", "double", "none"] = "auto",
    trust_remote_code: bool = False,
    on_event: Callable[[str], None] = lambda _: None,
) -> Suggestions:
    """Choose the `n` texts whose labels would tell a study's methods most: those of which the mean
    of their probabilities is least sure, none like another nor like a labelled row.

    `texts`: a file, read as `predict --file` reads it, or the texts themselves. At most three
    classifiers of each method are asked (of several seeds). `on_event` hears what is being done.
    Raises InputError where there is nothing to ask, or nothing to choose from.
    """
    if n < 1:
        raise InputError(f"suggest: n: expected 1 or more, found {n}.")
    record = study_folder.read_study(Path(study).expanduser())
    if record.task == "multilabel":
        raise InputError(
            f"suggest: {record.directory} gives several labels a text, and how unsure it is "
            "can be told of one class a text alone."
        )
    members = _members_to_ask(record)
    reading: TextFileKeys = {
        "text_column": text_column,
        "id_column": id_column,
        "encoding": encoding,
        "quoting": quoting,
    }
    given = _given(texts, reading)
    some = [given.texts[i] for i in given.written]
    if not some:
        raise InputError("suggest: expected texts without labels, found none.")
    labelled, notes = _labelled_texts(record)
    doubt = _ask_members(record, members, some, trust_remote_code, on_event)
    on_event(f"looking for texts that are alike among {len(some) + len(labelled):,}")
    order = np.argsort(-doubt.uncertainty, kind="stable")
    chosen = data.rows_unlike(labelled, some, order, n)
    if len(chosen) < n:
        left_out = len(some) - len(chosen)
        why = "there are no more"
        if left_out:
            why = (
                f"{left_out:,} of {len(some):,} {agreeing(left_out, 'are')} the same, nearly or in "
                "part, as a labelled row or as another that is suggested"
            )
        notes.append(f"{counted(len(chosen), 'text')} instead of {n:,}: {why}")
    rows = _suggested_rows(record.data["label_names"], doubt, chosen, given)
    said = _columns_with_doubt(given.columns, rows)
    return Suggestions(rows, len(some), _outlook(record, len(chosen)), tuple(notes), said)


# --- who is asked, and of what --------------------------------------------------------------


def _members_to_ask(record: StudyRecord) -> dict[str, list[TrialResult]]:
    """Trials by method, of as many seeds as are asked; those that no seed changes, once."""
    members: dict[str, list[TrialResult]] = {}
    for r in record.done:
        there = study_folder.artifact_dir(record.directory, r.spec.trial_id).is_dir()
        of_method = members.setdefault(r.spec.method.label, [])
        if there and r.provenance.same_run_as is None and len(of_method) < MOST_OF_A_METHOD:
            of_method.append(r)
    members = {label: of_method for label, of_method in members.items() if of_method}
    if not members:
        raise InputError(
            f"{record.directory}: has no classifier to ask. Run it to its end: tunelab compare "
            f"{record.directory / 'study.yaml'}"
        )
    return members


@dataclass(frozen=True, slots=True, eq=False)
class _Texts:
    """Rows (n) without labels: all `columns`, `texts`, names (`ids`) where there are some, and
    which texts are not blank (`written`).
    """

    columns: dict[str, list[Any]]
    texts: Sequence[str]
    ids: Sequence[str] | None
    written: Sequence[int]


def _given(texts: str | Path | Sequence[str], reading: TextFileKeys) -> _Texts:
    ids = None
    if isinstance(texts, str | Path):
        table = data.read_texts(Path(texts).expanduser(), **reading)
        columns, given = table.columns, table.texts
        ids = None if table.ids is None else [str(i) for i in table.ids]
    else:
        given = list(texts)
        columns = {"text": given}
        if wrong := [t for t in given if not isinstance(t, str)]:
            raise InputError(f"suggest: texts: expected strings or a file, found {wrong[0]!r}.")
    return _Texts(columns, given, ids, [i for i, t in enumerate(given) if t.strip()])


def _labelled_texts(record: StudyRecord) -> tuple[list[str], list[str]]:
    """Every labelled text of the study; where its data cannot be read any more, or are others now,
    those that it kept, and a note on that.
    """
    spec = record.done[0].spec
    try:
        known = folding.loaded_for(spec)
    except InputError:
        known = None
    if known is not None and known.fingerprint == spec.fingerprint:
        return [t for part in known.parts.values() for t in part.texts], []
    parts = (study_folder.read_rows(record.directory, p) for p in ("validation", "test"))
    kept = [t for rows in parts if rows is not None for t in rows.texts]
    return kept, [
        "the study's data cannot be read any more, or are others now: texts that are like a "
        "training row may be suggested"
    ]


def _ask_members(
    record: StudyRecord,
    members: dict[str, list[TrialResult]],
    texts: list[str],
    trust_remote_code: bool,
    on_event: Callable[[str], None],
) -> Doubt:
    by_method: dict[str, list[NDArray[np.float64]]] = {}
    for label, of_method in members.items():
        for r in of_method:
            on_event(f"asking {label}, seed {r.spec.seed}")
            folder = study_folder.artifact_dir(record.directory, r.spec.trial_id)
            own = open_classifier(folder, trust_remote_code, scores_only=True)
            by_method.setdefault(label, []).append(own.predict_proba(texts))
    return doubt_of(by_method)


# --- what is said ---------------------------------------------------------------------------


def _suggested_rows(
    names: Sequence[str], doubt: Doubt, chosen: NDArray[np.int64], given: _Texts
) -> tuple[Suggested, ...]:
    rows = []
    for i in chosen.tolist():
        row, best = given.written[i], int(doubt.probabilities[i].argmax())
        rows.append(
            Suggested(
                row,
                None if given.ids is None else given.ids[row],
                given.texts[row],
                names[best],
                float(doubt.probabilities[i, best]),
                float(doubt.uncertainty[i]),
                float(doubt.disagreement[i]),
            )
        )
    return tuple(rows)


def _columns_with_doubt(
    columns: dict[str, list[Any]], rows: Sequence[Suggested]
) -> dict[str, list[Any]]:
    """The columns that were given, of these rows, and what is said of each."""
    out = {name: [values[r.row] for r in rows] for name, values in columns.items()}
    said: dict[str, list[Any]] = {
        "predicted_label": [r.label for r in rows],
        "probability": [round(r.probability, 6) for r in rows],
        "uncertainty": [round(r.uncertainty, 6) for r in rows],
        "disagreement": [round(r.disagreement, 6) for r in rows],
    }
    for name, values in said.items():
        out[free_name(name, out, "{}_{}")] = values
    return out


def _outlook(record: StudyRecord, more: int) -> str:
    """What so many more rows would bring to the method that the study takes, or how to know."""
    curves, said = learning_curves(record), summarise(record)
    label = said.answer.take or said.best
    seen = None if curves is None or label is None else outlook(curves, label, more)
    if seen is not None:
        return f"{seen.sentence}. Chosen rows are not shown to bring more (docs/guide/data.md)."
    rows = record.data["sizes"].get("train", 0)
    sizes = ",".join(str(s) for s in (rows // 4, rows // 2) if s >= len(record.data["label_names"]))
    return (
        f"What {counted(more, 'more row')} would bring is not known: the study has no learning "
        f"curve. It gets one by: tunelab compare {record.directory / 'study.yaml'} --train-sizes "
        f"{sizes + ',' if sizes else ''}all"
    )
