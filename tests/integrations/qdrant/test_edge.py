"""What qdrant-edge, the real engine, makes of our specs, filters and edge cases."""

import datetime

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("qdrant_edge")

import qdrant_edge
from qdrant_client import QdrantClient, models

from support.qdrant_stores import answered, asked, client_of, shard, texts
from tercet import MultiVectorBatch, SparseBatch, SparseVector, UnsupportedOperationError, VectorSpec
from tercet_qdrant import CollectionSpec, embed_points, query_points, vectors
from tercet_qdrant.edge import edge_config, edge_filter, edge_points, edge_request

DOCUMENTS = [
    {
        "id": i,
        "text": text,
        "payload": {"n": i, "kind": "ab"[i % 2], "day": f"2024-01-{i + 1:02}T00:00:00Z", "parts": [{"x": i}]},
    }
    for i, text in enumerate(texts(12))
]
CONDITIONS = {
    "value": models.FieldCondition(key="kind", match=models.MatchValue(value="a")),
    "any": models.FieldCondition(key="n", match=models.MatchAny(any=[1, 5, 7])),
    "except": models.FieldCondition(key="kind", match=models.MatchExcept(**{"except": ["a"]})),
    "range": models.FieldCondition(key="n", range=models.Range(gt=2, lte=6)),
    "days": models.FieldCondition(
        key="day", range=models.DatetimeRange(gte=datetime.datetime(2024, 1, 10, tzinfo=datetime.UTC))
    ),
    "empty": models.IsEmptyCondition(is_empty=models.PayloadField(key="none")),
    "null": models.IsNullCondition(is_null=models.PayloadField(key="kind")),
    "ids": models.HasIdCondition(has_id=[0, 3, 11]),
    "vector": models.HasVectorCondition(has_vector="dense"),
    "nested": models.NestedCondition(
        nested=models.Nested(
            key="parts", filter=models.Filter(must=[models.FieldCondition(key="x", match=models.MatchValue(value=4))])
        )
    ),
    "inner": models.Filter(should=[models.FieldCondition(key="n", match=models.MatchValue(value=n)) for n in (1, 2)]),
}


@pytest.fixture(scope="module")
def both(engine, m3, tmp_path_factory):
    """The same dense collection in local mode and in the engine."""
    spec = CollectionSpec(VectorSpec(dense=m3))
    client = QdrantClient(":memory:")
    client.create_collection("docs", **spec.schema(engine))
    client.upsert("docs", embed_points(DOCUMENTS, spec, inference=engine))
    with shard(tmp_path_factory.mktemp("edge"), spec, engine, DOCUMENTS) as opened:
        yield client, opened
    client.close()


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_hold_for_the_same_points(name, both, engine, m3):
    client, opened = both
    only = CONDITIONS[name]
    query = {"dense": engine.encode(m3, "quick fox", is_query=True)["dense"]}
    for given in (
        models.Filter(must=only),
        models.Filter(must_not=[only]),
        models.Filter(min_should=models.MinShould(conditions=[only, CONDITIONS["ids"]], min_count=1)),
    ):
        request = query_points(query, CollectionSpec(VectorSpec(dense=m3)), limit=12, query_filter=given)
        there = [str(point.id) for point in client.query_points("docs", **request).points]
        assert [point for point, _ in asked(opened, request)] == there


def test_what_is_not_translated_is_refused():
    near = models.GeoRadius(center=models.GeoPoint(lon=1, lat=2), radius=3)
    with pytest.raises(UnsupportedOperationError, match=r"FieldCondition .* is not translated for qdrant-edge"):
        edge_filter(models.Filter(must=[models.FieldCondition(key="place", geo_radius=near)]))
    formula = models.FormulaQuery(formula="n")
    with pytest.raises(UnsupportedOperationError, match="FormulaQuery is not translated"):
        edge_request({"query": formula, "limit": 3})


@pytest.mark.parametrize("quantization", [None, "int8", "binary", "product"])
def test_every_way_to_keep_vectors_works_in_the_engine(quantization, engine, m3, tmp_path):
    whole = VectorSpec(dense=m3, sparse="bm25", multivector=m3)
    spec = CollectionSpec(whole, quantization=quantization, datatype="float16", on_disk=True)
    with shard(tmp_path, spec, engine, DOCUMENTS) as opened:
        made = edge_config(spec, inference=engine)
        assert made.vectors["dense"].datatype == qdrant_edge.VectorStorageDatatype.Float16
        assert (made.vectors["dense"].quantization_config is None) == (quantization is None)
        assert made.vectors["multivector"].hnsw_config.m == 0 and made.vectors["multivector"].on_disk
        assert made.sparse_vectors["sparse"].modifier == qdrant_edge.Modifier.Idf
        text = DOCUMENTS[7]["text"]
        found = asked(opened, query_points(whole.encode_query(engine, text), spec, limit=3))
        assert found[0][0] == "7"


def test_sparse_vectors_never_name_an_index_twice_and_empty_ones_are_stored(engine, tmp_path):
    """The engine would count such a term twice, local mode refuses it: ours are unique by construction."""
    spec = CollectionSpec(VectorSpec(sparse="bm25"))
    repeated = [{"id": 1, "text": "fox fox fox dog"}, {"id": 2, "text": ""}]
    for point in embed_points(repeated, spec, inference=engine):
        indices = point.vector["sparse"].indices
        assert indices == sorted(set(indices))
    with shard(tmp_path, spec, engine, repeated) as opened:
        request = query_points(spec.vectors.encode_query(engine, "fox fox"), spec, limit=5)
        assert [point for point, _ in asked(opened, request)] == ["1"]
        nothing = query_points(spec.vectors.encode_query(engine, "the"), spec, limit=5)
        assert asked(opened, nothing) == []


def test_a_multivector_without_tokens_becomes_one_that_is_similar_to_nothing(m3, engine, tmp_path):
    empty, one = np.empty((0, 32), np.float32), np.ones((1, 32), np.float32)
    rows = vectors.rows(MultiVectorBatch.from_rows([empty, one], 32))
    assert rows == [[[0.0] * 32], [[1.0] * 32]]
    spec = CollectionSpec(VectorSpec(multivector=m3))
    points = [models.PointStruct(id=i, vector={"multivector": row}) for i, row in enumerate(rows)]
    opened = qdrant_edge.EdgeShard.create(str(tmp_path / "shard"), edge_config(spec, inference=engine))
    opened.update(qdrant_edge.UpdateOperation.upsert_points(edge_points(points)))
    request = query_points({"multivector": one}, spec, limit=2)
    assert asked(opened, request) == [("1", pytest.approx(1.0)), ("0", 0.0)]
    with client_of(":memory:", tmp_path) as client:
        client.create_collection("docs", **spec.schema(engine))
        client.upsert("docs", points)
        assert answered(client.query_points("docs", **request).points) == [("1", pytest.approx(1.0)), ("0", 0.0)]
    opened.close()


def test_sizes_bound_what_a_request_takes():
    rng = np.random.default_rng(0)
    columns = {
        "dense": (rng.standard_normal((3, 64)) * 1e-5).astype(np.float32),
        "sparse": SparseBatch.from_rows(
            [SparseVector(np.array([2**32 - 1 - n], np.uint32), np.array([1e-7], np.float32)) for n in range(3)], 2**32
        ),
        "multivector": MultiVectorBatch.from_rows(
            [rng.standard_normal((n, 8)).astype(np.float32) for n in (0, 1, 5)], 8
        ),
    }
    named = {name: vectors.rows(column) for name, column in columns.items()}
    for i, size in enumerate(vectors.sizes(columns)):
        point = models.PointStruct(id=i, vector={name: rows[i] for name, rows in named.items()})
        assert len(point.model_dump_json(exclude={"id", "payload"})) - 80 <= size
    assert vectors.cut([5, 5, 5, 20, 1], 10) == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 5)]
    assert vectors.cut([], 10) == []
