"""Tercet in LanceDB: embedding functions, bulk embedding, hybrid search and rerankers in its own Arrow formats.

Importing it registers the functions "tercet" and "tercet-multivector", which tables made with them need.
"""

from tercet_lancedb.embed import Embedded, embed_table
from tercet_lancedb.functions import TercetFunction, TercetMultivectorFunction
from tercet_lancedb.hybrid import HybridChoices, Leg, ahybrid, hybrid
from tercet_lancedb.indices import acreate_indices, create_indices
from tercet_lancedb.layout import TableLayout
from tercet_lancedb.rerank import LateInteractionReranker, TercetReranker
from tercet_lancedb.schema import schema_for
from tercet_lancedb.sparse import asparse_search, sparse_search
from tercet_lancedb.tables import aopen_table, open_table

__all__ = [
    "Embedded",
    "HybridChoices",
    "LateInteractionReranker",
    "Leg",
    "TableLayout",
    "TercetFunction",
    "TercetMultivectorFunction",
    "TercetReranker",
    "acreate_indices",
    "ahybrid",
    "aopen_table",
    "asparse_search",
    "create_indices",
    "embed_table",
    "hybrid",
    "open_table",
    "schema_for",
    "sparse_search",
]
