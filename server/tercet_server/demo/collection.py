"""`Collection`: vectors of a few thousand texts in memory, searched exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tercet.fusion import sparse_dot, top_k
from tercet.types import SparseBatch, SparseVector

Hits = dict[int, float]  # positions in the collection and their scores, best first


class Collection:
    """What a vector database does for a collection, without the database.

    Args:
        dense: (n, d) unit vectors.
        sparse: (n,) BM25 document vectors; this side adds the inverse document frequency.
    """

    def __init__(self, dense: NDArray[np.float32], sparse: SparseBatch) -> None:
        self._dense, self._sparse = dense, sparse
        self._terms, holding = np.unique(sparse.indices, return_counts=True)
        self._idf = np.log1p((len(sparse) - holding + 0.5) / (holding + 0.5)).astype(np.float32)

    def nearest(self, query: NDArray[np.float32], k: int) -> Hits:
        """Return the k texts of highest cosine similarity."""
        return _hits(self._dense @ query, k)

    def lexical(self, query: SparseVector, k: int) -> Hits:
        """Return up to k texts that share a term with the query, by BM25 with idf = ln(1 + (n − df + ½) / (df + ½))."""
        places = np.searchsorted(self._terms, query.indices)
        known = places < len(self._terms)
        known[known] = self._terms[places[known]] == query.indices[known]
        weighted = SparseVector(query.indices[known], query.values[known] * self._idf[places[known]])
        return {i: score for i, score in _hits(sparse_dot(weighted, self._sparse), k).items() if score > 0}


def _hits(scores: NDArray[np.float32], k: int) -> Hits:
    best = top_k(scores, k)
    return dict(zip(best.tolist(), scores[best].tolist(), strict=True))
