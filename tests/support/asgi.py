"""An application called from threads, without a socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.applications import Starlette


class AsgiTransport(httpx.BaseTransport):
    """`httpx.ASGITransport` for synchronous clients: the application runs on another thread's event loop."""

    def __init__(self, app: Starlette, portal: BlockingPortal) -> None:
        self._asgi, self._portal = httpx.ASGITransport(app=app), portal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the application's answer, whole; its timeout is kept, as a socket would keep it."""
        return self._portal.call(self._answer, request, request.read())

    async def _answer(self, request: httpx.Request, body: bytes) -> httpx.Response:
        own = httpx.Request(request.method, request.url, headers=request.headers, content=body)
        try:
            with anyio.fail_after(request.extensions["timeout"]["read"]):
                answer = await self._asgi.handle_async_request(own)
                return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())
        except TimeoutError:
            raise httpx.ReadTimeout("no answer in time", request=request) from None


@contextmanager
def running(app: Starlette) -> Iterator[BlockingPortal]:
    """Yield the way into the event loop on which the application has started."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(app.router.lifespan_context(app)):
        yield portal


class Blocking:
    """A client with coroutines for methods, called from threads."""

    def __init__(self, client: Any, portal: BlockingPortal) -> None:
        self._client, self._portal = client, portal

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **keywords: self._portal.call(partial(method, *args, **keywords))
