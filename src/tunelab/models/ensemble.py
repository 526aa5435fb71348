"""Several saved classifiers as one: their probabilities averaged."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import MANIFEST
from tunelab.core.errors import ArtifactError
from tunelab.core.values import Artifact, ScoreKind
from tunelab.models import batches

__all__ = [
    "EnsembleClassifier",
    "member_folders",
    "weights_of",
]


class Member(Protocol):
    """A loaded classifier, at its temperature."""

    @property
    def max_length(self) -> int | None:
        """Tokens that it reads of a text; None where it reads texts whole."""
        ...

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities (n, n_classes)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class EnsembleClassifier:
    """`members` with `weights` that sum to one."""

    artifact: Artifact
    members: tuple[Member, ...]
    weights: tuple[float, ...]
    label_names: tuple[str, ...]
    score_kind: ScoreKind = "probability"

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities (n, n_classes)."""
        out = np.zeros((len(texts), len(self.label_names)))
        if texts:
            cut = 0
            for member, weight in zip(self.members, self.weights, strict=True):
                with batches.counting_cut() as own:
                    out += weight * member.predict_proba(texts)
                cut = max(cut, own.count)  # a text that several cut is one text
            batches.count_as_cut(cut)
        return out

    @property
    def max_length(self) -> int | None:
        """Tokens that all members read of a text; None where all read texts whole."""
        return min((m.max_length for m in self.members if m.max_length), default=None)

    def save(self, directory: Path) -> None:
        """Copy the folder: members and manifest."""
        shutil.copytree(self.artifact.directory / "members", directory / "members")
        shutil.copy2(self.artifact.directory / MANIFEST, directory / MANIFEST)


def member_folders(directory: Path, count: int) -> list[Path]:
    """The folders of so many members."""
    return [directory / "members" / str(i) for i in range(count)]


def weights_of(artifact: Artifact) -> tuple[float, ...]:
    """The weights in a manifest. Raises ArtifactError where they are none."""
    said: object = artifact.manifest.get("weights")
    numbers = said if isinstance(said, list) else []
    weights = tuple(float(w) for w in numbers if isinstance(w, int | float) and 0 <= w <= 1)
    if not weights or len(weights) != len(numbers) or abs(sum(weights) - 1) > 1e-6:
        raise ArtifactError(
            f"{artifact.directory / MANIFEST}: weights: expected numbers that sum to 1, found "
            f"{str(said)[:60]}. Make the ensemble again."
        )
    return weights
