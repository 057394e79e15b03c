"""`/rerank`: the body's keys decide whose answer it is."""

import pytest

pytestmark = pytest.mark.anyio
TEXTS = ["hello world", "the quick brown fox", "words, words"]
QUERY = {"query": "a fox"}


async def test_each_body_gets_its_own_dialects_answer(client, engine, models):
    scores = engine.score(models["reranker"], "a fox", TEXTS).scores.tolist()
    tei = (await client.post("/rerank", json=QUERY | {"texts": TEXTS})).json()
    assert [row["score"] for row in tei] == sorted((row["score"] for row in tei), reverse=True)
    for more in ({"property": "body"}, {}):
        weaviate = (await client.post("/rerank", json=QUERY | {"documents": TEXTS, **more})).json()
        assert weaviate["query"] == "a fox"
        assert weaviate["scores"] == [{"document": t, "score": s} for t, s in zip(TEXTS, scores, strict=True)]
    jina = (await client.post("/rerank", json=QUERY | {"documents": TEXTS, "model": "reranker", "top_n": 1})).json()
    assert [row["relevance_score"] for row in jina["results"]] == [max(scores)] and jina["model"] == "reranker"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (QUERY, 422),
        ({"texts": TEXTS}, 422),
        (QUERY | {"texts": []}, 400),
        (QUERY | {"documents": [{"text": "a"}]}, 422),
        (QUERY | {"documents": TEXTS, "model": "org/none"}, 404),
    ],
)
async def test_mistakes_are_told_so_that_all_can_read_them(client, body, status):
    answer = await client.post("/rerank", json=body)
    assert answer.status_code == status and answer.json().keys() == {"error", "error_type"} and answer.json()["error"]
