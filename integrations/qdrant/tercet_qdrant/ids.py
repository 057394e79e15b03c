"""Documents' ids: Qdrant's points are named by whole numbers and UUIDs, documents by anything."""

from __future__ import annotations

import uuid
from typing import Any

from tercet.errors import InvalidInputError
from tercet.ingest import document_id

_LARGEST = 2**64 - 1


def point_id(name: int | str | uuid.UUID) -> int | str:
    """Return the id of a document's point, always the same one for the same name.

    Whole numbers and UUIDs stay what they are; any other text becomes a UUID, version 5.

    Raises:
        InvalidInputError: neither a text nor a UUID nor a number that Qdrant takes.
    """
    if isinstance(name, uuid.UUID):
        return str(name)
    if isinstance(name, str):
        return _canonical(name) or document_id(name)
    if isinstance(name, bool) or not isinstance(name, int) or not 0 <= name <= _LARGEST:
        raise InvalidInputError(f"id {name!r}: give a whole number from 0 to 2**64 − 1, a UUID or any text")
    return name


def keeps_name(name: Any, point: int | str) -> bool:
    """Return whether the point's id already says what the document was called."""
    return str(name) == str(point)


def _canonical(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
