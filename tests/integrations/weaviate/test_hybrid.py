"""Hybrid search: our query vectors, Weaviate's fusion, then token by token or through a cross-encoder."""

import asyncio

import numpy as np
import pytest
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter, HybridFusion, MetadataQuery

from support.weaviate_cases import KEY, SPEC, TEXTS
from support.weaviate_stub import weaviate_stub
from tercet import InvalidInputError, ModelMismatchError, VectorSpec, connect, maxsim
from tercet_weaviate import ahybrid, ensure_collection, hybrid, import_objects

in_a_loop = pytest.mark.anyio
QUERY = "where is the fox?"
WAYS = [
    {},
    {"alpha": 1.0},
    {"alpha": 0.0},
    {"alpha": 0.5, "fusion_type": HybridFusion.RANKED},
    {"filters": Filter.by_property("kind").equal("odd")},
    {"rerank": "maxsim"},
    {"rerank": "maxsim", "filters": Filter.by_property("kind").equal("even"), "limit": 2},
    {"rerank": "tiny/reranker", "limit": 4},
    {"rerank": "tiny/reranker", "candidates": 3},
]


@pytest.fixture(scope="module")
def filled(engine):
    """A server with one collection that nothing here changes."""
    with weaviate_stub() as stub, stub.connect() as client:
        documents = [{"text": text, "kind": "odd" if i % 2 else "even"} for i, text in enumerate(TEXTS)]
        import_objects(ensure_collection(client, "Docs", SPEC, engine), documents, SPEC, engine)
        yield stub


@pytest.fixture
def docs(filled):
    with filled.connect() as client:
        yield client.collections.use("Docs")


def texts(found):
    return [each.properties["text"] for each in found.objects]


def scores(found):
    return [(each.metadata.score, each.metadata.rerank_score) for each in found.objects]


def test_alpha_goes_from_words_to_vectors(docs, engine):
    documents, query = engine.encode("tiny/bert", TEXTS).dense, engine.encode("tiny/bert", QUERY, is_query=True)
    cosines = documents @ query["dense"] / np.linalg.norm(documents, axis=1)
    nearest = [TEXTS[i] for i in np.argsort(-cosines)]
    assert texts(hybrid(docs, QUERY, SPEC, engine, alpha=1)) == nearest
    words = texts(hybrid(docs, QUERY, SPEC, engine, alpha=0))
    assert words == [TEXTS[0], TEXTS[4]]
    assert texts(hybrid(docs, QUERY, SPEC, engine, alpha=0.01, limit=1)) == words[:1]


def test_candidates_are_compared_token_by_token(docs, engine):
    documents = engine.encode("tiny/m3", TEXTS, output_types=["multivector"]).multivector
    query = engine.encode("tiny/m3", QUERY, output_types=["multivector"], is_query=True)["multivector"]
    right = maxsim(query, documents)
    found = hybrid(docs, QUERY, SPEC, engine, rerank="maxsim", limit=5)
    order = np.argsort(-right, kind="stable")[:5]
    assert texts(found) == [TEXTS[i] for i in order]
    np.testing.assert_allclose([each.metadata.rerank_score for each in found.objects], right[order], rtol=1e-6)
    assert [each.vector for each in found.objects] == [{}] * 5


def test_candidates_are_read_by_a_cross_encoder(docs, engine):
    found = hybrid(docs, QUERY, SPEC, engine, rerank="tiny/reranker", limit=3)
    right = engine.score("tiny/reranker", QUERY, TEXTS, top_k=3)
    assert texts(found) == [TEXTS[row.index] for row in right]
    np.testing.assert_allclose(
        [each.metadata.rerank_score for each in found.objects], [row.score for row in right], atol=1e-6
    )
    assert all(each.metadata.score is not None for each in found.objects)


def test_only_so_many_candidates_are_read(docs, engine):
    first = texts(hybrid(docs, QUERY, SPEC, engine, limit=3))
    assert set(texts(hybrid(docs, QUERY, SPEC, engine, rerank="maxsim", limit=2, candidates=3))) < set(first)


@pytest.mark.parametrize("rerank", [None, "maxsim", "tiny/reranker"])
def test_filters_are_weaviates(docs, engine, rerank):
    only = Filter.by_property("kind").equal("odd")
    found = hybrid(docs, QUERY, SPEC, engine, rerank=rerank, filters=only)
    assert sorted(texts(found)) == sorted(TEXTS[1::2])
    assert (
        hybrid(docs, QUERY, SPEC, engine, rerank=rerank, filters=Filter.by_property("kind").equal("none")).objects == []
    )


def test_vectors_and_properties_come_as_asked(docs, engine):
    one = {"limit": 1, "rerank": "maxsim"}
    given = [False, True, "dense", ["multivector"]]
    shown = [set(hybrid(docs, QUERY, SPEC, engine, include_vector=each, **one).objects[0].vector) for each in given]
    assert shown == [set(), {"dense", "multivector"}, {"dense"}, {"multivector"}]
    assert set(hybrid(docs, QUERY, SPEC, engine, **one).objects[0].properties) == {"text", "kind"}
    chosen = hybrid(docs, QUERY, SPEC, engine, return_properties=["tercet_digest"], **one).objects[0].properties
    assert set(chosen) == {"tercet_digest"}
    asked = hybrid(docs, QUERY, SPEC, engine, return_metadata=MetadataQuery(), **one).objects[0].metadata
    assert asked.score is None and asked.rerank_score > 0


def test_multivectors_alone_are_searched_as_such(engine):
    spec = VectorSpec(multivector="tiny/m3")
    with weaviate_stub() as stub, stub.connect() as client:
        docs = ensure_collection(client, "Docs", spec, engine)
        import_objects(docs, TEXTS, spec, engine)
        documents = engine.encode("tiny/m3", TEXTS, output_types=["multivector"]).multivector
        query = engine.encode("tiny/m3", QUERY, output_types=["multivector"], is_query=True)["multivector"]
        right = [TEXTS[i] for i in np.argsort(-maxsim(query, documents), kind="stable")]
        assert texts(hybrid(docs, QUERY, spec, engine, alpha=1)) == right


@in_a_loop
@pytest.mark.parametrize("way", range(len(WAYS)))
async def test_the_asynchronous_search_finds_the_same(filled, docs, engine, way):
    right = hybrid(docs, QUERY, SPEC, engine, **WAYS[way])
    async with filled.connect_async() as client:
        found = await ahybrid(client.collections.use("Docs"), QUERY, SPEC, engine, **WAYS[way])
    assert texts(found) == texts(right) and scores(found) == scores(right)


class Waiting:
    """The engine, which encodes only after the event loop has gone on."""

    def __init__(self, engine, loop):
        self.engine, self.loop = engine, loop

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def encode(self, *arguments, **choices):
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop).result(timeout=20)
        return self.engine.encode(*arguments, **choices)

    def score(self, *arguments, **choices):
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop).result(timeout=20)
        return self.engine.score(*arguments, **choices)


@in_a_loop
async def test_the_event_loop_goes_on_while_models_run(filled, engine):
    waiting = Waiting(engine, asyncio.get_running_loop())
    async with filled.connect_async() as client:
        found = await ahybrid(client.collections.use("Docs"), QUERY, SPEC, waiting, rerank="tiny/reranker")
        assert found.objects
        with pytest.raises(ModelMismatchError, match="tiny/other"):
            await ahybrid(client.collections.use("Docs"), QUERY, VectorSpec(dense="tiny/other"), waiting)


@pytest.mark.slow
def test_a_server_of_the_same_models_gives_the_same_vectors_and_rankings(filled, docs, engine, server, monkeypatch):
    monkeypatch.setenv("TERCET_TEST_KEY", KEY)
    remote = connect(server.url, api_key_env="TERCET_TEST_KEY")
    with weaviate_stub() as stub, stub.connect() as client:
        documents = [{"text": text, "kind": "odd" if i % 2 else "even"} for i, text in enumerate(TEXTS)]
        there = ensure_collection(client, "Docs", SPEC, remote)
        import_objects(there, documents, SPEC, remote)
        ours, theirs = filled.objects("Docs"), stub.objects("Docs")
        assert ours.keys() == theirs.keys()
        for key, stored in ours.items():
            assert stored.properties == theirs[key].properties, "the marks among them: same models, same fingerprints"
            for name in ("dense", "multivector"):
                np.testing.assert_array_equal(stored.vectors[name], theirs[key].vectors[name])
        for way in WAYS:
            right, found = hybrid(docs, QUERY, SPEC, engine, **way), hybrid(there, QUERY, SPEC, remote, **way)
            assert texts(found) == texts(right) and scores(found) == scores(right)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"limit": 0}, "limit=0, candidates=100: both are 1 at least"),
        ({"rerank": "maxsim", "candidates": 0}, "candidates=0"),
        ({"rerank": "maxsim", "group_by": "kind"}, "groups cannot be reranked"),
        ({"rerank": "tiny/reranker", "text": "body"}, "came without a text in 'body'"),
        ({"rerank": "tiny/reranker", "return_properties": ["kind"]}, "came without a text in 'text'"),
    ],
)
def test_wrong_arguments_are_explained(docs, engine, choices, message):
    with pytest.raises(InvalidInputError, match=message):
        hybrid(docs, QUERY, SPEC, engine, **choices)


def test_maxsim_needs_multivectors(client, docs, engine):
    with pytest.raises(InvalidInputError, match="the spec has none; give it a `multivector` model"):
        hybrid(docs, QUERY, VectorSpec(dense="tiny/bert"), engine, rerank="maxsim")
    own = ensure_collection(client, "Docs", SPEC, engine)
    own.data.insert_many([DataObject({"text": "by hand"}, vector={"dense": [1.0] * 32})])
    with pytest.raises(InvalidInputError, match="has no multivector to rerank it by"):
        hybrid(own, QUERY, SPEC, engine, rerank="maxsim")
