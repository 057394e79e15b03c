"""`create_app`: the server as one ASGI application, put together from tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

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
    app = Starlette(
        routes=[Mount("/", Gateway(service, Routes(endpoints()), native.DIALECT, told))],
        middleware=_middleware(settings),
        lifespan=lifespan,
    )
    app.state.service = service
    return app


def _middleware(settings: Settings) -> list[Middleware]:
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    ]
