"""The manifest of a deployable classifier: what it is, how to load it, what its files hash to.

An artifact is a folder in its own tool's layout (peft's, transformers' or a linear model's) plus
`tunelab.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import cast

from tunelab.core.errors import ArtifactError, suggest
from tunelab.core.files import set_aside, write_text
from tunelab.core.values import Artifact, Manifest
from tunelab.core.version import __version__

__all__ = [
    "CALIBRATION",
    "EMBEDDED",
    "MANIFEST",
    "altered",
    "check_labels",
    "open_artifact",
    "pickles",
    "read_manifest",
    "refuse_lacking",
    "refuse_pickles",
    "refuse_several_labels",
    "seal",
    "seal_again",
    "sha256",
]


MANIFEST = "tunelab.json"
CALIBRATION = "calibration.json"  # how its scores are read (`stats.calibration.write_calibration`)
FORMAT = 1
# Kinds that are a head on a base's frozen vectors (`models.embedded`).
EMBEDDED = ("svm", "logistic", "knn", "boosting", "zero-shot")
# Reading one of these can run code; nothing here reads them, and a folder that has one is refused.
_OPENVINO_WEIGHTS = "openvino_model.bin"
_PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(directory: Path, facts: Mapping[str, object]) -> Artifact:
    """Write the manifest last: `facts` (kind, label names, base, ...) and every file's SHA-256.

    Not of README.md: the card is for people, who may edit it; nothing is loaded from it.
    """
    files = {
        p.relative_to(directory).as_posix(): sha256(p)
        for p in sorted(directory.rglob("*"))
        if p.is_file() and p.name not in {MANIFEST, "README.md"}
    }
    manifest = {"format": FORMAT, "tunelab": __version__, **facts, "files": files}
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    write_text(directory / MANIFEST, text)
    return read_manifest(directory)


def refuse_several_labels(artifact: Artifact, what: str) -> None:
    """Raise ArtifactError for a classifier of several labels a text, where `what` has no way for
    one.
    """
    if artifact.manifest.get("score_kind") == "label_logit":
        raise ArtifactError(
            f"{artifact.directory}: gives several labels a text, and {what} is for one class a "
            f"text. Label its texts without {what}: tunelab predict, or tunelab.load in Python."
        )


def seal_again(directory: Path, more: Mapping[str, object]) -> Artifact:
    """Write the manifest of a folder that is being made anew: more facts, or more files."""
    said = read_manifest(directory).manifest
    facts = {k: v for k, v in said.items() if k not in {"format", "tunelab", "files"}}
    return seal(directory, {**facts, **more})


def pickles(directory: Path) -> list[str]:
    """Files below a folder whose endings say that they are pickles, by name.

    Not what OpenVINO writes beside its graph, and alone reads: numbers, nothing else.
    """
    return sorted(
        p.relative_to(directory).as_posix()
        for p in directory.rglob("*")
        if p.suffix.lower() in _PICKLES
        and p.is_file()
        and not (p.name == _OPENVINO_WEIGHTS and p.with_suffix(".xml").is_file())
    )


def refuse_pickles(directory: Path, harmless: Collection[str] = ()) -> None:
    """Raise ArtifactError naming a pickle in the folder. `harmless`: names let pass, never read."""
    harmful = [p for p in pickles(directory) if p.rpartition("/")[2] not in harmless]
    if harmful:
        raise ArtifactError(
            f"{directory}: holds a pickle ({harmful[0]}), which can run code when it is read. "
            "Expected safetensors alone: remove it, or save anew with safe_serialization=True."
        )


def read_manifest(directory: Path) -> Artifact:
    """Read an artifact's manifest and no other file. Raises ArtifactError where it is not one."""
    path = directory / MANIFEST
    if not path.is_file():
        if not directory.is_dir():
            aside = set_aside(directory.absolute())
            if aside.is_dir():
                raise ArtifactError(
                    f"{directory}: there is no such folder; a run that was ended had put it aside: "
                    f"rename {aside.name} to {directory.name}, or run it again."
                )
            near = (
                [p.name for p in directory.parent.glob("[!.]*/")]
                if directory.parent.is_dir()
                else []
            )
            hint = suggest(directory.name, sorted(near), what="Folders beside it") if near else ""
            raise ArtifactError(
                f"{directory}: there is no such folder.{hint} Expected one from `tunelab train "
                "--output-dir`, a trial's or a study's; `tunelab adapters list FOLDER` shows what "
                "lies below a folder."
            )
        raise ArtifactError(
            f"{directory}: expected a classifier saved by tunelab ({MANIFEST}), found "
            f"{', '.join(sorted(p.name for p in directory.iterdir())[:6]) or 'an empty folder'}. "
            "Give the folder from `tunelab train --output-dir`, or a trial's artifact folder."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise ArtifactError(
            f"{path}: not valid JSON ({e}). Train or copy the artifact again."
        ) from e
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path}: expected an object. Train or copy the artifact again.")
    if manifest.get("format") != FORMAT:
        raise ArtifactError(
            f"{path}: format {manifest.get('format')!r}, expected {FORMAT}. "
            "It was written by another version of tunelab; use that version or train again."
        )
    _refuse_other_types(path, manifest)
    for name in manifest["files"]:
        # By name, not resolved: in the hub's cache, an artifact's files are links to elsewhere.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ArtifactError(f"{path}: lists {name}, which lies outside of the artifact.")
    return Artifact(directory, cast("Manifest", manifest))  # the keys that all have were checked


def _refuse_other_types(path: Path, manifest: Mapping[str, object]) -> None:
    """Raise ArtifactError naming a key that is missing or is not what every version writes."""
    for key, (fits, expected) in _KEYS.items():
        if (key in manifest or key in _ALWAYS) and not fits(manifest.get(key)):
            value = str(manifest[key])[:60] if key in manifest else "none"
            raise ArtifactError(
                f"{path}: {key}: expected {expected}, found {value!r}. "
                "Train or copy the artifact again."
            )


def _is_text(value: object) -> bool:
    """Whether a value is a text of whole characters: half of a surrogate pair cannot be written."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_base(value: object) -> bool:
    match value:
        case {"name": str(name), "sha256": str(), **more}:
            code = more.pop("code_sha256", None)
            return bool(name) and "\0" not in name and not more and isinstance(code, str | None)
    return value is None


def _says(value: object, *names: str) -> bool:
    """Whether a value is a mapping with texts, or nothing, under these names."""
    return isinstance(value, dict) and all(isinstance(value.get(n, 0), str | None) for n in names)


# What a manifest's keys are, and in words.
_KEYS: dict[str, tuple[Callable[[object], bool], str]] = {
    "kind": (_is_text, "a name"),
    "label_names": (
        lambda v: _are_texts(v) and isinstance(v, list) and len(set(v)) == len(v) >= 2,
        "two or more names that differ",
    ),
    "files": (
        lambda v: isinstance(v, dict) and all(_is_text(x) for pair in v.items() for x in pair),
        "a SHA-256 for each file",
    ),
    "base": (_is_base, "the base's name and sha256"),
    "max_length": (lambda v: type(v) is int and 0 < v < 1 << 31, "a number of tokens"),
    "score_kind": (
        lambda v: v in ("probability", "logit", "margin", "label_logit"),
        "probability, logit or label_logit",
    ),
    "pooling": (
        lambda v: isinstance(v, str) and set(v.split("+")) <= {"cls", "mean", "last"},
        "cls, mean or last, or several joined by +",
    ),
    "precision": (lambda v: v in ("auto", "float32", "bfloat16"), "auto, float32 or bfloat16"),
    "tokenizer": (lambda v: v in ("own", "base"), "own or base"),
    "quantization": (lambda v: v is None or isinstance(v, dict), "how the base was loaded"),
    "notes": (_are_texts, "texts"),
    "graph": (_is_text, "the name of a file"),
    "pad_id": (lambda v: type(v) is int and 0 <= v < 1 << 31, "a token's id"),
    "one_length": (lambda v: isinstance(v, bool), "true or false"),
    "merged_from": (lambda v: _says(v, "method"), "what was merged"),
    "combined_from": (lambda v: isinstance(v, dict), "what was combined"),
    "exported_from": (lambda v: _says(v, "method", "target"), "what was exported"),
}
_ALWAYS = frozenset({"kind", "label_names", "files"})
# What a kind cannot be loaded without.
_OF_KIND = {
    "adapter": ("base", "max_length"),
    "model": ("base", "max_length"),
    "static": ("base",),
    "zero-shot-nli": ("base", "max_length"),
    "setfit": ("base", "max_length", "pooling"),
    **dict.fromkeys(EMBEDDED, ("base", "max_length", "pooling")),
    "onnx": ("graph",),
    "openvino": ("graph",),
}


def refuse_lacking(opened: Artifact) -> None:
    """Raise ArtifactError for a manifest without what its kind cannot be loaded without."""
    for key in _OF_KIND.get(opened.manifest["kind"], ()):
        if opened.manifest.get(key) is None:
            raise ArtifactError(
                f"{opened.directory / MANIFEST}: {key} is missing, which a classifier of the kind "
                f"{opened.manifest['kind']} needs. Train or copy the artifact again."
            )


def altered(artifact: Artifact) -> list[str]:
    """What is wrong with the files that the manifest lists: a line for each fault."""
    directory, out = artifact.directory, []
    for name, digest in artifact.manifest["files"].items():
        file = directory / name
        if not file.is_file():
            out.append(f"{directory}: the file {name} is missing. Copy the whole folder.")
        elif sha256(file) != digest:
            out.append(
                f"{file}: its content is not what was saved (SHA-256 differs from {MANIFEST}). "
                "Copy the artifact again from where it was made; a study's trial is run again by "
                "`tunelab compare` once its folder is removed."
            )
    return out


def open_artifact(directory: Path) -> Artifact:
    """Read and check an artifact. Raises ArtifactError naming what is missing or altered."""
    artifact = read_manifest(directory)
    refuse_pickles(directory)
    faults = altered(artifact)
    if faults:
        raise ArtifactError(faults[0])
    return artifact


def check_labels(artifact: Artifact, classes: int) -> tuple[str, ...]:
    """The label names of an artifact whose classifier scores so many classes."""
    names = tuple(artifact.manifest["label_names"])
    if len(names) != classes:
        raise ArtifactError(
            f"{artifact.directory / MANIFEST}: label_names has {len(names)} names, but the "
            f"classifier scores {classes} classes. Train or copy the artifact again."
        )
    return names
