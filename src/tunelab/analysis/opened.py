"""A study's folder, read when it is asked: what a page or the terminal says of it."""

from __future__ import annotations

from pathlib import Path

from tunelab.analysis.probabilities import Probabilities, judge_probabilities
from tunelab.analysis.summary import summarise
from tunelab.analysis.verdict import Summary
from tunelab.core import study_folder

__all__ = ["OpenedStudy"]


class OpenedStudy:
    """A study's record and what may be said of it, computed once."""

    def __init__(
        self,
        directory: Path | str,
        *,
        summary: Summary | None = None,
        probabilities: Probabilities | None = None,
    ) -> None:
        """`summary` and `probabilities`, where they are known already."""
        self.directory = Path(directory)
        self.record = study_folder.read_study(self.directory)
        self._summaries: dict[str | None, Summary] = {}
        if summary is not None:
            self._summaries[None] = summary
        self._probabilities = probabilities

    @property
    def summary(self) -> Summary:
        """Table, comparisons and sentences, computed once."""
        return self.judged_by(None)

    def judged_by(self, metric: str | None) -> Summary:
        """The summary by another metric; None: by the study's. Raises ConfigError for no metric."""
        if metric not in self._summaries:
            self._summaries[metric] = summarise(self.record, metric)
        return self._summaries[metric]

    def probabilities(self) -> Probabilities:
        """Whose probabilities are better: Brier scores after temperature scaling, and verdicts."""
        if self._probabilities is None:
            self._probabilities = judge_probabilities(self.record)
        return self._probabilities
