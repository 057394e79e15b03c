"""Points: documents with their vectors, as Qdrant takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qdrant_client import models

from tercet.connect import LOCAL, ConnectChoices, connect
from tercet.types import Inference, Output
from tercet.vector_spec import VectorSpec
from tercet_qdrant import vectors
from tercet_qdrant.documents import TEXT, Prepared, prepare
from tercet_qdrant.spec import CollectionSpec, as_spec


def embed_points(
    documents: Iterable[Any],
    spec: CollectionSpec | VectorSpec,
    *,
    inference: Inference | str = LOCAL,
    connection: ConnectChoices | None = None,
    text_key: str = TEXT,
) -> list[models.PointStruct]:
    """Return the points of a few documents, the same that `upload` would store; for what `upload` cannot reach.

    Args:
        documents: as `upload` takes them; all of their vectors are held in memory.
        spec: their vectors.
        inference: what encodes. connection: how to reach it.
        text_key: where the payload holds the text.

    Raises:
        InvalidInputError: a document is none.
        TercetError: as `Engine.encode`.
    """
    spec, encoder = as_spec(spec), connect(inference, **(connection or {}))
    fingerprint = spec.vectors.fingerprint(encoder)
    prepared = [prepare(document, fingerprint, text_key) for document in documents]
    return points(prepared, spec.vectors.encode(encoder, [each.text for each in prepared]), spec)


def points(
    documents: Sequence[Prepared], columns: Mapping[Output, Any], spec: CollectionSpec, as_arrays: bool = False
) -> list[models.PointStruct]:
    """Return the points of documents whose vectors are made.

    Args:
        documents: n of them.
        columns: their vectors by output, as `VectorSpec.encode` returns them.
        spec: what the vectors are called.
        as_arrays: leave dense vectors and multivectors in numpy.
    """
    named = {spec.name(output): vectors.rows(column, as_arrays) for output, column in columns.items()}
    return [
        # Not validated: these are our own floats, and checking them one by one takes as long as sending them.
        models.PointStruct.model_construct(
            id=document.point, vector={name: rows[i] for name, rows in named.items()}, payload=document.payload
        )
        for i, document in enumerate(documents)
    ]
