"""Documents as Weaviate's objects: their ids and marks, their vectors on the wire, and requests of bounded size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from weaviate.classes.data import DataObject

from tercet.errors import InvalidInputError
from tercet.ingest import digest, document_id
from tercet.types import Output
from tercet.vector_spec import Fingerprint

DIGEST = "tercet_digest"  # the property that marks what an object was made from

Document = str | Mapping[str, Any]
Columns = Mapping[Output, Any]

_PROPERTY_BYTES = 64  # of an object beside its texts and vectors, about


@dataclass(frozen=True, slots=True)
class Record:
    """A document on its way: its id, its properties with the mark among them, and the text that is encoded."""

    uuid: str
    properties: dict[str, Any]
    text: str

    @property
    def mark(self) -> str:
        """What the object is made from."""
        mark: str = self.properties[DIGEST]
        return mark


def record(document: Document, text: str, key: str | None, fingerprint: Fingerprint) -> Record:
    """Return the record of a document; the same document and models always give the same one.

    The mark covers every property, so that an object of which anything changed is written anew.

    Args:
        document: properties, or a text alone.
        text: the property that is encoded.
        key: the property that says which document it is, whatever its text; None takes the text.
        fingerprint: of the models.

    Raises:
        InvalidInputError: no text, no key, or a property of the name that is kept for the mark.
    """
    properties = {text: document} if isinstance(document, str) else dict(document)
    if not isinstance(properties.get(text), str):
        raise InvalidInputError(f"a document has no text in {text!r}; it has {_names(properties)}")
    if DIGEST in properties:
        raise InvalidInputError(f"the property {DIGEST!r} is written by import_objects; leave it out")
    if key is not None and properties.get(key) is None:
        raise InvalidInputError(f"a document has no {key!r}, its key; it has {_names(properties)}")
    uuid = document_id(str(properties[key or text]))
    made_from = json.dumps(properties, sort_keys=True, ensure_ascii=False, default=str)
    return Record(uuid, {**properties, DIGEST: digest(made_from, fingerprint)}, properties[text])


def requests(records: Sequence[Record], columns: Columns, max_bytes: int) -> Iterator[list[DataObject[Any, Any]]]:
    """Yield the records with their vectors as objects, in lists of about `max_bytes`, one object at least.

    Args:
        records: n documents.
        columns: their vectors, as `VectorSpec.encode` returns them.
        max_bytes: of one request; Weaviate refuses those of more than 100 MB.
    """
    objects: list[DataObject[Any, Any]] = []
    filled = 0
    for i, each in enumerate(records):
        vectors = {output: column[i] for output, column in columns.items()}
        size = _size(each, vectors.values())
        if objects and filled + size > max_bytes:
            yield objects
            objects, filled = [], 0
        objects.append(data_object(each, vectors))
        filled += size
    if objects:
        yield objects


def data_object(each: Record, vectors: Mapping[Output, NDArray[Any]]) -> DataObject[Any, Any]:
    """Return one object with its named vectors, (d,) and (tokens, d).

    The client packs Python floats one by one, and numpy's at half that speed: so they are converted here. A text
    without tokens gets one vector of zeros, since Weaviate takes no empty multivector and MaxSim is 0 either way.
    """
    named: dict[str, Any] = {}
    for output, vector in vectors.items():
        if not vector.size:
            vector = np.zeros((1, vector.shape[-1]), np.float32)
        named[output] = vector.tolist()
    return DataObject(properties=each.properties, uuid=each.uuid, vector=named)


def _size(each: Record, vectors: Iterable[NDArray[Any]]) -> int:
    texts = sum(len(str(value)) for value in each.properties.values())
    return _PROPERTY_BYTES + texts + sum(4 * vector.size for vector in vectors)


def _names(properties: Mapping[str, Any]) -> str:
    return ", ".join(properties) or "nothing"
