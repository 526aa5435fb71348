"""Classifiers in memory, and the one thread that computes whatever waits for them.

Nothing waits for a batch to fill: while one is computed others gather, and the next takes them, up
to a budget of tokens. The table of models is never changed, only replaced: a request keeps the
model that it began with, and who unloads a model waits for its last reader.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tunelab.core.errors import DataError, suggest
from tunelab.core.words import check_unicode
from tunelab.serving.refusal import Limits, Refusal
from tunelab.serving.served import Item, Runner, Served

__all__ = [
    "ScoredTexts",
    "BatchFigures",
    "ServingEngine",
    "ModelTable",
    "check_scores",
    "check_texts",
    "items_of",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ModelTable:
    """The models by name, in the order in which they came; the first answers who names none."""

    models: Mapping[str, Served]

    def __getitem__(self, name: str | None) -> Served:
        """A model. Raises Refusal for an unknown name."""
        if name is None:
            if not self.models:
                raise Refusal("unknown", "No model is loaded.")
            return next(iter(self.models.values()))
        try:
            return self.models[name]
        except KeyError:
            hint = suggest(name, self.models, what="Models")
            raise Refusal("unknown", f"The model `{name}` does not exist.{hint}") from None


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTexts:
    """What a model gave: `scores` (n, n_classes), the tokens of each text, and seconds."""

    model: Served
    scores: Floats
    tokens: NDArray[np.int64]
    queued_seconds: float
    computed_seconds: float

    def probabilities(self, calibrated: bool | None = None) -> Floats:
        """Probabilities (n, n_classes)."""
        return self.model.probabilities(self.scores, calibrated)

    def answered(self, error: float | None) -> NDArray[np.bool_]:
        """Which texts are answered, (n,), where this share of all may be wrong; None: all are."""
        if error is None:
            return np.ones(len(self.scores), np.bool_)
        return self.model.answers(self.scores, error)


@dataclass(frozen=True, slots=True)
class BatchFigures:
    """A batch that was computed: its texts, tokens and models, and seconds."""

    texts: int
    tokens: int
    models: int
    seconds: float


@dataclass(slots=True, eq=False)
class _Request:
    model: Served
    items: Sequence[Item]
    tokens: NDArray[np.int64]
    arrived: float
    future: Future[ScoredTexts] = field(default_factory=Future)
    scores: list[Floats | None] = field(default_factory=list)
    left: int = 0
    started: float = 0.0
    dropped: bool = False


class ServingEngine:
    """Holds a table of models and answers for them. `close` finishes what was taken.

    `on_batch` is told of each batch, in the thread that computes.
    """

    def __init__(
        self,
        models: Iterable[Served],
        limits: Limits | None = None,
        on_batch: Callable[[BatchFigures], None] = lambda _: None,
    ) -> None:
        self.limits = limits or Limits()
        self.on_batch = on_batch
        self.table = ModelTable(MappingProxyType({m.name: m for m in models}))
        self.queued_tokens = 0
        self._waiting: deque[tuple[_Request, int]] = deque()
        self._state = threading.Condition()  # of all that follows, and of what waits
        self._readers: Counter[Served] = Counter()
        self._closing = False
        self._tokens_a_second = 0.0
        self._changing = threading.Lock()  # one change of the table at a time
        self._thread = threading.Thread(target=self._run, name="tunelab-batches", daemon=True)
        self._thread.start()

    # --- asking -----------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether it takes requests, and its thread is there to answer them."""
        return not self._closing and self._thread.is_alive()

    @property
    def queued_texts(self) -> int:
        """How many texts wait."""
        return len(self._waiting)

    def classify(
        self, name: str | None, texts: Sequence[str], *, cut: bool = True, left: bool = False
    ) -> ScoredTexts:
        """Read texts, wait for their turn, and give what the model says. Raises Refusal."""
        model = self.table[name]
        return self.submit(model, items_of(model, texts, cut=cut, left=left)).result()

    def submit(self, model: Served, items: Sequence[Item]) -> Future[ScoredTexts]:
        """Queue what `items_of` gave. Raises Refusal where too much waits already."""
        tokens = np.asarray([model.reader.length(i) for i in items], dtype=np.int64)
        job = _Request(model, items, tokens, time.perf_counter(), left=len(items))
        job.scores = [None] * len(items)
        asked = int(tokens.sum())
        with self._state:
            if self._closing:
                raise Refusal("stopping", "The server is stopping.", retry_after=1)
            # What comes to an empty queue is taken whatever its size: it would never fit better.
            if self.queued_tokens and self.queued_tokens + asked > self.limits.queued_tokens:
                raise Refusal("overloaded", "Model is overloaded", self._seconds_to_wait())
            self.queued_tokens += asked
            self._readers[model] += 1
            self._waiting.extend((job, i) for i in range(len(items)))
            self._state.notify_all()
        return job.future

    def _seconds_to_wait(self) -> int:
        rate = self._tokens_a_second
        return max(1, min(60, round(self.queued_tokens / rate))) if rate else 1

    # --- models -----------------------------------------------------------------------------

    def load(self, name: str, prepare: Callable[[], Served], *, replace: bool = False) -> Served:
        """Make a model ready aside, score it once, and put it in the table under its name.

        Raises Refusal where the name is taken and `replace` does not say otherwise.
        """
        with self._changing:
            if name in self.table.models and not replace:
                raise Refusal("exists", f"The model `{name}` is loaded already.")
            model = prepare()
            check_scores(model)
            old = self.table.models.get(name)
            self.table = ModelTable(MappingProxyType({**self.table.models, name: model}))
            if old is not None:
                self._wait_for_readers(old)
            return model

    def unload(self, name: str) -> None:
        """Take a model out of the table, and wait for those who still read it."""
        with self._changing:
            old = self.table[name]
            left = {n: m for n, m in self.table.models.items() if n != name}
            self.table = ModelTable(MappingProxyType(left))
            self._wait_for_readers(old)

    def _wait_for_readers(self, model: Served) -> None:
        with self._state:
            self._state.wait_for(lambda: model not in self._readers)

    def close(self) -> None:
        """Take nothing more, finish what was taken, and end the thread."""
        with self._state:
            self._closing = True
            self._state.notify_all()
        self._thread.join()

    # --- computing --------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                batch = self._take()
            if batch:
                self._compute(batch)

    def _take(self) -> list[tuple[_Request, int]]:
        """What waits, oldest first, up to the budget of tokens; one text at least."""
        batch: list[tuple[_Request, int]] = []
        room, now = self.limits.batch_tokens, time.perf_counter()
        while self._waiting:
            job, i = self._waiting[0]
            cost = int(job.tokens[i])
            if batch and cost > room:
                break
            self._waiting.popleft()
            self.queued_tokens -= cost
            if not job.started:
                job.started = now
                job.dropped = not job.future.set_running_or_notify_cancel()
            if job.dropped:
                self._finished(job, 1)
                continue
            room -= cost
            batch.append((job, i))
        return batch

    def _compute(self, batch: Sequence[tuple[_Request, int]]) -> None:
        began = time.perf_counter()
        by_runner: dict[int, dict[Served, list[tuple[_Request, int]]]] = {}
        for job, i in batch:
            parts = by_runner.setdefault(id(job.model.runner), {})
            parts.setdefault(job.model, []).append((job, i))
        for parts in by_runner.values():
            self._compute_together(next(iter(parts)).runner, parts)
        seconds = time.perf_counter() - began
        tokens = sum(int(job.tokens[i]) for job, i in batch)
        rate = tokens / max(seconds, 1e-6)
        self._tokens_a_second = (
            rate if not self._tokens_a_second else (0.9 * self._tokens_a_second + 0.1 * rate)
        )
        models = sum(map(len, by_runner.values()))
        try:
            self.on_batch(BatchFigures(len(batch), tokens, models, seconds))
        except Exception as e:  # all have their answers; who counts them must not end the thread
            print(f"tunelab: a batch was not counted: {type(e).__name__}: {e}", file=sys.stderr)

    def _compute_together(
        self, runner: Runner, parts: Mapping[Served, Sequence[tuple[_Request, int]]]
    ) -> None:
        asked = [(m, [job.items[i] for job, i in rows]) for m, rows in parts.items()]
        try:
            scored = [
                _checked_scores(model, items, scores)
                for (model, items), scores in zip(asked, runner(asked), strict=True)
            ]
        except (
            BaseException
        ) as e:  # whatever a model does, its askers are told, and the rest goes on
            told = e if isinstance(e, Exception) else RuntimeError(type(e).__name__)
            for rows in parts.values():
                for job, _ in rows:
                    self._fail(job, told)
            return
        for rows, scores in zip(parts.values(), scored, strict=True):
            for (job, i), row in zip(rows, scores, strict=True):
                job.scores[i] = row
                self._finished(job, 1)

    def _fail(self, job: _Request, error: Exception) -> None:
        if not job.future.done():
            job.future.set_exception(error)
        self._finished(job, 1)

    def _finished(self, job: _Request, count: int) -> None:
        job.left -= count
        if job.left:
            return
        with self._state:
            self._readers[job.model] -= 1
            if not self._readers[job.model]:
                del self._readers[job.model]  # else what is unloaded would stay in memory
            self._state.notify_all()
        if job.dropped or job.future.done():
            return
        scores = np.stack([row for row in job.scores if row is not None])
        took = time.perf_counter() - job.started
        job.future.set_result(
            ScoredTexts(job.model, scores, job.tokens, job.started - job.arrived, took)
        )


def _checked_scores(model: Served, items: Sequence[Item], scores: Floats) -> Floats:
    """Scores as a runner gave them. Raises ValueError where they are not a row for each text."""
    expected = len(items), len(model.label_names)
    if np.shape(scores) != expected:
        raise ValueError(f"scores of shape {np.shape(scores)}, expected {expected}")
    return scores


def items_of(
    model: Served, texts: Sequence[str], *, cut: bool = True, left: bool = False
) -> list[Item]:
    """What a model makes of texts, to be submitted. Raises Refusal for a text that is none."""
    check_texts(texts)
    return model.reader.read(texts, cut=cut, left=left)


def check_texts(texts: Sequence[str]) -> None:
    """Raise Refusal where there is no text, or one that is not Unicode."""
    if not texts:
        raise Refusal("empty", "`inputs` cannot be empty")
    try:
        for i, text in enumerate(texts):
            check_unicode(text, f"Text {i}")
    except DataError as e:
        raise Refusal("invalid", str(e)) from e


def check_scores(model: Served) -> None:
    """Score a text: a model that cannot is found before anybody is sent to it."""
    (scores,) = model.runner([(model, model.reader.read(["one text"]))])
    if scores.shape != (1, len(model.label_names)) or not np.isfinite(scores).all():
        raise Refusal(
            "invalid",
            f"{model.folder}: scores of one text are of shape {scores.shape}, expected finite "
            f"numbers (1, {len(model.label_names)}). Train or copy it again.",
        )
