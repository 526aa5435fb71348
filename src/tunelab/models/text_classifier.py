"""Load a saved classifier and label texts with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import EMBEDDED, refuse_lacking, refuse_several_labels
from tunelab.core.errors import ArtifactError, DataError, InputError, TunelabError
from tunelab.core.tasks import Labels, TaskName, label_sets
from tunelab.core.values import Artifact, Classifier
from tunelab.core.words import check_unicode
from tunelab.models import batches, foreign
from tunelab.models.explained import Explanation, explain
from tunelab.stats import calibration, predictions
from tunelab.stats.abstention import NoThresholdError

__all__ = [
    "TextClassifier",
    "open_classifier",
]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TextClassifier:
    """A loaded artifact: `predict` gives label names, `predict_proba` probabilities.

    `temperature`: what scores are divided by before they become probabilities: as loaded, the one
    that was fitted on validation; None: they are taken as they are. No label changes.
    `thresholds` (n_labels,), of several labels a text: the probability from which on each is
    predicted; None: one half.
    """

    classifier: Classifier
    artifact: Artifact
    temperature: float | None = None
    thresholds: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        """What it is, in one line: neither its weights nor its vocabulary."""
        names = ", ".join(map(repr, self.label_names[:6]))
        more = f" and {len(self.label_names) - 6:,} more" if len(self.label_names) > 6 else ""
        kind, folder = self.artifact.manifest["kind"], str(self.artifact.directory)
        read = f", {self.max_length} tokens read" if self.max_length else ""
        return f"TextClassifier({kind}, labels {names}{more}{read}, from {folder!r})"

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of predict_proba's columns."""
        return self.classifier.label_names

    @property
    def task(self) -> TaskName:
        """What it predicts of a text."""
        return "multilabel" if self.classifier.score_kind == "label_logit" else "classes"

    @property
    def max_length(self) -> int | None:
        """Tokens that are read of a text, the rest is cut; None where texts are read whole."""
        own = getattr(self.classifier, "max_length", None)
        return self.artifact.manifest.get("max_length") or own

    @property
    def notes(self) -> tuple[str, ...]:
        """What had to be decided on loading, because the folder does not say it."""
        return tuple(self.artifact.manifest.get("notes", ()))

    def raw(self) -> TextClassifier:
        """The same classifier with probabilities as its scores give them, without a temperature."""
        return replace(self, temperature=None)

    def calibrated(self) -> TextClassifier:
        """The same classifier with the temperature that was fitted on its validation part, as it is
        loaded where there is one. Raises ArtifactError where the artifact has none.
        """
        return replace(self, temperature=calibration.read_temperature(self.artifact))

    def computing_in(self, precision: str) -> TextClassifier:
        """The same classifier with layers that compute in "auto", "float32" or "bfloat16".

        float32 is exact; auto is float32 to five digits, faster on processors with matrix tiles.
        bfloat16 is faster where the processor has it, and rounds: labels near the border may flip.
        Raises ArtifactError for an SVM, and where a quantised base computes as it was loaded.
        """
        own: Any = self.classifier
        if precision in {"auto", "float32"} and not hasattr(own, "precision"):
            return self  # an SVM, as it is; what follows loads torch
        from tunelab.models.scoring_batches import PRECISIONS

        if precision not in PRECISIONS:
            raise ArtifactError(
                f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}."
            )
        if not hasattr(own, "precision") or (own.quantization and precision == "bfloat16"):
            raise ArtifactError(
                f"{self.artifact.directory}: precision {precision} is for a model or an adapter on "
                f"float weights, found {self.artifact.manifest['kind']}"
                f"{' on a quantised base' if hasattr(own, 'precision') else ''}. Use auto."
            )
        return replace(self, classifier=replace(own, precision=precision))

    def predict_proba(self, texts: Sequence[str] | str) -> NDArray[np.float64]:
        """Probabilities (n, n_classes) of texts in their order; rows sum to one, but for a
        classifier of several labels a text, whose labels stand by themselves.

        `texts`: strings, or a frame, whose column of texts is found as in a file.
        """
        texts = _checked(texts)
        with _in_a_line(self.artifact.directory, "cannot score texts"):
            scores = self.classifier.scores(texts)
        kind = self.classifier.score_kind
        if self.temperature is None:
            return predictions.probabilities(scores, kind)
        return predictions.probabilities(
            calibration.logits_at_temperature(scores, kind, self.temperature), "logit"
        )

    def predict_proba_and_cut(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], int]:
        """`predict_proba`, and how many of the texts are longer than the `max_length` tokens that
        are read of one: what was found on the way, with each text tokenized once.
        """
        with batches.counting_cut() as cut:
            return self.predict_proba(texts), cut.count

    def explain(self, texts: Sequence[str] | str) -> list[Explanation]:
        """The label of each text and which words moved it: each word is left out once, and what
        that does to the label's log odds is how much it moved them. Takes as long as labelling a
        text as often as it has words. Raises ArtifactError for several labels a text.
        """
        refuse_several_labels(self.artifact, "explain")
        return explain(self.predict_proba, self.label_names, _checked(texts))

    def predict(self, texts: Sequence[str] | str) -> list[str]:
        """Label names of texts, in their order. Raises DataError for a classifier of several labels
        a text: `predict_labels` gives these.
        """
        if self.task == "multilabel":
            raise DataError(
                f"{self.artifact.directory}: gives several labels a text. Use predict_labels(texts)"
                ", or predict_proba(texts)."
            )
        return [self.label_names[k] for k in self.predict_proba(texts).argmax(axis=1)]

    def predict_labels(self, texts: Sequence[str] | str) -> list[tuple[str, ...]]:
        """All labels of each text, in their order: those whose probability reaches their threshold;
        of a classifier of one class a text, this alone.
        """
        return label_sets(self.decided(self.predict_proba(texts)), self.label_names)

    @property
    def label_thresholds(self) -> NDArray[np.float64] | None:
        """From which probability on a text has each label, (n_labels,); None: it has one class."""
        if self.task == "classes":
            return None
        return np.full(len(self.label_names), 0.5) if self.thresholds is None else self.thresholds

    def decided(self, probabilities: NDArray[np.float64]) -> Labels:
        """What probabilities (n, n_labels) are read as: classes (n,), or ones where a text has a
        label (n, n_labels).
        """
        least = self.label_thresholds
        if least is None:
            return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
        return np.asarray(probabilities >= least, dtype=np.int64)

    def answers(self, probabilities: NDArray[np.float64], error: float) -> NDArray[np.bool_]:
        """Which rows of `predict_proba` (n, n_classes) to answer, (n,), so that at most this share
        of all texts is answered wrongly: those above a confidence that the validation rows give.

        Raises InputError where these are too few to promise it, and ArtifactError where they were
        not kept, or the probabilities are not those at the temperature.
        """
        if self.temperature != calibration.kept_temperature(self.artifact):
            raise ArtifactError(
                f"{self.artifact.directory}: when it abstains holds for probabilities at its "
                "temperature. Leave raw out."
            )
        try:
            return calibration.read_abstention(self.artifact).answers(probabilities, error)
        except NoThresholdError as e:
            raise InputError(f"{self.artifact.directory}: abstain: {e}.") from e

    def predict_or_abstain(self, texts: Sequence[str] | str, error: float) -> list[str | None]:
        """Label names of texts, in their order; None where it had better not answer, so that at
        most this share of all texts gets a wrong label. Raises as `answers` does.
        """
        refuse_several_labels(self.artifact, "predict_or_abstain")
        rows = self.predict_proba(texts)
        best = (self.label_names[k] for k in rows.argmax(axis=1))
        answered = self.answers(rows, error)
        return [name if sure else None for name, sure in zip(best, answered, strict=True)]


def _checked(texts: Sequence[str] | str) -> list[str]:
    if not isinstance(texts, Iterable):
        raise DataError(f"Texts: expected a string or a list of strings, found {texts!r}.")
    if hasattr(texts, "columns") or hasattr(texts, "column_names"):
        from tunelab.data.given import texts_of

        return texts_of(texts)
    texts = [texts] if isinstance(texts, str) else list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"Text {i} is {type(text).__name__} ({text!r}), expected a string. "
                "Convert it first, for example with str()."
            )
        check_unicode(text, f"Text {i}")
    return texts


def open_classifier(
    directory: Path | str,
    trust_remote_code: bool = False,
    model: str | None = None,
    *,
    scores_only: bool = False,
) -> TextClassifier:
    """Load the artifact in a folder (or in its `artifact` folder, for a trial's folder).

    `model`: where its base lies now, if not where it was; its weights must be the same by hash.
    What plain peft or transformers saved is loaded too; `notes` then says what was decided.
    Raises ArtifactError where there is none, where a file or the base was altered, and where the
    model needs Python code of its own unless `trust_remote_code` allows it. `scores_only`: without
    the model that scores, where that can be had without it (`bare`); scores are the same.
    """
    artifact = foreign.open_folder(directory, model=model)
    refuse_lacking(artifact)
    temperature = calibration.kept_temperature(artifact)
    with _in_a_line(artifact.directory, "cannot be loaded"):
        kind = artifact.manifest["kind"]
        if kind in {"model", "adapter"}:
            own = _open_transformer(artifact, trust_remote_code, scores_only)
        elif kind == "ensemble":
            own = _open_ensemble(artifact, trust_remote_code, model)
        else:
            own = _open_other(artifact, trust_remote_code)
    return TextClassifier(own, artifact, temperature, calibration.kept_thresholds(artifact))


def _open_transformer(artifact: Artifact, trusted: bool, scores_only: bool) -> Classifier:
    if scores_only:
        from tunelab.models import bare

        scorer = bare.open_bare(artifact, trusted)
        if scorer is not None:
            return scorer
    from tunelab.models import classifier

    return classifier.open_transformer(artifact, trust_remote_code=trusted)


def _open_other(artifact: Artifact, trusted: bool) -> Classifier:
    """A classifier that is no transformer; each kind imports what it needs and no more."""
    kind = artifact.manifest["kind"]
    if kind in {*EMBEDDED, "setfit"}:
        from tunelab.models import embedded

        return embedded.open_embedded(artifact, trusted)
    if kind == "static":
        from tunelab.models import static

        return static.open_static(artifact)
    if kind == "svm-tfidf":
        from tunelab.models import linear

        return linear.open_tfidf(artifact)
    if kind == "zero-shot-nli":
        from tunelab.models import entailment

        return entailment.open_entailment(artifact, trusted)
    if kind == "llm":
        from tunelab.models import llm

        return llm.open_llm(artifact)
    if kind in {"onnx", "openvino"}:
        from tunelab.models import exported

        return exported.open_exported(artifact)
    own = ("svm-tfidf", "static", "setfit", "zero-shot-nli", "llm", "ensemble")
    known = ("model", "adapter", *own, *EMBEDDED)
    raise ArtifactError(
        f"{artifact.directory}: of the kind {kind!r}, expected {', '.join(known)}, onnx or "
        "openvino. It was written by a newer tunelab: update."
    )


def _open_ensemble(artifact: Artifact, trusted: bool, model: str | None) -> Classifier:
    """Load all members; `model` is where the base of those that need one lies."""
    from tunelab.models.ensemble import EnsembleClassifier, member_folders, weights_of

    weights = weights_of(artifact)
    names = tuple(artifact.manifest["label_names"])
    members = []
    for folder in member_folders(artifact.directory, len(weights)):
        place = model if foreign.needs_base(folder) else None
        members.append(open_classifier(folder, trusted, place))
        if members[-1].label_names != names:
            raise ArtifactError(
                f"{folder}: has other labels than the ensemble that it is in. Copy the whole "
                "folder again."
            )
    return EnsembleClassifier(artifact, tuple(members), weights, names)


@contextmanager
def _in_a_line(directory: Path, what: str) -> Iterator[None]:
    """Say in a line what files led the libraries into that read them; what they raise is anything.

    The system's refusals, and memory that is used up, are no fault of the files.
    """
    try:
        yield
    except (TunelabError, OSError, MemoryError):
        raise
    except Exception as e:
        reason = (str(e).strip().splitlines() or [""])[0][:200]
        if "out of memory" in reason.lower() or "can't allocate" in reason.lower():
            raise MemoryError(reason) from e
        raise ArtifactError(
            f"{directory}: {what} ({type(e).__name__}: {reason}). Its files are damaged, or not "
            "those that were saved together: copy it again from where it was made."
        ) from e
