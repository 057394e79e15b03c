"""`Legs`: the rankings of a hybrid query, fused and reranked; only ids and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chromadb.api.types import Where, WhereDocument
from numpy.typing import NDArray

from tercet.errors import InvalidInputError
from tercet.fusion import Fusion, fuse, maxsim, top_k
from tercet.types import Inference, Output
from tercet.vector_spec import VectorSpec
from tercet_chroma.sidecar import Sidecar
from tercet_chroma.store import Store

MAXSIM = "maxsim"


@dataclass(frozen=True, slots=True)
class Search:
    """How a query is answered, as `HybridCollection.query` documents it."""

    n_results: int
    candidates: int
    reranked: int
    rerank: str | None
    fuse_by: Fusion
    weights: Sequence[float] | None
    k: float
    ids: list[str] | None
    where: Where | None
    where_document: WhereDocument | None

    @property
    def filtered(self) -> bool:
        """Whether some records may not be found."""
        return self.ids is not None or self.where is not None or self.where_document is not None

    @property
    def depth(self) -> int:
        """How deep each ranking goes."""
        return max(self.candidates, self.n_results)


@dataclass(frozen=True, slots=True)
class Legs:
    """Where the rankings come from: dense from Chroma, sparse and token vectors from the sidecar.

    Attributes:
        idf: whether the sparse weights still lack the inverse document frequency, as BM25's do.
    """

    store: Store
    sidecar: Sidecar
    spec: VectorSpec
    inference: Inference
    idf: bool

    def ask(self, texts: Sequence[str], search: Search) -> tuple[list[dict[str, float]], list[NDArray[Any]]]:
        """Return for each text ids and scores, best first, and its dense vector.

        Raises:
            InvalidInputError: as `HybridCollection.query`.
            TercetError: as `Engine.encode` and `Engine.score`.
        """
        if search.rerank == MAXSIM and self.spec.multivector is None:
            raise InvalidInputError(
                "rerank='maxsim' reads stored token vectors, and this VectorSpec has no multivector; add one, or name "
                "a cross-encoder"
            )
        queries = [self.spec.encode_query(self.inference, text) for text in texts]
        vectors = [query["dense"] for query in queries]
        if not queries or (allowed := self._allowed(search)) == []:
            return [{} for _ in queries], vectors
        rankings = []
        for text, query, dense in zip(texts, queries, self._dense(vectors, search, allowed), strict=True):
            fused = self._fused(query, dense, search, allowed)
            rankings.append(dict([*self._reranked(text, query, fused, search).items()][: search.n_results]))
        return rankings, vectors

    def _allowed(self, search: Search) -> list[str] | None:
        """Return the ids that may be found, or None for all."""
        if not search.filtered:
            return None
        return self.store.ids(search.ids, where=search.where, where_document=search.where_document)

    def _dense(
        self, vectors: Sequence[NDArray[Any]], search: Search, allowed: list[str] | None
    ) -> list[dict[str, float]]:
        """Return what Chroma finds for each vector; the filters go along, so that each is as deep as asked for."""
        found = self.store.call(
            self.store.collection.query,
            query_embeddings=list(vectors),
            n_results=search.depth,
            ids=allowed if search.ids is not None else None,  # Chroma fails at ids that do not exist
            where=search.where,
            where_document=search.where_document,
            include=["distances"],
        )
        pairs = zip(found["ids"], found["distances"] or [], strict=True)
        return [dict(zip(ids, (-d for d in distances), strict=True)) for ids, distances in pairs]

    def _fused(
        self, query: dict[Output, Any], dense: dict[str, float], search: Search, allowed: list[str] | None
    ) -> dict[str, float]:
        found = [dense]
        if self.spec.sparse is not None:
            found.append(self.sidecar.search(query["sparse"], search.depth, allowed, self.idf))
        return fuse(found, by=search.fuse_by, k=search.k, weights=search.weights)

    def _reranked(
        self, text: str, query: dict[Output, Any], fused: dict[str, float], search: Search
    ) -> dict[str, float]:
        if search.rerank is None or not fused:
            return fused
        best = list(fused)[: max(search.reranked, search.n_results)]
        if search.rerank == MAXSIM:
            tokens = query["multivector"]
            scores = maxsim(tokens, self.sidecar.matrices(best, tokens.shape[1]))
            return {best[i]: float(scores[i]) for i in top_k(scores, len(best))}
        return self._scored(search.rerank, text, best)

    def _scored(self, model: str, text: str, ids: Sequence[str]) -> dict[str, float]:
        """Return the ids by the scores of a cross-encoder."""
        held = self.store.documents(ids)
        texts = {key: held[key] for key in ids if key in held}
        if without := [key for key, document in texts.items() if document is None]:
            raise InvalidInputError(
                f"record {without[0]!r} has no document that {model} could read; leave `rerank` out, or filter such "
                "records away"
            )
        names = list(texts)
        ranked = self.inference.score(model, text, [document or "" for document in texts.values()])
        return {names[row.index]: row.score for row in ranked}
