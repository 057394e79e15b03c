"""As much of Qdrant's gRPC interface as an ingest needs, over the client's local mode."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc import collections_service_pb2_grpc as collections_rpc
from qdrant_client.grpc import points_service_pb2_grpc as points_rpc
from qdrant_client.http import models
from qdrant_client.local.qdrant_local import QdrantLocal


class _Collections(collections_rpc.CollectionsServicer):
    def __init__(self, store: QdrantLocal) -> None:
        self.store = store

    def CollectionExists(self, request: Any, context: Any) -> Any:  # noqa: N802
        exists = messages.CollectionExists(exists=self.store.collection_exists(request.collection_name))
        return messages.CollectionExistsResponse(result=exists)

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        found = self.store.get_collection(request.collection_name)
        return messages.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(found))


class _Points(points_rpc.PointsServicer):
    """Remembers the calls that change something, and fails in the middle of a batch of updates when told to."""

    def __init__(self, store: QdrantLocal) -> None:
        self.store, self.calls, self.fails = store, [], 0

    def Upsert(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.calls.append("upsert")
        self.store.upsert(request.collection_name, [GrpcToRest.convert_point_struct(point) for point in request.points])
        return _done()

    def UpdateBatch(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.calls.append("update")
        if self.fails:
            self.fails -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        operations = [GrpcToRest.convert_points_update_operation(each) for each in request.operations]
        self.store.batch_update_points(request.collection_name, operations)
        return messages.UpdateBatchResponse(result=[_done().result])

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        ids = [GrpcToRest.convert_point_id(each) for each in request.ids]
        found = self.store.retrieve(request.collection_name, ids)
        return messages.GetResponse(result=[RestToGrpc.convert_retrieved_point(each) for each in found])


@contextmanager
def grpc_server(store: QdrantLocal) -> Iterator[tuple[int, _Points]]:
    """Yield the port of a server over a store, and what it has been asked."""
    server, points = grpc.server(ThreadPoolExecutor(1)), _Points(store)
    collections_rpc.add_CollectionsServicer_to_server(_Collections(store), server)
    points_rpc.add_PointsServicer_to_server(points, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port, points
    finally:
        server.stop(None).wait()


def _done() -> Any:
    result = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)
    return messages.PointsOperationResponse(result=RestToGrpc.convert_update_result(result))
