"""`tunelab evaluate`: saved classifiers on the same labelled rows, each pair tested exactly.

Only click is imported here; the verb imports what it needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunelab.cli.options import FOLDER, json_option, print_json, trust_option
from tunelab.core.errors import ArtifactError, InputError
from tunelab.core.words import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tunelab.core.values import DataSpec, Predictions, Split
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


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What several classifiers make of the same rows, by the names that they were given by.

    `scores` by metric, of probabilities as `predict` gives them; `per_class` scores by class name;
    `confusion` counts, true by predicted, in the order of `label_names`. `trained_on`: how many of
    the rows have a text that it was trained on; `cut`: how many are longer than it reads.
    """

    part: str
    rows: int
    label_names: Sequence[str]
    scores: Mapping[str, Mapping[str, float | None]]
    per_class: Mapping[str, Mapping[str, Mapping[str, float | int]]]
    confusion: Mapping[str, Sequence[Sequence[int]]]
    calibrated: Mapping[str, OwnTemperature]
    mcnemar: Sequence[PairTest]
    trained_on: Mapping[str, int | None]
    cut: Mapping[str, int]

    def to_json(self) -> dict[str, object]:
        """As `evaluate --json` gives it."""
        calibrated = {n: t.to_json() for n, t in self.calibrated.items()}
        tests = [asdict(t) for t in self.mcnemar]
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return own | {"calibrated": calibrated, "mcnemar": tests}


# --- the verb -------------------------------------------------------------------------------


@click.command(short_help="Score saved classifiers on labelled texts; test pairs exactly.")
@click.argument("artifacts", type=FOLDER, nargs=-1, required=True, metavar="FOLDER...")
@click.option(
    "--data", "source", required=True, metavar="DATA", help="File, folder, hub id or demo."
)
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "train", "all"]),
    help="Score this part alone (else every labelled row); parts that are missing are split off.",
)
@click.option("--text-column", metavar="NAME", help="Column of the texts (else guessed).")
@click.option("--label-column", metavar="NAME", help="Column of the labels (else guessed).")
@trust_option
@json_option
def evaluate_command(
    artifacts: tuple[Path, ...],
    source: str,
    part: str | None,
    trust_remote_code: bool | None,
    as_json: bool,
    **columns: str | None,
) -> None:
    """Score one or more saved classifiers on the same rows; McNemar's exact test for each pair.

    FOLDER is one from `train`, a trial's, or a study's (its best model), as for `predict`. Every
    labelled row is scored; --part names one part of the data. Below the scores stand those of each
    class, and which classes are taken for which. The models are fixed here: the test says whether
    these very classifiers differ on rows like these, not whether training again would find the
    same. Holm's correction over all pairs.
    """
    from tunelab import api
    from tunelab.core.values import DataSpec

    names = [str(a) for a in artifacts]
    if len(set(names)) < len(names):
        raise InputError("evaluate: a folder is given twice. Give each classifier once.")
    folders = _one_classifier_each(names)
    loaded = {n: api.load(f, trust_remote_code=bool(trust_remote_code)) for n, f in folders.items()}
    given = {k: v for k, v in columns.items() if v is not None}
    rows = _labelled_rows(DataSpec(source, **given), part, loaded)  # type: ignore[arg-type]
    evaluation = _evaluate_all(loaded, rows)
    if as_json:
        print_json(evaluation.to_json())
        return
    _print_scores(evaluation, source)
    _print_classes(evaluation)
    _print_notes(evaluation, folders, rows.notes)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows to score, of which part of the data; labels index `label_names`."""

    part: str
    split: Split
    label_names: tuple[str, ...]
    notes: tuple[str, ...]


def _labelled_rows(spec: DataSpec, part: str | None, loaded: Mapping[str, TextClassifier]) -> _Rows:
    """Every labelled row, or those of one part. Raises InputError where a label is not known."""
    import numpy as np

    from tunelab import data
    from tunelab.core.words import listed

    (first, *others) = loaded.items()
    for name, model in others:
        if set(model.label_names) != set(first[1].label_names):
            raise InputError(
                f"{name}: knows the labels {listed(model.label_names)}; {first[0]} knows "
                f"{listed(first[1].label_names)}. Evaluate each by itself."
            )
    label_names = first[1].label_names
    if part in (None, "all"):
        split, notes = data.load_every_row(spec, label_names)
        return _Rows("all", split, label_names, notes)
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
    return _Rows(part, replace(own, labels=places[own.labels]), label_names, said)


def _evaluate_all(loaded: Mapping[str, TextClassifier], rows: _Rows) -> Evaluation:
    from tunelab.stats import metrics
    from tunelab.stats.predictions import confusion

    split, names = rows.split, rows.label_names
    raw = {name: _score(model, split, names) for name, model in loaded.items()}
    used = {n: _as_predicted(p, loaded[n]) for n, p in raw.items()}
    return Evaluation(
        part=rows.part,
        rows=len(split),
        label_names=names,
        scores={n: metrics.evaluate(p, names)[0] for n, p in used.items()},
        per_class={n: metrics.per_class(p, names) for n, p in used.items()},
        confusion={
            n: confusion(p.labels, p.predicted, len(names)).tolist() for n, p in used.items()
        },
        calibrated={n: _calibrated(p, used[n], loaded[n], names) for n, p in raw.items()},
        mcnemar=_pair_tests({n: p.predicted == p.labels for n, p in used.items()}),
        trained_on={n: _trained_on(m.artifact.directory, split) for n, m in loaded.items()},
        cut={n: m.count_cut(split.texts) for n, m in loaded.items()},
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
    from tunelab.core import study_folder
    from tunelab.models import foreign
    from tunelab.study import folding, trial

    spec = study_folder.spec_of(foreign.find_artifact(artifact))
    try:
        known = folding.loaded_for(spec) if spec else None
    except InputError:
        return None
    if spec is None or known is None or known.fingerprint != spec.fingerprint:
        return None
    texts = set(trial.rows_for_trial(known, spec).train.texts)
    return sum(t in texts for t in rows.texts)


def _score(model: TextClassifier, rows: Split, label_names: tuple[str, ...]) -> Predictions:
    """Raw scores with the classes in this order."""
    import numpy as np

    from tunelab.core.values import Predictions

    order = [model.label_names.index(n) for n in label_names]
    scores = np.asarray(model.classifier.scores(list(rows.texts)), dtype=np.float64)[:, order]
    return Predictions(rows.ids, rows.labels, scores, model.classifier.score_kind)


def _as_predicted(p: Predictions, model: TextClassifier) -> Predictions:
    """Scores at the classifier's temperature, where it has one."""
    from tunelab.stats import calibration

    return p if model.temperature is None else calibration.at_temperature(p, model.temperature)


def _calibrated(
    raw: Predictions, used: Predictions, model: TextClassifier, label_names: tuple[str, ...]
) -> OwnTemperature:
    from tunelab.stats import calibration, metrics

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


def _print_scores(evaluation: Evaluation, source: str) -> None:
    from tunelab.analysis import numbers
    from tunelab.cli import terminal
    from tunelab.stats.metrics import METRICS

    columns = [numbers.column(f"test_{m}") for m in _SHOWN]
    table = [
        [n, *(numbers.format_value(scores[m], c) for m, c in zip(_SHOWN, columns, strict=True))]
        for n, scores in evaluation.scores.items()
    ]
    kinds = [METRICS[m].label + (", %" if METRICS[m].percent else "") for m in _SHOWN]
    which = "" if evaluation.part == "all" else f", its {evaluation.part} part"
    title = f"{counted(evaluation.rows, 'row')} of {source}{which}"
    terminal.print_table(["Classifier", *kinds], table, title)


_MOST_CLASSES = 30  # in a table; --json has all


def _print_classes(evaluation: Evaluation) -> None:
    """A table of each classifier's classes, the worst first, and what they are taken for."""
    from tunelab.analysis.numbers import format_percent
    from tunelab.cli import terminal

    heads = ["Class", "precision, %", "recall, %", "F1, %", "rows"]
    for name, classes in evaluation.per_class.items():
        there = sorted((c for c in classes.items() if c[1]["support"]), key=lambda c: c[1]["f1"])
        table = [
            [label, *(format_percent(s[k]) for k in ("precision", "recall", "f1")), f"{support:,}"]
            for label, s in there[:_MOST_CLASSES]
            for support in [s["support"]]
        ]
        few = "" if len(there) <= _MOST_CLASSES else f" (the worst {_MOST_CLASSES} of {len(there)})"
        terminal.print_table(heads, table, f"{name}, by class{few}")


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
        return f"{name}: no row is wrong."
    often = sorted(wrong, key=lambda w: -w[0])[:most]
    said = ", ".join(f"{a} for {b} ({n:,})" for n, a, b in often)
    rest = f", and {len(wrong) - most} other pairs of classes" if len(wrong) > most else ""
    return f"{name}: takes most often {said}{rest}."


def _print_notes(evaluation: Evaluation, folders: Mapping[str, Path], notes: Sequence[str]) -> None:
    """Below the tables: where rows and models are from, who differs, whose confidence is true."""
    from tunelab.cli import terminal

    rows = evaluation.rows
    lines = [f"{note}." for note in notes if "unlabelled" in note or note.startswith("no ")]
    lines += [
        f"{name}: its best model, {folder}."
        for name, folder in folders.items()
        if folder != Path(name).expanduser()
    ]
    lines += [
        f"{n}: trained on {many:,} of these {rows:,} rows: scores there are memory; "
        "--part test scores those that it was tested on."
        for n, many in evaluation.trained_on.items()
        if many
    ]
    lines += [
        f"{n}: {many:,} of these {rows:,} texts are longer than it reads, and are cut."
        for n, many in evaluation.cut.items()
        if many
    ]
    lines += [_confusions_in_words(evaluation, n) for n in evaluation.confusion]
    lines += [_pair_in_words(t, len(evaluation.mcnemar)) for t in evaluation.mcnemar]
    lines += [
        _truer_in_words(n, evaluation.scores[n]["ece"], t) for n, t in evaluation.calibrated.items()
    ]
    out = terminal.console()
    for line in lines:
        terminal.say(out, line, indent=2)


def _truer_in_words(name: str, ece: float | None, own: OwnTemperature) -> str:
    if ece is None:
        return f"{name}: its confidence cannot be judged on these rows."
    off = f"{name}: its confidence is off by {100 * ece:.1f} points beyond the luck of the labels"
    if own.temperature is None:
        return f"{off}; not calibrated: {own.reason.removeprefix(f'{name}: ')}"
    if own.raw_ece is None:
        return f"{off}."
    return (
        f"{off}, with its temperature of {own.temperature:.2f}; raw (predict --raw) by "
        f"{100 * own.raw_ece:.1f}."
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
