"""Hybrid search on Chroma Cloud: what the real client sends for our schema, documents and searches."""

import numpy as np
import pytest
from chromadb import HttpClient, K

from support.chroma_cloud import cloud
from tercet import InvalidInputError
from tercet_chroma import (
    TercetEmbeddingFunction,
    TercetSparseEmbeddingFunction,
    add_batched,
    hybrid_schema,
    hybrid_search,
)

TEXTS = ["hello world", "the quick brown fox"]


@pytest.fixture
def server():
    with cloud() as server:
        yield server


@pytest.fixture
def collection(server, engine, bert):
    dense, sparse = TercetEmbeddingFunction(bert, engine), TercetSparseEmbeddingFunction("bm25", engine)
    client = HttpClient("127.0.0.1", server.port)
    return client.create_collection("docs", schema=hybrid_schema(dense, sparse), embedding_function=None)


def test_the_schema_names_both_functions(server, collection, engine, bert):
    keys = server.bodies["collections"][0]["schema"]["keys"]
    dense = keys["#embedding"]["float_list"]["vector_index"]["config"]
    sparse = keys["sparse"]["sparse_vector"]["sparse_vector_index"]
    assert dense["space"] == "cosine" and dense["embedding_function"]["name"] == "tercet"
    assert dense["embedding_function"]["config"]["model"] == bert
    assert sparse["enabled"] and sparse["config"]["source_key"] == "#document" and sparse["config"]["bm25"] is True
    assert sparse["config"]["embedding_function"]["config"]["fingerprint"]["sparse"]["model"] == "bm25"


def test_learned_weights_get_no_idf(engine, bert, m3):
    schema = hybrid_schema(TercetEmbeddingFunction(bert, engine), TercetSparseEmbeddingFunction(m3, engine))
    assert schema.keys["sparse"].sparse_vector.sparse_vector_index.config.bm25 is False


def test_documents_are_sent_with_both_vectors(server, collection, engine, bert):
    collection.add(ids=["a", "b"], documents=TEXTS)
    body = server.bodies["add"][0]
    rows = engine.encode("bm25", TEXTS, output_types=["sparse"]).sparse
    for metadata, row in zip(body["metadatas"], rows, strict=True):
        assert metadata["sparse"]["indices"] == row.indices.tolist()
        np.testing.assert_array_equal(np.float32(metadata["sparse"]["values"]), row.values)
    expected = engine.encode(bert, TEXTS).dense
    decoded = [np.frombuffer(__import__("base64").b64decode(text), np.float32) for text in body["embeddings"]]
    np.testing.assert_array_equal(np.stack(decoded), expected)


def test_a_search_is_both_rankings_fused(server, collection, engine, bert):
    server.found = {"ids": [["a"]], "documents": [["hello world"]], "scores": [[-0.03]], "select": [["#document"]]}
    search = hybrid_search("hello fox", limit=3, offset=2, where=K("lang") == "en", weights=[2, 1], candidates=50)
    assert collection.search(search)["ids"] == [["a"]]
    sent = server.bodies["search"][0]["searches"][0]
    assert sent["filter"] == {"lang": {"$eq": "en"}} and sent["limit"] == {"limit": 3, "offset": 2}
    assert sorted(sent["select"]["keys"]) == ["#document", "#metadata", "#score"]
    negative, total = sent["rank"]["$mul"]
    legs = [(leg["$div"]["left"]["$val"], leg["$div"]["right"]["$sum"]) for leg in total["$sum"]]
    assert negative == {"$val": -1} and [weight for weight, _ in legs] == [2, 1]
    (k, dense), (_, sparse) = (parts for _, parts in legs)
    assert k == {"$val": 60}
    query = engine.encode(bert, "hello fox", is_query=True)["dense"]
    np.testing.assert_array_equal(np.float32(dense["$knn"].pop("query")), query)
    words = engine.encode("bm25", "hello fox", output_types=["sparse"], is_query=True)["sparse"]
    assert sparse["$knn"].pop("query")["indices"] == words.indices.tolist()
    assert dense["$knn"] == {"key": "#embedding", "limit": 50, "default": 1e9, "return_rank": True}
    assert sparse["$knn"] == {"key": "sparse", "limit": 50, "default": 1e9, "return_rank": True}


def test_rankings_are_as_deep_as_the_page_that_is_asked_for():
    (first, _) = hybrid_search("q", limit=100, offset=50).to_dict()["rank"]["$mul"][1]["$sum"]
    assert first["$div"]["right"]["$sum"][1]["$knn"]["limit"] == 150
    with pytest.raises(InvalidInputError, match="limit must be a whole number from 1"):
        hybrid_search("q", limit=0)


def test_bulk_loads_are_cut_to_the_clouds_limit(server, collection):
    server.limit = 2
    assert add_batched(HttpClient("127.0.0.1", server.port), collection, ["one", "two", "three"]) == 3
    sent = server.bodies["upsert"]
    assert [body["documents"] for body in sent] == [["one", "two"], ["three"]]
    assert all({"sparse", "tercet_mark"} <= metadata.keys() for body in sent for metadata in body["metadatas"])
