"""Values in, chart out: the rows of PLOTS.

Each plot is a pure function of `PlotData` that gives a chart, or None where the study has nothing
to show in it. A chart is self-contained JSON (Vega-Lite): the same values give the same JSON, and
it renders as interactive HTML, PNG and SVG. Backgrounds are transparent and letters mid-grey, so
that a chart can be read on a light and on a dark page; the report recolours the letters.
"""

from __future__ import annotations

from tunelab.report.charts import classes, comparison, curves, learning, predictions, slices
from tunelab.report.charts.base import (
    PALETTE,
    colours,
    dashes,
    shapes,
)
from tunelab.report.charts.classes import MOST_CLASSES
from tunelab.report.charts.values import (
    BehaviourPoint,
    CostColumn,
    Curve,
    CurvePoint,
    PlacePoint,
    Plot,
    PlotData,
    Reliability,
    Roc,
    SettingLevel,
    SizePoint,
    SlicePoint,
)

__all__ = [
    "MOST_CLASSES",
    "PALETTE",
    "PLOTS",
    "BehaviourPoint",
    "CostColumn",
    "Curve",
    "CurvePoint",
    "PlacePoint",
    "Plot",
    "PlotData",
    "Reliability",
    "Roc",
    "SettingLevel",
    "SizePoint",
    "SlicePoint",
    "colours",
    "dashes",
    "shapes",
]


PLOTS: dict[str, Plot] = {
    p.name: p
    for p in (
        Plot(
            "differences",
            "differences",
            "Difference to the best",
            comparison.difference_plot,
            "A bar that touches the dashed line means that the test rows and seeds at hand do not "
            "tell the two apart.",
            comparison.describe_differences,
            wide=True,
        ),
        Plot(
            "cost",
            "tradeoff",
            "Score and cost",
            comparison.cost_plot,
            "Up is better, and so is the cheap side. Bars show how far another draw of seeds may "
            "move a method; one below dashed steps, where there are any, is beaten in both.",
            comparison.describe_cost,
            wide=True,
            choice="Cost",
            choices=comparison.cost_plots,
        ),
        Plot(
            "costs",
            "costs",
            "Costs",
            comparison.costs_plot,
            "Bars start at zero, each panel in its own unit: twice as long is twice as much.",
            comparison.describe_costs,
            wide=True,
        ),
        Plot(
            "loss",
            "curves",
            "Training loss",
            curves.loss_plot,
            "A line that still falls at its end asks for more epochs; one that jumps, for a lower "
            "learning rate.",
            curves.describe_loss,
        ),
        Plot(
            "validation",
            "curves",
            "Validation score",
            curves.validation_plot,
            "The epoch with the best score here is the one that was kept and scored on test.",
            curves.describe_validation,
        ),
        Plot(
            "roc",
            "ranking",
            "ROC curves",
            predictions.roc_plot,
            "Nearer to the upper left corner is better; the dashed line is guessing.",
            predictions.describe_roc,
        ),
        Plot(
            "precision_recall",
            "ranking",
            "Precision and recall",
            predictions.precision_recall_plot,
            "Nearer to the upper right corner is better: few false alarms, few misses.",
            predictions.describe_precision_recall,
        ),
        Plot(
            "confusion",
            "confusion",
            "Confusion matrices",
            classes.confusion_plot,
            "Each line adds up to 100%: where the rows of one true class went. The diagonal is "
            "right.",
            classes.describe_confusion,
            wide=True,
        ),
        Plot(
            "calibration",
            "calibration",
            "Reliability",
            predictions.calibration_plot,
            "On the dashed line a method is right as often as it says. Below it, it is too sure of "
            "itself.",
            predictions.describe_calibration,
            wide=True,
        ),
        Plot(
            "sensitivity",
            "sensitivity",
            "What the settings do",
            learning.sensitivity_plot,
            "Far from the dashed line: this value matters. A bar across it: it may not.",
            learning.describe_sensitivity,
            wide=True,
        ),
        Plot(
            "tuning",
            "sensitivity",
            "What tuning is worth",
            learning.tuning_plot,
            "A line that still rises at its end asks for more tries; a flat one was tuned enough.",
            learning.describe_tuning,
            wide=True,
        ),
        Plot(
            "learning",
            "learning",
            "Learning curves",
            learning.learning_plot,
            "A line that still rises at its right end asks for more labels; where two cross, the "
            "better method changes.",
            learning.describe_learning,
            wide=True,
        ),
        Plot(
            "transfer",
            "transfer",
            "Elsewhere",
            learning.transfer_plot,
            "A method that falls back here has learnt what is particular to its own data.",
            learning.describe_transfer,
            wide=True,
        ),
        Plot(
            "slices",
            "slices",
            "Slices",
            slices.slices_plot,
            "Points to the left are where a method is weak; only a ringed one is more than chance.",
            slices.describe_slices,
            wide=True,
            choice="Rows cut by",
            choices=slices.slices_plots,
        ),
        Plot(
            "behaviour",
            "slices",
            "Behaviour",
            slices.behaviour_plot,
            "Dark is bad: simple sentences that a reader gets right and the method does not.",
            slices.describe_behaviour,
            wide=True,
        ),
        Plot(
            "agreement",
            "mistakes",
            "Agreement",
            classes.agreement_plot,
            "Dark: the two make the same decisions, so that one can stand in for the other. Light: "
            "together they know more than either.",
            classes.describe_agreement,
            wide=True,
        ),
    )
}
