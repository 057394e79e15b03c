"""`connect`: from what an adapter is given ("local", a URL or an object) to what encodes, one for the whole process."""

from __future__ import annotations

import os
import threading
from typing import Any, TypedDict, Unpack
from weakref import WeakValueDictionary

from tercet.errors import InvalidInputError
from tercet.types import Inference

LOCAL = "local"
_OBJECT = "object:"

_lock = threading.Lock()
_connections: dict[tuple[Any, ...], Inference] = {}
_objects: WeakValueDictionary[str, Inference] = WeakValueDictionary()


class ConnectChoices(TypedDict, total=False):
    """How to reach what encodes; all of it may be stored with a collection, since it holds no secret.

    `api_key_env` names the environment variable that holds a server's key. The others are `Engine`'s, for "local".
    """

    api_key_env: str | None
    device: str
    precision: str
    memory_budget: int | str | None
    allow_download: bool


def connect(inference: Inference | str = LOCAL, **choices: Unpack[ConnectChoices]) -> Inference:
    """Return the engine of this process, a client of a server, or the object itself. Thread-safe.

    The same words give the same object for as long as the process lives, so that adapters may be rebuilt at will:
    databases do it several times a call. After a fork the child gets its own.

    Args:
        inference: "local", the URL of a server, any object that encodes and scores, or what `reference` made of one.
        choices: as `ConnectChoices`; those that are None count as not given.

    Raises:
        InvalidInputError: none of these, choices that do not belong to it, or an environment variable that is not set.
        ImportError: "local" without the engine installed.
    """
    given = {name: value for name, value in choices.items() if value is not None}
    if not isinstance(inference, str):
        _only((), given, "an object that encodes")
        if not isinstance(inference, Inference):
            raise InvalidInputError(
                f"inference is {type(inference).__name__}; give 'local', a server's URL, an Engine or a Client"
            )
        return inference
    if inference.startswith(_OBJECT):
        return _remembered(inference)
    key = (os.getpid(), inference, *sorted(given.items()))
    with _lock:
        if key not in _connections:
            _connections[key] = _opened(inference, given)
        return _connections[key]


def reference(inference: Inference | str) -> str:
    """Return words for `connect` that can be stored: a string as it is, an object under a name of this process's.

    The name leads to the object for as long as somebody else holds it, and nowhere in another process.
    """
    if isinstance(inference, str):
        return inference
    connect(inference)
    name = f"{_OBJECT}{id(inference):x}"
    _objects[name] = inference
    return name


def _opened(inference: str, given: dict[str, Any]) -> Inference:
    if inference == LOCAL:
        _only(("device", "precision", "memory_budget", "allow_download"), given, "'local'")
        from tercet import Engine  # the one place where adapters reach the engine; it needs torch

        return Engine(**given)
    if not inference.startswith(("http://", "https://")):
        raise InvalidInputError(f"inference={inference!r}: give 'local', a server's URL, an Engine or a Client")
    from tercet.client import Client

    _only(("api_key_env",), given, "a server")
    return Client(inference, api_key=_api_key(given.get("api_key_env")))


def _api_key(variable: str | None) -> str | None:
    if variable is not None and not os.environ.get(variable):
        raise InvalidInputError(
            f"the environment variable {variable}, which is to hold the server's API key, is not set"
        )
    return os.environ[variable] if variable else None


def _remembered(name: str) -> Inference:
    found = _objects.get(name)
    if found is None:
        raise InvalidInputError(
            "this was set up with an object of another process, which cannot be stored; give it again, or use 'local' "
            "or a server's URL, which can"
        )
    return found


def _only(known: tuple[str, ...], given: dict[str, Any], what: str) -> None:
    if wrong := [name for name in given if name not in known]:
        takes = f"it takes {', '.join(known)}" if known else "it takes no choices"
        raise InvalidInputError(f"{wrong[0]} does not belong to {what}; {takes}")
