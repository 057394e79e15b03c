"""Specs, points and queries for qdrant-edge: the engine of Qdrant's server inside this process, without a server.

It has classes of its own; these functions make them from what the rest of this package makes for a server. Needs
`pip install qdrant-edge-py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from tercet.connect import LOCAL, ConnectChoices, connect
from tercet.errors import UnsupportedOperationError
from tercet.types import Inference
from tercet.vector_spec import VectorSpec
from tercet_qdrant.edge_filter import edge_filter
from tercet_qdrant.query import QueryPoints
from tercet_qdrant.spec import CollectionSpec, as_spec

__all__ = ["edge_config", "edge_filter", "edge_points", "edge_request"]

_FULL_SCAN = 10_000  # kilobytes, the server's own default


def edge_config(
    spec: CollectionSpec | VectorSpec,
    *,
    inference: Inference | str = LOCAL,
    connection: ConnectChoices | None = None,
) -> edge.EdgeConfig:
    """Return the configuration of a shard with the spec's vectors, for `EdgeShard.create`.

    Raises:
        TercetError: a model cannot be opened.
    """
    schema = as_spec(spec).schema(connect(inference, **(connection or {})))
    return edge.EdgeConfig(
        vectors={name: _dense(params) for name, params in schema["vectors_config"].items()},
        sparse_vectors={name: _sparse(params) for name, params in schema["sparse_vectors_config"].items()},
    )


def edge_points(points: Iterable[models.PointStruct]) -> list[edge.Point]:
    """Return a server's points, those of `embed_points` for example, as a shard's."""
    return [edge.Point(point.id, _named(point.vector), point.payload or {}) for point in points]


def edge_request(request: QueryPoints, *, with_payload: bool = True, with_vectors: bool = False) -> edge.QueryRequest:
    """Return the arguments that `query_points` of this package has made, as a shard's request.

    Raises:
        UnsupportedOperationError: it holds a condition or a fusion that is not translated.
    """
    return edge.QueryRequest(
        limit=request["limit"],
        query=_query(request["query"], request.get("using")),
        prefetches=[_prefetch(each) for each in request.get("prefetch", [])],
        filter=edge_filter(request.get("query_filter")),
        params=_params(request.get("search_params")),
        with_payload=with_payload,
        with_vector=with_vectors,
    )


def _prefetch(given: models.Prefetch) -> edge.Prefetch:
    nested = given.prefetch or []
    return edge.Prefetch(
        limit=given.limit or 10,
        query=_query(given.query, given.using),
        prefetches=[_prefetch(each) for each in (nested if isinstance(nested, list) else [nested])],
        filter=edge_filter(given.filter),
        params=_params(given.params),
    )


def _query(query: Any, using: str | None) -> Any:
    if isinstance(query, models.RrfQuery):
        return edge.Fusion.Rrf(k=query.rrf.k or 2, weights=query.rrf.weights)
    if isinstance(query, models.FusionQuery):
        return edge.Fusion.Dbsf() if query.fusion == models.Fusion.DBSF else edge.Fusion.Rrf(k=2)
    if isinstance(query, models.NearestQuery):
        query = query.nearest
    if isinstance(query, list | models.SparseVector):
        return edge.Query.Nearest(_vector(query), using=using)
    raise UnsupportedOperationError(
        f"{type(query).__name__} is not translated for qdrant-edge; write the shard's own request for it"
    )


def _named(vectors: Any) -> Any:
    return {name: _vector(value) for name, value in vectors.items()} if isinstance(vectors, Mapping) else vectors


def _vector(value: Any) -> Any:
    if isinstance(value, models.SparseVector):
        return edge.SparseVector(value.indices, value.values)
    return value


def _params(given: models.SearchParams | None) -> edge.SearchParams | None:
    if given is None:
        return None
    return edge.SearchParams(
        hnsw_ef=given.hnsw_ef, exact=bool(given.exact), quantization=_quantized_search(given.quantization)
    )


def _quantized_search(given: models.QuantizationSearchParams | None) -> edge.QuantizationSearchParams | None:
    if given is None:
        return None
    return edge.QuantizationSearchParams(
        ignore=bool(given.ignore), rescore=given.rescore, oversampling=given.oversampling
    )


def _dense(params: models.VectorParams) -> edge.EdgeVectorParams:
    late = params.multivector_config is not None
    return edge.EdgeVectorParams(
        size=params.size,
        distance=edge.Distance.Cosine,
        on_disk=params.on_disk,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if late else None,
        datatype=edge.VectorStorageDatatype.Float16 if params.datatype == models.Datatype.FLOAT16 else None,
        quantization_config=_quantization(params.quantization_config),
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=_FULL_SCAN) if late else None,
    )


def _sparse(params: models.SparseVectorParams) -> edge.EdgeSparseVectorParams:
    return edge.EdgeSparseVectorParams(
        on_disk=params.index.on_disk if params.index else None,
        modifier=edge.Modifier.Idf if params.modifier == models.Modifier.IDF else None,
    )


def _quantization(given: Any) -> Any:
    if isinstance(given, models.ScalarQuantization):
        scalar = given.scalar
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, scalar.quantile, scalar.always_ram)
    if isinstance(given, models.ProductQuantization):
        return edge.ProductQuantizationConfig(edge.CompressionRatio.X16, given.product.always_ram)
    if isinstance(given, models.BinaryQuantization):
        return edge.BinaryQuantizationConfig(given.binary.always_ram)
    return None
