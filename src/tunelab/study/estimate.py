"""How many trials run side by side: as many as there are cores, and memory for.

Memory is estimated before anything is started: what a method holds its row says (`Costs`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from tunelab.core import machine
from tunelab.core.plain import SettingValues
from tunelab.core.values import Dataset, TrialSpec
from tunelab.methods import METHODS
from tunelab.models import bases

__all__ = [
    "layers_width_heads",
    "number_of",
    "side_by_side",
    "stack_size",
    "text_sizes",
    "threads_ahead",
]


@dataclass(frozen=True, slots=True)
class TextSizes:
    """Words of all training texts and of the `longest` of them; characters of all parts."""

    words: int
    longest: int
    characters: int


@functools.lru_cache(maxsize=2)  # a plan asks for each of its trials
def text_sizes(dataset: Dataset) -> TextSizes:
    """How much there is to read."""
    words = [len(x.split()) for x in dataset.train.texts]
    characters = sum(len(x) for part in dataset.parts.values() for x in part.texts)
    return TextSizes(sum(words), max(words, default=1), characters)


# What a process holds beside its model and data: libraries, buffers.
_BYTES_OF_A_PROCESS = 350_000_000
# Of the memory that is free, so much may be planned with.
_SHARE_OF_MEMORY = 0.8


def side_by_side(
    asked: int | None,
    todo: Sequence[TrialSpec],
    dataset: Dataset,
    base: bases.Base | None,
    stacked: int = 1,
) -> tuple[int, int | None, str]:
    """How many trials at a time, threads of each, and why: a sentence, or nothing to say.

    `stacked`: each trial stands for a stack of up to so many.
    """
    wanted = _jobs_wanted(asked, len(todo))
    if wanted < 2:
        shared = asked is None and len(todo) > 1 and machine.has_card()
        return 1, None, "one trial at a time: they share one card" if shared else ""
    free = machine.available_bytes()
    model = (layers_width_heads(base), bases.count_parameters(base)) if base else None
    need = max(_bytes_of(t, text_sizes(dataset), model, stacked) for t in todo)
    fit = wanted if free is None else max(1, int(free * _SHARE_OF_MEMORY / need))
    jobs = min(wanted, fit)
    gigabytes = f"each needs about {need / 1e9:.1f} GB"
    if jobs < wanted:
        why = f"{jobs} at a time instead of {wanted}: {gigabytes}, {(free or 0) / 1e9:.1f} are free"
    else:
        why = f"{jobs} at a time, {gigabytes}; --jobs 1 measures each trial alone"
    return jobs, _threads_each(jobs), why


def threads_ahead(asked: int | None, trials: int) -> int | None:
    """Threads of each trial, as `side_by_side` gives them where memory suffices."""
    return _threads_each(_jobs_wanted(asked, trials))


def _jobs_wanted(asked: int | None, trials: int) -> int:
    """How many at a time, were there memory for all."""
    if asked is None and machine.has_card():
        return 1
    return min(asked or _cores(), trials)


def _threads_each(jobs: int) -> int | None:
    return max(1, _cores() // jobs) if jobs > 1 else None


def _cores() -> int:
    return machine.hardware().cores or 1


# Two batches of models.scoring.TOKENS, which cannot be asked here: it imports torch.
_TOKENS_SCORED = 2 * 1024


def _bytes_of(
    t: TrialSpec, texts: TextSizes, model: tuple[tuple[int, int, int], int] | None, stacked: int = 1
) -> float:
    """About how much memory a trial needs at its peak, rather too much than too little.

    `model`: layers, width and heads of the base, and its weights.
    """
    s = t.method.settings
    costs = METHODS[t.method.name].costs
    if t.base is None or model is None:
        return _BYTES_OF_A_PROCESS + costs.bytes_per_character * texts.characters
    (layers, width, heads), parameters = model
    weights = 4.0 * parameters * costs.weight_copies
    length = min(texts.longest * 1.5 + 2, number_of(s, "max_length", 1e9))
    tokens = number_of(s, "per_device_train_batch_size", 0) * length * stacked
    kept = layers * (32 * width + 4 * heads * length)  # floats kept for a token's backward pass
    return (
        _BYTES_OF_A_PROCESS
        + weights
        + 4 * (tokens * kept + _TOKENS_SCORED * 32 * width)
        + 8.0 * texts.characters
    )


def number_of(settings: SettingValues, name: str, otherwise: float) -> float:
    """A setting that is a number; `otherwise` for a method that does not have it."""
    value = settings.get(name)
    return value if isinstance(value, int | float) else otherwise


def layers_width_heads(base: bases.Base) -> tuple[int, int, int]:
    """Layers, width and attention heads; as of a small model where the config does not say."""
    sizes = base.sizes
    return sizes.layers or 12, sizes.width or 12, sizes.heads or 12


# Tokens in a step from which on a card is busy. Not measured yet: no card was at hand
# (benchmarks/gpu.py). A large product of 16,384 rows keeps any of today's cards busy.
_TOKENS_THAT_FILL_A_CARD = 16_384
_HIGHEST_STACK = 16


def stack_size(asked: int | None, t: TrialSpec, dataset: Dataset) -> int:
    """How many trials like this one are trained in one pass: as many as asked for, or as fill a
    card. On a processor none: products of a small batch fill it (docs/log.md).
    """
    if asked is not None:
        return asked
    if not machine.has_card():
        return 1
    s = t.method.settings
    words = text_sizes(dataset).words / max(1, len(dataset.train))
    length = min(1.35 * words + 2, number_of(s, "max_length", 1e9))
    tokens = max(1.0, number_of(s, "per_device_train_batch_size", 1) * length)
    return max(1, min(_HIGHEST_STACK, int(_TOKENS_THAT_FILL_A_CARD / tokens)))
