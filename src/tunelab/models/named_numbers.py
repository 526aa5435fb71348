"""The numbers of a classifier that is no transformer: safetensors, written and read with numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.errors import ArtifactError, TunelabError
from tunelab.core.values import Artifact
from tunelab.models import weights

__all__ = [
    "as_it_was_saved",
    "read_numbers",
    "save_numbers",
]


def save_numbers(file: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write them by name."""
    from safetensors.numpy import save_file

    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, file)


def read_numbers(artifact: Artifact, name: str) -> dict[str, NDArray[Any]]:
    """Those of an artifact's file. Raises ArtifactError where one is no number."""
    from safetensors.numpy import load_file

    weights.refuse_not_finite(str(artifact.directory), [artifact.directory / name])
    return dict(load_file(artifact.directory / name))


@contextmanager
def as_it_was_saved(artifact: Artifact) -> Iterator[None]:
    """Say in one line that files are not those of such a classifier."""
    from safetensors import SafetensorError

    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, OSError, SafetensorError) as e:
        if isinstance(e, TunelabError):
            raise
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        kind = artifact.manifest["kind"]
        raise ArtifactError(
            f"{artifact.directory}: its files are not those of a classifier of the kind {kind} "
            f"that tunelab saved ({type(e).__name__}: {reason}). Train or copy the artifact again."
        ) from e
