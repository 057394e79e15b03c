"""`Gateway`: every request's way through the server, the same for all endpoints.

Route, page's origin, API key, body within its limit, decoding, deadline, handler, answer or error in the dialect's own
words, headers. A caller that goes away takes its work with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from tercet.deadline import Deadline
from tercet.errors import AuthenticationError, MethodNotAllowedError, TercetError, TransportError
from tercet_server.auth import check_origin, key_in
from tercet_server.endpoint import Answer, Call, Dialect, Endpoint, Headers, request_id, request_timeout_s
from tercet_server.limits import read_body, retry_after
from tercet_server.routes import Match, Routes
from tercet_server.service import Service

log = logging.getLogger(__name__)

_NO_QUERY = QueryParams()
CLIENT_GONE = 499  # what proxies write into their logs for a caller that did not wait; never sent


@dataclass(slots=True)
class Exchange:
    """One request and what has become of it; observers get it when it is over.

    Attributes:
        endpoint: None as long as no route has matched.
        status: of the answer; `CLIENT_GONE` if nobody waited for it. error: why it failed.
        ready_at: when the answer's bytes were ready, by the monotonic clock; None if there were none.
    """

    request_id: str
    method: str
    path: str
    started_at: float
    headers: Headers
    endpoint: Endpoint | None = None
    call: Call[Any] | None = None
    status: int = 0
    error: TercetError | None = None
    sent_bytes: int = 0
    ready_at: float | None = None

    @property
    def total_ms(self) -> float:
        """Milliseconds since the request came."""
        return (time.monotonic() - self.started_at) * 1e3

    @property
    def serialize_ms(self) -> float | None:
        """Milliseconds from the engine's last answer to the bytes of ours; None where the engine had no part."""
        answers = [use.answered_at for use in self.call.uses if use.answered_at] if self.call else []
        return (self.ready_at - max(answers)) * 1e3 if answers and self.ready_at else None


Observe = Callable[[Exchange], None]


class Gateway:
    """The ASGI application behind all routes.

    Args:
        service: what handlers call.
        routes: the endpoints by path.
        unrouted: the dialect of errors where no route matches.
        observers: called with every `Exchange` once its answer is sent; quick, and without raising.
    """

    def __init__(self, service: Service, routes: Routes, unrouted: Dialect, observers: Sequence[Observe] = ()) -> None:
        self._service, self._routes, self._unrouted, self._observers = service, routes, unrouted, observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; there is nothing to say on a WebSocket."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        headers = _headers(scope)
        path = scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1") or scope["path"]
        fresh = request_id(headers, _fresh_id)
        exchange = Exchange(fresh, scope["method"], path, time.monotonic(), headers)
        try:
            answer = await self._answer(exchange, scope, receive)
        except TransportError as error:
            exchange.status, exchange.error = CLIENT_GONE, error
        else:
            exchange.status = answer.status
            await self._send(exchange, answer, send)
        for observe in self._observers:
            observe(exchange)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive) -> Answer:
        match: Match | None = None
        try:
            match = self._routes.match(exchange.path)
            exchange.endpoint = match.endpoint(exchange.method)
            call = exchange.call = await self._call(exchange, exchange.endpoint, match.model, scope, receive)
            return await _unless_gone(_answered(exchange.endpoint, self._service, call), receive)
        except TransportError:
            raise
        except TercetError as error:
            exchange.error = _without_frames(error)
        except Exception:
            log.exception("a request failed", extra={"fields": {"request_id": exchange.request_id}})
            exchange.error = TercetError(f"the server failed; its log says why under {exchange.request_id}")
        dialect = exchange.endpoint.dialect if exchange.endpoint else match.any.dialect if match else self._unrouted
        return failure(dialect.spoken(exchange.headers), exchange.error, match)

    async def _call(
        self, exchange: Exchange, endpoint: Endpoint, model: str | None, scope: Scope, receive: Receive
    ) -> Call[Any]:
        """Return the request as its handler wants it, everything about it checked."""
        service, headers = self._service, exchange.headers
        if exchange.method == "POST":
            check_origin(headers, service.settings.cors_origins)
        if endpoint.key_of is None:
            service.keys.check(key_in(headers), endpoint.scope)
        deadline = Deadline.after(request_timeout_s(headers, service.settings.timeout_s))
        body = None
        if endpoint.body is not None:
            body = endpoint.decoded(await self._body(receive, headers, deadline), headers)
        if endpoint.key_of is not None:
            service.keys.check(key_in(headers) or endpoint.key_of(body), endpoint.scope)
        query = QueryParams(said) if (said := scope.get("query_string")) else _NO_QUERY
        return Call(endpoint, exchange.request_id, headers, query, model, body, deadline)

    async def _body(self, receive: Receive, headers: Headers, deadline: Deadline) -> bytes:
        try:
            async with asyncio.timeout(deadline.left_s()):
                return await read_body(receive, headers, self._service.settings.body_limit)
        except TimeoutError:
            raise deadline.error("while the body was on its way") from None

    async def _send(self, exchange: Exchange, answer: Answer, send: Send) -> None:
        content = answer.content()
        exchange.sent_bytes, exchange.ready_at = len(content), time.monotonic()
        headers = {
            "content-type": answer.media_type,
            "content-length": str(len(content)),
            "x-request-id": exchange.request_id,
            **_phases(exchange),
            **answer.headers,
        }
        if self._service.readiness.closing:
            headers["connection"] = "close"
        if answer.status in (204, 304):
            del headers["content-type"], headers["content-length"]
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if exchange.method == "HEAD" else content})


def _headers(scope: Scope) -> Headers:
    """Return the first header of each name."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def _fresh_id() -> str:
    return f"{random.getrandbits(128):032x}"


def failure(dialect: Dialect, error: TercetError, match: Match | None = None) -> Answer:
    """Return the error as the dialect's clients expect it, with what HTTP asks for beside it."""
    status, body = dialect.error(error)
    headers = retry_after(error) if status in (429, 503) or error.retryable else {}
    if isinstance(error, AuthenticationError):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowedError) and match is not None:
        headers["allow"] = ", ".join(match.allowed)
    if status == 413:
        headers["connection"] = "close"  # the rest of the body is not worth reading
    return Answer(body, status, headers=headers)


async def _unless_gone(work: Awaitable[Answer], receive: Receive) -> Answer:
    """Await the work, cancelled as soon as the caller goes away.

    Raises:
        TransportError: the caller went away.
    """
    task = asyncio.current_task()
    assert task is not None
    watch = asyncio.create_task(_gone(receive, task))
    try:
        return await work
    except asyncio.CancelledError:
        if watch.done() and not watch.cancelled() and task.uncancel() == 0:
            raise TransportError("the caller went away before the answer was ready") from None
        raise
    finally:
        watch.cancel()


async def _gone(receive: Receive, task: asyncio.Task[Any]) -> None:
    """Cancel the task once the caller goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


def _without_frames(error: TercetError) -> TercetError:
    """Return the error without the frames that it and its causes have passed.

    They lead back to the exchange that will hold it: a circle, in which the request's body would stay until the
    collector comes round.
    """
    link: BaseException | None = error
    while link is not None:
        link = link.with_traceback(None).__context__
    return error


async def _answered(endpoint: Endpoint, service: Service, call: Call[Any]) -> Answer:
    """Return the handler's answer in bytes, a large one written on another thread."""
    given = await endpoint.handler(service, call)
    answer = given if isinstance(given, Answer) else Answer(given)
    content = await asyncio.to_thread(answer.content, large=True) if call.is_large else answer.content()
    return Answer(content, answer.status, answer.media_type, answer.headers)


def _phases(exchange: Exchange) -> dict[str, str]:
    headers = {"x-total-ms": f"{exchange.total_ms:.2f}"}
    timings = exchange.call.timings if exchange.call else None
    if timings is not None:
        headers["x-queue-ms"] = f"{timings.queue_ms:.2f}"
        headers["x-tokenization-ms"] = f"{timings.tokenization_ms:.2f}"
        headers["x-inference-ms"] = f"{timings.inference_ms:.2f}"
    return headers
