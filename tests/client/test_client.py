"""Clients against a server that answers as it is told: what is sent, cut, sent again, waited for and given up."""

import asyncio
import inspect
import json
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import httpx
import numpy as np
import pytest

from support.results import assert_same, embeddings, model_info, scores
from support.scripted_server import Told, scripted
from tercet import (
    AsyncClient,
    AuthenticationError,
    Client,
    DeadlineExceededError,
    EngineClosedError,
    InvalidInputError,
    Item,
    ModelLoadError,
    ModelLoadingError,
    OverloadedError,
    TransportError,
)
from tercet.wire import ARROW, JSON
from tercet.wire.columns import embeddings_stream, scores_stream
from tercet.wire.failures import error_document
from tercet.wire.models import model_document
from tercet.wire.requests import read_request

DENSE = frozenset(["dense"])


class BlockingAsync:
    """An `AsyncClient` with blocking methods, each call on an event loop of its own."""

    def __init__(self, url, **choices):
        self._made = url, choices

    def __getattr__(self, name):
        def call(*args, **keywords):
            async def run():
                async with AsyncClient(self._made[0], **self._made[1]) as client:
                    return await getattr(client, name)(*args, **keywords)

            return asyncio.run(run())

        return call

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        pass


@pytest.fixture(params=[Client, BlockingAsync], ids=["sync", "async"])
def kind(request):
    return request.param


def asked_items(asked):
    """The items and the rest of an encode or score request, in either form."""
    if asked.headers["content-type"] == ARROW:
        return read_request(asked.body)
    rest = json.loads(asked.body)
    return rest.pop("items"), rest


def encoded(asked):
    """Answer with vectors drawn from the first text's length."""
    items, _ = asked_items(asked)
    ids = [item.id if isinstance(item, Item) else None for item in items]
    return Told(200, embeddings_stream(embeddings(len(items), DENSE, "float32", ids)), {"Content-Type": ARROW})


def failing(error):
    return Told(error.status, json.dumps(error_document(error)).encode(), {"Content-Type": JSON})


def in_turn(*answers):
    """Answer each request with the next one, the last for ever; functions are asked."""
    left = list(answers)

    def script(asked):
        answer = left.pop(0) if len(left) > 1 else left[0]
        return answer(asked) if callable(answer) else answer

    return script


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_small_request_is_readable_json_with_all_that_goes_along(kind):
    with scripted(encoded) as server, kind(server.url + "/", api_key="the key") as client:
        client.encode("org/name@rev", ["a", Item("b", id="é")], is_query=True, dimensions=4, timeout_s=7)
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/encode/org/name@rev")
    assert json.loads(asked.body) == {
        "items": ["a", {"text": "b", "id": "é"}],
        "params": {"is_query": True, "dimensions": 4},
    }
    assert asked.headers["authorization"] == "Bearer the key"
    assert asked.headers["content-type"] == JSON and asked.headers["accept"] == ARROW
    assert 6000 < int(asked.headers["x-request-timeout-ms"]) <= 7000
    assert asked.headers["user-agent"].startswith("tercet/")


def test_without_a_deadline_the_server_is_told_to_be_patient(kind):
    with scripted(encoded) as server, kind(server.url) as client:
        client.encode("m", "a")
    assert int(server.asked[0].headers["x-request-timeout-ms"]) == 3_600_000
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize(
    ("model", "path"),
    [("a b", "a%20b"), ("a?b#c", "a%3Fb%23c"), ("é/ü", "%C3%A9/%C3%BC"), ("a%2Fb", "a%252Fb"), ("m:dense", "m:dense")],
)
def test_any_name_fits_into_the_path(kind, model, path):
    with scripted(encoded) as server, kind(server.url) as client:
        client.encode(model, "a")
    assert server.asked[0].path == f"/v1/encode/{path}"


def test_a_long_input_is_cut_into_requests_side_by_side_and_joined_in_order(kind):
    several = threading.Barrier(2)

    def script(asked):
        items, _ = asked_items(asked)
        if len(items) == 1024:
            several.wait(10)  # two at once, or this breaks
        rows = np.array([[float(item)] * 3 for item in items], np.float32)
        drawn = embeddings(1, DENSE, "float32", [None] * len(items))
        return Told(200, embeddings_stream(replace(drawn, dense=rows)))

    progress = []
    with scripted(script) as server, kind(server.url, max_concurrency=3) as client:
        result = client.encode("m", [str(n) for n in range(5000)], progress=lambda *seen: progress.append(seen))
    assert result.dense[:, 0].tolist() == list(range(5000)) and result.dense.flags.owndata
    assert sorted(len(asked_items(asked)[0]) for asked in server.asked) == [904, 1024, 1024, 1024, 1024]
    assert progress[0] == (0, 5000) and progress[-1] == (5000, 5000) and len(progress) == 6
    assert 2 <= server.most_at_once <= 3


def test_long_texts_are_cut_by_their_length_and_token_vectors_finer(kind):
    texts = ["x" * 60_000] * 20
    with scripted(encoded) as server, kind(server.url) as client:
        client.encode("m", texts)
        dense = len(server.asked)
        client.encode("m", texts, output_types=["multivector"])
    assert dense == 3 and len(server.asked) - dense == 20


def test_every_output_is_joined(kind):
    outputs = frozenset(["dense", "sparse", "multivector"])

    def script(asked):
        items, _ = asked_items(asked)
        return Told(200, embeddings_stream(embeddings(int(items[0]), outputs, "int8", list(items))))

    with scripted(script) as server, kind(server.url) as client:
        names = [str(n) for n in range(2500)]
        result = client.encode("m", names)
    parts = [embeddings(first, outputs, "int8", names[first : first + 1024]) for first in (0, 1024, 2048)]
    assert result.ids == names and len(server.asked) == 3
    for n, (part, i) in {0: (0, 0), 1023: (0, 1023), 1024: (1, 0), 2499: (2, 451)}.items():
        assert_same(dict(result[n]), dict(parts[part][i]))
        assert_same(result[n].quantization, parts[part][i].quantization)
    steps = np.concatenate([part.multivector.quantization.scale for part in parts])
    np.testing.assert_array_equal(result.multivector.quantization.scale, steps)


def test_scores_are_ranked_over_all_requests(kind):
    def script(asked):
        items, rest = asked_items(asked)
        assert rest == {"query": "q", "options": {"scoring": "dense"}}
        drawn = scores(1, len(items))
        values = np.array([int(item) % 100 for item in items], np.float32)
        return Told(200, scores_stream(replace(drawn, scores=values, ids=[None] * len(items))))

    with scripted(script) as server, kind(server.url) as client:
        ranked = client.score("m", "q", [str(n) for n in range(3000)], top_k=3, options={"scoring": "dense"})
    assert [row.index for row in ranked] == [99, 199, 299] and len(ranked.scores) == 3000
    assert len(server.asked) == 3


def test_models_are_asked_for_by_their_own_addresses(kind):
    document = model_document(model_info())

    def script(asked):
        if asked.path == "/v1/models":
            return Told(200, json.dumps({"models": [document]}).encode())
        return Told(200, json.dumps(document).encode())

    with scripted(script) as server, kind(server.url) as client:
        assert client.models() == [model_info()]
        assert client.load("org/name", timeout_s=5) == model_info()
        assert client.pin("org/name", False) == model_info()
        assert client.unload("org/name") is True
    at = "/v1/models/org/name"
    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("GET", "/v1/models"),
        ("POST", f"{at}/load"),
        ("GET", at),
        ("POST", f"{at}/pin"),
        ("GET", at),
        ("POST", f"{at}/unload"),
    ]
    assert json.loads(server.asked[3].body) == {"pinned": False}


def test_a_model_in_use_is_not_dropped_and_not_asked_for_twice(kind):
    with scripted(in_turn(failing(OverloadedError("in use", retry_after_s=0)))) as server, kind(server.url) as client:
        assert client.unload("m") is False
    assert len(server.asked) == 1


def test_connections_are_used_again():
    with scripted(encoded) as server, Client(server.url) as client:
        for _ in range(5):
            client.encode("m", "x")
    assert len(server.asked) == 5 and server.connections == 1


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

BUSY = failing(OverloadedError("full", retry_after_s=0.01))
LOADING = failing(ModelLoadingError("loading", retry_after_s=0.01))
CLOSING = failing(EngineClosedError("closing", retry_after_s=0.01))
BROKEN = Told(None)
PROXY = Told(502, b"<html>bad gateway</html>", {"Retry-After": "0"})
ACCEPTED = Told(202, b"", {"Retry-After": "0"})


@pytest.mark.parametrize("trouble", [BUSY, LOADING, CLOSING, BROKEN, PROXY, ACCEPTED])
def test_a_passing_failure_is_tried_again(kind, trouble):
    with scripted(in_turn(trouble, encoded)) as server, kind(server.url) as client:
        assert len(client.encode("m", ["x"])) == 1
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (BUSY, OverloadedError),
        (LOADING, ModelLoadingError),
        (CLOSING, EngineClosedError),
        (BROKEN, TransportError),
        (PROXY, TransportError),
        (ACCEPTED, OverloadedError),
    ],
)
def test_retries_have_an_end(kind, trouble, error):
    with scripted(in_turn(trouble)) as server, kind(server.url, retries=1) as client, pytest.raises(error):
        client.encode("m", ["x"])
    assert len(server.asked) == 2


@pytest.mark.parametrize("trouble", [BUSY, LOADING, CLOSING, ACCEPTED])
def test_who_waits_for_capacity_is_not_counted(kind, trouble):
    with (
        scripted(in_turn(*[trouble] * 8, encoded)) as server,
        kind(server.url, retries=0, wait_for_capacity=True) as client,
    ):
        assert len(client.encode("m", ["x"])) == 1
    assert len(server.asked) == 9


@pytest.mark.parametrize(
    "error",
    [
        InvalidInputError("item 0 is bad"),
        AuthenticationError("who?"),
        ModelLoadError("no memory"),
        DeadlineExceededError("the server's own deadline"),
    ],
)
def test_a_lasting_failure_is_raised_at_once(kind, error):
    with (
        scripted(in_turn(failing(error))) as server,
        kind(server.url, wait_for_capacity=True) as client,
        pytest.raises(type(error)) as caught,
    ):
        client.encode("m", ["x"])
    assert caught.value.message == error.message and len(server.asked) == 1


@pytest.mark.parametrize("told", [Told(404, b"not here"), Told(200, b"<html>"), Told(200, b""), Told(302), Told(500)])
def test_an_answer_that_is_none_is_a_transport_error(kind, told):
    with scripted(in_turn(told)) as server, kind(server.url) as client, pytest.raises(TransportError, match="answer"):
        client.encode("m", ["x"])
    assert len(server.asked) == 1


def test_an_answer_for_other_items_is_a_transport_error(kind):
    two = Told(200, embeddings_stream(embeddings(1, DENSE, "float32", ["a", "b"])))
    with (
        scripted(in_turn(two)) as server,
        kind(server.url) as client,
        pytest.raises(TransportError, match="2 results for 3 items"),
    ):
        client.encode("m", ["x"] * 3)


def test_no_pause_goes_past_the_deadline(kind):
    with (
        scripted(in_turn(failing(OverloadedError("full", retry_after_s=60)))) as server,
        kind(server.url, wait_for_capacity=True) as client,
        pytest.raises(OverloadedError) as caught,
    ):
        client.encode("m", ["x"], timeout_s=5)
    assert caught.value.retry_after_s == 60 and len(server.asked) == 1


def test_each_attempt_is_told_the_time_that_is_left(kind):
    with (
        scripted(in_turn(failing(OverloadedError("full", retry_after_s=0.3)), encoded)) as server,
        kind(server.url) as client,
    ):
        client.encode("m", ["x"], timeout_s=20)
    first, second = (int(asked.headers["x-request-timeout-ms"]) for asked in server.asked)
    assert first - second >= 300


def test_an_index_in_a_message_counts_the_whole_call(kind):
    def script(asked):
        items, _ = asked_items(asked)
        return failing(InvalidInputError("item 7 is bad, like item 3")) if items[0] == "1024" else encoded(asked)

    with scripted(script) as server, kind(server.url) as client, pytest.raises(InvalidInputError) as caught:
        client.encode("m", [str(n) for n in range(3000)])
    assert caught.value.message == "item 1031 is bad, like item 3"


def test_a_missed_deadline_is_told_in_the_engines_words(kind):
    def script(asked):
        items, _ = asked_items(asked)
        return encoded(asked) if len(items) < 1024 else failing(DeadlineExceededError("too late"))

    with (
        scripted(script) as server,
        kind(server.url, max_concurrency=1) as client,
        pytest.raises(DeadlineExceededError, match=r"timeout_s=9 ran out with 0 of 1,500 items done; allow more"),
    ):
        client.encode("m", ["x"] * 1500, timeout_s=9)


def test_nobody_listening_is_a_transport_error(kind):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with kind(url, retries=0) as client, pytest.raises(TransportError, match=rf"{url} .*is the server running"):
        client.encode("m", "x")


def test_a_server_that_says_nothing_is_left_at_the_deadline(kind, monkeypatch):
    monkeypatch.setattr("tercet.client.exchange._GRACE_S", 0.05)
    done = threading.Event()
    with scripted(lambda asked: done.wait(30) and Told(200)) as server:
        try:
            with kind(server.url) as client, pytest.raises(DeadlineExceededError, match="0 of 1 items done"):
                client.encode("m", "x", timeout_s=0.2)
        finally:
            done.set()


def test_the_first_failure_keeps_what_has_not_begun_from_beginning(kind):
    def script(asked):
        items, _ = asked_items(asked)
        return failing(InvalidInputError("no")) if items[0] == "0" else encoded(asked)

    with scripted(script) as server, kind(server.url, max_concurrency=1) as client:
        with pytest.raises(InvalidInputError, match="no"):
            client.encode("m", [str(n) for n in range(50_000)])
        asked = len(server.asked)
        assert asked < 10
        client.encode("m", "still there")


def test_a_cancelled_task_leaves_its_connection():
    began, over = threading.Event(), threading.Event()

    def script(asked):
        began.set()
        over.wait(30)
        return Told(200)

    async def run(url):
        async with AsyncClient(url) as client:
            task = asyncio.create_task(client.encode("m", ["x"] * 5000))
            await asyncio.to_thread(began.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(asyncio.all_tasks()) == 1

    with scripted(script) as server:
        try:
            asyncio.run(run(server.url))
        finally:
            over.set()


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "choices", "message"),
    [
        ("localhost:8080", {}, "is no address of a server"),
        ("ftp://x", {}, "is no address of a server"),
        ("http://", {}, "is no address of a server"),
        (None, {}, "is no address of a server"),
        ("http://x", {"answers": "xml"}, "answers: 'xml' is not one of arrow, json"),
        ("http://x", {"retries": -1}, "retries must be a whole number"),
        ("http://x", {"max_concurrency": 0}, "max_concurrency must be a whole number from 1"),
    ],
)
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_wrong_settings_are_refused(client, url, choices, message):
    with pytest.raises(InvalidInputError, match=message):
        client(url, **choices)


def test_a_given_http_client_stays_open():
    with scripted(encoded) as server, httpx.Client() as http, Client(server.url, http_client=http) as client:
        client.encode("m", "x")
        assert not http.is_closed


def test_both_clients_have_the_same_methods():
    def methods(kind):
        return {
            name: str(inspect.signature(method)).replace("AsyncClient", "Client").replace("httpx.Async", "httpx.")
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    assert methods(Client) == methods(AsyncClient)


def test_a_closed_client_says_so():
    async def closed():
        client = AsyncClient("http://localhost:9")
        await client.close()
        await client.encode("m", "x")

    with pytest.raises(EngineClosedError, match="make another"):
        asyncio.run(closed())


def test_a_process_ends_though_a_server_never_answers():
    """As when Ctrl-C, or an error in one request, ends a call whose other requests are under way."""
    first, over = threading.Lock(), threading.Event()

    def script(asked):
        if first.acquire(blocking=False):
            return Told(400, b'{"error": {"code": "invalid_input", "message": "no"}}')
        over.wait(60)
        return Told(None)

    code = "import sys; from tercet import Client; Client(sys.argv[1], max_concurrency=2).encode('m', ['a'] * 5000)"
    with scripted(script) as server:
        command = [sys.executable, "-c", code, server.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        over.set()
    assert done.returncode == 1 and "InvalidInputError: no" in done.stderr
