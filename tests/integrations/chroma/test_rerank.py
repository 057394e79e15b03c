"""Chroma's results in another order, in Chroma's own shapes."""

import numpy as np
import pytest

from tercet import InvalidInputError
from tercet_chroma import Reranker, TercetEmbeddingFunction

TEXTS = {"a": "hello world", "b": "the quick brown fox", "c": "numbers 1999", "d": "the fox"}
INCLUDE = ["documents", "metadatas", "embeddings", "distances"]


@pytest.fixture
def collection(client, name, engine, bert):
    collection = client.create_collection(name, embedding_function=TercetEmbeddingFunction(bert, engine))
    metadatas = [{"key": key} for key in TEXTS]
    collection.add(ids=list(TEXTS), documents=list(TEXTS.values()), metadatas=metadatas)
    return collection


def test_every_column_moves_with_its_row(collection, engine, bert):
    queries = ["quick fox", "hello"]
    result = collection.query(query_texts=queries, n_results=4, include=INCLUDE)
    ranked = Reranker(bert, engine, options={"scoring": "maxsim"}).rerank(queries, result)
    assert ranked.keys() == result.keys() | {"scores"} and ranked["included"] == result["included"]
    for i, query in enumerate(queries):
        expected = engine.score(bert, query, result["documents"][i], options={"scoring": "maxsim"})
        assert ranked["ids"][i] == [result["ids"][i][row.index] for row in expected]
        assert ranked["scores"][i] == [row.score for row in expected] == sorted(ranked["scores"][i], reverse=True)
        for j, key in enumerate(ranked["ids"][i]):
            before = result["ids"][i].index(key)
            assert ranked["documents"][i][j] == TEXTS[key] and ranked["metadatas"][i][j] == {"key": key}
            assert ranked["distances"][i][j] == result["distances"][i][before]
            np.testing.assert_array_equal(ranked["embeddings"][i][j], result["embeddings"][i][before])


def test_fewer_rows_and_empty_results(collection, engine, bert):
    reranker = Reranker(bert, engine, options={"scoring": "maxsim"})
    result = collection.query(query_texts="fox", n_results=4)
    assert reranker.rerank("fox", result, top_k=2)["ids"][0] == reranker.rerank("fox", result)["ids"][0][:2]
    nothing = collection.query(query_texts="fox", where={"key": "none"})
    ranked = reranker.rerank("fox", nothing)
    assert ranked["ids"] == [[]] and ranked["scores"] == [[]]


def test_mistakes_say_what_to_do(ephemeral, name, engine, bert):
    reranker = Reranker(bert, engine, options={"scoring": "maxsim"})
    collection = ephemeral.create_collection(name, embedding_function=TercetEmbeddingFunction(bert, engine))
    collection.add(ids=["a"], documents=["hello"])
    with pytest.raises(InvalidInputError, match=r"no documents to read.*include=\['documents'"):
        reranker.rerank("fox", collection.query(query_texts="fox", include=["distances"]))
    with pytest.raises(InvalidInputError, match="answers 1 queries, not 2"):
        reranker.rerank(["fox", "hello"], collection.query(query_texts="fox"))
    collection.add(ids=["b"], embeddings=engine.encode(bert, ["fox"]).dense)
    with pytest.raises(InvalidInputError, match="not for every row"):
        reranker.rerank("fox", collection.query(query_texts="fox"))
    with pytest.raises(InvalidInputError, match="unknown option 'speed'"):
        Reranker(bert, engine, options={"speed": 1})
