"""Expected seconds of trials against measured ones, after whatever has run before.

    python benchmarks/estimates.py [--quick]

Trials of several sizes, models and methods run one after the other in a cache of their own: the
first is guessed, the others are told from those before. The order is shuffled, so that small ones
come before large ones and the other way round. A line is right where the measured seconds are
within a factor of two of what is expected, or in the range that is shown. Times of a machine that
is busy with other work say little: the load is printed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Of the whole grid, or of its quick form: (layers, width) of random BERTs beside the bundled model.
SIZES, SIZES_QUICK = ((2, 32), (4, 256), (6, 768)), ((2, 32), (4, 256))
ROWS, ROWS_QUICK = (100, 300, 1000), (100, 300)
METHODS = ("svm-tfidf", "svm", "probe", "lora", "full")
METHODS_QUICK = ("svm-tfidf", "svm", "lora")
WITHIN = 2.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A trial of the grid."""

    model: str
    method: str
    rows: int


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


def measure(asked: Asked, output_dir: Path) -> tuple[float, float, float, float]:
    """Expected seconds, the ends of their range, and measured seconds of one trial."""
    from tunelab import study
    from tunelab.study import resolve

    keys = {"data.source": "demo", "data.subset": asked.rows, "model": asked.model, "jobs": 1,
            "methods": [asked.method], "tuning": False, "seeds": 1, "folds": "off",
            "output_dir": str(output_dir)}  # fmt: skip
    schedule = study.scheduled(study.plan(resolve.resolve_study(None, keys)))
    (expected,) = schedule.durations.values()
    study.write(schedule.progress, "benchmarks/estimates.py")
    (result,) = study.run(schedule, lambda _: None)
    seconds = result.provenance.seconds
    if seconds is None:
        raise SystemExit(f"{asked}: {result.error}")
    return expected.seconds, expected.least, expected.most, seconds


def run(grid: Sequence[Asked], folder: Path) -> int:
    """Measure the grid in its order and print each line; how many are wrong."""
    head = ("model", "method", "rows", "expected", "range", "measured", "times off")
    print("{:<8} {:<10} {:>5} {:>9} {:>16} {:>9} {:>10}".format(*head))
    wrong = 0
    for i, asked in enumerate(grid):
        expected, least, most, seconds = measure(asked, folder / str(i))
        off = max(seconds / expected, expected / seconds)
        shown = most / expected > WITHIN or expected / least > WITHIN
        right = off <= WITHIN or (shown and least <= seconds <= most)
        wrong += not right
        span = f"{least:.1f} to {most:.1f}" if shown else ""
        print(
            f"{Path(asked.model).name:<8} {asked.method:<10} {asked.rows:>5} {expected:>9.1f} "
            f"{span:>16} {seconds:>9.1f} {off:>9.1f}x{'' if right else '  wrong'}",
            flush=True,
        )
    return wrong


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small grid")
    parser.add_argument("--order", type=int, default=0, help="which shuffling of the grid")
    given = parser.parse_args()
    methods = METHODS_QUICK if given.quick else METHODS
    with tempfile.TemporaryDirectory(prefix="tunelab-estimates-") as scratch:
        os.environ["TUNELAB_CACHE"] = f"{scratch}/cache"
        folder = Path(scratch)
        sizes = SIZES_QUICK if given.quick else SIZES
        models = [random_bert(folder, *size) for size in sizes] + ["minilm"]
        grid = [
            Asked(model, method, rows)
            for model in models
            for method in methods
            for rows in (ROWS_QUICK if given.quick else ROWS)
            if method != "svm-tfidf" or model == "minilm"  # it has no model
        ]
        order = np.random.default_rng(given.order).permutation(len(grid))
        # What is done once on a machine (compiling, measuring it) is no trial's own.
        measure(Asked(models[0], "lora", ROWS[0]), folder / "first")
        wrong = run([grid[i] for i in order], folder)
    print(
        f"{len(grid) - wrong} of {len(grid)} within a factor of {WITHIN:g} or the range shown; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
