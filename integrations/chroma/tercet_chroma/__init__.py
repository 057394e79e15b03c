"""Tercet in Chroma: dense and sparse vectors, local hybrid search, reranking and bulk loads.

Importing it registers the embedding functions, without which Chroma cannot open a collection that was made with them.
"""

from tercet_chroma.batches import add_batched
from tercet_chroma.cloud import hybrid_schema, hybrid_search
from tercet_chroma.dense import TercetEmbeddingFunction, check_collection
from tercet_chroma.hybrid import HybridCollection
from tercet_chroma.rerank import RankedResult, Reranker
from tercet_chroma.sparse import TercetSparseEmbeddingFunction

__all__ = [
    "HybridCollection",
    "RankedResult",
    "Reranker",
    "TercetEmbeddingFunction",
    "TercetSparseEmbeddingFunction",
    "add_batched",
    "check_collection",
    "hybrid_schema",
    "hybrid_search",
]
