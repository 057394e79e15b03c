"""Hybrid search on Chroma embedded and served: both legs, in step through every kind of write."""

import numpy as np
import pytest

from support.chroma_calls import Counted
from tercet import Encoding, InvalidInputError, ModelMismatchError, VectorSpec, maxsim, rrf, sparse_dot, top_k
from tercet.types import SparseVector
from tercet_chroma import HybridCollection, TercetEmbeddingFunction

TEXTS = {
    "a": "hello world",
    "b": "the quick brown fox jumps",
    "c": "numbers 1999 and words",
    "d": "the fox says hello to the world",
    "e": "error e1234 on disk",
}
IDS, DOCUMENTS = list(TEXTS), list(TEXTS.values())
METADATAS = [{"i": i, "odd": bool(i % 2)} for i in range(5)]


@pytest.fixture
def counted(engine):
    return Counted(engine)


@pytest.fixture
def make(name, counted, m3, tmp_path):
    """Return a function that opens the collection; every one that it opened is closed."""
    opened = []

    def make(client, spec=None, **choices):
        spec = spec or VectorSpec(dense=m3, sparse="bm25", multivector=m3)
        collection = HybridCollection(client, name, spec, choices.pop("inference", counted), **choices)
        opened.append(collection)
        return collection

    yield make
    for collection in opened:
        collection.close()


@pytest.fixture
def filled(client, make):
    collection = make(client)
    collection.add(IDS, documents=DOCUMENTS, metadatas=METADATAS)
    return collection


def in_step(collection, engine):
    """Assert that every leg finds what Chroma holds, and nothing else, by its present text."""
    found = collection.get(include=["documents"])
    held = dict(zip(found["ids"], found["documents"], strict=True))
    mirror = collection._mirror
    assert mirror._sidecar.pending() == []
    assert mirror._sidecar.marks() == {key: mirror._mark(text) for key, text in held.items()}
    texts = [text for text in held.values() if text]
    rows = engine.encode("bm25", texts, output_types=["sparse"]).sparse
    for key, row in zip([key for key, text in held.items() if text], rows, strict=True):
        assert key in list(mirror._sidecar.search(SparseVector(row.indices, np.ones_like(row.values)), len(held)))


def test_a_query_is_both_rankings_fused(filled, engine, m3):
    query = "hello fox"
    dense = engine.encode(m3, DOCUMENTS).dense @ engine.encode(m3, query, is_query=True)["dense"]
    rows = engine.encode("bm25", DOCUMENTS, output_types=["sparse"]).sparse
    terms, df = np.unique(rows.indices, return_counts=True)
    asked = engine.encode("bm25", query, output_types=["sparse"], is_query=True)["sparse"]
    idf = [
        np.log1p((5 - n + 0.5) / (n + 0.5))
        for n in (dict(zip(terms, df, strict=True)).get(t, 0) for t in asked.indices)
    ]
    words = sparse_dot(SparseVector(asked.indices, np.float32(idf)), rows)
    rankings = [[IDS[i] for i in top_k(dense, 5)], [IDS[i] for i in top_k(words, 5) if words[i] > 0]]
    expected = rrf(rankings, weights=[1, 2], k=10)
    result = filled.query(query, n_results=4, weights=[1, 2], k=10)
    assert result["ids"] == [list(expected)[:4]]
    np.testing.assert_allclose(result["scores"][0], list(expected.values())[:4])


def test_a_result_has_chromas_shape_and_distances(filled):
    queries = ["hello", "1999"]
    include = ["documents", "metadatas", "distances", "embeddings"]
    result = filled.query(queries, n_results=3, include=include)
    plain = filled.collection.query(query_texts=queries, n_results=5, include=include)
    assert result.keys() == plain.keys() | {"scores"} and result["included"] == plain["included"]
    for i in range(2):
        assert len(result["ids"][i]) == 3 and result["embeddings"][i].shape == (3, 32)
        for j, key in enumerate(result["ids"][i]):
            k = plain["ids"][i].index(key)
            assert result["documents"][i][j] == TEXTS[key] == plain["documents"][i][k]
            assert result["metadatas"][i][j] == plain["metadatas"][i][k]
            assert result["distances"][i][j] == pytest.approx(plain["distances"][i][k], abs=1e-5)
    bare = filled.query("hello", include=[])
    assert bare["documents"] is None and bare["distances"] is None and len(bare["ids"][0]) == 5


@pytest.mark.parametrize("space", ["l2", "ip"])
def test_distances_are_those_of_the_collections_space(ephemeral, make, space):
    collection = make(ephemeral, configuration={"hnsw": {"space": space}})
    collection.add(IDS, documents=DOCUMENTS)
    plain = collection.collection.query(query_texts="hello", n_results=5)
    expected = dict(zip(plain["ids"][0], plain["distances"][0], strict=True))
    result = collection.query("hello", n_results=5)
    assert dict(zip(result["ids"][0], result["distances"][0], strict=True)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("filters", "allowed"),
    [
        ({"where": {"odd": True}}, {"b", "d"}),
        ({"where_document": {"$contains": "hello"}}, {"a", "d"}),
        ({"ids": ["a", "e", "missing"]}, {"a", "e"}),
        ({"ids": ["a", "b"], "where": {"odd": True}}, {"b"}),
        ({"where": {"i": 99}}, set()),
    ],
)
@pytest.mark.parametrize("rerank", [None, "maxsim"])
def test_filters_hold_in_both_legs(filled, filters, allowed, rerank):
    for query in ("hello e1234", "fox"):
        assert set(filled.query(query, rerank=rerank, **filters)["ids"][0]) == allowed


def test_a_filter_does_not_thin_out_a_ranking(ephemeral, make):
    """The best that match are found however many better ones do not."""
    collection = make(ephemeral)
    texts = [f"fox number {i}" for i in range(60)]
    collection.add([f"n{i}" for i in range(60)], documents=texts, metadatas=[{"last": i > 57} for i in range(60)])
    assert set(collection.query("fox number 3", where={"last": True}, candidates=2)["ids"][0]) == {"n58", "n59"}


def test_maxsim_reranks_by_the_stored_token_vectors(filled, engine, m3, counted):
    query = "quick hello"
    tokens = engine.encode(m3, DOCUMENTS, output_types=["multivector"]).multivector
    scores = maxsim(engine.encode(m3, query, output_types=["multivector"], is_query=True)["multivector"], tokens)
    counted.sizes.clear()
    result = filled.query(query, n_results=3, rerank="maxsim")
    assert result["ids"] == [[IDS[i] for i in top_k(scores, 3)]] and counted.sizes == []
    np.testing.assert_allclose(result["scores"][0], np.sort(scores)[::-1][:3], rtol=1e-5)


def test_any_model_that_scores_can_rerank(filled, engine, bert):
    fused = filled.query("quick hello", n_results=5)["ids"][0]
    scores = engine.score(bert, "quick hello", [TEXTS[key] for key in fused])
    result = filled.query("quick hello", n_results=2, rerank=bert, reranked=5)
    assert result["ids"] == [[fused[row.index] for row in scores][:2]]


def test_every_kind_of_write_keeps_both_in_step(filled, engine, counted):
    in_step(filled, engine)
    filled.update(["a", "missing"], documents=["changed text", "never"], metadatas=[{"new": 1}, {}])
    filled.upsert(["b", "z"], documents=["brown bear", "zebra"], metadatas=[{"odd": False}, {"odd": True}])
    filled.add(["c", "y"], documents=["ignored", "yak"])
    in_step(filled, engine)
    assert sorted(filled.get()["ids"]) == ["a", "b", "c", "d", "e", "y", "z"]
    assert filled.get("c")["documents"] == [TEXTS["c"]], "as in Chroma, add leaves what exists"
    assert filled.get("a")["metadatas"][0]["new"] == 1 and filled.get("a")["metadatas"][0]["i"] == 0
    assert filled.query("zebra", n_results=1)["ids"] == [["z"]] and "b" not in list(
        filled._mirror._sidecar.search(
            engine.encode("bm25", "fox", output_types=["sparse"], is_query=True)["sparse"], 9
        )
    )
    assert filled.delete(where={"odd": True}) == {"deleted": 2}
    assert filled.delete(["a", "missing"]) == {"deleted": 1} and filled.count() == 4
    in_step(filled, engine)


def test_nothing_is_encoded_twice(filled, counted, engine):
    counted.sizes.clear()
    filled.add(IDS, documents=DOCUMENTS)
    filled.upsert(IDS, documents=DOCUMENTS, metadatas=[{"i": -i} for i in range(5)])
    filled.update(IDS, metadatas=[{"seen": True}] * 5)
    assert counted.sizes == [] and filled.get("c")["metadatas"] == [{"i": -2, "odd": False, "seen": True}]
    filled.upsert(IDS, documents=[*DOCUMENTS[:4], "new"])
    assert counted.sizes == [1, 1], "one text for each of two models"
    in_step(filled, engine)


def test_large_writes_go_in_batches(client, make, counted, engine):
    seen = []
    collection = make(client, batch_size=4)
    ids = [f"n{i}" for i in range(10)]
    collection.add(ids, documents=[f"text {i}" for i in range(10)], progress=lambda *done: seen.append(done))
    assert seen == [(4, 10), (8, 10), (10, 10)] and max(counted.sizes) == 4 and collection.count() == 10
    in_step(collection, engine)


def test_own_embeddings_and_records_without_documents(client, make, engine, m3):
    collection = make(client)
    own = np.eye(32, dtype=np.float32)[:3]
    collection.add(["a", "b"], embeddings=own[:2], documents=["hello", "fox"])
    collection.add("c", embeddings=own[2:], metadatas={"kind": "bare"})
    np.testing.assert_array_equal(collection.get("b", include=["embeddings"])["embeddings"], own[1:2])
    assert set(collection.query("fox", rerank="maxsim")["ids"][0]) == {"a", "b", "c"}
    with pytest.raises(InvalidInputError, match="record 'c' has no document"):
        collection.query("fox", rerank=m3)
    collection.update("c", documents="now a zebra")
    collection.upsert(["a", "b"], documents=["hello", "fox"])
    in_step(collection, engine)
    encoded = engine.encode(m3, ["hello", "fox"]).dense
    stored = collection.get(["a", "b"], include=["embeddings"])["embeddings"]
    np.testing.assert_allclose(stored, encoded, rtol=1e-5, err_msg="vectors of one's own give way to the model's")


def test_what_is_written_past_it_is_noticed(filled, engine):
    filled.collection.add(ids=["past"], documents=["a giraffe"])
    filled.collection.delete(ids=["a"])
    filled.collection.delete(ids=["b"])
    assert filled.query("giraffe", n_results=1)["ids"] == [["past"]]
    in_step(filled, engine)
    filled.collection.update(ids=["c"], documents=["a rhinoceros"])
    filled.sync()
    in_step(filled, engine)


def test_opened_again_nothing_is_encoded_on_disk_and_all_of_it_in_memory(client, make, engine, counted, persistent):
    make(client).add(IDS, documents=DOCUMENTS)
    counted.sizes.clear()
    again = make(client)
    assert again.query("e1234", n_results=1)["ids"] == [["e"]]
    assert counted.sizes == ([] if client is persistent else [5, 5])
    in_step(again, engine)


def test_a_folder_keeps_the_sidecar_of_a_served_collection(served, make, counted, tmp_path):
    first = make(served, sidecar=tmp_path)
    first.add(IDS, documents=DOCUMENTS)
    first.close()
    counted.sizes.clear()
    again = make(served, sidecar=tmp_path)
    assert again.query("e1234", n_results=1)["ids"] == [["e"]] and counted.sizes == []
    assert [path.stem for path in tmp_path.glob("*.sqlite3")] == [str(again.collection.id)]
    again.drop()
    assert list(tmp_path.iterdir()) == [] and again.count() == 0, "made again, and empty"


def test_learned_weights_get_no_idf(ephemeral, make, engine, m3):
    collection = make(ephemeral, VectorSpec(dense=m3, sparse=m3))
    collection.add(IDS, documents=DOCUMENTS)
    rows = engine.encode(m3, DOCUMENTS, output_types=["sparse"]).sparse
    query = engine.encode(m3, "hello fox", output_types=["sparse"], is_query=True)["sparse"]
    scores = sparse_dot(query, rows)
    expected = [IDS[i] for i in top_k(scores, 5) if scores[i] > 0]
    legs = collection._mirror.legs()
    assert legs.idf is False and list(legs.sidecar.search(query, 5)) == expected


def test_another_model_is_refused(persistent, make, m3, bert, other_bert):
    make(persistent).add(IDS, documents=DOCUMENTS)
    with pytest.raises(ModelMismatchError, match="holds dense vectors of"):
        make(persistent, VectorSpec(dense=bert, sparse="bm25", multivector=m3)).count()
    with pytest.raises(ModelMismatchError, match=r"the sidecar of collection .* holds sparse vectors of bm25"):
        make(persistent, VectorSpec(dense=m3, sparse="bm25:german", multivector=m3)).query("x")
    with pytest.raises(ModelMismatchError, match="multivector vectors too, which this VectorSpec does not make"):
        make(persistent, VectorSpec(dense=m3, sparse="bm25")).add("x", documents="y")
    changed = make(persistent, VectorSpec(dense=m3, sparse="bm25:german"))
    changed.rebuild()
    assert changed.query("e1234", n_results=1)["ids"] == [["e"]]


def test_a_collection_of_another_function_is_refused(ephemeral, make, name):
    ephemeral.create_collection(name, embedding_function=None)
    with pytest.raises(InvalidInputError, match="not with TercetEmbeddingFunction"):
        make(ephemeral).count()


def test_a_collection_made_with_the_function_becomes_hybrid(client, make, name, engine, m3):
    plain = client.create_collection(name, embedding_function=TercetEmbeddingFunction(m3, engine))
    plain.add(ids=IDS, documents=DOCUMENTS)
    collection = make(client)
    assert collection.query("e1234", n_results=1, rerank="maxsim")["ids"][0] and collection.count() == 5
    in_step(collection, engine)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda c: c.add(["x", "y"], documents=["one"]), "1 documents for 2 ids"),
        (lambda c: c.add("x"), "records need documents, or embeddings"),
        (lambda c: c.upsert("x", metadatas={"a": 1}), "records need documents, or embeddings"),
        (lambda c: c.delete(), "nothing says what to delete"),
        (lambda c: c.query("x", n_results=0), "n_results must be a whole number from 1"),
        (lambda c: c.query("x", weights=[1]), "1 weights for 2 result lists"),
    ],
)
def test_mistakes_say_what_to_do(ephemeral, make, use, message):
    collection = make(ephemeral)
    collection.add("a", documents="hello")
    with pytest.raises(InvalidInputError, match=message):
        use(collection)
    assert collection.count() == 1


def test_a_spec_that_makes_no_hybrid_is_refused(ephemeral, name, m3):
    for spec, message in (
        (VectorSpec(dense=m3), "needs dense, and sparse or multivector"),
        (VectorSpec(sparse="bm25"), "makes sparse; a HybridCollection needs dense"),
        (VectorSpec(dense=m3, multivector=Encoding(m3, output_dtype="int8")), "multivector as int8 cannot be held"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            HybridCollection(ephemeral, name, spec)
    collection = HybridCollection(ephemeral, name, VectorSpec(dense=m3, sparse="bm25"), device="cpu")
    with pytest.raises(InvalidInputError, match="no multivector; add one, or name a cross-encoder"):
        collection.query("x", rerank="maxsim")
    collection.close()
