"""What every benchmark shares: contestants in processes of their own, rounds A B A B, one table.

The machine is noisy, so only ratios within one run count: in each round every contestant runs
once, a ratio is taken within the round, and the median over the rounds is what is said.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunelab.core import machine

__all__ = [
    "AS_SHIPPED",
    "Contestant",
    "Result",
    "arguments",
    "compete",
    "rate",
    "report",
    "shared_data",
]

ROUNDS = 5
# How threads of OpenMP wait where nobody says otherwise; `import tunelab` does, and this file too.
AS_SHIPPED = {"GOMP_SPINCOUNT": "300000"}


@dataclass(frozen=True)
class Contestant:
    """`setup(**options)` runs in a fresh process, may warm up, and gives a function that does the
    work once and returns its figure (higher is better). Both must be importable: no lambdas.
    `env` is set before anything is imported there.
    """

    name: str
    setup: Callable[..., Callable[[], float]]
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """Figures of each round, in order, and the process's peak memory (bytes)."""

    name: str
    figures: tuple[float, ...]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        return statistics.median(self.figures)

    def ratio(self, baseline: Result) -> float:
        """Median over the rounds of the ratio within a round."""
        pairs = zip(self.figures, baseline.figures, strict=True)
        return statistics.median(a / b for a, b in pairs)


def rate(units: float, work: Callable[[], object]) -> Callable[[], float]:
    """A function that does the work once and gives units a second."""

    def once() -> float:
        started = time.perf_counter()
        work()
        return units / (time.perf_counter() - started)

    return once


def _serve(contestant: Contestant, pipe: Any) -> None:
    os.environ.update(contestant.env)
    try:
        run = contestant.setup(**contestant.options)
        pipe.send(("ready", None))
        while pipe.recv() == "go":
            figure = run()
            pipe.send(("figure", (figure, _peak())))
    except EOFError:
        pass
    except BaseException as e:
        pipe.send(("error", f"{type(e).__name__}: {e}"))
        raise


def _peak() -> int | None:
    return machine._status("VmHWM")


def compete(contestants: Sequence[Contestant], rounds: int = ROUNDS) -> list[Result]:
    """Start all, let each set itself up, then run them in turn `rounds` times."""
    # spawn: a forked child would inherit torch's threads, and another contestant's patches.
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pipes = []
        for c in contestants:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(c, theirs), daemon=True)
            # The environment is read while the child imports; it is ours for that moment.
            before = dict(os.environ)
            os.environ.update(c.env)
            process.start()
            os.environ.clear()
            os.environ.update(before)
            theirs.close()
            stack.callback(process.join, 10)
            stack.callback(ours.close)
            pipes.append(ours)
            _answer(ours, c)  # one sets itself up at a time
        figures: list[list[float]] = [[] for _ in contestants]
        peaks: list[int | None] = [None for _ in contestants]
        for i in range(rounds):
            for k, (c, pipe) in enumerate(zip(contestants, pipes, strict=True)):
                pipe.send("go")
                figure, peaks[k] = _answer(pipe, c)
                figures[k].append(figure)
            shown = ", ".join(
                f"{c.name} {f[-1]:.4g}" for c, f in zip(contestants, figures, strict=True)
            )
            print(f"round {i + 1} of {rounds}: {shown}", file=sys.stderr)
        return [
            Result(c.name, tuple(f), p) for c, f, p in zip(contestants, figures, peaks, strict=True)
        ]


def _answer(pipe: Any, contestant: Contestant) -> Any:
    try:
        kind, value = pipe.recv()
    except EOFError:
        kind, value = "error", "its process ended"
    if kind == "error":
        raise SystemExit(f"{contestant.name}: {value}")
    return value


def report(
    title: str, results: Sequence[Result], *, unit: str, baseline: str, as_json: bool, **facts: Any
) -> None:
    """Print one table: figure, spread over the rounds, ratio to the baseline, peak memory.

    `facts` (rows, texts, what the figures mean) go into the JSON and below the table.
    """
    base = next(r for r in results if r.name == baseline)
    rows = [{**asdict(r), "median": r.median, "ratio": r.ratio(base)} for r in results]
    about = {"hardware": machine.hardware().to_json(), "versions": machine.versions(), **facts}
    if as_json:
        print(json.dumps({"title": title, "unit": unit, "baseline": baseline, "rows": rows,
                          **about}, indent=2))  # fmt: skip
        return
    width = max(len(r.name) for r in results)
    print(title)
    print(f"{'':<{width}}  {unit:>12}  {'lowest-highest':>17}  {'ratio':>7}  {'peak RSS':>9}")
    for r in results:
        spread = f"{min(r.figures):.4g}-{max(r.figures):.4g}"
        peak = f"{r.peak_bytes / 1e9:.2f} GB" if r.peak_bytes else "-"
        print(
            f"{r.name:<{width}}  {r.median:>12.4g}  {spread:>17}  {r.ratio(base):>6.2f}x  {peak:>9}"
        )
    for key, value in facts.items():
        print(f"{key}: {value}")


def arguments(about: str | None, **more: Any) -> argparse.ArgumentParser:
    """A parser with what every benchmark has: --json, --rounds."""
    parser = argparse.ArgumentParser(description=about, **more)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    return parser


def shared_data(name: str = "rotten_tomatoes") -> Path:
    """Where the shared data sets lie: TUNELAB_DATA, or ../shared/data beside this checkout."""
    root = os.environ.get("TUNELAB_DATA")
    folder = (Path(root) if root else Path(__file__).parents[2] / "shared" / "data") / name
    if not folder.is_dir():
        raise SystemExit(
            f"{folder}: no such folder. Set TUNELAB_DATA to the folder that holds {name}."
        )
    return folder
