"""Where a study's methods are weaker or stronger, by the rows that its folder keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunelab.analysis.numbers import format_estimate
from tunelab.analysis.reading import read_runs
from tunelab.core import study_folder
from tunelab.core.errors import InputError, suggest
from tunelab.core.study_folder import StudyRecord
from tunelab.core.words import counted, told_apart
from tunelab.stats import Runs
from tunelab.stats.slices import (
    LEAST_ROWS_OF_SLICE,
    Slice,
    attributes,
    find_slices,
    named_slices,
    slice_sentence,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Slices",
    "slice_study",
]


@dataclass(frozen=True, slots=True, repr=False)
class Slices:
    """Every slice that was looked at, for each of the methods (`labels`), out of so many `rows`."""

    looked_at: tuple[Slice, ...]
    labels: tuple[str, ...]
    rows: int

    @property
    def named(self) -> tuple[Slice, ...]:
        """The slices that truly differ from the rest of the rows, the weakest first."""
        return named_slices(self.looked_at)

    def sentences(self) -> tuple[str, ...]:
        """A sentence for each slice that truly differs, or that none does."""
        if not self.looked_at:
            least = f"each needs {LEAST_ROWS_OF_SLICE} rows in it and as many outside"
            return (f"No slice to look at: {least}; there are {self.rows:,}",)
        many = counted(len(self.looked_at), "slice")
        none = f"None of {many} is shown to differ from the rest"
        return tuple(slice_sentence(s, len(self.looked_at)) for s in self.named) or (none,)

    def to_frame(self) -> pd.DataFrame:
        """One row a method and slice: accuracies in [0, 1] with 95% intervals, p, whether named."""
        import pandas as pd

        return pd.DataFrame(
            {
                "label": s.label,
                "slice": s.column,
                "value": s.value,
                "rows": s.rows,
                "accuracy": s.accuracy.value,
                "accuracy_low": s.accuracy.low,
                "accuracy_high": s.accuracy.high,
                "rest": s.rest.value,
                "difference": s.difference.value,
                "difference_low": s.difference.low,
                "difference_high": s.difference.high,
                "p_value": s.p_value,
                "p_adjusted": s.p_adjusted,
                "named": s.named,
            }
            for s in self.looked_at
        )

    def for_display(self) -> tuple[list[str], list[list[str]]]:
        """The table as a reader sees it: a row a slice, a column a method; * where it differs."""
        cells: dict[tuple[str, str, int], dict[str, str]] = {}
        for s in self.looked_at:
            text = format_estimate(s.accuracy, "percent") + (" *" if s.named else "")
            cells.setdefault((s.column, s.value, s.rows), {})[s.label] = text
        return ["Slice", "Value", "Rows", *self.labels], [
            [c, v, f"{n:,}", *(row.get(m, "-") for m in self.labels)]
            for (c, v, n), row in cells.items()
        ]

    def __repr__(self) -> str:
        """How many were looked at, and which differ."""
        named = [f"{s.label} on {s.column} {s.value}" for s in self.named]
        differ = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
        said = f"{counted(len(self.looked_at), 'slice')}, {differ or 'none'} differ from the rest"
        return f"Slices({said.replace('none differ', 'none differs')})"


def slice_study(
    record: StudyRecord,
    by: Sequence[str] | None = None,
    part: str = "test",
    runs: Mapping[str, Runs] | None = None,
) -> Slices:
    """Accuracy by length, label, file and any column (`by`: these alone), of each method.

    `runs`: its predictions on the part, where they have been read. Raises InputError where the
    study has nothing to cut, and for a cut that its rows do not have.
    """
    folder = record.directory
    rows = study_folder.read_rows(folder, part)
    runs = read_runs(record)[part] if runs is None else runs
    if rows is None or not runs:
        what = "no finished trial" if rows is not None else "no rows.parquet (an older study)"
        raise InputError(
            f"{folder}: {what}, so there is nothing to cut. Run it again: tunelab compare {folder}"
        )
    own = set(rows.ids)
    if any(not own.issuperset(p.ids) for r in runs.values() for p in r.by_seed.values()):
        raise InputError(
            f"{folder}: rows.parquet has other row ids than the predictions. "
            f"Run the study again: tunelab compare {folder}"
        )
    if (column := record.data.get("group_column")) is not None:
        raise InputError(
            f"{folder}: its rows come in groups by {column!r}, and slices are tested as if rows "
            "were independent: too many would differ. Study.predictions() has every row."
        )
    cuts = attributes(rows, told_apart(record.data["label_names"]))
    for name in by or ():
        if name not in cuts:
            raise InputError(f"slices: {name!r}: no such cut.{suggest(name, cuts, what='Cuts')}")
    chosen = {name: cuts[name] for name in by or cuts}
    looked_at = find_slices(list(runs.values()), chosen, ids=rows.ids)
    return Slices(looked_at, tuple(runs), len(rows.ids))
