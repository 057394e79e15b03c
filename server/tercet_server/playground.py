"""The page at `/`: its files, and the two endpoints that it needs beside the public ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.resources import files
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from tercet.checkpoints.checkpoint import Checkpoint, EncodeSettings
from tercet.engine.scoring import similarity
from tercet.errors import UnsupportedOperationError
from tercet.nn.batch import TokenSequence
from tercet.types import Item
from tercet_server.dialects import native
from tercet_server.endpoint import Answer, Call, Endpoint
from tercet_server.service import Service

Id = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]

_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# The page may load from this server alone, run no inline script, and stand in nobody's frame.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class TokensBody(msgspec.Struct, forbid_unknown_fields=True):
    """Indices of a sparse vector, and the text that it came from, in which BM25 looks for its words.

    Without `ids`, the tokens asked for are those of the text whose vectors a multivector keeps.
    """

    ids: list[Id] | None = None
    text: str = ""
    is_query: bool = False


class Tokens(msgspec.Struct):
    """The vocabulary's entries in the order asked for, null where there is none."""

    model: str
    tokens: list[str | None]


class InteractionBody(msgspec.Struct, forbid_unknown_fields=True):
    """A query and a document."""

    query: str
    document: str


class Interaction(msgspec.Struct):
    """How each token of the query meets each token of the document.

    `similarities` has a row for each token of the query; MaxSim is the `over_query` of the largest of each row.
    """

    model: str
    query_tokens: list[str]
    document_tokens: list[str]
    similarities: list[list[float]]
    score: float
    over_query: Literal["sum", "mean"]


async def tokens(service: Service, call: Call[TokensBody]) -> Any:
    """Answer with the tokens of vocabulary indices, or of a text."""
    body = call.body
    checkpoint = await service.checkpoint(call, None, "sparse")
    if body.ids is not None:
        return Tokens(checkpoint.spec.id, checkpoint.tokens(body.ids, body.text))
    return Tokens(checkpoint.spec.id, [*await asyncio.to_thread(_read, checkpoint, body.text, body.is_query)])


async def interaction(service: Service, call: Call[InteractionBody]) -> Any:
    """Answer with the similarities of all pairs of tokens."""
    query = await service.encode(call, None, [call.body.query], is_query=True, output_types=("multivector",))
    document = await service.encode(call, None, [call.body.document], output_types=("multivector",))
    assert query.multivector is not None and document.multivector is not None
    checkpoint = await service.checkpoint(call, None, "multivector")
    mean = getattr(checkpoint.spec.heads["multivector"], "mean_over_query", False)
    score = similarity(query.multivector[0], document.multivector, mean_over_query=mean)[0]
    return {
        "model": query.model,
        "query_tokens": _read(checkpoint, call.body.query, True),
        "document_tokens": _read(checkpoint, call.body.document, False),
        "similarities": np.ascontiguousarray(query.multivector[0] @ document.multivector[0].T),
        "score": score,
        "over_query": "mean" if mean else "sum",
    }


def _read(checkpoint: Checkpoint, text: str, is_query: bool) -> list[str]:
    """Return the tokens whose vectors a multivector keeps."""
    if "multivector" not in checkpoint.spec.outputs:
        raise UnsupportedOperationError(f"{checkpoint.spec.id} gives no multivectors, so no tokens stand for vectors")
    (sequence,) = checkpoint.encode([Item(text)], EncodeSettings(("multivector",), is_query))
    assert isinstance(sequence, TokenSequence)
    kept = sequence.input_ids if sequence.kept is None else sequence.input_ids[sequence.kept]
    return [token or "" for token in checkpoint.tokens(kept.tolist())]


def _static(path: str, name: str, summary: str) -> Endpoint:
    file = files("tercet_server").joinpath("page", name)
    media_type = _TYPES[name[name.rindex(".") :]]

    async def send(service: Service, call: Call[None]) -> Any:
        return Answer(file.read_bytes(), media_type=media_type, headers=_HEADERS)

    more: Any = {"modeled": False, "scope": "public", "answer_media_types": (media_type.partition(";")[0],)}
    return Endpoint("GET", path, send, native.DIALECT, summary, answers={200: str}, **more)


def _assets() -> Iterator[Endpoint]:
    for file in sorted(files("tercet_server").joinpath("page").iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".html"):
            yield _static(f"/page/{file.name}", file.name, "A part of the page")


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/tokens/{model}",
        tokens,
        native.DIALECT,
        "The tokens of vocabulary indices, or of a text",
        TokensBody,
        {200: Tokens},
    ),
    Endpoint(
        "POST",
        "/v1/interaction/{model}",
        interaction,
        native.DIALECT,
        "The similarities of the tokens of a query and a document",
        InteractionBody,
        {200: Interaction},
    ),
    _static("/", "index.html", "The status page"),
    *_assets(),
)
