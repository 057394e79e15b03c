"""Bodies as JSON: requests read into types, answers written from results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import msgspec
import numpy as np
import orjson

from tercet.errors import InvalidInputError


def decode_json(raw: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Return the JSON body in the decoder's type.

    Raises:
        InvalidInputError: not JSON, or not of that shape; the message says where.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"the body does not fit: {error}") from None
    except RecursionError:
        raise InvalidInputError("the body is nested too deeply") from None
    except ValueError as error:
        what = "is empty; send a JSON object" if not raw.strip() else f"is not JSON in UTF-8: {error}"
        raise InvalidInputError(f"the body {what}") from None


def to_json(body: Any) -> bytes:
    """Return a body of dicts, lists, structs, dataclasses and numpy arrays as JSON; unset fields are left out."""
    return orjson.dumps(body, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)


def in_pieces(body: Any) -> Iterator[bytes]:
    """Yield what `to_json` returns, a vector at a time.

    Whoever writes JSON has the interpreter's lock until it is done, for 17 ms of 1,000 vectors, and an event loop waits
    for it, be it on another thread.
    """
    if isinstance(body, msgspec.Struct):
        body = _plain(body)
    if isinstance(body, Mapping):
        yield from _enclosed(b"{", ((to_json(name) + b":", value) for name, value in body.items()), b"}")
    elif isinstance(body, list | tuple) or (isinstance(body, np.ndarray) and body.ndim > 1):
        yield from _enclosed(b"[", ((b"", value) for value in body), b"]")
    else:
        yield to_json(body)


def _enclosed(start: bytes, members: Iterable[tuple[bytes, Any]], end: bytes) -> Iterator[bytes]:
    """Yield members, each after its name, if it has one."""
    yield start
    comma = b""
    for name, value in members:
        yield comma + name
        yield from in_pieces(value)
        comma = b","
    yield end


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        names = _names(type(value))
        return {shown: item for name, shown in names if (item := getattr(value, name)) is not msgspec.UNSET}
    if isinstance(value, np.ndarray):
        return value.tolist()  # orjson takes contiguous arrays alone
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


@cache
def _names(kind: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    """Return each field's name in Python and in JSON."""
    return tuple(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
