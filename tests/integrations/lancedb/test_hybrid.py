"""Hybrid search: its legs fused, narrowed and reranked, the same from synchronous and asynchronous tables."""

import asyncio
import threading

import lancedb
import numpy as np
import pytest
from lancedb.rerankers import RRFReranker

from support.lancedb_tables import BERT, M3, OTHER, rows
from tercet import Encoding, Engine, InvalidInputError, ModelMismatchError, VectorSpec, rrf
from tercet_lancedb import (
    LateInteractionReranker,
    TercetReranker,
    acreate_indices,
    ahybrid,
    create_indices,
    embed_table,
    hybrid,
)

SPEC = VectorSpec(dense=M3, sparse="bm25", multivector=M3)
QUERY = "lazy dog, note 7"
MAXSIM = {"scoring": "maxsim"}


@pytest.fixture(scope="module")
def place(engine, tmp_path_factory):
    path = tmp_path_factory.mktemp("hybrid")
    create_indices(embed_table(lancedb.connect(path), "docs", rows(90), SPEC, engine))
    return path


@pytest.fixture(scope="module")
def table(place):
    return lancedb.connect(place).open_table("docs")


def leg(table, name, k, **choices):
    """Return the row ids of one leg alone."""
    return hybrid(table, QUERY, k, legs=[name], **choices)["_rowid"].to_pylist()


@pytest.mark.parametrize(
    ("legs", "weights", "k"), [(("dense", "sparse"), None, 60), (("dense", "text", "multivector"), (1.0, 0.5, 2.0), 10)]
)
def test_the_ranking_is_that_of_the_legs_fused(table, legs, weights, k):
    found = hybrid(table, QUERY, 12, legs=legs, weights=weights, rrf_k=k, candidates=90)
    expected = rrf([leg(table, name, 90) for name in legs], k=k, weights=weights)
    assert found["_rowid"].to_pylist() == list(expected)[:12]
    np.testing.assert_allclose(found["_relevance_score"].to_numpy(), list(expected.values())[:12], rtol=1e-6)
    assert found.column_names == ["id", "text", "n", "_rowid", "_relevance_score"]


def test_each_leg_finds_what_is_nearest(engine, table):
    texts = rows(90)["text"].to_pylist()
    vectors, query = SPEC.encode(engine, texts), SPEC.encode_query(engine, QUERY)
    cosine = vectors["dense"] @ query["dense"] / np.linalg.norm(vectors["dense"], axis=1)
    found = hybrid(table, QUERY, 10, legs=["dense"])
    np.testing.assert_allclose(cosine[found["n"].to_numpy()], np.sort(cosine)[::-1][:10], atol=1e-6)
    assert hybrid(table, QUERY, 1, legs=["sparse"])["id"].to_pylist() == ["d7"]
    assert hybrid(table, QUERY, 1, legs=["text"])["id"].to_pylist() == ["d7"]
    late = engine.score(M3, QUERY, texts, options=MAXSIM).scores
    found = hybrid(table, QUERY, 10, legs=["multivector"])
    np.testing.assert_allclose(late[found["n"].to_numpy()], np.sort(late)[::-1][:10], rtol=1e-4)


def test_a_condition_holds_in_every_leg(table):
    found = hybrid(table, QUERY, 90, legs=["dense", "sparse", "multivector", "text"], where="n >= 40 AND n < 60")
    assert sorted(found["n"].to_pylist()) == list(range(40, 60))
    nothing = hybrid(table, QUERY, where="n < 0", reranker=LateInteractionReranker.of(table.schema))
    assert nothing.num_rows == 0 and nothing.column_names == ["id", "text", "n", "_rowid", "_relevance_score"]


def test_more_than_k_are_found_and_reranked(engine, table):
    found = hybrid(table, QUERY, 5, reranker=TercetReranker(M3, engine, options=MAXSIM), select=["n"], candidates=50)
    assert found.column_names == ["n", "_rowid", "_relevance_score"]
    pool = hybrid(table, QUERY, 50, candidates=50)
    scores = engine.score(M3, QUERY, pool["text"].to_pylist(), options=MAXSIM)
    assert found["n"].to_pylist() == [pool["n"][row.index].as_py() for row in scores[:5]]
    stored = hybrid(table, QUERY, 5, reranker=LateInteractionReranker.of(table.schema), select=["n"], candidates=50)
    assert stored["n"].to_pylist() == found["n"].to_pylist()


@pytest.mark.parametrize(
    "choices", [{}, {"legs": ["dense", "text", "multivector"], "where": "n > 20"}, {"rerank": True}]
)
def test_asynchronous_tables_answer_alike(place, table, choices):
    if choices.pop("rerank", False):
        choices["reranker"] = LateInteractionReranker.of(table.schema)

    async def search():
        return await ahybrid(await (await lancedb.connect_async(place)).open_table("docs"), QUERY, 8, **choices)

    assert asyncio.run(search()).equals(hybrid(table, QUERY, 8, **choices))


def test_the_event_loop_is_not_held_up(engine, place):
    class Slow:
        """The engine, which answers no sooner than the loop has gone round."""

        def __getattr__(self, name):
            return getattr(engine, name)

        def encode(self, *arguments, **keywords):
            assert turned.wait(10)
            return engine.encode(*arguments, **keywords)

        score = engine.score

    async def search():
        opened = await (await lancedb.connect_async(place)).open_table("docs")
        asking = asyncio.create_task(ahybrid(opened, QUERY, 3, inference=Slow()))
        await asyncio.sleep(0.05)
        turned.set()
        return await asking

    turned = threading.Event()
    assert asyncio.run(search()).num_rows == 3


def test_packed_bits_are_searched_by_hamming_distance(engine, db):
    spec = VectorSpec(dense=Encoding(BERT, output_dtype="ubinary"))
    table = embed_table(db, "bits", rows(40), spec, engine)
    create_indices(table)
    found = hybrid(table, QUERY, 5, legs=["dense"])
    bits = spec.encode(engine, rows(40)["text"].to_pylist())["dense"] ^ spec.encode_query(engine, QUERY)["dense"]
    distances = np.unpackbits(bits, axis=1).sum(1)
    assert distances[found["n"].to_numpy()].tolist() == sorted(distances)[:5]


def test_vector_indices_are_made_from_a_size_on_and_searches_agree_with_the_scan(engine, db, tmp_path):
    exact = embed_table(db, "exact", rows(300), SPEC, engine)
    assert create_indices(exact) == ["id", "text", "sparse_indices"]
    table = embed_table(db, "docs", rows(300), SPEC, engine)
    assert create_indices(table, vectors_from=300) == ["id", "text", "vector", "sparse_indices", "multivector"]
    kinds = {index.columns[0]: index.index_type for index in table.list_indices()}
    assert kinds["vector"] == "IvfHnswSq" and kinds["multivector"] == "IvfPq" and kinds["sparse_indices"] == "LabelList"
    for name in ("dense", "multivector"):
        near = hybrid(table, QUERY, 20, legs=[name], nprobes=20, refine_factor=20, candidates=20)["n"].to_pylist()
        assert len(set(near) & set(hybrid(exact, QUERY, 20, legs=[name])["n"].to_pylist())) >= 18

    async def again():
        return await acreate_indices(await (await lancedb.connect_async(tmp_path / "db")).open_table("exact"))

    assert asyncio.run(again()) == ["id", "text", "sparse_indices"]


def test_another_engine_may_answer_for_the_stored_one_but_no_other_model(engine, cache, db, table):
    with Engine(device="cpu", precision="float32", cache_dir=cache) as second:
        assert hybrid(table, QUERY, 5, inference=second).equals(hybrid(table, QUERY, 5))

    class Renamed:
        """An engine in which the table's model is another one."""

        score, models, encode = engine.score, engine.models, engine.encode

        def describe(self, model):
            return engine.describe(OTHER)

    docs = embed_table(db, "docs", rows(5), VectorSpec(dense=BERT), engine)
    create_indices(docs)
    with pytest.raises(ModelMismatchError, match=r"the table holds dense vectors of tiny/bert.*tiny/other"):
        hybrid(docs, QUERY, inference=Renamed())


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"legs": ["dence"]}, "legs holds 'dence'; choose from dense, sparse, multivector, text"),
        ({"k": 0}, "k must be a whole number from 1"),
        ({"select": ["nope"]}, "the table has no column 'nope'; it has id, text, n"),
        ({"reranker": RRFReranker(), "weights": [1.0]}, "1 weights for 2 result lists"),
    ],
)
def test_wrong_choices_are_refused(table, choices, told):
    with pytest.raises(InvalidInputError, match=told):
        hybrid(table, QUERY, **choices)


def test_a_leg_that_the_table_has_not_is_refused(engine, db):
    docs = embed_table(db, "docs", rows(2), VectorSpec(dense=BERT), engine)
    with pytest.raises(InvalidInputError, match="the table has no sparse vectors to search; it has dense, and text"):
        hybrid(docs, QUERY, legs=["sparse"])
    with pytest.raises(TypeError, match="unexpected"):
        hybrid(docs, QUERY, limit=3)
