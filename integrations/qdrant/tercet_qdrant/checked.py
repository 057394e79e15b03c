"""Whether a collection holds what a spec's models make: compared in full, and once per client before it searches."""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

import qdrant_client
from qdrant_client import models

from tercet.errors import InvalidInputError, ModelMismatchError
from tercet.types import Inference
from tercet.vector_spec import Fingerprint, check_fingerprint
from tercet_qdrant.spec import CollectionSpec, VectorSchema

METADATA = "tercet"  # our key in the collection's metadata

_lock = Lock()
# By client, then by collection and spec: with what it was checked. A client that goes takes its entries along.
_known: WeakKeyDictionary[Any, dict[tuple[str, CollectionSpec], ref[Any]]] = WeakKeyDictionary()


def compare(name: str, config: models.CollectionConfig, fingerprint: Fingerprint, schema: VectorSchema) -> Fingerprint:
    """Return the collection's stored fingerprint, once its vectors are known to be comparable with the spec's.

    Raises:
        ModelMismatchError: they are not.
    """
    where = f"collection {name!r}"
    stored = (config.metadata or {}).get(METADATA)
    if stored is None:
        raise ModelMismatchError(
            f"{where} does not say which models its vectors are of: it was not made by `ensure_collection`, or by a "
            "server before 1.16, which keeps no metadata. Fill a new one"
        )
    found: Fingerprint = stored["fingerprint"]
    check_fingerprint(found, fingerprint, where)
    _check_schema(where, config.params, schema)
    return found


def _check_schema(where: str, params: models.CollectionParams, schema: VectorSchema) -> None:
    dense = params.vectors if isinstance(params.vectors, dict) else {"": params.vectors}
    sparse = params.sparse_vectors or {}
    for name, wanted in schema["vectors_config"].items():
        found = dense.get(name)
        if found is None or found.size != wanted.size:
            have = ", ".join(f"{key!r} of {value.size}" for key, value in dense.items() if value) or "none"
            raise ModelMismatchError(
                f"{where} has no vectors {name!r} of {wanted.size} dimensions; it has {have}. Give the spec the names "
                "that the collection was made with, or fill a new one"
            )
    for name, kept in schema["sparse_vectors_config"].items():
        if name not in sparse or sparse[name].modifier != kept.modifier:
            have = ", ".join(f"{key!r} with modifier {value.modifier}" for key, value in sparse.items()) or "none"
            raise ModelMismatchError(
                f"{where} has no sparse vectors {name!r} with modifier {kept.modifier}; it has {have}. Give the spec "
                "the names that the collection was made with, or fill a new one"
            )


def missing(name: str) -> InvalidInputError:
    """Return the error for a collection that is not there."""
    return InvalidInputError(f"there is no collection {name!r}; make it with `ensure_collection`")


def check_once(client: qdrant_client.QdrantClient, name: str, spec: CollectionSpec, encoder: Inference) -> None:
    """Check before a client's first search of a collection; later ones cost nothing.

    Raises:
        ModelMismatchError: its vectors are not the spec's; a spec with some of them only is no mistake here.
        InvalidInputError: there is no such collection.
    """
    if not _is_known(client, name, spec, encoder):
        if not client.collection_exists(name):
            raise missing(name)
        _check_now(client, name, spec, encoder, client.get_collection(name).config)


async def acheck_once(
    client: qdrant_client.AsyncQdrantClient, name: str, spec: CollectionSpec, encoder: Inference
) -> None:
    """As `check_once`, for an asynchronous client."""
    if not _is_known(client, name, spec, encoder):
        if not await client.collection_exists(name):
            raise missing(name)
        config = (await client.get_collection(name)).config
        await asyncio.to_thread(_check_now, client, name, spec, encoder, config)


def forget(client: Any, name: str) -> None:
    """Check again before the next search of a collection, which has been made anew."""
    with _lock:
        kept = {key: value for key, value in _known.get(client, {}).items() if key[0] != name}
        _known[client] = kept


def _check_now(
    client: Any, name: str, spec: CollectionSpec, encoder: Inference, config: models.CollectionConfig
) -> None:
    compare(name, config, spec.vectors.fingerprint(encoder), spec.schema(encoder))
    with _lock:
        _known.setdefault(client, {})[name, spec] = ref(encoder)


def _is_known(client: Any, name: str, spec: CollectionSpec, encoder: Inference) -> bool:
    with _lock:
        found = _known.get(client, {}).get((name, spec))
    return found is not None and found() is encoder
