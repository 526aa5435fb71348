"""What a loss of accuracy buys: the Pareto front with its uncertainty, and a recommendation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.analysis.numbers import MISSING, column, format_estimate, format_value
from tunelab.analysis.summary import BOOTSTRAP_SEED, read_runs, same_rows, summarise, value_of
from tunelab.analysis.verdict import Summary
from tunelab.core.errors import ConfigError, suggest
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Estimate
from tunelab.stats import LEAST_SEEDS, Loss, Runs, decimals, losses, mean_draws, mean_interval
from tunelab.stats.metrics import METRICS

__all__ = [
    "COSTS",
    "Front",
    "Place",
    "Recommendation",
    "check_cost",
    "front",
    "front_for_display",
    "lost",
    "noun",
    "points",
    "ratio",
    "recommend",
    "recommendation_to_json",
]


Floats = NDArray[np.float64]
DRAWS = 1000

# Cost -> how a smaller one is said ("2.1x faster to train"), and how two values stand side by side.
_WORDS: dict[str, tuple[str, str, str]] = {
    "train_seconds": ("faster to train", "slower to train", "{} against {}"),
    "peak_memory_bytes": ("less memory to train", "more memory to train", "{} against {}"),
    "artifact_bytes": ("smaller to ship", "larger to ship", "{} against {}"),
    "texts_per_second": ("more texts a second", "fewer texts a second", "{} against {}"),
    "latency_p50_seconds": ("faster on one text", "slower on one text", "{} against {}"),
    "latency_p95_seconds": ("faster on slow texts", "slower on slow texts", "{} against {}"),
    "adapter_parameters": ("fewer adapter parameters", "more adapter parameters", "{} against {}"),
    "head_parameters": ("fewer parameters in the head", "more in the head", "{} against {}"),
    "trainable_parameters": (
        "fewer trained parameters",
        "more trained parameters",
        "{} against {}",
    ),
    "total_parameters": ("fewer parameters", "more parameters", "{} against {}"),
}
COSTS = tuple(_WORDS)
_ASIDE = ("train_seconds", "peak_memory_bytes", "artifact_bytes", "texts_per_second")


@dataclass(frozen=True, slots=True)
class Place:
    """A method on the plane of score and cost.

    `on_front`: by the means, no other method is at least as good in both and better in one.
    `probability`: the share of draws of other seeds and rows in which that holds; None where seeds
    are not shared or the score cannot be resampled. `beaten_by`: a method that is better in both.
    """

    label: str
    score: Estimate
    cost: Estimate
    on_front: bool
    probability: float | None
    beaten_by: str | None


@dataclass(frozen=True, slots=True)
class Front:
    """All methods of a study that have both values, cheapest first."""

    metric: str
    part: str
    cost: str
    places: tuple[Place, ...]
    sentences: tuple[str, ...]


def check_cost(name: str) -> str:
    """A cost by its name. Raises ConfigError for another."""
    if name not in COSTS:
        raise ConfigError(f"Unknown cost {name!r}.{suggest(name, COSTS, what='Costs')}")
    return name


def noun(cost: str) -> str:
    """A cost within a sentence, where its heading in a table would not read as one."""
    named = {"train_seconds": "training time", "artifact_bytes": "size on disk"}
    return named.get(cost, column(cost).heading.lower())


def _sign(cost: str) -> float:
    """Costs are bad, but for throughput."""
    return -1.0 if cost == "texts_per_second" else 1.0


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
    costs = np.array([[_sign(cost) * c.value for _, _, c in known]])
    now = _undominated(scores, costs)[0] if known else np.zeros(0, dtype=bool)
    share = _probabilities(record, said, cost, [label for label, _, _ in known])
    places = [
        Place(label, s, c, bool(now[i]), share.get(label), _beater(i, scores[0], costs[0], known))
        for i, (label, s, c) in enumerate(known)
    ]
    places.sort(key=lambda p: (_sign(cost) * p.cost.value, p.label))
    found = Front(said.metric, said.part, cost, tuple(places), ())
    return Front(found.metric, found.part, cost, found.places, _front_sentences(found))


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


def _probabilities(
    record: StudyRecord, said: Summary, cost: str, labels: Sequence[str]
) -> dict[str, float]:
    runs = read_runs(record)[said.split]
    costs: dict[str, dict[int, float]] = {label: {} for label in labels}
    for r in record.done:
        value = value_of(r, cost)
        if r.spec.method.label in costs and value is not None:
            costs[r.spec.method.label][r.spec.seed] = value
    # Only what has both values with the same seeds can be drawn together.
    usable = [
        Runs(label, {s: p for s, p in runs[label].by_seed.items() if s in costs[label]})
        for label in labels
        if label in runs and set(runs[label].by_seed) & set(costs[label])
    ]
    if len({p.ids for r in usable for p in r.by_seed.values()}) != 1:
        return {}
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    drawn_labels, scores, drawn = mean_draws(usable, said.metric, rng, DRAWS)
    if not drawn_labels:
        return {}
    by_label = {r.label: r for r in usable}
    seeds = sorted(set.intersection(*(set(by_label[x].by_seed) for x in drawn_labels)))
    s = len(seeds)
    widen = math.sqrt(s / (s - 1)) if s > 1 else 0.0
    columns = []
    for label in drawn_labels:
        of = np.array([costs[label][k] for k in seeds])
        columns.append(of.mean() + widen * (of[drawn].mean(axis=1) - of.mean()))
    fine = np.isfinite(scores).all(axis=1)
    better = 1.0 if METRICS[said.metric].higher_is_better else -1.0
    on = _undominated(better * scores[fine], _sign(cost) * np.stack(columns, axis=1)[fine])
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
    said = [f"No method beats these in both {what} and {cost}: {names}{tail}"]
    said += [
        f"{p.label} is beaten in both by {p.beaten_by}, and surely so"
        for p in f.places
        if p.beaten_by and p.probability is not None and p.probability < 0.05
    ]
    return tuple(said)


# --- the recommendation -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to take, and why.

    `choice` is the cheapest method by `cost` among those whose loss against `best` (best on
    validation) is shown to be below `margin`, and `best` itself; None where nothing finished.
    `losses` has every other method; `sentence` is the answer, `reasons` and `conditions` the rest,
    `short` the answer in so few words that it fits two lines of a terminal.
    """

    choice: str | None
    best: str | None
    metric: str
    part: str
    margin: float
    cost: str
    losses: tuple[Loss, ...]
    sentence: str
    reasons: tuple[str, ...]
    conditions: tuple[str, ...]
    short: str = ""


def ratio(record: StudyRecord, a: str, b: str, cost: str) -> Estimate | None:
    """Geometric mean over shared seeds of cost(a) / cost(b), with Student's t interval of its log.

    None where a value is missing or not above zero. Unitless: 2.0 is twice the cost.
    """
    check_cost(cost)
    of: dict[str, dict[int, float]] = {a: {}, b: {}}
    for r in record.done:
        value = value_of(r, cost)
        if r.spec.method.label in of and value:
            of[r.spec.method.label][r.spec.seed] = value
    seeds = [s for s in of[a] if s in of[b]]
    if not seeds or min(of[a][s] for s in seeds) <= 0 or min(of[b][s] for s in seeds) <= 0:
        return None
    e = mean_interval([math.log(of[a][s] / of[b][s]) for s in seeds], signed=True)
    low, high = (None if x is None else math.exp(x) for x in (e.low, e.high))
    return Estimate(
        math.exp(e.value), low, high, e.n, f"ratio of costs paired by seed; {e.procedure}"
    )


def recommend(
    record: StudyRecord,
    *,
    margin: float = 0.01,
    cost: str = "train_seconds",
    summary: Summary | None = None,
) -> Recommendation:
    """The cheapest method that is shown to lose less than `margin` against the best.

    `margin` in metric units (0.01 is one point of accuracy). The best is that on validation;
    what is lost is measured on test, with Holm's correction over the candidates.
    """
    check_cost(cost)
    said = summary or summarise(record)
    if not 0 < margin < 1:
        raise ConfigError(
            f"margin: expected a loss above 0 and below 1 (0.01 is one point), found {margin:g}."
        )
    if said.best is None:
        return Recommendation(
            None,
            None,
            said.metric,
            said.part,
            margin,
            cost,
            (),
            "No trial finished, so nothing can be recommended",
            (),
            (),
        )
    runs = read_runs(record)[said.split]
    others = [runs[r.label] for r in said.rows if r.label != said.best and r.label in runs]
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    paired = same_rows(runs)
    found = losses(runs[said.best], others, said.metric, rng, margin=margin) if paired else []
    fine = [x.label for x in found if x.acceptable]
    prices = {
        r.label: _sign(cost) * e.value
        for r in said.rows
        if (e := r.estimates.get(cost)) is not None
    }
    priced = [x for x in (said.best, *fine) if x in prices]
    choice = min(priced, key=lambda x: prices[x]) if priced else said.best
    done = Recommendation(
        choice, said.best, said.metric, said.part, margin, cost, tuple(found), "", (), ()
    )
    return _cost_in_words(done, record, said)


def _cost_in_words(r: Recommendation, record: StudyRecord, said: Summary) -> Recommendation:
    loss = points(r.margin, said.metric)
    choice, best = str(r.choice), str(r.best)
    lead = f"If a loss of {loss} is acceptable"
    if choice == best:
        sentence = f"{best}: " + _why_best(r, said)
    else:
        gains = _compared(record, said, choice, best, (r.cost, *_ASIDE))
        sentence = f"{lead}, {choice}: {_shown(r, said)}" + "".join(f", {g}" for g in gains.better)
    reasons = [*_reasons(r, said, loss)]
    conditions = [*_conditions(r, record, said, loss)]
    return Recommendation(
        r.choice,
        r.best,
        r.metric,
        r.part,
        r.margin,
        r.cost,
        r.losses,
        sentence,
        tuple(reasons),
        tuple(conditions),
        _in_short(r, record, said, loss),
    )


def _in_short(r: Recommendation, record: StudyRecord, said: Summary, loss: str) -> str:
    choice, best = str(r.choice), str(r.best)
    if choice != best:
        gains = _compared(record, said, choice, best, (r.cost,)).better
        price = f", {gains[0]}" if gains else ""
        return f"Take {choice}: shown to lose less than {loss} against {best}, the best{price}"
    if not r.losses:
        return f"Take {best}: there is nothing to compare it with"
    prices = {x.label: x.estimates.get(r.cost) for x in said.rows}
    known = {label: _sign(r.cost) * e.value for label, e in prices.items() if e is not None}
    if best in known and len(known) > 1 and known[best] == min(known.values()):
        return f"Take {best}: best on validation, and the cheapest ({noun(r.cost)})"
    if any(x.acceptable for x in r.losses):
        return f"Take {best}: best on validation, and cheaper than what comes near it"
    if all(x.reason != "one-sided t test" for x in r.losses):
        why = f"with fewer than {LEAST_SEEDS} seeds nothing cheaper can be shown to be as good"
    else:
        why = f"nothing cheaper is shown to lose less than {loss}"
    return f"Take {best}: best on validation; {why}"


def points(margin: float, metric: str) -> str:
    """A loss in words: 0.01 of accuracy is "1 point"."""
    row = METRICS[metric]
    if not row.percent:
        return f"{margin:g} of {row.label}"
    what = "" if metric == "accuracy" else f" of {row.label}"
    return f"{100 * margin:g} point{'' if math.isclose(margin, 0.01) else 's'}{what}"


def _shown(r: Recommendation, said: Summary) -> str:
    choice, best, margin = r.choice, str(r.best), r.margin
    loss = next(x.loss for x in r.losses if x.label == choice)
    words = points(margin, said.metric)
    size = lost(loss, said.metric)
    pair = next((c for c in said.comparisons if {c.a, c.b} == {choice, best}), None)
    if pair and pair.verdict == "equivalent" and pair.margin == margin:
        return f"equivalent to {best} within {words} ({size})"
    return f"shown to lose less than {words} against {best} ({size})"


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


@dataclass(frozen=True, slots=True)
class _Gains:
    better: tuple[str, ...]
    worse: tuple[str, ...]


def _compared(record: StudyRecord, said: Summary, a: str, b: str, costs: Sequence[str]) -> _Gains:
    """Costs of a against b that differ by a tenth or more and, where there are seeds, for sure."""
    better: list[str] = []
    worse: list[str] = []
    for cost in dict.fromkeys(costs):
        mine, theirs = (said.row(x).estimates.get(cost) for x in (a, b))
        found = ratio(record, a, b, cost)
        if mine is None or theirs is None or found is None:
            continue
        if found.low is not None and found.high is not None and found.low <= 1 <= found.high:
            continue
        factor = found.value if _sign(cost) < 0 else 1 / found.value
        if 1 / 1.1 < factor < 1.1:
            continue
        of, (good, bad, values) = column(cost), _WORDS[cost]
        both = values.format(format_value(mine.value, of), format_value(theirs.value, of))
        times = f"{max(factor, 1 / factor):.1f}x"
        (better if factor > 1 else worse).append(f"{times} {good if factor > 1 else bad} ({both})")
    return _Gains(tuple(better), tuple(worse))


def _why_best(r: Recommendation, said: Summary) -> str:
    what = column(f"{r.part}_{r.metric}")
    reached = format_estimate(said.row(str(r.best)).estimates.get(what.name), what.kind)
    cost = noun(r.cost)
    fine = [x.label for x in r.losses if x.acceptable]
    if fine:
        return (
            f"best on validation ({reached} {what.about}), and by {cost} cheaper than what loses "
            f"less than {points(r.margin, r.metric)}: {', '.join(fine)}"
        )
    few = all(x.reason != "one-sided t test" for x in r.losses)
    if r.losses and few:
        return (
            f"best on validation ({reached} {what.about}); with fewer than {LEAST_SEEDS} seeds "
            "nothing cheaper can be shown to be as good"
        )
    return (
        f"best on validation ({reached} {what.about}); nothing else is shown to lose less than "
        f"{points(r.margin, r.metric)}"
    )


def _reasons(r: Recommendation, said: Summary, loss: str) -> list[str]:
    out = []
    for x in r.losses:
        if x.label == r.choice:
            continue
        price = said.row(x.label).estimates.get(r.cost)
        cost = f"; {noun(r.cost)} {format_value(price.value, column(r.cost))}" if price else ""
        if x.acceptable:
            verdict = f"also loses less than {loss}"
        elif x.loss.low is not None and x.loss.low > r.margin:
            verdict = f"loses more than {loss}"
        else:
            verdict = f"is not shown to lose less than {loss}"
        out.append(f"{x.label} {verdict} against {r.best}: {lost(x.loss, r.metric)}{cost}")
    return out


def _conditions(r: Recommendation, record: StudyRecord, said: Summary, loss: str) -> list[str]:
    choice, best = str(r.choice), str(r.best)
    out = []
    if choice != best:
        out.append(f"If no loss at all is acceptable: {best}, which was best on validation.")
        worse = _compared(record, said, choice, best, _ASIDE).worse
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
    many = f"{rows:,} rows" if isinstance(rows, int) else "the rows"
    name = record.data.get("name", "this data")
    out.append(
        f"It holds for texts like the {many} of {said.split} of {name}, "
        f"and for costs on the machine that measured them."
    )
    if r.part != "test":
        out.append("The test part was not scored: on validation every method is flattered.")
    return out


def front_for_display(
    found: Front, unknown: str = MISSING, unbeaten: str = MISSING
) -> tuple[list[str], list[list[str]]]:
    """The table that people read: a row a method. What stands where a probability is `unknown`,
    and where a method is `unbeaten`.
    """
    score, cost = column(f"{found.part}_{found.metric}"), column(found.cost)
    headings = ["Method", score.heading, cost.heading, "On the front", "How surely", "Beaten by"]
    rows = [
        [
            p.label,
            format_estimate(p.score, score.kind),
            format_estimate(p.cost, cost.kind),
            "yes" if p.on_front else "no",
            unknown if p.probability is None else f"{100 * p.probability:.0f}%",
            p.beaten_by or unbeaten,
        ]
        for p in found.places
    ]
    return headings, rows


def recommendation_to_json(r: Recommendation | Front) -> dict[str, object]:
    """Plain JSON values."""
    return asdict(r)
