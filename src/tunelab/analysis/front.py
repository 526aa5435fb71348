"""The Pareto front of a metric against a cost, with the probability of each method to be on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunelab.analysis.costs import check_cost, noun, sign, surely_cheaper
from tunelab.analysis.numbers import MISSING, column, format_estimate
from tunelab.analysis.reading import BOOTSTRAP_SEED, paired_by_seed, read_runs, values_by_seed
from tunelab.analysis.summary import summarise
from tunelab.analysis.verdict import Summary
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Comparison, Estimate
from tunelab.stats import LEAST_SEEDS, LEVEL, mean_draws
from tunelab.stats.metrics import METRICS

__all__ = [
    "Front",
    "Place",
    "front",
    "front_for_display",
    "surely_beaten",
]


Floats = NDArray[np.float64]
FRONT_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """A method on the plane of score and cost.

    `on_front`: by the means, no other method is at least as good in both and better in one.
    `probability`: the share of draws of other seeds and rows in which that holds; None with fewer
    than six shared seeds, or where the score cannot be resampled. `beaten_by`: a method that is
    better in both by the means; `surely_beaten_by`: one that is shown to be (`surely_beaten`).
    """

    label: str
    score: Estimate
    cost: Estimate
    on_front: bool
    probability: float | None
    beaten_by: str | None
    surely_beaten_by: str | None = None


@dataclass(frozen=True, slots=True)
class Front:
    """All methods of a study that have both values, cheapest first."""

    metric: str
    part: str
    cost: str
    places: tuple[Place, ...]
    sentences: tuple[str, ...]


def front(
    record: StudyRecord, cost: str = "train_seconds", summary: Summary | None = None
) -> Front:
    """The Pareto front of the study's metric against a cost, with the probability to be on it."""
    check_cost(cost)
    said = summary or summarise(record)
    key = f"{said.part}_{said.metric}"
    known = [
        (r.label, s, c)
        for r in said.rows
        if (s := r.estimates.get(key)) is not None and (c := r.estimates.get(cost)) is not None
    ]
    better = 1.0 if METRICS[said.metric].higher_is_better else -1.0
    scores = np.array([[better * s.value for _, s, _ in known]])
    costs = np.array([[sign(cost) * c.value for _, _, c in known]])
    now = _undominated(scores, costs)[0] if known else np.zeros(0, dtype=bool)
    share = _probabilities_on_front(record, said, cost, [label for label, _, _ in known])
    surely = surely_beaten(said.comparisons, values_by_seed(record, cost), cost)
    places = [
        Place(
            label,
            s,
            c,
            bool(now[i]),
            share.get(label),
            _beater(i, scores[0], costs[0], known),
            surely.get(label),
        )
        for i, (label, s, c) in enumerate(known)
    ]
    places.sort(key=lambda p: (sign(cost) * p.cost.value, p.label))
    pareto = Front(said.metric, said.part, cost, tuple(places), ())
    return replace(pareto, sentences=_front_sentences(pareto))


def surely_beaten(
    comparisons: Sequence[Comparison], costs: Mapping[str, Mapping[int, float]], cost: str
) -> dict[str, str]:
    """Who is shown to be beaten in both, and by whom: method -> the better and cheaper one.

    The score by the verdict, which holds for all pairs together; the cost, by method and seed, with
    an interval that holds for all pairs with such a verdict together (Bonferroni).
    """
    better = [
        (c.a, c.b) if c.verdict == "better" else (c.b, c.a)
        for c in comparisons
        if c.verdict in {"better", "worse"} and c.a in costs and c.b in costs
    ]
    level = 1 - (1 - LEVEL) / max(1, len(better))
    return {
        worse: best
        for best, worse in better
        if surely_cheaper(costs[best], costs[worse], cost, level)
    }


def _undominated(scores: Floats, costs: Floats) -> NDArray[np.bool_]:
    """Who is on the front, (B, methods), from scores (more is better) and costs (less is)."""
    good = scores[:, :, None] >= scores[:, None, :]  # [b, j, i]: j at least as good as i
    cheap = costs[:, :, None] <= costs[:, None, :]
    strictly = (scores[:, :, None] > scores[:, None, :]) | (costs[:, :, None] < costs[:, None, :])
    return np.asarray(~(good & cheap & strictly).any(axis=1))


def _beater(
    i: int, scores: Floats, costs: Floats, known: Sequence[tuple[str, Estimate, Estimate]]
) -> str | None:
    both = np.flatnonzero((scores >= scores[i]) & (costs <= costs[i]))
    strict = [int(j) for j in both if scores[j] > scores[i] or costs[j] < costs[i]]
    return known[max(strict, key=lambda j: scores[j])][0] if strict else None


def _probabilities_on_front(
    record: StudyRecord, said: Summary, cost: str, labels: Sequence[str]
) -> dict[str, float]:
    runs = read_runs(record)[said.split]
    costs = values_by_seed(record, cost)
    # Only what has both values with the same seeds can be drawn together.
    usable = [
        replace(
            runs[label],
            by_seed={s: p for s, p in runs[label].by_seed.items() if s in costs[label]},
        )
        for label in labels
        if label in runs and set(runs[label].by_seed) & set(costs.get(label, {}))
    ]
    if not usable or not paired_by_seed({r.label: r for r in usable}):
        return {}
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    drawn_labels, scores, drawn = mean_draws(usable, said.metric, rng, FRONT_DRAWS)
    by_label = {r.label: r for r in usable}
    shared = (set(by_label[x].by_seed) for x in drawn_labels)
    seeds = sorted(set.intersection(*shared)) if drawn_labels else []
    s = len(seeds)
    if s < LEAST_SEEDS:  # draws from so few would be far too sure
        return {}
    widen = math.sqrt(s / (s - 1))
    columns = []
    for label in drawn_labels:
        of = np.array([costs[label][k] for k in seeds])
        columns.append(of.mean() + widen * (of[drawn].mean(axis=1) - of.mean()))
    fine = np.isfinite(scores).all(axis=1)
    better = 1.0 if METRICS[said.metric].higher_is_better else -1.0
    on = _undominated(better * scores[fine], sign(cost) * np.stack(columns, axis=1)[fine])
    return {label: float(x) for label, x in zip(drawn_labels, on.mean(axis=0), strict=True)}


def _front_sentences(f: Front) -> tuple[str, ...]:
    if len(f.places) < 2:
        return ()
    what = column(f"{f.part}_{f.metric}").about
    cost = noun(f.cost)
    on = [p for p in f.places if p.on_front]
    names = ", ".join(
        p.label + ("" if p.probability is None else f" ({100 * p.probability:.0f}%)") for p in on
    )
    tail = "" if on[0].probability is None else "; in brackets how surely, over seeds and rows"
    said = [f"By the means no method beats these in both {what} and {cost}: {names}{tail}"]
    said += [
        f"{p.label} is beaten in both by {p.surely_beaten_by}, and surely so"
        for p in f.places
        if p.surely_beaten_by
    ]
    return tuple(said)


def front_for_display(pareto: Front) -> tuple[list[str], list[list[str]]]:
    """The table that people read: a row a method. Whether it is on the front, and how surely; by
    which it is beaten, and whether that is sure.
    """
    score, cost = column(f"{pareto.part}_{pareto.metric}"), column(pareto.cost)
    headings = ["Method", score.heading, cost.heading, "On the front", "Beaten by"]
    rows = [
        [
            p.label,
            format_estimate(p.score, score.kind),
            format_estimate(p.cost, cost.kind),
            ("yes" if p.on_front else "no")
            + ("" if p.probability is None else f" ({100 * p.probability:.0f}%)"),
            f"{p.surely_beaten_by}, surely" if p.surely_beaten_by else p.beaten_by or MISSING,
        ]
        for p in pareto.places
    ]
    return headings, rows
