"""A transformer with a classification head, as a Classifier: scores texts, saves, loads.

Saved in peft's layout where there is an adapter, in transformers' otherwise, plus the manifest.
May import: artifacts, bases, batching, models, train, types. May not import: methods, trial.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab import artifacts, bases, batching, models, train
from tunelab.types import Artifact, BaseRef, ScoreKind

__all__ = ["TransformerClassifier"]


@dataclass(frozen=True, slots=True, eq=False)
class TransformerClassifier:
    """`model` (transformers, or wrapped by peft) in evaluation mode, with what scoring needs."""

    model: Any
    tokenizer: Any
    label_names: tuple[str, ...]
    base: BaseRef
    max_length: int
    batch_size: int
    score_kind: ScoreKind = "logit"

    @property
    def pad_id(self) -> int:
        """Id that fills up shorter rows of a batch."""
        return int(self.tokenizer.pad_token_id)

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Logits (n, n_classes)."""
        if not texts:
            return np.empty((0, len(self.label_names)))
        encoded = batching.encode(self.tokenizer, texts, self.max_length)
        return train.score(self.model, encoded, self.pad_id, self.batch_size)

    def save(self, directory: Path) -> None:
        """Write weights (safetensors), config, tokenizer and manifest."""
        from peft import PeftModel

        adapter = isinstance(self.model, PeftModel)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft looks for the base's card on the hub
            self.model.save_pretrained(directory, safe_serialization=True)
        self.tokenizer.save_pretrained(directory)
        if adapter:
            # Beside an adapter, the config carries label names and count for whoever loads it.
            self.model.get_base_model().config.save_pretrained(directory)
        artifacts.seal(
            directory,
            {
                "kind": "adapter" if adapter else "model",
                "label_names": list(self.label_names),
                "score_kind": self.score_kind,
                "base": {"name": self.base.name, "sha256": self.base.sha256},
                "max_length": self.max_length,
            },
        )


def load(artifact: Artifact, batch_size: int = 64) -> TransformerClassifier:
    """Load what `TransformerClassifier.save` wrote. Raises ArtifactError for another base."""
    manifest, directory = artifact.manifest, artifact.directory
    ref = BaseRef(**manifest["base"])
    names = tuple(manifest["label_names"])
    tokenizer = models.load_tokenizer_from(directory, str(directory))
    if manifest["kind"] == "adapter":
        base = bases.resolve_exactly(ref, directory)
        model = models.load_adapter(base, directory, names)
    else:
        model = models.load_saved(directory)
    model.to(models.device()).eval()
    model.requires_grad_(False)
    return TransformerClassifier(model, tokenizer, names, ref, manifest["max_length"], batch_size)
