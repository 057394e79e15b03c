"""Weaviate's inference containers, which its modules text2vec-transformers and reranker-transformers call, and others.

The Go clients send no Content-Type, one text a call, and take status 200 alone for a success; any other answer must be
JSON with `error`, or all they report is that they could not parse it. `/rerank` has its bodies and its handler here and
its route where it is told from other dialects' requests.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tercet.errors import (
    EngineClosedError,
    ModelLoadError,
    ModelLoadingError,
    TercetError,
    UnsupportedOperationError,
)
from tercet.types import ModelInfo
from tercet.version import __version__
from tercet_server.endpoint import Answer, Call, Dialect, Endpoint
from tercet_server.service import Service

_RETRY_AFTER_S = 1.0


class ErrorBody(msgspec.Struct):
    """What went wrong."""

    error: str


def error(failure: TercetError) -> tuple[int, ErrorBody]:
    """Return the status and body of an error."""
    return failure.status, ErrorBody(failure.message)


DIALECT = Dialect("weaviate", error, ErrorBody, "Containers of Weaviate's modules")


class VectorsConfig(msgspec.Struct):
    """How to make a vector.

    `pooling_strategy` changes nothing: Weaviate sends the same one for every model, and a checkpoint knows its own.
    """

    pooling_strategy: str | None = None
    task_type: Literal["query", "passage"] = "passage"
    dimensions: int | None = None


class VectorsBody(msgspec.Struct):
    """A text to vectorize. The empty fields of an answer, which the Go client sends along, are skipped."""

    text: str
    config: VectorsConfig | None = None


class Vectors(msgspec.Struct):
    """A text and its vector; `dim` is what older callers read."""

    text: str
    vector: list[float]
    dims: int
    dim: int


class VectorizeBody(msgspec.Struct):
    """Texts to vectorize; there may be no images."""

    texts: list[str] | None
    images: list[str] | None = None


class Vectorized(msgspec.Struct, rename="camel"):
    """One vector for each text."""

    text_vectors: list[list[float]]
    image_vectors: list[list[float]]


class RerankBody(msgspec.Struct):
    """A query and the documents to score; `property` changes nothing."""

    query: str
    documents: list[str] | None
    property: str | None = None


class DocumentScore(msgspec.Struct):
    """A document and its score."""

    document: str
    score: float


class Reranked(msgspec.Struct):
    """One score for each document, in the order of the request, since Weaviate matches them by position."""

    query: str
    scores: list[DocumentScore]


class ModelMeta(msgspec.Struct):
    """What a model gives, as far as it has been opened."""

    model: str
    outputs: list[str] = []
    dims: dict[str, int] = {}
    max_length: int | None = None


class Meta(msgspec.Struct):
    """What Weaviate shows of the module under its own `/v1/meta`."""

    name: str
    version: str
    models: list[ModelMeta]


async def vectors(service: Service, call: Call[VectorsBody]) -> Any:
    """Answer with the vector of one text, on the side that its task type says."""
    text, config = call.body.text, call.body.config or VectorsConfig()
    query = config.task_type == "query"
    result = await service.encode(call, None, [text], is_query=query, dimensions=config.dimensions)
    assert result.dense is not None
    vector = result.dense[0]
    return {"text": text, "vector": vector, "dims": len(vector), "dim": len(vector)}


async def vectorize(service: Service, call: Call[VectorizeBody]) -> Any:
    """Answer with the vectors of several texts, for the module that embeds texts and images together."""
    if call.body.images:
        raise UnsupportedOperationError("no model here reads images; send `texts` alone")
    if not call.body.texts:
        return Vectorized([], [])
    result = await service.encode(call, None, call.body.texts)
    return {"textVectors": result.dense, "imageVectors": []}


async def rerank(service: Service, call: Call[RerankBody]) -> Any:
    """Answer with a score for each document, in the order of the request."""
    query, documents = call.body.query, call.body.documents or []
    if not documents:
        return Reranked(query, [])
    result = await service.score(call, None, query, documents)
    return Reranked(query, [DocumentScore(*pair) for pair in zip(documents, result.scores.tolist(), strict=True)])


async def live(service: Service, call: Call[None]) -> Any:
    """Answer as long as the process lives."""
    return Answer(b"", 204)


async def ready(service: Service, call: Call[None]) -> Any:
    """Answer once the path's model, or else every preloaded one, can be used.

    Asking for a model begins to load it: Weaviate asks nothing else before this.
    """
    readiness = service.readiness
    if readiness.state in ("draining", "dead"):
        raise EngineClosedError(f"the server is {readiness.state}", retry_after_s=_RETRY_AFTER_S)
    if call.model:
        _require(service, service.resolve(call.model, "dense"))
    elif readiness.state == "starting":
        waiting = ", ".join(f"{model}: {why}" for model, why in readiness.waiting.items())
        raise ModelLoadingError(f"not ready yet ({waiting})", retry_after_s=_RETRY_AFTER_S)
    return Answer(b"", 204)


async def meta(service: Service, call: Call[None]) -> Any:
    """Answer with what is known of the path's model, or else of the preloaded ones, without loading any."""
    models = [service.resolve(call.model, "dense")] if call.model else service.settings.models
    return Meta("Tercet", __version__, [_described(model, service.info(model)) for model in models])


def _require(service: Service, model: str) -> None:
    """Raise unless the model has been resident; one that was swapped out comes back with the next text.

    Raises:
        ModelLoadingError: it has not; it is being loaded from now on.
        ModelLoadError: that failed.
    """
    info = service.info(model)
    if info is not None and info.state == "failed":
        raise ModelLoadError(f"{model}: {info.error}", retry_after_s=_RETRY_AFTER_S)
    if info is None or (info.state != "resident" and not info.loads):
        service.load_soon(model)
        raise ModelLoadingError(f"{model} is being loaded", retry_after_s=_RETRY_AFTER_S)


def _described(model: str, info: ModelInfo | None) -> ModelMeta:
    return ModelMeta(model, list(info.outputs), dict(info.dims), info.max_length) if info else ModelMeta(model)


def _get(path: str, handler: Any, summary: str, answers: Any, **more: Any) -> Endpoint:
    return Endpoint("GET", path, handler, DIALECT, summary, answers=answers, **more)


ENDPOINTS = (
    Endpoint("POST", "/vectors", vectors, DIALECT, "Vectorize a text", VectorsBody, {200: Vectors}),
    Endpoint("POST", "/vectorize", vectorize, DIALECT, "Vectorize texts", VectorizeBody, {200: Vectorized}),
    _get("/meta", meta, "The models behind a module", {200: Meta}),
    _get("/.well-known/live", live, "The process lives", {204: None}, scope="public"),
    _get("/.well-known/ready", ready, "The models answer", {204: None}),
)
