"""Where a method is right and where not: accuracy by length, label, file or any column.

A slice is named only where it truly differs from the rest of the rows: the difference is tested
over seeds and rows, and p values are adjusted by Holm over every slice of every method looked at,
so that with nothing to find fewer than one study in twenty names any. Works on stored predictions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.study_folder import StudyRows
from tunelab.core.values import Estimate
from tunelab.stats.crossed import LEVEL, CrossedMean, mean_of_values
from tunelab.stats.resampling import Runs
from tunelab.stats.tests import holm

__all__ = [
    "LEAST_ROWS",
    "Slice",
    "attributes",
    "find_slices",
    "named_slices",
    "slice_sentence",
    "slices_to_json",
]


Floats = NDArray[np.float64]

LEAST_ROWS = 10  # a slice, and its rest, of fewer rows is not looked at
MOST_VALUES = 30  # a column with more distinct values is read as numbers, or not at all
BINS = 4


@dataclass(frozen=True, slots=True)
class Slice:
    """One method on the rows where `column` has `value`, and on all others.

    Accuracies and their `difference` (slice minus rest) are means over seeds, with 95% intervals
    for other seeds and other rows. `p_adjusted` is after Holm over all slices of the same call;
    `named`: it is at most 0.05 and the interval excludes zero.
    """

    label: str
    column: str
    value: str
    rows: int
    accuracy: Estimate
    rest: Estimate
    difference: Estimate
    p_value: float
    p_adjusted: float
    named: bool


def attributes(rows: StudyRows, label_names: Sequence[str]) -> dict[str, tuple[str | None, ...]]:
    """What rows can be cut by: name -> the value of each row (None: no value).

    "length" in four bins of words, "label", "file" (where rows come from several), and each further
    column: as it is with at most 30 values, in four bins where it holds more numbers than that.
    """
    words = [len(t.split()) for t in rows.texts]
    out: dict[str, tuple[str | None, ...]] = {"length": _binned(words, " words")}
    out["label"] = tuple(label_names[int(y)] for y in rows.labels)
    files = tuple(i.rpartition(":")[0] for i in rows.ids)
    if 1 < len(set(files)) <= MOST_VALUES:
        out["file"] = files
    for name, values in rows.columns.items():
        known = [v for v in values if v is not None]
        if len(set(known)) < 2:
            continue
        if len(set(known)) <= MOST_VALUES:
            out[name] = tuple(None if v is None else str(v) for v in values)
        elif all(isinstance(v, int | float) for v in known):
            out[name] = _binned(values)
    return out


def _binned(values: Sequence[Any], unit: str = "") -> tuple[str | None, ...]:
    """Values in quartiles: "12 to 19 words"."""
    known = np.array([float(v) for v in values if v is not None])
    cuts = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]))
    bins = np.searchsorted(cuts, known, side="left")
    names = _bin_names([known[bins == b] for b in np.unique(bins)], unit, 6)
    bins = np.unique(bins, return_inverse=True)[1]
    where = iter(bins.tolist())
    return tuple(None if v is None else names[next(where)] for v in values)


def _bin_names(bins: Sequence[Floats], unit: str, digits: int) -> list[str]:
    """Each bin by its ends, with digits that tell bins apart: two of one name would be one."""

    def said(x: float) -> str:
        return f"{x:.0f}" if x.is_integer() and abs(x) < 1e15 else f"{x:.{digits}g}"

    ends = [(said(float(values.min())), said(float(values.max()))) for values in bins]
    names = [f"{low}{unit}" if low == high else f"{low} to {high}{unit}" for low, high in ends]
    alike = len(set(names)) < len(names) and digits < 17
    return _bin_names(bins, unit, digits + 1) if alike else names


# --- slices ---------------------------------------------------------------------------------


def find_slices(
    runs: Sequence[Runs],
    by: Mapping[str, Sequence[str | None]],
    level: float = LEVEL,
) -> tuple[Slice, ...]:
    """Every slice of at least 10 rows, for each method: how it differs from the rest.

    `runs` are predictions on the same rows, `by` the attributes of these rows in their order
    (`attributes`). In the order of `runs`, then of `by`; values by size or frequency. Raises
    ValueError where an attribute has not one value a row.
    """
    found: list[tuple[str, str, str, int, CrossedMean, CrossedMean]] = []
    for r in runs:
        right = np.stack([(p.predicted == p.labels) for p in r.by_seed.values()]).astype(float)
        for column, values in by.items():
            if len(values) != right.shape[1]:
                raise ValueError(
                    f"{column}: {len(values)} values for {right.shape[1]} rows of {r.label}; "
                    "expected one a row, in the order of the predictions"
                )
            array = np.array(["" if v is None else v for v in values], dtype=object)
            known = np.array([v is not None for v in values])
            for value, n in _in_reading_order(Counter(v for v in values if v is not None)):
                inside = (array == value) & known
                outside = known & ~inside
                if n < LEAST_ROWS or outside.sum() < LEAST_ROWS:
                    continue
                a, b = mean_of_values(right[:, inside]), mean_of_values(right[:, outside])
                found.append((r.label, column, value, n, a, b))
    tested = [a.minus(b, level) for *_, a, b in found]
    adjusted = holm([p for _, p in tested])
    return tuple(
        Slice(
            label=label,
            column=column,
            value=value,
            rows=n,
            accuracy=a.estimate(level),
            rest=b.estimate(level),
            difference=d,
            p_value=p,
            p_adjusted=q,
            named=q <= 1 - level and not (d.low or 0) <= 0 <= (d.high or 0),
        )
        for (label, column, value, n, a, b), (d, p), q in zip(found, tested, adjusted, strict=True)
    )


def _in_reading_order(counts: Counter[str]) -> list[tuple[str, int]]:
    """Values with their counts: numbers and ranges by size, names by frequency."""
    begins = {v: re.match(r"-?\d+(\.\d+)?(e[+-]?\d+)?", v) for v in counts}
    if all(begins.values()):
        return sorted(counts.items(), key=lambda vn: float(m[0]) if (m := begins[vn[0]]) else 0.0)
    return counts.most_common()


def named_slices(found: Sequence[Slice]) -> tuple[Slice, ...]:
    """The slices that truly differ, the weakest first."""
    return tuple(sorted((s for s in found if s.named), key=lambda s: s.difference.value))


def slice_sentence(s: Slice, tested: int | None = None) -> str:
    """A slice in plain words."""
    d = s.difference
    word = "weaker" if d.value < 0 else "stronger"
    p = "p < 0.001" if s.p_adjusted < 0.001 else f"p = {s.p_adjusted:.2g}"
    holm_over = f" after Holm over {tested:,} slices" if tested else " after Holm"
    lead = f"{s.label} is {word}" if s.named else f"{s.label} is not shown to differ"
    return (
        f"{lead} where {s.column} is {s.value}: {100 * s.accuracy.value:.1f} against "
        f"{100 * s.rest.value:.1f} percent elsewhere ({100 * d.value:+.1f} points, 95% interval "
        f"{100 * (d.low or 0):+.1f} to {100 * (d.high or 0):+.1f}, {p}{holm_over}; {s.rows:,} rows)"
    )


def slices_to_json(found: Sequence[Slice]) -> dict[str, object]:
    """Slices as plain values: `slices`, and the `sentences` of those that truly differ."""
    return {
        "slices": [asdict(s) for s in found],
        "sentences": [slice_sentence(s, len(found)) for s in named_slices(found)],
    }
