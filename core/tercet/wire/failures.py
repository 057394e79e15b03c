"""Errors: to the document of an answer, and back to the same class with the same message."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from tercet.errors import AuthenticationError, ForbiddenError, OverloadedError, TercetError, TransportError

_EXCERPT = 200  # characters of a stranger's answer that a message quotes


def error_document(error: TercetError, code: str | None = None) -> dict[str, Any]:
    """Return the error as the native interface tells it, by its own code or another one."""
    told: dict[str, Any] = {"code": code or error.code, "message": error.message}
    if error.retry_after_s is not None:
        told["retry_after_s"] = error.retry_after_s
    return {"error": told}


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> TercetError:
    """Return the error that an answer tells; an answer that is none of Tercet's own becomes a TransportError.

    Args:
        status: other than 200.
        headers: with names in lower case or of any mapping that ignores it; `Retry-After` fills in for the body.
        body: JSON as of `error_document`, or anything.
    """
    retry_after_s = _seconds(headers.get("retry-after"))
    if status == 202:
        return OverloadedError("the server has accepted the request and is not ready yet", retry_after_s=retry_after_s)
    told = _told(body)
    kind = _KINDS.get(told.get("code", ""))
    if kind is not None and isinstance(told.get("message"), str):
        exact = told.get("retry_after_s")
        return kind(told["message"], retry_after_s=exact if isinstance(exact, int | float) else retry_after_s)
    words = " ".join(body.decode("utf-8", "replace").split())[:_EXCERPT] or "nothing more"
    message = f"the server answered {status}: {words}"
    return _FOREIGN.get(status, TransportError)(message, retry_after_s=retry_after_s)


_TREE: list[type[TercetError]] = [TercetError, *TercetError.__subclasses__()]
_KINDS = {kind.code: kind for kind in _TREE}
# What a proxy in front of the server may say for itself.
_FOREIGN: Mapping[int, type[TercetError]] = {401: AuthenticationError, 403: ForbiddenError, 429: OverloadedError}


def _told(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return told if isinstance(told, dict) and isinstance(told.get("code"), str) else {}


def _seconds(header: str | None) -> float | None:
    """Return `Retry-After` in seconds, None for none or a date."""
    try:
        seconds = float(header) if header is not None else -1.0
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
