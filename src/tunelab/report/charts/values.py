"""What charts are made of: the values that are drawn, and a row of PLOTS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tunelab.core.values import Comparison, Estimate
from tunelab.core.words import short_labels

if TYPE_CHECKING:
    import altair as alt

    Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart

__all__ = [
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
]


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
class Curve:
    """A method's curve of equal-length `x` and `y`; `area` its mean over seeds, None where unsaid.

    `low` and `high`: a 95% interval of each y, where there is one.
    """

    x: Sequence[float]
    y: Sequence[float]
    area: float | None = None
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True, slots=True)
class CostColumn:
    """A cost of every method. `factor` turns values into `unit`; `texts` are values as people read.

    `front`: the methods that no other beats in both the metric and this cost.
    """

    name: str
    title: str
    unit: str
    factor: float
    estimates: Mapping[str, Estimate]
    texts: Mapping[str, str]
    higher_is_better: bool = False
    front: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reliability:
    """A method's bins of confidence: mean `confidence` and `accuracy` in [0, 1], `rows` of each.

    All seeds together; `error` is the debiased calibration error, root mean square over seeds, in
    [0, 1], `off`: it is more than luck. `band`: (low, high) of each bin's accuracy if the
    method were calibrated.
    """

    confidence: Sequence[float]
    accuracy: Sequence[float]
    rows: Sequence[int]
    error: Estimate
    off: bool
    band: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class SizePoint:
    """A method's score after training on `rows` rows."""

    method: str
    rows: int
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class SettingLevel:
    """What one `value` of a `setting` of a method does: its mean less that of all trials.

    `share`: how much of the variance between trials the setting explains, in [0, 1].
    """

    method: str
    setting: str
    value: str
    effect: Estimate
    share: float


@dataclass(frozen=True, slots=True)
class PlacePoint:
    """A method's score in another `place`: a further dataset, or a domain of one."""

    method: str
    place: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class SlicePoint:
    """A method's accuracy, in [0, 1], on the `rows` where `column` has `value`.

    `named`: it truly differs from the method's accuracy on the other rows.
    """

    method: str
    column: str
    value: str
    rows: int
    accuracy: Estimate
    named: bool


@dataclass(frozen=True, slots=True)
class BehaviourPoint:
    """How often a method fails a behaviour `test` of a `capability`, in [0, 1]."""

    method: str
    test: str
    capability: str
    kind: str
    cases: int
    failure: Estimate


@dataclass(frozen=True, slots=True)
class PlotData:
    """Everything that the plots draw. Methods are named by their label in the study.

    `methods` in the study's order, which decides the colours; `seeds` the number of finished seeds.
    `percent`: metric values are in [0, 1] and drawn as percent. `part`: "test" or "validation".
    `differences`: `best` minus each other method, metric units, and in a word where it stands
    against each (`standings`). `costs`: one entry a cost.
    `loss` and `validation`: histories of the trials that have one. `confusion`: counts summed over
    seeds, rows true classes, columns predicted ones, both in the order of `class_names`.
    `agreement`: the share of rows, in [0, 1], on which two methods say the same class. `tuning`:
    expected validation score of the best of 1, 2, ... tries.
    """

    methods: tuple[str, ...]
    seeds: Mapping[str, int]
    metric: str
    percent: bool = True
    higher_is_better: bool = True
    part: str = "test"
    best: str | None = None
    scores: Mapping[str, Estimate] = field(default_factory=dict)
    costs: tuple[CostColumn, ...] = ()
    differences: tuple[Comparison, ...] = ()
    standings: Mapping[str, str] = field(default_factory=dict)
    loss: tuple[CurvePoint, ...] = ()
    validation: tuple[CurvePoint, ...] = ()
    roc: Mapping[str, Roc] = field(default_factory=dict)
    precision_recall: Mapping[str, Curve] = field(default_factory=dict)
    confusion: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    agreement: Mapping[tuple[str, str], float] = field(default_factory=dict)
    agreement_rows: int = 0
    reliability: Mapping[str, Reliability] = field(default_factory=dict)
    learning: tuple[SizePoint, ...] = ()
    tuning: Mapping[str, Sequence[float]] = field(default_factory=dict)
    sensitivity: tuple[SettingLevel, ...] = ()
    transfer: tuple[PlacePoint, ...] = ()
    slices: tuple[SlicePoint, ...] = ()
    behaviour: tuple[BehaviourPoint, ...] = ()

    @property
    def names(self) -> dict[str, str]:
        """What charts call each method, by its label: short, and no two alike."""
        return short_labels(self.methods)

    @property
    def scale(self) -> float:
        """What metric values are multiplied by before they are drawn."""
        return 100.0 if self.percent else 1.0

    @property
    def digits(self) -> int:
        """Decimals of metric values as they are drawn."""
        return 1 if self.percent else 3

    def written(self, value: float) -> str:
        """A metric value as a reader has it: "79.4", or "0.794" where it is no percentage."""
        return f"{value * self.scale:.{self.digits}f}"

    @property
    def unit(self) -> str:
        """What follows the name of the metric on an axis."""
        return ", percent" if self.percent else ""


@dataclass(frozen=True, slots=True)
class Plot:
    """A row of PLOTS.

    `function` draws it, or gives None where there is nothing to draw. `how_to_read` is one line
    for the reader; `describe` says in words what the chart shows, for those who do not see it.
    `section`: where the report shows it. `wide`: it wants the full width of a page; otherwise two
    stand side by side. `choices`: the same chart for each value of what `choice` names (each cost,
    each class), by what the reader chooses; `function` draws the first.
    """

    name: str
    section: str
    title: str
    function: Callable[[PlotData], Chart | None]
    how_to_read: str
    describe: Callable[[PlotData], str]
    wide: bool = False
    choice: str = ""
    choices: Callable[[PlotData], Mapping[str, Chart]] | None = None

    def charts(self, data: PlotData) -> Mapping[str, Chart]:
        """What there is to draw, by what the reader chooses; a single chart under ""."""
        if self.choices is not None:
            return self.choices(data)
        chart = self.function(data)
        return {} if chart is None else {"": chart}
