"""Collections that know their models: made with a fingerprint, and held against it before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import qdrant_client

from tercet.connect import LOCAL, ConnectChoices, connect
from tercet.errors import InvalidInputError
from tercet.types import Inference
from tercet.vector_spec import VectorSpec
from tercet_qdrant.checked import METADATA, compare, forget, missing
from tercet_qdrant.spec import CollectionSpec, as_spec


def ensure_collection(
    client: qdrant_client.QdrantClient,
    name: str,
    spec: CollectionSpec | VectorSpec,
    *,
    inference: Inference | str = LOCAL,
    connection: ConnectChoices | None = None,
    **options: Any,
) -> bool:
    """Make the collection unless it is there; check it if it is. Safe against another process that does the same.

    Args:
        client: of the server or of local mode.
        name: of the collection.
        spec: its vectors.
        inference: what encodes; "local", a server's URL, an Engine or a Client.
        connection: how to reach it, as `connect` takes it.
        options: passed to `create_collection`, `shard_number` or `on_disk_payload` for example.

    Returns:
        Whether it was made.

    Raises:
        ModelMismatchError: it is there, and holds other vectors.
        TercetError: a model cannot be opened.
    """
    spec, encoder = as_spec(spec), connect(inference, **(connection or {}))
    if not client.collection_exists(name):
        fingerprint = spec.vectors.fingerprint(encoder)
        metadata = {**options.pop("metadata", {}), METADATA: {"fingerprint": fingerprint}}
        try:
            client.create_collection(name, **spec.schema(encoder), metadata=metadata, **options)
            forget(client, name)
            return True
        except Exception:
            if not client.collection_exists(name):
                raise  # otherwise another process has made it in between
    _check(client, name, spec, encoder)
    return False


def check_collection(
    client: qdrant_client.QdrantClient,
    name: str,
    spec: CollectionSpec | VectorSpec,
    *,
    inference: Inference | str = LOCAL,
    connection: ConnectChoices | None = None,
) -> Mapping[str, Mapping[str, Any]]:
    """Return the fingerprint of the spec's models, which can search the collection and fill it.

    Raises:
        ModelMismatchError: the collection holds other vectors; the message says what to do.
        InvalidInputError: there is no such collection, or the spec has not all of its vectors.
        TercetError: a model cannot be opened.
    """
    return _check(client, name, as_spec(spec), connect(inference, **(connection or {})))


def _check(
    client: qdrant_client.QdrantClient, name: str, spec: CollectionSpec, encoder: Inference
) -> Mapping[str, Mapping[str, Any]]:
    if not client.collection_exists(name):
        raise missing(name)
    fingerprint = spec.vectors.fingerprint(encoder)
    config = client.get_collection(name).config
    stored = compare(name, config, fingerprint, spec.schema(encoder))
    if left_out := sorted(set(stored) - set(fingerprint)):
        raise InvalidInputError(
            f"collection {name!r} also has {' and '.join(left_out)} vectors, and every document needs them; "
            "give the spec that the collection was made with"
        )
    return fingerprint
