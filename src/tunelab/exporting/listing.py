"""What classifiers lie below a folder, and what is in one of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from tunelab.core import files
from tunelab.core.artifact import MANIFEST, read_manifest
from tunelab.core.errors import ArtifactError, InputError
from tunelab.core.shapes import fault
from tunelab.core.study_folder import spec_of
from tunelab.core.values import Artifact, Manifest
from tunelab.models import foreign, weights
from tunelab.models.families import FAMILIES, USUAL_HEADS
from tunelab.models.names import is_within

__all__ = [
    "AdapterConfig",
    "ArtifactFacts",
    "ArtifactRow",
    "MethodFacts",
    "adapter_config",
    "find_artifacts",
    "method_of",
    "show",
]


# --- what is said of an artifact ------------------------------------------------------------


class ArtifactRow(TypedDict):
    """An artifact in a list; of one that cannot be read there are folder, bytes and `error`."""

    folder: str
    bytes: int
    kind: str | None
    method: str | None
    base: str | None
    label_names: list[str] | None
    error: str | None


class MethodFacts(TypedDict):
    """What an artifact was trained by: a method's label, its settings and seed, as far as known."""

    name: str | None
    settings: Mapping[str, object]
    seed: int | None


class BaseFacts(TypedDict):
    """The base of an artifact: its name and the SHA-256 of its weights."""

    name: str
    sha256: str


class ArtifactFacts(TypedDict):
    """All that an artifact says of itself.

    `bytes` are those of the tensors in the files, head apart, or of an export's graph; `files`
    gives each file's size; `made_from`: what was merged or combined into it.
    """

    folder: str
    kind: str
    method: MethodFacts
    base: BaseFacts | None
    label_names: list[str]
    max_length: int | None
    bytes: dict[str, int]
    files: dict[str, int]
    made_from: object
    tunelab: str | None
    notes: list[str]


class AdapterConfig(TypedDict, total=False):
    """What is read of an adapter's adapter_config.json; peft writes more."""

    peft_type: str
    modules_to_save: list[str] | None
    use_dora: bool
    bias: str
    trainable_token_indices: object
    target_parameters: object
    init_lora_weights: object


# --- looking --------------------------------------------------------------------------------


def find_artifacts(root: Path | str) -> list[ArtifactRow]:
    """Artifacts below a folder, those of studies' trials too, by folder."""
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ArtifactError(f"{root}: there is no such folder. Give one that holds classifiers.")
    folders = {p.parent for name in (MANIFEST, foreign.ADAPTER) for p in root.rglob(name)}
    inside = [f for f in folders if not any(p.startswith(".") for p in f.relative_to(root).parts)]
    return [_artifact_row(folder) for folder in sorted(inside)]


def _artifact_row(folder: Path) -> ArtifactRow:
    row: ArtifactRow = {
        "folder": str(folder),
        "bytes": files.folder_bytes(folder),
        "kind": None,
        "method": None,
        "base": None,
        "label_names": None,
        "error": None,
    }
    try:
        known = (folder / MANIFEST).is_file()
        artifact = read_manifest(folder) if known else foreign.open_folder(folder)
        base = artifact.manifest.get("base")
        return {
            **row,
            "kind": artifact.manifest["kind"],
            "method": method_of(artifact)["name"],
            "base": base["name"] if base else None,
            "label_names": list(artifact.manifest["label_names"]),
        }
    except InputError as e:
        return row | {"error": str(e)}


def show(folder: Path | str) -> ArtifactFacts:
    """All that an artifact says of itself: kind, method and settings, base, labels, sizes."""
    artifact = foreign.open_folder(folder)
    directory, manifest = artifact.directory, artifact.manifest
    return {
        "folder": str(directory),
        "kind": manifest["kind"],
        "method": method_of(artifact),
        "base": manifest.get("base"),
        "label_names": list(manifest["label_names"]),
        "max_length": manifest.get("max_length"),
        "bytes": _file_sizes(artifact),
        "files": {
            p.relative_to(directory).as_posix(): p.stat().st_size
            for p in sorted(directory.rglob("*"))
            if p.is_file()
        },
        "made_from": manifest.get("merged_from")
        or manifest.get("combined_from")
        or _exported_in_short(manifest),
        "tunelab": manifest.get("tunelab"),
        "notes": list(manifest.get("notes", ())),
    }


def _exported_in_short(manifest: Manifest) -> object:
    """What an export was made from, without its lists."""
    made = manifest.get("exported_from")
    return made and {k: v for k, v in made.items() if not isinstance(v, list)}


def _file_sizes(artifact: Artifact) -> dict[str, int]:
    """Bytes of the tensors in an artifact's safetensors files: of the head and of the rest."""
    graph = artifact.manifest.get("graph")
    if graph is not None:
        path = artifact.directory / graph
        return {"graph": sum(p.stat().st_size for p in path.parent.glob(f"{path.stem}.*"))}
    rest = "adapter" if artifact.manifest["kind"] == "adapter" else "model"
    sizes = {rest: 0, "head": 0}
    heads = _heads(artifact)
    for file in sorted(artifact.directory.glob("*.safetensors")):
        for name, entry in weights.tensors(str(artifact.directory), file).items():
            begin, end = entry["data_offsets"]
            sizes["head" if is_within(name, heads) else rest] += end - begin
    return sizes


def _heads(artifact: Artifact) -> tuple[str, ...]:
    """Names of the modules that are the head (or, beside an adapter, are trained in full)."""
    directory, kind = artifact.directory, artifact.manifest["kind"]
    if kind == "adapter":
        return tuple(adapter_config(artifact).get("modules_to_save") or ())
    if kind == "model":
        family = FAMILIES.get(str(_read_mapping(directory / "config.json").get("model_type")))
        return family.head if family else USUAL_HEADS
    return ()


def adapter_config(artifact: Artifact) -> AdapterConfig:
    """The content of an adapter's `adapter_config.json`. Raises ArtifactError where it has none."""
    config = _read_mapping(artifact.directory / foreign.ADAPTER)
    modules = config.get("modules_to_save")
    if wrong := fault(modules, list[str] | None):
        path = artifact.directory / foreign.ADAPTER
        raise ArtifactError(f"{path}: modules_to_save: {wrong}. Train or copy the artifact again.")
    return cast("AdapterConfig", config)


def _read_mapping(path: Path) -> dict[str, object]:
    """The content of a JSON file. Raises ArtifactError where it is no mapping."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        wrong = fault(content, dict[str, object])
    except (OSError, ValueError, RecursionError) as e:
        wrong = str(e)
    if wrong is not None:
        raise ArtifactError(f"{path}: cannot be read ({wrong}). Train or copy the artifact again.")
    return dict(content)


def method_of(artifact: Artifact) -> MethodFacts:
    """Name and settings: from the trial that made it, else from peft's config, else unknown."""
    directory = artifact.directory
    spec = spec_of(directory)
    if spec is not None:
        settings = dict(spec.method.settings)
        return {"name": spec.method.label, "settings": settings, "seed": spec.seed}
    merged = artifact.manifest.get("merged_from")
    if merged:
        return {"name": f"{merged['method']}, merged", "settings": {}, "seed": None}
    made = artifact.manifest.get("exported_from")
    if made:
        name = f"{made['method'] or artifact.manifest['kind']}, as {made['target']}"
        return {"name": name, "settings": {}, "seed": None}
    if (directory / foreign.ADAPTER).is_file():
        config = adapter_config(artifact)
        own = {"base_model_name_or_path", "inference_mode", "peft_type", "peft_version"}
        said = {k: v for k, v in config.items() if k not in own and v not in (None, {}, [], False)}
        return {
            "name": str(config.get("peft_type", "peft")).lower(),
            "settings": said,
            "seed": None,
        }
    linear = artifact.manifest["kind"] not in {"adapter", "model"}
    return {"name": artifact.manifest["kind"] if linear else None, "settings": {}, "seed": None}
