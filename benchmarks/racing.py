"""Racing, replayed over recorded grids: is the best kept, and how much is spent?

    python benchmarks/racing.py --record DATA --grid wide  # Rotten Tomatoes; benchmarks/racing.npz
    python benchmarks/racing.py [--races 200] [--json]
    python benchmarks/racing.py --equals 1000 --write       # also simulated; docs/statistics.md

A grid holds who was right on which validation row, for each configuration and seed (a seed draws
its own training rows of Rotten Tomatoes). `wide`: 16 ways to read a text with a linear SVM, from
the mean of MiniLM's vectors to the commonest words, on 800 rows, 8 seeds; most are far behind.
`rates`: LoRA at ranks and learning rates a hundredfold apart and full fine-tuning, on 800 rows, 8
seeds (half an hour of one core; not recorded yet).
`close`: settings of a linear SVM that one would try by hand, half of them near the best, 10 seeds.
A replay shuffles the seeds; "best" is the configuration with the highest mean over all seeds. Rows
stay as they are, so that a replay cannot show what luck with rows does: `--equals` draws so many
races of methods that are equal, new rows and seeds each, and counts how often one of them is lost.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab import data
from tunelab.core.values import DataSpec, Split
from tunelab.methods import METHODS, Task, fit_alone
from tunelab.models import bases
from tunelab.stats import racing
from tunelab.study.trial import named_seeds

GRID = Path(__file__).with_suffix(".npz")
PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"
BEGIN, END = "<!-- races: begin -->", "<!-- races: end -->"


@dataclass(frozen=True)
class Grid:
    """Configurations (method, settings), trained on `rows` rows with each of so many seeds."""

    rows: int
    seeds: int
    configurations: tuple[tuple[str, dict[str, Any]], ...]


_NEURAL = {"num_train_epochs": 1, "max_length": 64, "per_device_train_batch_size": 8}
GRIDS = {
    "wide": Grid(
        800,
        8,
        (
            *(
                ("svm", {"pooling": pooling, "c": [k], "max_length": 64})
                for pooling in ("mean", "cls")
                for k in (0.001, 0.03, 1.0)
            ),
            *(
                ("svm-tfidf", {"word_ngrams": w, "char_ngrams": c, "min_df": d, "c": [1.0]})
                for w, c in ((1, 0), (2, 0), (2, 5), (0, 5), (0, 3))
                for d in (1, 30)
            ),
        ),
    ),
    "rates": Grid(
        800,
        8,
        (
            *(
                ("lora", {"r": r, "lora_alpha": 2 * r, "learning_rate": rate, **_NEURAL})
                for r in (2, 16)
                for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
            ),
            *(("full", {"learning_rate": rate, **_NEURAL}) for rate in (1e-5, 1e-4)),
        ),
    ),
    "close": Grid(
        3000,
        10,
        tuple(
            ("svm-tfidf", {"word_ngrams": w, "char_ngrams": c, "min_df": d, "c": [k]})
            for w, c, d in ((2, 5, 1), (1, 0, 1), (2, 0, 8), (1, 0, 60))
            for k in (0.003, 0.1, 1.0)
        ),
    ),
}


def record(source: str, name: str) -> None:
    """Train every configuration with every seed and keep who was right on validation."""
    grid = GRIDS[name]
    dataset = data.load(DataSpec(source))
    base = bases.resolve("minilm")
    validation = dataset.validation
    # A method that trains by epochs chooses among them on validation: with one, there is no choice,
    # and it need not be scored twice.
    glimpse = Split(validation.ids[:64], validation.texts[:64], validation.labels[:64])
    right = np.zeros((len(grid.configurations), grid.seeds, len(validation)), dtype=bool)
    for seed in range(grid.seeds):
        part = data.smaller(dataset, grid.rows, seed)
        for i, (method, settings) in enumerate(grid.configurations):
            m = METHODS[method]
            seen = validation if method.startswith("svm") else glimpse
            task = Task(
                dataset.label_names, part.train, seen, base if m.needs_base else None,
                m.settings(**settings), named_seeds(seed), "accuracy", lambda _: None,
            )  # fmt: skip
            done = fit_alone(m, task)
            scores = done.validation_scores
            if scores is None or len(scores) < len(validation):
                scores = done.classifier.scores(validation.texts)
            right[i, seed] = np.asarray(scores).argmax(axis=1) == validation.labels
        print(name, seed, right[:, seed].mean(axis=1).round(3), flush=True)
        kept = {k: np.packbits(v, axis=2) for k, v in load().items()} if GRID.exists() else {}
        kept[name] = np.packbits(right[:, : seed + 1], axis=2)
        np.savez_compressed(GRID, rows=len(validation), **kept)


def load() -> dict[str, NDArray[np.bool_]]:
    """The recorded grids, (configurations, seeds, rows)."""
    with np.load(GRID) as stored:
        return {
            name: np.unpackbits(stored[name], axis=2, count=int(stored["rows"])).astype(bool)
            for name in GRIDS
            if name in stored
        }


def replay(right: NDArray[np.bool_], races: int) -> dict[str, Any]:
    """Race so many times with the seeds in another order: share that kept the best, share spent."""
    rng = np.random.default_rng(0)
    best = str(right.mean(axis=(1, 2)).argmax())
    kept, spent, alive = [], [], []
    for _ in range(races):
        race, trials = racing.replay(right, [int(s) for s in rng.permutation(right.shape[1])])
        kept.append(best in race.alive)
        spent.append(trials / (right.shape[0] * right.shape[1]))
        alive.append(len(race.alive))
    return {
        "configurations": right.shape[0], "seeds": right.shape[1], "rows": right.shape[2],
        "races": races, "kept_best": float(np.mean(kept)), "spent": float(np.mean(spent)),
        "spent_most": float(np.max(spent)), "alive": float(np.mean(alive)),
    }  # fmt: skip


def equals(races: int) -> list[dict[str, Any]]:
    """Races of equal methods in the worlds of benchmarks/statistics.py: share that lost the first.

    Whichever is taken for the best may be lost in at most 5%.
    """
    spec = importlib.util.spec_from_file_location("worlds", GRID.with_name("statistics.py"))
    assert spec is not None
    assert spec.loader is not None
    worlds = sys.modules["worlds"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worlds)
    found = []
    for world in worlds.WORLDS:
        for methods, seeds, rows in ((2, 6, 300), (5, 10, 1000), (12, 6, 300)):
            lost = []
            for i in range(races):
                rng = np.random.default_rng([i, methods, seeds, rows])
                right = worlds.draw(world, [0.8] * methods, seeds, rows, rng)
                lost.append("0" not in racing.replay(right, range(seeds))[0].alive)
            found.append(
                {"world": world.name, "methods": methods, "seeds": seeds, "rows": rows,
                 "races": races, "lost": float(np.mean(lost))}
            )  # fmt: skip
    return found


def table(grids: Mapping[str, Mapping[str, Any]], drawn: Sequence[Mapping[str, Any]]) -> str:
    """Both as Markdown."""
    lines = ["| recorded grid | configurations | seeds | rows | replays | best kept | goal "
             "| trials spent | goal | left |",
             "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {name} | {f['configurations']} | {f['seeds']} | {f['rows']:,} | {f['races']} "
        f"| {f['kept_best']:.1%} | at least 95%: {'met' if f['kept_best'] >= 0.95 else 'MISSED'} "
        f"| {f['spent']:.1%} | at most 40%: {'met' if f['spent'] <= 0.4 else 'MISSED'} "
        f"| {f['alive']:.1f} |"
        for name, f in grids.items()
    ]
    if drawn:
        lines += ["", "| equal methods | what varies | seeds | rows | races | one of them lost "
                  "| goal | |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for f in drawn:
        error = 2 * (max(f["lost"], 1 / f["races"]) / f["races"]) ** 0.5
        lines.append(
            f"| {f['methods']} | {f['world']} | {f['seeds']} | {f['rows']:,} | {f['races']:,} "
            f"| {f['lost']:.1%} ± {100 * error:.1f} | at most 5% "
            f"| {'met' if f['lost'] - error <= 0.05 else 'MISSED'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", metavar="DATA")
    parser.add_argument("--grid", choices=GRIDS, default="wide", help="the one to record")
    parser.add_argument("--races", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--equals", type=int, default=0, metavar="RACES")
    parser.add_argument("--write", action="store_true", help="put both into docs/statistics.md")
    given = parser.parse_args()
    if given.record:
        record(given.record, given.grid)
    found = {name: replay(right, given.races) for name, right in load().items()}
    drawn = equals(given.equals) if given.equals else []
    text = table(found, drawn)
    print(json.dumps({"grids": found, "equals": drawn}, indent=2) if given.json else text)
    if given.write:
        head, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
