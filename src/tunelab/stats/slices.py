"""Where a method is right and where not: accuracy by length, label, file or any column.

A slice is named only where it truly differs from the rest of the rows: all slices of all methods
are tested at once by dealing the rows anew (`slice_tests`), so that with nothing to find fewer than
one study in twenty names any. Works on stored predictions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.study_folder import StudyRows
from tunelab.core.tasks import label_words
from tunelab.core.values import Estimate
from tunelab.core.words import counted, signed
from tunelab.stats.crossed import LEVEL
from tunelab.stats.resampling import Runs
from tunelab.stats.shares import share_of_values
from tunelab.stats.slice_tests import Cut, SliceTests, seed_variances, slice_tests

__all__ = [
    "LEAST_ROWS_OF_SLICE",
    "Slice",
    "attributes",
    "find_slices",
    "named_slices",
    "slice_sentence",
    "slices_to_json",
]


Floats = NDArray[np.float64]

NAMED_AT = 0.8  # of the 5% promised: where seeds differ the test is approximate
LEAST_ROWS_OF_SLICE = 10  # a slice, and its rest, of fewer rows is not looked at
MOST_VALUES_OF_COLUMN = 30  # a column with more distinct values is read as numbers, or not at all
BINS = 4
LEAST_SEEDS_FOR_OTHERS = 3  # two seeds that agree by luck look as if seeds did not matter


@dataclass(frozen=True, slots=True)
class Slice:
    """One method on the rows where `column` has `value`, and on all others.

    Accuracies and their `difference` (slice minus rest) are means over seeds, with 95% intervals
    for other seeds and other rows. `p_value` is of this slice alone, `p_adjusted` over all slices
    of the same call; `named`: it is at most 0.05 and the interval excludes zero. With one or two
    seeds that is said of these trainings: what others would do on the slice they do not show.
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
    out["label"] = tuple(label_words(y, label_names) for y in rows.labels)
    files = tuple(i.rpartition(":")[0] for i in rows.ids)
    if 1 < len(set(files)) <= MOST_VALUES_OF_COLUMN:
        out["file"] = files
    for name, values in rows.columns.items():
        known = [v for v in values if v is not None]
        if len(set(known)) < 2:
            continue
        if len(set(known)) <= MOST_VALUES_OF_COLUMN:
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
    *,
    ids: Sequence[str] | None = None,
) -> tuple[Slice, ...]:
    """Every slice of at least 10 rows, for each method: how it differs from the rest.

    `by` are the attributes of rows (`attributes`) in the order of `ids`, by default that of the
    predictions; seeds may have answered some of these rows only, as folds do. In the order of
    `runs`, then of `by`; values by size or frequency. Raises ValueError where an attribute has not
    one value a row, or a prediction is of a row that is not among them.
    """
    if not runs:
        return ()
    ids = next(iter(runs[0].by_seed.values())).ids if ids is None else tuple(ids)
    right = [_right_by_row(r, ids) for r in runs]
    answered = np.all([np.isfinite(r).any(axis=0) for r in right], axis=0)
    columns = [_column_of(name, values, answered) for name, values in by.items()]
    columns = [c for c in columns if c.values]
    if not columns:
        return ()
    tests = slice_tests(right, [c.cut for c in columns])
    return tuple(
        s
        for k, r in enumerate(runs)
        for s in _slices_of(r.label, right[k], columns, tests.of_method(k), level)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """What rows are cut by: a name, the `values` (J) of slices that are large enough, their cut."""

    name: str
    values: tuple[str, ...]
    cut: Cut


def _right_by_row(r: Runs, ids: Sequence[str]) -> Floats:
    """Who is right, (S, n) in the order of `ids`: 1 or 0, NaN where a seed has no such row."""
    parts = list(r.by_seed.values())
    if all(p.ids == ids for p in parts):
        return np.stack([p.right for p in parts]).astype(np.float64)
    place = {i: k for k, i in enumerate(ids)}
    right = np.full((len(parts), len(ids)), np.nan)
    for of_seed, p in zip(right, parts, strict=True):
        unknown = next((i for i in p.ids if i not in place), None)
        if unknown is not None:
            raise ValueError(f"{r.label}: row {unknown!r} is not among the rows of the attributes")
        of_seed[[place[i] for i in p.ids]] = p.right
    return right


def _column_of(name: str, values: Sequence[str | None], answered: NDArray[np.bool_]) -> _Column:
    if len(values) != len(answered):
        raise ValueError(
            f"{name}: {len(values)} values for {len(answered)} rows; "
            "expected one a row, in the order of the predictions"
        )
    known = np.array([v is not None for v in values]) & answered
    array = np.array(["" if v is None else v for v in values], dtype=object)
    counts = Counter(v for v, k in zip(values, known, strict=True) if v is not None and k)
    most = int(known.sum()) - LEAST_ROWS_OF_SLICE
    kept = tuple(v for v, n in _in_reading_order(counts) if LEAST_ROWS_OF_SLICE <= n <= most)
    inside = np.array([known & (array == v) for v in kept]).reshape(len(kept), len(values))
    return _Column(name, kept, Cut(known, inside))


def _slices_of(
    label: str, right: Floats, columns: Sequence[_Column], tests: SliceTests, level: float
) -> Iterator[Slice]:
    """One method's slices, with what was tested of each."""
    of_seeds = iter(seed_variances(right, [c.cut for c in columns]).tolist())
    p_values = iter(zip(tests.p_values.tolist(), tests.adjusted.tolist(), strict=True))
    for column in columns:
        for value, inside in zip(column.values, column.cut.inside, strict=True):
            outside = column.cut.known & ~inside
            of_slice, of_rest = (share_of_values(right[:, rows]) for rows in (inside, outside))
            difference = of_slice.minus(of_rest, next(of_seeds), level)
            p, adjusted = next(p_values)
            low, high = difference.low or 0.0, difference.high or 0.0
            yield Slice(
                label=label,
                column=column.name,
                value=value,
                rows=int(inside.sum()),
                accuracy=of_slice.estimate(level),
                rest=of_rest.estimate(level),
                difference=difference,
                p_value=p,
                p_adjusted=adjusted,
                named=adjusted <= NAMED_AT * (1 - level) and not low <= 0 <= high,
            )


def _in_reading_order(counts: Counter[str]) -> list[tuple[str, int]]:
    """Values with their counts: numbers and ranges by size, names by frequency."""
    begins = {v: re.match(r"-?\d+(\.\d+)?(e[+-]?\d+)?", v) for v in counts}
    if all(begins.values()):
        return sorted(counts.items(), key=lambda vn: float(m[0]) if (m := begins[vn[0]]) else 0.0)
    return counts.most_common()


def named_slices(slices: Sequence[Slice]) -> tuple[Slice, ...]:
    """The slices that truly differ, the weakest first."""
    return tuple(sorted((s for s in slices if s.named), key=lambda s: s.difference.value))


def slice_sentence(s: Slice, tested: int | None = None) -> str:
    """A slice in plain words."""
    d = s.difference
    word = "weaker" if d.value < 0 else "stronger"
    p = "p < 0.001" if s.p_adjusted < 0.001 else f"p = {s.p_adjusted:.2g}"
    of_all = f" over all {counted(tested, 'slice')}" if tested else " over all slices"
    ends = f"{signed(100 * (d.low or 0), 1)} to {signed(100 * (d.high or 0), 1)}"
    few = s.accuracy.n < LEAST_SEEDS_FOR_OTHERS
    only = f"; of {counted(s.accuracy.n, 'training')}, other seeds are not known" if few else ""
    lead = f"{s.label} is {word}" if s.named else f"{s.label} is not shown to differ"
    return (
        f"{lead} where {s.column} is {s.value}: {100 * s.accuracy.value:.1f} against "
        f"{100 * s.rest.value:.1f} percent elsewhere ({signed(100 * d.value, 1)} points, 95% "
        f"interval {ends}, {p}{of_all}; {s.rows:,} rows{only})"
    )


def slices_to_json(slices: Sequence[Slice]) -> dict[str, object]:
    """Slices as plain values: `slices`, and the `sentences` of those that truly differ."""
    return {
        "slices": [asdict(s) for s in slices],
        "sentences": [slice_sentence(s, len(slices)) for s in named_slices(slices)],
    }
