"""Racing: a method that is surely behind gets no more seeds.

All methods train with one seed after the other. After each round every method is compared with the
leader on the validation rows, and dropped when it is behind by more than other rows and other seeds
could make up for, at a confidence that holds for the whole race. Test plays no part.

Spread: what other rows and other seeds may change of a gap is told in `gaps`. A method is dropped
where it is behind by more than methods that are alike would be, and by more than one that is unlike
the others explains: itself, or a leader that was lucky so far (unless it is behind the second too).
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

from tunelab.core.words import agreeing, counted
from tunelab.stats.gaps import Gap, Known, Right, RowNumbers, erratic_gap, gap_between, known

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


CONFIDENCE = 0.95
LEAST_JUDGED_SEEDS = 2  # one seed says nothing of the spread over seeds
SETTLED_SEEDS = 6  # what is left has as many seeds as a verdict asks for before a race gives up
# Found by simulation (benchmarks/_claims_racing.py), as the largest that keep the best in 95%.
_CHANCE_ERRATIC, _CHANCE_ERRATIC_LEADER = 0.0016, 0.0005
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
    `left_out`: methods for which the budget had no time, not even for a first trial.
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
    left_out: tuple[str, ...] = ()


def start(labels: Sequence[str], seeds: int, confidence: float = CONFIDENCE) -> Race:
    """A race of so many seeds at most, before its first round."""
    return Race(tuple(labels), seeds, confidence, tuple(labels))


def advance(race: Race, right: Right, rows: RowNumbers | None = None) -> Race:
    """Judge after a round: `right` holds all that is known, of everybody and every seed so far.

    `rows`: which rows each seed was judged on, where seeds have rows of their own (the same for
    all methods of a seed).

    A method without a shared seed with the leader (its trials failed) is not judged.
    """
    seen = known(right, rows)
    scores = {label: seen.mean(label) for label in race.labels if label in seen.means}
    running = [x for x in race.alive if x in scores]
    if not running:
        return race
    # The first of equals, and only among those that have run as often as anybody.
    most = max(len(right[x]) for x in running)
    often = sorted((x for x in running if len(right[x]) == most), key=lambda x: -scores[x])
    leader, second = often[0], often[1] if len(often) > 1 else None
    gaps = {x: _gap_to(race, seen, leader, x) for x in running if x != leader}
    judged = {x: g for x, g in gaps.items() if g is not None}
    behind = {x: g for x, g in judged.items() if g.behind >= _steady_gap(race, g, g.seeds)}
    records = (
        _drop_record(race, g, x, leader, _is_behind(race, seen, second, x))
        for x, g in behind.items()
    )
    dropped = [d for d in records if d is not None]
    gone = tuple(d.label for d in dropped)
    left = [g for x, g in judged.items() if x not in gone]
    this = Round(len(race.rounds) + 1, most, leader, race.alive, gone, scores)
    return replace(
        race,
        alive=tuple(x for x in race.alive if x not in gone),
        dropped=(*race.dropped, *dropped),
        rounds=(*race.rounds, this),
        settled=most >= SETTLED_SEEDS and bool(left) and not any(_is_open(race, g) for g in left),
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


def _gap_to(race: Race, seen: Known, ahead: str, label: str) -> Gap | None:
    """None where two methods share too few seeds, or the race has too few."""
    if race.seeds < LEAST_JUDGED_SEEDS:
        return None
    return gap_between(seen, ahead, label, LEAST_JUDGED_SEEDS)


def _is_behind(race: Race, seen: Known, second: str | None, label: str) -> bool:
    """Whether a method is behind the second too, were both like the others."""
    gap = None if second in (None, label) else _gap_to(race, seen, str(second), label)
    return gap is not None and gap.behind >= _steady_gap(race, gap, gap.seeds)


def _drop_record(
    race: Race, gap: Gap, label: str, leader: str, behind_second: bool
) -> Dropped | None:
    """That a method is dropped; None where its gap is not more than luck could make up for."""
    # The leader may be the erratic one, lucky so far; that the second is so too is unlikely.
    chance = _CHANCE_ERRATIC if behind_second else _CHANCE_ERRATIC_LEADER
    needed = max(_steady_gap(race, gap, gap.seeds), erratic_gap(gap, chance))
    if gap.behind < needed:
        return None
    error = math.sqrt(gap.spread(gap.seeds).variance)
    sentence = (
        f"{label} was dropped after {counted(gap.seeds, 'seed')}: {100 * gap.behind:.1f} points "
        f"behind {leader} on {gap.parts.rows:,} validation rows, more than other rows and seeds "
        "could make up for"
    )
    t, threshold = gap.behind / error, needed / error
    number = len(race.rounds) + 1
    return Dropped(label, number, gap.seeds, leader, gap.behind, error, t, threshold, sentence)


def _steady_gap(race: Race, gap: Gap, seeds: int) -> float:
    """The mean gap that drops a method with so many seeds, were both like the others."""
    from scipy.special import stdtrit

    whole = gap.spread(seeds)
    level = _level(race, gap.seed_variance / gap.parts.item)
    return -float(stdtrit(whole.df, level)) * math.sqrt(whole.variance)


def _is_open(race: Race, gap: Gap) -> bool:
    """Whether with all seeds of the race the method may yet be dropped."""
    from scipy.special import ndtri

    last = max(gap.seeds, race.seeds)
    moves = max(gap.parts.seed, gap.seed_variance) * (1 / gap.seeds - 1 / last)
    reach = gap.behind - float(ndtri(_CHANCE_OF_A_DROP)) * math.sqrt(moves)
    return reach >= _steady_gap(race, gap, last)


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
    if len(race.labels) == 1:
        return f"{race.alive[0]} ran alone, so nothing is compared"
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
    own = {f.name: value[f.name] for f in fields(RaceRecord) if f.name not in ("race", "left_out")}
    # Races of before left nobody out.
    return RaceRecord(race=race, left_out=tuple(value.get("left_out", ())), **own)


def sentences(record: RaceRecord) -> tuple[str, ...]:
    """What a race showed, in words: the statement, who was dropped, what that saved."""
    why = {
        "decided": "The race ended when one method was left",
        "seeds": "The race ended with its last seed",
        "settled": "The race ended early: more seeds would not tell apart those that are left",
        "budget": "The race stopped when its time was up; run it again to go on",
    }.get(str(record.stopped), "The race was interrupted; run it again to go on")
    saved = record.trials_full - record.trials_run
    left_out = ", ".join(record.left_out)
    more = f"The budget had no time for {left_out}: run it again, or with a larger one, to see them"
    return (
        f"Race: {record.statement}. {why}.",
        *(f"{d.sentence}." for d in record.race.dropped),
        *([f"{more}."] if left_out else []),
        f"{record.trials_run} of {counted(record.trials_full, 'trial')} "
        f"{agreeing(record.trials_run, 'were')} run ({saved} {agreeing(saved, 'were')} not)."
        if saved
        else f"All {counted(record.trials_full, 'trial')} were run.",
    )


def replay(
    right: NDArray[np.bool_],
    seeds: Sequence[int],
    confidence: float = CONFIDENCE,
    rows: RowNumbers | None = None,
) -> tuple[Race, int]:
    """Race over a recorded grid, right (methods, seeds, rows), seeds in the order given.

    `rows` as for `advance`. Gives the race and the number of trials that it would have run. No
    training.
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
        race = advance(race, known, rows)
    return race, spent
