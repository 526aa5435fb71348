"""Checks of the labels: doubtful ones, by out-of-fold predictions, and unlike mixtures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.words import rows_word
from tunelab.data import duplicates
from tunelab.data.gate.doubts import (
    LEAST_TELLING,
    SHOWN_DOUBTS,
    doubtful_labels,
    label_finding,
    reading,
)
from tunelab.data.gate.values import PARTS, Bag, DatasetView, Finding, Floats, Ints
from tunelab.data.word_hashes import GOLDEN_64

__all__ = [
    "find_imbalance",
    "find_label_errors",
    "out_of_fold",
]

BUCKETS = 1 << 18  # features of the label model: words and pairs of words, hashed
MOST_WEIGHTS = 2_000_000  # numbers of the label model, all classes together: time and memory
LEARNT_FROM, JUDGED_AT_A_TIME = 200_000, 100_000  # rows: of more, memory and time would grow
FOLDS = 5


# --- labels ---------------------------------------------------------------------------------


def _features(bag: Bag, rows: int = 4096) -> Any:
    """TF-IDF of words and pairs of words, hashed: sparse (groups, BUCKETS), rows of length one.

    Counted so many texts at a time: what counting needs beside the result does not grow with them.
    """
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfTransformer

    n = len(bag.starts) - 1
    counts = vstack(
        [_hashed_counts(bag, a, min(n, a + rows)) for a in range(0, max(1, n), rows)], format="csr"
    )
    return TfidfTransformer(sublinear_tf=True).fit(counts).transform(counts, copy=False)


def _hashed_counts(bag: Bag, begin: int, end: int) -> Any:
    """Counts of words and pairs of words of texts begin..end, sparse (end - begin, BUCKETS)."""
    from scipy.sparse import csr_array

    starts = bag.starts[begin : end + 1] - bag.starts[begin]
    flat = bag.flat[bag.starts[begin] : bag.starts[end]].astype(np.uint64)
    one = flat * GOLDEN_64
    two = (flat[:-1] + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9) ^ flat[1:] * np.uint64(
        0x94D049BB133111EB
    )
    within = np.ones(max(0, len(flat) - 1), dtype=np.bool_)
    breaks = starts[1:-1]
    within[breaks[(breaks > 0) & (breaks < len(flat))] - 1] = False
    owner = np.repeat(np.arange(end - begin, dtype=np.int32), np.diff(starts))
    owners = np.concatenate([owner, owner[:-1][within]])
    shift = np.uint64(64 - BUCKETS.bit_length() + 1)
    buckets = (np.concatenate([one, _scattered(two[within])]) >> shift).astype(np.int32)
    return csr_array(
        (np.ones(len(owners), dtype=np.float32), (owners, buckets)),
        shape=(end - begin, BUCKETS),
    )


def _scattered(h: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.asarray((h ^ (h >> np.uint64(29))) * GOLDEN_64)


def out_of_fold(twins: duplicates.Twins, bag: Bag, labels: Ints, k: int, seed: int = 0) -> Floats:
    """Class probabilities (n, k) of each row by a linear TF-IDF model that has not seen its text.

    Texts that are the same lie in one fold; folds are stratified. A fold's model learns from
    LEARNT_FROM other rows at most.
    """
    from sklearn.linear_model import LogisticRegression

    features = _told_columns(_features(bag), k)
    group_label = labels[twins.first]
    order = np.random.default_rng(seed).permutation(len(group_label))
    order = order[np.argsort(group_label[order], kind="stable")]
    fold_of_group = np.empty(len(order), dtype=np.int64)
    fold_of_group[order] = np.arange(len(order)) % FOLDS
    fold = fold_of_group[twins.group]
    out = np.zeros((len(labels), k))
    drawn = np.random.default_rng(seed).permutation(len(labels))
    for f in range(FOLDS):
        train, held = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        if not len(held):
            continue
        present = np.unique(labels[train])
        if len(present) < 2:
            out[held[:, None], present[None, :]] = 1.0
            continue
        if len(train) > LEARNT_FROM:
            train = np.sort(drawn[fold[drawn] != f][:LEARNT_FROM])
            present = np.unique(labels[train])
        model = LogisticRegression(C=10.0, tol=1e-3, max_iter=60)
        _fit_quietly(model, features[twins.group[train]], labels[train])
        for some in np.array_split(held, range(JUDGED_AT_A_TIME, len(held), JUDGED_AT_A_TIME)):
            judged = model.predict_proba(features[twins.group[some]])
            out[some[:, None], present[None, :]] = judged
    return out


def _told_columns(features: Any, classes: int) -> Any:
    """The columns (buckets) that two texts have at least, of too many those that most have.

    What one text alone has tells nothing of another, and the optimiser would carry it along for
    each class: it took three quarters of the time, and made the model worse.
    """
    from scipy.sparse import csr_array

    texts_with = np.bincount(features.indices, minlength=features.shape[1])
    most = max(1, MOST_WEIGHTS // classes)
    few = max(2, int(np.sort(texts_with)[-most])) if most < len(texts_with) else 2
    told = texts_with >= few
    kept = told[features.indices]
    number = (np.cumsum(told) - 1).astype(features.indices.dtype)
    starts = np.concatenate([[0], np.cumsum(kept)])[features.indptr].astype(features.indptr.dtype)
    return csr_array(
        (features.data[kept], number[features.indices[kept]], starts),
        shape=(features.shape[0], int(told.sum())),
    )


def _fit_quietly(model: Any, features: Any, labels: Ints) -> None:
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # A ranking of doubtful labels does not need the last digit of the optimum.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)


def find_label_errors(look: DatasetView) -> list[Finding]:
    """Labels that a model that has not seen the row contradicts with confidence."""
    n, k = len(look.labels), len(look.label_names)
    counts = np.bincount(look.labels, minlength=k)
    if n < 50 or counts.min() < FOLDS or n * k > 20_000_000:
        why = (
            "too few rows"
            if n < 50
            else f"a class has fewer than {FOLDS} rows"
            if counts.min() < FOLDS
            else f"{n:,} rows times {k:,} classes are too many"
        )
        look.notes.append(f"label errors are not looked for: {why}")
        return []
    probabilities = out_of_fold(look.twins, look.bag, look.labels, k)
    doubts = doubtful_labels(look.labels, probabilities)
    if not len(doubts.rows):
        if doubts.telling < LEAST_TELLING:
            look.notes.append(f"no label is called doubtful: {doubts.reason}")
        return []
    return [
        label_finding(
            doubts,
            of=n,
            judges="a TF-IDF model that did not see the row",
            examples=look.examples(
                doubts.rows,
                lambda i: reading(look.label_names, probabilities[i], int(look.labels[i])),
                SHOWN_DOUBTS,
            ),
            test_ids=look.test_ids(doubts.rows),
        )
    ]


def find_imbalance(look: DatasetView) -> list[Finding]:
    """One class that is most rows, classes with hardly any, and parts of another mixture."""
    out = []
    k, names = len(look.label_names), look.label_names
    counts = {p: np.bincount(look.labels[look.rows(p)], minlength=k) for p in PARTS}
    test, train = counts["test"], counts["train"]
    share = float(test.max() / test.sum())
    ratio = float(train.max() / max(1, train.min()))
    if share >= 0.8 or ratio >= 10:
        most, least = int(test.argmax()), int(train.argmin())
        out.append(
            Finding(
                check="imbalance",
                where="labels",
                level="warning",
                count=int(train.min()),
                of=int(train.sum()),
                says=f"always saying {names[most]!r} is right on {share:.1%} of test; the rarest "
                f"class, {names[least]!r}, has {rows_word(int(train.min()))} in train",
                advice="Judge by --metric f1_macro or balanced_accuracy.",
                numbers={"majority": share, "ratio": ratio},
            )
        )
    for part in ("validation", "test"):
        p = _same_mixture(train, counts[part])
        distance = float(np.abs(train / train.sum() - counts[part] / counts[part].sum()).sum() / 2)
        if p < 1e-4 and distance >= 0.05:
            far = int(np.abs(train / train.sum() - counts[part] / counts[part].sum()).argmax())
            out.append(
                Finding(
                    check="imbalance",
                    where=f"train/{part}",
                    level="warning",
                    count=int(counts[part].sum()),
                    of=int(counts[part].sum()),
                    says=f"{part} has another mixture of labels than train: {names[far]!r} is "
                    f"{counts[part][far] / counts[part].sum():.0%} of {part} and "
                    f"{train[far] / train.sum():.0%} of train",
                    advice="They may not come from the same source.",
                    numbers={"distance": distance, "p_value": p},
                )
            )
    return out


def _same_mixture(a: Ints, b: Ints) -> float:
    """Chi-square p that two rows of counts come from one mixture."""
    from scipy.stats import chi2_contingency

    seen = (a + b) > 0
    if seen.sum() < 2:
        return 1.0
    return float(chi2_contingency(np.stack([a[seen], b[seen]])).pvalue)
