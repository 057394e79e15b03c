"""`POST /rerank`, where three dialects meet; the keys of the body tell whose it is.

| keys                     | dialect                                                  |
|--------------------------|----------------------------------------------------------|
| `texts`                  | Text Embeddings Inference                                |
| `documents` and `model`  | Jina, as other servers answer it without `/v1` in front  |
| `documents` without one  | Weaviate's reranker-transformers                         |

Errors are written as TEI does: Weaviate reads the same `error`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tercet.errors import InvalidInputError
from tercet_server.dialects import jina, tei, weaviate
from tercet_server.endpoint import Call, Endpoint
from tercet_server.service import Service


class RerankBody(msgspec.Struct):
    """The keys of all three; see the struct of each dialect for what they mean."""

    query: str
    texts: list[str] | UnsetType = UNSET
    documents: list[str | dict[str, Any]] | UnsetType | None = UNSET
    model: str | UnsetType = UNSET
    property: str | UnsetType | None = UNSET
    raw_scores: bool | UnsetType = UNSET
    return_text: bool | UnsetType = UNSET
    truncate: bool | UnsetType | None = UNSET
    truncation_direction: tei.Direction | UnsetType = UNSET
    top_n: int | UnsetType | None = UNSET
    return_documents: bool | UnsetType = UNSET
    rank_fields: list[str] | UnsetType | None = UNSET


async def rerank(service: Service, call: Call[Any]) -> Any:
    """Answer as the dialect does whose keys the body has."""
    body: RerankBody = call.body
    dialect: Any = weaviate if body.model is UNSET else jina
    if body.texts is not UNSET:
        dialect = tei
    elif body.documents is UNSET:
        raise InvalidInputError(
            "the body has neither `texts` nor `documents`; send what is to be ranked in one of them"
        )
    given = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
    try:
        call.body = msgspec.convert(given, dialect.RerankBody)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"the body does not fit: {error}") from None
    return await dialect.rerank(service, call)


_ANSWERS = {200: list[tei.Rank] | dict[str, Any], 400: tei.ErrorBody}

ENDPOINTS = (Endpoint("POST", "/rerank", rerank, tei.DIALECT, "Rank texts", RerankBody, _ANSWERS),)
