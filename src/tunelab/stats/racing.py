"""Racing: a method that is surely behind gets no more seeds.

All methods train with one seed after the other. After each round every method is compared with the
leader on the validation rows, and dropped when it is behind by more than other rows and other seeds
could make up for, at a confidence that holds for the whole race. Test plays no part.

Spread: with d_si the leader's right answer less the other's, of seed s on row i, the mean over S
seeds and n rows has variance V(seed)/S + V(row)/n + V(rest)/(nS); the parts are estimated apart
(as in `crossed`), that of the seeds from all methods together, and no less than from the pair.
Rounds: their statistics hang together, since rows stay the same and seeds are added, so that one
bound for all rounds is far below one a round. The chance that a path crosses it anywhere is held
by Hunter's inequality (1976; Worsley 1982): of neighbours, only the first crossing counts. With
fewer than five methods the spread over seeds is too uncertain for that, and every round gets an
equal part (Bonferroni). Rivals: each of the K - 1 who could push the best out gets an equal part.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.stats.crossed import (
    components_of_values,
    pooled_seed_variance,
    spread_of,
    unseen_variance,
)

__all__ = [
    "CONFIDENCE",
    "Dropped",
    "Race",
    "RaceRecord",
    "Round",
    "advance",
    "crossing_chance",
    "order",
    "over",
    "race_from_json",
    "race_to_json",
    "replay",
    "sentences",
    "start",
    "statement",
]


Floats = NDArray[np.float64]
# label -> seed -> whether each validation row was right, (n,)
Right = Mapping[str, Mapping[int, NDArray[np.bool_]]]

CONFIDENCE = 0.95
LEAST_JUDGED_SEEDS = 2  # one seed says nothing of the spread over seeds
SETTLED_SEEDS = 6  # what is left has as many seeds as a verdict asks for before a race gives up
# Fewer methods leave the spread over seeds few degrees of freedom: rounds then hang together less
# than Hunter's inequality takes them to (docs/log.md).
_FEW_METHODS = 5
_CHANCE_OF_A_DROP = (
    0.05  # the chance, for each rival, that a race which gives up would have dropped it
)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Who was dropped, after which round, behind whom, by how much (share of rows, validation).

    `t` is `behind` in standard errors (`error`), `threshold` what it had to reach.
    """

    label: str
    round: int
    seeds: int
    leader: str
    behind: float
    error: float
    t: float
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
    """A race so far. `labels` all that began, `alive` those that may be the best.

    `settled`: more seeds, up to `seeds`, are not expected to drop anybody else.
    """

    labels: tuple[str, ...]
    seeds: int
    confidence: float
    alive: tuple[str, ...]
    dropped: tuple[Dropped, ...] = ()
    rounds: tuple[Round, ...] = ()
    settled: bool = False


@dataclass(frozen=True, slots=True)
class RaceRecord:
    """What race.json holds: a race by a `metric`, in words (`statement`), and what it saved.

    `stopped`: "decided", "settled", "seeds" or "budget" (of `budget_seconds`); None where the race
    was interrupted. `trials_full` and `seconds_saved` are of what would have run without a race.
    """

    metric: str
    budget_seconds: float | None
    stopped: str | None
    race: Race
    statement: str
    trials_run: int
    trials_full: int
    seconds_run: float
    seconds_saved: float


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
    seen = {x: g for x in running if x != leader and (g := _gap(race, right, leader, x))}
    found = [_drop_record(x, g, leader, number) for x, g in seen.items() if g.t >= g.threshold]
    gone = tuple(d.label for d in found)
    left = [g for x, g in seen.items() if x not in gone]
    this = Round(number, most, leader, race.alive, gone, scores)
    return replace(
        race,
        alive=tuple(x for x in race.alive if x not in gone),
        dropped=(*race.dropped, *found),
        rounds=(*race.rounds, this),
        settled=most >= SETTLED_SEEDS and bool(left) and not any(g.open for g in left),
    )


def over(race: Race) -> bool:
    """Whether no further round is worth its seeds."""
    return len(race.alive) == 1 or race.settled


def order(race: Race) -> tuple[str, ...]:
    """Who runs first in the next round: the leader, then those nearest to it.

    Where time ends within a round, its seeds went where they decide most.
    """
    if not race.rounds:
        return race.alive
    scores = race.rounds[-1].scores
    return tuple(sorted(race.alive, key=lambda x: -scores.get(x, -1.0)))


@dataclass(frozen=True, slots=True)
class _Gap:
    """How far a method is behind the leader: `behind` with its standard `error`.

    `t` is their ratio, `threshold` what drops the method. `open`: with all seeds of the race it may
    yet be dropped.
    """

    seeds: int
    rows: int
    behind: float
    error: float
    t: float
    threshold: float
    open: bool


def _drop_record(label: str, g: _Gap, leader: str, number: int) -> Dropped:
    sentence = (
        f"{label} was dropped after {g.seeds} seeds: {100 * g.behind:.1f} points behind {leader} "
        f"on {g.rows:,} validation rows, more than other rows and seeds could make up for"
    )
    return Dropped(label, number, g.seeds, leader, g.behind, g.error, g.t, g.threshold, sentence)


def _gap(race: Race, right: Right, leader: str, label: str) -> _Gap | None:
    """Compare with the leader over the seeds that both have; None where there are too few."""
    from scipy.special import ndtri, stdtrit

    shared = sorted(right[leader].keys() & right[label].keys())
    rows = len(right[leader][shared[0]]) if shared else 0
    if len(shared) < LEAST_JUDGED_SEEDS or race.seeds < LEAST_JUDGED_SEEDS or rows < 2:
        return None
    s = len(shared)
    gaps = np.stack([right[leader][k].astype(float) - right[label][k] for k in shared])  # (s, n)
    behind = float(gaps.mean())
    parts = components_of_values(gaps, unseen=unseen_variance(rows))
    pooled, df = pooled_seed_variance(_means_by_method(race, right, shared))
    seed = max(pooled, parts.seed or 0.0)
    level = _level(race, seed / parts.item)

    def spread(seeds: int) -> tuple[float, float]:
        """Standard error and threshold with so many seeds."""
        seed_df = df * max(1, seeds - 1) / (s - 1)
        whole = spread_of(seed / seeds, parts.item, seed_df=seed_df, item_df=parts.item_df)
        variance = max(whole.variance, parts.row_means) if seeds == s else whole.variance
        return math.sqrt(variance), -float(stdtrit(whole.df, level))

    error, threshold = spread(s)
    last, needed = spread(max(s, race.seeds))
    drift = math.sqrt(max(0.0, seed * (1 / s - 1 / max(s, race.seeds))))
    reach = behind - float(ndtri(_CHANCE_OF_A_DROP)) * drift
    return _Gap(s, rows, behind, error, behind / error, threshold, reach >= needed * last)


def _means_by_method(race: Race, right: Right, shared: Sequence[int]) -> Floats:
    """Mean right answers (methods, seeds) of the methods that have all the shared seeds."""
    return np.array(
        [
            [right[x][s].mean() for s in shared]
            for x in race.labels
            if right.get(x) and set(shared) <= right[x].keys()
        ]
    )


def _level(race: Race, ratio: float) -> float:
    """One-sided level of a single look at a rival, so that all looks at all rivals keep theirs."""
    from scipy.special import ndtr

    share = (1 - race.confidence) / max(1, len(race.labels) - 1)
    if len(race.labels) < _FEW_METHODS:
        return share / (race.seeds - 1)
    # Rounded up, which is the cautious side: few bounds need be found.
    quarters = math.ceil(4 * math.log(ratio)) if ratio > 0 else -40
    return float(ndtr(-_bound(quarters, race.seeds, share)))


def crossing_chance(bound: float, ratio: float, seeds: int) -> float:
    """At most how likely it is that a statistic of two equals is ever above `bound`.

    The looks have 2, 3, .. `seeds` seeds; `ratio` is V(seed) / V(row). With s seeds the statistic
    is normal with variance proportional to v_s = ratio / s + 1, and two looks correlate by
    sqrt(v_later / v_earlier), as sums of more and more do. P(any) <= P(first) + sum of P(this one
    is above, the one before was not); the last is 2 T(bound, sqrt((1 - r) / (1 + r))), Owen's T.
    """
    from scipy.special import ndtr, owens_t

    v = ratio / np.arange(LEAST_JUDGED_SEEDS, seeds + 1) + 1
    r = np.sqrt(v[1:] / v[:-1])
    return float(ndtr(-bound) + 2 * owens_t(bound, np.sqrt((1 - r) / (1 + r))).sum())


@functools.lru_cache(maxsize=1000)
def _bound(quarters: int, seeds: int, level: float) -> float:
    """The bound that is crossed with probability `level` where the log ratio is `quarters` / 4."""
    low, high = 0.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        above = crossing_chance(middle, math.exp(quarters / 4), seeds) > level
        low, high = (middle, high) if above else (low, middle)
    return high


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


def race_to_json(record: RaceRecord) -> dict[str, object]:
    """The content of race.json."""
    value = asdict(record)
    race = value.pop("race")
    # The race itself stands among the other keys, where a reader of the file looks for it.
    begin = {k: value.pop(k) for k in ("metric", "budget_seconds", "stopped")}
    return {**begin, **race, **value}


def race_from_json(value: Mapping[str, Any]) -> RaceRecord:
    """Read the content of race.json."""
    race = Race(
        labels=tuple(value["labels"]),
        seeds=value["seeds"],
        confidence=value["confidence"],
        alive=tuple(value["alive"]),
        dropped=tuple(Dropped(**d) for d in value["dropped"]),
        rounds=tuple(
            Round(**{**r, "alive": tuple(r["alive"]), "dropped": tuple(r["dropped"])})
            for r in value["rounds"]
        ),
        settled=value.get("settled", False),
    )
    own = {f.name: value[f.name] for f in fields(RaceRecord) if f.name != "race"}
    return RaceRecord(race=race, **own)


def sentences(record: RaceRecord) -> tuple[str, ...]:
    """What a race showed, in words: the statement, who was dropped, what that saved."""
    why = {
        "decided": "one method was left",
        "seeds": "all seeds were used",
        "settled": "more seeds would not tell apart those that are left",
        "budget": "its time was used up; run it again to go on",
    }.get(str(record.stopped), "it was interrupted; run it again to go on")
    saved = record.trials_full - record.trials_run
    return (
        f"Race: {record.statement}. It ended because {why}.",
        *(f"{d.sentence}." for d in record.race.dropped),
        f"{record.trials_run} of {record.trials_full} trials were run ({saved} were not).",
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
        if over(race):
            break
        for label in race.alive:
            known[label][seed] = right[int(label), seed]
            spent += 1
        race = advance(race, known)
    return race, spent
