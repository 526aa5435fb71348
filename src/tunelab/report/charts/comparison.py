"""Methods against each other: differences, score against cost, costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

from tunelab.core.values import Comparison, Estimate
from tunelab.core.words import signed
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
    method_shape,
    methods_in_order,
    names_axis,
    numbers_under,
    padded,
    panels,
    possible,
    rounded,
    seeds_of,
    zoom,
)
from tunelab.report.charts.values import CostColumn, PlotData
from tunelab.stats import LEAST_SEEDS

if TYPE_CHECKING:
    import altair as alt

    from tunelab.report.charts.values import Chart

__all__ = [
    "cost_plot",
    "cost_plots",
    "costs_plot",
    "describe_cost",
    "describe_costs",
    "describe_differences",
    "difference_plot",
]


# --- difference to the best -------------------------------------------------------------------


def difference_in_words(data: PlotData, value: float) -> str:
    """A difference as it is written: "+1.3", or "+0.013" where the metric is no percentage."""
    return signed(value, data.digits)


def difference_plot(data: PlotData) -> Chart | None:
    """Forest plot: the best method minus each other one, with 95% intervals and a line at zero."""
    import altair as alt

    if not data.differences:
        return None
    rows = [_difference_row(data, place, c) for place, c in enumerate(data.differences)]
    ends = numbers_under(rows, "difference", "low", "high")
    shown = methods_in_order(data, {c.b for c in data.differences})
    x_scale = alt.Scale(domain=padded([*ends, 0.0], 0.12), nice=False, zero=False)
    points = "percentage points" if data.percent else "difference"
    two_lines = alt.Axis(
        ticks=False,
        domain=False,
        labelPadding=12,
        grid=False,
        labelExpr="split(datum.label, '\\n')",
        labelLineHeight=16,
        labelOffset=-8,
    )
    base = alt.Chart(chart_data(rows, data.names)).encode(
        y=alt.Y("row:N", sort=by("place"), title=None, axis=two_lines),
        color=method_colour(data, shown, legend=False),
        opacity=followed(),
        tooltip=[
            alt.Tooltip("method:N", title=f"{data.best} against"),
            alt.Tooltip("shown:N", title=points),
            alt.Tooltip("verdict:N"),
        ],
    )
    zero = alt.Chart(chart_data([{"zero": 0}])).mark_rule(
        color=NEUTRAL, strokeDash=[4, 3], strokeWidth=1.5
    )
    better = "right" if data.higher_is_better else "left"
    layers = alt.layer(
        zero.encode(x=alt.X("zero:Q")),
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=3)
        .encode(x=alt.X("low:Q", scale=x_scale, title=points), x2="high:Q"),
        base.mark_point(filled=True, size=110, opacity=1).encode(
            x=alt.X("difference:Q", scale=x_scale),
            shape=method_shape(data, shown, legend=False),
        ),
    ).properties(width=CHART_WIDTH, height={"step": 46})
    return finished_chart(
        layers,
        f"{data.best} against every other method",
        f"{data.metric} on {data.part}, 95% intervals, "
        f"{seeds_of(data, [data.best or '', *shown])}; {better} of zero: {data.best} ahead",
    )


def _difference_row(data: PlotData, place: int, c: Comparison) -> ChartRow:
    d = c.difference
    low, high = _drawn_interval(data, d)
    value = rounded(d.value * data.scale)
    shown = difference_in_words(data, value)
    if low is not None and high is not None:
        shown += f" ({difference_in_words(data, low)} to {difference_in_words(data, high)})"
    return {
        "method": c.b,
        "place": place,
        "row": f"vs {data.names[c.b]}\n{shown}",
        "difference": value,
        "low": low,
        "high": high,
        "shown": shown,
        "verdict": data.standings.get(c.b, c.verdict),
    }


def _drawn_interval(data: PlotData, estimate: Estimate) -> tuple[float | None, float | None]:
    """The interval of a score or of a difference as it is drawn; None without one."""
    low, high = (
        None if end is None else rounded(end * data.scale) for end in (estimate.low, estimate.high)
    )
    return low, high


def describe_differences(data: PlotData) -> str:
    """The sentences of the comparisons."""
    return " ".join(f"{c.sentence.rstrip('.')}." for c in data.differences)


# --- score against cost -----------------------------------------------------------------------


def cost_plot(data: PlotData) -> Chart | None:
    """The metric against the first cost; `cost_plots` has the others."""
    return next(iter(cost_plots(data).values()), None)


def cost_plots(data: PlotData) -> dict[str, Chart]:
    """The metric against each cost that two methods have, on a logarithmic axis, by the cost."""
    drawn = {capital(c.title): _cost_plot(data, c) for c in data.costs}
    return {title: chart for title, chart in drawn.items() if chart is not None}


def _cost_plot(data: PlotData, cost: CostColumn) -> Chart | None:
    import altair as alt

    shown = _priced(data, cost)
    if len(shown) < 2:
        return None
    points = [_cost_point(data, cost, m) for m in shown]
    labelled = len(points) <= MOST_LABELLED_POINTS
    places = _label_places(points, data.names) if labelled else ["nowhere"] * len(points)
    rows = [{**asdict(p), "place": place} for p, place in zip(points, places, strict=True)]
    unit = f", {cost.unit}" if cost.unit else ""
    x_title = f"{cost.title}{unit} (log scale)"
    y_title = f"{data.metric} on {data.part}{data.unit}"
    x, y = _cost_axes(data, rows, x_title, y_title)
    colour = method_colour(data, shown, legend=not labelled)
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("score:Q", title=data.metric, format=f".{data.digits}f"),
        alt.Tooltip("text:N", title=cost.title),
        alt.Tooltip("front:N", title="beaten in both by another"),
    ]
    base = alt.Chart(chart_data(rows, data.names)).encode(
        x=x, y=y, color=colour, opacity=followed()
    )
    front = sorted((p for p in points if p.front == "no"), key=lambda p: p.cost)
    layers = alt.layer(
        *([_front_line(front, x, y)] if len(front) > 1 else []),
        *_lines_through(base, x_title, y_title),
        base.mark_point(filled=True, size=130, clip=True)
        .encode(shape=method_shape(data, shown, legend=not labelled), tooltip=tooltip)
        .add_params(zoom()),
        *(
            base.transform_filter(f"datum.place === '{place}'")
            .mark_text(**how, fontSize=13, fontWeight="bold", clip=True)
            .encode(text="name:N", color=alt.value(NEUTRAL), tooltip=tooltip)
            for place, how in _LABEL_PLACES.items()
            if place in places
        ),
    ).properties(width=CHART_WIDTH, height=340)
    return finished_chart(
        layers,
        f"{capital(data.metric)} against {cost.title}",
        _interval_said(data, shown)
        + seeds_of(data, shown)
        + ("; dashed: the Pareto front" if len(front) > 1 else ""),
        fit="labelled" if labelled else "width",
    )


def _cost_axes(
    data: PlotData, rows: Sequence[ChartRow], x_title: str, y_title: str
) -> tuple[alt.X, alt.Y]:
    """The cost, logarithmic, and the score; both with room around what is drawn."""
    import altair as alt

    costs = numbers_under(rows, "cost")
    ends = [min(costs) / 1.9, max(costs) * 1.9]
    x_scale = alt.Scale(type="log", domain=[rounded(v, 6) for v in ends], nice=False)
    x_axis = alt.Axis(values=_ticks(*ends), format="~g", grid=True)
    scores = numbers_under(rows, "score", "score_low", "score_high")
    y_scale = alt.Scale(domain=possible(data, padded(scores, 0.12)), nice=False, zero=False)
    return (
        alt.X("cost:Q", scale=x_scale, axis=x_axis, title=x_title),
        alt.Y("score:Q", scale=y_scale, title=y_title),
    )


def _lines_through(base: alt.Chart, x_title: str, y_title: str) -> tuple[alt.Chart, alt.Chart]:
    """The interval of each point's score, and that of its cost."""
    import altair as alt

    faint = followed(0.75)
    down, across = (
        base.transform_filter(f"isValid(datum.{of}_low)").mark_rule(strokeWidth=2, clip=True)
        for of in ("score", "cost")
    )
    return (
        down.encode(y=alt.Y("score_low:Q", title=y_title), y2="score_high:Q", opacity=faint),
        across.encode(x=alt.X("cost_low:Q", title=x_title), x2="cost_high:Q", opacity=faint),
    )


def _interval_said(data: PlotData, shown: Sequence[str]) -> str:
    """What the lines through the points are; of fewer than six runs a cost has its range."""
    most = max((data.seeds.get(m, 0) for m in shown), default=0)
    if most >= LEAST_SEEDS:
        return "mean and 95% interval over seeds, "
    return "mean and interval, of costs smallest to largest run, " if most > 1 else ""


def _front_line(front: Sequence[_CostPoint], x: alt.X, y: alt.Y) -> alt.Chart:
    """Steps through the methods that are not beaten in both score and cost."""
    import altair as alt

    steps = [{"cost": p.cost, "score": p.score, "order": i} for i, p in enumerate(front)]
    line: alt.Chart = (
        alt.Chart(chart_data(steps))
        .mark_line(
            interpolate="step-after",
            strokeDash=[5, 4],
            strokeWidth=1.5,
            color=NEUTRAL,
            opacity=0.8,
            clip=True,
        )
        .encode(x=x, y=y, order="order:Q")
    )
    return line


class _LabelPlace(TypedDict, total=False):
    """Where the label of a point stands, as a mark has it."""

    align: Literal["left", "right"]
    baseline: Literal["middle"]
    dx: int
    dy: int


_LABEL_PLACES: dict[str, _LabelPlace] = {
    "right": {"align": "left", "baseline": "middle", "dx": 12, "dy": -10},
    "left": {"align": "right", "baseline": "middle", "dx": -12, "dy": -10},
    "below": {"align": "left", "baseline": "middle", "dx": 12, "dy": 12},
    "below left": {"align": "right", "baseline": "middle", "dx": -12, "dy": 12},
}


def _priced(data: PlotData, cost: CostColumn) -> list[str]:
    """The methods with a score and a cost above zero (a logarithmic axis has no zero)."""
    return [
        m
        for m in methods_in_order(data, data.scores)
        if m in cost.estimates and cost.estimates[m].value > 0
    ]


@dataclass(frozen=True, slots=True)
class _CostPoint:
    """A method in the chart of a cost, in the units that are drawn; `text` is the cost as read.

    `front`: whether another method beats it in both, "yes" or "no".
    """

    method: str
    score: float
    score_low: float | None
    score_high: float | None
    cost: float
    cost_low: float | None
    cost_high: float | None
    text: str
    front: str


def _cost_point(data: PlotData, cost: CostColumn, method: str) -> _CostPoint:
    score, spent = data.scores[method], cost.estimates[method]
    low, high = _drawn_interval(data, score)
    # Below zero a Student interval has no place on a logarithmic axis: cut at a tenth.
    floor = spent.value / 10
    known = spent.low is not None and spent.high is not None and spent.low < spent.high
    return _CostPoint(
        method=method,
        score=rounded(score.value * data.scale),
        score_low=low,
        score_high=high,
        cost=rounded(spent.value * cost.factor, 7),
        cost_low=rounded(max(spent.low or 0.0, floor) * cost.factor, 7) if known else None,
        cost_high=rounded((spent.high or 0.0) * cost.factor, 7) if known else None,
        text=cost.texts.get(method, ""),
        front="no" if method in cost.front else "yes",
    )


def _label_places(points: Sequence[_CostPoint], names: Mapping[str, str]) -> list[str]:
    """A place for each point's label: the first where it meets no other point or label."""
    xs = [math.log(p.cost) for p in points]
    ys = [p.score for p in points]
    span_x, span_y = (max(v) - min(v) or 1.0 for v in (xs, ys))
    # The plot as a unit square; a letter is about 1.3% of its width, a line 6% of its height.
    at = [((x - min(xs)) / span_x, (y - min(ys)) / span_y) for x, y in zip(xs, ys, strict=True)]
    taken: list[tuple[float, float, float, float]] = [
        (x - 0.015, y - 0.03, x + 0.015, y + 0.03) for x, y in at
    ]
    chosen = []
    for point, (x, y) in zip(points, at, strict=True):
        width = 0.013 * len(names[point.method])
        boxes = {}
        for place in _LABEL_PLACES:
            left = x - 0.02 - width if "left" in place else x + 0.02
            middle = y - 0.045 if "below" in place else y + 0.04
            boxes[place] = (left, middle - 0.03, left + width, middle + 0.03)
        free = [p for p, box in boxes.items() if not any(_overlap(box, t) for t in taken)]
        inside = [p for p in free if boxes[p][0] > -0.18 and boxes[p][2] < 1.18]
        chosen.append((inside or free or ["right"])[0])
        taken.append(boxes[chosen[-1]])
    return chosen


MOST_LABELLED_POINTS = 6  # of more methods labels would lie on each other: a legend names them


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... inside (low, high); powers of ten alone where those are many."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(exponents) <= 4 else (1,)
    ticks = [rounded(m * 10.0**e, 6) for e in exponents for m in steps]
    return [t for t in ticks if low <= t <= high]


def describe_cost(data: PlotData) -> str:
    """The methods by each cost, the cheapest first, and which are on the front."""
    parts = []
    for cost in data.costs:
        shown = _priced(data, cost)
        if len(shown) < 2:
            continue
        sign = -1 if cost.higher_is_better else 1
        shown.sort(key=lambda m, c=cost, s=sign: s * c.estimates[m].value)  # type: ignore[misc]
        cells = [
            f"{m} {data.written(data.scores[m].value)} at {cost.texts.get(m, '')}" for m in shown
        ]
        parts.append(f"By {cost.title}: {'; '.join(cells)}.")
    return f"{capital(data.metric)}{data.unit}. {' '.join(parts)}"


# --- costs ------------------------------------------------------------------------------------


def costs_plot(data: PlotData) -> Chart | None:
    """A bar a method for each cost, from zero, with its interval over seeds."""
    import altair as alt

    columns = [c for c in data.costs if any(e.value > 0 for e in c.estimates.values())]
    shown = [m for m in data.methods if any(m in c.estimates for c in columns)]
    if not columns or len(shown) < 2:
        return None
    rows: list[ChartRow] = [
        {
            "method": m,
            "place": place,
            "panel": f"{capital(c.title)}{', ' + c.unit if c.unit else ''}",
            "panel_place": panel,
            "cost": rounded(e.value * c.factor, 7),
            # Without an interval, one of no width: a column of nulls has no extent.
            "low": rounded(max(e.value if e.low is None else e.low, 0.0) * c.factor, 7),
            "high": rounded((e.value if e.high is None else e.high) * c.factor, 7),
            "text": c.texts.get(m, ""),
        }
        for panel, c in enumerate(columns)
        for place, m in enumerate(shown)
        if (e := c.estimates.get(m)) is not None
    ]
    y = alt.Y("name:N", sort=by("place"), title=None, axis=names_axis(130))
    colour = method_colour(data, shown, legend=False)
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("panel:N", title="cost"),
        alt.Tooltip("text:N", title="mean"),
    ]
    # 4k, but 0.1 and not 100m, which would be read as millions.
    shortly = "datum.value < 1000 ? format(datum.value, '~g') : format(datum.value, '~s')"
    x = alt.X("cost:Q", title=None, axis=alt.Axis(tickCount=4, labelExpr=shortly, grid=True))
    base = alt.Chart().encode(y=y, opacity=followed(), tooltip=tooltip)
    layers = alt.layer(
        base.mark_bar(height={"band": 0.68}, cornerRadiusEnd=3).encode(x=x, color=colour),
        base.mark_rule(color=NEUTRAL, strokeWidth=1.5).encode(x="low:Q", x2="high:Q"),
        data=chart_data(rows, data.names),
    ).properties(width=190, height={"step": 24})
    return finished_chart(
        panels(layers).resolve_scale(x="independent"),
        "What each method costs",
        _interval_said(data, shown) + seeds_of(data, shown),
        fit="panels",
    )


def describe_costs(data: PlotData) -> str:
    """Every cost of every method, as text."""
    parts = [
        f"{capital(c.title)}: "
        + ", ".join(f"{m} {c.texts.get(m, '')}" for m in methods_in_order(data, c.estimates))
        for c in data.costs
        if c.estimates
    ]
    return f"{'. '.join(parts)}."
