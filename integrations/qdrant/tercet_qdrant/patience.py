"""Waiting for a store that is away: bounded, then a clear error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from tercet.errors import TransportError

T = TypeVar("T")

_FIRST_S, _LONGEST_S = 0.25, 5.0
_AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED")  # what gRPC says of a server that does not answer
_REFUSED = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "OUT_OF_RANGE")  # the request: its values, or its size
_REFUSED_STATUS = (400, 413, 422)


def patiently(call: Callable[[], T], wait_s: float) -> T:
    """Return what the call returns, made again for up to `wait_s` seconds while the store does not answer.

    What the store refuses is raised at once; only calls that may be made twice belong here.

    Raises:
        TransportError: the store has not answered for so long.
    """
    until = time.monotonic() + wait_s
    delay_s = _FIRST_S
    while True:
        try:
            return call()
        except Exception as error:
            pause_s = _pause_s(error, delay_s)
            if pause_s is None:
                raise
            if time.monotonic() + pause_s > until:
                raise TransportError(
                    f"Qdrant has not answered for {wait_s:g} s ({_told(error)}); what it had taken is stored. Run this "
                    "again when it is back, and it goes on from there"
                ) from error
        time.sleep(pause_s)
        delay_s = min(2 * delay_s, _LONGEST_S)


def refusal(error: Exception) -> str | None:
    """Return why the store refuses a request as it is, None for any other failure."""
    if isinstance(error, UnexpectedResponse) and error.status_code in _REFUSED_STATUS:
        return _said(error)
    if _grpc_code(error) in _REFUSED:
        return _told(error)
    return None


def _pause_s(error: Exception, delay_s: float) -> float | None:
    """Return how long to wait before trying again, or None where that would not help."""
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    if isinstance(error, ResponseHandlingException):
        unreadable = isinstance(error.source, ValueError)  # it has answered, in a form that is not Qdrant's
        return None if unreadable else delay_s
    if isinstance(error, UnexpectedResponse):
        return delay_s if (error.status_code or 0) >= 500 or error.status_code == 429 else None
    return delay_s if _grpc_code(error) in _AWAY else None


def _grpc_code(error: Exception) -> str | None:
    code: Any = getattr(error, "code", None)
    return getattr(code(), "name", None) if callable(code) else None


def _said(error: UnexpectedResponse) -> str:
    try:
        return f"{error.status_code}, {error.structured()['status']['error']}"
    except (ValueError, KeyError, TypeError):  # a proxy's answer, not the store's
        return " ".join(str(error).split())


def _told(error: Exception) -> str:
    source = error.source if isinstance(error, ResponseHandlingException) else error
    details: Any = getattr(source, "details", None)
    return f"{type(source).__name__}: {details() if callable(details) else source}"
