"""`Writer`: points into a collection, in requests that the store takes; what it refuses is found and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import qdrant_client
from qdrant_client import models

from tercet.errors import InvalidInputError
from tercet.types import Output
from tercet_qdrant import vectors
from tercet_qdrant.documents import MARK, Prepared
from tercet_qdrant.patience import refusal, while_away
from tercet_qdrant.points import points
from tercet_qdrant.spec import CollectionSpec

_MOST_REFUSED = 10  # more than that is no matter of single documents


class Writer:
    """Writes to one collection. A request is one that may be repeated: it says all there is to know of its points.

    Args:
        client: of the store.
        name: of the collection.
        spec: what its vectors are called.
        max_request_bytes: of one request.
        patience_s: how long to wait for a store that does not answer.
    """

    def __init__(
        self,
        client: qdrant_client.QdrantClient,
        name: str,
        spec: CollectionSpec,
        max_request_bytes: int,
        patience_s: float,
    ) -> None:
        self._client, self._name, self._spec = client, name, spec
        self._max_request_bytes, self._patience_s = max_request_bytes, patience_s
        self._refused: list[tuple[Any, str]] = []
        self._is_grpc = is_remote(client) and bool(client.init_options.get("prefer_grpc"))

    def upsert(self, documents: Sequence[Prepared], columns: Mapping[Output, Any]) -> None:
        """Store the documents, each replaced whole.

        Raises:
            TransportError: the store does not answer.
            InvalidInputError: it refuses one document after the other.
        """
        if documents:
            made = points(documents, columns, self._spec, as_arrays=self._is_grpc)
            sizes = [a + b.size_bytes for a, b in zip(vectors.sizes(columns), documents, strict=True)]
            self._send(documents, made, sizes, self._upsert_arrays if self._is_grpc else self._upsert)

    def overwrite_payloads(self, documents: Sequence[Prepared]) -> None:
        """Give points that are stored these payloads, their vectors left as they are.

        Raises:
            TransportError: the store does not answer.
            InvalidInputError: it refuses one document after the other.
        """
        operations = [
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(payload=each.payload, points=[each.point])
            )
            for each in documents
        ]
        self._send(documents, operations, [each.size_bytes for each in documents], self._update)

    def raise_refused(self, documents: int) -> None:
        """Raise if the store has refused any of the documents.

        Raises:
            InvalidInputError: it has; the message names them.
        """
        if self._refused:
            told = "; ".join(f"{name!r}: {why}" for name, why in self._refused)
            raise InvalidInputError(
                f"Qdrant has refused {len(self._refused)} of {documents} documents, the others are stored. {told}"
            )

    def _upsert(self, made: list[models.PointStruct]) -> None:
        self._client.upsert(self._name, made, wait=True)

    def _upsert_arrays(self, made: list[Any]) -> None:
        """Store points over gRPC, whose client copies arrays as they are, as long as no sparse vector is among them.

        Those follow, and the mark last of all: what is left in the middle is not taken for stored.
        """
        name = self._spec.sparse_name
        sparse = [
            models.PointVectors(id=each.id, vector={name: each.vector[name]}) for each in made if name in each.vector
        ]
        self._client.upload_collection(
            self._name,
            [{key: value for key, value in each.vector.items() if key != name} for each in made],
            payload=[_without_mark(each.payload) if sparse else each.payload for each in made],
            ids=[each.id for each in made],
            batch_size=len(made),
            max_retries=0,
            wait=True,
        )
        if sparse:
            vectors_ = models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=sparse))
            marks = [
                models.SetPayloadOperation(
                    set_payload=models.SetPayload(payload={MARK: each.payload[MARK]}, points=[each.id])
                )
                for each in made
            ]
            self._update([vectors_, *marks])

    def _update(self, operations: list[models.UpdateOperation]) -> None:
        self._client.batch_update_points(self._name, operations, wait=True)

    def _send(
        self, documents: Sequence[Prepared], made: list[Any], sizes: Sequence[int], call: Callable[[Any], None]
    ) -> None:
        for part in vectors.cut(sizes, self._max_request_bytes):
            self._send_part(documents[part], made[part], call)

    def _send_part(self, documents: Sequence[Prepared], made: list[Any], call: Callable[[Any], None]) -> None:
        """Send what belongs together; if that is refused, its halves, down to the documents that are at fault."""
        try:
            while_away(lambda: call(made), self._patience_s)
        except Exception as error:
            why = refusal(error)
            if why is None:
                raise
            if len(made) == 1:
                self._note_refused(documents[0], why, error)
                return
            half = len(made) // 2
            self._send_part(documents[:half], made[:half], call)
            self._send_part(documents[half:], made[half:], call)

    def _note_refused(self, document: Prepared, why: str, error: Exception) -> None:
        name = document.point if document.name is None else document.name
        self._refused.append((name, why))
        if len(self._refused) > _MOST_REFUSED:
            raise InvalidInputError(
                f"Qdrant has refused {len(self._refused)} documents; this is no matter of single ones. The last: "
                f"{name!r}: {why}. What it had taken is stored"
            ) from error


def is_remote(client: qdrant_client.QdrantClient) -> bool:
    """Return whether the client talks to a server; local mode is one object of this process, without locks."""
    options = client.init_options
    return options.get("path") is None and options.get("location") != ":memory:"


def _without_mark(payload: Any) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key != MARK}
