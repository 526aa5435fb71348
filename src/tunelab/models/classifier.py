"""A transformer with a classification head, as a Classifier: scores texts, saves, loads.

Saved in peft's layout where there is an adapter, in transformers' otherwise, plus the manifest.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import check_labels, seal
from tunelab.core.errors import ArtifactError
from tunelab.core.values import Artifact, BaseRef, ScoreKind
from tunelab.kernels import library
from tunelab.models import bases, batches, pretrained, scoring, weights
from tunelab.models.bases import Quantization
from tunelab.models.foreign import read_object
from tunelab.models.pretrained import ADAPTER_WEIGHTS

__all__ = [
    "TransformerClassifier",
    "open_transformer",
    "load_on",
    "stray_tensors",
]


@dataclass(frozen=True, slots=True, eq=False)
class TransformerClassifier:
    """`model` (transformers, or wrapped by peft) in evaluation mode, with what scoring needs.

    `quantization`: how the base was loaded, where not in float32; it is loaded so again.
    `precision`: what its layers compute in when texts are scored (scoring.PRECISIONS). `merge`:
    whether an adapter is merged into a copy of the weights for that.
    """

    model: Any
    tokenizer: Any
    label_names: tuple[str, ...]
    base: BaseRef
    max_length: int
    batch_size: int
    score_kind: ScoreKind = "logit"
    quantization: Quantization | None = None
    precision: str = "auto"
    merge: bool = True
    _kept: dict[Any, scoring.Prepared] = field(default_factory=dict, init=False, repr=False)

    @property
    def pad_id(self) -> int:
        """Id that fills up shorter rows of a batch."""
        return int(self.tokenizer.pad_token_id)

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Logits (n, n_classes)."""
        prepared, width = self.prepared(), len(self.label_names)

        def score(some: Sequence[str]) -> NDArray[np.float32]:
            encoded = batches.encode(self.tokenizer, some, self.max_length)
            return prepared(encoded, self.pad_id, self.batch_size, width)

        return scoring.texts_in_windows(texts, score).astype(np.float64)

    def prepared(self) -> scoring.Prepared:
        """What scores texts: made at the first call, and again when the model has changed since."""
        key = scoring.fingerprint(self.model)
        if key not in self._kept:
            self._kept.clear()
            self._kept[key] = scoring.prepare(
                self.model, merge=self.merge, precision=self.precision
            )
            library.give_back()  # of a merged copy, as much as all its layers
        return self._kept[key]

    def keep(self, fingerprint: Any, prepared: scoring.Prepared) -> None:
        """Score with what was made elsewhere, as long as the model has this fingerprint."""
        self._kept[fingerprint] = prepared

    def save(self, directory: Path) -> None:
        """Write weights (safetensors), config, tokenizer and manifest."""
        from peft import PeftModel

        adapter = isinstance(self.model, PeftModel)
        if self.score_kind == "label_logit":  # for whoever loads it with transformers
            of_model = self.model.get_base_model() if adapter else self.model
            of_model.config.problem_type = "multi_label_classification"
        if adapter:
            self._name_base_for_peft()
        with pretrained.quiet():  # peft looks for the base's card on the hub, and says so
            self.model.save_pretrained(directory, safe_serialization=True)
        self._save_tokenizer(directory)
        if adapter:
            # peft's card is an empty form, with the folder of the base; a study writes its own.
            (directory / "README.md").unlink(missing_ok=True)
            # Beside an adapter, the config carries label names and count for whoever loads it.
            config = copy.copy(self.model.get_base_model().config)
            # The base is named beside it, in float; transformers would take these bits for its own.
            config.__dict__.pop("quantization_config", None)
            config.save_pretrained(directory)
        seal(
            directory,
            {
                "kind": "adapter" if adapter else "model",
                "label_names": list(self.label_names),
                "score_kind": self.score_kind,
                "base": asdict(self.base),
                "max_length": self.max_length,
                **({"quantization": dict(self.quantization)} if self.quantization else {}),
                **({"precision": self.precision} if self.precision == "float32" else {}),
            },
        )

    def _name_base_for_peft(self) -> None:
        """Not by the folder that it was found in: that of an environment, or of the hub's cache.

        What is written is the same bytes each time.
        """
        for config in self.model.peft_config.values():
            config.base_model_name_or_path, config.revision = self.base.elsewhere
            for name, value in vars(config).items():
                if isinstance(value, set):  # in another order in each process
                    setattr(config, name, sorted(value))

    def _save_tokenizer(self, directory: Path) -> None:
        """With the length that texts are cut at: elsewhere nobody else tells it."""
        unlimited = self.tokenizer.model_max_length
        self.tokenizer.model_max_length = self.max_length
        try:
            self.tokenizer.save_pretrained(directory)
        finally:
            self.tokenizer.model_max_length = unlimited


def open_transformer(
    artifact: Artifact, batch_size: int = 64, trust_remote_code: bool = False
) -> TransformerClassifier:
    """Load what `TransformerClassifier.save` wrote. Raises ArtifactError for another base, and for
    one that needs code of its own unless `trust_remote_code` allows it.
    """
    manifest, directory = artifact.manifest, artifact.directory
    if manifest["kind"] == "adapter":
        ref = BaseRef(**manifest["base"])
        base = bases.resolve_exactly(ref, directory, trust_remote_code)
        return load_on(base, artifact, batch_size)
    name, config = str(directory), read_object(directory / "config.json")
    bases.refuse_odd_sizes(name, config)
    files = weights.weight_files(name, directory)
    bases.refuse_layers_without_tensors(name, config, files)
    tokenizer = pretrained.load_tokenizer_from(directory, name, trust_remote_code)
    pad_id: int | None = tokenizer.pad_token_id
    model = pretrained.load_saved(directory, manifest["label_names"], pad_id, trust_remote_code)
    check_labels(artifact, int(model.config.num_labels or 0))
    return _ready(model, tokenizer, artifact, batch_size)


def load_on(base: bases.Base, artifact: Artifact, batch_size: int = 64) -> TransformerClassifier:
    """Load an adapter onto the base that it was trained on, wherever that lies now."""
    manifest, directory = artifact.manifest, artifact.directory
    # What plain peft wrote has no tokenizer of its own: it is the base's.
    tokenizer = (
        pretrained.load_tokenizer(base)
        if manifest.get("tokenizer") == "base"
        else pretrained.load_tokenizer_from(directory, str(directory), base.runs_its_code)
    )
    model = pretrained.load_adapter(
        base, directory, tuple(manifest["label_names"]), manifest.get("quantization")
    )
    weights.refuse_not_finite(str(directory), [directory / ADAPTER_WEIGHTS])
    missing, unexpected = stray_tensors(model, directory)
    if missing or unexpected:
        fault = f"lacks {missing[0]}" if missing else f"has {unexpected[0]}, which has no place"
        raise ArtifactError(
            f"{directory}: its {ADAPTER_WEIGHTS} {fault} in the base {base.ref.name} "
            f"({len(missing)} tensors missing, {len(unexpected)} unexpected). "
            "Copy the adapter again, or give the base that it was trained on."
        )
    return _ready(model, tokenizer, artifact, batch_size)


def _refuse_tokens_beyond(model: Any, tokenizer: Any, directory: Path) -> None:
    """Refuse a tokenizer with tokens that the embedding has no row for: it would end in an error
    at the first text that holds one.
    """
    rows = pretrained.token_rows(model)
    if rows is None:
        return
    token, number = max(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    if number >= rows:
        raise ArtifactError(
            f"{directory}: its tokenizer has the token {token!r} with the number {number}, but the "
            f"embedding has {rows} rows. Save both together (of an adapter, with "
            "save_embedding_layers=True), or the tokenizer without the token."
        )


def _ready(
    model: Any, tokenizer: Any, artifact: Artifact, batch_size: int
) -> TransformerClassifier:
    manifest = artifact.manifest
    _refuse_tokens_beyond(model, tokenizer, artifact.directory)
    quantization = manifest.get("quantization")
    if not quantization:  # what is quantised was put there while it was loaded
        model.to(pretrained.device())
    model.eval()
    model.requires_grad_(False)
    return TransformerClassifier(
        model,
        tokenizer,
        tuple(manifest["label_names"]),
        BaseRef(**manifest["base"]),
        manifest["max_length"],
        batch_size,
        score_kind=manifest.get("score_kind", "logit"),
        quantization=quantization,
        precision=manifest.get("precision", "auto"),
    )


def stray_tensors(model: Any, directory: Path) -> tuple[list[str], list[str]]:
    """Names of tensors that an adapter's file lacks, and of those that it has beside its own.

    peft leaves the former as they were initialised and drops the latter, with a warning at most.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        needed = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    with safe_open(directory / ADAPTER_WEIGHTS, "pt") as file:
        there = set(file.keys())
    # Embeddings are saved beside an adapter that resized or adapted them.
    return sorted(needed - there), sorted(there - needed - set(model.state_dict()))
