"""Ollama's embeddings."""

from __future__ import annotations

from typing import Any

import msgspec

from tercet.errors import TercetError
from tercet.types import Embeddings
from tercet_server.endpoint import Call, Dialect, Endpoint
from tercet_server.inputs import truncation
from tercet_server.service import Service
from tercet_server.vectors import Matrix, Vector

_NS_PER_MS = 1e6


class ErrorBody(msgspec.Struct):
    """What went wrong."""

    error: str


def error(failure: TercetError) -> tuple[int, ErrorBody]:
    """Return the status and body of an error."""
    return failure.status, ErrorBody(failure.message)


DIALECT = Dialect("ollama", error, ErrorBody, "Ollama's embeddings")


class EmbedBody(msgspec.Struct):
    """Texts to embed; Ollama's `options` and `keep_alive` have no meaning here.

    Attributes:
        truncate: false makes an over-long text an error.
    """

    input: str | list[str]
    model: str | None = None
    truncate: bool | None = None
    dimensions: int | None = None


class Embedded(msgspec.Struct):
    """One vector for each text; durations in nanoseconds, tokens as `prompt_eval_count`."""

    model: str
    embeddings: Matrix
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class PromptBody(msgspec.Struct):
    """One text to embed, as older clients send it."""

    prompt: str
    model: str | None = None


class Prompted(msgspec.Struct):
    """One text's vector."""

    embedding: Vector


async def embed(service: Service, call: Call[EmbedBody]) -> Any:
    """Answer with one dense vector for each text."""
    body = call.body
    texts = [body.input] if isinstance(body.input, str) else body.input
    result = await service.encode(
        call, body.model, texts, dimensions=body.dimensions, truncate=truncation(body.truncate)
    )
    assert result.dense is not None
    return Embedded(result.model, result.dense, _total_ns(result), 0, call.tokens)


async def prompt(service: Service, call: Call[PromptBody]) -> Any:
    """Answer with the dense vector of one text."""
    result = await service.encode(call, call.body.model, [call.body.prompt])
    assert result.dense is not None
    return Prompted(result.dense[0])


def _total_ns(result: Embeddings) -> int:
    return int(result.timings.total_ms * _NS_PER_MS) if result.timings else 0


ENDPOINTS = (
    Endpoint("POST", "/api/embed", embed, DIALECT, "Embed texts", EmbedBody, {200: Embedded}),
    Endpoint("POST", "/api/embeddings", prompt, DIALECT, "Embed one text", PromptBody, {200: Prompted}),
)
