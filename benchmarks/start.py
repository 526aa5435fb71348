"""What commands cost before they do anything: seconds of processor time, from start to end.

python benchmarks/start.py [--rounds 5] [--json]

Commands run in turn, each in a process of its own, beside `import torch, transformers` alone. The
classifiers are trained first, on few rows of the bundled reviews.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from _measure import arguments
from tunelab.core.files import json_bytes

BASELINE = "import torch, transformers"
METHODS = ("svm-tfidf", "lora", "full")


def processor_seconds(command: Sequence[str]) -> float:
    """User and system time of a process and of those that it waited for."""
    before = os.times()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


def commands(folder: Path) -> dict[str, Sequence[str]]:
    """Name -> arguments of Python. Trains what they need."""
    tunelab = ("-m", "tunelab")
    study = folder / "study"
    for method in METHODS:
        own = () if method == "svm-tfidf" else ("--num-train-epochs", "1")
        processor_seconds(
            (*tunelab, "train", "demo", "--method", method, "--subset", "64", *own, "--output-dir",
             str(folder / method))
        )  # fmt: skip
    processor_seconds(
        (*tunelab, "compare", "demo", "--methods", "svm-tfidf", "--subset", "64", "--tuning", "off",
         "--seeds", "2", "--output-dir", str(study))
    )  # fmt: skip
    text = "a quiet, wonderful film"
    return {
        BASELINE: ("-c", BASELINE),
        "--help": (*tunelab, "--help"),
        **{f"predict, {m}": (*tunelab, "predict", str(folder / m), text) for m in METHODS},
        "runs show": (*tunelab, "runs", "show", str(study)),
        "report": (*tunelab, "report", str(study), "-q"),
        "inspect model": (*tunelab, "inspect", "model", "minilm"),
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        asked = commands(Path(place))
        for command in asked.values():  # compiles what is compiled once
            processor_seconds(command)
        seconds: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(a.rounds):
            for name, command in asked.items():
                seconds[name].append(processor_seconds(command))
    base = seconds[BASELINE]
    rows = [
        {
            "name": name,
            "seconds": statistics.median(s),
            "ratio": statistics.median(x / y for x, y in zip(s, base, strict=True)),
        }
        for name, s in seconds.items()
    ]
    if a.as_json:
        sys.stdout.write(json_bytes({"rows": rows}).decode())
        return
    width = max(map(len, seconds))
    for row in rows:
        print(f"{row['name']:<{width}}  {row['seconds']:6.2f} s  {row['ratio']:6.2f}x")


if __name__ == "__main__":
    main()
