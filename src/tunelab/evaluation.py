"""Saved classifiers on the same labelled rows, each pair tested exactly; behaviour tests of them.

Python's door to it is `tunelab.evaluate`, the terminal's `tunelab evaluate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tunelab import api, data
from tunelab.analysis import numbers
from tunelab.analysis.behaviour import Result, results
from tunelab.analysis.pair_tests import PairTest, pair_in_words, pair_tests
from tunelab.core import study_folder
from tunelab.core.errors import ArtifactError, InputError
from tunelab.core.values import Artifact, DataSpec, Predictions, Split
from tunelab.core.words import agreeing, counted, listed
from tunelab.data.behaviour import (
    BUNDLED_SUITE,
    PART,
    are_of_cases,
    cases,
    load_suite,
    predict_cases,
    roles,
    suite_from_json,
)
from tunelab.data.given import GivenRows, given_as, source_of
from tunelab.models import batches, foreign, text_classifier
from tunelab.models.text_classifier import TextClassifier
from tunelab.stats import Runs, calibration, metrics
from tunelab.stats.metrics import METRICS
from tunelab.stats.predictions import confusion
from tunelab.study.known_rows import rows_of_classifier

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EvaluatedPart", "Evaluation", "behaviour", "evaluate"]

EvaluatedPart = Literal["test", "validation", "train", "all"]
_Saved = str | Path | Artifact | api.Study
MOST_CLASSES_SHOWN = 30  # in a table; --json has all
SHOWN = ("accuracy", "f1_macro", "mcc", "roc_auc", "log_loss", "ece")


# --- what is found --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OwnTemperature:
    """What a classifier's own temperature does to its probabilities, or the `reason` for none.

    `raw_ece`: the calibration error of what its scores say without it.
    """

    temperature: float | None
    reason: str = ""
    ece: float | None = None
    brier: float | None = None
    log_loss: float | None = None
    raw_ece: float | None = None

    def to_json(self) -> dict[str, object]:
        """As `evaluate --json` gives it."""
        if self.temperature is None:
            return {"temperature": None, "reason": self.reason}
        return {k: v for k, v in asdict(self).items() if k != "reason"}


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """What several classifiers make of the same rows, by the names that they were given by.

    `scores` by metric, of probabilities as `predict` gives them; `per_class` scores by class name;
    `confusion` counts, true by predicted, in the order of `label_names`; `mcnemar`: a test for each
    pair. `trained_on`: how many of the rows have a text that it was trained on; `cut`: how many are
    longer than it reads. `notes`: where rows and models are from.
    """

    part: str
    rows: int
    data: str
    label_names: Sequence[str]
    scores: Mapping[str, Mapping[str, float | None]]
    per_class: Mapping[str, Mapping[str, Mapping[str, float | int]]]
    confusion: Mapping[str, Sequence[Sequence[int]]]
    calibrated: Mapping[str, OwnTemperature]
    mcnemar: Sequence[PairTest]
    trained_on: Mapping[str, int | None]
    cut: Mapping[str, int]
    notes: Sequence[str]

    def to_frame(self) -> pd.DataFrame:
        """One row a classifier: its name, every metric, `trained_on`, and its temperature."""
        import pandas as pd

        return pd.DataFrame(
            {
                "classifier": name,
                **{m: np.nan if v is None else v for m, v in scores.items()},
                "trained_on": self.trained_on[name],
                "temperature": self.calibrated[name].temperature,
            }
            for name, scores in self.scores.items()
        )

    def pairs_to_frame(self) -> pd.DataFrame:
        """One row a pair: difference, rows that one alone has right, p value after Holm."""
        import pandas as pd

        return pd.DataFrame(asdict(t) for t in self.mcnemar)

    def sentences(self) -> tuple[str, ...]:
        """Where rows and models are from, what is confused, who differs, who is truly sure."""
        rows, texts = counted(self.rows, "row"), counted(self.rows, "text")
        memory = [
            f"{n}: trained on {many:,} of these {rows}: scores there are memory; --part test "
            "scores those that it was tested on"
            for n, many in self.trained_on.items()
            if many
        ]
        cut = [
            f"{n}: {many:,} of these {texts} {agreeing(many, 'are')} longer than it reads, and "
            f"{agreeing(many, 'are')} cut"
            for n, many in self.cut.items()
            if many
        ]
        confused = [_confusions_in_words(self, n) for n in self.confusion]
        pairs = [pair_in_words(t, len(self.mcnemar)) for t in self.mcnemar]
        truer = [_truer_in_words(n, self.scores[n]["ece"], t) for n, t in self.calibrated.items()]
        return (*self.notes, *memory, *cut, *confused, *pairs, *truer)

    def for_display(self) -> tuple[list[str], list[list[str]], str]:
        """The table as a reader sees it: headings, cells a classifier, title."""
        columns = [numbers.column(f"test_{m}") for m in SHOWN]
        cells = [
            [n, *(numbers.format_value(scores[m], c) for m, c in zip(SHOWN, columns, strict=True))]
            for n, scores in self.scores.items()
        ]
        kinds = [METRICS[m].label + (", %" if METRICS[m].percent else "") for m in SHOWN]
        return ["Classifier", *kinds], cells, self._of_which()

    def _of_which(self) -> str:
        which = "" if self.part == "all" else f", its {self.part} part"
        return f"{counted(self.rows, 'row')} of {self.data}{which}"

    def classes_for_display(self) -> list[tuple[list[str], list[list[str]], str]]:
        """A table of each classifier's classes, the worst first: headings, cells, title."""
        heads = ["Class", "precision, %", "recall, %", "F1, %", "rows"]
        tables = []
        for name, classes in self.per_class.items():
            there = [c for c in classes.items() if c[1]["support"]]
            there.sort(key=lambda c: c[1]["f1"])
            cells = []
            for label, of_class in there[:MOST_CLASSES_SHOWN]:
                shares = [
                    numbers.format_percent(of_class[k]) for k in ("precision", "recall", "f1")
                ]
                cells.append([label, *shares, f"{of_class['support']:,}"])
            few = f" (the worst {MOST_CLASSES_SHOWN} of {len(there)})"
            few = few if len(there) > MOST_CLASSES_SHOWN else ""
            tables.append((heads, cells, f"{name}, by class{few}"))
        return tables

    def __repr__(self) -> str:
        """Each classifier's accuracy, in one line."""
        said = ", ".join(
            f"{n} {numbers.format_percent(s['accuracy'])}" for n, s in self.scores.items()
        )
        return f"Evaluation({self._of_which()}; accuracy, %: {said})"

    def to_json(self) -> dict[str, object]:
        """As `evaluate --json` gives it."""
        calibrated = {n: t.to_json() for n, t in self.calibrated.items()}
        tests = [asdict(t) for t in self.mcnemar]
        names = [f.name for f in fields(self) if f.name not in {"data", "notes"}]
        own = {name: getattr(self, name) for name in names}
        return own | {"calibrated": calibrated, "mcnemar": tests}


# --- scoring --------------------------------------------------------------------------------


def evaluate(
    classifiers: _Saved | Sequence[_Saved],
    source: str | Path | GivenRows,
    labels: Iterable[object] | None = None,
    *,
    part: EvaluatedPart | None = None,
    model: str | Path | None = None,
    trust_remote_code: bool = False,
    text_column: str | None = None,
    label_column: str | None = None,
    split_seed: int = 0,
    encoding: str = "utf-8",
    on_bad_rows: Literal["fail", "drop"] = "fail",
    quoting: Literal["auto", "double", "none"] = "auto",
    join_labels: bool = False,
    drop_classes: Sequence[str] | None = None,
    min_rows_per_class: int | None = None,
    group_column: str | None = None,
) -> Evaluation:
    """Score one or more saved classifiers on the same labelled rows; test each pair exactly.

    Each of `classifiers` is an artifact, a study (its best model) or a folder of one. Every
    labelled row of `source` is scored, or one `part` of it. How it is read is said as in
    `tunelab.load_data`, with the values that the classifiers were trained with where parts are
    split off. `model` is where the base of adapters and SVMs lies now. The classifiers are fixed:
    McNemar's exact test (of rows in groups, the sign-flip over groups; Holm over all pairs) says
    whether these differ on rows like these, not whether training again would find the same. Raises
    InputError.
    """
    known = get_args(EvaluatedPart)
    if part not in (None, *known):
        raise InputError(f"evaluate: part: expected {listed(known)}, found {part!r}.")
    folders = _one_classifier_each(_names_of(classifiers))
    loaded = {
        n: api.load(
            f,
            model=model if foreign.needs_base(f) else None,
            trust_remote_code=trust_remote_code,
        )
        for n, f in folders.items()
    }
    with source_of(source, labels) as name:
        spec = DataSpec(
            name,
            text_column,
            label_column,
            split_seed=split_seed,
            encoding=encoding,
            on_bad_rows=on_bad_rows,
            quoting=quoting,
            join_labels=join_labels,
            drop_classes=drop_classes,
            min_rows_per_class=min_rows_per_class,
            group_column=group_column,
        )
        rows = _labelled_rows(spec, part, loaded)
    chosen = [f"{n}: its best model, {f}" for n, f in folders.items() if f != Path(n).expanduser()]
    said = given_as(Path(name)) or name
    return _evaluate_all(loaded, rows, said, (*rows.notes, *chosen))


def _names_of(classifiers: _Saved | Sequence[_Saved]) -> list[str]:
    """The folder of each, as it was given. Raises InputError for none, and for one given twice."""
    given = [classifiers] if isinstance(classifiers, _Saved) else list(classifiers)
    names = [str(c if isinstance(c, str | Path) else c.directory) for c in given]
    if not names:
        raise InputError("evaluate: expected one classifier or more, found none. Give folders.")
    if len(set(names)) < len(names):
        raise InputError("evaluate: a folder is given twice. Give each classifier once.")
    return names


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows to score, of which part of the data; labels index `label_names`.

    `group`: a number for each row, the same for rows of one group; None: each is by itself.
    """

    part: str
    split: Split
    label_names: tuple[str, ...]
    notes: tuple[str, ...]
    group: NDArray[np.int64] | None = None


def _labelled_rows(spec: DataSpec, part: str | None, loaded: Mapping[str, TextClassifier]) -> _Rows:
    """Every labelled row, or those of one part. Raises InputError where a label is not known."""
    (first, *others) = loaded.items()
    for name, model in others:
        if set(model.label_names) != set(first[1].label_names):
            raise InputError(
                f"{name}: knows the labels {listed(model.label_names)}; {first[0]} knows "
                f"{listed(first[1].label_names)}. Evaluate each by itself."
            )
    label_names = first[1].label_names
    if part in (None, "all"):
        if spec.split_seed or spec.min_rows_per_class:
            raise InputError(
                "evaluate: split_seed and min_rows_per_class say what the parts are, and every row "
                "is scored. Choose one with --part, or leave them out."
            )
        split, notes = data.load_every_row(spec, label_names)
        group = data.group_numbers(split, spec.group_column) if spec.group_column else None
        return _Rows("all", split, label_names, notes, group)
    assert part is not None  # noqa: S101  see above
    dataset = data.load(spec)
    if not set(dataset.label_names) <= set(label_names):
        raise InputError(
            f"{first[0]}: knows the labels {listed(label_names)}; the data has "
            f"{listed(dataset.label_names)}. Give data with the same labels."
        )
    own = dataset.parts[part]
    if not len(own) or (own.labels < 0).any():
        raise InputError(
            f"evaluate: {part} has {counted(int((own.labels < 0).sum()), 'row')} without a label, "
            "expected labelled rows. Choose another with --part, or leave it out."
        )
    places = np.asarray([label_names.index(n) for n in dataset.label_names])
    said = tuple(n for n in dataset.notes if n.startswith(f"no {part} part"))
    group = data.group_numbers(own, spec.group_column) if spec.group_column else None
    return _Rows(part, replace(own, labels=places[own.labels]), label_names, said, group)


def _evaluate_all(
    loaded: Mapping[str, TextClassifier], rows: _Rows, source: str, notes: Sequence[str]
) -> Evaluation:
    split, names = rows.split, rows.label_names
    scored = {name: _score(model, split, names) for name, model in loaded.items()}
    raw = {name: predictions for name, (predictions, _) in scored.items()}
    used = {n: _as_predicted(p, loaded[n]) for n, p in raw.items()}
    return Evaluation(
        part=rows.part,
        rows=len(split),
        data=source,
        label_names=names,
        scores={n: metrics.evaluate(p, names)[0] for n, p in used.items()},
        per_class={n: metrics.per_class(p, names) for n, p in used.items()},
        confusion={
            n: confusion(p.labels, p.predicted, len(names)).tolist() for n, p in used.items()
        },
        calibrated={n: _calibrated(p, used[n], loaded[n], names) for n, p in raw.items()},
        mcnemar=pair_tests({n: p.predicted == p.labels for n, p in used.items()}, rows.group),
        trained_on={n: _trained_on(m.artifact.directory, split) for n, m in loaded.items()},
        cut={name: cut for name, (_, cut) in scored.items()},
        notes=notes,
    )


def _one_classifier_each(names: Sequence[str]) -> dict[str, Path]:
    """Each name's folder, a study's being its best model. Raises InputError for one given twice."""
    folders = {name: api.classifier_folder(name) for name in names}
    places: dict[Path, str] = {}
    for name, folder in folders.items():
        other = places.setdefault(foreign.find_artifact(folder).resolve(), name)
        if other != name:
            raise InputError(
                f"evaluate: {other} and {name} are one classifier ({folder}). Give each once."
            )
    return folders


def _trained_on(artifact: Path, rows: Split) -> int | None:
    """How many of the rows have a text that a classifier was trained on; None where its data cannot
    be read any more, or are others now.
    """
    known = rows_of_classifier(artifact)
    if known is None:
        return None
    texts = set(known.train.texts)
    return sum(t in texts for t in rows.texts)


def _score(model: TextClassifier, rows: Split, names: Sequence[str]) -> tuple[Predictions, int]:
    """Raw scores with the classes in the order of `names`, and how many texts were cut."""
    order = [model.label_names.index(n) for n in names]
    with batches.counting_cut() as cut:
        scores = np.asarray(model.classifier.scores(list(rows.texts)), dtype=np.float64)[:, order]
    return Predictions(rows.ids, rows.labels, scores, model.classifier.score_kind), cut.count


def _as_predicted(p: Predictions, model: TextClassifier) -> Predictions:
    """Scores at the classifier's temperature, where it has one."""
    return p if model.temperature is None else calibration.at_temperature(p, model.temperature)


def _calibrated(
    raw: Predictions, used: Predictions, model: TextClassifier, label_names: tuple[str, ...]
) -> OwnTemperature:
    try:
        temperature = calibration.read_temperature(model.artifact)
    except ArtifactError as e:
        return OwnTemperature(None, str(e))
    values, _ = metrics.evaluate(used, label_names)
    return OwnTemperature(
        temperature,
        ece=values["ece"],
        brier=values["brier"],
        log_loss=values["log_loss"],
        raw_ece=metrics.evaluate(raw, label_names)[0]["ece"],
    )


# --- in words -------------------------------------------------------------------------------


def _confusions_in_words(evaluation: Evaluation, name: str, most: int = 5) -> str:
    """The most frequent confusions of a classifier."""
    names = evaluation.label_names
    wrong = [
        (n, names[i], names[j])
        for i, counts in enumerate(evaluation.confusion[name])
        for j, n in enumerate(counts)
        if n and i != j
    ]
    if not wrong:
        return f"{name}: no row is wrong"
    often = sorted(wrong, key=lambda w: -w[0])[:most]
    said = ", ".join(f"{a} for {b} ({n:,})" for n, a, b in often)
    rest = f", and {len(wrong) - most} other pairs of classes" if len(wrong) > most else ""
    return f"{name}: takes most often {said}{rest}"


def _truer_in_words(name: str, ece: float | None, own: OwnTemperature) -> str:
    if ece is None:
        return f"{name}: its confidence cannot be judged on these rows"
    off = f"{name}: its confidence is off by {100 * ece:.1f} points beyond the luck of the labels"
    if own.temperature is None:
        return f"{off}; not calibrated: {own.reason.removeprefix(f'{name}: ')}"
    if own.raw_ece is None:
        return off
    return (
        f"{off}, with its temperature of {own.temperature:.2f}; raw (predict --raw) by "
        f"{100 * own.raw_ece:.1f}"
    )


# --- behaviour tests --------------------------------------------------------------------------


def behaviour(
    folder: str | Path, suite: str | None = None, *, trust_remote_code: bool = False
) -> tuple[Result, ...]:
    """Run behaviour tests on a classifier, or on every finished trial of a study.

    `suite` is a YAML file; None takes the study's own, else the bundled English sentiment. Stored
    predictions are used where the study has them. Raises ConfigError where the classes do not fit.
    """
    folder = Path(folder).expanduser()
    if not study_folder.is_study(folder):
        loaded = api.load(folder, trust_remote_code=trust_remote_code)
        chosen = load_suite(suite or BUNDLED_SUITE)
        asked = cases(chosen)
        roles(chosen, loaded.label_names)
        runs = [Runs(folder.name, {0: predict_cases(loaded.classifier, asked)})]
        return results(chosen, asked, runs, loaded.label_names)
    record = study_folder.read_study(folder)
    kept = record.behaviour if suite is None else None
    if kept is not None:
        chosen, asked = study_folder.parse_extra(folder, "behaviour", kept, suite_from_json)
    else:
        chosen = load_suite(suite or BUNDLED_SUITE)
        asked = cases(chosen)
    names = record.data["label_names"]
    roles(chosen, names)
    predictions: dict[str, dict[int, Predictions]] = {}
    for r in record.done:
        known = record.predictions(r.spec.trial_id).get(PART) if kept is not None else None
        if known is None or not are_of_cases(known, asked):
            artifact = study_folder.artifact_dir(folder, r.spec.trial_id)
            known = predict_cases(
                text_classifier.open_classifier(artifact, trust_remote_code).classifier, asked
            )
        predictions.setdefault(r.spec.method.label, {})[r.spec.seed] = known
    runs = [Runs(label, by_seed) for label, by_seed in predictions.items()]
    return results(chosen, asked, runs, names)
