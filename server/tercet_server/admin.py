"""What the operator does to models under way: load, unload, pin, and read the settings again."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from tercet.errors import ModelNotFoundError, OverloadedError
from tercet.types import ModelInfo
from tercet_server.dialects import native
from tercet_server.endpoint import Call, Endpoint
from tercet_server.service import Service

_RETRY_AFTER_S = 1.0


class PinBody(msgspec.Struct, forbid_unknown_fields=True):
    """Whether the model is to stay in memory."""

    pinned: bool = True


class State(msgspec.Struct):
    """What has become of a model."""

    model: str
    state: str
    pinned: bool
    size_bytes: int
    resident_bytes: int
    load_ms: float | None = None
    last_used_s: float | None = None
    error: str | None = None


class Reloaded(msgspec.Struct):
    """The models and aliases now, and the settings that changed but need a restart."""

    models: list[str]
    aliases: dict[str, str]
    restart: list[str]


async def state(service: Service, call: Call[None]) -> Any:
    """Answer with the model's state, without loading it."""
    model = service.resolve(call.model, "dense")
    info = service.info(model)
    return State(model, "available", False, 0, 0) if info is None else _state(info)


async def load(service: Service, call: Call[None]) -> Any:
    """Make the model resident, a failed one tried again; `wait=false` answers at once."""
    model = service.resolve(call.model, "dense")
    if not call.waits:
        service.load_soon(model)
        return await state(service, call)
    return _state(await service.load(model, call.left_s()))


async def unload(service: Service, call: Call[None]) -> Any:
    """Drop the model's weights, its pin and its failures."""
    model = service.resolve(call.model, "dense")
    if not await asyncio.to_thread(service.engine.unload, model):
        raise OverloadedError(f"{model} is in use; try again in a moment", retry_after_s=_RETRY_AFTER_S)
    return await state(service, call)


async def pin(service: Service, call: Call[PinBody]) -> Any:
    """Load the model and keep it in memory, or let it be swapped again."""
    model = service.resolve(call.model, "dense")
    if not call.body.pinned and service.info(model) is None:
        raise ModelNotFoundError(f"{model} has not been used yet, so there is no pin to take off")
    info = await asyncio.to_thread(service.engine.pin, model, call.body.pinned, timeout_s=call.left_s())
    return _state(info)


async def reload(service: Service, call: Call[None]) -> Any:
    """Read models, aliases, defaults, allow-list and API keys again."""
    restart = service.reload()
    return Reloaded(list(service.settings.models), dict(service.settings.aliases), restart)


def _state(info: ModelInfo) -> State:
    return State(
        info.id,
        info.state,
        info.pinned,
        info.size_bytes,
        info.resident_bytes,
        info.load_ms,
        info.last_used_s,
        info.error,
    )


def _of_model(method: Any, action: str, handler: Any, summary: str, **more: Any) -> Endpoint:
    path = f"/v1/models/{{model}}/{action}"
    return Endpoint(method, path, handler, native.DIALECT, summary, answers={200: State}, modeled=False, **more)


ENDPOINTS = (
    _of_model("GET", "load", state, "What has become of a model"),
    _of_model(
        "POST",
        "load",
        load,
        "Load a model",
        scope="admin",
        query={"wait": "false answers at once and loads in the background"},
    ),
    _of_model("POST", "unload", unload, "Drop a model's weights", scope="admin"),
    _of_model("POST", "pin", pin, "Keep a model in memory, or no longer", scope="admin", body=PinBody),
    Endpoint(
        "POST",
        "/v1/reload",
        reload,
        native.DIALECT,
        "Read the settings again",
        answers={200: Reloaded},
        modeled=False,
        scope="admin",
    ),
)
