"""About how long trials take, and how sure that is.

A trial is a fixed part (loading, measuring latency, saving) and its work: arithmetic, which grows
with the model and its tokens, and a step's own time, which does not. What a method's arithmetic is
its row says (`Costs`). A first guess of the work comes from what this machine multiplies; trials
that ran here correct it, by the median of how far off it was for the same method on models of about
this size, else for what is nearest to that. They do so within bounds, and only where their work
was most of what was measured: the start-up of a tiny model says nothing of the work of a large one.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tunelab.core import cache, machine
from tunelab.core.details import Hardware
from tunelab.core.values import Dataset, TrialResult, TrialSpec
from tunelab.methods import METHODS
from tunelab.models import bases
from tunelab.study.estimate import layers_width_heads, number_of, text_sizes

__all__ = [
    "A_COPY",
    "Duration",
    "estimate",
    "learn",
    "makespan",
    "seconds_to_import",
    "starting_order",
]


# Share of a float32 matrix product's speed, on as many threads, that training reaches, and what it
# gains where the processor multiplies bfloat16 (docs/log.md): until a trial has been run here.
_EFFICIENCY, _GAIN_OF_BFLOAT16 = 0.75, 1.6
_SCALING = 0.85  # n threads are n ** 0.85 times as fast as one
# Operations a second on a card: small models keep none busy. Also only until a trial has been run.
_SPEED_OF_A_CARD = 3e12
# What a step takes for each layer, however small it is (benchmarks/estimates.py).
_SECONDS_OF_A_LAYER = 0.001
_FORWARD_PASS = 2.0  # operations for each weight and token
# The first trial waits for the imports; all are forked from where they are done.
_SECONDS_TO_IMPORT, _SECONDS_TO_IMPORT_WITHOUT, _SECONDS_TO_START = 4.0, 1.5, 0.2
_SECONDS_TO_COMPILE = 15.0
# Loading, measuring latency, saving: with a base model, and without.
_SECONDS_BESIDE, _SECONDS_BESIDE_WITHOUT = 1.0, 0.5

# How many times too low or too high an estimate may be: of a method that ran in this study, of one
# that ran on this machine on models of this size, of what other methods or sizes say, of a guess.
_FACTOR_OF_STUDY, _FACTOR_OF_METHOD, _FACTOR_OF_OTHERS, _FACTOR_OF_GUESS = 1.2, 1.4, 2.0, 3.0
_FACTOR_OF_START = 3.0  # of what is no work: what takes below a second is told as a range
_STARTING = "starting"  # what a trial that was mostly start-up is kept as
# How far off a first guess may be; beyond that something else was measured, such as a machine that
# was busy with other work.
_MOST_OFF = 8.0
# Models are of about the same size where one has at most so many times the other's weights.
_SIZES_ALIKE = 3.0
_MOST_SEEN, _RECENT, _MOST_BYTES = 400, 9, 1_000_000


@dataclass(frozen=True, slots=True)
class Duration:
    """Expected seconds, and by how many times they may be too low or too high."""

    seconds: float
    factor: float

    @property
    def least(self) -> float:
        """The low end, in seconds."""
        return self.seconds / self.factor

    @property
    def most(self) -> float:
        """The high end, in seconds."""
        return self.seconds * self.factor


A_COPY = Duration(0.05, 2.0)  # of a run that is made once for all seeds


# --- when what runs ---------------------------------------------------------------------------


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


# --- how long each takes ------------------------------------------------------------------------


def seconds_to_import(todo: Sequence[TrialSpec]) -> float:
    """What is waited for before the first of these trials."""
    if not todo:
        return 0.0
    if all(t.base is None for t in todo):
        return _SECONDS_TO_IMPORT_WITHOUT
    # The kernels are compiled once on a machine (kernels.build).
    compiled = machine.has_card() or any(cache.machine_folder().glob("kernels-*"))
    return _SECONDS_TO_IMPORT + (0.0 if compiled else _SECONDS_TO_COMPILE)


def estimate(
    todo: Sequence[TrialSpec],
    done: Sequence[TrialResult],
    dataset: Dataset,
    base: bases.Base | None,
    *,
    jobs: int = 1,
    threads: int | None = None,
) -> dict[str, Duration]:
    """How long each trial takes: as its method took before, or from its work and this machine.

    Before means: in this study with as many at a time, or else on this machine. Vectors of a base's
    texts are computed once and kept: the first trial that reads them pays.
    """
    if not todo:
        return {}
    seconds_by_label: dict[str, list[float]] = {}
    for r in done:
        alike = r.spec.train_rows is None and (r.provenance.jobs or 1) == jobs
        if alike and r.provenance.seconds is not None:
            seconds_by_label.setdefault(r.spec.method.label, []).append(r.provenance.seconds)
    model = _model_of_study(dataset, base, threads, _read_seen())
    out: dict[str, Duration] = {}
    paid = {r.spec.method.name for r in done}
    for t in todo:
        if t.method.label in seconds_by_label and t.train_rows is None:
            mean = float(np.mean(seconds_by_label[t.method.label]))
            out[t.trial_id] = Duration(_SECONDS_TO_START + mean, _FACTOR_OF_STUDY)
            continue
        # What is kept of all rows serves fewer rows too.
        out[t.trial_id] = model.duration(t, t.method.name in paid)
        paid.add(t.method.name)
    return out


def learn(
    result: TrialResult, dataset: Dataset, base: bases.Base | None, threads: int | None
) -> None:
    """Keep how far off the first guess of a trial was, for the next study's estimate.

    A trial that is mostly work by that guess says how fast this machine works, another one how fast
    it starts. Nothing is kept of those in one pass with others, or with layers or vectors that were
    there already.
    """
    seconds, t = result.provenance.seconds, result.spec
    cached = (result.details.trained.frozen_layers or result.details).from_cache
    if result.provenance.hardware not in {Hardware(), machine.hardware()}:
        return  # it ran on a node of a cluster, which says nothing of this machine
    if seconds is None or cached or result.provenance.stack:
        return
    model = _model_of_study(dataset, base, threads, ())
    guess, beside = model.guess(t, False), _seconds_beside(t)
    if guess < beside:
        said = replace(
            model.seen_as(t, _within_bounds((seconds - guess) / beside)), computed=_STARTING
        )
    else:
        said = model.seen_as(t, _within_bounds((seconds - beside) / guess))
    with suppress(OSError):  # a cache that cannot be written costs an estimate, not a study
        _add_seen(said)


def _add_seen(said: _PastRun) -> None:
    """Add a line to what this machine has seen: several studies may do so at once.

    A file of many times what is read is cut; a line that another study adds just then is lost.
    """
    path = _seen_file()
    # The newline before it ends a line that a process which was killed left half-written.
    cache.append(path, f"\n{json.dumps(asdict(said))}\n".encode())
    if path.stat().st_size > _MOST_BYTES:
        kept = "".join(f"{json.dumps(asdict(s))}\n" for s in _read_seen())
        cache.replace(path, kept.encode())


def _within_bounds(off: float) -> float:
    return min(_MOST_OFF, max(1 / _MOST_OFF, off))


def _seconds_beside(t: TrialSpec) -> float:
    return _SECONDS_BESIDE_WITHOUT if t.base is None else _SECONDS_BESIDE


@dataclass(frozen=True, slots=True)
class _PastRun:
    """How many times longer than guessed the work of a trial took: on which machine and threads,
    how it was computed (architecture, engine and precision asked for), by which method, on a base
    of so many weights.
    """

    machine: str
    computed: str
    method: str
    weights: int
    off: float


@dataclass(frozen=True, slots=True)
class _Model:
    """What the durations of one study's trials follow from, computed once.

    `words` of the training texts; `weights` that every token is multiplied with (0: no base), in so
    many layers of a width;
    `speed`: guessed operations a second of training; `machine` and what it has `seen`.
    """

    dataset: Dataset
    base: bases.Base | None
    words: int
    weights: int
    layers_width: tuple[int, int]
    speed: float
    machine: str
    seen: Sequence[_PastRun]

    def duration(self, t: TrialSpec, paid: bool) -> Duration:
        """How long a trial takes; `paid`: what is computed once has been."""
        off, factor = self._correction(t)
        work = off * self.guess(t, paid)
        starting = [
            s
            for s in self.seen
            if (s.machine, s.computed) == (self.machine, _STARTING)
            and bool(s.weights) == (t.base is not None)
        ]
        own = [s for s in starting if s.method == t.method.name] or starting
        off_fixed = statistics.median(s.off for s in own[-_RECENT:]) if own else 1.0
        fixed = _SECONDS_TO_START + off_fixed * _seconds_beside(t)
        low = fixed / _FACTOR_OF_START + work / factor
        high = fixed * _FACTOR_OF_START + work * factor
        return Duration(fixed + work, max((fixed + work) / low, high / (fixed + work)))

    def guess(self, t: TrialSpec, paid: bool) -> float:
        """Seconds of a trial's work, before any has run on this machine."""
        costs = METHODS[t.method.name].costs
        if t.base is None or self.base is None:
            share = (t.train_rows or len(self.dataset.train)) / max(1, len(self.dataset.train))
            return share * self.words * costs.work_per_word / _measured_speed()
        layers, width = self.layers_width
        values = len(self.dataset.train) * width * len(self.dataset.label_names)
        seconds = costs.fit_per_value * values / _measured_speed()
        if costs.once and paid:
            return seconds
        steps = _steps(t, self.dataset) * layers * _SECONDS_OF_A_LAYER
        return seconds + steps + self._operations(t) / self.speed

    def _operations(self, t: TrialSpec) -> float:
        """About how many floating-point operations a trial on a base takes."""
        assert self.base is not None  # noqa: S101  `guess` has seen
        s, costs = t.method.settings, METHODS[t.method.name].costs
        rows = max(1, len(self.dataset.train))
        if costs.vocabulary:  # each token between two special ones
            return costs.work * self.weights * 3.0 * float(self.base.sizes.vocabulary or 30_000)
        tokens = 1.35 * self.words + 2 * rows  # subwords and the special tokens
        tokens = min(tokens, number_of(s, "max_length", 1e9) * rows)
        layers, width = self.layers_width
        # Attention multiplies each token with the others of its text, twice.
        weights = self.weights + 2 * layers * width * tokens / rows
        epochs = 1 if costs.once else number_of(s, "num_train_epochs", 1)
        # Validation is scored after every epoch, test once.
        scored = (len(self.dataset.validation) * epochs + len(self.dataset.test)) / rows
        trained = epochs * (t.train_rows or rows) / rows
        return float(weights * tokens * (costs.work * trained + _FORWARD_PASS * scored))

    def _correction(self, t: TrialSpec) -> tuple[float, float]:
        """How many times longer work takes here than guessed, and how sure that is."""
        now = self.seen_as(t, 1.0)
        here = [
            s
            for s in self.seen
            # Counting n-grams says nothing of models, nor do models of it.
            if s.machine == now.machine
            and s.computed != _STARTING
            and bool(s.weights) == bool(now.weights)
        ]
        near = [s for s in here if s.computed == now.computed and _is_near(s.weights, now.weights)]
        own = [s for s in near if s.method == now.method]
        for some, factor in (
            (own, _FACTOR_OF_METHOD),
            (near, _FACTOR_OF_OTHERS),
            (here, _FACTOR_OF_OTHERS),
        ):
            if some:
                offs = [s.off for s in some[-_RECENT:]]
                middle = statistics.median(offs)
                apart = max(max(offs) / middle, middle / min(offs))
                return middle, max(factor, min(apart, _FACTOR_OF_GUESS))
        return 1.0, _FACTOR_OF_GUESS

    def seen_as(self, t: TrialSpec, off: float) -> _PastRun:
        """That the work of a trial took so many times longer than guessed."""
        on_base = self.base if t.base is not None else None
        asked = [str(t.method.settings.get(k, "")) for k in ("engine", "precision")]
        computed = "/".join((on_base.model_type if on_base else "none", *asked))
        return _PastRun(self.machine, computed, t.method.name, self.weights if on_base else 0, off)


def _model_of_study(
    dataset: Dataset, base: bases.Base | None, threads: int | None, seen: Sequence[_PastRun]
) -> _Model:
    hardware = machine.hardware()
    named = f"{hardware.processor}/{hardware.cores}/{threads or 'all'}"
    speed = _guessed_speed(threads)
    sizes = layers_width_heads(base)[:2] if base else (0, 0)
    weights = _encoder_weights(base) if base else 0
    words = text_sizes(dataset).words
    return _Model(dataset, base, words, weights, sizes, speed, named, seen)


def _is_near(a: int, b: int) -> bool:
    return max(a, b) <= _SIZES_ALIKE * min(a, b)


def _seen_file() -> Path:
    return cache.machine_folder() / "durations.jsonl"


def _read_seen() -> tuple[_PastRun, ...]:
    """What this machine has seen; lines that cannot be read are left out."""
    try:
        lines = _seen_file().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(s for line in lines if (s := _seen_in(line)) is not None)[-_MOST_SEEN:]


def _seen_in(line: str) -> _PastRun | None:
    try:
        seen = _PastRun(**json.loads(line))
        sound = 1 / _MOST_OFF <= seen.off <= _MOST_OFF and seen.weights >= 0
    except (ValueError, TypeError):
        return None
    return seen if sound else None


# --- the work of a trial ------------------------------------------------------------------------


def _steps(t: TrialSpec, dataset: Dataset) -> float:
    """Passes through the model, those that score as a third of one."""
    s = t.method.settings
    batch = number_of(s, "per_device_train_batch_size", 16)
    to_score = max(1.0, number_of(s, "per_device_eval_batch_size", 64))
    epochs = number_of(s, "num_train_epochs", 1)
    rows = t.train_rows or len(dataset.train)
    scored = len(dataset.validation) * epochs + len(dataset.test)
    return math.ceil(rows / max(1.0, batch)) * epochs + 0.33 * scored / to_score


def _encoder_weights(base: bases.Base) -> int:
    """Weights that every token is multiplied with: all but the embedding table."""
    table = (base.sizes.vocabulary or 0) * (base.sizes.width or 0)
    return max(1, bases.count_parameters(base) - table)


def _guessed_speed(threads: int | None) -> float:
    """Operations a second of training, from what the machine multiplies."""
    if machine.has_card():
        return _SPEED_OF_A_CARD
    gain = _GAIN_OF_BFLOAT16 if machine.multiplies_bfloat16() else 1.0
    cores = machine.hardware().cores or 1
    used = min(cores, threads or cores)
    return float(_measured_speed() * used**_SCALING * _EFFICIENCY * gain)


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
