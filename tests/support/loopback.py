"""Any ASGI application on a loopback socket of this process, for clients that want a URL."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

_START_S = 60


class _Threaded(uvicorn.Server):
    """A server that says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def loopback(app: ASGIApp) -> Iterator[str]:
    """Yield the URL of the application, served on a thread of its own until the end."""
    server = _Threaded(uvicorn.Config(app, ws="none", log_config=None, lifespan="on", timeout_graceful_shutdown=5))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=[[listener]], daemon=True)
        thread.start()
        assert server.listening.wait(_START_S)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(_START_S)
            assert not thread.is_alive()
