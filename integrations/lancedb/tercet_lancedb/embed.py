"""`embed_table`: rows in, a table with their vectors out, begun anew or gone on with where it stopped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, Unpack

import pyarrow as pa
from lancedb.db import DBConnection
from lancedb.table import Table
from lancedb.util import value_to_sql

from tercet.connect import LOCAL, ConnectChoices, connect
from tercet.errors import InvalidInputError
from tercet.ingest import ahead, digest, document_id
from tercet.types import Inference
from tercet.vector_spec import VectorSpec
from tercet_lancedb.columns import vector_columns
from tercet_lancedb.layout import MARK, TableLayout
from tercet_lancedb.patience import encoded_patiently
from tercet_lancedb.schema import schema_for

Rows: TypeAlias = "pa.Table | pa.RecordBatch | pa.RecordBatchReader | Iterable[pa.RecordBatch]"

_AHEAD = 1
_UNWRITTEN = _AHEAD + 2  # batches that may be made and not yet in the table: queued, being written, just looked up


@dataclass(frozen=True, slots=True)
class Embedded:
    """How many rows were `written`, and how many were in the table already, `unchanged`."""

    written: int = 0
    unchanged: int = 0


def embed_table(
    db: DBConnection,
    name: str,
    rows: Rows,
    spec: VectorSpec,
    inference: Inference | str = LOCAL,
    *,
    text: str = "text",
    key: str = "id",
    batch_size: int = 1024,
    patience_s: float = 60.0,
    progress: Callable[[Embedded], None] | None = None,
    **choices: Unpack[ConnectChoices],
) -> Table:
    """Return the table, in it every row once, with its vectors; rows that are in it already are not embedded again.

    A row stays as it is if nothing in it changed, is replaced if something did, and is added if its key is new; rows
    that do not come again stay. Each batch is one commit: after a run that ended early, however it ended, call again
    with the same rows. The next batch is embedded while one is written, and about three are in memory at a time.

    Args:
        db: of `lancedb.connect`.
        name: of the table, which is made if there is none, by `schema_for`.
        rows: Arrow data of any size.
        spec: the models.
        inference: as `connect`.
        text: column that is encoded.
        key: column that tells rows apart; if there is none, one is made from the text, so that a text is stored once.
        batch_size: rows embedded and written at once.
        patience_s: how long a server that went away is waited for.
        progress: called after each batch with the rows so far.
        choices: as `ConnectChoices`.

    Raises:
        InvalidInputError: a row without text or key, or columns that do not fit.
        ModelMismatchError: the table was filled with another model.
        TercetError: encoding failed. A note says how many rows are in the table.
    """
    batches = _sized(_tables(rows), batch_size)
    first = next(batches, None)
    if first is None:
        raise InvalidInputError("there are no rows, not even columns, to make a table of; give Arrow data")
    keyed = (_with_key(batch, text, key) for batch in _chain(first, batches))
    columns = _with_key(first.slice(0, 0), text, key).schema
    table, layout = _opened(db, name, schema_for(spec, columns, inference=inference, text=text, key=key, **choices))
    maker = _Maker(table, layout, connect(inference, **choices), patience_s)
    _write_all(table, key, map(maker.make, keyed), progress)
    return table


@dataclass(slots=True)
class _Maker:
    """Makes what is to be written of a batch."""

    table: Table
    layout: TableLayout
    inference: Inference
    patience_s: float
    recent: deque[dict[Any, str]] = field(default_factory=lambda: deque(maxlen=_UNWRITTEN))

    def make(self, batch: pa.Table) -> tuple[pa.Table, int]:
        """Return the rows that are new or changed, with vectors, and how many are not."""
        marks = self._marks(batch)
        last = {one: place for place, one in enumerate(batch[self.layout.key].to_pylist())}
        stored = self._stored(list(last))
        places = [place for one, place in last.items() if stored.get(one) != marks[place]]
        self.recent.append({one: marks[place] for one, place in last.items()})
        changed = batch.take(pa.array(places, pa.int64()))
        return self._embedded(changed, [marks[place] for place in places]), len(last) - len(places)

    def _marks(self, batch: pa.Table) -> list[str]:
        """Return what each row is made from: all of it, so that no column of a stored row is ever an old one."""
        names = sorted(batch.column_names)
        return [digest(repr([row[name] for name in names]), self.layout.fingerprint) for row in batch.to_pylist()]

    def _stored(self, keys: list[Any]) -> dict[Any, str]:
        """Return the marks by key, as they will be when all that was made so far is written."""
        condition = f"`{self.layout.key}` IN ({', '.join(map(value_to_sql, keys))})"
        query = self.table.search().where(condition).select([self.layout.key, MARK]).limit(len(keys))
        found = query.to_arrow()
        marks = dict(zip(found[self.layout.key].to_pylist(), found[MARK].to_pylist(), strict=True))
        for made in self.recent:
            marks |= made
        return marks

    def _embedded(self, rows: pa.Table, marks: list[str]) -> pa.Table:
        if not rows.num_rows:
            return rows
        texts = rows[self.layout.text].to_pylist()
        vectors = encoded_patiently(
            self.inference, lambda: self.layout.spec.encode(self.inference, texts), self.patience_s
        )
        columns = {**vector_columns(vectors), MARK: pa.array(marks, pa.string())}
        for name, column in columns.items():
            rows = rows.append_column(name, column)
        return rows


def _write_all(
    table: Table, key: str, made: Iterator[tuple[pa.Table, int]], progress: Callable[[Embedded], None] | None
) -> None:
    done = Embedded()
    try:
        for rows, unchanged in ahead(made, _AHEAD):
            _write(table, key, rows)
            done = Embedded(done.written + rows.num_rows, done.unchanged + unchanged)
            if progress:
                progress(done)
    except Exception as error:
        error.add_note(
            f"{done.written} rows were written to {table.name!r} by this call, {done.unchanged} were there before; "
            "call embed_table again with the same rows, and it goes on from there"
        )
        raise


def _write(table: Table, key: str, rows: pa.Table) -> None:
    if rows.num_rows:
        table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all().execute(rows)


def _opened(db: DBConnection, name: str, schema: pa.Schema) -> tuple[Table, TableLayout]:
    """Return the table, made if there is none, and its layout, which is checked if there is one."""
    wanted = TableLayout.of(schema)
    try:
        table = db.open_table(name)
    except ValueError as error:
        if "not found" not in str(error):
            raise
        return db.create_table(name, schema=schema), wanted
    found = TableLayout.of(table.schema)
    found.check_same(wanted, f"table {name!r}")
    return table, found


def _tables(rows: Rows) -> Iterator[pa.Table]:
    if isinstance(rows, pa.RecordBatchReader):
        yield rows.schema.empty_table()
    if isinstance(rows, pa.Table | pa.RecordBatch):
        rows = [rows]
    for one in rows:
        if not isinstance(one, pa.Table | pa.RecordBatch):
            raise InvalidInputError(f"rows holds a {type(one).__name__}; give Arrow tables or record batches")
        yield one if isinstance(one, pa.Table) else pa.Table.from_batches([one])


def _sized(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Yield the rows in tables of `size`, the last one perhaps shorter; one without rows if there are none."""
    waiting: pa.Table | None = None
    for table in tables:
        waiting = table if waiting is None else pa.concat_tables([waiting, table])
        while waiting.num_rows >= size:
            yield waiting.slice(0, size)
            waiting = waiting.slice(size)
    if waiting is not None:
        yield waiting


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    if first.num_rows:
        yield first
    yield from (table for table in rest if table.num_rows)


def _with_key(rows: pa.Table, text: str, key: str) -> pa.Table:
    """Return the rows with a key, made from the text where there is none.

    Raises:
        InvalidInputError: a row has no text or no key.
    """
    if key not in rows.column_names and text in rows.column_names:
        ids = [document_id(one or "") for one in rows[text].to_pylist()]
        rows = rows.append_column(key, pa.array(ids, pa.string()))
    for role, name in (("key", key), ("text", text)):
        if name in rows.column_names and rows[name].null_count:
            place = rows[name].to_pylist().index(None)
            raise InvalidInputError(
                f"a row has no {role}: {name!r} is null in {rows.slice(place, 1).to_pylist()[0]}; leave such rows out"
            )
    return rows
