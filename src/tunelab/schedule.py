"""How many trials run side by side, and about how long they take.

Memory is estimated before anything is started; speed is learnt from the trials that were run on
this machine. May import: bases, cache, measure, types. May not import: torch, study, engines.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from tunelab import bases, cache, measure
from tunelab.types import Dataset, TrialResult, TrialSpec

__all__ = ["estimate", "learn", "makespan", "side_by_side"]


# --- side by side ---------------------------------------------------------------------------

# What a process holds beside its model and data: libraries, buffers.
_BYTES_OF_A_PROCESS = 350_000_000
# Of the memory that is free, so much may be planned with.
_SHARE_OF_MEMORY = 0.8
# Copies of all weights: full fine-tuning has gradients, two moments and the best epoch's beside.
_COPIES = {"full": 5.0}


def side_by_side(
    asked: int | None, todo: Sequence[TrialSpec], dataset: Dataset, base: bases.Base | None
) -> tuple[int, int | None, str]:
    """How many trials at a time, threads of each, and why: a sentence, or nothing to say."""
    cores = int(measure.hardware()["cores"])
    if len(todo) < 2 or (asked or cores) < 2:
        return 1, None, ""
    if asked is None and measure.has_card():
        return 1, None, "one trial at a time: they share one card"
    wanted = min(asked or cores, len(todo))
    free = measure.available_bytes()
    need = max(_bytes_of(t, dataset, base) for t in todo)
    fit = wanted if free is None else max(1, int(free * _SHARE_OF_MEMORY / need))
    jobs = min(wanted, fit)
    gigabytes = f"each needs about {need / 1e9:.1f} GB"
    if jobs < wanted:
        why = f"{jobs} at a time instead of {wanted}: {gigabytes}, {(free or 0) / 1e9:.1f} are free"
    else:
        why = f"{jobs} at a time, {gigabytes}; --jobs 1 measures each trial alone"
    return jobs, (max(1, cores // jobs) if jobs > 1 else None), why


def _bytes_of(t: TrialSpec, dataset: Dataset, base: bases.Base | None) -> float:
    """About how much memory a trial needs at its peak, rather too much than too little."""
    s = t.method.settings
    texts = sum(len(x) for part in dataset.parts.values() for x in part.texts)
    if t.base is None or base is None:
        return _BYTES_OF_A_PROCESS + 60.0 * texts  # n-grams of every length, twice
    weights: float = 4.0 * bases.count_parameters(base) * _COPIES.get(t.method.name, 2.0)
    longest = max((len(x.split()) for x in dataset.train.texts), default=1) * 1.5 + 2
    length: float = min(longest, s.get("max_length", 1e9))
    layers, width, heads = _shape(base)
    tokens: float = s.get("per_device_train_batch_size", 0) * length
    scored: int = 2 * 32 * s.get("per_device_eval_batch_size", 64)
    kept = layers * (32 * width + 4 * heads * length)  # floats kept for a token's backward pass
    return (
        _BYTES_OF_A_PROCESS
        + float(weights)
        + 4 * (tokens * kept + scored * 32 * width)
        + 8.0 * texts
    )


def _shape(base: bases.Base) -> tuple[int, int, int]:
    """Layers, width and attention heads, as whichever name a family gives them."""
    names = (("num_hidden_layers", "n_layers", "n_layer"), ("hidden_size", "dim", "n_embd"),
             ("num_attention_heads", "n_heads", "n_head"))  # fmt: skip
    known = ([base.config[n] for n in group if base.config.get(n)] for group in names)
    layers, width, heads = (int(found[0]) if found else 12 for found in known)
    return layers, width, heads


# --- how long -------------------------------------------------------------------------------

# Floating-point operations for each weight and training token: a forward pass has 2.
_WORK = {"full": 6.0, "svm": 2.0, "svm-tfidf": 0.0}
_WORK_OF_ADAPTERS = 4.5
# Share of a large matrix product's speed that training reaches (docs/log.md), until a trial of the
# same method has been measured on this machine.
_EFFICIENCY = 0.35
# What two processes of one thread do, over one process of two threads (docs/log.md).
_GAIN_OF_JOBS = 1.3
# The first trial waits for the imports; later ones are forked from where they are done.
_SECONDS_TO_IMPORT, _SECONDS_TO_START = 4.0, 0.2
# Loading, measuring latency, saving.
_SECONDS_BESIDE = 1.0


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
    second; a machine that has not run a method yet is measured for a moment.
    """
    if not todo:
        return {}
    took: dict[str, list[float]] = {}
    for r in done:
        alike = r.spec.train_rows is None and r.provenance.get("jobs", 1) == jobs
        if alike and "seconds" in r.provenance:
            took.setdefault(r.spec.method.label, []).append(float(r.provenance["seconds"]))
    speeds = cache.read_json(_speeds()) or {}
    guess = 0.0
    out: dict[str, float] = {}
    for t in todo:
        start = _SECONDS_TO_START if out else _SECONDS_TO_IMPORT
        if t.method.label in took and t.train_rows is None:
            out[t.trial_id] = start + float(np.mean(took[t.method.label]))
            continue
        speed = speeds.get(_kind(t, base, threads))
        if not speed:
            guess = guess or _measured_speed() * _EFFICIENCY * (_GAIN_OF_JOBS / jobs) ** (jobs > 1)
            speed = guess
        out[t.trial_id] = start + _SECONDS_BESIDE + _work(t, dataset, base) / speed
    return out


def _work(t: TrialSpec, dataset: Dataset, base: bases.Base | None) -> float:
    """About how many floating-point operations a trial takes."""
    s = t.method.settings
    words = sum(len(x.split()) for x in dataset.train.texts)
    rows = max(1, len(dataset.train))
    share = (t.train_rows or rows) / rows
    if t.base is None or base is None:
        return share * words * 2e6  # counting n-grams: as long as so many operations
    tokens = 1.35 * words + 2 * rows  # subwords and the special tokens
    tokens = min(tokens, s.get("max_length", 1e9) * rows)
    epochs = s.get("num_train_epochs", 1)
    # Validation is scored after every epoch, test once; a forward pass is a third of a step.
    scored = 0.33 * (len(dataset.validation) * epochs + len(dataset.test)) / rows
    work = _WORK.get(t.method.name, _WORK_OF_ADAPTERS)
    return float(work * _encoder_weights(base) * tokens * (epochs * share + scored))


def _speeds() -> Path:
    return cache.folder() / "speeds.json"


def _kind(t: TrialSpec, base: bases.Base | None, threads: int | None) -> str:
    """What has a speed of its own on a machine."""
    family = base.model_type if base and t.base else "none"
    hardware = measure.hardware()
    return (
        f"{hardware['processor']}/{hardware['cores']}/{threads or 'all'}/{family}/{t.method.name}"
    )


def learn(
    result: TrialResult, dataset: Dataset, base: bases.Base | None, threads: int | None
) -> None:
    """Keep how fast a trial was, for the next study's estimate."""
    seconds = float(result.provenance["seconds"]) - _SECONDS_BESIDE
    if result.details.get("from_cache") or seconds < 1:
        return  # says nothing of the work
    speeds = cache.read_json(_speeds()) or {}
    kind = _kind(result.spec, base, threads)
    now = _work(result.spec, dataset, base) / seconds
    speeds[kind] = (now + speeds.get(kind, now)) / 2
    with suppress(OSError):  # a cache that cannot be written costs an estimate, not a study
        cache.replace(_speeds(), json.dumps(speeds, indent=1).encode())


def _encoder_weights(base: bases.Base) -> int:
    """Weights that every token is multiplied with: all but the embedding table."""
    table = int(base.config.get("vocab_size", 0)) * int(
        base.config.get("hidden_size") or base.config.get("dim") or base.config.get("n_embd") or 0
    )
    return max(1, bases.count_parameters(base) - table)


def _measured_speed() -> float:
    """Floating-point operations a second of a float32 matrix product, measured for 0.1 s."""
    a = np.ones((512, 512), dtype=np.float32)
    a @ a
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 0.1:
        a @ a
        count += 1
    return 2 * 512**3 * count / (time.perf_counter() - started)
