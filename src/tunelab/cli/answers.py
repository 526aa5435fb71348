"""Verbs that ask a finished study: recommend, sensitivity, rank; and evaluate, of saved models.

Only click is imported here; a verb imports what it needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelab.cli.options import FOLDER, json_option, print_json, trust_option
from tunelab.core.errors import ArtifactError, InputError

if TYPE_CHECKING:
    from tunelab.core.values import Predictions, Split
    from tunelab.models.text_classifier import TextClassifier

__all__ = [
    "COMMANDS",
]


@click.command(short_help="Which method to take where a small loss is acceptable, and why.")
@click.argument("study", type=FOLDER)
@click.option(
    "--margin",
    type=float,
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Acceptable loss, in points of the metric.",
)
@click.option(
    "--cost",
    default="train_seconds",
    show_default=True,
    metavar="NAME",
    help="What is to be small: train_seconds, artifact_bytes, latency_p50_seconds, ...",
)
@click.option("--metric", metavar="NAME", help="Judge by another metric.")
@json_option
def recommend_command(
    study: Path, margin: float, cost: str, metric: str | None, as_json: bool
) -> None:
    """The cheapest method shown to lose little against the best, and the Pareto front."""
    from tunelab import analysis
    from tunelab.analysis import numbers, tradeoff
    from tunelab.cli import terminal
    from tunelab.core import study_folder
    from tunelab.study import resolve

    record = study_folder.read_study(study)
    if metric is not None:
        resolve.require_metric(metric)
    tradeoff.check_cost(cost)
    if not 0 < margin < 100:
        raise InputError(
            f"--margin {margin:g}: expected points above 0 and below 100, such as 1 or 0.5."
        )
    said = analysis.summarise(record, metric)
    found = tradeoff.recommend(record, margin=margin / 100, cost=cost, summary=said)
    front = tradeoff.front(record, cost, said)
    if as_json:
        both = {
            "recommendation": tradeoff.recommendation_to_json(found),
            "front": tradeoff.recommendation_to_json(front),
        }
        print_json(both)
        return
    out = terminal.console()
    terminal.say(out, found.sentence + ".", indent=2)
    for line in (*found.reasons, *found.conditions):
        terminal.say(out, f"- {line}", indent=2)
    score, price = numbers.column(f"{front.part}_{front.metric}"), numbers.column(cost)
    rows = [
        [
            p.label,
            numbers.format_estimate(p.score, score.kind),
            numbers.format_estimate(p.cost, price.kind),
            "yes" if p.on_front else "no",
            "-" if p.probability is None else f"{100 * p.probability:.0f}%",
            p.beaten_by or "",
        ]
        for p in front.places
    ]
    heads = ["Method", score.heading, price.heading, "On the front", "How surely", "Beaten by"]
    out.print()
    terminal.print_table(heads, rows, "Score against cost")
    for line in front.sentences:
        terminal.say(out, line + ".", indent=2)


@click.command(short_help="What each setting that varies does to a metric or a cost.")
@click.argument("study", type=FOLDER)
@click.option("--of", metavar="NAME", help="A metric, a score (eval_accuracy) or a cost.")
@json_option
def sensitivity(study: Path, of: str | None, as_json: bool) -> None:
    """Main effects and interactions of the settings that vary among a study's trials."""
    from dataclasses import asdict

    from tunelab.analysis.sensitivity import analyse, sensitivity_for_display
    from tunelab.cli import terminal
    from tunelab.core import study_folder

    found = analyse(study_folder.read_study(study), of)
    if as_json:
        print_json([asdict(s) for s in found])
        return
    if not found:
        raise InputError(
            f"{study}: no method has settings that vary, so there is nothing to compare. "
            "Give a list, such as r: [4, 8, 16], in the study file."
        )
    out = terminal.console()
    for s in found:
        terminal.print_table(*sensitivity_for_display(s), f"{s.method}: {s.procedure}")
        for line in (*s.sentences, *s.notes):
            terminal.say(out, line + ".", indent=2)
        out.print()


@click.command(short_help="Average ranks of methods over several data sets.")
@click.argument("studies", type=FOLDER, nargs=-1, required=True)
@click.option("--metric", metavar="NAME", help="Rank by another metric.")
@json_option
def rank(studies: tuple[Path, ...], metric: str | None, as_json: bool) -> None:
    """Rank the methods that all STUDIES have, one study a data set (Demsar 2006)."""
    from tunelab.analysis import ranks
    from tunelab.cli import terminal
    from tunelab.core import study_folder
    from tunelab.study import resolve

    if metric is not None:
        resolve.require_metric(metric)
    found = ranks.rank_studies([study_folder.read_study(s) for s in studies], metric)
    if as_json:
        print_json(ranks.ranks_to_json(found))
        return
    terminal.print_table(*ranks.ranks_for_display(found))
    out = terminal.console()
    for line in found.sentences:
        terminal.say(out, line + ".", indent=2)
    if found.critical_difference is not None:
        gap = f"Nemenyi: ranks {found.critical_difference:.2f} apart differ, over all pairs."
        terminal.say(out, gap, indent=2)


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
    from tunelab import api, data, stats
    from tunelab.analysis import numbers
    from tunelab.cli import terminal
    from tunelab.core.values import DataSpec
    from tunelab.stats import metrics

    names = [str(a) for a in artifacts]
    if len(set(names)) < len(names):
        raise InputError("evaluate: a folder is given twice. Give each classifier once.")
    folders = _one_classifier_each(names)
    loaded = [api.load(f, trust_remote_code=bool(trust_remote_code)) for f in folders.values()]
    given = {k: v for k, v in columns.items() if v is not None}
    dataset = data.load(DataSpec(source, **given))  # type: ignore[arg-type]
    rows = _evaluated_rows(dataset.parts, part)
    found = {
        name: _score(model, rows, dataset.label_names, name)
        for name, model in zip(names, loaded, strict=True)
    }
    scores = {n: metrics.evaluate(p, dataset.label_names)[0] for n, p in found.items()}
    truer = _calibrated(found, dict(zip(names, loaded, strict=True)), dataset.label_names)
    right = {n: p.predicted == p.labels for n, p in found.items()}
    pairs = list(itertools.combinations(names, 2))
    raw = [stats.mcnemar(right[a], right[b]) for a, b in pairs]
    tests = [
        {
            "a": a,
            "b": b,
            "difference": float(right[a].mean() - right[b].mean()),
            "only_a_right": int((right[a] & ~right[b]).sum()),
            "only_b_right": int((right[b] & ~right[a]).sum()),
            "p_value": p,
        }
        for (a, b), p in zip(pairs, stats.holm(raw), strict=True)
    ]
    trained = {
        n: _trained_on(m.artifact.directory, rows) for n, m in zip(names, loaded, strict=True)
    }
    if as_json:
        print_json(
            {
                "rows": len(rows),
                "scores": scores,
                "calibrated": truer,
                "mcnemar": tests,
                "trained_on": trained,
            }
        )
        return
    shown = ["accuracy", "f1_macro", "mcc", "roc_auc", "log_loss", "ece"]
    heads = [numbers.column(f"{part}_{m}") for m in shown]
    table = [
        [n, *(numbers.format_value(scores[n][m], c) for m, c in zip(shown, heads, strict=True))]
        for n in names
    ]
    kinds = [
        metrics.METRICS[m].label + (", %" if metrics.METRICS[m].percent else "") for m in shown
    ]
    terminal.print_table(["Classifier", *kinds], table, f"{len(rows):,} rows of {dataset.name}")
    out = terminal.console()
    for note in dataset.notes:
        if note.startswith(f"no {part} part"):
            terminal.say(out, f"{note}; --part all scores every row.", indent=2)
    for name, folder in folders.items():
        if folder != Path(name).expanduser():
            terminal.say(out, f"{name}: its best model, {folder}.", indent=2)
    for n, many in trained.items():
        if many:
            seen = f"{n}: trained on {many:,} of these {len(rows):,} rows: scores there are memory."
            terminal.say(out, seen, indent=2)
    for t in tests:
        terminal.say(out, _pair_in_words(t, len(pairs)), indent=2)
    for n in names:
        terminal.say(out, _truer_in_words(n, scores[n], truer[n]), indent=2)


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
    from tunelab import data
    from tunelab.core import study_folder
    from tunelab.models import foreign
    from tunelab.study import trial

    spec = study_folder.spec_of(foreign.find_artifact(artifact))
    try:
        known = data.load(spec.data) if spec else None
    except InputError:
        return None
    if spec is None or known is None or known.fingerprint != spec.fingerprint:
        return None
    texts = set(trial.drawn(known, spec).train.texts)
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
    found: dict[str, Predictions], loaded: dict[str, TextClassifier], label_names: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """What each classifier's own temperature does to its probabilities on these rows."""
    from tunelab.stats import calibration, metrics

    out: dict[str, dict[str, Any]] = {}
    for name, p in found.items():
        try:
            temperature = calibration.read_temperature(loaded[name].artifact)
        except ArtifactError as e:
            out[name] = {"temperature": None, "reason": str(e)}
            continue
        values, _ = metrics.evaluate(calibration.at_temperature(p, temperature), label_names)
        out[name] = {
            "temperature": temperature,
            **{m: values[m] for m in ("ece", "brier", "log_loss")},
        }
    return out


def _truer_in_words(name: str, scores: dict[str, Any], truer: dict[str, Any]) -> str:
    if truer["temperature"] is None:
        return f"{name}: not calibrated: {truer['reason'].removeprefix(f'{name}: ')}"
    if scores["ece"] is None or truer["ece"] is None:
        return f"{name}: its confidence cannot be judged on these rows."
    return (
        f"{name}: its confidence is off by {100 * scores['ece']:.1f} points on average; with its "
        f"temperature of {truer['temperature']:.2f} (predict --calibrated) by "
        f"{100 * truer['ece']:.1f}."
    )


def _pair_in_words(t: dict[str, Any], pairs: int) -> str:
    p = "p < 0.001" if t["p_value"] < 0.001 else f"p = {t['p_value']:.2g}"
    after = " after Holm" if pairs > 1 else ""
    ahead = "is more often right than" if t["difference"] > 0 else "is less often right than"
    verdict = ahead if t["p_value"] <= 0.05 else "is not shown to differ from"
    return (
        f"{t['a']} {verdict} {t['b']}: {100 * t['difference']:+.1f} points, right alone on "
        f"{t['only_a_right']:,} and {t['only_b_right']:,} rows, exact McNemar {p}{after}."
    )


COMMANDS = (recommend_command, sensitivity, rank, evaluate_command)
