"""What the predictions show: ROC, precision and recall, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tunelab.report.charts.base import (
    CHART_WIDTH,
    LEGEND,
    NEUTRAL,
    Curve,
    PlotData,
    chart_data,
    colours,
    dashes,
    finished_chart,
    followed,
    methods_in_order,
    rounded,
    seeds_of,
    shapes,
    zoom,
)

if TYPE_CHECKING:
    from tunelab.report.charts.base import Chart

__all__ = [
    "calibration_plot",
    "describe_calibration",
    "describe_precision_recall",
    "describe_roc",
    "precision_recall_plot",
    "roc_plot",
]


# --- ROC, precision and recall ----------------------------------------------------------------


def roc_plot(data: PlotData) -> Chart | None:
    """ROC curves with the line of chance; with more than two classes, one against the rest."""
    import altair as alt

    if not data.roc:
        return None
    curves = {
        m: Curve(r.false_positive_rate, r.true_positive_rate, r.auc) for m, r in data.roc.items()
    }
    lines = _area_lines(data, curves, "false positive rate", "true positive rate")
    chance = (
        alt.Chart(chart_data([{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        .mark_line(strokeDash=[4, 3], strokeWidth=1.2, color=NEUTRAL, clip=True)
        .encode(x="x:Q", y="y:Q")
    )
    return finished_chart(
        alt.layer(chance, lines).properties(width=400, height=380),
        "ROC curves",
        f"{_of_classes(data)}, on {data.part}; in brackets the area; mean over seeds, "
        f"{seeds_of(data, methods_in_order(data, curves))}",
    )


def precision_recall_plot(data: PlotData) -> Chart | None:
    """Precision at each recall; with more than two classes, one against the rest."""
    import altair as alt

    if not data.precision_recall:
        return None
    lines = _area_lines(data, data.precision_recall, "recall", "precision")
    return finished_chart(
        alt.layer(lines).properties(width=400, height=380),
        "Precision and recall",
        f"{_of_classes(data)}, on {data.part}; in brackets the average precision; mean over "
        f"seeds, {seeds_of(data, methods_in_order(data, data.precision_recall))}",
    )


def _of_classes(data: PlotData) -> str:
    names = data.class_names
    return f"of {names[1]!r}" if len(names) == 2 else "one class against the rest, averaged"


def _area_lines(data: PlotData, curves: Mapping[str, Curve], x_title: str, y_title: str) -> Chart:
    """A line a method on the unit square, its area in the legend."""
    import altair as alt

    shown = methods_in_order(data, curves)
    names = {m: f"{m} ({curves[m].area:.3f})" for m in shown}
    palette, dash = colours(data.methods), dashes(data.methods)
    rows = [
        {"method": m, "name": names[m], "x": rounded(x), "y": rounded(y), "order": i}
        for m in shown
        for i, (x, y) in enumerate(zip(curves[m].x, curves[m].y, strict=True))
    ]
    axis = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], format=".1f")
    unit = alt.Scale(domain=[0, 1])
    legend = alt.Legend(**{**LEGEND, "columns": 2})
    domain = [names[m] for m in shown]
    lines: Chart = (
        alt.Chart(chart_data(rows))
        .mark_line(strokeWidth=2.2, clip=True)
        .encode(
            x=alt.X("x:Q", title=x_title, scale=unit, axis=axis),
            y=alt.Y("y:Q", title=y_title, scale=unit, axis=axis),
            order="order:Q",
            opacity=followed(),
            color=alt.Color(
                "name:N",
                scale=alt.Scale(domain=domain, range=[palette[m] for m in shown]),
                legend=legend,
            ),
            strokeDash=alt.StrokeDash(
                "name:N",
                scale=alt.Scale(domain=domain, range=[list(dash[m]) or [1, 0] for m in shown]),
                legend=legend,
            ),
            tooltip=[
                alt.Tooltip("name:N", title="method (area)"),
                alt.Tooltip("x:Q", title=x_title, format=".3f"),
                alt.Tooltip("y:Q", title=y_title, format=".3f"),
            ],
        )
        .add_params(zoom())
    )
    return lines


def describe_roc(data: PlotData) -> str:
    """The area of each method."""
    parts = [f"{m} {data.roc[m].auc:.3f}" for m in methods_in_order(data, data.roc)]
    return f"Area under the curve: {'; '.join(parts)}."


def describe_precision_recall(data: PlotData) -> str:
    """The average precision of each method."""
    curves = data.precision_recall
    parts = [f"{m} {curves[m].area:.3f}" for m in methods_in_order(data, curves)]
    return f"Average precision: {'; '.join(parts)}."


# --- calibration ------------------------------------------------------------------------------


def calibration_plot(data: PlotData) -> Chart | None:
    """Reliability diagram: how often a method is right, by how sure it was (Guo et al. 2017)."""
    import altair as alt

    if not data.reliability:
        return None
    shown = methods_in_order(data, data.reliability)
    names = {m: f"{m} ({100 * data.reliability[m].error:.1f})" for m in shown}
    palette, shape = colours(data.methods), shapes(data.methods)
    rows = [
        {
            "method": m,
            "name": names[m],
            "confidence": rounded(c),
            "accuracy": rounded(a),
            "rows": int(n),
        }
        for m in shown
        for r in [data.reliability[m]]
        for c, a, n in zip(r.confidence, r.accuracy, r.rows, strict=True)
    ]
    seen = [c for m in shown for c in data.reliability[m].confidence]
    least = min([1 / max(len(data.class_names), 2), *seen])
    # A little wider than what can be: a point at the end is drawn whole.
    unit = alt.Scale(domain=[round(least - 0.02, 3), 1.02], nice=False)
    lowest = min(a for m in shown for a in data.reliability[m].accuracy)
    right = alt.Scale(domain=[-0.03 if lowest < 0.03 else 0, 1.03], nice=False)
    axis = alt.Axis(format=".0%", tickCount=5)
    domain = [names[m] for m in shown]
    legend = alt.Legend(**{**LEGEND, "columns": 2})
    x = alt.X(
        "confidence:Q", title="confidence (probability of the class said)", scale=unit, axis=axis
    )
    y = alt.Y("accuracy:Q", title="how often it is right", scale=right, axis=axis)
    base = alt.Chart(chart_data(rows)).encode(
        x=x,
        y=y,
        opacity=followed(),
        color=alt.Color(
            "name:N",
            scale=alt.Scale(domain=domain, range=[palette[m] for m in shown]),
            legend=legend,
        ),
        tooltip=[
            alt.Tooltip("name:N", title="method (error in points)"),
            alt.Tooltip("confidence:Q", title="mean confidence", format=".1%"),
            alt.Tooltip("accuracy:Q", title="right", format=".1%"),
            alt.Tooltip("rows:Q", title="rows, all seeds"),
        ],
    )
    perfect = (
        alt.Chart(chart_data([{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        .mark_line(strokeDash=[4, 3], strokeWidth=1.2, color=NEUTRAL, clip=True)
        .encode(x=alt.X("x:Q", scale=unit), y="y:Q")
    )
    chart = alt.layer(
        perfect,
        base.mark_line(strokeWidth=1.6, clip=True),
        base.mark_point(filled=True, clip=True)
        .encode(
            size=alt.Size("rows:Q", scale=alt.Scale(type="sqrt", range=[15, 220]), legend=None),
            shape=alt.Shape(
                "name:N",
                scale=alt.Scale(domain=domain, range=[shape[m] for m in shown]),
                legend=legend,
            ),
        )
        .add_params(zoom()),
    ).properties(width=CHART_WIDTH, height=340)
    return finished_chart(
        chart,
        "Is it right as often as it is sure?",
        f"on {data.part}; in brackets the expected calibration error in points, mean over seeds; "
        f"larger points hold more rows; {seeds_of(data, shown)}",
    )


def describe_calibration(data: PlotData) -> str:
    """The calibration error of each method."""
    found = data.reliability
    parts = [f"{m} {100 * found[m].error:.1f} points" for m in methods_in_order(data, found)]
    return f"Expected calibration error: {'; '.join(parts)}."
