"""`open_table`: opens a table and says what is wrong with its functions, where LanceDB raises a bare KeyError."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pyarrow as pa
from lancedb.db import AsyncConnection, DBConnection
from lancedb.embeddings import get_registry
from lancedb.table import AsyncTable, Table

from tercet.errors import InvalidInputError
from tercet.types import Inference
from tercet_lancedb.functions import TercetFunction, TercetMultivectorFunction
from tercet_lancedb.layout import TableLayout

_OURS = (TercetFunction, TercetMultivectorFunction)


def open_table(db: DBConnection, name: str, inference: Inference | str | None = None) -> Table:
    """Return the table, its functions known to be registered and its models to be those that filled it.

    Args:
        db: of `lancedb.connect`.
        name: of the table.
        inference: as `connect`, what is going to encode; None takes what is stored with the table.

    Raises:
        InvalidInputError: a function of the table is not registered in this process.
        ModelMismatchError: a model is not the one that filled the table; the message says what to do.
        TercetError: a model cannot be opened.
    """
    table = db.open_table(name)
    _check(table.schema, name, inference)
    return table


async def aopen_table(db: AsyncConnection, name: str, inference: Inference | str | None = None) -> AsyncTable:
    """Return as `open_table`, for LanceDB's asynchronous connections."""
    table = await db.open_table(name)
    await asyncio.to_thread(_check, await table.schema(), name, inference)
    return table


def _check(schema: pa.Schema, name: str, inference: Inference | str | None) -> None:
    metadata = schema.metadata or {}
    for stored in json.loads(metadata.get(b"embedding_functions", b"[]")):
        _check_registered(stored, name)
    if TableLayout.is_in(schema):
        TableLayout.of(schema).connect(inference, f"table {name!r}")
        return
    for config in get_registry().parse_functions(metadata).values():
        if isinstance(config.function, _OURS):
            config.function.check(f"table {name!r}")


def _check_registered(stored: dict[str, Any], name: str) -> None:
    try:
        get_registry().get(stored["name"])
    except KeyError as error:
        raise InvalidInputError(
            f"table {name!r} fills {stored['vector_column']!r} with the function {stored['name']!r}, which is not "
            "registered here; import the module that registers it before the table is opened"
        ) from error
