"""Load a saved classifier and label texts with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import EMBEDDED, refuse_lacking
from tunelab.core.errors import ArtifactError, DataError
from tunelab.core.values import Artifact, Classifier
from tunelab.core.words import check_unicode
from tunelab.models import foreign
from tunelab.stats import calibration, predictions

__all__ = [
    "TextClassifier",
    "open_classifier",
]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TextClassifier:
    """A loaded artifact: `predict` gives label names, `predict_proba` probabilities.

    `temperature`: what scores are divided by before they become probabilities: as loaded, the one
    that was fitted on validation; None: they are taken as they are. No label changes.
    """

    classifier: Classifier
    artifact: Artifact
    temperature: float | None = None

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
    def max_length(self) -> int | None:
        """Tokens that are read of a text, the rest is cut; None where texts are read whole."""
        return self.artifact.manifest.get("max_length")

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

    def count_cut(self, texts: Sequence[str] | str) -> int:
        """How many texts are longer than `max_length`, the tokens that are read of one; 0 where
        texts are read whole.
        """
        limit = self.max_length
        if limit is None:
            return 0
        from tunelab.models import batches

        own: Any = self.classifier
        return batches.count_longer(own.tokenizer, _checked(texts), limit)

    def predict_proba(self, texts: Sequence[str] | str) -> NDArray[np.float64]:
        """Probabilities (n, n_classes) of texts in their order; rows sum to one."""
        texts = _checked(texts)
        scores = self.classifier.scores(texts)
        kind = self.classifier.score_kind
        if self.temperature is None:
            return predictions.probabilities(scores, kind)
        return predictions.probabilities(
            calibration.logits_at_temperature(scores, kind, self.temperature), "logit"
        )

    def predict(self, texts: Sequence[str] | str) -> list[str]:
        """Label names of texts, in their order."""
        return [self.label_names[k] for k in self.predict_proba(texts).argmax(axis=1)]


def _checked(texts: Sequence[str] | str) -> list[str]:
    if not isinstance(texts, Iterable):
        raise DataError(f"Texts: expected a string or a list of strings, found {texts!r}.")
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
    kind = artifact.manifest["kind"]
    if kind in EMBEDDED:
        from tunelab.models import embedded

        own = embedded.open_embedded(artifact, trust_remote_code)
        return TextClassifier(own, artifact, temperature)
    if kind == "svm-tfidf":
        from tunelab.models import linear

        return TextClassifier(linear.open_tfidf(artifact), artifact, temperature)
    if kind in {"model", "adapter"} and scores_only:
        from tunelab.models import bare

        scorer = bare.open_bare(artifact, trust_remote_code)
        if scorer is not None:
            return TextClassifier(scorer, artifact, temperature)
    if kind in {"model", "adapter"}:
        from tunelab.models import classifier

        return TextClassifier(
            classifier.open_transformer(artifact, trust_remote_code=trust_remote_code),
            artifact,
            temperature,
        )
    if kind in {"onnx", "openvino"}:
        from tunelab.models import exported

        return TextClassifier(exported.open_exported(artifact), artifact, temperature)
    raise ArtifactError(
        f"{artifact.directory}: of the kind {kind!r}, expected model, adapter, svm-tfidf, "
        f"{', '.join(EMBEDDED)}, onnx or openvino. It was written by a newer tunelab: update."
    )
