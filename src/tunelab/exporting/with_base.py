"""An adapter and its base's weights in one folder, which a pipeline of transformers takes as it is.

Of an adapter's folder alone, transformers reads labels and head from the base's config, or finds no
weights. Where config.json and the base's weights lie beside the adapter, it reads all three there.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import MANIFEST, seal_again
from tunelab.core.errors import ArtifactError
from tunelab.core.values import Artifact, BaseRef
from tunelab.exporting.listing import method_of
from tunelab.models import bases, pretrained
from tunelab.models.weights import INDEX, weight_files

__all__ = [
    "pipeline_scores",
    "write_with_base",
]


def write_with_base(adapter: Artifact, folder: Path, trusted: bool) -> None:
    """Fill an empty folder with an adapter's files and its base's weights, and seal it."""
    base = bases.resolve_exactly(BaseRef(**adapter.manifest["base"]), adapter.directory, trusted)
    weights = weight_files(base.ref.name, base.path)
    own = [adapter.directory / name for name in (*adapter.manifest["files"], MANIFEST)]
    for file in (*own, *weights, base.path / INDEX):
        if file.is_file():  # weights in one file have no index
            shutil.copyfile(file, folder / file.name)
    seal_again(folder, {})


def pipeline_scores(folder: Path, texts: Sequence[str], adapter: Artifact) -> NDArray[np.float64]:
    """Logits (texts, classes) of transformers' pipeline, given the folder and nothing else.

    Raises ArtifactError where it does not take the folder.
    """
    from transformers import pipeline

    labels = adapter.manifest["label_names"]
    try:
        with pretrained.quiet():
            classify = pipeline("text-classification", model=str(folder))
            answers: Any = classify(
                list(texts), truncation=True, top_k=None, function_to_apply="none"
            )
    except (OSError, ValueError, RuntimeError) as e:
        raise ArtifactError(
            f"{adapter.directory}: transformers' pipeline reads no {method_of(adapter)['name']} "
            "adapter from a folder. Use the adapter as it is, or export it --to onnx."
        ) from e
    by_label = ({a["label"]: a["score"] for a in answer} for answer in answers)
    return np.array([[row[name] for name in labels] for row in by_label], dtype=np.float64)
