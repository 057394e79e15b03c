"""`HybridCollection`: dense vectors in Chroma, sparse and token vectors beside it, searched together."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection
from chromadb.api.types import DeleteResult, GetResult, Where, WhereDocument, maybe_cast_one_to_many

from tercet.connect import LOCAL, ConnectChoices, connect
from tercet.errors import InvalidInputError
from tercet.fusion import Fusion
from tercet.inputs import positive, seconds
from tercet.types import Inference, Progress
from tercet.vector_spec import VectorSpec
from tercet_chroma.dense import TercetEmbeddingFunction
from tercet_chroma.mirror import Mirror, searchable
from tercet_chroma.ranking import Search
from tercet_chroma.records import Records
from tercet_chroma.rerank import RankedResult
from tercet_chroma.results import checked_include, ranked_result
from tercet_chroma.sidecar import Sidecar, erase
from tercet_chroma.store import Store


class HybridCollection:
    """A collection of Chroma, embedded or `chroma run`, that also knows words and tokens.

    Its methods take and return what those of Chroma's `Collection` do. Documents, metadata and dense vectors are in
    Chroma; sparse and token vectors are in a sidecar, one file for each collection. Writes go to both, large ones in
    batches, the next of them encoded while one is written; a write that breaks off anywhere, even by `kill -9`, is
    finished by the next use. Run again, it encodes only what is missing. Making one does no work: the collection is
    made or opened, and its models are checked, on first use. Thread-safe.

    Args:
        client: `EphemeralClient`, `PersistentClient` or `HttpClient`.
        name: the collection's.
        spec: what makes the vectors; dense, and sparse or multivector or both.
        inference: "local" for the engine in this process, a server's URL, or an object that encodes and scores.
        sidecar: the folder of the sidecar's file; None means beside a `PersistentClient`'s own files, and else in
            memory, made again from Chroma's documents by each process.
        batch_size: records encoded and written at a time, cut to what the client allows.
        patience_s: how long a Chroma server may be away before a call fails.
        configuration, metadata: of the collection, if it is made now.
        choices: how to reach what encodes: `device`, `precision`, … or `api_key_env`.

    Raises:
        InvalidInputError: the spec lacks a vector, or makes some that cannot be held.
    """

    def __init__(
        self,
        client: ClientAPI,
        name: str,
        spec: VectorSpec,
        inference: Inference | str = LOCAL,
        *,
        sidecar: Path | str | None = None,
        batch_size: int = 512,
        patience_s: float = 30.0,
        configuration: Any = None,
        metadata: Mapping[str, Any] | None = None,
        **choices: Unpack[ConnectChoices],
    ) -> None:
        positive("batch_size", batch_size)
        seconds("patience_s", patience_s)
        self._spec, self._given, self._choices = searchable(spec), inference, choices
        self._folder = _folder(client) if sidecar is None else Path(sidecar)
        function = TercetEmbeddingFunction.of_encoding(spec.encodings["dense"], inference, choices)
        made = {
            "configuration": None if configuration is None else dict(configuration),
            "metadata": None if metadata is None else dict(metadata),
        }
        self._store = Store(client, name, function, patience_s, **made)
        self._batch_size = batch_size
        self._opening = threading.RLock()
        self._opened: tuple[Sidecar, Mirror] | None = None
        self._agreed = False

    @property
    def collection(self) -> Collection:
        """Chroma's own object, made or opened now; what is written with it is noticed, or by `sync` at the latest.

        Raises:
            ModelMismatchError: another model filled it.
            TercetError: a model cannot be described.
        """
        with self._opening:
            return self._store.collection

    def add(
        self,
        ids: str | list[str],
        embeddings: Any = None,
        metadatas: Any = None,
        documents: str | list[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Add records; as in Chroma, ids that exist stay as they are, and cost no encoding.

        Args:
            ids: unique.
            embeddings: dense vectors of your own, (n, d); else the documents are encoded.
            metadatas: a mapping or None for each.
            documents: the texts.
            progress: called with (records done, records in all).

        Raises:
            InvalidInputError: neither documents nor embeddings, or columns of different lengths.
            TransportError: Chroma's server is away; run it again later.
            TercetError: as `Engine.encode`.
        """
        self._mirror.settle()
        self._mirror.write("add", _filled(Records.of(ids, documents, metadatas, embeddings)), progress)

    def upsert(
        self,
        ids: str | list[str],
        embeddings: Any = None,
        metadatas: Any = None,
        documents: str | list[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Add records or replace those that exist; a document that is there already is not encoded again.

        Arguments and errors are those of `add`.
        """
        self._mirror.settle()
        self._mirror.write("upsert", _filled(Records.of(ids, documents, metadatas, embeddings)), progress)

    def update(
        self,
        ids: str | list[str],
        embeddings: Any = None,
        metadatas: Any = None,
        documents: str | list[str] | None = None,
    ) -> None:
        """Change records that exist, and leave out those that do not, as Chroma does.

        Arguments and errors are those of `add`; metadata may be all that is given.
        """
        self._mirror.settle()
        self._mirror.write("update", Records.of(ids, documents, metadatas, embeddings))

    def delete(
        self,
        ids: str | list[str] | None = None,
        where: Where | None = None,
        where_document: WhereDocument | None = None,
    ) -> DeleteResult:
        """Delete the records that match all that is given; return how many there were.

        Raises:
            InvalidInputError: nothing is given.
            TransportError: Chroma's server is away.
        """
        if ids is None and where is None and where_document is None:
            raise InvalidInputError("nothing says what to delete; give ids, where or where_document")
        self._mirror.settle()
        listed = maybe_cast_one_to_many(ids)
        found = self._store.ids(listed, where=where, where_document=where_document)
        self._mirror.delete(found)
        return DeleteResult(deleted=len(found))

    def get(self, ids: str | list[str] | None = None, **choices: Any) -> GetResult:
        """Return records, as Chroma's `get` with its arguments."""
        return self._store.call(self.collection.get, ids=ids, **choices)

    def count(self) -> int:
        """Return how many records there are."""
        return self._store.call(self.collection.count)

    def query(
        self,
        query_texts: str | list[str],
        ids: str | list[str] | None = None,
        n_results: int = 10,
        where: Where | None = None,
        where_document: WhereDocument | None = None,
        include: Sequence[str] = ("metadatas", "documents", "distances"),
        *,
        rerank: str | None = None,
        candidates: int = 100,
        reranked: int = 30,
        fuse_by: Fusion = "ranks",
        weights: Sequence[float] | None = None,
        k: float = 60.0,
    ) -> RankedResult:
        """Return for each text the best records: dense and sparse fused, then reranked.

        Args:
            query_texts: one or several.
            ids: only these may be found.
            n_results: records for each text.
            where: a filter on metadata; it and the next hold for both rankings.
            where_document: a filter on the documents.
            include: as in Chroma; `distances` are those of the dense vectors.
            rerank: None, "maxsim" for the stored token vectors, or the name of a cross-encoder.
            candidates: how deep the rankings go.
            reranked: how many of the fused are reranked; only they are returned then.
            fuse_by: "ranks" or "scores", as `tercet.fuse`.
            weights: of the dense and the sparse ranking, default 1 each.
            k: of ranks, how slowly they matter less.

        Raises:
            InvalidInputError: a number below 1, or "maxsim" without stored token vectors.
            TransportError: Chroma's server is away.
            TercetError: as `Engine.encode` and `Engine.score`.
        """
        positive("n_results", n_results)
        positive("candidates", candidates)
        positive("reranked", reranked)
        fields = checked_include(include)
        self._mirror.settle()
        only, texts = maybe_cast_one_to_many(ids), maybe_cast_one_to_many(query_texts) or []
        search = Search(n_results, candidates, reranked, rerank, fuse_by, weights, k, only, where, where_document)
        rankings, vectors = self._mirror.legs().ask(texts, search)
        return ranked_result(self._store, rankings, vectors, fields)

    def sync(self) -> None:
        """Compare every document with its vectors, and make those that are missing or stale.

        Needed only after documents were changed in Chroma past this object; additions and deletions are noticed.
        """
        self._mirror.sync()

    def rebuild(self) -> None:
        """Make all sparse and token vectors again, with the models of the spec; the dense ones stay."""
        self._unchecked.sync(afresh=True)

    def drop(self) -> None:
        """Delete the collection and its sidecar."""
        collection = self.collection
        self._store.call(self._store.client.delete_collection, collection.name)
        self.close()
        self._store.forget()
        if (path := self._path(collection)) is not None:
            erase(path)

    def close(self) -> None:
        """Close the sidecar; the client stays open, and the next use opens the sidecar again."""
        with self._opening:
            if self._opened is not None:
                self._opened[0].close()
                self._opened, self._agreed = None, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _inference(self) -> Inference:
        return connect(self._given, **self._choices)

    @property
    def _unchecked(self) -> Mirror:
        with self._opening:
            if self._opened is None:
                collection = self._store.collection
                sidecar = Sidecar(self._path(collection))
                self._opened = sidecar, Mirror(self._store, sidecar, self._spec, self._inference, self._batch_size)
            return self._opened[1]

    @property
    def _mirror(self) -> Mirror:
        with self._opening:
            mirror = self._unchecked
            if not self._agreed:
                mirror.agree()
                self._agreed = True
            return mirror

    def _path(self, collection: Collection) -> Path | None:
        """Return the file, named by what no other collection is called, not even a later one of the same name."""
        return None if self._folder is None else self._folder / f"{collection.id}.sqlite3"


def _filled(records: Records) -> Records:
    if records.documents is None and records.embeddings is None:
        raise InvalidInputError("records need documents, or embeddings of your own")
    return records


def _folder(client: ClientAPI) -> Path | None:
    settings = client.get_settings()
    return Path(settings.persist_directory) / "tercet" if settings.is_persistent else None
