"""`models.Document` in every place of a request, with the models in this process."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("qdrant_client")

import qdrant_client
from qdrant_client import models

from support.qdrant_server import qdrant_server
from support.qdrant_stores import Watched
from support.tiny_models import save_bert
from tercet import InvalidInputError, UnsupportedOperationError, VectorSpec
from tercet_qdrant import AsyncQdrantClient, CollectionSpec, QdrantClient

TEXTS = ["quick fox", "lazy dog", "hello world"]


@pytest.fixture(scope="module")
def schema(engine, m3):
    return CollectionSpec(VectorSpec(dense=m3, sparse="bm25", multivector=m3)).schema(engine)


@pytest.fixture
def client(engine, schema):
    with qdrant_server() as server:
        client = QdrantClient(**server.choices(), inference=engine)
        client.choices = server.choices()
        client.create_collection("docs", **schema)
        yield client
        client.close()


def document(text, m3, output="dense"):
    model = "bm25" if output == "sparse" else m3
    return models.Document(text=text, model=model, options={"output": output})


def named(text, m3):
    return {output: document(text, m3, output) for output in ("dense", "sparse", "multivector")}


def points(m3):
    return [models.PointStruct(id=i, vector=named(text, m3), payload={"t": text}) for i, text in enumerate(TEXTS)]


def expected(engine, m3, text, output="dense", is_query=False):
    return engine.encode(m3, text, output_types=[output], is_query=is_query)[output]


def dense(client, point):
    return client.retrieve("docs", [point], with_vectors=["dense"])[0].vector["dense"]


def test_points_are_embedded_in_one_call_for_each_kind(client, engine, m3):
    client._tercet.inference = counted = Watched(engine)
    given = points(m3)
    client.upsert("docs", given)
    assert counted.calls == [("dense", False, 3), ("sparse", False, 3), ("multivector", False, 3)]
    assert isinstance(given[0].vector["dense"], models.Document), "the caller's own points stay as they are"
    record = client.retrieve("docs", [1], with_vectors=True)[0]
    np.testing.assert_allclose(record.vector["dense"], expected(engine, m3, "lazy dog"), atol=1e-6)
    late = expected(engine, m3, "lazy dog", "multivector")
    np.testing.assert_allclose(record.vector["multivector"], late, atol=1e-6)
    bm25 = engine.encode("bm25", "lazy dog", output_types=["sparse"])["sparse"]
    assert record.vector["sparse"].indices == bm25.indices.tolist()


def test_every_way_of_writing(client, engine, m3):
    client.upsert("docs", models.Batch(ids=[1, 2], vectors={"dense": [document(t, m3) for t in TEXTS[:2]]}))
    client.update_vectors("docs", [models.PointVectors(id=1, vector={"dense": document("hello world", m3)})])
    np.testing.assert_allclose(dense(client, 1), expected(engine, m3, "hello world"), atol=1e-6)
    client.upload_points("docs", iter(points(m3)), wait=True)
    assert client.count("docs").count == 3
    vectors = ({"dense": document(text, m3)} for text in TEXTS)
    client.upload_collection("docs", vectors, ids=[10, 11, 12], wait=True)
    client.upload_collection("docs", {"dense": np.ones((1, 32), np.float32)}, ids=[13], wait=True)
    np.testing.assert_allclose(dense(client, 12), expected(engine, m3, "hello world"), atol=1e-6)
    more = models.PointStruct(id=20, vector={"dense": document("tabs", m3)}, payload={})
    client.batch_update_points("docs", [models.UpsertOperation(upsert=models.PointsList(points=[more]))])
    np.testing.assert_allclose(dense(client, 20), expected(engine, m3, "tabs"), atol=1e-6)


def near(score):
    """Local mode's own sums of the same vectors differ in their last digits from call to call."""
    return pytest.approx(score, rel=1e-6)


def found(response, scored=float):
    return [(point.id, scored(point.score), point.payload) for point in response.points]


def test_queries_and_prefetches_however_deep(client, engine, m3):
    client.upsert("docs", points(m3))
    legs = [models.Prefetch(query=document("lazy dog", m3, o), using=o, limit=3) for o in ("dense", "sparse")]
    fused = models.Prefetch(prefetch=legs, query=models.FusionQuery(fusion=models.Fusion.RRF), limit=3)
    late = expected(engine, m3, "lazy dog", "multivector", is_query=True)
    plain = qdrant_client.QdrantClient(**client.choices)
    query = engine.encode("bm25", "lazy dog", output_types=["sparse"], is_query=True)["sparse"]
    ready = [
        models.Prefetch(query=expected(engine, m3, "lazy dog", is_query=True).tolist(), using="dense", limit=3),
        models.Prefetch(
            query=models.SparseVector(indices=query.indices.tolist(), values=query.values.tolist()),
            using="sparse",
            limit=3,
        ),
    ]
    wanted = plain.query_points(
        "docs",
        prefetch=models.Prefetch(prefetch=ready, query=fused.query, limit=3),
        query=late.tolist(),
        using="multivector",
    )
    asked = {"prefetch": fused, "query": document("lazy dog", m3, "multivector"), "using": "multivector"}
    assert found(client.query_points("docs", **asked)) == found(wanted, near) and wanted.points[0].id == 1
    assert found(client.query_points("docs", **{**asked, "prefetch": [fused]})) == found(wanted, near)
    request = models.QueryRequest(**asked, with_payload=True, limit=10)
    for answer in client.query_batch_points("docs", [request, request]):
        assert found(answer) == found(wanted, near)
    grouped = client.query_points_groups("docs", group_by="t", query=document("lazy dog", m3), using="dense")
    assert grouped.groups[0].id == "lazy dog"
    liked = models.RecommendQuery(recommend=models.RecommendInput(positive=[0, document("lazy dog", m3)]))
    assert {point.id for point in client.query_points("docs", query=liked, using="dense").points} == {1, 2}
    plain.close()


def test_queries_are_encoded_as_queries_and_prompts_pass(engine, tmp_path):
    save_bert(tmp_path)
    with_prompt = models.Document(text="fox", model=f"{tmp_path}:dense", options={"prompt": "ask: ", "dimensions": 8})
    client = QdrantClient(":memory:", inference=engine)
    client.create_collection("docs", models.VectorParams(size=8, distance=models.Distance.COSINE))
    client.upsert("docs", [models.PointStruct(id=1, vector=with_prompt)])
    made = client.retrieve("docs", [1], with_vectors=True)[0].vector
    wanted = engine.encode(str(tmp_path), "fox", prompt="ask: ", dimensions=8)["dense"]
    np.testing.assert_allclose(made, wanted / np.linalg.norm(wanted), atol=1e-6)
    client._tercet.inference = counted = Watched(engine)
    assert client.query_points("docs", query=with_prompt).points[0].score == pytest.approx(1, abs=1e-5)
    assert counted.calls == [("dense", True, 1)]
    client.close()


def test_the_asynchronous_client_does_the_same(client, engine, m3):
    async def use():
        own = AsyncQdrantClient(**client.choices, inference=engine)
        await own.upsert("docs", points(m3))
        found = await own.query_points("docs", query=document("hello world", m3), using="dense", limit=1)
        prefetch = models.Prefetch(query=document("quick fox", m3, "sparse"), using="sparse", limit=1)
        late = document("quick fox", m3, "multivector")
        rescored = await own.query_points("docs", query=late, using="multivector", prefetch=[prefetch])
        await own.close()
        return found.points[0].id, [point.id for point in rescored.points]

    assert asyncio.run(use()) == (2, [0])


def test_a_model_alone_means_its_first_output(client, engine, m3):
    client.upsert("docs", [models.PointStruct(id=1, vector={"dense": models.Document(text="fox", model=m3)})])
    np.testing.assert_allclose(dense(client, 1), expected(engine, m3, "fox"), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "ending", "message"),
    [
        ({"output": "colour"}, "", "options.output 'colour' is not one of dense, sparse, multivector"),
        ({"output": "sparse"}, ":dense", "asks for dense, its options for sparse"),
        ({"cuda": True}, "", "unknown option 'cuda' of a Document; known are output, dimensions"),
        (models.Bm25Config(k=1.5), "", "Bm25Config is for the BM25 inside Qdrant"),
    ],
)
def test_a_wrong_document_says_what_to_do(options, ending, message, client, m3):
    wrong = models.Document(text="fox", model=m3 + ending, options=options)
    with pytest.raises(InvalidInputError, match=message):
        client.query_points("docs", query=wrong, using="dense")


def test_only_text_is_embedded_and_only_here(client, m3):
    image = models.PointStruct(id=1, vector={"dense": models.Image(image="aGVsbG8=", model=m3)})
    with pytest.raises(UnsupportedOperationError, match="a Image is to be embedded; the models here read text"):
        client.upsert("docs", [image])
    with pytest.raises(InvalidInputError, match="cloud_inference=True leaves documents to the store"):
        QdrantClient("http://127.0.0.1:9", cloud_inference=True)
