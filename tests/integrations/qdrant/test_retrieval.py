"""The same retrieval on local mode, on a server, and on the real engine: same points, same order."""

import asyncio
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("qdrant_edge")

from qdrant_client import AsyncQdrantClient, models

from support.qdrant_stores import answered, asked, client_of, shard, texts
from support.tiny_models import save_bert
from tercet import InvalidInputError, VectorSpec
from tercet_qdrant import CollectionSpec, Recipe, ahybrid_query, ensure_collection, hybrid_query, query_points, upload

DOCUMENTS = [{"id": f"doc {i}", "text": text, "payload": {"n": i}} for i, text in enumerate(texts(40))]
QUESTIONS = ["quick fox", "lazy dog and brown commas"]
FEW = models.Filter(
    must=[models.FieldCondition(key="n", range=models.Range(gte=10, lt=38))],
    must_not=[models.HasIdCondition(has_id=[])],
    should=[
        models.FieldCondition(key="n", match=models.MatchAny(any=list(range(0, 40, 2)))),
        models.Filter(must=[models.FieldCondition(key="n", match=models.MatchValue(value=11))]),
    ],
)


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cross")
    save_bert(folder, architecture="BertForSequenceClassification", num_labels=1)
    return str(folder)


@pytest.fixture(scope="module")
def spec(m3):
    return CollectionSpec(VectorSpec(dense=m3, sparse="bm25", multivector=m3))


@pytest.fixture(scope="module")
def stores(engine, spec, tmp_path_factory):
    """Every form of the same collection: clients by their kind, and the engine's shard."""
    folder = tmp_path_factory.mktemp("stores")
    with ExitStack() as stack:
        clients = {kind: stack.enter_context(client_of(kind, folder)) for kind in (":memory:", "path", "server")}
        for client in clients.values():
            assert ensure_collection(client, "docs", spec, inference=engine)
            assert upload(client, "docs", DOCUMENTS, spec, inference=engine, batch_size=16).uploaded == 40
        yield clients, stack.enter_context(shard(folder, spec, engine, DOCUMENTS))


UNEVEN = {"dense": 3.1, "sparse": 1.0}
RECIPES = {
    "late interaction": (Recipe(), None),
    "rrf": (Recipe(late_interaction=False), None),
    "few candidates": (Recipe(candidates=12, weights=UNEVEN), None),  # no two points tie for the twelfth place
    "weights": (Recipe(late_interaction=False, weights=UNEVEN), None),
    "filter": (Recipe(), FEW),
    "filtered rrf": (Recipe(late_interaction=False), FEW),
}


def again(client):
    """Return the arguments for another client of the same server."""
    return {name: client.init_options[name] for name in ("url", "check_compatibility", "timeout")}


def ties(scores, within=2e-5):
    """Return slices of descending scores, each of neighbours that lie no further apart; gaps part them, not a raster.

    A raster (rounding) has edges on which scores lie: ranks 0 and 15 fuse to exactly 0.03.
    """
    scores = np.asarray(scores)
    edges = [0, *(np.flatnonzero(scores[:-1] - scores[1:] > within) + 1), len(scores)]
    return [slice(*pair) for pair in pairwise(edges)]


def assert_same(found, expected):
    """The same points in the same order; points of equal score, which each store orders as it likes, as sets."""
    ids, scores = zip(*expected, strict=True)
    found_ids, found_scores = zip(*found, strict=True)
    np.testing.assert_allclose(found_scores, scores, rtol=1e-4, atol=1e-5)
    *whole, _ = ties(scores)  # the last may go on beyond the limit, with other points in each store
    assert whole, "all scores tie, so nothing would be compared"
    for tied in whole:
        assert set(found_ids[tied]) == set(ids[tied])


def test_ties_are_parted_by_gaps_alone():
    """Scores that two stores compute a rounding error apart fall into the same ties, wherever they lie."""
    exact = np.array([0.03, 0.02999, 0.0299799, 0.0297, 0.0297])
    assert ties(exact + 2e-9) == ties(exact - 2e-9) == [slice(0, 3), slice(3, 5)]
    with pytest.raises(AssertionError):
        assert_same([("b", 0.9), ("a", 0.8), ("c", 0.7), ("d", 0.6)], [("a", 0.9), ("b", 0.8), ("c", 0.7), ("d", 0.6)])


@pytest.mark.parametrize("name", RECIPES)
def test_each_store_finds_the_same(name, stores, engine, spec):
    recipe, query_filter = RECIPES[name]
    clients, opened = stores
    for question in QUESTIONS:
        vectors = recipe.asks_for(spec).vectors.encode_query(engine, question)
        expected = asked(opened, query_points(vectors, spec, recipe, 10, query_filter))
        assert len(expected) == 10
        for client in clients.values():
            keywords = {"limit": 10, "recipe": recipe, "query_filter": query_filter, "inference": engine}
            found = hybrid_query(client, "docs", question, spec, **keywords)
            assert_same(answered(found.points), expected)
            assert query_filter is None or all(10 <= point.payload["n"] < 38 for point in found.points)


def test_dbsf_and_single_legs_too(stores, engine, m3):
    clients, opened = stores
    for vectors, recipe in (
        (VectorSpec(dense=m3, sparse="bm25"), Recipe(fusion="dbsf")),
        (VectorSpec(dense=m3), Recipe()),
        (VectorSpec(sparse="bm25"), Recipe()),
        (VectorSpec(multivector=m3), Recipe()),
    ):
        part = CollectionSpec(vectors)
        request = query_points(vectors.encode_query(engine, "quick lazy fox"), part, recipe, 8, FEW)
        found = hybrid_query(
            clients["server"],
            "docs",
            "quick lazy fox",
            vectors,
            limit=8,
            recipe=recipe,
            query_filter=FEW,
            inference=engine,
        )
        assert_same(answered(found.points), asked(opened, request))


def test_a_question_without_a_known_word_still_gets_an_answer(stores, engine, spec):
    """Its sparse vector is empty on both sides: the dense leg answers alone."""
    clients, opened = stores
    vectors = spec.vectors.encode_query(engine, "of the and")
    assert len(vectors["sparse"]) == 0
    found = hybrid_query(clients[":memory:"], "docs", "of the and", spec, limit=5, inference=engine)
    assert_same(answered(found.points), asked(opened, query_points(vectors, spec, limit=5)))


def test_a_formula_of_ones_own_fuses_the_legs(stores, engine, spec):
    clients, _ = stores
    newest = models.SumExpression(sum=["$score[0]", "n"])
    recipe = Recipe(late_interaction=False, fusion=models.FormulaQuery(formula=newest, defaults={"n": 0}))
    found = hybrid_query(clients["server"], "docs", "quick fox", spec, recipe=recipe, inference=engine)
    assert [point.payload["n"] for point in found.points[:3]] == [39, 38, 37]


def test_the_asynchronous_query_finds_the_same(stores, engine, spec):
    clients, _ = stores

    async def ask():
        client = AsyncQdrantClient(**again(clients["server"]))
        try:
            return await ahybrid_query(client, "docs", "brown dog", spec, query_filter=FEW, inference=engine)
        finally:
            await client.close()

    expected = hybrid_query(clients["server"], "docs", "brown dog", spec, query_filter=FEW, inference=engine)
    found = asyncio.run(ask())
    assert [point.id for point in found.points] == [point.id for point in expected.points]
    assert_same(answered(found.points), answered(expected.points))


def test_a_cross_encoder_has_the_last_word(stores, engine, spec, cross_encoder):
    client, question = stores[0]["server"], "quick lazy fox"
    recipe = Recipe(rerank=cross_encoder, reranked=20)
    read = hybrid_query(client, "docs", question, spec, limit=20, inference=engine).points
    scores = engine.score(cross_encoder, question, [point.payload["text"] for point in read])
    expected = [(str(read[row.index].id), row.score) for row in scores][:5]
    found = hybrid_query(client, "docs", question, spec, limit=5, recipe=recipe, inference=engine).points
    assert [point for point, _ in answered(found)] == [point for point, _ in expected]
    np.testing.assert_allclose([s for _, s in answered(found)], [s for _, s in expected], rtol=1e-5)
    for wanted, keys in ((False, None), (["n"], {"n"}), (["n", "text"], {"n", "text"})):
        keywords = {"limit": 5, "recipe": recipe, "with_payload": wanted, "inference": engine}
        again = hybrid_query(client, "docs", question, spec, **keywords).points
        assert answered(again) == answered(found)
        assert all(point.payload is keys is None or set(point.payload) == keys for point in again)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(candidates=0), "candidates=0: give at least 1"),
        (lambda: Recipe(fusion="sum"), "fusion='sum': choose 'rrf' or 'dbsf'"),
        (lambda: Recipe(fusion="dbsf", weights=UNEVEN), "weights are for fusion='rrf'"),
        (lambda: Recipe(late_interaction=True).asks_for(CollectionSpec(VectorSpec(dense="m"))), "needs a multivector"),
        (
            lambda: Recipe(late_interaction=False).asks_for(CollectionSpec(VectorSpec(multivector="m"))),
            "nothing to search",
        ),
        (lambda: Recipe(weights={"dense": 1.0}).fuse(["dense", "sparse"]), "give one for each of dense, sparse"),
    ],
)
def test_a_wrong_recipe_says_what_to_do(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_a_wrong_question_says_what_to_do(stores, engine, spec, cross_encoder):
    client = stores[0][":memory:"]
    with pytest.raises(InvalidInputError, match="limit=0: ask for at least 1"):
        hybrid_query(client, "docs", "fox", spec, limit=0, inference=engine)
    with pytest.raises(InvalidInputError, match="no text in its payload under 'body'"):
        hybrid_query(
            client, "docs", "fox", spec, recipe=Recipe(rerank=cross_encoder, text_key="body"), inference=engine
        )
    with pytest.raises(InvalidInputError, match="with_payload: give True, False or a list"):
        wanted = models.PayloadSelectorExclude(exclude=["n"])
        recipe = Recipe(rerank=cross_encoder)
        hybrid_query(client, "docs", "fox", spec, recipe=recipe, with_payload=wanted, inference=engine)
