"""SVMs against scikit-learn: the same decisions, before and after saving."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC

from tiny import reviews
from tunelab.core import artifact, cache
from tunelab.core.values import Predictions, Seeds, Split
from tunelab.methods import METHODS, Task, fit_alone
from tunelab.models import bases, embedded, embeddings, linear
from tunelab.stats import metrics, predictions


def split(texts: list[str], labels: list[int]) -> Split:
    return Split(tuple(f"r{i}" for i in range(len(texts))), tuple(texts), np.asarray(labels))


def three_classes(n: int, seed: int) -> Split:
    rows = reviews(n, seed)
    labels = [2 if "the" in t.split() else int(name == "good") for t, name in rows]
    return split([t for t, _ in rows], labels)


def two_classes(n: int, seed: int) -> Split:
    rows = reviews(n, seed)
    return split([t for t, _ in rows], [int(name == "good") for _, name in rows])


def task(method: str, make: object, base: Path | None = None, **settings: object) -> Task:
    k = 2 if make is two_classes else 3
    return Task(
        label_names=tuple(f"class {i}" for i in range(k)),
        train=make(90, 0),  # type: ignore[operator]
        validation=make(40, 1),  # type: ignore[operator]
        base=bases.resolve(str(base)) if base else None,
        settings=METHODS[method].settings(**settings),
        seeds=Seeds(1, 2, 3),
        metric="accuracy",
        on_step=lambda _: None,
    )


@pytest.mark.parametrize("make", [two_classes, three_classes])
def test_tfidf_svm_decides_as_scikit_learn_does(make: object, tmp_path: Path) -> None:
    job = task("svm-tfidf", make, c=[0.5])
    outcome = fit_alone(METHODS["svm-tfidf"], job)
    theirs = make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
        ),
        LinearSVC(C=0.5, dual=True, random_state=0, max_iter=10_000),  # fewer rows than features
    ).fit(job.train.texts, job.train.labels)
    test = make(60, 2)  # type: ignore[operator]
    ours = outcome.classifier.scores(test.texts)
    margins = theirs.decision_function(test.texts)
    scale = outcome.details["temperature"]
    shown = ours[:, 1] - ours[:, 0] if margins.ndim == 1 else ours
    np.testing.assert_allclose(shown / scale, margins, atol=1e-8)
    assert (ours.argmax(axis=1) == theirs.predict(test.texts)).all()

    outcome.classifier.save(tmp_path)
    again = linear.open_tfidf(artifact.open_artifact(tmp_path))
    assert (again.scores(test.texts) == ours).all()
    assert again.label_names == job.label_names
    assert not list(tmp_path.glob("*.pkl"))


def test_c_is_chosen_on_validation_and_every_try_is_kept() -> None:
    outcome = fit_alone(METHODS["svm-tfidf"], task("svm-tfidf", two_classes, c=[10, 0.001, 0.1]))
    tried = outcome.details["tried"]
    assert [t["C"] for t in tried] == [0.001, 0.1, 10]
    best = max(t["eval_accuracy"] for t in tried)
    assert outcome.details["C"] == next(t["C"] for t in tried if t["eval_accuracy"] == best)


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc"])
def test_c_is_judged_by_the_scores_that_would_be_kept(metric: str) -> None:
    job = replace(task("svm-tfidf", three_classes, c=[0.001, 0.1, 10]), metric=metric)
    outcome = fit_alone(METHODS["svm-tfidf"], job)
    assert outcome.validation_scores is not None
    part = job.validation
    kept = Predictions(part.ids, part.labels, outcome.validation_scores, "logit")
    values = {t["C"]: t[f"eval_{metric}"] for t in outcome.details["tried"]}
    best = (max if metric == "roc_auc" else min)(values.values())
    assert values[outcome.details["C"]] == best == metrics.METRICS[metric].function(kept)


def test_c_without_a_value_on_validation_is_the_smallest() -> None:
    job = replace(task("svm-tfidf", two_classes, c=[0.1, 1]), metric="roc_auc")
    one = replace(job.validation, labels=np.zeros_like(job.validation.labels))
    outcome = fit_alone(METHODS["svm-tfidf"], replace(job, validation=one))
    assert outcome.details["C"] == 0.1
    assert [t["eval_roc_auc"] for t in outcome.details["tried"]] == [None, None]


def test_temperature_minimises_log_loss_on_validation() -> None:
    job = task("svm-tfidf", two_classes)
    # With some labels wrong, no factor makes the loss vanish, and there is one that is best.
    noisy = np.where(np.arange(40) % 5 == 0, 1 - job.validation.labels, job.validation.labels)
    job = replace(job, validation=replace(job.validation, labels=noisy))
    outcome = fit_alone(METHODS["svm-tfidf"], job)
    scores = outcome.validation_scores
    assert scores is not None
    labels = job.validation.labels

    def loss(factor: float) -> float:
        return float(log_loss(labels, predictions.probabilities(scores * factor, "logit")))

    assert loss(1.0) <= min(loss(0.9), loss(1.1)) + 1e-9


@pytest.mark.parametrize("pooling", ["cls", "mean", "last+mean"])
def test_embedding_svm_survives_saving(tiny_bert: Path, tmp_path: Path, pooling: str) -> None:
    job = task("svm", three_classes, tiny_bert, pooling=pooling)
    outcome = fit_alone(METHODS["svm"], job)
    texts = three_classes(30, 5).texts
    ours = outcome.classifier.scores(texts)
    outcome.classifier.save(tmp_path)
    again = embedded.open_embedded(artifact.open_artifact(tmp_path))
    np.testing.assert_allclose(again.scores(texts), ours, atol=1e-9)
    assert outcome.counts["trainable_parameters"] == 3 * 32 * (1 + pooling.count("+")) + 3


def test_seconds_are_of_now_where_vectors_were_kept(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path))
    job = task("svm", three_classes, tiny_bert)
    first = fit_alone(METHODS["svm"], job)
    for note in (tmp_path / "embeddings").glob("*.json"):  # as if they were of a busy hour
        cache.keep_json(note, {**cache.kept_json(note), "seconds": 1e6}, bounded=False)
    again = fit_alone(METHODS["svm"], job)
    assert (first.details["from_cache"], again.details["from_cache"]) == (False, True)
    assert 0 < again.details["embedding_seconds"] < again.train_seconds < 60


def test_embeddings_are_cached_by_content(tiny_bert: Path) -> None:
    base = bases.resolve(str(tiny_bert))
    texts = [t for t, _ in reviews(20, seed=77)]
    first = embeddings.cached(base, texts, "mean", 32)
    again = embeddings.cached(base, texts, "mean", 32)
    assert not first.from_cache
    assert again.from_cache
    assert (first.vectors == again.vectors).all()
    assert again.seconds == first.seconds
    for other in (
        embeddings.cached(base, texts[:10], "mean", 32),
        embeddings.cached(base, texts, "cls", 32),
        embeddings.cached(base, texts, "mean", 5),
    ):
        assert not other.from_cache
    # A subset is computed on its own and is equal: batching does not change a vector.
    np.testing.assert_allclose(
        embeddings.cached(base, texts[:10], "mean", 32).vectors, first.vectors[:10], atol=1e-6
    )


@pytest.mark.parametrize("kept", [-8, 20, 4, 0])
@pytest.mark.parametrize("end", ["npy", "json"])
def test_a_cached_file_cut_short_is_made_anew(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, end: str
) -> None:
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path))
    base, texts = bases.resolve(str(tiny_bert)), ["a good film", "a bad plot", "dull"]
    first = embeddings.cached(base, texts, "mean", 32)
    (file,) = (tmp_path / "embeddings").glob(f"*.{end}")
    file.write_bytes(file.read_bytes()[:kept])
    again = embeddings.cached(base, texts, "mean", 32)
    assert not again.from_cache
    assert np.array_equal(again.vectors, first.vectors)
    assert embeddings.cached(base, texts, "mean", 32).from_cache


def test_mean_pooling_leaves_padding_out(tiny_bert: Path) -> None:
    embed = embeddings.Embedder(bases.resolve(str(tiny_bert)), "mean", 64)
    short, long = "good", "the film was very good and the plot was clever"
    together = embed([short, long])
    np.testing.assert_allclose(together[0], embed([short])[0], atol=1e-6)
