"""Collections that know which models made their vectors.

The fingerprint is the description of the property that marks objects: it comes and goes with the schema, and leaves
the collection's own description to its owner.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from weaviate import WeaviateClient
from weaviate.classes.config import DataType, Property, Tokenization
from weaviate.collections import Collection, CollectionAsync
from weaviate.collections.classes.config import CollectionConfig

from tercet.connect import LOCAL, connect
from tercet.errors import InvalidInputError, ModelMismatchError
from tercet.types import Inference
from tercet.vector_spec import Fingerprint, VectorSpec, check_fingerprint
from tercet_weaviate.config import TEXT, Mode, require, vector_config
from tercet_weaviate.objects import DIGEST

AnyCollection = Collection[Any, Any] | CollectionAsync[Any, Any]

# Collections that were found to fit, and what they fit, so that searches ask Weaviate for its schema once.
_checked: WeakKeyDictionary[AnyCollection, tuple[VectorSpec, Inference]] = WeakKeyDictionary()


def ensure_collection(
    client: WeaviateClient,
    name: str,
    spec: VectorSpec,
    inference: Inference | str = LOCAL,
    *,
    server_url: str | None = None,
    mode: Mode = "self-provided",
    text: str = TEXT,
    properties: Sequence[Property] = (),
    **create: Any,
) -> Collection[Any, Any]:
    """Return the collection of that name, made for the spec if it is missing, checked against it if not.

    Args:
        client: connected.
        name: of the collection.
        spec: its vectors.
        inference: what makes them, as for `connect`.
        server_url: as for `vector_config`.
        mode: as for `vector_config`.
        text: the property that is encoded and that hybrid search reads.
        properties: others, with their types; Weaviate guesses those that are not named.
        create: further keywords of `client.collections.create`, and `quantizer` and `encoding` of `vector_config`.

    Raises:
        ModelMismatchError: it holds other models' vectors, or those of models unknown.
        TercetError: as `vector_config`, and where a model cannot be opened.
    """
    vectors = {option: create.pop(option) for option in ("quantizer", "encoding") if option in create}
    configured = vector_config(spec, server_url, mode, text=text, **vectors)
    if any(each.name in (text, DIGEST) for each in properties):
        raise InvalidInputError(f"`properties` is for others than {text!r} and {DIGEST!r}, which are made here")
    if not client.collections.exists(name):
        fingerprint = spec.fingerprint(connect(inference))
        searched = Property(name=text, data_type=DataType.TEXT, vectorize_property_name=False)
        every = [searched, _mark(fingerprint), *properties]
        client.collections.create(name, vector_config=configured, properties=every, **create)
    collection: Collection[Any, Any] = client.collections.use(name)
    check_collection(collection, spec, inference)
    return collection


def check_collection(collection: Collection[Any, Any], spec: VectorSpec, inference: Inference | str = LOCAL) -> None:
    """Raise unless the collection's vectors are those that the spec makes; asked again, it answers from memory.

    Raises:
        ModelMismatchError: they are not; the message says what to do.
        TercetError: as `VectorSpec.fingerprint`.
    """
    inference = connect(inference)
    if not known(collection, spec, inference):
        check_config(collection, collection.config.get(), spec, inference)


def known(collection: AnyCollection, spec: VectorSpec, inference: Inference) -> bool:
    """Return whether the collection was checked before."""
    found = _checked.get(collection)
    return found is not None and found[0] == spec and found[1] is inference


def check_config(collection: AnyCollection, config: CollectionConfig, spec: VectorSpec, inference: Inference) -> None:
    """Do what `check_collection` does, with the schema already read.

    Raises:
        TercetError: as `check_collection`.
    """
    require(spec)
    _require_match(config, spec.fingerprint(inference))
    _checked[collection] = (spec, inference)


def claim(collection: Collection[Any, Any], fingerprint: Fingerprint) -> None:
    """Mark an empty collection as these models', or check the mark that it has: what comes before a write.

    Raises:
        ModelMismatchError: it holds other models' vectors, or those of models unknown.
    """
    config = collection.config.get()
    if _stored(config) is None and not collection.query.fetch_objects(limit=1, return_properties=False).objects:
        collection.config.add_property(_mark(fingerprint))
        config = collection.config.get()
    _require_match(config, fingerprint)


def _mark(fingerprint: Fingerprint) -> Property:
    """Return the property that marks objects, which neither search nor modules read."""
    return Property(
        name=DIGEST,
        data_type=DataType.TEXT,
        description=json.dumps(fingerprint),
        index_filterable=False,
        index_searchable=False,
        skip_vectorization=True,
        vectorize_property_name=False,
        tokenization=Tokenization.FIELD,
    )


def _stored(config: CollectionConfig) -> Fingerprint | None:
    """Return the fingerprint in a schema, if there is one."""
    for each in config.properties:
        if each.name == DIGEST and each.description:
            stored: Fingerprint = json.loads(each.description)
            return stored
    return None


def _require_match(config: CollectionConfig, fingerprint: Fingerprint) -> None:
    where, stored = f"collection {config.name!r}", _stored(config)
    if stored is None:
        raise ModelMismatchError(
            f"{where} does not say which models made its vectors, so those made now cannot be compared with them. "
            "Make a new one with ensure_collection and import the documents into it"
        )
    check_fingerprint(stored, fingerprint, where)
    missing = [output for output in fingerprint if output not in (config.vector_config or {})]
    if missing:
        raise ModelMismatchError(
            f"{where} has no vector named {', '.join(missing)}; make it with ensure_collection or vector_config"
        )
