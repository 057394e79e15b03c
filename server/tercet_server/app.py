"""`create_app`: the server as one ASGI application, put together from tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from tercet.engine.engine import Engine
from tercet_server import admin, health, openapi, playground, status
from tercet_server.dialects import DIALECTS, native
from tercet_server.endpoint import Endpoint
from tercet_server.gateway import Gateway, Observe
from tercet_server.routes import Routes
from tercet_server.service import Service
from tercet_server.settings import Settings

_EXPOSED = ("X-Request-Id", "X-Queue-Ms", "X-Tokenization-Ms", "X-Inference-Ms", "X-Total-Ms", "Retry-After")


def endpoints() -> tuple[Endpoint, ...]:
    """Return every endpoint of the server."""
    tables = (health, status, admin, *DIALECTS, playground)
    documented = tuple(endpoint for table in tables for endpoint in table.ENDPOINTS)
    return (*documented, *openapi.endpoints(documented))


def create_app(
    engine: Engine,
    settings: Settings,
    *,
    reread: Callable[[], Settings] | None = None,
    observers: Sequence[Observe] = (),
) -> Starlette:
    """Return the application; the engine stays the caller's, and several applications may share one.

    Args:
        engine: runs the models.
        settings: of which host, port and the like are the listening server's business.
        reread: returns the settings as their sources are now, for reloads.
        observers: called with every finished `Exchange`, for metrics and logs.

    Raises:
        InvalidInputError: the file of API keys is wrong.
    """
    service = Service(engine, settings, reread)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        engine.observers.add(service.metrics.on_event)
        service.readiness.begin(settings.models)
        yield
        await service.readiness.end()
        engine.observers.remove(service.metrics.on_event)

    told = (service.metrics.on_exchange, *observers)
    gateway = Gateway(service, Routes(endpoints()), native.DIALECT, told)
    app = _App(_for_pages(gateway, settings), lifespan)
    app.state.service = service
    return app


class _App(Starlette):
    """Starlette begins and ends it; requests pass its layers by, which know nothing that the gateway does not."""

    def __init__(self, gateway: ASGIApp, lifespan: Lifespan[Starlette]) -> None:
        super().__init__(lifespan=lifespan)
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (super().__call__ if scope["type"] == "lifespan" else self._gateway)(scope, receive, send)


def _for_pages(gateway: ASGIApp, settings: Settings) -> ASGIApp:
    """Return the gateway as pages of the origins in the settings may use it."""
    if not settings.cors_origins:
        return gateway
    return CORSMiddleware(
        gateway,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=_EXPOSED,
    )
