"""Jina's rerank, which is Cohere's first one too, and multi-vector."""

import numpy as np
import pytest

pytestmark = pytest.mark.anyio
TEXTS = ["hello world", "the quick brown fox", "words, words"]


def rerank(**more):
    return {"model": "reranker", "query": "a fox", "documents": TEXTS} | more


def matrices(answer):
    assert answer.status_code == 200, answer.text
    return [row["embeddings"] for row in answer.json()["data"]]


async def test_one_body_serves_jina_and_cohere(client, engine, models):
    answer = (await client.post("/v1/rerank", json=rerank())).json()
    expected = engine.score(models["reranker"], "a fox", TEXTS)
    assert answer.keys() == {"id", "model", "usage", "results", "meta"}
    assert answer["model"] == "reranker" and answer["usage"] == {"total_tokens": int(expected.tokens.sum())}
    assert answer["meta"] == {"api_version": {"version": "1"}, "billed_units": {"search_units": 1}}
    assert answer["results"] == [
        {"index": s.index, "relevance_score": s.score, "document": {"text": TEXTS[s.index]}} for s in expected
    ]


async def test_documents_come_back_only_if_asked_for(client):
    answer = await client.post("/v1/rerank", json=rerank(return_documents=False, top_n=1))
    (only,) = answer.json()["results"]
    assert only.keys() == {"index", "relevance_score"}


async def test_documents_may_be_objects(client, engine, models):
    documents = [{"title": "a", "text": "hello world"}, {"title": "the fox", "text": "words"}, "plain"]
    answer = (await client.post("/v1/rerank", json=rerank(documents=documents))).json()
    expected = engine.score(models["reranker"], "a fox", ["hello world", "words", "plain"])
    assert [row["index"] for row in answer["results"]] == expected.order.tolist()
    by_index = {row["index"]: row["document"] for row in answer["results"]}
    assert by_index == {0: documents[0], 1: documents[1], 2: {"text": "plain"}}
    body = rerank(documents=documents[:2], rank_fields=["title", "text"])
    fields = (await client.post("/v1/rerank", json=body)).json()
    both = engine.score(models["reranker"], "a fox", ["a\nhello world", "the fox\nwords"])
    assert [row["relevance_score"] for row in fields["results"]] == [s.score for s in both]


@pytest.mark.parametrize(
    ("choices", "is_query"),
    [
        ({}, False),
        ({"task": "retrieval.passage"}, False),
        ({"task": "retrieval.query"}, True),
        ({"input_type": "query"}, True),
    ],
)
async def test_multi_vector(client, engine, models, choices, is_query):
    body = {"model": "m3", "input": TEXTS, "embedding_type": "float", "dimensions": 8, **choices}
    answer = await client.post("/v1/multi-vector", json=body)
    expected = engine.encode(models["m3"], TEXTS, output_types=["multivector"], is_query=is_query, dimensions=8)
    for mine, theirs in zip(matrices(answer), expected.multivector, strict=True):
        np.testing.assert_array_equal(np.array(mine, np.float32), theirs)
    body = answer.json()
    assert (body["object"], body["model"]) == ("list", "m3")
    assert body["usage"] == {"total_tokens": int(expected.tokens.sum())}
    assert [(row["index"], row["object"]) for row in body["data"]] == [(i, "embeddings") for i in range(3)]


@pytest.mark.parametrize("kind", ["binary", "ubinary"])
async def test_multi_vector_in_bits(client, engine, models, kind):
    body = {"model": "m3", "input": [{"text": TEXTS[0]}], "embedding_type": kind, "dimensions": 8}
    expected = engine.encode(models["m3"], TEXTS[:1], output_types=["multivector"], dimensions=8, output_dtype=kind)
    (mine,) = matrices(await client.post("/v1/multi-vector", json=body))
    np.testing.assert_array_equal(np.array(mine), expected.multivector[0])


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/rerank", b"", 400),
        ("/v1/rerank", rerank(documents=[]), 400),
        ("/v1/rerank", rerank(documents=[{"title": "a"}]), 400),
        ("/v1/rerank", rerank(documents=[{"text": 7}]), 400),
        ("/v1/rerank", rerank(model="org/none"), 404),
        ("/v1/multi-vector", {"model": "m3", "input": []}, 400),
        ("/v1/multi-vector", {"model": "org/none", "input": ["a"]}, 404),
        ("/v1/multi-vector", {"model": "reranker", "input": ["a"]}, 400),
    ],
)
async def test_mistakes(client, path, body, status):
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = await client.post(path, **sent)
    assert answer.status_code == status and answer.json().keys() == {"detail", "message"}
    assert answer.json()["detail"] == answer.json()["message"] != ""
