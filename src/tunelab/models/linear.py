"""Linear SVMs as Classifiers: on TF-IDF, and on frozen embeddings of a base model.

Saved as safetensors and JSON, never as a pickle, so that loading runs no code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import check_labels, seal
from tunelab.core.errors import ArtifactError, TunelabError
from tunelab.core.values import Artifact, BaseRef, ScoreKind
from tunelab.models import weights
from tunelab.models.tfidf import NgramWeights, analyzer_of, check_ngrams, summed

__all__ = [
    "EmbeddingSvm",
    "Hyperplanes",
    "TfidfSvm",
    "open_svm",
    "tfidf_features",
]


Floats = NDArray[np.float64]
_NUMBERS = "svm.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Hyperplanes:
    """One-vs-rest separating hyperplanes: `weights` (n_classes, n_features), `offsets` (n_classes).

    `temperature` scales margins to logits: softmax(temperature * margin) is fitted on validation
    (Guo et al. 2017), which leaves every decision as the SVM made it.
    """

    weights: Floats
    offsets: Floats
    temperature: float

    def logits(self, features: Any) -> Floats:
        """Scaled margins (n, n_classes) of a dense or sparse (n, n_features) matrix."""
        return np.asarray(features @ self.weights.T + self.offsets) * self.temperature


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
        tensors = {f"idf.{i}": g.idf for i, g in enumerate(self.ngrams)}
        text = json.dumps([g.described() for g in self.ngrams], ensure_ascii=False)
        (directory / "vocabulary.json").write_text(text, encoding="utf-8")
        _save_planes(directory, self.planes, tensors)
        facts = {
            "kind": "svm-tfidf",
            "label_names": list(self.label_names),
            "score_kind": self.score_kind,
            "base": None,
        }
        seal(directory, facts)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingSvm:
    """Frozen embeddings of a base model, standardised, then hyperplanes.

    `embedder` maps texts to (n, width); `mean` and `scale` (width,) come from the training part.
    """

    embedder: Any
    planes: Hyperplanes
    mean: Floats
    scale: Floats
    label_names: tuple[str, ...]
    base: BaseRef
    pooling: str
    max_length: int
    score_kind: ScoreKind = "logit"

    @property
    def tokenizer(self) -> Any:
        """The base's."""
        return self.embedder.tokenizer

    def scores(self, texts: Sequence[str]) -> Floats:
        """Logits (n, n_classes)."""
        if not texts:
            return np.empty((0, len(self.label_names)))
        return self.score_embeddings(self.embedder(texts))

    def score_embeddings(self, vectors: NDArray[np.float32]) -> Floats:
        """Logits of texts that are embedded already, (n, width) -> (n, n_classes)."""
        return self.planes.logits((vectors.astype(np.float64) - self.mean) / self.scale)

    def save(self, directory: Path) -> None:
        """Write the hyperplanes; the base model is named with its hash, not copied."""
        _save_planes(directory, self.planes, {"mean": self.mean, "scale": self.scale})
        seal(
            directory,
            {
                "kind": "svm",
                "label_names": list(self.label_names),
                "score_kind": self.score_kind,
                "base": asdict(self.base),
                "pooling": self.pooling,
                "max_length": self.max_length,
            },
        )


def tfidf_features(vectorizers: Sequence[Any], texts: Sequence[str]) -> Any:
    """Features of all vectorizers side by side, sparse (n, n_features)."""
    from scipy.sparse import hstack

    return hstack([v.transform(texts) for v in vectorizers], format="csr")


def _save_planes(directory: Path, planes: Hyperplanes, more: dict[str, Floats]) -> None:
    from safetensors.numpy import save_file

    tensors = {
        "weights": np.ascontiguousarray(planes.weights),
        "offsets": np.ascontiguousarray(planes.offsets),
        "temperature": np.asarray([planes.temperature]),
        **{k: np.ascontiguousarray(v) for k, v in more.items()},
    }
    save_file(tensors, directory / _NUMBERS)


def open_svm(artifact: Artifact, trust_remote_code: bool = False) -> TfidfSvm | EmbeddingSvm:
    """Load what `save` of either class wrote. Raises ArtifactError where it is something else."""
    directory, manifest = artifact.directory, artifact.manifest
    weights.refuse_not_finite(str(directory), [directory / _NUMBERS])
    with _as_it_was_saved(directory):
        return (
            _tfidf_svm(artifact)
            if manifest["kind"] == "svm-tfidf"
            else _embedding_svm(artifact, trust_remote_code)
        )


@contextmanager
def _as_it_was_saved(directory: Path) -> Iterator[None]:
    """Say in one line that files are not those of an SVM."""
    from safetensors import SafetensorError

    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, OSError, SafetensorError) as e:
        if isinstance(e, TunelabError):
            raise
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise ArtifactError(
            f"{directory}: its files are not those of an SVM that tunelab saved "
            f"({type(e).__name__}: {reason}). Train or copy the artifact again."
        ) from e


def _planes(
    artifact: Artifact, tensors: Mapping[str, Floats]
) -> tuple[Hyperplanes, tuple[str, ...]]:
    planes = Hyperplanes(tensors["weights"], tensors["offsets"], float(tensors["temperature"][0]))
    names = check_labels(artifact, len(planes.weights))
    _expect("weights", planes.weights.ndim, 2)
    _expect("offsets", planes.offsets.shape, (len(names),))
    return planes, names


def _expect(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise ValueError(f"{what}: expected {expected}, found {actual}")


def _tfidf_svm(artifact: Artifact) -> TfidfSvm:
    from safetensors.numpy import load_file

    tensors = load_file(artifact.directory / _NUMBERS)
    planes, names = _planes(artifact, tensors)
    parts = json.loads((artifact.directory / "vocabulary.json").read_text(encoding="utf-8"))
    ngrams = tuple(_ngram_weights(p, tensors[f"idf.{i}"]) for i, p in enumerate(parts))
    _expect("features", sum(len(g.idf) for g in ngrams), planes.weights.shape[1])
    return TfidfSvm(ngrams, planes, names)


def _embedding_svm(artifact: Artifact, trust_remote_code: bool) -> EmbeddingSvm:
    from safetensors.numpy import load_file

    from tunelab.models import embeddings

    manifest = artifact.manifest
    tensors = load_file(artifact.directory / _NUMBERS)
    planes, names = _planes(artifact, tensors)
    mean, scale = tensors["mean"], tensors["scale"]
    embedder = embeddings.embedder_for(artifact, trust_remote_code)
    for what, part in (("mean", mean), ("scale", scale)):
        _expect(what, part.shape, planes.weights.shape[1:])
    return EmbeddingSvm(
        embedder,
        planes,
        mean,
        scale,
        names,
        BaseRef(**manifest["base"]),
        manifest["pooling"],
        manifest["max_length"],
    )


def _ngram_weights(part: Mapping[str, Any], idf: Floats) -> NgramWeights:
    first, last = part["ngram_range"]
    check_ngrams(part["analyzer"], (first, last))
    _expect("idf", idf.shape, (len(part["terms"]),))
    if not all(isinstance(term, str) for term in part["terms"]):
        raise TypeError("a term that is no text")
    terms = {term: i for i, term in enumerate(part["terms"])}
    _expect("different terms", len(terms), len(part["terms"]))
    analyzer = analyzer_of(part["analyzer"])
    return NgramWeights(analyzer, (first, last), bool(part["sublinear_tf"]), terms, idf)
