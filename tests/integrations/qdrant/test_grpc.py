"""Uploads over gRPC: arrays go as they are, and what is left in the middle is not taken for stored."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("qdrant_client")

from qdrant_client import QdrantClient

from support.qdrant_grpc import grpc_server
from support.qdrant_stores import texts
from tercet import TransportError, VectorSpec
from tercet_qdrant import UploadReport, ensure_collection, upload

DOCUMENTS = [{"id": f"d{i}", "text": text} for i, text in enumerate([*texts(9), ""])]


@pytest.fixture
def local():
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.mark.parametrize("sparse", ["bm25", None])
def test_the_same_is_stored_as_over_rest(sparse, local, engine, m3):
    spec = VectorSpec(dense=m3, sparse=sparse, multivector=m3)
    for name in ("rest", "grpc"):
        ensure_collection(local, name, spec, inference=engine)
    upload(local, "rest", DOCUMENTS, spec, inference=engine)
    with grpc_server(local) as (port, points):
        client = QdrantClient(host="127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False)
        assert upload(client, "grpc", DOCUMENTS, spec, inference=engine) == UploadReport(uploaded=10)
        assert points.calls == (["upsert", "update"] if sparse else ["upsert"])
        assert upload(client, "grpc", DOCUMENTS, spec, inference=engine) == UploadReport(unchanged=10)
        client.close()
    rest, through = ({r.id: r for r in local.scroll(n, limit=99, with_vectors=True)[0]} for n in ("rest", "grpc"))
    assert {p: r.payload for p, r in rest.items()} == {p: r.payload for p, r in through.items()}
    for point, record in rest.items():
        assert record.vector.keys() == through[point].vector.keys()
        for output in ("dense", "multivector"):
            np.testing.assert_allclose(record.vector[output], through[point].vector[output], atol=1e-6)
        if sparse:
            assert record.vector["sparse"].indices == through[point].vector["sparse"].indices
            np.testing.assert_allclose(record.vector["sparse"].values, through[point].vector["sparse"].values)


def test_points_whose_sparse_vectors_did_not_arrive_are_sent_again(local, engine, m3):
    spec = VectorSpec(dense=m3, sparse="bm25")
    ensure_collection(local, "docs", spec, inference=engine)
    with grpc_server(local) as (port, points):
        client = QdrantClient(host="127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False)
        points.fails = 100
        with pytest.raises(TransportError, match="has not answered for 0 s"):
            upload(client, "docs", DOCUMENTS, spec, inference=engine, patience_s=0)
        points.fails = 1
        assert upload(client, "docs", DOCUMENTS, spec, inference=engine) == UploadReport(uploaded=10)
        client.close()
    assert all("sparse" in record.vector for record in local.scroll("docs", limit=99, with_vectors=True)[0])
