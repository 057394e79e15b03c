"""A server that looks like Qdrant: it stores in the client library's local mode and asks for inference as Qdrant does.

What it takes over from Qdrant: documents stand wherever a vector may; those of one request are deduplicated and sent in
one call, in the arbitrary order of a hash set; the first answer fills all places; errors become Qdrant's own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import httpx
from qdrant_client import models
from qdrant_client.local.qdrant_local import QdrantLocal
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_DATA_TYPES = ("text", "image", "object")
_NOT_VECTORS = ("payload", "filter")


class InferenceFailedError(Exception):
    """The inference server has refused; `status` and `headers` are what Qdrant tells its client."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


class QdrantRelay:
    """The relay's application, `app`, and what it has seen.

    Args:
        address: where it asks for inference, as in `QDRANT__INFERENCE__ADDRESS`.
        token: its key for that, as in `QDRANT__INFERENCE__TOKEN`.
        seed: of the order of inputs.

    Attributes:
        asked: the bodies that it has sent for inference. answered: the bodies that came back.
    """

    def __init__(self, address: str, token: str | None = None, seed: int = 0) -> None:
        self.address, self.token = address, token
        self.asked: list[Any] = []
        self.answered: list[Any] = []
        self._order = random.Random(seed)
        self._local = QdrantLocal(":memory:")
        path = "/collections/{name}"
        self.app = Starlette(
            routes=[
                Route("/", self._version),
                Route(path, self._create, methods=["PUT"]),
                Route(f"{path}/points", self._upsert, methods=["PUT"]),
                Route(f"{path}/points/query", self._query, methods=["POST"]),
                Route(f"{path}/points/query/batch", self._query_batch, methods=["POST"]),
                Route(f"{path}/points", self._retrieve, methods=["POST"]),
            ],
            exception_handlers={InferenceFailedError: _refused},
        )

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"title": "a relay", "version": version("qdrant-client")})

    async def _create(self, request: Request) -> Response:
        wanted = models.CreateCollection.model_validate(await request.json())
        configs = {"vectors_config": wanted.vectors, "sparse_vectors_config": wanted.sparse_vectors}
        return _done(self._local.create_collection(request.path_params["name"], **configs))

    async def _upsert(self, request: Request) -> Response:
        body, usage = await self._inferred(request, "update")
        points = models.PointsList.model_validate(body).points
        return _done(self._local.upsert(request.path_params["name"], points), usage)

    async def _query(self, request: Request) -> Response:
        body, usage = await self._inferred(request, "search")
        found = self._local.query_batch_points(request.path_params["name"], [models.QueryRequest.model_validate(body)])
        return _done(found[0], usage)

    async def _query_batch(self, request: Request) -> Response:
        body, usage = await self._inferred(request, "search")
        requests = models.QueryRequestBatch.model_validate(body).searches
        return _done(self._local.query_batch_points(request.path_params["name"], requests), usage)

    async def _retrieve(self, request: Request) -> Response:
        wanted = models.PointRequest.model_validate(await request.json())
        found = self._local.retrieve(request.path_params["name"], wanted.ids, True, wanted.with_vector)
        return _done(found)

    async def _inferred(self, request: Request, side: str) -> tuple[Any, Any]:
        """Return the request's body with vectors in place of documents, and the usage of inference."""
        body = await request.json()
        documents: dict[str, Any] = {}
        _mapped(body, lambda document: documents.setdefault(_key(document), document))
        if not documents:
            return body, None
        keys = list(documents)
        self._order.shuffle(keys)
        answer = await self._infer([_input(documents[key]) for key in keys], side)
        vectors = dict(zip(keys, answer["embeddings"], strict=True))
        return _mapped(body, lambda document: vectors[_key(document)]), answer["usage"]

    async def _infer(self, inputs: list[Any], side: str) -> Any:
        asked = {"inputs": inputs, "inference": side, "token": self.token}
        self.asked.append(asked)
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(self.address, json=asked)
        if answer.status_code == 200:
            self.answered.append(answer.json())
            return answer.json()
        if answer.status_code == 400:
            raise InferenceFailedError(400, f"Inference request validation failed: {answer.json()['error']}")
        if answer.status_code == 429:
            raise InferenceFailedError(429, answer.text, {"Retry-After": answer.headers["Retry-After"]})
        raise InferenceFailedError(500, f"Inference service error ({answer.status_code}): {answer.text}")


def _mapped(node: Any, vector_of: Any) -> Any:
    """Return the JSON value with every document replaced."""
    if isinstance(node, list):
        return [_mapped(item, vector_of) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("model") is not None and any(node.get(kind) is not None for kind in _DATA_TYPES):
        return vector_of(node)
    return {name: item if name in _NOT_VECTORS else _mapped(item, vector_of) for name, item in node.items()}


def _input(document: Any) -> Any:
    kind = next(kind for kind in _DATA_TYPES if kind in document)
    return {
        "data": document[kind],
        "data_type": kind,
        "model": document["model"],
        "options": document.get("options"),
    }


def _key(document: Any) -> str:
    return json.dumps(document, sort_keys=True)


def _done(result: Any, usage: Any = None) -> Response:
    dumped = [one.model_dump(mode="json") for one in result] if isinstance(result, list) else result
    plain = dumped.model_dump(mode="json") if hasattr(dumped, "model_dump") else dumped
    return JSONResponse(
        {"result": plain, "status": "ok", "time": 0.0, "usage": {"inference": usage} if usage else None}
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, InferenceFailedError)
    return JSONResponse({"status": {"error": error.message}, "time": 0.0}, error.status, error.headers)
