"""`Metrics`: what the server and its engine have done, for Prometheus; docs/metrics.md explains each of them.

Each application has a registry of its own. What the engine counts anyway is read when somebody scrapes; the rest comes
from its events and from finished requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from tercet.engine.engine import Engine
from tercet.engine.events import BatchEvent, Event, OutOfMemoryEvent
from tercet.engine.state import EngineState
from tercet.types import OUTPUTS, ModelInfo
from tercet.version import __version__
from tercet_server.endpoint import Use

if TYPE_CHECKING:
    from tercet_server.gateway import Exchange

STATES = ("available", "loading", "resident", "parked", "failed")
PHASES = ("queue", "tokenize", "inference", "serialize")

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LOAD_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_SEQUENCES = tuple(float(2**i) for i in range(11))
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Metrics:
    """Counts for one application. `on_exchange` runs on its event loop, `on_event` on the engine's threads.

    Attributes:
        registry: holds everything that `/metrics` shows.
        requests, failures, tokens: since the start, over all models; requests are those that asked a model, failures
            those with a status of 500 and more.
    """

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.requests = self.failures = self.tokens = 0
        self._requests = _Requests(self.registry)
        self._work = _Work(self.registry, engine.device.max_batch_tokens)
        # Names come from callers: only those that were once good for something become labels.
        self._known = {info.id for info in engine.models()}
        self.registry.register(_EngineCollector(engine))
        ProcessCollector(registry=self.registry)

    def on_exchange(self, exchange: Exchange) -> None:
        """Count a finished request."""
        uses = exchange.call.uses if exchange.call else []
        self.requests += bool(uses)
        self.failures += exchange.status >= 500
        self._known.update(use.model for use in uses if use.answered_at)
        first = uses[0] if uses else None
        self._requests.count(exchange, self._label(first))
        for use in uses:
            self.tokens += use.tokens
            self._requests.count_use(use, self._label(use))

    def on_event(self, event: Event) -> None:
        """Count what the engine did."""
        if event.model not in self._known:
            self._known = {*self._known, event.model}  # another thread may be reading it
        self._work.count(event)

    def rendered(self, accept: str) -> tuple[bytes, str]:
        """Return everything in the format that the `Accept` header prefers, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type

    def _label(self, use: Use | None) -> tuple[str, str]:
        if use is None:
            return "", ""
        return use.operation, use.model if use.model in self._known else ""


class _Requests:
    """What finished requests are counted into."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tercet_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"tercet_{name}", text, labels, registry=registry, buckets=_SECONDS)

        by = ("operation", "model")
        self._requests = counter("requests", "Requests answered", "route", *by, "status")
        self._errors = counter("errors", "Requests that failed", "route", *by, "code")
        self._seconds = histogram("request_seconds", "From request to answer", "route", *by)
        self._phases = histogram("request_phase_seconds", "One phase of a request", *by, "phase")
        self._items = counter("items", "Texts encoded and documents scored", *by)
        self._tokens = counter("tokens", "Tokens read for answered requests", *by)
        self._children: dict[tuple[Any, tuple[str, ...]], Any] = {}

    def count(self, exchange: Exchange, labels: tuple[str, str]) -> None:
        """Count the request as a whole."""
        route = exchange.endpoint.path if exchange.endpoint else ""
        self._of(self._requests, route, *labels, str(exchange.status)).inc()
        self._of(self._seconds, route, *labels).observe(exchange.total_ms / 1e3)
        if exchange.error is not None:
            self._of(self._errors, route, *labels, exchange.error.code).inc()
        if (serialize_ms := exchange.serialize_ms) is not None:
            self._of(self._phases, *labels, "serialize").observe(serialize_ms / 1e3)

    def count_use(self, use: Use, labels: tuple[str, str]) -> None:
        """Count one engine call."""
        if use.answered_at is None:
            return
        self._of(self._items, *labels).inc(use.items)
        self._of(self._tokens, *labels).inc(use.tokens)
        if (timings := use.timings) is not None:
            phases = (timings.queue_ms, timings.tokenization_ms, timings.inference_ms)
            for phase, ms in zip(PHASES, phases, strict=False):
                self._of(self._phases, *labels, phase).observe(ms / 1e3)

    def _of(self, metric: Counter | Histogram, *labels: str) -> Any:
        """Return the labelled series; looked up here, since the library's own way is several times slower."""
        child = self._children.get((metric, labels))
        if child is None:
            child = self._children[metric, labels] = metric.labels(*labels)
        return child


class _Work:
    """What the engine's events are counted into."""

    def __init__(self, registry: CollectorRegistry, max_batch_tokens: int) -> None:
        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"tercet_{name}", text, labels, registry=registry, buckets=buckets)

        by = ("operation", "model")
        self._max_batch_tokens = max_batch_tokens
        self._seconds = histogram("batch_seconds", "One batch on the device", _SECONDS, *by)
        self._sequences = histogram("batch_sequences", "Texts in a batch", _SEQUENCES, *by)
        self._fill = histogram("batch_fill_ratio", "Tokens of a batch by the most it may have", _SHARES, *by)
        self._tokens = Counter("tercet_batch_tokens", "Tokens through the device", by, registry=registry)
        self._loads = histogram("model_load_seconds", "One load of a model", _LOAD_SECONDS, "model")
        self._failures = Counter("tercet_model_load_failures", "Loads that failed", ("model",), registry=registry)
        text = "Steps taken because a batch did not fit into memory"
        self._steps = Counter("tercet_out_of_memory_steps", text, ("model", "step"), registry=registry)

    def count(self, event: Event) -> None:
        """Count one event."""
        if isinstance(event, BatchEvent):
            labels = ("encode" if set(event.outputs) <= set(OUTPUTS) else "score", event.model)
            self._seconds.labels(*labels).observe(event.seconds)
            self._sequences.labels(*labels).observe(event.sequences)
            self._fill.labels(*labels).observe(event.tokens / self._max_batch_tokens)
            self._tokens.labels(*labels).inc(event.tokens)
        elif isinstance(event, OutOfMemoryEvent):
            self._steps.labels(event.model, event.step).inc()
        elif event.kind == "fail":
            self._failures.labels(event.model).inc()
        elif event.seconds is not None:
            self._loads.labels(event.model).observe(event.seconds)


@dataclass(frozen=True)
class _EngineCollector:
    """What the engine itself knows, asked at each scrape."""

    engine: Engine

    def describe(self) -> list[Metric]:
        """Return nothing: the names are known from `collect`, which asks the engine."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the engine's own numbers."""
        device = self.engine.device
        about = {"version": __version__, "device": str(device.target), "precision": device.precision}
        yield InfoMetricFamily("tercet_build", "What runs, and where", about)
        yield from _of_state(self.engine.state())
        yield from _of_models(self.engine.models())


def _of_state(state: EngineState) -> Iterator[Metric]:
    yield _gauge("queue_tokens", "Tokens that wait", {(m,): float(w.tokens) for m, w in state.waiting.items()}, "model")
    ages = {(model,): waiting.oldest_s for model, waiting in state.waiting.items()}
    yield _gauge("queue_oldest_seconds", "How long the oldest work has waited", ages, "model")
    yield _gauge("queue_limit_tokens", "Requests are refused above it", {(): state.max_queue_tokens})
    yield _gauge("device_tokens_per_second", "While a batch runs, smoothed", {(): state.tokens_per_s})
    yield _gauge("memory_used_bytes", "Weights on the device, and being loaded", {(): state.used_bytes})
    yield _gauge("memory_budget_bytes", "What all weights may take", {(): state.budget_bytes})
    yield _gauge("workers_alive", "1 while every thread that runs batches is up", {(): state.alive})
    yield CounterMetricFamily("tercet_worker_restarts", "Workers that failed and went on", value=state.restarts)


def _of_models(models: list[ModelInfo]) -> Iterator[Metric]:
    states = {(info.id, state): float(info.state == state) for info in models for state in STATES}
    yield _gauge("model_state", "1 for the state that it is in", states, "model", "state")
    resident = {(info.id,): info.resident_bytes for info in models}
    yield _gauge("model_resident_bytes", "Its weights on the device", resident, "model")
    loads = CounterMetricFamily("tercet_model_loads", "Loads that succeeded", labels=("model",))
    evictions = CounterMetricFamily("tercet_model_evictions", "Times its weights were dropped", labels=("model",))
    for info in models:
        loads.add_metric([info.id], info.loads)
        evictions.add_metric([info.id], info.evictions)
    yield from (loads, evictions)


def _gauge(name: str, text: str, values: dict[Any, Any], *labels: str) -> Metric:
    family = GaugeMetricFamily(f"tercet_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), float(value))
    return family
