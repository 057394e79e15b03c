"""What is asked: items and how to treat them, as JSON or as an Arrow stream."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import pyarrow as pa

from tercet.errors import InvalidInputError
from tercet.inputs import EncodeParams, ScoreParams, as_item, check_text, token_ids
from tercet.types import Item, ItemLike
from tercet.wire import ARROW, JSON
from tercet.wire.stream import read_stream, write_stream

_KEY = b"request"  # of the schema's metadata: all of the request but its items, as JSON
_ROWS_IN_JSON, _CHARACTERS_IN_JSON = 64, 1 << 16  # up to here JSON is the faster one, and the readable one


def checked_item(value: Any, index: int) -> Item:
    """Return an item that can be sent.

    Raises:
        InvalidInputError: not a string or Item, no Unicode, or ids that are no integers; the message names its index.
    """
    item = as_item(value, index)
    if item.text is not None:
        check_text(item.text, f"item {index}")
    else:
        token_ids(item.input_ids, index)
    return item


def encode_document(params: EncodeParams) -> dict[str, Any]:
    """Return an encode request without its items; what is as by default is left out."""
    default = EncodeParams()
    given = {field.name: getattr(params, field.name) for field in fields(params)}
    return {"params": {name: value for name, value in given.items() if value != getattr(default, name)}}


def score_document(params: ScoreParams, query: Item) -> dict[str, Any]:
    """Return a score request without its items; `top_k` is left to the one who collects all the scores."""
    return {"query": item_document(query), "options": dict(params.options)}


def item_document(item: Item) -> str | dict[str, Any]:
    """Return an item as JSON has it; a text alone stays a text."""
    if item.id is None and item.text is not None:
        return item.text
    ids = None if item.input_ids is None else token_ids(item.input_ids, "query").tolist()
    whole = {"id": item.id, "text": item.text, "input_ids": ids}
    return {name: value for name, value in whole.items() if value is not None}


def request_body(items: Sequence[Item], document: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the media type and the body of a request: JSON for a few short items, else Arrow."""
    if len(items) <= _ROWS_IN_JSON and sum(len(item.text or "") for item in items) <= _CHARACTERS_IN_JSON:
        return JSON, _json({**document, "items": [item_document(item) for item in items]})
    columns = {"text": pa.array([item.text for item in items], pa.string())}
    if any(item.id is not None for item in items):
        columns["id"] = pa.array([item.id for item in items], pa.string())
    if any(item.input_ids is not None for item in items):
        ids = [None if item.input_ids is None else token_ids(item.input_ids, i) for i, item in enumerate(items)]
        columns["input_ids"] = pa.array(ids, pa.list_(pa.int64()))
    return ARROW, write_stream(pa.RecordBatch.from_pydict(columns, metadata={_KEY: _json(document)}))


def read_request(body: bytes) -> tuple[list[ItemLike], dict[str, Any]]:
    """Return the items of an Arrow request, and the rest of it.

    Raises:
        InvalidInputError: no Arrow stream, no column `text` or `input_ids`, a column of another type or of no known
            name, or metadata that is no JSON object.
    """
    batch = read_stream(body)
    columns = {name: _column(batch, name) for name in batch.schema.names}
    if not columns.keys() & {"text", "input_ids"}:
        raise InvalidInputError("the Arrow request has neither a column 'text' nor a column 'input_ids'")
    return _items(columns, batch.num_rows), _rest(batch.schema.metadata or {})


def _items(columns: Mapping[str, list[Any]], size: int) -> list[ItemLike]:
    if columns.keys() == {"text"} and None not in columns["text"]:
        return columns["text"]
    nothing: list[Any] = [None] * size
    texts, keys, ids = (columns.get(name, nothing) for name in ("text", "id", "input_ids"))
    return [Item(text, key, given) for text, key, given in zip(texts, keys, ids, strict=True)]


def _column(batch: pa.RecordBatch, name: str) -> list[Any]:
    kind = batch.schema.field(name).type
    wanted = {"text": _is_text, "id": _is_text, "input_ids": _is_ids}
    if name not in wanted:
        raise InvalidInputError(f"unknown Arrow column {name!r}; known: {', '.join(wanted)}")
    if not wanted[name](kind):
        raise InvalidInputError(
            f"Arrow column {name!r} is {kind}; text and id hold strings, input_ids lists of integers"
        )
    values: list[Any] = batch.column(name).to_pylist()
    return values


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_ids(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(lists and pa.types.is_integer(kind.value_type))


def _rest(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    try:
        rest = json.loads(metadata.get(_KEY, b"{}"))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the Arrow schema's metadata {_KEY.decode()!r} is not JSON: {error}") from None
    if not isinstance(rest, dict):
        raise InvalidInputError(f"the Arrow schema's metadata {_KEY.decode()!r} is not a JSON object")
    return rest


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
