"""Linear SVMs: on TF-IDF (`svm-tfidf`) and on frozen embeddings (`svm`).

LinearSVC (Fan et al. 2008), one-vs-rest; its C is chosen on validation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from tunelab.core.details import Details
from tunelab.core.errors import TrialError
from tunelab.core.values import Predictions
from tunelab.methods.method import Costs, Method, Outcome, Task
from tunelab.methods.settings import EncoderSettings, Settings
from tunelab.stats import metrics

__all__ = [
    "METHODS",
    "SvmSettings",
    "TfidfSettings",
    "in_dual_form",
]


Floats = NDArray[np.float64]
_NO_ADAPTER = "an SVM has no adapter: its hyperplanes are counted as the head"


class _CGrid(Settings):
    c: tuple[float, ...] = Field(
        (0.01, 0.1, 1.0, 10.0),
        min_length=1,
        description="values of C tried; the best on validation is kept",
    )

    @field_validator("c", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value

    @field_validator("c")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(c <= 0 for c in value):
            raise ValueError("values above 0")
        return value


class TfidfSettings(_CGrid):
    """Settings of `svm-tfidf`."""

    word_ngrams: int = Field(2, ge=0, le=5, description="longest word n-gram; 0 for none")
    char_ngrams: int = Field(5, ge=0, le=8, description="longest character n-gram (2 up); 0: none")
    min_df: int = Field(1, ge=1, description="drop terms that occur in fewer training texts")


class SvmSettings(_CGrid, EncoderSettings):
    """Settings of `svm`."""

    pooling: Literal["cls", "mean"] = Field(
        "mean", description="the text's vector: its first token, or the mean of all tokens"
    )


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
        classifier=TfidfSvm(tuple(map(NgramWeights.of, vectorizers)), planes, task.label_names),
        train_seconds=seconds,
        counts=_class_counts(size, size),
        details=Details(own={**own, "features": int(train.shape[1])}),
        reasons={"adapter_parameters": _NO_ADAPTER},
        validation_scores=planes.logits(validation),
    )


def fit_embeddings(task: Task) -> Outcome:
    """Frozen vectors of the base, standardised, then LinearSVC.

    `train_seconds` counts what computing the training vectors takes, also when they come from the
    cache; then a sample of them is computed to know it.
    """
    from tunelab.models import bases, embeddings, lengths
    from tunelab.models.linear import EmbeddingSvm

    assert task.base is not None  # noqa: S101  the row says needs_base
    s: SvmSettings = task.settings
    limit = lengths.limit_of(s.max_length, task.base, task.train.texts)
    embedder = embeddings.Embedder(task.base, s.pooling, limit, s.per_device_eval_batch_size)
    train = embeddings.cached(task.base, task.train.texts, s.pooling, limit, embedder)
    validation = embeddings.cached(task.base, task.validation.texts, s.pooling, limit, embedder)
    started = time.perf_counter()
    vectors = train.vectors.astype(np.float64)
    mean, scale = vectors.mean(axis=0), vectors.std(axis=0)
    scale[scale == 0] = 1.0
    planes, own = _best_planes(task, (vectors - mean) / scale, (validation.vectors - mean) / scale)
    seconds = time.perf_counter() - started
    embedding = train.seconds
    if train.from_cache:
        embedding = embeddings.seconds_now(embedder, task.train.texts)
    classifier = EmbeddingSvm(
        embedder, planes, mean, scale, task.label_names, task.base.ref, s.pooling, limit
    )
    size = planes.weights.size + planes.offsets.size
    return Outcome(
        classifier=classifier,
        train_seconds=seconds + embedding,
        counts=_class_counts(size, size + bases.count_parameters(task.base)),
        details=Details(
            own={**own, "embedding_seconds": embedding},
            from_cache=train.from_cache,
            notes=bases.notes_of_base(task.base, task.label_names, head=False),
        ),
        reasons={"adapter_parameters": _NO_ADAPTER},
        peak_memory_bytes=train.peak_memory_bytes if train.from_cache else None,
        validation_scores=classifier.score_embeddings(validation.vectors),
    )


def _class_counts(trainable: int, total: int) -> dict[str, int | None]:
    return {
        "total_parameters": total,
        "trainable_parameters": trainable,
        "head_parameters": trainable,
        "adapter_parameters": None,
    }


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
    """Fit LinearSVC for every C; keep the one that is best on validation (ties: the smallest C).

    Each is judged with the temperature that it would be kept with. Where the metric has no value on
    validation, all are alike.
    """
    from sklearn.svm import LinearSVC

    from tunelab.models.linear import Hyperplanes

    metric = metrics.METRICS[task.metric]
    tried: list[dict[str, float | None]] = []
    fitted: list[Hyperplanes] = []
    for c in sorted(task.settings.c):
        model = LinearSVC(C=c, dual=in_dual_form(train.shape), random_state=0, max_iter=10_000)
        model.fit(train, task.train.labels)
        plain = Hyperplanes(*_one_vs_rest(model), temperature=1.0)
        temperature = _temperature(plain.logits(validation), task.validation.labels)
        fitted.append(replace(plain, temperature=temperature))
        logits = fitted[-1].logits(validation)
        scores, _ = metrics.evaluate(
            Predictions(task.validation.ids, task.validation.labels, logits, "logit"),
            task.label_names,
        )
        tried.append({"C": c, f"eval_{task.metric}": scores[task.metric]})
    sign = 1 if metric.higher_is_better else -1
    values = [t[f"eval_{task.metric}"] for t in tried]
    # max keeps the first of equals: of equally good ones, the most regularised.
    best = max(range(len(tried)), key=lambda i: -math.inf if (v := values[i]) is None else sign * v)
    planes = fitted[best]
    return planes, {"tried": tried, "C": tried[best]["C"], "temperature": planes.temperature}


def in_dual_form(shape: tuple[int, int]) -> bool:
    """Whether (rows, features) are fitted faster in the dual form (benchmarks/svm.py).

    About as many rows as twice the features can still be told apart without a fault (Cover 1965):
    up to there the dual form converges at once, beyond it only slowly. Scikit-learn's own choice
    changes at as many rows as features.
    """
    rows, features = shape
    return rows < 2 * features


def _one_vs_rest(model: Any) -> tuple[Floats, Floats]:
    """Weights (n_classes, n_features) and offsets; a binary SVM's one plane is used for both."""
    weights, offsets = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weights) > 1:
        return weights, offsets
    return np.vstack([-weights, weights]) / 2, np.concatenate([-offsets, offsets]) / 2


def _temperature(margins: Floats, labels: NDArray[np.int64]) -> float:
    """Factor on the margins that minimises log loss (Guo et al. 2017), between 0.01 and 100."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

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
    ),
)
