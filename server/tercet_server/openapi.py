"""`/openapi.json`, read off the same table of endpoints that answers requests, and `/docs`, a page that shows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any

import msgspec

from tercet import errors
from tercet.errors import TercetError
from tercet.version import __version__
from tercet_server.dialects import native
from tercet_server.endpoint import JSON, Answer, Call, Endpoint
from tercet_server.json_body import to_json
from tercet_server.routes import MODEL
from tercet_server.service import Service

Spec = dict[str, Any]

_ANY = (TercetError, errors.InvalidInputError, errors.DeadlineExceededError)
_OF_BODIES = (errors.RequestTooLargeError, errors.ForbiddenError)
_OF_KEYS = (errors.AuthenticationError, errors.ForbiddenError)
_OF_MODELS = (
    errors.UnsupportedOperationError,
    errors.ModelNotFoundError,
    errors.UnsupportedModelError,
    errors.CheckpointError,
    errors.ModelLoadingError,
    errors.ModelLoadError,
    errors.OverloadedError,
    errors.EngineClosedError,
    errors.OutOfMemoryError,
)

_ALWAYS = {
    "X-Request-Id": ("string", "The caller's own, or a fresh one."),
    "X-Total-Ms": ("number", "Milliseconds in the server."),
}
_PHASES = {
    "X-Queue-Ms": ("number", "Milliseconds until its first batch began, loading included."),
    "X-Tokenization-Ms": ("number", "Milliseconds of tokenising."),
    "X-Inference-Ms": ("number", "Milliseconds of the batches that held it."),
}
_LATER = {"Retry-After": ("integer", "Seconds until it is worth trying again.")}
_ASKED = {
    "X-Request-Id": ("string", "Returned with the answer and written into the log."),
    "X-Request-Timeout-Ms": ("number", "Milliseconds that the caller waits."),
}
_WAITS = {"X-Wait-For-Model": ("boolean", "false: 503 at once when the model is not loaded.")}
_MODEL_PARAMETER = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The model's id, its slashes as they are or as %2F, or an alias.",
}


def openapi(endpoints: Iterable[Endpoint]) -> Spec:
    """Return the OpenAPI 3.1 description of the endpoints."""
    table = list(endpoints)
    types = dict.fromkeys(kind for endpoint in table for kind in _types(endpoint))
    schemas, components = msgspec.json.schema_components(list(types), ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(map(_key, types), schemas, strict=True))
    paths: dict[str, Spec] = {}
    for path, endpoint in _places(table):
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(path, endpoint, schema_of)
    dialects = {endpoint.dialect.name: endpoint.dialect.summary for endpoint in table}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tercet", "version": __version__, "description": "Embeddings and rerank scores."},
        "tags": [{"name": name, "description": summary} for name, summary in dialects.items()],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _places(endpoints: Iterable[Endpoint]) -> Iterator[tuple[str, Endpoint]]:
    """Yield every path with what answers there."""
    for endpoint in endpoints:
        yield endpoint.path, endpoint
        if endpoint.modeled and MODEL not in endpoint.path:
            yield f"/m/{MODEL}{endpoint.path}".rstrip("/"), endpoint


def _types(endpoint: Endpoint) -> Iterator[Any]:
    yield endpoint.dialect.error_type
    yield from endpoint.answers.values()
    if endpoint.body is not None:
        yield endpoint.body


def _key(kind: Any) -> str:
    return f"{getattr(kind, '__module__', '')}.{kind!r}"


def _operation(path: str, endpoint: Endpoint, schema_of: Mapping[str, Spec]) -> Spec:
    name = f"{endpoint.method}{path}".lower().replace("{model}", "model")
    operation: Spec = {
        "operationId": "".join(c if c.isalnum() else "_" for c in name),
        "tags": [endpoint.dialect.name],
        "summary": endpoint.summary,
        "parameters": _parameters(path, endpoint),
        "responses": _responses(endpoint, MODEL in path or endpoint.modeled, schema_of),
        "security": [] if endpoint.scope == "public" else [{"bearer": []}, {"apiKey": []}],
    }
    if endpoint.body is not None:
        content = _content(endpoint.body_media_types, schema_of[_key(endpoint.body)])
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(path: str, endpoint: Endpoint) -> list[Spec]:
    asked = {**_ASKED, **(_WAITS if endpoint.modeled else {})}
    parameters: list[Spec] = [
        {"name": name, "in": "header", "schema": {"type": kind}, "description": text}
        for name, (kind, text) in asked.items()
    ]
    for name, text in endpoint.query.items():
        parameters.append({"name": name, "in": "query", "schema": {"type": "string"}, "description": text})
    return [*parameters, _MODEL_PARAMETER] if MODEL in path else parameters


def _responses(endpoint: Endpoint, modeled: bool, schema_of: Mapping[str, Spec]) -> Spec:
    responses: Spec = {}
    for status, kind in endpoint.answers.items():
        content = {} if kind is None else _content(endpoint.answer_media_types, schema_of[_key(kind)])
        responses[str(status)] = _response("Done" if status < 400 else "Not now", content, status, modeled)
    error_schema = schema_of[_key(endpoint.dialect.error_type)]
    dialects = (endpoint.dialect, *endpoint.dialect.variants.values())
    for kind, dialect in product(_failures(endpoint, modeled), dialects):
        status, _ = dialect.error(kind("…"))
        if str(status) not in responses:
            responses[str(status)] = _response(_first_line(kind), _content((JSON,), error_schema), status, modeled)
    return dict(sorted(responses.items()))


def _response(text: str, content: Spec, status: int, modeled: bool) -> Spec:
    headers = {**_ALWAYS, **(_PHASES if modeled and status < 400 else {}), **(_LATER if status in (429, 503) else {})}
    shown = {name: {"schema": {"type": kind}, "description": text} for name, (kind, text) in headers.items()}
    return {"description": text, "headers": shown, **({"content": content} if content else {})}


def _failures(endpoint: Endpoint, modeled: bool) -> Iterator[type[TercetError]]:
    yield from _ANY
    if endpoint.method != "GET":
        yield from _OF_BODIES
    if endpoint.scope != "public":
        yield from _OF_KEYS
    if modeled:
        yield from _OF_MODELS


def _content(media_types: Iterable[str], schema: Spec) -> Spec:
    binary = {"type": "string", "format": "binary"}
    return {name: {"schema": schema if name == JSON else binary} for name in media_types}


def _first_line(kind: type[TercetError]) -> str:
    return (kind.__doc__ or kind.__name__).splitlines()[0]


def endpoints(documented: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Return the endpoints that describe the others, and themselves."""

    @cache
    def description() -> bytes:
        return to_json(openapi((*documented, *own)))

    async def spec(service: Service, call: Call[None]) -> Any:
        return Answer(description())

    async def docs(service: Service, call: Call[None]) -> Any:
        return Answer(files("tercet_server").joinpath("page/docs.html").read_bytes(), media_type="text/html")

    def public(path: str, handler: Any, summary: str, media_type: str, body: Any) -> Endpoint:
        answers = {200: body}
        more: Any = {"modeled": False, "scope": "public", "answer_media_types": (media_type,)}
        return Endpoint("GET", path, handler, native.DIALECT, summary, answers=answers, **more)

    own = (
        public("/openapi.json", spec, "This description", JSON, dict[str, Any]),
        public("/docs", docs, "This description as a page", "text/html", str),
    )
    return own
