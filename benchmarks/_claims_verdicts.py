"""Claims about two and more methods: better, equivalent, intervals, losses, power, forecasts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from _claims import Claim, Goal, at_most, between, share_of
from _quickly import drawn_once, verdicts_alone
from _worlds import World, as_runs, draw_labels, draw_right, study_of
from tunelab.core.values import Comparison
from tunelab.stats import Runs, compare_all, components, detectable_difference, losses, means

__all__ = ["claims"]

RESAMPLES = 400  # of the rows, for each study; real studies take 2,000
EQUALS = "no false 'better' or 'worse' among equals, all pairs together"
INTERVAL = "the 95% interval of a difference holds the true one"


def _spread(sd: float | tuple[float, ...]) -> str:
    if isinstance(sd, float):
        return f"{100 * sd:g} points"
    return f"{100 * min(sd):g} to {100 * max(sd):g} points"


def _cell(world: World, methods: int, size: tuple[int, int], accuracy: float) -> str:
    seeds, rows = size
    said = [
        f"{methods} methods" if methods > 2 else "2 methods",
        f"{seeds} seeds",
        f"{rows:,} rows",
        f"accuracy {100 * accuracy:g}",
        f"seed sd {_spread(world.seed_sd)} ({world.shape})",
    ]
    return ", ".join([*said, world.name] if world.name else said)


def _judged(
    world: World, accuracies: Sequence[float], size: tuple[int, int], studies: int, margin: float
) -> Iterator[list[Comparison]]:
    for i in range(studies):
        runs, rng = study_of(world, accuracies, size, i)
        yield compare_all(runs, "accuracy", rng, margin=margin, resamples=RESAMPLES)


# --- false "better" -----------------------------------------------------------------------------

NULLS: tuple[tuple[World, int, tuple[int, int], float], ...] = (
    (World("", seed_sd=0.005), 2, (6, 300), 0.86),
    (World("", seed_sd=0.015), 2, (6, 1000), 0.86),
    (World("", seed_sd=(0.002, 0.025)), 2, (6, 1000), 0.86),
    (World("", seed_sd=(0.002, 0.025), shape="normal"), 2, (6, 1000), 0.86),
    (World("", seed_sd=0.002), 2, (6, 150), 0.98),
    (World("", seed_sd=0.01, shape="heavy"), 2, (20, 300), 0.60),
    (World("rows alone", own=0.15, fresh=0.0, seed_sd=0.0003), 2, (6, 300), 0.90),
    (World("", seed_sd=(0.002, 0.002, 0.02, 0.025)), 4, (6, 1000), 0.86),
    (World("", seed_sd=0.01, shape="heavy"), 5, (6, 1000), 0.86),
    (World("", seed_sd=0.015), 8, (6, 1000), 0.86),
    (World("", seed_sd=0.005), 8, (6, 300), 0.86),
    (World("", seed_sd=(*(0.002,) * 7, 0.025)), 8, (6, 1000), 0.86),
    (World("", seed_sd=(*(0.025,) * 7, 0.002), shape="normal"), 8, (6, 1000), 0.86),
    (World("", seed_sd=0.015, shape="normal"), 12, (6, 1000), 0.86),
    (World("", seed_sd=0.01), 12, (10, 300), 0.75),
    (World("", seed_sd=0.01), 4, (20, 5000), 0.86),
)


def _false_better(studies: int) -> Iterator[Claim]:
    for world, methods, size, accuracy in NULLS:
        n = studies if methods < 8 else max(100, studies // 2)
        hits = [
            any(c.verdict in {"better", "worse"} for c in judged)
            for judged in _judged(world, [accuracy] * methods, size, n, 0.01)
        ]
        cell = _cell(world, methods, size, accuracy)
        yield share_of(EQUALS, "verdicts", cell, hits, at_most(0.05))
    yield _false_better_macro_f1(studies)


def _rare_class_runs(rows: int, i: int) -> tuple[list[Runs], np.random.Generator]:
    """Two equal methods on labels of which one class has 3%."""
    rng = np.random.default_rng([7, rows, i])
    labels = draw_labels(rows, (0.55, 0.42, 0.03), rng)
    right = draw_right(World("", seed_sd=0.01), [0.85, 0.85], 6, rows, rng)
    return as_runs(right, labels, 3), rng


def _false_better_macro_f1(studies: int) -> Claim:
    hits = []
    for i in range(studies):
        runs, rng = _rare_class_runs(600, i)
        judged = compare_all(runs, "f1_macro", rng, resamples=RESAMPLES)
        hits.append(any(c.verdict in {"better", "worse"} for c in judged))
    cell = "2 methods, 6 seeds, 600 rows, macro-F1, a class of 3%"
    return share_of(EQUALS, "verdicts", cell, hits, at_most(0.05))


# --- intervals ----------------------------------------------------------------------------------

COVERED: tuple[tuple[World, tuple[int, int], tuple[float, float]], ...] = (
    (World("", seed_sd=0.005), (6, 300), (0.865, 0.85)),
    (World("", seed_sd=0.015), (6, 1000), (0.865, 0.85)),
    (World("", seed_sd=(0.002, 0.025)), (6, 1000), (0.88, 0.85)),
    (World("", seed_sd=0.01, shape="heavy"), (10, 300), (0.66, 0.60)),
    (World("", seed_sd=0.002), (6, 150), (0.98, 0.96)),
    (World("", seed_sd=0.005), (3, 1000), (0.865, 0.85)),
    (World("rows alone", own=0.15, fresh=0.0, seed_sd=0.0003), (6, 300), (0.90, 0.88)),
    (World("one-sided", own=0.0, fresh=0.0, seed_sd=0.0003), (6, 300), (0.93, 0.90)),
    (World("", seed_sd=0.01), (20, 5000), (0.865, 0.85)),
)


def _coverage(studies: int) -> Iterator[Claim]:
    for world, size, (a, b) in COVERED:
        hits = []
        for (c,) in _judged(world, [a, b], size, studies, 0.01):
            d = c.difference
            hits.append(d.low is not None and d.high is not None and d.low <= a - b <= d.high)
        cell = _cell(world, 2, size, a)
        yield share_of(INTERVAL, "verdicts, tables", cell, hits, between(0.93, 0.97))
    for world, methods, size in (
        (World("", seed_sd=0.015), 8, (6, 1000)),
        (World("", seed_sd=(0.002, 0.002, 0.02, 0.025)), 4, (6, 1000)),
    ):
        yield _all_at_once(world, methods, size, max(100, studies // 2))


def _all_at_once(world: World, methods: int, size: tuple[int, int], studies: int) -> Claim:
    true = {f"m{k}": 0.85 + 0.005 * (k % 4) for k in range(methods)}
    hits = [
        all(
            c.simultaneous is not None
            and c.simultaneous[0] - 1e-9 <= true[c.a] - true[c.b] <= c.simultaneous[1] + 1e-9
            for c in judged
        )
        for judged in _judged(world, list(true.values()), size, studies, 0.01)
    ]
    cell = _cell(world, methods, size, 0.85)
    said = "the intervals of all pairs hold at once"
    return share_of(said, "comparison.json", cell, hits, Goal(0.93, 1.0))


# --- equivalence and losses ---------------------------------------------------------------------

AT_MARGIN: tuple[tuple[World, tuple[int, int], float, float], ...] = (
    (World("", seed_sd=0.005), (6, 1000), 0.86, 0.03),
    (World("", seed_sd=0.015), (10, 1000), 0.86, 0.03),
    (World("one-sided", own=0.0, fresh=0.0, seed_sd=0.0003), (6, 300), 0.93, 0.02),
    (World("one-sided", own=0.0, fresh=0.0, seed_sd=0.0003), (6, 1000), 0.97, 0.01),
    (World("one-sided", own=0.01, fresh=0.0, seed_sd=0.001), (6, 1000), 0.93, 0.01),
    (World("", own=0.03, fresh=0.01, seed_sd=0.002), (6, 5000), 0.90, 0.01),
)


def _false_equivalent(studies: int) -> Iterator[Claim]:
    for world, size, accuracy, margin in AT_MARGIN:
        hits, lost = [], []
        for i in range(studies):
            runs, rng = study_of(world, [accuracy, accuracy - margin], size, i)
            (c,) = compare_all(runs, "accuracy", rng, margin=margin, resamples=RESAMPLES)
            hits.append(c.verdict == "equivalent")
            (loss,) = losses(runs[0], runs[1:], "accuracy", rng, margin=margin, resamples=RESAMPLES)
            lost.append(loss.acceptable)
        cell = f"{_cell(world, 2, size, accuracy)}, truly {100 * margin:g} points apart"
        said = "no false 'equivalent' at the margin"
        yield share_of(said, "verdicts", cell, hits, at_most(0.05))
        said = "'loses less than the margin' is not said of one that loses the margin"
        yield share_of(said, "recommend", cell, lost, at_most(0.05))


# --- power and forecasts ------------------------------------------------------------------------


def _components(world: World, accuracies: Sequence[float]) -> tuple[float, float, float]:
    """(disagreement, the part of it that seeds share, sd of one seed's difference) of two."""
    rng = np.random.default_rng(1)
    right = draw_right(world, accuracies, 40, 20_000, rng)
    gaps = right[0].astype(float) - right[1]
    within, common, seed = components(gaps)
    return float((gaps != 0).mean()), common / within, math.sqrt(seed)


def _stated(world: World, methods: int, size: tuple[int, int]) -> float:
    """What tunelab states as detectable if it knows how such methods, so far apart, differ."""
    stated = 0.02
    for _ in range(3):
        disagreement, shared, seed_sd = _components(world, [0.85 + stated, 0.85])
        stated = detectable_difference(
            size[1],
            size[0],
            disagreement,
            seed_sd=seed_sd,
            shared=shared,
            pairs=math.comb(methods, 2),
        )
    return stated


POWER: tuple[tuple[World, int, tuple[int, int]], ...] = (
    (World("", seed_sd=0.005, shape="normal"), 2, (6, 300)),
    (World("", seed_sd=0.015, shape="normal"), 2, (6, 1000)),
    (World("", seed_sd=0.015), 2, (10, 1000)),
    (World("rows alone", own=0.15, fresh=0.0, seed_sd=0.0003), 2, (6, 1000)),
    (World("", seed_sd=0.01), 4, (6, 1000)),
)


def _power(studies: int) -> Iterator[Claim]:
    for world, methods, size in POWER:
        stated = _stated(world, methods, size)
        true = [0.85 + stated, *[0.85] * (methods - 1)]
        hits = [
            judged[0].verdict == "better" for judged in _judged(world, true, size, studies, 0.01)
        ]
        cell = f"{_cell(world, methods, size, 0.85)}, {100 * stated:.1f} points"
        said = "a difference that was stated as detectable is found"
        yield share_of(said, "plan", cell, hits, between(0.75, 0.85))


FORECAST: tuple[tuple[World, tuple[int, int]], ...] = (
    (World("", seed_sd=0.005), (6, 500)),
    (World("", seed_sd=0.015), (6, 1000)),
)


def _forecasts(studies: int) -> Iterator[Claim]:
    """An undecided study says what would decide: a new one with that much is drawn and judged.

    The new study is of the same two methods, whose true difference is what the first one saw: that
    is what the forecast assumes, and says.
    """
    for world, size in FORECAST:
        by_rows, by_seeds = [], []
        for i in itertools.count():
            if i >= 4 * studies or len(by_rows) >= studies // 2:
                break
            c = _one(world, 0.87, 0.85, size, i)
            if c.verdict != "undecided":
                continue
            a, b = 0.86 + c.difference.value / 2, 0.86 - c.difference.value / 2
            if c.rows_needed and size[1] + c.rows_needed <= 20_000:
                larger = size[0], size[1] + c.rows_needed
                by_rows.append(_one(world, a, b, larger, 10_000 + i).verdict != "undecided")
            if c.seeds_needed and size[0] + c.seeds_needed <= 40:
                longer = size[0] + c.seeds_needed, size[1]
                by_seeds.append(_one(world, a, b, longer, 20_000 + i).verdict != "undecided")
        cell = _cell(world, 2, size, 0.86)
        for said, hits in (
            ("'needs about N test rows' decides (even odds)", by_rows),
            ("'needs about N more seeds' decides (even odds)", by_seeds),
        ):
            if len(hits) >= 20:
                yield share_of(said, "verdicts", cell, hits, between(0.40, 0.60))


def _one(world: World, a: float, b: float, size: tuple[int, int], i: int) -> Comparison:
    runs, rng = study_of(world, [a, b], size, i)
    return compare_all(runs, "accuracy", rng, resamples=RESAMPLES)[0]


# --- the mean of one method ---------------------------------------------------------------------

MEANS: tuple[tuple[World, tuple[int, int], float], ...] = (
    (World("", seed_sd=0.005), (6, 300), 0.86),
    (World("", seed_sd=0.015), (3, 1000), 0.86),
    (World("", seed_sd=0.002), (6, 150), 0.98),
    (World("", seed_sd=0.02), (10, 1000), 0.70),
)


def _mean_coverage(studies: int) -> Iterator[Claim]:
    for world, size, accuracy in MEANS:
        hits = []
        for i in range(studies):
            runs, rng = study_of(world, [accuracy], size, i)
            e = means(runs, ["accuracy"], rng, resamples=RESAMPLES)["m0", "accuracy"]
            hits.append(e.low is not None and e.high is not None and e.low <= accuracy <= e.high)
        cell = _cell(world, 1, size, accuracy)
        said = "the 95% interval of a method's mean holds the true one"
        yield share_of(said, "tables", cell, hits, between(0.93, 0.97))


PARTS: dict[str, Callable[[int], Iterator[Claim]]] = {
    "better": _false_better,
    "interval": _coverage,
    "equivalent": _false_equivalent,
    "power": _power,
    "forecast": _forecasts,
    "mean": _mean_coverage,
}


def claims(studies: int) -> Iterator[Claim]:
    """Every claim of this file, one after the other."""
    for name, part in PARTS.items():
        with drawn_once() if name == "forecast" else verdicts_alone():
            yield from part(studies)
