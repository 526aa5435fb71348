"""How many trainings a decision takes, by the rule of before and by today's, on real texts.

python benchmarks/half.py [--studies 240] [--data rotten_tomatoes emotion]

A study has 1,920 labelled texts and two learners whose seeds choose their features. Either 288
texts are held out and each seed is trained on the rest (one split), or seed k is tested on fold k
of six, so that all 1,920 are tested (folds). The answers of one learner are then spoilt at random,
until it is truly a stated number of points behind: behind on endless texts and seeds, which the
texts outside the study tell. Counted: in how many studies the pair is decided rightly, and how
often it is decided although both are equal. The rule of before: paired variance over seeds,
Satterthwaite's t, Holm, and a sign-flip over seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from _claims import Claim, at_most, share_of
from _measure import shared_data
from tunelab.core.values import Predictions
from tunelab.stats import Runs, compare_all, sign_flip

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
SIZE, HELD_OUT, FOLDS, DIMENSIONS, COLUMNS, WAVES = 1920, 288, 6, 200, 150, 400
SEEDS = 12
GOALS = (0.0, 0.015, 0.03, 0.05)


def features(name: str) -> tuple[Floats, NDArray[np.int64]]:
    """TF-IDF of all texts of a data set in 200 dimensions, standardised, and their classes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    files = sorted(Path(shared_data(name)).glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(f, columns=["text", "label"]) for f in files])
    table = table.slice(0, 12_000)
    texts, labels = table["text"].to_pylist(), np.asarray(table["label"].to_pylist())
    sparse = TfidfVectorizer(ngram_range=(1, 2), min_df=3, sublinear_tf=True).fit_transform(texts)
    dense = TruncatedSVD(DIMENSIONS, random_state=0).fit_transform(sparse)
    dense = (dense - dense.mean(axis=0)) / dense.std(axis=0)
    return dense, np.unique(labels, return_inverse=True)[1]


@dataclass(frozen=True)
class Learner:
    """Ridge regression on what a seed chooses: some columns, or random waves of all."""

    waves: bool
    strength: float

    def train(self, x: Floats, y: NDArray[np.int64], seed: int) -> Callable[[Floats], NDArray]:
        """A function from texts' features (n, 200) to classes (n,)."""
        rng = np.random.default_rng([seed, self.waves])
        if self.waves:
            mix = rng.standard_normal((x.shape[1], WAVES)) / np.sqrt(x.shape[1])
            turn = 0.3 * rng.standard_normal(WAVES)

            def seen(z: Floats) -> Floats:
                return np.tanh(0.5 * (z @ mix) + turn)
        else:
            columns = rng.choice(x.shape[1], COLUMNS, replace=False)

            def seen(z: Floats) -> Floats:
                return z[:, columns]

        h = seen(x)
        centre, goals = h.mean(axis=0), np.eye(y.max() + 1)[y]
        shares = goals.mean(axis=0)
        gram = (h - centre).T @ (h - centre) + self.strength * np.eye(h.shape[1])
        weights = np.linalg.solve(gram, (h - centre).T @ (goals - shares))
        return lambda z: np.asarray(((seen(z) - centre) @ weights + shares).argmax(axis=1))


LEARNERS = (Learner(False, 300.0), Learner(True, 100.0))


@dataclass(frozen=True)
class Study:
    """Who is right: on one split (2, 12, 288), on folds (2, 1920), and the learners' accuracies."""

    split: Bools
    folds: Bools
    fold: NDArray[np.int64]
    accuracy: Floats


def study(x: Floats, y: NDArray[np.int64], number: int) -> Study:
    """One study of its own texts; those outside it tell how right the learners truly are."""
    rng = np.random.default_rng([7, number])
    order = rng.permutation(len(y))
    rows, pool = order[:SIZE], order[SIZE : SIZE + 6000]
    test, rest = rows[:HELD_OUT], rows[HELD_OUT:]
    train = rest[: SIZE - 2 * HELD_OUT]  # as much again is left for validation
    fold = np.arange(SIZE) % FOLDS
    split = np.empty((2, SEEDS, HELD_OUT), dtype=bool)
    folds = np.empty((2, SIZE), dtype=bool)
    accuracy = np.zeros(2)
    for k, learner in enumerate(LEARNERS):
        for s in range(SEEDS):
            says = learner.train(x[train], y[train], 100 * number + s)
            split[k, s] = says(x[test]) == y[test]
            accuracy[k] += float((says(x[pool]) == y[pool]).mean()) / SEEDS
        for s in range(FOLDS):
            others = np.random.default_rng([number, s]).permutation(rows[fold != s])
            own = others[: SIZE - 2 * HELD_OUT]
            says = learner.train(x[own], y[own], 100 * number + 50 + s)
            folds[k, fold == s] = says(x[rows[fold == s]]) == y[rows[fold == s]]
    return Study(split, folds, fold, accuracy)


# --- the two rules ------------------------------------------------------------------------------


def of_before(right: Bools) -> bool | None:
    """Whether the first is better by the rule of before; None where it was not said. (2, S, n)."""
    gaps = right[0].astype(float) - right[1]
    seeds, rows = gaps.shape
    of_seed, of_row = gaps.mean(axis=1), gaps.mean(axis=0)
    value = float(gaps.mean())
    by_seed = float(of_seed.var(ddof=1)) / seeds
    by_row = float(of_row.var(ddof=1)) / rows
    residuals = gaps - of_row - of_seed[:, None] + value
    rest = float((residuals**2).sum()) / ((seeds - 1) * (rows - 1)) / (rows * seeds)
    unseen = 1 / (rows + 2) ** 2
    item = max(0.0, by_row - rest) + unseen
    variance = max(by_seed + item, by_row + unseen)
    df = variance**2 / (by_seed**2 / (seeds - 1) + item**2 / (rows - 1))
    p = 2 * float(stdtr(df, -abs(value) / np.sqrt(variance)))
    flip = sign_flip(of_seed, np.random.default_rng(0))
    return value > 0 if p <= 0.05 and flip <= 0.05 else None


def of_today(runs: list[Runs]) -> bool | None:
    """Whether the first is better by `compare_all`; None where it does not say."""
    (c,) = compare_all(runs, "accuracy", np.random.default_rng(0), resamples=400)
    return {"better": True, "worse": False}.get(c.verdict)


def runs_of(right: Bools, rows_of_seed: list[NDArray[np.int64]]) -> list[Runs]:
    """Predictions of two methods, seed by seed on its own rows; `right` is (2, S, n of a seed)."""
    out = []
    for name, of in zip("ab", right, strict=True):
        by_seed = {}
        for s, rows in enumerate(rows_of_seed):
            labels = rows % 2
            scores = np.eye(2)[np.where(of[s], labels, 1 - labels)]
            by_seed[s] = Predictions(tuple(map(str, rows)), labels, scores, "probability")
        out.append(Runs(name, by_seed))
    return out


def _verdicts(split: Bools, folds: Bools, fold: NDArray[np.int64]) -> dict[str, bool | None]:
    rows = np.arange(HELD_OUT)
    by_fold = [np.flatnonzero(fold == s) for s in range(FOLDS)]
    of_folds = np.stack([[f[r] for r in by_fold] for f in folds])
    return {
        "before, one split, 6 trainings": of_before(split[:, :6]),
        "before, one split, 12 trainings": of_before(split),
        "today, one split, 6 trainings": of_today(runs_of(split[:, :6], [rows] * 6)),
        "today, 6 folds, 6 trainings": of_today(runs_of(of_folds, by_fold)),
    }


def claims(studies: int, names: tuple[str, ...] = ("rotten_tomatoes", "emotion")) -> list[Claim]:
    """Shares decided, by data set, true difference and rule."""
    found = []
    for name in names:
        x, y = features(name)
        done = [study(x, y, k) for k in range(studies)]
        accuracy = np.mean([s.accuracy for s in done], axis=0)
        for goal in GOALS:
            spoil = _spoilt(accuracy, goal)
            rng = np.random.default_rng([3, round(1000 * goal)])
            decided: dict[str, list[bool]] = {}
            for s in done:
                split = s.split & (rng.random(s.split.shape) >= spoil[:, None, None])
                folds = s.folds & (rng.random(s.folds.shape) >= spoil[:, None])
                for rule, first in _verdicts(split, folds, s.fold).items():
                    hit = first is not None if goal == 0 else first is True
                    decided.setdefault(rule, []).append(hit)
            for rule, hits in decided.items():
                said = f"truly {100 * goal:g} points apart"
                said = f"{'decided, though equal' if goal == 0 else 'rightly decided'}: {said}"
                goal_of = at_most(0.05) if goal == 0 else at_most(1.0)
                found.append(share_of(said, rule, name, hits, goal_of))
    return found


def _spoilt(accuracy: Floats, goal: float) -> Floats:
    """What share of each learner's right answers is made wrong, so that they are so far apart."""
    top = min(accuracy[0], accuracy[1] + goal)
    return np.array([1 - top / accuracy[0], 1 - (top - goal) / accuracy[1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=240)
    parser.add_argument("--data", nargs="+", default=["rotten_tomatoes", "emotion"])
    given = parser.parse_args()
    found = claims(given.studies, tuple(given.data))
    print("| data | trainings | " + " | ".join(f"{100 * g:g} points" for g in GOALS) + " |")
    print("|---|---|" + "---|" * len(GOALS))
    for name in given.data:
        for rule in dict.fromkeys(c.said for c in found):
            row = [c for c in found if c.cell == name and c.said == rule]
            cells = (f"{100 * c.value:.1f}% ± {100 * c.error:.1f}" for c in row)
            print(f"| {name} | {rule} | {' | '.join(cells)} |")
    sys.exit(0 if all(c.met for c in found) else 1)


if __name__ == "__main__":
    main()
