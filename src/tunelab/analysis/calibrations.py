"""Whether the probabilities of a study's methods are right, method by method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunelab.analysis.numbers import format_estimate, format_percent
from tunelab.analysis.reading import read_runs
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Estimate
from tunelab.stats import Runs
from tunelab.stats.calibration import Calibration, calibrate_all, calibration_sentence

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Calibrations",
    "calibrate_study",
]


@dataclass(frozen=True, slots=True, repr=False)
class Calibrations:
    """Each method's calibration on test, before and after temperature scaling."""

    methods: tuple[Calibration, ...]

    def sentences(self) -> tuple[str, ...]:
        """A sentence for each method."""
        return tuple(calibration_sentence(c) for c in self.methods)

    def to_frame(self) -> pd.DataFrame:
        """One row a method: calibration error (in [0, 1]) and Brier score (in [0, 2]), each with
        its 95% interval and after scaling, and the mean temperature; NaN where there is none.
        """
        import pandas as pd

        rows = []
        for c in self.methods:
            row: dict[str, object] = {"label": c.label}
            for quality, after in ((c.before, ""), (c.after, "_scaled")):
                for name in ("ece", "brier"):
                    e: Estimate | None = getattr(quality, name) if quality else None
                    row[name + after] = e.value if e else None
                    row[f"{name}{after}_low"] = e.low if e else None
                    row[f"{name}{after}_high"] = e.high if e else None
            known = list(c.temperatures.values())
            row["temperature"] = sum(known) / len(known) if known else None
            rows.append(row)
        frame = pd.DataFrame(rows)
        return frame.astype({name: float for name in frame.columns if name != "label"})

    def for_display(self) -> tuple[list[str], list[list[str]]]:
        """The table as a reader sees it: headings, and cells a method that has probabilities."""
        rows = []
        for c in self.methods:
            if c.before is None:
                continue
            both = (c.before, c.after)
            ece = [format_estimate(q.ece if q else None, "percent") for q in both]
            score = [format_estimate(q.brier if q else None, "number") for q in both]
            rows.append([c.label, *ece, *score])
        heads = ["Method", "Calibration error, %", "scaled error, %", "Brier score", "scaled Brier"]
        return heads, rows

    def __repr__(self) -> str:
        """Each method's calibration error, in one line."""
        said = ", ".join(
            f"{c.label} {format_percent(c.before.ece.value) if c.before else 'none'}"
            for c in self.methods
        )
        return f"Calibrations(calibration error, %: {said})"


def calibrate_study(
    record: StudyRecord, runs: Mapping[str, Mapping[str, Runs]] | None = None
) -> Calibrations:
    """Judge every method's probabilities on test. `runs`: of both parts, where they were read."""
    runs = read_runs(record) if runs is None else runs
    return Calibrations(calibrate_all(runs["validation"], runs["test"]))
