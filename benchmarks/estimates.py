"""Expected seconds of trials against measured ones, after whatever has run before.

    python benchmarks/estimates.py [--quick] [--order 0]

Trials of several sizes, models and methods run one after the other in a cache of their own: the
first is guessed, the others are told from those before. The order is shuffled, so that small ones
come before large ones and the other way round. A line is right where the measured seconds are
within a factor of two of what is expected, or in the range that is shown.

Seconds are those of the processor, on one core and in a process a trial, forked as a study forks
them: every clock of these processes is their processor time, what estimates learn from too. Other
work on the machine makes them wait, which is not counted, and hardly slower: how long a fixed
product takes beside each trial is measured, and its range printed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

# Of the whole grid, or of its quick form: (layers, width) of random BERTs beside the bundled model.
SIZES, SIZES_QUICK = ((2, 32), (4, 256), (6, 768)), ((2, 32), (4, 256))
ROWS, ROWS_QUICK = (60, 200, 600), (60, 200)
METHODS = ("svm-tfidf", "svm", "probe", "lora", "full")
METHODS_QUICK = ("svm-tfidf", "svm", "lora")
MOST_WORK = 768 * 200  # rows times width: the largest model sees fewer rows
WITHIN = 2.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A trial of the grid."""

    model: str
    method: str
    rows: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Expected seconds, the ends of their range, measured ones, and those of a fixed product."""

    expected: float
    least: float
    most: float
    seconds: float
    product: float

    @property
    def off(self) -> float:
        """By how many times the expectation is too low or too high."""
        return max(self.seconds / self.expected, self.expected / self.seconds)

    @property
    def is_a_range(self) -> bool:
        """Whether a range is shown, as of what is not known within a factor of two."""
        return self.most > WITHIN * self.expected or self.expected > WITHIN * self.least

    @property
    def right(self) -> bool:
        """Whether it is within a factor of two, or in the range that is shown."""
        in_range = self.is_a_range and self.least <= self.seconds <= self.most
        return self.off <= WITHIN or in_range


def random_bert(folder: Path, layers: int, width: int) -> str:
    """Write a random BERT of this size with the bundled model's tokenizer; its folder."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from tunelab.models import bases

    place = folder / f"{layers}x{width}"
    tokenizer = AutoTokenizer.from_pretrained(bases.resolve("minilm").path)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(2, width // 64),
        intermediate_size=4 * width,
    )
    BertModel(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


def import_for_trials() -> None:
    """What a study's worker has imported before it forks the first trial."""
    from tunelab.study.executors import worker

    for method in METHODS:
        worker._import_for(method)


@contextmanager
def by_processor_time() -> Iterator[None]:
    """One core, and clocks that stand still while others have it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with patch.object(time, "perf_counter", time.process_time):
        yield


def product_seconds() -> float:
    """Of a fixed matrix product."""
    a = np.ones((512, 512), dtype=np.float32)
    a @ a
    started = time.process_time()
    for _ in range(8):
        a @ a
    return time.process_time() - started


def measure(asked: Asked, output_dir: Path) -> Measured:
    """One trial: what is expected of it, and what it takes."""
    from tunelab import study
    from tunelab.study import resolve

    keys = {"data.source": "demo", "data.subset": asked.rows, "model": asked.model, "jobs": 1,
            "methods": [asked.method], "tuning": False, "seeds": 1, "folds": "off",
            "output_dir": str(output_dir)}  # fmt: skip
    schedule = study.scheduled(study.plan(resolve.resolve_study(None, keys)))
    (expected,) = schedule.durations.values()
    study.write(schedule.progress, "benchmarks/estimates.py")
    product = product_seconds()
    (result,) = study.run(schedule, lambda _: None, "inline")
    seconds = result.provenance.seconds
    if seconds is None:
        raise SystemExit(f"{asked}: {result.error}")
    product = (product + product_seconds()) / 2
    return Measured(expected.seconds, expected.least, expected.most, seconds, product)


def measure_apart(asked: Asked, output_dir: Path) -> Measured:
    """The same in a fork, which has nothing of the trials before but what is on disk."""
    output_dir.mkdir(parents=True)
    said = output_dir / "measured.json"
    child = os.fork()
    if not child:
        code = 1
        try:
            said.write_text(json.dumps(asdict(measure(asked, output_dir / "study"))))
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise SystemExit(f"{asked}: failed")
    return Measured(**json.loads(said.read_text()))


def run(grid: Sequence[Asked], folder: Path) -> list[Measured]:
    """Measure the grid in its order and print each line."""
    head = ("model", "method", "rows", "expected", "range", "measured", "times off")
    print("{:<8} {:<10} {:>5} {:>9} {:>16} {:>9} {:>10}".format(*head))
    lines = []
    for i, asked in enumerate(grid):
        m = measure_apart(asked, folder / str(i))
        lines.append(m)
        span = f"{m.least:.1f} to {m.most:.1f}" if m.is_a_range else ""
        print(
            f"{Path(asked.model).name:<8} {asked.method:<10} {asked.rows:>5} {m.expected:>9.1f} "
            f"{span:>16} {m.seconds:>9.1f} {m.off:>9.1f}x{'' if m.right else '  wrong'}",
            flush=True,
        )
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a small grid")
    parser.add_argument("--order", type=int, default=0, help="which shuffling of the grid")
    given = parser.parse_args()
    methods = METHODS_QUICK if given.quick else METHODS
    scratch = tempfile.TemporaryDirectory(prefix="tunelab-estimates-")
    with scratch as name, by_processor_time():
        os.environ["TUNELAB_CACHE"] = f"{name}/cache"
        folder = Path(name)
        sizes = SIZES_QUICK if given.quick else SIZES
        models = {random_bert(folder, *size): size[1] for size in sizes} | {"minilm": 384}
        grid = [
            Asked(model, method, rows)
            for model, width in models.items()
            for method in methods
            for rows in (ROWS_QUICK if given.quick else ROWS)
            if method != "svm-tfidf" or model == "minilm"  # it has no model
            if rows * width <= MOST_WORK or width < max(models.values())
        ]
        order = np.random.default_rng(given.order).permutation(len(grid))
        # What is done once on a machine (compiling, measuring it) is no trial's own.
        import_for_trials()
        lines = run([grid[i] for i in order], folder)
    products = [m.product for m in lines]
    print(
        f"{sum(m.right for m in lines)} of {len(grid)} within a factor of {WITHIN:g} or the range "
        f"shown, {sum(m.off <= WITHIN for m in lines)} within the factor; a fixed product took "
        f"{min(products) * 1e3:.0f} to {max(products) * 1e3:.0f} ms; load {os.getloadavg()[0]:.1f} "
        f"on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
