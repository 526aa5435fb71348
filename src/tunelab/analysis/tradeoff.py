"""What a loss of accuracy buys: the Pareto front with its uncertainty, and a recommendation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tunelab.analysis.front import WORDS, Front, check_cost, noun, sign
from tunelab.analysis.numbers import column, format_estimate, format_value
from tunelab.analysis.summary import BOOTSTRAP_SEED, paired_by_seed, read_runs, summarise, value_of
from tunelab.analysis.verdict import Summary
from tunelab.core.errors import ConfigError
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Estimate
from tunelab.stats import LEAST_SEEDS, Loss, decimals, losses, mean_interval
from tunelab.stats.metrics import METRICS

__all__ = [
    "Recommendation",
    "lost",
    "points",
    "ratio",
    "recommend",
    "recommendation_to_json",
]

_ASIDE = ("train_seconds", "peak_memory_bytes", "artifact_bytes", "texts_per_second")


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
    paired = paired_by_seed(runs)
    found = losses(runs[said.best], others, said.metric, rng, margin=margin) if paired else []
    fine = [x.label for x in found if x.acceptable]
    prices = {
        r.label: sign(cost) * e.value for r in said.rows if (e := r.estimates.get(cost)) is not None
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
    known = {label: sign(r.cost) * e.value for label, e in prices.items() if e is not None}
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
        factor = found.value if sign(cost) < 0 else 1 / found.value
        if 1 / 1.1 < factor < 1.1:
            continue
        of, (good, bad, values) = column(cost), WORDS[cost]
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
    if said.cross_fitted is not None:
        rows = record.data["folds"]["rows"]
    many = f"{rows:,} rows" if isinstance(rows, int) else "the rows"
    name = record.data.get("name", "this data")
    out.append(
        f"It holds for texts like the {many} of {said.split} of {name}, "
        f"and for costs on the machine that measured them."
    )
    if r.part != "test":
        out.append("The test part was not scored: on validation every method is flattered.")
    return out


def recommendation_to_json(r: Recommendation | Front) -> dict[str, object]:
    """Plain JSON values."""
    return asdict(r)
