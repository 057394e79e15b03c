"""`import_objects`: documents in, objects with vectors out, while the next batch is being encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from weaviate.classes.query import Filter
from weaviate.collections import Collection

from tercet.connect import LOCAL, connect
from tercet.errors import InvalidInputError
from tercet.ingest import ahead, batched
from tercet.types import Inference, Progress
from tercet.vector_spec import VectorSpec
from tercet_weaviate.collection import claim
from tercet_weaviate.config import TEXT, require
from tercet_weaviate.objects import DIGEST, Columns, Document, Record, record, requests
from tercet_weaviate.sending import Failure, Sender, while_away

BATCH_SIZE = 1024  # documents encoded at once; the engine cuts them to what its device takes
REQUEST_BYTES = 8 << 20
PATIENCE_S = 60.0
MAX_FAILURES = 100


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of the documents.

    Attributes:
        written: objects that are now stored, new or in the place of an older version.
        unchanged: documents that were there already, or came twice.
        failed: objects that Weaviate refused, each also when sent alone.
    """

    written: int
    unchanged: int
    failed: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Documents taken at once: how many, and those of them to write, encoded."""

    taken: int
    records: Sequence[Record]
    columns: Columns


def import_objects(
    collection: Collection[Any, Any],
    documents: Iterable[Document],
    spec: VectorSpec,
    inference: Inference | str = LOCAL,
    *,
    text: str = TEXT,
    key: str | None = None,
    batch_size: int = BATCH_SIZE,
    request_bytes: int = REQUEST_BYTES,
    patience_s: float = PATIENCE_S,
    max_failures: int = MAX_FAILURES,
    progress: Progress | None = None,
) -> ImportReport:
    """Encode and store documents; run again after whatever stopped it, it goes on where it was.

    An object's id is made from its key. Objects that are stored as they would be now are not encoded again; those of
    which a property or a model changed are replaced. Weaviate's own vectorizers are not called.

    Args:
        collection: of a client that is connected; marked as the spec's on the first write.
        documents: properties, or texts alone; read as they are needed.
        spec: the collection's vectors.
        inference: what makes them, as for `connect`.
        text: the property that is encoded.
        key: the property that identifies a document, so that it may change its text; None takes the text.
        batch_size: documents encoded at once.
        request_bytes: about the most that one request holds.
        patience_s: how long to go on trying while Weaviate cannot be reached.
        max_failures: stop once more objects than that were refused.
        progress: called with documents done and, as far as known, in all.

    Returns:
        What became of them. Look at `failed`.

    Raises:
        ModelMismatchError: the collection holds other models' vectors.
        TransportError: Weaviate could not be reached for `patience_s`; what was written stays.
        TercetError: too many objects were refused, or as `Engine.encode`.
    """
    require(spec)
    if batch_size < 1 or request_bytes < 1:
        raise InvalidInputError(f"batch_size={batch_size}, request_bytes={request_bytes}: both are 1 at least")
    inference = connect(inference)
    fingerprint = spec.fingerprint(inference)
    while_away(partial(claim, collection, fingerprint), patience_s)
    total = len(documents) if isinstance(documents, Sized) else None
    records = (record(document, text, key, fingerprint) for document in documents)
    sender = Sender(collection, patience_s, max_failures)
    done = unchanged = 0
    encoded = ahead(_encoded(collection, records, spec, inference, batch_size, patience_s))
    with closing(encoded) as batches:  # an error here ends the thread that encodes
        for batch in batches:
            for objects in requests(batch.records, batch.columns, request_bytes):
                sender.send(objects)
            done += batch.taken
            unchanged += batch.taken - len(batch.records)
            if progress:
                progress(done, done if total is None else total)
    return ImportReport(sender.written, unchanged, tuple(sender.failed))


def _encoded(
    collection: Collection[Any, Any],
    records: Iterable[Record],
    spec: VectorSpec,
    inference: Inference,
    batch_size: int,
    patience_s: float,
) -> Iterator[_Batch]:
    """Yield the records in batches, with the vectors of those that have to be written."""
    for batch in batched(records, batch_size):
        last = {each.uuid: each for each in batch}  # of a document that comes twice, the later version
        stored = while_away(partial(_marks, collection, list(last)), patience_s)
        new = [each for each in last.values() if stored.get(each.uuid) != each.mark]
        columns = spec.encode(inference, [each.text for each in new]) if new else {}
        yield _Batch(len(batch), new, columns)


def _marks(collection: Collection[Any, Any], uuids: Sequence[str]) -> dict[str, Any]:
    """Return the marks of those objects that are stored."""
    found = collection.query.fetch_objects(
        filters=Filter.by_id().contains_any(uuids), limit=len(uuids), return_properties=[DIGEST]
    )
    return {str(each.uuid): each.properties.get(DIGEST) for each in found.objects}
