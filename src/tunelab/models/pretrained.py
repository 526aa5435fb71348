"""Loading what is pretrained: tokenizer, encoder, classifier with a new head."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
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
from transformers.utils import logging as transformers_logging

from tunelab.core.errors import ArtifactError, ModelError, TrialError
from tunelab.models import adapter_probe, anatomy, bits, complete, heads, tokenizer_probe, weights
from tunelab.models.bases import Base, Quantization
from tunelab.models.families import A_DECODER, AN_ENCODER, FAMILIES
from tunelab.models.names import PEFT_PREFIX

__all__ = [
    "ADAPTER_WEIGHTS",
    "check_encoder",
    "device",
    "load_adapter",
    "load_classifier",
    "load_encoder",
    "load_saved",
    "load_tokenizer",
    "load_tokenizer_from",
    "load_whole",
    "merged",
    "own_code_refused",
    "quantization_backend",
    "quiet",
    "skeleton",
    "token_rows",
]


ADAPTER_WEIGHTS = "adapter_model.safetensors"
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


@lru_cache(maxsize=1)
def _stay_usable_in_forks() -> None:
    """Have a process that is forked from this one compute with one thread.

    Threads do not live on in it, and those that wait for them, of OpenMP and of tokenizers, would
    wait for ever. A study's trials are forked before anything is loaded: they have all threads.
    """
    # So that tokenizers does not warn of it.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_with_one_thread)


def _with_one_thread() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)


def load_tokenizer(base: Base) -> PreTrainedTokenizerBase:
    """Load the base's fast tokenizer without the padding or truncation stored in its file.

    Raises ModelError where the folder has none.
    """
    return load_tokenizer_from(base.path, base.ref.name, base.runs_its_code)


def load_tokenizer_from(
    path: os.PathLike[str], name: str, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """As `load_tokenizer`, from any folder."""
    _stay_usable_in_forks()
    tokenizer_probe.refuse_endless(name, Path(path))
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as e:  # the library tokenizers raises nothing more particular
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise ModelError(
            f"Model {name}: its tokenizer cannot be loaded ({reason}). Save it with the versions "
            "that are installed here, or update tokenizers and transformers."
        ) from e
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
    quantization: Quantization | None = None,
    *,
    weightless: bool = False,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Load the base with a new classification head in float32, and name the modules that are new.

    `seed` is set first, so that the head is a function of it. The names include every module whose
    weights the checkpoint lacks (a missing pooler too): all of them have to be trained and saved.
    `quantization`: arguments of transformers' BitsAndBytesConfig; head and pooler stay float32. A
    head that the base brings is kept where its labels are these, row by name (`heads`).
    `weightless`: on the meta device, to see whether all is there. Raises ModelError where the files
    lack anything but the head and a pooler.
    """
    family = FAMILIES.get(base.model_type)
    known = family.head if family else ()
    more: dict[str, object] = {}
    if quantization:
        asked = bits.configuration(quantization, known)
        more = {"quantization_config": asked, "device_map": {"": device()}}
    if weightless:
        more = {"device_map": {"": "meta"}}
    torch.manual_seed(seed)
    config = _known_config(base.path, base.ref.name, base.model_type, base.runs_its_code)
    _name_labels(config, label_names)
    if family is None or family.anatomy.causal:
        config.pad_token_id = load_tokenizer(base).pad_token_id
    with _classifier_expected(base.ref.name, config):
        model, info = _from_files(
            AutoModelForSequenceClassification,
            base.path,
            base.ref.name,
            config,
            base.runs_its_code,
            **more,
        )
    complete.refuse_incomplete(base.ref.name, model, info)
    if quantization:
        bits.compute_exactly(model)
    fresh = {k.rsplit(".", 1)[0] for k in info["missing_keys"]}
    fresh |= {str(k[0]).rsplit(".", 1)[0] for k in info["mismatched_keys"]}
    if not weightless:
        fresh |= _take_rows_by_name(model, fresh, base, label_names, seed)
    extra = tuple(
        sorted(m for m in fresh if not any(m == h or m.startswith(h + ".") for h in known))
    )
    return model, known + extra


def _name_labels(config: Any, label_names: Sequence[str]) -> None:
    names = dict(enumerate(label_names))
    config.num_labels = len(names)
    config.id2label = names
    config.label2id = {n: i for i, n in names.items()}
    config.problem_type = None


def _from_files(
    auto: Any, path: Path, name: str, config: Any, trusted: bool, **more: Any
) -> tuple[Any, complete.LoadingInfo]:
    """A model in float32, and what transformers says of its tensors.

    Names that a wrapper for training put a prefix before are read without it.
    """
    complete.refuse_other_type(name, config)
    files = weights.files_read(name, path)
    if weights.wrapper_of(n for f in files for n in weights.tensors(name, f)):
        more["key_mapping"] = {weights.WRAPPER: ""}
    with complete.loadable(name), quiet(), own_code_refused(name):
        model, info = auto.from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=trusted,
            **more,
        )
    return model, info


def _take_rows_by_name(
    model: Any, fresh: Collection[str], base: Base, label_names: Sequence[str], seed: int
) -> set[str]:
    """Put a head's rows in the order of our labels, or make its last layer anew for others.

    Returns the names of what is new now.
    """
    name, last = _last_layer(model, len(label_names))
    if last is None or name in fresh:
        return set()
    rows = heads.rows_by_name(base.config, label_names)
    with torch.no_grad():
        if rows is None:
            torch.manual_seed(seed)
            for p in last.parameters():
                p._is_hf_initialized = False
            model._init_weights(last)
            return {name}
        if rows != tuple(range(len(rows))):
            for p in last.parameters():
                p.copy_(p[list(rows)].clone())
    return set()


def _last_layer(model: Any, classes: int) -> tuple[str, Any]:
    """The layer whose rows are classes, and its name: the last one of that size in the head."""
    within = f"{model.base_model_prefix}."
    layers = [
        (n, m)
        for n, m in model.named_modules()
        if isinstance(m, nn.Linear) and m.out_features == classes and not n.startswith(within)
    ]
    return layers[-1] if layers else ("", None)


def quantization_backend(quantization: Quantization) -> str:
    """Which bitsandbytes runs here, found out by running it: "bitsandbytes 0.50 on cpu".

    Raises TrialError saying why where it does not run, and what does.
    """
    return _quantization_backend(4 if quantization.get("load_in_4bit") else 8)


@lru_cache(maxsize=2)
def _quantization_backend(width: int) -> str:
    where = device()
    try:
        with quiet():
            import bitsandbytes

            bnb: Any = bitsandbytes
            layer: nn.Module = (
                bnb.nn.Linear4bit(64, 64, quant_type="nf4", compute_dtype=torch.float32)
                if width == 4
                else bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
            ).to(where)
            x = torch.ones(4, 64, device=where, requires_grad=True)
            layer(x).sum().backward()
            torch.testing.assert_close(x.grad, x.grad)  # not for a gradient that is not a number
    except Exception as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        other = "qlora-8bit" if width == 4 else "qlora-4bit"
        raise TrialError(
            f"bitsandbytes cannot compute in {width} bits on this machine's {where.type} "
            f"({reason}). Nothing was trained in its place. What runs here: lora (the same adapter "
            f"on float weights), {other} if its probe passes."
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
    except ModelError:
        raise
    except Exception as e:
        if "does not recognize" not in str(e) and not isinstance(e, KeyError):
            with complete.loadable(name):
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


def load_encoder(base: Base, *, weightless: bool = False) -> PreTrainedModel:
    """Load the base without any head, in float32 and evaluation mode; `weightless` as above.

    Raises ModelError where its files lack anything but a pooler, which nothing reads.
    """
    name, trusted = base.ref.name, base.runs_its_code
    config = _known_config(base.path, name, base.model_type, trusted)
    more = {"device_map": {"": "meta"}} if weightless else {}
    model, info = _from_files(AutoModel, base.path, name, config, trusted, **more)
    complete.refuse_incomplete(name, model, info)
    return cast(PreTrainedModel, model.eval())


def load_saved(
    directory: Path, label_names: Sequence[str], pad_id: int | None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Load a whole classifier that was saved with its head.

    `label_names` are those of its rows, `pad_id` its tokenizer's, where its config has none. Raises
    ModelError where a tensor is missing, of another shape or left over, or is no finite number.
    """
    model, faults = load_whole(directory, label_names, pad_id, trust_remote_code)
    if faults:
        more = f" ({len(faults)} tensors in all)" if len(faults) > 1 else ""
        raise ModelError(
            f"Model {directory}: {faults[0]}{more}: its answers would not be those that it was "
            "saved with. Copy the folder again, or train it anew."
        )
    weights.refuse_not_finite(str(directory), weights.weight_files(str(directory), directory))
    return model


def load_whole(
    directory: Path, label_names: Sequence[str], pad_id: int | None, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, list[str]]:
    """As `load_saved`, with what is wrong with its tensors, a line for each."""
    name = str(directory)
    config = _known_config(directory, name, "", trust_remote_code)
    if config.num_labels != len(label_names):
        _name_labels(config, label_names)
    if config.pad_token_id is None:
        config.pad_token_id = pad_id
    with _classifier_expected(name, config):
        model, info = _from_files(
            AutoModelForSequenceClassification, directory, name, config, trust_remote_code
        )
    return cast(PreTrainedModel, model), complete.faults_of_whole(info)


def load_adapter(
    base: Base,
    directory: Path,
    label_names: Sequence[str],
    quantization: Quantization | None = None,
) -> nn.Module:
    """Load a peft adapter and its head onto the base, quantised as it was trained.

    Raises ArtifactError for missing tensors.
    """
    adapter_probe.refuse_unbounded(directory, base)
    model, _ = load_classifier(base, label_names, 0, quantization)
    _resize_as_saved(model, directory)
    with quiet():
        from peft import PeftModel

        try:
            wrapped = PeftModel.from_pretrained(model, directory)
        except Exception as e:  # whatever its config leads peft into
            reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
            raise ArtifactError(
                f"{directory}: the adapter does not fit its base ({reason})."
            ) from e
    return cast(nn.Module, wrapped)


def token_rows(model: Any) -> int | None:
    """How many tokens a model has a vector for; None where it has no table of them."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError):
        return None


def _resize_as_saved(model: Any, directory: Path) -> None:
    """Give the embedding as many rows as the one that lies beside an adapter, if one does.

    Whoever adds tokens before training saves it whole; it then replaces the base's.
    """
    rows = token_rows(model)
    if rows is None:
        return
    table = model.get_input_embeddings()
    name = next(n for n, m in model.named_modules() if m is table)
    file = directory / ADAPTER_WEIGHTS
    saved = weights.tensors(str(directory), file).get(f"{PEFT_PREFIX}{name}.weight")
    if saved is not None and saved["shape"][0] != rows:
        with quiet():
            model.resize_token_embeddings(saved["shape"][0], mean_resizing=False)


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


# --- where it runs ------------------------------------------------------------------------


def device() -> torch.device:
    """Where models run: the first CUDA device when there is one, otherwise the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
