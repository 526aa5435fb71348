"""What the predictions show: ROC, precision and recall, confusion, agreement of methods.

May import: types, plots.base, and altair inside functions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunelab.plots.base import (
    CHART_WIDTH,
    LEGEND,
    NEUTRAL,
    ChartRow,
    Curve,
    PlotData,
    by,
    chart_data,
    colours,
    dashes,
    finished_chart,
    followed,
    method_colour,
    method_shape,
    methods_in_order,
    rounded,
    seeds_of,
    shapes,
    zoom,
)

if TYPE_CHECKING:
    from tunelab.plots.base import Chart

MOST_CLASSES = 30  # a larger confusion matrix is a carpet, not a chart

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


# --- confusion matrices -----------------------------------------------------------------------


def confusion_plot(data: PlotData) -> Chart | None:
    """Confusion matrices side by side: the share of each true class that went to each class."""
    import altair as alt

    names = data.class_names
    if not data.confusion or not 2 <= len(names) <= MOST_CLASSES:
        return None
    shown = methods_in_order(data, data.confusion)
    rows = [
        {
            "method": m,
            "place": place,
            "true": names[i],
            "true_place": i,
            "predicted": names[j],
            "predicted_place": j,
            "share": rounded(n / max(sum(line), 1)),
            "rows": int(n),
        }
        for place, m in enumerate(shown)
        for i, line in enumerate(data.confusion[m])
        for j, n in enumerate(line)
    ]
    cell = 84 if len(names) == 2 else max(18, min(54, 300 // len(names)))
    flat = len(names) == 2 and max(map(len, names)) <= 10
    x = alt.X(
        "predicted:N",
        sort=by("predicted_place"),
        title="predicted",
        axis=alt.Axis(
            labelAngle=0 if flat else -45, ticks=False, domain=False, labelLimit=100, grid=False
        ),
    )
    y = alt.Y(
        "true:N",
        sort=by("true_place"),
        title="true",
        axis=alt.Axis(ticks=False, domain=False, labelLimit=100, grid=False),
    )
    # Both ends of the ramp stay away from the page, white or black.
    colour = alt.Color(
        "share:Q",
        scale=alt.Scale(domain=[0, 1], range=["#e8f1f8", "#0b4f82"]),
        legend=None,
    )
    base = alt.Chart().encode(x=x, y=y)
    layers = [
        base.mark_rect(stroke="#ffffff", strokeWidth=1).encode(
            color=colour,
            opacity=followed(faded=0.25),
            tooltip=[
                alt.Tooltip("method:N"),
                alt.Tooltip("true:N"),
                alt.Tooltip("predicted:N"),
                alt.Tooltip("share:Q", title="share of the true class", format=".1%"),
                alt.Tooltip("rows:Q", title="rows, all seeds"),
            ],
        )
    ]
    if cell >= 30:
        layers.append(
            base.mark_text(fontSize=12 if cell > 40 else 10).encode(
                text=alt.Text("share:Q", format=".0%"),
                color=alt.condition(
                    "datum.share > 0.5", alt.value("#ffffff"), alt.value("#10293d")
                ),
            )
        )
    fit = max(1, min(len(shown), 860 // (cell * len(names) + 24)))
    per_line = math.ceil(len(shown) / math.ceil(len(shown) / fit))  # lines of like length
    chart = (
        alt.layer(*layers, data=chart_data(rows))
        .properties(width={"step": cell}, height={"step": cell})
        .facet(
            facet=alt.Facet(
                "method:N",
                sort=by("place"),
                title=None,
                header=alt.Header(labelPadding=6, labelLimit=cell * len(names) + 20),
            ),
            columns=per_line,
            spacing=24,
        )
    )
    return finished_chart(
        chart,
        "Confusion matrices",
        f"share of each true class, on {data.part}; all seeds together, {seeds_of(data, shown)}",
        fit="squares",
    )


def describe_confusion(data: PlotData) -> str:
    """The most frequent confusion of each method."""
    parts = []
    for m in methods_in_order(data, data.confusion):
        worst = max(
            (
                (n / max(sum(line), 1), i, j)
                for i, line in enumerate(data.confusion[m])
                for j, n in enumerate(line)
                if i != j
            ),
            default=None,
        )
        if worst is None or worst[0] == 0:
            parts.append(f"{m} confuses nothing")
            continue
        share, i, j = worst
        parts.append(
            f"{m} takes {100 * share:.0f}% of {data.class_names[i]!r} for {data.class_names[j]!r}"
        )
    return f"The most frequent confusion of each: {'; '.join(parts)}."


# --- agreement --------------------------------------------------------------------------------


def agreement_plot(data: PlotData) -> Chart | None:
    """The share of rows on which two methods say the same, a cell a pair."""
    import altair as alt

    pairs = data.agreement
    shown = [m for m in data.methods if any(m in pair for pair in pairs)]
    if len(shown) < 2:
        return None
    place = {m: i for i, m in enumerate(shown)}
    rows: list[ChartRow] = []
    for (a, b), share in pairs.items():
        for one, other in ((a, b), (b, a)):
            rows.append(
                {
                    "method": one,
                    "place": place[one],
                    "other": other,
                    "other_place": place[other],
                    "share": rounded(share),
                    "rows": round((1 - share) * data.agreement_rows),
                }
            )
    cell = max(30, min(64, 560 // len(shown)))
    axis: dict[str, Any] = {"ticks": False, "domain": False, "grid": False, "labelLimit": 130}
    x = alt.X("other:N", sort=by("other_place"), title=None, axis=alt.Axis(**axis, labelAngle=-40))
    y = alt.Y("method:N", sort=by("place"), title=None, axis=alt.Axis(**axis))
    lowest = min(pairs.values())
    base = alt.Chart(chart_data(rows)).encode(x=x, y=y, opacity=followed(faded=0.25))
    middle = rounded((1 + lowest) / 2)
    chart = alt.layer(
        base.mark_rect(stroke="#ffffff", strokeWidth=1).encode(
            color=alt.Color(
                "share:Q",
                scale=alt.Scale(domain=[rounded(lowest), 1], range=["#e8f1f8", "#0b4f82"]),
                legend=None,
            ),
            tooltip=[
                alt.Tooltip("method:N"),
                alt.Tooltip("other:N", title="and"),
                alt.Tooltip("share:Q", title="say the same", format=".1%"),
                alt.Tooltip("rows:Q", title="rows where they differ"),
            ],
        ),
        base.mark_text(fontSize=12 if cell > 40 else 10).encode(
            text=alt.Text("share:Q", format=".0%"),
            color=alt.condition(
                f"datum.share > {middle}", alt.value("#ffffff"), alt.value("#10293d")
            ),
        ),
    ).properties(width={"step": cell}, height={"step": min(cell, 44)})
    return finished_chart(
        chart,
        "How often two methods say the same",
        f"share of {data.agreement_rows:,} rows of {data.part}, by the mean scores over seeds, "
        f"{seeds_of(data, shown)}",
        fit="grid",
        across=len(shown),
    )


def describe_agreement(data: PlotData) -> str:
    """The pair that agrees least and the pair that agrees most."""
    if not data.agreement:
        return ""
    ordered = sorted(data.agreement.items(), key=lambda item: item[1])
    (a, b), least = ordered[0]
    (c, d), most = ordered[-1]
    if len(ordered) == 1:
        return f"{a} and {b} say the same on {100 * least:.1f}% of the rows."
    return (
        f"{a} and {b} agree least, on {100 * least:.1f}% of the rows; "
        f"{c} and {d} most, on {100 * most:.1f}%."
    )


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
    shown = [m for m in data.methods if any(s.method == m for s in points)]
    values = list(dict.fromkeys(s.value for s in points))
    if all(re.match(r"-?\d", v) for v in values):  # bins of numbers, in their order
        values.sort(key=lambda v: float(re.split(r" |$", v, maxsplit=1)[0]))
    rows: list[ChartRow] = [
        {
            "method": s.method,
            "value": f"{s.value} ({s.rows:,})",
            "place": values.index(s.value),
            "accuracy": rounded(100 * s.accuracy.value),
            "low": rounded(100 * (s.accuracy.value if s.accuracy.low is None else s.accuracy.low)),
            "high": rounded(
                100 * (s.accuracy.value if s.accuracy.high is None else s.accuracy.high)
            ),
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
    offset = alt.YOffset("method:N", scale=alt.Scale(domain=shown))
    colour = method_colour(data, shown)
    x_scale = alt.Scale(zero=False, nice=False, domain=_middle_range(rows))
    base = alt.Chart(chart_data(rows)).encode(
        y=y,
        yOffset=offset,
        color=colour,
        opacity=followed(),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("value:N", title=column),
            alt.Tooltip("accuracy:Q", title="accuracy, percent", format=".1f"),
            alt.Tooltip("named:N", title="truly differs from the other rows"),
        ],
    )
    x_title = f"accuracy on {data.part}, percent"
    layers = alt.layer(
        base.mark_rule(strokeWidth=1.5).encode(
            x=alt.X("low:Q", scale=x_scale, title=x_title), x2="high:Q", opacity=followed(0.5)
        ),
        base.mark_point(filled=True, size=55).encode(
            x=alt.X("accuracy:Q", scale=x_scale, title=x_title),
            shape=method_shape(data, shown),
        ),
        base.transform_filter("datum.named === 'yes'")
        .mark_point(filled=False, size=190, strokeWidth=1.8, shape="circle")
        .encode(x=alt.X("accuracy:Q", scale=x_scale, title=x_title)),
    ).properties(width=CHART_WIDTH, height={"step": max(7, min(13, 80 // len(shown)))})
    return finished_chart(
        layers,
        f"Accuracy by {column}",
        f"mean and 95% interval over seeds and rows, {seeds_of(data, shown)}; in brackets the "
        "rows; ringed: truly different from the method's other rows",
    )


def _middle_range(rows: Sequence[ChartRow]) -> list[float]:
    """The middle of what is to be seen: points whole, the longest intervals cut."""
    low, high = min(r["accuracy"] for r in rows), max(r["accuracy"] for r in rows)
    lowest, highest = min(r["low"] for r in rows), max(r["high"] for r in rows)
    return [max(0.0, lowest, low - 40.0) - 1.0, min(100.0, highest, high + 40.0) + 1.0]


def describe_slices(data: PlotData) -> str:
    """How many slices there are, and the weakest that truly differs."""
    named = [s for s in data.slices if s.named]
    if not named:
        return f"None of {len(data.slices):,} slices truly differs from the other rows."
    worst = min(named, key=lambda s: s.accuracy.value)
    return (
        f"{len(named):,} of {len(data.slices):,} slices truly differ; the lowest: {worst.method} "
        f"where {worst.column} is {worst.value}, {100 * worst.accuracy.value:.1f} percent."
    )


# --- behaviour --------------------------------------------------------------------------------


def behaviour_plot(data: PlotData) -> Chart | None:
    """Failure rates on behaviour tests: a cell a test and method (Ribeiro et al. 2020)."""
    import altair as alt

    if not data.behaviour:
        return None
    shown = [m for m in data.methods if any(b.method == m for b in data.behaviour)]
    tests = list(dict.fromkeys(f"{b.capability}: {b.test}" for b in data.behaviour))
    rows: list[ChartRow] = [
        {
            "method": b.method,
            "place": shown.index(b.method),
            "test": f"{b.capability}: {b.test}",
            "test_place": tests.index(f"{b.capability}: {b.test}"),
            "kind": b.kind,
            "failure": rounded(b.failure.value),
            "low": rounded(b.failure.low),
            "high": rounded(b.failure.high),
            "cases": b.cases,
        }
        for b in data.behaviour
    ]
    cell = max(34, min(70, 620 // len(shown)))
    y = alt.Y(
        "test:N",
        sort=by("test_place"),
        title=None,
        axis=alt.Axis(ticks=False, domain=False, grid=False, labelPadding=8, labelLimit=210),
    )
    x = alt.X(
        "method:N",
        sort=by("place"),
        title=None,
        axis=alt.Axis(
            orient="top", ticks=False, domain=False, grid=False, labelAngle=-40, labelLimit=120
        ),
    )
    base = alt.Chart(chart_data(rows)).encode(x=x, y=y, opacity=followed(faded=0.25))
    chart = alt.layer(
        base.mark_rect(stroke="#ffffff", strokeWidth=1).encode(
            color=alt.Color(
                "failure:Q",
                scale=alt.Scale(domain=[0, 1], range=["#f6efe6", "#a63d00"]),
                legend=None,
            ),
            tooltip=[
                alt.Tooltip("method:N"),
                alt.Tooltip("test:N"),
                alt.Tooltip("kind:N"),
                alt.Tooltip("failure:Q", title="fails", format=".1%"),
                alt.Tooltip("low:Q", title="95% interval from", format=".1%"),
                alt.Tooltip("high:Q", title="to", format=".1%"),
                alt.Tooltip("cases:Q"),
            ],
        ),
        base.mark_text(fontSize=12 if cell > 40 else 10).encode(
            text=alt.Text("failure:Q", format=".0%"),
            color=alt.condition("datum.failure > 0.5", alt.value("#ffffff"), alt.value("#3a2a1a")),
        ),
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
