"""`tunelab.TextClassifier` in scikit-learn's manner."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks
from sklearn.utils.estimator_checks import check_estimator

import tunelab
from tunelab import TextClassifier
from tunelab.core.errors import DataError, TunelabError

TEXTS = [
    f"{['a quiet film', 'a loud mess'][i % 2]}, {['warm', 'cold', 'long'][i % 3]} number {i}"
    for i in range(60)
]
LABELS = [["good", "bad"][i % 2] for i in range(60)]


def cheap(**settings: object) -> TextClassifier:
    return TextClassifier("svm-tfidf", **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitted() -> TextClassifier:
    return cheap().fit(TEXTS, LABELS)


# --- scikit-learn's own checks --------------------------------------------------------------

# Its suite leaves out estimators that read no numbers, as a whole; these of its checks give none.
WITHOUT_NUMBERS = (
    checks.check_estimator_cloneable,
    checks.check_estimator_tags_renamed,
    checks.check_valid_tag_types,
    checks.check_estimator_repr,
    checks.check_no_attributes_set_in_init,
    checks.check_mixin_order,
    checks.check_do_not_raise_errors_in_init_or_set_params,
    checks.check_get_params_invariance,
    checks.check_set_params,
    checks.check_parameters_default_constructible,
)


@pytest.mark.parametrize("check", WITHOUT_NUMBERS)
def test_scikit_learns_checks_that_give_no_numbers(check: object) -> None:
    check("TextClassifier", TextClassifier())  # type: ignore[operator]


def test_scikit_learn_has_no_further_checks_for_texts() -> None:
    with pytest.warns(match="requires input"):
        assert all(r["status"] == "passed" for r in check_estimator(TextClassifier()))


class OfNumbers(TextClassifier):
    """Writes a row of numbers as words, so that checks which give numbers can be run."""

    def fit(self, X, y):  # type: ignore[no-untyped-def]
        return super().fit(in_words(X), y)

    def predict_proba(self, X):  # type: ignore[no-untyped-def]
        return super().predict_proba(in_words(X))


def in_words(rows: NDArray[np.float64]) -> list[str]:
    ends = zip(*[iter("abcdefghijklmnop")] * 4, strict=True)
    places = [dict(enumerate(e)) for e in ends]
    steps = np.clip(np.round(np.asarray(rows, dtype=float)), -8, 7).astype(int)
    return [
        " ".join(
            f"w{places[j % 4][abs(v) % 4]}{'n' if v < 0 else 'p'}{abs(v)}" for j, v in enumerate(r)
        )
        for r in steps
    ]


WITH_NUMBERS = (
    checks.check_estimators_fit_returns_self,
    checks.check_estimators_overwrite_params,
    checks.check_dont_overwrite_parameters,
    checks.check_dict_unchanged,
    checks.check_estimators_unfitted,
    checks.check_fit_check_is_fitted,
    checks.check_methods_subset_invariance,
    checks.check_methods_sample_order_invariance,
    checks.check_fit_idempotent,
    checks.check_classifiers_classes,
)


@pytest.mark.parametrize("check", WITH_NUMBERS)
def test_scikit_learns_checks_with_numbers_as_words(check: object) -> None:
    check("OfNumbers", OfNumbers("svm-tfidf"))  # type: ignore[operator]


# --- parameters -----------------------------------------------------------------------------


def test_settings_of_the_method_are_parameters() -> None:
    one = TextClassifier("lora", r=8, learning_rate=1e-3)
    assert one.get_params() | {"r": 8, "learning_rate": 1e-3} == one.get_params()
    again = clone(one).set_params(r=16, num_train_epochs=2)
    assert (again.r, again.num_train_epochs, one.r) == (16, 2, 8)
    assert "r=16" in repr(again)
    with pytest.raises(ValueError, match="rank"):
        one.set_params(rank=3)


def test_a_setting_that_the_method_lacks_is_refused_when_it_is_fitted() -> None:
    with pytest.raises(TunelabError, match="r: no method of this study has it"):
        cheap(r=8).fit(TEXTS, LABELS)


# --- fitting --------------------------------------------------------------------------------


def test_it_is_trained_on_all_rows_but_those_of_validation(fitted: TextClassifier) -> None:
    assert fitted.classes_.tolist() == ["bad", "good"]
    assert fitted.predict(TEXTS).tolist() == LABELS
    assert fitted.score(TEXTS, LABELS) == 1.0
    assert fitted.predict_proba(TEXTS[:3]).shape == (3, 2)
    assert fitted.result_.spec.purpose == "final"
    assert not any(name.startswith("test_") for name in fitted.result_.scores)


def test_the_same_classifier_as_train_makes(tmp_path: Path) -> None:
    """One path: fitted to the rows that `fine_tune` trains and validates on, it scores alike."""
    rows = {"train": {"text": TEXTS[:40], "label": LABELS[:40]}}
    tunelab.fine_tune(rows, "svm-tfidf", output_dir=tmp_path / "out", c=0.5)
    one = tunelab.load(tmp_path / "out")
    two = cheap(c=0.5).fit(TEXTS[:40], LABELS[:40]).classifier_
    assert type(one.classifier) is type(two.classifier)
    assert one.predict(TEXTS) == two.predict(TEXTS)


@pytest.mark.parametrize(
    "labels", [[0, 1] * 30, [True, False] * 30, [2.0, 10.0] * 30, ["10", "9 "] * 30]
)
def test_classes_stay_what_they_were(labels: list[object]) -> None:
    one = cheap().fit(pd.Series(TEXTS), labels)
    assert one.predict(np.asarray(TEXTS)).tolist() == labels
    assert one.classes_.tolist() == sorted(set(labels))  # type: ignore[type-var]


def test_what_is_pickled_or_copied_predicts_alike(fitted: TextClassifier) -> None:
    for again in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):  # noqa: S301
        assert again.artifact_ != fitted.artifact_
        np.testing.assert_array_equal(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    folder = again.artifact_
    del again
    assert not folder.exists()  # what it lay in goes with it


def test_what_is_saved_is_loaded_as_any_classifier(fitted: TextClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "out")
    assert tunelab.load(tmp_path / "out").predict(TEXTS) == LABELS
    with pytest.raises(ValueError, match="not empty"):
        fitted.save(tmp_path / "out")


def test_cross_validation_a_pipeline_and_a_grid() -> None:
    lower = make_pipeline(FunctionTransformer(lambda texts: [t.lower() for t in texts]), cheap())
    assert cross_val_score(lower, TEXTS, LABELS, cv=2).tolist() == [1.0, 1.0]
    grid = GridSearchCV(cheap(), {"c": [0.1, 1.0]}, cv=2).fit(TEXTS, LABELS)
    assert grid.best_score_ == 1.0
    assert grid.best_estimator_.c == grid.best_params_["c"]


@pytest.mark.parametrize(
    ("texts", "labels", "said"),
    [
        (TEXTS, None, "requires y"),
        (TEXTS, LABELS[1:], "59 labels of 2 classes for 60 texts"),
        (TEXTS, ["a"] * 60, "of 1 class for"),
        (TEXTS, np.zeros((60, 2)), "expected one label a text, found several"),
        (pd.DataFrame({"text": TEXTS, "more": TEXTS}), LABELS, "2 columns, expected one text"),
        ("a text", LABELS, "found str, expected a list"),
        ([*TEXTS[:59], 3], LABELS, "row 59 is int"),
        (TEXTS[:4], LABELS[:4], "too few rows"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_a_line(
    texts: object, labels: object, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        cheap().fit(texts, labels)  # type: ignore[arg-type]


def test_what_is_not_fitted_predicts_nothing() -> None:
    with pytest.raises(NotFittedError):
        cheap().predict(TEXTS)
    with pytest.raises(DataError, match="random_state: expected a number"):
        cheap(random_state="one").fit(TEXTS, LABELS)
