"""Rerankers: the engine's order, in LanceDB's own searches, with one side empty, a column missing, a score tied."""

import asyncio

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.query import MatchQuery

from support.lancedb_tables import M3, OTHER, rows
from tercet import Encoding, InvalidInputError, ModelMismatchError, VectorSpec
from tercet_lancedb import LateInteractionReranker, TercetReranker, create_indices, embed_table
from tercet_lancedb.results import merged

SPEC = VectorSpec(dense=M3, multivector=M3)
QUERY = "lazy dog, note 7"


@pytest.fixture(scope="module")
def place(engine, tmp_path_factory):
    path = tmp_path_factory.mktemp("rerank")
    create_indices(embed_table(lancedb.connect(path), "docs", rows(60), SPEC, engine))
    return path


@pytest.fixture(scope="module")
def table(place):
    return lancedb.connect(place).open_table("docs")


@pytest.fixture
def reranker(engine):
    return TercetReranker(M3, engine, options={"scoring": "maxsim"})


def hybrid_search(table, reranker, limit=20, where=None):
    search = table.search(query_type="hybrid", vector_column_name="vector", fts_columns="text")
    search = search.vector(table.embedding_functions["vector"].function.compute_query_embeddings(QUERY)[0])
    search = search.text(QUERY).distance_type("cosine").limit(limit).with_row_id(True).rerank(reranker)
    return (search.where(where) if where else search).to_arrow()


def assert_ranked(engine, found, scale=1.0):
    """Assert that rows stand in the engine's own order, with its own scores."""
    relevance = found["_relevance_score"]
    assert relevance.type == pa.float32() and len(set(found["_rowid"].to_pylist())) == found.num_rows
    expected = engine.score(M3, QUERY, found["text"].to_pylist(), options={"scoring": "maxsim"})
    np.testing.assert_allclose(relevance.to_numpy(), scale * expected.scores, rtol=1e-4)
    assert (np.diff(relevance.to_numpy()) <= 0).all()


def test_hybrid_results_are_in_the_models_order(engine, table, reranker):
    found = hybrid_search(table, reranker)
    assert found.num_rows == 20 and not {"_distance", "_score"} & set(found.column_names)
    assert_ranked(engine, found)


def test_all_scores_can_be_kept(engine, table):
    found = hybrid_search(table, TercetReranker(M3, engine, options={"scoring": "maxsim"}, return_score="all"), 60)
    assert found.num_rows == 60 and found["_distance"].null_count == 0
    words = table.search(QUERY, query_type="fts", fts_columns="text").limit(60).with_row_id(True).to_arrow()
    scores = dict(zip(words["_rowid"].to_pylist(), words["_score"].to_pylist(), strict=True))
    assert found["_score"].to_pylist() == [scores.get(row) for row in found["_rowid"].to_pylist()]


def test_vector_and_text_results_are_in_the_models_order(engine, table, reranker):
    vector = table.embedding_functions["vector"].function.compute_query_embeddings(QUERY)[0]
    nearest = table.search(vector, vector_column_name="vector").distance_type("cosine").limit(15).with_row_id(True)
    assert_ranked(engine, nearest.rerank(reranker, query_string=QUERY).to_arrow())
    words = table.search(QUERY, query_type="fts", fts_columns="text").limit(15).with_row_id(True)
    assert_ranked(engine, words.rerank(reranker).to_arrow())
    match = table.search(MatchQuery(QUERY, "text"), query_type="fts").limit(15).with_row_id(True)
    assert match.rerank(reranker).to_arrow().equals(words.rerank(reranker).to_arrow())


def test_several_vector_searches_become_one(engine, table, reranker):
    def search(column, limit):
        vector = table.embedding_functions[column].function.compute_query_embeddings(QUERY)[0]
        found = table.search(vector, vector_column_name=column).distance_type("cosine")
        return found.limit(limit).with_row_id(True)

    searches = [search("vector", 9), search("multivector", 12)]
    found = reranker.rerank_multivector(searches, QUERY)
    assert_ranked(engine, found)
    results = [one.to_arrow() for one in searches]
    assert found.num_rows == len({row for one in results for row in one["_rowid"].to_pylist()}) >= 12
    assert found.equals(reranker.rerank_multivector(results, QUERY))
    assert reranker.rerank_multivector(results, QUERY, deduplicate=False).num_rows == 21


def test_asynchronous_searches_are_reranked_alike(engine, place, table, reranker):
    async def search():
        opened = await (await lancedb.connect_async(place)).open_table("docs")
        vector = table.embedding_functions["vector"].function.compute_query_embeddings(QUERY)[0]
        query = opened.query().nearest_to(vector).column("vector").nearest_to_text(QUERY, columns=["text"])
        return await query.distance_type("cosine").limit(60).with_row_id().rerank(reranker).to_arrow()

    found = asyncio.run(search())
    assert_ranked(engine, found)
    assert sorted(found["id"].to_pylist()) == sorted(hybrid_search(table, reranker, 60)["id"].to_pylist())


def test_late_interaction_reads_the_stored_vectors(engine, table):
    stored = hybrid_search(table, LateInteractionReranker.of(table.schema))
    tokens = len(SPEC.encode_query(engine, QUERY)["multivector"])  # the model's own score is the mean over these
    assert_ranked(engine, stored, tokens)
    again = hybrid_search(table, LateInteractionReranker(M3, engine))
    assert again["id"].to_pylist() == stored["id"].to_pylist()


@pytest.mark.parametrize("side", ["neither", "vector", "text"])
def test_one_side_may_be_empty(table, reranker, side):
    where = {"neither": "n > 1000", "vector": "n = 7", "text": "n = 7"}[side]
    whole = table.search(QUERY, query_type="fts", fts_columns="text").where(where).limit(5).with_row_id(True).to_arrow()
    bare = pa.table({"id": pa.array([], pa.string())})  # LanceDB's own empty results may lack columns
    results = (bare, whole) if side == "text" else (whole, bare)
    found = reranker.rerank_hybrid(QUERY, *results)
    assert found["id"].to_pylist() == ([] if side == "neither" else ["d7"])
    assert found["_relevance_score"].type == pa.float32()
    assert hybrid_search(table, reranker, where=where)["id"].to_pylist() == found["id"].to_pylist()


def test_equal_scores_keep_the_order_of_the_search(engine):
    results = pa.table({"text": ["same"] * 9, "_rowid": pa.array(range(9, 0, -1), pa.uint64())})
    found = TercetReranker(M3, engine).rerank_fts("hello", results)
    assert found["_rowid"].to_pylist() == list(range(9, 0, -1))


def test_a_null_text_counts_as_empty_and_null_vectors_score_nothing(engine):
    results = pa.table(
        {"text": ["hello", None], "multivector": pa.array([None, None], pa.list_(pa.list_(pa.float32(), 32)))}
    )
    scores = TercetReranker(M3, engine).rerank_vector("hello", results)["_relevance_score"].to_numpy()
    assert np.isfinite(scores).all() and scores[0] > scores[1]
    zero = LateInteractionReranker(M3, engine).rerank_vector("hello", results)
    assert zero["_relevance_score"].to_pylist() == [0.0, 0.0] and zero["text"].to_pylist() == ["hello", None]


def test_what_cannot_be_reranked_is_said(engine, table, reranker):
    results = pa.table({"id": ["a"], "_rowid": pa.array([1], pa.uint64())})
    with pytest.raises(InvalidInputError, match=r"needs the column 'text', and the results have id, _rowid; add it to"):
        reranker.rerank_fts(QUERY, results)
    with pytest.raises(InvalidInputError, match="needs the column 'text'"):
        table.search(QUERY, query_type="fts", fts_columns="text").select(["id"]).rerank(reranker).to_arrow()
    with pytest.raises(InvalidInputError, match="needs the question's text, not NoneType"):
        reranker.rerank_vector(None, results.append_column("text", [["x"]]))
    with pytest.raises(InvalidInputError, match="vector_results is empty"):
        reranker.rerank_multivector([], QUERY)
    with pytest.raises(InvalidInputError, match=r"search.*with_row_id"):
        merged([results, results.drop_columns(["_rowid"])])
    with pytest.raises(InvalidInputError, match="the table has no multivector vectors; it has dense"):
        dense = embed_table(lancedb.connect("memory://"), "docs", rows(1), VectorSpec(dense=M3), engine)
        LateInteractionReranker.of(dense.schema)
    with pytest.raises(InvalidInputError, match="unknown option 'scorring'"):
        TercetReranker(M3, engine, options={"scorring": "maxsim"})


def test_vectors_of_another_model_are_not_compared(engine, table):
    with pytest.raises(ModelMismatchError, match="holds multivector vectors of tiny/m3"):
        other = LateInteractionReranker.of(table.schema)
        LateInteractionReranker(OTHER, engine, fingerprint=other._fingerprint).rerank_vector(QUERY, table.to_arrow())
    with pytest.raises(InvalidInputError, match="dimensions"):
        LateInteractionReranker(Encoding(M3, dimensions=8), engine).rerank_vector(QUERY, table.to_arrow())
