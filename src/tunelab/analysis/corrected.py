"""What labels that a reader put right did to a study's conclusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.core.cards import CorrectedFigures
from tunelab.core.errors import ArtifactError
from tunelab.core.study_folder import StudyRecord, is_study, read_study
from tunelab.core.words import agreeing, counted

if TYPE_CHECKING:
    from tunelab.analysis.verdict import Summary

__all__ = [
    "Before",
    "before_from_json",
    "caveats_of_corrections",
    "conclusion_before",
]


@dataclass(frozen=True, slots=True)
class Before:
    """What the study said whose labels were put right: what to take (None: nothing), and where each
    other method stood against `best`, in the words of `verdict.Standing`.
    """

    study: str
    metric: str
    take: str | None
    best: str | None
    standings: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """The content of before.json."""
        return {
            "study": self.study,
            "metric": self.metric,
            "take": self.take,
            "best": self.best,
            "standings": dict(self.standings),
        }


def before_from_json(value: Mapping[str, Any]) -> Before:
    """What `Before.to_json` wrote."""
    names = ("study", "metric", "take", "best", "standings")
    return Before(**{name: value[name] for name in names})


def conclusion_before(record: StudyRecord, metric: str) -> Before | None:
    """What the study says now that the corrections are of; None where there are none, or that
    study is not there any more.
    """
    from tunelab.analysis.summary import summarise  # which asks this module for its caveats

    corrected = record.data.get("corrected")
    folder = Path(corrected["study"]) if corrected and corrected["study"] else None
    if folder is None or not is_study(folder) or folder.resolve() == record.directory.resolve():
        return None
    try:
        said = summarise(read_study(folder), metric)
    except ArtifactError:
        return None  # damaged since
    return Before(str(folder), metric, said.answer.take, said.best, _standings(said))


def _standings(said: Summary) -> dict[str, str]:
    return {c.b: said.standing(c) for c in said.against_best()}


def caveats_of_corrections(record: StudyRecord, said: Summary) -> list[str]:
    """How many labels were put right, whether the verdict moved, and what test rows among them mean
    for the scores.
    """
    corrected = record.data.get("corrected")
    if not corrected:
        return []
    total = sum(corrected["by_part"].values())
    parts = ", ".join(f"{n:,} of {part}" for part, n in corrected["by_part"].items())
    where = "" if record.data.get("folds") else f" ({parts})"  # in folds every row is in each part
    moved = _moved(corrected, record.parsed("before", before_from_json), said)
    labels = f"{counted(total, 'label')} {agreeing(total, 'were')} put right{where}"
    return [f"{labels}: {moved}.", *_meaning_of_test_rows(record, corrected)]


def _moved(corrected: CorrectedFigures, before: Before | None, said: Summary) -> str:
    """Whether the verdict is another than before, in words."""
    if before is None or before.study != corrected["study"] or before.metric != said.metric:
        return (
            "the study before is not known, so whether the verdict moved is not; "
            "tunelab report --compare sets two studies beside each other"
        )
    name = Path(before.study).name
    if said.answer.take != before.take:
        return (
            f"the verdict moved: take {said.answer.take or 'nothing'} (in {name}: "
            f"{before.take or 'nothing'})"
        )
    now = _standings(said)
    if said.best != before.best:
        best = f"the best on validation is {said.best} (in {name}: {before.best})"
        return f"the verdict stands, take {before.take}; {best}"
    changed = [
        f"{said.best} against {method} is {word} (in {name}: {before.standings[method]})"
        for method, word in now.items()
        if before.standings.get(method, word) != word
    ]
    also = "".join(f"; {line}" for line in changed) or f", as in {name}"
    return f"the verdict stands, take {before.take}{also}"


def _meaning_of_test_rows(record: StudyRecord, corrected: CorrectedFigures) -> list[str]:
    """What it means that test rows were put right where methods contradicted their labels."""
    rows = corrected["by_part"].get("test", 0)
    folds = record.data.get("folds")
    if folds:  # every row is tested
        rows = sum(corrected["by_part"].values())
    of = folds["rows"] if folds else record.data["sizes"].get("test", 0)
    if not rows or not of:
        return []
    return [
        f"{counted(rows, 'corrected row')} {agreeing(rows, 'are')} tested on, and found because "
        "methods contradicted the label; wrong labels that they agreed with were not looked for. "
        f"So scores on test are flattered: corrections raise them by {100 * rows / of:.1f} points "
        "of accuracy at most, most those of the methods that judged, and what would lower them "
        "stays."
    ]
