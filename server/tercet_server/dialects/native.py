"""Tercet's own HTTP interface, in JSON and Arrow, and in MessagePack as the Superlinked SDK speaks it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from tercet.errors import InvalidInputError, TercetError
from tercet.types import Embeddings, Scores
from tercet.wire import ARROW, JSON
from tercet.wire.columns import embeddings_stream, scores_stream
from tercet.wire.failures import error_document
from tercet.wire.requests import read_request
from tercet.wire.results import embeddings_document, scores_document
from tercet_server.dialects.native_bodies import (
    EncodeAnswer,
    EncodeBody,
    ItemBody,
    Model,
    Models,
    ScoreAnswer,
    ScoreBody,
    items_of,
)
from tercet_server.endpoint import Answer, Call, Dialect, Endpoint, Headers, media_type
from tercet_server.json_body import decode_json
from tercet_server.models import describe, listed
from tercet_server.msgpack import MSGPACK, as_lists, pack, unpack
from tercet_server.service import Service

R = TypeVar("R", Embeddings, Scores)


class Fault(msgspec.Struct):
    """What went wrong: a stable code, and what was given, what is allowed, what to do."""

    code: str
    message: str
    retry_after_s: float | msgspec.UnsetType = msgspec.UNSET


class ErrorBody(msgspec.Struct):
    """The body of every answer that is not a success."""

    error: Fault


def error(failure: TercetError) -> tuple[int, dict[str, Any]]:
    """Return the status and body of an error."""
    return failure.status, error_document(failure)


# What the Superlinked SDK acts on. It comes back by itself for the codes of 429 and 503, and gives up at once for 502.
_SDK_ERRORS = {
    "invalid_input": (400, "INVALID_INPUT"),
    "unsupported_operation": (400, "INVALID_INPUT"),
    "unsupported_model": (400, "INVALID_INPUT"),
    "request_too_large": (413, "INPUT_TOO_LONG"),
    "overloaded": (429, "RATE_LIMIT"),
    "bad_checkpoint": (502, "MODEL_LOAD_FAILED"),
    "model_load_failed": (502, "MODEL_LOAD_FAILED"),
    "out_of_memory": (503, "RESOURCE_EXHAUSTED"),
    "shutting_down": (503, "QUEUE_UNAVAILABLE"),
}


def sdk_error(failure: TercetError) -> tuple[int, dict[str, Any]]:
    """Return the status and body of an error, in the codes of the Superlinked SDK."""
    status, code = _SDK_ERRORS.get(failure.code, (failure.status, failure.code.upper()))
    return status, error_document(failure, code)


_SDK = Dialect("native", sdk_error, ErrorBody)
DIALECT = Dialect("native", error, ErrorBody, "Tercet's own interface", {MSGPACK: _SDK})


async def encode(service: Service, call: Call[EncodeBody]) -> Any:
    """Answer with the outputs of the items."""
    body = call.body
    result = await service.encode(call, None, items_of(body.items), **body.params.choices())
    return _answer(call, result, embeddings_stream, embeddings_document)


async def score(service: Service, call: Call[ScoreBody]) -> Any:
    """Answer with the items from best to worst."""
    body = call.body
    (query,) = items_of([body.query])
    result = await service.score(call, None, query, items_of(body.items), **body.choices())
    query_id = body.query.id if isinstance(body.query, ItemBody) else None
    return _answer(call, result, scores_stream, partial(_scores, call, query_id))


async def models(service: Service, call: Call[None]) -> Any:
    """Answer with what is known of every model that may be used."""
    found = listed(service)
    return {"models": found, "data": found, "object": "list"}


async def model(service: Service, call: Call[None]) -> Any:
    """Answer with what is known of one model, opened if need be but not loaded."""
    return await describe(service, call)


def _scores(call: Call[Any], query_id: str | None, scores: Scores) -> dict[str, Any]:
    document = {**scores_document(scores), "query_id": query_id}
    if _wants(call, MSGPACK):  # whose clients look items up by their ids
        rows = document["scores"]
        document["scores"] = [{**row, "item_id": row["item_id"] or f"item-{row['index']}"} for row in rows]
    return document


def _answer(
    call: Call[Any], result: R, stream: Callable[[R], bytes], document: Callable[[R], dict[str, Any]]
) -> Answer:
    if _wants(call, ARROW):
        return Answer(partial(stream, result), media_type=ARROW)
    if _wants(call, MSGPACK):
        return Answer(lambda: pack(document(result)), media_type=MSGPACK)
    return Answer(partial(document, result))


def _wants(call: Call[Any], kind: str) -> bool:
    return kind in call.headers.get("accept", "")


_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    EncodeBody: msgspec.json.Decoder(EncodeBody),
    ScoreBody: msgspec.json.Decoder(ScoreBody),
}


def decode(kind: type, raw: bytes, headers: Headers) -> Any:
    """Return a request's body in its type, from whichever of the three forms its media type names; JSON if none.

    Raises:
        InvalidInputError: it has not this form, or does not fit the type; the message says where.
    """
    given = media_type(headers)
    if given == ARROW:
        items, rest = read_request(raw)
        body = _converted({**rest, "items": []}, kind)
        body.items = items
        return body
    if given == MSGPACK:
        return _converted(as_lists(unpack(raw)), kind)
    return decode_json(raw, _DECODERS[kind])


def _converted(document: Any, kind: type) -> Any:
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidInputError(f"the body does not fit: {error}") from None


def _forms(body: type) -> dict[str, Any]:
    forms = (JSON, ARROW, MSGPACK)
    return {"body": body, "decode": partial(decode, body), "body_media_types": forms, "answer_media_types": forms}


def _at(method: Any, path: str, handler: Any, summary: str, answer: Any, **more: Any) -> Endpoint:
    return Endpoint(method, path, handler, DIALECT, summary, answers={200: answer}, modeled=False, **more)


ENDPOINTS = (
    _at("POST", "/v1/encode/{model}", encode, "Encode items", EncodeAnswer, **_forms(EncodeBody)),
    _at("POST", "/v1/score/{model}", score, "Score items against a query", ScoreAnswer, **_forms(ScoreBody)),
    _at("GET", "/v1/models", models, "The models that may be used", Models),
    _at("GET", "/v1/models/{model}", model, "What is known of a model", Model),
)
