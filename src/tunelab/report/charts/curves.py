"""What happened while training: loss and validation score by epoch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunelab.report.charts.base import (
    CHART_WIDTH,
    ChartRow,
    capital,
    chart_data,
    finished_chart,
    followed,
    method_colour,
    method_dash,
    method_shape,
    methods_in_order,
    rounded,
    seeds_of,
    zoom,
)
from tunelab.report.charts.values import CurvePoint, PlotData

if TYPE_CHECKING:
    import altair as alt

    from tunelab.report.charts.values import Chart

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
    shown = methods_in_order(data, {p.method for p in single})
    several = len({p.seed for p in single}) > 1
    mean = _mean_over_seeds(single, between=bins is not None)
    y = alt.Y("value:Q", title=axis, scale=alt.Scale(zero=False))
    colour = method_colour(data, shown)
    last = max(p.epoch for p in points)
    x = _epochs([min(p.epoch for p in mean) - 0.15, last + 0.15] if dots else [0, last], last)
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("epoch:Q", format=".2~f"),
        alt.Tooltip("value:Q", title=axis, format=".3~f"),
    ]
    thick = alt.Chart(chart_data([_mean_row(p) for p in mean], data.names)).encode(
        x=x, y=y, color=colour, tooltip=tooltip, opacity=followed()
    )
    layers = [
        thick.mark_line(strokeWidth=2.5, clip=True).encode(strokeDash=method_dash(data, shown))
    ]
    if several and len(shown) <= MOST_SINGLE:
        thin = (
            alt.Chart(chart_data([_seed_row(p) for p in single], data.names))
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


def _epochs(domain: list[float], last: float) -> alt.X:
    """The axis of epochs: whole ones up to the last, about eight of them."""
    import altair as alt

    ticks = range(math.ceil(domain[0]), math.floor(last + 0.02) + 1)
    return alt.X(
        "epoch:Q",
        title="epoch",
        scale=alt.Scale(domain=domain, nice=False),
        axis=alt.Axis(grid=False, values=list(ticks[:: max(1, len(ticks) // 8)]), format="d"),
    )


@dataclass(frozen=True, slots=True)
class _SeedPoint:
    """A point of one seed's line; `place`: its bin, or its epoch where there are none."""

    method: str
    seed: int
    place: float
    epoch: float
    value: float


def _seed_row(p: _SeedPoint) -> ChartRow:
    return {"method": p.method, "seed": p.seed, "epoch": p.epoch, "value": p.value}


@dataclass(frozen=True, slots=True)
class _MeanPoint:
    """A point of the mean line of a method."""

    method: str
    epoch: float
    value: float


def _mean_row(p: _MeanPoint) -> ChartRow:
    return {"method": p.method, "epoch": p.epoch, "value": p.value}


def _is_single_point(points: Sequence[_MeanPoint]) -> bool:
    return min(Counter(p.method for p in points).values()) < 2


def _binned_by_epoch(points: Sequence[CurvePoint], bins: int | None) -> list[_SeedPoint]:
    """Points by method, seed and epoch; with `bins`, means in that many equal bins of epochs."""
    last = max(p.epoch for p in points) or 1.0
    groups: dict[tuple[str, int, float], list[CurvePoint]] = {}
    for p in points:
        place = math.ceil(p.epoch / last * bins - 1e-9) if bins else p.epoch
        groups.setdefault((p.method, p.seed, place), []).append(p)
    return [
        _SeedPoint(
            method=method,
            seed=seed,
            place=place,
            epoch=rounded(sum(p.epoch for p in group) / len(group)),
            value=rounded(sum(p.value for p in group) / len(group)),
        )
        for (method, seed, place), group in groups.items()
    ]


def _mean_over_seeds(points: Sequence[_SeedPoint], *, between: bool) -> list[_MeanPoint]:
    """Means by method and place; with `between`, of lines that have a value between their points.

    Seeds need not be logged at the same epochs: a mean of those that happen to be would jump from
    one seed's line to another's.
    """
    if between:
        return [
            mean
            for method in dict.fromkeys(p.method for p in points)
            for mean in _mean_line(method, [p for p in points if p.method == method])
        ]
    groups: dict[tuple[str, float], list[_SeedPoint]] = {}
    for p in points:
        groups.setdefault((p.method, p.place), []).append(p)
    return [
        _MeanPoint(
            method=method,
            epoch=rounded(sum(p.epoch for p in group) / len(group)),
            value=rounded(sum(p.value for p in group) / len(group)),
        )
        for (method, _), group in groups.items()
    ]


def _mean_line(method: str, points: Sequence[_SeedPoint]) -> list[_MeanPoint]:
    """The mean of one method's lines, at the epochs of the seed that has the most points."""
    lines: dict[int, list[tuple[float, float]]] = {}
    for p in points:
        lines.setdefault(p.seed, []).append((p.epoch, p.value))
    longest = max(lines.values(), key=len)
    epochs = [x for x, _ in sorted(longest)]
    drawn = [np.interp(epochs, *np.transpose(sorted(line))) for line in lines.values()]
    return [
        _MeanPoint(method, x, rounded(float(value)))
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
    return _describe_curves(data.validation, data.scale, data.digits)
