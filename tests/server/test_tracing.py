"""Traces: spans of requests and of their phases, and that they reach a collector."""

import http.server
import sys
import threading

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from support.servers import in_process, live_server
from tercet.errors import TercetError
from tercet_server.run import observing
from tercet_server.settings import Settings
from tercet_server.tracing import Traces

pytestmark = pytest.mark.anyio
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def spans():
    """Return what finished spans there are, and what is told of requests."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter.get_finished_spans, Traces(provider).on_exchange
    provider.shutdown()


async def test_a_request_is_a_span_with_its_phases(engine, settings, tiny, spans):
    finished, observe = spans
    async with in_process(engine, settings, observers=[observe]) as client:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "mine"}
        await client.post("/v1/encode/tiny", json={"items": ["some words", "more"]}, headers=headers)
    named = {span.name: span for span in finished()}
    request, encode = named["POST /v1/encode/{model}"], named["encode"]
    assert request.kind is SpanKind.SERVER and request.status.status_code is StatusCode.UNSET
    assert {f"{span.context.trace_id:032x}" for span in named.values()} == {TRACE}
    assert f"{request.parent.span_id:016x}" == PARENT
    wanted = {"http.response.status_code": 200, "http.route": "/v1/encode/{model}", "tercet.request_id": "mine"}
    assert wanted.items() <= dict(request.attributes).items()
    assert dict(encode.attributes)["tercet.model"] == tiny and dict(encode.attributes)["tercet.items"] == 2
    parents = {name: next(p for p, s in named.items() if s.context.span_id == span.parent.span_id)
               for name, span in named.items() if span is not request}  # fmt: skip
    phases = dict.fromkeys(("tokenize", "queue", "inference"), "encode")
    assert parents == {"encode": request.name, "serialize": request.name, **phases}
    for name, parent in parents.items():
        span, around = named[name], named[parent]
        assert around.start_time - 1000 <= span.start_time <= span.end_time <= around.end_time + 1000, name
    assert named["tokenize"].end_time <= named["queue"].start_time + 1000
    assert named["queue"].end_time <= named["inference"].start_time + 1000
    assert "some words" not in str([span.to_json() for span in finished()])


async def test_failures_are_marked(engine, settings, spans):
    finished, observe = spans
    async with in_process(engine, settings, observers=[observe]) as client:
        await client.post("/v1/encode/tiny", json={"items": ["a"]}, headers={"X-Request-Timeout-Ms": "0"})
        await client.get("/nothing")
    late, nothing = finished()
    assert late.status.status_code is StatusCode.ERROR and late.attributes["error.type"] == "deadline_exceeded"
    assert nothing.name == "GET" and nothing.status.status_code is StatusCode.UNSET
    assert nothing.attributes["error.type"] == "route_not_found"


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes traces in as OpenTelemetry's collector does."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_a_server_sends_its_traces_to_a_collector(tiny):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        collector.received = []
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        traces = f"http://127.0.0.1:{collector.server_address[1]}/v1/traces"
        environment = {"OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
        with live_server({"aliases": (f"tiny={tiny}",), "traces": traces}, environment) as server:
            httpx.post(f"{server.url}/v1/encode/tiny", json={"items": ["a"]})
            server.signal(2)
            assert server.exit_status() == 0
        collector.shutdown()
    resources = [each for request in collector.received for each in request.resource_spans]
    names = [span.name for each in resources for scope in each.scope_spans for span in scope.spans]
    assert {"POST /v1/encode/{model}", "encode", "inference"} <= set(names)
    assert ("service.name", "tercet") in {
        (a.key, a.value.string_value) for each in resources for a in each.resource.attributes
    }


def test_traces_without_opentelemetry_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tercet_server.tracing", None)
    with pytest.raises(TercetError, match=r"pip install 'tercet\[otel\]'"), observing(Settings(traces="http://x")):
        pass
    with observing(Settings()) as observers:
        assert len(observers) == 1
