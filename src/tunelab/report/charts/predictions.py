"""What the predictions show: ROC, precision and recall, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tunelab.report.charts.base import (
    CHART_WIDTH,
    NEUTRAL,
    ChartRow,
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
from tunelab.report.charts.values import Curve, PlotData, Reliability

if TYPE_CHECKING:
    import altair as alt

    from tunelab.report.charts.values import Chart

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
    return finished_chart(
        alt.layer(_diagonal(alt.X("x:Q")), lines).properties(width=400, height=380),
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


def _diagonal(x: alt.X) -> alt.Chart:
    """A dashed line from (0, 0) to (1, 1)."""
    import altair as alt

    line: alt.Chart = (
        alt.Chart(chart_data([{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        .mark_line(strokeDash=[4, 3], strokeWidth=1.2, color=NEUTRAL, clip=True)
        .encode(x=x, y="y:Q")
    )
    return line


def _of_classes(data: PlotData) -> str:
    names = data.class_names
    return f"of {names[1]!r}" if len(names) == 2 else "one class against the rest, averaged"


def _area_lines(data: PlotData, curves: Mapping[str, Curve], x_title: str, y_title: str) -> Chart:
    """A line a method on the unit square, its area in the legend."""
    import altair as alt

    shown = methods_in_order(data, curves)
    names = {m: f"{data.names[m]} ({curves[m].area:.3f})" for m in shown}
    rows: list[ChartRow] = [
        {"method": m, "name": names[m], "x": rounded(x), "y": rounded(y), "order": i}
        for m in shown
        for i, (x, y) in enumerate(zip(curves[m].x, curves[m].y, strict=True))
    ]
    axis = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], format=".1f")
    unit = alt.Scale(domain=[0, 1])
    lines: Chart = (
        alt.Chart(chart_data(rows))
        .mark_line(strokeWidth=2.2, clip=True)
        .encode(
            x=alt.X("x:Q", title=x_title, scale=unit, axis=axis),
            y=alt.Y("y:Q", title=y_title, scale=unit, axis=axis),
            order="order:Q",
            opacity=followed(),
            color=method_colour(data, shown, names=names),
            strokeDash=method_dash(data, shown, names=names),
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
    names = {m: f"{data.names[m]} ({_points_off(data.reliability[m])})" for m in shown}
    sure, right = _reliability_domains(data, shown)
    unit = alt.Scale(domain=sure, nice=False)
    axis = alt.Axis(format=".0%", tickCount=5)
    x_title = "confidence (probability of the class said)"
    y_scale = alt.Scale(domain=right, nice=False)
    base = alt.Chart(chart_data(_reliability_rows(data, names))).encode(
        x=alt.X("confidence:Q", title=x_title, scale=unit, axis=axis),
        y=alt.Y("accuracy:Q", title="how often it is right", scale=y_scale, axis=axis),
        opacity=followed(),
        color=method_colour(data, shown, names=names),
        tooltip=[
            alt.Tooltip("name:N", title="method (error in points)"),
            alt.Tooltip("confidence:Q", title="mean confidence", format=".1%"),
            alt.Tooltip("accuracy:Q", title="right", format=".1%"),
            alt.Tooltip("rows:Q", title="rows, all seeds"),
        ],
    )
    chart = alt.layer(
        base.mark_rule(strokeWidth=5, clip=True).encode(
            y=alt.Y("low:Q", title="how often it is right", scale=y_scale, axis=axis),
            y2="high:Q",
            opacity=followed(0.18),
        ),
        _diagonal(alt.X("x:Q", scale=unit)),
        base.mark_line(strokeWidth=1.6, clip=True),
        base.mark_point(filled=True, clip=True)
        .encode(
            size=alt.Size("rows:Q", scale=alt.Scale(type="sqrt", range=[15, 220]), legend=None),
            shape=method_shape(data, shown, names=names),
        )
        .add_params(zoom()),
    ).properties(width=CHART_WIDTH, height=340)
    return finished_chart(
        chart,
        "Is it right as often as it is sure?",
        f"on {data.part}; pale bars: where points of a calibrated method lie; in brackets the "
        "calibration error in points, without the luck of the labels; larger: more rows; "
        f"{seeds_of(data, shown)}",
    )


def _reliability_rows(data: PlotData, names: Mapping[str, str]) -> list[ChartRow]:
    return [
        {
            "method": m,
            "name": name,
            "confidence": rounded(c),
            "accuracy": rounded(a),
            "rows": int(n),
            "low": rounded(low),
            "high": rounded(high),
        }
        for m, name in names.items()
        for r in [data.reliability[m]]
        for c, a, n, (low, high) in zip(r.confidence, r.accuracy, r.rows, r.band, strict=True)
    ]


def _points_off(r: Reliability) -> str:
    """The error in points; "none seen" where it may be luck."""
    return f"{100 * r.error.value:.1f}" if r.off else "none seen"


def _reliability_domains(data: PlotData, shown: Sequence[str]) -> tuple[list[float], list[float]]:
    """Of confidence and accuracy: a little wider than what can be, so that a point is whole."""
    seen = [c for m in shown for c in data.reliability[m].confidence]
    least = min([1 / max(len(data.class_names), 2), *seen])
    lowest = min(a for m in shown for a in data.reliability[m].accuracy)
    return [round(least - 0.02, 3), 1.02], [-0.03 if lowest < 0.03 else 0, 1.03]


def describe_calibration(data: PlotData) -> str:
    """The calibration error of each method."""
    reliability = data.reliability
    parts = [f"{m} {_error_said(reliability[m])}" for m in methods_in_order(data, reliability)]
    return f"Calibration error: {'; '.join(parts)}."


def _error_said(r: Reliability) -> str:
    e = r.error
    if e.low is None or e.high is None:
        return "cannot be told: too few rows or mistakes"
    if not r.off:
        return f"no sign of any (above {100 * e.high:.1f} points is ruled out)"
    return f"{100 * e.value:.1f} points ({100 * e.low:.1f} to {100 * e.high:.1f})"
