"""Weaviate's modules: the bytes that its Go clients send, on sockets as they use them, and what they read."""

from __future__ import annotations

import json
import re
import socket
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

import anyio
import httpx
import numpy as np
import pytest

from support.servers import client_of, in_process, live_server
from support.tiny_models import save_bert
from tercet import Engine
from tercet_server.app import create_app
from tercet_server.settings import Settings

in_a_loop = pytest.mark.anyio
TEXTS = [
    "the quick brown fox",
    "<b>lazy</b> & slow dogs",
    "café 世界 😀",
    'line\u2028separator \x07 "quoted"',
    "",
    "w " * 300,
]
LIMIT = 20_000


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """An embedding model with prompts for both sides, and a reranker."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("embedder", "reranker")}
    save_bert(made["embedder"])
    prompts = {"prompts": {"query": "find: ", "document": "a page: "}}
    (made["embedder"] / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    save_bert(made["reranker"], architecture="BertForSequenceClassification", num_labels=1)
    return {name: str(folder) for name, folder in made.items()}


@pytest.fixture(scope="module")
def server(directories):
    flags = {
        "models": tuple(directories.values()),
        "aliases": directories,
        "defaults": {"score": directories["reranker"]},
        "device": "cpu",
        "precision": "float32",
        "max_body_bytes": str(LIMIT),
    }
    with live_server(flags) as server:
        yield server


class GoClient:
    """One connection of Go's `http.Client`: its headers in its order, no Content-Type, kept alive."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc
        self._socket = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60)
        self._answers = self._socket.makefile("rb")

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nUser-Agent: Go-http-client/1.1\r\n{length}"
        return f"{head}Accept-Encoding: gzip\r\n\r\n".encode() + (body or b"")

    def send(self, *parts: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send the parts of one request, each by itself, and return the answer's status, headers and body."""
        for part in parts:
            self._socket.sendall(part)
        status = int(self._answers.readline().split()[1])
        lines = iter(self._answers.readline, b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.decode().partition(":") for line in lines)}
        return status, headers, self._answers.read(int(headers.get("content-length", 0)))

    def post(self, path: str, body: bytes) -> tuple[int, dict]:
        status, headers, answer = self.send(self.request("POST", path, body))
        assert headers["content-type"] == "application/json" and "content-encoding" not in headers
        return status, json.loads(answer)

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


def connected(server):
    return closing(GoClient(server.url))


def go_json(value) -> bytes:
    """Return JSON as Go's `json.Marshal` writes it: no spaces, no ASCII escapes, but for HTML and line separators."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def vectors_body(text, task="passage", **config):
    """Return what text2vec-transformers sends: one struct for requests and answers, its empty fields included."""
    settings = {"pooling_strategy": "masked_mean", "task_type": task, **config}
    return go_json({"text": text, "dims": 0, "vector": None, "error": "", "config": settings})


def rerank_body(query, documents):
    return go_json({"query": query, "documents": documents, "property": ""})


@pytest.mark.slow
def test_the_bytes_are_gos(server):
    with connected(server) as go:
        assert go.request("POST", "/vectors", vectors_body("a <b>")) == (
            b"POST /vectors HTTP/1.1\r\nHost: " + go.host.encode() + b"\r\nUser-Agent: Go-http-client/1.1\r\n"
            b"Content-Length: 126\r\nAccept-Encoding: gzip\r\n\r\n"
            b'{"text":"a \\u003cb\\u003e","dims":0,"vector":null,"error":"",'
            b'"config":{"pooling_strategy":"masked_mean","task_type":"passage"}}'
        )


@pytest.mark.parametrize("task", ["passage", "query"])
def test_an_import_gets_the_engines_vectors_on_one_connection(server, engine, directories, task):
    right = engine.encode(directories["embedder"], TEXTS, is_query=task == "query").dense
    other = engine.encode(directories["embedder"], TEXTS, is_query=task != "query").dense
    assert np.abs(right - other).max() > 1e-3
    with connected(server) as go:
        for text, vector in zip(TEXTS * 3, np.tile(right, (3, 1)), strict=True):
            status, answer = go.post("/vectors", vectors_body(text, task))
            assert (status, answer["text"], answer["dims"], answer["dim"]) == (200, text, 32, 32)
            np.testing.assert_allclose(answer["vector"], vector, atol=1e-6)


def test_connections_do_not_mix_up_their_answers(server, engine, directories):
    texts = [f"text number {i} of connection {c}" for c in range(8) for i in range(12)]
    right = engine.encode(directories["embedder"], texts).dense

    def imported(part):
        with connected(server) as go:
            return [go.post("/vectors", vectors_body(text))[1]["vector"] for text in part]

    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(imported, [texts[i : i + 12] for i in range(0, len(texts), 12)])]
    np.testing.assert_allclose(np.concatenate(found), right, atol=1e-6)


def test_reranking_is_in_request_order_chunk_by_chunk(server, engine, directories):
    documents = [f"document {i} {'fox ' * (i * 7 % 11)}" for i in range(100)]
    query = "where is the fox?"
    right = engine.score(directories["reranker"], query, documents).scores
    assert (np.diff(right) > 0).any() and (np.diff(right) < 0).any(), "sorted scores would show nothing"

    def ranked(part):
        with connected(server) as go:
            return go.post("/rerank", rerank_body(query, part))

    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(ranked, [documents[i : i + 32] for i in range(0, 100, 32)])]
    assert all(status == 200 and answer["query"] == query for status, answer in answers)
    scores = [score for _, answer in answers for score in answer["scores"]]
    assert [score["document"] for score in scores] == documents
    np.testing.assert_allclose([score["score"] for score in scores], right, atol=1e-5)


@pytest.mark.parametrize("path", ["/vectors", "//vectors", "/vectors/", "/m/embedder/vectors", "/m/embedder//vectors/"])
def test_every_spelling_of_the_address(server, path):
    with connected(server) as go:
        status, answer = go.post(path, vectors_body("a text"))
    assert status == 200 and len(answer["vector"]) == 32


def test_older_and_newer_requests(server, engine, directories):
    short = engine.encode(directories["embedder"], ["a text"], dimensions=8).dense
    with connected(server) as go:
        older = go.post("/vectors", b'{"text":"a text"}')[1]
        empty = go.post("/vectors", b'{"text":"a text","config":{"pooling_strategy":""}}')[1]
        newer = go.post("/vectors", vectors_body("a text", dimensions=8))[1]
        clip = go.post("/vectorize", go_json({"texts": ["a text", "b"], "images": None}))[1]
    assert older["vector"] == empty["vector"] == clip["textVectors"][0]
    assert len(clip["textVectors"]) == 2 and clip["imageVectors"] == []
    np.testing.assert_allclose([newer["vector"]], short, atol=1e-6)


def test_requests_that_arrive_in_pieces(server):
    with connected(server) as go:
        request = go.request("POST", "/vectors", vectors_body(TEXTS[5]))
        whole = go.send(request)
        pieces = go.send(*(request[i : i + 100] for i in range(0, len(request), 100)))
        assert whole[0] == pieces[0] == 200 and whole[2] == pieces[2]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/vectors", b"", 400, "is empty"),
        ("/vectors", b'{"text":', 400, "not JSON"),
        ("/vectors", b"null", 400, "Expected `object`"),
        ("/vectors", b'{"text":null}', 400, "$.text"),
        ("/vectors", vectors_body("a", "classification"), 400, "task_type"),
        ("/vectors", vectors_body("a", dimensions=0), 400, "dimensions"),
        ("/vectors", vectors_body("a", dimensions=33), 400, "dimensions=33"),
        ("/m/reranker/vectors", vectors_body("a"), 400, "'dense'"),
        ("/m/no/such/vectors", vectors_body("a"), 404, "no/such"),
        ("/vectorize", go_json({"texts": None, "images": ["aGk="]}), 400, "images"),
        ("/rerank", rerank_body("a", [1]), 422, "documents"),
        ("/rerank", go_json({"query": "a"}), 422, "documents"),
    ],
)
def test_errors_are_strings_under_error_and_the_connection_goes_on(server, path, body, status, message):
    with connected(server) as go:
        found, answer = go.post(path, body)
        assert found == status and message in answer["error"]
        assert go.post("/vectors", vectors_body("a"))[0] == 200


def test_a_body_over_the_limit_is_refused_in_json(server):
    with connected(server) as go:
        status, answer = go.post("/vectors", vectors_body("a" * LIMIT))
    assert status == 413 and f"{LIMIT:,} bytes" in answer["error"]


def test_nothing_to_rank_is_no_error(server):
    for documents in ([], None):
        with connected(server) as go:
            assert go.post("/rerank", rerank_body("a", documents)) == (200, {"query": "a", "scores": []})


def test_health_and_meta(server, directories):
    with connected(server) as go:
        for path in ("/.well-known/live", "/.well-known/ready", "/m/embedder/.well-known/ready"):
            status, headers, body = go.send(go.request("GET", path))
            assert (status, body) == (204, b"") and "content-type" not in headers
        meta = json.loads(go.send(go.request("GET", "/meta"))[2])
        assert [model["model"] for model in meta["models"]] == list(directories.values())
        one = json.loads(go.send(go.request("GET", "/m/embedder/meta"))[2])["models"]
    assert one == [meta["models"][0]] and one[0]["dims"]["dense"] == 32


def test_what_is_not_offered_is_not_there(server):
    with connected(server) as go:
        assert go.post("/ner/", go_json({"text": "a"}))[0] == 404


@pytest.mark.slow
def test_idle_connections_stay_open(server):
    """Go keeps them for 90 s; servers that close them after a few make its next request fail."""
    with connected(server) as go:
        assert go.post("/vectors", vectors_body("a"))[0] == 200
        time.sleep(95)
        assert go.post("/vectors", vectors_body("a"))[0] == 200


def test_keep_alive_is_longer_than_gos():
    assert Settings().keep_alive_s >= 120


@in_a_loop
async def test_ready_is_said_when_the_models_answer(directories):
    with Engine(device="cpu", precision="float32") as engine:
        app = create_app(engine, Settings(models=("no/such-model",), aliases=directories))
        async with app.router.lifespan_context(app), client_of(app) as client:
            assert (await client.get("/.well-known/live")).status_code == 204
            answer = await client.get("/.well-known/ready")
            assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
            assert "no/such-model" in answer.json()["error"]
            first = await client.get("/m/embedder/.well-known/ready")
            assert first.status_code == 503 and "being loaded" in first.json()["error"]
            with anyio.fail_after(60):
                while (await client.get("/m/embedder/.well-known/ready")).status_code != 204:
                    await anyio.sleep(0.01)
            assert engine.models()[0].loads == 1
            with anyio.fail_after(60):  # a moment may pass between the answer and the end of its lease
                while not engine.unload(directories["embedder"]):
                    await anyio.sleep(0.01)
            assert (await client.get("/m/embedder/.well-known/ready")).status_code == 204
            app.state.service.readiness.drain()
            assert (await client.get("/m/embedder/.well-known/ready")).status_code == 503


@in_a_loop
async def test_a_key_in_the_modules_url_is_enough(engine, directories):
    """Go sends the user part of a URL as basic authentication, the one way for Weaviate to send a key."""
    settings = Settings(models=(directories["embedder"],), api_keys=("key-of-weaviate",))
    async with in_process(engine, settings) as client:
        assert (await client.get("/.well-known/live")).status_code == 204
        for user in (":key-of-weaviate", "weaviate:key-of-weaviate", "key-of-weaviate:"):
            headers = {"Authorization": f"Basic {b64encode(user.encode()).decode()}"}
            answer = await client.post("/vectors", content=vectors_body("a"), headers=headers)
            assert answer.status_code == 200, answer.text
        for wrong in ("Basic", "Basic !!", "Basic " + b64encode(b"\xff:\xff").decode(), "Basic YTpi"):
            refused = await client.post("/vectors", content=vectors_body("a"), headers={"Authorization": wrong})
            assert refused.status_code == 401 and "key" in refused.json()["error"]
        assert (await client.get("/.well-known/ready")).status_code == 401


@in_a_loop
async def test_an_answer_fits_what_go_reads_it_into(engine, directories):
    """A string must not stand where Go's struct has a number, nor the other way round."""
    async with in_process(engine, Settings(models=(directories["embedder"],))) as client:
        answer: httpx.Response = await client.post("/vectors", content=vectors_body("a"))
    kinds = {name: type(value) for name, value in answer.json().items()}
    assert kinds == {"text": str, "vector": list, "dims": int, "dim": int}
    assert {type(value) for value in answer.json()["vector"]} == {float}
