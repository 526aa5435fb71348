"""How many trials run side by side, and about how long they take.

Memory is estimated before anything is started. Time is a trial's arithmetic over a speed: that
which trials of the method had on this machine; else that of other methods there, which says what
the machine does with such work; else a matrix product measured for a moment.

What a method's arithmetic and memory are its row says (`Costs`).
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from tunelab.core import cache, machine
from tunelab.core.plain import SettingValues
from tunelab.core.shapes import fault
from tunelab.core.values import Dataset, TrialResult, TrialSpec
from tunelab.methods import METHODS
from tunelab.models import bases

__all__ = [
    "estimate",
    "learn",
    "makespan",
    "side_by_side",
    "stack_size",
    "starting_order",
    "threads_ahead",
]


# --- side by side ---------------------------------------------------------------------------

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
    need = max(_bytes_of(t, dataset, base, stacked) for t in todo)
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


def _bytes_of(t: TrialSpec, dataset: Dataset, base: bases.Base | None, stacked: int = 1) -> float:
    """About how much memory a trial needs at its peak, rather too much than too little."""
    s = t.method.settings
    texts = sum(len(x) for part in dataset.parts.values() for x in part.texts)
    costs = METHODS[t.method.name].costs
    if t.base is None or base is None:
        return _BYTES_OF_A_PROCESS + costs.bytes_per_character * texts
    weights = 4.0 * bases.count_parameters(base) * costs.weight_copies
    longest = max((len(x.split()) for x in dataset.train.texts), default=1) * 1.5 + 2
    length = min(longest, _setting(s, "max_length", 1e9))
    layers, width, heads = _layers_width_heads(base)
    tokens = _setting(s, "per_device_train_batch_size", 0) * length * stacked
    kept = layers * (32 * width + 4 * heads * length)  # floats kept for a token's backward pass
    return (
        _BYTES_OF_A_PROCESS
        + weights
        + 4 * (tokens * kept + _TOKENS_SCORED * 32 * width)
        + 8.0 * texts
    )


def _setting(settings: SettingValues, name: str, otherwise: float) -> float:
    """A setting that is a number; `otherwise` for a method that does not have it."""
    value = settings.get(name)
    return value if isinstance(value, int | float) else otherwise


def _layers_width_heads(base: bases.Base) -> tuple[int, int, int]:
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
    words = sum(len(x.split()) for x in dataset.train.texts) / max(1, len(dataset.train))
    length = min(1.35 * words + 2, _setting(s, "max_length", 1e9))
    tokens = max(1.0, _setting(s, "per_device_train_batch_size", 1) * length)
    return max(1, min(_HIGHEST_STACK, int(_TOKENS_THAT_FILL_A_CARD / tokens)))


# --- how long -------------------------------------------------------------------------------

# Share of a float32 matrix product's speed, on as many threads, that training reaches, and what it
# gains where the processor multiplies bfloat16 (docs/log.md): until a trial has been run here.
_EFFICIENCY, _GAIN_OF_BFLOAT16 = 0.75, 1.6
_SCALING = 0.85  # n threads are n ** 0.85 times as fast as one
# Operations a second on a card: small models keep none busy. Also only until a trial has been run.
_SPEED_OF_A_CARD = 3e12
# The first trial waits for the imports; later ones are forked from where they are done.
_SECONDS_TO_IMPORT, _SECONDS_TO_START = 4.0, 0.2
# Loading, measuring latency, saving: with a base model, and without.
_SECONDS_BESIDE, _SECONDS_BESIDE_WITHOUT = 2.0, 0.7
# What a trial before the last counts in a machine's speed, against the last.
_MEMORY = 0.7


def starting_order(
    todo: Sequence[TrialSpec], seconds: Mapping[str, float], jobs: int
) -> list[TrialSpec]:
    """The order in which trials start: as given, but of the last seed the longest ones first.

    Else a core waits at the end for a long one that was started last. `seconds` by trial, as
    `estimate` gives them.
    """
    if jobs == 1 or not todo:
        return list(todo)
    last = (todo[-1].seed, todo[-1].train_rows)
    alike = list(itertools.takewhile(lambda t: (t.seed, t.train_rows) == last, reversed(todo)))
    alike.reverse()
    first = todo[: len(todo) - len(alike)]
    return [*first, *sorted(alike, key=lambda t: -seconds.get(t.trial_id, 0.0))]


def makespan(seconds: Iterable[float], jobs: int) -> float:
    """Seconds until all are done, when each starts in turn where one ends first."""
    free = [0.0] * jobs
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


def estimate(
    todo: Sequence[TrialSpec],
    done: Sequence[TrialResult],
    dataset: Dataset,
    base: bases.Base | None,
    *,
    jobs: int = 1,
    threads: int | None = None,
) -> dict[str, float]:
    """Seconds of each trial: as its method took before, or from its arithmetic and this machine.

    Before means: in this study with as many at a time, or else on this machine, in operations a
    second. Vectors of a base's texts are computed once and kept: the first trial that reads them
    pays.
    """
    if not todo:
        return {}
    seconds_by_label: dict[str, list[float]] = {}
    for r in done:
        alike = r.spec.train_rows is None and (r.provenance.jobs or 1) == jobs
        if alike and r.provenance.seconds is not None:
            seconds_by_label.setdefault(r.spec.method.label, []).append(r.provenance.seconds)
    known = _known_speeds()
    out: dict[str, float] = {}
    paid = {r.spec.method.name for r in done}
    for t in todo:
        start = _SECONDS_TO_START if out else _SECONDS_TO_IMPORT
        if t.method.label in seconds_by_label and t.train_rows is None:
            out[t.trial_id] = start + float(np.mean(seconds_by_label[t.method.label]))
            continue
        # What is kept of all rows serves fewer rows too.
        free = METHODS[t.method.name].costs.once and t.method.name in paid
        work = 0.0 if free else _operations(t, dataset, base)
        paid.add(t.method.name)
        out[t.trial_id] = (
            start + _seconds_beside(t) + work / _speed_of(_kind_of_trial(t, base, threads), known)
        )
    return out


def _seconds_beside(t: TrialSpec) -> float:
    return _SECONDS_BESIDE_WITHOUT if t.base is None else _SECONDS_BESIDE


def _known_speeds() -> dict[str, float]:
    """Operations a second by kind, of the trials that this machine has run."""
    stored = cache.read_json(_speeds_file())
    entries = stored.items() if isinstance(stored, dict) else ()
    return {
        kind: work / seconds
        for kind, e in entries
        if kind.count("/") >= _SLASHES_OF_KIND and (sums := _sums_in(e)) != (0.0, 0.0)
        for work, seconds in [sums]
    }


_SLASHES_OF_KIND = 4


def _sums_in(entry: object) -> tuple[float, float]:
    """Work and seconds as they are kept; zeros where they are no such numbers."""
    if not isinstance(entry, dict) or fault(entry, dict[str, float]):
        return 0.0, 0.0
    work, seconds = float(entry.get("work", 0.0)), float(entry.get("seconds", 0.0))
    return (work, seconds) if 0 < work < _MOST and 0 < seconds < _MOST else (0.0, 0.0)


_MOST = 1e30


def _speed_of(kind: str, known: dict[str, float]) -> float:
    """Operations a second of a kind of trial: as measured, or as far off as its neighbours are."""
    if kind in known:
        return known[kind]
    # Counting n-grams says nothing of models, nor do models of it.
    alike = [
        speed / _guessed_speed(k)
        for k, speed in known.items()
        if _machine_of(k) == _machine_of(kind) and ("/none/" in k) == ("/none/" in kind)
    ]
    return _guessed_speed(kind) * (statistics.median(alike) if alike else 1.0)


def _machine_of(kind: str) -> str:
    """The machine in a kind: its processor and cores."""
    return kind.rsplit("/", 3)[0]


def _guessed_speed(kind: str) -> float:
    """Operations a second from what the machine multiplies."""
    _, threads, family, _ = kind.rsplit("/", 3)
    if family == "none":
        return _measured_speed()
    if machine.has_card():
        return _SPEED_OF_A_CARD
    gain = _GAIN_OF_BFLOAT16 if machine.multiplies_bfloat16() else 1.0
    cores = machine.hardware().cores or 1
    used = cores if threads == "all" else min(cores, int(threads))
    return float(_measured_speed() * used**_SCALING * _EFFICIENCY * gain)


def _operations(t: TrialSpec, dataset: Dataset, base: bases.Base | None) -> float:
    """About how many floating-point operations a trial takes."""
    s = t.method.settings
    costs = METHODS[t.method.name].costs
    words = sum(len(x.split()) for x in dataset.train.texts)
    rows = max(1, len(dataset.train))
    share = (t.train_rows or rows) / rows
    if t.base is None or base is None:
        return share * words * costs.work_per_word
    tokens = 1.35 * words + 2 * rows  # subwords and the special tokens
    tokens = min(tokens, _setting(s, "max_length", 1e9) * rows)
    epochs = _setting(s, "num_train_epochs", 1)
    # Validation is scored after every epoch, test once; a forward pass is a third of a step.
    scored = 0.33 * (len(dataset.validation) * epochs + len(dataset.test)) / rows
    return float(costs.work * _encoder_weights(base) * tokens * (epochs * share + scored))


def _speeds_file() -> Path:
    return cache.machine_folder() / "speeds.json"


def _kind_of_trial(t: TrialSpec, base: bases.Base | None, threads: int | None) -> str:
    """What has a speed of its own on a machine."""
    family = base.model_type if base and t.base else "none"
    hardware = machine.hardware()
    return f"{hardware.processor}/{hardware.cores}/{threads or 'all'}/{family}/{t.method.name}"


def learn(
    result: TrialResult, dataset: Dataset, base: bases.Base | None, threads: int | None
) -> None:
    """Keep how fast a trial was, for the next study's estimate."""
    assert result.provenance.seconds is not None  # noqa: S101  it has just run
    seconds = result.provenance.seconds - _seconds_beside(result.spec)
    kept = (result.details.trained.frozen_layers or result.details).from_cache
    if kept or seconds < 1 or result.provenance.stack:
        return  # says nothing of the work
    stored = cache.read_json(_speeds_file())
    speeds = stored if isinstance(stored, dict) else {}
    kind = _kind_of_trial(result.spec, base, threads)
    # Sums of both, not a mean of speeds: of a short trial, what is beside the work is a large part.
    worked, took = _sums_in(speeds.get(kind))
    speeds[kind] = {
        "work": _MEMORY * worked + _operations(result.spec, dataset, base),
        "seconds": _MEMORY * took + seconds,
    }
    with suppress(OSError):  # a cache that cannot be written costs an estimate, not a study
        cache.replace(_speeds_file(), json.dumps(speeds, indent=1).encode())


def _encoder_weights(base: bases.Base) -> int:
    """Weights that every token is multiplied with: all but the embedding table."""
    table = (base.sizes.vocabulary or 0) * (base.sizes.width or 0)
    return max(1, bases.count_parameters(base) - table)


@functools.cache
def _measured_speed() -> float:
    """Floating-point operations a second of a float32 matrix product on one thread.

    Measured for 0.1 s; the best of some, so that other work on the machine counts little. One
    thread, because threads that wait for each other on a busy machine take any time.
    """
    from threadpoolctl import threadpool_limits

    a = np.ones((512, 512), dtype=np.float32)
    best = float("inf")
    with threadpool_limits(1):
        a @ a
        until = time.perf_counter() + 0.1
        while time.perf_counter() < until:
            started = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - started)
    return 2 * 512**3 / best
