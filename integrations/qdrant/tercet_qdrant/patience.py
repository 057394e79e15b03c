"""Waiting for a store that is away: bounded, then a clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from tercet.errors import TransportError
from tercet.patience import patiently

T = TypeVar("T")

_AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED")  # what gRPC says of a server that does not answer
_REFUSED = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "OUT_OF_RANGE")  # the request: its values, or its size
_REFUSED_STATUS = (400, 413, 422)


def while_away(call: Callable[[], T], patience_s: float) -> T:
    """Return what the call returns, made again for up to `patience_s` seconds while the store does not answer.

    What the store refuses is raised at once; only calls that may be made twice belong here.

    Raises:
        TransportError: the store has not answered for so long.
    """

    def away(error: BaseException) -> TransportError:
        return TransportError(
            f"Qdrant has not answered for {patience_s:g} s ({_told(error)}); what it had taken is stored. Run this "
            "again when it is back, and it goes on from there"
        )

    return patiently(call, patience_s, _pause_s, away)


def refusal(error: Exception) -> str | None:
    """Return why the store refuses a request as it is, None for any other failure."""
    if isinstance(error, UnexpectedResponse) and error.status_code in _REFUSED_STATUS:
        return _said(error)
    if _grpc_code(error) in _REFUSED:
        return _told(error)
    return None


def _pause_s(error: BaseException) -> float | None:
    """Return how long the store asks to wait, 0 where it does not say, None where trying again would not help."""
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    if isinstance(error, ResponseHandlingException):
        return None if isinstance(error.source, ValueError) else 0.0  # it has answered, in a form that is not Qdrant's
    if isinstance(error, UnexpectedResponse):
        return 0.0 if (error.status_code or 0) >= 500 or error.status_code == 429 else None
    return 0.0 if _grpc_code(error) in _AWAY else None


def _grpc_code(error: BaseException) -> str | None:
    code: Any = getattr(error, "code", None)
    return getattr(code(), "name", None) if callable(code) else None


def _said(error: UnexpectedResponse) -> str:
    try:
        return f"{error.status_code}, {error.structured()['status']['error']}"
    except (ValueError, KeyError, TypeError):  # a proxy's answer, not the store's
        return " ".join(str(error).split())


def _told(error: BaseException) -> str:
    source = error.source if isinstance(error, ResponseHandlingException) else error
    details: Any = getattr(source, "details", None)
    return f"{type(source).__name__}: {details() if callable(details) else source}"
