"""What Weaviate is told, followed as its Go modules follow it: each URL leads to our server and its vectors."""

import json
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import yaml
from weaviate.classes.config import Configure, DataType, Property

from support.weaviate_cases import KEY
from support.weaviate_stub import VERSION
from tercet import Encoding, InvalidInputError, UnsupportedOperationError, VectorSpec
from tercet_weaviate import compose, headers, vector_config

URL = "http://tercet:8080"
TEXTS = ["the quick brown fox", "numbers 1999"]
COLBERT = Encoding("colbert-v3", dimensions=32)


def created(client, stub, spec, *given, **choices):
    """Return what Weaviate gets to know of each vector."""
    text = Property(name="text", data_type=DataType.TEXT, vectorize_property_name=False)
    client.collections.create("Docs", vector_config=vector_config(spec, *given, **choices), properties=[text])
    return stub.store.classes["Docs"].schema["vectorConfig"]


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("TERCET_TEST_KEY", KEY)
    return "TERCET_TEST_KEY"


def test_self_provided_vectors_name_no_module(client, stub):
    made = created(client, stub, VectorSpec(dense="tiny/bert", multivector="tiny/m3"))
    assert made["dense"]["vectorizer"] == made["multivector"]["vectorizer"] == {"none": {}}
    assert [made[name]["vectorIndexConfig"]["multivector"]["enabled"] for name in made] == [False, True]


def test_compression_goes_to_the_vectors_it_is_for(client, stub):
    muvera = Configure.VectorIndex.MultiVector.Encoding.muvera()
    spec = VectorSpec(dense="tiny/bert", multivector="tiny/m3")
    made = created(client, stub, spec, quantizer=Configure.VectorIndex.Quantizer.rq(), encoding=muvera)
    assert made["dense"]["vectorIndexConfig"]["rq"]["enabled"]
    assert made["multivector"]["vectorIndexConfig"]["multivector"]["muvera"]["enabled"]


@pytest.mark.slow
def test_transformers_finds_the_model(client, stub, server, engine):
    settings = created(client, stub, VectorSpec(dense="tiny/bert"), server.url + "/", "transformers")
    module = settings["dense"]["vectorizer"]["text2vec-transformers"]
    assert module["vectorizeClassName"] is False and module["properties"] == ["text"]
    for task in ("passage", "query"):
        right = engine.encode("tiny/bert", TEXTS[0], is_query=task == "query")["dense"]
        body = json.dumps({"text": TEXTS[0], "config": {"pooling_strategy": "masked_mean", "task_type": task}})
        answer = httpx.post(module["inferenceUrl"] + "/vectors", content=body, auth=("", KEY))  # as compose has it
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["vector"], right, atol=1e-6)


@pytest.mark.slow
def test_cohere_finds_the_model_with_our_headers(client, stub, server, engine, key):
    spec = VectorSpec(dense=Encoding("tiny/bert", dimensions=8))
    module = created(client, stub, spec, server.url, "cohere")["dense"]["vectorizer"]["text2vec-cohere"]
    assert module["vectorizeClassName"] is False and module["properties"] == ["text"]
    sent = headers(spec, key)
    assert int(sent["X-Cohere-Ratelimit-RequestPM-Embedding"]) > 10_000
    for kind in ("search_document", "search_query"):
        right = engine.encode("tiny/bert", TEXTS, is_query=kind == "search_query", dimensions=8).dense
        body = {"texts": TEXTS, "model": module["model"], "input_type": kind, "embedding_types": ["float"]}
        answer = httpx.post(
            module["baseURL"].rstrip("/") + "/v2/embed",
            json=body | {"output_dimension": module["dimensions"]},
            headers={"Authorization": f"Bearer {sent['X-Cohere-Api-Key']}", "Request-Source": "unspecified:weaviate"},
        )
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["embeddings"]["float"], right, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["transformers", "cohere"])
def test_colbert_finds_the_model_and_tells_the_sides(client, stub, server, engine, key, mode):
    spec = VectorSpec(multivector=COLBERT)
    made = created(client, stub, spec, server.url, mode)["multivector"]
    module = made["vectorizer"]["text2colbert-jinaai"]
    assert made["vectorIndexConfig"]["multivector"]["enabled"] and module["vectorizeClassName"] is False
    for task in ("retrieval.passage", "retrieval.query"):
        sides = {"is_query": task.endswith("query"), "output_types": ["multivector"], "dimensions": 32}
        right = engine.encode("tiny/m3", TEXTS[0], **sides)["multivector"]
        body = {"input": TEXTS[:1], "model": module["model"], "embedding_type": "float", "task": task}
        answer = httpx.post(
            module["baseURL"] + "/v1/multi-vector",
            json=body | {"dimensions": module["dimensions"]},
            headers={"Authorization": f"Bearer {headers(spec, key)['X-Jinaai-Api-Key']}"},
        )
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["data"][0]["embeddings"], right, atol=1e-6)


def test_the_servers_own_setting_is_used_without_a_url(client, stub):
    made = created(client, stub, VectorSpec(dense="tiny/bert"), mode="transformers")
    assert "inferenceUrl" not in made["dense"]["vectorizer"]["text2vec-transformers"]


@pytest.mark.parametrize(
    ("spec", "given", "message"),
    [
        (VectorSpec(dense="m"), {"mode": "openai"}, "choose one of 'self-provided', 'transformers', 'cohere'"),
        (VectorSpec(dense="m"), {"mode": "cohere"}, "text2vec-cohere needs the http:// address"),
        (VectorSpec(dense="m"), {"mode": "cohere", "server_url": "tercet:8080"}, "needs the http:// address"),
        (VectorSpec(dense="m"), {"mode": "transformers", "server_url": "http://:k@t"}, "api_key_env"),
        (
            VectorSpec(dense=Encoding("m", query_prompt="q")),
            {"mode": "transformers"},
            "ask for query_prompt='q'",
        ),
        (VectorSpec(dense=Encoding("m", output_dtype="int8")), {}, "dense vectors as int8"),
        (VectorSpec(multivector=COLBERT), {"mode": "cohere"}, "text2colbert-jinaai needs the http:// address"),
        (VectorSpec(multivector="colbert"), {"mode": "cohere", "server_url": URL}, "--alias colbert-v3=colbert"),
        (VectorSpec(multivector="colbert-v3"), {"mode": "cohere", "server_url": URL}, "128 dimensions"),
        (
            VectorSpec(multivector=Encoding("colbert-v3", dimensions=8, pool_factor=2)),
            {"mode": "cohere", "server_url": URL},
            "cannot ask for pool_factor=2",
        ),
    ],
)
def test_what_a_module_cannot_do_is_refused(spec, given, message):
    with pytest.raises(InvalidInputError, match=message):
        vector_config(spec, **given)


@pytest.mark.parametrize("use", [vector_config, headers, compose])
def test_sparse_vectors_are_refused_everywhere(use):
    with pytest.raises(UnsupportedOperationError, match=r"by its own BM25, so leave .sparse. out"):
        use(VectorSpec(dense="m", sparse="bm25"))


def test_headers_hold_a_key_for_each_module(monkeypatch):
    spec = VectorSpec(dense="m", multivector="colbert-v3")
    assert headers(spec)["X-Cohere-Api-Key"] == headers(spec)["X-Jinaai-Api-Key"] == "none"
    assert [name for name in headers(VectorSpec(multivector="m")) if "Cohere" in name] == []
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(InvalidInputError, match="environment variable NO_SUCH_KEY"):
        headers(spec, "NO_SUCH_KEY")


def environment(text):
    """Return the block of a docker-compose file, its variables filled in as docker-compose does."""
    read = yaml.safe_load(text.replace("${TERCET_TEST_KEY:?holds the key of Tercet}", KEY))
    assert list(read) == ["services"] and list(read["services"]) == ["weaviate"]
    return read["services"]["weaviate"]["environment"]


@pytest.mark.slow
def test_compose_points_the_modules_at_the_server(server):
    spec = VectorSpec(dense="tiny/bert", multivector="colbert-v3")
    made = environment(compose(spec, server.url, reranker="tiny/reranker", api_key_env="TERCET_TEST_KEY"))
    assert made["ENABLE_MODULES"] == "text2vec-transformers,text2colbert-jinaai,reranker-transformers"
    assert made["JINAAI_APIKEY"] == KEY
    vectors = httpx.post(made["TRANSFORMERS_INFERENCE_API"] + "/vectors", content=b'{"text":"a"}')
    assert vectors.status_code == 200 and vectors.json()["dims"] == 32
    body = {"query": "a", "documents": ["b", "c"], "property": "text"}
    reranked = httpx.post(made["RERANKER_INFERENCE_API"] + "/rerank", content=json.dumps(body))
    assert [score["document"] for score in reranked.json()["scores"]] == ["b", "c"]
    for variable in ("TRANSFORMERS_INFERENCE_API", "RERANKER_INFERENCE_API"):  # what Weaviate waits for at its start
        assert httpx.get(made[variable] + "/.well-known/ready").status_code == 204
    keyless = urlsplit(made["TRANSFORMERS_INFERENCE_API"])._replace(netloc=urlsplit(server.url).netloc).geturl()
    assert httpx.post(keyless + "/vectors", content=b'{"text":"a"}').status_code == 401


def test_compose_says_only_what_is_asked_for():
    cohere = environment(compose(VectorSpec(dense="a/b"), mode="cohere"))
    assert cohere == {"ENABLE_MODULES": "text2vec-cohere", "COHERE_APIKEY": "none"}
    odd = environment(compose(VectorSpec(dense='a/b "c": d@main')))
    assert odd["TRANSFORMERS_INFERENCE_API"] == "http://tercet:8080/m/a/b%20%22c%22%3A%20d@main"
    with pytest.raises(InvalidInputError, match="choose 'transformers' or 'cohere'"):
        compose(VectorSpec(dense="m"), mode="self-provided")
    with pytest.raises(InvalidInputError, match="holds a key"):
        compose(VectorSpec(dense="m"), "http://:secret@tercet:8080")


def test_the_clients_own_checks_at_its_start_pass(stub, monkeypatch):
    """Version, readiness and gRPC health; the question for a newer client goes nowhere."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with stub.connect(skip_init_checks=False) as client:
        assert client.is_ready() and client.is_live() and client.get_meta()["version"] == VERSION
