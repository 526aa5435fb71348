"""The answer that a study gives first: what to take, why, how sure. Composed here alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunelab.analysis.costs import noun, sign
from tunelab.analysis.numbers import column, format_estimate
from tunelab.analysis.verdict import (
    Answer,
    Standing,
    Summary,
    joined_by_and,
    margin_in_words,
)
from tunelab.core.tasks import label_counts
from tunelab.core.values import Comparison, Predictions
from tunelab.core.words import counted
from tunelab.stats import LEAST_SEEDS, Loss
from tunelab.stats.metrics import METRICS

__all__ = [
    "Taken",
    "answer",
    "nothing_finished",
    "score_in_words",
    "what_rows_cannot_tell",
]

LEAST_TEST_ROWS = 150  # with fewer test rows a score is known to no better than 8 points
LEAST_OF_CLASS = 20
MOST_NAMES = 3


@dataclass(frozen=True, slots=True)
class Taken:
    """What is to be taken, before it is put in words.

    `gain`: what `label` is cheaper in than the best, in words, "" where it is the best itself.
    `losses`: of every method that was judged by its loss below `margin`.
    """

    label: str
    margin: float
    cost: str
    losses: Sequence[Loss]
    gain: str


def nothing_finished() -> Answer:
    """Of a study without a trial that ended well."""
    return Answer(None, "No trial finished, so there is nothing to take")


def answer(choice: Taken, said: Summary, unknown: str) -> Answer:
    """What to take and why. `unknown`: what `what_rows_cannot_tell` says of the test rows."""
    cheaper = choice.label != said.best
    why = _why_cheaper(choice, said) if cheaper else _why_best(choice, said)
    return Answer(choice.label, why, how_sure(said), unknown)


# --- why ------------------------------------------------------------------------------------


def _why_cheaper(choice: Taken, said: Summary) -> str:
    best, worth = str(said.best), margin_in_words(choice.margin, said.metric)
    price = f", {choice.gain}" if choice.gain else ""
    pair = next((c for c in said.against_best() if c.b == choice.label), None)
    if pair is not None and pair.verdict == "worse":
        return f"better on test than {best}, the best on validation{price}"
    if pair is not None and pair.verdict == "equivalent" and pair.margin == choice.margin:
        return f"equivalent within {worth} to {best}, the best on validation{price}"
    return f"shown to lose less than {worth} against {best}, the best on validation{price}"


def _why_best(choice: Taken, said: Summary) -> str:
    others = [r.label for r in said.rows if r.label != said.best and r.n_seeds]
    if not others:
        return "the only method that finished, so there is nothing to compare it with"
    own = said.collapses.get(choice.label)
    broken = (
        f"; {own.sentence.removeprefix(f'{own.label} ')}, so look at each run's validation score"
        if own
        else ""
    )
    return f"{_place_among(said, others)}{_price(choice, said)}{broken}"


def _place_among(said: Summary, others: Sequence[str]) -> str:
    """Where the best of validation stands among the others, in words."""
    by_standing: dict[Standing, list[str]] = {}
    raced_out = []
    for c in said.against_best():
        if _is_left_to_the_race(c, said):
            raced_out.append(c.b)
        else:
            by_standing.setdefault(said.standing(c), []).append(c.b)
    beaten = by_standing.get("better", [])
    if len(beaten) == len(others):
        return f"better than {_names(beaten, others)}"
    tied = by_standing.get("within noise", [])
    lead = f"tied with {_names(tied, others)} within noise, first" if tied else "best"
    words = [
        ("equivalent to {}", by_standing.get("equivalent", [])),
        ("better than {}", beaten),
        *(
            (f"{where} of {{}}{why}", by_standing.get(standing, []))
            for where, standing, why in _UNDECIDED
        ),
        ("worse on test than {}", by_standing.get("worse", [])),
        ("ahead of {} in the race", raced_out),
    ]
    told = [text.format(_names(labels, others)) for text, labels in words if labels]
    return ", ".join([f"{lead} on validation", *told])


def _is_left_to_the_race(c: Comparison, said: Summary) -> bool:
    """Whether a pair has no verdict because a race dropped one of the two: it was surely behind."""
    return c.verdict == "undecided" and bool({c.a, c.b} & said.dropped)


_UNDECIDED: tuple[tuple[str, Standing, str], ...] = (
    ("ahead", "ahead, too few seeds to call", " (too few seeds to call)"),
    ("ahead", "ahead, not shown", " (not shown)"),
    ("behind on test", "behind, too few seeds to call", " (too few seeds to call)"),
    ("behind on test", "behind, not shown", " (not shown)"),
)


def _names(labels: Sequence[str], others: Sequence[str]) -> str:
    if len(labels) <= MOST_NAMES:
        return joined_by_and(labels)
    if len(labels) == len(others):
        return f"all {len(labels)} others"
    return f"{len(labels)} of {len(others)} others"


def _price(choice: Taken, said: Summary) -> str:
    """What its cost adds to the reason: nothing cheaper will do, or it is the cheapest."""
    prices = {r.label: r.estimates.get(choice.cost) for r in said.rows}
    known = {label: sign(choice.cost) * e.value for label, e in prices.items() if e is not None}
    if choice.label not in known or len(known) < 2:
        return ""
    if known[choice.label] == min(known.values()):
        return f"; also the cheapest ({noun(choice.cost)})"
    if any(x.acceptable for x in choice.losses):
        return "; cheaper than what comes near it"
    if not choice.losses or all(x.loss.n < LEAST_SEEDS for x in choice.losses):
        return ""
    worth = margin_in_words(choice.margin, said.metric)
    return f"; nothing cheaper is shown to lose less than {worth}"


# --- how sure -------------------------------------------------------------------------------


def how_sure(said: Summary) -> str:
    """How sure the answer is: the score to expect, what the verdicts rest on and speak of."""
    parts = [_score_to_expect(said), _verdicts(said), _population(said)]
    return " ".join(f"{part}." for part in parts if part)


def _score_to_expect(said: Summary) -> str:
    best = said.row(str(said.best))
    score = score_in_words(said)
    several = sum(r.n_seeds > 0 for r in said.rows) > 1
    if said.part != "test":
        return f"{best.label} reaches {score}, on which it was chosen, so that it flatters"
    if said.score_of_best is not None:
        return f"A method chosen like this reaches {score}, by seeds that did not choose it"
    if not several:
        return f"{best.label} reaches {score}"
    if best.label in said.collapses:
        return f"{best.label} reaches {score}, with the runs that broke down"
    seeds = counted(best.n_seeds, "seed") if best.n_seeds > 1 else "seed"
    return f"{best.label} reaches {score}, which flatters: the same {seeds} chose it"


def score_in_words(said: Summary) -> str:
    """The best method's score, by seeds that did not choose it where there are enough."""
    what = column(f"{said.part}_{said.metric}")
    estimate = said.score_of_best or said.row(str(said.best)).estimates.get(what.name)
    percent = " percent" if what.kind == "percent" else ""
    tests = f", cross-fitted ({said.cross_fitted})" if said.cross_fitted else ""
    return f"{format_estimate(estimate, what.kind)}{percent} {what.about}{tests}"


def _verdicts(said: Summary) -> str:
    pairs = [c for c in said.against_best() if not _is_left_to_the_race(c, said)]
    standings = [said.standing(c) for c in pairs]
    raced_out = len(said.against_best()) - len(pairs)
    in_race = f"{raced_out} left behind by the race on validation (95% sure)" if raced_out else ""
    if not standings:
        return f"Of {counted(raced_out, 'other method')}: {in_race}" if raced_out else ""
    if said.best in said.collapses:
        return f"No verdict against the others: {said.collapses[str(said.best)].sentence}"
    broke = standings.count("broke down")
    decided = [s for s in standings if s in {"better", "worse", "equivalent"}]
    fewest = min((c.difference.n for c in pairs if said.wants_seeds(c)), default=LEAST_SEEDS)
    if not decided and fewest < LEAST_SEEDS:
        return (
            f"Not sure: with {counted(fewest, 'seed')} no method is called better or worse "
            f"({LEAST_SEEDS} are needed)"
        )
    counts = [
        ("worse", standings.count("better")),
        ("equivalent", standings.count("equivalent")),
        ("better on test", standings.count("worse")),
    ]
    shown = ", ".join(f"{n} shown to be {word}" for word, n in counts if n)
    open_ = len(standings) - len(decided) - broke
    if open_ == len(standings) and not raced_out:
        several = f"None of {counted(open_, 'other method')} is"
        who = several if open_ > 1 else f"{said.against_best()[0].b} is not"
        return f"{who} told apart from it"
    rest = [f"{open_} not told apart from it"] * bool(open_)
    rest += [f"{broke} with runs that broke down"] * bool(broke)
    rest += [in_race] * bool(raced_out)
    listed = joined_by_and([*([shown] if shown else []), *rest])
    if len(standings) == 1 and decided and not raced_out:
        word = next(word for word, n in counts if n)
        return f"{said.against_best()[0].b} is shown to be {word} (95% sure)"
    sure = " (95% sure of all together)" if {"better", "worse"} & set(decided) else ""
    if "equivalent" in decided:
        sure = " (95% sure: of those told apart all together, of equivalent ones each)"
    return f"Of {counted(len(standings) + raced_out, 'other method')}: {listed}{sure}"


def _population(said: Summary) -> str:
    if not said.against_best():
        return ""
    return (
        "Verdicts speak of other seeds and other test rows of this kind, given these training rows "
        "and these settings"
    )


# --- small data -----------------------------------------------------------------------------


def what_rows_cannot_tell(scored: Predictions | None, metric: str) -> str:
    """What a score on so few rows leaves open, in words; "" from 150 rows and 20 of a class on.

    Stated is half of the 95% interval of one model's share of right answers, from the rows alone.
    """
    if scored is None or not len(scored.labels):
        return ""
    several = scored.task == "multilabel"
    known = scored.labels if several else scored.labels[scored.labels >= 0]
    counts = label_counts(known, scored.scores.shape[1])
    rows, least = len(known), int(min(counts[counts > 0], default=len(known)))
    if rows < LEAST_TEST_ROWS:
        right = float(scored.right.mean())
        points = _half_interval(right, rows)
        share = METRICS["subset_accuracy" if several else "accuracy"]
        what = share.label
        what += "" if metric == share.name else f" (and so {METRICS[metric].label})"
        return f"{counted(rows, 'test row')} cannot place {what} closer than ± {points:.0f} points"
    if least < LEAST_OF_CLASS:
        points = _half_interval(0.5, least)
        which = "rarest label" if several else "smallest class"
        return (
            f"{counted(least, 'test row')} of the {which} cannot place its recall closer than "
            f"± {points:.0f} points"
        )
    return ""


def _half_interval(share: float, n: int) -> float:
    """Half of Agresti and Coull's 95% interval of a share of n, in points."""
    z2 = 1.96**2
    p = (share * n + z2 / 2) / (n + z2)
    return 100 * 1.96 * math.sqrt(p * (1 - p) / (n + z2))
