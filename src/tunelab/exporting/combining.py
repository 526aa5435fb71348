"""Several LoRA adapters of one base combined into one, refused unless peft can save it whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tunelab.core.artifact import open_artifact, refuse_several_labels, seal_again
from tunelab.core.errors import ArtifactError, suggest
from tunelab.core.values import Artifact, BaseRef
from tunelab.core.words import listed
from tunelab.exporting.listing import AdapterConfig, adapter_config
from tunelab.exporting.merging import (
    Made,
    change_of,
    exact_scores,
    in_float,
    new_folder,
    open_adapter,
    origin,
    sample_texts,
    scores_of,
)
from tunelab.models import bases, pretrained
from tunelab.models.classifier import TransformerClassifier, load_on
from tunelab.models.names import PEFT_PREFIX

__all__ = [
    "COMBINATIONS",
    "base_words",
    "combine",
]

COMBINATIONS = ("linear", "ties", "dare_ties", "svd", "cat")
_PRUNING = frozenset({"ties", "dare_ties"})
# These change the base's weights before training, so that two of them have no base in common.
_CHANGING_INITS = ("pissa", "olora", "corda", "loftq")


# --- combining ------------------------------------------------------------------------------


def combine(
    parts: Sequence[tuple[Path | str, float]],
    out_dir: Path | str,
    combination_type: str = "linear",
    density: float | None = None,
    *,
    trust_remote_code: bool = False,
    model: str | None = None,
) -> Made:
    """Write one LoRA adapter from several, weighted, as peft's add_weighted_adapter makes it.

    All need the same base (at `model`, where it moved) and the same label names. Their heads,
    which peft does not combine, are averaged: sum(w_i head_i) / sum(w_i). `density` in (0, 1] is
    the share of entries that ties (Yadav et al. 2023) and dare_ties (Yu et al. 2024) keep;
    dare_ties drops at random, seed 0.
    The change reported is that of the written adapter against the one in memory.
    """
    _check_asked(parts, combination_type, density)
    adapters = [open_adapter(folder, "combine", model) for folder, _ in parts]
    for adapter in adapters:
        refuse_several_labels(adapter, "combining")
    weights = [float(w) for _, w in parts]
    configs = [adapter_config(a) for a in adapters]
    _check_alike(adapters, configs)
    with new_folder(out_dir, [a.directory for a in adapters]) as (staging, out):
        sample = sample_texts()
        classifier, labels, notes = _combined(
            adapters, weights, combination_type, density, trust_remote_code
        )
        in_memory = exact_scores(classifier, sample)
        notes += _agreement(adapters, labels, in_memory.argmax(axis=1))
        classifier.save(staging)
        change = change_of(in_memory, scores_of(staging, sample, trust_remote_code))
        if not change.acceptable:
            raise ArtifactError(
                f"{out}: peft cannot save this combination whole ({change.sentence}). Nothing was "
                "written; use svd or cat."
            )
        sources = [{**origin(a), "weight": w} for a, w in zip(adapters, weights, strict=True)]
        how = {"combination_type": combination_type, "density": density}
        seal_again(staging, {"combined_from": {"adapters": sources, **how}})
    return Made(open_artifact(out), change, notes)


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


def _check_alike(adapters: Sequence[Artifact], configs: Sequence[AdapterConfig]) -> None:
    """Refuse adapters that cannot be added up, naming the first that differs."""
    first = adapters[0]
    for artifact, config in zip(adapters, configs, strict=True):
        reason = _no_plain_lora(config)
        if reason:
            raise ArtifactError(
                f"{artifact.directory}: cannot be combined: {reason}. Expected a plain LoRA."
            )
        if artifact.manifest["base"]["sha256"] != first.manifest["base"]["sha256"]:
            raise ArtifactError(
                f"{artifact.directory}: its base is {base_words(artifact)}, that of "
                f"{first.directory} is {base_words(first)}. Only adapters on one base combine."
            )
        if list(artifact.manifest["label_names"]) != list(first.manifest["label_names"]):
            raise ArtifactError(
                f"{artifact.directory}: its labels are "
                f"{listed(artifact.manifest['label_names'])}, those of {first.directory} are "
                f"{listed(first.manifest['label_names'])}. Only equal labels, in the same "
                "order, combine."
            )
        if set(config.get("modules_to_save") or ()) != set(configs[0].get("modules_to_save") or ()):
            raise ArtifactError(
                f"{artifact.directory}: its modules_to_save are not those of {first.directory}. "
                "Only adapters with the same modules trained in full combine."
            )


def _no_plain_lora(config: AdapterConfig) -> str | None:
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


def base_words(artifact: Artifact) -> str:
    """An artifact's base for a message: its name and the start of its hash."""
    base = artifact.manifest["base"]
    return f"{base['name']} ({base['sha256'][:12]}...)"


def _combined(
    adapters: Sequence[Artifact],
    weights: Sequence[float],
    how: str,
    density: float | None,
    trusted: bool,
) -> tuple[TransformerClassifier, list[NDArray[np.int64]], tuple[str, ...]]:
    """Load all adapters onto one base and leave only their combination, called "default".

    Also the label that each of them gives to each sample text, and notes.
    """
    ref = BaseRef(**adapters[0].manifest["base"])
    base = bases.resolve_exactly(ref, adapters[0].directory, trusted)
    # Each is checked by itself first: peft would fill what is missing with random numbers.
    classifiers = [load_on(base, in_float(a)) for a in adapters]
    labels = [exact_scores(c, sample_texts()).argmax(axis=1) for c in classifiers]
    with pretrained.quiet():
        from peft import PeftModel

    names = [f"source_{i}" for i in range(len(adapters))]
    start, _ = pretrained.load_classifier(base, adapters[0].manifest["label_names"], seed=0)
    with pretrained.quiet():
        model: Any = PeftModel.from_pretrained(start, adapters[0].directory, adapter_name=names[0])
        for name, artifact in zip(names[1:], adapters[1:], strict=True):
            model.load_adapter(artifact.directory, name)
    model.to(pretrained.device())
    heads = _taken_heads(model, names)
    # peft combines into r = lora_alpha, meant as a scale of 1; with rsLoRA it would be sqrt(r).
    model.peft_config[names[0]].use_rslora = False
    devices = range(torch.cuda.device_count())
    try:
        with pretrained.quiet(), torch.random.fork_rng(devices):
            torch.manual_seed(0)  # dare_ties drops at random
            model.add_weighted_adapter(list(names), list(weights), "default", how, density=density)
    except (ValueError, TypeError, RuntimeError, IndexError) as e:
        reason = str(e).strip().splitlines()[0]
        raise ArtifactError(
            f"{adapters[0].directory} and the others: peft cannot combine them by {how} ({reason})."
        ) from e
    _same_places(model, names, adapters[0])
    for wrapper, parts in heads:
        wrapper.modules_to_save["default"] = _average(parts, weights)
        wrapper._adapters.add("default")
    model.set_adapter("default")
    for name in names:
        model.delete_adapter(name)
    model.eval().requires_grad_(False)
    lengths = [c.max_length for c in classifiers]
    whole = replace(classifiers[0], model=model, max_length=max(lengths))
    return whole, labels, _combination_notes(adapters, weights, lengths)


def _agreement(
    adapters: Sequence[Artifact],
    labels: Sequence[NDArray[np.int64]],
    combined: NDArray[np.int64],
) -> tuple[str, ...]:
    """How often the combination labels a text as each of its parts does."""
    return tuple(
        f"Labels {int((own == combined).sum())} of {len(own)} sample texts as {a.directory} does."
        for a, own in zip(adapters, labels, strict=True)
    )


def _taken_heads(model: Any, names: Sequence[str]) -> list[tuple[Any, list[Any]]]:
    """Each head's wrapper with the heads of all adapters, of which it keeps the first alone."""
    with pretrained.quiet():
        from peft.utils import ModulesToSaveWrapper

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
    return heads


def _combination_notes(
    adapters: Sequence[Artifact], weights: Sequence[float], lengths: Sequence[int]
) -> tuple[str, ...]:
    share = ", ".join(f"{w / sum(weights):.2f}" for w in weights)
    notes = [f"Heads are averaged with shares {share}; peft combines the LoRA parts alone."]
    if len(set(lengths)) > 1:
        notes.append(f"Texts are cut at {max(lengths)} tokens, the longest of the sources.")
    if any(a.manifest.get("quantization") for a in adapters):
        notes.append("Trained on a quantised base; the combination is for the base in float32.")
    return tuple(notes)


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
