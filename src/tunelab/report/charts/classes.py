"""Charts of classes: confusion matrices, and where methods are right or wrong alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunelab.core.words import rows_word
from tunelab.report.charts.base import (
    BLUES,
    ChartRow,
    by,
    chart_data,
    finished_chart,
    followed,
    heat_cells,
    heat_letters,
    methods_in_order,
    rounded,
    seeds_of,
)
from tunelab.report.charts.values import PlotData

if TYPE_CHECKING:
    from tunelab.report.charts.values import Chart

__all__ = [
    "agreement_plot",
    "confusion_plot",
    "describe_agreement",
    "describe_confusion",
]


MOST_CLASSES = 30  # a larger confusion matrix is a carpet, not a chart


# --- confusion matrices -----------------------------------------------------------------------


def confusion_plot(data: PlotData) -> Chart | None:
    """Confusion matrices side by side: the share of each true class that went to each class."""
    import altair as alt

    names = data.class_names
    if not data.confusion or not 2 <= len(names) <= MOST_CLASSES:
        return None
    shown = methods_in_order(data, data.confusion)
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
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("true:N"),
        alt.Tooltip("predicted:N"),
        alt.Tooltip("share:Q", title="share of the true class", format=".1%"),
        alt.Tooltip("rows:Q", title="rows, all seeds"),
    ]
    base = alt.Chart().encode(x=x, y=y)
    layers = [heat_cells(base, "share", BLUES, tooltip).encode(opacity=followed(faded=0.25))]
    if cell >= 30:
        layers.append(heat_letters(base, "share", BLUES, cell))
    width = cell * len(names)
    fit = max(1, min(len(shown), 860 // (width + 24)))
    per_line = math.ceil(len(shown) / math.ceil(len(shown) / fit))  # lines of like length
    header = alt.Header(labelPadding=6, labelLimit=width + 20)
    facet = alt.Facet("method:N", sort=by("place"), title=None, header=header)
    chart = (
        alt.layer(*layers, data=chart_data(_confusion_rows(data, shown)))
        .properties(width={"step": cell}, height={"step": cell})
        .facet(facet=facet, columns=per_line, spacing=24)
    )
    return finished_chart(
        chart,
        "Confusion matrices",
        f"share of each true class, on {data.part}; all seeds together, {seeds_of(data, shown)}",
        fit="squares",
    )


def _confusion_rows(data: PlotData, shown: Sequence[str]) -> list[ChartRow]:
    names = data.class_names
    return [
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
    flat = alt.Axis(ticks=False, domain=False, grid=False, labelLimit=130)
    steep = alt.Axis(ticks=False, domain=False, grid=False, labelLimit=130, labelAngle=-40)
    x = alt.X("other:N", sort=by("other_place"), title=None, axis=steep)
    y = alt.Y("method:N", sort=by("place"), title=None, axis=flat)
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("other:N", title="and"),
        alt.Tooltip("share:Q", title="say the same", format=".1%"),
        alt.Tooltip("rows:Q", title="rows where they differ"),
    ]
    lowest = min(pairs.values())
    base = alt.Chart(chart_data(rows)).encode(x=x, y=y, opacity=followed(faded=0.25))
    chart = alt.layer(
        heat_cells(base, "share", BLUES, tooltip, rounded(lowest)),
        heat_letters(base, "share", BLUES, cell, rounded((1 + lowest) / 2)),
    ).properties(width={"step": cell}, height={"step": min(cell, 44)})
    return finished_chart(
        chart,
        "How often two methods say the same",
        f"share of {rows_word(data.agreement_rows)} of {data.part}, by the mean scores over seeds, "
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
