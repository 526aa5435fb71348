"""What stands on the vectors of a frozen base: planes, neighbours or trees. It loads no more than
numpy, and is saved as named tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunelab.core.values import ScoreKind

__all__ = [
    "HEADS",
    "Hyperplanes",
    "LinearHead",
    "NeighbourHead",
    "Standard",
    "TreeHead",
    "VectorHead",
    "one_per_class",
    "unit_length",
]


Floats = NDArray[np.float64]
NumbersByName = Mapping[str, NDArray[Any]]


class VectorHead(Protocol):
    """Vectors of texts -> scores of classes."""

    @property
    def score_kind(self) -> ScoreKind:
        """What its scores are."""
        ...

    @property
    def classes(self) -> int:
        """How many classes it scores."""
        ...

    def scores(self, vectors: NDArray[np.floating]) -> Floats:
        """(n, width) -> (n, n_classes)."""
        ...

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All that it is, by name, as it is saved."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Standard:
    """`mean` and `scale` (width,) of the training vectors: what standardises any vectors."""

    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, vectors: NDArray[np.floating]) -> Standard:
        """Of these vectors, (n, width); a number that never changes is left as it is."""
        values = vectors.astype(np.float64)
        mean, scale = values.mean(axis=0), values.std(axis=0)
        scale[scale == 0] = 1.0
        return cls(mean, scale)

    @classmethod
    def plain(cls, width: int) -> Standard:
        """What changes nothing."""
        return cls(np.zeros(width), np.ones(width))

    def __call__(self, vectors: NDArray[np.floating]) -> Floats:
        """(n, width) -> (n, width)."""
        return np.asarray((vectors.astype(np.float64) - self.mean) / self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Hyperplanes:
    """One plane a class: `weights` (n_classes, n_features), `offsets` (n_classes).

    `temperature` scales margins to logits. Of an SVM, softmax(temperature * margin) is fitted on
    validation (Guo et al. 2017), which leaves every decision as the SVM made it; else it is one.
    """

    weights: Floats
    offsets: Floats
    temperature: float

    def logits(self, features: Any) -> Floats:
        """Scaled margins (n, n_classes) of a dense or sparse (n, n_features) matrix."""
        return np.asarray(features @ self.weights.T + self.offsets) * self.temperature

    def tensors(self) -> dict[str, NDArray[Any]]:
        """As they are saved."""
        return {
            "weights": self.weights,
            "offsets": self.offsets,
            "temperature": np.asarray([self.temperature]),
        }

    @classmethod
    def read(cls, tensors: NumbersByName) -> Hyperplanes:
        """What `tensors` gave. Raises KeyError and ValueError where it is something else."""
        planes = cls(tensors["weights"], tensors["offsets"], float(tensors["temperature"][0]))
        expect("weights", planes.weights.ndim, 2)
        expect("offsets", planes.offsets.shape, planes.weights.shape[:1])
        return planes


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """Vectors, standardised, then hyperplanes. `unit`: vectors are given length one before."""

    planes: Hyperplanes
    standard: Standard
    unit: bool = False
    score_kind: ScoreKind = "logit"

    @property
    def classes(self) -> int:
        """Rows of the planes."""
        return len(self.planes.weights)

    def scores(self, vectors: NDArray[np.floating]) -> Floats:
        """Logits (n, n_classes)."""
        values = unit_length(vectors.astype(np.float64)) if self.unit else vectors
        return self.planes.logits(self.standard(values))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """As it is saved."""
        own = {"mean": self.standard.mean, "scale": self.standard.scale}
        return {**self.planes.tensors(), **own}

    @classmethod
    def read(cls, tensors: NumbersByName, unit: bool = False) -> LinearHead:
        """What `tensors` gave."""
        planes = Hyperplanes.read(tensors)
        return cls(planes, _standard(tensors, planes.weights.shape[1:]), unit)

    @classmethod
    def read_cosine(cls, tensors: NumbersByName) -> LinearHead:
        """The same, of vectors of length one."""
        return cls.read(tensors, unit=True)


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourHead:
    """The `k` training vectors that are nearest by cosine vote, the nearer the more.

    `kept` (n, width) float32 are the training vectors, standardised and of length one, `labels`
    (n,) their classes in [0, classes). One vote more is spread evenly: no class is impossible.
    """

    kept: NDArray[np.float32]
    labels: NDArray[np.int64]
    k: int
    classes: int
    standard: Standard
    score_kind: ScoreKind = "probability"

    def scores(self, vectors: NDArray[np.floating]) -> Floats:
        """Probabilities (n, n_classes)."""
        out = np.empty((len(vectors), self.classes))
        for first in range(0, len(vectors), _ROWS_AT_A_TIME):
            some = slice(first, first + _ROWS_AT_A_TIME)
            out[some] = self.votes(self.similarities(vectors[some]), self.k)
        return out

    def similarities(self, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
        """Cosines (n, n_train) with what is kept."""
        unit = unit_length(self.standard(vectors)).astype(np.float32)
        return np.asarray(unit @ self.kept.T)

    def votes(self, similarities: NDArray[np.float32], k: int) -> Floats:
        """Probabilities (n, n_classes) by the k nearest."""
        k = min(k, len(self.labels))
        # Of equally near ones, those that stand first: a sort that keeps the order.
        nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        weights = np.clip(np.take_along_axis(similarities, nearest, axis=1), 1e-3, None)
        weights = weights.astype(np.float64) * (k / weights.sum(axis=1, keepdims=True))
        of_class = self.labels[nearest][:, :, None] == np.arange(self.classes)
        counts = (weights[:, :, None] * of_class).sum(axis=1)
        return np.asarray((counts + 1 / self.classes) / (k + 1))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """As it is saved."""
        return {
            "kept": self.kept,
            "labels": self.labels,
            "k_and_classes": np.asarray([self.k, self.classes]),
            "mean": self.standard.mean,
            "scale": self.standard.scale,
        }

    @classmethod
    def read(cls, tensors: NumbersByName) -> NeighbourHead:
        """What `tensors` gave."""
        kept, labels = tensors["kept"], tensors["labels"]
        k, classes = (int(n) for n in tensors["k_and_classes"])
        expect("kept vectors", kept.ndim, 2)
        expect("labels", labels.shape, kept.shape[:1])
        if k < 1 or not len(labels) or labels.min() < 0 or labels.max() >= classes:
            raise ValueError("labels beyond the classes, or no neighbour")
        return cls(kept, labels, k, classes, _standard(tensors, kept.shape[1:]))


@dataclass(frozen=True, slots=True, eq=False)
class TreeHead:
    """Boosted trees on vectors as they are: `n` trees a class, side by side in tables.

    `feature`, `left`, `right` (trees, nodes): of a leaf, `feature` is -1. `number` (trees, nodes):
    a vector whose feature is at most this goes left; of a leaf, what it adds. `start` (columns,)
    is what is added to; tree t adds to column t % columns. Two classes have one column, half of
    which speaks for the second and half against the first.
    """

    feature: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    number: Floats
    start: Floats
    score_kind: ScoreKind = "logit"

    @property
    def classes(self) -> int:
        """As many as columns, but two for one."""
        return max(2, len(self.start))

    def scores(self, vectors: NDArray[np.floating]) -> Floats:
        """Logits (n, n_classes)."""
        out = np.empty((len(vectors), self.classes))
        for first in range(0, len(vectors), _ROWS_AT_A_TIME):
            some = vectors[first : first + _ROWS_AT_A_TIME].astype(np.float64)
            out[first : first + len(some)] = self._added(some)
        return out

    def _added(self, vectors: Floats) -> Floats:
        rows, trees = np.arange(len(vectors))[:, None], np.arange(len(self.feature))[None]
        at = np.zeros((len(vectors), len(self.feature)), dtype=np.int32)
        while True:
            feature = self.feature[trees, at]
            inner = feature >= 0
            if not inner.any():
                break
            goes_left = vectors[rows, np.maximum(feature, 0)] <= self.number[trees, at]
            below = np.where(goes_left, self.left[trees, at], self.right[trees, at])
            at = np.where(inner, below, at)
        leaves = self.number[trees, at]
        columns = len(self.start)
        return one_per_class(leaves.reshape(len(vectors), -1, columns).sum(axis=1) + self.start)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """As it is saved."""
        names = ("feature", "left", "right", "number", "start")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def read(cls, tensors: NumbersByName) -> TreeHead:
        """What `tensors` gave. A node leads to one that stands behind it, so that all ways end."""
        feature, left, right = (tensors[n] for n in ("feature", "left", "right"))
        head = cls(feature, left, right, tensors["number"], tensors["start"])
        expect("trees", head.feature.ndim, 2)
        for name in ("left", "right", "number"):
            expect(name, getattr(head, name).shape, head.feature.shape)
        if not len(head.start) or len(head.feature) % len(head.start):
            raise ValueError("trees of no class")
        inner = head.feature >= 0
        place = np.arange(head.feature.shape[1])
        for name in ("left", "right"):
            below = getattr(head, name)
            if (inner & ((below <= place) | (below >= head.feature.shape[1]))).any():
                raise ValueError(f"{name}: a node that leads nowhere")
        return head


# What a kind of artifact on a base's vectors is read as.
HEADS: dict[str, Callable[[NumbersByName], VectorHead]] = {
    "svm": LinearHead.read,
    "logistic": LinearHead.read,
    "knn": NeighbourHead.read,
    "boosting": TreeHead.read,
    "zero-shot": LinearHead.read_cosine,
    "setfit": LinearHead.read,
}
_ROWS_AT_A_TIME = 512


def one_per_class(columns: Floats) -> Floats:
    """(n, columns) -> logits (n, n_classes): of one column, half speaks for each of two classes."""
    return np.hstack([-columns / 2, columns / 2]) if columns.shape[1] == 1 else columns


def unit_length(vectors: Floats) -> Floats:
    """Vectors (n, width) of length one; one of zeros stays as it is."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length == 0, 1.0, length))


def expect(what: str, actual: object, expected: object) -> None:
    """Raise ValueError where a part of a file is not as it was saved."""
    if actual != expected:
        raise ValueError(f"{what}: expected {expected}, found {actual}")


def _standard(tensors: NumbersByName, shape: tuple[int, ...]) -> Standard:
    standard = Standard(tensors["mean"], tensors["scale"])
    for name in ("mean", "scale"):
        expect(name, getattr(standard, name).shape, shape)
    return standard
