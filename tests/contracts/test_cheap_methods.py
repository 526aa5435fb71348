"""What trains no transformer, through one contract on a tiny base; and against scikit-learn.

A row of METHODS that has no `adapt` is held to it from the day that it stands there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny import BAD, GOOD, PLAIN
from tunelab.core.values import MethodSpec, Seeds, Split
from tunelab.methods import METHODS, Outcome, Task, check, fit_alone
from tunelab.models import bases, text_classifier
from tunelab.stats import calibration

CHEAP = [m.name for m in METHODS.values() if m.adapt is None and m.needs_base]
SMALL: dict[str, dict[str, Any]] = {"boosting": {"min_rows_per_leaf": 1}}


def split(n: int, seed: int, classes: int) -> Split:
    """Short texts, each with words that tell its class; the last of three has neither."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    tell = (BAD[:2], GOOD[:2], ("scene", "actor"))
    texts = [" ".join([*rng.choice(PLAIN[:2], 1 + i % 3), *rng.choice(tell[y], 3)])
             for i, y in enumerate(labels)]  # fmt: skip
    return Split(tuple(f"{seed}-{i}" for i in range(n)), tuple(texts), labels)


def task_of(method: str, base: bases.Base, classes: int, **settings: Any) -> Task:
    given = {"max_length": 16, **SMALL.get(method, {}), **settings}
    check(base, MethodSpec(method, method, given))
    return Task(
        label_names=("bad", "good", "neither")[:classes],
        train=split(48, 0, classes),
        validation=split(60, 1, classes),
        base=base,
        settings=METHODS[method].settings(**given),
        seeds=Seeds(1, 2, 3),
        metric="accuracy",
        on_step=lambda _: None,
    )


@pytest.fixture(scope="module")
def base(tiny_bert: Path) -> bases.Base:
    return bases.resolve(str(tiny_bert))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("method", CHEAP)
def test_contract(method: str, classes: int, base: bases.Base, tmp_path: Path) -> None:
    task = task_of(method, base, classes)
    outcome = fit_alone(METHODS[method], task)
    texts, labels = split(60, 2, classes).texts, split(60, 2, classes).labels
    scores = outcome.classifier.scores(texts)
    assert scores.shape == (60, classes)
    right = float((scores.argmax(axis=1) == labels).mean())
    assert right >= 0.8, f"{right:.0%} right, where each text says its class"
    twice(method, task, texts, scores)
    by_itself(outcome, texts, scores)
    saved(outcome, task, texts, scores, tmp_path / "artifact")
    assert outcome.train_seconds > 0
    assert outcome.counts["adapter_parameters"] is None
    assert "\n" not in outcome.reasons["adapter_parameters"]
    if outcome.validation_scores is not None:
        again = outcome.classifier.scores(task.validation.texts)
        np.testing.assert_allclose(outcome.validation_scores, again, atol=1e-4)


def twice(method: str, task: Task, texts: tuple[str, ...], scores: np.ndarray) -> None:
    """The same spec gives the same scores; where chance is said to play no part, any seed does."""
    other = replace(task, seeds=Seeds(7, 8, 9)) if not METHODS[method].chance else task
    again = fit_alone(METHODS[method], other).classifier.scores(texts)
    np.testing.assert_array_equal(again, scores)


def by_itself(outcome: Outcome, texts: tuple[str, ...], scores: np.ndarray) -> None:
    alone = np.concatenate([outcome.classifier.scores([t]) for t in texts[:8]])
    np.testing.assert_allclose(alone, scores[:8], atol=1e-4)
    assert outcome.classifier.scores([]).shape == (0, scores.shape[1])


def saved(
    outcome: Outcome, task: Task, texts: tuple[str, ...], scores: np.ndarray, folder: Path
) -> None:
    folder.mkdir()
    outcome.classifier.save(folder)
    calibration.write_temperature(folder, _predictions(outcome, task))
    loaded = text_classifier.open_classifier(folder)
    np.testing.assert_array_equal(loaded.classifier.scores(texts), scores)
    assert loaded.label_names == task.label_names
    assert loaded.classifier.score_kind == outcome.classifier.score_kind
    p = loaded.predict_proba(list(texts))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == scores.argmax(axis=1)).all()
    assert not [f for f in folder.rglob("*") if f.suffix in {".pkl", ".joblib", ".bin"}]


def _predictions(outcome: Outcome, task: Task) -> Any:
    from tunelab.core.values import Predictions

    part = task.validation
    own = outcome.classifier
    return Predictions(part.ids, part.labels, own.scores(part.texts), own.score_kind)


# --- against scikit-learn ---------------------------------------------------------------------


def vectors_of(outcome: Outcome, part: Split) -> np.ndarray:
    own: Any = outcome.classifier
    vectors: np.ndarray = own.embedder(part.texts)
    return vectors


def _logistic(x: np.ndarray, y: np.ndarray) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5_000))
    return model.fit(x.astype(np.float64), y)


def _boosting(x: np.ndarray, y: np.ndarray) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=12, max_leaf_nodes=15, min_samples_leaf=1, early_stopping=False
    ).fit(x, y)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("method", "settings", "theirs"),
    [("logistic", {"c": 0.1}, _logistic), ("boosting", {"trees": [12, 5]}, _boosting)],
)
def test_probabilities_are_those_of_scikit_learn(
    method: str, settings: dict[str, Any], theirs: Callable[..., Any], classes: int,
    base: bases.Base,
) -> None:  # fmt: skip
    from tunelab.stats.predictions import probabilities

    job = task_of(method, base, classes, pooling="cls+mean", **settings)
    if method == "boosting":  # the more trees, the better: chosen are all
        job = replace(job, metric="log_loss")
    outcome = fit_alone(METHODS[method], job)
    model = theirs(vectors_of(outcome, job.train), job.train.labels)
    test = split(40, 3, classes)
    ours = probabilities(outcome.classifier.scores(test.texts), "logit")
    expected = model.predict_proba(vectors_of(outcome, test))
    np.testing.assert_allclose(ours, expected, atol=1e-4 if method == "logistic" else 1e-9)


def test_the_nearest_vote(base: bases.Base) -> None:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    job = task_of("knn", base, 3, k=1)
    outcome = fit_alone(METHODS["knn"], job)
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(1, metric="cosine"))
    model.fit(vectors_of(outcome, job.train).astype(np.float64), job.train.labels)
    test = split(40, 3, 3)
    assert (
        outcome.classifier.scores(test.texts).argmax(axis=1)
        == model.predict(vectors_of(outcome, test).astype(np.float64))
    ).all()


@pytest.mark.parametrize("pooling", ["max", "mean+mean", "", "cls+"])
def test_a_pooling_that_there_is_not(pooling: str) -> None:
    with pytest.raises(ValueError, match="cls, mean, last, or some of them"):
        METHODS["logistic"].settings(**{"pooling": pooling})
