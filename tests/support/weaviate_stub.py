"""A Weaviate server in Python: REST and gRPC on loopback sockets, for the real weaviate-client.

The gRPC side implements the servicer that the client's own `weaviate_pb2_grpc` defines, over `weaviate_store`. Faults
are asked for: objects or whole requests that are refused, and absences. Run as a script it is a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import weaviate
from weaviate.proto.v1 import (
    aggregate_pb2,
    base_pb2,
    base_search_pb2,
    batch_pb2,
    health_weaviate_pb2,
    properties_pb2,
    search_get_pb2,
    weaviate_pb2_grpc,
)

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.weaviate_store import Class, Store, Stored, fused, keywords, matches, matrix, nearest

VERSION = "1.36.9"
MESSAGE_BYTES = 104_858_000
DEFAULT_ALPHA = 0.75
DEFAULT_LIMIT = 10

Refuse = Callable[[batch_pb2.BatchObject], str | None]
RefuseBatch = Callable[[batch_pb2.BatchObjectsRequest], tuple[grpc.StatusCode, str] | None]


@dataclass
class Faults:
    """What goes wrong, and what was asked."""

    refuse: Refuse = lambda message: None
    refuse_batch: RefuseBatch = lambda request: None
    batches: list[int] = field(default_factory=list)  # the sizes of all that came
    search_metadata: list[dict[str, str]] = field(default_factory=list)


class Servicer(weaviate_pb2_grpc.WeaviateServicer):
    """The gRPC methods that are served; the others answer UNIMPLEMENTED."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self.store, self.faults = store, faults

    def BatchObjects(self, request: batch_pb2.BatchObjectsRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.faults.batches.append(len(request.objects))
        if refused := self.faults.refuse_batch(request):
            context.abort(*refused)
        errors: dict[int, str] = {}
        accepted: list[tuple[int, batch_pb2.BatchObject]] = []
        for i, message in enumerate(request.objects):
            if why := self.faults.refuse(message):
                errors[i] = why
            else:
                accepted.append((i, message))
        wrong = self.store.add(message for _, message in accepted)
        errors |= {accepted[place][0]: why for place, why in wrong.items()}
        reply = batch_pb2.BatchObjectsReply
        return reply(took=0.0, errors=[reply.BatchError(index=i, error=why) for i, why in sorted(errors.items())])

    def Search(self, request: search_get_pb2.SearchRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.faults.search_metadata.append(dict(context.invocation_metadata()))
        try:
            with self.store.lock:
                return self._search(request)
        except (ValueError, KeyError, NotImplementedError) as error:
            return context.abort(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")

    def Aggregate(self, request: aggregate_pb2.AggregateRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802
        found = self.store.classes[request.collection]
        objects = _filtered(found, request.filters if request.HasField("filters") else None)
        single = aggregate_pb2.AggregateReply.Single(objects_count=len(objects))
        return aggregate_pb2.AggregateReply(single_result=single)

    def _search(self, request: search_get_pb2.SearchRequest) -> search_get_pb2.SearchReply:
        found = self.store.classes.get(request.collection)
        if found is None:
            raise KeyError(f"could not find class {request.collection} in schema")
        objects = _filtered(found, request.filters if request.HasField("filters") else None)
        scores = _scores(found, objects, request)
        keys = [key for key in scores if key > request.after]
        page = keys[request.offset : request.offset + (request.limit or DEFAULT_LIMIT)]
        return search_get_pb2.SearchReply(results=[_result(key, objects[key], scores[key], request) for key in page])


def _filtered(found: Class, filters: base_pb2.Filters | None) -> dict[str, Stored]:
    if filters is None:
        return found.objects
    if filters.target.property == "_id" and filters.operator == base_pb2.Filters.OPERATOR_CONTAINS_ANY:
        return {key: found.objects[key] for key in filters.value_text_array.values if key in found.objects}
    return {key: stored for key, stored in found.objects.items() if matches(filters, key, stored)}


def _scores(found: Class, objects: dict[str, Stored], request: search_get_pb2.SearchRequest) -> dict[str, float]:
    """Return the objects to list, best first, with Weaviate's score or distance."""
    if request.HasField("hybrid_search"):
        return _hybrid(found, objects, request.hybrid_search)
    if request.HasField("near_vector"):
        name, query = _query(found, request.near_vector, request.near_vector)
        return {key: 1 - score for key, score in nearest(objects, name, query).items()}
    if request.HasField("bm25_search"):
        return keywords(found.schema, objects, request.bm25_search.query, request.bm25_search.properties)
    return dict.fromkeys(sorted(objects), 0.0)


def _hybrid(found: Class, objects: dict[str, Stored], asked: base_search_pb2.Hybrid) -> dict[str, float]:
    alpha = asked.alpha_param if asked.HasField("alpha_param") else DEFAULT_ALPHA
    words = keywords(found.schema, objects, asked.query, asked.properties)
    name, query = _query(found, asked, asked.near_vector if asked.HasField("near_vector") else asked)
    return fused(nearest(objects, name, query), words, alpha, asked.fusion_type)


def _query(found: Class, targeted: Any, given: Any) -> tuple[str, np.ndarray]:
    """Return the name of the vector that is searched and the query's, wherever the client has put it."""
    names = list(targeted.targets.target_vectors) or list(found.schema["vectorConfig"])
    if len(names) != 1:
        raise ValueError(f"multiple vectors {names}: name one target vector")
    if given.vectors:
        return names[0], matrix(given.vectors[0])
    if getattr(given, "vector_for_targets", None):
        return names[0], matrix(given.vector_for_targets[0].vectors[0])
    if not given.vector_bytes:
        raise ValueError("no vector, and no module to make one")
    return names[0], np.frombuffer(given.vector_bytes, "<f4")


def _result(
    key: str, stored: Stored, score: float, request: search_get_pb2.SearchRequest
) -> search_get_pb2.SearchResult:
    wanted, asked = request.metadata, request.properties
    metadata = search_get_pb2.MetadataResult(id=key, id_as_bytes=uuid.UUID(key).bytes)
    if wanted.score and request.HasField("hybrid_search"):
        metadata.score, metadata.score_present = score, True
    if wanted.distance and request.HasField("near_vector"):
        metadata.distance, metadata.distance_present = score, True
    names = set(wanted.vectors) or (set(stored.vectors) if wanted.vector else set())
    metadata.vectors.extend(each for each in stored.message.vectors if each.name in names)
    everything = not request.HasField("properties") or asked.return_all_nonref_properties
    shown = stored.properties if everything else asked.non_ref_properties
    values = {name: _value(stored.properties[name]) for name in shown if stored.properties.get(name) is not None}
    properties = search_get_pb2.PropertiesResult(
        non_ref_props=properties_pb2.Properties(fields=values), target_collection=request.collection
    )
    return search_get_pb2.SearchResult(properties=properties, metadata=metadata)


def _value(value: Any) -> properties_pb2.Value:
    if isinstance(value, bool):
        return properties_pb2.Value(bool_value=value)
    if isinstance(value, float):
        return properties_pb2.Value(number_value=value)
    if isinstance(value, list):
        texts = properties_pb2.TextValues(values=[str(each) for each in value])
        return properties_pb2.Value(list_value=properties_pb2.ListValue(text_values=texts))
    return properties_pb2.Value(text_value=value)


class Rest(BaseHTTPRequestHandler):
    """The REST routes that the client uses beside gRPC."""

    protocol_version = "HTTP/1.1"
    store: Store

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/v1/schema/"):
            found = self.store.classes.get(path.removeprefix("/v1/schema/"))
            return self._say(200, found.schema) if found else self._say(404, None)
        answers: dict[str, Any] = {
            "/v1/meta": {"version": VERSION, "hostname": "stub", "grpcMaxMessageSize": MESSAGE_BYTES, "modules": {}},
            "/v1/schema": {"classes": [each.schema for each in self.store.classes.values()]},
            "/v1/nodes": {"nodes": [{"name": "stub", "status": "HEALTHY", "version": VERSION, "batchStats": {}}]},
            "/v1/.well-known/live": None,
            "/v1/.well-known/ready": None,
        }
        return self._say(200 if path in answers else 404, answers.get(path))

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/v1/schema":
            if body["class"] in self.store.classes:
                return self._say(422, {"error": [{"message": f"class name {body['class']} already exists"}]})
            self.store.define(body)
            return self._say(200, self.store.classes[body["class"]].schema)
        name = self.path.removeprefix("/v1/schema/").removesuffix("/properties")
        schema = self.store.classes[name].schema
        self.store.define({**schema, "properties": [*schema["properties"], body]})
        return self._say(200, body)

    def do_DELETE(self) -> None:
        self.store.drop(self.path.removeprefix("/v1/schema/"))
        self._say(200, None)

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _say(self, status: int, answer: Any) -> None:
        body = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet."""


class RestServer(ThreadingHTTPServer):
    """A server whose connections end with it, as those of a process do."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self.connections: list[socket.socket] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)


class WeaviateStub:
    """The server: `start`, `stop`, and `start` again on the same ports."""

    def __init__(self, path: Path | None = None) -> None:
        self.store, self.faults = Store(path), Faults()
        self.http_port = self.grpc_port = 0

    def start(self) -> None:
        handler = type("Handler", (Rest,), {"store": self.store})
        self._rest = RestServer(("127.0.0.1", self.http_port), handler)
        self.http_port = self._rest.server_address[1]
        self._thread = threading.Thread(target=self._rest.serve_forever, args=[0.05], daemon=True)
        self._thread.start()
        sizes = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
        self._grpc = grpc.server(ThreadPoolExecutor(8), options=[*sizes, ("grpc.so_reuseport", 0)])
        weaviate_pb2_grpc.add_WeaviateServicer_to_server(Servicer(self.store, self.faults), self._grpc)
        self._grpc.add_generic_rpc_handlers([_health()])
        self.grpc_port = self._grpc.add_insecure_port(f"127.0.0.1:{self.grpc_port}")
        self._grpc.start()

    def stop(self) -> None:
        """Go away, in the middle of whatever is asked."""
        self._grpc.stop(0).wait()
        self._rest.shutdown()
        self._rest.server_close()
        self._thread.join()

    def connect(self, **choices: Any) -> weaviate.WeaviateClient:
        """Return a client that is connected."""
        checks = {"skip_init_checks": True} | choices  # which would ask a package registry for the client's version
        return weaviate.connect_to_local("127.0.0.1", self.http_port, self.grpc_port, **checks)

    def connect_async(self, **choices: Any) -> weaviate.WeaviateAsyncClient:
        """Return an asynchronous client, to be entered."""
        return weaviate.use_async_with_local(
            "127.0.0.1", self.http_port, self.grpc_port, skip_init_checks=True, **choices
        )

    def objects(self, name: str) -> dict[str, Stored]:
        """Return a collection's objects by id."""
        return self.store.classes[name].objects


def _health() -> grpc.GenericRpcHandler:
    serving = health_weaviate_pb2.WeaviateHealthCheckResponse(status="SERVING")
    check = grpc.unary_unary_rpc_method_handler(
        lambda request, context: serving,
        request_deserializer=health_weaviate_pb2.WeaviateHealthCheckRequest.FromString,
        response_serializer=health_weaviate_pb2.WeaviateHealthCheckResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})


@contextlib.contextmanager
def weaviate_stub(path: Path | None = None) -> Iterator[WeaviateStub]:
    """Yield a running server, stopped at the end.

    Args:
        path: of the file that it persists to.
    """
    stub = WeaviateStub(path)
    stub.start()
    try:
        yield stub
    finally:
        stub.stop()
        stub.store.close()


if __name__ == "__main__":
    with weaviate_stub(Path(sys.argv[1]) if len(sys.argv) > 1 else None) as served:
        print(json.dumps({"http_port": served.http_port, "grpc_port": served.grpc_port}), flush=True)
        sys.stdin.read()  # until whoever started it goes away
