"""Racing, replayed over a recorded grid: is the best kept, and how much is spent?

    python benchmarks/racing.py --record DATA    # Rotten Tomatoes; writes benchmarks/racing.npz
    python benchmarks/racing.py [--races 200] [--json]

A grid holds who was right on which validation row, for each configuration and seed (a seed draws
its own 3,000 training rows of Rotten Tomatoes). `wide`: a blind grid of linear SVMs on words, most
of it far from the best; `close`: settings that one would try by hand, half of them near the best. A
replay shuffles the seeds; "best" is the configuration with the highest mean over all seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab import data, racing
from tunelab.methods import METHODS, Task
from tunelab.trial import named_seeds
from tunelab.types import DataSpec

GRID = Path(__file__).with_suffix(".npz")
ROWS, SEEDS = 3000, 10
CS = (0.003, 0.1, 1.0)
GRIDS = {
    "wide": [
        {"word_ngrams": w, "char_ngrams": 0, "min_df": d, "c": [k]}
        for w in (1, 2)
        for d in (1, 50, 100, 300, 1000)
        for k in CS
    ],
    "close": [
        {"word_ngrams": w, "char_ngrams": c, "min_df": d, "c": [k]}
        for w, c, d in ((2, 5, 1), (1, 0, 1), (2, 0, 8), (1, 0, 60))
        for k in CS
    ],
}


def record(source: str) -> None:
    """Train every configuration with every seed and keep who was right on validation."""
    dataset = data.load(DataSpec(source))
    method = METHODS["svm-tfidf"]
    stored = {}
    for name, configs in GRIDS.items():
        right = np.zeros((len(configs), SEEDS, len(dataset.validation)), dtype=bool)
        for seed in range(SEEDS):
            part = data.smaller(dataset, ROWS, seed)
            for i, settings in enumerate(configs):
                task = Task(
                    dataset.label_names, part.train, part.validation, None,
                    method.settings(**settings), named_seeds(seed), "accuracy", lambda _: None,
                )  # fmt: skip
                scores = method.fit(task).validation_scores
                assert scores is not None
                right[i, seed] = scores.argmax(axis=1) == part.validation.labels
            print(name, seed, right[:, seed].mean(axis=1).round(3), flush=True)
        stored[name] = np.packbits(right, axis=2)
    np.savez_compressed(GRID, rows=len(dataset.validation), **stored)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", metavar="DATA")
    parser.add_argument("--races", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.record:
        record(given.record)
    found = {name: replay(right, given.races) for name, right in load().items()}
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"{'grid':<8}{'configs':>8}{'seeds':>7}{'rows':>7}{'best kept':>11}{'spent':>8}{'left':>6}"
    )
    for name, f in found.items():
        print(
            f"{name:<8}{f['configurations']:>8}{f['seeds']:>7}{f['rows']:>7}"
            f"{f['kept_best']:>11.1%}{f['spent']:>8.1%}{f['alive']:>6.1f}"
        )


if __name__ == "__main__":
    main()
