"""Every exception that Tercet raises, in process and over HTTP alike.

TercetError
├ InvalidInputError          the caller's values are wrong
├ UnsupportedOperationError  the model cannot do what was asked
├ AuthenticationError        no key, or not a known one
├ ForbiddenError             the key, or the calling page, may not do this
├ RouteNotFoundError         the server has no such address
├ MethodNotAllowedError      the address is there, for other methods
├ RequestTooLargeError       the body is larger than the server takes
├ ModelNotFoundError         no such model can be found or may be used
├ ModelMismatchError         stored vectors are another model's
├ UnsupportedModelError      found, but Tercet cannot run it
├ CheckpointError            its files are damaged or contradict each other
├ ModelLoadingError          it is being loaded; try again after `retry_after_s`
├ ModelLoadError             it could not be loaded this time
├ OverloadedError            the queue is full; try again after `retry_after_s`
├ EngineClosedError          the engine is shutting down
├ DeadlineExceededError      the caller's `timeout_s` ran out
├ OutOfMemoryError           one item alone does not fit into memory
└ TransportError             the server could not be reached (client only)
"""

from __future__ import annotations

import copy
from typing import ClassVar

_LONGEST = 2_000  # characters of a message


class TercetError(Exception):
    """Root of the tree; catch it to catch everything Tercet raises on purpose.

    Each class carries what HTTP needs: `status`, the stable `code`, and whether the same call may succeed later.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.message = _cut(message)
        super().__init__(self.message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.retry_after_s)


def _cut(message: str) -> str:
    """Return the message without its middle if it quotes something that nobody wants to read in whole."""
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST // 2]} … {message[-_LONGEST // 3 :]}"


def _rebuild(kind: type[TercetError], message: str, retry_after_s: float | None) -> TercetError:
    return kind(message, retry_after_s=retry_after_s)


def reraisable(error: BaseException) -> Exception:
    """Return a copy of an error that several callers get, the original as its cause: each raises its own object."""
    own = copy.copy(error) if isinstance(error, TercetError) else TercetError(f"{type(error).__name__}: {error}")
    own.__cause__ = error
    return own


class InvalidInputError(TercetError):
    """The caller's values are wrong: a type, a range, an unknown option."""

    status, code = 400, "invalid_input"


class UnsupportedOperationError(TercetError):
    """The model exists but has no such output or operation."""

    status, code = 400, "unsupported_operation"


class AuthenticationError(TercetError):
    """The API key is missing or unknown."""

    status, code = 401, "unauthenticated"


class ForbiddenError(TercetError):
    """The API key has not the scope that this needs, or the web page that calls is not one that may."""

    status, code = 403, "forbidden"


class RouteNotFoundError(TercetError):
    """The server has no such address."""

    status, code = 404, "route_not_found"


class MethodNotAllowedError(TercetError):
    """The address takes other methods than the one used."""

    status, code = 405, "method_not_allowed"


class RequestTooLargeError(TercetError):
    """The request's body is larger than the server takes; send it in parts."""

    status, code = 413, "request_too_large"


class ModelNotFoundError(TercetError):
    """No directory, installed package, cache entry or hub repository holds this model."""

    status, code = 404, "model_not_found"


class ModelMismatchError(TercetError):
    """Stored vectors were made by another model, or in another way, and cannot be compared with those made now."""

    status, code = 409, "model_mismatch"


class UnsupportedModelError(TercetError):
    """The checkpoint was found, but Tercet cannot run what it describes."""

    status, code = 422, "unsupported_model"


class CheckpointError(TercetError):
    """The checkpoint's files are damaged, incomplete or contradict each other."""

    status, code = 500, "bad_checkpoint"


class ModelLoadingError(TercetError):
    """The model is being loaded and the caller does not wait for it; `retry_after_s` says when to come back."""

    status, code, retryable = 503, "model_loading", True


class ModelLoadError(TercetError):
    """The model could not be loaded this time (download, disk, memory); it may be tried again after a cooldown."""

    status, code, retryable = 503, "model_load_failed", True


class OverloadedError(TercetError):
    """The queue holds as many tokens as it may; `retry_after_s` estimates when there is room."""

    status, code, retryable = 429, "overloaded", True


class EngineClosedError(TercetError):
    """The engine was closed, or is draining before it closes."""

    status, code, retryable = 503, "shutting_down", True

    def __init__(
        self, message: str = "the engine is closed; make a new Engine", *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class DeadlineExceededError(TercetError):
    """The call's `timeout_s` ran out before its result was complete."""

    status, code, retryable = 504, "deadline_exceeded", True


class OutOfMemoryError(TercetError):
    """A single item does not fit into the device's memory, however the batch is split."""

    status, code = 507, "out_of_memory"


class TransportError(TercetError):
    """The server could not be reached, or the connection broke (raised by the client only)."""

    status, code, retryable = 0, "transport", True
