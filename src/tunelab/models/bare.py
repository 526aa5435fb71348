"""A saved classifier of a family whose arithmetic is known by heart, ready to score: from its files
to the layers of `scoring_layers`, without transformers' model classes and without peft, which take
seconds to import. Scores are the same bit for bit (tests/reference/models/test_bare.py).

Whatever is not as tunelab saves it is left to `classifier`, which loads anything and says what is
wrong: `open_bare` then gives None.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from tunelab.core.values import Artifact, BaseRef, ScoreKind
from tunelab.models import anatomy, bases, batches, tokenizer_probe, weights
from tunelab.models.batches import Batch
from tunelab.models.families import FAMILIES
from tunelab.models.family import Family, LayerNames
from tunelab.models.scoring_batches import Prepared, placed, texts_in_windows
from tunelab.models.scoring_layers import Encoder, Format, layers_from, one_text_of

__all__ = [
    "BareClassifier",
    "open_bare",
]

_TEXTS_IN_A_BATCH = 64  # as `classifier.open_transformer`
_ADAPTER, _ADAPTED = "adapter_config.json", "adapter_model.safetensors"
_SINGLE_FILE = "model.safetensors"
_WRAPPED, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
# What an adapter's config may say of LoRA as it is merged here; every other key has to be unset.
_OF_NO_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_alpha", "lora_dropout",
    "megatron_core", "modules_to_save", "peft_version", "qalora_group_size", "r", "revision",
    "target_modules", "use_rslora",
}  # fmt: skip
_AS_IT_IS = {"peft_type": "LORA", "task_type": "SEQ_CLS", "bias": "none", "init_lora_weights": True}


class _NotPlainError(Exception):
    """The files hold something that is not computed here."""


Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A tokenizer.json, called as transformers' tokenizers are."""

    own: Any
    pad_token_id: int

    def __call__(
        self, texts: Sequence[str], *, truncation: bool, max_length: int, **_: bool
    ) -> dict[str, list[Any]]:
        if truncation:
            self.own.enable_truncation(max_length)
        encodings = self.own.encode_batch(list(texts))
        return {"input_ids": [e.ids for e in encodings], "encodings": encodings}


@dataclass(frozen=True, slots=True)
class _Embeddings:
    """word + type 0 + position, and the norm: (b, n) -> (b, n, width), in BERT's order."""

    words: torch.Tensor
    kinds: torch.Tensor
    positions: torch.Tensor
    norm: nn.LayerNorm

    def __call__(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        x = functional.embedding(input_ids, self.words)
        x = x + functional.embedding(token_type_ids, self.kinds)
        x = x + functional.embedding(position_ids, self.positions)
        normed: torch.Tensor = self.norm(x)
        return normed


@dataclass(frozen=True, slots=True)
class _Config:
    """The pad id, from which positions may count."""

    pad_token_id: int


@dataclass(frozen=True, slots=True)
class _Bottom:
    """What lies below the layers, as `Encoder` asks for it."""

    embeddings: _Embeddings
    config: _Config


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """A classifier's tensors by name, and what its config says. `taken`: those that were asked for,
    of which all have to be where the file is a whole model's.
    """

    tensors: Tensors
    config: Mapping[str, object]
    family: Family
    taken: set[str] = field(default_factory=set)

    def number(self, key: str) -> float:
        """A number of the config."""
        value = self.config.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _NotPlainError(key)
        return value

    @property
    def width(self) -> int:
        """The width of the states between layers."""
        return int(self.number("hidden_size"))

    def tensor(self, name: str, *shape: int | None) -> torch.Tensor:
        """A tensor in float32, of this shape; None stands for any size."""
        if name not in self.tensors:
            raise _NotPlainError(name)
        tensor = self.tensors[name].float()
        fits = len(shape) == tensor.ndim
        if not fits or any(w not in (None, n) for w, n in zip(shape, tensor.shape, strict=True)):
            raise _NotPlainError(name)
        self.taken.add(name)
        return tensor

    def linear(self, name: str, out: int | None, into: int) -> nn.Linear:
        """A layer with a bias; `out` None is any number of outputs."""
        weight = self.tensor(f"{name}.weight", out, into)
        layer = nn.Linear(into, len(weight), device="meta")
        _fill(layer, weight, self.tensor(f"{name}.bias", len(weight)))
        return layer

    def norm(self, name: str) -> nn.LayerNorm:
        """A norm."""
        weight, bias = (self.tensor(f"{name}.{part}", self.width) for part in ("weight", "bias"))
        layer = nn.LayerNorm(self.width, self.number("layer_norm_eps"), device="meta")
        _fill(layer, weight, bias)
        return layer

    def layers(self, above: str, names: LayerNames) -> list[anatomy.LayerParts]:
        """Those whose names begin so, from the lowest up."""
        heads = int(self.number("num_attention_heads"))
        width, inner = self.width, int(self.number("intermediate_size"))
        if heads < 1 or width % heads:
            raise _NotPlainError("num_attention_heads")
        layers = []
        for i in range(int(self.number("num_hidden_layers"))):
            within = f"{above}{i}."
            layers.append(
                anatomy.LayerParts(
                    attention=(
                        self.linear(within + names.query, width, width),
                        self.linear(within + names.key, width, width),
                        self.linear(within + names.value, width, width),
                    ),
                    mixed=self.linear(within + names.mixed, width, width),
                    norm=self.norm(within + names.norm),
                    wide=self.linear(within + names.wide, inner, width),
                    activation=nn.GELU(),
                    narrow=self.linear(within + names.narrow, width, inner),
                    last_norm=self.norm(within + names.last_norm),
                    heads=heads,
                    scale=(width // heads) ** -0.5,
                    drops=(0.0, 0.0, 0.0),
                )
            )
        return layers


def _fill(layer: nn.Linear | nn.LayerNorm, weight: torch.Tensor, bias: torch.Tensor) -> None:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """A classifier's modules: below the layers, in them, and the head, tanh between."""

    bottom: _Bottom
    layers: list[anatomy.LayerParts]
    head: list[nn.Linear]
    family: Family


@dataclass(frozen=True, slots=True, eq=False)
class BareClassifier:
    """Scores texts; `precision` is one of `scoring_batches.PRECISIONS`."""

    network: _Network
    tokenizer: _Tokens
    label_names: tuple[str, ...]
    max_length: int
    precision: str = "auto"
    score_kind: ScoreKind = "logit"
    quantization: None = None
    _kept: dict[str, Prepared] = field(default_factory=dict, repr=False)

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Logits (n, n_classes)."""
        if self.precision not in self._kept:
            self._kept[self.precision] = _scored_by(self.network, self.precision)
        ready, width = self._kept[self.precision], len(self.label_names)

        def score(some: Sequence[str]) -> NDArray[np.float32]:
            encoded = batches.encode(self.tokenizer, some, self.max_length)
            return ready(encoded, self.tokenizer.pad_token_id, _TEXTS_IN_A_BATCH, width)

        return texts_in_windows(texts, score).astype(np.float64)

    def save(self, directory: Path) -> None:
        """Nothing is trained here, so that there is nothing to save."""
        raise NotImplementedError(f"{directory}: load the classifier with tunelab.load to save it")


def open_bare(artifact: Artifact, trust_remote_code: bool = False) -> BareClassifier | None:
    """What an artifact of a model or of LoRA scores with; None where it is not as said above.

    What is wrong with its files is left to the loader that says so.
    """
    manifest, directory = artifact.manifest, artifact.directory
    plain = "notes" not in manifest and not manifest.get("quantization")
    if not plain or trust_remote_code or torch.cuda.is_available():
        return None
    names = tuple(manifest["label_names"])
    tokenizer_probe.refuse_endless(str(directory), directory)  # once: the other loader asks too
    try:
        parts = _parts_of(artifact)
        network = _network(parts)
        if manifest["kind"] == "model" and parts.taken != set(parts.tensors):
            return None
        tokens = _tokens(directory, len(network.bottom.embeddings.words))
    except MemoryError:
        raise
    except Exception:  # those of tokenizers and of safetensors have no other common root
        return None
    if network.head[-1].out_features != len(names):
        return None
    precision = manifest.get("precision", "auto")
    kind = manifest.get("score_kind", "logit")
    return BareClassifier(network, tokens, names, manifest["max_length"], precision, kind)


def _tokens(directory: Path, rows: int) -> _Tokens:
    """The tokenizer of a folder, none of whose tokens lies beyond the embedding's rows."""
    from tokenizers import Tokenizer

    said = _object(directory / "tokenizer_config.json")
    if said.get("truncation_side", "right") != "right" or "auto_map" in said:
        raise _NotPlainError("tokenizer")
    own = Tokenizer.from_file(str(directory / "tokenizer.json"))
    own.no_padding()
    own.no_truncation()
    pad = said.get("pad_token")
    token = pad.get("content") if isinstance(pad, dict) else pad
    pad_id = own.token_to_id(token) if isinstance(token, str) else None
    if pad_id is None:
        raise _NotPlainError("pad_token")
    # With those that are put around every text.
    if max(*own.get_vocab().values(), *own.encode("a").ids) >= rows:
        raise _NotPlainError("tokens")
    return _Tokens(own, pad_id)


def _object(path: Path) -> dict[str, object]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise _NotPlainError(path.name)
    return value


def _parts_of(artifact: Artifact) -> _Parts:
    directory, manifest = artifact.directory, artifact.manifest
    config = _object(directory / "config.json")
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None or not family.anatomy.tanh_head or config.get("hidden_act") != "gelu":
        raise _NotPlainError("family")
    if "auto_map" in config or config.get("position_embedding_type", "absolute") != "absolute":
        raise _NotPlainError("positions")
    if manifest["kind"] == "model":
        weights.refuse_not_finite(str(directory), [directory / _SINGLE_FILE])
        return _Parts(_read(directory / _SINGLE_FILE), config, family)
    ref = BaseRef(**manifest["base"])
    if ref.code_sha256 is not None or manifest.get("tokenizer") == "base":
        raise _NotPlainError("base")
    base = bases.resolve_exactly(ref, directory)
    (file,) = weights.weight_files(ref.name, base.path)
    weights.refuse_not_finite(str(directory), [directory / _ADAPTED])
    said, adapter = _object(directory / _ADAPTER), _read(directory / _ADAPTED)
    _refuse_lacking_targets(said, adapter)
    scale = _lora(said)
    if any(len(t) != said["r"] for n, t in adapter.items() if n.endswith(_A)):
        raise _NotPlainError("r")  # else updates would be scaled by a rank that they do not have
    merged = _merged(_read(file), adapter, scale, family)
    by_name = Counter(re.sub(r"\.\d+\.", ".N.", n) for n in adapter if n.endswith(_A))
    if set(by_name.values()) != {config.get("num_hidden_layers")}:
        raise _NotPlainError("layers")
    return _Parts(merged, config, family)


def _refuse_lacking_targets(said: Mapping[str, object], adapter: Tensors) -> None:
    """Each layer that was to be adapted is, and each module that was to be saved beside it."""
    targets, saved = said.get("target_modules"), said.get("modules_to_save")
    if not isinstance(targets, list) or not isinstance(saved, list):
        raise _NotPlainError("target_modules")
    names = [n.removesuffix(_A) for n in adapter if n.endswith(_A)]
    pooled = "pooler" in saved and not any(".pooler." in n for n in adapter)
    if pooled or not all(any(n.endswith(f".{t}") for n in names) for t in targets):
        raise _NotPlainError("tensors")


def _read(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = load_file(path)
    return tensors


def _lora(said: Mapping[str, object]) -> float:
    """alpha / r, or alpha / sqrt r (Kalajdzievski 2023), of LoRA with nothing special."""
    for key, value in said.items():
        usual = value == _AS_IT_IS[key] if key in _AS_IT_IS else not value
        if key not in _OF_NO_EFFECT and not usual:
            raise _NotPlainError(key)
    alpha, rank = said["lora_alpha"], said["r"]
    if not isinstance(alpha, int | float) or not isinstance(rank, int):
        raise _NotPlainError("r")
    return alpha / math.sqrt(rank) if said.get("use_rslora") else alpha / rank


def _merged(base: Tensors, adapter: Tensors, scale: float, family: Family) -> Tensors:
    """W + scale B A, and the head that was trained beside; every tensor has its place."""
    prefix, head = family.anatomy.enters_under, family.anatomy.tanh_head
    whole = {n if n.startswith(prefix) else prefix + n: t for n, t in base.items()}
    given = {n.removeprefix(_WRAPPED): t for n, t in adapter.items()}
    adapted = {n.removesuffix(_A) for n in given if n.endswith(_A)}
    beside = set(given) - {f"{n}{end}" for n in adapted for end in (_A, _B)}
    saved = {f"{name}.{part}" for name in head for part in ("weight", "bias")}
    if len(given) != len(adapter) or not beside <= saved or not {*_both(head[-1])} <= beside:
        raise _NotPlainError("tensors")
    for name in adapted:
        low, high = given[name + _A], given[name + _B]
        whole[f"{name}.weight"] = whole[f"{name}.weight"].float() + (high @ low) * scale
    return {**whole, **{name: given[name] for name in beside}}


def _both(layer: str) -> tuple[str, str]:
    return f"{layer}.weight", f"{layer}.bias"


def _network(parts: _Parts) -> _Network:
    own = parts.family.anatomy
    assert own.layer is not None  # noqa: S101  the row says so
    prefix = own.enters_under
    first = re.compile(rf"({re.escape(prefix)}.*?)0\.{re.escape(own.layer.query)}\.weight")
    first_of = next((m for m in map(first.fullmatch, parts.tensors) if m), None)
    if first_of is None:
        raise _NotPlainError("layers")
    embeddings = _Embeddings(
        parts.tensor(f"{prefix}embeddings.word_embeddings.weight", None, parts.width),
        parts.tensor(f"{prefix}embeddings.token_type_embeddings.weight", None, parts.width),
        parts.tensor(f"{prefix}embeddings.position_embeddings.weight", None, parts.width),
        parts.norm(f"{prefix}embeddings.LayerNorm"),
    )
    bottom = _Bottom(embeddings, _Config(int(parts.number("pad_token_id"))))
    *between, last = own.tanh_head
    head = [parts.linear(name, parts.width, parts.width) for name in between]
    head.append(parts.linear(last, None, parts.width))
    return _Network(bottom, parts.layers(first_of[1], own.layer), head, parts.family)


def _scored_by(network: _Network, precision: str) -> Prepared:
    form = Format.of(precision)
    layers = layers_from(network.layers, form)
    alone = one_text_of(layers, form)
    encoder = Encoder(network.bottom, network.family.anatomy, layers, form, alone)

    def compute(batch: Batch, where: torch.device) -> torch.Tensor:
        x = encoder(*placed(batch, where), first_only=True)[:, 0]
        for layer in network.head[:-1]:
            x = torch.tanh(layer(x))
        logits: torch.Tensor = network.head[-1](x)
        return logits

    cpu = torch.device("cpu")
    return Prepared(compute, cpu, "fast", None, False, True, form.used(layers))
