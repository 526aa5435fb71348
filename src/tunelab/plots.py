"""Values in, chart out: the rows of PLOTS.

Each plot is a pure function of `PlotData` that gives a chart, or None where the study has nothing
to show in it. A chart is self-contained JSON (Vega-Lite): the same values give the same JSON, and
it renders as interactive HTML, PNG and SVG. Colours belong to methods, not to ranks, and are the
same in every chart. Backgrounds are transparent and letters mid-grey, so that a chart can be read
on a light and on a dark page; the report recolours the letters through CSS.

May import: types, and altair inside functions.
May not import: store, stats, summary, report, torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tunelab.types import Comparison, Estimate

if TYPE_CHECKING:
    import altair as alt

    Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart

__all__ = ["PLOTS", "CurvePoint", "Plot", "PlotData", "Roc", "colours", "to_png", "to_svg"]

# Okabe & Ito 2008, "Color Universal Design"; the colours with the best contrast first, black and
# yellow left out because one of them is lost on a dark page and the other on a light one.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
NEUTRAL = "#7a7a7a"  # 4.3:1 on white and 4.9:1 on black: legible on both
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
WIDTH = 620
MOST_CLASSES = 30  # a larger confusion matrix is a carpet, not a chart
CURVE_BINS = 40

Row = dict[str, Any]


# --- what a chart is made of ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One logged value of one trial: `epoch` (a fraction) and the value there."""

    method: str
    seed: int
    epoch: float
    value: float


@dataclass(frozen=True, slots=True)
class Roc:
    """A method's ROC curve: rates in [0, 1] of equal length; `auc` its mean area over seeds."""

    false_positive_rate: Sequence[float]
    true_positive_rate: Sequence[float]
    auc: float


@dataclass(frozen=True, slots=True)
class PlotData:
    """Everything that the plots draw. Methods are named by their label in the study.

    `methods` in the study's order, which decides the colours; `seeds` the number of finished seeds.
    `percent`: metric values are in [0, 1] and drawn as percent. `part`: "test" or "validation".
    `differences`: `best` minus each other method, metric units. `seconds`: training time.
    `loss` and `validation`: histories of the trials that have one. `confusion`: counts summed over
    seeds, rows true classes, columns predicted ones, both in the order of `class_names`.
    """

    methods: tuple[str, ...]
    seeds: Mapping[str, int]
    metric: str
    percent: bool = True
    higher_is_better: bool = True
    part: str = "test"
    best: str | None = None
    scores: Mapping[str, Estimate] = field(default_factory=dict)
    seconds: Mapping[str, Estimate] = field(default_factory=dict)
    differences: tuple[Comparison, ...] = ()
    loss: tuple[CurvePoint, ...] = ()
    validation: tuple[CurvePoint, ...] = ()
    roc: Mapping[str, Roc] = field(default_factory=dict)
    confusion: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """What metric values are multiplied by before they are drawn."""
        return 100.0 if self.percent else 1.0

    @property
    def unit(self) -> str:
        """What follows the name of the metric on an axis."""
        return ", percent" if self.percent else ""


@dataclass(frozen=True, slots=True)
class Plot:
    """A row of PLOTS.

    `function` draws it, or gives None where there is nothing to draw. `how_to_read` is one line
    for the reader; `describe` says in words what the chart shows, for those who do not see it.
    `wide`: it wants the full width of a page; otherwise two stand side by side.
    """

    name: str
    title: str
    function: Callable[[PlotData], Chart | None]
    how_to_read: str
    describe: Callable[[PlotData], str]
    wide: bool = False


def colours(methods: Sequence[str]) -> dict[str, str]:
    """The colour of each method, by its place in the study."""
    return {m: OKABE_ITO[i % len(OKABE_ITO)] for i, m in enumerate(methods)}


def to_png(chart: Chart, scale: float = 2.0) -> bytes:
    """Render a chart to PNG, without a browser, on white."""
    import vl_convert

    spec = {**chart.to_dict(), "background": "white"}
    return bytes(vl_convert.vegalite_to_png(spec, scale=scale))


def to_svg(chart: Chart) -> str:
    """Render a chart to SVG, without a browser, on a transparent ground."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(chart.to_dict()))


# --- what the charts share --------------------------------------------------------------------


def _values(rows: Sequence[Row]) -> alt.Data:
    import altair as alt

    data: alt.Data = alt.Data(values=list(rows))  # type: ignore[no-untyped-call]
    return data


_TEXT = {"labelColor": NEUTRAL, "titleColor": NEUTRAL, "labelFontSize": 12, "titleFontSize": 12}
_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "padding": 8,
    "view": {"stroke": None},
    "axis": {
        **_TEXT,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelLimit": 220,
        "gridColor": "#80808038",
        "domainColor": "#80808080",
        "tickColor": "#80808080",
    },
    "legend": {**_TEXT, "symbolSize": 110, "labelLimit": 260},
    "header": {**_TEXT, "labelFontSize": 13, "labelFontWeight": "bold", "labelLimit": 260},
    "title": {
        "color": NEUTRAL,
        "subtitleColor": NEUTRAL,
        "fontSize": 15,
        "subtitleFontSize": 12,
        "subtitlePadding": 5,
    },
}


def _finish(chart: Chart, title: str, subtitle: str) -> Chart:
    import altair as alt

    head = alt.TitleParams(text=title, subtitle=subtitle, anchor="start", offset=14)
    finished: Chart = chart.properties(title=head).configure(**_CONFIG)
    return finished


_LEGEND: dict[str, Any] = {
    "title": None,
    "orient": "top",
    "columns": 4,
    # A legend takes the looks of the first layer, here a line of a single seed: thin and pale.
    "symbolOpacity": 1,
    "symbolStrokeWidth": 2.5,
}


def _method_colour(data: PlotData, shown: Sequence[str], *, legend: bool = True) -> alt.Color:
    import altair as alt

    palette = colours(data.methods)
    return alt.Color(
        "method:N",
        scale=alt.Scale(domain=list(shown), range=[palette[m] for m in shown]),
        legend=alt.Legend(**_LEGEND) if legend else None,
    )


def _method_shape(data: PlotData, shown: Sequence[str], *, legend: bool = True) -> alt.Shape:
    import altair as alt

    place = {m: i for i, m in enumerate(data.methods)}
    return alt.Shape(
        "method:N",
        scale=alt.Scale(domain=list(shown), range=[SHAPES[place[m] % len(SHAPES)] for m in shown]),
        legend=alt.Legend(**_LEGEND) if legend else None,
    )


def _by(field_name: str) -> alt.EncodingSortField:
    """Sort by a number in the rows.

    Not by a list of names: that becomes part of a Vega expression, which cannot hold every
    character that a label can (U+2028, for one).
    """
    import altair as alt

    return alt.EncodingSortField(field=field_name, op="min", order="ascending")


def _in_order(data: PlotData, present: Mapping[str, Any]) -> list[str]:
    return [m for m in data.methods if m in present]


def _seeds(data: PlotData, shown: Sequence[str]) -> str:
    """As "3 seeds a method", or "1 to 3 seeds a method" where they differ."""
    counts = sorted({data.seeds.get(m, 0) for m in shown})
    if len(counts) == 1:
        return f"{counts[0]} seed{'' if counts[0] == 1 else 's'} a method"
    return f"{counts[0]} to {counts[-1]} seeds a method"


def _round(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(float(value), digits) + 0.0


def _signed(data: PlotData, value: float) -> str:
    digits = 1 if data.percent else 3
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _possible(data: PlotData, domain: list[float]) -> list[float]:
    """A domain without percentages above 100 or below 0, where an interval may end."""
    return [max(domain[0], 0.0), min(domain[1], 101.0)] if data.percent else domain


def _padded(values: Sequence[float], by: float = 0.08) -> list[float]:
    low, high = min(values), max(values)
    room = (high - low) * by or max(abs(high) * 0.02, 0.5)
    return [round(low - room, 4), round(high + room, 4)]


# --- difference to the best -------------------------------------------------------------------


def difference_plot(data: PlotData) -> Chart | None:
    """Forest plot: the best method minus each other one, with 95% intervals and a line at zero."""
    import altair as alt

    if not data.differences:
        return None
    rows: list[Row] = []
    for place, c in enumerate(data.differences):
        d = c.difference
        value, low, high = (
            _round(v * data.scale if v is not None else None) for v in (d.value, d.low, d.high)
        )
        shown = _signed(data, value or 0.0)
        if low is not None and high is not None:
            shown += f" ({_signed(data, low)} to {_signed(data, high)})"
        rows.append(
            {
                "method": c.b,
                "place": place,
                "row": f"vs {c.b}\n{shown}",
                "difference": value,
                "low": low,
                "high": high,
                "shown": shown,
                "verdict": c.verdict,
            }
        )
    ends = [r[k] for r in rows for k in ("difference", "low", "high") if r[k] is not None]
    shown_methods = [m for m in data.methods if m in {r["method"] for r in rows}]
    x_scale = alt.Scale(domain=_padded([*ends, 0.0], 0.12), nice=False, zero=False)
    points = "percentage points" if data.percent else "difference"
    y = alt.Y(
        "row:N",
        sort=_by("place"),
        title=None,
        axis=alt.Axis(
            ticks=False,
            domain=False,
            labelPadding=12,
            grid=False,
            labelExpr="split(datum.label, '\\n')",
            labelLineHeight=16,
            labelOffset=-8,
        ),
    )
    base = alt.Chart(_values(rows)).encode(y=y)
    tooltip = [
        alt.Tooltip("method:N", title=f"{data.best} against"),
        alt.Tooltip("shown:N", title=points),
        alt.Tooltip("verdict:N"),
    ]
    zero = alt.Chart(_values([{"zero": 0}])).mark_rule(
        color=NEUTRAL, strokeDash=[4, 3], strokeWidth=1.5
    )
    colour = _method_colour(data, shown_methods, legend=False)
    better = "right" if data.higher_is_better else "left"
    layers = alt.layer(
        zero.encode(x=alt.X("zero:Q")),
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=3)
        .encode(
            x=alt.X(
                "low:Q",
                scale=x_scale,
                title=points,
            ),
            x2="high:Q",
            color=colour,
            tooltip=tooltip,
        ),
        base.mark_point(filled=True, size=110, opacity=1).encode(
            x=alt.X("difference:Q", scale=x_scale),
            color=colour,
            shape=_method_shape(data, shown_methods, legend=False),
            tooltip=tooltip,
        ),
    ).properties(width=WIDTH, height={"step": 52})
    return _finish(
        layers,
        f"{data.best} against every other method",
        f"{data.metric} on {data.part}, 95% intervals, "
        f"{_seeds(data, [data.best or '', *shown_methods])}; {better} of zero: {data.best} ahead",
    )


def _describe_differences(data: PlotData) -> str:
    return " ".join(f"{c.sentence.rstrip('.')}." for c in data.differences)


# --- accuracy against cost --------------------------------------------------------------------


def cost_plot(data: PlotData) -> Chart | None:
    """The metric against training seconds on a logarithmic axis, with intervals over seeds."""
    import altair as alt

    shown = [m for m in _in_order(data, data.scores) if _trained(data, m)]
    if len(shown) < 2:
        return None
    rows = [_cost_row(data, m) for m in shown]
    several = any(data.seeds.get(m, 0) > 1 for m in shown)
    _place_labels(rows)
    ys = [r[k] for r in rows for k in ("score", "score_low", "score_high") if r[k] is not None]
    x_domain = [min(r["seconds"] for r in rows) / 1.9, max(r["seconds"] for r in rows) * 1.9]
    x_title = "training time, seconds (log scale)"
    y_title = f"{data.metric} on {data.part}{data.unit}"
    x = alt.X(
        "seconds:Q",
        scale=alt.Scale(type="log", domain=[_round(v) for v in x_domain], nice=False),
        axis=alt.Axis(values=_ticks(*x_domain), format="~g", grid=True),
        title=x_title,
    )
    y = alt.Y(
        "score:Q",
        scale=alt.Scale(domain=_possible(data, _padded(ys, 0.12)), nice=False, zero=False),
        title=y_title,
    )
    colour = _method_colour(data, shown, legend=False)
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("score:Q", title=data.metric, format=".1f" if data.percent else ".3f"),
        alt.Tooltip("seconds:Q", title="training seconds", format=".3~g"),
    ]
    base = alt.Chart(_values(rows)).encode(x=x, y=y, color=colour)
    layers = alt.layer(
        base.transform_filter("isValid(datum.score_low)")
        .mark_rule(strokeWidth=2, opacity=0.75, clip=True)
        .encode(y=alt.Y("score_low:Q", title=y_title), y2="score_high:Q"),
        base.transform_filter("isValid(datum.seconds_low)")
        .mark_rule(strokeWidth=2, opacity=0.75, clip=True)
        .encode(x=alt.X("seconds_low:Q", title=x_title), x2="seconds_high:Q"),
        base.mark_point(filled=True, size=130, opacity=1, clip=True).encode(
            shape=_method_shape(data, shown, legend=False), tooltip=tooltip
        ),
        *(
            base.transform_filter(f"datum.place === '{place}'")
            .mark_text(**how, fontSize=13, fontWeight="bold", color=NEUTRAL)
            .encode(text="method:N", color=alt.value(NEUTRAL))
            for place, how in _LABEL_PLACES.items()
            if any(r["place"] == place for r in rows)
        ),
    ).properties(width=WIDTH, height=320)
    return _finish(
        layers,
        f"What {data.metric} costs in training time",
        ("mean and 95% interval over seeds, " if several else "") + _seeds(data, shown),
    )


_LABEL_PLACES: dict[str, dict[str, Any]] = {
    "right": {"align": "left", "baseline": "middle", "dx": 12, "dy": -10},
    "left": {"align": "right", "baseline": "middle", "dx": -12, "dy": -10},
    "below": {"align": "left", "baseline": "middle", "dx": 12, "dy": 12},
    "below left": {"align": "right", "baseline": "middle", "dx": -12, "dy": 12},
}


def _trained(data: PlotData, method: str) -> bool:
    return method in data.seconds and data.seconds[method].value > 0


def _cost_row(data: PlotData, method: str) -> Row:
    score, seconds = data.scores[method], data.seconds[method]
    # Below zero seconds a Student interval has no place on a logarithmic axis: cut at a tenth.
    floor = seconds.value / 10
    return {
        "method": method,
        "score": _round(score.value * data.scale),
        "score_low": _round(None if score.low is None else score.low * data.scale),
        "score_high": _round(None if score.high is None else score.high * data.scale),
        "seconds": _round(seconds.value),
        "seconds_low": _round(None if seconds.low is None else max(seconds.low, floor)),
        "seconds_high": _round(seconds.high),
    }


def _place_labels(rows: Sequence[Row]) -> None:
    """Give each row a "place" for its label: the first where it meets no other point or label."""
    xs = [math.log(r["seconds"]) for r in rows]
    ys = [r["score"] for r in rows]
    span_x, span_y = (max(v) - min(v) or 1.0 for v in (xs, ys))
    # The plot as a unit square; a letter is about 1.3% of its width, a line 6% of its height.
    at = [((x - min(xs)) / span_x, (y - min(ys)) / span_y) for x, y in zip(xs, ys, strict=True)]
    taken: list[tuple[float, float, float, float]] = [
        (x - 0.015, y - 0.03, x + 0.015, y + 0.03) for x, y in at
    ]
    for row, (x, y) in zip(rows, at, strict=True):
        width = 0.013 * len(row["method"])
        boxes = {}
        for place in _LABEL_PLACES:
            left = x - 0.02 - width if "left" in place else x + 0.02
            middle = y - 0.045 if "below" in place else y + 0.04
            boxes[place] = (left, middle - 0.03, left + width, middle + 0.03)
        free = [p for p, box in boxes.items() if not any(_overlap(box, t) for t in taken)]
        inside = [p for p in free if boxes[p][0] > -0.18 and boxes[p][2] < 1.18]
        row["place"] = (inside or free or list(boxes))[0]
        taken.append(boxes[row["place"]])


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... inside (low, high); powers of ten alone where those are many."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(exponents) <= 4 else (1,)
    ticks = [_round(m * 10.0**e, 6) or 0.0 for e in exponents for m in steps]
    return [t for t in ticks if low <= t <= high]


def _describe_cost(data: PlotData) -> str:
    shown = [m for m in _in_order(data, data.scores) if _trained(data, m)]
    shown.sort(key=lambda m: data.seconds[m].value)
    digits = 1 if data.percent else 3
    parts = [
        f"{m} {data.scores[m].value * data.scale:.{digits}f} after {data.seconds[m].value:.3g} s"
        for m in shown
    ]
    return f"Cheapest first, {data.metric}{data.unit}: {'; '.join(parts)}."


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
    metric = f"{data.metric[:1].upper()}{data.metric[1:]}"
    return _curves(
        data,
        points,
        title=f"{metric} on validation",
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
    single = _thinned(points, bins)
    shown = [m for m in data.methods if any(r["method"] == m for r in single)]
    several = len({r["seed"] for r in single}) > 1
    mean = _mean_over_seeds(single)
    y = alt.Y("value:Q", title=axis, scale=alt.Scale(zero=False))
    colour = _method_colour(data, shown)
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
    thick = alt.Chart(_values(mean)).encode(x=x, y=y, color=colour, tooltip=tooltip)
    layers = [
        alt.Chart(_values(single))
        .mark_line(strokeWidth=1, opacity=0.35)
        .encode(x=x, y=y, color=colour, detail="seed:N"),
        thick.mark_line(strokeWidth=2.5),
    ]
    if dots or _is_short(mean):
        layers.append(
            thick.mark_point(filled=True, size=70, opacity=1).encode(
                shape=_method_shape(data, shown)
            )
        )
    return _finish(
        alt.layer(*layers).properties(width=WIDTH, height=260),
        title,
        ("thick: mean over seeds, thin: each seed; " if several else "") + _seeds(data, shown),
    )


def _is_short(rows: Sequence[Row]) -> bool:
    counts: dict[str, int] = {}
    for r in rows:
        counts[r["method"]] = counts.get(r["method"], 0) + 1
    return min(counts.values()) < 2


def _thinned(points: Sequence[CurvePoint], bins: int | None) -> list[Row]:
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
            "epoch": _round(sum(p.epoch for p in group) / len(group)),
            "value": _round(sum(p.value for p in group) / len(group)),
        }
        for (method, seed, place), group in groups.items()
    ]


def _mean_over_seeds(rows: Sequence[Row]) -> list[Row]:
    groups: dict[tuple[str, float], list[Row]] = {}
    for r in rows:
        groups.setdefault((r["method"], r.pop("place")), []).append(r)
    return [
        {
            "method": method,
            "epoch": _round(sum(r["epoch"] for r in group) / len(group)),
            "value": _round(sum(r["value"] for r in group) / len(group)),
        }
        for (method, _), group in groups.items()
    ]


def _describe_curves(points: Sequence[CurvePoint], scale: float, digits: int) -> str:
    methods = dict.fromkeys(p.method for p in points)
    parts = []
    for m in methods:
        mine = [p for p in points if p.method == m]
        first, last = (
            [p.value for p in mine if p.epoch == edge]
            for edge in (min(p.epoch for p in mine), max(p.epoch for p in mine))
        )
        start, end = (scale * sum(v) / len(v) for v in (first, last))
        parts.append(f"{m} from {start:.{digits}f} to {end:.{digits}f}")
    return f"First to last logged value, mean over seeds: {'; '.join(parts)}."


def _describe_loss(data: PlotData) -> str:
    return _describe_curves(data.loss, 1.0, 3)


def _describe_validation(data: PlotData) -> str:
    return _describe_curves(data.validation, data.scale, 1 if data.percent else 3)


# --- ROC --------------------------------------------------------------------------------------


def roc_plot(data: PlotData) -> Chart | None:
    """ROC curves with the line of chance; with more than two classes, one against the rest."""
    import altair as alt

    if not data.roc:
        return None
    shown = _in_order(data, data.roc)
    names = {m: f"{m} ({data.roc[m].auc:.3f})" for m in shown}
    palette = colours(data.methods)
    rows = [
        {"method": names[m], "fpr": _round(x), "tpr": _round(y), "order": i}
        for m in shown
        for i, (x, y) in enumerate(
            zip(data.roc[m].false_positive_rate, data.roc[m].true_positive_rate, strict=True)
        )
    ]
    axis = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], format=".1f")
    unit = alt.Scale(domain=[0, 1])
    x = alt.X("fpr:Q", title="false positive rate", scale=unit, axis=axis)
    y = alt.Y("tpr:Q", title="true positive rate", scale=unit, axis=axis)
    lines = (
        alt.Chart(_values(rows))
        .mark_line(strokeWidth=2.2)
        .encode(
            x=x,
            y=y,
            order="order:Q",
            color=alt.Color(
                "method:N",
                scale=alt.Scale(
                    domain=[names[m] for m in shown], range=[palette[m] for m in shown]
                ),
                legend=alt.Legend(**{**_LEGEND, "columns": 2}),
            ),
            tooltip=[
                alt.Tooltip("method:N", title="method (area)"),
                alt.Tooltip("fpr:Q", title="false positive rate", format=".3f"),
                alt.Tooltip("tpr:Q", title="true positive rate", format=".3f"),
            ],
        )
    )
    chance = (
        alt.Chart(_values([{"fpr": 0, "tpr": 0}, {"fpr": 1, "tpr": 1}]))
        .mark_line(strokeDash=[4, 3], strokeWidth=1.2, color=NEUTRAL)
        .encode(x=x, y=y)
    )
    names_of = data.class_names
    what = f"of {names_of[1]!r}" if len(names_of) == 2 else "one class against the rest, averaged"
    return _finish(
        alt.layer(chance, lines).properties(width=400, height=400),
        "ROC curves",
        f"{what}, on {data.part}; in brackets the area; mean over seeds, {_seeds(data, shown)}",
    )


def _describe_roc(data: PlotData) -> str:
    parts = [f"{m} {data.roc[m].auc:.3f}" for m in _in_order(data, data.roc)]
    return f"Area under the curve: {'; '.join(parts)}."


# --- confusion matrices -----------------------------------------------------------------------


def confusion_plot(data: PlotData) -> Chart | None:
    """Confusion matrices side by side: the share of each true class that went to each class."""
    import altair as alt

    names = data.class_names
    if not data.confusion or not 2 <= len(names) <= MOST_CLASSES:
        return None
    shown = _in_order(data, data.confusion)
    rows = [
        {
            "method": m,
            "place": place,
            "true": names[i],
            "true_place": i,
            "predicted": names[j],
            "predicted_place": j,
            "share": _round(n / max(sum(line), 1)),
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
        sort=_by("predicted_place"),
        title="predicted",
        axis=alt.Axis(
            labelAngle=0 if flat else -45, ticks=False, domain=False, labelLimit=110, grid=False
        ),
    )
    y = alt.Y(
        "true:N",
        sort=_by("true_place"),
        title="true",
        axis=alt.Axis(ticks=False, domain=False, labelLimit=110, grid=False),
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
        alt.layer(*layers, data=_values(rows))
        .properties(width={"step": cell}, height={"step": cell})
        .facet(
            facet=alt.Facet(
                "method:N", sort=_by("place"), title=None, header=alt.Header(labelPadding=6)
            ),
            columns=per_line,
            spacing=24,
        )
    )
    return _finish(
        chart,
        "Confusion matrices",
        f"share of each true class, on {data.part}; all seeds together, {_seeds(data, shown)}",
    )


def _describe_confusion(data: PlotData) -> str:
    parts = []
    for m in _in_order(data, data.confusion):
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


# --- the rows ---------------------------------------------------------------------------------

PLOTS: dict[str, Plot] = {
    p.name: p
    for p in (
        Plot(
            "differences",
            "Difference to the best",
            difference_plot,
            "A bar that touches the dashed line means that the test rows and seeds at hand do not "
            "tell the two apart.",
            _describe_differences,
            wide=True,
        ),
        Plot(
            "cost",
            "Accuracy and cost",
            cost_plot,
            "Up is better, left is cheaper. Bars show how far another draw of seeds may move it.",
            _describe_cost,
            wide=True,
        ),
        Plot(
            "loss",
            "Training loss",
            loss_plot,
            "A line that still falls at its end asks for more epochs; one that jumps, for a lower "
            "learning rate.",
            _describe_loss,
        ),
        Plot(
            "validation",
            "Validation score",
            validation_plot,
            "The epoch with the best score here is the one that was kept and scored on test.",
            _describe_validation,
        ),
        Plot(
            "roc",
            "ROC curves",
            roc_plot,
            "Nearer to the upper left corner is better; the dashed line is guessing.",
            _describe_roc,
        ),
        Plot(
            "confusion",
            "Confusion matrices",
            confusion_plot,
            "Each line adds up to 100%: where the rows of one true class went. The diagonal is "
            "right.",
            _describe_confusion,
            wide=True,
        ),
    )
}
