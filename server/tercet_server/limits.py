"""Limits of a request: how large its body may be, and what a refusal tells the caller about coming back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tercet.errors import InvalidInputError, RequestTooLargeError, TercetError, TransportError
from tercet_server.endpoint import Headers

Message = Mapping[str, Any]


async def read_body(receive: Any, headers: Headers, limit_bytes: int) -> bytes:
    """Return the whole body; nothing is read when its declared length is already too much.

    Raises:
        RequestTooLargeError: more than `limit_bytes`, declared or sent.
        InvalidInputError: compressed.
        TransportError: the caller went away before it was complete.
    """
    _refuse_compressed(headers)
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise TransportError("the caller went away before the request was complete")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def retry_after(error: TercetError) -> dict[str, str]:
    """Return the `Retry-After` header, in whole seconds, for an error that says to come back; else nothing."""
    if error.status not in (429, 503) and error.retry_after_s is None:
        return {}
    return {"retry-after": str(max(1, math.ceil(error.retry_after_s or 1.0)))}


def _refuse_compressed(headers: Headers) -> None:
    encoding = headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise InvalidInputError(f"Content-Encoding {encoding!r} is not supported; send the body uncompressed")


def _too_large(limit_bytes: int) -> RequestTooLargeError:
    return RequestTooLargeError(
        f"the body is larger than {limit_bytes:,} bytes; send it in parts, or raise the server's max_body_bytes"
    )
