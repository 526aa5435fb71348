"""How scores depend on what was given: training rows, tries, settings, other data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunelab.core.words import rows_word
from tunelab.report.charts.base import (
    CHART_WIDTH,
    NEUTRAL,
    ChartRow,
    by,
    capital,
    chart_data,
    finished_chart,
    followed,
    method_colour,
    method_dash,
    method_shape,
    methods_in_order,
    names_axis,
    numbers_under,
    padded,
    panels,
    possible,
    rounded,
    seeds_of,
    with_ends,
    zoom,
)
from tunelab.report.charts.values import PlotData

if TYPE_CHECKING:
    from tunelab.report.charts.values import Chart

__all__ = [
    "describe_learning",
    "describe_sensitivity",
    "describe_transfer",
    "describe_tuning",
    "learning_plot",
    "sensitivity_plot",
    "transfer_plot",
    "tuning_plot",
]


def learning_plot(data: PlotData) -> Chart | None:
    """The metric by number of training rows (logarithmic), mean and interval over seeds."""
    import altair as alt

    if not data.learning:
        return None
    shown = methods_in_order(data, {p.method for p in data.learning})
    rows: list[ChartRow] = [
        {
            "method": p.method,
            "rows": p.rows,
            **with_ends("score", p.estimate, data.scale),
        }
        for p in data.learning
    ]
    sizes = sorted({p.rows for p in data.learning})
    ends = numbers_under(rows, "low", "high")
    y_title = f"{data.metric} on {data.part}{data.unit}"
    x = alt.X(
        "rows:Q",
        title="training rows (log scale)",
        scale=alt.Scale(type="log", domain=[sizes[0] / 1.15, sizes[-1] * 1.15], nice=False),
        axis=alt.Axis(values=sizes, format=",d", grid=True, labelOverlap="greedy"),
    )
    y_scale = alt.Scale(domain=possible(data, padded(ends)), zero=False, nice=False)
    colour = method_colour(data, shown)
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("rows:Q", title="training rows", format=",d"),
        alt.Tooltip("score:Q", title=data.metric, format=f".{data.digits}f"),
    ]
    base = alt.Chart(chart_data(rows)).encode(
        x=x,
        y=alt.Y("score:Q", title=y_title, scale=y_scale),
        color=colour,
        opacity=followed(),
        tooltip=tooltip,
    )
    layers = alt.layer(
        base.mark_line(strokeWidth=2.2, clip=True).encode(strokeDash=method_dash(data, shown)),
        base.mark_rule(strokeWidth=1.5, clip=True).encode(
            y=alt.Y("low:Q", title=y_title), y2="high:Q", opacity=followed(0.6)
        ),
        base.mark_point(filled=True, size=70, clip=True)
        .encode(shape=method_shape(data, shown))
        .add_params(zoom()),
    ).properties(width=CHART_WIDTH, height=320)
    return finished_chart(
        layers,
        f"{capital(data.metric)} by number of training rows",
        f"mean and 95% interval over seeds, {seeds_of(data, shown)}",
    )


def describe_learning(data: PlotData) -> str:
    """First and last score of each method."""
    parts = []
    for m in data.methods:
        mine = sorted((p for p in data.learning if p.method == m), key=lambda p: p.rows)
        if mine:
            start, end = (data.written(p.estimate.value) for p in (mine[0], mine[-1]))
            parts.append(
                f"{m} from {start} with {rows_word(mine[0].rows)} to {end} with {mine[-1].rows:,}"
            )
    return f"{capital(data.metric)}: {'; '.join(parts)}."


def tuning_plot(data: PlotData) -> Chart | None:
    """Expected validation score of the best of n tries, by n (Dodge et al. 2019)."""
    import altair as alt

    curves = {m: c for m, c in data.tuning.items() if c}
    shown = [m for m in data.methods if m in curves]
    most = max((len(curves[m]) for m in shown), default=0)
    if most < 2:
        return None
    rows: list[ChartRow] = [
        {"method": m, "tries": n, "score": rounded(v * data.scale)}
        for m in shown
        for n, v in enumerate(curves[m], start=1)
    ]
    base = alt.Chart(chart_data(rows)).encode(
        x=alt.X(
            "tries:Q",
            title="tries of settings",
            scale=alt.Scale(domain=[0.9, most + 0.1], nice=False),
            axis=alt.Axis(values=list(range(1, most + 1)), format="d", grid=False),
        ),
        y=alt.Y(
            "score:Q",
            title=f"expected {data.metric} on validation{data.unit}",
            scale=alt.Scale(zero=False),
        ),
        color=method_colour(data, shown),
        opacity=followed(),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("tries:Q"),
            alt.Tooltip("score:Q", title="expected score", format=".2f"),
        ],
    )
    layers = alt.layer(
        base.mark_line(strokeWidth=2.2, clip=True).encode(strokeDash=method_dash(data, shown)),
        base.mark_point(filled=True, size=60, clip=True)
        .encode(shape=method_shape(data, shown))
        .add_params(zoom()),
    ).properties(width=CHART_WIDTH, height=280)
    return finished_chart(
        layers,
        "What tuning is worth",
        f"expected validation score of the best of n tries; {seeds_of(data, shown)} afterwards",
    )


def describe_tuning(data: PlotData) -> str:
    """Expected score of one try and of all tries of each method."""
    parts = [
        f"{m} {data.written(c[0])} with one try, {data.written(c[-1])} with {len(c)}"
        for m, c in data.tuning.items()
        if c
    ]
    return f"Expected validation score: {'; '.join(parts)}."


def sensitivity_plot(data: PlotData) -> Chart | None:
    """What each value of a setting does: distance from the mean of all trials, with intervals."""
    import altair as alt

    if not data.sensitivity:
        return None
    panels = list(dict.fromkeys((s.method, s.setting) for s in data.sensitivity))
    shares = {(s.method, s.setting): s.share for s in data.sensitivity}
    rows: list[ChartRow] = [
        {
            "of": s.method,
            "panel": f"{s.method}: {s.setting} ({100 * shares[s.method, s.setting]:.0f}%)",
            "panel_place": panels.index((s.method, s.setting)),
            "value": s.value,
            "place": i,
            **with_ends("effect", s.effect, data.scale),
        }
        for i, s in enumerate(data.sensitivity)
    ]
    points = "percentage points" if data.percent else "difference"
    domain = padded([0.0, *numbers_under(rows, "low", "high")])
    x_scale = alt.Scale(domain=domain, nice=False, zero=False)
    y = alt.Y("value:N", sort=by("place"), title=None, axis=names_axis(120))
    x_title = f"{points} from the mean"
    x = alt.X("effect:Q", title=x_title, scale=x_scale)
    base = alt.Chart().encode(
        y=y,
        tooltip=[
            alt.Tooltip("panel:N", title="setting"),
            alt.Tooltip("value:N"),
            alt.Tooltip("effect:Q", title=points, format="+.2f"),
        ],
    )
    layers = alt.layer(
        alt.Chart().mark_rule(color=NEUTRAL, strokeDash=[4, 3]).encode(x=alt.XDatum(0)),
        base.mark_rule(color="#0072B2", strokeWidth=2.5).encode(
            x=alt.X("low:Q", title=x_title, scale=x_scale), x2="high:Q"
        ),
        base.mark_point(filled=True, size=90, color="#0072B2", opacity=1).encode(x=x),
        data=chart_data(rows),
    ).properties(width=CHART_WIDTH - 160, height={"step": 26})
    header = alt.Header(labelAnchor="start", labelPadding=4, labelLimit=CHART_WIDTH)
    facet = alt.Facet("panel:N", sort=by("panel_place"), title=None, header=header)
    chart = layers.facet(facet=facet, columns=1, spacing=18).resolve_scale(y="independent")
    return finished_chart(
        chart,
        "What the settings do",
        f"{data.metric} on {data.part}: mean of the trials with each value less the mean of all, "
        "95% intervals; in brackets the share of the variance between trials",
        fit="stack",
    )


def describe_sensitivity(data: PlotData) -> str:
    """The share of each setting."""
    seen = {(s.method, s.setting): s.share for s in data.sensitivity}
    parts = [f"{setting} of {m} {100 * share:.0f}%" for (m, setting), share in seen.items()]
    return f"Share of the variance between trials: {'; '.join(parts)}."


def transfer_plot(data: PlotData) -> Chart | None:
    """The metric on each further dataset or domain, a panel a place."""
    import altair as alt

    if not data.transfer:
        return None
    places: Sequence[str] = list(dict.fromkeys(p.place for p in data.transfer))
    shown = methods_in_order(data, {p.method for p in data.transfer})
    rows: list[ChartRow] = [
        {
            "method": p.method,
            "place": shown.index(p.method),
            "panel": p.place,
            "panel_place": places.index(p.place),
            **with_ends("score", p.estimate, data.scale),
        }
        for p in data.transfer
    ]
    domain = possible(data, padded(numbers_under(rows, "low", "high")))
    scale = alt.Scale(domain=domain, nice=False, zero=False)
    x = alt.X("score:Q", title=None, scale=scale, axis=alt.Axis(tickCount=4))
    base = alt.Chart().encode(
        y=alt.Y("method:N", sort=by("place"), title=None, axis=names_axis(130)),
        color=method_colour(data, shown, legend=False),
        opacity=followed(),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("panel:N", title="on"),
            alt.Tooltip("score:Q", title=data.metric, format=f".{data.digits}f"),
        ],
    )
    layers = alt.layer(
        base.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q", title=None, scale=scale), x2="high:Q"
        ),
        base.mark_point(filled=True, size=90).encode(
            x=x, shape=method_shape(data, shown, legend=False)
        ),
        data=chart_data(rows),
    ).properties(width=190, height={"step": 24})
    return finished_chart(
        panels(layers),
        f"{capital(data.metric)} elsewhere",
        f"on data that trained and chose nothing{data.unit}; mean and 95% interval over seeds, "
        f"{seeds_of(data, shown)}",
        fit="panels",
    )


def describe_transfer(data: PlotData) -> str:
    """The scores in every place."""
    places = dict.fromkeys(p.place for p in data.transfer)
    parts = []
    for place in places:
        cells = [
            f"{p.method} {data.written(p.estimate.value)}"
            for p in data.transfer
            if p.place == place
        ]
        parts.append(f"on {place}: {', '.join(cells)}")
    return f"{capital(data.metric)} {'; '.join(parts)}."
