"""A server that speaks as much of Qdrant's REST interface as an ingest and a search need, over the client's local mode.

What it is for: the real client over a real socket, a server that refuses, and one that goes away and comes back.
"""

from __future__ import annotations

import json
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import uvicorn
from qdrant_client import models
from qdrant_client.http.api.points_api import jsonable_encoder
from qdrant_client.local.qdrant_local import QdrantLocal
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

LIMIT_BYTES = 32 << 20


class QdrantServer:
    """The server and what it holds.

    Attributes:
        store: the collections; they outlive `stop`, as those on a disk would.
        refuses: given a request's points, why the server takes none of them, or None.
        limit_bytes: of a request.
        seen: how many points, and how many bytes, came in each request to store some.
        asked: how often each route was called.
    """

    def __init__(self) -> None:
        self.store = QdrantLocal(":memory:")
        self.refuses: Callable[[list[Any]], str | None] = lambda points: None
        self.limit_bytes = LIMIT_BYTES
        self.seen: list[tuple[int, int]] = []
        self.asked: dict[str, int] = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        """Where it listens, whether it does or not."""
        return f"http://127.0.0.1:{self.port}"

    def choices(self, **more: Any) -> dict[str, Any]:
        """Return how a client reaches it, without the question for its version, which the client asks on a thread."""
        return {"url": self.url, "check_compatibility": False, "timeout": 60, **more}

    def start(self) -> None:
        """Listen; returns when it does."""
        config = uvicorn.Config(self._app(), port=self.port, log_level="error", ws="none", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            threading.Event().wait(0.01)

    def stop(self) -> None:
        """Go away; returns when nothing listens any more."""
        self._server.should_exit = True
        self._thread.join()

    def go_away(self, seconds: float) -> threading.Timer:
        """Stop now and start again after some time; returns what is to be joined."""
        self.stop()
        timer = threading.Timer(seconds, self.start)
        timer.start()
        return timer

    def _app(self) -> Starlette:
        name = "/collections/{name}"
        routes: dict[tuple[str, str], Callable[[str, Any], Any]] = {
            ("GET", name): lambda name, body: self.store.get_collection(name),
            ("GET", f"{name}/exists"): lambda name, body: {"exists": self.store.collection_exists(name)},
            ("DELETE", name): lambda name, body: self.store.delete_collection(name),
            ("PUT", name): self._create,
            ("PUT", f"{name}/points"): self._upsert,
            ("PUT", f"{name}/points/vectors"): self._update_vectors,
            ("POST", f"{name}/points"): self._retrieve,
            ("POST", f"{name}/points/batch"): self._batch_update,
            ("POST", f"{name}/points/count"): lambda name, body: self.store.count(name),
            ("POST", f"{name}/points/query"): self._query,
            ("POST", f"{name}/points/query/batch"): self._query_batch,
            ("POST", f"{name}/points/query/groups"): self._query_groups,
        }
        return Starlette(
            routes=[Route("/", self._version)]
            + [Route(path, self._endpoint(path, act), methods=[method]) for (method, path), act in routes.items()]
        )

    def _endpoint(self, path: str, act: Callable[[str, Any], Any]) -> Any:
        async def endpoint(request: Request) -> Response:
            route = f"{request.method} {path.removeprefix('/collections/{name}')}"
            self.asked[route] = self.asked.get(route, 0) + 1
            body = await request.body()
            if len(body) > self.limit_bytes:
                return _failed(413, f"JSON payload ({len(body)} bytes) is larger than allowed")
            try:
                result = act(request.path_params["name"], body)
            except ValueError as error:
                return _failed(404 if "not found" in str(error) else 400, str(error))
            return Response(
                b'{"result": %s, "status": "ok", "time": 0.0}' % _json(result), media_type="application/json"
            )

        return endpoint

    async def _version(self, request: Request) -> Response:
        about = {"title": "a server of the tests", "version": version("qdrant-client")}
        return Response(json.dumps(about), media_type="application/json")

    def _create(self, name: str, body: bytes) -> Any:
        wanted = models.CreateCollection.model_validate_json(body)
        return self.store.create_collection(name, wanted.vectors, wanted.sparse_vectors, metadata=wanted.metadata)

    def _upsert(self, name: str, body: bytes) -> Any:
        if b'"batch"' in body[:10]:
            return self.store.upsert(name, models.PointsBatch.model_validate_json(body).batch)
        points = models.PointsList.model_validate_json(body).points
        if why := self.refuses(points):
            raise ValueError(why)
        self.seen.append((len(points), len(body)))
        with warnings.catch_warnings(action="ignore"):  # that local mode is not for so many points
            return self.store.upsert(name, points)

    def _update_vectors(self, name: str, body: bytes) -> Any:
        return self.store.update_vectors(name, models.UpdateVectors.model_validate_json(body).points)

    def _batch_update(self, name: str, body: bytes) -> Any:
        operations = models.UpdateOperations.model_validate_json(body).operations
        return self.store.batch_update_points(name, operations)

    def _retrieve(self, name: str, body: bytes) -> Any:
        wanted = models.PointRequest.model_validate_json(body)
        return self.store.retrieve(name, wanted.ids, wanted.with_payload, wanted.with_vector or False)

    def _query(self, name: str, body: bytes) -> Any:
        return self.store.query_batch_points(name, [models.QueryRequest.model_validate_json(body)])[0]

    def _query_batch(self, name: str, body: bytes) -> Any:
        return self.store.query_batch_points(name, models.QueryRequestBatch.model_validate_json(body).searches)

    def _query_groups(self, name: str, body: bytes) -> Any:
        wanted = models.QueryGroupsRequest.model_validate_json(body)
        given = {field: getattr(wanted, field) for field in ("query", "prefetch", "using", "limit", "group_size")}
        return self.store.query_points_groups(name, group_by=wanted.group_by, **given)


@contextmanager
def qdrant_server() -> Iterator[QdrantServer]:
    """Yield a server that listens; at the end it does not, whatever has happened to it."""
    server = QdrantServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()
        server.store.close()


def _failed(status: int, why: str) -> Response:
    return Response(json.dumps({"status": {"error": why}, "time": 0.0}), status, media_type="application/json")


def _json(result: Any) -> bytes:
    if isinstance(result, list):
        return b"[" + b",".join(_json(one) for one in result) + b"]"
    encoded: str = jsonable_encoder(result) if hasattr(result, "model_dump") else json.dumps(result)
    return encoded.encode()
