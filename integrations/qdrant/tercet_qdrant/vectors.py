"""From columns of numpy to what Qdrant stores and asks with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from tercet.types import MultiVectorBatch, Output, SparseBatch, SparseVector

_FLOAT_BYTES = 24  # the longest that a float32 gets in JSON, with its comma
_INDEX_BYTES = 11  # of a sparse vector's index


def rows(column: Any, as_arrays: bool = False) -> list[Any]:
    """Return the vectors of a column, one per document, as Qdrant's models take them.

    Args:
        column: (n, d), a `SparseBatch` or a `MultiVectorBatch`.
        as_arrays: leave numbers in their arrays, views where there is something to view.
    """
    if as_arrays and not isinstance(column, SparseBatch):
        return [_tokens(row) for row in column]
    if isinstance(column, SparseBatch | MultiVectorBatch):
        return [vector(row) for row in column]
    lists: list[Any] = column.tolist()  # in one go: several times faster than row by row
    return lists


def vector(value: Any) -> Any:
    """Return one vector as Qdrant's models take it: a list, lists of tokens, or a `models.SparseVector`.

    A multivector without tokens, which Qdrant refuses, becomes one token of zeros, which is similar to nothing.
    """
    if isinstance(value, SparseVector):
        return models.SparseVector.model_construct(indices=value.indices.tolist(), values=value.values.tolist())
    return _tokens(value).tolist()


def _tokens(value: NDArray[Any]) -> NDArray[Any]:
    return np.zeros((1, value.shape[1]), np.float32) if value.ndim == 2 and not len(value) else value


def sizes(columns: Mapping[Output, Any]) -> list[int]:
    """Return for each document the most bytes that its vectors take in a request."""
    each = [_sizes(column) for column in columns.values()]
    totals: list[int] = np.sum(each, axis=0).tolist()
    return totals


def _sizes(column: Any) -> Any:
    if isinstance(column, SparseBatch):
        return np.diff(column.indptr) * (_INDEX_BYTES + _FLOAT_BYTES)
    if isinstance(column, MultiVectorBatch):
        return np.maximum(np.diff(column.offsets), 1) * column.values.shape[1] * _FLOAT_BYTES
    return np.full(len(column), column.shape[1] * _FLOAT_BYTES)


def cut(documents: Sequence[int], limit_bytes: int) -> list[slice]:
    """Return consecutive ranges of documents that stay below a limit together, or are one document alone.

    Args:
        documents: the bytes of each.
        limit_bytes: of a range.
    """
    ranges: list[slice] = []
    first = total = 0
    for i, size in enumerate(documents):
        if total and total + size > limit_bytes:
            ranges.append(slice(first, i))
            first, total = i, 0
        total += size
    return [*ranges, slice(first, len(documents))] if documents else []
