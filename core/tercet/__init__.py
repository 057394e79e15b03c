"""Tercet: one inference engine for the small models of retrieval.

Importing it needs numpy and loads no torch. `Engine` is loaded on first use and needs `pip install 'tercet[engine]'`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tercet.connect import connect
from tercet.errors import (
    AuthenticationError,
    CheckpointError,
    DeadlineExceededError,
    EngineClosedError,
    ForbiddenError,
    InvalidInputError,
    MethodNotAllowedError,
    ModelLoadError,
    ModelLoadingError,
    ModelMismatchError,
    ModelNotFoundError,
    OutOfMemoryError,
    OverloadedError,
    RequestTooLargeError,
    RouteNotFoundError,
    TercetError,
    TransportError,
    UnsupportedModelError,
    UnsupportedOperationError,
)
from tercet.fusion import fuse, maxsim, rrf, sparse_dot, top_k, weighted_sum
from tercet.types import (
    Embedding,
    Embeddings,
    Inference,
    Item,
    ModelInfo,
    MultiVectorBatch,
    Quantization,
    Score,
    Scores,
    SparseBatch,
    SparseVector,
    Timings,
)
from tercet.vector_spec import Encoding, VectorSpec
from tercet.version import __version__

if TYPE_CHECKING:
    from tercet.client import AsyncClient, Client
    from tercet.engine.engine import Engine

__all__ = [
    "AsyncClient",
    "AuthenticationError",
    "CheckpointError",
    "Client",
    "DeadlineExceededError",
    "Embedding",
    "Embeddings",
    "Encoding",
    "Engine",
    "EngineClosedError",
    "ForbiddenError",
    "Inference",
    "InvalidInputError",
    "Item",
    "MethodNotAllowedError",
    "ModelInfo",
    "ModelLoadError",
    "ModelLoadingError",
    "ModelMismatchError",
    "ModelNotFoundError",
    "MultiVectorBatch",
    "OutOfMemoryError",
    "OverloadedError",
    "Quantization",
    "RequestTooLargeError",
    "RouteNotFoundError",
    "Score",
    "Scores",
    "SparseBatch",
    "SparseVector",
    "TercetError",
    "Timings",
    "TransportError",
    "UnsupportedModelError",
    "UnsupportedOperationError",
    "VectorSpec",
    "__version__",
    "connect",
    "fuse",
    "maxsim",
    "rrf",
    "sparse_dot",
    "top_k",
    "weighted_sum",
]


# Loaded on first use, so that importing tercet stays quick; Engine needs torch besides.
_LAZY = {
    "AsyncClient": "tercet.client",
    "Client": "tercet.client",
    "Engine": "tercet.engine.engine",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tercet' has no attribute {name!r}")
    try:
        value = getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "tercet":
            raise
        raise ImportError(
            f"tercet.{name} needs {error.name}, which is not installed: pip install 'tercet[engine]'", name=error.name
        ) from error
    globals()[name] = value
    return value
