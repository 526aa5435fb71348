"""Racing, replayed over a recorded grid: is the best kept, and how much is spent?

    python benchmarks/racing.py --record DATA    # Rotten Tomatoes; writes benchmarks/racing.npz
    python benchmarks/racing.py [--races 200] [--json]

The grid holds who was right on which validation row, for each configuration and seed (a seed draws
its own 3,000 training rows): SVMs on TF-IDF and on MiniLM's frozen embeddings, from bad to good. A
replay shuffles the seeds; "best" is the configuration with the highest mean over all seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab import racing

GRID = Path(__file__).with_suffix(".npz")
ROWS, SEEDS = 3000, 10
WORDS = [
    {"word_ngrams": w, "char_ngrams": c, "min_df": d, "c": [k]}
    for w, c, d in ((2, 5, 1), (1, 0, 1), (2, 0, 8), (1, 0, 60))
    for k in (0.003, 0.1, 1.0)
]
FROZEN = [{"pooling": "mean", "c": [0.01]}, {"pooling": "cls", "c": [0.01]}]


def record(source: str) -> None:
    """Train every configuration with every seed and keep who was right on validation."""
    from tunelab import bases, data
    from tunelab.methods import METHODS, Task
    from tunelab.trial import named_seeds
    from tunelab.types import DataSpec

    dataset = data.load(DataSpec(source))
    base = bases.resolve(bases.BUNDLED)
    configs = [("svm-tfidf", s) for s in WORDS] + [("svm", s) for s in FROZEN]
    right = np.zeros((len(configs), SEEDS, len(dataset.validation)), dtype=bool)
    for seed in range(SEEDS):
        part = data.smaller(dataset, ROWS, seed)
        for i, (name, settings) in enumerate(configs):
            method = METHODS[name]
            task = Task(
                dataset.label_names, part.train, part.validation,
                base if method.needs_base else None, method.settings(**settings),
                named_seeds(seed), "accuracy", lambda _: None,
            )  # fmt: skip
            scores = method.fit(task).validation_scores
            assert scores is not None
            right[i, seed] = scores.argmax(axis=1) == part.validation.labels
        print(seed, right[:, seed].mean(axis=1).round(3), flush=True)
    labels = [f"{name} {json.dumps(s)}" for name, s in configs]
    np.savez_compressed(
        GRID, right=np.packbits(right, axis=2), rows=right.shape[2], labels=np.array(labels)
    )


def load() -> tuple[NDArray[np.bool_], list[str]]:
    """The recorded grid, (configurations, seeds, rows), and what the configurations are."""
    with np.load(GRID) as stored:
        right = np.unpackbits(stored["right"], axis=2, count=int(stored["rows"]))
        return right.astype(bool), [str(x) for x in stored["labels"]]


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
    right, labels = load()
    close = [i for i, x in enumerate(labels) if x.startswith("svm-tfidf")]
    found = {"all": replay(right, given.races), "close together": replay(right[close], given.races)}
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"{'grid':<16}{'configs':>8}{'seeds':>7}{'rows':>7}{'best kept':>11}{'spent':>8}{'left':>6}"
    )
    for name, f in found.items():
        print(
            f"{name:<16}{f['configurations']:>8}{f['seeds']:>7}{f['rows']:>7}"
            f"{f['kept_best']:>11.1%}{f['spent']:>8.1%}{f['alive']:>6.1f}"
        )


if __name__ == "__main__":
    main()
