"""`upload`: a stream of documents into a collection, encoded and sent at the same time, resumed where it ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import qdrant_client

from tercet.connect import LOCAL, ConnectChoices, connect
from tercet.errors import InvalidInputError
from tercet.ingest import ahead, batched
from tercet.types import Inference, Output, Progress
from tercet.vector_spec import Fingerprint, VectorSpec
from tercet_qdrant.collection import check_collection
from tercet_qdrant.documents import MARK, TEXT, Prepared, prepare
from tercet_qdrant.patience import while_away
from tercet_qdrant.spec import CollectionSpec, as_spec
from tercet_qdrant.write import Writer, is_remote

BATCH_SIZE = 256  # documents encoded in one call; the engine cuts them by tokens
MAX_REQUEST_BYTES = 24 << 20  # a server takes 32 MB, unless told otherwise
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class UploadReport:
    """What an upload has done, in documents.

    Attributes:
        uploaded: encoded and stored. payloads: whose text was stored already, but not this payload.
        unchanged: stored already.
    """

    uploaded: int = 0
    payloads: int = 0
    unchanged: int = 0

    @property
    def documents(self) -> int:
        """All that were given."""
        return self.uploaded + self.payloads + self.unchanged


def upload(
    client: qdrant_client.QdrantClient,
    name: str,
    documents: Iterable[Any],
    spec: CollectionSpec | VectorSpec,
    *,
    inference: Inference | str = LOCAL,
    connection: ConnectChoices | None = None,
    text_key: str = TEXT,
    batch_size: int = BATCH_SIZE,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    patience_s: float = PATIENCE_S,
    progress: Progress | None = None,
) -> UploadReport:
    """Store the documents with their vectors, each once under its id; return what was done.

    Looking up, encoding and sending overlap; memory holds a few batches, whatever the length of the stream. A
    document that is stored already, made from the same text by the same models, is not encoded again; any other is
    replaced whole. So an upload that ended early, however it ended, is completed by running it again. Of documents with
    one id the last one stays. Documents that are no longer given stay stored.

    Args:
        client: of the server or of local mode.
        name: of a collection made with `ensure_collection`.
        documents: mappings or objects with `text`, `id` and `payload`, as `SourceDocument`; any iterable.
        spec: the collection's vectors, all of them.
        inference: what encodes; "local", a server's URL, an Engine or a Client.
        connection: how to reach it, as `connect` takes it.
        text_key: where the payload holds the text.
        batch_size: documents encoded in one call.
        max_request_bytes: of one request to the store.
        patience_s: how long to wait for a store that does not answer, each time.
        progress: called after each batch with the documents done and in all, 0 if their number is not known.

    Raises:
        ModelMismatchError: the collection holds other models' vectors.
        InvalidInputError: a document is none, or the store has refused some; the message names them, and all others
            before the end of the stream are stored.
        TransportError: the store was away for longer than `patience_s`.
        TercetError: as `Engine.encode`.
    """
    if batch_size < 1 or max_request_bytes < 1:
        raise InvalidInputError(f"batch_size={batch_size}, max_request_bytes={max_request_bytes}: give at least 1")
    spec, encoder = as_spec(spec), connect(inference, **(connection or {}))
    fingerprint = while_away(lambda: check_collection(client, name, spec, inference=encoder), patience_s)
    ingest = _Ingest(client, name, spec, encoder, fingerprint, text_key, batch_size, patience_s)
    writer = Writer(client, name, spec, max_request_bytes, patience_s)
    total = len(documents) if isinstance(documents, Sized) else 0
    with closing(ahead(ingest.encoded(documents))) as batches:  # an error here ends the thread that encodes
        return _written(ingest, writer, batches, total, progress)


def _written(
    ingest: _Ingest, writer: Writer, batches: Iterable[_Batch], total: int, progress: Progress | None
) -> UploadReport:
    report = UploadReport()
    for batch in batches:
        with ingest.turn:
            writer.upsert(batch.new, batch.columns)
            writer.overwrite_payloads(batch.changed)
        ingest.finish(batch)
        report = UploadReport(
            report.uploaded + len(batch.new),
            report.payloads + len(batch.changed),
            report.unchanged + batch.unchanged,
        )
        if progress:
            progress(report.documents, total)
    writer.raise_refused(report.documents)
    return report


@dataclass(slots=True)
class _Batch:
    """Documents read together: those to encode, those whose payload alone is new, and how many are stored as given."""

    new: Sequence[Prepared]
    changed: Sequence[Prepared]
    unchanged: int
    columns: dict[Output, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Ingest:
    """The stages before writing, each on a thread of its own."""

    client: qdrant_client.QdrantClient
    name: str
    spec: CollectionSpec
    encoder: Inference
    fingerprint: Fingerprint
    text_key: str
    batch_size: int
    patience_s: float
    pending: set[int | str] = field(default_factory=set)  # points read but not yet written
    turn: Any = None

    def __post_init__(self) -> None:
        self.turn = nullcontext() if is_remote(self.client) else Lock()

    def encoded(self, documents: Iterable[Any]) -> Iterator[_Batch]:
        """Yield the batches with the vectors of what is new."""
        with closing(ahead(self._looked_up(documents))) as batches:
            for batch in batches:
                if batch.new:
                    batch.columns = self.spec.vectors.encode(self.encoder, [each.text for each in batch.new])
                yield batch

    def finish(self, batch: _Batch) -> None:
        """Note that a batch is written, so that later documents of the same ids are compared with what is stored."""
        self.pending.difference_update([each.point for each in (*batch.new, *batch.changed)])

    def _looked_up(self, documents: Iterable[Any]) -> Iterator[_Batch]:
        for group in batched(documents, self.batch_size):
            prepared = [prepare(document, self.fingerprint, self.text_key) for document in group]
            latest = {each.point: each for each in prepared}
            yield self._compared(list(latest.values()), repeated=len(prepared) - len(latest))

    def _compared(self, documents: list[Prepared], repeated: int) -> _Batch:
        # Looked at before the store is asked: what is written in between is seen by one of the two.
        in_flight = {each.point for each in documents} & self.pending
        stored = self._marks([each.point for each in documents if each.point not in in_flight])
        new: list[Prepared] = []
        changed: list[Prepared] = []
        for each in documents:
            mark = stored.get(each.point, {})
            if mark.get("vectors") != each.mark["vectors"]:
                new.append(each)
            elif mark != each.mark:
                changed.append(each)
        self.pending.update(each.point for each in (*new, *changed))
        return _Batch(new, changed, len(documents) - len(new) - len(changed) + repeated)

    def _marks(self, points: list[int | str]) -> dict[Any, dict[str, Any]]:
        """Return what the points that are stored were made from."""
        with self.turn:
            records = while_away(
                lambda: self.client.retrieve(self.name, points, with_payload=[MARK], with_vectors=False),
                self.patience_s,
            )
        return {record.id: (record.payload or {}).get(MARK, {}) for record in records}
