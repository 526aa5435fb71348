"""Prove the statistics by simulation: python benchmarks/statistics.py [--studies 1000] [--write]

Studies whose truth is known are drawn, and given to the functions that judge real ones
(`stats.compare_all`). Counted: how often "better" is said of equals, how often an interval holds
the truth, how often "equivalent" is said of two methods that are exactly a margin apart, and how
often a difference is found that `stats.detectable_difference` calls detectable. Seeds are fixed:
the same command gives the same figures. `--write` puts them into docs/statistics.md.
"""

# ruff: noqa: A005  the guard below makes the standard module win wherever it is wanted

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "statistics":
    # A script in this folder, or a library it imports, wants the standard module of this name.
    import importlib.util
    import sysconfig

    _standard = Path(sysconfig.get_paths()["stdlib"]) / "statistics.py"
    _spec = importlib.util.spec_from_file_location("statistics", _standard)
    assert _spec is not None
    assert _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["statistics"] = _module
    _spec.loader.exec_module(_module)

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import norm

from tunelab.core.values import Comparison, Predictions
from tunelab.stats import Runs, compare_all, detectable_difference

PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
RESAMPLES = 400  # of the rows, for each study; real studies take 2,000


# --- studies whose truth is known --------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """What moves a prediction, on a probit scale where `noise` (a seed on a row) is one.

    `item`: how hard a row is for everybody; `own`: for one method, whatever the seed; `seed_sd`:
    the standard deviation of a method's accuracy over seeds, on endless rows. `heavy`: a seed's
    effect is from a t distribution with 3 degrees of freedom of the same spread.
    """

    name: str
    item: float
    own: float
    noise: float
    seed_sd: float
    heavy: bool = False


WORLDS = (
    World("rows and seeds", 2.0, 0.7, 1.0, 0.006),
    World("rows alone", 2.0, 1.0, 0.3, 0.0005),
    World("seeds above all", 2.0, 0.3, 0.6, 0.02),
    World("seeds, some far off", 2.0, 0.5, 0.8, 0.01, heavy=True),
)


def draw(
    world: World, accuracies: Sequence[float], seeds: int, rows: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Who is right: (methods, seeds, rows). `accuracies` are the true ones, over seeds and rows."""
    total = math.sqrt(world.item**2 + world.own**2 + world.noise**2)
    item = world.item * rng.normal(size=rows)
    right = np.empty((len(accuracies), seeds, rows), dtype=bool)
    for m, accuracy in enumerate(accuracies):
        at = float(ndtri(accuracy))
        sd = world.seed_sd / float(norm.pdf(at)) * total
        at *= math.sqrt(total**2 + sd**2)
        own = world.own * rng.normal(size=rows)
        effect = (
            rng.standard_t(3, size=seeds) / math.sqrt(3) if world.heavy else rng.normal(size=seeds)
        )
        noise = world.noise * rng.normal(size=(seeds, rows))
        right[m] = at + (sd * effect)[:, None] + item + own + noise > 0
    return right


def as_runs(right: NDArray[np.bool_]) -> list[Runs]:
    """Predictions that are right where they should be: two classes, in turn."""
    _, seeds, rows = right.shape
    labels = np.arange(rows) % 2
    ids = tuple(map(str, range(rows)))
    kinds = np.eye(2)
    return [
        Runs(
            f"m{m}",
            {
                s: Predictions(
                    ids, labels, kinds[np.where(of[s], labels, 1 - labels)], "probability"
                )
                for s in range(seeds)
            },
        )
        for m, of in enumerate(right)
    ]


def judge(
    world: World,
    accuracies: Sequence[float],
    size: tuple[int, int],
    study: int,
    margin: float = 0.01,
) -> list[Comparison]:
    """Draw one study and let tunelab judge it."""
    seeds, rows = size
    rng = np.random.default_rng([study, seeds, rows, len(accuracies)])
    runs = as_runs(draw(world, accuracies, seeds, rows, rng))
    return compare_all(runs, "accuracy", rng, margin=margin, resamples=RESAMPLES)


def components(world: World, accuracies: Sequence[float]) -> tuple[float, float, float]:
    """(disagreement, its share that all seeds have in common, sd of a seed's difference)."""
    rng = np.random.default_rng(1)
    right = draw(replace(world, heavy=False), accuracies, 40, 20_000, rng)
    d = right[0].astype(np.int8) - right[1].astype(np.int8)  # (seeds, rows)
    seeds, rows = d.shape
    within = float(d.var(axis=1).mean())
    # The variance of the rows' means over seeds, less what finite seeds add to it.
    common = float(d.mean(axis=0).var())
    common = (common - within / seeds) / (1 - 1 / seeds)
    by_seed = float(d.mean(axis=1).var(ddof=1)) - (within - common) / rows
    return float((d != 0).mean()), common / within, math.sqrt(max(0.0, by_seed))


# --- what is counted ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """A share of studies with its goal, and twice its standard error."""

    what: str
    world: str
    seeds: int
    rows: int
    value: float
    studies: int
    goal: str
    met: bool

    @property
    def error(self) -> float:
        return 2 * math.sqrt(self.value * (1 - self.value) / self.studies)


def _figure(
    what: str, world: World, size: tuple[int, int], hits: Sequence[bool], goal: str
) -> Figure:
    low, _, high = goal.partition(" to ")
    value = float(np.mean(hits))
    error = 2 * math.sqrt(max(value * (1 - value), 0.25 / len(hits)) / len(hits))
    least, most = (float(low), float(high)) if high else (0.0, float(low.removeprefix("at most ")))
    # A goal is missed where the figure is outside by more than its own uncertainty.
    met = least - error <= value <= most + error
    return Figure(what, world.name, *size, value, len(hits), goal, met)


def false_better(world: World, size: tuple[int, int], studies: int, methods: int) -> Figure:
    """Equal methods: how often "better" or "worse" is said of any pair."""
    hits = [
        any(c.verdict in {"better", "worse"} for c in judge(world, [0.86] * methods, size, i))
        for i in range(studies)
    ]
    return _figure(
        f'"better" said of any two of {methods} equals', world, size, hits, "at most 0.05"
    )


def coverage(world: World, size: tuple[int, int], studies: int) -> Figure:
    """How often the 95% interval of a difference holds the true one, 1.5 points."""
    hits = []
    for i in range(studies):
        d = judge(world, [0.865, 0.85], size, i)[0].difference
        hits.append(d.low is not None and d.high is not None and d.low <= 0.015 <= d.high)
    return _figure("95% interval holds the truth", world, size, hits, "0.93 to 0.97")


def all_at_once(world: World, size: tuple[int, int], studies: int) -> Figure:
    """How often the simultaneous intervals of all six pairs of four methods hold the truth."""
    true = [0.87, 0.86, 0.86, 0.84]
    hits = []
    for i in range(studies):
        found = judge(world, true, size, i)
        at = {f"m{m}": x for m, x in enumerate(true)}
        inside = [
            c.simultaneous is not None
            and c.simultaneous[0] - 1e-9 <= at[c.a] - at[c.b] <= c.simultaneous[1] + 1e-9
            for c in found
        ]
        hits.append(all(inside))
    return _figure("intervals of all 6 pairs hold at once", world, size, hits, "0.93 to 1")


def false_equivalent(world: World, size: tuple[int, int], studies: int, margin: float) -> Figure:
    """How often two methods that are exactly a margin apart are called equivalent."""
    hits = [
        judge(world, [0.86 + margin / 2, 0.86 - margin / 2], size, i, margin)[0].verdict
        == "equivalent"
        for i in range(studies)
    ]
    what = f'"equivalent" said at the margin ({100 * margin:g} points)'
    return _figure(what, world, size, hits, "at most 0.05")


def power(world: World, size: tuple[int, int], studies: int) -> Figure:
    """How often a difference is called "better" that is said to be detectable."""
    seeds, rows = size
    disagreement, shared, seed_sd = components(world, [0.86, 0.84])
    stated = detectable_difference(rows, seeds, disagreement, seed_sd=seed_sd, shared=shared)
    true = [0.85 + stated / 2, 0.85 - stated / 2]
    hits = [judge(world, true, size, i)[0].verdict == "better" for i in range(studies)]
    what = (
        f'"better" said where the truth is what was stated as detectable, {100 * stated:.1f} points'
    )
    return _figure(what, world, size, hits, "0.75 to 0.85")


SIZES = tuple((s, n) for s in (6, 10) for n in (300, 1000))


def figures(studies: int) -> list[Figure]:
    """Everything, in the order of the page."""
    found = []
    both, rows_alone, seeds_alone, heavy = WORLDS
    for world in WORLDS:
        found += [false_better(world, size, studies, 2) for size in ((6, 300), (10, 1000))]
    found += [
        false_better(w, (10, 300), studies, 5) for w in (both, rows_alone, seeds_alone, heavy)
    ]
    for world in (both, rows_alone, seeds_alone):
        found += [coverage(world, size, studies) for size in SIZES]
    found += [all_at_once(w, (6, 1000), studies) for w in (both, rows_alone, seeds_alone)]
    for world in (both, rows_alone, seeds_alone):
        found += [false_equivalent(world, size, studies, 0.03) for size in ((6, 1000), (10, 1000))]
    for world in (both, rows_alone, seeds_alone):
        found += [power(world, size, studies) for size in SIZES]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument(
        "--write", action="store_true", help="put the figures into docs/statistics.md"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    began = time.perf_counter()
    found = figures(given.studies)
    if given.json:
        print(json.dumps([asdict(f) for f in found], indent=2))
    else:
        print(table(found))
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if given.write:
        page = PAGE.read_text()
        head, _, rest = page.partition(BEGIN)
        tail = rest.partition(END)[2]
        PAGE.write_text(f"{head}{BEGIN}\n{table(found)}\n{END}{tail}")
    if not all(f.met for f in found):
        sys.exit(1)


def table(found: Sequence[Figure]) -> str:
    """The figures as Markdown."""
    lines = ["| what is counted | what varies | seeds | rows | studies | share | goal | |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {f.what} | {f.world} | {f.seeds} | {f.rows:,} | {f.studies:,} "
        f"| {100 * f.value:.1f}% ± {100 * f.error:.1f} | {_goal(f.goal)} "
        f"| {'met' if f.met else 'MISSED'} |"
        for f in found
    ]
    return "\n".join(lines)


def _goal(goal: str) -> str:
    words = [f"{100 * float(w):g}" if w.replace(".", "").isdigit() else w for w in goal.split()]
    return " ".join(words) + "%"


if __name__ == "__main__":
    main()
