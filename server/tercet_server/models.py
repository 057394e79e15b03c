"""Models as the server lists them: under the names that requests use, those not opened yet among them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tercet.types import ModelInfo
from tercet.wire.models import model_document
from tercet_server.endpoint import Call
from tercet_server.service import Service

Document = dict[str, Any]


def listed(service: Service) -> list[Document]:
    """Return the models that may be used and are known by name: the most recently used first, then those not opened."""
    settings = service.settings
    known = [info for info in service.engine.models() if settings.may_use(info.id)]
    opened = {info.id for info in known}
    rest = sorted(name for name in settings.named - opened if not any(sign in name for sign in "*?["))
    return [_document(service, info) for info in (*known, *map(_unopened, rest))]


async def describe(service: Service, call: Call[Any]) -> Document:
    """Return what is known of the model that a call names, under the name that it uses.

    Raises:
        TercetError: there is no such model, or it cannot be run.
    """
    model = service.resolve(call.model)
    if (info := service.info(model)) is None:
        await service.checkpoint(call, None)
        info = service.info(model) or _unopened(model)
    return _document(service, dataclasses.replace(info, id=call.model or info.id))


def _document(service: Service, info: ModelInfo) -> Document:
    """Return a description; a directory is called by its alias, since callers need not know where it lies."""
    aliases = service.settings.aliases
    model = aliases.get(info.id, info.id)
    names = sorted(name for name, target in aliases.items() if target == model and name != info.id)
    if Path(info.id).is_absolute() and names:
        info = dataclasses.replace(info, id=names.pop(0))
    return {**model_document(info), "aliases": names}


def _unopened(model: str) -> ModelInfo:
    return ModelInfo(
        id=model,
        revision=None,
        architecture="unknown",
        backbone="not opened yet",
        state="available",
        outputs=(),
        scoring=(),
        dims={},
        max_length=0,
        precision="none",
        kernels={},
        size_bytes=0,
        resident_bytes=0,
        pinned=False,
    )
