"""Whether the process lives (`/healthz`) and whether it should get traffic (`/readyz`)."""

from __future__ import annotations

from typing import Any

import msgspec

from tercet_server.dialects import native
from tercet_server.endpoint import Answer, Call, Endpoint
from tercet_server.service import Service


class Health(msgspec.Struct):
    """That the process answers."""

    status: str


class Ready(msgspec.Struct):
    """What the server is doing: starting, ready, draining or dead; and which models have not answered yet, and why."""

    status: str
    waiting: dict[str, str]


async def healthz(service: Service, call: Call[None]) -> Any:
    """Answer as long as the process lives."""
    return Health("ok")


async def readyz(service: Service, call: Call[None]) -> Any:
    """Answer 200 while the server should get traffic, else 503."""
    readiness = service.readiness
    ready = readiness.state == "ready"
    body = Ready(readiness.state, dict(readiness.waiting))
    return Answer(body, 200 if ready else 503, headers={} if ready else {"retry-after": "1"})


ENDPOINTS = (
    Endpoint(
        "GET",
        "/healthz",
        healthz,
        native.DIALECT,
        "The process lives",
        answers={200: Health},
        scope="public",
        modeled=False,
    ),
    Endpoint(
        "GET",
        "/readyz",
        readyz,
        native.DIALECT,
        "The server should get traffic: every preloaded model has passed a forward pass",
        answers={200: Ready, 503: Ready},
        scope="public",
        modeled=False,
    ),
)
