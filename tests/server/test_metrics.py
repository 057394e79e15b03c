"""Metrics: what Prometheus scrapes is what was sent."""

import re
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from support.servers import client_of, in_process, live_server
from tercet import Engine
from tercet.engine.events import BatchEvent, OutOfMemoryEvent, ResidencyEvent
from tercet_server.app import create_app
from tercet_server.metrics import Metrics
from tercet_server.settings import Settings

pytestmark = pytest.mark.anyio
PATH, ROUTE = "/v1/encode/tiny", "/v1/encode/{model}"
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
def engine():
    with Engine(device="cpu", precision="float32") as engine:
        yield engine


async def scraped(client):
    """Return {(sample, {label: value}): number} of a scrape."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    families = text_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def at(samples, name, **labels):
    return samples.get((f"tercet_{name}", frozenset(labels.items())), 0.0)


async def test_what_was_sent_is_counted(engine, settings, tiny):
    texts = [["hello world", "again"], ["three"]]
    tokens = sum(int(engine.encode(tiny, batch).tokens.sum()) for batch in texts)
    async with in_process(engine, settings) as client:
        before = await scraped(client)
        for batch in texts:
            assert (await client.post(PATH, json={"items": batch})).status_code == 200
        assert (await client.post(PATH, json={"items": []})).status_code == 400
        assert (await client.post(PATH, content="{")).status_code == 400
        with anyio.fail_after(30):  # a batch is counted a moment after its answer
            while at(await scraped(client), "batch_sequences_sum", operation="encode", model=tiny) < 3:
                await anyio.sleep(0.01)
        after = await scraped(client)
    grown = {key: value - before.get(key, 0.0) for key, value in after.items()}
    uses = {"operation": "encode", "model": tiny}
    assert at(grown, "requests_total", route=ROUTE, **uses, status="200") == 2
    assert at(grown, "requests_total", route=ROUTE, **uses, status="400") == 1
    assert at(grown, "requests_total", route=ROUTE, operation="", model="", status="400") == 1
    assert at(grown, "errors_total", route=ROUTE, **uses, code="invalid_input") == 1
    assert at(grown, "items_total", **uses) == 3 and at(grown, "tokens_total", **uses) == tokens
    assert at(grown, "request_seconds_count", route=ROUTE, **uses) == 3
    for phase in ("queue", "tokenize", "inference", "serialize"):
        assert at(grown, "request_phase_seconds_count", **uses, phase=phase) == 2
        assert 0 <= at(grown, "request_phase_seconds_sum", **uses, phase=phase) < 60
    total = at(grown, "request_seconds_sum", route=ROUTE, **uses)
    assert at(grown, "request_phase_seconds_sum", **uses, phase="inference") <= total
    # The one warming batch came before the first scrape or after it.
    assert at(after, "batch_tokens_total", **uses) >= tokens
    assert at(after, "batch_fill_ratio_sum", **uses) * engine.device.max_batch_tokens == pytest.approx(
        at(after, "batch_tokens_total", **uses)
    )
    assert at(after, "batch_seconds_count", **uses) == at(after, "batch_sequences_count", **uses) >= 2


async def test_models_and_memory_are_as_the_engine_says(engine, settings, tiny):
    async with in_process(engine, settings) as client:
        samples = await scraped(client)
        (info,) = engine.models()
        assert at(samples, "model_resident_bytes", model=tiny) == info.size_bytes > 0
        assert at(samples, "memory_used_bytes") == info.size_bytes
        assert at(samples, "memory_budget_bytes") == engine.device.budget_bytes
        assert at(samples, "model_state", model=tiny, state="resident") == 1
        assert at(samples, "model_loads_total", model=tiny) == 1
        assert at(samples, "model_load_seconds_count", model=tiny) == 1
        assert at(samples, "model_load_seconds_sum", model=tiny) == pytest.approx(info.load_ms / 1e3)
        assert at(samples, "workers_alive") == 1 and at(samples, "worker_restarts_total") == 0
        with anyio.fail_after(30):
            while (await client.get("/readyz")).status_code != 200:  # the warming batch holds the model
                await anyio.sleep(0.01)
        assert (await client.post("/v1/models/tiny/unload")).status_code == 200
        samples = await scraped(client)
        assert at(samples, "model_evictions_total", model=tiny) == 1 and at(samples, "memory_used_bytes") == 0
        assert at(samples, "model_state", model=tiny, state="available") == 1
        assert at(samples, "model_state", model=tiny, state="resident") == 0


async def test_names_that_callers_make_up_are_no_labels(engine, settings):
    async with in_process(engine, settings) as client:
        for i in range(3):
            assert (await client.post(f"/v1/encode/made/up{i}", json={"items": ["a"]})).status_code == 404
            assert (await client.get(f"/made/up{i}")).status_code == 404
        samples = await scraped(client)
    assert not [labels for _, labels in samples if "up1" in str(labels)]
    assert at(samples, "errors_total", route=ROUTE, operation="encode", model="", code="model_not_found") == 3
    assert at(samples, "requests_total", route="", operation="", model="", status="404") == 3


def test_events_of_the_engine_are_counted(engine):
    metrics = Metrics(engine)
    metrics.on_event(OutOfMemoryEvent("m", "halve"))
    metrics.on_event(OutOfMemoryEvent("m", "halve"))
    metrics.on_event(ResidencyEvent("fail", "m", 0, {}))
    metrics.on_event(ResidencyEvent("evict", "m", 0, {}))
    metrics.on_event(BatchEvent("m", ("score",), "bulk", 4, 100, 0.2))
    value = metrics.registry.get_sample_value
    assert value("tercet_out_of_memory_steps_total", {"model": "m", "step": "halve"}) == 2
    assert value("tercet_model_load_failures_total", {"model": "m"}) == 1
    assert value("tercet_model_load_seconds_count", {"model": "m"}) is None
    assert value("tercet_batch_sequences_bucket", {"model": "m", "operation": "score", "le": "4.0"}) == 1
    assert value("tercet_batch_sequences_bucket", {"model": "m", "operation": "score", "le": "2.0"}) == 0


async def test_waiting_work_shows_in_the_queue(settings, tiny):
    held, go_on = threading.Semaphore(0), threading.Event()

    def hold(event):
        if isinstance(event, BatchEvent):
            held.release()
            go_on.wait(30)

    with Engine(device="cpu", precision="float32") as engine:
        async with in_process(engine, settings) as client, anyio.create_task_group() as group:
            engine.observers.add(hold)
            await engine.aencode(tiny, "first")
            # The first worker is held up, and no other runs a batch that is alone.
            assert await anyio.to_thread.run_sync(held.acquire, True, 30)
            group.start_soon(lambda: client.post(PATH, json={"items": ["a text that waits"]}))
            with anyio.fail_after(30):
                while not (waiting := at(samples := await scraped(client), "queue_tokens", model=tiny)):
                    await anyio.sleep(0.01)
            assert waiting >= 3 and at(samples, "queue_oldest_seconds", model=tiny) >= 0
            status = (await client.get("/v1/status")).json()
            assert status["queue"]["tokens"] == waiting == status["models"][0]["queued_tokens"]
            go_on.set()
        assert engine.state().waiting == {}


async def test_openmetrics_is_spoken_too(engine, settings):
    async with client_of(create_app(engine, settings)) as client:
        answer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert "tercet_requests" in {family.name for family in open_families(answer.text)}


async def test_metrics_need_a_key_where_there_are_keys(engine, settings):
    app = create_app(engine, Settings(api_keys=("read secret-key",)))
    async with client_of(app) as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers={"Authorization": "Bearer secret-key"})).status_code == 200


async def test_each_application_counts_for_itself(engine, settings):
    async with in_process(engine, settings) as one, in_process(engine, settings) as other:
        await one.post(PATH, json={"items": ["a"]})
        status = (await one.get("/v1/status")).json(), (await other.get("/v1/status")).json()
    assert [each["totals"]["requests"] for each in status] == [1, 0]
    assert not engine.observers


def test_every_metric_is_documented(engine):
    names = {family.name for family in Metrics(engine).registry.collect() if family.name.startswith("tercet_")}
    documented = set(re.findall(r"^\| `(tercet_\w+)`", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    kinds = {family.name: family.type for family in Metrics(engine).registry.collect()}
    suffix = {"counter": "_total", "info": "_info"}
    assert documented == {name + suffix.get(kinds[name], "") for name in names}


@pytest.mark.slow
def test_prometheus_itself_scrapes_us(tiny, tmp_path):
    program = shutil.which("prometheus")
    assert program, "prometheus is not installed; run scripts/system-packages.sh"
    with live_server({"models": (tiny,), "aliases": (f"tiny={tiny}",)}) as server:
        assert httpx.post(f"{server.url}{PATH}", json={"items": ["a", "b"]}).status_code == 200
        (tmp_path / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: tercet\n"
            f"  static_configs: [{{targets: ['127.0.0.1:{server.port}']}}]\n"
        )
        flags = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
        with prometheus(program, flags) as url:
            until = time.monotonic() + 60
            while not (found := queried(url, 'tercet_items_total{operation="encode"}')) and time.monotonic() < until:
                time.sleep(0.2)
            assert [float(each["value"][1]) for each in found] == [2.0]
            assert queried(url, "tercet_request_seconds_bucket") and queried(url, "tercet_model_resident_bytes > 0")


@contextmanager
def prometheus(program, flags):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen([program, *flags, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                if httpx.get(f"http://{address}/-/ready").status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, "prometheus ended"
            time.sleep(0.1)
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def queried(url, query):
    return httpx.get(f"{url}/api/v1/query", params={"query": query}).json()["data"]["result"]
