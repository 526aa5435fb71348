"""Whether a saved classifier is what it says: checksums, readable weights, its base, its labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunelab.core.artifact import MANIFEST, altered, pickles, read_manifest
from tunelab.core.errors import ArtifactError, InputError, ModelError
from tunelab.core.values import Artifact, BaseRef
from tunelab.core.words import agreeing, counted
from tunelab.models import bases, classifier, foreign, pretrained, weights

__all__ = [
    "Check",
    "verify",
]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that `verify` looked at. "skipped" is said with its reason, never counted as ok."""

    name: str
    status: Literal["ok", "fault", "skipped"]
    detail: str


# --- verifying ------------------------------------------------------------------------------


def verify(
    folder: Path | str, *, trust_remote_code: bool = False, model: str | None = None
) -> tuple[Check, ...]:
    """Check everything that an artifact's predictions depend on, and name every fault.

    Pickles, checksums, files that nobody listed, readable tensors, the base's hash, and that every
    tensor is there and has its place. `model`: where the base lies now, if it moved. A base with
    Python code of its own is a fault unless `trust_remote_code` allows it. Raises ArtifactError
    only where the folder is no artifact.
    """
    directory = foreign.find_artifact(folder)
    ours = (directory / MANIFEST).is_file()
    artifact = (
        foreign.with_base_at(read_manifest(directory), model)
        if ours
        else foreign.open_folder(directory, model=model)
    )
    unsafe = pickles(directory) if ours else []
    readable = _readable(artifact)
    return (
        _checked_artifact(
            "pickles", [f"{p} can run code when it is read: remove it" for p in unsafe], "none"
        ),
        _checksums(artifact, ours),
        _checked_artifact("tensors readable", readable, "all safetensors files are whole"),
        *(_against_base(artifact, trust_remote_code) if not readable else ()),
    )


def _checked_artifact(name: str, faults: Sequence[str], fine: str) -> Check:
    return Check(name, "fault" if faults else "ok", "; ".join(faults) or fine)


def _checksums(artifact: Artifact, ours: bool) -> Check:
    if not ours:
        return Check("checksums", "skipped", f"the folder has no {MANIFEST}")
    listed = artifact.manifest["files"]
    faults = altered(artifact)
    # A stray note is all right; a stray file that loading would read is not.
    read_on_loading = [
        *artifact.directory.glob("*.safetensors"),
        *artifact.directory.glob("*.json"),
    ]
    faults += [
        f"{p.name} was added after saving"
        for p in sorted(read_on_loading)
        if p.name not in listed and p.name != MANIFEST
    ]
    return _checked_artifact(
        "checksums",
        faults,
        f"{counted(len(listed), 'file')} {agreeing(len(listed), 'are')} as saved",
    )


def _readable(artifact: Artifact) -> list[str]:
    faults = []
    for file in sorted(artifact.directory.glob("*.safetensors")):
        try:
            weights.tensors(str(artifact.directory), file)
        except ModelError as e:
            faults.append(str(e))
    if not any(artifact.directory.glob("*.safetensors")):
        faults.append("there is no safetensors file")
    return faults


def _against_base(artifact: Artifact, trusted: bool) -> Iterator[Check]:
    manifest, directory = artifact.manifest, artifact.directory
    kind, base = manifest["kind"], manifest.get("base")
    if kind == "model":
        yield Check("base", "skipped", "a whole model needs none")
        faults = _whole_model_faults(artifact, trusted)
        yield _checked_artifact("tensors complete", faults, "none missing or stray")
        return
    if base is None:
        yield Check("base", "skipped", f"{kind} has none")
        return
    try:
        resolved = bases.resolve_exactly(BaseRef(**base), directory, trusted)
    except ArtifactError as e:
        yield Check("base", "fault", str(e))
        return
    yield Check("base", "ok", f"{base['name']}, {base['sha256'][:12]}...")
    if kind == "adapter":
        faults = []
        try:
            classifier.load_on(resolved, artifact)
        except InputError as e:
            faults.append(str(e))
        yield _checked_artifact("tensors complete", faults, "none missing or stray")


def _whole_model_faults(artifact: Artifact, trusted: bool) -> list[str]:
    """What keeps a whole classifier from being loaded (`pretrained.load_saved`)."""
    names = artifact.manifest["label_names"]
    try:
        _, faults = pretrained.load_whole(artifact.directory, names, None, trusted)
        if not faults:
            files = weights.weight_files(str(artifact.directory), artifact.directory)
            weights.refuse_not_finite(str(artifact.directory), files)
    except ModelError as e:
        return [str(e)]
    return faults
