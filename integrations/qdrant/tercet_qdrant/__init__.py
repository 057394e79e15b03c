"""Tercet for Qdrant: collections that know their models, uploads that resume, hybrid queries in one request.

`tercet_qdrant.edge` turns the same specs, points and queries into those of qdrant-edge, the engine in a process.
"""

from tercet_qdrant.client import AsyncQdrantClient, QdrantClient
from tercet_qdrant.collection import check_collection, ensure_collection
from tercet_qdrant.documents import SourceDocument
from tercet_qdrant.hybrid import ahybrid_query, hybrid_query
from tercet_qdrant.ids import point_id
from tercet_qdrant.points import embed_points
from tercet_qdrant.query import Recipe, query_points
from tercet_qdrant.spec import CollectionSpec
from tercet_qdrant.upload import UploadReport, upload

__all__ = [
    "AsyncQdrantClient",
    "CollectionSpec",
    "QdrantClient",
    "Recipe",
    "SourceDocument",
    "UploadReport",
    "ahybrid_query",
    "check_collection",
    "embed_points",
    "ensure_collection",
    "hybrid_query",
    "point_id",
    "query_points",
    "upload",
]
