"""Traces: a span for each request, one for each call of the engine, and one for each of its phases.

Needs OpenTelemetry (`pip install 'tercet[otel]'`), and is imported only where traces are asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from tercet.version import __version__
from tercet_server.endpoint import Use

if TYPE_CHECKING:
    from tercet_server.gateway import Exchange


def open_provider(url: str) -> TracerProvider:
    """Return a provider that sends spans, in batches and from a thread of its own, to an OTLP/HTTP address."""
    provider = TracerProvider(resource=Resource.create({"service.name": "tercet", "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return provider


class Traces:
    """Makes spans of finished requests."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer: Tracer = provider.get_tracer("tercet", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def on_exchange(self, exchange: Exchange) -> None:
        """Trace a request that is over, under the caller's own span if it names one."""
        clock = _Clock()
        route = exchange.endpoint.path if exchange.endpoint else ""
        span = self._tracer.start_span(
            f"{exchange.method} {route}".rstrip(),
            self._propagator.extract(dict(exchange.headers)),
            SpanKind.SERVER,
            _attributes(exchange, route),
            start_time=clock.ns(exchange.started_at),
        )
        if exchange.status >= 500:
            span.set_status(StatusCode.ERROR, exchange.error.message if exchange.error else None)
        within = set_span_in_context(span)
        for use in exchange.call.uses if exchange.call else []:
            self._trace_use(use, within, clock)
        serialize_ms = exchange.serialize_ms
        if serialize_ms is not None and exchange.ready_at is not None:
            self._add("serialize", within, clock, exchange.ready_at - serialize_ms / 1e3, exchange.ready_at)
        span.end(clock.now_ns)

    def _trace_use(self, use: Use, context: Context, clock: _Clock) -> None:
        ended_at = clock.now if use.answered_at is None else use.answered_at
        attributes: dict[str, AttributeValue] = {
            "tercet.model": use.model,
            "tercet.items": use.items,
            "tercet.tokens": use.tokens,
        }
        span = self._tracer.start_span(use.operation, context, attributes=attributes, start_time=clock.ns(use.began_at))
        within = set_span_in_context(span)
        for phase, began_at, until in _phases(use, ended_at):
            self._add(phase, within, clock, began_at, until)
        span.end(clock.ns(ended_at))

    def _add(self, name: str, context: Context, clock: _Clock, began_at: float, ended_at: float) -> None:
        self._tracer.start_span(name, context, start_time=clock.ns(began_at)).end(clock.ns(ended_at))


class _Clock:
    """From the monotonic clock to nanoseconds since 1970, as of now."""

    def __init__(self) -> None:
        self.now, self.now_ns = time.monotonic(), time.time_ns()

    def ns(self, at: float) -> int:
        """Return the moment for people's clocks."""
        return self.now_ns - int((self.now - at) * 1e9)


def _attributes(exchange: Exchange, route: str) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "http.request.method": exchange.method,
        "http.route": route,
        "url.path": exchange.path,
        "http.response.status_code": exchange.status,
        "http.response.body.size": exchange.sent_bytes,
        "tercet.request_id": exchange.request_id,
    }
    if exchange.endpoint is not None:
        attributes["tercet.dialect"] = exchange.endpoint.dialect.name
    if exchange.error is not None:
        attributes["error.type"] = exchange.error.code
    return attributes


def _phases(use: Use, ended_at: float) -> Iterator[tuple[str, float, float]]:
    """Yield each phase with its begin and end: laid end to end, since durations are all that is known of them."""
    if use.timings is None:
        return
    began_at = use.began_at
    durations = (use.timings.tokenization_ms, use.timings.queue_ms, use.timings.inference_ms)
    for name, ms in zip(("tokenize", "queue", "inference"), durations, strict=True):
        until = min(began_at + ms / 1e3, ended_at)
        yield name, began_at, until
        began_at = until
