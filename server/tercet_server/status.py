"""What the server is doing: `/metrics` for Prometheus, `/v1/status` for the page and for people."""

from __future__ import annotations

from typing import Any

import msgspec

from tercet.version import __version__
from tercet_server.dialects import native
from tercet_server.endpoint import Answer, Call, Endpoint
from tercet_server.service import Service


class ModelStatus(msgspec.Struct):
    """A model and what has become of it; `queued_tokens` wait for it, `error` says why its last load failed."""

    id: str
    state: str
    pinned: bool
    outputs: list[str]
    scoring: list[str]
    size_bytes: int
    resident_bytes: int
    queued_tokens: int
    loads: int
    evictions: int
    aliases: list[str]
    load_ms: float | None = None
    last_used_s: float | None = None
    error: str | None = None


class Queue(msgspec.Struct):
    """What waits for a batch."""

    tokens: int
    limit_tokens: int
    oldest_s: float


class Memory(msgspec.Struct):
    """The bytes that weights take and may take."""

    used_bytes: int
    budget_bytes: int


class Totals(msgspec.Struct):
    """What was done since the start: requests that asked a model, failures with a status of 500 and more."""

    requests: int
    failures: int
    tokens: int


class Status(msgspec.Struct):
    """The server at one moment."""

    version: str
    state: str
    device: str
    precision: str
    queue: Queue
    memory: Memory
    totals: Totals
    models: list[ModelStatus]


async def metrics(service: Service, call: Call[None]) -> Any:
    """Answer with every metric, in the format that the caller prefers."""
    body, media_type = service.metrics.rendered(call.headers.get("accept", ""))
    return Answer(body, media_type=media_type)


async def status(service: Service, call: Call[None]) -> Any:
    """Answer with the queue, the memory, the totals and the models."""
    engine, done, now = service.engine, service.metrics, service.engine.state()
    return Status(
        version=__version__,
        state=service.readiness.state,
        device=str(engine.device.target),
        precision=engine.device.precision,
        queue=Queue(now.queued_tokens, now.max_queue_tokens, now.oldest_s),
        memory=Memory(now.used_bytes, now.budget_bytes),
        totals=Totals(done.requests, done.failures, done.tokens),
        models=_models(service),
    )


def _models(service: Service) -> list[ModelStatus]:
    """Return the models that are open and those of the settings that are not yet, always in the same order."""
    settings, waiting = service.settings, service.engine.state().waiting
    names: dict[str, list[str]] = {}
    for alias, model in settings.aliases.items():
        names.setdefault(model, []).append(alias)
    opened = [
        ModelStatus(
            info.id,
            info.state,
            info.pinned,
            list(info.outputs),
            list(info.scoring),
            info.size_bytes,
            info.resident_bytes,
            waiting[info.id].tokens if info.id in waiting else 0,
            info.loads,
            info.evictions,
            names.get(info.id, []),
            info.load_ms,
            info.last_used_s,
            info.error,
        )
        for info in service.engine.models()
    ]
    known = {model.id for model in opened}
    listed = list(dict.fromkeys([*settings.models, *settings.aliases.values(), *settings.defaults.values()]))
    unopened = [
        ModelStatus(model, "available", False, [], [], 0, 0, 0, 0, 0, names.get(model, []))
        for model in listed
        if model not in known
    ]
    place = {model: i for i, model in enumerate(listed)}
    return sorted(opened + unopened, key=lambda model: (place.get(model.id, len(place)), model.id))


ENDPOINTS = (
    Endpoint(
        "GET",
        "/metrics",
        metrics,
        native.DIALECT,
        "Metrics for Prometheus",
        answers={200: str},
        modeled=False,
        answer_media_types=("text/plain",),
    ),
    Endpoint(
        "GET", "/v1/status", status, native.DIALECT, "What the server is doing", answers={200: Status}, modeled=False
    ),
)
