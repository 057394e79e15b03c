"""MessagePack as the Superlinked SDK speaks it: numpy arrays as maps with binary keys, numbers only, never pickled."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from tercet.errors import InvalidInputError

MSGPACK = "application/msgpack"

_WIDE = ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")
_DTYPES = frozenset({"|b1", "|i1", "|u1", *(f"{order}{kind}" for order in "<>" for kind in _WIDE)})
_MAX_DIMENSIONS = 8


def pack(document: Any) -> bytes:
    """Return a document of dicts, lists, scalars and numpy arrays of numbers as MessagePack."""
    return _ENCODER.encode(document)


def unpack(body: bytes) -> Any:
    """Return the document in a body, its arrays as read-only views of the body's memory.

    Raises:
        InvalidInputError: no MessagePack, or an array of anything but numbers, of more than 8 dimensions, or of another
            length than it says.
    """
    try:
        return _restored(msgspec.msgpack.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
        raise InvalidInputError(f"the body is not MessagePack: {error}") from None
    except RecursionError:
        raise InvalidInputError("the body is nested too deeply") from None


def as_lists(document: Any) -> Any:
    """Return the document with lists and numbers in place of numpy's arrays and scalars.

    Raises:
        InvalidInputError: it holds an extension type.
    """
    return msgspec.to_builtins(document, builtin_types=(bytes,), enc_hook=_as_list)


def _as_list(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise InvalidInputError(f"MessagePack's {type(value).__name__} types mean nothing here")


def _told(value: Any) -> dict[bytes, Any]:
    """Return the map that stands for an array or a scalar of numpy's."""
    if isinstance(value, np.ndarray):
        shape, data = list(value.shape), value.tobytes()
        return {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": shape, b"data": data}
    if isinstance(value, np.generic):
        return {b"nd": False, b"type": value.dtype.str, b"data": value.tobytes()}
    raise NotImplementedError(f"{type(value).__name__} has no MessagePack form")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_told)


def _restored(value: Any) -> Any:
    """Return the value with the maps that stand for arrays and scalars replaced by these."""
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if not isinstance(value, dict):
        return value
    if b"nd" in value:
        return _array(value)
    return {key: _restored(item) for key, item in value.items()}


def _array(told: dict[Any, Any]) -> Any:
    dtype, data, shape = told.get(b"type"), told.get(b"data"), told.get(b"shape", [])
    if not isinstance(dtype, str) or dtype not in _DTYPES or told.get(b"kind", b"") not in (b"", ""):
        raise InvalidInputError(f"a MessagePack array is of type {dtype!r}; only arrays of numbers are read")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(map(_is_size, shape)):
        raise InvalidInputError(f"a MessagePack array's shape must be at most {_MAX_DIMENSIONS} sizes, not {shape!r}")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise InvalidInputError(f"a MessagePack array's data does not fill its shape {shape} of {dtype}")
    try:
        array = np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:  # no data, but sizes beyond what numpy counts
        raise InvalidInputError(f"a MessagePack array cannot have the shape {shape}: {error}") from None
    return array if told[b"nd"] is True else array[()]


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0
