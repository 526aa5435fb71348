"""Which words moved a classifier's mistakes, as `tunelab report --explain` keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunelab.core.study_folder import StudyRecord

__all__ = ["ExplainedMistakes", "explained_from_json", "explained_mistakes", "rows_to_explain"]

MOST_EXPLAINED = 200


@dataclass(frozen=True, slots=True)
class ExplainedMistakes:
    """Of one trial, the method `label` with its `seed`: by row id the words that moved what it
    said, each from one character to another, and how far (log odds; above 0 towards what it said).
    """

    trial_id: str
    label: str
    seed: int
    rows: Mapping[str, tuple[tuple[int, int, float], ...]]

    def to_json(self) -> dict[str, object]:
        """The content of words.json."""
        rows = {i: [list(w) for w in words] for i, words in self.rows.items()}
        return {"trial": self.trial_id, "label": self.label, "seed": self.seed, "rows": rows}


def explained_from_json(value: Mapping[str, Any]) -> ExplainedMistakes:
    """What `ExplainedMistakes.to_json` wrote."""
    rows = {
        str(i): tuple((int(a), int(b), float(moved)) for a, b, moved in words)
        for i, words in value["rows"].items()
    }
    return ExplainedMistakes(value["trial"], value["label"], value["seed"], rows)


def explained_mistakes(record: StudyRecord) -> ExplainedMistakes | None:
    """What was explained, of a trial that the study still has; None where nothing was."""
    known = record.parsed("words", explained_from_json)
    there = {r.spec.trial_id for r in record.done}
    return known if known is not None and known.trial_id in there else None


def rows_to_explain(record: StudyRecord, trial_id: str, part: str) -> list[str]:
    """Ids of the rows that a trial got wrong, the most confident first, at most 200."""
    p = record.predictions(trial_id).get(part)
    if p is None:
        return []
    wrong = (p.predicted != p.labels) & (p.labels >= 0)
    order = (-p.scores.max(axis=1)).argsort(kind="stable")
    return [p.ids[i] for i in order if wrong[i]][:MOST_EXPLAINED]
