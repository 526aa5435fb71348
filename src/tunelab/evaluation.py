"""Saved classifiers on the same labelled rows, each pair tested exactly; behaviour tests of them.

Python's door to it is `tunelab.evaluate`, the terminal's `tunelab evaluate`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tunelab import api, stats
from tunelab.analysis import numbers
from tunelab.analysis.behaviour import Result, results
from tunelab.core import study_folder
from tunelab.core.errors import ArtifactError, InputError
from tunelab.core.values import Artifact, Dataset, Predictions, Split
from tunelab.core.words import counted, listed, signed
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
from tunelab.models import foreign, text_classifier
from tunelab.models.text_classifier import TextClassifier
from tunelab.stats import Runs, calibration, metrics
from tunelab.stats.metrics import METRICS
from tunelab.study import folding, trial

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Evaluation",
    "EvaluatedPart",
    "behaviour",
    "evaluate",
]

EvaluatedPart = Literal["test", "validation", "train", "all"]
_Saved = str | Path | Artifact | api.Study
SHOWN = ("accuracy", "f1_macro", "mcc", "roc_auc", "log_loss", "ece")


# --- what is found --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PairTest:
    """Two classifiers by their names: accuracy of `a` minus that of `b`, and McNemar's exact p.

    The rows that one of them alone has right are counted; `p_value` is adjusted after Holm.
    """

    a: str
    b: str
    difference: float
    only_a_right: int
    only_b_right: int
    p_value: float


@dataclass(frozen=True, slots=True)
class OwnTemperature:
    """What a classifier's own temperature does to its probabilities, or the `reason` for none."""

    temperature: float | None
    reason: str = ""
    ece: float | None = None
    brier: float | None = None
    log_loss: float | None = None

    def to_json(self) -> dict[str, object]:
        """As `evaluate --json` gives it."""
        if self.temperature is None:
            return {"temperature": None, "reason": self.reason}
        return {k: v for k, v in asdict(self).items() if k != "reason"}


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """What several classifiers make of the same rows, by the names that they were given by.

    `scores` by metric, in [0, 1] but for log loss (nats); `calibrated`: with a classifier's own
    temperature; `mcnemar`: a test for each pair; `trained_on`: how many of the rows have a text
    that it was trained on, None where that is not known. `notes`: where rows and models are from.
    """

    rows: int
    data: str
    scores: Mapping[str, Mapping[str, float | None]]
    calibrated: Mapping[str, OwnTemperature]
    mcnemar: Sequence[PairTest]
    trained_on: Mapping[str, int | None]
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
        """Where rows and models are from, who differs, whose confidence is true."""
        memory = [
            f"{n}: trained on {many:,} of the {counted(self.rows, 'row')}: scores there are memory"
            for n, many in self.trained_on.items()
            if many
        ]
        pairs = [_pair_in_words(t, len(self.mcnemar)) for t in self.mcnemar]
        truer = [_truer_in_words(n, self.scores[n]["ece"], t) for n, t in self.calibrated.items()]
        return (*self.notes, *memory, *pairs, *truer)

    def for_display(self) -> tuple[list[str], list[list[str]], str]:
        """The table as a reader sees it: headings, cells a classifier, title."""
        columns = [numbers.column(f"test_{m}") for m in SHOWN]
        cells = [
            [n, *(numbers.format_value(scores[m], c) for m, c in zip(SHOWN, columns, strict=True))]
            for n, scores in self.scores.items()
        ]
        kinds = [METRICS[m].label + (", %" if METRICS[m].percent else "") for m in SHOWN]
        return ["Classifier", *kinds], cells, f"{counted(self.rows, 'row')} of {self.data}"

    def __repr__(self) -> str:
        """Each classifier's accuracy, in one line."""
        said = ", ".join(
            f"{n} {numbers.format_percent(s['accuracy'])}" for n, s in self.scores.items()
        )
        return f"Evaluation({counted(self.rows, 'row')} of {self.data}; accuracy, %: {said})"

    def to_json(self) -> dict[str, object]:
        """As `evaluate --json` gives it."""
        calibrated = {n: t.to_json() for n, t in self.calibrated.items()}
        return {
            "rows": self.rows,
            "scores": self.scores,
            "calibrated": calibrated,
            "mcnemar": [asdict(t) for t in self.mcnemar],
            "trained_on": self.trained_on,
        }


# --- scoring --------------------------------------------------------------------------------


def evaluate(
    classifiers: _Saved | Sequence[_Saved],
    source: str | Path | Dataset,
    *,
    part: EvaluatedPart = "test",
    text_column: str | None = None,
    label_column: str | None = None,
    trust_remote_code: bool = False,
) -> Evaluation:
    """Score one or more saved classifiers on the same labelled rows; test each pair exactly.

    Each of `classifiers` is an artifact, a study (its best model) or a folder of one; `source` is
    data as `load_data` takes or gives them, of which `part` is scored ("all": every row). The
    classifiers are fixed: McNemar's exact test (Holm over all pairs) says whether these differ on
    rows like these, not whether training again would find the same. Raises InputError.
    """
    if part not in get_args(EvaluatedPart):
        raise InputError(
            f"evaluate: part: expected {listed(get_args(EvaluatedPart))}, found {part!r}."
        )
    given = [classifiers] if isinstance(classifiers, _Saved) else list(classifiers)
    names = [str(c if isinstance(c, str | Path) else c.directory) for c in given]
    if not names:
        raise InputError("evaluate: expected one classifier or more, found none. Give folders.")
    if len(set(names)) < len(names):
        raise InputError("evaluate: a folder is given twice. Give each classifier once.")
    folders = _one_classifier_each(names)
    loaded = {n: api.load(f, trust_remote_code=trust_remote_code) for n, f in folders.items()}
    if isinstance(source, Dataset):
        dataset = source
    else:
        dataset = api.load_data(source, text_column=text_column, label_column=label_column)
    rows = _evaluated_rows(dataset.parts, part)
    kept = dataset.label_names
    predictions = {name: _score(model, rows, kept, name) for name, model in loaded.items()}
    return Evaluation(
        rows=len(rows),
        data=dataset.name,
        scores={n: metrics.evaluate(p, kept)[0] for n, p in predictions.items()},
        calibrated={n: _calibrated(p, loaded[n], kept) for n, p in predictions.items()},
        mcnemar=_pair_tests({n: p.predicted == p.labels for n, p in predictions.items()}),
        trained_on={n: _trained_on(m.artifact.directory, rows) for n, m in loaded.items()},
        notes=_origins(dataset, part, folders),
    )


def _origins(dataset: Dataset, part: EvaluatedPart, folders: Mapping[str, Path]) -> tuple[str, ...]:
    """Where rows and models are from, where their names do not say it."""
    divided = [
        f"{note}; --part all scores every row"
        for note in dataset.notes
        if note.startswith(f"no {part} part")
    ]
    of_studies = [
        f"{name}: its best model, {folder}"
        for name, folder in folders.items()
        if folder != Path(name).expanduser()
    ]
    return (*divided, *of_studies)


def _pair_tests(right: Mapping[str, NDArray[np.bool_]]) -> list[PairTest]:
    """McNemar's test of each pair, from who is right on each row."""
    pairs = list(itertools.combinations(right, 2))
    raw = [stats.mcnemar(right[a], right[b]) for a, b in pairs]
    return [
        PairTest(
            a=a,
            b=b,
            difference=float(right[a].mean() - right[b].mean()),
            only_a_right=int((right[a] & ~right[b]).sum()),
            only_b_right=int((right[b] & ~right[a]).sum()),
            p_value=p,
        )
        for (a, b), p in zip(pairs, stats.holm(raw), strict=True)
    ]


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
    spec = study_folder.spec_of(foreign.find_artifact(artifact))
    try:
        known = folding.loaded_for(spec) if spec else None
    except InputError:
        return None
    if spec is None or known is None or known.fingerprint != spec.fingerprint:
        return None
    texts = set(trial.rows_for_trial(known, spec).train.texts)
    return sum(t in texts for t in rows.texts)


def _evaluated_rows(parts: Mapping[str, Split], part: EvaluatedPart) -> Split:
    chosen = list(parts.values()) if part == "all" else [parts[part]]
    ids = tuple(i for s in chosen for i in s.ids)
    texts = tuple(t for s in chosen for t in s.texts)
    labels = np.concatenate([s.labels for s in chosen])
    known = labels >= 0
    if not len(labels) or not known.all():
        what = (
            "no rows"
            if not len(labels)
            else f"{counted(int((~known).sum()), 'row')} without a label"
        )
        raise InputError(
            f"evaluate: {part} has {what}, expected labelled rows. Choose another with --part."
        )
    return Split(ids, texts, labels)


def _score(
    model: TextClassifier, rows: Split, label_names: tuple[str, ...], name: str
) -> Predictions:
    """Scores with the classes in the data's order. Raises InputError where the labels differ."""
    if set(model.label_names) != set(label_names):
        raise InputError(
            f"{name}: knows the labels {listed(model.label_names)}; the data has "
            f"{listed(label_names)}. Give data with the same labels."
        )
    order = [model.label_names.index(n) for n in label_names]
    scores = np.asarray(model.classifier.scores(list(rows.texts)), dtype=np.float64)[:, order]
    return Predictions(rows.ids, rows.labels, scores, model.classifier.score_kind)


def _calibrated(
    p: Predictions, classifier: TextClassifier, label_names: tuple[str, ...]
) -> OwnTemperature:
    try:
        temperature = calibration.read_temperature(classifier.artifact)
    except ArtifactError as e:
        return OwnTemperature(None, str(e))
    values, _ = metrics.evaluate(calibration.at_temperature(p, temperature), label_names)
    return OwnTemperature(
        temperature, ece=values["ece"], brier=values["brier"], log_loss=values["log_loss"]
    )


# --- in words -------------------------------------------------------------------------------


def _truer_in_words(name: str, ece: float | None, truer: OwnTemperature) -> str:
    if truer.temperature is None:
        return f"{name}: not calibrated: {truer.reason.removeprefix(f'{name}: ')}"
    if ece is None or truer.ece is None:
        return f"{name}: its confidence cannot be judged on these rows"
    return (
        f"{name}: its confidence is off by {100 * ece:.1f} points beyond the luck of the labels; "
        f"with its temperature of {truer.temperature:.2f} (predict --calibrated) "
        f"by {100 * truer.ece:.1f}"
    )


def _pair_in_words(t: PairTest, pairs: int) -> str:
    p = "p < 0.001" if t.p_value < 0.001 else f"p = {t.p_value:.2g}"
    after = " after Holm" if pairs > 1 else ""
    ahead = "is more often right than" if t.difference > 0 else "is less often right than"
    verdict = ahead if t.p_value <= 0.05 else "is not shown to differ from"
    return (
        f"{t.a} {verdict} {t.b}: {signed(100 * t.difference, 1)} points, right alone on "
        f"{t.only_a_right:,} and {t.only_b_right:,} rows, exact McNemar {p}{after}"
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
        chosen, asked = suite_from_json(kept)
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
