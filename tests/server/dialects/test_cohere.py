"""Cohere's embed and rerank: shapes, types, errors."""

import base64

import numpy as np
import pytest

from tercet.quantize import quantize

pytestmark = pytest.mark.anyio
TEXTS = ["hello world", "the quick brown fox", "words, words"]
LONG = "fox " * 2000
FIELDS = {"id", "embeddings", "texts", "meta", "response_type"}


def embed(**more):
    return {"model": "prompted", "texts": TEXTS, "input_type": "search_document"} | more


async def test_embed_has_coheres_shape(client, engine, models):
    answer = (await client.post("/v2/embed", json=embed())).json()
    expected = engine.encode(models["prompted"], TEXTS)
    assert answer.keys() == FIELDS and answer["id"] and answer["texts"] == TEXTS
    assert answer["response_type"] == "embeddings_by_type" and answer["embeddings"].keys() == {"float"}
    np.testing.assert_array_equal(np.array(answer["embeddings"]["float"], np.float32), expected.dense)
    assert answer["meta"] == {
        "api_version": {"version": "2"},
        "billed_units": {"input_tokens": int(expected.tokens.sum())},
    }


async def test_every_embedding_type_comes_from_the_same_vectors(client, engine, models):
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    answer = await client.post("/v2/embed", json=embed(embedding_types=types, output_dimension=16))
    columns, dense = answer.json()["embeddings"], engine.encode(models["prompted"], TEXTS, dimensions=16).dense
    assert columns.keys() == set(types)
    np.testing.assert_array_equal(np.array(columns["float"], np.float32), dense)
    for name in ("int8", "uint8", "binary", "ubinary"):
        np.testing.assert_array_equal(np.array(columns[name]), quantize(dense, name)[0])
    assert [base64.b64decode(row) for row in columns["base64"]] == [row.tobytes() for row in dense]


@pytest.mark.parametrize(
    ("input_type", "choices"),
    [
        ("search_query", {"is_query": True}),
        ("search_document", {}),
        ("classification", {}),
        ("clustering", {"prompt": "clustering"}),
    ],
)
async def test_the_input_type_decides_the_prompt(client, engine, models, input_type, choices):
    answer = await client.post("/v2/embed", json=embed(input_type=input_type))
    expected = engine.encode(models["prompted"], TEXTS, **choices).dense
    np.testing.assert_array_equal(np.array(answer.json()["embeddings"]["float"], np.float32), expected)


async def test_inputs_in_parts(client):
    parts = [{"content": [{"type": "text", "text": "the quick"}, {"type": "text", "text": "brown fox"}]}]
    answer = await client.post("/v2/embed", json=embed(texts=None, inputs=parts))
    assert answer.status_code == 200 and answer.json()["texts"] == ["the quick\nbrown fox"]
    image = [{"content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]
    refused = await client.post("/v2/embed", json=embed(texts=None, inputs=image))
    assert refused.status_code == 400 and "text" in refused.json()["message"]


@pytest.mark.parametrize("side", ["START", "END"])
async def test_long_texts_are_cut_where_the_caller_says(client, engine, models, side):
    text = "hello world " * 300 + "the lazy dog " * 300
    answer = await client.post("/v2/embed", json=embed(texts=[text], truncate=side))
    expected = engine.encode(models["prompted"], [text], truncate=side.lower()).dense
    np.testing.assert_array_equal(np.array(answer.json()["embeddings"]["float"], np.float32), expected)


async def test_the_first_version_answers_with_vectors_alone(client, engine, models):
    answer = (await client.post("/v1/embed", json=embed())).json()
    assert answer.keys() == FIELDS and answer["response_type"] == "embeddings_floats"
    expected = engine.encode(models["prompted"], TEXTS).dense
    np.testing.assert_array_equal(np.array(answer["embeddings"], np.float32), expected)
    typed = (await client.post("/v1/embed", json=embed(embedding_types=["int8"]))).json()
    assert typed["response_type"] == "embeddings_by_type" and typed["embeddings"].keys() == {"int8"}
    assert typed["meta"]["api_version"] == {"version": "1"}


async def test_rerank(client, engine, models):
    body = {"model": "reranker", "query": "a fox", "documents": TEXTS, "top_n": 2}
    answer = (await client.post("/v2/rerank", json=body)).json()
    expected = engine.score(models["reranker"], "a fox", TEXTS, top_k=2)
    assert answer.keys() == {"id", "results", "meta"}
    assert answer["results"] == [{"index": s.index, "relevance_score": s.score} for s in expected]
    assert answer["meta"] == {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}


async def test_documents_are_cut_to_the_tokens_that_are_asked_for(client):
    documents = ["hello world again", "hello world, the quick brown fox"]
    body = {"model": "reranker", "query": "a fox", "documents": documents, "max_tokens_per_doc": 2}
    scores = {row["relevance_score"] for row in (await client.post("/v2/rerank", json=body)).json()["results"]}
    whole = {"model": "reranker", "query": "a fox", "documents": ["hello world"]}
    (alone,) = (await client.post("/v2/rerank", json=whole)).json()["results"]
    np.testing.assert_allclose([*scores], alone["relevance_score"], atol=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/embed", b"[", 400),
        ("/v2/embed", embed(texts=[]), 400),
        ("/v2/embed", embed(texts=None), 400),
        ("/v2/embed", embed(model="org/none"), 404),
        ("/v2/embed", embed(texts=[LONG], truncate="NONE"), 400),
        ("/v2/embed", embed(images=["data:"]), 400),
        ("/v2/embed", embed(input_type="poem"), 400),
        ("/v2/embed", embed(embedding_types=["binary"], output_dimension=7), 400),
        ("/v2/embed", embed(output_dimension=10_000), 400),
        ("/v2/rerank", {"query": "a", "documents": []}, 400),
        ("/v2/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, 400),
        ("/v2/rerank", {"query": "a", "documents": ["b"], "max_tokens_per_doc": 0}, 400),
        ("/v2/rerank", {"model": "org/none", "query": "a", "documents": ["b"]}, 404),
    ],
)
async def test_mistakes(client, path, body, status):
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = await client.post(path, **sent)
    assert answer.status_code == status and answer.json().keys() == {"message"} and answer.json()["message"]
