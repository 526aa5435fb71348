"""Several data sets: average ranks, Friedman's test, and which methods differ (Demsar 2006).

A data set is the repetition here. Demsar, "Statistical Comparisons of Classifiers over Multiple
Data Sets", JMLR 7 (2006): ranks rather than scores, as a point differs between data sets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunelab.analysis.numbers import Part, column, format_estimate
from tunelab.analysis.summary import summarise
from tunelab.core.errors import ConfigError
from tunelab.core.study_folder import StudyRecord
from tunelab.core.values import Estimate
from tunelab.core.words import free_name
from tunelab.stats import holm
from tunelab.stats.metrics import METRICS

__all__ = [
    "Pair",
    "Ranking",
    "critical_difference",
    "ranks_for_display",
    "friedman",
    "rank_rows",
    "rank_studies",
    "rank_values",
    "ranks_to_json",
]


Floats = NDArray[np.float64]
DIGITS = 12  # decimals beyond which scores are the same
LEAST_DATASETS = 6  # with fewer, no two-sided Wilcoxon p can be 0.05 or less


@dataclass(frozen=True, slots=True)
class Pair:
    """Two methods over all data sets: `difference` of average ranks, a minus b (below 0: a ahead).

    `p_value`: Wilcoxon's signed-rank test of the scores, Holm-adjusted over all pairs; `verdict`
    has the direction of that test, from which average ranks among many methods may differ.
    `nemenyi`: whether the ranks differ by the critical difference or more.
    """

    a: str
    b: str
    difference: float
    p_value: float
    nemenyi: bool
    verdict: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """Methods over data sets. `ranks` maps a label to its average rank, best first.

    `table` has, for each data set, each method's mean score; `parts` what it was scored on.
    `friedman_p` is that of Friedman's test with Iman and Davenport's F, None for fewer than three
    methods or two data sets. `left_out`: methods that some data set has no score of.
    """

    metric: str
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    parts: Mapping[str, str]
    table: Mapping[str, Mapping[str, Estimate]]
    ranks: Mapping[str, float]
    wins: Mapping[str, int]
    friedman_p: float | None
    critical_difference: float | None
    pairs: tuple[Pair, ...]
    left_out: tuple[str, ...]
    sentences: tuple[str, ...]


def rank_rows(scores: Floats, higher_is_better: bool = True) -> Floats:
    """Ranks in each row, 1 is best, ties share their mean: (datasets, methods).

    Scores that differ in the last digits (means of the same values in another order) are tied.
    """
    from scipy.stats import rankdata

    rounded = np.round(scores, DIGITS)
    return np.asarray(rankdata(-rounded if higher_is_better else rounded, axis=1))


def friedman(ranks: Floats) -> tuple[float, float, float]:
    """Friedman's chi-squared of ranks (N, k), Iman and Davenport's F, and the p value of F.

    chi2 = 12 N / (k (k + 1)) (sum R_j^2 - k (k + 1)^2 / 4), corrected for ties;
    F = (N - 1) chi2 / (N (k - 1) - chi2) with k - 1 and (k - 1)(N - 1) degrees of freedom.
    """
    from scipy.special import fdtrc

    n, k = ranks.shape
    # Through sums of squares, which corrects for ties as scipy.stats.friedmanchisquare does.
    between = n * float(((ranks.mean(axis=0) - (k + 1) / 2) ** 2).sum())
    within = float(((ranks - (k + 1) / 2) ** 2).sum()) / (n * (k - 1))
    if not within:
        return 0.0, 0.0, 1.0
    chi2 = between / within
    rest = n * (k - 1) - chi2
    if rest <= 1e-9:  # all data sets agree: F is infinite, and the chance of that is exact
        return chi2, math.inf, float(math.factorial(k)) ** (1 - n)
    f = (n - 1) * chi2 / rest
    return chi2, f, float(fdtrc(k - 1, (k - 1) * (n - 1), f))


def critical_difference(methods: int, datasets: int, level: float = 0.95) -> float:
    """Nemenyi's: average ranks that differ by this or more differ for sure, over all pairs.

    q sqrt(k (k + 1) / (6 N)), with q the quantile of the studentised range of k groups with
    infinite degrees of freedom, divided by sqrt(2).
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(level, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * datasets))


def rank_values(
    table: Mapping[str, Mapping[str, Estimate]],
    metric: str,
    parts: Mapping[str, str] | None = None,
    level: float = 0.95,
) -> Ranking:
    """Rank methods from their mean scores by data set: `table[dataset][method]`."""
    datasets = tuple(table)
    everyone = dict.fromkeys(m for row in table.values() for m in row)
    methods = [m for m in everyone if all(m in row for row in table.values())]
    left_out = tuple(m for m in everyone if m not in methods)
    if len(methods) < 2 or len(datasets) < 2:
        raise ConfigError(
            f"rank: expected two or more methods that all data sets have, and two or more data "
            f"sets; found {len(methods)} and {len(datasets)}. Give studies with the same methods."
        )
    scores = np.array([[table[d][m].value for m in methods] for d in datasets])
    if not METRICS[metric].higher_is_better:
        scores = -scores
    ranks = rank_rows(scores)
    average = ranks.mean(axis=0)
    order = sorted(range(len(methods)), key=lambda i: (average[i], methods[i]))
    methods = [methods[i] for i in order]
    scores, ranks, average = scores[:, order], ranks[:, order], average[order]
    n, k = ranks.shape
    p = friedman(ranks)[2] if k > 2 else None
    distance = critical_difference(k, n, level)
    pairs = _pairs(methods, scores, average, distance, level)
    ranking = Ranking(
        metric=metric,
        methods=tuple(methods),
        datasets=datasets,
        parts=parts or dict.fromkeys(datasets, "test"),
        table=table,
        ranks=dict(zip(methods, map(float, average), strict=True)),
        wins={m: int((ranks[:, i] == ranks.min(axis=1)).sum()) for i, m in enumerate(methods)},
        friedman_p=p,
        critical_difference=distance,
        pairs=pairs,
        left_out=left_out,
        sentences=(),
    )
    from dataclasses import replace

    return replace(ranking, sentences=_sentences(ranking, level))


def _pairs(
    methods: Sequence[str], scores: Floats, average: Floats, distance: float, level: float
) -> tuple[Pair, ...]:
    """All pairs, from scores (datasets, methods) of which more is better."""
    places = list(itertools.combinations(range(len(methods)), 2))
    gaps = [scores[:, i] - scores[:, j] for i, j in places]
    adjusted = holm([wilcoxon(d) for d in gaps])
    pairs = []
    for (i, j), d, p in zip(places, gaps, adjusted, strict=True):
        a, b, gap = methods[i], methods[j], float(average[i] - average[j])
        apart = p <= 1 - level + 1e-12
        ahead = float(_signed_ranks(d).sum()) > 0
        verdict = ("better" if ahead else "worse") if apart else "undecided"
        what = f"average rank {average[i]:.2f} against {average[j]:.2f}, p = {p:.2g} after Holm"
        said = f"{a} is {verdict} than {b}" if apart else f"{a} and {b} are undecided"
        pairs.append(Pair(a, b, gap, p, abs(gap) >= distance, verdict, f"{said}: {what}"))
    return tuple(pairs)


def wilcoxon(differences: Floats) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; exact, all signs, up to 16 differences.

    Zeros keep half of their ranks on each side (Demsar 2006, section 3.1.3), which under the null
    turns with the signs of the others: the exact distribution is over the signs that are not zero.
    """
    from scipy.special import ndtr

    signed = _signed_ranks(differences)
    n, ranks = len(signed), np.abs(signed)
    if not n:
        return 1.0
    observed = abs(float(signed.sum())) - 1e-9
    if n <= 16:
        codes = np.arange(2**n)[:, None]
        every = 1 - 2 * ((codes >> np.arange(n)) & 1)
        return float((np.abs(every @ ranks) >= observed).mean())
    return min(1.0, float(2 * ndtr(-observed / math.sqrt(float((ranks**2).sum())))))


def _signed_ranks(differences: Floats) -> Floats:
    """The rank of each difference that is not zero, among all by size, with its sign."""
    from scipy.stats import rankdata

    d = np.round(np.asarray(differences, dtype=np.float64), DIGITS)
    return np.asarray((np.sign(d) * rankdata(np.abs(d)))[d != 0])


def rank_studies(records: Sequence[StudyRecord], metric: str | None = None) -> Ranking:
    """Rank the methods that all studies have, one study a data set, by their mean scores.

    Methods are matched by label. `metric` None takes that of the first study. Raises ConfigError
    where two studies have the same data, or fewer than two methods are in all.
    """
    chosen = metric or records[0].settings["metric"]
    table: dict[str, dict[str, Estimate]] = {}
    parts: dict[str, str] = {}
    prints: dict[str, Path] = {}
    for record in records:
        said = summarise(record, chosen)
        mark = record.data["fingerprint"]
        if mark in prints:
            raise ConfigError(
                f"{record.directory}: has the same data as {prints[mark]}, expected a study for "
                "each data set. Give one of them."
            )
        prints[mark] = record.directory
        name = free_name(record.data["name"], table)
        key = f"{said.part}_{said.metric}"
        table[name] = {r.label: e for r in said.rows if (e := r.estimates.get(key)) is not None}
        parts[name] = said.part
    return rank_values(table, chosen, parts)


def _sentences(r: Ranking, level: float) -> tuple[str, ...]:
    n, k = len(r.datasets), len(r.methods)
    first = r.methods[0]
    what = METRICS[r.metric].label
    said = [
        f"{first} has the best average rank by {what}: {r.ranks[first]:.2f} of {k} methods over "
        f"{n} data sets, first on {r.wins[first]}"
    ]
    if r.friedman_p is not None:
        verdict = "differ" if r.friedman_p <= 1 - level else "are not shown to differ"
        p = "p < 0.001" if r.friedman_p < 0.001 else f"p = {r.friedman_p:.2g}"
        said.append(f"The methods {verdict} (Friedman, Iman and Davenport's F, {p})")
    said += [x.sentence for x in r.pairs if x.verdict != "undecided"]
    if n < LEAST_DATASETS:
        said.append(
            f"{n} data sets: at least {LEAST_DATASETS} are needed before two methods can be told "
            "apart"
        )
    elif all(x.verdict == "undecided" for x in r.pairs):
        said.append("No two methods are told apart (Wilcoxon signed-rank, Holm)")
    if r.left_out:
        said.append(f"Left out, since some data set has no score of them: {', '.join(r.left_out)}")
    return tuple(said)


def ranks_for_display(r: Ranking) -> tuple[list[str], list[list[str]]]:
    """A row a method, best average rank first: average rank, wins, mean score on each data set."""
    rows = []
    for m in r.methods:
        cells = []
        for d in r.datasets:
            part: Part = "test" if r.parts[d] == "test" else "eval"
            cells.append(format_estimate(r.table[d][m], column(f"{part}_{r.metric}").kind))
        rows.append([m, f"{r.ranks[m]:.2f}", str(r.wins[m]), *cells])
    return ["Method", "Average rank", "First on", *r.datasets], rows


def ranks_to_json(r: Ranking) -> dict[str, object]:
    """Plain JSON values."""
    return asdict(r)
