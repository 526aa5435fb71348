"""The manifest of a deployable classifier: what it is, how to load it, what its files hash to.

An artifact is a folder in its own tool's layout (peft's, transformers' or a linear model's) plus
`tunelab.json`. May import: errors, types. May not import: torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunelab._version import __version__
from tunelab.errors import ArtifactError, suggest
from tunelab.types import Artifact

__all__ = ["MANIFEST", "open_artifact", "seal"]

MANIFEST = "tunelab.json"
FORMAT = 1


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(directory: Path, facts: Mapping[str, Any]) -> Artifact:
    """Write the manifest last: `facts` (kind, label names, base, ...) and every file's SHA-256."""
    files = {
        p.relative_to(directory).as_posix(): _sha256(p)
        for p in sorted(directory.rglob("*"))
        if p.is_file() and p.name != MANIFEST
    }
    manifest = {"format": FORMAT, "tunelab": __version__, **facts, "files": files}
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")
    return Artifact(directory, manifest)


def open_artifact(directory: Path) -> Artifact:
    """Read and check an artifact. Raises ArtifactError naming what is missing or altered."""
    path = directory / MANIFEST
    if not path.is_file():
        if not directory.is_dir():
            near = (
                [p.name for p in directory.parent.glob("*/")] if directory.parent.is_dir() else []
            )
            hint = suggest(directory.name, sorted(near), what="Folders there") if near else ""
            raise ArtifactError(f"{directory}: there is no such folder.{hint}")
        raise ArtifactError(
            f"{directory}: expected a classifier saved by tunelab ({MANIFEST}), found "
            f"{', '.join(sorted(p.name for p in directory.iterdir())[:6]) or 'an empty folder'}. "
            "Give the folder from `tunelab train --output-dir`, or a trial's artifact folder."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise ArtifactError(
            f"{path}: not valid JSON ({e}). Train or copy the artifact again."
        ) from e
    if manifest.get("format") != FORMAT:
        raise ArtifactError(
            f"{path}: format {manifest.get('format')!r}, expected {FORMAT}. "
            "It was written by another version of tunelab; use that version or train again."
        )
    for name, digest in manifest["files"].items():
        file = directory / name
        if not file.is_file():
            raise ArtifactError(f"{directory}: the file {name} is missing. Copy the whole folder.")
        if _sha256(file) != digest:
            raise ArtifactError(
                f"{file}: its content is not what was saved (SHA-256 differs from {MANIFEST}). "
                "Copy the artifact again from where it was made."
            )
    return Artifact(directory, manifest)
