"""What /metrics tells: TEI's names, and the same by model."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from tunelab.serving.engine import BatchFigures, ScoredTexts, ServingEngine

__all__ = [
    "Figures",
]

_DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TOKENS = (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 65_536)
_COUNTS = ("te_request_count", "te_request_success", "te_request_failure", "te_predict_count")


class Figures:
    """Counts and histograms of one server. Every request for answers is counted once."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # TEI has none
        self._registry = CollectorRegistry()
        self._requests = self._counter("te_request_count", "Requests for answers", "path")
        self._successes = self._counter("te_request_success", "Answered requests", "path")
        self._failures = self._counter("te_request_failure", "Refused or failed requests", "err")
        self._answered = self._counter("te_predict_count", "Texts answered")
        self._duration = self._histogram("te_request_duration", "Seconds of a request", _DURATIONS)
        self._length = self._histogram("te_request_input_length", "Tokens of a text", _TOKENS)
        self._inference = self._histogram(
            "te_predict_inference_duration", "Seconds of computing", _DURATIONS
        )
        self._waited = self._histogram(
            "te_predict_queue_duration", "Seconds in the queue", _DURATIONS
        )
        self._batch_texts = self._histogram("te_batch_next_size", "Texts of a batch", _TOKENS)
        self._batch_tokens = self._histogram("te_batch_next_tokens", "Tokens of a batch", _TOKENS)
        self._batch_models = self._histogram(
            "tunelab_batch_models", "Models in a batch", _TOKENS[:8]
        )
        self._queue = Gauge("te_queue_size", "Texts that wait", registry=self._registry)
        self._loaded = Gauge("tunelab_models", "Models in memory", registry=self._registry)
        self._by_model = {
            what: self._counter(f"tunelab_model_{what}", f"{what} by model".capitalize(), "model")
            for what in ("requests", "texts", "tokens")
        }

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(name, says, labels, registry=self._registry)

    def _histogram(self, name: str, says: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, says, registry=self._registry, buckets=buckets)

    def asked(self, path: str) -> None:
        """A request for answers came in."""
        self._requests.labels(path).inc()

    def succeeded(self, path: str, seconds: float) -> None:
        """It was answered."""
        self._successes.labels(path).inc()
        self._duration.observe(seconds)

    def answered(self, answer: ScoredTexts) -> None:
        """A model gave its scores."""
        self._answered.inc(len(answer.tokens))
        self._inference.observe(answer.computed_seconds)
        self._waited.observe(answer.queued_seconds)
        for n in answer.tokens:
            self._length.observe(int(n))
        sizes = {"requests": 1, "texts": len(answer.tokens), "tokens": int(answer.tokens.sum())}
        for what, size in sizes.items():
            self._by_model[what].labels(answer.model.name).inc(size)

    def refused(self, fault: str) -> None:
        """It was not."""
        self._failures.labels(fault).inc()

    def computed(self, batch: BatchFigures) -> None:
        """A batch was computed."""
        self._batch_texts.observe(batch.texts)
        self._batch_tokens.observe(batch.tokens)
        self._batch_models.observe(batch.models)

    def text(self, engine: ServingEngine) -> str:
        """All of it as Prometheus reads it."""
        self._queue.set(engine.queued_texts)
        self._loaded.set(len(engine.table.models))
        said = generate_latest(self._registry).decode()
        for name in _COUNTS:  # TEI's counters have no ending
            said = said.replace(f"{name}_total", name)
        return said
