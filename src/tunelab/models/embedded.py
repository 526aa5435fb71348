"""A head on a base's vectors as a Classifier: `svm`, `logistic`, `knn`, `boosting`, `setfit`.

A frozen base is named with its hash, not copied; one that was trained (`setfit`) is saved beside
the head, of which there are numbers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import check_labels, seal
from tunelab.core.values import Artifact, BaseRef, ScoreKind
from tunelab.models.named_numbers import as_it_was_saved, read_numbers, save_numbers
from tunelab.models.vector_heads import HEADS, LinearHead, VectorHead

__all__ = [
    "EmbeddedClassifier",
    "open_embedded",
]


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedClassifier:
    """`embedder` maps texts to vectors (n, width), `head` these to scores.

    `kind` is a key of `vector_heads.HEADS`.
    """

    kind: str
    embedder: Any
    head: VectorHead
    label_names: tuple[str, ...]
    base: BaseRef
    pooling: str
    max_length: int

    @property
    def score_kind(self) -> ScoreKind:
        """The head's."""
        return self.head.score_kind

    @property
    def tokenizer(self) -> Any:
        """The base's."""
        return self.embedder.tokenizer

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Scores (n, n_classes)."""
        if not texts:
            return np.empty((0, len(self.label_names)))
        return self.head.scores(self.embedder(texts))

    def save(self, directory: Path) -> None:
        """Write the head's numbers, and which base they stand on, or the encoder that they do."""
        if self.kind == "setfit":
            self.embedder.save(directory)
        save_numbers(directory / numbers_of(self.kind), self.head.tensors())
        seal(
            directory,
            {
                "kind": self.kind,
                "label_names": list(self.label_names),
                "score_kind": self.score_kind,
                "base": asdict(self.base),
                "pooling": self.pooling,
                "max_length": self.max_length,
            },
        )


def numbers_of(kind: str) -> str:
    """The file of a kind's numbers."""
    return "svm.safetensors" if kind == "svm" else "head.safetensors"


def open_embedded(artifact: Artifact, trust_remote_code: bool = False) -> EmbeddedClassifier:
    """Load what `save` wrote. Raises ArtifactError where it is something else."""
    from tunelab.models import embeddings

    manifest = artifact.manifest
    kind = manifest["kind"]
    with as_it_was_saved(artifact):
        head = HEADS[kind](read_numbers(artifact, numbers_of(kind)))
        if manifest.get("score_kind") == "label_logit":
            if not isinstance(head, LinearHead):
                raise ValueError(f"a head of the kind {kind!r} gives no logits of labels")
            head = replace(head, score_kind="label_logit")
        names = check_labels(artifact, head.classes)
        embedder = embeddings.embedder_for(artifact, trust_remote_code)
        base = BaseRef(**manifest["base"])
        return EmbeddedClassifier(
            kind, embedder, head, names, base, manifest["pooling"], manifest["max_length"]
        )
