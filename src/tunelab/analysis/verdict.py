"""What is said of a study, as values; and where one method stands against another, in a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tunelab.analysis.collapse import Collapse
from tunelab.analysis.numbers import SCORED_PARTS, Part
from tunelab.core.values import Comparison, Estimate
from tunelab.core.words import as_one, counted
from tunelab.stats import LEAST_SEEDS, Loss
from tunelab.stats.losses import margin_in_points
from tunelab.stats.metrics import METRICS

__all__ = [
    "Answer",
    "Recommendation",
    "Row",
    "Standing",
    "Summary",
    "joined_by_and",
    "margin_in_words",
    "standing",
    "with_chance",
]

Standing = Literal[
    "better",
    "worse",
    "equivalent",
    "ahead, too few seeds to call",
    "behind, too few seeds to call",
    "ahead, not shown",
    "behind, not shown",
    "within noise",
    "not known",
    "broke down",
]


@dataclass(frozen=True, slots=True)
class Row:
    """One method (by its label in the study): means over its finished seeds, and their intervals.

    The interval of a score is for other seeds and other rows; that of a cost for other seeds, or
    the smallest and largest of fewer than six runs (`Estimate.is_range`).

    `settings` are those that differ between the rows of the same method. `estimates` has a key for
    every score and cost; where a value is None, `reasons` has the same key. `n_runs`: of the seeds,
    how many were run; others are the same run, as nothing in the method depends on the seed.
    """

    label: str
    method: str
    settings: Mapping[str, object]
    n_seeds: int
    n_failed: int
    estimates: Mapping[str, Estimate | None]
    reasons: Mapping[str, str]
    n_runs: int | None = None

    @property
    def seeds_in_words(self) -> str:
        """Its seeds as a table shows them: how many, and of how many runs where that is another."""
        if self.n_runs in (None, self.n_seeds):
            return str(self.n_seeds)
        return f"{self.n_seeds} ({counted(self.n_runs or 0, 'run')})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What to take, `why`, and how `sure` that is: what a reader is told first.

    `take` is None where nothing can be taken. `unknown`: what so few test rows cannot tell, ""
    where there are enough. `why` and `unknown` have no full stop, `sure` holds whole sentences.
    """

    take: str | None
    why: str
    sure: str = ""
    unknown: str = ""

    @property
    def sentence(self) -> str:
        """The answer in one sentence, without its full stop."""
        if self.take is None:
            return self.why
        taken = f"ake {self.take}: {self.why}"
        return f"{self.unknown}; t{taken}" if self.unknown else f"T{taken}"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to take where a loss is acceptable.

    `choice` is the cheapest method by `cost` among those whose loss against `best` (best on
    validation) is shown to be below `margin`, and `best` itself; None where nothing finished.
    `losses` has every other method whose runs did not break down; `answer` comes first, `sentence`
    is the same in figures, `reasons` and `conditions` the rest.
    """

    choice: str | None
    best: str | None
    metric: str
    part: str
    margin: float
    cost: str
    losses: tuple[Loss, ...]
    answer: Answer
    sentence: str = ""
    reasons: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """What a study says.

    `rows` best first by the mean of `metric` on `part` ("test"; "eval", the validation part, only
    where no trial could be scored on test). `best` is the label with the best mean on validation:
    test chooses nothing. Where seeds are missing (failed trials, a race), means are compared as if
    every method had run every seed; one that a race by this metric dropped is not `best`.
    `comparisons` holds every pair, those of `best` first and from its side; a pair with runs that
    broke down (`collapses`) has no verdict. `score_of_best`: what `best` truly scores on test, by
    seeds that did not choose it; None where that cannot be told. `advice`: what to take where a
    point may be lost and training is to be short. `cross_fitted`: how often every row is tested,
    where a study tests all of them in folds. `dropped`: methods that a race by this metric left
    behind, which get no more seeds.
    """

    metric: str
    part: Part
    rows: tuple[Row, ...]
    best: str | None
    comparisons: tuple[Comparison, ...]
    advice: Recommendation
    warnings: tuple[str, ...] = ()
    collapses: Mapping[str, Collapse] = field(default_factory=dict)
    score_of_best: Estimate | None = None
    cross_fitted: str | None = None
    dropped: frozenset[str] = frozenset()

    @property
    def answer(self) -> Answer:
        """What to take and why: the first line, wherever a study is spoken of."""
        return self.advice.answer

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the comparison of each method with the best one says, in words."""
        return tuple(c.sentence for c in self.against_best())

    @property
    def split(self) -> str:
        """`part` as data and predictions name it: "test" or "validation"."""
        return SCORED_PARTS[self.part]

    def row(self, label: str) -> Row:
        """The row of a label."""
        return next(r for r in self.rows if r.label == label)

    def against_best(self) -> tuple[Comparison, ...]:
        """`best` against every other method, in the order of the rows."""
        place = {r.label: i for i, r in enumerate(self.rows)}
        of_best = [c for c in self.comparisons if c.a == self.best]
        return tuple(sorted(of_best, key=lambda c: place[c.b]))

    def standing(self, c: Comparison) -> Standing:
        """Where a pair of this study stands; "broke down" where one of the two did."""
        return "broke down" if {c.a, c.b} & set(self.collapses) else standing(c)


def standing(c: Comparison) -> Standing:
    """Where `c.a` stands against `c.b`: the verdict, or what an undecided pair looks like so far.

    "ahead" and "behind": the interval of the pair, on its own, leaves zero out, and yet the rules
    for "better" are not met, for want of seeds or after the correction for all pairs.
    """
    if c.verdict != "undecided":
        return c.verdict
    d = c.difference
    if d.low is None or d.high is None:
        return "not known"
    if d.low <= 0 <= d.high:
        return "within noise"
    ahead = (d.value > 0) == METRICS[c.metric].higher_is_better
    if d.n < LEAST_SEEDS:
        return "ahead, too few seeds to call" if ahead else "behind, too few seeds to call"
    return "ahead, not shown" if ahead else "behind, not shown"


def with_chance(c: Comparison) -> str:
    """A comparison's sentence, and the chance that the difference is worth having."""
    if c.chance is None:
        return c.sentence
    # Never 0 or 100: an estimate from few seeds excludes nothing.
    percent = min(max(round(100 * c.chance), 1), 99)
    worth = margin_in_words(c.margin, c.metric)
    if c.verdict == "better":
        return f"{c.sentence}; by more than {worth} with a chance of {percent}%"
    return f"{c.sentence}; chance that {c.a} is better by more than {worth}: {percent}%"


def margin_in_words(margin: float, metric: str) -> str:
    """A margin in words: 0.01 of accuracy is "1 point"."""
    row = METRICS[metric]
    if not row.percent:
        return f"{margin:g} of {row.label}"
    what = "" if metric == "accuracy" else f" of {row.label}"
    return f"{margin_in_points(margin)}{what}"


def joined_by_and(names: Sequence[str]) -> str:
    """Names as a sentence has them: `a, b and c`; those with a comma of their own in quotes."""
    told = [as_one(n) for n in names]
    return " and ".join(filter(None, [", ".join(told[:-1]), told[-1]]))
