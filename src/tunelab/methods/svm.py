"""Linear SVMs: on TF-IDF (`svm-tfidf`) and on frozen embeddings (`svm`).

LinearSVC (Fan et al. 2008), one-vs-rest; its C is chosen on validation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tunelab.core.details import Details
from tunelab.core.errors import TrialError
from tunelab.methods.embedded import (
    CGrid,
    EmbeddingSettings,
    FittedHead,
    class_counts,
    fit_on_vectors,
    one_vs_rest,
    plane_of_each_label,
)
from tunelab.methods.method import Costs, Method, Outcome, Task
from tunelab.methods.selection import best_on_validation

__all__ = [
    "METHODS",
    "SvmSettings",
    "TfidfSettings",
    "in_dual_form",
]


Floats = NDArray[np.float64]
_NO_ADAPTER = "an SVM has no adapter: its hyperplanes are counted as the head"


class TfidfSettings(CGrid):
    """Settings of `svm-tfidf`."""

    word_ngrams: int = Field(2, ge=0, le=5, description="longest word n-gram; 0 for none")
    char_ngrams: int = Field(5, ge=0, le=8, description="longest character n-gram (2 up); 0: none")
    min_df: int = Field(1, ge=1, description="drop terms that occur in fewer training texts")


class SvmSettings(CGrid, EmbeddingSettings):
    """Settings of `svm`."""


def fit_tfidf(task: Task) -> Outcome:
    """TF-IDF of words and of characters within words, then LinearSVC."""
    from tunelab.models.linear import TfidfSvm, tfidf_features
    from tunelab.models.tfidf import NgramWeights

    started = time.perf_counter()
    vectorizers = _fit_vectorizers(task.settings, task.train.texts)
    train = tfidf_features(vectorizers, task.train.texts)
    validation = tfidf_features(vectorizers, task.validation.texts)
    planes, own = _best_planes(task, train, validation)
    seconds = time.perf_counter() - started
    size = planes.weights.size + planes.offsets.size
    return Outcome(
        classifier=TfidfSvm(
            tuple(map(NgramWeights.of, vectorizers)), planes, task.label_names, task.logit_kind
        ),
        train_seconds=seconds,
        counts=class_counts(size, size),
        details=Details(own={**own, "features": int(train.shape[1])}),
        reasons={"adapter_parameters": _NO_ADAPTER},
        validation_scores=planes.logits(validation),
    )


def fit_embeddings(task: Task) -> Outcome:
    """Frozen vectors of the base, standardised, then LinearSVC."""
    return fit_on_vectors(task, "svm", _fit_planes)


def _fit_planes(task: Task, train: Any, validation: Any) -> FittedHead:
    from tunelab.models.vector_heads import LinearHead, Standard

    standard = Standard.of(train)
    planes, own = _best_planes(task, standard(train), standard(validation))
    size = planes.weights.size + planes.offsets.size
    head = LinearHead(planes, standard, score_kind=task.logit_kind)
    return FittedHead(head, size, size, own, _NO_ADAPTER)


def _fit_vectorizers(settings: TfidfSettings, texts: Sequence[str]) -> list[Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    kinds = []
    if settings.word_ngrams:
        kinds.append(("word", (1, settings.word_ngrams)))
    if settings.char_ngrams:
        # Within word boundaries: endings, stems and spelling, without n-grams across words.
        kinds.append(("char_wb", (min(2, settings.char_ngrams), settings.char_ngrams)))
    if not kinds:
        raise TrialError("svm-tfidf has no features: set word_ngrams or char_ngrams above 0.")
    out = []
    for analyzer, ngrams in kinds:
        vectorizer = TfidfVectorizer(
            analyzer=analyzer, ngram_range=ngrams, min_df=settings.min_df, sublinear_tf=True
        )
        try:
            out.append(vectorizer.fit(texts))
        except ValueError as e:
            raise TrialError(
                f"svm-tfidf found no {analyzer} n-gram in {settings.min_df} or more training texts "
                f"({e}). Lower min_df, or use a method that reads the texts through a model."
            ) from e
    return out


def _best_planes(task: Task, train: Any, validation: Any) -> tuple[Any, Mapping[str, object]]:
    """Fit LinearSVC for every C; keep the one that is best on validation (ties: the smallest C). Of
    several labels a text there is one for each.

    Each is judged with the temperature that it would be kept with. Where the metric has no value on
    validation, all are alike.
    """
    from sklearn.svm import LinearSVC

    from tunelab.models.vector_heads import Hyperplanes

    fitted: list[Hyperplanes] = []
    cs = sorted(task.settings.c)
    for c in cs:
        model = LinearSVC(C=c, dual=in_dual_form(train.shape), random_state=0, max_iter=10_000)
        if task.kind == "multilabel":
            planes = plane_of_each_label(model, train, task.train.labels)
        else:
            planes = one_vs_rest(model.fit(train, task.train.labels))
        plain = Hyperplanes(*planes, temperature=1.0)
        temperature = _temperature(plain.logits(validation), task.validation.labels)
        fitted.append(replace(plain, temperature=temperature))
    tries = [({"C": c}, p.logits(validation)) for c, p in zip(cs, fitted, strict=True)]
    best, tried = best_on_validation(task, tries, task.logit_kind)
    kept = fitted[best]
    return kept, {"tried": tried, "C": tried[best]["C"], "temperature": kept.temperature}


def in_dual_form(shape: tuple[int, int]) -> bool:
    """Whether (rows, features) are fitted faster in the dual form (benchmarks/svm.py).

    About as many rows as twice the features can still be told apart without a fault (Cover 1965):
    up to there the dual form converges at once, beyond it only slowly. Scikit-learn's own choice
    changes at as many rows as features.
    """
    rows, features = shape
    return rows < 2 * features


def _temperature(margins: Floats, labels: NDArray[np.int64]) -> float:
    """Factor on the margins that minimises log loss (Guo et al. 2017), between 0.01 and 100."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if labels.ndim == 2:

        def of_labels(log_t: float) -> float:
            z = float(np.exp(log_t)) * margins
            return float(np.mean(np.logaddexp(0.0, z) - z * labels))

        best = minimize_scalar(of_labels, bounds=(np.log(0.01), np.log(100.0)), method="bounded")
        return float(np.exp(best.x))
    right = margins[np.arange(len(labels)), labels]

    def loss(log_t: float) -> float:
        t = float(np.exp(log_t))
        return float(np.mean(logsumexp(t * margins, axis=1) - t * right))

    best = minimize_scalar(loss, bounds=(np.log(0.01), np.log(100.0)), method="bounded")
    return float(np.exp(best.x))


METHODS = (
    Method(
        "svm-tfidf",
        "linear SVM on TF-IDF of word and character n-grams",
        TfidfSettings,
        fit_tfidf,
        needs_base=False,
        by_metric=True,
        chance=False,
        # n-grams of every length, twice; to count a word's takes as long as so many operations.
        costs=Costs(work_per_word=2e6, bytes_per_character=60.0),
        tasks=("classes", "multilabel", "ordinal"),
    ),
    Method(
        "svm",
        "linear SVM on the frozen base model's embeddings",
        SvmSettings,
        fit_embeddings,
        by_metric=True,
        chance=False,
        # A forward pass in float32; then fits for each C, one against the rest.
        costs=Costs(work=3.5, once=True, fit_per_value=1.5e5),
        tasks=("classes", "multilabel", "ordinal"),
    ),
)
