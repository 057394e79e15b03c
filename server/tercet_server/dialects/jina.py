"""Jina's rerank and multi-vector. Its `/v1/rerank` is Cohere's first one too; its embeddings are served as OpenAI's."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tercet.errors import InvalidInputError, TercetError
from tercet.types import OutputDType, Score
from tercet_server.endpoint import Call, Dialect, Endpoint
from tercet_server.inputs import is_query
from tercet_server.service import Service
from tercet_server.vectors import Matrix

Document = str | dict[str, Any]


class ErrorBody(msgspec.Struct):
    """What went wrong, in Jina's word and in that of Cohere's clients, who call `/v1/rerank` as well."""

    detail: str
    message: str


def error(failure: TercetError) -> tuple[int, ErrorBody]:
    """Return the status and body of an error."""
    return failure.status, ErrorBody(failure.message, failure.message)


DIALECT = Dialect("jina", error, ErrorBody, "Jina's rerank and multi-vector; Cohere's first rerank")


class RerankBody(msgspec.Struct):
    """A query and the documents to rank, texts or objects.

    Attributes:
        top_n: how many of the best to return, default all.
        return_documents: whether the documents come back with their scores.
        rank_fields: the fields of an object that are read, each on a line; default `text`.
    """

    query: str
    documents: list[Document]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool = True
    rank_fields: list[str] | None = None


class Ranked(msgspec.Struct):
    """One document's score; `index` is its place in the request."""

    index: int
    relevance_score: float
    document: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Usage(msgspec.Struct):
    """Tokens that the model read."""

    total_tokens: int


class ApiVersion(msgspec.Struct):
    """Which of Cohere's interfaces answered."""

    version: str


class BilledUnits(msgspec.Struct, omit_defaults=True):
    """What Cohere would count: calls of rerank, tokens of texts."""

    search_units: int | msgspec.UnsetType = msgspec.UNSET
    input_tokens: int | msgspec.UnsetType = msgspec.UNSET


class Meta(msgspec.Struct):
    """What Cohere tells beside its results."""

    api_version: ApiVersion
    billed_units: BilledUnits


class Reranked(msgspec.Struct):
    """The documents' scores, best first; `model` and `usage` are Jina's, `id` and `meta` Cohere's."""

    id: str
    model: str
    usage: Usage
    results: list[Ranked]
    meta: Meta


class TextInput(msgspec.Struct):
    """A text as an object."""

    text: str


class MultiVectorBody(msgspec.Struct):
    """Texts to embed token by token; `task` or `input_type` say whether they are queries."""

    input: str | list[str | TextInput]
    model: str | None = None
    embedding_type: Literal["float", "binary", "ubinary"] = "float"
    dimensions: int | None = None
    task: str | None = None
    input_type: str | None = None


class TokenVectors(msgspec.Struct):
    """One text's vectors."""

    index: int
    embeddings: Matrix
    object: Literal["embeddings"] = "embeddings"


class MultiVectors(msgspec.Struct):
    """One matrix for each text, in order."""

    data: list[TokenVectors]
    model: str
    usage: Usage
    object: Literal["list"] = "list"


async def rerank(service: Service, call: Call[RerankBody]) -> Any:
    """Answer with the documents' scores, best first."""
    body = call.body
    texts = [_text(document, body.rank_fields or ["text"], i) for i, document in enumerate(body.documents)]
    scores = await service.score(call, body.model, body.query, texts, top_k=body.top_n)
    results = [_ranked(row, body.documents, body.return_documents) for row in scores]
    return Reranked(call.request_id, scores.model, Usage(call.tokens), results, meta("1", search_units=1))


async def multi_vector(service: Service, call: Call[MultiVectorBody]) -> Any:
    """Answer with one vector for each token of each text."""
    body = call.body
    given = [body.input] if isinstance(body.input, str) else body.input
    result = await service.encode(
        call,
        body.model,
        [each if isinstance(each, str) else each.text for each in given],
        output_types=["multivector"],
        is_query=is_query(body.task) or is_query(body.input_type),
        dimensions=body.dimensions,
        output_dtype=_DTYPES[body.embedding_type],
    )
    assert result.multivector is not None
    data = [TokenVectors(i, vectors) for i, vectors in enumerate(result.multivector)]
    return MultiVectors(data, result.model, Usage(call.tokens))


def meta(version: str, **units: int) -> Meta:
    """Return what Cohere tells beside its results."""
    return Meta(ApiVersion(version), BilledUnits(**units))


_DTYPES: dict[str, OutputDType] = {"float": "float32", "binary": "binary", "ubinary": "ubinary"}


def _text(document: Document, fields: list[str], index: int) -> str:
    if isinstance(document, str):
        return document
    texts = [document[name] for name in fields if name in document]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInputError(f"document {index} has no text in {', '.join(fields)}; name its fields in rank_fields")
    return "\n".join(texts)


def _ranked(row: Score, documents: list[Document], with_document: bool) -> Ranked:
    if not with_document:
        return Ranked(row.index, row.score)
    document = documents[row.index]
    return Ranked(row.index, row.score, {"text": document} if isinstance(document, str) else document)


ENDPOINTS = (
    Endpoint("POST", "/v1/rerank", rerank, DIALECT, "Rank documents", RerankBody, {200: Reranked}),
    Endpoint(
        "POST", "/v1/multi-vector", multi_vector, DIALECT, "Embed each token", MultiVectorBody, {200: MultiVectors}
    ),
)
