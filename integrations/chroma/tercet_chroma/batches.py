"""`add_batched`: bulk loads into a plain collection, embedded ahead of writing and safe to run again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, cast

from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection

from tercet.errors import InvalidInputError
from tercet.ingest import ahead, batched, digest, document_id
from tercet.inputs import positive, seconds
from tercet.types import Progress
from tercet_chroma.dense import TercetEmbeddingFunction, function_of
from tercet_chroma.patience import Patience

MARK = "tercet_mark"  # the metadata field that says what a vector was made from

_END = object()

Row = tuple[str, str, Mapping[str, Any]]  # id, text, metadata


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows to embed with their vectors, rows of which only the metadata changed, and how many there were in all."""

    fresh: Sequence[Row]
    vectors: Sequence[Any]
    changed: Sequence[Row]
    size: int


def add_batched(
    client: ClientAPI,
    collection: Collection,
    documents: Iterable[str],
    *,
    ids: Iterable[str] | None = None,
    metadatas: Iterable[Mapping[str, Any] | None] | None = None,
    batch_size: int = 512,
    progress: Progress | None = None,
    patience_s: float = 30.0,
) -> int:
    """Add documents or replace those that exist, as a stream; return how many had to be embedded.

    Batches are cut to the client's limit before they are embedded, and the next is embedded while one is written. Each
    record's metadata gets a mark of its text and model, `tercet_mark`: run again after a crash, only what is missing or
    has changed is embedded.

    Args:
        client: of the collection.
        collection: made with a `TercetEmbeddingFunction`; the one stored with it embeds.
        documents: the texts; a generator is read as it is needed.
        ids: one each; None makes them from the texts, so that the same text is the same record.
        metadatas: one each, or None.
        batch_size: documents embedded and written at a time.
        progress: called with (documents done, documents in all, or so far if their number is unknown).
        patience_s: how long a Chroma server may be away.

    Raises:
        InvalidInputError: the collection has another function, or the columns differ in length.
        ModelMismatchError: another model filled the collection.
        TransportError: Chroma's server is away; run it again later.
        TercetError: as `Engine.encode`.
    """
    positive("batch_size", batch_size)
    call = Patience(seconds("patience_s", patience_s) or 0.0)
    function = function_of(collection)
    size = min(batch_size, call(client.get_max_batch_size))
    total = len(documents) if isinstance(documents, Sized) else None
    done = embedded = 0
    for batch in ahead(_batches(call, collection, function, _rows(documents, ids, metadatas), size)):
        _write(call, collection, batch)
        done, embedded = done + batch.size, embedded + len(batch.fresh)
        if progress:
            progress(done, done if total is None else total)
    return embedded


def _rows(
    documents: Iterable[str], ids: Iterable[str] | None, metadatas: Iterable[Mapping[str, Any] | None] | None
) -> Iterator[Row]:
    if isinstance(documents, str):
        raise InvalidInputError("documents is one text; give a list or a generator of texts")
    given = [column for column in (documents, ids, metadatas) if column is not None]
    for row in zip_longest(*given, fillvalue=_END):
        if any(value is _END for value in row):
            raise InvalidInputError("documents, ids and metadatas differ in length; give one each")
        text, *rest = cast(tuple[Any, ...], row)
        key = document_id(text) if ids is None else rest.pop(0)
        yield key, text, (rest.pop(0) if rest else None) or {}


def _batches(
    call: Patience, collection: Collection, function: TercetEmbeddingFunction, rows: Iterable[Row], size: int
) -> Iterator[_Batch]:
    fingerprint = function.fingerprint()
    for given in batched(rows, size):
        unique = {row[0]: row for row in given}  # the last of a repeated id counts
        marked = [(key, text, {**meta, MARK: digest(text, fingerprint)}) for key, text, meta in unique.values()]
        held = call(collection.get, ids=list(unique), include=["documents", "metadatas"])
        stored = _stored(held)
        fresh = [row for row in marked if not _same_vector(row, stored.get(row[0]))]
        kept = [row for row in marked if _same_vector(row, stored.get(row[0]))]
        changed = [row for row in kept if not row[2].items() <= stored[row[0]][1].items()]
        yield _Batch(fresh, function([row[1] for row in fresh]) if fresh else [], changed, len(given))


def _stored(held: Any) -> dict[str, tuple[str | None, Mapping[str, Any]]]:
    columns = zip(held["ids"], held["documents"], held["metadatas"], strict=True)
    return {key: (text, metadata or {}) for key, text, metadata in columns}


def _same_vector(row: Row, stored: tuple[str | None, Mapping[str, Any]] | None) -> bool:
    return stored is not None and stored[0] == row[1] and stored[1].get(MARK) == row[2][MARK]


def _write(call: Patience, collection: Collection, batch: _Batch) -> None:
    if batch.fresh:
        keys, texts, metadatas = (list(column) for column in zip(*batch.fresh, strict=True))
        call(collection.upsert, ids=keys, embeddings=list(batch.vectors), documents=texts, metadatas=metadatas)
    if batch.changed:
        call(collection.update, ids=[row[0] for row in batch.changed], metadatas=[row[2] for row in batch.changed])
