"""What happened while training: loss and validation score by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunelab.report.charts.base import (
    CHART_WIDTH,
    ChartRow,
    CurvePoint,
    PlotData,
    capital,
    chart_data,
    finished_chart,
    followed,
    method_colour,
    method_dash,
    method_shape,
    rounded,
    seeds_of,
    zoom,
)

if TYPE_CHECKING:
    from tunelab.report.charts.base import Chart

__all__ = [
    "describe_loss",
    "describe_validation",
    "loss_plot",
    "validation_plot",
]


CURVE_BINS = 40
MOST_SINGLE = 8  # with more methods the lines of single seeds hide the means

# --- curves -----------------------------------------------------------------------------------


def loss_plot(data: PlotData) -> Chart | None:
    """Training loss by epoch: a thick line for the mean over seeds, thin ones for the seeds."""
    return _curves(
        data,
        data.loss,
        title="Training loss",
        axis="loss",
        bins=CURVE_BINS,
        dots=False,
    )


def validation_plot(data: PlotData) -> Chart | None:
    """The metric on validation at the end of each epoch, mean and single seeds."""
    points = tuple(
        CurvePoint(p.method, p.seed, p.epoch, p.value * data.scale) for p in data.validation
    )
    return _curves(
        data,
        points,
        title=f"{capital(data.metric)} on validation",
        axis=f"{data.metric} on validation{data.unit}",
        bins=None,
        dots=True,
    )


def _curves(
    data: PlotData,
    points: Sequence[CurvePoint],
    *,
    title: str,
    axis: str,
    bins: int | None,
    dots: bool,
) -> Chart | None:
    import altair as alt

    if not points:
        return None
    single = _binned_by_epoch(points, bins)
    shown = [m for m in data.methods if any(r["method"] == m for r in single)]
    several = len({r["seed"] for r in single}) > 1
    mean = _mean_over_seeds(single, between=bins is not None)
    y = alt.Y("value:Q", title=axis, scale=alt.Scale(zero=False))
    colour = method_colour(data, shown)
    last = max(p.epoch for p in points)
    domain = [min(r["epoch"] for r in mean) - 0.15, last + 0.15] if dots else [0, last]
    ticks = range(math.ceil(domain[0]), math.floor(last + 0.02) + 1)
    x = alt.X(
        "epoch:Q",
        title="epoch",
        scale=alt.Scale(domain=domain, nice=False),
        axis=alt.Axis(grid=False, values=list(ticks[:: max(1, len(ticks) // 8)]), format="d"),
    )
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("epoch:Q", format=".2~f"),
        alt.Tooltip("value:Q", title=axis, format=".3~f"),
    ]
    thick = alt.Chart(chart_data(mean)).encode(
        x=x, y=y, color=colour, tooltip=tooltip, opacity=followed()
    )
    layers = [
        thick.mark_line(strokeWidth=2.5, clip=True).encode(strokeDash=method_dash(data, shown))
    ]
    if several and len(shown) <= MOST_SINGLE:
        thin = (
            alt.Chart(chart_data(single))
            .mark_line(strokeWidth=1, clip=True)
            .encode(x=x, y=y, color=colour, detail="seed:N", opacity=followed(0.35))
        )
        layers.insert(0, thin)
    if dots or _is_single_point(mean):
        layers.append(
            thick.mark_point(filled=True, size=70, clip=True).encode(
                shape=method_shape(data, shown)
            )
        )
    layers[-1] = layers[-1].add_params(zoom())
    thin_said = ", thin: each seed" if several and len(shown) <= MOST_SINGLE else ""
    return finished_chart(
        alt.layer(*layers).properties(width=CHART_WIDTH, height=280),
        title,
        (f"thick: mean over seeds{thin_said}; " if several else "") + seeds_of(data, shown),
    )


def _is_single_point(rows: Sequence[ChartRow]) -> bool:
    counts: dict[str, int] = {}
    for r in rows:
        counts[r["method"]] = counts.get(r["method"], 0) + 1
    return min(counts.values()) < 2


def _binned_by_epoch(points: Sequence[CurvePoint], bins: int | None) -> list[ChartRow]:
    """Rows by method, seed and epoch; with `bins`, means within that many equal bins of epochs."""
    last = max(p.epoch for p in points) or 1.0
    groups: dict[tuple[str, int, float], list[CurvePoint]] = {}
    for p in points:
        place = math.ceil(p.epoch / last * bins - 1e-9) if bins else p.epoch
        groups.setdefault((p.method, p.seed, place), []).append(p)
    return [
        {
            "method": method,
            "seed": seed,
            "place": place,
            "epoch": rounded(sum(p.epoch for p in group) / len(group)),
            "value": rounded(sum(p.value for p in group) / len(group)),
        }
        for (method, seed, place), group in groups.items()
    ]


def _mean_over_seeds(rows: Sequence[ChartRow], *, between: bool) -> list[ChartRow]:
    """Means by method and place; with `between`, of lines that have a value between their points.

    Seeds need not be logged at the same epochs: a mean of those that happen to be would jump from
    one seed's line to another's.
    """
    if between:
        return [
            row
            for method in dict.fromkeys(r["method"] for r in rows)
            for row in _mean_line([r for r in rows if r["method"] == method])
        ]
    groups: dict[tuple[str, float], list[ChartRow]] = {}
    for r in rows:
        groups.setdefault((r["method"], r.pop("place")), []).append(r)
    return [
        {
            "method": method,
            "epoch": rounded(sum(r["epoch"] for r in group) / len(group)),
            "value": rounded(sum(r["value"] for r in group) / len(group)),
        }
        for (method, _), group in groups.items()
    ]


def _mean_line(rows: Sequence[ChartRow]) -> list[ChartRow]:
    """The mean of one method's lines, at the epochs of the seed that has the most points."""
    lines: dict[int, list[tuple[float, float]]] = {}
    for r in rows:
        r.pop("place")
        lines.setdefault(r["seed"], []).append((r["epoch"], r["value"]))
    longest = max(lines.values(), key=len)
    epochs = [x for x, _ in sorted(longest)]
    drawn = [np.interp(epochs, *np.transpose(sorted(line))) for line in lines.values()]
    return [
        {"method": rows[0]["method"], "epoch": x, "value": rounded(float(value))}
        for x, value in zip(epochs, np.mean(drawn, axis=0), strict=True)
    ]


def _describe_curves(points: Sequence[CurvePoint], scale: float, digits: int) -> str:
    methods = dict.fromkeys(p.method for p in points)
    parts = []
    for m in methods:
        lines: dict[int, list[CurvePoint]] = {}
        for p in sorted((p for p in points if p.method == m), key=lambda p: p.epoch):
            lines.setdefault(p.seed, []).append(p)
        first, last = ([line[edge].value for line in lines.values()] for edge in (0, -1))
        start, end = (scale * sum(v) / len(v) for v in (first, last))
        parts.append(f"{m} from {start:.{digits}f} to {end:.{digits}f}")
    return f"First to last logged value, mean over seeds: {'; '.join(parts)}."


def describe_loss(data: PlotData) -> str:
    """First and last loss of each method."""
    return _describe_curves(data.loss, 1.0, 3)


def describe_validation(data: PlotData) -> str:
    """First and last validation score of each method."""
    return _describe_curves(data.validation, data.scale, 1 if data.percent else 3)
