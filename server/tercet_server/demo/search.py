"""`Search`: one question answered in four ways by one engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from tercet.fusion import fuse
from tercet_server.demo.collection import Collection, Hits

if TYPE_CHECKING:
    from tercet import Engine
    from tercet.types import Progress

DENSE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SPARSE_MODEL = "bm25"

FUSED = 100  # how deep the lists to fuse go
RERANKED = 30  # how many candidates are read token by token
SHARE = 0.25  # of BM25 beside dense, and of MaxSim beside both; docs/quality.md has the reasons


@dataclass(frozen=True, slots=True)
class Ranking:
    """What one way of searching found: `hits`, and the milliseconds from question to answer."""

    name: str
    hits: Hits
    elapsed_ms: float


class Store(Protocol):
    """A database with the texts in it."""

    def hybrid(self, question: str) -> Hits:
        """Return the positions of the best texts, dense and BM25 fused, with their scores."""
        ...


def fused(first: Hits, second: Hits, share: float = SHARE) -> Hits:
    """Return the scores of both, each scaled to 0 … 1 within its list, added up; `share` is the second's weight."""
    return fuse([first, second], by="scores", weights=(1 - share, share))


def reranked(engine: Engine, question: str, found: Hits, texts: Sequence[str]) -> Hits:
    """Return the best of `found`, their scores fused with Σ_i max_j q_i·d_j over the model's token vectors."""
    best = dict(list(found.items())[:RERANKED])
    candidates = list(best)
    scores = engine.score(DENSE_MODEL, question, [texts[i] for i in candidates], options={"scoring": "maxsim"})
    return fused(best, {candidates[row.index]: row.score for row in scores})


class Search:
    """A collection of texts, encoded once and then asked questions.

    Args:
        engine: what encodes; texts and questions go through the same one.
        texts: the collection.
        progress: called with (texts done, texts in all) of the dense encoding, the slow part.
    """

    def __init__(self, engine: Engine, texts: Sequence[str], progress: Progress | None = None) -> None:
        self._engine, self._texts = engine, texts
        sparse = engine.encode(SPARSE_MODEL, texts, output_types=["sparse"]).sparse
        dense = engine.encode(DENSE_MODEL, texts, progress=progress).dense
        assert dense is not None and sparse is not None
        self._collection = Collection(dense, sparse)

    def ask(self, question: str) -> list[Ranking]:
        """Return the four rankings: dense, sparse, both fused, and the fused ones reranked by MaxSim."""
        dense = _timed("dense", lambda: self._dense(question))
        sparse = _timed("sparse", lambda: self._sparse(question))
        hybrid = _timed("hybrid", lambda: fused(dense.hits, sparse.hits), dense, sparse)
        best = _timed("hybrid + rerank", lambda: reranked(self._engine, question, hybrid.hits, self._texts), hybrid)
        return [dense, sparse, hybrid, best]

    def _dense(self, question: str) -> Hits:
        return self._collection.nearest(self._engine.encode(DENSE_MODEL, question, is_query=True)["dense"], FUSED)

    def _sparse(self, question: str) -> Hits:
        query = self._engine.encode(SPARSE_MODEL, question, output_types=["sparse"], is_query=True)
        return self._collection.lexical(query["sparse"], FUSED)


class StoreSearch:
    """The same in a store: what it makes of both ways of searching, and that reranked."""

    def __init__(self, engine: Engine, texts: Sequence[str], store: Store) -> None:
        self._engine, self._texts, self._store = engine, texts, store

    def ask(self, question: str) -> list[Ranking]:
        """Return the two rankings."""
        hybrid = _timed("hybrid", lambda: self._store.hybrid(question))
        return [
            hybrid,
            _timed("hybrid + rerank", lambda: reranked(self._engine, question, hybrid.hits, self._texts), hybrid),
        ]


def _timed(name: str, find: Callable[[], Hits], *before: Ranking) -> Ranking:
    """Return what `find` finds; its time counts that of the rankings it builds on."""
    started = perf_counter()
    hits = find()
    return Ranking(name, hits, 1000 * (perf_counter() - started) + sum(ranking.elapsed_ms for ranking in before))
