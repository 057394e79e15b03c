"""Weaviate with Tercet's models: vectors made here or by its modules, imports that resume, search that reranks."""

from tercet_weaviate.collection import check_collection, ensure_collection
from tercet_weaviate.compose import compose
from tercet_weaviate.config import headers, vector_config
from tercet_weaviate.hybrid import ahybrid, hybrid
from tercet_weaviate.ingest import ImportReport, import_objects
from tercet_weaviate.sending import Failure

__all__ = [
    "Failure",
    "ImportReport",
    "ahybrid",
    "check_collection",
    "compose",
    "ensure_collection",
    "headers",
    "hybrid",
    "import_objects",
    "vector_config",
]
