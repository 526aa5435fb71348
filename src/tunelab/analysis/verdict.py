"""A study's verdicts in words: the lead, the headline, the sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunelab.analysis.numbers import SCORED_PARTS, Part, column, format_estimate, format_seconds
from tunelab.core.values import Comparison, Estimate

__all__ = [
    "Row",
    "Summary",
    "headline",
    "joined_by_and",
    "lead",
    "verdict_sentences",
]


# --- the summary ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One method (by its label in the study): means over its finished seeds, and their intervals.

    The interval of a score is for other seeds and other rows; that of a cost for other seeds.

    `settings` are those that differ between the rows of the same method. `estimates` has a key for
    every score and cost; where a value is None, `reasons` has the same key.
    """

    label: str
    method: str
    settings: Mapping[str, object]
    n_seeds: int
    n_failed: int
    estimates: Mapping[str, Estimate | None]
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a study says.

    `rows` best first by the mean of `metric` on `part` ("test"; "eval", the validation part, only
    where no trial could be scored on test). `best` is the label with the best mean on validation:
    test chooses nothing. Where seeds are missing (failed trials, a race), means are compared as if
    every method had run every seed; one that a race by this metric dropped is not `best`.
    `comparisons` holds every pair, those of `best` first and from its side. `broken`: methods with
    seeds that broke down (`broken_down`), whose wide intervals put them within any noise.
    `cross_fitted`: how often every row is tested, where a study tests all of them in folds.
    """

    metric: str
    part: Part
    rows: tuple[Row, ...]
    best: str | None
    comparisons: tuple[Comparison, ...]
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    broken: tuple[str, ...] = ()
    cross_fitted: str | None = None

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
        found = [c for c in self.comparisons if c.a == self.best]
        return tuple(sorted(found, key=lambda c: place[c.b]))


def lead(summary: Summary) -> str:
    """The answer without numbers, as "lora comes first of 4 methods, within noise of full"."""
    best = summary.best
    if best is None:
        return "No trial finished, so there is nothing to compare"
    against = summary.against_best()
    if not against:
        return f"{best} was trained; there is nothing to compare it with"
    if all(c.verdict == "better" for c in against):
        return f"{best} is better than {joined_by_and([c.b for c in against])}"
    near = [c.b for c in against if _within_noise(c) and c.b not in summary.broken]
    noise = f", within noise of {joined_by_and(near)}" if near else ""
    return f"{best} was best of {len(against) + 1} methods on validation{noise}"


def headline(summary: Summary) -> str:
    """The answer in one line: `lead`, and what the best method reached with its interval."""
    if summary.best is None:
        return lead(summary)
    shown = column(f"{summary.part}_{summary.metric}")
    estimate = summary.row(summary.best).estimates.get(shown.name)
    percent = " percent" if shown.kind == "percent" else ""
    said = f"{lead(summary)}: {format_estimate(estimate, shown.kind)}{percent} {shown.about}"
    return (
        said if summary.cross_fitted is None else f"{said}, cross-fitted ({summary.cross_fitted})"
    )


def joined_by_and(names: Sequence[str]) -> str:
    """Names as a sentence has them: `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _within_noise(comparison: Comparison) -> bool:
    d = comparison.difference
    if comparison.verdict == "equivalent":
        return True
    return d.low is not None and d.high is not None and d.low <= 0 <= d.high


def verdict_sentences(summary: Summary) -> tuple[str, ...]:
    """What the comparison of each method with the best one says, in words."""
    against = summary.against_best()
    sentences = [c.sentence for c in against]
    cheaper = [c.b for c in against if _within_noise(c) and c.b not in summary.broken]
    cost = {r.label: r.estimates.get("train_seconds") for r in summary.rows}
    own = cost.get(summary.best or "")
    priced = [(e.value, label) for label in cheaper if (e := cost[label]) is not None]
    if own is not None and priced and min(priced)[0] < own.value:
        seconds, label = min(priced)
        costs, against_ = format_seconds(seconds), format_seconds(own.value)
        if costs != against_:
            sentences.append(
                f"{label} is the cheapest within noise of {summary.best}: {costs} of training "
                f"against {against_}"
            )
    return tuple(sentences)
