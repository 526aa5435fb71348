"""What is said of cross-fitting: how often the rows of a study are tested."""

from __future__ import annotations

from collections.abc import Mapping

from tunelab.core.cards import DataCard
from tunelab.core.shapes import fault
from tunelab.core.study_folder import StudyRecord, read_result
from tunelab.core.values import TrialResult

__all__ = [
    "cross_fitted",
    "final_from_json",
    "final_ids",
    "final_trial",
    "final_trials",
    "fold_in_words",
    "how_often_tested",
    "rows_in_words",
]

_TIMES = {1: "once", 2: "twice"}


def how_often_tested(folds: int, rows: int, seeds: int) -> str:
    """How often so many seeds test each of a study's rows: "6 folds: every one of 1,920 rows is
    tested once".
    """
    least, more = divmod(seeds, folds)
    often = _times(least) + (f" or {_times(least + 1)}" if more else "")
    return f"{folds} folds: every one of {rows:,} rows is tested {often}"


def _times(n: int) -> str:
    return _TIMES.get(n, f"{n} times")


def rows_in_words(data: DataCard) -> str:
    """How many rows a study has, and how they are divided: "1,344 train, 288 validation and 288
    test rows"; "1,920 rows, each tested in one of 6 folds".
    """
    folds = data.get("folds")
    if folds is not None:
        return f"{folds['rows']:,} rows, each tested in one of {folds['of']} folds"
    parts = [f"{n:,} {part}" for part, n in data["sizes"].items()]
    return f"{', '.join(parts[:-1])} and {parts[-1]} rows"


def fold_in_words(repetition: int, number: int) -> str:
    """A fold as people count: "fold 1", "fold 2 of repetition 2"."""
    return f"fold {number + 1}{f' of repetition {repetition + 1}' if repetition else ''}"


def cross_fitted(data: DataCard, seeds: int, *, whole: bool = True) -> str | None:
    """The same of a study, from its data card (data.json); None where it tests one part alone.

    Not `whole`: trials are missing, or a race ended first, so that some rows are not tested.
    """
    folds = data.get("folds")
    if folds is None:
        return None
    if not whole:
        return f"{folds['of']} folds of {folds['rows']:,} rows, not all of them tested"
    return how_often_tested(folds["of"], folds["rows"], seeds)


# --- what is trained on all rows ------------------------------------------------------------


def final_ids(record: StudyRecord) -> list[str]:
    """Ids of what was trained on all rows, the last one last (final.json)."""
    return list(record.parsed("final", final_from_json) or ())


def final_from_json(value: Mapping[str, object]) -> tuple[str, ...]:
    """The content of final.json. Raises KeyError or ValueError where it is none."""
    kept = value["trials"]
    if not isinstance(kept, list) or fault(kept, list[str]):
        raise ValueError("trials: expected ids")
    return tuple(kept)


def final_trials(record: StudyRecord) -> tuple[TrialResult, ...]:
    """What was trained on all rows of these data to be handed over, the last one first."""
    ids = reversed(final_ids(record))
    results = (read_result(record.directory, trial_id) for trial_id in ids)
    fingerprint = record.data["fingerprint"]
    return tuple(r for r in results if r is not None and r.spec.fingerprint == fingerprint)


def final_trial(record: StudyRecord, label: str | None = None) -> TrialResult | None:
    """What was last trained on all rows: of a method, or of any."""
    known = (r for r in final_trials(record) if label in (None, r.spec.method.label))
    return next(known, None)
