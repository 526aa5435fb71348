"""Rounding and wording of figures, for terminal, report and Python alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tunelab import stats
from tunelab.core.values import Estimate
from tunelab.core.words import signed
from tunelab.stats.metrics import METRICS

__all__ = [
    "MISSING",
    "SCORED_PARTS",
    "Column",
    "Part",
    "column",
    "cost_names",
    "format_bytes",
    "format_difference",
    "format_estimate",
    "format_parameters",
    "format_percent",
    "format_seconds",
    "format_spread",
    "format_value",
]

MISSING = "–"  # noqa: RUF001  an en dash is what a reader expects in an empty cell

Part = Literal["test", "eval"]


# --- rounding and units: the one place --------------------------------------------------------

NumberKind = Literal[
    "percent", "number", "seconds", "latency", "bytes", "parameters", "rate", "count", "price"
]

# kind -> rows (below this value, multiply by, decimals, unit). The thresholds sit where rounding
# would carry into the next unit (999,950 bytes is 1.0 MB, not 1000.0 kB).
_SCALES: dict[NumberKind, list[tuple[float, float, int, str]]] = {
    "percent": [(math.inf, 100, 1, "")],
    "number": [(math.inf, 1, 3, "")],
    "seconds": [
        (0.995, 1, 2, " s"),
        (9.95, 1, 1, " s"),
        (119.5, 1, 0, " s"),
        (7197, 1 / 60, 1, " min"),
        (math.inf, 1 / 3600, 1, " h"),
    ],
    "latency": [(0.99995, 1e3, 1, " ms"), (math.inf, 1, 2, " s")],
    "bytes": [
        (999.5, 1, 0, " B"),
        (999_950, 1e-3, 1, " kB"),
        (99_950_000, 1e-6, 1, " MB"),
        (999_500_000, 1e-6, 0, " MB"),
        (math.inf, 1e-9, 2, " GB"),
    ],
    "parameters": [
        (9_999.5, 1, 0, ""),
        (995_000, 1e-6, 2, "M"),
        (999_950_000, 1e-6, 1, "M"),
        (math.inf, 1e-9, 1, "B"),
    ],
    "rate": [(9.95, 1, 1, ""), (math.inf, 1, 0, "")],
    "count": [(math.inf, 1, 0, "")],
    "price": [(0.00995, 1, 4, ""), (0.0995, 1, 3, ""), (math.inf, 1, 2, "")],
}


def _scale(kind: NumberKind, value: float) -> tuple[float, int, str]:
    for below, factor, decimals, unit in _SCALES[kind]:
        if abs(value) < below:
            return factor, decimals, unit
    return _SCALES[kind][-1][1:]


def _fixed(value: float, decimals: int) -> str:
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"


def _format(kind: NumberKind, value: float | None) -> str:
    if value is None:
        return MISSING
    factor, decimals, unit = _scale(kind, value)
    return _fixed(value * factor, decimals) + unit


def format_percent(value: float | None) -> str:
    """A share in [0, 1] as percent with one decimal: 0.794 -> "79.4"."""
    return _format("percent", value)


def format_seconds(value: float | None) -> str:
    """A duration in seconds: "0.45 s", "4.4 s", "44 s", "2.1 min", "3.0 h"."""
    return _format("seconds", value)


def format_bytes(value: float | None) -> str:
    """Bytes in decimal units: 1_200_000 -> "1.2 MB"."""
    return _format("bytes", value)


def format_parameters(value: float | None) -> str:
    """A number of parameters: 770 -> "770", 300_000 -> "0.30M", 22_700_000 -> "22.7M"."""
    return _format("parameters", value)


def format_estimate(estimate: Estimate | None, kind: NumberKind) -> str:
    """A value with its interval: "79.4 ± 1.8", "79.4 [77.1, 80.2]" where that is lopsided.

    Of too few runs for an interval, the smallest and the largest: "44 (41 to 48) s". An estimate
    without either (one seed), or whose ends are one value, is the bare value.
    """
    if estimate is None:
        return MISSING
    factor, decimals, unit = _scale(kind, estimate.value)
    spread = format_spread(estimate, kind)
    return f"{_fixed(estimate.value * factor, decimals)}{f' {spread}' if spread else ''}{unit}"


def format_spread(estimate: Estimate, kind: NumberKind) -> str:
    """What stands behind a value: "± 1.8", "[77.1, 80.2]", "(41 to 48)"; "" where there is none."""
    value, low, high = estimate.value, estimate.low, estimate.high
    factor, decimals, _ = _scale(kind, value)
    if low is None or high is None or low == high:
        return ""
    ends = [_fixed(x * factor, decimals) for x in (low, high)]
    if estimate.is_range:
        return f"({ends[0]} to {ends[1]})" if ends[0] != ends[1] else ""
    up, down = high - value, value - low
    if math.isclose(up, down, rel_tol=0.02, abs_tol=0.05 / factor / 10**decimals):
        return f"± {_fixed((up + down) / 2 * factor, decimals)}"
    return f"[{ends[0]}, {ends[1]}]"


def format_difference(difference: Estimate, metric: str, *, cell: bool = False) -> str:
    """A difference with its interval: "+0.8 points, 95% interval -4.2 to +5.8".

    In a `cell` of a table "+0.8 (-4.2 to +5.8)".
    """
    row = METRICS[metric]
    digits, scale = stats.decimals(difference, row), 100 if row.percent else 1
    value, *ends = (
        signed(x * scale, digits)
        for x in (difference.value, difference.low, difference.high)
        if x is not None
    )
    what = "points" if row.percent else row.label
    if row.percent and metric != "accuracy":
        what += f" of {row.label}"
    if cell:
        return f"{value} ({ends[0]} to {ends[1]})" if len(ends) == 2 else value
    interval = f"95% interval {ends[0]} to {ends[1]}" if len(ends) == 2 else "no interval"
    return f"{value} {what}, {interval}"


def format_value(value: float | None, of: Column) -> str:
    """A value of a column without an interval: "79.4", "44 s", "1.2 MB"."""
    return _format(of.kind, value)


# --- columns ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: its key in results.csv, what a reader sees, how it is written."""

    name: str
    heading: str
    kind: NumberKind
    about: str


_COST_COLUMNS = {
    c.name: c
    for c in (
        Column("train_seconds", "Training", "seconds", "training time, evaluation excluded"),
        Column(
            "peak_memory_bytes",
            "Peak memory",
            "bytes",
            "peak of a fresh process while training, less what it held before",
        ),
        Column("adapter_parameters", "Adapter params", "parameters", "trained adapter parameters"),
        Column("head_parameters", "Head params", "parameters", "trained parameters of the head"),
        Column("trainable_parameters", "Trained params", "parameters", "all trained parameters"),
        Column("total_parameters", "Total params", "parameters", "all parameters of the model"),
        Column("artifact_bytes", "On disk", "bytes", "size of the saved classifier"),
        Column("texts_per_second", "Texts/s", "rate", "texts a second, tokenization included"),
        Column("latency_p50_seconds", "Latency", "latency", "median time for one text"),
        Column("latency_p95_seconds", "Latency p95", "latency", "95th percentile for one text"),
        Column(
            "price_per_1000_texts",
            "Price per 1,000",
            "price",
            "what the endpoint takes for 1,000 texts, at the prices given",
        ),
    )
}
SCORED_PARTS = {"test": "test", "eval": "validation"}


def cost_names() -> tuple[str, ...]:
    """The costs of a trial, as results.csv names them."""
    return tuple(_COST_COLUMNS)


def column(name: str) -> Column:
    """The column of a key of results.csv, as "test_accuracy" or "train_seconds"."""
    if name in _COST_COLUMNS:
        return _COST_COLUMNS[name]
    part, _, metric = name.partition("_")
    known = METRICS.get(metric)
    label = known.label if known else metric.replace("_", " ")
    kind: NumberKind = "percent" if known and known.percent else "number"
    where = SCORED_PARTS.get(part, part)
    unit = ", %" if kind == "percent" else ""
    return Column(
        name, f"{where[:1].upper()}{where[1:]} {label}{unit}", kind, f"{label} on {where}"
    )
