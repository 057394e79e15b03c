"""One request and its retries, as a generator of steps: whoever drives it sends, pauses, and hands in what came."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import httpx

from tercet.deadline import Deadline
from tercet.errors import (
    EngineClosedError,
    InvalidInputError,
    ModelLoadingError,
    OverloadedError,
    TercetError,
    TransportError,
)
from tercet.wire import ARROW, JSON
from tercet.wire.failures import read_error

T = TypeVar("T")

_CONNECT_S = 10.0
_PATIENCE_S = 3600.0  # for one request of a caller without a deadline
_GRACE_S = 2.0  # between the deadline that the server is told and the end of the wait for its answer
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 20.0
_CAPACITY = (OverloadedError, ModelLoadingError, EngineClosedError)
_PASSING = (502, 503, 504)  # statuses by which a proxy says that it is not the request's fault


@dataclass(frozen=True, slots=True)
class Send:
    """A request to send; what comes of it is a `Reply`, or a `TransportError` where none came."""

    method: str
    path: str
    body: bytes | None
    headers: Mapping[str, str]
    timeout_s: float

    def keywords(self, url: str) -> dict[str, Any]:
        """Return the arguments of httpx's `request`."""
        return {
            "method": self.method,
            "url": url + self.path,
            "content": self.body,
            "headers": dict(self.headers),
            "timeout": httpx.Timeout(self.timeout_s, connect=min(_CONNECT_S, self.timeout_s)),
        }


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing to do for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Steps = Generator[Send | Pause, Reply | TransportError | None, T]


@dataclass(frozen=True, slots=True)
class Retries:
    """When a failed request is sent again.

    Attributes:
        limit: how often at most; `wait_for_capacity` lifts it for a server that is busy, loading or restarting.
    """

    limit: int = 3
    wait_for_capacity: bool = False

    def pause_s(self, failure: TercetError, attempt: int, left_s: float | None) -> float | None:
        """Return how long to wait before the next attempt, None if there is to be none.

        The server's `Retry-After` is never cut short, and what is random on top of it spreads callers that were refused
        together.
        """
        waits = self.wait_for_capacity and isinstance(failure, _CAPACITY)
        if not isinstance(failure, (*_CAPACITY, TransportError)) or (attempt >= self.limit and not waits):
            return None
        own = min(_FIRST_PAUSE_S * 2.0 ** min(attempt, 16), _LONGEST_PAUSE_S)
        told = failure.retry_after_s
        pause = (
            random.uniform(own / 2, own) if told is None else told + random.uniform(0, max(_FIRST_PAUSE_S, told) / 4)
        )
        return pause if left_s is None or pause < left_s else None


@dataclass(frozen=True, slots=True)
class Wire:
    """How to talk to a server: what goes along with each request, and what comes back.

    Attributes:
        headers: of every request. retries: of every request.
        answers: the media type of results.
    """

    headers: Mapping[str, str]
    retries: Retries
    answers: str = ARROW


def exchange(
    wire: Wire,
    method: str,
    path: str,
    read: Callable[[bytes], T],
    deadline: Deadline,
    *,
    body: tuple[str, bytes] | None = None,
    accept: str = JSON,
) -> Steps[T]:
    """Send a request until it is answered, and return what the answer holds.

    Args:
        wire: how.
        method: GET or POST; every request of Tercet's may be sent twice without harm.
        path: after the server's address.
        read: from the body of a success; it raises InvalidInputError.
        deadline: of all attempts together, told to the server with each.
        body: its media type and bytes.
        accept: the media type to answer in.

    Raises:
        TercetError: the server's own error, a TransportError, or DeadlineExceededError.
    """
    for attempt in count():
        left_s = deadline.left_s()
        if left_s == 0:
            raise deadline.error("before the server could be asked")
        came = yield _send(wire, method, path, body, accept, left_s)
        assert came is not None
        if isinstance(came, Reply) and came.status == 200:
            return _read(came, read)
        failure = came if isinstance(came, TransportError) else _failure(came)
        if isinstance(came, TransportError) and deadline.left_s() == 0:
            raise deadline.error("before the server answered") from came
        pause_s = wire.retries.pause_s(failure, attempt, deadline.left_s())
        if pause_s is None:
            raise failure
        yield Pause(pause_s)
    raise AssertionError("attempts are counted without end")


def transport_error(url: str, error: httpx.HTTPError | httpx.InvalidURL) -> TransportError:
    """Return the error for a request that got no answer, httpx's own as its cause."""
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    own = TransportError(f"{url} could not be reached or broke off ({said}); is the server running there?")
    own.__cause__ = error
    return own


def _send(
    wire: Wire, method: str, path: str, body: tuple[str, bytes] | None, accept: str, left_s: float | None
) -> Send:
    allowed_s = _PATIENCE_S if left_s is None else left_s
    headers = {**wire.headers, "accept": accept, "x-request-timeout-ms": str(math.ceil(allowed_s * 1e3))}
    if body is not None:
        headers["content-type"] = body[0]
    return Send(method, path, None if body is None else body[1], headers, allowed_s + _GRACE_S)


def _failure(reply: Reply) -> TercetError:
    """Return the error that a reply tells.

    Raises:
        TransportError: it is none of Tercet's, and will be the same next time.
    """
    failure = read_error(reply.status, reply.headers, reply.body)
    if isinstance(failure, TransportError) and reply.status not in _PASSING:
        raise failure
    return failure


def _read(reply: Reply, read: Callable[[bytes], T]) -> T:
    try:
        return read(reply.body)
    except InvalidInputError as error:
        raise TransportError(f"the server's answer is not what was asked for: {error.message}") from error
