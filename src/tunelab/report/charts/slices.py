"""Charts of slices of the test part, and of behaviour tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunelab.core.words import agreeing, counted
from tunelab.report.charts.base import (
    BROWNS,
    CHART_WIDTH,
    ChartRow,
    by,
    chart_data,
    finished_chart,
    followed,
    heat_cells,
    heat_letters,
    method_colour,
    method_shape,
    methods_in_order,
    names_axis,
    numbers_under,
    seeds_of,
    with_ends,
)
from tunelab.report.charts.values import PlotData

if TYPE_CHECKING:
    from tunelab.report.charts.values import Chart

__all__ = [
    "behaviour_plot",
    "describe_behaviour",
    "describe_slices",
    "slices_plot",
    "slices_plots",
]


# --- slices -----------------------------------------------------------------------------------


def slices_plot(data: PlotData) -> Chart | None:
    """Accuracy of each method on each slice, a panel a column that rows are cut by."""
    charts = slices_plots(data)
    return next(iter(charts.values()), None)


def slices_plots(data: PlotData) -> dict[str, Chart]:
    """A chart for each column that rows are cut by."""
    return {
        column: _slices_plot(data, column)
        for column in dict.fromkeys(s.column for s in data.slices)
    }


def _slices_plot(data: PlotData, column: str) -> Chart:
    import altair as alt

    points = [s for s in data.slices if s.column == column]
    shown = methods_in_order(data, {s.method for s in points})
    values = list(dict.fromkeys(s.value for s in points))
    if all(re.match(r"-?\d", v) for v in values):  # bins of numbers, in their order
        values.sort(key=lambda v: float(re.split(r" |$", v, maxsplit=1)[0]))
    rows: list[ChartRow] = [
        {
            "method": s.method,
            "value": f"{s.value} ({s.rows:,})",
            "place": values.index(s.value),
            **with_ends("accuracy", s.accuracy, 100),
            "named": "yes" if s.named else "no",
        }
        for s in points
    ]
    y = alt.Y(
        "value:N",
        sort=by("place"),
        title=None,
        axis=alt.Axis(ticks=False, domain=False, grid=True, labelPadding=8, labelLimit=190),
    )
    x_scale = alt.Scale(zero=False, nice=False, domain=_middle_range(rows))
    x_title = f"accuracy on {data.part}, percent"
    x = alt.X("accuracy:Q", scale=x_scale, title=x_title)
    base = alt.Chart(chart_data(rows, data.names)).encode(
        y=y,
        yOffset=alt.YOffset("name:N", scale=alt.Scale(domain=[data.names[m] for m in shown])),
        color=method_colour(data, shown),
        opacity=followed(),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("value:N", title=column),
            alt.Tooltip("accuracy:Q", title="accuracy, percent", format=".1f"),
            alt.Tooltip("named:N", title="truly differs from the other rows"),
        ],
    )
    layers = alt.layer(
        base.mark_rule(strokeWidth=1.5, clip=True).encode(
            x=alt.X("low:Q", scale=x_scale, title=x_title), x2="high:Q", opacity=followed(0.5)
        ),
        base.mark_point(filled=True, size=55).encode(x=x, shape=method_shape(data, shown)),
        base.transform_filter("datum.named === 'yes'")
        .mark_point(filled=False, size=190, strokeWidth=1.8, shape="circle")
        .encode(x=x),
    ).properties(width=CHART_WIDTH, height={"step": max(7, min(13, 80 // len(shown)))})
    return finished_chart(
        layers,
        f"Accuracy by {column}",
        f"mean and 95% interval over seeds and rows, {seeds_of(data, shown)}; in brackets the "
        "rows; ringed: truly different from the method's other rows",
    )


def _middle_range(rows: Sequence[ChartRow]) -> list[float]:
    """The middle of what is to be seen: points whole, the longest intervals cut."""
    middles = numbers_under(rows, "accuracy")
    lowest, highest = min(numbers_under(rows, "low")), max(numbers_under(rows, "high"))
    return [
        max(0.0, lowest, min(middles) - 40.0) - 1.0,
        min(100.0, highest, max(middles) + 40.0) + 1.0,
    ]


def describe_slices(data: PlotData) -> str:
    """How many slices there are, and the weakest that truly differs."""
    named = [s for s in data.slices if s.named]
    if not named:
        return f"None of {counted(len(data.slices), 'slice')} truly differs from the other rows."
    worst = min(named, key=lambda s: s.accuracy.value)
    return (
        f"{len(named):,} of {counted(len(data.slices), 'slice')} truly "
        f"{agreeing(len(named), 'differ')}; the lowest: {worst.method} "
        f"where {worst.column} is {worst.value}, {100 * worst.accuracy.value:.1f} percent."
    )


# --- behaviour --------------------------------------------------------------------------------


def behaviour_plot(data: PlotData) -> Chart | None:
    """Failure rates on behaviour tests: a cell a test and method (Ribeiro et al. 2020)."""
    import altair as alt

    if not data.behaviour:
        return None
    shown = methods_in_order(data, {b.method for b in data.behaviour})
    tests = list(dict.fromkeys(f"{b.capability}: {b.test}" for b in data.behaviour))
    rows: list[ChartRow] = [
        {
            "method": b.method,
            "place": shown.index(b.method),
            "test": f"{b.capability}: {b.test}",
            "test_place": tests.index(f"{b.capability}: {b.test}"),
            "kind": b.kind,
            **with_ends("failure", b.failure, 1),
            "cases": b.cases,
        }
        for b in data.behaviour
    ]
    cell = max(34, min(70, 620 // len(shown)))
    y = alt.Y("test:N", sort=by("test_place"), title=None, axis=names_axis(210))
    x = alt.X(
        "name:N",
        sort=by("place"),
        title=None,
        axis=alt.Axis(
            orient="top", ticks=False, domain=False, grid=False, labelAngle=-40, labelLimit=120
        ),
    )
    base = alt.Chart(chart_data(rows, data.names)).encode(x=x, y=y, opacity=followed(faded=0.25))
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("test:N"),
        alt.Tooltip("kind:N"),
        alt.Tooltip("failure:Q", title="fails", format=".1%"),
        alt.Tooltip("low:Q", title="95% interval from", format=".1%"),
        alt.Tooltip("high:Q", title="to", format=".1%"),
        alt.Tooltip("cases:Q"),
    ]
    chart = alt.layer(
        heat_cells(base, "failure", BROWNS, tooltip),
        heat_letters(base, "failure", BROWNS, cell),
    ).properties(width={"step": cell}, height={"step": 26})
    return finished_chart(
        chart,
        "Behaviour tests: how often a method fails",
        f"share of the cases that fail, mean over seeds, {seeds_of(data, shown)}",
        fit="grid",
        across=len(shown),
    )


def describe_behaviour(data: PlotData) -> str:
    """The test that each method fails most."""
    parts = []
    for m in data.methods:
        mine = [b for b in data.behaviour if b.method == m]
        if mine:
            worst = max(mine, key=lambda b: b.failure.value)
            parts.append(f"{m} {worst.test} ({100 * worst.failure.value:.0f}%)")
    return f"The test that each fails most: {'; '.join(parts)}."
