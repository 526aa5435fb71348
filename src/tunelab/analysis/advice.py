"""What to take where a small loss is acceptable: chosen, and told in figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tunelab.analysis.answer import Taken, answer, nothing_finished, what_rows_cannot_tell
from tunelab.analysis.costs import gains, noun, sign
from tunelab.analysis.numbers import column, format_estimate, format_value
from tunelab.analysis.reading import BOOTSTRAP_SEED, on_every_row, paired_by_seed
from tunelab.analysis.verdict import Recommendation, Summary, margin_in_words
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Estimate
from tunelab.core.words import rows_word
from tunelab.stats import LEAST_SEEDS, Loss, Runs, decimals, losses
from tunelab.stats.looks import levels_at, looks_from_json
from tunelab.stats.losses import MARGIN
from tunelab.stats.metrics import METRICS
from tunelab.stats.predictions import UndefinedMetricError

__all__ = [
    "advise",
    "lost",
    "no_advice",
]

_ASIDE = ("train_seconds", "peak_memory_bytes", "artifact_bytes", "texts_per_second")


def no_advice(
    metric: str, part: str, margin: float = MARGIN, cost: str = "train_seconds"
) -> Recommendation:
    """Of a study in which nothing finished."""
    nothing = nothing_finished()
    return Recommendation(None, None, metric, part, margin, cost, (), nothing, nothing.why)


def advise(
    record: StudyRecord,
    said: Summary,
    runs: Mapping[str, Runs],
    margin: float = MARGIN,
    cost: str = "train_seconds",
) -> Recommendation:
    """The cheapest method whose loss is shown to be below `margin`, else the best; and why.

    `runs`: predictions by label on the part that is scored. A method with runs that broke down is
    never taken for a wide interval: its loss is not judged.
    """
    if said.best is None:
        return no_advice(said.metric, said.part, margin, cost)
    judged = _losses(record, said, runs, margin)
    fine = [x.label for x in judged if x.acceptable]
    prices = {
        r.label: sign(cost) * e.value for r in said.rows if (e := r.estimates.get(cost)) is not None
    }
    priced = [x for x in (said.best, *fine) if x in prices]
    taken = min(priced, key=lambda x: prices[x]) if priced else said.best
    cheaper = gains(record, said, (taken, said.best), (cost,))[0] if taken != said.best else []
    first = next((on_every_row(r) for r in runs.values() if r.by_seed), None)
    choice = Taken(taken, margin, cost, judged, cheaper[0] if cheaper else "")
    recommendation = Recommendation(
        taken,
        said.best,
        said.metric,
        said.part,
        margin,
        cost,
        tuple(judged),
        answer(choice, said, what_rows_cannot_tell(first, said.metric)),
    )
    return replace(
        recommendation,
        sentence=_in_figures(recommendation, record, said),
        reasons=tuple(_reasons(recommendation, said)),
        conditions=tuple(_conditions(recommendation, record, said)),
    )


def _losses(
    record: StudyRecord, said: Summary, runs: Mapping[str, Runs], margin: float
) -> list[Loss]:
    best = str(said.best)
    if best in said.collapses or best not in runs or not paired_by_seed(runs):
        return []
    others = [
        runs[r.label]
        for r in said.rows
        if r.label != best and r.label in runs and r.label not in said.collapses
    ]
    alpha = None
    looks = record.parsed("looks", looks_from_json)
    if looks is not None:
        alpha = levels_at(looks, math.comb(len(others) + 1, 2)).equivalent
    if not _has_value(runs[best], said.metric):
        return []
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    return losses(runs[best], others, said.metric, rng, margin=margin, alpha=alpha)


def _has_value(runs: Runs, metric: str) -> bool:
    """Whether a metric has a value with every seed: ROC-AUC has none on rows of one class."""
    try:
        return all(np.isfinite(METRICS[metric].function(p)) for p in runs.by_seed.values())
    except UndefinedMetricError:
        return False


# --- in figures -----------------------------------------------------------------------------


def _in_figures(r: Recommendation, record: StudyRecord, said: Summary) -> str:
    choice, best, worth = str(r.choice), str(r.best), margin_in_words(r.margin, said.metric)
    if choice == best:
        return f"{best}: {_best_in_figures(r, said)}"
    better, _ = gains(record, said, (choice, best), (r.cost, *_ASIDE))
    won = "".join(f", {g}" for g in better)
    return f"If a loss of {worth} is acceptable, {choice}: {_evidence(r, said)}{won}"


def _evidence(r: Recommendation, said: Summary) -> str:
    choice, best = r.choice, str(r.best)
    size = lost(next(x.loss for x in r.losses if x.label == choice), said.metric)
    worth = margin_in_words(r.margin, said.metric)
    pair = next((c for c in said.comparisons if {c.a, c.b} == {choice, best}), None)
    if pair and pair.verdict == "equivalent" and pair.margin == r.margin:
        return f"equivalent to {best} within {worth} ({size})"
    return f"shown to lose less than {worth} against {best} ({size})"


def _best_in_figures(r: Recommendation, said: Summary) -> str:
    what = column(f"{r.part}_{r.metric}")
    reached = format_estimate(said.row(str(r.best)).estimates.get(what.name), what.kind)
    lead = f"best on validation ({reached} {what.about} over all its seeds)"
    worth = margin_in_words(r.margin, r.metric)
    fine = [x.label for x in r.losses if x.acceptable]
    if fine:
        near = f"what loses less than {worth}: {', '.join(fine)}"
        return f"{lead}, and by {noun(r.cost)} cheaper than {near}"
    if r.losses and all(x.loss.n < LEAST_SEEDS for x in r.losses):
        few = f"with fewer than {LEAST_SEEDS} seeds nothing cheaper can be shown to be as good"
        return f"{lead}; {few}"
    return f"{lead}; nothing else is shown to lose less than {worth}" if r.losses else lead


def lost(loss: Estimate, metric: str) -> str:
    """A measured loss with its interval in words: "0.4 points lost, 90% interval -0.2 to 1.0"."""
    percent = METRICS[metric].percent
    scale, places = 100 if percent else 1, decimals(loss, METRICS[metric])

    def number(value: float) -> str:
        text = f"{scale * value:.{places}f}"
        return f"{0:.{places}f}" if float(text) == 0 else text

    unit = " points" if percent else ""
    if loss.low is None or loss.high is None:
        return f"{number(loss.value)}{unit} lost, no interval"
    return (
        f"{number(loss.value)}{unit} lost, 90% interval {number(loss.low)} to {number(loss.high)}"
    )


def _reasons(r: Recommendation, said: Summary) -> list[str]:
    worth = margin_in_words(r.margin, said.metric)
    out = []
    for x in r.losses:
        if x.label == r.choice:
            continue
        price = said.row(x.label).estimates.get(r.cost)
        cost = f"; {noun(r.cost)} {format_value(price.value, column(r.cost))}" if price else ""
        if x.acceptable:
            verdict = f"also loses less than {worth}"
        elif x.loss.n >= LEAST_SEEDS and x.loss.low is not None and x.loss.low > r.margin:
            verdict = f"loses more than {worth}"
        else:
            verdict = f"is not shown to lose less than {worth}"
        out.append(f"{x.label} {verdict} against {r.best}: {lost(x.loss, r.metric)}{cost}")
    broken = [c for label, c in said.collapses.items() if label != r.choice]
    return out + [f"{c.sentence}, so its loss is not judged" for c in broken]


def _conditions(r: Recommendation, record: StudyRecord, said: Summary) -> list[str]:
    choice, best = str(r.choice), str(r.best)
    out = []
    if choice != best:
        out.append(f"If no loss at all is acceptable: {best}, which was best on validation.")
        _, worse = gains(record, said, (choice, best), _ASIDE)
        if worse:
            out.append(f"What {choice} costs more than {best}: {'; '.join(worse)}.")
    size, whole = (
        said.row(choice).estimates.get(k) for k in ("artifact_bytes", "total_parameters")
    )
    if size and whole and size.value < 0.5 * whole.value:
        out.append(
            f"{choice} does not hold the base model, which must lie beside it where it runs."
        )
    rows = record.data.get("sizes", {}).get(said.split)
    if said.cross_fitted is not None:
        rows = record.data["folds"]["rows"]
    many = rows_word(rows) if isinstance(rows, int) else "the rows"
    name = record.data.get("name", "this data")
    out.append(
        f"It holds for texts like the {many} of {said.split} of {name}, "
        f"and for costs on the machine that measured them."
    )
    if r.part != "test":
        out.append("The test part was not scored: on validation every method is flattered.")
    return out
