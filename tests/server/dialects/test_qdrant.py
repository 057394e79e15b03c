"""Qdrant's inference: the real client through a relay that asks as Qdrant does, and each rule of the interface."""

from __future__ import annotations

import asyncio
import json

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import UnexpectedResponse

from support.loopback import loopback
from support.qdrant_relay import QdrantRelay
from support.servers import in_process
from support.tiny_models import save_bert, save_m3
from tercet import Engine
from tercet_server.app import create_app
from tercet_server.settings import Settings

anyio = pytest.mark.anyio
TEXTS = ["the quick brown fox", "a lazy dog sleeps", "brown bears fish", "the dog and the fox"]
QUERY = "a fox and a dog"
KEY = "a-key-of-the-server"


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """A model with prompts, and one with three outputs."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("prompted", "m3")}
    save_bert(made["prompted"])
    prompts = {"prompts": {"query": "find: ", "document": "a page: "}}
    (made["prompted"] / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    save_m3(made["m3"])
    return {name: str(folder) for name, folder in made.items()}


@pytest.fixture(scope="module")
def server_settings(directories):
    return Settings(aliases={**directories, "m3:dense": directories["prompted"]}, api_keys=(KEY,))


@pytest.fixture(scope="module")
def address(engine, server_settings):
    with loopback(create_app(engine, server_settings)) as url:
        yield f"{url}/qdrant/infer"


@pytest.fixture
def relay(address):
    return QdrantRelay(address, KEY)


@pytest.fixture
def store(relay):
    """The real client of a Qdrant with one collection."""
    with loopback(relay.app) as url:
        client = QdrantClient(url=url, cloud_inference=True, timeout=60, check_compatibility=False)
        client.create_collection(
            "docs",
            vectors_config={
                "dense": models.VectorParams(size=32, distance=models.Distance.COSINE),
                "tokens": models.VectorParams(
                    size=32,
                    distance=models.Distance.COSINE,
                    multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
                ),
            },
            sparse_vectors_config={"sparse": models.SparseVectorParams()},
        )
        yield client
        client.close()


def document(text, model, **options):
    return models.Document(text=text, model=model, options=options or None)


def points(model="m3"):
    named = {"dense": f"{model}:dense", "sparse": f"{model}:sparse", "tokens": f"{model}:multivector"}
    return [
        models.PointStruct(
            id=i, vector={name: document(text, of) for name, of in named.items()}, payload={"text": text}
        )
        for i, text in enumerate(TEXTS)
    ]


def expected(engine, model, texts, output, **choices):
    return getattr(engine.encode(model, texts, output_types=[output], **choices), output)


def body(*inputs, inference="update", **more):
    return {"inputs": list(inputs), "inference": inference, "token": KEY, **more}


def given(text, model="m3", data_type="text", **options):
    return {"data": text, "data_type": data_type, "model": model, "options": options or None}


def test_points_get_the_engines_vectors(store, relay, engine, directories):
    """`m3:dense` is an alias of another model, so that the names of three models stand in one request."""
    store.upsert("docs", points())
    assert len(relay.asked) == 1 and len(relay.asked[0]["inputs"]) == 3 * len(TEXTS)
    stored = store.retrieve("docs", list(range(len(TEXTS))), with_vectors=True)
    dense = expected(engine, directories["prompted"], TEXTS, "dense")
    sparse = expected(engine, directories["m3"], TEXTS, "sparse")
    tokens = expected(engine, directories["m3"], TEXTS, "multivector")
    for i, point in enumerate(stored):
        unit = dense[i] / np.linalg.norm(dense[i])
        np.testing.assert_allclose(point.vector["dense"], unit, atol=1e-5)
        assert point.vector["sparse"].indices == sparse[i].indices.tolist()
        np.testing.assert_allclose(point.vector["sparse"].values, sparse[i].values, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(point.vector["tokens"], tokens[i], atol=1e-5)
        assert point.payload == {"text": TEXTS[i]}


def test_queries_are_encoded_as_queries(store, relay, engine, directories):
    store.upsert("docs", points())
    found = store.query_points("docs", query=document(QUERY, "m3:dense"), using="dense", limit=len(TEXTS)).points
    assert relay.asked[-1]["inference"] == "search"
    model = directories["prompted"]
    unit = {}
    for side in (True, False):
        query = expected(engine, model, [QUERY], "dense", is_query=side)[0]
        unit[side] = query / np.linalg.norm(query)
    documents = expected(engine, model, TEXTS, "dense")
    documents = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    scores = documents @ unit[True]
    assert np.abs(scores - documents @ unit[False]).max() > 1e-3
    np.testing.assert_allclose([point.score for point in found], np.sort(scores)[::-1], atol=1e-5)


def test_a_hybrid_query_asks_once_for_all_its_documents(store, relay, engine, directories):
    store.upsert("docs", points())
    asked = len(relay.asked)
    prefetch = [
        models.Prefetch(query=document(QUERY, "m3", output="sparse"), using="sparse", limit=4),
        models.Prefetch(query=document(QUERY, "m3:dense"), using="dense", limit=4),
    ]
    matrix = document(QUERY, "m3:multivector")
    found = store.query_points("docs", prefetch=prefetch, query=matrix, using="tokens", limit=4).points
    assert len(relay.asked) == asked + 1 and len(relay.asked[-1]["inputs"]) == 3
    query = expected(engine, directories["m3"], [QUERY], "multivector", is_query=True)[0]
    tokens = expected(engine, directories["m3"], TEXTS, "multivector")
    scores = [float((query @ rows.T).max(1).sum()) for rows in tokens]
    np.testing.assert_allclose([point.score for point in found], sorted(scores, reverse=True), rtol=1e-4)


def test_batches_of_queries_and_repeated_documents_are_asked_for_once(store, relay):
    store.upsert("docs", [replace_text(point, TEXTS[0]) for point in points()])
    assert len(relay.asked[-1]["inputs"]) == 3
    requests = [
        models.QueryRequest(query=document(QUERY, "m3:dense"), using="dense", limit=2),
        models.QueryRequest(query=document(QUERY, "m3:dense"), using="dense", limit=1),
    ]
    one, other = store.query_batch_points("docs", requests)
    assert len(relay.asked[-1]["inputs"]) == 1
    assert (len(one.points), len(other.points)) == (2, 1)
    assert one.points[0].score == other.points[0].score


def replace_text(point, text):
    vector = {name: document(text, each.model) for name, each in point.vector.items()}
    return models.PointStruct(id=point.id, vector=vector, payload=point.payload)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("no/such-model", {}, "no/such-model"),
        ("m3", {"output": "images"}, "output"),
        ("m3", {"cuda": True}, "cuda"),
        ("m3", {"dimensions": 5000}, "dimensions=5000"),
        ("prompted:sparse", {}, "no 'sparse' output"),
        ("m3:sparse", {"output": "dense"}, "asks for sparse"),
    ],
)
def test_the_clients_faults_reach_it_as_such(store, model, options, message):
    with pytest.raises(UnexpectedResponse) as caught:
        store.query_points("docs", query=document(QUERY, model, **options), using="dense")
    told = json.loads(caught.value.content)["status"]["error"]
    assert caught.value.status_code == 400 and told.startswith("Inference request validation failed: ")
    assert message in told


def test_a_wrong_key_is_no_fault_of_the_clients(store, relay):
    relay.token = "another-key"
    with pytest.raises(UnexpectedResponse, match=r"Inference service error \(401\)") as caught:
        store.query_points("docs", query=document(QUERY, "m3"), using="dense")
    assert caught.value.status_code == 500


def test_overload_is_passed_on(directories):
    """The queue takes a single token, so that the second of two calls at a time is one too many."""
    with Engine(device="cpu", precision="float32", max_queue_tokens=1) as small:
        small.load(directories["m3"])
        app = create_app(small, Settings(aliases=directories))
        with loopback(app) as url, loopback(QdrantRelay(f"{url}/qdrant/infer").app) as relay_url:
            client = QdrantClient(url=relay_url, cloud_inference=True, timeout=60, check_compatibility=False)
            client.create_collection("docs", models.VectorParams(size=32, distance=models.Distance.COSINE))
            many = [models.PointStruct(id=i, vector=document(f"text {i} " * 50, "m3")) for i in range(64)]
            with pytest.raises(ResourceExhaustedResponse) as caught:
                for _ in range(20):
                    asyncio.run(_crowd(f"{url}/qdrant/infer", client, many))
            assert int(caught.value.retry_after_s) >= 1
            client.close()


async def _crowd(address, client, many):
    """Keep the queue full while the client upserts."""
    texts = body(*(given(f"some words {i} " * 50, "m3") for i in range(200)))
    async with httpx.AsyncClient(timeout=60) as others:
        crowd = [asyncio.create_task(others.post(address, json=texts)) for _ in range(4)]
        try:
            await asyncio.to_thread(client.upsert, "docs", many)
        finally:
            await asyncio.gather(*crowd)


@pytest.fixture
async def http(engine, server_settings):
    async with in_process(engine, server_settings) as client:
        yield client


@anyio
async def test_the_order_is_the_requests_and_repeats_cost_nothing(http, engine, directories):
    names = ["m3:sparse", "prompted", "m3:multivector", "m3", "prompted:multivector", "bm25"]
    inputs = [given(text, name) for text in TEXTS for name in names]
    once = (await http.post("/qdrant/infer", json=body(*inputs))).json()
    reverse = (await http.post("/qdrant/infer", json=body(*reversed(inputs), *inputs))).json()
    assert len(once["embeddings"]) == len(inputs)
    assert reverse["usage"] == once["usage"] and once["usage"]["models"].keys() == {"m3", "prompted", "bm25"}
    for i, (one, other) in enumerate(zip(once["embeddings"], reverse["embeddings"][::-1][len(inputs) :], strict=True)):
        assert shape(one) == shape(other) == ("sparse", "dense", "multivector", "dense", "multivector", "sparse")[i % 6]
    dense = [once["embeddings"][i] for i in range(3, len(inputs), 6)]
    np.testing.assert_allclose(dense, expected(engine, directories["m3"], TEXTS, "dense"), atol=1e-6)


def shape(embedding):
    if isinstance(embedding, dict):
        assert embedding.keys() == {"indices", "values"} and embedding["indices"] == sorted(set(embedding["indices"]))
        return "sparse"
    return "multivector" if isinstance(embedding[0], list) else "dense"


@anyio
async def test_dense_and_sparse_of_a_document_are_read_off_one_pass(http, engine, directories):
    read = int(engine.encode(directories["m3"], TEXTS).tokens.sum())
    both = [given(text, "m3", output=output) for text in TEXTS for output in ("dense", "sparse")]
    for inference, passes in (("update", 1), ("search", 2)):
        answer = await http.post("/qdrant/infer", json=body(*both, inference=inference))
        assert answer.json()["usage"] == {"models": {"m3": {"tokens": passes * read}}}


@anyio
async def test_options_go_to_the_model(http, engine, directories):
    inputs = [
        given(TEXTS[0], "m3", dimensions=8),
        given(TEXTS[0], "prompted", prompt="find: "),
        given(TEXTS[0], "m3:sparse", top_k=1),
        given(TEXTS[1], "m3:multivector", pool_factor=4),
    ]
    answer = (await http.post("/qdrant/infer", json=body(*inputs))).json()["embeddings"]
    short = expected(engine, directories["m3"], TEXTS[:1], "dense", dimensions=8)
    np.testing.assert_allclose(answer[0], short[0], atol=1e-6)
    as_query = expected(engine, directories["prompted"], TEXTS[:1], "dense", is_query=True)
    np.testing.assert_allclose(answer[1], as_query[0], atol=1e-6)
    assert len(answer[2]["indices"]) == 1
    assert len(answer[3]) < len(expected(engine, directories["m3"], TEXTS[1:2], "multivector")[0])


@anyio
@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (body(), 400, "inputs is empty"),
        (body(given("a", data_type="image")), 400, "read text"),
        (body(given({"deep": []}, data_type="object")), 400, "read text"),
        (body(given(["a"])), 400, "must be a string"),
        (body(given("a"), inference="delete"), 400, "inference"),
        (body({"data": "a"}), 400, "model"),
        (body(given("a"), token="wrong-key"), 401, "not known"),
        (body(given("a"), token=None), 401, "needed"),
        ([], 400, "Expected `object`"),
    ],
)
async def test_refusals(http, sent, status, message):
    answer = await http.post("/qdrant/infer", json=sent)
    assert answer.status_code == status and answer.json().keys() == {"error"}
    assert message in answer.json()["error"]


@anyio
async def test_faults_of_the_server_may_be_tried_again(http, server_settings, directories):
    late = await http.post("/qdrant/infer", json=body(given("a")), headers={"X-Request-Timeout-Ms": "0"})
    assert late.status_code == 504 and "error" in late.json()
    with Engine(device="cpu", precision="float32") as cold:
        async with in_process(cold, server_settings) as client:
            answer = await client.post("/qdrant/infer?wait=false", json=body(given("a", "prompted")))
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1


@anyio
async def test_the_paths_model_goes_first_and_is_known_by_its_own_output(http):
    answer = await http.post("/m/bm25/qdrant/infer", json=body(given("some words", "whatever")))
    assert shape(answer.json()["embeddings"][0]) == "sparse"
    assert answer.json()["usage"]["models"].keys() == {"bm25"}
