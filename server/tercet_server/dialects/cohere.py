"""Cohere's embed (v1 and v2) and rerank (v2); its first rerank shares an address with Jina's, see `jina.py`."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec

from tercet.errors import InvalidInputError, TercetError, UnsupportedOperationError
from tercet.quantize import quantize
from tercet.types import Embeddings, EncodeChoices, OutputDType, Truncate
from tercet_server.dialects.jina import Meta, meta
from tercet_server.dialects.openai import base64
from tercet_server.endpoint import Call, Dialect, Endpoint
from tercet_server.inputs import is_query
from tercet_server.service import Service
from tercet_server.vectors import IntegerMatrix, Matrix


class ErrorBody(msgspec.Struct):
    """What went wrong."""

    message: str


def error(failure: TercetError) -> tuple[int, ErrorBody]:
    """Return the status and body of an error."""
    return failure.status, ErrorBody(failure.message)


DIALECT = Dialect("cohere", error, ErrorBody, "Cohere's embed and rerank")

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
InputType = Literal["search_document", "search_query", "classification", "clustering", "image"]
_TRUNCATE: dict[str, Truncate] = {"NONE": "none", "START": "start", "END": "end"}
_DTYPES: dict[str, OutputDType] = {
    "int8": "int8",
    "uint8": "uint8",
    "binary": "binary",
    "ubinary": "ubinary",
}


class Content(msgspec.Struct):
    """A part of an input; only texts are read."""

    type: str
    text: str | None = None


class Input(msgspec.Struct):
    """A text in parts, each on a line."""

    content: list[Content]


class EmbedBody(msgspec.Struct):
    """Texts to embed, given as `texts` or as `inputs`.

    Attributes:
        input_type: `search_query` for the query's side; `classification` and `clustering` take the checkpoint's prompt
            of that name if it has one.
        embedding_types: default `float`; int8 and uint8 are scaled vector by vector.
    """

    texts: list[str] | None = None
    inputs: list[Input] | None = None
    images: list[str] | None = None
    model: str | None = None
    input_type: InputType | None = None
    embedding_types: list[EmbeddingType] | None = None
    output_dimension: int | None = None
    truncate: Literal["NONE", "START", "END"] = "END"


class ByType(msgspec.Struct, rename={"float_": "float"}):
    """One embedding for each text in each type that was asked for."""

    float_: Matrix | msgspec.UnsetType = msgspec.UNSET
    int8: IntegerMatrix | msgspec.UnsetType = msgspec.UNSET
    uint8: IntegerMatrix | msgspec.UnsetType = msgspec.UNSET
    binary: IntegerMatrix | msgspec.UnsetType = msgspec.UNSET
    ubinary: IntegerMatrix | msgspec.UnsetType = msgspec.UNSET
    base64: list[str] | msgspec.UnsetType = msgspec.UNSET


class Embedded(msgspec.Struct):
    """The texts and their embeddings by type."""

    id: str
    embeddings: ByType
    texts: list[str]
    meta: Meta
    response_type: Literal["embeddings_by_type"] = "embeddings_by_type"


class EmbeddedV1(msgspec.Struct):
    """The texts and their embeddings, by type if types were named."""

    id: str
    embeddings: ByType | Matrix
    texts: list[str]
    meta: Meta
    response_type: Literal["embeddings_by_type", "embeddings_floats"]


class RerankBody(msgspec.Struct):
    """A query and the documents to rank.

    Attributes:
        top_n: how many of the best to return, default all.
        max_tokens_per_doc: documents are cut to so many tokens before they are read.
    """

    query: str
    documents: list[str]
    model: str | None = None
    top_n: int | None = None
    max_tokens_per_doc: int | None = None


class Ranked(msgspec.Struct):
    """One document's score; `index` is its place in the request."""

    index: int
    relevance_score: float


class Reranked(msgspec.Struct):
    """The documents' scores, best first."""

    id: str
    results: list[Ranked]
    meta: Meta


async def embed(service: Service, call: Call[EmbedBody]) -> Any:
    """Answer with one embedding for each text in each type."""
    texts = _texts(call.body)
    result = await _encode(service, call, texts)
    types = call.body.embedding_types or ["float"]
    return Embedded(call.request_id, _by_type(result, types), texts, meta("2", input_tokens=call.tokens))


async def embed_v1(service: Service, call: Call[EmbedBody]) -> Any:
    """Answer as `embed` does if types are named, else with the vectors alone."""
    texts = _texts(call.body)
    result = await _encode(service, call, texts)
    types, units = call.body.embedding_types, meta("1", input_tokens=call.tokens)
    assert result.dense is not None
    if types:
        return EmbeddedV1(call.request_id, _by_type(result, types), texts, units, "embeddings_by_type")
    return EmbeddedV1(call.request_id, result.dense, texts, units, "embeddings_floats")


async def rerank(service: Service, call: Call[RerankBody]) -> Any:
    """Answer with the documents' scores, best first."""
    body = call.body
    documents = body.documents
    if body.max_tokens_per_doc is not None:
        documents = await _shortened(service, call, documents, body.max_tokens_per_doc)
    scores = await service.score(call, body.model, body.query, documents, top_k=body.top_n)
    results = [Ranked(row.index, row.score) for row in scores]
    return Reranked(call.request_id, results, meta("2", search_units=1))


async def _encode(service: Service, call: Call[EmbedBody], texts: list[str]) -> Embeddings:
    body = call.body
    choices = EncodeChoices(
        is_query=is_query(body.input_type), dimensions=body.output_dimension, truncate=_TRUNCATE[body.truncate]
    )
    if body.input_type in ("classification", "clustering"):
        spec = (await service.checkpoint(call, body.model, "dense")).spec
        if body.input_type in spec.prompts:
            choices["prompt"] = body.input_type
    return await service.encode(call, body.model, texts, **choices)


def _texts(body: EmbedBody) -> list[str]:
    if body.images or body.input_type == "image":
        raise UnsupportedOperationError("the models here read text; send `texts` and no images")
    if (body.texts is None) == (body.inputs is None):
        raise InvalidInputError("send either `texts` or `inputs`, and not both")
    return body.texts if body.texts is not None else [_joined(given, i) for i, given in enumerate(body.inputs or [])]


def _joined(given: Input, index: int) -> str:
    texts = [part.text for part in given.content if part.type == "text" and part.text is not None]
    if not texts or len(texts) < len(given.content):
        raise UnsupportedOperationError(f"inputs[{index}] must have parts of type 'text' alone; the models read text")
    return "\n".join(texts)


def _by_type(result: Embeddings, types: list[EmbeddingType]) -> ByType:
    assert result.dense is not None
    columns = ByType()
    for name in types:
        match name:
            case "float":
                columns.float_ = result.dense
            case "base64":
                columns.base64 = [base64(row) for row in result.dense]
            case _:
                setattr(columns, name, quantize(result.dense, _DTYPES[name])[0])
    return columns


async def _shortened(service: Service, call: Call[RerankBody], documents: list[str], limit: int) -> list[str]:
    if limit < 1:
        raise InvalidInputError(f"max_tokens_per_doc must be a whole number from 1, not {limit}")
    tokenizer = (await service.checkpoint(call, call.body.model, "score")).tokenizer
    if tokenizer is None:
        raise UnsupportedOperationError("this model has no tokens to count; leave max_tokens_per_doc out")

    def cut(text: str) -> str:
        tokens = tokenizer.tokens(text, special=False)
        return text[: tokens[limit - 1].stop] if len(tokens) > limit else text

    return await asyncio.to_thread(lambda: [cut(text) for text in documents])


ENDPOINTS = (
    Endpoint("POST", "/v2/embed", embed, DIALECT, "Embed texts", EmbedBody, {200: Embedded}),
    Endpoint("POST", "/v1/embed", embed_v1, DIALECT, "Embed texts", EmbedBody, {200: EmbeddedV1}),
    Endpoint("POST", "/v2/rerank", rerank, DIALECT, "Rank documents", RerankBody, {200: Reranked}),
)
