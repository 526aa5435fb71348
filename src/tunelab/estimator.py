"""scikit-learn's manner: one method of tunelab as an estimator of texts.

Python's door to it is `tunelab.TextClassifier`. It trains as `tunelab.fine_tune` does, but tests
nothing: scikit-learn's own tools (`cross_val_score`, `GridSearchCV`) do that.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from tunelab.classifiers import load
from tunelab.core.errors import DataError
from tunelab.core.files import make_folder, replacing_folder
from tunelab.core.words import counted
from tunelab.data.given import coded_rows, source_of
from tunelab.study import file, resolve
from tunelab.study.alone import train_on_every_row
from tunelab.study.final import check_output_dir

__all__ = ["TextClassifier"]

Texts = Iterable[str]


class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # of no types
    """A classifier of texts for scikit-learn: `fit(texts, labels)`, `predict(texts)` and the rest.

    `method` is a name of `tunelab methods`, `model` its base, `metric` what is chosen by on
    validation, `random_state` the seed; every other keyword is a setting of the method
    (`learning_rate`, `r`, ...). Of the rows that it is fitted to, 15% of each class are held out to
    choose the best epoch on; each class needs three rows. Fitted, it has `classes_`, and in
    `result_` what training cost and scored on validation.
    """

    def __init__(
        self,
        method: str = "lora",
        *,
        model: str = "minilm",
        metric: str = "accuracy",
        random_state: int = 0,
        trust_remote_code: bool = False,
        **settings: Any,
    ) -> None:
        self.method = method
        self.model = model
        self.metric = metric
        self.random_state = random_state
        self.trust_remote_code = trust_remote_code
        for name, value in settings.items():
            setattr(self, name, value)

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """Its parameters, settings of the method that were given among them."""
        return {**super().get_params(deep), **self._settings()}

    def set_params(self, **params: object) -> Self:
        """Change parameters, or set a setting of a method. Raises ValueError for a name of none."""
        known = file.setting_fields()
        own = {k: v for k, v in params.items() if k not in known or k in self._named()}
        super().set_params(**own)
        for name in params.keys() - own.keys():
            setattr(self, name, params[name])
        return self

    def _named(self) -> list[str]:
        return list(super()._get_param_names())

    def _settings(self) -> dict[str, object]:
        """What is neither a parameter of every method nor fitted; what a method lacks too, which is
        refused when it is fitted.
        """
        own = set(self._named())
        return {k: v for k, v in vars(self).items() if k not in own and k.strip("_") == k}

    def fit(self, X: Texts, y: Iterable[object]) -> Self:  # noqa: N803  scikit-learn's name
        """Train on texts (strings, or a column of them) with a label each.

        Raises InputError for what cannot be trained on, TrialError where training failed.
        """
        texts, labels = _texts_of_column(X), _labels(y)
        classes, places = np.unique(labels, return_inverse=True)
        if len(texts) != len(labels) or len(classes) < 2:
            raise DataError(
                f"y: {len(labels):,} labels of {counted(len(classes), 'class')} for "
                f"{len(texts):,} texts, expected one for each, of two classes or more."
            )
        keys = {
            "methods": [self.method],
            "model": self.model,
            "metric": self.metric,
            "seeds": [_seed(self.random_state)],
            "trust_remote_code": self.trust_remote_code,
        }
        folder = Path(tempfile.mkdtemp(prefix="tunelab-fitted-"))
        with source_of(coded_rows(texts, places, list(map(str, classes)))) as source:
            keys |= {"data.source": source, "output_dir": str(folder / "artifact")}
            spec = resolve.resolve_study(None, keys, self._settings())
            try:
                self.result_ = train_on_every_row(spec)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        self.classes_ = classes
        self._open(folder)
        return self

    def _open(self, folder: Path) -> None:
        """Load the classifier that lies in a folder of this estimator's own."""
        self.artifact_ = folder / "artifact"
        self.classifier_ = load(self.artifact_, trust_remote_code=self.trust_remote_code)
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def predict_proba(self, X: Texts) -> NDArray[np.float64]:  # noqa: N803
        """Probabilities (n, n_classes), calibrated, in the order of `classes_`."""
        check_is_fitted(self, "classes_")
        return self.classifier_.predict_proba(_texts_of_column(X))

    def predict(self, X: Texts) -> NDArray[Any]:  # noqa: N803
        """The class of each text, as it was in `y`: (n,)."""
        check_is_fitted(self, "classes_")
        chosen: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return chosen

    def save(self, directory: str | Path) -> None:
        """Copy the classifier into a new folder, for `tunelab.load` and every command."""
        check_is_fitted(self, "classes_")
        out = Path(directory).expanduser()
        check_output_dir(out, overwrite=False)
        make_folder(out.absolute().parent)
        with replacing_folder(out) as draft:
            shutil.copytree(self.artifact_, draft, dirs_exist_ok=True)

    def __getstate__(self) -> dict[str, object]:
        """What is pickled: parameters, classes, and the artifact's files as they are."""
        state: dict[str, object] = super().__getstate__()
        if hasattr(self, "artifact_"):
            files = {
                p.relative_to(self.artifact_).as_posix(): p.read_bytes()
                for p in sorted(self.artifact_.rglob("*"))
                if p.is_file()
            }
            state = {k: v for k, v in state.items() if k not in _OPENED} | {"_files": files}
        return state

    def __setstate__(self, state: Mapping[str, object]) -> None:
        """Write the artifact's files into a folder of its own, and load it: hashes are checked."""
        files = state.get("_files")
        super().__setstate__({k: v for k, v in state.items() if k != "_files"})
        if not isinstance(files, dict):
            return
        folder = Path(tempfile.mkdtemp(prefix="tunelab-fitted-"))
        for name, content in files.items():
            place = folder / "artifact" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        self._open(folder)

    def __sklearn_tags__(self) -> Tags:
        """It reads strings, one a sample; no numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags


_OPENED = ("artifact_", "classifier_")


def _texts_of_column(X: Any) -> list[str]:  # noqa: N803
    """Texts of a list, a series, an array or a frame of one column. Raises DataError."""
    shape: tuple[int, ...] = getattr(X, "shape", ())
    if len(shape) == 2 and shape[1] == 1:
        X = X.iloc[:, 0] if hasattr(X, "iloc") else np.asarray(X)[:, 0]  # noqa: N806
    elif len(shape) == 2:
        raise DataError(f"X: found {shape[1]:,} columns, expected one text a row: frame['text'].")
    if isinstance(X, str) or not isinstance(X, Iterable):
        raise DataError(f"X: found {type(X).__name__}, expected a list of texts.")
    texts = list(X)
    odd = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if odd is not None:
        raise DataError(f"X: row {odd} is {type(texts[odd]).__name__}, expected a string.")
    return texts


def _labels(y: Any) -> NDArray[Any]:
    if y is None:
        raise DataError("y: found None, expected a label for each text (requires y to be passed).")
    columns = y.shape[1] if getattr(y, "ndim", 1) == 2 else 1
    listed = next((v for v in y if isinstance(v, list | tuple | set)), None)
    if columns > 1 or listed is not None:
        raise DataError(
            "y: expected one label a text, found several. TextClassifier is for one class a text; "
            "tunelab.compare and tunelab.fine_tune take several labels."
        )
    labels = np.asarray(y if hasattr(y, "dtype") or hasattr(y, "ndim") else list(y))
    if labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"y: found {labels.ndim} dimensions, expected one label a text.")
    return labels


def _seed(random_state: object) -> int:
    if random_state is None:
        return 0  # a study names its seeds
    if isinstance(random_state, int | np.integer) and random_state >= 0:
        return int(random_state)
    raise DataError(f"random_state: expected a number from 0, found {random_state!r}.")
