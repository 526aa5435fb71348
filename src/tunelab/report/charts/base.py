"""What charts share: colours, letters, axes, panels, heat maps, following a method.

Colours belong to methods, not to ranks, and are the same in every chart; where there are more
methods than colours, shapes and dashes tell them apart. Every chart has the parameter `follow`: a
method's label, and all others fade. The report sets it in all charts at once.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import altair as alt

    from tunelab.core.values import Estimate
    from tunelab.report.charts.values import Chart, PlotData

__all__ = [
    "BLUES",
    "BROWNS",
    "CHART_WIDTH",
    "PALETTE",
    "NEUTRAL",
    "ChartRow",
    "Ramp",
    "by",
    "capital",
    "chart_data",
    "colours",
    "dashes",
    "finished_chart",
    "followed",
    "heat_cells",
    "heat_letters",
    "method_colour",
    "method_dash",
    "method_shape",
    "methods_in_order",
    "names_axis",
    "numbers_under",
    "padded",
    "panels",
    "possible",
    "rounded",
    "seeds_of",
    "shapes",
    "with_ends",
    "zoom",
]


# The first six: Okabe & Ito 2008, "Color Universal Design", the best contrast first, without black
# and yellow (one is lost on a dark page, the other on a light one) and the neighbours' grey. The
# others: each the colour farthest from all before it, in OKLab, seen with and without red or green,
# among those with a contrast of 2.3 on both pages.
PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#8C4662", "#7D15D8", "#BF139C", "#725E0B", "#896CD8", "#8C8746"),
)
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
DASHES: tuple[tuple[int, ...], ...] = (
    *((), (6, 3), (2, 2), (8, 3, 2, 3)),
    *((12, 3), (5, 2, 1, 2, 1, 2)),
)
NEUTRAL = "#7a7a7a"  # 4.3:1 on white and 4.9:1 on black: legible on both
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
CHART_WIDTH = 620
LEGEND_WIDTH = 460
LETTER = 7  # pixels of a letter of 12, about

ChartRow: TypeAlias = Mapping[str, str | float | None]

Names: TypeAlias = Mapping[str, str]
"""What axis and legend say of a method, by its label: rows have it as "name" beside "method"."""


def colours(methods: Sequence[str]) -> dict[str, str]:
    """The colour of each method, by its place in the study."""
    return {m: PALETTE[i % len(PALETTE)] for i, m in enumerate(methods)}


def shapes(methods: Sequence[str]) -> dict[str, str]:
    """The shape of each method's points: two methods of one colour have two shapes."""
    return {m: SHAPES[i % len(SHAPES)] for i, m in enumerate(methods)}


def dashes(methods: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The dashes of each method's lines: whole for the first half of the colours, then broken."""
    return {m: DASHES[i // (len(PALETTE) // 2) % len(DASHES)] for i, m in enumerate(methods)}


# --- what the charts share --------------------------------------------------------------------


def chart_data(rows: Sequence[ChartRow], names: Names | None = None) -> alt.Data:
    """Rows as a chart's own data; with `names`, each has its method's as "name"."""
    import altair as alt

    named = rows if names is None else [{"name": names[str(r["method"])], **r} for r in rows]
    data: alt.Data = alt.Data(values=list(named))  # type: ignore[no-untyped-call]
    return data


_LETTER_LOOKS = {
    "labelColor": NEUTRAL,
    "titleColor": NEUTRAL,
    "labelFontSize": 12,
    "titleFontSize": 12,
}
_AXIS = {
    **_LETTER_LOOKS,
    "titleFontWeight": "normal",
    "titlePadding": 10,
    "labelLimit": 220,
    "gridColor": "#80808038",
    "domainColor": "#80808080",
    "tickColor": "#80808080",
}
_TITLE = {
    "color": NEUTRAL,
    "subtitleColor": NEUTRAL,
    "fontSize": 15,
    "subtitleFontSize": 12,
    "subtitlePadding": 5,
}


def finished_chart(chart: Chart, title: str, subtitle: str, **fit: str | int) -> Chart:
    """Give a chart its title, its looks and the parameter `follow`.

    `fit` tells the report how the chart becomes as wide as the page: `fit="width"` unless said.
    """
    import altair as alt

    head = alt.TitleParams(text=title, subtitle=subtitle, anchor="start", offset=14)
    finished: Chart = (
        chart.add_params(alt.param(name="follow", value=""))
        .properties(title=head, **({"usermeta": fit} if fit else {}))
        .configure(
            background="transparent",
            font=FONT,
            padding=8,
            view={"stroke": None},
            axis=_AXIS,
            legend={**_LETTER_LOOKS, "symbolSize": 110, "labelLimit": 260},
            header={
                **_LETTER_LOOKS,
                "labelFontSize": 13,
                "labelFontWeight": "bold",
                "labelLimit": 260,
            },
            title=_TITLE,
        )
    )
    return finished


def zoom() -> alt.Parameter:
    """Drag to move, Ctrl or Cmd and the wheel to zoom (the bare wheel scrolls the page)."""
    import altair as alt

    return alt.selection_interval(
        name="zoom", bind="scales", zoom="wheel![event.ctrlKey || event.metaKey]"
    )


def followed(opacity: float = 1.0, faded: float = 0.1) -> Any:
    """The opacity of a mark: whole, or faded while another method is followed."""
    import altair as alt

    return alt.condition(
        "follow === '' || datum.method === follow",
        alt.value(opacity),
        alt.value(round(opacity * faded, 3)),
    )


def _method_legend(shown: Sequence[str], names: Names) -> alt.Legend:
    import altair as alt

    longest = max((len(names[m]) for m in shown), default=0)
    # A legend takes the looks of the first layer, here a line of a single seed: thin and pale.
    # The report fits its columns anew to the width of the page.
    return alt.Legend(
        title=None,
        orient="top",
        columns=max(1, min(4, LEGEND_WIDTH // (LETTER * longest + 34))),
        symbolOpacity=1,
        symbolStrokeWidth=2.5,
    )


def _method_scale(
    shown: Sequence[str], values: Sequence[str | list[int]], names: Names
) -> alt.Scale:
    import altair as alt

    return alt.Scale(domain=[names[m] for m in shown], range=values)


def method_colour(
    data: PlotData, shown: Sequence[str], *, legend: bool = True, names: Names | None = None
) -> alt.Color:
    """Colour by method."""
    import altair as alt

    palette, names = colours(data.methods), names or data.names
    return alt.Color(
        "name:N",
        scale=_method_scale(shown, [palette[m] for m in shown], names),
        legend=_method_legend(shown, names) if legend else None,
    )


def method_shape(
    data: PlotData, shown: Sequence[str], *, legend: bool = True, names: Names | None = None
) -> alt.Shape:
    """Shape of points by method."""
    import altair as alt

    shape, names = shapes(data.methods), names or data.names
    return alt.Shape(
        "name:N",
        scale=_method_scale(shown, [shape[m] for m in shown], names),
        legend=_method_legend(shown, names) if legend else None,
    )


def method_dash(
    data: PlotData, shown: Sequence[str], *, names: Names | None = None
) -> alt.StrokeDash:
    """Dashes of lines by method; its legend joins that of the colours."""
    import altair as alt

    dash, names = dashes(data.methods), names or data.names
    return alt.StrokeDash(
        "name:N",
        scale=_method_scale(shown, [list(dash[m]) or [1, 0] for m in shown], names),
        legend=_method_legend(shown, names),
    )


def names_axis(limit: int, padding: int = 8) -> alt.Axis:
    """An axis of names alone, without a line; `limit` and `padding` in pixels."""
    import altair as alt

    return alt.Axis(ticks=False, domain=False, grid=False, labelPadding=padding, labelLimit=limit)


def panels(chart: Chart) -> Chart:
    """A panel for each "panel" of the rows, three side by side, in the order of "panel_place"."""
    import altair as alt

    header = alt.Header(labelAnchor="start", labelPadding=6, labelFontWeight="normal")
    facet = alt.Facet("panel:N", sort=by("panel_place"), title=None, header=header)
    faceted: Chart = chart.facet(facet=facet, columns=3, spacing={"row": 26, "column": 26})
    return faceted


@dataclass(frozen=True, slots=True)
class Ramp:
    """Colours of a heat map, from `light` to `dark`, and of the letters on its lighter cells.

    Both ends of the ramp stay away from the page, white or black.
    """

    light: str
    dark: str
    letters: str


BLUES = Ramp("#e8f1f8", "#0b4f82", "#10293d")
BROWNS = Ramp("#f6efe6", "#a63d00", "#3a2a1a")


def heat_cells(
    base: alt.Chart, share: str, ramp: Ramp, tooltip: Sequence[alt.Tooltip], lowest: float = 0
) -> alt.Chart:
    """The cells of a heat map, coloured by a `share` from `lowest` to 1."""
    import altair as alt

    scale = alt.Scale(domain=[lowest, 1], range=[ramp.light, ramp.dark])
    cells: alt.Chart = base.mark_rect(stroke="#ffffff", strokeWidth=1).encode(
        color=alt.Color(f"{share}:Q", scale=scale, legend=None), tooltip=list(tooltip)
    )
    return cells


def heat_letters(
    base: alt.Chart, share: str, ramp: Ramp, cell: int, middle: float = 0.5
) -> alt.Chart:
    """The shares as percentages on cells of `cell` pixels; white on those above `middle`."""
    import altair as alt

    white, dark = alt.value("#ffffff"), alt.value(ramp.letters)
    letters: alt.Chart = base.mark_text(fontSize=12 if cell > 40 else 10).encode(
        text=alt.Text(f"{share}:Q", format=".0%"),
        color=alt.condition(f"datum.{share} > {middle}", white, dark),
    )
    return letters


def by(field_name: str) -> alt.EncodingSortField:
    """Sort by a number in the rows.

    Not by a list of names: that becomes part of a Vega expression, which cannot hold every
    character that a label can (U+2028, for one).
    """
    import altair as alt

    return alt.EncodingSortField(field=field_name, op="min", order="ascending")


def methods_in_order(data: PlotData, present: Container[str]) -> list[str]:
    """The methods that are present, in the study's order."""
    return [m for m in data.methods if m in present]


def seeds_of(data: PlotData, shown: Sequence[str]) -> str:
    """As "3 seeds a method", or "1 to 3 seeds a method" where they differ."""
    counts = sorted({data.seeds.get(m, 0) for m in shown})
    if len(counts) == 1:
        return f"{counts[0]} seed{'' if counts[0] == 1 else 's'} a method"
    return f"{counts[0]} to {counts[-1]} seeds a method"


def rounded(value: float, digits: int = 4) -> float:
    """A number short enough to be stored many times."""
    return round(float(value), digits) + 0.0


def with_ends(name: str, estimate: Estimate, scale: float) -> dict[str, float]:
    """An estimate in a row: its value under `name`, `low` and `high`; without an interval, one of
    no width.
    """
    value, low, high = estimate.value, estimate.low, estimate.high
    return {
        name: rounded(value * scale),
        "low": rounded((value if low is None else low) * scale),
        "high": rounded((value if high is None else high) * scale),
    }


def numbers_under(rows: Sequence[ChartRow], *keys: str) -> list[float]:
    """The numbers that rows have under some keys; None is left out."""
    return [v for r in rows for k in keys if isinstance(v := r[k], int | float)]


def capital(text: str) -> str:
    """The text with its first letter large."""
    return text[:1].upper() + text[1:]


def possible(data: PlotData, domain: list[float]) -> list[float]:
    """A domain without percentages above 100 or below 0, but for the room that a mark takes."""
    if not data.percent:
        return domain
    low, high = max(domain[0], 0.0), min(domain[1], 100.0)
    room = 0.06 * (high - low)
    return [
        round(low - room, 4) if low > domain[0] else low,
        round(high + room, 4) if high < domain[1] else high,
    ]


def padded(values: Sequence[float], margin: float = 0.08) -> list[float]:
    """A domain around values, a little wider than they are."""
    low, high = min(values), max(values)
    room = (high - low) * margin or max(abs(high) * 0.02, 0.5)
    return [round(low - room, 4), round(high + room, 4)]
