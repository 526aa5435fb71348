"""Every row of PLOTS: drawn, deterministic, absent without data, true to its values."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from typing import Any

import pytest

from tunelab.core.values import Comparison, Estimate
from tunelab.report.charts import (
    MOST_CLASSES,
    OKABE_ITO,
    PLOTS,
    BehaviourPoint,
    CostColumn,
    Curve,
    CurvePoint,
    PlacePoint,
    PlotData,
    Reliability,
    Roc,
    SettingLevel,
    SizePoint,
    SlicePoint,
    colours,
    dashes,
    shapes,
)
from tunelab.report.paper import FIGURES

METHODS = ("svm", "full", "lora")


def estimate(value: float, half: float | None = None) -> Estimate:
    if half is None:
        return Estimate(value, None, None, 1, "one seed: no interval")
    return Estimate(value, value - half, value + half, 3, "test")


def comparison(other: str, value: float, half: float | None = 0.02) -> Comparison:
    return Comparison(
        "lora", other, "accuracy", estimate(value, half), "undecided", None, None, "", f"vs {other}"
    )


def cost(estimates: dict[str, Estimate], name: str = "train_seconds", **more: Any) -> CostColumn:
    about = {"train_seconds": ("training time", "seconds"), "artifact_bytes": ("size", "MB")}[name]
    texts = {m: f"{e.value:g}" for m, e in estimates.items()}
    return CostColumn(name, *about, 1.0, estimates, texts, **more)


SECONDS = {"svm": estimate(3.0), "full": estimate(60.0, 70.0), "lora": estimate(40.0, 2.0)}


CUTS = {"length": ("20 to 30 words", "3 to 19 words"), "file": ("a",)}


def data(**changes: Any) -> PlotData:
    curve = tuple(
        CurvePoint(m, seed, epoch / 10, 1 / (1 + epoch) + seed / 100)
        for m in ("full", "lora")
        for seed in range(2)
        for epoch in range(1, 31)
    )
    ends = tuple(p for p in curve if p.epoch == int(p.epoch))
    full = PlotData(
        methods=METHODS,
        seeds={"svm": 2, "full": 2, "lora": 2},
        metric="accuracy",
        best="lora",
        scores={"svm": estimate(0.75, 0.0), "full": estimate(0.8, 0.02), "lora": estimate(0.81)},
        costs=(
            cost(SECONDS, front=("svm", "lora")),
            cost({m: estimate(2.0 + i) for i, m in enumerate(METHODS)}, "artifact_bytes"),
        ),
        differences=(comparison("full", 0.01), comparison("svm", 0.06)),
        loss=curve,
        validation=ends,
        roc={m: Roc([0.0, 0.5, 1.0], [0.0, 0.8, 1.0], 0.65) for m in METHODS},
        precision_recall={m: Curve([0.0, 0.5, 1.0], [1.0, 0.9, 0.5], 0.85) for m in METHODS},
        confusion={m: [[90, 10], [30, 70]] for m in METHODS},
        class_names=("negative", "positive"),
        agreement={("svm", "full"): 0.7, ("svm", "lora"): 0.75, ("full", "lora"): 0.95},
        agreement_rows=200,
        reliability={
            m: Reliability(
                [0.55, 0.75, 0.95],
                [0.5, 0.7, 0.9],
                [20, 60, 120],
                estimate(0.05),
                off=m == "full",
                band=[(0.5, 0.6), (0.7, 0.8), (0.9, 1.0)],
            )
            for m in METHODS[1:]
        },
        learning=tuple(
            SizePoint(m, rows, estimate(0.6 + rows / 10_000 + i / 50, 0.02))
            for i, m in enumerate(METHODS)
            for rows in (50, 300, 1000)
        ),
        tuning={"full": [0.7, 0.75, 0.76], "lora": [0.71, 0.76, 0.78]},
        sensitivity=(
            SettingLevel("lora", "r", "4", estimate(-0.02, 0.01), 0.4),
            SettingLevel("lora", "r", "16", estimate(0.02, 0.01), 0.4),
            SettingLevel("full", "learning_rate", "5e-05", estimate(0.0), 0.1),
        ),
        transfer=tuple(PlacePoint(m, "imdb", estimate(0.7, 0.03)) for m in METHODS),
        behaviour=tuple(
            BehaviourPoint(m, "not", "negation", "minimum", 50, estimate(0.2 + i / 10, 0.05))
            for i, m in enumerate(METHODS)
        ),
        slices=tuple(
            SlicePoint(m, column, value, 40, estimate(0.5 + i / 10, 0.1), named=i == 0)
            for m in METHODS
            for column, values in (
                ("length", ("20 to 30 words", "3 to 19 words")),
                ("file", ("a",)),
            )
            for i, value in enumerate(values)
        ),
    )
    return replace(full, **changes)


def spec(name: str, d: PlotData | None = None) -> dict[str, Any]:
    chart = PLOTS[name].function(d or data())
    assert chart is not None
    return chart.to_dict()


def svg(chart: Any) -> str:
    return FIGURES["svg"](chart.to_dict()).decode()


def rows(node: Any) -> list[dict[str, Any]]:
    """All rows of all data in a specification."""
    if isinstance(node, list):
        return [row for item in node for row in rows(item)]
    if not isinstance(node, dict):
        return []
    here = node["data"]["values"] if "values" in node.get("data", {}) else []
    return here + [row for key, item in node.items() if key != "data" for row in rows(item)]


@pytest.mark.parametrize("name", PLOTS)
def test_renders_to_png_and_svg(name: str) -> None:
    chart = PLOTS[name].function(data())
    assert chart is not None
    png = FIGURES["png"](chart.to_dict())
    assert png.startswith(b"\x89PNG")
    width, height = (n / 3 for n in struct.unpack(">II", png[16:24]))  # drawn three times as large
    assert 300 < width < 1200
    assert 100 < height < 800
    assert svg(chart).startswith("<svg")


@pytest.mark.parametrize("name", PLOTS)
def test_same_values_give_the_same_json(name: str) -> None:
    first, second = (json.dumps(spec(name)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", PLOTS)
def test_says_what_it_shows_and_how_to_read_it(name: str) -> None:
    head = spec(name)["title"]
    assert head["text"]
    assert "2 seeds a method" in head["subtitle"] or name == "sensitivity"
    plot = PLOTS[name]
    assert plot.how_to_read.endswith(".")
    assert "\n" not in plot.how_to_read
    words = plot.describe(data())
    assert "full" in words or name == "slices"  # which names the weakest alone
    assert words.endswith(".")


@pytest.mark.parametrize("name", PLOTS)
def test_absent_without_data(name: str) -> None:
    assert PLOTS[name].function(PlotData(METHODS, dict.fromkeys(METHODS, 0), "accuracy")) is None


@pytest.mark.parametrize("name", PLOTS)
def test_needs_no_network_and_no_page_colour(name: str) -> None:
    chart = spec(name)
    assert chart["config"]["background"] == "transparent"
    text = json.dumps({k: v for k, v in chart.items() if k != "$schema"})
    assert "http" not in text
    assert '"url"' not in text


def test_a_method_has_one_colour_in_every_chart() -> None:
    palette = colours(METHODS)
    assert palette == {"svm": OKABE_ITO[0], "full": OKABE_ITO[1], "lora": OKABE_ITO[2]}

    def scales(node: Any) -> list[dict[str, str]]:
        if isinstance(node, list):
            return [s for item in node for s in scales(item)]
        if not isinstance(node, dict):
            return []
        here = node.get("color")
        found = [s for item in node.values() for s in scales(item)]
        if isinstance(here, dict) and here.get("field") in {"method", "name"}:
            found.append(dict(zip(here["scale"]["domain"], here["scale"]["range"], strict=True)))
        return found

    for name in ("differences", "cost", "costs", "loss", "validation", "roc", "precision_recall"):
        found = scales(spec(name))
        assert found, name
        for scale in found:
            for method, colour in scale.items():
                assert colour == palette[method.partition(" (")[0]], name


def test_more_methods_than_colours_are_told_apart_by_shape_and_dashes() -> None:
    many = [f"m{i}" for i in range(28)]
    colour, shape, dash = colours(many), shapes(many), dashes(many)
    assert len({(colour[m], shape[m]) for m in many}) == len(many)
    assert len({(colour[m], dash[m]) for m in many}) == len(many)


@pytest.mark.parametrize("name", PLOTS)
def test_every_chart_can_follow_a_method(name: str) -> None:
    chart = spec(name)
    assert {"name": "follow", "value": ""} in chart["params"]
    # A setting belongs to one method; its chart has the parameter and fades nothing.
    fades = "datum.method === follow" in json.dumps(chart.get("layer", chart))
    assert fades == (name != "sensitivity")


def test_there_is_a_chart_for_every_cost() -> None:
    choices = PLOTS["cost"].choices
    assert choices is not None
    drawn = choices(data())
    assert list(drawn) == ["Training time", "Size"]
    titles = [c.to_dict()["title"]["text"] for c in drawn.values()]
    assert titles == ["Accuracy against training time", "Accuracy against size"]


def test_the_pareto_front_steps_through_those_that_nothing_beats() -> None:
    steps = [(r["cost"], r["score"]) for r in rows(spec("cost")) if "order" in r]
    assert steps == [(3.0, 75.0), (40.0, 81.0)]


def test_agreement_is_symmetric_and_counts_the_rows_that_differ() -> None:
    shown = {(r["method"], r["other"]): r for r in rows(spec("agreement"))}
    assert shown["svm", "full"]["share"] == shown["full", "svm"]["share"] == 0.7
    assert shown["svm", "full"]["rows"] == 60
    words = PLOTS["agreement"].describe(data())
    assert "svm and full agree least, on 70.0%" in words


def test_differences_are_percentage_points_of_the_best_minus_the_other() -> None:
    shown = {r["method"]: r for r in rows(spec("differences")) if "method" in r}
    assert shown["svm"]["difference"] == 6.0
    assert (shown["svm"]["low"], shown["svm"]["high"]) == (4.0, 8.0)
    assert shown["svm"]["shown"] == "+6.0 (+4.0 to +8.0)"
    assert "right of zero: lora ahead" in spec("differences")["title"]["subtitle"]


def test_differences_of_a_loss_are_not_percent_and_less_is_ahead() -> None:
    d = data(metric="log loss", percent=False, higher_is_better=False)
    shown = {r["method"]: r for r in rows(spec("differences", d)) if "method" in r}
    assert shown["svm"]["shown"] == "+0.060 (+0.040 to +0.080)"
    assert "left of zero: lora ahead" in spec("differences", d)["title"]["subtitle"]


def test_difference_never_reads_minus_zero() -> None:
    d = data(differences=(comparison("full", -0.0001, None),))
    assert {r["shown"] for r in rows(spec("differences", d)) if "method" in r} == {"0.0"}


def test_interval_below_zero_seconds_stays_on_the_logarithmic_axis() -> None:
    shown = {r["method"]: r for r in rows(spec("cost")) if "method" in r}
    assert shown["full"]["cost_low"] == 6.0
    assert shown["full"]["cost_high"] == 130.0


def test_cost_leaves_out_what_has_no_training_time() -> None:
    d = data(costs=(cost({"svm": estimate(0.0), "full": estimate(60.0), "lora": estimate(40.0)}),))
    assert {r["method"] for r in rows(spec("cost", d)) if "method" in r} == {"full", "lora"}
    assert PLOTS["cost"].function(data(costs=(cost({"full": estimate(60.0)}),))) is None


def test_close_points_get_labels_in_different_places() -> None:
    d = data(
        scores={"svm": estimate(0.60), "full": estimate(0.8), "lora": estimate(0.801)},
        costs=(cost({"svm": estimate(1.0), "full": estimate(60.0), "lora": estimate(61.0)}),),
    )
    places = {r["method"]: r["place"] for r in rows(spec("cost", d)) if "place" in r}
    assert places["full"] != places["lora"]


def test_loss_is_thinned_and_keeps_the_mean_over_seeds() -> None:
    long = tuple(
        CurvePoint("full", seed, step / 1000, 1.0 + seed)
        for seed in range(3)
        for step in range(1, 3001)
    )
    shown = rows(spec("loss", data(loss=long)))
    single = [r for r in shown if "seed" in r]
    mean = [r for r in shown if "seed" not in r]
    assert len(single) == 3 * 40
    assert len(mean) == 40
    assert {r["value"] for r in mean} == {2.0}


def test_seeds_logged_at_other_epochs_have_a_mean_between_their_lines() -> None:
    epochs = {0: (0.2, 0.4, 0.6, 0.8, 1.0), 1: (0.25, 0.5, 0.75, 1.0)}
    apart = tuple(
        CurvePoint("lora", seed, e, 2.0 - e + seed) for seed, es in epochs.items() for e in es
    )
    d = data(loss=apart)
    mean = [r for r in rows(spec("loss", d)) if "seed" not in r and "value" in r]
    assert [r["epoch"] for r in mean] == [0.2, 0.4, 0.6, 0.8, 1.0]
    # Half-way between two parallel lines one apart; the other seed's line begins at 0.25.
    assert [r["value"] for r in mean[1:]] == pytest.approx([2.1, 1.9, 1.7, 1.5])
    assert mean[0]["value"] == pytest.approx((1.8 + 2.75) / 2)
    said = PLOTS["loss"].describe(d)
    assert "lora from 2.275 to 1.500" in said


def test_points_at_the_end_of_the_scale_are_drawn_whole() -> None:
    best = {"svm": estimate(1.0), "full": estimate(0.0)}
    d = data(scores=best, costs=(cost({"svm": estimate(0.1), "full": estimate(9.0)}),))
    scale = json.dumps(spec("cost", d))
    low, high = (float(x) for x in re.findall(r'"scale": {"domain": \[([-\d.]+), ([-\d.]+)\], '
                                              r'"nice": false, "zero"', scale)[0])  # fmt: skip
    assert low < -4
    assert high > 104
    (label,) = set(re.findall(r'"labelExpr": "([^"]+)"', json.dumps(spec("costs", d))))
    assert "datum.value < 1000 ? format(datum.value, '~g')" in label


def test_one_logged_point_is_still_seen() -> None:
    d = data(loss=(CurvePoint("full", 0, 1.0, 0.5),), validation=(CurvePoint("full", 0, 1.0, 0.8),))
    for name in ("loss", "validation"):
        marks = [layer["mark"]["type"] for layer in spec(name, d)["layer"]]
        assert "point" in marks


def test_validation_is_drawn_in_percent() -> None:
    values = [r["value"] for r in rows(spec("validation"))]
    assert max(values) > 1


def test_one_seed_promises_no_interval() -> None:
    d = data(seeds=dict.fromkeys(METHODS, 1), loss=tuple(p for p in data().loss if p.seed == 0))
    assert spec("cost", d)["title"]["subtitle"].startswith("1 seed a method")
    assert spec("loss", d)["title"]["subtitle"] == "1 seed a method"


def test_confusion_shows_shares_of_the_true_class() -> None:
    shown = {
        (r["true"], r["predicted"]): r for r in rows(spec("confusion")) if r["method"] == "svm"
    }
    assert shown["negative", "positive"]["share"] == 0.1
    right = shown["positive", "positive"]
    assert (right["share"], right["rows"]) == (0.7, 70)
    assert "30% of 'positive' for 'negative'" in PLOTS["confusion"].describe(data())


def test_classes_keep_their_order_and_not_the_alphabet() -> None:
    names = ("2", "10", "1")
    d = data(class_names=names, confusion={"svm": [[1, 2, 3]] * 3})
    chart = PLOTS["confusion"].function(d)
    assert chart is not None
    labels = re.findall(r">(10|1|2)</text>", svg(chart))
    assert labels == [*names, *names]  # below, then beside


def test_confusion_of_a_class_without_rows_is_zero() -> None:
    d = data(confusion={"svm": [[0, 0], [1, 3]]})
    shares = [r["share"] for r in rows(spec("confusion", d))]
    assert shares == [0.0, 0.0, 0.25, 0.75]


def test_confusion_of_very_many_classes_is_left_out() -> None:
    k = MOST_CLASSES + 1
    d = data(class_names=tuple(map(str, range(k))), confusion={"svm": [[1] * k] * k})
    assert PLOTS["confusion"].function(d) is None


def test_names_with_markup_and_quotes_stay_data() -> None:
    nasty = ("</script><script>alert(1)</script>", 'it\'s "quoted"\nand broken', "a | b\u2028")
    d = data(
        methods=nasty,
        seeds=dict.fromkeys(nasty, 1),
        best=nasty[0],
        scores=dict.fromkeys(nasty, estimate(0.5)),
        costs=(cost({m: estimate(i + 1.0) for i, m in enumerate(nasty)}),),
        differences=tuple(replace(comparison(m, 0.1), a=nasty[0]) for m in nasty[1:]),
        loss=tuple(CurvePoint(m, 0, 1.0, 0.5) for m in nasty),
        validation=tuple(CurvePoint(m, 0, 1.0, 0.5) for m in nasty),
        roc={m: Roc([0.0, 1.0], [0.0, 1.0], 0.5) for m in nasty},
        precision_recall={m: Curve([0.0, 1.0], [1.0, 0.5], 0.5) for m in nasty},
        agreement={(nasty[0], nasty[1]): 0.5, (nasty[0], nasty[2]): 0.6},
        confusion={m: [[1, 2], [3, 4]] for m in nasty},
        reliability={
            m: Reliability([0.6], [0.5], [4], estimate(0.1), off=True, band=[(0.4, 0.8)])
            for m in nasty
        },
        learning=tuple(SizePoint(m, n, estimate(0.5)) for m in nasty for n in (10, 20)),
        tuning={m: [0.5, 0.6] for m in nasty},
        sensitivity=tuple(SettingLevel(m, m, m, estimate(0.1), 0.5) for m in nasty),
        transfer=tuple(PlacePoint(m, "</b>", estimate(0.5)) for m in nasty),
        behaviour=tuple(BehaviourPoint(m, m, m, m, 9, estimate(0.5)) for m in nasty),
        slices=tuple(SlicePoint(m, m, m, 20, estimate(0.5), named=True) for m in nasty),
        class_names=("<b>\u2028", "'"),
    )
    for name in PLOTS:
        chart = PLOTS[name].function(d)
        assert chart is not None
        assert "<svg" in svg(chart)


def test_reliability_names_the_error_and_keeps_the_bins() -> None:
    shown = [r for r in rows(spec("calibration")) if "rows" in r]
    assert {r["name"] for r in shown} == {"full (5.0)", "lora (none seen)"}
    assert [(r["confidence"], r["accuracy"]) for r in shown[:3]] == [
        (0.55, 0.5),
        (0.75, 0.7),
        (0.95, 0.9),
    ]


def test_learning_and_tuning_are_in_percent_and_in_order() -> None:
    shown = [r for r in rows(spec("learning")) if r.get("method") == "svm"]
    assert [r["rows"] for r in shown] == [50, 300, 1000]
    assert shown[0]["score"] == 60.5
    tried = [(r["tries"], r["score"]) for r in rows(spec("tuning")) if r["method"] == "full"]
    assert tried == [(1, 70.0), (2, 75.0), (3, 76.0)]
    assert "lora 71.0 with one try, 78.0 with 3" in PLOTS["tuning"].describe(data())


def test_sensitivity_has_a_panel_a_setting_with_its_share() -> None:
    shown = rows(spec("sensitivity"))
    assert {r["panel"] for r in shown} == {
        "lora: r (40%)",
        "full: learning_rate (10%)",
    }
    assert [r["effect"] for r in shown] == [-2.0, 2.0, 0.0]


def test_slices_have_a_chart_a_column_and_bins_in_their_order() -> None:
    choices = PLOTS["slices"].choices
    assert choices is not None
    drawn = choices(data())
    assert list(drawn) == ["length", "file"]
    order = {r["value"]: r["place"] for r in rows(drawn["length"].to_dict())}
    assert order == {"3 to 19 words (40)": 0, "20 to 30 words (40)": 1}
    assert "6 of 9 slices truly differ" in PLOTS["slices"].describe(data())
