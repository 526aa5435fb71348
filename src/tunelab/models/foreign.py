"""Classifiers that plain peft or transformers wrote, described as artifacts: nothing is written.

What their folders do not say is decided here and noted in the manifest under "notes".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from tunelab.core import artifact
from tunelab.core.errors import ArtifactError, ModelError
from tunelab.core.values import Artifact, Manifest
from tunelab.core.words import listed
from tunelab.models import bases
from tunelab.models.ensemble import member_folders, weights_of
from tunelab.models.heads import LAST_LAYER, labels_in
from tunelab.models.names import is_within
from tunelab.models.weights import tensors

__all__ = [
    "ADAPTER",
    "WEIGHTS",
    "find_artifact",
    "needs_base",
    "open_folder",
    "read_object",
    "with_base_at",
]


ADAPTER = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# Trainer leaves these beside its models. They are pickles, and they are never read.
LEFTOVERS = frozenset(
    {
        "training_args.bin",
        "optimizer.pt",
        "optimizer.bin",
        "scheduler.pt",
        "scaler.pt",
        "rng_state.pth",
        *(f"rng_state_{i}.pth" for i in range(16)),
    }
)
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
_LONGEST_NAME = 512
# Kinds of artifacts that name their base and do not hold it.
_ON_A_BASE = frozenset({"adapter", "zero-shot-nli", *artifact.EMBEDDED})


def find_artifact(folder: Path | str) -> Path:
    """The artifact's folder: the one given, the `artifact` inside of a trial's, or the only one of
    its folders that holds a classifier (peft keeps an adapter with a name in a folder of it).

    Raises ArtifactError where several do, naming them.
    """
    folder = Path(folder).expanduser()
    if any((folder / name).is_file() for name in (artifact.MANIFEST, ADAPTER, "config.json")):
        return folder
    if (folder / "artifact").is_dir():
        return folder / "artifact"
    named = _named_inside(folder)
    if len(named) > 1:
        raise ArtifactError(
            f"{folder}: holds {len(named):,} adapters or classifiers: {listed(named)}. Give one of "
            f"them, such as {folder / named[0]}."
        )
    return folder / named[0] if named else folder


def _named_inside(folder: Path) -> list[str]:
    """The names of a folder's folders that hold an adapter, or a classifier that we saved."""
    if not folder.is_dir():
        return []
    return sorted(
        inner.name
        for inner in folder.iterdir()
        if not inner.name.startswith(".")
        and any((inner / name).is_file() for name in (artifact.MANIFEST, ADAPTER))
    )


def open_folder(
    folder: Path | str, base: bases.Base | None = None, *, model: str | None = None
) -> Artifact:
    """Open what tunelab saved, or describe what peft or transformers saved (on `base`, if given).

    `model`: where the base lies now, a folder or a hub id (`with_base_at`). Raises ArtifactError
    for anything else, for altered files and for pickles, by name.
    """
    directory = find_artifact(folder)
    if (directory / artifact.MANIFEST).is_file():
        opened = with_base_at(artifact.open_artifact(directory), model)
    elif (directory / ADAPTER).is_file():
        opened = _adapter(directory, base, model)
    elif (directory / "config.json").is_file():
        opened = with_base_at(_model(directory), model)
    else:
        return artifact.open_artifact(directory)  # says what was expected and what is there
    return _named(opened, Path(folder).expanduser())


def _named(opened: Artifact, given: Path) -> Artifact:
    """The artifact, with a note of its name where the folder that was given only holds it."""
    name = opened.directory.name
    if opened.directory.parent != given or name == "artifact":
        return opened
    manifest = opened.manifest.copy()
    note = f"Reads {name!r}, the only adapter or classifier in {given}."
    manifest["notes"] = [note, *manifest.get("notes", ())]
    return Artifact(opened.directory, manifest)


def needs_base(folder: Path | str) -> bool:
    """Whether what a folder holds is computed on a base that lies elsewhere."""
    directory = find_artifact(folder)
    if (directory / artifact.MANIFEST).is_file():
        opened = artifact.read_manifest(directory)
        if opened.manifest["kind"] == "ensemble":
            members = member_folders(directory, len(weights_of(opened)))
            return any(needs_base(folder) for folder in members)
        return opened.manifest["kind"] in _ON_A_BASE
    return (directory / ADAPTER).is_file()


def with_base_at(opened: Artifact, model: str | None) -> Artifact:
    """The artifact with its base found at `model`; as it is for None.

    Whoever loads it then checks the weights there against the hash that they were trained on.
    Raises ArtifactError for a classifier that needs no base.
    """
    if model is None or opened.manifest["kind"] == "ensemble":  # whose members are told
        return opened
    manifest = opened.manifest.copy()
    base = manifest.get("base")
    if manifest["kind"] not in _ON_A_BASE or base is None:
        raise ArtifactError(
            f"{opened.directory}: of the kind {manifest['kind']}, which needs no base. "
            "Leave --model out."
        )
    local = Path(model).expanduser()
    manifest["base"] = {**base, "name": str(local.resolve()) if local.is_dir() else model}
    return Artifact(opened.directory, manifest)


def _adapter(directory: Path, base: bases.Base | None, model: str | None) -> Artifact:
    artifact.refuse_pickles(directory, LEFTOVERS)
    config = read_object(directory / ADAPTER)
    if not (directory / WEIGHTS).is_file():
        raise ArtifactError(f"{directory}: expected {WEIGHTS} beside {ADAPTER}, found none.")
    base = base or _base_of(directory, config, model)
    classes = _classes(directory, config)
    said = read_object(directory / "config.json") if (directory / "config.json").is_file() else {}
    notes = [f"Written by peft, not by tunelab: base {base.ref.name}, weights not checked."]
    names = _label_names(said, classes)
    if names is None:
        names = _numbered(classes)
        notes.append(f"Label names are not in the folder: {', '.join(names)}.")
    if (unknown := _unknown_here(config)) is not None:
        notes.append(unknown)
    others = _named_inside(directory)
    if others:
        notes.append(f"Other adapters in the folder: {', '.join(others)}; give their own folders.")
    own = any((directory / n).is_file() for n in _TOKENIZER_FILES)
    if not own:
        notes.append("No tokenizer in the folder: the base's is used.")
    length = _max_length(directory if own else base.path, base.max_positions)
    notes.append(f"Texts are cut at {length} tokens.")
    manifest = _manifest("adapter", names, base, length, notes)
    manifest["tokenizer"] = "own" if own else "base"
    return Artifact(directory, manifest)


def _model(directory: Path) -> Artifact:
    artifact.refuse_pickles(directory, LEFTOVERS)
    base = bases.resolve(str(directory))
    config = read_object(directory / "config.json")
    named = config.get("architectures")
    architectures = list(map(str, named)) if isinstance(named, list) and named else []
    if not any("ForSequenceClassification" in a for a in architectures):
        raise ArtifactError(
            f"{directory}: expected a classifier ({artifact.MANIFEST}, or a transformers model "
            f"for sequence classification), found a model without a trained head "
            f"({', '.join(architectures) or 'no architecture named'}). Train one: tunelab train "
            f"DATA --method full --model {directory}"
        )
    problem = config.get("problem_type")
    # transformers writes names for any number of classes but its default, which is two.
    labels, count = config.get("id2label"), config.get("num_labels")
    said = count if isinstance(count, int) and count else 2
    if isinstance(labels, Mapping) and labels:
        said = len(labels)
    rows = [s[0] for n, s in bases.weight_shapes(base).items() if LAST_LAYER.search(n)]
    classes = rows[-1] if rows else said
    if problem not in {None, "single_label_classification"} or classes < 2:
        what = problem if problem not in {None, "single_label_classification"} else "one output"
        raise ArtifactError(
            f"{directory}: expected a classifier of one label a text, found {what} in its "
            "config.json."
        )
    notes = ["Written by transformers, not by tunelab: weights not checked."]
    names = _label_names(config, classes)
    if names is None:
        names = _numbered(classes)
        notes.append(f"Its config.json has no names for its {classes} classes: {', '.join(names)}.")
    length = _max_length(directory, base.max_positions)
    notes.append(f"Texts are cut at {length} tokens.")
    return Artifact(directory, _manifest("model", names, base, length, notes))


def _manifest(
    kind: str, label_names: list[str], base: bases.Base, max_length: int, notes: list[str]
) -> Manifest:
    """What tunelab.json would say, had we written the folder."""
    return {
        "kind": kind,
        "label_names": label_names,
        "max_length": max_length,
        "base": {"name": base.ref.name, "sha256": base.ref.sha256},
        "score_kind": "logit",
        "files": {},
        "notes": notes,
    }


def read_object(path: Path) -> Mapping[str, object]:
    """A JSON file's object. Raises ArtifactError where it holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise ArtifactError(f"{path}: not valid JSON ({e}). Copy the folder again.") from e
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: expected an object. Copy the folder again.")
    return value


def _base_of(directory: Path, config: Mapping[str, object], model: str | None) -> bases.Base:
    name = model or config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ArtifactError(
            f"{directory}: {ADAPTER} does not name its base (base_model_name_or_path). "
            "Write its folder or hub id there."
        )
    revision = None if model else config.get("revision")
    local = Path(name).expanduser().is_dir()
    try:
        return bases.resolve(f"{name}@{revision}" if revision and not local else name)
    except ModelError as e:
        raise ArtifactError(
            f"{directory}: needs the base that it was trained on. {e}{bases.IF_IT_MOVED}"
        ) from e


def _unknown_here(config: Mapping[str, object]) -> str | None:
    """What a newer peft wrote that the one that is installed leaves out, as a note."""
    from importlib.metadata import version

    installed, written = version("peft"), str(config.get("peft_version") or "0")
    if _numbers(written) <= _numbers(installed):
        return None
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

    kind = str(config.get("peft_type"))
    known = PEFT_TYPE_TO_CONFIG_MAPPING.get(PeftType.__members__.get(kind))
    more = sorted(config.keys() - {f.name for f in fields(known)}) if known else []
    left_out = f": {', '.join(more)} left out" if more else ""
    return f"Written by peft {written}, newer than the {installed} that reads it here{left_out}."


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def _classes(directory: Path, config: Mapping[str, object]) -> int:
    """Rows of the head's last layer in the adapter's file.

    The usual names go first. By another name, it is of the modules that were saved in full the
    matrix with the fewest rows.
    """
    shapes = {
        name: entry["shape"] for name, entry in tensors(str(directory), directory / WEIGHTS).items()
    }
    rows = [shape[0] for name, shape in shapes.items() if LAST_LAYER.search(name)]
    if not rows:
        saved = config.get("modules_to_save")
        heads = [str(m) for m in saved] if isinstance(saved, list) else []
        others = [s[0] for n, s in shapes.items() if len(s) == 2 and is_within(n, heads)]
        rows = [min(others)] if others else []
    if not rows:
        raise ArtifactError(
            f"{directory}: {WEIGHTS} holds no classification head (classifier or score), so its "
            "predictions would be random. Save it with modules_to_save and task_type SEQ_CLS."
        )
    return int(rows[-1])


def _label_names(config: Mapping[str, object], classes: int) -> list[str] | None:
    """The names in a config in the order of the head's rows; None where they do not fit."""
    names = labels_in(config)
    return list(names) if names is not None and len(names) == classes else None


def _numbered(classes: int) -> list[str]:
    return [f"LABEL_{i}" for i in range(classes)]


def _max_length(tokenizer: Path, positions: int | None) -> int:
    """The tokenizer's own limit where it has one, within the model's positions and 512."""
    path = tokenizer / "tokenizer_config.json"
    said = read_object(path).get("model_max_length") if path.is_file() else None
    limits = [n for n in (said, positions) if isinstance(n, int) and n > 0]
    return min([*limits, _LONGEST_NAME])
