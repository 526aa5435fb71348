"""The differences of methods, two by two: value, spread, tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from tunelab.core.values import Estimate
from tunelab.stats.chance import chances_of_more
from tunelab.stats.crossed import Spread, row_parts, shared_part, unseen_variance
from tunelab.stats.metrics import Metric
from tunelab.stats.noise import (
    MethodNoise,
    behrens_fisher_spread,
    draw_statistics,
    noise_by_method,
    step_down,
)
from tunelab.stats.resampling import (
    Floats,
    Measured,
    Runs,
    count_rows,
    count_units,
    defined_resamples,
    groups_of_ids,
    seeds_share_rows,
)
from tunelab.stats.tests import (
    mcnemar,
    paired_score_variance,
    sign_flip,
    sign_flip_of_groups,
)

__all__ = [
    "LEAST_RESAMPLES",
    "Contrast",
    "Discordant",
    "Together",
    "contrasts_between",
    "estimate_of",
    "no_interval_reason",
    "repeats_itself",
    "together",
]

LEAST_RESAMPLES = 20
SOLVER_NOISE = 0.01


@dataclass(frozen=True, slots=True)
class Discordant:
    """Rows that tell two methods apart: shares of `rows` on which `only_a` or `only_b` is right.

    `shared`: the part of a row's variance that all seeds have in common.
    """

    only_a: float
    only_b: float
    rows: int
    shared: float

    def variance_at(self, difference: float) -> float:
        """Variance of the mean difference over other rows if the true one were `difference`."""
        return self.shared * paired_score_variance(self.only_a, self.only_b, self.rows, difference)


@dataclass(frozen=True, slots=True)
class Contrast:
    """a minus b. Variances are of metric units squared.

    `noises` are what the seeds of a and of b do (empty where seeds say nothing), `row_variance`
    what other rows do to `value`, `item_variance` the part of it that more seeds do not take away.
    `spread`: of `value`; None where there is no interval. `p_value`: of `test`, of this pair alone.
    `p_seeds`: of the sign-flip over seeds, for information; None where the seeds carry no spread,
    or there is one. `units`: as how many independent ones the rows count, fewer where they are in
    groups. `discordant`: of accuracy. `most`: the largest difference that can be, 1 for
    metrics in [0, 1]; intervals end there. `shared_rows`: all seeds were scored on the same rows.
    """

    a: str
    b: str
    value: float
    seeds: int
    rows: int
    deterministic: bool
    noises: tuple[MethodNoise, ...] = ()
    row_variance: float | None = None
    item_variance: float | None = None
    spread: Spread | None = None
    p_value: float | None = None
    test: str = "none"
    p_seeds: float | None = None
    discordant: Discordant | None = None
    most: float = math.inf
    shared_rows: bool = True
    units: int | None = None

    @property
    def noises_of_more_seeds(self) -> tuple[MethodNoise, ...]:
        """What more seeds take away: in folds only what is the seeds' own."""
        if self.shared_rows:
            return self.noises
        return tuple(replace(n, variance=n.seed, rest=0.0) for n in self.noises)

    def interval(self, level: float) -> tuple[float, float] | None:
        """The interval at a level, within what the metric can reach; None without a variance."""
        if self.spread is None:
            return None
        half = self.spread.half_width(level)
        return max(-self.most, self.value - half), min(self.most, self.value + half)

    def variance_at(self, difference: float) -> float:
        """Variance of `value` if the true difference were this one.

        Of accuracy by Tango's score (1998): the rows must then disagree at least that much, however
        few did in this sample. Of other metrics it is what was observed.
        """
        if self.spread is None or self.row_variance is None:
            return math.inf
        if self.discordant is None:
            return self.spread.variance
        by_seed = max(0.0, self.spread.variance - self.row_variance)
        return float(self.discordant.variance_at(difference) + by_seed)

    def p_not_above(self, limit: float) -> float | None:
        """One-sided p of the hypothesis that the true difference is `limit` or less.

        None where the spread over seeds is unknown.
        """
        return self._p_beyond(limit, -1.0)

    def p_not_below(self, limit: float) -> float | None:
        """One-sided p of the hypothesis that the true difference is `limit` or more."""
        return self._p_beyond(limit, 1.0)

    def _p_beyond(self, limit: float, sign: float) -> float | None:
        from scipy.special import stdtr

        if self.spread is None or (self.seeds == 1 and not self.deterministic):
            return None
        error = math.sqrt(max(self.variance_at(limit), 1e-300))
        return float(stdtr(self.spread.df, sign * (self.value - limit) / error))


# --- from measured methods ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """All contrasts of some methods, and p values that hold for all of them at once.

    `adjusted` has each contrast's p value, None where it has no test. `simultaneous`: the level
    that each interval needs for all of them to hold at once at 95%, say, is `level_for_all(0.95)`.
    """

    contrasts: tuple[Contrast, ...]
    adjusted: tuple[float | None, ...]
    drawn: Floats
    means: Floats
    covariance: Floats
    places: tuple[tuple[int, int], ...]

    def chances(self, metric: Metric, margin: float) -> list[float | None]:
        """For each contrast, the probability that a is better than b by more than the margin.

        None where the metric is not in [0, 1], or the spread over seeds is unknown.
        """
        known = [
            k
            for k, c in enumerate(self.contrasts)
            if c.spread is not None and (c.seeds > 1 or c.deterministic)
        ]
        out: list[float | None] = [None] * len(self.contrasts)
        if not metric.percent or not known:
            return out
        sign = 1.0 if metric.higher_is_better else -1.0
        of_known = chances_of_more(
            sign * self.means,
            self.covariance,
            [self.places[k] for k in known],
            [self.contrasts[k].spread.df for k in known],  # type: ignore[union-attr]
            margin,
        )
        for k, chance in zip(known, of_known, strict=True):
            out[k] = chance
        return out

    def level_for_all(self, level: float) -> float:
        """The level of one interval at which all hold at once with `level`."""
        pairs = sum(c.spread is not None for c in self.contrasts)
        if pairs < 2:
            return level
        if self.drawn.shape[1] < pairs:  # some pair has no test: with one seed
            return 1 - (1 - level) / pairs
        least = float(np.quantile(self.drawn.min(axis=1), 1 - level))
        return 1 - max(least, (1 - level) / pairs)


def together(measured: Sequence[Measured], metric: Metric, rng: np.random.Generator) -> Together:
    """Every pair of methods that share a seed, and their tests adjusted for being many."""
    measured = [m for m in measured if m.values]
    pairs = list(combinations(range(len(measured)), 2))
    contrasts, noises, places = _contrasts(measured, pairs, metric, rng)
    seeds = _seeds_of_means(measured)
    means = np.array(
        [np.mean([m.values[s] for s in own]) for m, own in zip(measured, seeds, strict=True)]
    )
    rows = _row_covariance(measured, seeds)
    by_seed = np.diag([n.seed / len(own) for n, own in zip(noises, seeds, strict=True)])
    tested = [
        (c.spread, c.row_variance, c.seeds if c.noises else None, place, c.p_value)
        for c, place in zip(contrasts, places, strict=True)
        if c.p_value is not None and c.spread is not None and c.row_variance is not None
    ]
    drawn = np.empty((0, len(tested)))
    adjusted = [c.p_value for c in contrasts]
    if len(tested) > 1:
        drawn = draw_statistics(rows, noises, [t[3] for t in tested], [t[:3] for t in tested], rng)
        stepped = iter(step_down([t[4] for t in tested], drawn))
        adjusted = [None if p is None else next(stepped) for p in adjusted]
    return Together(tuple(contrasts), tuple(adjusted), drawn, means, rows + by_seed, tuple(places))


def contrasts_between(
    reference: Measured, others: Sequence[Measured], metric: Metric, rng: np.random.Generator
) -> list[Contrast]:
    """The reference minus each of the others; those without a shared seed are left out."""
    measured = [m for m in (reference, *others) if m.values]
    return _contrasts(measured, [(0, k) for k in range(1, len(measured))], metric, rng)[0]


def _contrasts(
    measured: Sequence[Measured],
    pairs: Sequence[tuple[int, int]],
    metric: Metric,
    rng: np.random.Generator,
) -> tuple[list[Contrast], list[MethodNoise], list[tuple[int, int]]]:
    shared_rows = seeds_share_rows([m.runs for m in measured])
    silent = [repeats_itself(m.runs, list(m.values)) for m in measured]
    noises = noise_by_method(measured, silent, shared_rows)
    contrasts, places = [], []
    for a, b in pairs:
        both = measured[a], measured[b]
        c = _contrast(both, (noises[a], noises[b]), shared_rows, metric, rng)
        if c is not None:
            contrasts.append(c)
            places.append((a, b))
    return contrasts, noises, places


def _seeds_of_means(measured: Sequence[Measured]) -> list[list[int]]:
    """Each method's own seeds; of folds those that all have, since others test other rows."""
    own = [list(m.values) for m in measured]
    if not own or seeds_share_rows([m.runs for m in measured]):
        return own
    common = [s for s in own[0] if all(s in m.values for m in measured)]
    return [common or seeds for seeds in own]


def _row_covariance(measured: Sequence[Measured], seeds: Sequence[Sequence[int]]) -> Floats:
    """What other rows do to the methods' means over these seeds, (M, M)."""
    if len(measured) < 2:
        return np.zeros((len(measured), len(measured)))
    means = np.stack(
        [
            np.mean([m.resampled[s] for s in own], axis=0)
            for m, own in zip(measured, seeds, strict=True)
        ],
        axis=1,
    )
    return np.atleast_2d(np.cov(defined_resamples(means), rowvar=False))


def _contrast(
    pair: tuple[Measured, Measured],
    noises: tuple[MethodNoise, MethodNoise],
    shared_rows: bool,
    metric: Metric,
    rng: np.random.Generator,
) -> Contrast | None:
    """The difference over the seeds that both have; None where they have none in common."""
    a, b = pair
    seeds = [s for s in a.values if s in b.values]
    if not seeds:
        return None
    by_seed = np.array([a.values[s] - b.values[s] for s in seeds])
    drawn = defined_resamples(np.stack([a.resampled[s] - b.resampled[s] for s in seeds], axis=1))
    rows, units = count_rows(a.runs, seeds), count_units(a.runs, seeds)
    deterministic = repeats_itself(a.runs, seeds) and repeats_itself(b.runs, seeds)
    # Apart, because a mean of equal values may differ in the last digit.
    value = float(by_seed[0] if by_seed.min() == by_seed.max() else by_seed.mean())
    names = a.runs.label, b.runs.label
    if units < 2 or len(drawn) < LEAST_RESAMPLES:
        return Contrast(*names, value, len(seeds), rows, deterministic)
    of_mean, of_one, item_df = row_parts(drawn, units)
    of_one *= len(a.runs.by_seed[seeds[0]].labels) / rows  # a fold has a part of the rows
    shared = shared_part(of_mean, of_one, rows, 1 if deterministic else len(seeds))
    # What rows do not show of a share of them; of other metrics there is no such rule.
    unseen = shared * unseen_variance(rows) if metric.percent else 0.0
    seeds_matter = len(seeds) > 1 and not deterministic and not _same_scores(a.runs, b.runs, seeds)
    known = noises if seeds_matter else ()
    spread = behrens_fisher_spread(of_mean + unseen, known, len(seeds), item_df)
    # In folds more seeds divide the same rows anew: they take nothing away of what rows bring.
    rest = sum(n.rest for n in known) / len(seeds) if shared_rows else 0.0
    tested = _test_of((a.runs, b.runs), seeds, metric)
    p_value, test = _p_of_pair((a.runs, b.runs), seeds, tested, spread, value, rng=rng)
    several = tested == "seeds and rows" and len(seeds) > 1
    return Contrast(
        *names,
        value,
        len(seeds),
        rows,
        deterministic,
        known,
        of_mean + unseen,
        max(0.0, of_mean - rest) + unseen,
        spread,
        p_value,
        test,
        sign_flip(by_seed, rng) if several else None,
        _discordant(pair, seeds, (rows, units), shared, of_mean)
        if metric.name == "accuracy"
        else None,
        1.0 if metric.percent else math.inf,
        shared_rows,
        units,
    )


def _test_of(
    pair: tuple[Runs, Runs], seeds: Sequence[int], metric: Metric
) -> Literal["seeds and rows", "exact over rows", "rows"]:
    """What a pair is tested over, given whether its seeds repeat each other."""
    # Seeds that move the scores but no class (models that collapsed) repeat nothing that a metric
    # of classes reads: the test is over rows too, but six seeds stay the rule.
    within = math.inf if metric.needs == "class" else SOLVER_NOISE
    if not all(repeats_itself(r, seeds, within) for r in pair):
        return "seeds and rows"
    return "exact over rows" if metric.name == "accuracy" else "rows"


def _p_of_pair(
    pair: tuple[Runs, Runs],
    seeds: Sequence[int],
    tested: Literal["seeds and rows", "exact over rows", "rows"],
    spread: Spread,
    value: float,
    *,
    rng: np.random.Generator,
) -> tuple[float | None, str]:
    """The p value of a pair alone, and the test's name; None with one seed of several kinds."""
    if tested == "seeds and rows":
        p_value = spread.p_value(value) if len(seeds) > 1 else None
        return p_value, "t test over seeds and test rows"
    if tested == "rows":
        grouped = "groups of test rows" if pair[0].groups is not None else "test rows"
        return spread.p_value(value), f"t test over {grouped}"
    a, b = (r.by_seed[seeds[0]] for r in pair)
    right = a.predicted == a.labels, b.predicted == b.labels
    if (groups := pair[0].groups) is not None:  # McNemar's rows are independent
        p_value = sign_flip_of_groups(*right, groups_of_ids(a.ids, groups), rng)
        return p_value, "sign-flip over groups of test rows"
    return mcnemar(*right), "exact McNemar over test rows"


def _discordant(
    pair: tuple[Measured, Measured],
    seeds: Sequence[int],
    counts: tuple[int, int],
    shared: float,
    of_mean: float,
) -> Discordant:
    """Shares of rows on which one alone is right, over all seeds.

    `counts`: rows, and as how many independent ones they count. Rows in groups are as many as give
    the variance of the mean that groups show, `of_mean`: no fewer than these, no more than those.
    """
    a, b = pair
    rows, units = counts
    only_a = only_b = total = 0
    for s in seeds:
        p, q = a.runs.by_seed[s], b.runs.by_seed[s]
        right_a, right_b = p.predicted == p.labels, q.predicted == q.labels
        only_a += int((right_a & ~right_b).sum())
        only_b += int((right_b & ~right_a).sum())
        total += len(p.labels)
    apart = Discordant(only_a / total, only_b / total, rows, shared)
    if units == rows:
        return apart
    of_rows = apart.variance_at((only_a - only_b) / total)
    like = int(rows * of_rows / of_mean) if of_mean > 0 else units
    return replace(apart, rows=max(units, min(rows, like)))


def _same_scores(a: Runs, b: Runs, seeds: Sequence[int]) -> bool:
    """Whether two methods are one: seed by seed the same scores."""
    return all(np.array_equal(a.by_seed[s].scores, b.by_seed[s].scores) for s in seeds)


def repeats_itself(runs: Runs, seeds: Sequence[int], within: float = SOLVER_NOISE) -> bool:
    """Whether a method gives the same predictions with every one of two or more seeds.

    Scores may differ by `within` of their standard deviation: that is a solver that visits rows in
    another order, not another model. Seeds with rows of their own (folds) repeat nothing.
    """
    first = runs.by_seed[seeds[0]]
    spread = float(first.scores.std())
    tolerance = within * spread if spread else 0.0
    others = [runs.by_seed[s] for s in seeds[1:]]
    return bool(others) and all(
        p.ids == first.ids
        and np.array_equal(p.predicted, first.predicted)
        and float(np.abs(p.scores - first.scores).max()) <= tolerance
        for p in others
    )


# --- as estimates ---------------------------------------------------------------------------


def no_interval_reason(rows: int) -> str:
    """Why an estimate has no interval."""
    why = "one test row" if rows < 2 else "too few resamples of the test rows have a value"
    return f"no interval: {why}"


def estimate_of(c: Contrast, level: float, resamples: int) -> Estimate:
    """A contrast as an estimate, with what its interval is over."""
    interval = c.interval(level)
    if interval is None or c.spread is None:
        return Estimate(
            c.value, None, None, c.seeds, f"paired difference; {no_interval_reason(c.rows)}"
        )
    what = f"{c.rows:,} test rows"
    if c.units is not None and c.units < c.rows:
        what = f"the groups of {what}, which count as {c.units:,} groups of one size"
    over, df = f"item bootstrap ({resamples:,} resamples of {what})", c.spread.df
    if c.deterministic:
        seeds = f"; each of {c.seeds} seeds gives the same predictions, so seeds carry no spread"
    elif c.seeds == 1:
        seeds = "; one seed: the spread over seeds is unknown and not in the interval"
    else:
        seeds = f" crossed with the spread over {c.seeds} seeds, Student t with {df:.1f} df"
    return Estimate(c.value, interval[0], interval[1], c.seeds, f"paired; {over}{seeds}")
