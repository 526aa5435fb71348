"""What is particular to a model family: loading, tokenizer, pad rule, head names, LoRA targets.

One row of FAMILIES a family; nothing else in tunelab knows an architecture by name.
May import: errors, types, bases. May not import: methods, config, trial, cli.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from tunelab.bases import Base
from tunelab.errors import ArtifactError, ModelError, suggest

__all__ = [
    "FAMILIES",
    "Family",
    "family_of",
    "head_modules",
    "load_classifier",
    "load_encoder",
    "load_tokenizer",
    "matching_modules",
    "quiet",
    "target_modules",
]

Pooling = Literal["cls", "mean"]


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture: `head` modules are trained and saved with every adapter; `targets` give,
    for each preset, the name endings of the linear layers that LoRA adapts (within one block);
    `represents` says which vector the classification head reads.
    """

    head: tuple[str, ...]
    query: tuple[str, ...]
    value: tuple[str, ...]
    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    represents: str

    @property
    def targets(self) -> Mapping[str, tuple[str, ...]]:
        """Presets of `target_modules`, from few to all."""
        return {
            "query": self.query,
            "query-value": self.query + self.value,
            "attention": self.attention,
            "all-linear": self.attention + self.mlp,
        }


FAMILIES: dict[str, Family] = {
    "bert": Family(
        head=("classifier",),
        query=("query",),
        value=("value",),
        attention=("query", "key", "value", "attention.output.dense"),
        mlp=("intermediate.dense", "output.dense"),
        represents="the first token, [CLS], through the pooler (dense + tanh)",
    ),
    "distilbert": Family(
        # pre_classifier is new and must be trained: naming only "classifier" would leave it random.
        head=("pre_classifier", "classifier"),
        query=("q_lin",),
        value=("v_lin",),
        attention=("q_lin", "k_lin", "v_lin", "out_lin"),
        mlp=("lin1", "lin2"),
        represents="the first token, [CLS], through pre_classifier (dense + ReLU)",
    ),
}


def family_of(base: Base) -> Family:
    """The family of a base model. Raises ModelError naming those that are known."""
    try:
        return FAMILIES[base.model_type]
    except KeyError:
        raise ModelError(
            f"Model {base.ref.name} is of the type {base.model_type!r}, unknown to tunelab."
            f"{suggest(base.model_type, FAMILIES, what='Known types')}"
        ) from None


# --- loading --------------------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what transformers says of a new head: it is expected, and we say it better."""
    before = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def load_tokenizer(base: Base) -> PreTrainedTokenizerBase:
    """Load the base's fast tokenizer without the padding or truncation stored in its file.

    Raises ModelError where the folder has none.
    """
    return load_tokenizer_from(base.path, base.ref.name)


def load_tokenizer_from(path: os.PathLike[str], name: str) -> PreTrainedTokenizerBase:
    """As `load_tokenizer`, from any folder."""
    # Our processes fork before tokenizers starts threads; its warning about that does not apply.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as e:
        reason = str(e).strip().splitlines()[0]
        raise ModelError(f"Model {name}: its tokenizer cannot be loaded ({reason}).") from e
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # all-MiniLM's tokenizer.json truncates at 128 and pads to it: our own batching decides.
        backend.no_padding()
        backend.no_truncation()
    # The length check is ours (settings.max_length); the tokenizer would warn a second time.
    tokenizer.model_max_length = int(1e30)
    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)
    return cast(PreTrainedTokenizerBase, tokenizer)


def load_classifier(
    base: Base, label_names: Sequence[str], seed: int
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Load the base with a new classification head in float32, and name the modules that are new.

    `seed` is set first, so that the head is a function of it. The names include every module whose
    weights the checkpoint lacks (a missing pooler too): all of them have to be trained and saved.
    """
    names = dict(enumerate(label_names))
    torch.manual_seed(seed)
    with quiet():
        config = AutoConfig.from_pretrained(base.path)
        config.num_labels = len(label_names)
        config.id2label = names
        config.label2id = {n: i for i, n in names.items()}
        config.problem_type = None
        model, info = AutoModelForSequenceClassification.from_pretrained(
            base.path, config=config, dtype=torch.float32, output_loading_info=True,
            use_safetensors=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    fresh = {k.rsplit(".", 1)[0] for k in info["missing_keys"]}
    fresh |= {str(k[0]).rsplit(".", 1)[0] for k in info["mismatched_keys"]}
    known = family_of(base).head
    extra = tuple(
        sorted(m for m in fresh if not any(m == h or m.startswith(h + ".") for h in known))
    )
    return model, known + extra


def load_encoder(base: Base) -> PreTrainedModel:
    """Load the base without any head, in float32 and evaluation mode."""
    with quiet():
        model = AutoModel.from_pretrained(base.path, dtype=torch.float32, use_safetensors=True)
    return cast(PreTrainedModel, model.eval())


def load_saved(directory: Path) -> PreTrainedModel:
    """Load a whole classifier that was saved with its head and labels."""
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(
            directory, dtype=torch.float32, use_safetensors=True
        )
    return cast(PreTrainedModel, model)


def load_adapter(base: Base, directory: Path, label_names: Sequence[str]) -> nn.Module:
    """Load a peft adapter and its head onto the base. Raises ArtifactError for missing tensors."""
    from peft import PeftModel

    model, _ = load_classifier(base, label_names, seed=0)
    with quiet():
        try:
            wrapped = PeftModel.from_pretrained(model, directory)
        except (RuntimeError, ValueError, KeyError) as e:
            reason = str(e).strip().splitlines()[0]
            raise ArtifactError(
                f"{directory}: the adapter does not fit its base ({reason})."
            ) from e
    return cast(nn.Module, wrapped)


# --- names inside a model -------------------------------------------------------------------


def matching_modules(model: nn.Module, endings: Sequence[str]) -> list[str]:
    """Names of the modules whose dotted name is, or ends with, one of `endings`."""
    return [
        name
        for name, _ in model.named_modules()
        if any(name == e or name.endswith("." + e) for e in endings)
    ]


def linear_modules(model: nn.Module, head: Sequence[str]) -> list[str]:
    """Distinct last parts of the names of linear layers outside the head: what LoRA can target."""
    names = {
        name
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear) and not any(h == p for h in head for p in name.split("."))
    }
    return sorted({_within_block(n) for n in names})


def _within_block(name: str) -> str:
    """Part of a module's name after its block number ("encoder.layer.3.attention.self.query")."""
    parts = name.split(".")
    numbers = [i for i, p in enumerate(parts) if p.isdigit()]
    return ".".join(parts[numbers[-1] + 1 :]) if numbers else name


def target_modules(family: Family, asked: str | Sequence[str]) -> str | list[str]:
    """Turn a preset ("query", "query-value", "attention", "all-linear") into module name endings.

    A list is taken as it is; any other string is a regular expression, as in peft.
    """
    if isinstance(asked, str):
        return list(family.targets[asked]) if asked in family.targets else asked
    return list(asked)


def head_modules(family: Family, fresh: Sequence[str]) -> list[str]:
    """Modules that are trained in full beside an adapter: the family's head and whatever is new."""
    return list(dict.fromkeys([*family.head, *fresh]))


def parameter_counts(model: nn.Module, head: Sequence[str]) -> dict[str, int]:
    """Count parameters: total, trainable, and the trainable ones of head and adapter apart."""
    total = trainable = in_head = 0
    for name, p in model.named_parameters():
        if "original_module" in name:
            continue  # peft's untouched copy of the head: not part of the deployed model
        total += p.numel()
        if p.requires_grad:
            trainable += p.numel()
            in_head += p.numel() if any(f".{h}." in f".{name}" for h in head) else 0
    return {
        "total_parameters": total,
        "trainable_parameters": trainable,
        "head_parameters": in_head,
        "adapter_parameters": trainable - in_head,
    }


def device() -> torch.device:
    """Where models run: the first CUDA device when there is one, otherwise the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
