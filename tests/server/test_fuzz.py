"""Hostile bodies for every endpoint: refused in the caller's own dialect, and the server goes on as before."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from functools import partial

import httpx
import msgspec
import numpy as np
import psutil
import pyarrow as pa
import pytest

from support.servers import in_process, live_server
from support.tiny_models import save_bert, save_m3
from tercet.errors import TercetError
from tercet.wire import ARROW
from tercet_server.app import endpoints
from tercet_server.endpoint import Endpoint
from tercet_server.msgpack import MSGPACK, pack
from tercet_server.settings import Settings

in_a_loop = pytest.mark.anyio
MODEL = "m3"
LONG = 10_000_000

# A body that is answered for each endpoint that takes one; what follows goes wrong in one place.
GOOD = {
    "/v1/models/{model}/pin": {"pinned": False},
    "/v1/encode/{model}": {
        "items": ["a", {"id": "b", "text": "b"}, {"input_ids": [1, 2]}],
        "params": {"output_types": ["dense", "sparse"], "is_query": False, "dimensions": 8, "output_dtype": "float32",
                   "prompt": "p: ", "truncate": "end", "options": {"top_k": 4}},
    },
    "/v1/score/{model}": {"query": {"text": "q"}, "items": ["a", {"id": "b", "text": "b"}], "top_k": 1, "options": {}},
    "/v1/tokens/{model}": {"ids": [5, 6], "text": "a", "is_query": False},
    "/v1/interaction/{model}": {"query": "a", "document": "b"},
    "/v1/embeddings": {"input": ["a", "b"], "model": MODEL, "encoding_format": "float", "dimensions": 8, "user": "u"},
    "/v1/embed": {"texts": ["a"], "model": MODEL, "input_type": "search_query", "truncate": "END"},
    "/v2/embed": {"texts": ["a"], "model": MODEL, "input_type": "search_document", "embedding_types": ["float"]},
    "/v2/rerank": {"query": "q", "documents": ["a", "b"], "model": "reranker", "top_n": 1},
    "/v1/rerank": {"query": "q", "documents": ["a", {"text": "b"}], "model": "reranker", "top_n": 1},
    "/v1/multi-vector": {"input": ["a", {"text": "b"}], "model": MODEL, "task": "retrieval.query", "dimensions": 8},
    "/embed": {"inputs": ["a", [1, 2]], "truncate": True, "normalize": True, "dimensions": 8},
    "/embed_all": {"inputs": "a"},
    "/embed_sparse": {"inputs": ["a"]},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}},
    "/predict": {"inputs": [["a", "b"]]},
    "/tokenize": {"inputs": ["a"], "add_special_tokens": True},
    "/decode": {"ids": [[1, 2], [3]], "skip_special_tokens": True},
    "/rerank": {"query": "q", "texts": ["a", "b"], "raw_scores": True, "return_text": True},
    "/": {"inputs": ["a"]},
    "/models/{model}": {"inputs": ["a"], "options": {"wait_for_model": True}},
    "/models/{model}/pipeline/feature-extraction": {"inputs": "a"},
    "/models/{model}/pipeline/sentence-similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
    "/pipeline/feature-extraction/{model}": {"inputs": "a", "normalize": True},
    "/pipeline/sentence-similarity/{model}": {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
    "/api/embed": {"model": MODEL, "input": ["a"], "dimensions": 8},
    "/api/embeddings": {"model": MODEL, "prompt": "a"},
    "/vectors": {"text": "a", "config": {"pooling_strategy": "cls", "task_type": "query", "dimensions": 8}},
    "/vectorize": {"texts": ["a"], "images": []},
    "/qdrant/infer": {
        "inputs": [{"data": "a", "data_type": "text", "model": "m3:sparse", "options": {"top_k": 3}}],
        "inference": "search",
        "token": "t",
    },
}  # fmt: skip
RERANKED = ("/predict",)  # these take the model that reads pairs
WITH_BODY = [endpoint for endpoint in endpoints() if endpoint.body is not None]
NATIVE = [endpoint for endpoint in WITH_BODY if MSGPACK in endpoint.body_media_types]
each_endpoint = pytest.mark.parametrize("endpoint", WITH_BODY, ids=lambda endpoint: endpoint.path)
each_native = pytest.mark.parametrize("endpoint", NATIVE, ids=lambda endpoint: endpoint.path)

NO_JSON = {
    "nothing": b"",
    "blanks": b" \r\n\t ",
    "zeros": bytes(100),
    "a word": b"hello",
    "Latin-1": '{"text": "café"}'.encode("latin-1"),
    "UTF-16": '{"text": "a"}'.encode("utf-16"),
    "UTF-8 with its mark": b"\xef\xbb\xbf{}",
    "an overlong slash": b'{"text": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"text": "\xed\xa0\x80"}',
    "a lone surrogate": b'{"text": "\\ud800"}',
    "a surrogate the wrong way round": b'{"text": "\\udc00\\ud800"}',
    "no such escape": b'{"text": "\\x41"}',
    "a raw newline": b'{"text": "a\nb"}',
    "NaN": b'{"x": NaN}',
    "Infinity": b'{"x": -Infinity}',
    "a leading zero": b'{"x": 007}',
    "a comment": b'{"x": 1 /* one */}',
    "a last comma": b'{"x": [1,]}',
    "two values": b"{} {}",
    "single quotes": b"{'text': 'a'}",
    "brackets": b"[" * 1_000_000,
    "braces": b'{"a":' * 1_000_000,
    "a closed abyss": b"[" * 200_000 + b"]" * 200_000,
    "gzip": bytes.fromhex("1f8b0800000000000003abae05000000ffff43bfa6a302000000"),
    "a form": b"text=a&model=b",
}
NO_BODY = {**NO_JSON, "null": b"null", "a list": b"[]", "a number": b"1e400", "a long number": b"9" * 5000}
WRONG = (
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, 10**30, -(10**30), "", "x", "\x00", "../../etc/passwd",
    "a" * 10_000, [], [None], [[]], [[[]]], ["", 1], [2**70], {}, {"a": {"b": [{}]}}, {"": None}, [True], [1.5], [-1],
)  # fmt: skip


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    made = {name: tmp_path_factory.mktemp(name) for name in (MODEL, "reranker")}
    save_m3(made[MODEL])
    save_bert(made["reranker"], architecture="BertForSequenceClassification", num_labels=1)
    aliases = {name: str(folder) for name, folder in made.items()}
    return {"models": tuple(aliases.values()), "aliases": aliases, "defaults": {"score": aliases["reranker"]}}


@pytest.fixture
async def client(engine, flags):
    async with in_process(engine, Settings(**flags)) as client:
        yield client


def path_of(endpoint: Endpoint) -> str:
    path = endpoint.path.replace("{model}", MODEL)
    return f"/m/reranker{path}" if path in RERANKED else path


async def refused(client, endpoint, content, **headers) -> None:
    """Send what must be refused, and see that it is, in the dialect's own words."""
    answer = await client.post(path_of(endpoint), content=content, headers=headers)
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
    assert_told(endpoint, answer)


def assert_told(endpoint, answer) -> None:
    assert answer.headers["content-type"] == "application/json"
    msgspec.convert(answer.json(), endpoint.dialect.error_type)
    assert len(answer.content) < 6_000, "an error must not send the request back"


async def answered(client, endpoint) -> None:
    answer = await client.post(path_of(endpoint), json=GOOD[endpoint.path])
    assert answer.status_code == 200, answer.text


def test_there_is_a_good_body_for_each():
    assert GOOD.keys() == {endpoint.path for endpoint in WITH_BODY}


@in_a_loop
@each_endpoint
async def test_what_is_no_body_at_all(client, endpoint):
    for content in NO_BODY.values():
        await refused(client, endpoint, content)
        await refused(client, endpoint, content, **{"content-type": "application/json; charset=utf-16"})
    await answered(client, endpoint)


@in_a_loop
@each_endpoint
async def test_truncated_and_damaged(client, endpoint):
    whole = json.dumps(GOOD[endpoint.path]).encode()
    for end in range(1, len(whole)):
        await refused(client, endpoint, whole[:end])
    random = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] = random.integers(256)
        await not_broken(client, endpoint, bytes(damaged))
    await answered(client, endpoint)


async def not_broken(client, endpoint, content, **headers) -> httpx.Response:
    """Send what may be right or wrong."""
    answer = await client.post(path_of(endpoint), content=content, headers=headers)
    assert answer.status_code < 500, (content[:300], answer.status_code, answer.text[:300])
    if answer.status_code != 200:
        assert_told(endpoint, answer)
    return answer


def places(value, path=()) -> Iterator[tuple]:
    """Yield where every value of a document stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def with_value(document, place, value):
    """Return the document with another value in one place."""
    if not place:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    inner = copy.get(place[0], {}) if isinstance(copy, dict) else copy[place[0]]
    copy[place[0]] = with_value(inner, place[1:], value)
    return copy


def fields_of(endpoint) -> set[tuple]:
    """Return every place of the good body, and every other field that the body may have."""
    return {*places(GOOD[endpoint.path]), *((field.encode_name,) for field in msgspec.structs.fields(endpoint.body))}


@in_a_loop
@each_endpoint
async def test_every_field_with_every_wrong_type(client, endpoint):
    good = GOOD[endpoint.path]
    for place in sorted(fields_of(endpoint), key=str):
        for value in WRONG:
            await not_broken(client, endpoint, json.dumps(with_value(good, place, value)).encode())
        lone = json.dumps(with_value(good, place, "HERE")).replace("HERE", "\\udfff").encode()
        await refused(client, endpoint, lone)
    await answered(client, endpoint)


@in_a_loop
@each_endpoint
@pytest.mark.parametrize("size", [LONG // 50, pytest.param(LONG, marks=pytest.mark.slow)])
async def test_long_strings(client, endpoint, size):
    """One at a time, words and one endless word; what is read of them is cut, what is a name is refused."""
    good, long = GOOD[endpoint.path], ("word " * (size // 5), "a" * size)
    texts = [place for place in places(good) if isinstance(value_at(good, place), str)]
    for i, place in enumerate(texts):
        await not_broken(client, endpoint, json.dumps(with_value(good, place, long[i % 2])).encode())
    await answered(client, endpoint)


def value_at(document, place):
    for key in place:
        document = document[key]
    return document


@in_a_loop
@each_endpoint
@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": ";;;=\x7f"},
        {"accept": "application/xml"},
        {"accept": "x" * 5000},
        {"x-request-id": "a b" * 100},
        {"x-wait-for-model": "maybe"},
        {"authorization": "Basic " + "A" * 5000},
    ],
    ids=str,
)
async def test_headers_that_mean_nothing_change_nothing(client, endpoint, headers):
    answer = await client.post(path_of(endpoint), content=json.dumps(GOOD[endpoint.path]), headers=headers)
    assert answer.status_code == 200, answer.text


@in_a_loop
@each_endpoint
@pytest.mark.parametrize(
    "headers",
    [
        {"content-encoding": "gzip"},
        {"x-request-timeout-ms": "soon"},
        {"x-request-timeout-ms": "nan"},
        {"x-request-timeout-ms": "-1"},
        {"x-request-timeout-ms": "1e999"},
        {"origin": "http://evil.example"},
        {"content-length": "99999999999999999999"},
    ],
    ids=str,
)
async def test_headers_that_are_wrong(client, endpoint, headers):
    await refused(client, endpoint, json.dumps(GOOD[endpoint.path]), **headers)


# MessagePack and Arrow


def array(**changes):
    return {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [2], b"data": bytes(8)} | {
        name.encode(): value for name, value in changes.items()
    }


WRONG_ARRAYS = [
    array(type="|O"), array(type="O"), array(kind=b"O"), array(kind=b"V"), array(type="<U4"), array(type="<c8"),
    array(type="datetime64[s]"), array(type=7), array(type=["<f4"]), array(type=None), array(type=b"<f4"),
    array(shape=[3]), array(shape=[-2]), array(shape=[-1]), array(shape=[0, 2**62], data=b""),
    array(shape=[0, 2**63, 2**63], data=b""), array(shape=[1] * 9, data=bytes(4)), array(shape=2), array(shape=[True]),
    array(shape=["2"]), array(data="text"), array(data=None), array(data=bytes(7)), array(nd=False), array(nd="x"),
    {b"nd": True}, {b"nd": False, b"type": "<f4", b"data": b""},
]  # fmt: skip
NO_MSGPACK = {
    "nothing": b"",
    "a number": b"\x01",
    "JSON": b'{"items": ["a"]}',
    "a reserved byte": b"\xc1",
    "a list of four milliards": b"\xdd\xff\xff\xff\xff",
    "a map of four milliards": b"\xdf\xff\xff\xff\xff",
    "bytes that are not there": b"\xc6\xff\xff\xff\xff",
    "a text that is none": b"\x81\xa5items\x91\xa1\xff",
    "an extension": b"\xc7\x04\x63abcd",
    "a date": b"\xd6\xff\x00\x00\x00\x00",
    "lists in lists": b"\x91" * 100_000 + b"\xc0",
    "maps in maps": b"\x81\xa1a" * 100_000 + b"\xc0",
    "a list as a key": b"\x81\x91\x01\x01",
}


@in_a_loop
@each_native
async def test_no_messagepack(client, endpoint):
    send = partial(refused, client, endpoint, **{"content-type": MSGPACK})
    for content in NO_MSGPACK.values():
        await send(content)
    whole = pack(GOOD[endpoint.path])
    for end in range(len(whole)):
        await send(whole[:end])
    random = np.random.default_rng(0)
    for _ in range(200):
        await not_broken(client, endpoint, random.bytes(random.integers(1, 200)), **{"content-type": MSGPACK})
    good = await not_broken(client, endpoint, whole, **{"content-type": MSGPACK})
    assert good.status_code == 200


@in_a_loop
@each_native
async def test_wrong_arrays(client, endpoint):
    good = GOOD[endpoint.path]
    for told in WRONG_ARRAYS:
        for place in [*places(good), ()]:
            content = pack(with_value(good, place, told))
            await refused(client, endpoint, content, **{"content-type": MSGPACK})


@in_a_loop
@each_native
async def test_right_arrays_in_wrong_places(client, endpoint):
    good = GOOD[endpoint.path]
    for told in (np.arange(3), np.float32(1), np.empty((2, 0)), np.zeros((1,) * 8, "u1"), np.array([True])):
        for place in [*places(good), ()]:
            content = pack(with_value(good, place, told))
            answer = await not_broken(client, endpoint, content, **{"content-type": MSGPACK})
            assert answer.status_code == 400 or not isinstance(value_at(good, place), str | dict), place


@in_a_loop
async def test_an_array_of_token_ids_is_what_a_list_is(client):
    given = [pack({"items": [{"input_ids": ids}]}) for ids in (np.array([5, 6, 7]), [5, 6, 7])]
    array, listed = [
        (await client.post("/v1/encode/m3", content=content, headers={"content-type": MSGPACK})).json()["items"]
        for content in given
    ]
    assert array == listed


def stream(*batches, schema=None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema or batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def columns(metadata=None, **given) -> pa.RecordBatch:
    batch = pa.RecordBatch.from_pydict(given)
    return batch.replace_schema_metadata(metadata) if metadata else batch


def int32(*values) -> bytes:
    return np.array(values, "<i4").tobytes()


TEXT = pa.array(["a", "b"])
NO_ARROW = {
    "nothing": b"",
    "JSON": b'{"items": ["a"]}',
    "a file's magic": b"ARROW1\x00\x00",
    "a length and no more": b"\xff\xff\xff\xff\x10\x00\x00\x00",
    "an impossible length": b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    "a negative length": b"\xff\xff\xff\xff\x00\x00\x00\x80",
    "no batch": stream(schema=pa.schema([("text", pa.string())])),
    "no column": stream(columns(), schema=pa.schema([])),
    "other columns": stream(columns(words=TEXT)),
    "numbers for texts": stream(columns(text=pa.array([1, 2]))),
    "nothing for texts": stream(columns(text=pa.nulls(2))),
    "a null": stream(columns(text=pa.array(["a", None]))),
    "lists for texts": stream(columns(text=pa.array([["a"], ["b"]]))),
    "no Unicode": stream(columns(text=pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]))),
    "offsets beyond the data": stream(columns(text=["ab"])).replace(int32(0, 2), int32(0, 2**30)),
    "offsets backwards": stream(columns(text=["ab", ""])).replace(int32(0, 2, 2), int32(0, 2, 1)),
    "no JSON beside it": stream(columns({b"request": b"{"}, text=TEXT)),
    "other JSON beside it": stream(columns({b"request": b"[1]"}, text=TEXT)),
    "unknown choices beside it": stream(columns({b"request": b'{"params": {"spin": 1}, "query": 7}'}, text=TEXT)),
}  # fmt: skip


@in_a_loop
@each_native
async def test_no_arrow(client, endpoint):
    for content in NO_ARROW.values():
        await refused(client, endpoint, content, **{"content-type": ARROW})
    whole = stream(columns({b"request": b'{"query": "q"}'}, text=TEXT))
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole[: random.integers(1, len(whole) + 1)])
        damaged[random.integers(len(damaged))] = random.integers(256)
        await not_broken(client, endpoint, bytes(damaged), **{"content-type": ARROW})
    await answered(client, endpoint)


# The process


@in_a_loop
@pytest.mark.parametrize("content", [b'{"text": "\xff', b'{"text": ' + b"[" * 10_000, b'{"text": 1}'])
async def test_a_failed_request_leaves_nothing_for_the_collector(client, content):
    """Its body might be large, and the collector far off."""
    gc.collect()
    gc.disable()
    before = errors_alive()
    try:
        assert (await client.post("/vectors", content=content)).status_code == 400
        assert errors_alive() == before
    finally:
        gc.enable()


def errors_alive() -> int:
    """Return how many there are; the engine keeps those of models that it did not find."""
    return sum(issubclass(type(one), TercetError) for one in gc.get_objects())


@pytest.mark.slow
def test_memory_comes_back(flags):
    """Bodies of tens of megabytes of every kind, from several callers; the process keeps none of them."""
    with live_server({**flags, "device": "cpu", "precision": "float32"}) as server:
        process = psutil.Process(server.process.pid)
        with httpx.Client(base_url=server.url, timeout=120) as client:
            large(client)  # what is allocated once: thread pools, buffers
            before = process.memory_info().rss
            for _ in range(4):
                large(client)
            after = process.memory_info().rss
            assert after - before < 64 * 2**20, f"{(after - before) / 2**20:.0f} MiB more"
            assert client.post("/embed", json=GOOD["/embed"]).status_code == 200


def large(client) -> None:
    """Send four bodies of some ten megabytes."""
    text = "a word " * (LONG // 7)
    for path, content in {
        "/v1/encode/m3": json.dumps({"items": [text]}).encode(),
        "/embed": json.dumps({"inputs": ["word"] * 20, "prompt_name": text}).encode(),
        "/qdrant/infer": b'{"inputs": ' + b"[" * LONG,
        "/vectors": b'{"text": "' + b"\xff" * LONG,
        "/v2/rerank": json.dumps({"query": text, "documents": [1]}).encode(),
        "/api/embed": json.dumps({"model": text, "input": "a"}).encode(),
    }.items():
        assert client.post(path, content=content).status_code < 500
    gc.collect()
