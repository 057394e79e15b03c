"""Sparse search: the ranking of the exact dot product, from an index, with conditions, and BM25's own as a check."""

import asyncio

import lancedb
import numpy as np
import pytest

from support.lancedb_tables import M3, rows
from tercet import VectorSpec, sparse_dot
from tercet.types import SparseBatch, SparseVector
from tercet_lancedb import asparse_search, create_indices, embed_table, sparse_search
from tercet_lancedb.sparse import _holds

SPEC = VectorSpec(sparse=M3)
WORDS = VectorSpec(sparse="bm25")


@pytest.fixture(scope="module")
def tables(engine, tmp_path_factory):
    """A table of learned weights and one of BM25's, each indexed in part, and their place."""
    path = tmp_path_factory.mktemp("sparse")
    db = lancedb.connect(path)
    for name, spec in (("learned", SPEC), ("words", WORDS)):
        create_indices(embed_table(db, name, rows(90), spec, engine, batch_size=30))
        embed_table(db, name, rows(120), spec, engine, batch_size=30)
    return db, path


def query_of(engine, spec, text="the quick fox and a lazy dog in spring, note 7"):
    return spec.encode_query(engine, text)["sparse"]


def expected(engine, spec, query, k, keep=lambda i: True):
    """Return the numbers of the best rows by brute force, ties in the order of the table."""
    batch = spec.encode(engine, rows(120)["text"].to_pylist())["sparse"]
    scores = sparse_dot(query, batch)
    best = [i for i in np.argsort(-scores, kind="stable") if scores[i] > 0 and keep(i)]
    return best[:k], scores


def numbers(table, found):
    read = table.take_row_ids(found["_rowid"].to_pylist()).select(["n"]).with_row_id().to_arrow()
    by_id = dict(zip(read["_rowid"].to_pylist(), read["n"].to_pylist(), strict=True))
    return [by_id[row] for row in found["_rowid"].to_pylist()]


def test_the_ranking_is_exact(engine, tables):
    table = tables[0].open_table("learned")
    query = query_of(engine, SPEC)
    found = sparse_search(table, query, 20)
    best, scores = expected(engine, SPEC, query, 20)
    np.testing.assert_allclose(found["_score"].to_numpy(), scores[best], rtol=1e-5)
    ours = numbers(table, found)
    np.testing.assert_allclose(scores[ours], scores[best], rtol=1e-5)
    assert len(set(ours)) == 20


def test_a_condition_narrows_the_candidates(engine, tables):
    table = tables[0].open_table("words")
    query = query_of(engine, WORDS, "lazy dog")
    assert set(numbers(table, sparse_search(table, query, 100))) == set(range(1, 120, 6))
    assert set(numbers(table, sparse_search(table, query, 100, where="n > 60 OR n = 1"))) == {1, *range(61, 120, 6)}


def test_bm25_gets_its_inverse_document_frequencies_from_the_table(engine, tables):
    """By ln(1 + (n − df + ½) / (df + ½)): "note" is in every row and says little, "17" is in one and says much."""
    table = tables[0].open_table("words")
    query = query_of(engine, WORDS, "dog note 17 unheard")
    batch = WORDS.encode(engine, rows(120)["text"].to_pylist())["sparse"]
    holding = np.array([(batch.indices == term).sum() for term in query.indices])
    weights = np.log1p((120 - holding + 0.5) / (holding + 0.5)).astype(np.float32) * query.values
    scores = sparse_dot(SparseVector(query.indices, weights), batch)
    found = sparse_search(table, query, 5, idf=True)
    assert numbers(table, found)[0] == 17 == np.argmax(scores)
    np.testing.assert_allclose(found["_score"].to_numpy(), np.sort(scores)[::-1][:5], rtol=1e-5)
    narrowed = sparse_search(table, query, 1, where="n = 17", idf=True)
    np.testing.assert_allclose(narrowed["_score"].to_numpy(), scores[17], rtol=1e-5)


def test_asynchronous_tables_answer_alike(engine, tables):
    async def search():
        table = await (await lancedb.connect_async(tables[1])).open_table("words")
        return await asparse_search(table, query, 9, where="n < 100", idf=True), await asparse_search(table, query, 9)

    table, query = tables[0].open_table("words"), query_of(engine, WORDS, "quick spring fox note 5")
    narrowed, plain = asyncio.run(search())
    assert narrowed.equals(sparse_search(table, query, 9, where="n < 100", idf=True))
    assert plain.equals(sparse_search(table, query, 9))


def test_no_known_term_is_no_result(engine, tables):
    table = tables[0].open_table("words")
    nothing = SparseVector(np.empty(0, np.uint32), np.empty(0, np.float32))
    for query in (nothing, query_of(engine, WORDS, "unheard")):
        for idf in (False, True):
            found = sparse_search(table, query, 5, idf=idf)
            assert found.num_rows == 0 and found.column_names == ["_rowid", "_score"]


def test_the_index_is_used(tables, engine):
    """LanceDB passes over an index without a word: on a struct's field, or for other integers than the column's."""
    table = tables[0].open_table("words")
    terms = query_of(engine, WORDS, "lazy dog").indices
    plan = table.search().where(_holds(terms)).select(["id"]).explain_plan(True)
    assert "ScalarIndexQuery" in plan and "sparse_indices_idx" in plan
    inside = _holds(terms).replace("sparse_indices", "sparse.indices")
    assert "ScalarIndexQuery" not in table.search().where(inside).select(["id"]).explain_plan(True)
    listed = [str(term) for term in terms]
    plain = f"array_has_any(sparse_indices, [{', '.join(listed)}])"
    assert "ScalarIndexQuery" not in table.search().where(plain).select(["id"]).explain_plan(True)


def test_equal_scores_come_in_the_order_of_the_table(engine, tmp_path):
    db = lancedb.connect(tmp_path)
    same = rows(40).set_column(1, "text", [["hello"] * 40])
    table = embed_table(db, "same", same, WORDS, engine, batch_size=7)
    assert isinstance(WORDS.encode(engine, ["hello"])["sparse"], SparseBatch)
    found = sparse_search(table, query_of(engine, WORDS, "hello"), 15)
    assert numbers(table, found) == list(range(15))
