"""Racing: a method that is surely behind gets no more seeds.

All methods train with one seed after the other. After each round every method is compared with the
leader on the validation rows, and dropped when it is behind by more than other rows and other seeds
could make up for, at a confidence that holds for the whole race. Test plays no part.

Rows: with x_i in [-1, 1] the share of seeds with which the leader alone is right on row i, less the
share with which the other is, a bet on a mean above m multiplies a capital by 1 + l_i (x_i - m). If
the mean is m or less, the capital reaches 1 / a with probability a at most (Ville; Waudby-Smith and
Ramdas 2024, "Estimating means of bounded random variables by betting", arXiv:2010.09686).
Seeds: m is what the seeds seen so far may have given the leader by luck, from the spread over seeds
that is left when each seed's own ease is taken out, pooled over methods (Student's t).
Rounds and rivals: with K methods and S seeds there are (K - 1)(S - 1) chances to drop the best;
each gets an equal part of 1 - confidence, half for rows and half for seeds.

May import: errors, types, numpy, scipy inside functions. May not import: torch, store, study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONFIDENCE",
    "Dropped",
    "Race",
    "Round",
    "advance",
    "capital",
    "order",
    "replay",
    "sentences",
    "start",
    "statement",
    "to_json",
]

Floats = NDArray[np.float64]
# label -> seed -> whether each validation row was right, (n,)
Right = Mapping[str, Mapping[int, NDArray[np.bool_]]]

CONFIDENCE = 0.95
LEAST_SEEDS = 2  # one seed says nothing of the spread over seeds
_ROW_SEED = 0  # rows are bet on in an order that no result has chosen
_BOLD = 0.75  # the largest bet, as a share of the one that could lose everything


@dataclass(frozen=True, slots=True)
class Dropped:
    """Who was dropped, after which round, behind whom, by how much (share of rows, validation).

    `e_value` is the capital won against "not behind", `threshold` what it had to reach; `allowance`
    the part of `behind` that was put down to luck with the seeds.
    """

    label: str
    round: int
    seeds: int
    leader: str
    behind: float
    allowance: float
    e_value: float
    threshold: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Round:
    """A round: who ran in it, mean validation accuracy of each so far, who was dropped after it."""

    round: int
    seeds: int
    leader: str
    alive: tuple[str, ...]
    dropped: tuple[str, ...]
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Race:
    """A race so far. `labels` all that began, `alive` those that may be the best."""

    labels: tuple[str, ...]
    seeds: int
    confidence: float
    alive: tuple[str, ...]
    dropped: tuple[Dropped, ...] = ()
    rounds: tuple[Round, ...] = ()


def start(labels: Sequence[str], seeds: int, confidence: float = CONFIDENCE) -> Race:
    """A race of so many seeds at most, before its first round."""
    return Race(tuple(labels), seeds, confidence, tuple(labels))


def advance(race: Race, right: Right) -> Race:
    """Judge after a round: `right` holds all that is known, of everybody and every seed so far.

    A method without a shared seed with the leader (its trials failed) is not judged.
    """
    number = len(race.rounds) + 1
    scores = {
        label: float(np.mean([r.mean() for r in right[label].values()]))
        for label in race.labels
        if right.get(label)
    }
    running = [x for x in race.alive if x in scores]
    if not running:
        return race
    # The first of equals, and only among those that have run as often as anybody.
    most = max(len(right[x]) for x in running)
    leader = max((x for x in running if len(right[x]) == most), key=lambda x: scores[x])
    found = [
        d
        for label in running
        if label != leader and (d := _judge(race, right, leader, label, number)) is not None
    ]
    gone = tuple(d.label for d in found)
    this = Round(number, most, leader, race.alive, gone, scores)
    return replace(
        race,
        alive=tuple(x for x in race.alive if x not in gone),
        dropped=(*race.dropped, *found),
        rounds=(*race.rounds, this),
    )


def order(race: Race) -> tuple[str, ...]:
    """Who runs first in the next round: the leader, then those nearest to it.

    Where time ends within a round, its seeds went where they decide most.
    """
    if not race.rounds:
        return race.alive
    scores = race.rounds[-1].scores
    return tuple(sorted(race.alive, key=lambda x: -scores.get(x, -1.0)))


def _judge(race: Race, right: Right, leader: str, label: str, number: int) -> Dropped | None:
    shared = sorted(right[leader].keys() & right[label].keys())
    if len(shared) < LEAST_SEEDS or race.seeds < LEAST_SEEDS:
        return None
    chances = max(1, len(race.labels) - 1) * (race.seeds - 1)
    share = (1 - race.confidence) / chances / 2
    gaps = np.stack([right[leader][s].astype(float) - right[label][s] for s in shared])  # (s, n)
    allowance = _allowance(race, right, gaps, shared, share)
    won = capital(gaps.mean(axis=0), allowance)
    if won < 1 / share:
        return None
    behind = float(gaps.mean())
    sentence = (
        f"{label} was dropped after {len(shared)} seeds: {100 * behind:.1f} points behind {leader} "
        f"on {gaps.shape[1]:,} validation rows, more than other rows and seeds could make up for"
    )
    return Dropped(label, number, len(shared), leader, behind, allowance, won, 1 / share, sentence)


def _allowance(
    race: Race, right: Right, gaps: Floats, shared: Sequence[int], share: float
) -> float:
    """How far the leader may be ahead by luck with its seeds, at one-sided level `share`.

    The spread of a pair's difference is that of the methods x seeds residuals, twice, and no less
    than the pair's own; the degrees of freedom are those of the residuals.
    """
    from scipy.special import stdtrit

    table = np.array(
        [
            [right[x][s].mean() for s in shared]
            for x in race.labels
            if right.get(x) and set(shared) <= right[x].keys()
        ]
    )  # (methods, seeds)
    residuals = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    df = (table.shape[0] - 1) * (table.shape[1] - 1)
    pooled = 2 * float((residuals**2).sum()) / df
    own = float(gaps.mean(axis=1).var(ddof=1))
    return float(stdtrit(df, 1 - share)) * math.sqrt(max(pooled, own) / len(shared))


def capital(x: Floats, mean: float) -> float:
    """The largest capital won by betting, row by row, that the mean of x (n,) is above `mean`.

    x lies in [-1, 1]. Bets follow what the rows before have shown (the approximate growth-optimal
    bet, aGRAPA): l = (mu - m) / (s^2 + (mu - m)^2), never below 0, never so large that all could be
    lost. Under a mean of `mean` or less, P(capital >= 1 / a) <= a.
    """
    if mean >= 1:
        return 1.0
    x = np.random.default_rng(_ROW_SEED).permutation(x)
    n = len(x)
    before = np.arange(1, n + 1)  # the rows before, and one imagined at 0 with variance 1/4
    total = np.concatenate([[0.0], np.cumsum(x)[:-1]])
    squares = np.concatenate([[0.0], np.cumsum(x**2)[:-1]])
    mu = total / before
    variance = np.maximum((squares + 0.25) / before - mu**2, 1e-6)
    edge = mu - mean
    bets = np.clip(edge / (variance + edge**2), 0.0, _BOLD / (1 + mean))
    growth = np.cumsum(np.log1p(bets * (x - mean)))
    return float(np.exp(min(700.0, max(0.0, float(growth.max(initial=0.0))))))


def statement(race: Race) -> str:
    """What the race shows, in words."""
    level = f"{100 * race.confidence:g}% confidence"
    basis = "by validation accuracy, for other rows and other seeds"
    if len(race.alive) == 1:
        return f"{race.alive[0]} is the best of {len(race.labels)} with {level} ({basis})"
    return (
        f"the best of {len(race.labels)} is among these {len(race.alive)} with {level} ({basis}): "
        f"{', '.join(race.alive)}"
    )


def to_json(race: Race) -> dict[str, Any]:
    """Plain JSON values, for race.json."""
    return {**asdict(race), "statement": statement(race)}


def sentences(stored: Mapping[str, Any]) -> tuple[str, ...]:
    """What race.json says, in words: the statement, who was dropped, what that saved."""
    why = {
        "decided": "one method was left",
        "seeds": "all seeds were used",
        "budget": "its time was used up; run it again to go on",
    }.get(str(stored["stopped"]), "it was interrupted; run it again to go on")
    saved = stored["trials_full"] - stored["trials_run"]
    return (
        f"Race: {stored['statement']}. It ended because {why}.",
        *(f"{d['sentence']}." for d in stored["dropped"]),
        f"{stored['trials_run']} of {stored['trials_full']} trials were run ({saved} were not).",
    )


def replay(
    right: NDArray[np.bool_], seeds: Sequence[int], confidence: float = CONFIDENCE
) -> tuple[Race, int]:
    """Race over a recorded grid, right (methods, seeds, rows), seeds in the order given.

    Gives the race and the number of trials that it would have run. No training.
    """
    race = start([str(k) for k in range(len(right))], len(seeds), confidence)
    known: dict[str, dict[int, NDArray[np.bool_]]] = {x: {} for x in race.labels}
    spent = 0
    for seed in seeds:
        if len(race.alive) == 1:
            break
        for label in race.alive:
            known[label][seed] = right[int(label), seed]
            spent += 1
        race = advance(race, known)
    return race, spent
