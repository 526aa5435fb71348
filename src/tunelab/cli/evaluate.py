"""`tunelab evaluate`: saved classifiers on the same labelled rows, each pair tested exactly.

Only click is imported here; the verb imports what it needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunelab.cli.options import FOLDER, json_option, print_json, trust_option
from tunelab.core.errors import ArtifactError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tunelab.core.values import Dataset, Predictions, Split
    from tunelab.models.text_classifier import TextClassifier

__all__ = [
    "evaluate_command",
]

_SHOWN = ("accuracy", "f1_macro", "mcc", "roc_auc", "log_loss", "ece")


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


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What several classifiers make of the same rows, by the names that they were given by.

    `scores` by metric; `trained_on`: how many of the rows have a text that it was trained on.
    """

    rows: int
    scores: Mapping[str, Mapping[str, float | None]]
    calibrated: Mapping[str, OwnTemperature]
    mcnemar: Sequence[PairTest]
    trained_on: Mapping[str, int | None]

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


# --- the verb -------------------------------------------------------------------------------


@click.command(short_help="Score saved classifiers on labelled texts; test pairs exactly.")
@click.argument("artifacts", type=FOLDER, nargs=-1, required=True, metavar="FOLDER...")
@click.option(
    "--data", "source", required=True, metavar="DATA", help="File, folder, hub id or demo."
)
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "train", "all"]),
    default="test",
    show_default=True,
    help="Which rows of the data.",
)
@click.option("--text-column", metavar="NAME", help="Column of the texts (else guessed).")
@click.option("--label-column", metavar="NAME", help="Column of the labels (else guessed).")
@trust_option
@json_option
def evaluate_command(
    artifacts: tuple[Path, ...],
    source: str,
    part: str,
    trust_remote_code: bool | None,
    as_json: bool,
    **columns: str | None,
) -> None:
    """Score one or more saved classifiers on the same rows; McNemar's exact test for each pair.

    FOLDER is one from `train`, a trial's, or a study's (its best model), as for `predict`. The
    models are fixed here: the test says whether these very classifiers differ on rows like these,
    not whether training again would find the same. Holm's correction over all pairs.
    """
    from tunelab import api, data
    from tunelab.core.values import DataSpec

    names = [str(a) for a in artifacts]
    if len(set(names)) < len(names):
        raise InputError("evaluate: a folder is given twice. Give each classifier once.")
    folders = _one_classifier_each(names)
    loaded = {n: api.load(f, trust_remote_code=bool(trust_remote_code)) for n, f in folders.items()}
    given = {k: v for k, v in columns.items() if v is not None}
    dataset = data.load(DataSpec(source, **given))  # type: ignore[arg-type]
    evaluation = _evaluated(loaded, _evaluated_rows(dataset.parts, part), dataset.label_names)
    if as_json:
        print_json(evaluation.to_json())
        return
    _print_scores(evaluation, dataset, part)
    _print_notes(evaluation, folders, dataset, part)


def _evaluated(
    loaded: Mapping[str, TextClassifier], rows: Split, label_names: tuple[str, ...]
) -> Evaluation:
    from tunelab.stats import metrics

    predictions = {name: _score(model, rows, label_names, name) for name, model in loaded.items()}
    return Evaluation(
        rows=len(rows),
        scores={n: metrics.evaluate(p, label_names)[0] for n, p in predictions.items()},
        calibrated={n: _calibrated(p, loaded[n], label_names) for n, p in predictions.items()},
        mcnemar=_pair_tests({n: p.predicted == p.labels for n, p in predictions.items()}),
        trained_on={n: _trained_on(m.artifact.directory, rows) for n, m in loaded.items()},
    )


def _pair_tests(right: Mapping[str, NDArray[np.bool_]]) -> list[PairTest]:
    """McNemar's test of each pair, from who is right on each row."""
    from tunelab import stats

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
    from tunelab import api
    from tunelab.models import foreign

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
    from tunelab.study import known_rows

    known = known_rows.rows_of_classifier(artifact)
    if known is None:
        return None
    texts = set(known.train.texts)
    return sum(t in texts for t in rows.texts)


def _evaluated_rows(parts: dict[str, Split], part: str) -> Split:
    import numpy as np

    from tunelab.core.values import Split

    chosen = list(parts.values()) if part == "all" else [parts[part]]
    ids = tuple(i for s in chosen for i in s.ids)
    texts = tuple(t for s in chosen for t in s.texts)
    labels = np.concatenate([s.labels for s in chosen])
    known = labels >= 0
    if not len(labels) or not known.all():
        what = "no rows" if not len(labels) else f"{int((~known).sum()):,} rows without a label"
        raise InputError(
            f"evaluate: {part} has {what}, expected labelled rows. Choose another with --part."
        )
    return Split(ids, texts, labels)


def _score(
    model: TextClassifier, rows: Split, label_names: tuple[str, ...], name: str
) -> Predictions:
    """Scores with the classes in the data's order. Raises InputError where the labels differ."""
    import numpy as np

    from tunelab.core.values import Predictions
    from tunelab.core.words import listed

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
    from tunelab.stats import calibration, metrics

    try:
        temperature = calibration.read_temperature(classifier.artifact)
    except ArtifactError as e:
        return OwnTemperature(None, str(e))
    values, _ = metrics.evaluate(calibration.at_temperature(p, temperature), label_names)
    return OwnTemperature(
        temperature, ece=values["ece"], brier=values["brier"], log_loss=values["log_loss"]
    )


# --- in words -------------------------------------------------------------------------------


def _print_scores(evaluation: Evaluation, dataset: Dataset, part: str) -> None:
    from tunelab.analysis import numbers
    from tunelab.cli import terminal
    from tunelab.stats.metrics import METRICS

    columns = [numbers.column(f"{part}_{m}") for m in _SHOWN]
    table = [
        [n, *(numbers.format_value(scores[m], c) for m, c in zip(_SHOWN, columns, strict=True))]
        for n, scores in evaluation.scores.items()
    ]
    kinds = [METRICS[m].label + (", %" if METRICS[m].percent else "") for m in _SHOWN]
    title = f"{evaluation.rows:,} rows of {dataset.name}"
    terminal.print_table(["Classifier", *kinds], table, title)


def _print_notes(
    evaluation: Evaluation, folders: Mapping[str, Path], dataset: Dataset, part: str
) -> None:
    """Below the table: where rows and models are from, who differs, whose confidence is true."""
    from tunelab.cli import terminal

    lines = [
        f"{note}; --part all scores every row."
        for note in dataset.notes
        if note.startswith(f"no {part} part")
    ]
    lines += [
        f"{name}: its best model, {folder}."
        for name, folder in folders.items()
        if folder != Path(name).expanduser()
    ]
    lines += [
        f"{n}: trained on {many:,} of these {evaluation.rows:,} rows: scores there are memory."
        for n, many in evaluation.trained_on.items()
        if many
    ]
    lines += [_pair_in_words(t, len(evaluation.mcnemar)) for t in evaluation.mcnemar]
    lines += [
        _truer_in_words(n, evaluation.scores[n]["ece"], t) for n, t in evaluation.calibrated.items()
    ]
    out = terminal.console()
    for line in lines:
        terminal.say(out, line, indent=2)


def _truer_in_words(name: str, ece: float | None, truer: OwnTemperature) -> str:
    if truer.temperature is None:
        return f"{name}: not calibrated: {truer.reason.removeprefix(f'{name}: ')}"
    if ece is None or truer.ece is None:
        return f"{name}: its confidence cannot be judged on these rows."
    return (
        f"{name}: its confidence is off by {100 * ece:.1f} points beyond the luck of the labels; "
        f"with its temperature of {truer.temperature:.2f} (predict --calibrated) "
        f"by {100 * truer.ece:.1f}."
    )


def _pair_in_words(t: PairTest, pairs: int) -> str:
    p = "p < 0.001" if t.p_value < 0.001 else f"p = {t.p_value:.2g}"
    after = " after Holm" if pairs > 1 else ""
    ahead = "is more often right than" if t.difference > 0 else "is less often right than"
    verdict = ahead if t.p_value <= 0.05 else "is not shown to differ from"
    return (
        f"{t.a} {verdict} {t.b}: {100 * t.difference:+.1f} points, right alone on "
        f"{t.only_a_right:,} and {t.only_b_right:,} rows, exact McNemar {p}{after}."
    )
