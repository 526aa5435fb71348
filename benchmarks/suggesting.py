"""Whether rows that `tunelab suggest` chooses teach more than rows drawn at random.

    python benchmarks/suggesting.py --data DATA [--start 100] [--more 100] [--repeats 20]

DATA is whatever `tunelab compare` takes. Each repeat draws `start` labelled rows, asks for `more`
from a pool by each rule, learns on all of them and is scored on the test part. Members are those of
a small study: logistic regression on the base's frozen vectors and on TF-IDF, each on three
divisions of the labelled rows. Rules: uncertainty (entropy of the mean, what `suggest` ranks by),
disagreement (of that the part that members do not doubt themselves), random. All choose from texts
that are not alike. Differences to random are of the accuracy of the mean of both methods, in
points, with the 95% interval of their mean over repeats (t), the same start and pool for all.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tunelab import data
from tunelab.api import load_base
from tunelab.core.values import DataSpec
from tunelab.stats.acquisition import doubt_of

POOL, TEST = 1500, 1000
RULES = ("uncertainty", "disagreement", "random")
Floats = NDArray[np.float64]


def vectors(texts: Sequence[str]) -> Floats:
    """Mean vectors of the bundled base, of length one, (n, width)."""
    import torch

    encoder, tokenizer = load_base()
    out = []
    with torch.no_grad():
        for first in range(0, len(texts), 64):
            some = list(texts[first : first + 64])
            read = tokenizer(
                some, padding=True, truncation=True, max_length=64, return_tensors="pt"
            )
            hidden = encoder(**read).last_hidden_state
            mask = read["attention_mask"][:, :, None]
            out.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
    whole = np.concatenate(out).astype(np.float64)
    return whole / np.linalg.norm(whole, axis=1, keepdims=True)


def learned(features: Any, labels: NDArray[np.int64], rows: NDArray[np.int64], k: int) -> Floats:
    """Probabilities (n, k) of all rows by a model that was trained on some."""
    model = LogisticRegression(C=10, max_iter=400).fit(features[rows], labels[rows])
    out = np.full((features.shape[0], k), 1e-9)
    out[:, model.classes_] = model.predict_proba(features)
    return out / out.sum(axis=1, keepdims=True)


def main() -> None:
    """Simulate, and print a line for each rule."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--data", required=True)
    ask.add_argument("--start", type=int, default=100)
    ask.add_argument("--more", type=int, default=100)
    ask.add_argument("--repeats", type=int, default=20)
    asked = ask.parse_args()
    warnings.filterwarnings("ignore")
    whole = data.load(DataSpec(asked.data))
    k, rng = len(whole.label_names), np.random.default_rng(0)
    drawn = rng.permutation(len(whole.train))[: POOL + asked.start]
    tested = rng.permutation(len(whole.test))[:TEST]
    texts = [whole.train.texts[i] for i in drawn] + [whole.test.texts[i] for i in tested]
    labels = np.concatenate([whole.train.labels[drawn], whole.test.labels[tested]])
    of_pool = np.arange(len(drawn))
    of_test = np.arange(len(drawn), len(texts))
    terms = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
    features = {"logistic": vectors(texts), "tfidf": sparse.csr_matrix(terms)}

    def accuracy(rows: NDArray[np.int64]) -> float:
        mean = sum(learned(f, labels, rows, k) for f in features.values())
        return float((np.asarray(mean)[of_test].argmax(axis=1) == labels[of_test]).mean())

    gains: dict[str, list[float]] = {rule: [] for rule in RULES}
    before: list[float] = []
    for repeat in range(asked.repeats):
        own = np.random.default_rng([1, repeat])
        start = own.permutation(of_pool)[: asked.start]
        thirds = np.array_split(start, 3)
        members = {
            name: [learned(f, labels, np.setdiff1d(start, t), k) for t in thirds]
            for name, f in features.items()
        }
        doubt = doubt_of(members)
        orders = {
            "uncertainty": np.argsort(-doubt.uncertainty, kind="stable"),
            "disagreement": np.argsort(-doubt.disagreement, kind="stable"),
            "random": own.permutation(of_pool),
        }
        before.append(accuracy(start))
        known = [texts[i] for i in start]
        for rule, order in orders.items():
            free = order[order < len(drawn)]
            chosen = data.rows_unlike(known, texts, free, asked.more)
            gains[rule].append(accuracy(np.concatenate([start, chosen])))
    print(f"{asked.data}: {asked.start} rows {100 * np.mean(before):.1f}%, with {asked.more} more:")
    for rule in RULES:
        line = f"  {rule:12} {100 * np.mean(gains[rule]):.1f}%"
        if rule != "random":
            d = 100 * (np.asarray(gains[rule]) - np.asarray(gains["random"]))
            half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
            ends = f"{d.mean() - half:+.1f} to {d.mean() + half:+.1f}"
            line += f"   against random {d.mean():+.1f} points ({ends})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
