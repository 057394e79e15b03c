"""`Mirror`: keeps a sidecar in step with the collection that it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tercet.errors import InvalidInputError, ModelMismatchError
from tercet.ingest import ahead, batched, digest
from tercet.types import Inference, Output, Progress
from tercet.vector_spec import Fingerprint, VectorSpec, check_fingerprint
from tercet_chroma.ranking import Legs
from tercet_chroma.records import Records
from tercet_chroma.sidecar import Sidecar
from tercet_chroma.store import Store

_OWN = "own:"  # before the mark of a record that came with a dense vector of the caller's
_FLOATS = ("float32", "float16")

Write = Literal["add", "upsert", "update"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch ready to be written.

    Attributes:
        encoded: the records whose documents are new, and `columns`, their vectors by output.
        kept: the records whose vectors are as they should be; only their metadata is written.
        size: how many records were given.
    """

    encoded: Records
    kept: Records
    size: int
    columns: dict[Output, Any] = field(default_factory=dict)


class Mirror:
    """A collection and its sidecar as one: each write goes to both, and one that breaks off is finished later.

    Args:
        store: holds documents and dense vectors.
        sidecar: holds the others.
        spec: makes all of them. inference: runs it.
        batch_size: records encoded and written at a time.

    Raises:
        TercetError: a model cannot be described.
    """

    def __init__(self, store: Store, sidecar: Sidecar, spec: VectorSpec, inference: Inference, batch_size: int) -> None:
        self._store, self._sidecar, self._spec, self._inference = store, sidecar, spec, inference
        self._side = VectorSpec(sparse=spec.sparse, multivector=spec.multivector)
        self._batch_size = min(batch_size, store.max_batch_size)
        self.fingerprint = self._side.fingerprint(inference)

    def agree(self) -> None:
        """Raise unless the sidecar holds what is made now; one that is new is told what that is.

        Raises:
            ModelMismatchError: other models made its vectors.
        """
        if (stored := self._sidecar.fingerprint()) is None:
            self._sidecar.set_fingerprint(self.fingerprint)
        else:
            check_sidecar(stored, self.fingerprint, self._store.collection.name)

    def write(self, kind: Write, records: Records, progress: Progress | None = None) -> None:
        """Add, update or upsert records as Chroma does, the next batch encoded while one is written."""
        done = 0
        for prepared in ahead(self._prepare(kind, batch) for batch in records.batches(self._batch_size)):
            with self._sidecar.writer():
                self._write(kind, prepared)
            done += prepared.size
            if progress:
                progress(done, len(records))

    def legs(self) -> Legs:
        """Return what rankings come from."""
        idf = "sparse" in self.fingerprint and str(self.fingerprint["sparse"]["model"]).startswith("bm25")
        return Legs(self._store, self._sidecar, self._spec, self._inference, idf)

    def delete(self, ids: Sequence[str]) -> None:
        """Delete records."""
        for part in batched(ids, self._store.max_batch_size):
            with self._sidecar.writer():
                self._sidecar.intend(part)
                self._store.call(self._store.collection.delete, ids=part)
                self._sidecar.remove(part)

    def settle(self) -> None:
        """Finish what broke off, or was written past this; while another writes, leave it to do its work."""
        if not self._sidecar.pending() and len(self._sidecar) == self._store.count():
            return
        with self._sidecar.writer(wait=False) as alone:
            if alone:
                self._finish_pending()
                if len(self._sidecar) != self._store.count():
                    self._compare_all()

    def sync(self, afresh: bool = False) -> None:
        """Compare every document with its vectors and make those that are missing or stale; `afresh`, make all."""
        with self._sidecar.writer():
            if afresh:
                self._sidecar.clear()
                self._sidecar.set_fingerprint(self.fingerprint)
            self._finish_pending()
            self._compare_all()

    def _prepare(self, kind: Write, records: Records) -> Prepared:
        """Sort out what is to be done, and encode it."""
        held, size = self._store.documents(records.ids), len(records)
        if kind != "upsert":
            records = _where(records, lambda i: (records.ids[i] in held) == (kind == "update"))
        if records.documents is None and records.embeddings is None:
            return Prepared(records.at([]), records, size)
        stale = self._stale(records, held)
        encoded, kept = _where(records, lambda i: i in stale), _where(records, lambda i: i not in stale)
        return Prepared(encoded, kept, size, self._encode(encoded))

    def _stale(self, records: Records, held: Mapping[str, str | None]) -> set[int]:
        """Return the positions of those whose vectors have to be made, or that bring their own."""
        if records.embeddings is not None or records.documents is None:
            return set(range(len(records)))
        marks = self._sidecar.marks(records.ids)
        return {
            i
            for i, (key, text) in enumerate(zip(records.ids, records.documents, strict=True))
            if held.get(key) != text or marks.get(key) != self._mark(text)
        }

    def _encode(self, records: Records) -> dict[Output, Any]:
        if not len(records) or records.documents is None:
            return {}
        spec = self._spec if records.embeddings is None else self._side
        return spec.encode(self._inference, records.documents)

    def _write(self, kind: Write, prepared: Prepared) -> None:
        records, kept, collection = prepared.encoded, prepared.kept, self._store.collection
        if len(kept) and kept.metadatas is not None and kind != "add":
            self._store.call(collection.update, ids=kept.ids, metadatas=kept.metadatas)
        if not len(records):
            return
        embeddings = records.embeddings if records.embeddings is not None else prepared.columns["dense"]
        # What came to be since it was looked for stays pending: it may hold another text than the one encoded here.
        taken = set(self._store.ids(records.ids)) if kind == "add" else set()
        self._sidecar.intend(records.ids)
        self._store.call(
            getattr(collection, kind),
            ids=records.ids,
            embeddings=embeddings,
            documents=records.documents,
            metadatas=records.metadatas,
        )
        if records.documents is not None and not taken:
            made_by = _OWN if records.embeddings is not None else ""
            marks = [made_by + self._mark(text) for text in records.documents]
            self._sidecar.put(dict(zip(records.ids, marks, strict=True)), prepared.columns)
        else:
            self._finish_pending()

    def _finish_pending(self) -> None:
        for part in batched(self._sidecar.pending(), self._batch_size):
            held = self._store.documents(part)
            self._sidecar.remove([key for key in part if key not in held])
            self._renew(held)

    def _compare_all(self) -> None:
        extra = set(self._sidecar.marks())
        for page in self._store.pages():
            extra -= page.keys()
            for part in batched(page.items(), self._batch_size):
                self._renew(dict(part))
        self._sidecar.remove(sorted(extra))

    def _renew(self, held: Mapping[str, str | None]) -> None:
        """Make the vectors of those documents whose marks differ, and strike all of them off."""
        marks = self._sidecar.marks(list(held))
        stale = {
            key: text for key, text in held.items() if marks.get(key, "none").removeprefix(_OWN) != self._mark(text)
        }
        texts = [text for text in stale.values() if text is not None]
        columns = self._side.encode(self._inference, texts) if texts else {}
        ordered = sorted(stale, key=lambda key: stale[key] is None)  # those without a text have no rows in the columns
        self._sidecar.put({key: self._mark(stale[key]) for key in ordered}, columns, settled=list(held))

    def _mark(self, text: str | None) -> str:
        return "" if text is None else digest(text, self.fingerprint)


def searchable(spec: VectorSpec) -> VectorSpec:
    """Return the spec if a collection with a sidecar can hold its vectors.

    Raises:
        InvalidInputError: it lacks a vector, or makes some of another type.
    """
    if spec.dense is None or spec.outputs == ("dense",):
        raise InvalidInputError(
            f"the VectorSpec makes {', '.join(spec.outputs)}; a HybridCollection needs dense, and sparse or multivector"
        )
    for output, encoding in spec.encodings.items():
        if encoding.output_dtype not in _FLOATS:
            raise InvalidInputError(f"{output} as {encoding.output_dtype} cannot be held; use {' or '.join(_FLOATS)}")
    return spec


def check_sidecar(stored: Fingerprint, now: Fingerprint, name: str) -> None:
    """Raise unless a sidecar holds exactly the vectors that are made now.

    Raises:
        ModelMismatchError: it holds other ones; the message says what to do.
    """
    where = f"the sidecar of collection {name!r}"
    if missing := [output for output in stored if output not in now]:
        raise ModelMismatchError(
            f"{where} holds {', '.join(missing)} vectors too, which this VectorSpec does not make; add them to it, or "
            "call rebuild() to go on without"
        )
    check_fingerprint(stored, now, where)


def _where(records: Records, wanted: Callable[[int], bool]) -> Records:
    return records.at([i for i in range(len(records)) if wanted(i)])
