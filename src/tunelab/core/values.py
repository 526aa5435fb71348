"""The values that flow between the rooms: frozen, plain, without behaviour worth testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NotRequired, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from tunelab.core.details import BaseRef, Details, Provenance, Seeds
from tunelab.core.plain import SettingValues

__all__ = [
    "Artifact",
    "BaseKeys",
    "BaseRef",
    "Classifier",
    "Comparison",
    "Corrected",
    "Cost",
    "DataSpec",
    "Dataset",
    "Details",
    "Duplicates",
    "Estimate",
    "Fold",
    "Manifest",
    "MethodSpec",
    "Predictions",
    "Provenance",
    "ScoreKind",
    "Seeds",
    "Split",
    "TrialResult",
    "TrialSpec",
]


ScoreKind = Literal["logit", "probability", "margin"]


# --- data -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What the user asked for: where labelled texts are, and how they are to be read.

    `source` is "demo", "demo:stars", a file, a folder, or a hub id with optional `:config` and
    `@revision`. `subset` is a number of training rows (stratified), None for all. `on_leak` is
    what happens to training rows whose text stands in validation or test too (`duplicates.py`).
    `quoting` says what quotes mean in CSV and TSV, `join_labels` whether labels that look alike are
    one. Rows of `drop_classes`, and of classes with fewer than `min_rows_per_class` of the training
    rows, are left out. `corrections` is a file of labels that a reader put right. Rows with one
    value in `group_column` are never divided between parts.
    """

    source: str
    text_column: str | None = None
    label_column: str | None = None
    subset: int | None = None
    split_seed: int = 0
    encoding: str = "utf-8"
    on_bad_rows: Literal["fail", "drop"] = "fail"
    on_leak: Literal["warn", "drop", "fail"] = "warn"
    id_column: str | None = None
    quoting: Literal["auto", "double", "none"] = "auto"
    join_labels: bool = False
    drop_classes: Sequence[str] | None = None
    min_rows_per_class: int | None = None
    corrections: str | None = None
    group_column: str | None = None

    def to_json(self) -> dict[str, object]:
        """Its fields; those that results of before lack only where they say something."""
        values = asdict(self)
        later = {"id_column", "quoting", "join_labels", "drop_classes", "min_rows_per_class"}
        later |= {"corrections", "group_column"}
        plain = DataSpec(self.source)
        return {k: v for k, v in values.items() if k not in later or v != getattr(plain, k)}


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One part of a dataset: `ids` (n unique, stable), `texts` (n) and `labels` (n, int64).

    `columns` holds what else the source says of each row: n plain values (a string, a number, true
    or false, None) by column name. Nothing is trained on them; they name slices and show leaks.
    `before`: the labels (n, int64) of the source, where some of `labels` were put right since.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    columns: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    before: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def divided_by(self) -> NDArray[np.int64]:
        """The labels that say which part or fold a row is in, (n,): those of the source, so that
        labels put right move no row.
        """
        return self.labels if self.before is None else self.before


@dataclass(frozen=True, slots=True)
class Corrected:
    """Labels that a reader put right: how many rows of each part (`by_part`, at loading), and the
    folder of the study that was reviewed, "" where that is not known.
    """

    study: str
    by_part: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Counts of exactly equal texts.

    `within["train"]` is the number of rows whose text stood earlier in the same part;
    `across["train/test"]` the number of rows of the second part whose text is also in the first;
    `conflicting` the number of distinct texts that carry more than one label.
    """

    within: Mapping[str, int]
    across: Mapping[str, int]
    conflicting: int

    @property
    def total(self) -> int:
        """All counted rows, within and across parts."""
        return sum(self.within.values()) + sum(self.across.values())


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Labelled texts in three parts. Labels index `label_names`.

    `fingerprint` is the SHA-256 (hex) of label names, ids, texts and labels of all parts.
    `notes` say, in plain words, everything that was decided for the user. `split_off` names the
    parts ("test", "validation") that the source did not have and that were taken from its train.
    `id_column`: which of the splits' `columns` names the rows for the user, None where none does.
    `corrected`: which labels a reader put right, None where none were.
    `group_column`: which of them says what rows belong together, None where each is by itself.
    """

    name: str
    revision: str | None
    label_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    fingerprint: str
    text_column: str
    label_column: str
    notes: tuple[str, ...]
    duplicates: Duplicates
    split_off: tuple[str, ...] = ()
    id_column: str | None = None
    corrected: Corrected | None = None
    group_column: str | None = None

    @property
    def parts(self) -> dict[str, Split]:
        """The three parts by name, in order."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


# --- predictions and scores -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """A classifier's scores on one split: `labels` (n,), `scores` (n, n_classes).

    `score_kind`: "logit" (softmax gives probabilities), "probability" (rows sum to one) or
    "margin" (one-vs-rest distances; only their order per class means something).
    `seconds`: wall time of scoring all n texts, tokenization included; None where not measured.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    score_kind: ScoreKind
    seconds: float | None = None

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The class with the highest score for each row, (n,)."""
        return np.asarray(self.scores.argmax(axis=1), dtype=np.int64)


class Classifier(Protocol):
    """What every method returns: something that scores texts and can be written to a folder."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the columns of `scores`."""
        ...

    @property
    def score_kind(self) -> ScoreKind:
        """What the numbers of `scores` are."""
        ...

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Score texts: (n, n_classes)."""
        ...

    def save(self, directory: Path) -> None:
        """Write all that is needed to load this classifier again into an existing folder."""
        ...


# --- trials ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """A row of METHODS (`name`), what it is called in this study (`label`), its full settings."""

    name: str
    label: str
    settings: SettingValues


@dataclass(frozen=True, slots=True)
class Fold:
    """What of a cross-fitted study's rows one trial tests: part `number` (from 0) of `of` parts.

    Each `repetition` (from 0) divides all rows into other parts, and tests every row once.
    `together`: some texts are alike, and rows that are stay in one part.
    """

    of: int
    repetition: int
    number: int
    together: bool = False


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """One dataset x one base x one method setting x one seed. `trial_id` is its hash.

    `base` is None for a method that uses no pretrained model. `purpose` "tuning" is a try of
    settings: it is judged on validation, never sees the test part, and leaves no artifact; "final"
    trains on all rows of a cross-fitted study but those of validation, and is not tested.
    `train_rows`: train on so many rows (stratified, nested, drawn by the seed); None for all.
    `vary_split`: the seed divides the rows of train and validation anew; test stays. `fold`: all
    rows are divided anew, and this part of them is the test part. `together`: of a final one, that
    rows that are alike, or of one group, stand in train or in validation together.

    No part of the identity: `test_on`, other data on which the trained classifier is scored once;
    and `stop_below`, which ends a try after an epoch ("1", "2", ...) with a lower validation score.
    """

    data: DataSpec
    fingerprint: str
    base: BaseRef | None
    method: MethodSpec
    seed: int
    trial_id: str
    purpose: Literal["trial", "tuning", "final"] = "trial"
    train_rows: int | None = None
    vary_split: bool = False
    test_on: tuple[DataSpec, ...] = ()
    stop_below: Mapping[str, float] = field(default_factory=dict)
    fold: Fold | None = None
    together: bool = False

    def to_json(self) -> dict[str, object]:
        """Its fields, as spec.json has them: `fold` and `together` only where there is one."""
        later = ("fold", "together")
        values = {k: v for k, v in asdict(self).items() if k not in later or v}
        if self.fold is not None and not self.fold.together:  # as results of before have it
            values["fold"] = {k: v for k, v in values["fold"].items() if k != "together"}
        return values | {
            "data": self.data.to_json(),
            "test_on": [other.to_json() for other in self.test_on],
        }


@dataclass(frozen=True, slots=True)
class Cost:
    """What a trial cost. Seconds, bytes, counts. None: not measured; `reasons` says why.

    `train_seconds` excludes evaluation. `peak_memory_bytes` is the peak of a fresh process while
    training, less what the process held before. `texts_per_second` and the latencies (seconds for
    one text) include tokenization. `price_per_1000_texts`: what an endpoint takes, where prices
    were given.
    """

    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    adapter_parameters: int | None = None
    head_parameters: int | None = None
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    artifact_bytes: int | None = None
    texts_per_second: float | None = None
    latency_p50_seconds: float | None = None
    latency_p95_seconds: float | None = None
    price_per_1000_texts: float | None = None


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What a trial gave.

    `scores` has keys `eval_<metric>` (validation) and `test_<metric>`; a None value has its reason
    under the same key in `reasons`. `details` holds what is not one number: per-class scores,
    confusion matrices, the best epoch, what the method chose on validation.
    """

    spec: TrialSpec
    status: Literal["done", "failed"]
    scores: Mapping[str, float | None] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    details: Details = field(default_factory=Details)
    reasons: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    error: str | None = None

    def called(self, label: str) -> TrialResult:
        """The same of a method that is called so: names are no part of a trial's identity."""
        if self.spec.method.label == label:
            return self
        method = replace(self.spec.method, label=label)
        return replace(self, spec=replace(self.spec, method=method))


class BaseKeys(TypedDict):
    """The fields of a `BaseRef`."""

    name: str
    sha256: str
    code_sha256: NotRequired[str | None]


class Manifest(TypedDict):
    """What tunelab.json says of an artifact; which of its keys are there, its `kind` decides.

    `files`: SHA-256 (hex) by name. `max_length`: tokens of a text. `pooling`: of an SVM on a base's
    vectors. `tokenizer`: "own" or "base". `quantization`: how the base was loaded. `merged_from`,
    `combined_from`, `exported_from`: what it was made of. `graph`: of an export, the file that a
    runtime runs; `pad_id`: the token that fills up its batches; `one_length`: that it must not.
    `weights` of an ensemble's `members`, which are called as in their study.
    """

    kind: str
    label_names: list[str]
    files: dict[str, str]
    format: NotRequired[int]
    tunelab: NotRequired[str]
    score_kind: NotRequired[ScoreKind]
    base: NotRequired[BaseKeys]
    max_length: NotRequired[int]
    pooling: NotRequired[str]
    tokenizer: NotRequired[str]
    quantization: NotRequired[Mapping[str, bool | float | str] | None]
    precision: NotRequired[str]
    notes: NotRequired[list[str]]
    merged_from: NotRequired[Mapping[str, object]]
    combined_from: NotRequired[Mapping[str, object]]
    exported_from: NotRequired[Mapping[str, object]]
    graph: NotRequired[str]
    pad_id: NotRequired[int]
    one_length: NotRequired[bool]
    weights: NotRequired[list[float]]
    members: NotRequired[list[str]]


@dataclass(frozen=True, slots=True, repr=False)
class Artifact:
    """A folder with a deployable classifier, and the manifest that says how to load it."""

    directory: Path
    manifest: Manifest

    def __repr__(self) -> str:
        """Folder, kind and labels: hashes are for programs."""
        kind, labels = self.manifest.get("kind"), self.manifest.get("label_names", [])
        shown = ", ".join(map(repr, labels[:6])) + (", ..." if len(labels) > 6 else "")
        return f"Artifact({str(self.directory)!r}: {kind}, labels {shown})"


# --- statistics -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval, from `n` observations by a named procedure.

    `is_range`: `low` and `high` are the smallest and the largest of the `n` values, of which there
    are too few for an interval.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    procedure: str
    is_range: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """Method `a` against method `b` on one metric: `difference` is a minus b (metric units).

    `verdict` is about a: "better", "worse", "equivalent" (within the margin) or "undecided".
    `seeds_needed`, `rows_needed`: about how many more seeds (of the same test rows), or more test
    rows (of the same seeds), would decide it; None where decided, and with `reason` where unknown.
    `p_value` is of the test over seeds and rows, and holds for all pairs of the study together;
    `p_seeds`, for information, of the sign-flip over seeds, None where seeds carry no spread.
    `simultaneous` is the interval (low, high) that holds for all pairs at once; None where there is
    none.
    `chance`: the probability that a is better than b by more than the margin; None where unknown.
    """

    a: str
    b: str
    metric: str
    difference: Estimate
    verdict: Literal["better", "worse", "equivalent", "undecided"]
    p_value: float | None
    seeds_needed: int | None
    reason: str
    sentence: str
    rows_needed: int | None = None
    p_seeds: float | None = None
    simultaneous: tuple[float, float] | None = None
    margin: float = 0.01
    chance: float | None = None
