"""What study.yaml and data.json hold, key by key, for whoever reads a study's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from tunelab.core.plain import PlainValue

__all__ = [
    "CorrectedFigures",
    "DataCard",
    "DataKeys",
    "DuplicateExample",
    "DuplicateFigures",
    "FoldFigures",
    "LengthFigures",
    "OtherFigures",
    "RepeatedRow",
    "StudySettings",
    "TuningKeys",
]


# --- study.yaml -----------------------------------------------------------------------------


class DataKeys(TypedDict):
    """The fields of a `DataSpec`."""

    source: str
    text_column: str | None
    label_column: str | None
    subset: int | None
    split_seed: int
    encoding: str
    on_bad_rows: str
    on_leak: str
    id_column: NotRequired[str | None]
    quoting: NotRequired[str]
    join_labels: NotRequired[bool]
    drop_classes: NotRequired[list[str] | None]
    min_rows_per_class: NotRequired[int | None]
    corrections: NotRequired[str | None]
    group_column: NotRequired[str | None]


class TuningKeys(TypedDict):
    """How settings were tuned; over what values, each method's own entry says (`tune`)."""

    budget: int | None
    seeds: list[int]
    prune: bool


class StudySettings(TypedDict):
    """A resolved study: the content of study.yaml, in its order.

    `methods`: entries with a name, a label, `tune` and the method's settings. `trials`, `curve`:
    ids of its trials, and of those on fewer rows; `labels`: of those that ran under another one, by
    id. `sources`: where each value came from.
    """

    tunelab: str
    command: str
    data: DataKeys
    model: str
    trust_remote_code: bool
    methods: list[Mapping[str, PlainValue]]
    seeds: list[int]
    metric: str
    output_dir: str
    report_to: list[str]
    jobs: int | str
    stack: int | str
    tuning: TuningKeys
    vary_split: bool
    folds: NotRequired[int | str]
    train_sizes: list[int | str] | None
    test_on: list[DataKeys]
    race: bool
    budget: float | None
    disagreement: float | None
    behaviour: bool | str
    export: NotRequired[list[str]]
    engine: NotRequired[str]
    address: NotRequired[str]
    resources: NotRequired[Mapping[str, float]]
    sources: Mapping[str, str]
    trials: list[str]
    curve: list[str]
    labels: NotRequired[Mapping[str, str]]


# --- data.json ------------------------------------------------------------------------------


class LengthFigures(TypedDict):
    """How long the texts of a part are: least and most, percentiles, mean."""

    min: int
    p5: float
    p50: float
    p95: float
    max: int
    mean: float


class RepeatedRow(TypedDict):
    """Where a repeated text stands: part, id and label name."""

    part: str
    id: str
    label: str


class DuplicateExample(TypedDict):
    """A text that stands more than once, cut at 200 characters, and five of its rows at most."""

    text: str
    rows: list[RepeatedRow]


class DuplicateFigures(TypedDict):
    """Counts as in `Duplicates`, and the five shortest repeated texts."""

    within: dict[str, int]
    across: dict[str, int]
    conflicting: int
    total: int
    examples: list[DuplicateExample]


class OtherFigures(TypedDict):
    """Other data that a study scores: its name and rows, how many of them are in train."""

    name: str
    rows: int
    in_train: int | None


class FoldFigures(TypedDict):
    """Of a study that tests all rows in folds: into how many parts it divides how many rows."""

    of: int
    rows: int


class CorrectedFigures(TypedDict):
    """Labels that a reader put right: of which study's rows, and how many of each part."""

    study: str
    by_part: dict[str, int]


class DataCard(TypedDict):
    """What a data set is: the content of data.json.

    `sizes` by part; `label_counts` by part and label name; `words` (split at white space) and
    `characters` by part; `samples`: the first three texts of train by label name, each cut at 200
    characters. `notes` say what was decided for the user; `test_on` and `folds` are said by a
    study, whose parts are then those of its first fold.
    """

    name: str
    revision: str | None
    fingerprint: str
    text_column: str
    label_column: str
    id_column: NotRequired[str]
    group_column: NotRequired[str]
    label_names: list[str]
    sizes: dict[str, int]
    label_counts: dict[str, dict[str, int]]
    words: dict[str, LengthFigures]
    characters: dict[str, LengthFigures]
    duplicates: DuplicateFigures
    samples: dict[str, list[str]]
    notes: list[str]
    test_on: NotRequired[list[OtherFigures]]
    folds: NotRequired[FoldFigures]
    corrected: NotRequired[CorrectedFigures]
