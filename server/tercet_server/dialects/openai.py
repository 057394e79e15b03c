"""OpenAI's embeddings, which most clients speak; Jina's `task` and `embedding_type` are understood too."""

from __future__ import annotations

from binascii import b2a_base64
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tercet.errors import TercetError
from tercet.types import Embeddings
from tercet_server.endpoint import Answer, Call, Dialect, Endpoint
from tercet_server.inputs import Inputs, is_query, items_of, truncation
from tercet_server.service import Service
from tercet_server.vectors import Vector


class Fault(msgspec.Struct):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(msgspec.Struct):
    """The body of every answer that is not a success."""

    error: Fault


def error(failure: TercetError) -> tuple[int, ErrorBody]:
    """Return the status and body of an error."""
    kind = "server_error" if failure.status >= 500 else "invalid_request_error"
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(failure.status, kind)
    return failure.status, ErrorBody(Fault(failure.message, kind, None, failure.code))


DIALECT = Dialect("openai", error, ErrorBody, "OpenAI's embeddings")

Encoding = Literal["float", "base64"]


class EmbeddingsBody(msgspec.Struct):
    """Texts, or token ids that are used as they are.

    Attributes:
        task, input_type: `retrieval.query` or `query` for the query's side (Jina, Voyage).
        embedding_type: another name for `encoding_format` (Jina).
        truncate: false makes an over-long text an error.
    """

    input: Inputs
    model: str | None = None
    encoding_format: Encoding | None = None
    dimensions: int | None = None
    task: str | None = None
    input_type: str | None = None
    embedding_type: Encoding | None = None
    truncate: bool | None = None


class Embedding(msgspec.Struct):
    """One input's vector, as numbers or as base64 of little-endian float32."""

    index: int
    embedding: Vector | str
    object: Literal["embedding"] = "embedding"


class Usage(msgspec.Struct):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsList(msgspec.Struct):
    """One vector for each input, in order."""

    data: list[Embedding]
    model: str
    usage: Usage
    object: Literal["list"] = "list"


async def embeddings(service: Service, call: Call[EmbeddingsBody]) -> Any:
    """Answer with one dense vector for each input."""
    body = call.body
    result = await service.encode(
        call,
        body.model,
        items_of(body.input),
        dimensions=body.dimensions,
        is_query=is_query(body.task) or is_query(body.input_type),
        truncate=truncation(body.truncate),
    )
    packed = "base64" in (body.encoding_format, body.embedding_type)
    return Answer(lambda: EmbeddingsList(_listed(result, packed), result.model, Usage(call.tokens, call.tokens)))


def _listed(result: Embeddings, packed: bool) -> list[Embedding]:
    assert result.dense is not None
    return [Embedding(i, base64(row) if packed else row) for i, row in enumerate(result.dense)]


def base64(vector: NDArray[Any]) -> str:
    """Return a vector's little-endian float32 values in base64."""
    return b2a_base64(np.asarray(vector, "<f4").tobytes(), newline=False).decode()


ENDPOINTS = (
    Endpoint("POST", "/v1/embeddings", embeddings, DIALECT, "Embed texts", EmbeddingsBody, {200: EmbeddingsList}),
)
