"""Descriptions of models to documents and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tercet.errors import InvalidInputError
from tercet.types import ModelInfo

_LISTS = ("outputs", "scoring", "notes")


def model_document(info: ModelInfo) -> dict[str, Any]:
    """Return what is known of a model, under the names that its clients look for.

    The fields are `ModelInfo`'s; `name`, `loaded`, `inputs`, `max_sequence_length` and `last_error` say the same again
    to clients of the Superlinked SDK, `object`, `owned_by` and `created` to OpenAI's.
    """
    failure = None if info.error is None else {"code": "LOAD_FAILED", "message": info.error, "permanent": False}
    return {
        **{field.name: getattr(info, field.name) for field in fields(info)},
        "state": _told(info.state),
        "dims": dict(info.dims),
        "kernels": dict(info.kernels),
        "name": info.id,
        "loaded": info.state == "resident",
        "inputs": ["text"],
        "max_sequence_length": info.max_length or None,
        "last_error": failure,
        "object": "model",
        "owned_by": info.id.rpartition("/")[0] or "tercet",
        "created": 0,
    }


def read_model(document: Any) -> ModelInfo:
    """Return the description in a document; names that are not known are skipped.

    Raises:
        InvalidInputError: a field is missing.
    """
    if not isinstance(document, Mapping):
        raise InvalidInputError(f"a model's description is a JSON object, not {type(document).__name__}")
    known = {field.name: document[field.name] for field in fields(ModelInfo) if field.name in document}
    try:
        lists = {name: tuple(known[name]) for name in _LISTS}
        return ModelInfo(**{**known, **lists, "state": _meant(known["state"])})
    except (KeyError, TypeError) as error:
        raise InvalidInputError(f"this is no model's description: {type(error).__name__}: {error}") from None


def _told(state: str) -> str:
    return "loaded" if state == "resident" else state


def _meant(state: Any) -> Any:
    return "resident" if state == "loaded" else state
