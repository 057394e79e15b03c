"""Scores from embeddings: dot products, sparse dot products, MaxSim."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.fusion import maxsim, sparse_dot
from tercet.types import MultiVectorBatch, SparseBatch


def similarity(query: Any, documents: Any, *, mean_over_query: bool = False) -> NDArray[np.float32]:
    """Return (n,) scores of documents against one query, both of the same output.

    Args:
        query: (d,) dense, a `SparseVector`, or (tokens, d).
        documents: (n, d) dense, a `SparseBatch`, or a `MultiVectorBatch`.
        mean_over_query: MaxSim as the mean over query tokens (BGE-M3), not their sum.
    """
    match documents:
        case SparseBatch():
            return sparse_dot(query, documents)
        case MultiVectorBatch():
            return maxsim(query, documents) / np.float32(len(query) if mean_over_query else 1)
        case _:
            # Row by row, since a BLAS product may round equal rows differently and so break ties.
            dots: NDArray[np.float32] = (documents * query).sum(axis=1)
            return dots


def best_first(scores: NDArray[np.float32], top_k: int | None) -> NDArray[np.int64]:
    """Return the indices of the `top_k` highest scores (default all), ties in index order."""
    order = np.argsort(-scores, kind="stable")
    return order if top_k is None else order[:top_k]
