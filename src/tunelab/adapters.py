"""Saved adapters as a user handles them: find, show, verify, merge, combine, use several at once.

Every function takes a folder (an artifact, a trial's folder, or what plain peft saved) and leaves
it as it was. May import: predict and what lies below it. May not import: methods, trial, cli.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tunelab import artifacts, bases, foreign, models, store, transformer
from tunelab.errors import ArtifactError, InputError, ModelError, suggest
from tunelab.families import FAMILIES, USUAL_HEADS
from tunelab.module_names import PEFT_PREFIX, is_within, without_peft
from tunelab.predict import TextClassifier
from tunelab.transformer import TransformerClassifier
from tunelab.types import Artifact, BaseRef, DataSpec

__all__ = [
    "AdapterSet",
    "COMBINATIONS",
    "Change",
    "Check",
    "Made",
    "combine",
    "find_artifacts",
    "merge",
    "sample_texts",
    "show",
    "verify",
]

Floats = NDArray[np.float64]
# Scores of a merged model differ from the adapter's by rounding alone: about 1e-6 in float32.
LIMIT = 1e-4
COMBINATIONS = ("linear", "ties", "dare_ties", "svd", "cat")
_PRUNING = frozenset({"ties", "dare_ties"})
# These change the base's weights before training, so that two of them have no base in common.
_CHANGING_INITS = ("pissa", "olora", "corda", "loftq")


@dataclass(frozen=True, slots=True)
class Change:
    """What became of the predictions: `largest` difference of any score (logits), `flips` counts
    the texts that now get another label, `limit` is what was allowed without asking.
    """

    texts: int
    largest: float
    flips: int
    limit: float = LIMIT

    @property
    def acceptable(self) -> bool:
        """No label flipped and no score moved by more than the limit (a NaN is not acceptable)."""
        return self.flips == 0 and self.largest <= self.limit

    @property
    def sentence(self) -> str:
        """The same in words."""
        return (
            f"largest change of a score {self.largest:.1e}, {self.flips} of {self.texts} "
            f"predictions flipped"
        )


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact that was made, how its predictions compare, and what the user ought to know."""

    artifact: Artifact
    change: Change
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that `verify` looked at. "skipped" is said with its reason, never counted as ok."""

    name: str
    status: Literal["ok", "fault", "skipped"]
    detail: str


# --- looking --------------------------------------------------------------------------------


def find_artifacts(root: Path | str) -> list[dict[str, Any]]:
    """Artifacts below a folder, those of studies' trials too, by folder.

    Each has folder, kind, method, base, label_names, bytes; what cannot be read has its `error`.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ArtifactError(f"{root}: there is no such folder. Give one that holds classifiers.")
    folders = {p.parent for name in (artifacts.MANIFEST, foreign.ADAPTER) for p in root.rglob(name)}
    inside = [f for f in folders if not any(p.startswith(".") for p in f.relative_to(root).parts)]
    return [_row(folder) for folder in sorted(inside)]


def _row(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"folder": str(folder), "bytes": store.folder_bytes(folder)}
    try:
        known = (folder / artifacts.MANIFEST).is_file()
        artifact = artifacts.read_manifest(folder) if known else foreign.open_folder(folder)
        base = artifact.manifest.get("base")
        return row | {
            "kind": artifact.manifest["kind"],
            "method": _method(artifact)["name"],
            "base": base["name"] if base else None,
            "label_names": list(artifact.manifest["label_names"]),
            "error": None,
        }
    except InputError as e:
        nothing = dict.fromkeys(("kind", "method", "base", "label_names"))
        return row | nothing | {"error": str(e)}


def show(folder: Path | str) -> dict[str, Any]:
    """All that an artifact says of itself: kind, method and settings, base, labels, sizes in bytes.

    `bytes` are those of the tensors in the files, head apart; `files` gives each file's size.
    """
    artifact = foreign.open_folder(folder)
    directory, manifest = artifact.directory, artifact.manifest
    return {
        "folder": str(directory),
        "kind": manifest["kind"],
        "method": _method(artifact),
        "base": manifest.get("base"),
        "label_names": list(manifest["label_names"]),
        "max_length": manifest.get("max_length"),
        "bytes": _sizes(artifact),
        "files": {
            p.relative_to(directory).as_posix(): p.stat().st_size
            for p in sorted(directory.rglob("*"))
            if p.is_file()
        },
        "made_from": manifest.get("merged_from") or manifest.get("combined_from"),
        "tunelab": manifest.get("tunelab"),
        "notes": list(manifest.get("notes", ())),
    }


def _sizes(artifact: Artifact) -> dict[str, int]:
    """Bytes of the tensors in an artifact's safetensors files: of the head and of the rest."""
    rest = "adapter" if artifact.manifest["kind"] == "adapter" else "model"
    sizes = {rest: 0, "head": 0}
    heads = _heads(artifact)
    for file in sorted(artifact.directory.glob("*.safetensors")):
        for name, entry in bases.tensors(str(artifact.directory), file).items():
            begin, end = entry["data_offsets"]
            sizes["head" if is_within(name, heads) else rest] += end - begin
    return sizes


def _heads(artifact: Artifact) -> tuple[str, ...]:
    """Names of the modules that are the head (or, beside an adapter, are trained in full)."""
    directory, kind = artifact.directory, artifact.manifest["kind"]
    if kind == "adapter":
        return tuple(_adapter_config(artifact).get("modules_to_save") or ())
    if kind == "model":
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        family = FAMILIES.get(config.get("model_type", ""))
        return family.head if family else USUAL_HEADS
    return ()


def _adapter_config(artifact: Artifact) -> dict[str, Any]:
    text = (artifact.directory / foreign.ADAPTER).read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)
    return config


def _method(artifact: Artifact) -> dict[str, Any]:
    """Name and settings: from the trial that made it, else from peft's config, else unknown."""
    directory = artifact.directory
    for spec in (directory / "trial" / "spec.json", directory.parent / "spec.json"):
        if spec.is_file():
            body = json.loads(spec.read_text(encoding="utf-8"))
            method = body["method"]
            return {"name": method["label"], "settings": method["settings"], "seed": body["seed"]}
    merged = artifact.manifest.get("merged_from")
    if merged:
        return {"name": f"{merged['method']}, merged", "settings": {}, "seed": None}
    if (directory / foreign.ADAPTER).is_file():
        config = _adapter_config(artifact)
        own = {"base_model_name_or_path", "inference_mode", "peft_type", "peft_version"}
        said = {k: v for k, v in config.items() if k not in own and v not in (None, {}, [], False)}
        return {"name": str(config.get("peft_type", "peft")).lower(), "settings": said,
                "seed": None}  # fmt: skip
    linear = artifact.manifest["kind"] not in {"adapter", "model"}
    return {"name": artifact.manifest["kind"] if linear else None, "settings": {}, "seed": None}


# --- verifying ------------------------------------------------------------------------------


def verify(folder: Path | str, *, trust_remote_code: bool = False) -> tuple[Check, ...]:
    """Check everything that an artifact's predictions depend on, and name every fault.

    Pickles, checksums, files that nobody listed, readable tensors, the base's hash, and that every
    tensor is there and has its place. A base with Python code of its own is a fault unless
    `trust_remote_code` allows it. Raises ArtifactError only where the folder is no artifact.
    """
    directory = foreign.find(folder)
    ours = (directory / artifacts.MANIFEST).is_file()
    artifact = artifacts.read_manifest(directory) if ours else foreign.open_folder(directory)
    found = artifacts.pickles(directory) if ours else []
    readable = _readable(artifact)
    return (
        _check("pickles", [f"{p} can run code when it is read: remove it" for p in found], "none"),
        _checksums(artifact, ours),
        _check("tensors readable", readable, "all safetensors files are whole"),
        *(_against_base(artifact, trust_remote_code) if not readable else ()),
    )


def _check(name: str, faults: Sequence[str], fine: str) -> Check:
    return Check(name, "fault" if faults else "ok", "; ".join(faults) or fine)


def _checksums(artifact: Artifact, ours: bool) -> Check:
    if not ours:
        return Check("checksums", "skipped", f"the folder has no {artifacts.MANIFEST}")
    listed = artifact.manifest["files"]
    faults = artifacts.altered(artifact)
    # A stray note is all right; a stray file that loading would read is not.
    read_on_loading = [
        *artifact.directory.glob("*.safetensors"),
        *artifact.directory.glob("*.json"),
    ]
    faults += [
        f"{p.name} was added after saving"
        for p in sorted(read_on_loading)
        if p.name not in listed and p.name != artifacts.MANIFEST
    ]
    return _check("checksums", faults, f"{len(listed)} files are as they were saved")


def _readable(artifact: Artifact) -> list[str]:
    faults = []
    for file in sorted(artifact.directory.glob("*.safetensors")):
        try:
            bases.tensors(str(artifact.directory), file)
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
        faults = _whole_model_faults(directory, trusted)
        yield _check("tensors complete", faults, "none missing or stray")
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
            transformer.load_on(resolved, artifact)
        except InputError as e:
            faults.append(str(e))
        yield _check("tensors complete", faults, "none missing or stray")


def _whole_model_faults(directory: Path, trusted: bool) -> list[str]:
    from transformers import AutoModelForSequenceClassification

    try:
        with models.quiet(), models.own_code_refused(str(directory)):
            _, info = AutoModelForSequenceClassification.from_pretrained(
                directory, dtype=torch.float32, use_safetensors=True, output_loading_info=True,
                ignore_mismatched_sizes=True, trust_remote_code=trusted,
            )  # fmt: skip
    except ModelError as e:
        return [str(e)]
    words = {"missing_keys": "is missing", "unexpected_keys": "has no place",
             "mismatched_keys": "has another shape"}  # fmt: skip
    return [
        f"{k if isinstance(k, str) else k[0]} {said}"
        for what, said in words.items()
        for k in sorted(info[what])
    ]


# --- merging --------------------------------------------------------------------------------


@cache
def sample_texts() -> tuple[str, ...]:
    """Texts to compare predictions on: reviews that come with tunelab, and a few odd ones."""
    from tunelab import data

    reviews = data.load(DataSpec("demo")).validation.texts[:64]
    odd = ("", "?", "no", "Ünïcödé 日本語 🙂", "1 2 3 4 5", "very " * 600)
    return (*reviews, *odd)


def merge(
    folder: Path | str,
    out_dir: Path | str,
    texts: Sequence[str] | None = None,
    *,
    allow_changes: bool = False,
    trust_remote_code: bool = False,
) -> Made:
    """Write an adapter and its base as one plain transformers model, in float32.

    Predictions on `texts` (sample_texts() when left out) are compared between what is there and
    what was written. Raises ArtifactError, and writes nothing, where a label flips or a score moves
    by more than 1e-4, unless `allow_changes`; also for a method that cannot be merged, and for a
    base with Python code of its own unless `trust_remote_code` allows it.
    """
    artifact = _open_adapter(folder, "merge")
    some = _texts(texts)
    with _new_folder(out_dir, [artifact.directory]) as (staging, out):
        trusted = trust_remote_code
        before = _exact_scores(transformer.load(artifact, trust_remote_code=trusted), some)
        # Adding to quantised weights would round again: the update goes onto the float base.
        classifier = transformer.load(_in_float(artifact), trust_remote_code=trusted)
        whole = replace(classifier, model=_merged(classifier.model, artifact))
        # Elsewhere nobody tells the tokenizer where to cut.
        whole.tokenizer.model_max_length = whole.max_length
        whole.save(staging)
        change = _change(before, _scores_of(staging, some, trusted))
        if not (change.acceptable or allow_changes):
            raise ArtifactError(
                f"{artifact.directory}: merging would change its predictions: {change.sentence} "
                f"(expected none, and at most {change.limit:.0e}). Nothing was written; to merge "
                "all the same, give --allow-changes."
            )
        made = {"method": _method(artifact)["name"], **_origin(artifact), **asdict(change)}
        # The scores stay as they are, and so does the temperature that was fitted to them.
        if (artifact.directory / artifacts.CALIBRATION).is_file():
            shutil.copy2(artifact.directory / artifacts.CALIBRATION, staging)
        artifacts.seal_again(staging, {"merged_from": made})
    return Made(artifacts.open_artifact(out), change, tuple(artifact.manifest.get("notes", ())))


def _scores_of(directory: Path, texts: Sequence[str], trusted: bool) -> Floats:
    """What a folder that was just written answers, read as anybody would."""
    written = artifacts.open_artifact(directory)
    return _exact_scores(transformer.load(written, trust_remote_code=trusted), texts)


def _exact_scores(classifier: TransformerClassifier, texts: Sequence[str]) -> Floats:
    return replace(classifier, precision="float32").scores(texts)


def _in_float(artifact: Artifact) -> Artifact:
    """The same adapter on its base in float32, also where it was trained on a quantised one."""
    kept = {k: v for k, v in artifact.manifest.items() if k != "quantization"}
    return replace(artifact, manifest=kept)


def _merged(model: Any, artifact: Artifact) -> Any:
    """The base with the adapter's update added to its weights; `model` is used up."""
    _refuse_prompts(model, artifact)
    try:
        with models.quiet():
            return models.merged(model)
    except (AttributeError, NotImplementedError, ValueError, RuntimeError) as e:
        raise ArtifactError(_cannot_merge(artifact, str(e).strip().splitlines()[0])) from e


def _refuse_prompts(model: Any, artifact: Artifact) -> None:
    if model.active_peft_config.is_prompt_learning:
        raise ArtifactError(_cannot_merge(artifact, "it adds tokens, not weights"))


def _cannot_merge(artifact: Artifact, reason: str) -> str:
    return (
        f"{artifact.directory}: {_method(artifact)['name']} cannot be merged ({reason}). "
        "Use the adapter as it is."
    )


def _change(before: Floats, after: Floats) -> Change:
    flips = int((before.argmax(axis=1) != after.argmax(axis=1)).sum())
    return Change(len(before), float(np.abs(before - after).max()), flips)


def _origin(artifact: Artifact) -> dict[str, Any]:
    """What an artifact was made from, by content: folders move."""
    weights = artifact.directory / foreign.WEIGHTS
    return {"name": artifact.directory.name, "sha256": artifacts.sha256(weights)}


def _texts(texts: Sequence[str] | None) -> tuple[str, ...]:
    some = sample_texts() if texts is None else tuple(texts)
    if not some:
        raise ArtifactError("No texts to compare predictions on: give some, or leave them out.")
    return some


def _open_adapter(folder: Path | str, verb: str) -> Artifact:
    artifact = foreign.open_folder(folder)
    kind, made = artifact.manifest["kind"], artifact.manifest.get("merged_from")
    if kind == "adapter":
        return artifact
    if made:
        what = f"is merged already (from {made['method']}, {made['name']})"
    elif kind == "model":
        what = "is a whole model already"
    else:
        what = f"is of the kind {kind}"
    raise ArtifactError(
        f"{artifact.directory}: {what}, expected an adapter: there is nothing to {verb}. "
        "Use it as it is."
    )


@contextmanager
def _new_folder(out_dir: Path | str, sources: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Give an empty folder to fill, and the one that it becomes; on any error nothing is left."""
    out = Path(out_dir).expanduser()
    for source in (s.resolve() for s in sources):
        if out.resolve() == source or source in out.resolve().parents:
            raise ArtifactError(
                f"{out}: is, or lies in, the folder of the original, which stays as it is. "
                f"Choose another folder, such as {source.parent / (source.name + '-made')}."
            )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "not empty" if out.is_dir() else "a file"
        raise ArtifactError(f"{out}: {what}, expected a new or empty folder. Choose another one.")
    # Beside what there is already, so that not even an empty parent is left behind.
    near = next(p for p in out.resolve().parents if p.is_dir())
    try:
        staging = Path(tempfile.mkdtemp(dir=near, prefix=f".{out.name}."))
    except OSError as e:
        raise ArtifactError(f"{out}: cannot be written ({e.strerror}). Choose another.") from e
    try:
        staging.chmod(0o755)
        yield staging, out
        out.parent.mkdir(parents=True, exist_ok=True)
        staging.replace(out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


# --- combining ------------------------------------------------------------------------------


def combine(
    parts: Sequence[tuple[Path | str, float]],
    out_dir: Path | str,
    combination_type: str = "linear",
    density: float | None = None,
    *,
    trust_remote_code: bool = False,
) -> Made:
    """Write one LoRA adapter from several, weighted, as peft's add_weighted_adapter makes it.

    All need the same base and the same label names. Their heads, which peft does not combine, are
    averaged: sum(w_i head_i) / sum(w_i). `density` in (0, 1] is the share of entries that ties
    (Yadav et al. 2023) and dare_ties (Yu et al. 2024) keep; dare_ties drops at random, seed 0.
    The change reported is that of the written adapter against the one in memory.
    """
    _check_asked(parts, combination_type, density)
    found = [_open_adapter(folder, "combine") for folder, _ in parts]
    weights = [float(w) for _, w in parts]
    configs = [_adapter_config(a) for a in found]
    _check_alike(found, configs)
    with _new_folder(out_dir, [a.directory for a in found]) as (staging, out):
        classifier, notes = _combined(found, weights, combination_type, density, trust_remote_code)
        some = sample_texts()
        in_memory = _exact_scores(classifier, some)
        classifier.save(staging)
        change = _change(in_memory, _scores_of(staging, some, trust_remote_code))
        if not change.acceptable:
            raise ArtifactError(
                f"{out}: peft cannot save this combination whole ({change.sentence}). Nothing was "
                "written; use svd or cat."
            )
        made = [_origin(a) | {"weight": w} for a, w in zip(found, weights, strict=True)]
        how = {"combination_type": combination_type, "density": density}
        artifacts.seal_again(staging, {"combined_from": {"adapters": made, **how}})
    return Made(artifacts.open_artifact(out), change, notes)


def _check_asked(
    parts: Sequence[tuple[Path | str, float]], combination_type: str, density: float | None
) -> None:
    if combination_type not in COMBINATIONS:
        raise ArtifactError(
            f"Combination {combination_type!r} is unknown."
            f"{suggest(combination_type, COMBINATIONS, what='Expected one of')}"
        )
    if len(parts) < 2:
        raise ArtifactError(f"Expected two or more adapters to combine, found {len(parts)}.")
    weights = [w for _, w in parts]
    if not np.isfinite(weights).all() or sum(weights) <= 0:
        raise ArtifactError(
            f"Weights {', '.join(f'{w:g}' for w in weights)}: expected numbers with a sum above 0, "
            "because heads are averaged by them."
        )
    if combination_type in _PRUNING:
        if density is None or not 0 < density <= 1:
            raise ArtifactError(
                f"{combination_type} needs a density above 0 and at most 1, the share of entries "
                f"that is kept; found {density}. For example: --density 0.5"
            )
    elif density is not None:
        raise ArtifactError(
            f"density is for {' and '.join(sorted(_PRUNING))}; {combination_type} has none. "
            "Leave it out."
        )


def _check_alike(found: Sequence[Artifact], configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse adapters that cannot be added up, naming the first that differs."""
    first = found[0]
    for artifact, config in zip(found, configs, strict=True):
        reason = _no_plain_lora(config)
        if reason:
            raise ArtifactError(
                f"{artifact.directory}: cannot be combined: {reason}. Expected a plain LoRA."
            )
        if artifact.manifest["base"]["sha256"] != first.manifest["base"]["sha256"]:
            raise ArtifactError(
                f"{artifact.directory}: its base is {_base_words(artifact)}, that of "
                f"{first.directory} is {_base_words(first)}. Only adapters on one base combine."
            )
        if list(artifact.manifest["label_names"]) != list(first.manifest["label_names"]):
            raise ArtifactError(
                f"{artifact.directory}: its labels are "
                f"{', '.join(artifact.manifest['label_names'])}, those of {first.directory} are "
                f"{', '.join(first.manifest['label_names'])}. Only equal labels, in the same "
                "order, combine."
            )
        if set(config.get("modules_to_save") or ()) != set(configs[0].get("modules_to_save") or ()):
            raise ArtifactError(
                f"{artifact.directory}: its modules_to_save are not those of {first.directory}. "
                "Only adapters with the same modules trained in full combine."
            )


def _no_plain_lora(config: Mapping[str, Any]) -> str | None:
    if config.get("peft_type") != "LORA":
        return f"it is {str(config.get('peft_type')).lower()}, which peft cannot add up"
    if config.get("use_dora"):
        return "peft drops DoRA's magnitudes"
    if config.get("bias", "none") != "none":
        return f"its biases were trained too (bias={config['bias']})"
    if config.get("trainable_token_indices") or config.get("target_parameters"):
        return "it adapts tokens or bare parameters"
    init = str(config.get("init_lora_weights", "")).lower()
    if init.startswith(_CHANGING_INITS):
        return f"it was initialised by {init}, which changes the base's weights"
    return None


def _base_words(artifact: Artifact) -> str:
    base = artifact.manifest["base"]
    return f"{base['name']} ({base['sha256'][:12]}...)"


def _combined(
    found: Sequence[Artifact],
    weights: Sequence[float],
    how: str,
    density: float | None,
    trusted: bool,
) -> tuple[TransformerClassifier, tuple[str, ...]]:
    """Load all adapters onto one base and leave only their combination, called "default"."""
    ref = BaseRef(**found[0].manifest["base"])
    base = bases.resolve_exactly(ref, found[0].directory, trusted)
    # Each is checked by itself first: peft would fill what is missing with random numbers.
    classifiers = [transformer.load_on(base, _in_float(a)) for a in found]
    with models.quiet():
        from peft import PeftModel
        from peft.utils import ModulesToSaveWrapper

    names = [f"source_{i}" for i in range(len(found))]
    start, _ = models.load_classifier(base, found[0].manifest["label_names"], seed=0)
    with models.quiet():
        model: Any = PeftModel.from_pretrained(start, found[0].directory, adapter_name=names[0])
        for name, artifact in zip(names[1:], found[1:], strict=True):
            model.load_adapter(artifact.directory, name)
    model.to(models.device())
    heads = [
        (wrapper, [wrapper.modules_to_save[n] for n in names])
        for wrapper in model.modules()
        if isinstance(wrapper, ModulesToSaveWrapper) and names[0] in wrapper.modules_to_save
    ]
    for wrapper, _ in heads:
        # peft refuses to combine adapters that bring a head each: it sees the first one's alone.
        for name in names[1:]:
            del wrapper.modules_to_save[name]
            wrapper._adapters.discard(name)
    # peft combines into r = lora_alpha, meant as a scale of 1; with rsLoRA it would be sqrt(r).
    model.peft_config[names[0]].use_rslora = False
    devices = range(torch.cuda.device_count())
    try:
        with models.quiet(), torch.random.fork_rng(devices):
            torch.manual_seed(0)  # dare_ties drops at random
            model.add_weighted_adapter(list(names), list(weights), "default", how, density=density)
    except (ValueError, TypeError, RuntimeError, IndexError) as e:
        reason = str(e).strip().splitlines()[0]
        raise ArtifactError(
            f"{found[0].directory} and the others: peft cannot combine them by {how} ({reason})."
        ) from e
    _same_places(model, names, found[0])
    for wrapper, parts in heads:
        wrapper.modules_to_save["default"] = _average(parts, weights)
        wrapper._adapters.add("default")
    model.set_adapter("default")
    for name in names:
        model.delete_adapter(name)
    model.eval().requires_grad_(False)
    lengths = [c.max_length for c in classifiers]
    share = ", ".join(f"{w / sum(weights):.2f}" for w in weights)
    notes = [f"Heads are averaged with shares {share}; peft combines the LoRA parts alone."]
    if len(set(lengths)) > 1:
        notes.append(f"Texts are cut at {max(lengths)} tokens, the longest of the sources.")
    if any(a.manifest.get("quantization") for a in found):
        notes.append("Trained on a quantised base; the combination is for the base in float32.")
    return replace(classifiers[0], model=model, max_length=max(lengths)), tuple(notes)


def _same_places(model: Any, names: Sequence[str], first: Artifact) -> None:
    """Refuse a combination that lost a layer: peft keeps the first one's layers_to_transform."""
    places = {
        name: {m for m, layer in model.named_modules() if name in getattr(layer, "lora_A", {})}
        for name in (*names, "default")
    }
    lost = set().union(*(places[n] for n in names)) - places["default"]
    if lost:
        raise ArtifactError(
            f"{first.directory} and the others: adapt other layers, and peft would drop "
            f"{len(lost)} of them ({min(lost).removeprefix(PEFT_PREFIX)}). Expected equal "
            "layers_to_transform."
        )


def _average(parts: Sequence[Any], weights: Sequence[float]) -> Any:
    """A module whose parameters are the weighted mean of those of `parts`."""
    import copy

    out = copy.deepcopy(parts[0])
    total = sum(weights)
    with torch.no_grad():
        for name, p in out.named_parameters():
            mean = sum(
                (w / total) * part.get_parameter(name).double()
                for part, w in zip(parts, weights, strict=True)
            )
            p.copy_(mean)
    return out


# --- several at once ------------------------------------------------------------------------


class AdapterSet:
    """Several adapters on one base in one process: the base's weights are in memory once.

    Adapters may be of any methods and have different labels: each brings its own head. Every
    adapter must have been trained on exactly this base, wherever it lies now (its hash decides).
    """

    def __init__(
        self,
        base: str | Path,
        adapters: Mapping[str, Path | str],
        batch_size: int = 64,
        *,
        trust_remote_code: bool = False,
    ) -> None:
        resolved = bases.resolve(str(base), trust_remote_code)
        if not adapters:
            raise ArtifactError("AdapterSet: expected one or more adapters, found none.")
        self.base = resolved.ref
        self._members: dict[str, TextClassifier] = {}
        self._merged: dict[str, dict[str, torch.Tensor]] = {}
        shared: dict[str, torch.Tensor] = {}
        for name, folder in adapters.items():
            member = _member(resolved, folder, batch_size)
            _share(_model_of(member), shared)
            self._members[name] = member
        self._active = next(iter(adapters))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters, in the order in which they were given."""
        return tuple(self._members)

    @property
    def active(self) -> str:
        """Name of the adapter that labels texts for which none is named."""
        return self._active

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the active adapter's classes."""
        return self[self._active].label_names

    def __getitem__(self, name: str) -> TextClassifier:
        """The classifier of one adapter. Raises ArtifactError for an unknown name."""
        try:
            return self._members[name]
        except KeyError:
            raise ArtifactError(
                f"No adapter is called {name!r}.{suggest(name, self._members, what='Adapters')}"
            ) from None

    def use(self, name: str) -> AdapterSet:
        """Make an adapter the active one."""
        _ = self[name]
        self._active = name
        return self

    def predict(
        self, texts: Sequence[str] | str, adapters: Sequence[str] | None = None
    ) -> list[str]:
        """Label names of texts by the active adapter, or by the one that `adapters` names a row."""
        rows = self.predict_proba(texts, adapters)
        names = adapters if adapters is not None else [self._active] * len(rows)
        return [self[n].label_names[int(row.argmax())] for n, row in zip(names, rows, strict=True)]

    def predict_proba(
        self, texts: Sequence[str] | str, adapters: Sequence[str] | None = None
    ) -> list[Floats]:
        """Probabilities of each text, (n_classes of its adapter,): class counts may differ."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if adapters is None:
            return list(self[self._active].predict_proba(texts))
        if isinstance(adapters, str) or len(adapters) != len(texts):
            found = repr(adapters) if isinstance(adapters, str) else f"{len(adapters)} names"
            raise ArtifactError(
                f"adapters: expected the name of one for each of {len(texts)} texts, found {found}."
            )
        members = {name: self[name] for name in dict.fromkeys(adapters)}
        out: list[Floats] = [np.empty(0)] * len(texts)
        # Rows of one adapter go together: every adapter runs as if it were alone.
        for name, member in members.items():
            rows = [i for i, n in enumerate(adapters) if n == name]
            for i, p in zip(rows, member.predict_proba([texts[i] for i in rows]), strict=True):
                out[i] = p
        return out

    def merge(self, name: str) -> None:
        """Merge an adapter into a copy of the base's weights, in memory: faster, until unmerged."""
        member = self[name]
        if name in self._merged:
            return
        model = _model_of(member)
        _refuse_prompts(model, member.artifact)
        if member.artifact.manifest.get("quantization"):
            reason = "its base is quantised, and would be rounded again; adapters.merge can"
            raise ArtifactError(_cannot_merge(member.artifact, reason))
        kept = {n: p.data for n, p in model.named_parameters()}
        for p in model.parameters():
            p.data = p.data.clone()  # the others go on reading the shared weights
        try:
            with models.quiet():
                model.merge_adapter(safe_merge=True)
        except (AttributeError, NotImplementedError, ValueError, RuntimeError) as e:
            _restore(model, kept)
            reason = str(e).strip().splitlines()[0]
            raise ArtifactError(_cannot_merge(member.artifact, reason)) from e
        self._merged[name] = kept

    def unmerge(self, name: str) -> None:
        """Undo `merge`: the weights are those from before, bit for bit, and shared again."""
        member = self[name]
        if name not in self._merged:
            return
        model = _model_of(member)
        with models.quiet():
            model.unmerge_adapter()
        _restore(model, self._merged.pop(name))


def _member(base: bases.Base, folder: Path | str, batch_size: int) -> TextClassifier:
    artifact = foreign.open_folder(folder, base)
    if artifact.manifest["kind"] != "adapter":
        raise ArtifactError(
            f"{artifact.directory}: of the kind {artifact.manifest['kind']}, expected an adapter. "
            "Load it by itself: tunelab.load"
        )
    if artifact.manifest["base"]["sha256"] != base.ref.sha256:
        raise ArtifactError(
            f"{artifact.directory}: trained on {_base_words(artifact)}, but the base given is "
            f"{base.ref.name} ({base.ref.sha256[:12]}...). Give the base that it was trained on."
        )
    return TextClassifier(transformer.load_on(base, artifact, batch_size), artifact)


def _model_of(member: TextClassifier) -> Any:
    assert isinstance(member.classifier, TransformerClassifier)  # noqa: S101  an adapter's is one
    return member.classifier.model


def _share(model: Any, shared: dict[str, torch.Tensor]) -> None:
    """Let a model's weights be those in `shared` where they are equal, and add those it brings."""
    for name, p in model.named_parameters():
        if type(p) is not torch.nn.Parameter:  # quantised: its scales lie beside it
            continue
        there = shared.setdefault(without_peft(name), p.data)
        same_kind = there.shape == p.shape and there.dtype == p.dtype
        # Equal by content, not by name: some methods change the base's weights.
        if same_kind and torch.equal(there, p.data):
            p.data = there


def _restore(model: Any, kept: Mapping[str, torch.Tensor]) -> None:
    for name, p in model.named_parameters():
        p.data = kept[name]
