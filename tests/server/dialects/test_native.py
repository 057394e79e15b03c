"""Tercet's own interface: one answer in three forms, requests in three forms, models listed, errors in order."""

import json
import threading

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pytest

from support.results import assert_same
from support.servers import in_process
from tercet.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ModelLoadError,
    ModelLoadingError,
    OutOfMemoryError,
    OverloadedError,
    RequestTooLargeError,
)
from tercet.inputs import encode_params, score_params
from tercet.types import Item
from tercet.wire import ARROW, JSON
from tercet.wire.columns import read_embeddings_stream, read_scores_stream
from tercet.wire.models import read_model
from tercet.wire.requests import encode_document, request_body, score_document
from tercet.wire.results import embeddings_document, read_embeddings, read_scores
from tercet.wire.stream import write_stream
from tercet_server.dialects import native
from tercet_server.dialects.native import ErrorBody, error, sdk_error
from tercet_server.dialects.native_bodies import EncodeAnswer, Model, Models, ScoreAnswer
from tercet_server.msgpack import MSGPACK, pack, unpack
from tercet_server.settings import Settings

pytestmark = pytest.mark.anyio
TEXTS = ["hello world", "the quick brown fox", "", "numbers 0 1 2"]
OUTPUTS = ["dense", "sparse", "multivector"]
AT, SCORE_AT = "/v1/encode/m3", "/v1/score/reranker"


def as_items(texts):
    return [Item(text=text, id=f"d{i}") for i, text in enumerate(texts)]


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "ubinary", "binary"])
async def test_three_forms_hold_the_same_bits_as_the_engine(client, engine, models, dtype):
    params = {"output_types": OUTPUTS, "output_dtype": dtype}
    body = {"items": [{"text": text, "id": f"d{i}"} for i, text in enumerate(TEXTS)], "params": params}
    answers = {kind: await client.post(AT, json=body, headers={"accept": kind}) for kind in (JSON, ARROW, MSGPACK)}
    assert {kind: answer.headers["content-type"] for kind, answer in answers.items()} == {k: k for k in answers}
    expected = engine.encode(models["m3"], as_items(TEXTS), **params)
    for result in (
        read_embeddings(answers[JSON].json()),
        read_embeddings_stream(answers[ARROW].content),
        read_embeddings(unpack(answers[MSGPACK].content)),
    ):
        assert_same(result, expected, but=("timings", "model"))
        assert result.model == "m3" and result.timings.total_ms > 0


async def test_a_large_answer_is_written_on_another_thread(client, engine, models, monkeypatch):
    writers = []

    def document(result):
        writers.append(threading.current_thread())
        return embeddings_document(result)

    monkeypatch.setattr(native, "embeddings_document", document)
    for texts in (TEXTS, TEXTS * 25, ["the quick brown fox " * 60] * 16):
        answer = await client.post(AT, json={"items": texts})
        assert_same(read_embeddings(answer.json()), engine.encode(models["m3"], texts), but=("timings", "model"))
    assert [thread is threading.current_thread() for thread in writers] == [True, False, False]


async def test_scores_have_three_forms_too(client, engine, models):
    body = {"query": {"text": "brown fox", "id": "q"}, "items": TEXTS}
    answers = {kind: await client.post(SCORE_AT, json=body, headers={"accept": kind}) for kind in (JSON, ARROW)}
    expected = engine.score(models["reranker"], "brown fox", TEXTS)
    assert_same(read_scores(answers[JSON].json()), expected, but=("timings", "model"))
    assert_same(read_scores_stream(answers[ARROW].content), expected, but=("timings", "model"))
    assert answers[JSON].json()["query_id"] == "q"


async def test_json_is_what_is_published_and_what_the_description_says(client):
    encoded = (await client.post(AT, json={"items": ["a"], "params": {"output_types": OUTPUTS}})).json()
    msgspec.convert(encoded, EncodeAnswer)
    assert set(encoded) == {"model", "revision", "items", "usage", "timing"}
    assert set(encoded["items"][0]) == {"id", "tokens", "truncated", *OUTPUTS}
    assert encoded["usage"]["tokens"] == encoded["items"][0]["tokens"] > 0
    assert set(encoded["timing"]) == {"queue_ms", "tokenization_ms", "inference_ms", "total_ms"}
    scored = (await client.post(SCORE_AT, json={"query": "a", "items": TEXTS, "top_k": 2})).json()
    msgspec.convert(scored, ScoreAnswer)
    assert [row["rank"] for row in scored["scores"]] == [0, 1]
    assert scored["scores"][0]["score"] >= scored["scores"][1]["score"]


def test_json_written_by_orjson_keeps_every_bit_of_float32():
    rng = np.random.default_rng(5)
    numbers = rng.integers(0, 2**32, 300_000, dtype=np.uint32).view(np.float32)
    finite = numbers[np.isfinite(numbers)]
    back = np.array(json.loads(orjson.dumps(finite, option=orjson.OPT_SERIALIZE_NUMPY)), np.float32)
    assert back.tobytes() == finite.tobytes()


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_may_come_in_three_forms(client):
    params = encode_params(["sparse", "dense"], is_query=True, dimensions=8)
    items = [Item(text=f"text {n}", id=str(n)) for n in range(80)]
    body = {"items": [{"text": item.text, "id": item.id} for item in items], **encode_document(params)}
    kind, arrow = request_body(items, encode_document(params))
    assert kind == ARROW
    answers = [
        await client.post(AT, content=content, headers={"content-type": kind, "accept": ARROW})
        for content, kind in ((json.dumps(body), JSON), (arrow, ARROW), (pack(body), MSGPACK), (json.dumps(body), ""))
    ]
    first, *others = (read_embeddings_stream(answer.content) for answer in answers)
    assert first.ids == [item.id for item in items] and first.dense.shape == (80, 8)
    for other in others:
        assert_same(other, first, but=("timings",))


async def test_a_score_request_in_arrow(client):
    items = [Item(text=f"text {n}") for n in range(80)]
    _, body = request_body(items, score_document(score_params(), Item("text 7")))
    answer = await client.post(SCORE_AT, content=body, headers={"content-type": f"{ARROW}; x=y", "accept": ARROW})
    asked = await client.post(SCORE_AT, json={"query": "text 7", "items": [item.text for item in items]})
    assert_same(read_scores_stream(answer.content), read_scores(asked.json()), but=("timings",))


async def test_names_of_the_superlinked_sdk_are_understood(client):
    async def dense(model="prompted", **params):
        answer = await client.post(f"/v1/encode/{model}", json={"items": ["x"], "params": params})
        assert answer.status_code == 200, answer.text
        return answer.json()["items"][0]["dense"]["values"]

    asked = await dense(is_query=True)
    assert asked != await dense() and asked == await dense(options={"is_query": True, "profile": "default"})
    assert await dense(instruction="find: ") == asked
    refused = await client.post(AT, json={"items": ["x"], "params": {"options": {"lora_id": "legal"}}})
    assert refused.status_code == 400 and "unknown option 'lora'" in refused.json()["error"]["message"]
    marked = {"text": "x", "metadata": {"any": ["thing"]}}
    assert (await client.post(AT, json={"items": [marked]})).status_code == 200


async def test_a_model_id_may_have_slashes_and_stand_in_one_segment(engine, models):
    names = {"org/name": models["m3"], "org/name@main": models["m3"]}
    async with in_process(engine, Settings(aliases=names)) as client:
        for path in ("org/name", "org%2Fname", "org/name@main", "org%2Fname%40main"):
            answer = await client.post(f"/v1/encode/{path}", json={"items": ["x"]})
            assert answer.json()["model"] == path.replace("%2F", "/").replace("%40", "@")


# What version 0.10.1 of the Superlinked SDK sends, byte for byte, with these headers.
SDK_HEADERS = {"content-type": MSGPACK, "accept": MSGPACK, "x-sie-sdk-version": "0.10.1"}
SDK_ENCODES = (
    b"\x82\xa5items\x92\x82\xa2id\xa1a\xa4text\xa6h\xc3\xa9llo\x81\xa4text\xa3fox\xa6params\x84\xacoutput_types\x93"
    b"\xa5dense\xa6sparse\xabmultivector\xabinstruction\xa6find: \xacoutput_dtype\xa7float32\xa7options\x81"
    b"\xa8is_query\xc3"
)
SDK_SCORES = b"\x82\xa5query\x81\xa4text\xa3fox\xa5items\x92\x81\xa4text\xa5a fox\x82\xa2id\xa1b\xa4text\xa2no"


def sdk_array(told):
    """Return an array the way that SDK reads it: a map with exactly these keys, all but `type` in binary."""
    assert told.keys() == {b"nd", b"type", b"kind", b"shape", b"data"} and told[b"nd"] is True and told[b"kind"] == b""
    return np.frombuffer(told[b"data"], told[b"type"]).reshape(told[b"shape"])


async def test_the_superlinked_sdks_own_bytes(client, engine, models):
    answer = await client.post(AT, content=SDK_ENCODES, headers=SDK_HEADERS)
    result = msgspec.msgpack.decode(answer.content)
    expected = engine.encode(models["m3"], ["héllo", "fox"], output_types=OUTPUTS, is_query=True, prompt="find: ")
    assert answer.headers["content-type"] == MSGPACK and result["model"] == "m3" and result["timing"]["total_ms"] > 0
    assert [item["id"] for item in result["items"]] == ["a", None]
    for item, row in zip(result["items"], expected, strict=True):
        assert_same(sdk_array(item["dense"]["values"]), row["dense"])
        assert_same(sdk_array(item["sparse"]["indices"]), row["sparse"].indices)
        assert_same(sdk_array(item["sparse"]["values"]), row["sparse"].values)
        assert_same(sdk_array(item["multivector"]["values"]), row["multivector"])
    scored = msgspec.msgpack.decode((await client.post(SCORE_AT, content=SDK_SCORES, headers=SDK_HEADERS)).content)
    assert {row["item_id"] for row in scored["scores"]} == {"item-0", "b"} and scored["query_id"] is None
    assert [row["rank"] for row in scored["scores"]] == [0, 1]


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_models_are_listed_for_every_kind_of_client(client, engine):
    listed = (await client.get("/v1/models")).json()
    msgspec.convert(listed, Models)
    assert listed["object"] == "list" and listed["data"] == listed["models"]
    by_name = {model["id"]: model for model in listed["models"]}
    assert {"m3", "reranker", "prompted"} <= set(by_name)
    m3 = by_name["m3"]
    assert m3["state"] == "loaded" and m3["loaded"] is True and set(m3["outputs"]) == set(OUTPUTS)
    assert m3["max_sequence_length"] == m3["max_length"] > 0 and m3["object"] == "model"
    assert not any(name.startswith("/") for name in by_name), "where a model lies on the disk is nobody's business"


async def test_a_model_is_described_before_it_is_loaded(engine, models):
    async with in_process(engine, Settings(aliases={"new": models["prompted"], "same": models["prompted"]})) as client:
        engine.unload(models["prompted"])
        answer = (await client.get("/v1/models/new")).json()
        msgspec.convert(answer, Model)
        assert (answer["id"], answer["state"], answer["aliases"]) == ("new", "available", ["same"])
        assert read_model(answer).dims["dense"] > 0


async def test_the_allow_list_decides_what_is_listed(engine, models):
    settings = Settings(aliases={"m3": models["m3"]}, allow=("other/model", "BAAI/*"))
    async with in_process(engine, settings) as client:
        listed = {model["id"]: model for model in (await client.get("/v1/models")).json()["models"]}
        assert set(listed) == {"m3", "other/model"} and listed["other/model"]["backbone"] == "not opened yet"
        assert (await client.get("/v1/models/some/model")).status_code == 404


async def test_an_unknown_model_is_not_found(client):
    answer = await client.get("/v1/models/no-such/model")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────

WRONG = {
    "no items": (JSON, b'{"params": {}}', "items"),
    "an item that is a number": (JSON, b'{"items": [3]}', "items"),
    "an image": (JSON, b'{"items": [{"images": []}]}', "unknown field `images`"),
    "an unknown parameter": (JSON, b'{"items": ["x"], "params": {"temperature": 1}}', "unknown field `temperature`"),
    "an unknown output": (JSON, b'{"items": ["x"], "params": {"output_types": ["tense"]}}', "output_types"),
    "no JSON": (JSON, b"{", "JSON"),
    "no Arrow": (ARROW, b"{}", "Arrow stream"),
    "no MessagePack": (MSGPACK, b"\xc1", "MessagePack"),
    "MessagePack of another shape": (MSGPACK, pack([1]), "does not fit"),
    "MessagePack with a pickle": (MSGPACK, msgspec.msgpack.encode({b"nd": True, b"type": "|O"}), "arrays of numbers"),
    "MessagePack with a timestamp": (MSGPACK, b"\xd6\xff\0\0\0\0", "does not fit"),
    "a vector in place of a text": (
        MSGPACK,
        pack({"items": [{"multivector": np.ones((2, 2), np.float32)}]}),
        "multivector",
    ),
    "Arrow with an image": (ARROW, write_stream(pa.record_batch({"image": [b"x"]})), "unknown Arrow column 'image'"),
    "Arrow with wrong parameters": (ARROW, request_body([Item("x")] * 99, {"params": 3})[1], "does not fit"),
    "an empty list": (JSON, b'{"items": []}', "items is empty"),
    "an item without text": (JSON, b'{"items": ["x", {}]}', "item 1 needs either text or input_ids"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_body_is_refused_and_says_why(client, case):
    kind, body, message = WRONG[case]
    answer = await client.post(AT, content=body, headers={"content-type": kind})
    assert answer.status_code == 400 and answer.headers["content-type"] == JSON
    error = answer.json()["error"]
    assert error["code"] == ("INVALID_INPUT" if kind == MSGPACK else "invalid_input") and message in error["message"]


async def test_the_superlinked_sdk_gets_its_own_codes(client, engine, models):
    answer = await client.post("/v1/encode/no/such", content=pack({"items": ["x"]}), headers={"content-type": MSGPACK})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "MODEL_NOT_FOUND")
    engine.unload(models["prompted"])
    cold = await client.post("/v1/encode/prompted?wait=false", content=pack({"items": ["x"]}), headers=SDK_HEADERS)
    assert (cold.status_code, cold.json()["error"]["code"]) == (503, "MODEL_LOADING")
    assert float(cold.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (InvalidInputError, 400, "INVALID_INPUT"),
        (RequestTooLargeError, 413, "INPUT_TOO_LONG"),
        (OverloadedError, 429, "RATE_LIMIT"),
        (ModelLoadError, 502, "MODEL_LOAD_FAILED"),
        (ModelLoadingError, 503, "MODEL_LOADING"),
        (OutOfMemoryError, 503, "RESOURCE_EXHAUSTED"),
        (DeadlineExceededError, 504, "DEADLINE_EXCEEDED"),
    ],
)
def test_codes_for_the_superlinked_sdk(kind, status, code):
    answered, body = sdk_error(kind("why", retry_after_s=2.5))
    assert (answered, body) == (status, {"error": {"code": code, "message": "why", "retry_after_s": 2.5}})


def test_an_error_says_exactly_when_to_come_back():
    told = {"code": "overloaded", "message": "full", "retry_after_s": 0.25}
    assert error(OverloadedError("full", retry_after_s=0.25)) == (429, {"error": told})
    for body in (error(OverloadedError("full"))[1], {"error": told}):
        msgspec.convert(body, ErrorBody)
