"""Loading what is pretrained: tokenizer, encoder, classifier with a new head; what is in it."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

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
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from tunelab.core.errors import ArtifactError, ModelError, TrialError
from tunelab.models import anatomy
from tunelab.models.bases import Base
from tunelab.models.families import A_DECODER, AN_ENCODER, FAMILIES, USUAL_HEADS
from tunelab.models.names import is_within, within_block

__all__ = [
    "check_encoder",
    "device",
    "freeze_layers",
    "linear_modules",
    "load_adapter",
    "load_classifier",
    "load_encoder",
    "load_saved",
    "load_tokenizer",
    "load_tokenizer_from",
    "merged",
    "own_code_refused",
    "parameter_counts",
    "quantization_backend",
    "quiet",
    "skeleton",
    "weight_bytes",
]


Pooling = Literal["cls", "mean"]

# torch warns wherever nobody has said yes or no to these checks, and peft's SHiRA uses sparse
# tensors; this is torch's own default.
torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]


# --- loading --------------------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what transformers says of a new head: it is expected, and we say it better."""
    before = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    # peft imports it where it is installed; it then complains of kernels that nobody asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def own_code_refused(name: str) -> Iterator[None]:
    """Say in one line that a model needs code from its own folder, which is run only when allowed.

    Left out, transformers would ask in the terminal for trust_remote_code, and wait.
    """
    try:
        yield
    except ValueError as e:
        if "custom code" not in str(e):
            raise
        raise ModelError(
            f"Model {name}: needs code of its own (auto_map in its config.json), which is not run "
            "unasked. Read that code; if you trust it, allow it with --trust-remote-code. "
            "Otherwise use an architecture that transformers brings."
        ) from e


def load_tokenizer(base: Base) -> PreTrainedTokenizerBase:
    """Load the base's fast tokenizer without the padding or truncation stored in its file.

    Raises ModelError where the folder has none.
    """
    return load_tokenizer_from(base.path, base.ref.name, base.runs_its_code)


def load_tokenizer_from(
    path: os.PathLike[str], name: str, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """As `load_tokenizer`, from any folder."""
    # Our processes fork before tokenizers starts threads; its warning about that does not apply.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as e:
        reason = str(e).strip().splitlines()[0]
        raise ModelError(f"Model {name}: its tokenizer cannot be loaded ({reason}).") from e
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # all-MiniLM's tokenizer.json truncates at 128 and pads to it: our own batching decides.
        backend.no_padding()
        backend.no_truncation()
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        # GPT-2 has none. Padding is masked, so which token it is does not matter, as long as the
        # model is told the same one (load_classifier): it looks for the last that is no padding.
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    # The length check is ours (settings.max_length); the tokenizer would warn a second time.
    tokenizer.model_max_length = int(1e30)
    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)
    return cast(PreTrainedTokenizerBase, tokenizer)


def load_classifier(
    base: Base,
    label_names: Sequence[str],
    seed: int,
    quantization: Mapping[str, Any] | None = None,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Load the base with a new classification head in float32, and name the modules that are new.

    `seed` is set first, so that the head is a function of it. The names include every module whose
    weights the checkpoint lacks (a missing pooler too): all of them have to be trained and saved.
    `quantization`: arguments of transformers' BitsAndBytesConfig; head and pooler stay float32.
    """
    names = dict(enumerate(label_names))
    family = FAMILIES.get(base.model_type)
    known = family.head if family else ()
    more: dict[str, Any] = {}
    if quantization:
        more = {"quantization_config": _bits(quantization, known), "device_map": {"": device()}}
    torch.manual_seed(seed)
    with quiet(), own_code_refused(base.ref.name):
        config = AutoConfig.from_pretrained(base.path, trust_remote_code=base.runs_its_code)
        config.num_labels = len(label_names)
        config.id2label = names
        config.label2id = {n: i for i, n in names.items()}
        config.problem_type = None
        if family is None or family.anatomy.causal:
            config.pad_token_id = load_tokenizer(base).pad_token_id
        with _classifier_expected(base.ref.name, config):
            model, info = AutoModelForSequenceClassification.from_pretrained(
                base.path,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=base.runs_its_code,
                **more,
            )
    if quantization:
        _compute_exactly(model)
    fresh = {k.rsplit(".", 1)[0] for k in info["missing_keys"]}
    fresh |= {str(k[0]).rsplit(".", 1)[0] for k in info["mismatched_keys"]}
    extra = tuple(
        sorted(m for m in fresh if not any(m == h or m.startswith(h + ".") for h in known))
    )
    return model, known + extra


def _bits(quantization: Mapping[str, Any], head: Sequence[str]) -> Any:
    """BitsAndBytesConfig (Dettmers et al. 2022, 2023) that leaves head and pooler in float."""
    from transformers import BitsAndBytesConfig as Config

    asked = dict(quantization)
    if "bnb_4bit_compute_dtype" in asked:
        asked["bnb_4bit_compute_dtype"] = getattr(torch, asked["bnb_4bit_compute_dtype"])
    # transformers takes these as regular expressions from the start of a name, or as its end.
    skip = list(dict.fromkeys([*head, *USUAL_HEADS, r".*\.pooler"]))
    return Config(**asked, llm_int8_skip_modules=skip)  # type: ignore[no-untyped-call]


def _compute_exactly(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for bfloat16 at the first evaluation.

    On a processor with AVX512-BF16 it would do so for good and in silence: scores would differ
    from those trained on, and a bias that is added in place would break training's next epoch.
    """
    layer: Any
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def quantization_backend(quantization: Mapping[str, Any]) -> str:
    """Which bitsandbytes runs here, found out by running it: "bitsandbytes 0.50 on cpu".

    Raises TrialError saying why where it does not run, and what does.
    """
    return _quantization_backend(4 if quantization.get("load_in_4bit") else 8)


@lru_cache(maxsize=2)
def _quantization_backend(bits: int) -> str:
    where = device()
    try:
        with quiet():
            import bitsandbytes

            bnb: Any = bitsandbytes
            layer: nn.Module = (
                bnb.nn.Linear4bit(64, 64, quant_type="nf4", compute_dtype=torch.float32)
                if bits == 4
                else bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
            ).to(where)
            x = torch.ones(4, 64, device=where, requires_grad=True)
            layer(x).sum().backward()
            torch.testing.assert_close(x.grad, x.grad)  # not for a gradient that is not a number
    except Exception as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise TrialError(
            f"bitsandbytes cannot compute in {bits} bits on this machine's {where.type} ({reason})."
            " Nothing was trained in its place. What runs here: lora (the same adapter on float "
            f"weights){', qlora-8bit' if bits == 4 else ', qlora-4bit'} if its probe passes."
        ) from e
    return f"bitsandbytes {bnb.__version__} on {where.type}"


def skeleton(base: Base) -> PreTrainedModel:
    """The base's classifier on the meta device, from its config: names and shapes, no weights.

    Raises ModelError where transformers has no classifier of this type.
    """
    return _skeleton(base.path, base.ref.name, base.model_type, base.runs_its_code)


@lru_cache(maxsize=4)
def _skeleton(path: Path, name: str, model_type: str, trusted: bool) -> PreTrainedModel:
    config = _known_config(path, name, model_type, trusted)
    with quiet(), own_code_refused(name), torch.device("meta"), _classifier_expected(name, config):
        make: Any = AutoModelForSequenceClassification.from_config
        model = make(config, trust_remote_code=trusted)
    return cast(PreTrainedModel, model)


def check_encoder(base: Base) -> None:
    """Refuse a base whose type transformers does not know, or that reads no text."""
    config = _known_config(base.path, base.ref.name, base.model_type, base.runs_its_code)
    if not getattr(config, "vocab_size", None):
        raise ModelError(
            f"Model {base.ref.name}: of the type {base.model_type!r}, which reads no text (its "
            f"config.json has no vocab_size). Expected a text encoder or decoder, such as "
            f"{AN_ENCODER}."
        )


def _known_config(path: Path, name: str, model_type: str, trusted: bool) -> Any:
    try:
        with quiet(), own_code_refused(name):
            return AutoConfig.from_pretrained(path, trust_remote_code=trusted)
    except (ValueError, KeyError) as e:
        if "does not recognize" not in str(e) and not isinstance(e, KeyError):
            raise
        import transformers

        raise ModelError(
            f"Model {name}: its type {model_type!r} is unknown to tunelab and to transformers "
            f"{transformers.__version__}. Expected one of {', '.join(FAMILIES)}, or another type "
            "that transformers has."
        ) from e


@contextmanager
def _classifier_expected(name: str, config: Any) -> Iterator[None]:
    try:
        yield
    except ValueError as e:
        if "Unrecognized configuration class" not in str(e):
            raise
        raise ModelError(
            f"Model {name}: transformers has no sequence classifier for the type "
            f"{config.model_type!r}. Expected a text encoder or decoder, such as {AN_ENCODER} or "
            f"{A_DECODER}."
        ) from e


def load_encoder(base: Base) -> PreTrainedModel:
    """Load the base without any head, in float32 and evaluation mode."""
    with quiet(), own_code_refused(base.ref.name):
        model = AutoModel.from_pretrained(
            base.path,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=base.runs_its_code,
        )
    return cast(PreTrainedModel, model.eval())


def load_saved(directory: Path, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a whole classifier that was saved with its head and labels."""
    with quiet(), own_code_refused(str(directory)):
        model = AutoModelForSequenceClassification.from_pretrained(
            directory,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        )
    return cast(PreTrainedModel, model)


def load_adapter(
    base: Base,
    directory: Path,
    label_names: Sequence[str],
    quantization: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Load a peft adapter and its head onto the base, quantised as it was trained.

    Raises ArtifactError for missing tensors.
    """
    model, _ = load_classifier(base, label_names, 0, quantization)
    with quiet():
        from peft import PeftModel

        try:
            wrapped = PeftModel.from_pretrained(model, directory)
        except (RuntimeError, ValueError, KeyError) as e:
            reason = str(e).strip().splitlines()[0]
            raise ArtifactError(
                f"{directory}: the adapter does not fit its base ({reason})."
            ) from e
    return cast(nn.Module, wrapped)


def merged(model: Any) -> nn.Module:
    """The base with its adapter's update added to its weights, W' = W + dW, and the trained head.

    `model` (wrapped by peft) is used up. Modules trained in full are put back first: where they are
    of several layers, peft's own unloading looks for a `weight` on the whole (lokr, vera, ...), and
    with LN tuning it leaves them wrapped, so that a saved model would lose its head.
    """
    from peft.utils.other import AuxiliaryTrainingWrapper

    base = anatomy.classifier_in(model)
    wrapped = [(n, m) for n, m in base.named_modules() if isinstance(m, AuxiliaryTrainingWrapper)]
    for name, module in wrapped:
        parent, _, last = name.rpartition(".")
        trained = module.unload_and_optionally_merge_module(True, True, None)
        setattr(base.get_submodule(parent), last, trained)
    return cast(nn.Module, model.merge_and_unload(safe_merge=True))


# --- what is in a model -------------------------------------------------------------------


def linear_modules(model: nn.Module, head: Sequence[str]) -> list[str]:
    """Distinct last parts of the names of linear layers outside the head: what LoRA can target."""
    names = {
        name
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear | Conv1D)
        and not any(h == p for h in head for p in name.split("."))
    }
    return sorted({within_block(n) for n in names})


def parameter_counts(model: nn.Module, head: Sequence[str]) -> dict[str, int]:
    """Count parameters: total, trainable, and the trainable ones of head and adapter apart."""
    total = trainable = in_head = 0
    for name, p in model.named_parameters():
        if "original_module" in name:
            continue  # peft's untouched copy of the head: not part of the deployed model
        # Two 4-bit weights lie in one byte; the quantised tensor knows how many there are.
        state = getattr(p, "quant_state", None)
        total += math.prod(state.shape) if state is not None else p.numel()
        if p.requires_grad:
            trainable += p.numel()
            in_head += p.numel() if is_within(name, head) else 0
    return {
        "total_parameters": total,
        "trainable_parameters": trainable,
        "head_parameters": in_head,
        "adapter_parameters": trainable - in_head,
    }


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all weights and buffers as they lie in memory, quantisation constants included."""
    seen = {
        t.data_ptr(): t.numel() * t.element_size()
        for t in [*model.parameters(), *model.buffers()]
        if t.numel()
    }
    states = [s for p in model.parameters() if (s := getattr(p, "quant_state", None)) is not None]
    extra = [t for s in states for t in s.as_dict(packed=True).values()]
    return int(sum(seen.values()) + sum(t.numel() * t.element_size() for t in extra))


def freeze_layers(model: nn.Module, count: int) -> None:
    """Freeze the embeddings and the `count` lowest layers. Raises ModelError for too many."""
    blocks = anatomy.blocks_in(model)
    if count >= len(blocks):
        raise ModelError(
            f"freeze_layers: expected fewer than the model's {len(blocks)} layers, found {count}. "
            "To train the head alone, use the method probe."
        )
    frozen: list[nn.Module] = [*blocks[:count]]
    if count:  # what lies below the first layer: the tables, their norm, ELECTRA's projection
        frozen += [
            m
            for n, m in model.named_modules()
            if isinstance(m, nn.Embedding) or "embed" in n.rpartition(".")[2]
        ]
    for module in frozen:
        module.requires_grad_(False)


def device() -> torch.device:
    """Where models run: the first CUDA device when there is one, otherwise the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
