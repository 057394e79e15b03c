"""The application: what every endpoint gets, whatever its dialect."""

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import numpy as np
import pytest

from support.servers import client_of, in_process
from tercet import Engine
from tercet_server.app import create_app
from tercet_server.settings import Settings

pytestmark = pytest.mark.anyio
PATH = "/v1/encode/tiny"


@pytest.fixture
async def client(engine, settings):
    async with in_process(engine, settings) as client:
        yield client


def body(*texts):
    return {"items": list(texts)}


async def test_the_engines_vectors_come_out(client, engine, tiny):
    answer = await client.post(PATH, json=body("hello world", "again"))
    assert answer.status_code == 200 and answer.json()["model"] == "tiny"
    values = np.array([item["dense"]["values"] for item in answer.json()["items"]], np.float32)
    np.testing.assert_array_equal(values, engine.encode(tiny, ["hello world", "again"]).dense)


async def test_every_answer_says_who_and_how_long(client):
    answer = await client.post(PATH, json=body("a"), headers={"X-Request-Id": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    phases = [float(answer.headers[f"x-{name}-ms"]) for name in ("queue", "tokenization", "inference")]
    assert all(ms >= 0 for ms in phases) and phases[2] > 0
    assert sum(phases) <= float(answer.headers["x-total-ms"])
    failed, other = [await client.get("/nothing") for _ in range(2)]
    assert re.fullmatch("[0-9a-f]{32}", failed.headers["x-request-id"]) and "x-total-ms" in failed.headers
    assert failed.headers["x-request-id"] != other.headers["x-request-id"]


async def test_the_first_of_headers_with_one_name_counts(client):
    answer = await client.get("/healthz", headers=[("X-Request-Id", "first"), ("x-request-id", "second")])
    assert answer.headers["x-request-id"] == "first"


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code"),
    [
        ("POST", PATH, "{", 400, "invalid_input"),
        ("POST", PATH, '{"items": [{}]}', 400, "invalid_input"),
        ("POST", PATH, '{"items": []}', 400, "invalid_input"),
        ("POST", "/v1/encode/no/such", '{"items": ["a"]}', 404, "model_not_found"),
        ("POST", "/v1/encode/a/b/c", '{"items": ["a"]}', 400, "invalid_input"),
        ("POST", "/v1/encode/..%2Ftiny", '{"items": ["a"]}', 400, "invalid_input"),
        ("POST", "/v1/encode/%2Fetc", '{"items": ["a"]}', 400, "invalid_input"),
        ("POST", "/v1/encode/~%2Fx", '{"items": ["a"]}', 400, "invalid_input"),
        ("POST", "/v1/encode/core/tercet", '{"items": ["a"]}', 400, "invalid_input"),
        ("GET", PATH, "", 405, "method_not_allowed"),
        ("PATCH", PATH, "", 405, "method_not_allowed"),
        ("POST", "/nothing", "", 404, "route_not_found"),
        ("GET", "/%ff%00", "", 404, "route_not_found"),
    ],
)
async def test_mistakes_are_told_in_json(client, method, path, content, status, code):
    answer = await client.request(method, path, content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers.get("allow") == "POST") == (status == 405)


async def test_no_content_type_is_needed(client):
    request = client.build_request("POST", PATH, content=b'{"items": ["a"]}')
    assert "content-type" not in request.headers
    assert (await client.send(request)).status_code == 200


async def test_head_has_the_headers_of_get_and_no_body(client):
    get, head = await client.get("/healthz"), await client.head("/healthz")
    assert head.content == b"" and head.headers["content-length"] == str(len(get.content))


async def test_a_deadline_is_kept(client, engine, tiny):
    many = body(*(f"text {i} " * 30 for i in range(3000)))
    late = await client.post(PATH, json=many, headers={"X-Request-Timeout-Ms": "40"})
    assert late.status_code == 504 and late.json()["error"]["code"] == "deadline_exceeded"
    none = await client.post(PATH, json=body("a"), headers={"X-Request-Timeout-Ms": "0"})
    assert none.status_code == 504
    assert (await client.post(PATH, json=body("a"))).status_code == 200


async def test_a_body_that_does_not_come_is_not_waited_for_longer_than_the_caller_does(client):
    async def never():
        yield b'{"items": '
        await asyncio.sleep(60)

    answer = await client.post(PATH, content=never(), headers={"X-Request-Timeout-Ms": "50"})
    assert answer.status_code == 504 and "body was on its way" in answer.json()["error"]["message"]


async def test_a_cold_model_is_loaded_behind_a_caller_who_does_not_wait(tiny):
    with Engine(device="cpu", precision="float32") as engine:
        async with in_process(engine, Settings(aliases={"tiny": tiny})) as client:
            for choice in ({"params": {"wait": "false"}}, {"headers": {"X-Wait-For-Model": "false"}}):
                while not engine.unload(tiny):  # the last batch may still hold it
                    await asyncio.sleep(0.01)
                cold = await client.post(PATH, json=body("a"), **choice)
                assert cold.status_code == 503 and cold.json()["error"]["code"] == "model_loading"
                assert int(cold.headers["retry-after"]) >= 1
                while (answer := await client.post(PATH, json=body("a"), **choice)).status_code == 503:
                    await asyncio.sleep(0.01)
                assert answer.status_code == 200


async def test_pages_of_other_sites_are_refused_unless_allowed(engine, settings):
    async with in_process(engine, settings) as client:
        foreign = await client.post(PATH, json=body("a"), headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403 and "access-control-allow-origin" not in foreign.headers
        own = await client.post(PATH, json=body("a"), headers={"Origin": "http://server.test"})
        assert own.status_code == 200
    async with in_process(engine, replace(settings, cors_origins=("https://app.example",))) as client:
        asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        assert (await client.options(PATH, headers=asked)).status_code == 200
        answer = await client.post(PATH, json=body("a"), headers={"Origin": "https://app.example"})
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]


async def test_keys_are_asked_for_and_never_logged(engine, settings, caplog):
    caplog.set_level("DEBUG")
    async with in_process(engine, replace(settings, api_keys=("reader-secret", "admin admin-secret"))) as client:
        missing = await client.post(PATH, json=body("a"))
        assert missing.status_code == 401 and missing.headers["www-authenticate"] == "Bearer"
        wrong = await client.post(PATH, content=b"{", headers={"X-API-Key": "guess-secret"})
        assert wrong.status_code == 401, "the key goes before the body"
        for headers in ({"Authorization": "Bearer reader-secret"}, {"X-API-Key": "reader-secret"}):
            assert (await client.post(PATH, json=body("a"), headers=headers)).status_code == 200
            assert (await client.post("/v1/models/tiny/load", headers=headers)).status_code == 403
        allowed = {"Authorization": "Bearer admin-secret"}
        assert (await client.post("/v1/models/tiny/load", headers=allowed)).status_code == 200
        assert (await client.get("/healthz")).status_code == 200
    assert "secret" not in caplog.text and "secret" not in missing.text + wrong.text


async def test_only_allowed_models_are_served(engine, settings, tiny):
    async with in_process(engine, replace(settings, allow=("BAAI/*",))) as client:
        assert (await client.post(PATH, json=body("a"))).status_code == 200
        other = await client.post("/v1/encode/bm25", json=body("a"))
        assert other.status_code == 404 and "not served here" in other.json()["error"]["message"]


async def test_observers_see_every_request(engine, settings):
    seen = []
    async with in_process(engine, settings, observers=[seen.append]) as client:
        await client.post(PATH, json=body("one two", "three"), headers={"X-Request-Id": "first"})
        await client.post(PATH, content=b"{")
    exchange, failed = seen
    assert (exchange.request_id, exchange.status, exchange.endpoint.dialect.name) == ("first", 200, "native")
    assert exchange.call.tokens > 4 and exchange.error is None and exchange.sent_bytes > 0
    assert [(use.operation, use.items) for use in exchange.call.uses] == [("encode", 2)]
    assert 0 <= exchange.serialize_ms < exchange.total_ms
    assert failed.status == 400 and failed.error.code == "invalid_input" and failed.call is None


async def test_a_failure_of_ours_is_a_500_and_its_traceback_is_logged(engine, settings, caplog):
    app = create_app(engine, settings)
    app.state.service.keys = None  # as broken as a server can be
    async with client_of(app) as client:
        answer = await client.post(PATH, json=body("a"))
    assert answer.status_code == 500 and answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert "NoneType" in caplog.text and "NoneType" not in answer.text


async def test_an_answer_that_cannot_be_written_is_a_500_too(engine, settings):
    app = create_app(engine, settings)
    app.state.service.readiness.waiting[1] = object()
    async with client_of(app) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal"


# ── callers that go away ─────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def leaving(app, path, content):
    """Send a request straight to the application; yield the event that makes its caller go away, and its task."""
    gone, asked = asyncio.Event(), False
    sent = []

    async def receive():
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": content, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    url = httpx.URL(path)
    scope = {"type": "http", "method": "POST", "path": url.path, "raw_path": url.raw_path, "headers": []}
    task = asyncio.create_task(app({**scope, "query_string": b"", "root_path": ""}, receive, send))
    yield gone, task, sent


async def test_a_caller_that_goes_away_gives_its_place_back(slow):
    seen = []
    with Engine(device="cpu", precision="float32", max_queue_tokens=2000) as engine:
        app = create_app(engine, Settings(aliases={"tiny": slow}), observers=[seen.append])
        async with client_of(app) as client:
            await client.post(PATH, json=body("warm"))
            many = httpx.Request("POST", "http://x", json=body(*("word " * 300 for _ in range(5000)))).content
            async with leaving(app, PATH, many) as (gone, task, sent):
                while sum(waiting.tokens for waiting in engine.state().waiting.values()) < 2000:
                    await asyncio.sleep(0.01)
                full = await client.post(PATH, json=body("word " * 300))
                assert full.status_code == 429 and int(full.headers["retry-after"]) >= 1
                assert full.json()["error"]["code"] == "overloaded" and not task.done()
                gone.set()
                await task
            assert sent == [], "nobody is there to be answered"
            while engine.state().waiting:  # a chunk may just be on its way into the queue
                await asyncio.sleep(0.01)
            assert (await client.post(PATH, json=body("word " * 300))).status_code == 200
        assert engine.models()[0].hits < 50, "all of it would have been more than 150 batches"
    assert [exchange.status for exchange in seen] == [200, 429, 499, 200]


async def test_a_server_that_is_cancelled_is_not_a_caller_that_left(engine, settings):
    app = create_app(engine, settings)
    many = httpx.Request("POST", "http://x", json=body(*("word " * 300 for _ in range(2000)))).content
    async with leaving(app, PATH, many) as (_, task, sent):
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert sent == []
