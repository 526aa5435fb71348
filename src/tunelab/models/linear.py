"""A linear SVM on TF-IDF as a Classifier.

Saved as safetensors and JSON, never as a pickle, so that loading runs no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import check_labels, seal
from tunelab.core.values import Artifact, ScoreKind
from tunelab.models.named_numbers import as_it_was_saved, read_numbers, save_numbers
from tunelab.models.tfidf import NgramWeights, analyzer_of, check_ngrams, summed
from tunelab.models.vector_heads import Hyperplanes, expect

__all__ = [
    "TfidfSvm",
    "open_tfidf",
    "tfidf_features",
]


Floats = NDArray[np.float64]
_NUMBERS = "svm.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class TfidfSvm:
    """TF-IDF of word and character n-grams, then hyperplanes.

    `ngrams` says which terms there are; their features stand side by side.
    """

    ngrams: tuple[NgramWeights, ...]
    planes: Hyperplanes
    label_names: tuple[str, ...]
    score_kind: ScoreKind = "logit"

    def scores(self, texts: Sequence[str]) -> Floats:
        """Logits (n, n_classes)."""
        margins = np.empty((len(texts), len(self.label_names)))
        by_feature, offsets = self.planes.weights.T, self.planes.offsets
        firsts = np.cumsum([0, *(len(g.idf) for g in self.ngrams)])
        for i, text in enumerate(texts):
            terms = [g.weights_of(text) for g in self.ngrams]
            places = np.concatenate([f + p for f, (p, _) in zip(firsts, terms, strict=False)])
            values = np.concatenate([v for _, v in terms])
            some = len(places) > 0
            margins[i] = summed(values[:, None] * by_feature[places]) if some else 0.0
        return (margins + offsets) * self.planes.temperature

    def save(self, directory: Path) -> None:
        """Write vocabularies as JSON and numbers as safetensors."""
        idf = {f"idf.{i}": g.idf for i, g in enumerate(self.ngrams)}
        text = json.dumps([g.described() for g in self.ngrams], ensure_ascii=False)
        (directory / "vocabulary.json").write_text(text, encoding="utf-8")
        save_numbers(directory / _NUMBERS, {**self.planes.tensors(), **idf})
        facts = {
            "kind": "svm-tfidf",
            "label_names": list(self.label_names),
            "score_kind": self.score_kind,
            "base": None,
        }
        seal(directory, facts)


def tfidf_features(vectorizers: Sequence[Any], texts: Sequence[str]) -> Any:
    """Features of all vectorizers side by side, sparse (n, n_features)."""
    from scipy.sparse import hstack

    return hstack([v.transform(texts) for v in vectorizers], format="csr")


def open_tfidf(artifact: Artifact) -> TfidfSvm:
    """Load what `save` wrote. Raises ArtifactError where it is something else."""
    with as_it_was_saved(artifact):
        tensors = read_numbers(artifact, _NUMBERS)
        planes = Hyperplanes.read(tensors)
        names = check_labels(artifact, len(planes.weights))
        parts = json.loads((artifact.directory / "vocabulary.json").read_text(encoding="utf-8"))
        ngrams = tuple(_ngram_weights(p, tensors[f"idf.{i}"]) for i, p in enumerate(parts))
        expect("features", sum(len(g.idf) for g in ngrams), planes.weights.shape[1])
        kind = artifact.manifest.get("score_kind", "logit")
        return TfidfSvm(ngrams, planes, names, kind)


def _ngram_weights(part: Mapping[str, Any], idf: Floats) -> NgramWeights:
    first, last = part["ngram_range"]
    check_ngrams(part["analyzer"], (first, last))
    expect("idf", idf.shape, (len(part["terms"]),))
    if not all(isinstance(term, str) for term in part["terms"]):
        raise TypeError("a term that is no text")
    terms = {term: i for i, term in enumerate(part["terms"])}
    expect("different terms", len(terms), len(part["terms"]))
    analyzer = analyzer_of(part["analyzer"])
    return NgramWeights(analyzer, (first, last), bool(part["sublinear_tf"]), terms, idf)
