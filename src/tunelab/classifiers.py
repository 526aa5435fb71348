"""What loading a classifier takes, and no more: a study is read only where one is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.core import study_folder
from tunelab.core.artifact import open_artifact, refuse_several_labels
from tunelab.core.errors import InputError
from tunelab.core.values import Artifact
from tunelab.models.text_classifier import TextClassifier, open_classifier

if TYPE_CHECKING:
    from tunelab.models.familiar import Familiar, OtherRates

__all__ = [
    "classifier_folder",
    "familiarity",
    "load",
    "load_to_predict",
]


def classifier_folder(path: str | Path) -> Path:
    """The folder of the classifier that a folder stands for: a study's is its best model."""
    folder = Path(path).expanduser()
    if not study_folder.is_study(folder):
        return folder
    from tunelab.analysis import summarise, summary
    from tunelab.study import final

    record = study_folder.read_study(folder)
    said = summarise(record)
    return final.shipped(record, said, summary.best_trial(record, said)).directory


def load(
    path: str | Path | Artifact, *, model: str | Path | None = None, trust_remote_code: bool = False
) -> TextClassifier:
    """Load a classifier: an artifact, a folder that holds one, or a study (its best model).

    The result has `predict(texts)`, `predict_proba(texts)` and `label_names`. Probabilities are
    those at the temperature that was fitted on validation, where there is one; `raw()` leaves it
    out. `model`: where the base of an adapter or an SVM lies now, a folder or a hub id, if not
    where it was; its weights must be the same by hash. Python code that the model brings is run
    only where `trust_remote_code` allows it.
    """
    folder = path.directory if isinstance(path, Artifact) else classifier_folder(path)
    there = None if model is None else str(model)
    return open_classifier(folder, trust_remote_code, there)


def familiarity(path: str | Path, error: float = 0.05) -> tuple[Familiar, OtherRates]:
    """What tells texts that read like none of a classifier's training texts, and how often it is
    wrong where at most a share of `error` may be: `familiarity(path)[0].others(texts, 0.05)`.

    Its data are read again from where they came. Raises InputError where they cannot be, are others
    now, or have too few validation rows.
    """
    from tunelab.models.familiar import familiar_with, other_rates
    from tunelab.stats.abstention import NoThresholdError
    from tunelab.study.known_rows import rows_of_classifier

    folder = classifier_folder(path)
    refuse_several_labels(open_artifact(folder), "other")
    known = rows_of_classifier(folder)
    if known is None:
        raise InputError(
            f"{folder}: which texts are far from its training texts is not known: its data cannot "
            "be read any more, or are others now. Put them where they were, or leave --other out."
        )
    try:
        rates = other_rates(known, error)
        own = familiar_with(known.train.texts, known.validation.texts)
        own.others([], error)
    except NoThresholdError as e:
        raise InputError(f"{folder}: other: {e}.") from e
    return own, rates


def load_to_predict(
    path: Path, *, model: str | None = None, trust_remote_code: bool = False
) -> TextClassifier:
    """As `load`, for whoever only wants labels: the same scores, sooner."""
    return open_classifier(classifier_folder(path), trust_remote_code, model, scores_only=True)
