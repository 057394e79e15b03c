"""`QdrantClient` and `AsyncQdrantClient` in which `models.Document` is embedded by Tercet's models.

Everything else is the store's own client. Each method that may be given documents is wrapped the same way: they are
replaced by vectors, many in one call to the model, and the store's method does the rest.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import qdrant_client

from tercet.connect import LOCAL, ConnectChoices
from tercet.errors import InvalidInputError
from tercet.ingest import batched
from tercet.types import Inference
from tercet_qdrant.inline import DocumentResolver

# The methods that may be given documents, and in which arguments.
_QUERIES = {
    "query_points": ("query", "prefetch"),
    "query_points_groups": ("query", "prefetch"),
    "query_batch_points": ("requests",),
}
_UPDATES = {"upsert": ("points",), "update_vectors": ("points",), "batch_update_points": ("update_operations",)}
_STREAMS = {"upload_points": ("points",), "upload_collection": ("vectors",)}
_STREAM_BATCH = 256


class QdrantClient(qdrant_client.QdrantClient):
    """The store's client; `models.Document(text, model)` works in points, queries and nested prefetches.

    Args:
        args: as the store's client takes them.
        inference: what encodes; "local", a server's URL, an Engine or a Client.
        connection: how to reach it, as `connect` takes it.
        keywords: as the store's client takes them.

    Raises:
        InvalidInputError: `cloud_inference`, which leaves documents to the store.
    """

    def __init__(
        self, *args: Any, inference: Inference | str = LOCAL, connection: ConnectChoices | None = None, **keywords: Any
    ) -> None:
        _refuse_cloud(keywords)
        super().__init__(*args, **keywords)
        self._tercet = DocumentResolver(inference, connection or {})


class AsyncQdrantClient(qdrant_client.AsyncQdrantClient):
    """As `QdrantClient`, asynchronous; the models run on other threads.

    `upload_points` and `upload_collection` are plain functions in the store's client, and so they are here.
    """

    def __init__(
        self, *args: Any, inference: Inference | str = LOCAL, connection: ConnectChoices | None = None, **keywords: Any
    ) -> None:
        _refuse_cloud(keywords)
        super().__init__(*args, **keywords)
        self._tercet = DocumentResolver(inference, connection or {})


def _refuse_cloud(keywords: dict[str, Any]) -> None:
    if keywords.get("cloud_inference"):
        raise InvalidInputError(
            "cloud_inference=True leaves documents to the store: use qdrant_client's own client, or leave it out"
        )


def _resolving(method: Callable[..., Any], arguments: tuple[str, ...], is_query: bool) -> Callable[..., Any]:
    """Return the method with documents in these arguments replaced; a request is resolved as a whole."""
    signature = inspect.signature(method)

    def bound(resolver: DocumentResolver, args: Any, keywords: Any) -> inspect.BoundArguments:
        found = signature.bind(*args, **keywords)
        given = {name: found.arguments[name] for name in arguments if name in found.arguments}
        found.arguments.update(resolver.resolve(given, is_query))
        return found

    @functools.wraps(method)
    def call(self: Any, *args: Any, **keywords: Any) -> Any:
        found = bound(self._tercet, (self, *args), keywords)
        return method(*found.args, **found.kwargs)

    @functools.wraps(method)
    async def acall(self: Any, *args: Any, **keywords: Any) -> Any:
        found = await asyncio.to_thread(bound, self._tercet, (self, *args), keywords)
        return await method(*found.args, **found.kwargs)

    return acall if inspect.iscoroutinefunction(method) else call


def _streaming(method: Callable[..., Any], argument: str) -> Callable[..., Any]:
    """Return the method with documents in a stream replaced, a batch at a time."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: Any, *args: Any, **keywords: Any) -> Any:
        found = signature.bind(self, *args, **keywords)
        found.arguments[argument] = _resolved(self._tercet, found.arguments[argument])
        return method(*found.args, **found.kwargs)

    return call


def _resolved(resolver: DocumentResolver, stream: Any) -> Any:
    """Return the stream without documents, as long as it was; arrays of vectors hold none."""
    if isinstance(stream, dict | np.ndarray):
        return stream
    if isinstance(stream, list | tuple):
        return resolver.resolve(list(stream), is_query=False)
    return _each(resolver, stream)


def _each(resolver: DocumentResolver, stream: Iterable[Any]) -> Iterator[Any]:
    for batch in batched(stream, _STREAM_BATCH):
        yield from resolver.resolve(batch, is_query=False)


for _class in (QdrantClient, AsyncQdrantClient):
    for _names, _is_query in ((_QUERIES, True), (_UPDATES, False)):
        for _name, _arguments in _names.items():
            setattr(_class, _name, _resolving(getattr(_class, _name), _arguments, _is_query))
    for _name, (_argument,) in _STREAMS.items():
        setattr(_class, _name, _streaming(getattr(_class, _name), _argument))
