"""Stores: the databases that the demo can search in, each through its adapter, all of them with the same results.

Each is made empty in a folder of its own, filled once, and asked for the best of dense and BM25 fused by score.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tercet.errors import TercetError
from tercet.fusion import fuse
from tercet.types import Inference, Progress
from tercet.vector_spec import VectorSpec
from tercet_server.demo.collection import Hits
from tercet_server.demo.search import DENSE_MODEL, FUSED, SHARE, SPARSE_MODEL, Store

SPEC = VectorSpec(dense=DENSE_MODEL, sparse=SPARSE_MODEL)
WEIGHTS = (1 - SHARE, SHARE)
_NAME = "standard-library"


class LanceDB:
    """LanceDB, its tables in a folder."""

    def __init__(self, folder: Path, inference: Inference, texts: Sequence[str], progress: Progress) -> None:
        import lancedb
        import pyarrow as pa

        from tercet_lancedb import create_indices, embed_table, hybrid

        def report(embedded: Any) -> None:
            progress(embedded.written, len(texts))

        rows = pa.table({"id": range(len(texts)), "text": texts})
        self._table = embed_table(lancedb.connect(folder), _NAME, rows, SPEC, inference, progress=report)
        create_indices(self._table)
        self._ask: Callable[[str], Any] = lambda question: hybrid(
            self._table, question, FUSED, candidates=FUSED, fuse_by="scores", weights=WEIGHTS, inference=inference
        )

    def hybrid(self, question: str) -> Hits:
        """Return the positions of the best texts with their fused scores."""
        found = self._ask(question)
        return dict(zip(found["id"].to_pylist(), found["_relevance_score"].to_pylist(), strict=True))


class Qdrant:
    """Qdrant's local mode; Qdrant has no sum of scaled scores, so the two legs are fused here."""

    def __init__(self, folder: Path, inference: Inference, texts: Sequence[str], progress: Progress) -> None:
        from qdrant_client import QdrantClient

        from tercet_qdrant import Recipe, ensure_collection, hybrid_query, upload

        client = QdrantClient(":memory:")
        ensure_collection(client, _NAME, SPEC, inference=inference)
        documents = [{"id": i, "text": text} for i, text in enumerate(texts)]
        upload(client, _NAME, documents, SPEC, inference=inference, progress=progress)
        legs = (VectorSpec(dense=DENSE_MODEL), VectorSpec(sparse=SPARSE_MODEL))
        self._ask: Callable[[str], Any] = lambda question: [
            hybrid_query(client, _NAME, question, leg, limit=FUSED, recipe=Recipe(), inference=inference).points
            for leg in legs
        ]

    def hybrid(self, question: str) -> Hits:
        """Return the positions of the best texts with their fused scores."""
        found = [{int(point.id): point.score for point in points} for points in self._ask(question)]
        return fuse(found, by="scores", weights=WEIGHTS)


class Chroma:
    """Chroma embedded, its files in a folder, and the sidecar beside them."""

    def __init__(self, folder: Path, inference: Inference, texts: Sequence[str], progress: Progress) -> None:
        import chromadb

        from tercet_chroma import HybridCollection

        client = chromadb.PersistentClient(str(folder))
        exact = {"hnsw": {"ef_search": 4 * FUSED}}  # the graph is approximate; this deep it is exact here
        self._collection = HybridCollection(client, _NAME, SPEC, inference, configuration=exact)
        ids = [str(i) for i in range(len(texts))]
        self._collection.upsert(ids, documents=list(texts), progress=progress)

    def hybrid(self, question: str) -> Hits:
        """Return the positions of the best texts with their fused scores."""
        found = self._collection.query(
            question, n_results=FUSED, candidates=FUSED, fuse_by="scores", weights=WEIGHTS, include=()
        )
        return {int(key): score for key, score in zip(found["ids"][0], found["scores"][0], strict=True)}


STORES: Mapping[str, Callable[..., Store]] = {"lancedb": LanceDB, "qdrant": Qdrant, "chroma": Chroma}


@contextmanager
def filled(name: str, inference: Inference, texts: Sequence[str], progress: Progress) -> Iterator[Store]:
    """Give a store that holds the texts; what it wrote is gone afterwards.

    Raises:
        TercetError: its client is not installed.
    """
    try:
        import_module(f"tercet_{name}")
    except ModuleNotFoundError as error:
        raise TercetError(f"the demo in {name} needs {error.name}: pip install 'tercet[demo,{name}]'") from None
    with TemporaryDirectory(prefix="tercet-demo-", ignore_cleanup_errors=sys.platform == "win32") as folder:
        yield STORES[name](Path(folder), inference, texts, progress)
