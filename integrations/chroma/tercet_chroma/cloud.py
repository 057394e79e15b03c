"""Hybrid search inside Chroma Cloud: a schema with a dense and a sparse index, and the search over both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chromadb import K, Knn, Rrf, Schema, Search, SparseVectorIndexConfig, VectorIndexConfig
from chromadb.api.types import Space
from chromadb.execution.expression.operator import Key, Where

from tercet.inputs import positive
from tercet_chroma.dense import TercetEmbeddingFunction
from tercet_chroma.sparse import TercetSparseEmbeddingFunction

SPARSE_KEY = "sparse"

# The rank of what a ranking does not hold: so far down that it adds nothing, as in `tercet.rrf`. Without one, Chroma
# would drop the hits of one ranking alone.
_ABSENT = 1e9


def hybrid_schema(
    dense: TercetEmbeddingFunction,
    sparse: TercetSparseEmbeddingFunction,
    *,
    space: Space = "cosine",
    sparse_key: str = SPARSE_KEY,
) -> Schema:
    """Return the schema for `create_collection(…, schema=…)` on Chroma Cloud; documents then get both vectors.

    Chroma embedded and `chroma run` have no sparse index; use `HybridCollection` there.

    Args:
        dense: makes the dense vectors.
        sparse: makes the sparse ones; those of BM25 are weighted by Chroma with their inverse document frequency.
        space: of the dense vectors.
        sparse_key: the metadata field that holds the sparse vectors.

    Raises:
        TercetError: the sparse model cannot be described.
    """
    bm25 = str(sparse.fingerprint()["sparse"]["model"]).startswith("bm25")
    words = SparseVectorIndexConfig(source_key=K.DOCUMENT.name, embedding_function=sparse, bm25=bm25)
    vectors = VectorIndexConfig(space=space, embedding_function=dense)
    return Schema().create_index(vectors).create_index(words, key=sparse_key)


def hybrid_search(
    query: str,
    *,
    limit: int = 10,
    offset: int = 0,
    where: Where | Mapping[str, Any] | None = None,
    candidates: int = 100,
    weights: Sequence[float] | None = None,
    k: int = 60,
    select: Sequence[Key | str] = (K.DOCUMENT, K.METADATA, K.SCORE),
    sparse_key: str = SPARSE_KEY,
) -> Search:
    """Return the search for `collection.search`: both indexes asked, fused by reciprocal ranks on Chroma's side.

    Args:
        query: the question; Chroma's client has both functions encode it as one.
        limit: hits to return, after `offset` of them.
        where: a filter on metadata or documents, for both.
        candidates: how deep each ranking goes; at least `offset` and `limit` together are taken.
        weights: of the dense and the sparse ranking, default 1 each.
        k: how slowly rank matters less.
        select: what is returned of each hit.

    Raises:
        InvalidInputError: limit or candidates below 1.
    """
    positive("limit", limit)
    positive("candidates", candidates)
    depth = max(candidates, offset + limit)
    keys = (K.EMBEDDING, sparse_key)
    ranks = [Knn(query=query, key=key, limit=depth, default=_ABSENT, return_rank=True) for key in keys]
    fused = Rrf([*ranks], k=k, weights=None if weights is None else list(weights))
    filters: Any = dict(where) if isinstance(where, Mapping) else where
    return Search(where=filters).rank(fused).limit(limit, offset=offset).select(*select)
