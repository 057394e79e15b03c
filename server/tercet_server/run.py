"""`serve`: the server as a process: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette

from tercet.engine.engine import Engine
from tercet.errors import TercetError
from tercet_server import logs
from tercet_server.app import create_app
from tercet_server.gateway import Observe
from tercet_server.service import Service
from tercet_server.settings import Settings, Sources

log = logging.getLogger(__name__)

# Between the first sign of stopping and the closed door, for load balancers to see it; and once more between the closed
# door and the closed connections, for callers to learn by `Connection: close` to send no more.
_NOTICE_S = 0.5
# How long an answer that says "closed" may take to reach its caller.
_FAREWELL_S = 2.0
_BACKLOG = 2048
_TURN_S = 0.0005
_YOUNG_OBJECTS = 10_000  # made and not dropped since the last look for garbage, before the next one


def serve(sources: Sources) -> int:
    """Serve until told to stop; return the exit status.

    SIGTERM and SIGINT stop after the requests under way, at most `drain_s` seconds; a second one stops at once. SIGHUP
    reads the settings again.

    Raises:
        InvalidInputError: a setting is wrong.
        TercetError: the port cannot be listened on.
    """
    settings = sources.read()
    logs.configure(settings.log_level, settings.log_format)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with listening(settings) as listener:
        allowed = Downloads(settings)
        with open_engine(settings, allowed) as engine, observing(settings) as observers:
            app = create_app(engine, settings, reread=sources.read, observers=observers)
            allowed.service = app.state.service
            suit_interpreter()
            Server(server_config(app, settings), app.state.service, settings).run([listener])
    return 0


def suit_interpreter() -> None:
    """Set what Python does beside the program: it looks for garbage less often, and threads take turns more often.

    What is there by now is left out of its looks, as it stays until the process ends: a full one would go through
    200,000 objects of libraries, 90 to 100 ms in which nothing else goes on. Models come later. What requests leave is
    hardly ever garbage of this kind, and Python's own intervals took a sixteenth of the event loop's time.

    A worker that has computed a batch waits for the interpreter's lock, and with it all cores, for as long as the event
    loop may keep it: 5 ms of a batch's 40, by Python's own setting.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
    sys.setswitchinterval(_TURN_S)


class Downloads:
    """Which models may be fetched from the hub, by the settings as they are just then."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.service: Service | None = None

    def __call__(self, model: str) -> bool:
        """Whether this model may."""
        return (self.service.settings if self.service else self._settings).may_download(model)


@contextmanager
def observing(settings: Settings) -> Iterator[list[Observe]]:
    """Yield what is told of each request: the log and, if the settings say so, traces, sent off at the end.

    Raises:
        TercetError: OpenTelemetry is not installed.
    """
    if settings.traces is None:
        yield [logs.log_exchange]
        return
    try:
        from tercet_server.tracing import Traces, open_provider  # an extra of its own
    except ModuleNotFoundError:
        raise TercetError("traces need OpenTelemetry: pip install 'tercet[otel]'") from None
    provider = open_provider(settings.traces)
    try:
        yield [logs.log_exchange, Traces(provider).on_exchange]
    finally:
        provider.shutdown()


def open_engine(settings: Settings, allow_download: Callable[[str], bool]) -> Engine:
    """Return the engine that the settings describe.

    Raises:
        InvalidInputError: the device, the precision or the budget is not one that is here.
    """
    return Engine(
        settings.device,
        settings.precision,
        settings.memory_budget,
        allow_download=allow_download,
        cache_dir=settings.cache_dir,
        max_queue_tokens=settings.max_queue_tokens,
        idle_ttl_s=settings.idle_ttl_s,
    )


def server_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn serves the application."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=math.ceil(settings.drain_s + _FAREWELL_S),
        backlog=_BACKLOG,
    )


def listening(settings: Settings) -> socket.socket:
    """Return a socket that is bound to the settings' host and port.

    Raises:
        TercetError: the port is in use, or not ours to take, or the host is unknown; the message says what to do.
    """
    place = f"{settings.host}:{settings.port}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with ExitStack() as unless_bound:
            listener = unless_bound.enter_context(socket.socket(family, kind))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            unless_bound.pop_all()
            return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise TercetError(f"{place} is in use; stop what listens there or choose another --port") from None
        raise TercetError(f"cannot listen on {place}: {error.strerror}; choose another --host or --port") from None


class Server(uvicorn.Server):
    """uvicorn with our way of stopping."""

    def __init__(self, config: uvicorn.Config, service: Service, settings: Settings) -> None:
        super().__init__(config)
        self._service, self._settings = service, settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, say where, and take SIGHUP as the wish to reload."""
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        log.info("listening on http://%s:%d", shown, port)
        if not self._service.keys and host not in ("127.0.0.1", "::1"):
            log.warning("no API keys are set: whoever reaches %s may use and manage the models", shown)
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after the requests under way; the second time, stop at once."""
        if self.should_exit:
            log.warning("stopping at once")
            logging.shutdown()
            os._exit(128 + sig)
        log.info("stopping: requests under way have %g s; a second signal stops at once", self._settings.drain_s)
        self._service.readiness.drain()
        self.should_exit = True
        # What is not done by then is answered with 503, instead of being cut off.
        closer = threading.Timer(self._settings.drain_s, self._service.engine.close, [0.0])
        closer.daemon = True
        closer.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give notice, close the door behind the last who came, and wait for the answers under way."""
        pause_s = min(_NOTICE_S, self._settings.drain_s / 2)
        await asyncio.sleep(pause_s)
        late = [connection for listener in sockets or [] for connection in _waiting(listener)]
        for server in self.servers:
            server.close()
        self._service.readiness.close()
        loop = asyncio.get_running_loop()
        for connection in late:
            await loop.connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(pause_s)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def _reload(self) -> None:
        try:
            stale = self._service.reload()
        except TercetError as error:
            log.error("nothing was reloaded: %s", error.message)
        else:
            log.info("settings reloaded%s", f"; these need a restart: {', '.join(stale)}" if stale else "")


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections that are made but not taken in yet; a closed listener would reset them."""
    listener.setblocking(False)
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        yield connection
