"""Documents on their way into a collection: read, named, and marked with what they were made from."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tercet.errors import InvalidInputError
from tercet.ingest import digest, document_id
from tercet.vector_spec import Fingerprint
from tercet_qdrant.ids import keeps_name, point_id

MARK = "_tercet"  # our key in the payload: what the point was made from, and what its document is called
TEXT = "text"  # where the payload holds the text, unless told otherwise

_FIELDS = ("id", "text", "payload")


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A text with a name of its own and what else is to be stored with it.

    Attributes:
        text: what is encoded, and kept in the payload for cross-encoders.
        id: a whole number, a UUID or any text; None names the document after its text.
        payload: of the point; JSON values.
    """

    text: str
    id: int | str | uuid.UUID | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document as its point will be.

    Attributes:
        name: what the caller calls it. point: the id of its point. payload: all of it, with the mark.
        size_bytes: of the payload as JSON.
    """

    name: Any
    point: int | str
    text: str
    payload: dict[str, Any]
    size_bytes: int

    @property
    def mark(self) -> Mapping[str, Any]:
        """What the point is made from."""
        found: Mapping[str, Any] = self.payload[MARK]
        return found


def prepare(document: Any, fingerprint: Fingerprint, text_key: str = TEXT) -> Prepared:
    """Return the document as its point will be.

    Args:
        document: a mapping, or any object with these attributes: `text`, `id` and `payload`, as in `SourceDocument`.
        fingerprint: of the models that will encode it.
        text_key: where the payload holds the text.

    Raises:
        InvalidInputError: it is none, or its payload is no JSON or has a key of ours.
    """
    text, name, given = _read(document)
    payload = {**given, text_key: text}
    if given.get(text_key, text) != text or MARK in given:
        raise InvalidInputError(
            f"document {name!r}: its payload may not have {MARK!r}, nor another text in {text_key!r}; "
            "rename that key, or choose another `text_key`"
        )
    encoded = _json(payload, name)
    point = document_id(text) if name is None else point_id(name)
    mark = {"vectors": digest(text, fingerprint), "payload": hashlib.blake2b(encoded, digest_size=16).hexdigest()}
    if name is not None and not keeps_name(name, point):
        mark["id"] = name
    return Prepared(name, point, text, {**payload, MARK: mark}, len(encoded) + 200)  # 200: what the mark and ids take


def _read(document: Any) -> tuple[str, Any, Mapping[str, Any]]:
    """Return a document's text, name and payload."""
    if isinstance(document, Mapping):
        if unknown := [key for key in document if key not in _FIELDS]:
            raise InvalidInputError(f"a document has {unknown[0]!r}; it may have {', '.join(_FIELDS)}")
        values = [document.get(name) for name in _FIELDS]
    else:
        values = [getattr(document, name, None) for name in _FIELDS]
    name, text, payload = values
    if not isinstance(text, str):
        raise InvalidInputError(f"document {name!r} has the text {text!r}; give a string")
    if payload is not None and not isinstance(payload, Mapping):
        raise InvalidInputError(f"document {name!r}: its payload is {type(payload).__name__}; give a mapping")
    return text, name, payload or {}


def _json(payload: Mapping[str, Any], name: Any) -> bytes:
    try:
        return json.dumps(payload, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"document {name!r}: its payload is no JSON: {error}") from error
