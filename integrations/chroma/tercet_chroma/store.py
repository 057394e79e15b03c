"""`Store`: a Chroma collection as the sidecar needs it, in calls that Chroma's limits allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection

from tercet.ingest import batched
from tercet_chroma.dense import TercetEmbeddingFunction, check_collection
from tercet_chroma.patience import Patience

_PAGE = 2_000  # documents read at a time


class Store:
    """A collection, made or opened on first use and held against the function that fills it.

    Args:
        client: any of Chroma's.
        name: the collection's.
        function: makes its dense vectors.
        patience_s: how long a server may be away.
        choices: of `create_collection`: configuration, metadata.
    """

    def __init__(
        self, client: ClientAPI, name: str, function: TercetEmbeddingFunction, patience_s: float, **choices: Any
    ) -> None:
        self.client, self._name, self._function, self._choices = client, name, function, choices
        self.call = Patience(patience_s)

    @cached_property
    def collection(self) -> Collection:
        """Chroma's own object.

        Raises:
            ModelMismatchError: another model filled it.
            InvalidInputError: it was not made with a `TercetEmbeddingFunction`.
        """
        self._function.fingerprint()  # before a collection is made for a model that does not work
        create = self.client.get_or_create_collection
        function: Any = self._function  # Chroma's type asks for one that takes images too
        made = self.call(create, name=self._name, embedding_function=function, **self._choices)
        check_collection(made, self._function)
        return made

    def forget(self) -> None:
        """Let go of the collection; the next use makes or opens it again."""
        self.__dict__.pop("collection", None)

    @cached_property
    def max_batch_size(self) -> int:
        """The most records that one call may hold."""
        return self.call(self.client.get_max_batch_size)

    def count(self) -> int:
        """Return how many records there are."""
        return self.call(self.collection.count)

    def ids(self, ids: Sequence[str] | None = None, **filters: Any) -> list[str]:
        """Return the ids of the records that match, in Chroma's order."""
        if ids is None:
            return self.call(self.collection.get, include=[], **filters)["ids"]
        parts = batched(dict.fromkeys(ids), self.max_batch_size)
        return [key for part in parts for key in self.call(self.collection.get, ids=part, include=[], **filters)["ids"]]

    def documents(self, ids: Sequence[str]) -> dict[str, str | None]:
        """Return the documents of those ids that exist; None for a record without one."""
        if not ids:
            return {}
        return _by_id(self.call(self.collection.get, ids=list(ids), include=["documents"]))

    def pages(self) -> Iterator[dict[str, str | None]]:
        """Yield all documents by id, some at a time."""
        offset = 0
        while page := _by_id(self.call(self.collection.get, limit=_PAGE, offset=offset, include=["documents"])):
            yield page
            offset += len(page)


def _by_id(found: Any) -> dict[str, str | None]:
    return dict(zip(found["ids"], found["documents"], strict=True))
