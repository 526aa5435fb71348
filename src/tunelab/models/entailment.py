"""A model of natural language inference as a Classifier: which label's sentence a text entails.

Yin et al. 2019. Each text is read beside a sentence for each label; the logit of entailment is the
label's score, as in transformers' zero-shot-classification.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tunelab.core.artifact import seal
from tunelab.core.values import Artifact, BaseRef, ScoreKind
from tunelab.models import bases, heads, pretrained
from tunelab.models.bases import Base
from tunelab.models.named_numbers import as_it_was_saved

__all__ = [
    "EntailmentClassifier",
    "entailment_row",
    "open_entailment",
]


_SENTENCES_FILE = "sentences.json"
Sentences = tuple[tuple[str, ...], ...]


def entailment_row(config: Mapping[str, object]) -> int | None:
    """Which class of a base's head is entailment, by its name; None where none is called so."""
    names = heads.labels_in(config) or ()
    rows = [i for i, name in enumerate(names) if name.strip().casefold().startswith("entail")]
    return rows[0] if len(rows) == 1 else None


@dataclass(frozen=True, slots=True, eq=False)
class EntailmentClassifier:
    """`sentences` for each label: a text's score is the mean logit that it entails them.

    `row`: of entailment in the head of `model`. Of a text at most `max_length` tokens are read,
    fewer where text and sentence together would have more than `positions`.
    """

    model: Any
    tokenizer: Any
    row: int
    sentences: Sentences
    label_names: tuple[str, ...]
    base: BaseRef
    max_length: int
    positions: int | None
    batch_size: int
    score_kind: ScoreKind = "logit"

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Logits (n, n_classes)."""
        out = np.zeros((len(texts), len(self.label_names)))
        for k, sentences in enumerate(self.sentences):
            for sentence in sentences:
                out[:, k] += self._logits(texts, sentence) / len(sentences)
        return out

    def _logits(self, texts: Sequence[str], sentence: str) -> NDArray[np.float64]:
        """That each text entails a sentence: (n,). Texts of like length are computed together."""
        out = np.zeros(len(texts))
        both = self.max_length + len(self.tokenizer("", sentence)["input_ids"]) - 2
        longest = both if self.positions is None else min(both, self.positions)
        where = pretrained.device()
        in_order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for first in range(0, len(texts), self.batch_size):
            rows = in_order[first : first + self.batch_size]
            batch = self.tokenizer(
                [texts[i] for i in rows],
                [sentence] * len(rows),
                truncation="only_first",
                max_length=longest,
                padding=True,
                return_tensors="pt",
            ).to(where)
            with torch.inference_mode():
                out[rows] = self.model(**batch).logits[:, self.row].double().cpu().numpy()
        return out

    def save(self, directory: Path) -> None:
        """Write the sentences, and which base reads them."""
        text = json.dumps(self.sentences, ensure_ascii=False, indent=2)
        (directory / _SENTENCES_FILE).write_text(text, encoding="utf-8")
        seal(
            directory,
            {
                "kind": "zero-shot-nli",
                "label_names": list(self.label_names),
                "score_kind": self.score_kind,
                "base": asdict(self.base),
                "max_length": self.max_length,
            },
        )

    @classmethod
    def of(
        cls,
        base: Base,
        sentences: Sequence[Sequence[str]],
        label_names: tuple[str, ...],
        max_length: int,
        batch_size: int = 64,
    ) -> EntailmentClassifier:
        """Load the base with the head that it brings. Raises ValueError where that has none."""
        row = entailment_row(base.config)
        if row is None:
            raise ValueError("a base whose head has no class of entailment")
        own = heads.labels_in(base.config) or ()
        model: Any = pretrained.load_classifier(base, own, seed=0)[0]
        model.to(pretrained.device()).eval()
        kept = tuple(tuple(s) for s in sentences)
        tokenizer = pretrained.load_tokenizer(base)
        return cls(
            model,
            tokenizer,
            row,
            kept,
            label_names,
            base.ref,
            max_length,
            base.max_positions,
            batch_size,
        )


def open_entailment(artifact: Artifact, trust_remote_code: bool = False) -> EntailmentClassifier:
    """Load what `save` wrote. Raises ArtifactError where it is something else."""
    manifest = artifact.manifest
    with as_it_was_saved(artifact):
        said = json.loads((artifact.directory / _SENTENCES_FILE).read_text(encoding="utf-8"))
        names = tuple(manifest["label_names"])
        if len(said) != len(names) or not all(
            s and all(isinstance(t, str) for t in s) for s in said
        ):
            raise ValueError("not a list of sentences for each label")
        ref = BaseRef(**manifest["base"])
        base = bases.resolve_exactly(ref, artifact.directory, trust_remote_code)
        return EntailmentClassifier.of(base, said, names, manifest["max_length"])
